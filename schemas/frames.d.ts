// Frames of the hermes.v1 protocol. Generated from the protocol's types; do not edit.
//
// A server leaves optional fields out and never sends null for them; null in a required field has a meaning of its
// own. In a command, null in an optional field equals absence, except inside `conversation.configure`'s merge patch.
// An event of a type that is not listed here must be ignored, but its `seq` counts.

/** Why a command was refused. */
export type CommandCode = "busy" | "digest_mismatch" | "id_reused" | "interaction_expired" | "interaction_not_found" | "interaction_resolved" | "internal" | "invalid_answer" | "invalid_frame" | "invalid_json" | "invalid_option" | "not_found" | "not_permitted" | "overloaded" | "queue_full" | "rate_limited" | "run_not_active" | "run_not_found" | "storage_full" | "too_large" | "unknown_type" | "unsupported" | "version_conflict";

/** Why a run failed. */
export type RunCode = "agent_crashed" | "context_length" | "deadline_exceeded" | "model_auth" | "model_bad_response" | "model_overloaded" | "model_rate_limited" | "model_unreachable" | "recovery_exhausted" | "storage_full";

/** What happens to a call that no rule decides. */
export type ApprovalMode = "ask" | "auto" | "deny";

/** One part of an input or a message. */
export type ContentPart = TextPart | ImagePart;

/** What a client may call a conversation: `[A-Za-z0-9][A-Za-z0-9._:-]{0,127}`. */
export type ConversationId = string;

/** What a run is given: text, or parts. */
export type Input = string | Array<ContentPart>;

/**
 * What is asked: leave to call a tool, a question, a form, or the result of a tool that a client
 * executes.
 */
export type InteractionKind = "approval" | "clarify" | "client_tool" | "form";

/** One thing in a conversation's folded history. */
export type Item = MessageItem | ReasoningItem | ToolCallItem;

/** The policy's judgement of one call. */
export type Risk = "high" | "low" | "medium";

/** What a key may do: everything in its conversations, only answer, only watch, administer. */
export type Role = "admin" | "driver" | "observer" | "responder";

/** Where a run stands; `waiting` is for a person. */
export type RunStatus = "cancelled" | "completed" | "failed" | "queued" | "running" | "stopping" | "waiting";

/** How long an approval holds: `run` ends with the run, `always` is per principal and agent. */
export type Scope = "always" | "conversation" | "once" | "run";

/** Where a tool call stands: not past the policy yet, running, or how it ended. */
export type ToolStatus = "cancelled" | "denied" | "error" | "executing" | "interrupted" | "ok" | "started";

/** What the policy does with a call. */
export type Verdict = "allow" | "ask" | "deny";

/** Always `seq` 1. `epoch` names this incarnation of the log. */
export interface ConversationCreated {
  type: "conversation.created";
  /** 1, 2, 3 and so on within the conversation, with no gap. */
  seq: number;
  /** When it was appended, Unix ms. */
  ts: number;
  /** As chosen by the client, or by the server for `new`. */
  conversation_id: string;
  /** Send it with `after` when resuming: a deleted and re-created conversation has another. */
  epoch: string;
}

/** The whole configuration from here on, secrets redacted. `version` counts from 1. */
export interface ConversationConfigured {
  type: "conversation.configured";
  /** 1, 2, 3 and so on within the conversation, with no gap. */
  seq: number;
  /** When it was appended, Unix ms. */
  ts: number;
  /** For `if_version`. */
  version: number;
  /** Secrets are redacted. */
  config: Config;
  /** Who changed it. */
  by: By;
}

/** Another run is active; this one waits. `position` counts from 1. Only if it waits. */
export interface RunQueued {
  type: "run.queued";
  /** 1, 2, 3 and so on within the conversation, with no gap. */
  seq: number;
  /** When it was appended, Unix ms. */
  ts: number;
  /** The run it belongs to. */
  run_id: string;
  /** The sub-agent that did it, where one did. */
  agent?: string;
  /** What the run will be given. */
  input: Input;
  /** 1 is next. */
  position: number;
  /** Who asked for it. */
  by: By;
}

/** The run begins. `attempt` counts from 1. */
export interface RunStarted {
  type: "run.started";
  /** 1, 2, 3 and so on within the conversation, with no gap. */
  seq: number;
  /** When it was appended, Unix ms. */
  ts: number;
  /** The run it belongs to. */
  run_id: string;
  /** The sub-agent that did it, where one did. */
  agent?: string;
  /** What was asked; the user's message is nowhere else. */
  input: Input;
  /** Who answers. */
  agent_name: string;
  /** Which model answers. */
  model: string;
  /** Counts from 1. */
  attempt: number;
  /** Who asked for it. */
  by: By;
  /** The failed run whose journal it goes on from. */
  retry_of?: string;
}

/** The first interaction of the run opened: its ids. */
export interface RunWaiting {
  type: "run.waiting";
  /** 1, 2, 3 and so on within the conversation, with no gap. */
  seq: number;
  /** When it was appended, Unix ms. */
  ts: number;
  /** The run it belongs to. */
  run_id: string;
  /** The sub-agent that did it, where one did. */
  agent?: string;
  /** Ids. */
  interactions: Array<string>;
}

/** No interaction of the run is open any more: the ids of those that were. */
export interface RunResumed {
  type: "run.resumed";
  /** 1, 2, 3 and so on within the conversation, with no gap. */
  seq: number;
  /** When it was appended, Unix ms. */
  ts: number;
  /** The run it belongs to. */
  run_id: string;
  /** The sub-agent that did it, where one did. */
  agent?: string;
  /** Ids. */
  interactions: Array<string>;
}

/** A restarted server took the run up again. */
export interface RunRecovered {
  type: "run.recovered";
  /** 1, 2, 3 and so on within the conversation, with no gap. */
  seq: number;
  /** When it was appended, Unix ms. */
  ts: number;
  /** The run it belongs to. */
  run_id: string;
  /** The sub-agent that did it, where one did. */
  agent?: string;
  /** Counts on from `run.started`. */
  attempt: number;
  /** Why it had to be: `server_restarted`, or `log_unwritable` (for a while, while the server ran). */
  reason: string;
}

/** Text for a running run: one `pending`, then exactly one of the others. */
export interface RunSteered {
  type: "run.steered";
  /** 1, 2, 3 and so on within the conversation, with no gap. */
  seq: number;
  /** When it was appended, Unix ms. */
  ts: number;
  /** The run it belongs to. */
  run_id: string;
  /** The sub-agent that did it, where one did. */
  agent?: string;
  /** The same in `pending` and in what became of it. */
  steer_id: string;
  /** What was said. */
  text: string;
  /** Who said it. */
  by: By;
  /**
   * `applied`: the model has it; `queued`: too late, it became a run of its own; `returned`: too late,
   * and not wanted then.
   */
  disposition: "applied" | "pending" | "queued" | "returned";
  /** For `queued`. */
  new_run_id?: string;
  /**
   * With `pending`: it is not wanted any more once the run has ended. Otherwise it becomes a run of
   * its own.
   */
  if_late?: "return";
}

