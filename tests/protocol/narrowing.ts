// Compiled by test_node_schemas.py under --strict: what must compile does, and what must not is marked.
import type { Command, Control, Event, FrameOf, ServerFrame } from "../../schemas/frames";

export function told(frame: ServerFrame): string {
  switch (frame.type) {
    case "run.completed":
      return `${frame.output} (${frame.stop_reason}, ${frame.usage.total_tokens} tokens)`;
    case "tool.completed":
      return frame.status === "ok" ? frame.output : `${frame.name}: ${frame.status}`;
    case "interaction.requested":
      return (frame.options ?? []).map((option) => option.label).join(", ");
    case "snapshot":
      return frame.items.map((item) => (item.type === "tool_call" ? item.name : item.text)).join("\n");
    case "error":
      return frame.id === null ? frame.message : `${frame.id}: ${frame.message}`;
    default:
      return frame.type;
  }
}

// Every control frame is named: a new one makes this fail, as it should in a client that must know them all.
export function control(frame: Control): number | undefined {
  switch (frame.type) {
    case "hello":
    case "heartbeat":
      return frame.head;
    case "snapshot":
    case "live":
    case "ok":
      return frame.at;
    case "skipped":
      return frame.to;
    case "inbox.page":
      return frame.interactions.length;
    case "inbox.changed":
      return frame.conversation.head;
    case "error":
    case "goaway":
    case "inbox.removed":
      return undefined;
  }
  const none: never = frame;
  return none;
}

export const sequence = (event: Event): number => event.seq;

export const commands: Command[] = [
  { type: "run.start", input: "hi" },
  { type: "run.start", input: [{ type: "text", text: "hi" }], when_busy: null, tools: { allow: ["builtin:*"] } },
  { type: "help" },
];

export const started: FrameOf<"run.started">["by"]["principal"] = "anna";

// @ts-expect-error: input is required
export const noInput: Command = { type: "run.start" };

// @ts-expect-error: no such choice
export const wrongChoice: Command = { type: "run.start", input: "hi", when_busy: "later" };

// @ts-expect-error: no such command
export const wrongType: Command = { type: "run.begin", input: "hi" };

// @ts-expect-error: a number is not an input
export const wrongInput: Command = { type: "run.start", input: 1 };

export function wrongField(frame: ServerFrame): unknown {
  // @ts-expect-error: only some frames have an output
  const before = frame.output;
  if (frame.type === "message.delta") {
    // @ts-expect-error: a delta has no text
    return frame.text;
  }
  // @ts-expect-error: absent is undefined, never null
  const never: null = frame.type === "run.started" ? frame.retry_of : null;
  return [before, never];
}

// @ts-expect-error: control frames have no seq
export const noSequence = (frame: Control): number => frame.seq;
