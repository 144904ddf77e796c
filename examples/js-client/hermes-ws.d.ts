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
import type { ApprovalRule, ClientTool, ClientUpdate, Command, ContentPart, ConversationSummary, Error as ErrorFrame, Event, Hello, InboxPage, Input, InteractionKind, InteractionReply, InteractionRequested, InteractionTool, Ok, OpenInteraction, Owner, RunCancelled, RunCompleted, RunFailed, RunStart, RunSteer, RunStop, ServerFrame, Skipped, Snapshot, SnapshotState, ToolDescription } from "./frames.d.ts";
/**
 * @import {
 *   ApprovalRule, ClientTool, ClientUpdate, Command, ContentPart, ConversationSummary, Error as ErrorFrame, Event,
 *   Hello, InboxPage, Input, InteractionKind, InteractionReply, InteractionRequested, InteractionTool, Item,
 *   MessageItem, Ok, OpenInteraction, Owner, QueuedRun, ReasoningItem, RunCancelled, RunCompleted, RunFailed, RunRetry,
 *   RunStart, RunSteer, RunStop, RunSummary, ServerFrame, Skipped, Snapshot, SnapshotState, ToolCallItem,
 *   ToolDescription, Usage,
 * } from "./frames.d.ts"
 */
/** Root of what this client throws on purpose. */
export declare class HermesError extends Error {
    /** @param {string} message */
    constructor(message: string);
}
/** The server refused a command. Fields as in the protocol's `error` frame. */
export declare class CommandRefused extends HermesError {
    code: import("./frames.d.ts").CommandCode;
    retryable: boolean;
    retry_after_ms: number | undefined;
    path: string | undefined;
    details: Record<string, unknown>;
    /** @param {Omit<ErrorFrame, "type" | "id">} refusal */
    constructor({ code, message, retryable, retry_after_ms, path, details }: Omit<ErrorFrame, "type" | "id">);
}
/** The server will not have this client: `code` is a close code from 4400 to 4499. Trying again is no use. */
export declare class ConnectionRefused extends HermesError {
    code: number;
    reason: string;
    /** @param {number} code @param {string} reason */
    constructor(code: number, reason: string);
}
/**
 * The events of a run can no longer be told one by one: `snapshot` is how things are now, and the conversation's
 * `state` is that. `reason` is as in `hello.resume` (`epoch_changed`, `gap`, `ahead`), or `over`: the command was a
 * repeated one, and its run had ended before this client came.
 */
export declare class Resynchronized extends HermesError {
    snapshot: SnapshotState;
    reason: string | undefined;
    /** @param {SnapshotState} snapshot @param {string} [reason] */
    constructor(snapshot: SnapshotState, reason?: string);
}
/** It was used after `close()`. */
export declare class ConversationClosed extends HermesError {
    constructor();
}
export type RunEnded = RunCompleted | RunFailed | RunCancelled;
export type Folded = Event | Skipped;
/** @typedef {RunCompleted | RunFailed | RunCancelled} RunEnded */
/** @typedef {Event | Skipped} Folded */
/**
 * What a conversation's events add up to: the same as the server's snapshot at the same `seq`.
 *
 * `state` is copied on write: what changed is another object, what did not is the same one. An event costs the same
 * however many items there are; the list of items is copied when `state` is looked at, not before.
 */
export declare class Fold {
    #private;
    /** @param {SnapshotState} [snapshot] what came before; nothing did, without */
    constructor(snapshot?: SnapshotState);
    /** The last `seq` that was folded in. */
    get at(): number;
    /** The state as it is; the same object until the next event. */
    get state(): SnapshotState;
    /** The interactions that are open, oldest first. */
    get interactions(): MapIterator<InteractionRequested>;
    /** @param {string} id whether an interaction is open */
    isAsked(id: string): boolean;
    /** Fold in what comes next. An event of an unknown type only counts. @param {Folded} frame */
    apply(frame: Folded): void;
}
/**
 * Who wants to be told of what. A listener that throws breaks nothing.
 * @template {object} Told by type, what its listeners are given
 */