/** Somebody asked the run to stop. */
export interface RunStopping {
  type: "run.stopping";
  /** 1, 2, 3 and so on within the conversation, with no gap. */
  seq: number;
  /** When it was appended, Unix ms. */
  ts: number;
  /** The run it belongs to. */
  run_id: string;
  /** The sub-agent that did it, where one did. */
  agent?: string;
  /** Who asked. */
  by: By;
  /** `now` kills tools; `graceful` asks them first. */
  mode: "graceful" | "now";
  /** Another run was to go first. Absent for a plain stop. */
  reason?: "interrupt";
}

/** The run ended by itself. `output` is the last completed assistant message, or `""`. */
export interface RunCompleted {
  type: "run.completed";
  /** 1, 2, 3 and so on within the conversation, with no gap. */
  seq: number;
  /** When it was appended, Unix ms. */
  ts: number;
  /** The run it belongs to. */
  run_id: string;
  /** The sub-agent that did it, where one did. */
  agent?: string;
  /** The last completed assistant message, or empty. */
  output: string;
  /**
   * `max_steps`: the bound on model calls; `length`: the model's output bound; `refused`: the model
   * would not.
   */
  stop_reason: "end" | "length" | "max_steps" | "refused";
  /** Of the whole run. */
  usage: Usage;
  /** From `run.started`. */
  duration_ms: number;
}

/** The run could not go on. */
export interface RunFailed {
  type: "run.failed";
  /** 1, 2, 3 and so on within the conversation, with no gap. */
  seq: number;
  /** When it was appended, Unix ms. */
  ts: number;
  /** The run it belongs to. */
  run_id: string;
  /** The sub-agent that did it, where one did. */
  agent?: string;
  /** Why. */
  error: ErrorInfo;
  /** Of the whole run. */
  usage: Usage;
}

/** The run was stopped, or another one took its place. */
export interface RunCancelled {
  type: "run.cancelled";
  /** 1, 2, 3 and so on within the conversation, with no gap. */
  seq: number;
  /** When it was appended, Unix ms. */
  ts: number;
  /** The run it belongs to. */
  run_id: string;
  /** The sub-agent that did it, where one did. */
  agent?: string;
  /** `interrupt`: another run took its place. */
  reason: "interrupt" | "stop";
  /** Who did it. */
  by: By;
  /** Of the whole run. */
  usage: Usage;
}

/** One model call and the tools it asks for. `step` counts from 1. */
export interface StepStarted {
  type: "step.started";
  /** 1, 2, 3 and so on within the conversation, with no gap. */
  seq: number;
  /** When it was appended, Unix ms. */
  ts: number;
  /** The run it belongs to. */
  run_id: string;
  /** The sub-agent that did it, where one did. */
  agent?: string;
  /** Counts from 1 in each run. */
  step: number;
}

/** The model call and its tools are done. */
export interface StepCompleted {
  type: "step.completed";
  /** 1, 2, 3 and so on within the conversation, with no gap. */
  seq: number;
  /** When it was appended, Unix ms. */
  ts: number;
  /** The run it belongs to. */
  run_id: string;
  /** The sub-agent that did it, where one did. */
  agent?: string;
  /** As in `step.started`. */
  step: number;
  /** Of this model call. */
  usage: Usage;
  /** Model call and tools, waiting for people included. */
  duration_ms: number;
  /** Why the model's answer ended, if not by itself. */
  stop_reason?: "length" | "refused";
}

/** A piece of reasoning. The first one starts the item. */
export interface ReasoningDelta {
  type: "reasoning.delta";
  /** 1, 2, 3 and so on within the conversation, with no gap. */
  seq: number;
  /** When it was appended, Unix ms. */
  ts: number;
  /** The run it belongs to. */
  run_id: string;
  /** The sub-agent that did it, where one did. */
  agent?: string;
  /** The block it is part of. */
  item_id: string;
  /** Append it to what came before. */
  delta: string;
}

/** The whole block of reasoning; authoritative. Ends the item. */
export interface ReasoningAvailable {
  type: "reasoning.available";
  /** 1, 2, 3 and so on within the conversation, with no gap. */
  seq: number;
  /** When it was appended, Unix ms. */
  ts: number;
  /** The run it belongs to. */
  run_id: string;
  /** The sub-agent that did it, where one did. */
  agent?: string;
  /** The block. */
  item_id: string;
  /** All of it. */
  text: string;
}

/** The assistant begins to say something. */
export interface MessageStarted {
  type: "message.started";
  /** 1, 2, 3 and so on within the conversation, with no gap. */
  seq: number;
  /** When it was appended, Unix ms. */
  ts: number;
  /** The run it belongs to. */
  run_id: string;
  /** The sub-agent that did it, where one did. */
  agent?: string;
  /** The message. */
  item_id: string;
  /** The model call that says it. */
  step: number;
  /** Always `assistant`: what the user said is in `run.queued`, `run.started` and `run.steered`. */
  role: "assistant";
}

/** A piece of what the assistant says. */
export interface MessageDelta {
  type: "message.delta";
  /** 1, 2, 3 and so on within the conversation, with no gap. */
  seq: number;
  /** When it was appended, Unix ms. */
  ts: number;
  /** The run it belongs to. */
  run_id: string;
  /** The sub-agent that did it, where one did. */
  agent?: string;
  /** The message it is part of. */
  item_id: string;
  /** Append it to what came before. */
  delta: string;
}

/** The whole message; authoritative. `partial`: the run was stopped while it was being said. */
export interface MessageCompleted {
  type: "message.completed";
  /** 1, 2, 3 and so on within the conversation, with no gap. */
  seq: number;
  /** When it was appended, Unix ms. */
  ts: number;
  /** The run it belongs to. */
  run_id: string;
  /** The sub-agent that did it, where one did. */
  agent?: string;
  /** The message. */
  item_id: string;
  /** All of it; replaces what the deltas built. */
  text: string;
  /** The same as parts. */
  content: Array<ContentPart>;
  /** True: the run was stopped, and this is what it had said. */
  partial?: boolean;
}

/** What was streamed under this item does not count. */
export interface ItemDiscarded {
  type: "item.discarded";
  /** 1, 2, 3 and so on within the conversation, with no gap. */
  seq: number;
  /** When it was appended, Unix ms. */
  ts: number;
  /** The run it belongs to. */
  run_id: string;
  /** The sub-agent that did it, where one did. */
  agent?: string;
  /** A message or a block of reasoning; one that had ended may be discarded too. */
  item_id: string;
  /** `retried`: the model is asked again; `failed`: it is not. */
  reason: "failed" | "retried";
}

