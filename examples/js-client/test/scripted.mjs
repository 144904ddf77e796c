// A server that does what a test says: for what a real one cannot be made to do. And time that stands still.

import { mock } from "node:test";
import { HermesClient } from "../hermes-ws.js";

const HELLO = {
  type: "hello", protocol: "hermes.v1", server: { name: "hermes-ws", version: "0", instance: "i" }, principal: "ada",
  role: "driver", limits: { frame_bytes: 2000 }, schema: { url: "/schemas/x", sha256: "0" }, hint: "", floor: 1,
};
export const EMPTY = {
  config: {}, config_version: 0, run: null, queue: [], items: [], interactions: [],
  usage: { input_tokens: 0, output_tokens: 0, total_tokens: 0 },
};
export const BY = { principal: "ada" };

/** What `console.warn` is told while `doing` is done. */
export async function warned(doing) {
  const { mock: told } = mock.method(console, "warn", () => {});
  await doing();
  told.restore();
  return told.calls.map((call) => call.arguments[0]);
}

/** Everything that is due without time passing has happened. */
export const settled = () => new Promise((resolve) => setImmediate(resolve));

/** Let `ms` pass, and what is due then happen. */
export async function pass(ms) {
  mock.timers.tick(ms);
  await settled();
}

/** A client whose sockets are the test's, without jitter: it waits 100 ms, 200 ms, 400 ms. Time stands still. */
export function scripted({ terminable = false, ...options } = {}) {
  mock.timers.reset();
  mock.timers.enable({ apis: ["setTimeout", "Date"] });
  const sockets = [];
  class Socket {
    sent = [];
    closedWith = undefined;
    open = true;

    constructor(url, protocols) {
      if (terminable) this.terminate = () => this.close("terminated");
      this.url = new URL(url);
      this.protocols = protocols;
      sockets.push(this);
    }

    send(text) {
      this.sent.push(JSON.parse(text));
    }

    close(code) {
      this.closedWith = code ?? null;
      this.open = false;
    }

    // what the server does

    async say(...frames) {
      for (const frame of frames) this.onmessage?.({ data: typeof frame === "string" ? frame : JSON.stringify(frame) });
      await settled();
    }

    async end(code = 1006, reason = "") {
      this.open = false;
      this.onclose?.({ code, reason });
      await settled();
    }

    async ok(command, more = {}) {
      await this.say({ type: "ok", id: command.id, at: 0, ...more });
    }

    async refuse(command, code, more = {}) {
      await this.say({ type: "error", id: command.id, code, message: `it is ${code}`, retryable: false, ...more });
    }

    /** What was sent beside the introduction. */
    get commands() {
      return this.sent.filter(({ type }) => type !== "client.update");
    }

    get introductions() {
      return this.sent.filter(({ type }) => type === "client.update");
    }

    get query() {
      return Object.fromEntries(this.url.searchParams);
    }
  }
  const client = new HermesClient({ url: "http://server.test", WebSocket: Socket, random: () => 1, clientId: "me", ...options });
  return { client, sockets, line: () => sockets.at(-1) };
}

/** `hello` of a conversation at `head`. */
export function hello(head, resume, more = {}) {
  return { ...HELLO, conversation_id: "demo", epoch: head ? "e1" : null, head, resume, ...more };
}

/** The beginning of a line that replays what follows `after`. */
export function replay(after, head, more) {
  return hello(head, { mode: "replay", from: after + 1, to: head }, more);
}

/** The beginning of a line with a snapshot, and it. */
export function snapshot(at, state = {}, { reason, ...more } = {}) {
  const resume = { mode: "snapshot", from: 1, to: at, ...(reason && { reason }) };
  return [hello(at, resume, more), { type: "snapshot", at, ...EMPTY, ...state }, { type: "live", at }];
}

/** A conversation that is live, with a snapshot at `at`, and its socket. */
export async function live(at = 0, state = {}, { conversation: beginning, more, ...options } = {}) {
  const { client, sockets, line } = scripted(options);
  const conversation = client.conversation("demo", beginning);
  await settled();
  await line().say(...snapshot(at, state, more));
  return { client, sockets, line, conversation };
}

/** The line is cut, and made anew: the next socket, silent yet. */
export async function reconnected({ line }, code = 1006) {
  await line().end(code);
  await pass(20_000);
  return line();
}

// events

export const created = { type: "conversation.created", seq: 1, ts: 1, conversation_id: "demo", epoch: "e1" };
export const pinged = (seq) => ({ type: "x_ping", seq, ts: seq });
export const started = (seq, run_id, more = {}) =>
  ({ type: "run.started", seq, ts: seq, run_id, input: "hi", agent_name: "demo", model: "m", attempt: 1, by: BY, ...more });
export const completed = (seq, run_id) =>
  ({ type: "run.completed", seq, ts: seq, run_id, output: "", stop_reason: "end", usage: EMPTY.usage, duration_ms: 1 });
export const asked = (seq, interaction_id, more = {}) => ({
  type: "interaction.requested", seq, ts: seq, run_id: "r", interaction_id, kind: "approval", title: "", message: "",
  editable: false, requested_at: seq, expires_at: 9e12, on_expire: { cancel: true }, answerable_by: { roles: [] }, ...more,
});
export const resolved = (seq, interaction_id) => ({
  type: "interaction.resolved", seq, ts: seq, run_id: "r", interaction_id, outcome: "answered", by: BY, via: "socket",
});

/** All that is told, until it ends or throws; the list is there at once, and grows. */
export function collected(iterable) {
  const told = [];
  told.end = (async () => {
    for await (const one of iterable) told.push(one);
  })().then(() => "ended", (error) => error);
  return told;
}
