"""The inbox as a readable terminal (``plain=1``): a line for each conversation, and lines to any of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from hermes_ws.errors import CommandError
from hermes_ws.protocol import control as ctl
from hermes_ws.protocol.codec import decode_frame
from hermes_ws.protocol.commands import ANYWHERE, Command, InboxMore, command_type
from hermes_ws.protocol.events import InteractionRequested
from hermes_ws.protocol.summaries import ConversationSummary
from hermes_ws.readable import one_line
from hermes_ws.state import State
from hermes_ws.transports.addresses import is_conversation_id
from hermes_ws.transports.plain import asked_lines, parse_line, plain_lines, shown

__all__ = ["PlainInbox"]

_HELP: Final = """\
@NAME a line         what the line means in that conversation: start a run, or answer its one open question
@new a line          start a run in a new one
@NAME /approve …     as there, and so are /deny, /answer and /stop
/more                the next page
/help                this
{...}                a JSON frame, as it is"""


class PlainInbox:
    """What a person at a terminal sees of the inbox, and what their lines mean. It remembers what is going on, so that
    a question is asked once, and a line finds the one that it answers."""

    def __init__(self) -> None:
        self._lively: dict[str, ConversationSummary] = {}
        """Conversations that are not idle, as they were shown last."""

    # -- frames out ------------------------------------------------------------------------------------

    def lines(self, payload: bytes) -> Iterable[str]:
        """The lines for one frame."""
        frame = decode_frame(payload)
        match frame:
            case ctl.Hello():
                server = frame.server
                return [f"{server.name} {server.version} · all conversations · {frame.hint}"]
            case ctl.InboxPage():
                return [shown(line) for line in self._page(frame)]
            case ctl.InboxChanged():
                return [shown(line) for line in self._line(frame.conversation)]
            case ctl.InboxRemoved():
                self._lively.pop(frame.conversation_id, None)
                return [f"· {frame.conversation_id} was deleted"]
            case _:
                return plain_lines(payload)

    def _page(self, page: ctl.InboxPage) -> Iterable[str]:
        for summary in page.conversations:
            yield from self._line(summary)
        if page.next is not None:
            yield "· there are more: /more"
        elif not page.conversations:
            yield "· no more conversations"

    def _line(self, summary: ConversationSummary) -> Iterable[str]:
        name = summary.conversation_id
        before = self._lively.pop(name, None)
        if summary.status != "idle":
            self._lively[name] = summary
        if before is not None and _said(before) == _said(summary):
            return
        yield f"▸ {' · '.join(_said(summary))}"
        known = {asked.interaction_id for asked in before.interactions} if before is not None else set[str]()
        new = [asked for asked in _for_people(summary) if asked.interaction_id not in known]
        for asked in new:
            yield from (f"  {line}" for line in asked_lines(asked))
        if new:
            yield f"  (begin the answer with @{name})"

    # -- lines in --------------------------------------------------------------------------------------

    def command(self, line: str) -> Command | str:
        """The command that a line means, or text to show. Raises :class:`CommandError` for one that means nothing."""
        word, _, rest = line.strip().partition(" ")
        if word == "/help":
            return _HELP
        if word == "/more":
            return InboxMore()
        if not word.startswith("@"):
            raise CommandError("invalid_frame", "say where: @CONVERSATION and a line, such as @demo hi; or /help")
        return self._there(word[1:], rest.strip())

    def _there(self, name: str, line: str) -> Command | str:
        if not is_conversation_id(name) or not line:
            raise CommandError("invalid_frame", f"it is @CONVERSATION and a line, such as @demo hi, not @{name[:80]}")
        meant = parse_line(line, self._state(name), ())
        if isinstance(meant, str):
            return _HELP
        if not isinstance(meant, ANYWHERE):
            message = f"{command_type(meant)} is for a conversation's own socket; open /ws/{name}?plain=1"
            raise CommandError("unsupported", message)
        return msgspec.structs.replace(meant, conversation_id=name)

    def _state(self, name: str) -> State:
        """The conversation, as far as a line needs to know it."""
        state, summary = State(name), self._lively.get(name)
        for asked in _for_people(summary) if summary is not None else ():
            state.interactions[asked.interaction_id] = asked
        return state


def _for_people(summary: ConversationSummary) -> list[InteractionRequested]:
    """What is asked, but for calls that a client executes."""
    return [asked for asked in summary.interactions if asked.needs_person]


def _said(summary: ConversationSummary) -> list[str]:
    """What is worth a line: how far a conversation has come is not."""
    asked = f"{len(_for_people(summary))} open" if _for_people(summary) else ""
    waiting = f"{summary.queue} in the queue" if summary.queue else ""
    title = one_line(summary.title or "")
    return [part for part in (summary.conversation_id, summary.status, asked, waiting, title) if part]
