import assert from "node:assert/strict";
import { afterEach, describe, it, mock } from "node:test";
import { CommandRefused, Resynchronized } from "../hermes-ws.js";
import { asked, collected, completed, created, hello, live, pass, pinged, reconnected, replay, resolved, scripted, settled, snapshot, started, warned } from "./scripted.mjs";

afterEach(() => mock.timers.reset());

const UUID = /^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$/;

describe("a command", () => {
  it("goes out after the introduction, under a UUID of its own", async () => {
    const talk = await live(4, {}, { name: "Ada's" });
    void talk.conversation.stop({ run_id: "r" });
    const [introduction, command] = talk.line().sent;
    assert.deepEqual(introduction, { type: "client.update", id: introduction.id, client_id: "me", name: "Ada's", tools: [] });
    assert.deepEqual(command, { type: "run.stop", run_id: "r", id: command.id });
    assert.match(command.id, UUID);
  });

  it("waits for the snapshot: what it causes comes after that", async () => {
    const { client, line } = scripted();
    const conversation = client.conversation("demo");
    const pong = conversation.ping();
    await settled();
    const [hello, ...rest] = snapshot(4);
    await line().say(hello);
    assert.deepEqual(line().sent, []);
    await line().say(...rest);
    await line().ok(line().commands[0], { head: 4 });
    assert.equal(await pong, 4);
  });

  it("that has no answer yet is sent again on the next line, in its place, before what is new", async () => {
    const talk = await live(4);
    const answers = [talk.conversation.ping(), talk.conversation.stop(), talk.conversation.steer("x")];
    const [ping, stop, steer] = talk.line().commands;
    await talk.line().ok(stop);
    await talk.line().end();
    answers.push(talk.conversation.send({ type: "help", id: "mine" }));
    await pass(100);
    assert.deepEqual(talk.line().sent, []);
    await talk.line().say(replay(4, 4));
    assert.deepEqual(talk.line().commands, [ping, steer, { type: "help", id: "mine" }]);
    for (const command of talk.line().commands) await talk.line().ok(command);
    assert.equal((await Promise.all(answers)).length, 4);
  });

  it("that is refused rejects with what the server said", async () => {
    const talk = await live(4);
    const refused = assert.rejects(talk.conversation.steer("x"), {
      name: "CommandRefused", code: "run_not_active", message: "it is run_not_active", retryable: false, path: "$.x", details: { a: 1 },
    });
    await talk.line().refuse(talk.line().commands[0], "run_not_active", { path: "$.x", details: { a: 1 } });
    await refused;
  });

  it("that is refused for the moment is sent again when the server says, for at most half a minute", async () => {
    const talk = await live(4);
    await talk.line().end();
    const refused = assert.rejects(talk.conversation.ping(), { code: "overloaded", retry_after_ms: 12_000 });
    await pass(40_000);
    await talk.line().say(replay(4, 4), { type: "live", at: 4 });
    for (let times = 1; times <= 3; times++) {
      assert.equal(talk.line().commands.length, times);
      await talk.line().refuse(talk.line().commands[0], "overloaded", { retryable: true, retry_after_ms: 12_000 });
      await talk.line().say({ type: "heartbeat", head: 4, ts: 1 });
      await pass(11_999);
      if (times < 3) assert.equal(talk.line().commands.length, times, "not before");
      await pass(1);
    }
    await refused;
    assert.deepEqual(new Set(talk.line().commands.map(({ id }) => id)).size, 1);
  });

  it("that was refused is not sent again on another line", async () => {
    const talk = await live(4);
    const refused = assert.rejects(talk.conversation.ping(), { code: "unsupported" });
    await talk.line().refuse(talk.line().commands[0], "unsupported");
    await refused;
    const next = await reconnected(talk);
    await next.say(replay(4, 4));
    assert.deepEqual(next.commands, []);
  });

  it("that waits for its time is not sent earlier because the line was made anew", async () => {
    const talk = await live(4);
    const pong = talk.conversation.ping();
    await talk.line().refuse(talk.line().commands[0], "overloaded", { retryable: true, retry_after_ms: 5000 });
    await talk.line().end();
    await pass(100);
    await talk.line().say(replay(4, 4));
    assert.deepEqual(talk.line().commands, []);
    await pass(5000);
    await talk.line().ok(talk.line().commands[0]);
    assert.equal(await pong, 0);
  });

  it("that may be tried again, nobody says when, rejects at once", async () => {
    const talk = await live(4);
    const refused = assert.rejects(talk.conversation.run("hi", { when_busy: "reject" }).done, { code: "busy", retryable: true });
    await talk.line().refuse(talk.line().commands[0], "busy", { retryable: true });
    await refused;
  });

  it("that is larger than the server reads is not sent: it would cost the line", async () => {
    const talk = await live(4);
    await assert.rejects(talk.conversation.steer("\u20ac".repeat(700)), { code: "too_large", message: /2000 bytes/ });
    void talk.conversation.steer("e".repeat(1800));
    assert.equal(talk.line().commands.length, 1);
  });

  it("never has half a character in it: no server could read that, and say whose it was", async () => {
    const talk = await live(4);
    void talk.conversation.send({ type: "run.start", input: "cut \ud83d here \udc00", metadata: { "\ud83d\ud83d": "\\ud83d \u{1f600}" } });
    const [{ input, metadata }] = talk.line().commands;
    assert.deepEqual([input, metadata], ["cut \ufffd here \ufffd", { "\ufffd\ufffd": "\\ud83d \u{1f600}" }]);
  });

  it("that the server cannot even read is refused, if it can be no other", async () => {
    const talk = await live(4);
    const unreadable = { type: "error", id: null, code: "invalid_json", message: "too deep", retryable: false };
    const waiting = talk.conversation.send({ type: "ping", id: "a" });
    await talk.line().refuse({ id: "a" }, "overloaded", { retryable: true, retry_after_ms: 500 });
    const refused = assert.rejects(talk.conversation.steer("x"), { code: "invalid_json", message: "too deep" });
    await talk.line().say(unreadable);
    await refused;
    await pass(500);
    void talk.conversation.steer("y");
    const words = await warned(() => talk.line().say(unreadable));
    assert.deepEqual(words, ["hermes-ws: the server could not read a frame: too deep"]);
    await talk.line().ok({ id: "a" });
    await waiting;
  });

  it("under which line after line is lost, with nothing new on them, is given up: it may be the reason", async () => {
    const talk = await live(4);
    const given = assert.rejects(talk.conversation.steer("poison"), { name: "CommandRefused", code: "internal", retryable: true, message: /line was lost/ });
    let copies = 0;
    for (let n = 0; n < 20; n++) {
      copies += talk.line().commands.length;
      const next = await reconnected(talk);
      await next.say(replay(4, 4), { type: "live", at: 4 });
    }
    await given;
    assert.equal(copies, 9, "the first line had a snapshot on it, then there were eight");
  });

  it("is not given up because many lines were lost in a short time: that is what bad networks do", async () => {
    const talk = await live(4);
    await (await reconnected(talk)).say(replay(4, 4));
    const pong = talk.conversation.ping();
    for (let n = 0; n < 9; n++) {
      await talk.line().end();
      await pass(talk.conversation.connection.retry_in_ms);
      await talk.line().say(replay(4, 4));
    }
    await talk.line().ok(talk.line().commands[0], { head: 4 });
    assert.equal(await pong, 4);
  });

  it("is not given up while something happens on the lines, or while there is none", async () => {
    const talk = await live(4);
    const pong = talk.conversation.ping();
    for (let n = 5; n < 20; n++) {
      await (await reconnected(talk)).say(replay(n - 1, n), pinged(n), { type: "live", at: n });
      await reconnected(talk);
    }
    const next = await reconnected(talk);
    await next.say(replay(19, 19));
    await next.ok(next.commands[0], { head: 19 });
    assert.equal(await pong, 19);
  });

  it("that is too large for something on the way is refused at once: the largest of those under way", async () => {
    const talk = await live(4);
    void talk.conversation.steer("small");
    const refused = assert.rejects(talk.conversation.steer("x".repeat(500)), { code: "too_large", retryable: false });
    void talk.conversation.steer("small too");
    await talk.line().end(1009);
    await refused;
    await pass(100);
    await talk.line().say(replay(4, 4));
    assert.deepEqual(talk.line().commands.map(({ text }) => text), ["small", "small too"]);
  });

  it("has an id that a server takes", async () => {
    const talk = await live(4);
    for (const id of ["", "x".repeat(129), 5]) await assert.rejects(talk.conversation.send({ type: "ping", id }), /id: a string/);
    void talk.conversation.send({ type: "ping", id: "x".repeat(128) });
    assert.equal(talk.line().commands.length, 1);
  });

  it("has an id that no other one has which still waits", async () => {
    const talk = await live(4);
    void talk.conversation.send({ type: "ping", id: "a" });
    await assert.rejects(talk.conversation.send({ type: "ping", id: "a" }), /the command a has no answer yet/);
  });

  it("answers in the words of those who answer", async () => {
    const talk = await live(4);
    const approval = asked(5, "i", { digest: "d", options: [{ id: "once" }] });
    const clarify = asked(6, "j", { kind: "clarify", questions: [{ id: "answer" }] });
    void talk.conversation.approve(approval, "run", { arguments: { a: 1 } });
    void talk.conversation.deny("i", "no");
    void talk.conversation.answer(clarify, "red");
    void talk.conversation.reply(clarify, { option: "decline" });
    const replies = talk.line().commands.map(({ type, id, ...reply }) => reply);
    assert.deepEqual(replies, [
      { interaction_id: "i", digest: "d", option: "run", arguments: { a: 1 } },
      { interaction_id: "i", option: "deny", comment: "no" },
      { interaction_id: "j", answers: { answer: "red" } },
      { interaction_id: "j", option: "decline" },
    ]);
    await assert.rejects(talk.conversation.answer(approval, "red"), /a question is needed/);
  });
});

