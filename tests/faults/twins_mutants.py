"""Mutants of the HTTP twins: streams that lose their place, files that only look whole, reads that create.

Registered by :mod:`tests.faults.mutants`, and run as those are.
"""

from __future__ import annotations

import re
from typing import Any

from tests.faults.launch import replace
from tests.faults.mutants import mutant

CURSOR = "tests/runtime/test_log_cursor.py::"
EXPORT = "tests/server/test_export.py::"
STREAM = "tests/server/test_event_stream.py::"
TWINS = "tests/server/test_twins.py::"


@mutant(1, CURSOR + "test_what_is_deleted_while_it_is_read_is_not_taken_for_folded_away", inside=True)
def what_is_deleted_looks_folded_away() -> None:
    from hermes_ws.runtime.conversation import Conversation
    from hermes_ws.runtime.log_cursor import LogCursor

    class Alive:
        """A conversation that does not say that it is dead."""

        dead = False

        def __init__(self, conversation: Conversation) -> None:
            self._conversation = conversation

        def __getattr__(self, name: str) -> Any:
            return getattr(self._conversation, name)

    replace(
        LogCursor,
        "stored",
        lambda stored: (
            lambda cursor, conversation, *given, **named: stored(cursor, Alive(conversation), *given, **named)
        ),
    )


@mutant(1, CURSOR + "test_what_was_folded_away_to_the_end_is_told_and_not_waited_for", inside=True)
def what_was_filtered_is_forgotten_where_the_log_was_folded() -> None:
    from hermes_ws.runtime import log_cursor
    from hermes_ws.runtime.tail import told

    replace(log_cursor, "told", lambda _: lambda start, to, reason="": told(start, to, reason) if reason else [])


@mutant(1, STREAM + "test_whoever_is_cut_at_any_byte_and_comes_back_misses_nothing_and_gets_nothing_twice")
def a_stream_does_not_know_where_its_client_has_got_to() -> None:
    from hermes_ws.transports import log_query

    replace(log_query, "number", lambda number: lambda text, what, default: number(None, what, default))


@mutant(
    1,
    STREAM + "test_whoever_comes_back_after_a_deletion_gets_the_next_log_whole_although_it_is_longer_by_then",
)
def a_stream_of_a_deleted_log_leaves_its_client_in_the_middle_of_the_next() -> None:
    from hermes_ws.transports import event_stream

    replace(event_stream, "_DELETED", lambda _: b": the conversation was deleted\n\n")


@mutant(10, "tests/server/test_limits.py::test_one_stream_too_many_is_refused_and_all_else_goes_on")
def streams_are_not_counted() -> None:
    from hermes_ws.transports.places import Places

    replace(Places, "held", lambda _: lambda places, answer: answer)


@mutant(1, STREAM + "test_what_is_excluded_is_told_before_the_next_event")
def the_id_of_a_range_is_where_it_begins() -> None:
    from hermes_ws.transports import event_stream

    replace(event_stream, "_PLACE", lambda _: re.compile(rb'\{"type":"[^"]*","(?:from|seq)":([0-9]+)'))


@mutant(1, TWINS + "test_numbers_of_another_epoch_are_answered_from_the_start")
def numbers_of_another_log_are_taken_for_ours() -> None:
    from hermes_ws.transports.log_query import LogQuery

    replace(LogQuery, "_of_another", lambda _: lambda query, conversation: False)


@mutant(1, STREAM + "test_a_failed_commit_does_not_end_it", inside=True)
def a_stream_ends_with_the_object_that_it_followed() -> None:
    from hermes_ws.transports.event_stream import LogStreams

    replace(LogStreams, "_messages", lambda _: LogStreams._of_this)


@mutant(2, EXPORT + "test_one_that_cannot_be_finished_does_not_look_whole")
def a_file_that_breaks_off_looks_whole() -> None:
    from hermes_ws.transports.export import Export

    async def told(lines: Any) -> Any:
        from hermes_ws.routes.streams import Cut

        try:
            async for line in lines:
                yield line
        except Cut:
            return

    replace(Export, "_lines", lambda lines: lambda export, *given: told(lines(export, *given)))


@mutant(5, TWINS + "test_a_patch_creates_no_conversation")
def whatever_is_named_is_there() -> None:
    from hermes_ws.transports.requests import Desk

    async def begun(desk: Any, request: Any) -> Any:
        return desk.named(request)[0], await desk.open(request)

    replace(Desk, "begun", lambda _: begun)


@mutant(10, STREAM + "test_what_many_get_at_once_is_made_once", inside=True)
def every_stream_makes_its_own() -> None:
    from hermes_ws.transports.event_stream import LogStreams

    class Forgetful(dict[Any, Any]):
        """Keeps nothing."""

        def __setitem__(self, key: Any, value: Any) -> None:
            """In the place of keeping it."""

    def made(init: Any) -> Any:
        def begin(streams: Any, *given: Any) -> None:
            init(streams, *given)
            streams._newest = Forgetful()

        return begin

    replace(LogStreams, "__init__", made)


@mutant(10, STREAM + "test_silence_is_broken_although_much_happens_that_is_left_out")
def whatever_happens_is_no_silence() -> None:
    from hermes_ws.transports import event_stream

    replace(event_stream, "KEEPALIVE", lambda _: b"")