/** The model asked for a tool. Before policy: nothing has run yet. */
export interface ToolStarted {
  type: "tool.started";
  /** 1, 2, 3 and so on within the conversation, with no gap. */
  seq: number;
  /** When it was appended, Unix ms. */
  ts: number;
  /** The run it belongs to. */
  run_id: string;
  /** The sub-agent that did it, where one did. */
  agent?: string;
  /** Unique within the conversation. */
  call_id: string;
  /** The model call that asked for it. */
  step: number;
  /** The tool. */
  name: string;
  /** `builtin`, `mcp:SERVER`, `client` or `hermes`. */
  source: string;
  /** For people. */
  title: string;
  /** What the model wants it called with. */
  arguments: Record<string, unknown>;
  /** What the tool says of itself. */
  annotations: Annotations;
  /** The client at a socket that executes it. Without one, source `client` is whoever started the run. */
  owner?: Owner;
  /**
   * Of the model call that asked for it, with the last of its calls. It is in `step.completed` too,
   * which comes when they are over.
   */
  usage?: Usage;
}

/** The call begins, with these arguments. In the log before any side effect. */
export interface ToolExecuting {
  type: "tool.executing";
  /** 1, 2, 3 and so on within the conversation, with no gap. */
  seq: number;
  /** When it was appended, Unix ms. */
  ts: number;
  /** The run it belongs to. */
  run_id: string;
  /** The sub-agent that did it, where one did. */
  agent?: string;
  /** As in `tool.started`. */
  call_id: string;
  /** The final ones: a person may have edited them. */
  arguments: Record<string, unknown>;
}

/** What a running call printed (`chunk`), or how far it is (`progress`, `total`, `message`). */
export interface ToolOutput {
  type: "tool.output";
  /** 1, 2, 3 and so on within the conversation, with no gap. */
  seq: number;
  /** When it was appended, Unix ms. */
  ts: number;
  /** The run it belongs to. */
  run_id: string;
  /** The sub-agent that did it, where one did. */
  agent?: string;
  /** As in `tool.started`. */
  call_id: string;
  /** `progress` goes with `progress`, the others with `chunk`. */
  stream: "progress" | "stderr" | "stdout";
  /** Text; never splits a character. */
  chunk?: string;
  /** In the tool's own unit. */
  progress?: number;
  /** What `progress` goes up to, if the tool knows. */
  total?: number;
  /** For people. */
  message?: string;
}

/** The call is over. `output` is a bounded preview; `truncated` says that there is more to fetch. */
export interface ToolCompleted {
  type: "tool.completed";
  /** 1, 2, 3 and so on within the conversation, with no gap. */
  seq: number;
  /** When it was appended, Unix ms. */
  ts: number;
  /** The run it belongs to. */
  run_id: string;
  /** The sub-agent that did it, where one did. */
  agent?: string;
  /** As in `tool.started`. */
  call_id: string;
  /** The tool. */
  name: string;
  /**
   * `denied`: by policy or a person, it never ran; `interrupted`: a server died under it and it is not
   * safe to run again.
   */
  status: "cancelled" | "denied" | "error" | "interrupted" | "ok";
  /** What the model is told, bounded. */
  output: string;
  /** True: the rest is at `GET /api/conversations/{id}/tool-calls/{call_id}/output`. */
  truncated: boolean;
  /** From `tool.executing`; 0 if it never ran. */
  duration_ms: number;
  /** The result as JSON, where it has such; the terminal's `exit_code` is here. */
  structured?: unknown;
  /** The result as parts, where it has images. */
  content?: Array<ContentPart>;
}

/** A person is asked. Open until its `interaction.resolved`. */
export interface InteractionRequested {
  type: "interaction.requested";
  /** 1, 2, 3 and so on within the conversation, with no gap. */
  seq: number;
  /** When it was appended, Unix ms. */
  ts: number;
  /** The run it belongs to. */
  run_id: string;
  /** The sub-agent that did it, where one did. */
  agent?: string;
  /** For `interaction.reply`. */
  interaction_id: string;
  /** Says which of `options`, `questions` and `schema` is there. */
  kind: InteractionKind;
  /** The tool call that waits. */
  call_id?: string;
  /** One line for people. */
  title: string;
  /** For people. */
  message: string;
  /** For an approval: the call to judge. */
  tool?: InteractionTool;
  /** For an approval, or a form that may be declined: what `option` may be. */
  options?: Array<Option>;
  /** For a clarify: exactly one. */
  questions?: Array<Question>;
  /** For a form, and for a tool that the client executes: JSON Schema of `content`. */
  schema?: Record<string, unknown>;
  /**
   * For a form that is filled in elsewhere: the address to open, after having looked where it leads.
   * Then there is no `schema`, and `option` says that it is done, or will not be.
   */
  url?: string;
  /** Whether the reply may change the call's `arguments`. */
  editable: boolean;
  /** Of the arguments shown. Sent back, it makes sure that they are still the ones. */
  digest?: string;
  /** Unix ms. */
  requested_at: number;
  /** Unix ms. */
  expires_at: number;
  /** What happens then. */
  on_expire: OnExpire;
  /** Who may answer. */
  answerable_by: AnswerableBy;
  /** For a call that one client executes: the client. */
  owner?: Owner;
}

/** The question is settled, and by whom. Secret answers are redacted. */
export interface InteractionResolved {
  type: "interaction.resolved";
  /** 1, 2, 3 and so on within the conversation, with no gap. */
  seq: number;
  /** When it was appended, Unix ms. */
  ts: number;
  /** The run it belongs to. */
  run_id: string;
  /** The sub-agent that did it, where one did. */
  agent?: string;
  /** As in `interaction.requested`. */
  interaction_id: string;
  /** `expired`: nobody answered in time; `cancelled`: its run ended. */
  outcome: "answered" | "cancelled" | "expired";
  /** The option taken. */
  option?: string;
  /** By question id; secret ones are redacted. */
  answers?: Record<string, unknown>;
  /** What was filled in. */
  content?: Record<string, unknown>;
  /** The whole object, if it was edited. */
  arguments?: Record<string, unknown>;
  /** What the person added. */
  comment?: string;
  /** Who decided. */
  by: By;
  /** `policy`: a rule that came in meanwhile; `timeout`: `on_expire`. */
  via: "http" | "policy" | "socket" | "timeout";
}

/** An MCP server of this conversation changed state. */
export interface McpStatus {
  type: "mcp.status";
  /** 1, 2, 3 and so on within the conversation, with no gap. */
  seq: number;
  /** When it was appended, Unix ms. */
  ts: number;
  /** Its name in `mcp_servers`. */
  server: string;
  /** `auth_required`: its credentials are missing or refused. */
  state: "auth_required" | "failed" | "ready" | "starting" | "stopped";
  /** Names, once it is ready. */
  tools?: Array<string>;
  /** Why it failed. */
  error?: string;
}

