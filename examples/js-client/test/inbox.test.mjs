import assert from "node:assert/strict";
import { afterEach, describe, it, mock } from "node:test";
import { EMPTY, asked, hello, reconnected, scripted, settled } from "./scripted.mjs";

afterEach(() => mock.timers.reset());

const HELLO = hello(0, { mode: "live", from: 1, to: 0 }, { conversation_id: null });

function summary(conversation_id, last_event_at, ...interactions) {
  return { conversation_id, title: null, status: "idle", queue: 0, interactions, last_event_at, head: 1, usage: EMPTY.usage };
}
const page = (conversations, next) => ({ type: "inbox.page", conversations, interactions: [], ...(next && { next }) });
const changed = (conversation) => ({ type: "inbox.changed", conversation });

async function opened(...frames) {
  const { client, sockets, line } = scripted();
  const inbox = client.inbox();
  const told = [];
  for (const type of ["connection", "page", "changed", "removed"]) inbox.on(type, (value) => told.push([type, value]));
  await settled();
  await line().say(HELLO, ...frames);
  return { client, sockets, line, inbox, told, ids: () => inbox.conversations.map((one) => one.conversation_id) };
}

describe("the inbox", () => {
  it("is at the server's root of sockets, and live with the first page", async () => {
    const { line, inbox } = await opened();
    assert.equal(line().url.href, "ws://server.test/ws");
    assert.deepEqual([inbox.connection.status, inbox.hasMore], ["connecting", false]);
    assert.deepEqual(line().sent.map(({ type, client_id }) => [type, client_id]), [["client.update", "me"]]);
    await line().say(page([]));
    await inbox.ready;
    assert.deepEqual([inbox.connection.status, inbox.conversations, inbox.hasMore], ["live", [], false]);
  });

  it("lists those that need a person first, then the one with the newest event", async () => {
    const { line, inbox, ids } = await opened(page([summary("a", 1, asked(1, "i")), summary("b", 5), summary("c", 3)]));
    assert.deepEqual(ids(), ["a", "b", "c"]);
    assert.equal(inbox.conversations, inbox.conversations);
    await line().say(changed(summary("c", 6)), changed(summary("new", 7)));
    assert.deepEqual(ids(), ["a", "new", "c", "b"]);
    await line().say(changed(summary("a", 8)), changed(summary("b", 5, asked(1, "j"))));
    assert.deepEqual(ids(), ["b", "a", "new", "c"]);
    await line().say({ type: "inbox.removed", conversation_id: "b" });
    assert.deepEqual(ids(), ["a", "new", "c"]);
    await line().say(changed(summary("c", 6, asked(9, "k", { kind: "client_tool" }))));
    assert.deepEqual(ids(), ["a", "new", "c"], "what a client executes needs no person");
  });

  it("has all open interactions, each with its conversation, the one that was asked first comes first", async () => {
    const { line, inbox } = await opened(page([summary("a", 1, asked(3, "i"), asked(7, "k")), summary("b", 5, asked(5, "j"))]));
    const open = () => inbox.interactions.map((one) => `${one.conversation_id}:${one.interaction_id}`);
    assert.deepEqual(open(), ["a:i", "b:j", "a:k"]);
    await line().say(changed(summary("a", 1)));
    assert.deepEqual(open(), ["b:j"]);
  });

  it("answers an interaction where it was asked", async () => {
    const { line, inbox } = await opened(page([summary("a", 1, asked(3, "i", { digest: "d" }))]));
    void inbox.approve(inbox.interactions[0], "run");
    void inbox.reply("j", { option: "deny", conversation_id: "b" });
    void inbox.run("new", "hi", { when_busy: "queue" });
    void inbox.stop("a", { queue: "clear" });
    assert.deepEqual(line().commands.map(({ id, ...command }) => command), [
      { type: "interaction.reply", interaction_id: "i", digest: "d", conversation_id: "a", option: "run" },
      { type: "interaction.reply", interaction_id: "j", conversation_id: "b", option: "deny" },
      { type: "run.start", conversation_id: "new", input: "hi", when_busy: "queue" },
      { type: "run.stop", conversation_id: "a", queue: "clear" },
    ]);
  });

  it("has the next page when asked for it", async () => {
    const { line, inbox, ids } = await opened(page([summary("a", 3)], "after-a"));
    assert.equal(inbox.hasMore, true);
    const more = inbox.more();
    const [command] = line().commands;
    assert.deepEqual(command, { type: "inbox.more", id: command.id }, "after the newest page of this line");
    await line().say(page([summary("b", 2)]));
    await line().ok(command);
    await more;
    assert.deepEqual([ids(), inbox.hasMore], [["a", "b"], false]);
    await inbox.more();
    assert.equal(line().commands.length, 1, "there is nothing to ask for");
  });

  it("asks for a page once, however often it is wanted meanwhile", async () => {
    const { line, inbox } = await opened(page([summary("a", 3)], "after-a"));
    const both = Promise.all([inbox.more(), inbox.more()]);
    assert.equal(line().commands.length, 1);
    await line().say(page([summary("b", 2)], "after-b"));
    await line().ok(line().commands[0]);
    await both;
    void inbox.more();
    assert.equal(line().commands.length, 2);
  });

  it("begins anew after a reconnect, and shows the old page until then", async () => {
    const talk = await opened(page([summary("a", 3)], "after-a"));
    const more = talk.inbox.more();
    const next = await reconnected(talk);
    assert.deepEqual(talk.ids(), ["a"]);
    await next.say(HELLO, page([summary("b", 4)], "after-b"));
    assert.deepEqual(talk.ids(), ["b"]);
    assert.equal(talk.inbox.connection.status, "live");
    const [command] = next.commands;
    await next.say(page([summary("c", 1)]));
    await next.ok(command);
    await more;
    assert.deepEqual(talk.ids(), ["b", "c"]);
  });

  it("tells of what happens", async () => {
    const { line, told, client } = await opened(page([summary("a", 1)]));
    await line().say(changed(summary("a", 2)), { type: "inbox.removed", conversation_id: "a" }, { type: "heartbeat", head: 0, ts: 1 });
    client.close();
    assert.deepEqual(told, [
      ["connection", { status: "connecting" }],
      ["connection", { status: "live" }],
      ["page", page([summary("a", 1)])],
      ["changed", summary("a", 2)],
      ["removed", "a"],
      ["connection", { status: "closed" }],
    ]);
  });
});