describe("a run", () => {
  const begin = async () => {
    const talk = await live(1);
    const run = talk.conversation.run("hi");
    const told = collected(run);
    return { talk, run, told, command: talk.line().commands[0] };
  };

  it("tells its events and no others', also those that come before the answer, to its end", async () => {
    const { talk, run, told, command } = await begin();
    await talk.line().say(pinged(2), started(3, "r"), completed(4, "other"));
    assert.equal(told.length, 0);
    await talk.line().ok(command, { run_id: "r", at: 3 });
    assert.equal(await run.run_id, "r");
    await talk.line().say(completed(5, "other"), completed(6, "r"), completed(7, "r"));
    assert.equal(await told.end, "ended");
    assert.deepEqual(told.map(({ seq }) => seq), [3, 6]);
    assert.equal((await run.done).seq, 6);
  });

  it("is followed to its end when the loop is left", async () => {
    const { talk, run, command } = await begin();
    await talk.line().ok(command, { run_id: "r" });
    const left = (async () => {
      for await (const event of talk.conversation.run("again")) return event.type;
    })();
    await talk.line().ok(talk.line().commands[1], { run_id: "q" });
    await talk.line().say(started(2, "r"), completed(3, "r"), started(4, "q"));
    assert.equal(await left, "run.started");
    assert.equal((await run.done).type, "run.completed");
  });

  it("keeps nothing for a loop that was left", async () => {
    const talk = await live(1);
    const run = talk.conversation.run("hi");
    const events = run[Symbol.asyncIterator]();
    assert.throws(() => run[Symbol.asyncIterator](), /iterated once/);
    await talk.line().ok(talk.line().commands[0], { run_id: "r" });
    await events.return();
    await talk.line().say(started(2, "r"));
    assert.deepEqual(await events.next(), { done: true, value: undefined });
  });

  it("goes on over a line that was cut, and over a snapshot that came before it was sent", async () => {
    const { client, line, sockets } = scripted();
    const conversation = client.conversation("demo");
    const told = collected(conversation.run("hi"));
    await settled();
    await line().say(...snapshot(1));
    const [command] = line().commands;
    const next = await reconnected({ line, sockets });
    await next.say(replay(1, 2), started(2, "r"), { type: "live", at: 2 });
    await next.ok(command, { run_id: "r", duplicate: true });
    await next.say(completed(3, "r"));
    assert.equal(await told.end, "ended");
    assert.equal(told.length, 2);
  });

  it("that a snapshot has passed over throws, and says how things are", async () => {
    const { talk, run, told, command } = await begin();
    await talk.line().ok(command, { run_id: "r" });
    await talk.line().say(started(2, "r"));
    await (await reconnected(talk)).say(...snapshot(9, { config_version: 2 }, { reason: "gap" }));
    const error = await told.end;
    assert.ok(error instanceof Resynchronized);
    assert.deepEqual([error.reason, error.snapshot], ["gap", talk.conversation.state]);
    assert.equal(told.length, 1, "what was told before is delivered");
    await assert.rejects(run.done, Resynchronized);
  });

  it("that a snapshot has passed over before it was answered throws if it had begun by then", async () => {
    const { talk, run, told, command } = await begin();
    await talk.line().say(started(2, "r"));
    await (await reconnected(talk)).say(...snapshot(9, { run: { run_id: "r" } }, { reason: "gap" }));
    await talk.line().ok(command, { run_id: "r", at: 2, duplicate: true });
    assert.equal((await told.end).reason, "gap");
    assert.equal(await run.run_id, "r");
  });

  it("that begins only after such a snapshot is told as every other", async () => {
    const { talk, told, command } = await begin();
    await (await reconnected(talk)).say(...snapshot(0, {}, { reason: "ahead", epoch: null }), created, started(2, "r"));
    await talk.line().ok(command, { run_id: "r", at: 2 });
    await talk.line().say(completed(3, "r"));
    assert.equal(await told.end, "ended");
    assert.deepEqual(told.map(({ seq }) => seq), [2, 3]);
  });

  it("of a command that was given before, which had ended before we came, is over: there is nothing to wait for", async () => {
    const { talk, run, told, command } = await begin();
    await talk.line().ok(command, { run_id: "r", at: 1, duplicate: true });
    assert.equal((await told.end).reason, "over");
    await assert.rejects(run.done, Resynchronized);
  });

  it("of a command that was given before is told from now on, where it goes on or is only to be told", async () => {
    const going = { run_id: "r", status: "running" };
    const waiting = { run_id: "r", position: 1 };
    const cases = [[{ run: going }, 1], [{ queue: [waiting] }, 1], [{}, 2], [{}, 1, { from: "now" }]];
    for (const [state, at, conversation] of cases) {
      const { client, line } = scripted();
      const run = client.conversation("demo", conversation).run("hi", { id: "mine" });
      await settled();
      const lines = conversation ? [hello(1, { mode: "live", from: 2, to: 1 }), { type: "live", at: 1 }] : snapshot(1, state);
      await line().say(...lines);
      await line().ok(line().commands[0], { run_id: "r", at, duplicate: true });
      await line().say(completed(2, "r"));
      assert.equal((await run.done).seq, 2);
    }
  });

  it("that was refused throws; nobody has to look at all the places where it does", async () => {
    const { talk, run, told, command } = await begin();
    await talk.line().refuse(command, "queue_full");
    assert.ok((await told.end) instanceof CommandRefused);
    await assert.rejects(run.run_id, { code: "queue_full" });
  });

  it("that is refused while nobody looks is warned of", async () => {
    const talk = await live(1);
    const refused = async (look) => {
      const run = talk.conversation.run("");
      look(run);
      const words = await warned(async () => {
        await talk.line().refuse(talk.line().commands.at(-1), "invalid_frame");
        await pass(0);
      });
      assert.deepEqual(words, look === nobody ? ["hermes-ws: a run was refused, and nobody looked: it is invalid_frame"] : []);
    };
    const nobody = () => {};
    const lookers = [nobody, ({ done }) => done, ({ run_id }) => run_id, (run) => void collected(run)];
    for (const look of lookers) await refused(look);
  });

  it("is sent at once, and retried as another", async () => {
    const talk = await live(1);
    talk.conversation.run([{ type: "text", text: "hi" }], { when_busy: "interrupt", id: "mine" });
    talk.conversation.retry("r");
    const [start, retry] = talk.line().commands;
    assert.deepEqual(start, { type: "run.start", input: [{ type: "text", text: "hi" }], when_busy: "interrupt", id: "mine" });
    assert.deepEqual([retry.type, retry.run_id], ["run.retry", "r"]);
  });
});