/** Always first. `head` is the last `seq`, `floor` the first one still readable. */
export interface Hello {
  type: "hello";
  /** `hermes.v1`. */
  protocol: string;
  /** Who speaks. */
  server: ServerInfo;
  /** The server's choice, if `new` was asked for. Null: this is the inbox. Never absent. */
  conversation_id: string | null;
  /** Null: the conversation does not exist until its first command. Never absent. */
  epoch: string | null;
  /** 0 if there is no event yet. */
  head: number;
  /** Older events are folded away. */
  floor: number;
  /** Who the server takes the client for. */
  principal: string;
  /** What the client may do. */
  role: Role;
  /** Bounds that apply to this socket, by setting. */
  limits: Record<string, number>;
  /** How the client is brought up to date. */
  resume: Resume;
  /** This protocol's JSON Schema. */
  schema: SchemaRef;
  /** One line that a person can type next. */
  hint: string;
}

/** The state folded up to `at`; what follows is what came after. */
export interface Snapshot {
  type: "snapshot";
  /** The last `seq` folded in. */
  at: number;
  /** Secrets are redacted. */
  config: Config;
  /** For `if_version`; 0 before the first `conversation.configured`. */
  config_version: number;
  /** Null: none is active. Never absent. */
  run: RunSummary | null;
  /** Runs that wait, next one first. */
  queue: Array<QueuedRun>;
  /** Oldest first. */
  items: Array<Item>;
  /** Open ones, oldest first. */
  interactions: Array<InteractionRequested>;
  /** Of the whole conversation. */
  usage: Usage;
  /** For `GET /api/conversations/{id}/items?before=`; absent if `items` is everything. */
  before?: string;
}

/** These numbers are not delivered: filtered by the client's wish, or compacted away. */
export interface Skipped {
  type: "skipped";
  /** First `seq` of the range. */
  from: number;
  /** Last `seq` of the range. */
  to: number;
  /** Why they are not delivered. */
  reason: "compacted" | "filtered";
}

/** What was asked for is complete up to `at`; what follows is live. */
export interface Live {
  type: "live";
  /** As `hello.head`. */
  at: number;
}

/** The command was done; the events that it appended are at or before `at`. */
export interface Ok {
  type: "ok";
  /** The command's. Null: it had none. Never absent. */
  id: string | null;
  /** What the command appended is at or before this `seq`. */
  at: number;
  /** True: done before under this `id`; this is the stored answer. */
  duplicate?: boolean;
  /** Of `run.start`, `run.stop`, `run.steer` and `run.retry`: the run concerned. */
  run_id?: string;
  /** Of `run.start`: what became of it. */
  disposition?: "queued" | "started" | "steered";
  /** Of `run.steer`, and of `run.start` that was `steered`. */
  steer_id?: string;
  /** Of `interaction.reply`. */
  interaction_id?: string;
  /** Of `conversation.configure`: the configuration's new one. */
  version?: number;
  /** Of `conversation.fork`: the new conversation. In the inbox: where it was done. */
  conversation_id?: string;
  /** Of `approvals.revoke`. */
  rule_id?: string;
  /** Of `approvals.list`. */
  rules?: Array<ApprovalRule>;
  /** Of `tools.list`. */
  tools?: Array<ToolDescription>;
  /** Of `snapshot.get`. */
  snapshot?: SnapshotState;
  /** Of `ping`: the conversation's last `seq`. */
  head?: number;
  /** Of `help`. */
  commands?: Array<CommandHelp>;
}

/** The command was refused, or the frame could not be read. The socket stays open. */
export interface Error {
  type: "error";
  /** The command's. Null: it had none, or none could be read. Never absent. */
  id: string | null;
  /** One of the command error codes. */
  code: CommandCode;
  /** For people: what is wrong and what would be right. */
  message: string;
  /** Whether the same command may succeed later, unchanged. */
  retryable: boolean;
  /** Not before. */
  retry_after_ms?: number;
  /** Where in the frame, such as `$.config.tools.allow[0]`. */
  path?: string;
  /** Depends on `code`, such as the resolution for `interaction_resolved`. */
  details?: Record<string, unknown>;
}

/** Nothing happened for a while; the conversation's last `seq` is `head`. */
export interface Heartbeat {
  type: "heartbeat";
  /** The last `seq`; 0 in the inbox. */
  head: number;
  /** Unix ms. */
  ts: number;
}

/** The server is about to close this socket; come back after `reconnect_after_ms`. */
export interface GoAway {
  type: "goaway";
  /** For people. */
  reason: string;
  /** Wait this long before coming back. */
  reconnect_after_ms: number;
}

/** In the inbox: conversations, those that need a person first, then the one with the newest event. */
export interface InboxPage {
  type: "inbox.page";
  /** As they are now. */
  conversations: Array<ConversationSummary>;
  /** What is open in these, the one that was asked first comes first. */
  interactions: Array<OpenInteraction>;
  /** For `inbox.more`. Absent: that is all. */
  next?: string;
}

/** In the inbox: a conversation is new, or is another by now. Several changes at once may be one frame. */
export interface InboxChanged {
  type: "inbox.changed";
  /** As it is now. */
  conversation: ConversationSummary;
}

/** In the inbox: a conversation was deleted. */
export interface InboxRemoved {
  type: "inbox.removed";
  /** Which. */
  conversation_id: string;
}

/** Start a run. */
export interface RunStart {
  type: "run.start";
  /** Makes the command idempotent for 24 h: sent again, it is answered again and done once. A UUID. */
  id?: string | null;
  /** Text, or parts. */
  input: Input;
  /**
   * What if another run is active: wait (the default), be refused as `busy`, be said to it, or take
   * its place.
   */
  when_busy?: "interrupt" | "queue" | "reject" | "steer" | null;
  /** Who answers, for this run only. */
  agent?: string | null;
  /** Added to the agent's own, for this run only, in place of the conversation's. */
  instructions?: string | null;
  /** Narrows what the conversation allows; never widens. */
  tools?: ToolFilter | null;
  /** Counts from `run.started`, not while waiting for a person. */
  deadline_ms?: number | null;
  /** Handed to the agent. */
  metadata?: Record<string, unknown> | null;
  /** In the inbox: where. `new`: the server chooses. */
  conversation_id?: ConversationId | null;
}

/** Stop the active run, or the one named. A queued run that is stopped is `run.cancelled`. */
export interface RunStop {
  type: "run.stop";
  /** Makes the command idempotent for 24 h: sent again, it is answered again and done once. A UUID. */
  id?: string | null;
  /** Default: the active run. A queued one may be named. */
  run_id?: string | null;
  /** `graceful` (the default): tools get SIGTERM, and SIGKILL after 500 ms; `now`: SIGKILL. */
  mode?: "graceful" | "now" | null;
  /** `keep` (the default): the next run starts; `clear`: waiting runs are cancelled too. */
  queue?: "clear" | "keep" | null;
  /** In the inbox: where. */
  conversation_id?: ConversationId | null;
}

