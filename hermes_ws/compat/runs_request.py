"""Requests to the runs API, read: what is to be run, and what is answered to a run's questions.

hermes-agent's clients send the same thing under several names; all of them are taken. Errors name the field.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast

import msgspec

from hermes_ws.compat.chat_messages import Instruction, Message, User, past_before, read_messages
from hermes_ws.compat.errors import ApiError
from hermes_ws.compat.fields import invalid, items, missing, text, whole_object
from hermes_ws.compat.parts import parts_of, text_of
from hermes_ws.compat.past import Past
from hermes_ws.compat.settings import CompatSettings
from hermes_ws.protocol.events import InteractionRequested
from hermes_ws.protocol.values import Input, Question, ToolFilter

__all__ = [
    "ApprovalAnswer",
    "RunRequest",
    "Source",
    "approval_answer",
    "clarify_answers",
    "is_true",
    "message_of",
    "object_field",
    "option_of",
    "request_id_of",
    "run_request",
    "session_id_of",
    "steer_text",
    "text_field",
]

Source = Literal["none", "input", "conversation_history", "previous_response", "session"]
"""Where the history of a run comes from."""

_ALIASES: Final = {"approve": "once", "approved": "once", "allow": "once", "conversation": "session"}
_OPTIONS: Final = {"once": "once", "run": "run", "session": "conversation", "always": "always", "deny": "deny"}
"""Choices as options of our approvals. A ``session`` there is a conversation here."""
_WORDS: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_ID_CHARS: Final = 256
_LISTS: Final = ("conversation_history", "input")


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What is to be run. ``past`` is history that the request brings along."""

    said: Input
    past: Past = field(default_factory=Past)
    source: Source = "none"
    instructions: str | None = None
    session_id: str | None = None
    model: str | None = None
    previous_response_id: str | None = None
    tools: ToolFilter | None = None
    metadata: dict[str, Any] | None = None


def run_request(body: dict[str, Any], most: int = CompatSettings().messages) -> RunRequest:
    """The body of ``POST /v1/runs``, with ``most`` so many messages. Raises :class:`ApiError`."""
    given = body.get("input")
    if given in (None, "", []):
        raise missing("input")
    _check_count(body, most)
    said, before, instructions = _input(given)
    past = past_before(before)
    source: Source = "input" if before else "none"
    if body.get("conversation_history") is not None:
        history = _messages(items(body["conversation_history"], "conversation_history"), "conversation_history")
        instructions = [*_instructions(history), *instructions]
        past = past_before([*history, *before])
        source = "conversation_history" if history else source
    return RunRequest(
        said,
        past,
        source,
        instructions="\n\n".join(filter(None, [text_field(body, "instructions"), *instructions])) or None,
        session_id=session_id_of(body),
        model=text_field(body, "model"),
        previous_response_id=None if past else text_field(body, "previous_response_id"),
        tools=_tools(body.get("tools")),
        metadata=None if body.get("metadata") is None else whole_object(body["metadata"], "metadata"),
    )


def _check_count(body: dict[str, Any], most: int) -> None:
    there = {name: len(items(body[name], name)) for name in _LISTS if isinstance(body.get(name), list)}
    if sum(there.values()) > most:
        longest = max(there, key=lambda name: there[name])
        raise invalid(longest, f"has {there[longest]} elements; this server takes up to {most} messages in a request")


def _input(given: Any) -> tuple[Input, list[Message], list[str]]:
    """What is said now, the messages before it, and instructions among them."""
    if not isinstance(given, list) or not all(
        isinstance(item, dict) and "role" in item for item in items(given, "input")
    ):
        return _visible(parts_of(given, "input"), "input"), [], []
    messages = _messages(items(given, "input"), "input")
    spoken: list[Message] = [message for message in messages if not isinstance(message, Instruction)]
    if not spoken or not isinstance(spoken[-1], User):
        raise invalid("input", "ends with a message of the user's: that is what the run is asked")
    return _visible(spoken[-1].parts, spoken[-1].path), spoken[:-1], _instructions(messages)


