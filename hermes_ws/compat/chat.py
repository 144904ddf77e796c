"""The log of a run as a chat completion, whole or in chunks.

One answer is what a run says from where the projection began until it ends, or waits for nothing but functions that the
client executes. What an agent does in several steps is one message here: a blank line stands between them. Text that
was streamed and then discarded (the model is asked again) cannot be taken back in this protocol: the next attempt
follows it after a blank line. The whole completion has only what counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from hermes_ws.compat.calls import is_of_caller
from hermes_ws.compat.chat_types import (
    CalledFunction,
    ChatChoice,
    ChatCompletion,
    ChatCompletionChunk,
    ChatDelta,
    ChatMessage,
    ChatUsage,
    ChunkChoice,
    CompletionTokensDetails,
    FinishReason,
    FunctionCall,
    HermesNote,
    Interaction,
    PromptTokensDetails,
    ToolProgress,
)
from hermes_ws.compat.errors import ApiError, envelope, of_run
from hermes_ws.compat.spending import Spending
from hermes_ws.protocol import events as ev
from hermes_ws.protocol.codec import encode
from hermes_ws.protocol.values import InteractionTool, Usage

__all__ = ["ChatProjection", "Frame", "error_frame"]

_STOP: Final[dict[str, FinishReason]] = {
    "end": "stop",
    "length": "length",
    "max_steps": "length",
    "refused": "content_filter",
}
_EMOJI: Final = {
    "terminal": "💻",
    "read_file": "📖",
    "write_file": "✍️",
    "edit_file": "✍️",
    "list_files": "📂",
    "search_files": "🔎",
    "fetch_url": "🌐",
    "clarify": "❓",
}
_ANY_TOOL: Final = "⚙️"
_LABEL_CHARS: Final = 80
_BLANK_LINE: Final = "\n\n"


@dataclass(frozen=True, slots=True)
class Frame:
    """One server-sent event. With neither chunk nor error it is the end of the stream."""

    chunk: ChatCompletionChunk | None = None
    event: str | None = None
    extra: ToolProgress | Interaction | None = None
    """Of a named event: fields beside those of the chunk."""
    error: ApiError | None = None

    def encode(self) -> bytes:
        """As it is sent."""
        name = b"" if self.event is None else b"event: %b\n" % self.event.encode()
        return b"%bdata: %b\n\n" % (name, self._data())

    def _data(self) -> bytes:
        if self.error is not None:
            return msgspec.json.encode(envelope(self.error))
        if self.chunk is None:
            return b"[DONE]"
        data = msgspec.json.encode(self.chunk)
        return data if self.extra is None else b"%b,%b" % (data[:-1], msgspec.json.encode(self.extra)[1:])


def error_frame(error: ApiError) -> Frame:
    """A failure after the stream has begun. OpenAI's clients raise when they see it."""
    return Frame(error=error)


@dataclass(slots=True)
class _Texts:
    """Items of one kind, and what of each has been streamed."""

    finals: dict[str, str] = field(default_factory=dict[str, str])
    """What counts, by item."""
    streamed: dict[str, str] = field(default_factory=dict[str, str])

    def grow(self, item_id: str, delta: str) -> str:
        """What to stream for a piece: after other items, a blank line comes first."""
        if not delta:
            return ""
        lead = _BLANK_LINE if self.streamed and item_id not in self.streamed else ""
        self.streamed[item_id] = self.streamed.get(item_id, "") + delta
        return lead + delta

    def end(self, item_id: str, text: str) -> str:
        """The item is whole: what has not been streamed of it yet."""
        self.finals[item_id] = text
        before = self.streamed.get(item_id, "")
        return self.grow(item_id, text[len(before) :]) if text.startswith(before) else ""

    @property
    def whole(self) -> str:
        """All that counts."""
        return _BLANK_LINE.join(text for text in self.finals.values() if text)