describe("events", () => {
  it("are told from now on, each once, snapshots among them", async () => {
    const talk = await live(1);
    await talk.line().say(pinged(2));
    const told = collected(talk.conversation.events());
    await talk.line().say(pinged(3));
    await (await reconnected(talk)).say(replay(3, 4), pinged(4), { type: "live", at: 4 });
    await (await reconnected(talk)).say(...snapshot(9, {}, { reason: "gap" }));
    talk.conversation.close();
    assert.equal(await told.end, "ended");
    assert.deepEqual(told.map(({ seq, at }) => seq ?? at), [3, 4, 9]);
  });

  it("wait for a consumer that is slow, thousands of them, in order", async () => {
    const talk = await live(0);
    const events = talk.conversation.events();
    await talk.line().say(created);
    for (let seq = 2; seq <= 5000; seq++) talk.line().onmessage({ data: JSON.stringify(pinged(seq)) });
    const seqs = [];
    for await (const { seq } of events) if (seqs.push(seq) === 5000) break;
    assert.deepEqual(seqs, Array.from({ length: 5000 }, (_, n) => n + 1));
    assert.deepEqual(await events.next(), { done: true, value: undefined });
  });

  it("can be asked for before they are there, several at once", async () => {
    const talk = await live(1);
    const events = talk.conversation.events();
    const three = Promise.all([events.next(), events.next(), events.next()]);
    await talk.line().say(pinged(2), pinged(3), pinged(4), pinged(5));
    assert.deepEqual((await three).map(({ value }) => value.seq), [2, 3, 4]);
    assert.equal((await events.next()).value.seq, 5);
  });

  it("are not told any more to whoever has left, waiting or not", async () => {
    const talk = await live(1);
    const events = talk.conversation.events();
    const waiting = events.next();
    await events.return();
    await talk.line().say(pinged(2));
    const nothing = { done: true, value: undefined };
    assert.deepEqual([await waiting, await events.next()], [nothing, nothing]);
    const others = talk.conversation.events();
    await talk.line().say(pinged(3));
    assert.deepEqual(await others.return(), nothing);
    assert.deepEqual(await others.next(), nothing, "what was kept is forgotten");
  });
});

