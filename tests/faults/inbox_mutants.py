"""Mutants of the inbox: what it shows to whom, and what it must not lose.

Registered by :mod:`tests.faults.mutants`, and run as those are.
"""

from __future__ import annotations

from typing import Any

from tests.faults.launch import replace
from tests.faults.mutants import mutant

INBOX = "tests/runtime/test_inbox.py::"


@mutant(11, INBOX + "test_nobody_sees_another_namespace_or_what_the_credential_does_not_reach", inside=True)
def an_inbox_shows_what_its_key_does_not_reach() -> None:
    from hermes_ws.runtime.principal import Principal

    replace(Principal, "may_open", lambda _: lambda principal, conversation_id: True)


@mutant(1, INBOX + "test_a_change_while_a_page_is_read_is_told_also_when_no_line_of_it_is_kept_any_more", inside=True)
def changes_while_a_page_is_read_are_lost() -> None:
    from hermes_ws.runtime.inbox import InboxReader

    def forgetful(original: Any) -> Any:
        def mark(reader: Any, conversation_id: str, *, removed: bool = False) -> None:
            if not reader._reading:
                original(reader, conversation_id, removed=removed)

        return mark

    replace(InboxReader, "mark", forgetful)


@mutant(11, INBOX + "test_a_conversation_that_is_deleted_is_removed", inside=True)
def the_deleted_stay_in_inboxes() -> None:
    from hermes_ws.runtime.inbox import Inboxes

    replace(Inboxes, "removed", lambda _: lambda inboxes, ref: None)


@mutant(10, INBOX + "test_that_a_conversation_only_came_further_is_not_told_on_and_on", inside=True)
def every_step_forward_is_told() -> None:
    from hermes_ws.runtime import inbox

    replace(inbox, "_matters", lambda _: lambda summary: object())


@mutant(10, INBOX + "test_while_nobody_looks_nothing_is_kept", inside=True)
def lines_are_kept_for_nobody() -> None:
    from hermes_ws.runtime.inbox import Inboxes

    replace(Inboxes, "_forget", lambda _: lambda inboxes, refs: None)
