import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Fold } from "../hermes-ws.js";
import { BY, EMPTY, asked, completed, created, pinged, resolved, started } from "./scripted.mjs";

const folded = (...events) => {
  const fold = new Fold();
  for (const event of events) fold.apply(event);
  return fold;
};
const said = (item_id) => ({ type: "message", item_id, run_id: "r", role: "user", status: "completed", text: "", content: [] });
const step = (seq, run_id = "r") => ({ type: "step.started", seq, ts: seq, run_id, step: 1 });
const began = (seq, item_id) => ({ type: "message.started", seq, ts: seq, run_id: "r", item_id, step: 1, role: "assistant" });
const delta = (seq, item_id, text) => ({ type: "message.delta", seq, ts: seq, run_id: "r", item_id, delta: text });
const thought = (seq, item_id, text) => ({ type: "reasoning.delta", seq, ts: seq, run_id: "r", item_id, delta: text });
const known = (seq, item_id, text) => ({ type: "reasoning.available", seq, ts: seq, run_id: "r", item_id, text });
const queued = (seq, run_id, position) => ({ type: "run.queued", seq, ts: seq, run_id, input: "hi", position, by: BY });
const usage = (input_tokens, more) => ({ input_tokens, output_tokens: 1, total_tokens: input_tokens + 1, ...more });
const called = (seq, call_id) => ({
  type: "tool.started", seq, ts: seq, run_id: "r", call_id, step: 1, name: "t", source: "builtin", title: "T", arguments: {},
  annotations: { read_only: true, idempotent: true, destructive: false },
});
const printed = (seq, call_id, more) => ({ type: "tool.output", seq, ts: seq, run_id: "r", call_id, stream: "stdout", ...more });

