"""Mutants of the OpenAI-compatible routes: what their requests leave behind, do twice, mix up or wait for in vain.

Registered by :mod:`tests.faults.mutants`, and run as those are.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import Any

from tests.faults.launch import replace
from tests.faults.mutants import mutant

ABANDONED = "tests/server/test_abandoned.py::"
CONVERSATIONS = "tests/server/test_chat_conversations.py::"
EPHEMERAL = "tests/runtime/test_ephemeral.py::"
PAST = "tests/compat/test_past.py::"
RESPONSES = "tests/server/test_responses.py::"
CONTEXT = "tests/server/test_routes_context.py::"
SPENDING = "tests/compat/test_spending.py::"


def _nothing(*_: Any, **__: Any) -> None:
    """In the place of what should happen."""


async def _nothing_at_all(*_: Any, **__: Any) -> None:
    """The same where it is waited for."""


# -- conversations that are not kept -------------------------------------------------------------------


@mutant(11, EPHEMERAL + "test_its_name_is_never_used_again", inside=True)
def names_of_what_is_over_are_anybodys() -> None:
    from hermes_ws.runtime.ephemeral import Ephemerals

    replace(Ephemerals, "check", lambda _: _nothing)


# -- histories -----------------------------------------------------------------------------------------


@mutant(1, PAST + "test_a_call_that_the_conversation_knows_already_gets_another_id", inside=True)
def calls_keep_the_ids_that_others_have() -> None:
    from hermes_ws.compat import past

    replace(past._Importer, "_call_id", lambda _: lambda importer, wanted: wanted)


@mutant(10, CONTEXT + "test_what_is_said_at_once_fits_a_frame", inside=True)
def any_text_goes_into_one_event() -> None:
    from hermes_ws.routes import context

    replace(context, "check_command", lambda _: _nothing)
    replace(context, "check_past", lambda _: _nothing)


# -- once, and not in vain -----------------------------------------------------------------------------


def _no_key(modules: str) -> None:
    from importlib import import_module

    from hermes_ws.routes.once import Once

    def unkeyed(_: Any) -> Any:
        @asynccontextmanager
        async def once(*_: Any) -> Any:
            yield Once(None)

        return once

    replace(import_module(modules), "once", unkeyed)


@mutant(5, CONVERSATIONS + "test_under_a_key_something_is_said_once_also_after_a_restart")
def chats_do_not_look_at_their_key() -> None:
    _no_key("hermes_ws.routes.chat")


@mutant(5, RESPONSES + "test_the_same_request_under_one_key_is_done_once")
def responses_do_not_look_at_their_key() -> None:
    _no_key("hermes_ws.routes.responses")


@mutant(9, RESPONSES + "test_branches_that_begin_at_once_do_not_hear_each_other")
def branches_find_their_place_side_by_side() -> None:
    from contextlib import nullcontext

    from hermes_ws.routes import responses_begin

    class Nobody(dict[Any, Any]):
        def of(self, key: Any) -> Any:
            return nullcontext()

    replace(responses_begin, "_BEGINNING", lambda _: Nobody())


@mutant(7, CONVERSATIONS + "test_a_run_that_somebody_else_follows_goes_on")
def runs_that_were_left_are_stopped_whoever_follows() -> None:
    from hermes_ws.runtime.conversation import Conversation

    replace(Conversation, "is_followed", lambda _: lambda conversation, run_id=None: False)


@mutant(7, ABANDONED + "test_a_call_that_was_answered_in_a_copy_is_not_waited_for_any_more")
def calls_are_waited_for_though_they_were_answered_elsewhere() -> None:
    from hermes_ws.routes.context import Api

    replace(Api, "_retire", lambda _: _nothing_at_all)


# -- what is told --------------------------------------------------------------------------------------


@mutant(4, SPENDING + "test_a_step_is_not_counted_again_when_it_is_over", inside=True)
def what_was_told_with_a_call_is_counted_again() -> None:
    from hermes_ws.compat.spending import Spending
    from hermes_ws.protocol.values import Usage

    def adding(_: Any) -> Any:
        def add(spending: Spending, usage: Usage, counts: bool) -> None:
            spending.total += usage if counts else Usage.zero()

        return add

    replace(Spending, "_add", adding)
