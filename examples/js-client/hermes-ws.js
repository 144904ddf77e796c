/**
 * hermes-ws: the JavaScript client of the protocol `hermes.v1`, in one file and without dependencies.
 *
 *     import { HermesClient } from "./hermes-ws.js";
 *
 *     const conversation = new HermesClient({ url: "http://127.0.0.1:8642", key }).conversation("demo");
 *     for await (const event of conversation.run("hi")) console.log(event);
 *
 * A conversation stays connected until `close()`. A line that breaks is made again, with a jittered back-off; every
 * event is told once and in order across all lines; a command that had no answer yet is sent again and has one effect.
 * A client that is told to go (close codes 4400-4499) does not come back.
 *
 * From top to bottom: errors, the fold, streams and listeners, the link (one socket after the other), runs, tools, the
 * conversation, the inbox, the client.
 *
 * @module hermes-ws
 */

/**
 * @import {
 *   ApprovalRule, ClientTool, ClientUpdate, Command, ContentPart, ConversationSummary, Error as ErrorFrame, Event,
 *   Hello, InboxPage, Input, InteractionKind, InteractionReply, InteractionRequested, InteractionTool, Item,
 *   MessageItem, Ok, OpenInteraction, Owner, QueuedRun, ReasoningItem, RunCancelled, RunCompleted, RunFailed, RunRetry,
 *   RunStart, RunSteer, RunStop, RunSummary, ServerFrame, Skipped, Snapshot, SnapshotState, ToolCallItem,
 *   ToolDescription, Usage,
 * } from "./frames.d.ts"
 */

// -- errors ---------------------------------------------------------------------------------------------------------

/** Root of what this client throws on purpose. */
export class HermesError extends Error {
  /** @param {string} message */
  constructor(message) {
    super(message);
    this.name = new.target.name;
  }
}

/** The server refused a command. Fields as in the protocol's `error` frame. */
export class CommandRefused extends HermesError {
  /** @param {Omit<ErrorFrame, "type" | "id">} refusal */
  constructor({ code, message, retryable, retry_after_ms, path, details }) {
    super(message);
    this.code = code;
    this.retryable = retryable;
    this.retry_after_ms = retry_after_ms;
    this.path = path;
    this.details = details ?? {};
  }
}

/** The server will not have this client: `code` is a close code from 4400 to 4499. Trying again is no use. */
export class ConnectionRefused extends HermesError {
  /** @param {number} code @param {string} reason */
  constructor(code, reason) {
    super(reason ? `${code}: ${reason}` : String(code));
    this.code = code;
    this.reason = reason;
  }
}

/**
 * The events of a run can no longer be told one by one: `snapshot` is how things are now, and the conversation's
 * `state` is that. `reason` is as in `hello.resume` (`epoch_changed`, `gap`, `ahead`), or `over`: the command was a
 * repeated one, and its run had ended before this client came.
 */
export class Resynchronized extends HermesError {
  /** @param {SnapshotState} snapshot @param {string} [reason] */
  constructor(snapshot, reason) {
    super(`the events of this run can no longer be told one by one (${reason ?? "snapshot"})`);
    this.snapshot = snapshot;
    this.reason = reason;
  }
}

/** It was used after `close()`. */
export class ConversationClosed extends HermesError {
  constructor() {
    super("this conversation was closed");
  }
}

/** The server said something that the protocol does not allow. Never leaves the client: the line is made again. */
class Violation extends Error {}

/**
 * @param {unknown} condition
 * @param {string} otherwise
 * @returns {asserts condition}
 */
function must(condition, otherwise) {
  if (!condition) throw new Violation(otherwise);
}

/** @param {any} error whatever was thrown @returns {string} */
function messageOf(error) {
  return String(error?.message || error?.name || error);
}

/** Tell of an error that nobody waits for, as the platform does, and go on. @param {unknown} error */
function report(error) {
  if (typeof reportError === "function") reportError(error);
  else queueMicrotask(() => { throw error; });
}

/** Tell whoever programs of what nobody has asked to be told of. @param {string} message */
function warn(message) {
  console.warn(`hermes-ws: ${message}`);
}

// -- the fold -------------------------------------------------------------------------------------------------------

/** @typedef {RunCompleted | RunFailed | RunCancelled} RunEnded */
/** @typedef {Event | Skipped} Folded */

/**
 * What a conversation's events add up to: the same as the server's snapshot at the same `seq`.
 *
 * `state` is copied on write: what changed is another object, what did not is the same one. An event costs the same
 * however many items there are; the list of items is copied when `state` is looked at, not before.
 */
export class Fold {
  /** @type {Item[]} */ #items;
  /** Where the items are that may still change: index in `#items`, by id. @type {Map<string, number>} */ #open;
  /** @type {Map<string, InteractionRequested>} */ #interactions;
  /** @type {SnapshotState} */ #state;
  #itemsChanged = false;
  #interactionsChanged = false;
  #shown = false;

  /** @param {SnapshotState} [snapshot] what came before; nothing did, without */
  constructor(snapshot) {
    const { at = 0, config = {}, config_version = 0, run = null, queue = [], before } = snapshot ?? {};
    const { items = [], interactions = [], usage = noUsage() } = snapshot ?? {};
    this.#state = { at, config, config_version, run, queue, items, interactions, usage };
    if (before !== undefined) this.#state.before = before;
    this.#items = [...items];
    this.#open = new Map([...items.entries()].filter(([, item]) => isOpen(item)).map(([n, item]) => [idOf(item), n]));
    this.#interactions = new Map(interactions.map((asked) => [asked.interaction_id, asked]));
  }

  /** The last `seq` that was folded in. */
  get at() {
    return this.#state.at;
  }

  /** The state as it is; the same object until the next event. */
  get state() {
    if (this.#itemsChanged) this.#state.items = [...this.#items];
    if (this.#interactionsChanged) this.#state.interactions = [...this.#interactions.values()];
    this.#itemsChanged = this.#interactionsChanged = false;
    this.#shown = true;
    return this.#state;
  }

  /** The interactions that are open, oldest first. */
  get interactions() {
    return this.#interactions.values();
  }

  /** @param {string} id whether an interaction is open */
  isAsked(id) {
    return this.#interactions.has(id);
  }

  /** Fold in what comes next. An event of an unknown type only counts. @param {Folded} frame */
  apply(frame) {
    if (this.#shown) this.#state = { ...this.#state };
    this.#shown = false;
    this.#state.at = frame.type === "skipped" ? frame.to : frame.seq;
    this.#fold(frame);
  }

  /** @param {Folded} e */
  #fold(e) {
    const state = this.#state;
    switch (e.type) {
      case "conversation.configured":
        state.config = e.config;
        state.config_version = e.version;
        return;
      case "run.queued":
        state.queue = [...state.queue];
        state.queue.splice(e.position - 1, 0, pick(e, ["run_id", "input", "position", "by"]));
        state.queue = numbered(state.queue);
        return;
      case "run.started":
        state.queue = without(state.queue, e.run_id);
        state.run = {
          ...pick(e, ["run_id", "agent_name", "model", "attempt", "by", "retry_of"]),
          status: "running", step: 0, started_at: e.ts, usage: noUsage(),
        };
        if (e.retry_of === undefined) this.#add(said(e.run_id, e.run_id, e.input));
        return;
      case "run.recovered":
        return this.#run({ attempt: e.attempt });
      case "run.waiting":
        return this.#run({ status: state.run?.status === "stopping" ? "stopping" : "waiting" });
      case "run.resumed":
        return this.#run({ status: state.run?.status === "stopping" ? "stopping" : "running" });
      case "run.stopping":
        return this.#run({ status: "stopping" });
      case "run.steered":
        return this.#steered(e);
      case "run.completed":
      case "run.failed":
      case "run.cancelled":
        state.usage = sum(state.usage, e.usage);
        if (state.run?.run_id === e.run_id) state.run = null;
        else state.queue = without(state.queue, e.run_id);
        return;
      case "step.started":
        return this.#run({ step: e.step });
      case "step.completed":
        return this.#run({ usage: sum(state.run?.usage ?? noUsage(), e.usage) });
      case "message.started":
        return this.#begin({ ...assistant(e), step: e.step });
      case "message.delta":
        return this.#change(e.item_id, (/** @type {MessageItem} */ item) => ({ text: item.text + e.delta }));
      case "message.completed":
        this.#change(e.item_id, () => ({ status: "completed", ...pick(e, ["text", "content", "partial"]) }));
        return void this.#open.delete(e.item_id);
      case "reasoning.delta":
        this.#think(e);
        return this.#change(e.item_id, (/** @type {ReasoningItem} */ item) => ({ text: item.text + e.delta }));
      case "reasoning.available":
        this.#think(e);
        this.#change(e.item_id, () => ({ status: "completed", text: e.text }));
        return void this.#open.delete(e.item_id);
      case "item.discarded":
        return this.#discard(e.item_id);
      case "tool.started":
        return this.#begin({
          type: "tool_call", status: "started", output: "", truncated: false,
          ...pick(e, ["call_id", "run_id", "step", "name", "source", "title", "arguments", "annotations"]),
        });
      case "tool.executing":
        return this.#change(e.call_id, () => ({ status: "executing", arguments: e.arguments }));
      case "tool.output":
        return this.#change(e.call_id, (/** @type {ToolCallItem} */ call) => ({
          output: call.output + (e.chunk ?? ""),
          ...(e.progress === undefined ? {} : { progress: { progress: e.progress, ...pick(e, ["total", "message"]) } }),
        }));
      case "tool.completed":
        this.#change(e.call_id, () => ({
          progress: undefined,
          ...pick(e, ["status", "output", "truncated", "duration_ms", "structured", "content"]),
        }));
        return void this.#open.delete(e.call_id);
      case "interaction.requested":
        this.#interactions.set(e.interaction_id, e);
        this.#interactionsChanged = true;
        return;
      case "interaction.resolved":
        this.#interactions.delete(e.interaction_id);
        this.#interactionsChanged = true;
        return;
      default: // what changes nothing in the state, or is not known yet
    }
  }

  /** @param {Partial<RunSummary>} change */
  #run(change) {
    if (this.#state.run !== null) this.#state.run = { ...this.#state.run, ...change };
  }

  /** @param {Extract<Event, { type: "run.steered" }>} e */
  #steered(e) {
    const { steers = [], ...run } = this.#state.run ?? {};
    const left = steers.filter((steer) => steer.steer_id !== e.steer_id);
    if (e.disposition === "pending") left.push(pick(e, ["steer_id", "text", "by"]));
    if (this.#state.run !== null) {
      this.#state.run = /** @type {RunSummary} */ (left.length ? { ...run, steers: left } : run);
    }
    if (e.disposition === "applied") this.#add({ ...said(e.steer_id, e.run_id, e.text), steered: true });
  }

  /** @param {Item} item */
  #add(item) {
    this.#items.push(item);
    this.#itemsChanged = true;
  }

  /** @param {Item} item */
  #begin(item) {
    this.#open.set(idOf(item), this.#items.length);
    this.#add(item);
  }

  /** The first that is heard of a block of reasoning begins it. @param {{ item_id: string, run_id: string }} e */
  #think({ item_id, run_id }) {
    const step = this.#state.run?.step ?? 0;
    if (!this.#open.has(item_id)) {
      this.#begin({ type: "reasoning", item_id, run_id, step, status: "in_progress", text: "" });
    }
  }

  /**
   * Put another object in the place of an item that is open. One that is not known lies before the snapshot's window.
   * @template {Item} T
   * @param {string} id
   * @param {(item: T) => object} change what is different; undefined removes
   */
  #change(id, change) {
    const index = this.#open.get(id);
    if (index === undefined) return;
    const item = /** @type {T} */ (this.#items[index]);
    const changed = { ...item, ...change(item) };
    if ("progress" in changed && changed.progress === undefined) delete changed.progress;
    this.#items[index] = changed;
    this.#itemsChanged = true;
  }

  /** @param {string} id */
  #discard(id) {
    const index = this.#items.findLastIndex((item) => item.type !== "tool_call" && item.item_id === id);
    if (index < 0) return;
    this.#items.splice(index, 1);
    this.#open.delete(id);
    for (const [other, at] of this.#open) if (at > index) this.#open.set(other, at - 1);
    const [first] = this.#items;
    if (this.#state.before === id && first) this.#state.before = idOf(first);
    this.#itemsChanged = true;
  }
}