describe("the fold", () => {
  it("of nothing is the state of a conversation that does not exist", () => {
    assert.deepEqual(new Fold().state, { at: 0, ...EMPTY });
  });

  it("is the same from whichever of its states it goes on, looked at on the way or not", () => {
    const steered = (steer_id, disposition) => ({ type: "run.steered", run_id: "r", steer_id, text: steer_id, by: BY, disposition });
    const of = { run_id: "r", ts: 5 };
    const log = [
      created, { type: "conversation.configured", version: 1, config: { title: "t" }, by: BY }, started(0, "r"), step(0),
      queued(0, "p", 1), queued(0, "q", 1), thought(0, "b", "H"), began(0, "a"), thought(0, "b", "m"), delta(0, "a", "He"),
      known(0, "b", "Hm."), delta(0, "a", "llo"), called(0, "c"), called(0, "d"), steered("s", "pending"), steered("u", "pending"),
      { type: "message.completed", ...of, item_id: "a", text: "Hello.", content: [{ type: "text", text: "Hello." }], partial: true },
      asked(0, "i"), { type: "run.waiting", ...of, interactions: ["i"] }, asked(0, "j"), resolved(0, "i"), resolved(0, "j"),
      { type: "run.resumed", ...of, interactions: ["i", "j"] }, { type: "tool.executing", ...of, call_id: "d", arguments: { a: 1 } },
      printed(0, "d", { chunk: "x" }), printed(0, "d", { chunk: "y" }), printed(0, "d", { stream: "progress", progress: 2, message: "m" }),
      { type: "tool.completed", ...of, call_id: "c", name: "t", status: "denied", output: "no", truncated: false, duration_ms: 0 },
      { type: "tool.completed", ...of, call_id: "d", name: "t", status: "ok", output: "xyz", truncated: true, duration_ms: 3, structured: 7, content: [] },
      { type: "step.completed", ...of, step: 1, duration_ms: 1, usage: usage(1) }, steered("s", "applied"), steered("u", "returned"),
      { ...step(0), step: 2 }, thought(0, "e", "?"), began(0, "f"), { type: "item.discarded", ...of, item_id: "e", reason: "retried" },
      delta(0, "f", "gone"), { type: "item.discarded", ...of, item_id: "f", reason: "failed" }, known(0, "g", "All at once."),
      { type: "run.recovered", ...of, attempt: 2, reason: "server_restarted" }, { type: "run.stopping", ...of, by: BY, mode: "now" },
      { type: "run.cancelled", ...of, reason: "stop", by: BY, usage: usage(1) }, started(0, "q"), asked(0, "k"), began(0, "h"),
    ].map((event, n) => ({ ...event, seq: n + 1 }));
    const { state } = folded(...log);
    const item = (type, id, more) => ({ type, run_id: "r", step: 1, status: "completed", ...more, [type === "tool_call" ? "call_id" : "item_id"]: id });
    const tool = { name: "t", source: "builtin", title: "T", annotations: called(0, "c").annotations };
    const user = { role: "user", status: "completed" };
    assert.deepEqual(state, {
      at: log.length, config: { title: "t" }, config_version: 1, usage: usage(1), interactions: [log.at(-2)],
      queue: [{ run_id: "p", input: "hi", position: 1, by: BY }],
      run: { run_id: "q", agent_name: "demo", model: "m", attempt: 1, by: BY, status: "running", step: 0, started_at: 0, usage: EMPTY.usage },
      items: [
        { type: "message", item_id: "r", run_id: "r", ...user, text: "hi", content: [{ type: "text", text: "hi" }] },
        item("reasoning", "b", { text: "Hm." }),
        item("message", "a", { role: "assistant", text: "Hello.", content: [{ type: "text", text: "Hello." }], partial: true }),
        item("tool_call", "c", { ...tool, status: "denied", arguments: {}, output: "no", truncated: false, duration_ms: 0 }),
        item("tool_call", "d", { ...tool, status: "ok", arguments: { a: 1 }, output: "xyz", truncated: true, duration_ms: 3, structured: 7, content: [] }),
        { type: "message", item_id: "s", run_id: "r", ...user, text: "s", content: [{ type: "text", text: "s" }], steered: true },
        item("reasoning", "g", { step: 2, text: "All at once." }),
        { type: "message", item_id: "q", run_id: "q", ...user, text: "hi", content: [{ type: "text", text: "hi" }] },
        item("message", "h", { role: "assistant", status: "in_progress", text: "", content: [] }),
      ],
    });
    for (let n = 0; n <= log.length; n++) {
      const fold = new Fold(structuredClone(folded(...log.slice(0, n)).state));
      for (const event of log.slice(n)) {
        fold.apply(event);
        assert.deepEqual(fold.state, folded(...log.slice(0, event.seq)).state, `${event.type} after a snapshot at ${n}`);
      }
    }
  });

  it("is the same object until the next event", () => {
    const fold = folded(created, started(2, "r"));
    assert.equal(fold.state, fold.state);
    const before = fold.state;
    fold.apply(pinged(3));
    assert.notEqual(fold.state, before);
    assert.deepEqual(fold.state, { ...before, at: 3 });
    const again = fold.state;
    fold.apply(pinged(4));
    assert.deepEqual([again.at, fold.state.at], [3, 4]);
  });

  it("gives away the lists of a snapshot as they are while they do not change", () => {
    const snapshot = { at: 9, ...EMPTY, items: [said("a")], interactions: [asked(3, "i")] };
    const fold = new Fold(snapshot);
    assert.equal(fold.state.items, snapshot.items);
    assert.equal(fold.state.interactions, snapshot.interactions);
  });

  it("puts another object in the place of what changed, and leaves the rest as it is", () => {
    const fold = folded(created, started(2, "r"), step(3), began(4, "a"), queued(5, "q", 1), asked(6, "i"));
    const before = fold.state;
    const copy = structuredClone(before);
    fold.apply(delta(7, "a", "Hello"));
    const after = fold.state;
    assert.notEqual(after.items, before.items);
    assert.notEqual(after.items[1], before.items[1]);
    for (const same of ["config", "run", "queue", "interactions", "usage"]) assert.equal(after[same], before[same]);
    assert.equal(after.items[0], before.items[0]);
    assert.deepEqual(before, copy, "a state that was given away does not change any more");
  });

  it("keeps the list of items while only something else changes", () => {
    const fold = folded(created, started(2, "r"));
    const { items, interactions } = fold.state;
    fold.apply(step(3));
    assert.equal(fold.state.items, items);
    assert.equal(fold.state.interactions, interactions);
  });

  it("does not change the snapshot that it begins with", () => {
    const snapshot = folded(created, started(2, "r"), step(3), began(4, "a"), delta(5, "a", "Hel"), queued(6, "q", 1)).state;
    const copy = structuredClone(snapshot);
    const fold = new Fold(snapshot);
    for (const event of [delta(7, "a", "lo"), asked(8, "i"), queued(9, "p", 1)]) fold.apply(event);
    assert.equal(fold.state.items[1].text, "Hello");
    assert.deepEqual(snapshot, copy);
  });

  it("goes on with what a snapshot leaves open", () => {
    const open = folded(created, started(2, "r"), step(3), thought(4, "b", "Hm"), called(5, "c"));
    open.apply({ type: "tool.executing", seq: 6, ts: 6, run_id: "r", call_id: "c", arguments: { a: 1 } });
    const later = [thought(7, "b", "m"), printed(8, "c", { chunk: "x" }), known(9, "b", "Hmm.")];
    const fold = new Fold(structuredClone(open.state));
    for (const event of later) [open, fold].forEach((each) => each.apply(event));
    assert.deepEqual(fold.state, open.state);
    assert.equal(fold.state.items[2].output, "x");
  });

  it("has no type in its state, though a snapshot frame has", () => {
    assert.deepEqual(new Fold({ type: "snapshot", at: 4, ...EMPTY, before: "m" }).state, { at: 4, ...EMPTY, before: "m" });
  });

  it("passes over what lies before the snapshot's window", () => {
    const fold = new Fold({ at: 9, ...EMPTY, items: [said("a")], before: "a" });
    const of = { run_id: "r", ts: 10 };
    fold.apply({ ...of, type: "message.completed", seq: 10, item_id: "old", text: "x", content: [] });
    fold.apply({ ...of, type: "item.discarded", seq: 11, item_id: "older", reason: "retried" });
    fold.apply({ ...of, type: "tool.completed", seq: 12, call_id: "c", name: "t", status: "ok", output: "", truncated: false, duration_ms: 1 });
    assert.deepEqual(fold.state, { at: 12, ...EMPTY, items: [said("a")], before: "a" });
  });

  it("counts what it does not know, and what was skipped", () => {
    const fold = folded(created, pinged(2), { type: "skipped", from: 3, to: 40, reason: "compacted" });
    assert.deepEqual(fold.state, { at: 40, ...EMPTY });
    assert.equal(fold.at, 40);
  });

  it("takes back what does not count, also a block that had ended, and finds the others again", () => {
    const fold = folded(created, started(2, "r"), step(3), thought(4, "b", "Hm"), began(5, "a"), known(6, "b", "Hm."));
    fold.apply({ type: "item.discarded", seq: 7, ts: 7, run_id: "r", item_id: "b", reason: "retried" });
    fold.apply(delta(8, "a", "Hello"));
    assert.deepEqual(fold.state.items.map((item) => [item.item_id, item.text]), [["r", "hi"], ["a", "Hello"]]);
  });

  it("takes back what its window begins with, too: older items are then asked for from the next one", () => {
    const open = { ...said("b"), role: "assistant", status: "in_progress", step: 1 };
    const fold = new Fold({ at: 9, ...EMPTY, items: [open, said("s")], before: "b" });
    fold.apply({ type: "item.discarded", seq: 10, ts: 10, run_id: "r", item_id: "b", reason: "retried" });
    assert.deepEqual([fold.state.items, fold.state.before], [[said("s")], "s"]);
  });

  it("begins a call with nothing printed, and nothing cut", () => {
    const { type, seq, ts, ...told } = called(4, "c");
    const [, call] = folded(created, started(2, "r"), step(3), called(4, "c")).state.items;
    assert.deepEqual(call, { ...told, type: "tool_call", status: "started", output: "", truncated: false });
  });

  it("shows progress only while a call runs", () => {
    const fold = folded(created, started(2, "r"), step(3), called(4, "c"));
    fold.apply(printed(5, "c", { stream: "progress", progress: 1, total: 3 }));
    assert.deepEqual(fold.state.items[1].progress, { progress: 1, total: 3 });
    const done = { status: "ok", output: "", truncated: false, duration_ms: 1, structured: { a: 1 } };
    fold.apply({ type: "tool.completed", seq: 6, ts: 6, run_id: "r", call_id: "c", name: "t", ...done });
    const call = fold.state.items[1];
    assert.ok(!("progress" in call));
    assert.deepEqual(call.structured, { a: 1 });
  });

  it("numbers the queue anew when one of it begins, goes first, or is cancelled", () => {
    const fold = folded(created, queued(2, "a", 1), queued(3, "b", 2), queued(4, "c", 1));
    const order = () => fold.state.queue.map(({ run_id, position }) => `${run_id}${position}`).join(" ");
    assert.equal(order(), "c1 a2 b3");
    fold.apply(started(5, "c"));
    assert.equal(order(), "a1 b2");
    fold.apply({ type: "run.cancelled", seq: 6, ts: 6, run_id: "a", reason: "stop", by: BY, usage: EMPTY.usage });
    assert.equal(order(), "b1");
    assert.equal(fold.state.run.run_id, "c");
  });

  it("says what the user said: inputs, and steers once they are heard; nothing anew for a retry", () => {
    const fold = folded(created, started(2, "r", { input: [{ type: "text", text: "a" }, { type: "image", blob: "x" }, { type: "text", text: "b" }] }));
    const steered = (seq, disposition) => ({ type: "run.steered", seq, ts: seq, run_id: "r", steer_id: "s", text: "more", by: BY, disposition });
    fold.apply(steered(3, "pending"));
    assert.deepEqual(fold.state.run.steers, [{ steer_id: "s", text: "more", by: BY }]);
    fold.apply(steered(4, "applied"));
    assert.ok(!("steers" in fold.state.run));
    fold.apply(completed(5, "r"));
    fold.apply(started(6, "q", { retry_of: "r" }));
    assert.deepEqual(fold.state.items.map((item) => [item.text, item.steered]), [["a\nb", undefined], ["more", true]]);
    assert.equal(fold.state.run.retry_of, "r");
  });

  it("adds up what was used, with what only some endpoints tell", () => {
    const fold = folded(created, started(2, "r"), step(3));
    fold.apply({ type: "step.completed", seq: 4, ts: 4, run_id: "r", step: 1, duration_ms: 1, usage: usage(1) });
    fold.apply({ type: "step.completed", seq: 5, ts: 5, run_id: "r", step: 2, duration_ms: 1, usage: usage(2, { reasoning_tokens: 7 }) });
    const both = { input_tokens: 3, output_tokens: 2, total_tokens: 5, reasoning_tokens: 7 };
    assert.deepEqual(fold.state.run.usage, both);
    fold.apply({ ...completed(6, "r"), usage: both });
    assert.deepEqual([fold.state.usage, fold.state.run], [both, null]);
  });

  it("stays `stopping` whatever is asked and answered meanwhile", () => {
    const fold = folded(created, started(2, "r"));
    const status = (type) => {
      fold.apply({ type, seq: fold.at + 1, ts: 3, run_id: "r", interactions: ["i"], by: BY, mode: "now" });
      return fold.state.run.status;
    };
    assert.deepEqual(["run.waiting", "run.resumed", "run.stopping", "run.waiting", "run.resumed"].map(status), ["waiting", "running", "stopping", "stopping", "stopping"]);
  });

  it("lists open interactions in the order in which they were asked", () => {
    const fold = folded(created, started(2, "r"), asked(3, "i"), asked(4, "j"), resolved(5, "i"), asked(6, "k"));
    assert.deepEqual(fold.state.interactions.map(({ interaction_id }) => interaction_id), ["j", "k"]);
    assert.ok(fold.isAsked("j") && !fold.isAsked("i"));
  });
});
