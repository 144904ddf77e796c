import assert from "node:assert/strict";
import { afterEach, describe, it, mock } from "node:test";
import { Backoff, ConnectionRefused, ConversationClosed, HermesClient } from "../hermes-ws.js";
import { asked, collected, created, hello, live, pass, pinged, reconnected, replay, scripted, settled, snapshot, warned } from "./scripted.mjs";

afterEach(() => mock.timers.reset());

describe("back-off", () => {
  it("doubles from the first to the most, and begins again after a reset", () => {
    const backoff = new Backoff({ firstMs: 10, mostMs: 50 }, () => 1);
    assert.deepEqual([1, 2, 3, 4, 5].map(() => backoff.next()), [10, 20, 40, 50, 50]);
    backoff.reset();
    assert.equal(backoff.next(), 10);
  });

  it("has full jitter: anything from nothing to that", () => {
    assert.equal(new Backoff({}, () => 0).next(), 0);
    assert.equal(new Backoff({}, () => 0.5).next(), 50);
  });

  it("does not grow beyond all numbers", () => {
    const backoff = new Backoff();
    for (let n = 0; n < 5000; n++) assert.ok(backoff.next() <= 15_000);
  });
});

describe("a line", () => {
  it("goes to the server's address, below its prefix, with the key as a subprotocol", async () => {
    const { client, line } = scripted({ url: "https://server.test/agents/", key: "sch\u00f6n?>" });
    client.conversation("a:b.c", { exclude: ["message.delta", "reasoning.delta"] });
    await settled();
    assert.equal(line().url.href, "wss://server.test/agents/ws/a:b.c?exclude=message.delta%2Creasoning.delta&from=snapshot");
    assert.deepEqual(line().protocols, ["hermes.v1", `hermes.bearer.${Buffer.from("sch\u00f6n?>").toString("base64url")}`]);
  });

  it("begins where it is told to", async () => {
    const beginnings = [{ from: "start" }, { from: "now" }, { after: 7 }, { after: 0, epoch: "e" }];
    const { client, sockets } = scripted();
    beginnings.forEach((beginning, n) => client.conversation(`c${n}`, beginning));
    await settled();
    assert.deepEqual(sockets.map(({ query }) => query), [{ from: "start" }, { from: "now" }, { after: "7" }, { after: "0", epoch: "e" }]);
  });

  it("is resumed by number and epoch", async () => {
    const talk = await live(4);
    await talk.line().say(pinged(5));
    const next = await reconnected(talk);
    assert.deepEqual(next.query, { after: "5", epoch: "e1" });
    await next.say(replay(5, 6), pinged(6), { type: "live", at: 6 });
    assert.deepEqual([talk.conversation.seq, talk.conversation.connection.status], [6, "live"]);
  });

  it("of a conversation that has begun meanwhile is resumed in its epoch, which `hello` knows better than the first event", async () => {
    const talk = await live(0);
    assert.equal(talk.conversation.epoch, null);
    await talk.line().say(created);
    assert.equal(talk.conversation.epoch, "e1");
    const { client, line } = scripted();
    const later = client.conversation("demo", { from: "start" });
    await settled();
    await line().say(replay(0, 1, { epoch: "e2" }), created);
    assert.equal(later.epoch, "e2");
  });

  it("that begins with what comes from now on has a state from now on", async () => {
    const { client, line } = scripted();
    const conversation = client.conversation("demo", { from: "now" });
    await settled();
    await line().say(hello(7, { mode: "live", from: 8, to: 7 }), { type: "live", at: 7 });
    assert.deepEqual([conversation.seq, conversation.state.at], [7, 7]);
  });

  it("that is cut between `hello` and the snapshot is resumed in the old epoch", async () => {
    const talk = await live(4);
    const next = await reconnected(talk);
    await next.say(snapshot(2, {}, { reason: "epoch_changed", epoch: "e2" })[0]);
    assert.deepEqual((await reconnected(talk)).query, { after: "4", epoch: "e1" });
    await talk.line().say(...snapshot(2, {}, { reason: "epoch_changed", epoch: "e2" }));
    assert.deepEqual([talk.conversation.seq, talk.conversation.epoch], [2, "e2"]);
  });

  it("to a new conversation is resumed under the id that the server chose", async () => {
    const { client, line, ...rest } = scripted();
    const conversation = client.conversation("new");
    await settled();
    await line().say(...snapshot(0, {}, { conversation_id: "chosen" }));
    assert.equal(conversation.id, "chosen");
    assert.equal(client.conversation("chosen"), conversation);
    assert.equal((await reconnected({ line, ...rest })).url.pathname, "/ws/chosen");
  });
});

