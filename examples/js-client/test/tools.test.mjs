import assert from "node:assert/strict";
import { afterEach, describe, it, mock } from "node:test";
import { asked, hello, live, pass, reconnected, replay, resolved, scripted, settled, snapshot } from "./scripted.mjs";

afterEach(() => mock.timers.reset());

const SCHEMA = { type: "object", properties: { city: { type: "string" } }, description: "Says how the weather is." };

/** A call for us. */
function call(seq, interaction_id, { owner, tool, ...more } = {}) {
  return asked(seq, interaction_id, {
    kind: "client_tool",
    tool: { call_id: "c", name: "weather", source: "client", arguments: { city: "Oslo" }, risk: "low", ...tool },
    owner: { principal: "ada", client_id: "me", if_gone: "fail", grace_ms: 1, ...owner },
    ...more,
  });
}

/** A conversation that executes `weather`; the cities it was asked about. */
async function executing({ answer = (city) => `Rain in ${city}.`, at = 4, state, ...options } = {}) {
  const { client, sockets, line } = scripted();
  const conversation = client.conversation("demo");
  const cities = [];
  const contexts = [];
  const handler = async (args, context) => {
    cities.push(args.city);
    contexts.push(context);
    return answer(args.city);
  };
  const withdraw = conversation.tool("weather", SCHEMA, handler, options);
  await settled();
  await line().say(...snapshot(at, state));
  return { client, sockets, line, conversation, cities, contexts, withdraw };
}

const replies = ({ commands }) => commands.map(({ type, id, ...reply }) => reply);
const error = (output) => ({ output, is_error: true });