/** Say something to the running agent; it hears it between two steps. */
export interface RunSteer {
  type: "run.steer";
  /** Makes the command idempotent for 24 h: sent again, it is answered again and done once. A UUID. */
  id?: string | null;
  /** What to say. */
  text: string;
  /** Default: the active run. */
  run_id?: string | null;
  /**
   * When no step is left to hear it: `queue` (the default) makes it a run of its own, `return` gives
   * it back.
   */
  if_late?: "queue" | "return" | null;
}

/** A new run that goes on from a failed run's journal. */
export interface RunRetry {
  type: "run.retry";
  /** Makes the command idempotent for 24 h: sent again, it is answered again and done once. A UUID. */
  id?: string | null;
  /** The run that failed. */
  run_id: string;
}

/** Answer a question (`answers`), an approval (`option`) or a form (`content`). */
export interface InteractionReply {
  type: "interaction.reply";
  /** Makes the command idempotent for 24 h: sent again, it is answered again and done once. A UUID. */
  id?: string | null;
  /** From `interaction.requested`. */
  interaction_id: string;
  /** One of the offered ids: for approvals, and for forms that may be declined. */
  option?: string | null;
  /** By question id. */
  answers?: Record<string, unknown> | null;
  /** For forms and client tools. */
  content?: Record<string, unknown> | null;
  /** The edited arguments of the call, whole, where `editable`. */
  arguments?: Record<string, unknown> | null;
  /** The agent is told. */
  comment?: string | null;
  /** As shown; `digest_mismatch` if the arguments are others by now. */
  digest?: string | null;
  /** In the inbox: where. */
  conversation_id?: ConversationId | null;
}

/** The remembered decisions that hold here. */
export interface ApprovalsList {
  type: "approvals.list";
  /** Makes the command idempotent for 24 h: sent again, it is answered again and done once. A UUID. */
  id?: string | null;
}

/** Forget a remembered decision. */
export interface ApprovalsRevoke {
  type: "approvals.revoke";
  /** Makes the command idempotent for 24 h: sent again, it is answered again and done once. A UUID. */
  id?: string | null;
  /** From `approvals.list`. */
  rule_id: string;
}

/** Change the configuration by a JSON merge patch (RFC 7396). */
export interface ConversationConfigure {
  type: "conversation.configure";
  /** Makes the command idempotent for 24 h: sent again, it is answered again and done once. A UUID. */
  id?: string | null;
  /** A field that is null is removed, an absent one stays. What results is as `Config`. */
  config: Record<string, unknown>;
  /** `version_conflict` if the configuration is another by now; 0: none was ever set. */
  if_version?: number | null;
}

/** A new conversation with the history up to the end of a run (default: everything that is finished). */
export interface ConversationFork {
  type: "conversation.fork";
  /** Makes the command idempotent for 24 h: sent again, it is answered again and done once. A UUID. */
  id?: string | null;
  /** The last run to take along. */
  after_run?: string | null;
  /** Default: the server chooses. */
  conversation_id?: ConversationId | null;
}

/** What the policy leaves of the tools, with sources and schemas. */
export interface ToolsList {
  type: "tools.list";
  /** Makes the command idempotent for 24 h: sent again, it is answered again and done once. A UUID. */
  id?: string | null;
}

/** Who this client is, what it executes and what it can answer. */
export interface ClientUpdate {
  type: "client.update";
  /** Makes the command idempotent for 24 h: sent again, it is answered again and done once. A UUID. */
  id?: string | null;
  /** The client's choice; the same after a reconnect. */
  client_id: string;
  /** For people. */
  name?: string | null;
  /** What it executes, in place of what it said before; absent: as before. */
  tools?: Array<ClientTool> | null;
  /** The kinds that its person, or it by itself, can answer. Nothing depends on it yet. */
  interactions?: Array<InteractionKind> | null;
}

/** In the inbox: the next page. It comes as `inbox.page`, before the `ok`. */
export interface InboxMore {
  type: "inbox.more";
  /** Makes the command idempotent for 24 h: sent again, it is answered again and done once. A UUID. */
  id?: string | null;
  /** `next` of a page. Default: that of the newest one of this socket. */
  cursor?: string | null;
}

/** The folded state, in the `ok`. */
export interface SnapshotGet {
  type: "snapshot.get";
  /** Makes the command idempotent for 24 h: sent again, it is answered again and done once. A UUID. */
  id?: string | null;
}

/** Is anybody there? `ok` has `head`. */
export interface Ping {
  type: "ping";
  /** Makes the command idempotent for 24 h: sent again, it is answered again and done once. A UUID. */
  id?: string | null;
}

/** What can be sent, in the `ok`. */
export interface Help {
  type: "help";
  /** Makes the command idempotent for 24 h: sent again, it is answered again and done once. A UUID. */
  id?: string | null;
}

/** A page of conversations. */
export interface ConversationList {
  /** The one with the newest event first. */
  conversations: Array<ConversationSummary>;
  /** For `?cursor=`. Null: this is the last page. Never absent. */
  next: string | null;
}

/** What of a conversation is to be changed: as `conversation.configure`. */
export interface ConversationPatch {
  /** A JSON merge patch (RFC 7396): a field that is null is removed, an absent one stays. */
  config: Record<string, unknown>;
  /** `version_conflict` if the configuration is another by now; 0: none was ever set. */
  if_version?: number;
  /** Makes it idempotent for 24 h, as a command's. */
  id?: string;
}

/** A conversation, without what was said in it. */
export interface ConversationView {
  /** Its id. */
  conversation_id: string;
  /** Null: it has none. Never absent. */
  title: string | null;
  /** The active run's, or `idle`. */
  status: string;
  /** The active run. */
  run_id?: string;
  /** How many runs wait. */
  queue: number;
  /** Open ones, oldest first. */
  interactions: Array<InteractionRequested>;
  /** Unix ms. */
  last_event_at: number;
  /** The last `seq`. */
  head: number;
  /** Of all its runs. */
  usage: Usage;
  /** Names this incarnation of the log. */
  epoch: string;
  /** The first `seq` still readable. */
  floor: number;
  /** Secrets are redacted. */
  config: Config;
  /** For `if_version`; 0 before the first `conversation.configured`. */
  config_version: number;
}

/** A page of a conversation's log. */
export interface EventPage {
  /** Null: the conversation does not exist until its first command. Never absent. */
  epoch: string | null;
  /** The last `seq`. */
  head: number;
  /** The first `seq` still readable. */
  floor: number;
  /** Exactly the socket's frames: events, and `skipped` where some are not delivered. */
  events: Array<ServerFrame>;
  /** For `?after=`. */
  next: number;
  /** Whether nothing more is there yet. */
  at_head: boolean;
}

/** Open interactions that a person can answer, of every conversation that the credential reaches. */
export interface InteractionList {
  /** The one that was asked first comes first. */
  interactions: Array<OpenInteraction>;
  /** For `?cursor=`. Null: this is the last page. Never absent. */
  next: string | null;
}