describe("what the protocol does not allow", () => {
  const violations = {
    "an event out of order": pinged(6),
    "an event a second time": pinged(4),
    "a skipped range that does not follow": { type: "skipped", from: 6, to: 7, reason: "filtered" },
    "a skipped range that goes back": { type: "skipped", from: 5, to: 4, reason: "filtered" },
    "a heartbeat that knows of more": { type: "heartbeat", head: 5, ts: 1 },
    "`live` elsewhere": { type: "live", at: 5 },
    "a second hello": replay(4, 4),
    "a snapshot in mid-stream": { type: "snapshot", at: 9 },
    "no JSON": "{",
    "no object": "null",
    "no type": "[]",
  };
  for (const [name, frame] of Object.entries(violations)) {
    it(`${name}: the line is dropped, and resumed from what was right`, async () => {
      const talk = await live(4);
      const [first] = talk.sockets;
      await first.say(frame);
      assert.equal(first.open, false);
      assert.match(talk.conversation.connection.reason, /^protocol violation: /);
      await pass(100);
      assert.deepEqual(talk.line().query, { after: "4", epoch: "e1" });
    });
  }

  it("a heartbeat before it is live: those are told to who is up to date", async () => {
    const { client, line } = scripted();
    const conversation = client.conversation("demo");
    await settled();
    await line().say(...snapshot(4).slice(0, 2), { type: "heartbeat", head: 4, ts: 1 });
    assert.match(conversation.connection.reason, /before it is live/);
  });

  it("a binary frame, or a first frame that is no hello, is no better", async () => {
    const { client, line } = scripted();
    const conversation = client.conversation("demo");
    await settled();
    await line().say({ type: "live", at: 0 });
    assert.match(conversation.connection.reason, /hermes-ws server\?$/);
    await pass(100);
    line().onmessage({ data: new ArrayBuffer(2) });
    assert.match(conversation.connection.reason, /binary/);
  });

  it("a replay that begins elsewhere than asked for is not taken", async () => {
    const talk = await live(4);
    await (await reconnected(talk)).say(replay(5, 6));
    assert.match(talk.conversation.connection.reason, /asked for 5, given 6/);
  });

  it("three times in a row, with nothing new in between: begins anew with a snapshot, with growing patience", async () => {
    const talk = await live(4);
    const waits = [];
    for (let n = 0; n < 3; n++) {
      await talk.line().say(pinged(9));
      waits.push(talk.conversation.connection.retry_in_ms);
      await pass(waits.at(-1));
      if (n < 2) await talk.line().say(replay(4, 4), { type: "live", at: 4 });
    }
    assert.deepEqual(waits, [100, 200, 400]);
    assert.deepEqual(talk.line().query, { from: "snapshot" });
    await talk.line().say(...snapshot(9, { config_version: 3 }));
    assert.deepEqual([talk.conversation.seq, talk.conversation.state.config_version], [9, 3]);
  });

  it("several times, with something new each time: is resumed each time", async () => {
    const talk = await live(4);
    for (let n = 5; n < 12; n++) {
      await talk.line().say(pinged(n), pinged(99));
      await pass(100);
      assert.deepEqual(talk.line().query, { after: String(n), epoch: "e1" });
      await talk.line().say(replay(n, n), { type: "live", at: n });
    }
  });

  it("what is not known is not forbidden", async () => {
    const talk = await live(4);
    await talk.line().say({ type: "x_news", about: "nothing" }, { type: "inbox.removed", conversation_id: "x" }, pinged(5));
    assert.deepEqual([talk.conversation.seq, talk.sockets.length], [5, 1]);
  });
});