def _visible(said: Input, path: str) -> Input:
    if isinstance(said, str) and not said.strip():
        raise invalid(path, "is empty: say something", "missing_required_parameter")
    return said


def _instructions(messages: Iterable[Message]) -> list[str]:
    return [message.text for message in messages if isinstance(message, Instruction)]


def _messages(given: list[Any], name: str) -> list[Message]:
    """Messages under the name that they have here; what is no message names the fields that are missing."""
    for number, message in enumerate(given):
        if not isinstance(message, dict) or "role" not in message:  # calls may do without content
            path = f"{name}[{number}]"
            raise invalid(path, "must have 'role' and 'content' fields")
    try:
        return read_messages(cast("list[dict[str, Any]]", given))
    except ApiError as wrong:
        param = wrong.param.replace("messages[", f"{name}[", 1) if wrong.param else None
        message = wrong.message.replace("messages[", f"{name}[", 1)
        raise ApiError(wrong.status, wrong.code, message, param=param) from None


def _tools(given: Any) -> ToolFilter | None:
    """A filter of ours, ``{"allow": [...], "deny": [...]}``. hermes-agent ignores a client's functions here; so do
    we."""
    if not isinstance(given, dict):
        return None
    try:
        return msgspec.convert(given, ToolFilter)
    except msgspec.ValidationError as wrong:
        raise invalid("tools", f'is {{"allow": [names], "deny": [names]}}: {wrong}') from None


def text_field(body: dict[str, Any], name: str) -> str | None:
    """An optional string; empty is as good as absent. Raises :class:`ApiError`."""
    value = body.get(name)
    return None if value is None else text(value, name) or None


def session_id_of(body: dict[str, Any], *names: str) -> str | None:
    """The id that the client has chosen for a session. Raises :class:`ApiError`."""
    for name in names or ("session_id",):
        if body.get(name) is not None:
            return text(body[name], name).strip() or None
    return None


def message_of(body: dict[str, Any]) -> Input:
    """What is said in a session, as ``message`` or ``input``. Raises :class:`ApiError` ``missing_message``."""
    for name in ("message", "input"):
        if body.get(name) not in (None, "", []):
            said = parts_of(body[name], name)
            if not isinstance(said, str) or said.strip():
                return said
    raise ApiError(400, "missing_message", "Missing 'message' field", param="message")


# -- answers -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ApprovalAnswer:
    """An answer to an approval. ``request_id`` None: the oldest that waits; ``all``: every one that waits.
    ``arguments``: the call's, as they are to be instead."""

    choice: str
    request_id: str | None
    all: bool
    arguments: dict[str, Any] | None = None
    comment: str | None = None

    @property
    def option(self) -> str:
        """The option that the choice is in our approvals."""
        return _OPTIONS[self.choice]


def approval_answer(body: dict[str, Any]) -> ApprovalAnswer:
    """The body of an answer to an approval. Raises :class:`ApiError`."""
    raw = str(body.get("choice") or "").strip().lower()
    choice = _ALIASES.get(raw, raw)
    request_id = request_id_of(body, "invalid_approval_request")
    if choice not in _OPTIONS:
        message = "Invalid approval choice; expected one of: once, session, always, deny"
        raise ApiError(400, "invalid_approval_choice", message, param="choice")
    every = is_true(body.get("all")) or is_true(body.get("resolve_all"))
    arguments = object_field(body, "arguments", "invalid_approval_request")
    if every and arguments is not None:
        message = "`arguments` are those of one call: name its `request_id`, without `all`"
        raise ApiError(400, "invalid_approval_request", message, param="arguments")
    try:
        comment = text_field(body, "comment")
    except ApiError as wrong:
        raise _recoded(wrong, "invalid_approval_request") from None
    return ApprovalAnswer(choice, request_id, every, arguments, comment)


def object_field(body: dict[str, Any], name: str, code: str) -> dict[str, Any] | None:
    """An optional object. Raises :class:`ApiError` with this ``code``: what was meant to be an answer, and is of the
    wrong type, must not be left out of it."""
    try:
        return None if body.get(name) is None else whole_object(body[name], name)
    except ApiError as wrong:
        raise _recoded(wrong, code) from None