/** A page of a conversation's items. */
export interface ItemPage {
  /** The last `seq` folded in. */
  at: number;
  /** Oldest first; those right before the ones that are known. */
  items: Array<Item>;
  /** For `?before=`. Null: nothing is older. Never absent. */
  before: string | null;
}

/** An image that was uploaded. */
export interface StoredBlob {
  /** For `{"type":"image","blob":...}` in an input, and for `GET /api/blobs/{blob}`. */
  blob: string;
  /** SHA-256 of its bytes, in hex. */
  sha256: string;
  /** `image/png`, `image/jpeg`, `image/gif` or `image/webp`, judged by its content. */
  mime: string;
  /** Bytes. */
  size: number;
}

/** A single-use credential for one connect. */
export interface TicketGrant {
  /** For `?ticket=`. */
  ticket: string;
  /** The one it opens. */
  conversation: string;
  /** Unix ms. */
  expires_at: number;
  /** The socket's address with the ticket in it. */
  url: string;
}

/** What a ticket should be good for: never more than the key that asks. */
export interface TicketRequest {
  /** The one it opens; for `new` the server chooses an id. */
  conversation: string;
  /** Who its holder is taken for; not `server`. Default: the caller. */
  principal?: string | null;
  /** Default: the caller's. */
  role?: Role | null;
  /** Seconds until it expires unused. Default: 60. */
  ttl_s?: number | null;
}

/** What a tool says of itself. A tool that says nothing is taken to write and to be unrepeatable. */
export interface Annotations {
  /** Changes nothing. */
  read_only: boolean;
  /** Run twice with the same arguments, it does what it does once. */
  idempotent: boolean;
  /** May delete or overwrite. */
  destructive: boolean;
}

/** Which roles may answer. */
export interface AnswerableBy {
  /** A reply from any other role is `not_permitted`. */
  roles: Array<Role>;
}

/** A remembered decision, as `approvals.list` shows it. */
export interface ApprovalRule {
  /** For `approvals.revoke`. */
  rule_id: string;
  /** How far it reaches. */
  scope: Scope;
  /** What it lets through. */
  rule: Rule;
  /** The agent it was given to. */
  agent: string;
  /** Who gave it. */
  by: By;
  /** Unix ms. */
  created_at: number;
  /** The run it ends with, for scope `run`. */
  run_id?: string;
}

/** Who is asked before a call. */
export interface ApprovalsConfig {
  /**
   * `ask` (the default): read-only tools run, all others ask; `auto`: what is allowed runs; `deny`:
   * what would ask is refused. The operator's ceiling bounds it.
   */
  mode?: ApprovalMode;
  /** Before `mode`: `deny` wins, then the first that fits decides. */
  rules?: Array<ToolRule>;
}

/** Who did it. */
export interface By {
  /** Name of the key or ticket; `server` where nobody in particular did it. */
  principal: string;
  /** What the client called itself in `client.update`. */
  client_id?: string;
}

/** One offered answer of a question. */
export interface Choice {
  /** What an answer names. */
  id: string;
  /** For people. */
  label: string;
}

/** A tool that a client executes. */
export interface ClientTool {
  /** What the model calls it: 1 to 64 of `A-Z a-z 0-9 _ -`. */
  name: string;
  /** For the model. */
  description?: string | null;
  /** JSON Schema of the arguments, an object. Default: none. */
  parameters?: Record<string, unknown> | null;
  /**
   * When this client is gone while a call is open: the call fails and the model is told (the default),
   * or it waits until the client is back or the call expires.
   */
  if_gone?: "fail" | "wait" | null;
  /** How long the client may be gone before that: it may only be reconnecting. Default: the server's. */
  grace_ms?: number | null;
}

/** One command, as `help` explains it. */
export interface CommandHelp {
  /** The command. */
  type: string;
  /** What it does. */
  description: string;
  /** A frame that can be sent as it is. */
  example: Record<string, unknown>;
}

/** Configuration of a conversation. Everything absent is the server's default. */
export interface Config {
  /** Who answers, from the next run on. */
  agent?: string;
  /** From the next run on. */
  model?: string;
  /** Added to the agent's own, from the next run on. */
  instructions?: string;
  /** What may be called. */
  tools?: ToolFilter;
  /** Who is asked before a call. */
  approvals?: ApprovalsConfig;
  /** By name; the name is the `SERVER` of `mcp:SERVER`. */
  mcp_servers?: Record<string, McpServerConfig>;
  /** Bounds on each run. */
  limits?: LimitsConfig;
  /** The client's own; the server only keeps it. */
  metadata?: Record<string, unknown>;
  /** For lists of conversations. */
  title?: string;
}

/** One line of a list of conversations. */
export interface ConversationSummary {
  /** Its id. */
  conversation_id: string;
  /** Null: it has none. Never absent. */
  title: string | null;
  /** The active run's, or `idle`. */
  status: string;
  /** The active run. */
  run_id?: string;
  /** How many runs wait. */
  queue: number;
  /** Open ones, oldest first. */
  interactions: Array<InteractionRequested>;
  /** Unix ms. */
  last_event_at: number;
  /** The last `seq`. */
  head: number;
  /** Of all its runs. */
  usage: Usage;
}

/** Why a run failed. */
export interface ErrorInfo {
  /** One of the run error codes. */
  code: string;
  /** For people; may change. */
  message: string;
  /** Whether `run.retry` may succeed with nothing changed. */
  retryable: boolean;
}

/**
 * An image. A command gives exactly one of `url` and `blob`; in events one that is stored here has
 * `blob`, `sha256`, `mime` and `size`, and no `url`.
 */
export interface ImagePart {
  type: "image";
  /**
   * `http:` or `https:` URL, for whoever shows it to fetch; in commands also a `data:` URL, which is
   * stored.
   */
  url?: string | null;
  /** Id of an image that is stored here: `blob_` and its `sha256`. `GET /api/blobs/{blob}` has it. */
  blob?: string | null;
  /**
   * SHA-256 of its bytes, in hex. Told by the server; in commands it is ignored, as are `mime` and
   * `size`.
   */
  sha256?: string | null;
  /** `image/png`, `image/jpeg`, `image/gif` or `image/webp`, judged by its content. */
  mime?: string | null;
  /** Bytes. */
  size?: number | null;
  /** How closely the model should look, as its endpoint understands it (`low`, `high`, `auto`). */
  detail?: string | null;
}

/** The call an interaction is about, as the person who answers needs to see it. */
export interface InteractionTool {
  /** The tool call that waits. */
  call_id: string;
  /** The tool. */
  name: string;
  /** Where the tool comes from. */
  source: string;
  /** What it would be called with. */
  arguments: Record<string, unknown>;
  /** The policy's judgement of this call. */
  risk: Risk;
}

/** Bounds on each run of the conversation. */
export interface LimitsConfig {
  /** Model calls in one run; then it ends with `stop_reason` `max_steps`. */
  max_steps?: number;
  /**
   * Counts from `run.started`, not while waiting for a person; then the run fails as
   * `deadline_exceeded`.
   */
  deadline_ms?: number;
}