describe("coming back", () => {
  it("is no use after 4400 to 4499: everything that waits is told", async () => {
    for (const code of [4400, 4403, 4404, 4410, 4413, 4499]) {
      const talk = await live(4);
      const command = assert.rejects(talk.conversation.ping(), { name: "ConnectionRefused", code });
      const events = collected(talk.conversation.events());
      const run = talk.conversation.run("hi");
      const words = await warned(() => talk.line().end(code, "go away"));
      assert.deepEqual(words, [`hermes-ws: closed for good: ${code}: go away`], "nobody has asked to be told");
      await command;
      assert.ok((await events.end) instanceof ConnectionRefused);
      await assert.rejects(run.done, ConnectionRefused);
      await assert.rejects(talk.conversation.ping(), ConnectionRefused);
      assert.deepEqual(talk.conversation.connection, { status: "closed", code, reason: "go away" });
      await pass(60_000);
      assert.equal(talk.sockets.length, 1);
    }
  });

  it("that is no use is not warned of where somebody has asked to be told", async () => {
    const asks = [(conversation) => conversation.on("connection", () => {}), ({ ready }) => ready.catch(() => {})];
    for (const ask of asks) {
      const talk = await live(4);
      ask(talk.conversation);
      assert.deepEqual(await warned(() => talk.line().end(4403)), []);
    }
    const talk = await live(4);
    assert.deepEqual(await warned(() => talk.conversation.close()), [], "nor what one has done oneself");
  });

  it("that was refused at the very beginning makes `ready` reject", async () => {
    const { client, line } = scripted();
    const { ready } = client.conversation("demo");
    await settled();
    await line().end(4401, "no key");
    await assert.rejects(ready, { code: 4401, reason: "no key", message: "4401: no key" });
    assert.notEqual(client.conversation("demo").connection.status, "closed", "another one may be tried");
  });

  it("is tried after any other code, later and later while nothing works", async () => {
    const talk = await live(4);
    for (const [code, wait] of [[1006, 100], [4500, 200], [1011, 400], [1000, 800], [4399, 1600], [4503, 3200], [1012, 6400], [4529, 12_800], [1001, 15_000]]) {
      await talk.line().end(code);
      assert.deepEqual(talk.conversation.connection, { status: "waiting", retry_in_ms: wait, code, reason: `closed with ${code}` });
      await pass(wait - 1);
      const before = talk.sockets.length;
      await pass(1);
      assert.equal(talk.sockets.length, before + 1);
    }
    assert.equal(talk.line().query.after, "4", "what was told is not told again");
  });

  it("is soon when a line was live for a while, though nothing happened on it", async () => {
    const talk = await live(4);
    for (let n = 0; n < 3; n++) {
      await pass(5000);
      await talk.line().end(4500);
      assert.equal(talk.conversation.connection.retry_in_ms, 100);
      await pass(100);
      await talk.line().say(replay(4, 4), { type: "live", at: 4 });
    }
  });

  it("does not wait for the end of a line that is dead, where that is possible", async () => {
    const talk = await live(4, {}, { terminable: true, silenceMs: 1000 });
    await pass(1000);
    assert.equal(talk.sockets[0].closedWith, "terminated");
    await pass(100);
    talk.conversation.close();
    assert.equal(talk.line().closedWith, 1000, "but says goodbye to one that is not");
  });

  it("begins with short waits again once something new was told", async () => {
    const talk = await live(4);
    await talk.line().end();
    await pass(100);
    await talk.line().end();
    assert.equal(talk.conversation.connection.retry_in_ms, 200);
    await pass(200);
    await talk.line().say(replay(4, 5), pinged(5));
    await talk.line().end(4500);
    assert.equal(talk.conversation.connection.retry_in_ms, 100);
  });

  it("is slower and slower to a server, or a way there, that fails as soon as it is live", async () => {
    const talk = await live(4);
    const waits = [];
    for (const code of [4500, 1006, 1011]) {
      await talk.line().end(code);
      waits.push(talk.conversation.connection.retry_in_ms);
      await pass(waits.at(-1));
      await talk.line().say(replay(4, 4), { type: "live", at: 4 });
    }
    assert.deepEqual(waits, [100, 200, 400]);
    await pass(4999);
    await talk.line().end(4500);
    assert.equal(talk.conversation.connection.retry_in_ms, 800);
    await pass(800);
    await talk.line().say(replay(4, 4), { type: "live", at: 4 });
    await pass(5000);
    await talk.line().end(4500);
    assert.equal(talk.conversation.connection.retry_in_ms, 100, "one that held for a while was good");
  });

  it("waits at least as long after the end as `goaway` wished, also when the network comes back", async () => {
    const network = new EventTarget();
    globalThis.addEventListener = network.addEventListener.bind(network);
    const talk = await live(4);
    await talk.line().say({ type: "goaway", reason: "restart", reconnect_after_ms: 5000 });
    await pass(3000);
    await talk.line().end(4503);
    assert.equal(talk.conversation.connection.retry_in_ms, 5100);
    network.dispatchEvent(new Event("online"));
    await pass(5099);
    assert.equal(talk.sockets.length, 1);
    await pass(1);
    assert.equal(talk.sockets.length, 2);
    await talk.line().end();
    assert.equal(talk.conversation.connection.retry_in_ms, 200);
    network.dispatchEvent(new Event("online"));
    await pass(100);
    assert.equal(talk.sockets.length, 3, "the wish is over: as soon as after a first failure");
    network.dispatchEvent(new Event("online"));
    await pass(100);
    assert.equal(talk.sockets.length, 3, "it is being tried already");
    delete globalThis.addEventListener;
  });

  it("happens when nothing is heard for silenceMs, but not before", async () => {
    const talk = await live(4, {}, { silenceMs: 1000 });
    await pass(900);
    await talk.line().say({ type: "heartbeat", head: 4, ts: 1 });
    await pass(999);
    assert.equal(talk.conversation.connection.status, "live");
    await pass(1);
    assert.deepEqual(talk.conversation.connection, { status: "waiting", retry_in_ms: 100, reason: "nothing was heard for too long" });
    assert.equal(talk.sockets[0].open, false);
  });

  it("says what was wrong, where that is known", async () => {
    const { client, line } = scripted();
    const conversation = client.conversation("demo");
    await settled();
    line().onerror({ message: "connect ECONNREFUSED" });
    await line().end(1006);
    assert.deepEqual(conversation.connection, { status: "waiting", retry_in_ms: 100, code: 1006, reason: "connect ECONNREFUSED" });
    await pass(100);
    line().onerror({});
    await line().end(4503, "the server is going down");
    assert.equal(conversation.connection.reason, "the server is going down");
  });

  it("happens also where a failure is not followed by a close", async () => {
    const { client, line, sockets } = scripted();
    const conversation = client.conversation("demo");
    await settled();
    line().onerror({ message: "nobody is there" });
    await pass(1);
    assert.deepEqual(conversation.connection, { status: "waiting", retry_in_ms: 100, code: 1006, reason: "nobody is there" });
    await pass(100);
    assert.equal(sockets.length, 2);
  });

  it("happens in time though the clock is set back", async () => {
    const talk = await live(4, {}, { silenceMs: 1000 });
    mock.timers.setTime(3_600_000);
    await talk.line().say({ type: "heartbeat", head: 4, ts: 1 });
    mock.timers.setTime(0);
    await pass(1000);
    await pass(1000);
    assert.equal(talk.conversation.connection.status, "waiting");
  });

  it("never happens for silence where that is wished", async () => {
    const talk = await live(4, {}, { silenceMs: Infinity });
    await pass(86_400_000);
    assert.equal(talk.conversation.connection.status, "live");
  });

  it("happens when nothing follows hello, however patient the opening was", async () => {
    const { client, line } = scripted({ openTimeoutMs: 5000, silenceMs: 1000 });
    const conversation = client.conversation("demo");
    await settled();
    await line().say(snapshot(4)[0]);
    await pass(1000);
    assert.equal(conversation.connection.reason, "nothing was heard for too long");
  });

  it("happens when the server does not say hello in time", async () => {
    const { client, sockets } = scripted({ openTimeoutMs: 700 });
    const conversation = client.conversation("demo");
    await settled();
    await pass(700);
    assert.equal(conversation.connection.reason, "no answer in time");
    await pass(100);
    assert.equal(sockets.length, 2);
  });

  it("asks whether the line has outlived a network that was gone", async () => {
    const network = new EventTarget();
    globalThis.addEventListener = network.addEventListener.bind(network);
    const talk = await live(4, {}, { openTimeoutMs: 1000 });
    delete globalThis.addEventListener;
    await pass(10);
    network.dispatchEvent(new Event("online"));
    assert.deepEqual(talk.line().commands, [{ type: "ping" }]);
    await pass(500);
    await talk.line().say({ type: "ok", id: null, at: 4, head: 4 });
    await pass(500);
    assert.equal(talk.conversation.connection.status, "live");
    await pass(10);
    network.dispatchEvent(new Event("online"));
    await pass(1000);
    assert.equal(talk.conversation.connection.reason, "no answer in time");
  });

  it("looks at the line when the page is looked at again: a timer may have slept", async () => {
    const page = Object.assign(new EventTarget(), { visibilityState: "hidden" });
    globalThis.document = page;
    const talk = await live(4, {}, { silenceMs: 1000 });
    const look = (state) => {
      page.visibilityState = state;
      page.dispatchEvent(new Event("visibilitychange"));
    };
    mock.timers.setTime(5000); // without running what is due: that is what sleep is like
    look("hidden");
    assert.equal(talk.conversation.connection.status, "live");
    look("visible");
    assert.equal(talk.conversation.connection.status, "waiting");
    look("visible");
    await pass(100);
    assert.equal(talk.sockets.length, 2);
    delete globalThis.document;
    talk.conversation.close();
  });
});