describe("tools that the client executes", () => {
  it("are offered first on every line, and again when they change", async () => {
    const talk = await executing({ if_gone: "wait", grace_ms: 5 });
    const offered = { name: "weather", description: SCHEMA.description, parameters: SCHEMA, if_gone: "wait", grace_ms: 5 };
    assert.deepEqual(talk.line().sent.map(({ tools }) => tools), [[offered]]);
    const off = talk.conversation.tool("time", { type: "object" }, () => "", { description: "The time." });
    talk.withdraw();
    talk.withdraw();
    const time = { name: "time", description: "The time.", parameters: { type: "object" } };
    assert.deepEqual(talk.line().sent.map(({ tools }) => tools), [[offered], [offered, time], [time]]);
    await (await reconnected(talk)).say(replay(4, 4));
    assert.deepEqual(talk.line().sent.map(({ tools }) => tools), [[time]]);
    off();
    assert.deepEqual(talk.line().sent.at(-1).tools, []);
    const ids = talk.sockets.flatMap(({ sent }) => sent.map(({ id }) => id));
    assert.equal(new Set(ids).size, ids.length);
  });

  it("are there before a run that is started right after", async () => {
    const talk = await live(4);
    talk.conversation.tool("weather", SCHEMA, () => "");
    talk.conversation.run("how is the weather?");
    assert.deepEqual(talk.line().sent.map(({ type }) => type), ["client.update", "client.update", "run.start"]);
  });

  it("with a name that no model takes, or nothing to execute, are refused at once", async () => {
    const talk = await live(4);
    const right = ["weather", SCHEMA, () => "", {}];
    const wrong = [
      [0, "two words", /tool two words: a tool's name is 1 to 64/], [1, undefined, /JSON Schema of its arguments/],
      [1, { type: "string" }, /that of an object/], [2, undefined, /a function that executes it/],
      [3, { description: 7 }, /description is a text/], [3, { if_gone: "no" }, /if_gone is/], [3, { grace_ms: -1 }, /grace_ms/],
      [3, { grace_ms: 1.5 }, /grace_ms/], [3, { gracems: 1 }, /there is no option gracems/],
    ];
    for (const [n, value, message] of wrong) assert.throws(() => talk.conversation.tool(...right.with(n, value)), message);
    assert.equal(talk.line().introductions.length, 1);
  });

  it("are offered again after a while when the server has no time, and what it refuses is reported", async () => {
    const warned = mock.method(console, "warn", () => {});
    const talk = await executing();
    const [first] = talk.line().introductions;
    await talk.line().refuse(first, "overloaded", { retryable: true, retry_after_ms: 500 });
    mock.timers.tick(500);
    const [, second] = talk.line().introductions;
    await talk.line().refuse(first, "not_permitted");
    await talk.line().refuse(second, "not_permitted");
    const words = warned.mock.calls.map((call) => call.arguments[0]);
    warned.mock.restore();
    assert.deepEqual(words, ["hermes-ws: the tools were refused: it is not_permitted"]);
  });

  it("answer with what they return", async () => {
    const answers = {
      text: ["fine", { output: "fine" }],
      json: [{ sky: "grey" }, { output: '{"sky":"grey"}' }],
      null: [null, { output: "null" }],
      nothing: [undefined, { output: "" }],
      whole: [{ output: "x", is_error: true, content: [] }, { output: "x", is_error: true, content: [] }],
      "whole, with nulls": [{ output: "x", is_error: null, content: null }, { output: "x" }],
      "an error": [new Error("no window"), { output: "no window", is_error: true }],
      "an output that is no text": [{ output: 1 }, { output: '{"output":1}' }],
    };
    for (const [name, [returned, content]] of Object.entries(answers)) {
      const talk = await executing({ answer: () => returned });
      await talk.line().say(call(5, "i", { digest: "d" }));
      assert.deepEqual(replies(talk.line()), [{ interaction_id: "i", digest: "d", content }], name);
    }
  });

  it("answer with the message of what they throw, and of what cannot be told", async () => {
    const answers = [
      () => { throw new Error("no window"); }, () => { throw new RangeError(); }, () => Promise.reject("dark"),
      () => Promise.reject({ message: "m" }), () => 1n,
    ];
    const told = ["no window", "RangeError", "dark", "m", "Do not know how to serialize a BigInt"];
    for (const [n, answer] of answers.entries()) {
      const talk = await executing({ answer });
      await talk.line().say(call(5, "i"));
      assert.deepEqual(replies(talk.line())[0].content, error(told[n]));
    }
  });

  it("are told the arguments, the interaction and the conversation", async () => {
    const talk = await executing();
    await talk.line().say(call(5, "i"));
    assert.deepEqual(talk.cities, ["Oslo"]);
    assert.equal(talk.contexts[0].conversation, talk.conversation);
    assert.deepEqual(talk.contexts[0].interaction, call(5, "i"));
  });

  it("are not called for others: another client, another principal, whoever started the run, an approval", async () => {
    const talk = await executing();
    const others = [call(5, "a", { owner: { client_id: "you" } }), call(6, "b", { owner: { principal: "bob" } })];
    await talk.line().say(...others, { ...call(7, "c"), owner: undefined }, call(8, "d", { kind: "approval" }));
    assert.deepEqual([talk.cities, talk.line().commands], [[], []]);
  });

  it("are called once, whatever is told again", async () => {
    const talk = await executing({ answer: () => new Promise(() => {}) });
    const ours = call(5, "i");
    await talk.line().say(ours);
    await (await reconnected(talk)).say(replay(5, 5), { type: "live", at: 5 });
    await (await reconnected(talk)).say(...snapshot(5, { interactions: [ours] }, { reason: "gap" }));
    assert.deepEqual(talk.cities, ["Oslo"]);
  });

  it("are called after a replay only for what it leaves open", async () => {
    const talk = await executing({ answer: () => "" });
    await (await reconnected(talk)).say(replay(4, 7), call(5, "i"), resolved(6, "i"), call(7, "j", { tool: { arguments: { city: "Rom" } } }));
    assert.deepEqual(talk.cities, []);
    await talk.line().say({ type: "live", at: 7 });
    assert.deepEqual(talk.cities, ["Rom"]);
  });

  it("have their answer sent again, not made again, when the line breaks under it", async () => {
    const talk = await executing();
    await talk.line().say(call(5, "i"));
    const [reply] = talk.line().commands;
    await (await reconnected(talk)).say(replay(5, 5), { type: "live", at: 5 });
    assert.deepEqual(talk.line().commands, [reply]);
    assert.equal(talk.cities.length, 1);
  });

  it("are not called for what an earlier life of this client may have done: that is told", async () => {
    const talk = await executing({ state: { interactions: [call(4, "i")] } });
    assert.deepEqual(talk.cities, []);
    assert.deepEqual(replies(talk.line()), [{ interaction_id: "i", content: error("The client was restarted while it executed this.") }]);
  });

  it("that are idempotent are called for it, where it is still open", async () => {
    const talk = await executing({ state: { interactions: [call(4, "i")] }, idempotent: true });
    assert.deepEqual(talk.cities, ["Oslo"]);
  });

  it("are called for what is open from before, also where the conversation begins in the middle", async () => {
    const { client, line } = scripted();
    const conversation = client.conversation("demo", { from: "now" });
    const cities = [];
    await settled();
    await line().say(hello(4, { mode: "live", from: 5, to: 4 }), { type: "live", at: 4 });
    assert.deepEqual(line().commands, [], "nobody needs to know");
    conversation.tool("weather", SCHEMA, ({ city }) => cities.push(city) && city, { idempotent: true });
    const [look] = line().commands;
    assert.equal(look.type, "snapshot.get");
    await line().say(resolved(5, "gone"));
    const tool = (city) => ({ tool: { arguments: { city } } });
    await line().ok(look, { snapshot: { interactions: [call(2, "gone", tool("Rom")), call(3, "open", tool("Oslo"))] } });
    assert.deepEqual(cities, ["Oslo"]);
    conversation.tool("time", SCHEMA, () => "");
    assert.equal(line().commands.filter(({ type }) => type === "snapshot.get").length, 1, "once");
  });

  it("are called for it also when they were offered before it was live, and after a reconnect", async () => {
    const { client, line, sockets } = scripted();
    const conversation = client.conversation("demo", { after: 4, epoch: "e1" });
    conversation.tool("weather", SCHEMA, ({ city }) => city, { idempotent: true, grace_ms: 0 });
    await settled();
    await line().say(replay(4, 4), { type: "live", at: 4 });
    const [look] = line().commands;
    const next = await reconnected({ line, sockets });
    await next.say(replay(4, 4), { type: "live", at: 4 });
    assert.deepEqual(next.commands, [look]);
    await next.ok(look, { snapshot: { interactions: [call(3, "open")] } });
    assert.deepEqual(replies(next)[1], { interaction_id: "open", content: { output: "Oslo" } });
  });

  it("that is: asked when the client first met the conversation, not when it came back to it", async () => {
    const talk = await executing();
    await (await reconnected(talk)).say(...snapshot(9, { interactions: [call(7, "i")] }, { reason: "gap" }));
    assert.deepEqual(talk.cities, ["Oslo"]);
    const anew = await executing({ at: 9 });
    await (await reconnected(anew)).say(...snapshot(0, {}, { reason: "ahead", epoch: null }));
    await anew.line().say({ type: "conversation.created", seq: 1, ts: 1, conversation_id: "demo", epoch: "e2" }, call(2, "j"));
    assert.deepEqual(anew.cities, ["Oslo"], "the numbers of a conversation that was made anew are others");
  });

  it("are not called twice by a client that has left and come back", async () => {
    const talk = await executing({ answer: () => new Promise(() => {}), idempotent: true });
    await talk.line().say(call(5, "i"));
    talk.conversation.close();
    const again = talk.client.conversation("demo");
    again.tool("weather", SCHEMA, () => assert.fail("twice"), { idempotent: true });
    await settled();
    await talk.line().say(...snapshot(5, { interactions: [call(5, "i")] }));
    assert.match(replies(talk.line())[0].content.output, /restarted/);
  });

  it("that are not offered are waited for, as long as their client may be gone, and then answered for", async () => {
    const talk = await executing();
    talk.withdraw();
    await talk.line().say(call(5, "i", { owner: { grace_ms: 4000 } }), call(6, "j", { owner: { grace_ms: 60_000 } }));
    await pass(4000);
    assert.deepEqual(replies(talk.line()), [{ interaction_id: "i", content: error("The client does not execute weather.") }]);
    await pass(5999);
    talk.conversation.tool("weather", SCHEMA, ({ city }) => city);
    await settled();
    assert.deepEqual(replies(talk.line())[1], { interaction_id: "j", content: { output: "Oslo" } });
    await pass(60_000);
    assert.equal(talk.line().commands.length, 2);
  });

  it("that are not offered are not answered for when nobody waits any more", async () => {
    const talk = await executing();
    talk.withdraw();
    const waiting = (seq, id) => call(seq, id, { owner: { grace_ms: 4000 } });
    await talk.line().say(waiting(5, "i"), waiting(6, "j"), resolved(7, "i"));
    await talk.line().end();
    await pass(100);
    await talk.line().say(...snapshot(9, {}, { reason: "gap" }));
    await pass(4000);
    talk.conversation.tool("weather", SCHEMA, ({ city }) => city)();
    await talk.line().say(waiting(10, "k"));
    talk.conversation.close();
    await pass(4000);
    assert.deepEqual(talk.sockets.flatMap(({ commands }) => commands), []);
  });

  it("learn that nobody waits any more: by an event, by a snapshot, by the end", async () => {
    const ends = {
      event: (talk) => talk.line().say(resolved(6, "i")),
      snapshot: async (talk) => (await reconnected(talk)).say(...snapshot(9, {}, { reason: "gap" })),
      close: (talk) => talk.conversation.close(),
    };
    for (const [name, end] of Object.entries(ends)) {
      let finish;
      const talk = await executing({ answer: () => new Promise((resolve) => (finish = resolve)) });
      await talk.line().say(call(5, "i"));
      assert.equal(talk.contexts[0].signal.aborted, false);
      await end(talk);
      assert.equal(talk.contexts[0].signal.aborted, true, name);
      finish("too late");
      await settled();
      assert.deepEqual(talk.line().commands, [], name);
    }
  });

  it("are not told that nobody waits when it was they who answered", async () => {
    const talk = await executing();
    await talk.line().say(call(5, "i"), resolved(6, "i"));
    await settled();
    const { signal } = talk.contexts[0];
    assert.equal(signal.aborted, true, "the answer came from elsewhere, before ours");
    await talk.line().say(call(7, "j"));
    await talk.line().say(resolved(8, "j"));
    talk.conversation.close();
    assert.equal(talk.contexts[1].signal.aborted, false);
  });

  it("take it quietly when somebody else was first", async () => {
    for (const code of ["interaction_resolved", "interaction_expired", "interaction_not_found", "not_permitted"]) {
      const talk = await executing();
      await talk.line().say(call(5, "i"));
      await talk.line().refuse(talk.line().commands[0], code);
      assert.equal(talk.line().commands.length, 1);
    }
  });

  it("say so when their answer cannot be handed over, so that the agent does not wait for it", async () => {
    const talk = await executing({ answer: () => "x".repeat(3000) });
    await talk.line().say(call(5, "i"));
    assert.deepEqual(replies(talk.line()).map(({ content }) => content), [error("The result could not be handed over: a command is at most 2000 bytes")]);
    await talk.line().refuse(talk.line().commands[0], "invalid_answer");
    assert.equal(talk.line().commands.length, 1, "once is enough");
  });
});