declare class Listeners<Told extends object> {
    #private;
    /**
     * @template {keyof Told} T
     * @param {T} type
     * @param {(value: Told[T]) => void} listener
     * @returns {() => void} takes it off again
     */
    on<T extends keyof Told>(type: T, listener: (value: Told[T]) => void): () => void;
    /** @param {keyof Told} type whether anybody wants to be told */
    has(type: keyof Told): boolean;
    /**
     * @template {keyof Told} T
     * @param {T} type
     * @param {Told[T]} value
     * @returns {boolean} whether there was anybody to tell
     */
    tell<T extends keyof Told>(type: T, value: Told[T]): boolean;
}
/** @template T a promise, and what settles it; that nobody looks at its failure is no mistake */
declare class Deferred<T> {
    /** @type {Promise<T>} */
    promise: Promise<T>;
    /** @type {(value: T) => void} */ resolve: (value: T) => void;
    /** @type {(reason: Error) => void} */ reject: (reason: Error) => void;
    constructor();
}
/** How long to wait before coming back: exponential, with full jitter, so that many do not come back at once. */
export declare class Backoff {
    #private;
    firstMs: number;
    mostMs: number;
    random: () => number;
    /** @param {{ firstMs?: number, mostMs?: number }} [bounds] @param {() => number} [random] */
    constructor({ firstMs, mostMs }?: {
        firstMs?: number;
        mostMs?: number;
    }, random?: () => number);
    /** The line was good: begin again. */
    reset(): void;
    /** Milliseconds to wait now. */
    next(): number;
}
export type Connection = {
    status: "connecting" | "live" | "waiting" | "closed";
    retry_in_ms?: number;
    /**
     * of the close
     */
    code?: number;
    reason?: string;
};
export type LinkOwner = {
    /**
     * where to connect now; `anew`: resuming has led nowhere
     */
    address: (anew: boolean) => Address;
    /**
     * the server said hello; true: commands may go out, false: after `flow()`
     */
    begin: (hello: Hello) => boolean;
    /**
     * a frame that is not about commands; throws what `must` throws
     */
    take: (frame: ServerFrame) => void;
    /**
     * what goes out first on every line
     */
    introduction: () => ClientUpdate;
    /**
     * an answer to a command that does not wait for one
     */
    stray: (answer: Ok | ErrorFrame) => void;
    /**
     * grows when the server tells something new
     */
    progress: () => number;
    /**
     * the line is another by now; whether anybody was told
     */
    changed: (connection: Connection) => boolean;
    /**
     * there will be no further line
     */
    ended: (failure: HermesError) => void;
};
export type Address = {
    conversation: string;
    path: string;
    query: URLSearchParams;
};
export type Unanswered = {
    text: string;
    ok: Deferred<Ok>;
    line?: number;
    lost: number;
    lostAt: number;
    until?: number;
    timer?: Timer;
};
export type Timer = ReturnType<typeof setTimeout>;
/** One socket after the other to the same address, and the commands that have no answer yet. */
declare class Link {
    #private;
    /** @type {HermesError | null} */ failure: HermesError | null;
    /** What the server said first, on the newest line. @type {Hello | null} */ hello: Hello | null;
    /** @type {Connection} */ connection: Connection;
    /** @type {Deferred<void>} */ ready: Deferred<void>;
    /** Whether somebody has asked for `ready`. */ awaited: boolean;
    /** @param {Settings} settings @param {LinkOwner} owner */
    constructor(settings: Settings, owner: LinkOwner);
    /** Send a command, as often as lines break, until it is answered. @param {Command} command @returns {Promise<Ok>} */
    send(command: Command): Promise<Ok>;
    /** Say something that is not said again on another line. @param {Command} command */
    say(command: Command): void;
    /** @param {string} id whether a command may have reached the server */
    wasSent(id: string): boolean;
    /** Whether commands go out at once. */
    get flowing(): boolean;
    /** Who we are; what has no answer yet; and from now on what comes. */
    flow(): void;
    /** The owner is up to date. */
    live(): void;
    /** There will be no further line. @param {HermesError} failure @param {Partial<Connection>} [why] */
    end(failure: HermesError, why?: Partial<Connection>): void;
}
export type Run = AsyncIterable<Event> & {
    run_id: Promise<string>;
    done: Promise<RunEnded>;
};
export type ToolResult = {
    output: string;
    is_error?: boolean;
    content?: ContentPart[];
};
export type ToolContext = {
    signal: AbortSignal;
    interaction: InteractionRequested;
    conversation: Conversation;
};
export type ToolHandler = (args: any, context: ToolContext) => unknown;
export type ToolOptions = Omit<ClientTool, "name" | "parameters"> & {
    idempotent?: boolean;
};
export type Call = InteractionRequested & {
    tool: InteractionTool;
    owner: Owner;
};
export type Asked = string | InteractionRequested | OpenInteraction;
export type Reply = Omit<InteractionReply, "type" | "interaction_id">;
export type Update = Event | Snapshot;
export type EventsByType = {
    [E in Event as E["type"]]: E;
};
export type Told = EventsByType & {
    event: Event;
    snapshot: Snapshot;
    state: SnapshotState;
    connection: Connection;
    interaction: InteractionRequested;
};
export type Beginning = {
    from?: "start" | "snapshot" | "now";
    after?: number;
    epoch?: string;
    exclude?: string[];
};
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
declare class Connected<Told extends object> {
    #private;
    /** @param {Link} link @param {Listeners<Told>} listeners */
    constructor(link: Link, listeners: Listeners<Told>);
    /** What the server said first, on the newest line; null until then. */
    get hello(): Hello | null;
    /** How things stand with the line. */
    get connection(): Connection;
    /** Resolves when it is live for the first time; rejects when it cannot be. @returns {Promise<void>} */
    get ready(): Promise<void>;
    /**
     * Be told, until the function that is returned is called.
     * @template {keyof Told} T
     * @param {T} type
     * @param {(value: Told[T]) => void} listener
     */
    on<T extends keyof Told>(type: T, listener: (value: Told[T]) => void): () => void;
    /** Send any command, under its id or a fresh UUID. @param {Command} command */
    send(command: Command): Promise<Ok>;
    /**
     * Answer an interaction. Rejects with {@link CommandRefused}: one that somebody else has answered is
     * `interaction_resolved`, and `details` says how.
     * @param {Asked} interaction
     * @param {Reply} answer
     */
    reply(interaction: Asked, answer: Reply): Promise<Ok>;
    /**
     * Let a tool call through, with other `arguments` if they are given (the whole object).
     * @param {Asked} interaction
     * @param {string} [option] one of those that are offered
     * @param {Pick<Reply, "arguments" | "comment">} [more]
     */
    approve(interaction: Asked, option?: string, more?: Pick<Reply, "arguments" | "comment">): Promise<Ok>;
    /** Refuse a tool call; the agent is told `comment`. @param {Asked} interaction @param {string} [comment] */
    deny(interaction: Asked, comment?: string): Promise<Ok>;
    /** Answer the one question of a clarify. @param {Exclude<Asked, string>} interaction @param {unknown} value */
    answer(interaction: Exclude<Asked, string>, value: unknown): Promise<Ok>;
    /** Leave. Runs go on; what has no answer yet rejects with {@link ConversationClosed}. */
    close(): void;
}
/**
 * A conversation. Made by {@link HermesClient.conversation}; connected until `close()`.
 *
 * Every method that sends resolves with the server's `ok`, and rejects with {@link CommandRefused} when the server says
 * no. Commands survive the line: one that has no answer yet is sent again under its id, and has one effect.
 *
 * @extends {Connected<Told>}
 */