describe("tickets", () => {
  it("are asked for at every connect, with the conversation's id", async () => {
    const asked = [];
    const getTicket = async ({ conversation }) => `t${asked.push(conversation)}`;
    const talk = await live(4, {}, { getTicket });
    assert.deepEqual(talk.line().query, { from: "snapshot", ticket: "t1" });
    assert.deepEqual(talk.line().protocols, ["hermes.v1"]);
    assert.equal((await reconnected(talk)).query.ticket, "t2");
    assert.deepEqual(asked, ["demo", "demo"]);
  });

  it("that are refused are replaced, up to three in a row", async () => {
    const talk = await live(4, {}, { getTicket: () => "t" });
    for (const status of ["waiting", "waiting", "closed"]) {
      await (talk.sockets.length === 1 ? reconnected(talk) : pass(20_000));
      await talk.line().end(4401, "used up");
      assert.equal(talk.conversation.connection.status, status);
    }
    assert.equal(talk.sockets.length, 4);
  });

  it("that are refused now and then do no harm", async () => {
    const talk = await live(4, {}, { getTicket: () => "t" });
    for (let n = 0; n < 5; n++) {
      await (await reconnected(talk)).end(4401, "used up");
      await pass(20_000);
      await talk.line().say(replay(4, 4), { type: "live", at: 4 });
    }
    assert.equal(talk.conversation.connection.status, "live");
  });

  it("that cannot be had are asked for again, and the reason is shown", async () => {
    let refusals = 2;
    const getTicket = async () => {
      if (refusals-- > 0) throw new Error("the shop is closed");
      return "t";
    };
    const { client, sockets } = scripted({ getTicket });
    const conversation = client.conversation("demo");
    await settled();
    assert.deepEqual(conversation.connection, { status: "waiting", retry_in_ms: 100, reason: "the shop is closed" });
    await pass(100);
    assert.deepEqual([conversation.connection.retry_in_ms, sockets.length], [200, 0]);
    await pass(200);
    assert.equal(sockets.length, 1);
  });

  it("that are none are asked for again, too", async () => {
    for (const [none, reason] of [[undefined, "undefined"], [null, "object"], [{}, "object"], ["", "an empty string"]]) {
      const { client, sockets } = scripted({ getTicket: async () => none });
      const { connection } = client.conversation("demo");
      await settled();
      const { status, reason: told } = client.conversation("demo").connection;
      assert.deepEqual([connection.status, status, told, sockets.length], ["connecting", "waiting", `getTicket came to no ticket but to ${reason}`, 0]);
    }
  });

  it("that nobody waits for any more are told so, and not asked for after the end", async () => {
    const signals = [];
    const getTicket = ({ signal }) => new Promise(() => signals.push(signal));
    const { client } = scripted({ getTicket, openTimeoutMs: 500 });
    const conversation = client.conversation("demo");
    await settled();
    await pass(500);
    await pass(100);
    assert.deepEqual(signals.map(({ aborted }) => aborted), [true, false]);
    conversation.on("connection", ({ status }) => status === "connecting" && conversation.close());
    await pass(500);
    await pass(20_000);
    assert.equal(signals.length, 2);
  });

  it("do not open the inbox: that is said at once", () => {
    assert.throws(() => scripted({ getTicket: () => "t" }).client.inbox(), /the inbox needs a key/);
  });

  it("that come too late open nothing", async () => {
    let give;
    const { client, sockets } = scripted({ getTicket: () => new Promise((resolve) => (give = resolve)), openTimeoutMs: 500 });
    const conversation = client.conversation("demo");
    await settled();
    const late = give;
    await pass(500);
    assert.equal(conversation.connection.status, "waiting");
    late("t");
    await settled();
    assert.equal(sockets.length, 0);
    const later = give;
    await pass(100);
    later("t");
    await pass(400);
    assert.equal(sockets.length, 0);
    give("t");
    await settled();
    assert.equal(sockets.length, 1);
  });
});

