"""Asking people, and finding again what was asked before a restart.

A question is in the log, not on somebody's stack. Whoever asked it and was cut off by a crash asks the same again, in
the same order, and gets what it would have got: an open question is waited for, an answered one is not asked twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any, Final, Literal

from hermes_ws.decisions import Answer, Ask
from hermes_ws.protocol.events import InteractionRequested
from hermes_ws.protocol.values import Choice, Option, Question
from hermes_ws.runtime.conversation import Conversation
from hermes_ws.tools.base import NobodyAnswered

__all__ = ["CLARIFY_ID", "UNANSWERED", "Questions", "answer_to", "clarification", "filled_in", "form"]

UNANSWERED: Final = {"expired": "nobody answered in time", "cancelled": "the question was cancelled"}
"""Why there is no answer, for the model."""
CLARIFY_ID: Final = "answer"
"""The id of a clarify's one question."""


class Questions:
    """What one asker of a run asks: one of its calls, or its agent between them."""

    def __init__(self, conversation: Conversation, run_id: str, earlier: Iterable[InteractionRequested] = ()) -> None:
        """``earlier``: what it asked before a restart, oldest first."""
        self._conversation = conversation
        self._run_id = run_id
        self._earlier = list(earlier)

    async def ask(self, question: Ask) -> Answer:
        """Have people asked, unless they were, and wait for the resolution, however long that takes."""
        again = self._found(question)
        if again is not None:
            answer = await self.resolution(again)
            if answer is not None:
                return answer
        conversation = self._conversation
        conversation.flush()
        interaction_id, decision = conversation.session.ask(self._run_id, question, conversation.now())
        future = conversation.answers.expect(interaction_id)
        conversation.commit(decision)
        return await self._wait(interaction_id, future)

    async def resolution(self, asked: InteractionRequested) -> Answer | None:
        """What became of something asked before a restart, waiting if it is still open. None: the answer was a secret,
        which was only in memory, so it has to be asked for again."""
        conversation, interaction_id = self._conversation, asked.interaction_id
        resolutions, waited = conversation.session.state.resolutions, False
        while not waited:  # an answer that is just being written down is not lost, nor one that comes while we wait
            decided = resolutions.get(interaction_id)
            await conversation.settled()
            kept = conversation.answers.kept.pop(interaction_id, None)
            if kept is not None:
                return kept
            waited = resolutions.get(interaction_id) is decided
        settled = resolutions.get(interaction_id)
        if settled is None:
            return await self._wait(interaction_id, conversation.answers.expect(interaction_id))
        lost = settled.outcome == "answered" and any(q.type == "secret" for q in asked.questions or [])
        return None if lost else Answer(asked, settled, settled.answers)

    async def _wait(self, interaction_id: str, future: Any) -> Answer:
        conversation = self._conversation
        slot = conversation.slot
        try:
            async with slot.given_up() if slot is not None else nullcontext():
                answer: Answer = await future
                return answer
        finally:
            conversation.answers.waiting.pop(interaction_id, None)

    def take_back(self, question: Ask) -> None:
        """Whoever asked this does not wait for the answer any more; unless it is the run that is being ended, or the
        server: then it is seen to elsewhere."""
        conversation = self._conversation
        run = conversation.session.state.active
        if conversation.dead or run is None or run.status == "stopping":
            return
        for asked in list(conversation.session.state.interactions.values()):
            if asked.call_id == question.call_id and _is(asked, question):
                conversation.flush()
                conversation.commit(conversation.session.withdraw(asked.interaction_id, conversation.now()))

    def withdraw_rest(self) -> None:
        """Nothing was asked again of what is still open from before: nobody is there to hear the answer."""
        conversation, rest = self._conversation, self._earlier
        self._earlier = []
        for asked in rest:
            if asked.interaction_id in conversation.session.state.interactions:
                conversation.flush()
                conversation.commit(conversation.session.withdraw(asked.interaction_id, conversation.now()))

    def _found(self, question: Ask) -> InteractionRequested | None:
        """The earlier question that this is, if it is one."""
        for n, asked in enumerate(self._earlier):
            if _is(asked, question):
                return self._earlier.pop(n)
        return None


def _is(asked: InteractionRequested, question: Ask) -> bool:
    return (asked.kind, asked.title, asked.message) == (question.kind, question.title, question.message)


def clarification(
    prompt: str,
    *,
    choices: list[Choice] | None,
    allow_other: bool,
    multiple: bool,
    title: str | None,
    call_id: str | None,
) -> Ask:
    """A clarify: exactly one question."""
    kind: Literal["text", "single", "multi"] = "text" if not choices else "multi" if multiple else "single"
    question = Question(
        id=CLARIFY_ID, prompt=prompt, type=kind, options=choices or None, required=True, allow_other=allow_other
    )
    return Ask(kind="clarify", title=title or "Question", message=prompt, call_id=call_id, questions=[question])


def form(title: str, message: str, *, schema: dict[str, Any] | None, url: str | None, call_id: str) -> Ask:
    """A form that may be declined, or something to be done at ``url``."""
    done = Option(id="accept", label="Send" if url is None else "Done", kind="allow")
    options = [done, Option(id="decline", label="Decline", kind="deny")]
    return Ask(kind="form", title=title, message=message, call_id=call_id, options=options, schema=schema, url=url)


def filled_in(answer: Answer) -> dict[str, Any] | None:
    """What was filled into a form; None if it was declined. Raises :class:`NobodyAnswered`."""
    resolution = answer.resolution
    if resolution.outcome != "answered":
        raise NobodyAnswered(UNANSWERED[resolution.outcome])
    return None if resolution.option == "decline" else resolution.content or {}


def answer_to(answer: Answer) -> Any:
    """The value of a clarify's one answer. Raises :class:`NobodyAnswered`."""
    outcome = answer.resolution.outcome
    if outcome != "answered" or not answer.answers:
        raise NobodyAnswered(UNANSWERED.get(outcome, "no answer was given"))
    return answer.answers[CLARIFY_ID]