def option_of(choice: str) -> str:
    """A choice as an option's id, for what is no approval: as it is."""
    return _OPTIONS.get(choice, choice)


def request_id_of(body: dict[str, Any], code: str) -> str | None:
    """Which question is answered. Raises :class:`ApiError` with this ``code``."""
    for name in ("request_id", "clarify_id", "interaction_id"):
        given = body.get(name)
        if given is not None:
            if not isinstance(given, str) or not 0 < len(given.strip()) <= _ID_CHARS:
                message = f"`{name}` is the id of the request, 1 to {_ID_CHARS} characters"
                raise ApiError(400, code, message, param=name)
            return given.strip()
    return None


def _recoded(wrong: ApiError, code: str) -> ApiError:
    """The same under the code that these clients go by."""
    return ApiError(wrong.status, code, wrong.message, param=wrong.param)


def is_true(value: Any) -> bool:
    """A flag, also where it was written as text or number."""
    return value is True or (isinstance(value, str | int) and _WORDS.get(str(value).strip().lower(), False))


def steer_text(body: dict[str, Any]) -> str:
    """What is said to a running run. Raises :class:`ApiError` ``invalid_steer_input``."""
    for name in ("input", "message", "text"):
        if body.get(name) not in (None, "", []):
            said = _steered(body[name], name).strip()
            if said:
                return said
    message = "Missing non-empty steer text; expected 'input', 'message', or 'text'."
    raise ApiError(400, "invalid_steer_input", message, param="input")


def _steered(given: Any, name: str) -> str:
    try:
        return text_of(given, name)
    except ApiError as wrong:
        raise _recoded(wrong, "invalid_steer_input") from None


def clarify_answers(asked: InteractionRequested, body: dict[str, Any]) -> dict[str, Any]:
    """The answers to a question of the agent's, however they are written: ``answer`` or ``response``, a string or
    ``{"type": "choice", "choice_id"}``, ``{"type": "choices", "choice_ids"}``, ``{"type": "text", "text"}``; or
    ``answers`` by question id. Raises :class:`ApiError` ``invalid_clarification``."""
    if isinstance(body.get("answers"), dict):
        return cast("dict[str, Any]", body["answers"])
    [question] = asked.questions or []
    for name in ("answer", "response", "choice", "choice_id", "choices", "choice_ids", "text"):
        if body.get(name) is not None:
            return {question.id: _answer(question, _unwrapped(body[name]))}
    message = "Missing 'answer': what is answered, one of the choices or words of your own"
    raise ApiError(400, "invalid_clarification", message, param="answer")


def _unwrapped(given: Any) -> Any:
    if not isinstance(given, dict):
        return given
    answer = cast("dict[str, Any]", given)
    for name in ("choice_id", "choice_ids", "choice", "choices", "text", "answer", "value"):
        if answer.get(name) is not None:
            return answer[name]
    message = "an answer is a string, or an object with `choice_id`, `choice_ids` or `text`"
    raise ApiError(400, "invalid_clarification", message, param="response")


def _answer(question: Question, given: Any) -> Any:
    """The answer in the question's own type, where it can be made one; judging it is the conversation's."""
    if question.type == "multi":
        several = items(given, "answer") if isinstance(given, list) else [given]
        return [_choice(question, one) for one in several]
    if isinstance(given, str):
        if question.type == "number":
            return _number(given)
        if question.type == "boolean":
            return _WORDS.get(given.strip().lower(), given)
    return _choice(question, given)


def _choice(question: Question, given: Any) -> Any:
    """The id of the choice that has this label, or is it already."""
    return next((choice.id for choice in question.options or [] if given in (choice.id, choice.label)), given)


def _number(given: str) -> Any:
    try:
        value = msgspec.json.decode(given)
    except msgspec.DecodeError:
        return given
    return value if isinstance(value, int | float) and not isinstance(value, bool) else given
