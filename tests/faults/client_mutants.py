"""Mutants of what clients execute: whose a call is, and what becomes of it when its owner is gone.

Registered by :mod:`tests.faults.mutants`, and run as those are.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tests.faults.launch import replace
from tests.faults.mutants import mutant

TOOLS = "tests/server/test_client_tools.py::"


@mutant(6, TOOLS + "test_nobody_but_the_owner_may_answer")
def anybody_answers_for_a_client() -> None:
    from hermes_ws.session import Session

    def unowned(original: Any) -> Any:
        def look_up(session: Any, interaction_id: str) -> Any:
            return msgspec.structs.replace(original(session, interaction_id), owner=None)

        return look_up

    replace(Session, "_open_interaction", unowned)


@mutant(12, TOOLS + "test_an_owner_that_is_gone_for_too_long_has_failed_the_call")
def who_is_gone_is_waited_for() -> None:
    from hermes_ws.runtime.principal import Seat

    replace(Seat, "leave", lambda _: lambda _: None)


@mutant(12, TOOLS + "test_an_owner_that_comes_back_in_time_answers_from_its_new_socket")
def who_reconnects_is_gone() -> None:
    from hermes_ws.runtime.clients import Clients

    def no_grace(original: Any) -> Any:
        def owner(clients: Any, command: Any, tool: Any, by: Any) -> Any:
            return msgspec.structs.replace(original(clients, command, tool, by), grace_ms=0)

        return owner

    replace(Clients, "_owner", no_grace)


@mutant(8, TOOLS + "test_after_a_crash_the_call_is_still_its_owners_and_asked_once")
def owners_are_forgotten_over_a_restart() -> None:
    from hermes_ws.entities import ToolCall

    def unowned(original: Any) -> Any:
        def init(call: Any, *args: Any, **kwargs: Any) -> None:
            original(call, *args, **kwargs)
            call.owner = None

        return init

    replace(ToolCall, "__init__", unowned)


@mutant(6, TOOLS + "test_of_two_clients_with_one_tool_the_one_that_started_the_run_executes_it")
def the_one_that_came_last_executes_everything() -> None:
    from hermes_ws.session import Session

    replace(Session, "starter", lambda _: property(lambda _: None))


@mutant(5, TOOLS + "test_a_command_may_name_its_own_conversation_but_no_other")
def a_command_goes_where_it_was_not_meant_for() -> None:
    from hermes_ws.runtime import commands

    replace(commands, "_here", lambda _: lambda _, command: command)


@mutant(11, TOOLS + "test_a_run_that_brings_functions_has_these_and_no_pages")
def runs_with_functions_have_those_of_pages_too() -> None:
    from hermes_ws.runtime.toolbox import Toolbox

    def both(original: Any) -> Any:
        def of_clients(toolbox: Any) -> Any:
            return [*original(toolbox), *toolbox.clients.functions()]

        return of_clients

    replace(Toolbox, "_of_clients", both)
