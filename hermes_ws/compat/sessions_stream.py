"""A run in a session as hermes-agent's session chat tells of it: server-sent events with names.

All that the assistant says in the run is one message to such a client, under one id. Each event carries the session,
the run, a number of its own that counts from 1, and the time; the stream's ``id:`` is the number in the log, so that
``GET /v1/runs/{run_id}/events`` goes on from there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from hermes_ws.compat import runs_types as frames
from hermes_ws.compat.runs import RunEvents
from hermes_ws.compat.runs_types import RunFrame
from hermes_ws.compat.sessions import SessionFold, content_of
from hermes_ws.protocol import events as ev

__all__ = ["SessionStream"]

_THINKING: Final = "_thinking"
"""The tool that older clients know reasoning as."""
_AS_THEY_ARE: Final = (
    frames.ApprovalRequest,
    frames.ApprovalResponded,
    frames.ApprovalCancelled,
    frames.ClarifyRequest,
    frames.ClarifyResponded,
    frames.ClarifyCancelled,
    frames.FormRequest,
    frames.FormResponded,
    frames.FunctionRequest,
    frames.RunQueuedFrame,
    frames.RunRecoveredFrame,
    frames.RunStoppingFrame,
    frames.RunSteeredFrame,
    frames.SteerResolved,
)
"""Frames of the runs API that mean the same here."""

Named = tuple[str, dict[str, Any]]
_DONE: Final[Named] = ("done", {})


class SessionStream:
    """The projection: fed the events of one run, it returns what goes on the wire."""

    def __init__(self, run_id: str, session_id: str) -> None:
        self._run_id = run_id
        self._session_id = session_id
        self._message_id = f"msg_{run_id.removeprefix('run_')}"
        self._events = RunEvents(run_id, session_id)
        self._fold = SessionFold(session_id)
        self._count = self._seq = 0
        self._at = 0.0
        self._said: dict[str, str] = {}
        self._calls: dict[str, dict[str, Any]] = {}

    @property
    def done(self) -> bool:
        """Whether the run is over."""
        return self._events.done

    def feed(self, event: ev.Event | ev.UnknownEvent) -> bytes:
        """What one event is to such a client; empty for most of those that are of no interest to it."""
        if isinstance(event, ev.RunEvent) and event.run_id != self._run_id:
            return b""
        self._fold.feed(event)
        named = [one for frame in self._events.feed(event) for one in self._named(frame)]
        if not named:
            return b""
        self._seq, self._at = event.seq, event.ts / 1000
        return self._encoded(named)

    def deleted(self) -> bytes:
        """The end of the stream of a session that is no more."""
        return self._encoded([("error", {"message": "the session was deleted", "code": "session_not_found"}), _DONE])

    def _encoded(self, named: list[Named]) -> bytes:
        lines: list[bytes] = []
        for name, payload in named:
            self._count += 1
            about = {"session_id": self._session_id, "run_id": self._run_id, "seq": self._count, "ts": self._at}
            lines.append(f"event: {name}\ndata: ".encode() + msgspec.json.encode({**payload, **about}) + b"\n\n")
        if self._seq:
            lines[-1] = b"id: %d\n" % self._seq + lines[-1]
        return b"".join(lines)

    def _named(self, frame: RunFrame) -> Iterable[Named]:
        match frame:
            case frames.RunStartedFrame():
                message = {"id": self._message_id, "role": "assistant"}
                yield "run.started", {"user_message": {"role": "user", "content": content_of(frame.input)}}
                yield "message.started", {"message": message}
            case frames.MessageDeltaFrame():
                self._said[frame.message_id] = self._said.get(frame.message_id, "") + frame.delta
                yield "assistant.delta", self._of({"item_id": frame.message_id, "delta": frame.delta})
            case frames.MessageAvailable():
                self._said[frame.message_id] = frame.text
            case frames.MessageDiscarded():
                self._said.pop(frame.message_id, None)
                yield "assistant.discarded", self._of({"item_id": frame.message_id, "reason": frame.reason})
            case frames.ReasoningDeltaFrame():
                yield "reasoning.delta", self._of({"delta": frame.delta})
            case frames.ReasoningWhole():
                yield "tool.progress", self._of({"tool_name": _THINKING, "delta": frame.text})
            case frames.ToolStartedFrame() | frames.ToolOutputFrame() | frames.ToolCompletedFrame():
                yield from self._tool(frame)
            case frames.RunCompletedFrame() | frames.RunFailedFrame() | frames.RunCancelledFrame():
                yield from self._end(frame)
            case _ if isinstance(frame, _AS_THEY_ARE):
                yield str(frame.__struct_config__.tag), _plain(frame)
            case _:
                pass

    def _of(self, payload: dict[str, Any]) -> dict[str, Any]:
        return {"message_id": self._message_id, **payload}

    def _tool(
        self, frame: frames.ToolStartedFrame | frames.ToolOutputFrame | frames.ToolCompletedFrame
    ) -> Iterable[Named]:
        if isinstance(frame, frames.ToolStartedFrame):
            call = {"tool_name": frame.tool, "preview": frame.preview, "args": frame.args}
            self._calls[frame.tool_call_id] = call
            yield "tool.started", self._of({**call, "tool_call_id": frame.tool_call_id})
            return
        call = self._calls.get(frame.tool_call_id, {})
        if isinstance(frame, frames.ToolCompletedFrame):
            told = _plain(frame, "tool", "run_id", "timestamp")
            yield "tool.completed", self._of({**call, "tool_name": frame.tool, **told})
        elif frame.chunk is not None or frame.message is not None:
            delta = frame.chunk if frame.chunk is not None else frame.message
            name = call.get("tool_name", "")
            progress = {"tool_name": name, "tool_call_id": frame.tool_call_id, "stream": frame.stream, "delta": delta}
            yield "tool.progress", self._of(progress)

    def _end(
        self, frame: frames.RunCompletedFrame | frames.RunFailedFrame | frames.RunCancelledFrame
    ) -> Iterable[Named]:
        completed, interrupted = (
            isinstance(frame, frames.RunCompletedFrame),
            isinstance(frame, frames.RunCancelledFrame),
        )
        said = next(reversed(self._said.values()), "")
        content = frame.output if isinstance(frame, frames.RunCompletedFrame) else said
        flags = {"completed": completed, "partial": not completed and bool(said), "interrupted": interrupted}
        if isinstance(frame, frames.RunFailedFrame):
            yield "error", {"message": frame.error, "code": frame.error_code, "retryable": frame.retryable}
        yield "assistant.completed", self._of({"content": content, **flags})
        messages = self._fold.of_run(self._run_id)
        told = _plain(frame, "output", "run_id", "timestamp")
        yield str(frame.__struct_config__.tag), self._of({**told, "messages": messages})
        yield _DONE


def _plain(frame: RunFrame, *without: str) -> dict[str, Any]:
    """The fields of a frame."""
    fields: dict[str, Any] = msgspec.to_builtins(frame)
    return {name: value for name, value in fields.items() if name not in ("event", *without)}
