"""Is this a valid answer to that question? Pure checks; a wrong answer raises and says what would be right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hermes_ws.errors import CommandError
from hermes_ws.protocol.commands import InteractionReply
from hermes_ws.protocol.events import InteractionRequested
from hermes_ws.protocol.values import Option, Question
from hermes_ws.validation import UnusableSchema, first_problem

__all__ = ["REDACTED", "check_answers", "redact", "secrets_in"]

REDACTED = {"redacted": True}
"""What stands in an event for a secret answer."""


def check_answers(asked: InteractionRequested, reply: InteractionReply) -> None:
    """Raises :class:`CommandError` ``invalid_option`` or ``invalid_answer`` unless ``reply`` fits ``asked``."""
    if asked.kind == "approval":
        _check_option(asked, reply)
    elif asked.kind == "clarify":
        _only(asked, reply, "answers")
        _check_questions(asked.questions or [], reply.answers or {})
    elif asked.options and (reply.option is not None or asked.schema is None):
        _check_choice(asked, reply)
    else:
        _only(asked, reply, "content")
        _check_content(asked, reply.content)


def redact(asked: InteractionRequested, answers: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The answers as the log may have them."""
    if answers is None:
        return None
    secret = {q.id for q in asked.questions or [] if q.type == "secret"}
    return {key: REDACTED if key in secret else value for key, value in answers.items()}


def secrets_in(asked: InteractionRequested, answers: Mapping[str, Any] | None) -> list[str]:
    """The answers that the log may not have."""
    asked_for = {q.id for q in asked.questions or [] if q.type == "secret"}
    return [value for key, value in (answers or {}).items() if key in asked_for and isinstance(value, str)]


def _only(asked: InteractionRequested, reply: InteractionReply, wanted: str) -> None:
    for name in ("option", "answers", "content", "arguments"):
        if name != wanted and getattr(reply, name) is not None:
            raise _wrong(f"a {asked.kind} is answered with `{wanted}`, not with `{name}`", f"$.{name}")


def _check_option(asked: InteractionRequested, reply: InteractionReply) -> None:
    for name in ("answers", "content"):
        if getattr(reply, name) is not None:
            raise _wrong(f"an approval is answered with `option`, not with `{name}`", f"$.{name}")
    option = _offered_option(asked, reply.option)
    if reply.arguments is not None and (not asked.editable or option.kind != "allow"):
        reason = "these arguments cannot be edited" if not asked.editable else "a refusal takes no arguments"
        raise _wrong(reason, "$.arguments")


def _offered_option(asked: InteractionRequested, chosen: str | None) -> Option:
    offered = {option.id: option for option in asked.options or []}
    if chosen not in offered:
        given = "no option" if chosen is None else f"option {chosen[:80]!r}"
        message = f"{given} was given; offered are {', '.join(offered)}"
        raise CommandError("invalid_option", message, path="$.option", details={"options": list(offered)})
    return offered[chosen]


def _check_choice(asked: InteractionRequested, reply: InteractionReply) -> None:
    """A form that may be declined: the option, and what was filled in if it was not."""
    for name in ("answers", "arguments"):
        if getattr(reply, name) is not None:
            raise _wrong(f"a {asked.kind} is answered with `option` and `content`, not with `{name}`", f"$.{name}")
    option = _offered_option(asked, reply.option)
    if option.kind == "allow" and asked.schema is not None:
        _check_content(asked, reply.content)
    elif reply.content is not None:
        raise _wrong(f"option {option.id!r} takes no `content` here", "$.content")


def _check_questions(questions: list[Question], answers: Mapping[str, Any]) -> None:
    known = {question.id: question for question in questions}
    for key in answers:
        if key not in known:
            raise _wrong(
                f"there is no question {key[:80]!r}; the questions are {', '.join(known)}",
                f"$.answers.{key[:80]}",
            )
    for question in questions:
        value = answers.get(question.id)
        if value is None:
            if question.required:
                raise _wrong(f"question {question.id!r} needs an answer", f"$.answers.{question.id}")
        else:
            _check_value(question, value)


def _check_value(question: Question, value: Any) -> None:
    path = f"$.answers.{question.id}"
    match question.type:
        case "text" | "secret":
            said = isinstance(value, str) and (bool(value.strip()) or not question.required)
            _expect(said, "a text that is not empty" if question.required else "a string", path)
        case "number":
            _expect(isinstance(value, (int, float)) and not isinstance(value, bool), "a number", path)
        case "boolean":
            _expect(isinstance(value, bool), "true or false", path)
        case "single":
            _expect(_is_choice(question, value), _choices(question), path)
        case "multi":
            fits = isinstance(value, list) and all(_is_choice(question, one) for one in value)  # pyright: ignore[reportUnknownVariableType]
            _expect(fits, f"a list of {_choices(question)}", path)


def _is_choice(question: Question, value: Any) -> bool:
    offered = {option.id for option in question.options or []}
    return isinstance(value, str) and (value in offered or (question.allow_other and bool(value.strip())))


def _choices(question: Question) -> str:
    offered = ", ".join(repr(option.id) for option in question.options or [])
    return f"one of {offered}" + (" or a text of your own" if question.allow_other else "")


def _check_content(asked: InteractionRequested, content: dict[str, Any] | None) -> None:
    if content is None:
        raise _wrong(f"a {asked.kind} is answered with `content`", "$.content")
    try:
        problem = first_problem(asked.schema or {"type": "object"}, content)
    except UnusableSchema as error:
        raise _wrong(f"the form's own schema {error}", "$.content") from None
    if problem is not None:
        raise _wrong(problem.message, f"$.content{problem.path.removeprefix('$')}")


def _expect(fits: bool, wanted: str, path: str) -> None:
    if not fits:
        raise _wrong(f"the answer must be {wanted}", path)


def _wrong(message: str, path: str) -> CommandError:
    return CommandError("invalid_answer", message, path=path)