export declare class Conversation extends Connected<Told> {
    #private;
    /** @param {Shared} shared @param {string} id @param {Beginning} beginning */
    constructor(shared: Shared, id: string, beginning: Beginning);
    /** Its id; for `new` what the server chose, once it has said so. */
    get id(): string;
    /** The last number that was accounted for. To resume another time, keep it and `epoch`. */
    get seq(): number;
    /** Which incarnation of the log `seq` counts in; null until the first command creates the conversation. */
    get epoch(): string | null;
    /** The state as it is at `seq`, as the server's snapshots show it. The same object until something changes. */
    get state(): SnapshotState;
    /**
     * Every event from now on, in order, each once, across all reconnects. A snapshot among them means: forget what you
     * know, this is the state, and what follows comes after it. Ends when the conversation is closed.
     * @returns {AsyncIterableIterator<Update>}
     */
    events(): AsyncIterableIterator<Update>;
    /**
     * Start a run, and tell its events. With `when_busy: "steer"` the run is the one that was steered.
     * @param {Input} input
     * @param {Omit<RunStart, "type" | "input" | "conversation_id">} [options]
     */
    run(input: Input, options?: Omit<RunStart, "type" | "input" | "conversation_id">): Run;
    /** Go on where a run failed or was stopped, in a new run; tells that one's events. @param {string} run_id */
    retry(run_id: string): Run;
    /** Stop the active run, or the one named. @param {Omit<RunStop, "type" | "conversation_id">} [which] */
    stop(which?: Omit<RunStop, "type" | "conversation_id">): Promise<Ok>;
    /**
     * Say something to the running agent; it hears it between two steps.
     * @param {string} text
     * @param {Omit<RunSteer, "type" | "text">} [how]
     */
    steer(text: string, how?: Omit<RunSteer, "type" | "text">): Promise<Ok>;
    /**
     * Change the configuration by a JSON merge patch (null removes). Resolves with its new version.
     * @param {Record<string, unknown>} config
     * @param {{ if_version?: number }} [guard]
     * @returns {Promise<number>}
     */
    configure(config: Record<string, unknown>, guard?: {
        if_version?: number;
    }): Promise<number>;
    /** What the policy leaves of the tools. */
    tools: {
        /** @returns {Promise<ToolDescription[]>} */
        list: () => Promise<ToolDescription[]>;
    };
    /** The decisions that are remembered here. */
    approvals: {
        /** @returns {Promise<ApprovalRule[]>} */
        list: () => Promise<ApprovalRule[]>;
        /** Forget one. @param {string} rule_id */
        revoke: (rule_id: string) => Promise<Ok>;
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
    tool(name: string, schema: Record<string, any>, handler: ToolHandler, { idempotent, ...options }?: ToolOptions): () => void;
    /**
     * A new conversation with this one's history, up to the end of a run. Resolves with its id.
     * @param {{ after_run?: string, conversation_id?: string }} [what]
     */
    fork(what?: {
        after_run?: string;
        conversation_id?: string;
    }): Promise<string>;
    /** The server's own fold of the log, as it is now. */
    snapshot(): Promise<SnapshotState>;
    /** Whether anybody is there. Resolves with the conversation's last number. */
    ping(): Promise<number>;
}
export type InboxTold = {
    changed: ConversationSummary;
    removed: string;
    page: InboxPage;
    connection: Connection;
};
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
export declare class Inbox extends Connected<InboxTold> {
    #private;
    /** Whether there are conversations that are not in the list yet. */
    hasMore: boolean;
    /** @param {Settings} settings */
    constructor(settings: Settings);
    /** Those that need a person first, then the one with the newest event. The same array until something changes. */
    get conversations(): ConversationSummary[];
    /** What is open in these, the one that was asked first comes first. The same array until something changes. */
    get interactions(): OpenInteraction[];
    /** Have the next page; it is in the list when this resolves. */
    more(): Promise<void>;
    /**
     * Start a run in a conversation; `new`: in one that the server makes, and the answer says which.
     * @param {string} conversation_id
     * @param {Input} input
     * @param {Omit<RunStart, "type" | "input" | "conversation_id">} [options]
     */
    run(conversation_id: string, input: Input, options?: Omit<RunStart, "type" | "input" | "conversation_id">): Promise<Ok>;
    /**
     * Stop the active run of a conversation, or the one named.
     * @param {string} conversation_id
     * @param {Omit<RunStop, "type" | "conversation_id">} [which]
     */
    stop(conversation_id: string, which?: Omit<RunStop, "type" | "conversation_id">): Promise<Ok>;
}
export type WebSocketLike = {
    onmessage: ((event: any) => void) | null;
    onclose: ((event: any) => void) | null;
    onerror: ((event: any) => void) | null;
    send: (data: string) => void;
    close: (code?: number) => void;
    terminate?: () => void;
};
export type WebSocketClass = new (url: string, protocols: string[]) => WebSocketLike;
export type ClientOptions = {
    /**
     * the server's address, `http(s)://host:port/prefix` or the same with `ws(s)`; default: where
     * this file was loaded from
     */
    url?: string;
    /**
     * goes along as the subprotocol `hermes.bearer.<base64url>`
     */
    key?: string | null;
    /**
     * asked for
     * a ticket at every connect, in place of a key; `signal` aborts when it is not waited for any more
     */
    getTicket?: (which: {
        conversation: string;
        signal: AbortSignal;
    }) => Promise<string> | string;
    /**
     * what others see beside the principal in `by`; default: another for every client object
     */
    clientId?: string;
    /**
     * for people
     */
    name?: string;
    /**
     * the kinds that this client can answer
     */
    interactions?: InteractionKind[];
    /**
     * default: the global one
     */
    WebSocket?: WebSocketClass;
    /**
     * a line on which nothing is heard for so long is made anew; the server breaks a silence
     * of 20 s
     */
    silenceMs?: number;
    /**
     * a line on which the server does not say hello for so long is made anew
     */
    openTimeoutMs?: number;
    /**
     * bounds of the wait before coming back
     */
    backoff?: {
        firstMs?: number;
        mostMs?: number;
    };
    /**
     * from 0 to 1, for the jitter
     */
    random?: () => number;
};
export type Settings = ReturnType<typeof settingsOf>;
export type Shared = {
    settings: Settings;
    executed: Set<string>;
    begun: Map<string, number>;
};
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
declare function settingsOf(options: ClientOptions): {
    url: string;
    key: string | undefined;
    getTicket: ((which: {
        conversation: string;
        signal: AbortSignal;
    }) => Promise<string> | string) | undefined;
    clientId: string;
    name: string | undefined;
    interactions: InteractionKind[] | undefined;
    WebSocket: WebSocketClass;
    silenceMs: number;
    openTimeoutMs: number;
    backoff: {
        firstMs?: number;
        mostMs?: number;
    };
    random: () => number;
};
/** A server, and who we are there. */
export declare class HermesClient {
    #private;
    /** @param {ClientOptions} [options] */
    constructor(options?: ClientOptions);
    /** What others see beside the principal in `by`. */
    get clientId(): string;
    /**
     * A conversation, connected at once; the same one for the same id while it is open. `new`: the server chooses the id.
     * @param {string} id
     * @param {Beginning} [beginning]
     */
    conversation(id: string, beginning?: Beginning): Conversation;
    /** All conversations, live: connected at once. */
    inbox(): Inbox;
    /** Leave all conversations, and the inbox. */
    close(): void;
}
export default HermesClient;