/** @param {Item} item @returns {string} what `before` and the events call it */
function idOf(item) {
  return item.type === "tool_call" ? item.call_id : item.item_id;
}

/** @param {Item} item */
function isOpen(item) {
  return item.status === "in_progress" || item.status === "started" || item.status === "executing";
}

/** @returns {Usage} */
function noUsage() {
  return { input_tokens: 0, output_tokens: 0, total_tokens: 0 };
}

/** @param {Usage} one @param {Usage} other @returns {Usage} */
function sum(one, other) {
  const total = { ...one };
  for (const name of /** @type {(keyof Usage)[]} */ (Object.keys(other))) {
    total[name] = (total[name] ?? 0) + (other[name] ?? 0);
  }
  return total;
}

/**
 * The fields of these names that are there.
 * @template {object} T
 * @template {keyof T} K
 * @param {T} from
 * @param {K[]} names
 * @returns {Pick<T, K>}
 */
function pick(from, names) {
  const found = /** @type {Pick<T, K>} */ ({});
  for (const name of names) if (from[name] !== undefined) found[name] = from[name];
  return found;
}

/** @param {QueuedRun[]} queue @param {string} run_id */
function without(queue, run_id) {
  const left = queue.filter((queued) => queued.run_id !== run_id);
  return left.length === queue.length ? queue : numbered(left);
}

/** @param {QueuedRun[]} queue @returns {QueuedRun[]} */
function numbered(queue) {
  return queue.map((queued, n) => (queued.position === n + 1 ? queued : { ...queued, position: n + 1 }));
}

/** @param {string} item_id @param {string} run_id @param {Input} input @returns {MessageItem} */
function said(item_id, run_id, input) {
  const content = typeof input === "string" ? [{ type: /** @type {const} */ ("text"), text: input }] : input;
  const text = content.flatMap((part) => (part.type === "text" ? [part.text] : [])).join("\n");
  return { type: "message", item_id, run_id, role: "user", status: "completed", text, content };
}

/** @param {{ item_id: string, run_id: string }} e @returns {MessageItem} */
function assistant({ item_id, run_id }) {
  return { type: "message", item_id, run_id, role: "assistant", status: "in_progress", text: "", content: [] };
}

// -- streams and listeners ------------------------------------------------------------------------------------------

/**
 * What is pushed at one end comes out at the other, as an async iterator. Leaving the loop closes it.
 * @template T
 * @implements {AsyncIterableIterator<T>}
 */
class Stream {
  /** @type {T[]} */ #kept = [];
  #taken = 0;
  /** @type {Deferred<void> | null} */ #news = null;
  /** @type {{ failure?: Error } | null} */ #end = null;
  /** @type {(stream: Stream<T>) => void} */ #onClose;

  /** @param {(stream: Stream<T>) => void} [onClose] called when nobody takes any more */
  constructor(onClose = () => {}) {
    this.#onClose = onClose;
  }