class ChatProjection:
    """One answer. It is fed the events that follow where the answer begins; those of other runs are passed over."""

    def __init__(
        self,
        completion_id: str,
        created: int,
        model: str,
        run_id: str,
        *,
        include_usage: bool = False,
        notes: bool = True,
        legacy: bool = False,
    ) -> None:
        """``created``: Unix seconds. ``notes``: whether the stream has named events about tools and questions.
        ``legacy``: a call is handed back as ``function_call``, and only the first one."""
        self.done = False
        """Whether the answer is over. The run may go on, when the client has executed its functions."""
        self.failure: ApiError | None = None
        """Why the run failed, if it did."""
        self._id, self._created, self._model = completion_id, created, model
        self._run_id = run_id
        self._usage_chunk = include_usage
        self._notes = notes
        self._legacy = legacy
        self._opened = False
        self._said, self._thought = _Texts(), _Texts()
        self._open: dict[str, bool] = {}
        """Calls that are not over, and where their tools come from."""
        self._waiting: dict[str, ev.InteractionRequested] = {}
        """Those that the client is to execute, by call."""
        self._asked: set[str] = set()
        """Questions that the stream has told of."""
        self._spending = Spending()
        self._finish: FinishReason = "stop"
        self._note: HermesNote | UnsetType = UNSET

    # -- what comes ------------------------------------------------------------------------------------

    def feed(self, event: ev.Event) -> list[Frame]:
        """What follows from an event for the stream."""
        if self.done or not isinstance(event, ev.RunEvent) or event.run_id != self._run_id:
            return []
        frames = [*self._texts(event), *self._calls(event), *self._questions(event), *self._ends(event)]
        if self._open and self._open.keys() == self._waiting.keys():
            frames += self._hand_over()
        return [*self.opening(), *frames] if frames else []

    def opening(self) -> list[Frame]:
        """The first chunk, unless it is out already: for a stream that is to begin before there is anything to tell."""
        if self._opened:
            return []
        self._opened = True
        return [self._delta(ChatDelta(role="assistant", content=""))]

    def _texts(self, event: ev.RunEvent) -> list[Frame]:
        said = thought = ""
        self._spending.feed(event)
        match event:
            case ev.MessageDelta():
                said = self._said.grow(event.item_id, event.delta)
            case ev.MessageCompleted():
                said = self._said.end(event.item_id, event.text)
            case ev.ReasoningDelta():
                thought = self._thought.grow(event.item_id, event.delta)
            case ev.ReasoningAvailable():
                thought = self._thought.end(event.item_id, event.text)
            case ev.ItemDiscarded():
                self._said.finals.pop(event.item_id, None)
                self._thought.finals.pop(event.item_id, None)
            case _:
                pass
        if said:
            return [self._delta(ChatDelta(content=said))]
        return [self._delta(ChatDelta(reasoning_content=thought))] if thought else []

    def _calls(self, event: ev.RunEvent) -> list[Frame]:
        match event:
            case ev.ToolStarted():
                self._open[event.call_id] = is_of_caller(event)
                return [] if is_of_caller(event) else self._progress(_running(event))
            case ev.ToolCompleted():
                self._waiting.pop(event.call_id, None)
                of_caller = self._open.pop(event.call_id, True)
                return [] if of_caller else self._progress(_ended(event))
            case _:
                return []

    def _progress(self, progress: ToolProgress) -> list[Frame]:
        return [Frame(self._chunk([]), "hermes.tool.progress", progress)] if self._notes else []

    def _questions(self, event: ev.RunEvent) -> list[Frame]:
        match event:
            case ev.InteractionRequested(kind="client_tool", call_id=str(call_id), owner=None):
                self._waiting[call_id] = event
                return []
            case ev.InteractionRequested() if self._notes:
                self._asked.add(event.interaction_id)
                return [self._told("requested", event)]
            case ev.InteractionResolved() if event.interaction_id in self._asked:
                return [self._told("resolved", event)]
            case _:
                return []

    def _told(self, what: str, event: ev.InteractionRequested | ev.InteractionResolved) -> Frame:
        return Frame(self._chunk([]), f"hermes.interaction.{what}", Interaction(interaction=msgspec.Raw(encode(event))))

    # -- how it ends -----------------------------------------------------------------------------------

    def _ends(self, event: ev.RunEvent) -> list[Frame]:
        match event:
            case ev.RunCompleted():
                if event.stop_reason == "max_steps":
                    self._note = HermesNote(status="completed", stop_reason="max_steps")
                return self._over(_STOP[event.stop_reason])
            case ev.RunCancelled():
                self._note = HermesNote(status="cancelled", stop_reason=event.reason)
                return self._over("stop")
            case ev.RunFailed():
                self.done, self.failure = True, of_run(event.error)
                return [error_frame(self.failure), Frame()]
            case _:
                return []

    def _hand_over(self) -> list[Frame]:
        """Nothing but the client's functions is waited for: they are its own to call now."""
        if self._legacy:
            return [self._delta(ChatDelta(function_call=self._handed()[0].function)), *self._over("function_call")]
        calls = [msgspec.structs.replace(call, index=place) for place, call in enumerate(self._handed())]
        return [self._delta(ChatDelta(tool_calls=calls)), *self._over("tool_calls")]

    def _handed(self) -> list[FunctionCall]:
        tools = [self._waiting[call_id].tool for call_id in self._open]
        return [_function_call(tool) for tool in tools if tool is not None]

    def _over(self, reason: FinishReason) -> list[Frame]:
        self.done, self._finish = True, reason
        last = self._chunk([ChunkChoice(delta=ChatDelta(), finish_reason=reason)])
        frames = [Frame(msgspec.structs.replace(last, hermes=self._note))]
        if self._usage_chunk:
            frames.append(Frame(msgspec.structs.replace(self._chunk([]), usage=_usage(self._spending.total))))
        return [*frames, Frame()]

    @property
    def completion(self) -> ChatCompletion:
        """The whole answer, once it is over and has not failed."""
        handed = self._handed() if self._finish in ("tool_calls", "function_call") else []
        message = ChatMessage(
            content=self._said.whole or (None if handed else ""),
            reasoning_content=self._thought.whole or UNSET,
            tool_calls=handed if handed and not self._legacy else UNSET,
            function_call=handed[0].function if handed and self._legacy else UNSET,
        )
        return ChatCompletion(
            id=self._id,
            created=self._created,
            model=self._model,
            choices=[ChatChoice(message=message, finish_reason=self._finish)],
            usage=_usage(self._spending.total),
            hermes=self._note,
        )

    # -- chunks ----------------------------------------------------------------------------------------

    def _delta(self, delta: ChatDelta) -> Frame:
        return Frame(self._chunk([ChunkChoice(delta=delta)]))

    def _chunk(self, choices: list[ChunkChoice]) -> ChatCompletionChunk:
        return ChatCompletionChunk(
            id=self._id,
            created=self._created,
            model=self._model,
            choices=choices,
            usage=None if self._usage_chunk else UNSET,
        )


def _function_call(tool: InteractionTool) -> FunctionCall:
    arguments = msgspec.json.encode(tool.arguments).decode()
    return FunctionCall(id=tool.call_id, function=CalledFunction(name=tool.name, arguments=arguments))


def _running(event: ev.ToolStarted) -> ToolProgress:
    said = next((value for value in event.arguments.values() if isinstance(value, str) and value.strip()), event.title)
    return ToolProgress(
        tool=event.name,
        emoji=_EMOJI.get(event.name, _ANY_TOOL),
        label=" ".join(said.split())[:_LABEL_CHARS],
        tool_call_id=event.call_id,
        status="running",
    )


def _ended(event: ev.ToolCompleted) -> ToolProgress:
    return ToolProgress(tool=event.name, tool_call_id=event.call_id, status="completed", outcome=event.status)


def _usage(usage: Usage) -> ChatUsage:
    return ChatUsage(
        prompt_tokens=usage.input_tokens,
        completion_tokens=usage.output_tokens,
        total_tokens=usage.total_tokens,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=usage.cached_input_tokens or 0),
        completion_tokens_details=CompletionTokensDetails(reasoning_tokens=usage.reasoning_tokens or 0),
    )