/** One MCP server of this conversation: by `url`, or by `ref` to the operator's configuration. */
export interface McpServerConfig {
  /**
   * Streamable HTTP or SSE endpoint. Shown as it is: secrets belong into `headers`. Another `url` or
   * `transport` drops the stored headers.
   */
  url?: string;
  /**
   * With `url`. Write-only: read back as `{"set": true, "fingerprint": "..."}`, which as input means
   * keep.
   */
  headers?: Record<string, unknown>;
  /** Default `http` (streamable HTTP). */
  transport?: "http" | "sse";
  /** Which of its tools this conversation sees. */
  tools?: ToolFilter;
  /** Overrides the conversation's for its tools. */
  approvals?: ApprovalsConfig;
  /** Of one call. */
  timeout_ms?: number;
  /** Name of a server in the operator's configuration; the only way to a stdio server. */
  ref?: string;
  /**
   * With `ref`: environment variables for the operator's server, as far as the operator takes them.
   * Write-only, like `headers`.
   */
  env?: Record<string, unknown>;
}

/** Something said. For `user` the `item_id` is the run's id, or the steer's where it was steered. */
export interface MessageItem {
  type: "message";
  /** As in the events; see above for `user`. */
  item_id: string;
  /** The run it belongs to. */
  run_id: string;
  /** Who said it. */
  role: "assistant" | "user";
  /** `in_progress` while it is being said. */
  status: "completed" | "in_progress";
  /** All of it, or what has come so far. */
  text: string;
  /** The same as parts; images are only here. */
  content: Array<ContentPart>;
  /** The model call that said it; absent for `user`. */
  step?: number;
  /** True: the run was stopped while it was being said. */
  partial?: boolean;
  /** True: said to a run that was already going. */
  steered?: boolean;
}

/** What happens when nobody answers in time: this option is taken, or the question is cancelled. */
export interface OnExpire {
  /** Id of the option that is then taken; for an approval always one that refuses. */
  option?: string;
  /** True: the model is told that nobody answered. */
  cancel?: boolean;
}

/** An `interaction.requested` that is still open, and where. */
export interface OpenInteraction {
  type: "interaction.requested";
  /** 1, 2, 3 and so on within the conversation, with no gap. */
  seq: number;
  /** When it was appended, Unix ms. */
  ts: number;
  /** The run it belongs to. */
  run_id: string;
  /** The sub-agent that did it, where one did. */
  agent?: string;
  /** For `interaction.reply`. */
  interaction_id: string;
  /** Says which of `options`, `questions` and `schema` is there. */
  kind: InteractionKind;
  /** The tool call that waits. */
  call_id?: string;
  /** One line for people. */
  title: string;
  /** For people. */
  message: string;
  /** For an approval: the call to judge. */
  tool?: InteractionTool;
  /** For an approval, or a form that may be declined: what `option` may be. */
  options?: Array<Option>;
  /** For a clarify: exactly one. */
  questions?: Array<Question>;
  /** For a form, and for a tool that the client executes: JSON Schema of `content`. */
  schema?: Record<string, unknown>;
  /**
   * For a form that is filled in elsewhere: the address to open, after having looked where it leads.
   * Then there is no `schema`, and `option` says that it is done, or will not be.
   */
  url?: string;
  /** Whether the reply may change the call's `arguments`. */
  editable: boolean;
  /** Of the arguments shown. Sent back, it makes sure that they are still the ones. */
  digest?: string;
  /** Unix ms. */
  requested_at: number;
  /** Unix ms. */
  expires_at: number;
  /** What happens then. */
  on_expire: OnExpire;
  /** Who may answer. */
  answerable_by: AnswerableBy;
  /** For a call that one client executes: the client. */
  owner?: Owner;
  /** The conversation that asks. */
  conversation_id: string;
}

/** One way to answer an approval. */
export interface Option {
  /** What `interaction.reply` sends as `option`. */
  id: string;
  /** For people. */
  label: string;
  /** Whether it lets the call through. */
  kind: "allow" | "deny";
  /** How long the answer is remembered. */
  scope?: Scope;
  /** What would be remembered. Shown so that nobody grants more than they see. */
  rule?: Rule;
}

/** The client that executes a call: nobody else may answer for it. */
export interface Owner {
  /** Whose client it is. */
  principal: string;
  /** As in its `client.update`. */
  client_id: string;
  /** For people. */
  name?: string;
  /**
   * When it is gone: the call fails, and the model is told; or it waits until the client is back or it
   * expires.
   */
  if_gone: "fail" | "wait";
  /** How long it may be gone before that: it may only be reconnecting. */
  grace_ms: number;
}

/** Text that was said to the active run and that it has not heard yet. */
export interface PendingSteer {
  /** As `run.steer` was answered. */
  steer_id: string;
  /** What was said. */
  text: string;
  /** Who said it. */
  by: By;
}

/** The newest progress report of a running call. */
export interface ProgressInfo {
  /** In the tool's own unit. */
  progress: number;
  /** What `progress` goes up to, if the tool knows. */
  total?: number;
  /** For people. */
  message?: string;
}

/** One question of a clarify. `allow_other`: free text is taken beside the options. */
export interface Question {
  /** Key of the answer in `answers`. */
  id: string;
  /** For people. */
  prompt: string;
  /**
   * What an answer is: a string, one or several option ids, a number, a boolean; `secret` is a string
   * that is stored nowhere.
   */
  type: "boolean" | "multi" | "number" | "secret" | "single" | "text";
  /** For `single` and `multi`. */
  options?: Array<Choice>;
  /** Whether a reply without this answer is refused. */
  required: boolean;
  /** Whether free text is taken beside the options. */
  allow_other: boolean;
}

/** A run that waits its turn; `position` counts from 1. */
export interface QueuedRun {
  /** Its id. */
  run_id: string;
  /** What it will be given. */
  input: Input;
  /** 1 is next. */
  position: number;
  /** Who queued it. */
  by: By;
}

/** A block of the model's reasoning. */
export interface ReasoningItem {
  type: "reasoning";
  /** As in the events. */
  item_id: string;
  /** The run it belongs to. */
  run_id: string;
  /** The model call it is part of. */
  step: number;
  /** `in_progress` while it is being thought. */
  status: "completed" | "in_progress";
  /** All of it, or what has come so far. */
  text: string;
}

/**
 * How the client is brought up to date: events `from`..`to` (inclusive) replayed, or folded into a
 * snapshot; for `live` the range is empty. `reason` is there when a snapshot replaces a replay.
 */
export interface Resume {
  /** What follows: old events, a snapshot, or only what is new. */
  mode: "live" | "replay" | "snapshot";
  /** First `seq` of the range. */
  from: number;
  /** Last `seq` of the range. */
  to: number;
  /**
   * Why a snapshot replaces the replay that was asked for: another `epoch`, older than `floor`, newer
   * than `head`.
   */
  reason?: "ahead" | "epoch_changed" | "gap";
}