  /** @param {T} value */
  push(value) {
    if (this.#end) return;
    this.#kept.push(value);
    this.#wake();
  }

  /** Nothing more will come: what is kept is still delivered, then `failure` is thrown. @param {Error} [failure] */
  end(failure) {
    this.#end ??= { failure };
    this.#wake();
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  /** @returns {Promise<IteratorResult<T, undefined>>} */
  async next() {
    while (this.#taken === this.#kept.length && !this.#end) await (this.#news ??= new Deferred()).promise;
    if (this.#taken < this.#kept.length) return { done: false, value: this.#take() };
    if (this.#end?.failure) throw this.#end.failure;
    return { done: true, value: undefined };
  }

  /** @returns {Promise<IteratorResult<T, undefined>>} */
  async return() {
    this.#kept = [];
    this.#taken = 0;
    this.#end = {};
    this.#wake();
    this.#onClose(this);
    return { done: true, value: undefined };
  }

  #wake() {
    this.#news?.resolve();
    this.#news = null;
  }

  /** What was taken is let go of in large pieces: a consumer that lags costs no more than one that does not. */
  #take() {
    const value = /** @type {T} */ (this.#kept[this.#taken++]);
    if (this.#taken >= 1000 || this.#taken === this.#kept.length) {
      this.#kept.splice(0, this.#taken);
      this.#taken = 0;
    }
    return value;
  }
}

/**
 * Who wants to be told of what. A listener that throws breaks nothing.
 * @template {object} Told by type, what its listeners are given
 */
class Listeners {
  /** @type {Map<keyof Told, Set<(value: any) => void>>} */ #of = new Map();

  /**
   * @template {keyof Told} T
   * @param {T} type
   * @param {(value: Told[T]) => void} listener
   * @returns {() => void} takes it off again
   */
  on(type, listener) {
    if (typeof listener !== "function") throw new TypeError(`a function is needed to be told of ${String(type)}`);
    const listeners = this.#of.get(type) ?? new Set();
    this.#of.set(type, listeners.add(listener));
    return () => void listeners.delete(listener);
  }

  /** @param {keyof Told} type whether anybody wants to be told */
  has(type) {
    return (this.#of.get(type)?.size ?? 0) > 0;
  }

  /**
   * @template {keyof Told} T
   * @param {T} type
   * @param {Told[T]} value
   * @returns {boolean} whether there was anybody to tell
   */
  tell(type, value) {
    const listeners = [...(this.#of.get(type) ?? [])];
    for (const listener of listeners) {
      try {
        listener(value);
      } catch (error) {
        report(error);
      }
    }
    return listeners.length > 0;
  }
}

/** @template T a promise, and what settles it; that nobody looks at its failure is no mistake */
class Deferred {
  /** @type {(value: T) => void} */ resolve = () => {};
  /** @type {(reason: Error) => void} */ reject = () => {};

  constructor() {
    /** @type {Promise<T>} */
    this.promise = new Promise((resolve, reject) => Object.assign(this, { resolve, reject }));
    this.promise.catch(() => {});
  }
}

// -- the link -------------------------------------------------------------------------------------------------------

/** How long to wait before coming back: exponential, with full jitter, so that many do not come back at once. */
export class Backoff {
  #attempts = 0;

  /** @param {{ firstMs?: number, mostMs?: number }} [bounds] @param {() => number} [random] */
  constructor({ firstMs = 100, mostMs = 15_000 } = {}, random = Math.random) {
    this.firstMs = firstMs;
    this.mostMs = mostMs;
    this.random = random;
  }

  /** The line was good: begin again. */
  reset() {
    this.#attempts = 0;
  }

  /** Milliseconds to wait now. */
  next() {
    return this.random() * Math.min(this.mostMs, this.firstMs * 2 ** this.#attempts++);
  }
}

/**
 * How things stand with the line. `waiting`: for the next attempt, in `retry_in_ms`; `code` and `reason` say why it is
 * down. `closed`: for good.
 * @typedef {object} Connection
 * @property {"connecting" | "live" | "waiting" | "closed"} status
 * @property {number} [retry_in_ms]
 * @property {number} [code] of the close
 * @property {string} [reason]
 */

/**
 * What a link is for: a conversation, or the inbox.
 * @typedef {object} LinkOwner
 * @property {(anew: boolean) => Address} address where to connect now; `anew`: resuming has led nowhere
 * @property {(hello: Hello) => boolean} begin the server said hello; true: commands may go out, false: after `flow()`
 * @property {(frame: ServerFrame) => void} take a frame that is not about commands; throws what `must` throws
 * @property {() => ClientUpdate} introduction what goes out first on every line
 * @property {(answer: Ok | ErrorFrame) => void} stray an answer to a command that does not wait for one
 * @property {() => number} progress grows when the server tells something new
 * @property {(connection: Connection) => boolean} changed the line is another by now; whether anybody was told
 * @property {(failure: HermesError) => void} ended there will be no further line
 */

/** @typedef {{ conversation: string, path: string, query: URLSearchParams }} Address */
/**
 * A command without an answer. `line`: where it was sent last. `lost`: lines that ended under it, nothing new on them,
 * the first one at `lostAt`. `until`: how long it is sent again after the server has refused it for the moment;
 * `timer`: it waits for that.
 * @typedef {object} Unanswered
 * @property {string} text
 * @property {Deferred<Ok>} ok
 * @property {number} [line]
 * @property {number} lost
 * @property {number} lostAt
 * @property {number} [until]
 * @property {Timer} [timer]
 */
/** @typedef {ReturnType<typeof setTimeout>} Timer */

/** How long a command is sent again that the server refuses for the moment, saying when to come back. */
const REFUSED_FOR_MS = 30_000;
/** So many lines in a row, and for so long, may end under a command with nothing new on them: it may be the reason. */
const LINES = 8;
const LINES_MS = 60_000;
/** A line that was live for so long was a good one. */
const LASTED_MS = 5_000;
/** Half of a character (a lone surrogate) as JSON.stringify writes it: servers cannot read that. */
const HALF = /(?<!\\)((?:\\\\)*)\\ud[89a-f][0-9a-f]{2}/g;
/** So many tickets in a row may be refused as not valid: one may have expired under way. */
const TICKETS = 3;
/** So many violations in a row, nothing new in between, are answered by beginning anew with a snapshot. */
const VIOLATIONS = 3;
/** The longest that a timer can wait. */
const TIMER_MS = 2 ** 31 - 1;

/** One socket after the other to the same address, and the commands that have no answer yet. */
class Link {
  /** @type {Settings} */ #settings;
  /** @type {LinkOwner} */ #owner;
  /** @type {Backoff} */ #backoff;
  /** @type {WebSocketLike | null} */ #socket = null;
  /** @type {Map<string, Unanswered>} */ #unanswered = new Map();
  /** Counts connects: what comes late belongs to one that is over. */ #attempt = 0;
  /** @type {"opening" | "greeted" | "flowing"} */ #phase = "opening";
  #heardAt = 0;
  #liveAt = 0;
  #progress = 0;
  #awayMs = 0;
  #leastMs = 0;
  #notBefore = 0;
  #ticketsRefused = 0;
  #violations = 0;
  /** @type {Timer | undefined} */ #patience;
  /** @type {Timer | undefined} */ #pause;
  /** @type {HermesError | null} */ failure = null;
  /** What the server said first, on the newest line. @type {Hello | null} */ hello = null;
  /** @type {Connection} */ connection = { status: "connecting" };
  /** @type {Deferred<void>} */ ready = new Deferred();
  /** Whether somebody has asked for `ready`. */ awaited = false;
  #connecting = new AbortController();

  /** @param {Settings} settings @param {LinkOwner} owner */
  constructor(settings, owner) {
    this.#settings = settings;
    this.#owner = owner;
    this.#backoff = new Backoff(settings.backoff, settings.random);
    globalThis.addEventListener?.("online", this.#hurry);
    globalThis.document?.addEventListener("visibilitychange", this.#look);
    queueMicrotask(() => this.failure ?? this.#connect());
  }

  // commands

  /** Send a command, as often as lines break, until it is answered. @param {Command} command @returns {Promise<Ok>} */
  async send(command) {
    if (this.failure) throw this.failure;
    const id = command.id ?? uuid();
    if (typeof id !== "string" || !id || id.length > 128) throw new TypeError("id: a string of 1 to 128 characters");
    if (this.#unanswered.has(id)) throw new TypeError(`the command ${id} has no answer yet: ids are for one each`);
    const text = JSON.stringify({ ...command, id }).replace(HALF, "$1\\ufffd");
    /** @type {Unanswered} */
    const unanswered = { text, ok: new Deferred(), lost: 0, lostAt: 0 };
    this.#unanswered.set(id, unanswered);
    if (this.flowing) this.#write(id, unanswered);
    return unanswered.ok.promise;
  }

  /** Say something that is not said again on another line. @param {Command} command */
  say(command) {
    this.#socket?.send(JSON.stringify(command));
  }

  /** @param {string} id whether a command may have reached the server */
  wasSent(id) {
    const unanswered = this.#unanswered.get(id);
    return !unanswered || unanswered.line !== undefined;
  }

  /** Whether commands go out at once. */
  get flowing() {
    return this.#phase === "flowing";
  }

  /** Who we are; what has no answer yet; and from now on what comes. */
  flow() {
    this.#phase = "flowing";
    this.say(this.#owner.introduction());
    for (const [id, unanswered] of this.#unanswered) if (!unanswered.timer) this.#write(id, unanswered);
  }

  /** @param {string} id @param {Unanswered} unanswered */
  #write(id, unanswered) {
    const most = this.hello?.limits["frame_bytes"] ?? Infinity;
    const { text } = unanswered;
    if (text.length * 3 > most && new TextEncoder().encode(text).length > most) {
      const message = `a command is at most ${most} bytes`;
      return this.#refuse(id, { code: "too_large", message, retryable: false, path: "$" });
    }
    unanswered.line = this.#attempt;
    this.#socket?.send(text);
  }

  /** @param {Ok | ErrorFrame} answer */
  #answered(answer) {
    if (answer.type === "error" && answer.id === null) return this.#unreadable(answer);
    const unanswered = answer.id === null ? undefined : this.#unanswered.get(answer.id);
    if (answer.id === null || !unanswered) return this.#owner.stray(answer);
    if (answer.type === "error") return this.#refuse(answer.id, answer);
    this.#unanswered.delete(answer.id);
    unanswered.ok.resolve(answer);
  }

  /** The server could not read whose command it was: if one only is under way, that. @param {ErrorFrame} answer */
  #unreadable(answer) {
    const [only, ...others] = this.#underWay();
    if (only && !others.length) this.#refuse(only[0], answer);
    else warn(`the server could not read a frame: ${answer.message}`);
  }

  /** Commands that were sent on this line, and have no answer. */
  #underWay() {
    return [...this.#unanswered].filter(([, { line, timer }]) => line === this.#attempt && !timer);
  }

  /** The line has ended: what was under way may be the reason. @param {boolean} progressed @param {number} [code] */
  #blame(progressed, code) {
    const underWay = this.#underWay().sort(([, one], [, other]) => other.text.length - one.text.length);
    const refusal = { message: "the line was lost whenever this was sent", retryable: true };
    const large = { message: "this is more than something on the way lets through", retryable: false };
    for (const [n, [id, unanswered]] of underWay.entries()) {
      unanswered.lost = progressed ? 0 : unanswered.lost + 1;
      if (unanswered.lost <= 1) unanswered.lostAt = Date.now();
      const lost = unanswered.lost >= LINES && Date.now() - unanswered.lostAt >= LINES_MS;
      if (code === 1009 && n === 0) this.#refuse(id, { code: "too_large", ...large });
      else if (lost) this.#refuse(id, { code: "internal", ...refusal });
    }
  }

  /** @param {string} id @param {Omit<ErrorFrame, "type" | "id">} refusal */
  #refuse(id, refusal) {
    const unanswered = this.#unanswered.get(id);
    if (!unanswered) return;
    const { retryable, retry_after_ms: wait_ms } = refusal;
    unanswered.until ??= Date.now() + REFUSED_FOR_MS;
    if (retryable && wait_ms !== undefined && Date.now() + wait_ms <= unanswered.until) {
      unanswered.timer = setTimeout(() => {
        unanswered.timer = undefined;
        if (this.flowing) this.#write(id, unanswered);
      }, wait_ms);
      return;
    }
    this.#unanswered.delete(id);
    unanswered.ok.reject(new CommandRefused(refusal));
  }

  // lines

  async #connect() {
    const attempt = ++this.#attempt;
    this.#pause = undefined;
    this.#progress = this.#owner.progress();
    this.#heardAt = Date.now();
    this.#await(this.#settings.openTimeoutMs);
    this.#connecting = new AbortController();
    this.#tell({ status: "connecting" });
    if (attempt !== this.#attempt) return; // whoever was told has closed it
    try {
      const url = await this.#url();
      if (attempt === this.#attempt) this.#open(url);
    } catch (error) {
      if (attempt === this.#attempt) this.#lost({ reason: messageOf(error) });
    }
  }

  async #url() {
    const { conversation, path, query } = this.#owner.address(this.#violations >= VIOLATIONS);
    const { getTicket } = this.#settings;
    if (getTicket) query.set("ticket", ticketOf(await getTicket({ conversation, signal: this.#connecting.signal })));
    const parameters = String(query);
    return this.#settings.url + path + (parameters && `?${parameters}`);
  }

  /** @param {string} url */
  #open(url) {
    const { WebSocket, key } = this.#settings;
    const credentials = key === undefined ? [] : [`hermes.bearer.${base64url(key)}`];
    const socket = new WebSocket(url, ["hermes.v1", ...credentials]);
    let problem = "";
    this.#socket = socket;
    socket.onmessage = (event) => this.#message(event.data);
    socket.onclose = (event) => this.#closed(event.code, event.reason || problem);
    socket.onerror = (event) => { // a close follows, but not everywhere when nobody is there (Node 22)
      problem = event.message ?? "";
      setTimeout(() => socket === this.#socket && this.#closed(1006, problem), 0);
    };
  }

  /** @param {unknown} data */
  #message(data) {
    this.#heardAt = Date.now();
    try {
      must(typeof data === "string", "a binary frame");
      this.#take(JSON.parse(data));
    } catch (error) {
      this.#lost({ reason: `protocol violation: ${messageOf(error)}` }, true);
    }
  }

  /** @param {ServerFrame} frame */
  #take(frame) {
    must(typeof frame.type === "string", "a frame without a type");
    if (frame.type === "hello") return this.#greeted(frame);
    must(this.#phase !== "opening", "the first frame is no hello: is this a hermes-ws server?");
    if (frame.type === "ok" || frame.type === "error") this.#answered(frame);
    else if (frame.type === "goaway") this.#awayMs = frame.reconnect_after_ms;
    else this.#owner.take(frame);
  }

  /** @param {Hello} hello */
  #greeted(hello) {
    must(this.#phase === "opening", "hello in mid-stream");
    this.hello = hello;
    this.#phase = "greeted";
    this.#ticketsRefused = 0;
    this.#await(this.#settings.silenceMs);
    if (this.#owner.begin(hello)) this.flow();
  }

  /** The owner is up to date. */
  live() {
    this.#liveAt = Date.now();
    this.#tell({ status: "live" });
    this.ready.resolve();
  }

  /** @param {number} code @param {string} reason */
  #closed(code, reason) {
    const another = code === 4401 && this.#settings.getTicket && ++this.#ticketsRefused < TICKETS;
    if (code >= 4400 && code < 4500 && !another) this.end(new ConnectionRefused(code, reason), { code, reason });
    else this.#lost({ code, reason: reason || `closed with ${code}` });
  }

  /**
   * The line is down: come back, soon if it was a good one: something new was told on it, or it was live for a while.
   * @param {{ code?: number, reason: string }} why
   * @param {boolean} [violated]
   */
  #lost(why, violated = false) {
    const progressed = this.#owner.progress() !== this.#progress;
    const lasted = this.#liveAt > 0 && Date.now() - this.#liveAt >= LASTED_MS;
    this.#blame(progressed, why.code);
    if (progressed || lasted) {
      this.#backoff.reset();
      this.#violations = 0;
    }
    if (violated) this.#violations += 1;
    const retry_in_ms = Math.min(TIMER_MS, this.#awayMs + this.#backoff.next());
    this.#leastMs = this.#awayMs;
    this.#notBefore = Date.now() + this.#awayMs;
    this.#drop();
    this.#pause = setTimeout(() => this.#connect(), retry_in_ms);
    this.#tell({ status: "waiting", retry_in_ms, ...why });
  }

  /** Forget the socket; what it still says is not heard. @param {number} [code] */
  #drop(code) {
    const socket = this.#socket;
    this.#attempt += 1;
    this.#connecting.abort();
    this.#socket = null;
    this.#phase = "opening";
    this.#liveAt = this.#awayMs = 0;
    clearTimeout(this.#patience);
    clearTimeout(this.#pause);
    if (!socket) return;
    socket.onmessage = socket.onclose = null;
    if (code === undefined && socket.terminate) socket.terminate(); // Node: do not wait for a line that is dead
    else socket.close(code);
  }

  /** There will be no further line. @param {HermesError} failure @param {Partial<Connection>} [why] */
  end(failure, why) {
    if (this.failure) return;
    this.failure = failure;
    this.#drop(1000);
    globalThis.removeEventListener?.("online", this.#hurry);
    globalThis.document?.removeEventListener("visibilitychange", this.#look);
    for (const { ok, timer } of this.#unanswered.values()) {
      clearTimeout(timer);
      ok.reject(failure);
    }
    this.ready.reject(failure);
    const told = this.#tell({ status: "closed", ...why });
    if (why && !told && !this.awaited) warn(`closed for good: ${failure.message}`);
    this.#owner.ended(failure);
  }

  // patience

  /** Look in a while whether anything was heard: one timer does, however much is heard. @param {number} ms */
  #await(ms) {
    clearTimeout(this.#patience);
    this.#patience = setTimeout(this.#check, Math.min(TIMER_MS, ms));
  }

  #check = () => {
    const { openTimeoutMs, silenceMs } = this.#settings;
    const opening = this.#phase === "opening";
    this.#heardAt = Math.min(this.#heardAt, Date.now()); // clocks are set back, too
    const left = this.#heardAt + (opening ? openTimeoutMs : silenceMs) - Date.now();
    if (left > 0) this.#await(left);
    else this.#lost({ reason: opening ? "no answer in time" : "nothing was heard for too long" });
  };

  /** The network is back: do not wait any longer than the server wished, and see whether the line has outlived it. */
  #hurry = () => {
    if (this.flowing) return this.#probe();
    if (this.#pause === undefined) return;
    clearTimeout(this.#pause);
    const least = Math.min(this.#leastMs, Math.max(0, this.#notBefore - Date.now()));
    this.#pause = setTimeout(() => this.#connect(), least + this.#settings.random() * this.#backoff.firstMs);
  };

  /** The page is looked at again: timers may have slept. */
  #look = () => {
    if (globalThis.document.visibilityState !== "visible") return;
    if (this.#pause === undefined) this.#check();
    this.#hurry();
  };

  /** Is anybody there? Who does not answer as soon as one who is called anew would is not. */
  #probe() {
    const asked = Date.now();
    this.say({ type: "ping" });
    clearTimeout(this.#patience);
    this.#patience = setTimeout(() => {
      if (this.#heardAt >= asked) this.#check();
      else this.#lost({ reason: "no answer in time" });
    }, this.#settings.openTimeoutMs);
  }

  /** @param {Connection} connection */
  #tell(connection) {
    this.connection = connection;
    return this.#owner.changed(connection);
  }
}

/** @param {unknown} ticket what `getTicket` came to @returns {string} */
function ticketOf(ticket) {
  if (typeof ticket === "string" && ticket) return ticket;
  throw new TypeError(`getTicket came to no ticket but to ${ticket === "" ? "an empty string" : typeof ticket}`);
}

/** @returns {string} a UUID; `crypto.randomUUID` exists only where the page is secure */
function uuid() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (Number(bytes[6]) & 0x0f) | 0x40;
  bytes[8] = (Number(bytes[8]) & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/** @param {string} text @returns {string} */
function base64url(text) {
  const bytes = String.fromCharCode(...new TextEncoder().encode(text));
  return btoa(bytes).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

// -- runs -----------------------------------------------------------------------------------------------------------

/**
 * A run's events, from `run.queued` or `run.started` to its terminal one; to be iterated once. `run_id` and `done` (the
 * terminal event) are promises. Leaving the loop does not stop the run.
 * @typedef {AsyncIterable<Event> & { run_id: Promise<string>, done: Promise<RunEnded> }} Run
 */

/** A {@link Run} as the conversation feeds it. */
class FollowedRun {
  /** @type {Stream<Event>} */ #stream = new Stream();
  /** What came before it was known which run it is. @type {Event[]} */ #early = [];
  /** @type {Deferred<string>} */ #id = new Deferred();
  /** @type {Deferred<RunEnded>} */ #done = new Deferred();
  /** @type {string | undefined} */ #run_id;
  /** @type {Resynchronized | undefined} */ #passed;
  #watched = false;
  #iterated = false;
  heard = false;
  over = false;

  /** @param {string} command_id of the command that starts it */
  constructor(command_id) {
    this.command_id = command_id;
  }

  get run_id() {
    this.#watched = true;
    return this.#id.promise;
  }

  get done() {
    this.#watched = true;
    return this.#done.promise;
  }

  [Symbol.asyncIterator]() {
    if (this.#iterated) throw new TypeError("a run is iterated once: a second loop would miss what the first one took");
    this.#watched = this.#iterated = true;
    return this.#stream;
  }

  /** @param {Ok} ok */
  begun(ok) {
    this.#run_id = /** @type {string} */ (ok.run_id);
    this.#id.resolve(this.#run_id);
    if (this.#passed && ok.duplicate) return this.fail(this.#passed);
    for (const event of this.#early.splice(0)) this.offer(event);
  }

  /** @param {Event} event */
  offer(event) {
    if (!("run_id" in event)) return;
    if (this.#run_id === undefined) return void this.#early.push(event);
    if (event.run_id !== this.#run_id) return;
    this.heard = true;
    this.#stream.push(event);
    if (event.type !== "run.completed" && event.type !== "run.failed" && event.type !== "run.cancelled") return;
    this.over = true;
    this.#stream.end();
    this.#done.resolve(event);
  }

  /** A snapshot took the place of events. What has no answer may begin after it. @param {Resynchronized} failure */
  passedOver(failure) {
    if (this.#run_id !== undefined) return this.fail(failure);
    this.#passed = failure;
  }

  /** @param {Error} failure */
  fail(failure) {
    const unseen = () => this.#watched || warn(`a run was refused, and nobody looked: ${failure.message}`);
    if (failure instanceof CommandRefused) setTimeout(unseen, 0);
    this.over = true;
    this.#stream.end(failure);
    this.#id.reject(failure);
    this.#done.reject(failure);
  }
}

// -- tools that this client executes --------------------------------------------------------------------------------

/**
 * What a call came to. A string is the output, and so is anything else as JSON; an object whose `output` is a string is
 * taken as it is. What is thrown is the call's error.
 * @typedef {{ output: string, is_error?: boolean, content?: ContentPart[] }} ToolResult
 * @typedef {{ signal: AbortSignal, interaction: InteractionRequested, conversation: Conversation }} ToolContext
 */

/**
 * `signal` aborts when nobody waits for the result any more.
 * @callback ToolHandler
 * @param {any} args as the tool's schema says
 * @param {ToolContext} context
 * @returns {unknown} or a promise of it
 */

/**
 * `if_gone` and `grace_ms`: what becomes of a call when this client is gone. `idempotent`: a call that an earlier life
 * of this client (of the same `clientId`) may have executed is executed again.
 * @typedef {Omit<ClientTool, "name" | "parameters"> & { idempotent?: boolean }} ToolOptions
 */

/** A call that a client executes. @typedef {InteractionRequested & { tool: InteractionTool, owner: Owner }} Call */

/** Nobody waits for the result, and the log says why. */
const SETTLED = ["interaction_resolved", "interaction_expired", "interaction_not_found", "not_permitted"];

/** So long, at most, a call waits for a tool that is not offered yet. */
const OFFERED_WITHIN_MS = 10_000;
/** What endpoints of models take as the name of a function. */
const TOOL_NAME = /^[A-Za-z0-9_-]{1,64}$/;

/**
 * What one client executes in one conversation. A call may be told of again, after a reconnect or in a snapshot: what
 * was begun is remembered, for all conversation objects of a client.
 */
class Tools {
  /** @type {Map<string, { tool: ClientTool, handler: ToolHandler, idempotent: boolean }>} */ #offers = new Map();
  /** Calls that were begun, and what aborts the handler while it runs. @type {Map<string, AbortController | null>} */
  #calls = new Map();
  /** Calls of tools that are not offered, and what gives them up. @type {Map<Call, Timer>} */
  #early = new Map();
  #conversation;
  #shared;

  /** @param {Conversation} conversation @param {Shared} shared */
  constructor(conversation, shared) {
    this.#conversation = conversation;
    this.#shared = shared;
  }

  /** What is offered now. */
  get offered() {
    return [...this.#offers.values()].map(({ tool }) => tool);
  }

  /** @param {ClientTool} tool @param {ToolHandler} handler @param {boolean} idempotent */
  offer(tool, handler, idempotent) {
    const offer = { tool, handler, idempotent };
    this.#offers.set(tool.name, offer);
    for (const asked of [...this.#early.keys()]) if (asked.tool.name === tool.name) void this.#execute(asked);
    return () => this.#offers.get(tool.name) === offer && this.#offers.delete(tool.name);
  }

  /**
   * A line begins with `head`: what was asked up to that of the first, an earlier life of this client may have done.
   * In a conversation that was made anew the numbers are others, but not larger.
   * @param {number} head
   */
  met(head) {
    const { id } = this.#conversation;
    this.#shared.begun.set(id, Math.min(this.#shared.begun.get(id) ?? head, head));
  }

  /** An interaction is open: execute it, if it is for us and was not begun yet. @param {InteractionRequested} asked */
  requested(asked) {
    if (!this.#isOurs(asked) || this.#calls.has(asked.interaction_id)) return;
    if (this.#offers.has(asked.tool.name)) return void this.#execute(asked);
    const wait_ms = Math.min(asked.owner.grace_ms, OFFERED_WITHIN_MS); // a page may offer it in a moment
    this.#early.set(asked, setTimeout(() => this.#execute(asked), wait_ms));
  }

  /** @param {InteractionRequested} asked @returns {asked is Call} */
  #isOurs(asked) {
    const { kind, tool, owner } = asked;
    const { principal } = this.#conversation.hello ?? {};
    const ours = owner?.principal === principal && owner?.client_id === this.#shared.settings.clientId;
    return kind === "client_tool" && tool !== undefined && ours;
  }

  /** @param {Call} asked */
  async #execute(asked) {
    const { interaction_id, tool, seq } = asked;
    const call = new AbortController();
    const known = this.#shared.executed.has(interaction_id);
    const earlier = seq <= (this.#shared.begun.get(this.#conversation.id) ?? 0);
    clearTimeout(this.#early.get(asked));
    this.#early.delete(asked);
    this.#calls.set(interaction_id, call);
    this.#shared.executed.add(interaction_id);
    const offer = this.#offers.get(tool.name);
    if (!offer) return this.#answer(asked, failed(`The client does not execute ${tool.name}.`));
    if (known || (earlier && !offer.idempotent)) {
      return this.#answer(asked, failed("The client was restarted while it executed this."));
    }
    const context = { signal: call.signal, interaction: asked, conversation: this.#conversation };
    const result = await outcome(() => offer.handler(tool.arguments, context));
    if (call.signal.aborted) return;
    this.#calls.set(interaction_id, null);
    await this.#answer(asked, result);
  }

  /** @param {InteractionRequested} asked @param {ToolResult} content */
  async #answer(asked, content) {
    try {
      await this.#conversation.reply(asked, { content });
    } catch (error) {
      if (!(error instanceof CommandRefused) || SETTLED.includes(error.code)) return;
      const told = failed(`The result could not be handed over: ${error.message}`.slice(0, 1000));
      await this.#conversation.reply(asked, { content: told }).catch(() => {});
    }
  }

  /** Nobody waits for it any more. @param {string} interaction_id */
  settled(interaction_id) {
    this.#calls.get(interaction_id)?.abort();
    this.#calls.delete(interaction_id);
    for (const [asked, timer] of this.#early) {
      if (asked.interaction_id !== interaction_id) continue;
      clearTimeout(timer);
      this.#early.delete(asked);
    }
  }

  /** A snapshot took the place of events: what is not open in it is settled. @param {Fold} fold */
  compare(fold) {
    const known = [...this.#calls.keys(), ...[...this.#early.keys()].map((asked) => asked.interaction_id)];
    for (const id of known) if (!fold.isAsked(id)) this.settled(id);
  }

  close() {
    for (const call of this.#calls.values()) call?.abort();
    for (const timer of this.#early.values()) clearTimeout(timer);
  }
}

/**
 * What would be refused at the server, with all other tools of this client.
 * @param {ClientTool} tool
 * @param {ToolHandler} handler
 */
function checkTool({ name, description, parameters, if_gone, grace_ms, ...unknown }, handler) {
  const is = (/** @type {boolean} */ right, /** @type {string} */ otherwise) => {
    if (!right) throw new TypeError(`tool ${name}: ${otherwise}`);
  };
  is(TOOL_NAME.test(name), "a tool's name is 1 to 64 of A-Z a-z 0-9 _ -");
  is(parameters !== null && typeof parameters === "object", "the JSON Schema of its arguments is needed");
  is((parameters?.["type"] ?? "object") === "object", "the JSON Schema is that of an object");
  is(typeof handler === "function", "a function that executes it is needed");
  is(description === undefined || typeof description === "string", "description is a text");
  is(if_gone === undefined || if_gone === "fail" || if_gone === "wait", 'if_gone is "fail" or "wait"');
  is(grace_ms === undefined || (Number.isInteger(grace_ms) && Number(grace_ms) >= 0), "grace_ms is 0 or more");
  is(!Object.keys(unknown).length, `there is no option ${Object.keys(unknown)}`);
}

/** @param {string} output @returns {ToolResult} */
function failed(output) {
  return { output, is_error: true };
}

/** What a handler came to. @param {() => unknown} handler @returns {Promise<ToolResult>} */
async function outcome(handler) {
  try {
    const result = await handler();
    if (typeof result === "string") return { output: result };
    if (result instanceof Error) return failed(messageOf(result));
    const { output, is_error, content } = /** @type {Partial<ToolResult>} */ (result ?? {});
    if (typeof output !== "string") return { output: JSON.stringify(result) ?? "" };
    return { output, ...(is_error && { is_error: true }), ...(content && { content }) };
  } catch (error) {
    return failed(messageOf(error));
  }
}

// -- a conversation -------------------------------------------------------------------------------------------------

/** An interaction, or its id, without its digest. @typedef {string | InteractionRequested | OpenInteraction} Asked */
/** @typedef {Omit<InteractionReply, "type" | "interaction_id">} Reply */
/** @typedef {Event | Snapshot} Update */

/**
 * What can be listened to: every type of event; `event`: all of them; `snapshot`: it takes the place of what was known;
 * `state`: it changed; `connection`; `interaction`: one became open, or was found open.
 * @typedef {{ [E in Event as E["type"]]: E }} EventsByType
 * @typedef {EventsByType & { event: Event, snapshot: Snapshot, state: SnapshotState, connection: Connection,
 *   interaction: InteractionRequested }} Told
 */

/**
 * Where a conversation begins: `from` says what is delivered first, `after` (with its `epoch`) that it is what follows
 * that number. Events of the types in `exclude` are not sent by the server: `message.delta`, `reasoning.delta` and
 * `tool.output` can be left out, what they tell comes whole at the end. Of other types the state lacks what they tell,
 * and without `run.completed` and its like no run is `done`.
 * @typedef {{ from?: "start" | "snapshot" | "now", after?: number, epoch?: string, exclude?: string[] }} Beginning
 */

/**
 * What a conversation and the inbox have in common: a link, listeners, and answers to what is asked.
 * @template {object} Told
 */
class Connected {
  #link;
  #listeners;

  /** @param {Link} link @param {Listeners<Told>} listeners */
  constructor(link, listeners) {
    this.#link = link;
    this.#listeners = listeners;
  }

  /** What the server said first, on the newest line; null until then. */
  get hello() {
    return this.#link.hello;
  }

  /** How things stand with the line. */
  get connection() {
    return this.#link.connection;
  }

  /** Resolves when it is live for the first time; rejects when it cannot be. @returns {Promise<void>} */
  get ready() {
    this.#link.awaited = true;
    return this.#link.ready.promise;
  }

  /**
   * Be told, until the function that is returned is called.
   * @template {keyof Told} T
   * @param {T} type
   * @param {(value: Told[T]) => void} listener
   */
  on(type, listener) {
    return this.#listeners.on(type, listener);
  }

  /** Send any command, under its id or a fresh UUID. @param {Command} command */
  send(command) {
    return this.#link.send(command);
  }

  /**
   * Answer an interaction. Rejects with {@link CommandRefused}: one that somebody else has answered is
   * `interaction_resolved`, and `details` says how.
   * @param {Asked} interaction
   * @param {Reply} answer
   */
  reply(interaction, answer) {
    const type = "interaction.reply";
    if (typeof interaction === "string") return this.send({ type, interaction_id: interaction, ...answer });
    const { interaction_id, digest } = interaction;
    const where = "conversation_id" in interaction ? { conversation_id: interaction.conversation_id } : {};
    return this.send({ type, interaction_id, digest, ...where, ...answer });
  }

  /**
   * Let a tool call through, with other `arguments` if they are given (the whole object).
   * @param {Asked} interaction
   * @param {string} [option] one of those that are offered
   * @param {Pick<Reply, "arguments" | "comment">} [more]
   */
  approve(interaction, option = "once", more = {}) {
    return this.reply(interaction, { option, ...more });
  }

  /** Refuse a tool call; the agent is told `comment`. @param {Asked} interaction @param {string} [comment] */
  deny(interaction, comment) {
    return this.reply(interaction, { option: "deny", comment });
  }

  /** Answer the one question of a clarify. @param {Exclude<Asked, string>} interaction @param {unknown} value */
  async answer(interaction, value) {
    const question = interaction.questions?.[0];
    if (!question) throw new TypeError("an interaction with a question is needed: one of kind clarify");
    return this.reply(interaction, { answers: { [question.id]: value } });
  }

  /** Leave. Runs go on; what has no answer yet rejects with {@link ConversationClosed}. */
  close() {
    this.#link.end(new ConversationClosed());
  }
}

/**
 * A conversation. Made by {@link HermesClient.conversation}; connected until `close()`.
 *
 * Every method that sends resolves with the server's `ok`, and rejects with {@link CommandRefused} when the server says
 * no. Commands survive the line: one that has no answer yet is sent again under its id, and has one effect.
 *
 * @extends {Connected<Told>}
 */
export class Conversation extends Connected {
  /** @type {Shared} */ #shared;
  /** @type {Link} */ #link;
  /** @type {Beginning} */ #beginning;
  #fold = new Fold();
  #id;
  /** @type {number | null} */ #position = null;
  /** @type {string | null} */ #epoch = null;
  #live = false;
  /** Whether `state` is of the whole log. */ #whole = false;
  #snapshotDue = false;
  #lookedBack = false;
  #stateDue = false;
  #listeners;
  /** @type {Set<Stream<Update>>} */ #streams = new Set();
  /** @type {Set<FollowedRun>} */ #runs = new Set();
  /** Interactions that were told as open. @type {Set<string>} */ #told = new Set();
  #tools;
  /** Of the `client.update` said last. */ #introduced = "";

  /** @param {Shared} shared @param {string} id @param {Beginning} beginning */
  constructor(shared, id, beginning) {
    /** @type {Listeners<Told>} */
    const listeners = new Listeners();
    const link = new Link(shared.settings, {
      address: (anew) => this.#address(anew),
      begin: (hello) => this.#adopt(hello),
      take: (frame) => this.#take(frame),
      introduction: () => this.#introduction(),
      stray: (answer) => this.#introductionAnswered(answer),
      progress: () => this.seq,
      changed: (connection) => this.#changed(connection),
      ended: (failure) => this.#ended(failure),
    });
    super(link, listeners);
    this.#link = link;
    this.#listeners = listeners;
    this.#shared = shared;
    this.#id = id;
    this.#beginning = beginning;
    this.#tools = new Tools(this, shared);
    if (beginning.after == null) return;
    this.#epoch = beginning.epoch ?? null;
    this.#begin(beginning.after);
  }

  /** Its id; for `new` what the server chose, once it has said so. */
  get id() {
    return this.#id;
  }

  /** The last number that was accounted for. To resume another time, keep it and `epoch`. */
  get seq() {
    return this.#position ?? 0;
  }

  /** Which incarnation of the log `seq` counts in; null until the first command creates the conversation. */
  get epoch() {
    return this.#epoch;
  }

  /** The state as it is at `seq`, as the server's snapshots show it. The same object until something changes. */
  get state() {
    return this.#fold.state;
  }

  // what happens

  /**
   * Every event from now on, in order, each once, across all reconnects. A snapshot among them means: forget what you
   * know, this is the state, and what follows comes after it. Ends when the conversation is closed.
   * @returns {AsyncIterableIterator<Update>}
   */
  events() {
    /** @type {Stream<Update>} */
    const stream = new Stream((closed) => this.#streams.delete(closed));
    this.#streams.add(stream);
    if (this.#link.failure) this.#ended(this.#link.failure);
    return stream;
  }

  /**
   * Start a run, and tell its events. With `when_busy: "steer"` the run is the one that was steered.
   * @param {Input} input
   * @param {Omit<RunStart, "type" | "input" | "conversation_id">} [options]
   */
  run(input, options = {}) {
    return this.#follow({ type: "run.start", input, ...options });
  }

  /** Go on where a run failed or was stopped, in a new run; tells that one's events. @param {string} run_id */
  retry(run_id) {
    return this.#follow({ type: "run.retry", run_id });
  }

  /** @param {RunStart | RunRetry} command @returns {Run} */
  #follow(command) {
    const id = command.id ?? uuid();
    const run = new FollowedRun(id);
    this.#runs.add(run);
    this.send({ ...command, id }).then(
      (ok) => this.#settle(run, () => this.#begun(run, ok)),
      (failure) => this.#settle(run, () => run.fail(failure)),
    );
    return run;
  }

  /** @param {FollowedRun} run @param {Ok} ok */
  #begun(run, ok) {
    const { run: active, queue } = this.state;
    run.begun(ok);
    const there = [active, ...queue].some((one) => one?.run_id === ok.run_id);
    const expected = run.heard || there || this.seq < ok.at || !this.#whole;
    if (ok.duplicate && !expected && !run.over) run.fail(new Resynchronized(this.state, "over"));
  }

  /** Change how a run stands, and forget it once it is over. @param {FollowedRun} run @param {() => void} change */
  #settle(run, change) {
    change();
    if (run.over) this.#runs.delete(run);
  }

  // what to do

  /** Stop the active run, or the one named. @param {Omit<RunStop, "type" | "conversation_id">} [which] */
  stop(which = {}) {
    return this.send({ type: "run.stop", ...which });
  }

  /**
   * Say something to the running agent; it hears it between two steps.
   * @param {string} text
   * @param {Omit<RunSteer, "type" | "text">} [how]
   */
  steer(text, how = {}) {
    return this.send({ type: "run.steer", text, ...how });
  }

  /**
   * Change the configuration by a JSON merge patch (null removes). Resolves with its new version.
   * @param {Record<string, unknown>} config
   * @param {{ if_version?: number }} [guard]
   * @returns {Promise<number>}
   */
  async configure(config, guard = {}) {
    const { version } = await this.send({ type: "conversation.configure", config, ...guard });
    return version ?? 0;
  }

  /** What the policy leaves of the tools. */
  tools = {
    /** @returns {Promise<ToolDescription[]>} */
    list: async () => (await this.send({ type: "tools.list" })).tools ?? [],
  };

  /** The decisions that are remembered here. */
  approvals = {
    /** @returns {Promise<ApprovalRule[]>} */
    list: async () => (await this.send({ type: "approvals.list" })).rules ?? [],
    /** Forget one. @param {string} rule_id */
    revoke: (rule_id) => this.send({ type: "approvals.revoke", rule_id }),
  };

  /**
   * Execute a tool for the agent, from now on; returns what withdraws it. The handler is called once for every call,
   * whatever happens to the line.
   * @param {string} name
   * @param {Record<string, any>} schema JSON Schema of the arguments, an object; its `description` is the tool's
   * @param {ToolHandler} handler
   * @param {ToolOptions} [options]
   * @returns {() => void}
   */
  tool(name, schema, handler, { idempotent = false, ...options } = {}) {
    const tool = { name, description: schema?.["description"], parameters: schema, ...options };
    checkTool(tool, handler);
    const withdraw = this.#tools.offer(tool, handler, idempotent);
    this.#introduce();
    this.#lookBack();
    return () => {
      if (withdraw()) this.#introduce();
    };
  }

  /**
   * A new conversation with this one's history, up to the end of a run. Resolves with its id.
   * @param {{ after_run?: string, conversation_id?: string }} [what]
   */
  async fork(what = {}) {
    return /** @type {string} */ ((await this.send({ type: "conversation.fork", ...what })).conversation_id);
  }

  /** The server's own fold of the log, as it is now. */
  async snapshot() {
    return /** @type {SnapshotState} */ ((await this.send({ type: "snapshot.get" })).snapshot);
  }

  /** Whether anybody is there. Resolves with the conversation's last number. */
  async ping() {
    const { head, at } = await this.send({ type: "ping" });
    return head ?? at;
  }

  // lines

  /** @param {boolean} anew */
  #address(anew) {
    const { from, exclude } = this.#beginning;
    const query = new URLSearchParams();
    if (exclude?.length) query.set("exclude", exclude.join(","));
    if (this.#position === null) query.set("from", from ?? "snapshot");
    else if (anew) query.set("from", "snapshot");
    else {
      query.set("after", String(this.#position));
      if (this.#epoch !== null) query.set("epoch", this.#epoch);
    }
    return { conversation: this.#id, path: `/ws/${this.#id}`, query };
  }

  /** Go on where the server says that it begins. @param {Hello} hello */
  #adopt(hello) {
    const { mode, from } = hello.resume;
    this.#id = hello.conversation_id ?? this.#id;
    this.#tools.met(hello.head);
    this.#snapshotDue = mode === "snapshot";
    if (this.#snapshotDue) return false;
    if (this.#position === null) this.#begin(from - 1);
    must(from === this.seq + 1, `asked for ${this.seq + 1}, given ${from}`);
    this.#epoch = hello.epoch;
    return true;
  }

  /** @param {number} position everything up to it is not told */
  #begin(position) {
    this.#position = position;
    this.#whole = position === 0;
    this.#fold.apply({ type: "skipped", from: 1, to: position, reason: "filtered" });
  }

  /** @param {ServerFrame} frame */
  #take(frame) {
    must((frame.type === "snapshot") === this.#snapshotDue, `${frame.type} in the wrong place`);
    if (frame.type === "snapshot") this.#replace(frame);
    else if ("seq" in frame) this.#event(frame);
    else if (frame.type === "skipped") this.#advance(frame, frame.from, frame.to);
    else if (frame.type === "heartbeat") this.#beat(frame.head);
    else if (frame.type === "live") this.#goLive(frame.at);
  }

  /** The server says that everything up to `head` was told. @param {number} head */
  #complete(head) {
    must(head === this.#position, `everything up to ${head} should have been told, but ${this.seq} was the last`);
  }

  /** Heartbeats are told to those who are up to date. @param {number} head */
  #beat(head) {
    must(this.#live, "a heartbeat before it is live");
    this.#complete(head);
  }

  /** @param {Snapshot} snapshot */
  #replace(snapshot) {
    const { hello } = this.#link;
    this.#snapshotDue = false;
    this.#fold = new Fold(snapshot);
    this.#whole = true;
    this.#position = snapshot.at;
    this.#epoch = hello?.epoch ?? null;
    for (const stream of this.#streams) stream.push(snapshot);
    for (const run of this.#runs) {
      const failure = new Resynchronized(this.state, hello?.resume.reason);
      if (this.#link.wasSent(run.command_id)) this.#settle(run, () => run.passedOver(failure));
    }
    this.#tools.compare(this.#fold);
    this.#listeners.tell("snapshot", snapshot);
    this.#stateChanged();
    this.#link.flow();
  }

  /** @param {Event} event */
  #event(event) {
    this.#advance(event, event.seq, event.seq);
    if (event.type === "conversation.created") this.#epoch ??= event.epoch;
    for (const stream of this.#streams) stream.push(event);
    for (const run of this.#runs) this.#settle(run, () => run.offer(event));
    this.#listeners.tell("event", event);
    this.#listeners.tell(event.type, /** @type {never} */ (event));
    if (event.type === "interaction.requested" && this.#live) this.#opened(event);
    if (event.type === "interaction.resolved") this.#resolved(event.interaction_id);
  }

  /** @param {Folded} frame @param {number} first @param {number} last */
  #advance(frame, first, last) {
    must(first === this.seq + 1 && last >= first, `expected ${this.seq + 1}, got ${first}`);
    this.#fold.apply(frame);
    this.#position = last;
    this.#stateChanged();
  }

  /** @param {number} head */
  #goLive(head) {
    this.#complete(head);
    this.#live = true;
    this.#link.live();
    for (const interaction of [...this.#fold.interactions]) if (this.#live) this.#opened(interaction);
    this.#lookBack();
  }

  /** Who begins in the middle does not know what is open from before; who executes tools must. */
  async #lookBack() {
    if (this.#whole || this.#lookedBack || !this.#live || !this.#tools.offered.length) return;
    this.#lookedBack = true;
    const resolved = new Set();
    const off = this.on("interaction.resolved", ({ interaction_id }) => resolved.add(interaction_id));
    const { interactions } = await this.snapshot().catch(() => ({ interactions: [] }));
    off();
    for (const asked of interactions) if (this.#live && !resolved.has(asked.interaction_id)) this.#opened(asked);
  }

  /** @param {InteractionRequested} interaction */
  #opened(interaction) {
    if (this.#told.has(interaction.interaction_id)) return;
    this.#told.add(interaction.interaction_id);
    this.#listeners.tell("interaction", interaction);
    this.#tools.requested(interaction);
  }

  /** @param {string} interaction_id */
  #resolved(interaction_id) {
    this.#told.delete(interaction_id);
    this.#tools.settled(interaction_id);
  }

  /** @returns {ClientUpdate} */
  #introduction() {
    const { clientId: client_id, name, interactions } = this.#shared.settings;
    this.#introduced = uuid();
    return { type: "client.update", id: this.#introduced, client_id, name, tools: this.#tools.offered, interactions };
  }

  /** Say who we are, unless it is said at the beginning of the next line anyway. */
  #introduce() {
    if (this.#link.flowing) this.#link.say(this.#introduction());
  }

  /** Without tools it does not matter that nobody wants to know who we are. @param {Ok | ErrorFrame} answer */
  #introductionAnswered(answer) {
    if (answer.type === "ok" || answer.id !== this.#introduced) return;
    const again = () => answer.id === this.#introduced && this.#introduce();
    if (answer.retryable) setTimeout(again, answer.retry_after_ms ?? 1000);
    else if (this.#tools.offered.length) warn(`the tools were refused: ${answer.message}`);
  }

  #stateChanged() {
    if (this.#stateDue || !this.#listeners.has("state")) return;
    this.#stateDue = true;
    queueMicrotask(() => {
      this.#stateDue = false;
      this.#listeners.tell("state", this.state);
    });
  }

  /** @param {Connection} connection */
  #changed(connection) {
    if (connection.status !== "live") this.#live = false;
    return this.#listeners.tell("connection", connection);
  }

  /** @param {HermesError} failure */
  #ended(failure) {
    const quietly = failure instanceof ConversationClosed;
    for (const stream of this.#streams) stream.end(quietly ? undefined : failure);
    for (const run of this.#runs) run.fail(failure);
    this.#tools.close();
  }
}

// -- the inbox ------------------------------------------------------------------------------------------------------

/**
 * `changed`: a conversation is new, or is another by now; `removed`: one was deleted (its id); `page`: conversations
 * were added to the list, or it begins anew; `connection`.
 * @typedef {object} InboxTold
 * @property {ConversationSummary} changed
 * @property {string} removed
 * @property {InboxPage} page
 * @property {Connection} connection
 */

/**
 * All conversations, as they are now: those that need a person first, then the one with the newest event. Made by
 * {@link HermesClient.inbox}; connected until `close()`. After a reconnect it begins anew with the first page; until
 * that is there the old one is shown.
 *
 * @extends {Connected<InboxTold>}
 */
export class Inbox extends Connected {
  #link;
  /** @type {Map<string, ConversationSummary>} */ #summaries = new Map();
  /** @type {ConversationSummary[] | null} */ #sorted = null;
  /** @type {OpenInteraction[] | null} */ #open = null;
  /** @type {Promise<Ok> | null} */ #more = null;
  /** Whether there are conversations that are not in the list yet. */
  hasMore = false;
  #pages = 0;
  #listeners;

  /** @param {Settings} settings */
  constructor(settings) {
    /** @type {Listeners<InboxTold>} */
    const listeners = new Listeners();
    const link = new Link(settings, {
      address: () => ({ conversation: "", path: "/ws", query: new URLSearchParams() }),
      begin: () => this.#begin(),
      take: (frame) => this.#take(frame),
      introduction: () => ({ type: "client.update", client_id: settings.clientId, name: settings.name }),
      stray: () => {},
      progress: () => this.#pages,
      changed: (connection) => listeners.tell("connection", connection),
      ended: () => {},
    });
    super(link, listeners);
    this.#link = link;
    this.#listeners = listeners;
  }

  /** Those that need a person first, then the one with the newest event. The same array until something changes. */
  get conversations() {
    this.#sorted ??= [...this.#summaries.values()].sort(byNeed);
    return this.#sorted;
  }

  /** What is open in these, the one that was asked first comes first. The same array until something changes. */
  get interactions() {
    this.#open ??= [...this.#summaries.values()]
      .flatMap(({ conversation_id, interactions }) => interactions.map((asked) => ({ ...asked, conversation_id })))
      .sort((one, other) => one.requested_at - other.requested_at);
    return this.#open;
  }

  /** Have the next page; it is in the list when this resolves. */
  async more() {
    if (!this.hasMore) return;
    this.#more ??= this.send({ type: "inbox.more" }).finally(() => (this.#more = null));
    await this.#more;
  }

  /**
   * Start a run in a conversation; `new`: in one that the server makes, and the answer says which.
   * @param {string} conversation_id
   * @param {Input} input
   * @param {Omit<RunStart, "type" | "input" | "conversation_id">} [options]
   */
  run(conversation_id, input, options = {}) {
    return this.send({ type: "run.start", conversation_id, input, ...options });
  }

  /**
   * Stop the active run of a conversation, or the one named.
   * @param {string} conversation_id
   * @param {Omit<RunStop, "type" | "conversation_id">} [which]
   */
  stop(conversation_id, which = {}) {
    return this.send({ type: "run.stop", conversation_id, ...which });
  }

  #begin() {
    this.#pages = 0;
    return true;
  }

  /** @param {ServerFrame} frame */
  #take(frame) {
    if (frame.type === "inbox.page") this.#page(frame);
    else if (frame.type === "inbox.changed") this.#changed(frame.conversation);
    else if (frame.type === "inbox.removed") this.#removed(frame.conversation_id);
  }

  /** @param {InboxPage} page */
  #page(page) {
    const first = this.#pages++ === 0;
    if (first) this.#summaries.clear();
    for (const summary of page.conversations) this.#summaries.set(summary.conversation_id, summary);
    this.hasMore = page.next !== undefined;
    this.#sorted = this.#open = null;
    if (first) this.#link.live();
    this.#listeners.tell("page", page);
  }

  /** @param {ConversationSummary} summary */
  #changed(summary) {
    this.#summaries.set(summary.conversation_id, summary);
    this.#sorted = this.#open = null;
    this.#listeners.tell("changed", summary);
  }

  /** @param {string} conversation_id */
  #removed(conversation_id) {
    this.#summaries.delete(conversation_id);
    this.#sorted = this.#open = null;
    this.#listeners.tell("removed", conversation_id);
  }
}

/** @param {ConversationSummary} one @param {ConversationSummary} other */
function byNeed(one, other) {
  return Number(needsPerson(other)) - Number(needsPerson(one)) || other.last_event_at - one.last_event_at;
}

/** What a client executes is not for a person. @param {ConversationSummary} summary */
function needsPerson({ interactions }) {
  return interactions.some(({ kind }) => kind !== "client_tool");
}

// -- the client -----------------------------------------------------------------------------------------------------

/**
 * The part of a WebSocket that is used: the browser's, Node's, or npm's `ws`.
 * @typedef {object} WebSocketLike
 * @property {((event: any) => void) | null} onmessage
 * @property {((event: any) => void) | null} onclose
 * @property {((event: any) => void) | null} onerror
 * @property {(data: string) => void} send
 * @property {(code?: number) => void} close
 * @property {() => void} [terminate]
 * @typedef {new (url: string, protocols: string[]) => WebSocketLike} WebSocketClass
 */

/**
 * @typedef {object} ClientOptions
 * @property {string} [url] the server's address, `http(s)://host:port/prefix` or the same with `ws(s)`; default: where
 *   this file was loaded from
 * @property {string | null} [key] goes along as the subprotocol `hermes.bearer.<base64url>`
 * @property {(which: { conversation: string, signal: AbortSignal }) => Promise<string> | string} [getTicket] asked for
 *   a ticket at every connect, in place of a key; `signal` aborts when it is not waited for any more
 * @property {string} [clientId] what others see beside the principal in `by`; default: another for every client object
 * @property {string} [name] for people
 * @property {InteractionKind[]} [interactions] the kinds that this client can answer
 * @property {WebSocketClass} [WebSocket] default: the global one
 * @property {number} [silenceMs] a line on which nothing is heard for so long is made anew; the server breaks a silence
 *   of 20 s
 * @property {number} [openTimeoutMs] a line on which the server does not say hello for so long is made anew
 * @property {{ firstMs?: number, mostMs?: number }} [backoff] bounds of the wait before coming back
 * @property {() => number} [random] from 0 to 1, for the jitter
 */

/** @typedef {ReturnType<typeof settingsOf>} Settings */
/**
 * What the conversations of a client share. `executed`: interactions that were executed. `begun`: where this client met
 * a conversation first.
 * @typedef {object} Shared
 * @property {Settings} settings
 * @property {Set<string>} executed
 * @property {Map<string, number>} begun
 */

/** @param {ClientOptions} options */
function settingsOf(options) {
  const { getTicket, name, interactions, silenceMs = 45_000, openTimeoutMs = 10_000 } = options;
  const { clientId = uuid(), backoff = {}, random = Math.random } = options;
  const key = options.key ?? undefined;
  /** @type {WebSocketClass | undefined} */
  const WebSocket = options.WebSocket ?? globalThis.WebSocket;
  if (!WebSocket) throw new TypeError("there is no WebSocket here: give the option WebSocket, npm's ws for one");
  if (key !== undefined && getTicket) throw new TypeError("key and getTicket exclude each other");
  if (!clientId || clientId.length > 128) throw new TypeError("clientId: a string of 1 to 128 characters");
  const url = socketAddress(options.url);
  return { url, key, getTicket, clientId, name, interactions, WebSocket, silenceMs, openTimeoutMs, backoff, random };
}

/** @param {string} [url] @returns {string} the server's address, as it begins that of a socket */
function socketAddress(url) {
  if (url !== undefined && !/^([./]|[a-z]+:\/\/)/.test(url)) throw new TypeError(`url: http://${url} is meant?`);
  const base = url === undefined ? import.meta.url : globalThis.location?.href;
  const parsed = new URL(url ?? ".", base);
  if (!/^(http|ws)s?:$/.test(parsed.protocol)) throw new TypeError(`url: http://127.0.0.1:8642 is one, not ${parsed}`);
  return parsed.protocol.replace("http", "ws") + "//" + parsed.host + parsed.pathname.replace(/\/+$/, "");
}

const CONVERSATION_ID = /^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$/;

/** A server, and who we are there. */
export class HermesClient {
  /** @type {Shared} */ #shared;
  /** @type {Set<Conversation | Inbox>} */ #open = new Set();

  /** @param {ClientOptions} [options] */
  constructor(options = {}) {
    this.#shared = { settings: settingsOf(options), executed: new Set(), begun: new Map() };
  }

  /** What others see beside the principal in `by`. */
  get clientId() {
    return this.#shared.settings.clientId;
  }

  /**
   * A conversation, connected at once; the same one for the same id while it is open. `new`: the server chooses the id.
   * @param {string} id
   * @param {Beginning} [beginning]
   */
  conversation(id, beginning = {}) {
    const { after, from = "snapshot" } = beginning;
    const number = after == null || (Number.isInteger(after) && after >= 0);
    if (!number) throw new TypeError(`after: the number of an event, or 0, not ${after}`);
    if (!["start", "snapshot", "now"].includes(from)) throw new TypeError(`from: start, snapshot or now, not ${from}`);
    if (!CONVERSATION_ID.test(id)) throw new TypeError(`id: letters, digits and ._:- make one, not ${id}`);
    for (const open of this.#open) {
      if (open.connection.status === "closed") this.#open.delete(open);
      else if (open instanceof Conversation && open.id === id && id !== "new") return open;
    }
    const conversation = new Conversation(this.#shared, id, beginning);
    this.#open.add(conversation);
    return conversation;
  }

  /** All conversations, live: connected at once. */
  inbox() {
    if (this.#shared.settings.getTicket) throw new TypeError("the inbox needs a key: a ticket opens one conversation");
    const inbox = new Inbox(this.#shared.settings);
    this.#open.add(inbox);
    return inbox;
  }

  /** Leave all conversations, and the inbox. */
  close() {
    for (const open of this.#open) open.close();
    this.#open.clear();
  }
}

export default HermesClient;
