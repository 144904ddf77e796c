"""Mutants that let MCP servers, their tools or their credentials get from one conversation to another (guarantee 11).

Registered by :mod:`tests.faults.mutants`, and run as those are.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from mcp.shared.exceptions import MCPError

from tests.faults.launch import replace
from tests.faults.mutants import mutant

ISOLATION = "tests/mcp/test_isolation.py::"
CREDENTIALS = "tests/mcp/test_credentials.py::"
CONFIGURATION = "tests/mcp/test_configuration.py::"
CANARIES = "tests/mcp/test_canaries.py::"
PEOPLE = "tests/mcp/test_people.py::"
REVIEW = "tests/mcp/test_review.py::"
LOAD = ISOLATION + "test_the_same_server_name_with_other_tokens_under_load_is_never_given_the_wrong_one[http]"


def _known_by(*fields: str) -> None:
    """Connections are told apart by these fields of their target alone."""
    from hermes_ws.tools.mcp.target import Target

    def identity(target: Any) -> bytes:
        return hashlib.sha256(repr([getattr(target, field) for field in fields]).encode()).digest()

    replace(Target, "identity", lambda _: identity)


def _whosever() -> None:
    """Connections are not told apart by their conversations."""
    from hermes_ws.store.base import ConversationRef
    from hermes_ws.tools.mcp.pool import McpPool

    def hooked(connection: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        return lambda pool, ref, life, *rest: connection(pool, ConversationRef("all", "all"), 0, *rest)

    replace(McpPool, "connection", hooked)


# -- connections ---------------------------------------------------------------------------------------------


@mutant(11, LOAD)
def connections_are_known_by_their_servers_name() -> None:
    _known_by("server")
    _whosever()


@mutant(11, LOAD)
def connections_are_known_by_their_url() -> None:
    _known_by("url", "transport")
    _whosever()


@mutant(11, ISOLATION + "test_sessions_of_the_older_protocol_belong_to_one_conversation_each")
def sessions_are_known_by_name_and_url() -> None:
    _known_by("server", "url", "transport")
    _whosever()


@mutant(11, ISOLATION + "test_two_conversations_with_the_very_same_token_share_no_session")
def whoever_has_the_same_token_shares_a_connection() -> None:
    _whosever()


@mutant(11, ISOLATION + "test_two_names_in_one_conversation_for_one_url_have_their_own_headers")
def two_names_for_one_url_share_a_connection() -> None:
    _known_by("url", "transport")


@mutant(11, ISOLATION + "test_headers_of_another_name_than_authorization_are_kept_apart_as_well")
def only_the_authorization_tells_connections_apart() -> None:
    from hermes_ws.tools.mcp.target import Target

    def identity(target: Any) -> bytes:
        parts = [target.server, target.url, target.transport, target.headers.get("authorization")]
        return hashlib.sha256(repr(parts).encode()).digest()

    replace(Target, "identity", lambda _: identity)
    _whosever()


@mutant(11, ISOLATION + "test_conversations_that_take_turns_in_memory_keep_to_their_own")
def one_toolbox_for_all() -> None:
    from hermes_ws.runtime.toolboxes import Toolboxes

    def hooked(of: Callable[..., Any]) -> Callable[..., Any]:
        first: list[Any] = []

        def the_first(toolboxes: Any, conversation: Any) -> Any:
            first[:] = first or [of(toolboxes, conversation)]
            return first[0]

        return the_first

    replace(Toolboxes, "of", hooked)


@mutant(11, ISOLATION + "test_servers_that_were_let_go_of_come_back_with_their_own_token")
def who_comes_back_gets_the_newest_headers_there_are() -> None:
    from hermes_ws.tools.mcp import target

    def hooked(headers_of: Callable[..., dict[str, str]]) -> Callable[..., dict[str, str]]:
        newest: dict[str, str] = {}

        def of(stored: Any, server: str) -> dict[str, str]:
            newest.update({} if newest else headers_of(stored, server))
            return dict(newest)

        return of

    replace(target, "headers_of", hooked)


# -- tool lists ----------------------------------------------------------------------------------------------


def _remembered_by(key: Callable[[Any], Any]) -> None:
    """Tool lists are kept, under this key of the connection's."""
    from hermes_ws.tools.mcp.connection import Connection

    def hooked(listed: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        cache: dict[Any, Any] = {}

        async def cached(connection: Any, client: Any) -> Any:
            if key(connection) not in cache:
                cache[key(connection)] = await listed(connection, client)
            return cache[key(connection)]

        return cached

    replace(Connection, "_listed", hooked)


@mutant(11, ISOLATION + "test_a_tool_list_is_the_tokens_own")
def tool_lists_are_kept_by_url() -> None:
    _remembered_by(lambda connection: connection.target.url)


@mutant(11, ISOLATION + "test_a_tool_that_came_with_one_token_is_gone_with_the_next")
def tool_lists_outlive_their_token() -> None:
    _remembered_by(lambda connection: id(connection._changed.__self__))


@mutant(11, ISOLATION + "test_a_tool_that_appears_for_one_conversation_does_not_appear_for_the_other")
def tools_that_appear_appear_for_all() -> None:
    from hermes_ws.tools.mcp.connection import Connection

    every: list[Any] = []

    def hooked(listed: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def shared(connection: Any, client: Any) -> Any:
            offers = await listed(connection, client)
            for other in every:
                other.offers = offers
            every.append(connection)
            return offers

        return shared

    replace(Connection, "_listed", hooked)


# -- rotation ------------------------------------------------------------------------------------------------


@mutant(11, ISOLATION + "test_a_rotation_in_the_middle_of_the_load_holds_from_the_next_call_on[http]")
def a_connection_outlives_its_headers() -> None:
    _known_by("server", "url", "transport")


@mutant(11, ISOLATION + "test_a_call_in_flight_ends_on_the_connection_it_began_on")
def what_is_replaced_is_closed_at_once() -> None:
    from hermes_ws.tools.mcp.connection import Connection

    replace(Connection, "retire", lambda _: lambda connection: connection._close())


@mutant(11, CREDENTIALS + "test_several_calls_that_are_refused_at_once_ask_once")
def everybody_asks_for_credentials_on_their_own() -> None:
    from hermes_ws.tools.mcp.servers import ConversationServers

    replace(ConversationServers, "_has_others", lambda _: lambda servers, name, refused: False)


@mutant(11, CREDENTIALS + "test_a_token_that_is_configured_while_the_question_is_open_is_used")
def what_was_configured_meanwhile_is_not_looked_at() -> None:
    everybody_asks_for_credentials_on_their_own()


@mutant(8, CREDENTIALS + "test_calls_side_by_side_are_judged_each_by_its_own_answer")
def one_refusal_is_everybodys() -> None:
    from hermes_ws.tools.mcp.connection import Connection, Unauthorized

    def hooked(judged: Callable[..., Exception]) -> Callable[..., Exception]:
        def by_any(connection: Any, error: Exception) -> Exception:
            refused = connection._watch.unauthorized and isinstance(error, MCPError)
            return Unauthorized() if refused else judged(connection, error)

        return by_any

    replace(Connection, "_judged", hooked)


class _Hasty:
    """A conversation that never says to be settled later than now."""

    def __init__(self, conversation: Any) -> None:
        self._conversation = conversation

    async def settled(self) -> None:
        return None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._conversation, name)


@mutant(8, CREDENTIALS + "test_an_answer_that_is_being_written_down_while_its_call_looks_for_it_is_heard")
def what_is_being_written_down_is_not_waited_for() -> None:
    from hermes_ws.runtime.questions import Questions

    def hooked(resolution: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def at_once(questions: Any, asked: Any) -> Any:
            conversation, questions._conversation = questions._conversation, _Hasty(questions._conversation)
            try:
                return await resolution(questions, asked)
            finally:
                questions._conversation = conversation

        return at_once

    replace(Questions, "resolution", hooked)


# -- who is given credentials, and by whom ---------------------------------------------------------------------


@mutant(11, CREDENTIALS + "test_a_responder_may_not_answer_it")
def whoever_may_answer_may_give_credentials() -> None:
    from hermes_ws.runtime import renewal

    def hooked(ask: Callable[..., Any]) -> Callable[..., Any]:
        return lambda **fields: ask(**{**fields, "roles": ("driver", "responder", "admin")})

    replace(renewal, "Ask", hooked)


@mutant(12, CREDENTIALS + "test_with_another_key_for_secrets_the_server_is_not_spoken_to_before_they_are_given_anew")
def what_cannot_be_opened_is_left_out() -> None:
    from hermes_ws.runtime.household import ConversationHousehold

    replace(ConversationHousehold, "unreadable", lambda _: lambda house, server: [])


@mutant(11, ISOLATION + "test_a_fork_has_the_servers_and_none_of_their_tokens")
def a_fork_inherits_the_secrets() -> None:
    from hermes_ws import session
    from hermes_ws.runtime import commands

    everything: dict[str, str] = {}

    def hooked(forked: Callable[..., Any]) -> Callable[..., Any]:
        def with_secrets(events: Any, there: Any, names: Any) -> Any:
            there.session.secrets = dict(everything)
            return forked(events, there, names)

        return with_secrets

    def noted(separate: Callable[..., Any]) -> Callable[..., Any]:
        def separated(old: Any, new: Any, stored: Any, fingerprint: Any) -> Any:
            config, changes = separate(old, new, stored, fingerprint)
            everything.update({name: value for name, value in changes.items() if value is not None})
            return config, changes

        return separated

    replace(session, "separate", noted)
    replace(commands, "_forked", hooked)


@mutant(11, CONFIGURATION + "test_another_url_drops_the_headers_markers_or_not")
def headers_go_wherever_the_url_goes() -> None:
    from hermes_ws import credentials

    replace(credentials, "_address", lambda _: lambda config: None)


@mutant(11, CONFIGURATION + "test_another_transport_drops_the_headers")
def headers_go_over_whatever_transport() -> None:
    from hermes_ws import credentials

    replace(credentials, "_address", lambda _: lambda config: (config.url, config.ref))


@mutant(11, CONFIGURATION + "test_a_fingerprint_tells_whether_a_value_changed_and_nothing_across_conversations")
def fingerprints_are_the_same_everywhere() -> None:
    from hermes_ws.store.vault import Vault

    def fingerprint(vault: Any, ref: Any, name: str, value: str) -> str:
        return hashlib.sha256(value.encode()).hexdigest()[:16]

    replace(Vault, "fingerprint", lambda _: fingerprint)


# -- the operator's word -------------------------------------------------------------------------------------


@mutant(11, CONFIGURATION + "test_a_server_that_may_know_is_told_who_asks_and_others_are_not")
def every_server_is_told_who_asks() -> None:
    from hermes_ws.tools.mcp.servers import ConversationServers

    def hooked(target: Callable[..., Any]) -> Callable[..., Any]:
        return lambda servers, *given: dataclasses.replace(target(servers, *given), meta=True)

    replace(ConversationServers, "_target", hooked)


@mutant(11, CONFIGURATION + "test_the_operators_filter_and_approvals_bound_the_conversations")
def the_operators_word_on_a_server_is_not_heard() -> None:
    from hermes_ws.runtime.permissions import Permissions

    replace(Permissions, "_operator_of", lambda _: lambda permissions, server: None)


@mutant(11, CONFIGURATION + "test_what_the_operator_took_back_is_not_used_any_more_and_says_so")
def what_was_configured_once_stays_allowed() -> None:
    from hermes_ws.tools.mcp import servers

    def hooked(resolve: Callable[..., Any]) -> Callable[..., Any]:
        def resolved(name: str, config: Any, secrets: Any, *, settings: Any, **parts: Any) -> Any:
            looser = msgspec.structs.replace(settings, client_servers=True)
            return resolve(name, config, secrets, settings=looser, **parts)

        return resolved

    replace(servers, "resolve_target", hooked)


# -- another server under the same name ------------------------------------------------------------------------

REPLACED = "tests/session/test_review_mcp.py::test_an_answer_that_comes_after_its_server_was_replaced_is_thrown_away"


@mutant(11, REVIEW + "test_a_secret_goes_to_the_server_that_people_were_asked_about_and_to_no_other")
def questions_outlive_the_server_that_they_are_about() -> None:
    from hermes_ws import session

    replace(session, "moved", lambda _: lambda before, after: set())


@mutant(11, REPLACED, inside=True)
def what_was_given_for_a_server_goes_to_whatever_has_its_name() -> None:
    from hermes_ws.session import Session

    def hooked(rotate: Callable[..., Any]) -> Callable[..., Any]:
        def anywhere(session: Any, server: str, place: str, *given: Any, **named: Any) -> Any:
            there = session.state.config.place_of(f"mcp:{server}") or place
            return rotate(session, server, there, *given, **named)

        return anywhere

    replace(Session, "rotate", hooked)


@mutant(12, REVIEW + "test_an_approval_lets_the_call_be_made_at_the_server_that_was_shown_and_at_no_other")
def an_approval_is_for_whatever_has_the_servers_name() -> None:
    from hermes_ws.runtime.calls import Call

    def hooked(place: Any) -> property:
        return property(lambda call: None if place.fget(call) is None else "anywhere")

    replace(Call, "_place", hooked)


@mutant(12, PEOPLE + "test_an_approval_is_not_for_another_server_that_takes_the_name")
def what_is_remembered_is_for_whatever_has_the_servers_name() -> None:
    from hermes_ws.runtime.permissions import Permissions

    def hooked(judge: Callable[..., Any]) -> Callable[..., Any]:
        def anywhere(self: Any, tool: Any, arguments: Any, config: Any, agent: Any, options: Any, rules: Any) -> Any:
            place = config.place_of(tool.source)
            here = [msgspec.structs.replace(r, rule=msgspec.structs.replace(r.rule, server=place)) for r in rules]
            return judge(self, tool, arguments, config, agent, options, here)

        return anywhere

    replace(Permissions, "judge", hooked)


LEFT = REVIEW + "test_a_connection_does_not_outlive_its_conversation_for_the_next_of_that_id"


@mutant(11, LEFT)
def who_is_gone_still_opens_connections() -> None:
    from hermes_ws.tools.mcp.servers import ConversationServers

    replace(ConversationServers, "shut", lambda _: lambda servers: None)


@mutant(11, LEFT)
def the_next_of_an_id_has_the_connections_of_the_last() -> None:
    from hermes_ws.tools.mcp.pool import McpPool

    def hooked(connection: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        return lambda pool, ref, life, *rest: connection(pool, ref, 0, *rest)

    who_is_gone_still_opens_connections()  # otherwise nothing is left that the next could have
    replace(McpPool, "connection", hooked)


# -- what is given back --------------------------------------------------------------------------------------


@mutant(11, CANARIES + "test_a_token_that_was_replaced_is_still_a_secret")
def what_was_replaced_is_no_secret_any_more() -> None:
    from hermes_ws.reports import Reports

    replace(Reports, "_hide", lambda _: lambda reports, secrets=(): reports.scrubber.set(reports.secrets.values()))


@mutant(11, CANARIES + "test_one_conversations_secret_is_no_secret_of_another")
def everybodys_secrets_are_taken_out_everywhere() -> None:
    from hermes_ws import scrub

    replace(scrub.Scrubber, "data", lambda _: lambda scrubber, encoded: scrub.known.text(encoded.decode()).encode())
    replace(scrub.Scrubber, "text", lambda _: lambda scrubber, text: scrub.known.text(text))


@mutant(12, REVIEW + "test_a_call_is_not_made_with_something_else_where_a_secret_was")
def calls_are_made_with_what_is_left_of_their_arguments() -> None:
    from hermes_ws.scrub import Scrubber

    replace(Scrubber, "finds", lambda _: lambda scrubber, value: False)


@mutant(11, CANARIES + "test_what_a_server_gives_back_of_its_credentials_is_seen_nowhere[echo_structured]")
def results_are_shown_as_they_come() -> None:
    from hermes_ws.scrub import Scrubber

    replace(Scrubber, "data", lambda _: lambda scrubber, encoded: encoded)