describe("closing", () => {
  it("ends the line and what was begun, quietly for those who listen", async () => {
    const talk = await live(4);
    const events = collected(talk.conversation.events());
    const run = talk.conversation.run("hi");
    const command = assert.rejects(talk.conversation.ping(), ConversationClosed);
    const told = [];
    talk.conversation.on("connection", ({ status }) => told.push(status));
    talk.conversation.close();
    talk.conversation.close();
    assert.deepEqual(told, ["closed"]);
    assert.equal(talk.line().closedWith, 1000);
    assert.equal(await events.end, "ended");
    await assert.rejects(run.done, ConversationClosed);
    await command;
    assert.equal(await collected(talk.conversation.events()).end, "ended");
    await assert.rejects(talk.conversation.ping(), ConversationClosed);
    await pass(60_000);
    assert.equal(talk.sockets.length, 1);
    assert.notEqual(talk.client.conversation("demo"), talk.conversation);
  });

  it("before the first connect opens nothing", async () => {
    const { client, sockets } = scripted();
    const { ready } = client.conversation("demo");
    client.close();
    await assert.rejects(ready, ConversationClosed);
    await settled();
    assert.equal(sockets.length, 0);
  });

  it("by a listener, in the middle of a frame, is heeded at once", async () => {
    const talk = await live(4);
    const told = [];
    talk.conversation.on("event", () => talk.conversation.close());
    talk.conversation.on("interaction", (interaction) => told.push(interaction));
    await talk.line().say(asked(5, "i"), asked(6, "j"));
    assert.deepEqual([told, talk.conversation.seq], [[], 5]);
  });
});