/** What an approval would remember: this tool, when these arguments equal (absent: whatever they are). */
export interface Rule {
  /** Source-qualified name, such as `builtin:terminal`. */
  tool: string;
  /** Arguments that must be equal; those not named may be anything. */
  match?: Record<string, unknown>;
  /**
   * For a tool of an MCP server: the address, or the operator's name, of the server it was given for.
   * Another server that takes its name does not inherit it.
   */
  server?: string;
}

/** The active run, as a snapshot has it. */
export interface RunSummary {
  /** Its id. */
  run_id: string;
  /** Where it stands. */
  status: RunStatus;
  /** Who answers. */
  agent_name: string;
  /** Which model answers. */
  model: string;
  /** Counts from 1; a recovery adds one. */
  attempt: number;
  /** The current one; 0 before the first. */
  step: number;
  /** Who started it. */
  by: By;
  /** Unix ms. */
  started_at: number;
  /** Of its finished steps. */
  usage: Usage;
  /** The failed run whose journal it goes on from. */
  retry_of?: string;
  /** What it will hear between two steps; absent when nothing waits. */
  steers?: Array<PendingSteer>;
}

/** Where the protocol's JSON Schema is, and its hash. */
export interface SchemaRef {
  /** Path on this server. */
  url: string;
  /** Hex, of the document's bytes. */
  sha256: string;
}

/** Which server this is; `instance` changes with every start. */
export interface ServerInfo {
  /** The program. */
  name: string;
  /** The program's version. */
  version: string;
  /** Another after every start. */
  instance: string;
}

/**
 * The state folded up to `at`. `items` is the newest part; `before` is the cursor to older ones.
 * `interactions` are the `interaction.requested` events that are still open.
 */
export interface SnapshotState {
  /** The last `seq` folded in. */
  at: number;
  /** Secrets are redacted. */
  config: Config;
  /** For `if_version`; 0 before the first `conversation.configured`. */
  config_version: number;
  /** Null: none is active. Never absent. */
  run: RunSummary | null;
  /** Runs that wait, next one first. */
  queue: Array<QueuedRun>;
  /** Oldest first. */
  items: Array<Item>;
  /** Open ones, oldest first. */
  interactions: Array<InteractionRequested>;
  /** Of the whole conversation. */
  usage: Usage;
  /** For `GET /api/conversations/{id}/items?before=`; absent if `items` is everything. */
  before?: string;
}

/** Text in an input or a message. */
export interface TextPart {
  type: "text";
  /** The text. */
  text: string;
}

/** A tool call. While it runs, `output` is the concatenation of its chunks so far. */
export interface ToolCallItem {
  type: "tool_call";
  /** As in the events. */
  call_id: string;
  /** The run it belongs to. */
  run_id: string;
  /** The model call that asked for it. */
  step: number;
  /** The tool. */
  name: string;
  /** Where the tool comes from. */
  source: string;
  /** For people. */
  title: string;
  /** `started`: not past the policy yet; `executing`: running; the rest is how it ended. */
  status: ToolStatus;
  /** The final ones once it is executing. */
  arguments: Record<string, unknown>;
  /** What the tool says of itself. */
  annotations: Annotations;
  /** A bounded preview once it is over. */
  output: string;
  /** Whether there is more to fetch. */
  truncated: boolean;
  /** The result as JSON, where it has such. */
  structured?: unknown;
  /** The result as parts, where it has images. */
  content?: Array<ContentPart>;
  /** Only while it runs. */
  progress?: ProgressInfo;
  /** Once it is over. */
  duration_ms?: number;
}

/** A tool as the model and `tools.list` see it. `parameters` is a JSON Schema of an object. */
export interface ToolDescription {
  /** What the model calls it; unique within the conversation. */
  name: string;
  /** `builtin`, `mcp:SERVER`, `client` or `hermes`. */
  source: string;
  /** For people. */
  title: string;
  /** For the model. */
  description: string;
  /** JSON Schema of the arguments, an object. */
  parameters: Record<string, unknown>;
  /** What the tool says of itself. */
  annotations: Annotations;
}

/** Names or globs, source-qualified or not. Deny wins; no `allow` is the default set, `[]` is none. */
export interface ToolFilter {
  /** Absent: the server's default set. Empty: none. */
  allow?: Array<string> | null;
  /** Wins over `allow`. */
  deny?: Array<string> | null;
}

/** A standing decision for tools whose name fits. */
export interface ToolRule {
  /** Name or glob, source-qualified or not. */
  tool: string;
  /** What happens to calls of it. */
  decision: Verdict;
}

/** Tokens of one model call, one run, or one conversation. */
export interface Usage {
  /** Tokens read, cached ones included. */
  input_tokens: number;
  /** Tokens written, reasoning included. */
  output_tokens: number;
  /** Both together. */
  total_tokens: number;
  /** Part of `input_tokens` that the endpoint had cached, if it says so. */
  cached_input_tokens?: number;
  /** Part of `output_tokens` spent on reasoning, if the endpoint says so. */
  reasoning_tokens?: number;
}

/** What happened, in order. Has a `seq`, is in the log, and is replayed. */
export type Event =
  | ConversationCreated
  | ConversationConfigured
  | RunQueued
  | RunStarted
  | RunWaiting
  | RunResumed
  | RunRecovered
  | RunSteered
  | RunStopping
  | RunCompleted
  | RunFailed
  | RunCancelled
  | StepStarted
  | StepCompleted
  | ReasoningDelta
  | ReasoningAvailable
  | MessageStarted
  | MessageDelta
  | MessageCompleted
  | ItemDiscarded
  | ToolStarted
  | ToolExecuting
  | ToolOutput
  | ToolCompleted
  | InteractionRequested
  | InteractionResolved
  | McpStatus;

/** About the connection. Has no `seq`, is never stored and never replayed. */
export type Control =
  | Hello
  | Snapshot
  | Skipped
  | Live
  | Ok
  | Error
  | Heartbeat
  | GoAway
  | InboxPage
  | InboxChanged
  | InboxRemoved;

/** What a client asks for. Gets exactly one `ok` or `error`. */
export type Command =
  | RunStart
  | RunStop
  | RunSteer
  | RunRetry
  | InteractionReply
  | ApprovalsList
  | ApprovalsRevoke
  | ConversationConfigure
  | ConversationFork
  | ToolsList
  | ClientUpdate
  | InboxMore
  | SnapshotGet
  | Ping
  | Help;

/** What a server sends. */
export type ServerFrame =
  | Event
  | Control;

/** Any frame, in either direction. */
export type Frame = ServerFrame | Command;

/** The frame of a type: `FrameOf<"run.started">` is `RunStarted`. */
export type FrameOf<T extends Frame["type"]> = Extract<Frame, { type: T }>;