describe("a listener", () => {
  it("is told of its type until it is taken off", async () => {
    const talk = await live(1);
    const told = [];
    const off = talk.conversation.on("x_ping", ({ seq }) => told.push(seq));
    talk.conversation.on("event", ({ type }) => told.push(type));
    await talk.line().say(pinged(2));
    off();
    await talk.line().say(pinged(3));
    assert.deepEqual(told, ["x_ping", 2, "x_ping"]);
    assert.throws(() => talk.conversation.on("event", null), TypeError);
  });

  it("that throws is reported, and breaks nothing", async () => {
    const reported = [];
    globalThis.reportError = ({ message }) => reported.push(message);
    const talk = await live(1);
    const told = [];
    talk.conversation.on("event", () => { throw new Error("mine"); });
    talk.conversation.on("event", ({ seq }) => told.push(seq));
    await talk.line().say(pinged(2), pinged(3));
    delete globalThis.reportError;
    assert.deepEqual([reported, told, talk.conversation.seq], [["mine", "mine"], [2, 3], 3]);
  });

  it("of `state` is told once for what comes together, and sees all of it", async () => {
    const talk = await live(1);
    const told = [];
    talk.conversation.on("state", (state) => told.push(state));
    await talk.line().say(started(2, "r"), pinged(3), asked(4, "i"));
    assert.deepEqual(told, [talk.conversation.state]);
    assert.equal(told[0].at, 4);
    await talk.line().say(pinged(5));
    assert.deepEqual(told.map(({ at }) => at), [4, 5]);
  });

  it("is told of a snapshot, and of the state that it brings", async () => {
    const { client, line } = scripted();
    const conversation = client.conversation("demo");
    const told = [];
    conversation.on("snapshot", ({ type, at }) => told.push([type, at]));
    conversation.on("state", ({ at }) => told.push(["state", at]));
    await settled();
    await line().say(...snapshot(4));
    assert.deepEqual(told, [["snapshot", 4], ["state", 4]]);
  });

  it("of `interaction` is told what is open, once: not what a replay resolves", async () => {
    const talk = await live(4, { interactions: [asked(3, "old")] });
    const told = [];
    const { client, line } = scripted();
    const conversation = client.conversation("demo", { from: "start" });
    conversation.on("interaction", ({ interaction_id }) => told.push(interaction_id));
    await settled();
    await line().say(replay(0, 4), created, asked(2, "gone"), asked(3, "open"), resolved(4, "gone"));
    assert.deepEqual(told, []);
    await line().say({ type: "live", at: 4 }, asked(5, "new"));
    await line().end();
    await pass(100);
    await line().say(replay(5, 6), asked(6, "meanwhile"), { type: "live", at: 6 });
    assert.deepEqual(told, ["open", "new", "meanwhile"]);
    talk.conversation.close();
  });

  it("of `connection` is told from the first connect to the end", async () => {
    const { client, line } = scripted();
    const conversation = client.conversation("demo");
    const told = [];
    conversation.on("connection", ({ status }) => told.push(status));
    await settled();
    await line().say(...snapshot(0));
    await line().end();
    await pass(100);
    conversation.close();
    assert.deepEqual(told, ["connecting", "live", "waiting", "connecting", "closed"]);
  });
});