describe("a client", () => {
  it("says at once what cannot be", () => {
    const { client } = scripted();
    const sensible = { url: "http://x.test", WebSocket: class {} };
    assert.throws(() => client.conversation("a/b"), /id: .* not a\/b/);
    for (const after of ["57", -1, 1.5, NaN]) assert.throws(() => client.conversation("a", { after }), /after: the number/);
    assert.throws(() => client.conversation("a", { from: "end" }), /from: start, snapshot or now, not end/);
    for (const clientId of ["", "x".repeat(129)]) assert.throws(() => new HermesClient({ ...sensible, clientId }), /clientId: /);
    assert.equal(new HermesClient({ ...sensible, clientId: "x".repeat(128) }).clientId.length, 128);
    for (const url of ["ftp://x", "agents.example.com", "127.0.0.1:8642"]) {
      assert.throws(() => new HermesClient({ ...sensible, url }), /url: /);
    }
    assert.throws(() => new HermesClient({ WebSocket: class {} }), /url: /);
    assert.throws(() => new HermesClient({ ...sensible, key: "k", getTicket: () => "t" }), /exclude each other/);
    assert.throws(() => new HermesClient({ ...sensible, WebSocket: undefined }), /there is no WebSocket here/);
  });

  it("takes null for what is not there", async () => {
    const { client, line } = scripted({ key: null, getTicket: () => "t" });
    client.conversation("demo", { after: null, epoch: "e" });
    await settled();
    assert.deepEqual(line().query, { from: "snapshot", ticket: "t" });
    assert.deepEqual(line().protocols, ["hermes.v1"]);
  });

  it("has one conversation for one id, as long as it is open", () => {
    const { client } = scripted();
    const conversation = client.conversation("a");
    assert.equal(client.conversation("a"), conversation);
    assert.notEqual(client.conversation("b"), conversation);
    assert.notEqual(client.conversation("new"), client.conversation("new"));
  });

  it("makes ids also where a page is not secure", () => {
    Object.defineProperty(crypto, "randomUUID", { value: undefined, configurable: true });
    const ids = [1, 2].map(() => scripted({ clientId: undefined }).client.clientId);
    delete crypto.randomUUID;
    for (const id of ids) assert.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    assert.notEqual(ids[0], ids[1]);
  });
});
