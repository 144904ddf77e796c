"""Guards taken away, one each, and the test that must notice.

``HERMES_WS_TESTS_MUTANT=NAME`` makes the launched server (:mod:`tests.faults.launch`) one of these; a mutant that is
``inside`` is applied to the tests' own process instead (``pytest -p tests.faults.mutants``), for guards that are tested
without a server. ``python -m tests.faults.mutate`` runs each against its test.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from tests.faults.launch import MUTANT, replace

__all__ = ["MUTANTS", "Mutant"]

RECOVERY = "tests/faults/test_recovery.py::"
STARTUP = "tests/faults/test_startup.py::"
INTERACTIONS = "tests/server/test_interactions.py::"


@dataclass(frozen=True)
class Mutant:
    """One guard less. ``test`` is the test that must fail then; ``guarantee`` its number in the protocol."""

    apply: Callable[[], None]
    test: str
    guarantee: int
    inside: bool


MUTANTS: dict[str, Mutant] = {}
FOR_EVER = {"max_attempts": 2**30}


def mutant(guarantee: int, test: str, *, inside: bool = False) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Registers a function that takes a guard away, under its name."""

    def register(apply: Callable[[], None]) -> Callable[[], None]:
        MUTANTS[apply.__name__] = Mutant(apply, test, guarantee, inside)
        return apply

    return register


def pytest_configure() -> None:
    """As a plugin of pytest: a mutant inside."""
    name = os.environ.get(MUTANT)
    if name is not None and MUTANTS[name].inside:
        MUTANTS[name].apply()


def _always(value: Any) -> Callable[[Any], Any]:
    """For :func:`replace`: a function that returns ``value``, whatever it is given."""
    return lambda _: lambda *given, **named: value


def _never(_: Any) -> Any:
    """For :func:`replace`: a coroutine function that does nothing."""

    async def nothing(*given: Any, **named: Any) -> None:
        return None

    return nothing


# -- 1 to 3: the log ------------------------------------------------------------------------------------------


@mutant(
    1,
    "tests/server/test_resume.py::test_an_excluded_type_is_skipped_in_ranges_before_the_next_event_and_before_live",
)
def what_is_left_out_is_not_told() -> None:
    from hermes_ws.runtime import readers, tail

    for module in (tail, readers):
        replace(module, "told", _always([]))


@mutant(1, "tests/store/test_contract.py::test_an_append_that_leaves_a_gap_is_refused_and_leaves_nothing", inside=True)
def numbers_are_not_checked() -> None:
    from hermes_ws.store import writer

    class Anywhere(int):
        def __ne__(self, other: object) -> bool:
            return False

        def __add__(self, more: int) -> Anywhere:
            return Anywhere(int(self) + more)

        __hash__ = int.__hash__

    def remembered(remember: Callable[..., Any]) -> Callable[..., Any]:
        def place(self: Any, ref: Any, made: Any) -> Any:
            made.head = Anywhere(made.head)
            return remember(self, ref, made)

        return place

    replace(writer.Writer, "_remember", remembered)


@mutant(2, "tests/faults/test_every_commit.py::test_at_whatever_commit_the_server_dies[commit.before]")
def published_before_it_is_committed() -> None:
    from hermes_ws.store.sqlite import SqliteStore

    def hooked(append: Callable[..., None]) -> Callable[..., None]:
        def publish_first(store: Any, batch: Any) -> None:
            done, batch.done = batch.done, lambda error: None
            append(store, batch)
            done(None)

        return publish_first

    replace(SqliteStore, "append", hooked)


@mutant(2, STARTUP + "test_dying_while_coming_up_is_like_never_having_come_up[startup.lock]")
def a_kill_is_taken_for_a_power_cut() -> None:
    from hermes_ws.store import recovery

    replace(recovery, "read_witness", _always(None))


@mutant(2, "tests/store/test_recovery.py::test_a_wal_that_lost_its_end_begins_a_new_epoch", inside=True)
def the_epoch_stays_when_something_was_lost() -> None:
    from hermes_ws.store import recovery

    replace(recovery, "_begin_new_epochs", _always(None))


@mutant(
    3,
    "tests/store/test_removal.py::test_deltas_of_runs_that_ended_long_ago_go_and_everything_else_stays",
    inside=True,
)
def deltas_go_while_their_run_is_at_work() -> None:
    from hermes_ws.store import upkeep

    replace(upkeep, "_TO_COMPACT", lambda sql: sql.replace("ended = 1 AND", "").replace("head IS NOT NULL AND", ""))
    replace(upkeep, "_TO_COMPACT", lambda sql: sql.replace("conversation, head", "conversation, 1000000"))


@mutant(3, RECOVERY + "test_what_was_half_thought_is_discarded_too")
def deltas_are_not_read_again_after_a_crash() -> None:
    from hermes_ws.runtime import runtime

    replace(runtime, "add_deltas", _never)


# -- 4 to 7: runs, commands, answers --------------------------------------------------------------------------


@mutant(4, INTERACTIONS + "test_a_stopped_run_cancels_what_it_asked")
def questions_outlive_their_run() -> None:
    from hermes_ws.reports import Reports

    def hooked(resolve: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given, **named: None if named["outcome"] == "cancelled" else resolve(*given, **named)

    replace(Reports, "_resolve", hooked)


@mutant(4, INTERACTIONS + "test_a_deadline_fails_the_run_and_ends_its_tools")
def calls_outlive_their_run() -> None:
    from hermes_ws.reports import Reports
    from hermes_ws.runtime.calls import Call

    replace(Reports, "_close_calls", _always(None))
    replace(Call, "_complete", _always(None))


@mutant(5, STARTUP + "test_a_command_sent_again_after_a_restart_on_the_other_road_is_a_duplicate[socket]")
def command_ids_are_not_kept() -> None:
    from hermes_ws.runtime.command_ids import CommandIds

    replace(CommandIds, "row", _always(None))


@mutant(5, "tests/server/test_commands.py::test_a_repeated_id_is_answered_again_and_done_once")
def command_ids_are_not_looked_at() -> None:
    from hermes_ws.runtime.command_ids import CommandIds

    def nothing(_: Any) -> Any:
        async def never(*given: Any) -> bool:
            return False

        return never

    replace(CommandIds, "_repeated", nothing)


@mutant(5, "tests/server/test_commands.py::test_an_id_with_another_body_is_refused")
def an_id_may_be_used_for_anything() -> None:
    from hermes_ws.runtime import command_ids

    replace(command_ids, "digest", _always(b"the same"))


@mutant(6, INTERACTIONS + "test_the_first_valid_answer_wins_and_the_others_get_the_resolution")
def every_answer_is_taken() -> None:
    from hermes_ws.errors import CommandError
    from hermes_ws.session import Session

    asked: dict[str, Any] = {}

    def hooked(find: Callable[..., Any]) -> Callable[..., Any]:
        def found(session: Any, name: str) -> Any:
            try:
                asked[name] = find(session, name)
            except CommandError:
                if name not in asked:
                    raise
                session.state.interactions[name] = asked[name]
                session.state.runs.setdefault(asked[name].run_id, session.state.active)
            return asked[name]

        return found

    replace(Session, "_open_interaction", hooked)


@mutant(6, INTERACTIONS + "test_answers_that_do_not_fit_are_refused_with_what_would")
def answers_are_not_checked() -> None:
    from hermes_ws import session

    replace(session, "check_answers", _always(None))


@mutant(7, "tests/server/test_judged.py::test_a_question_is_open_while_nobody_is_connected")
def runs_end_with_their_last_socket() -> None:
    from hermes_ws.runtime.readers import Reader

    def hooked(stop: Callable[..., None]) -> Callable[..., None]:
        def stopped(reader: Any) -> None:
            stop(reader)
            conversation = reader._source
            active = conversation.session.state.active
            if not conversation.readers and active is not None:
                conversation.commit(conversation.session.end_run(active.run_id, "end", conversation.now()))

        return stopped

    replace(Reader, "stop", hooked)


# -- 8: after a restart ---------------------------------------------------------------------------------------


class _Harmless:
    """A tool that says of itself that it only reads."""

    def __init__(self, tool: Any) -> None:
        self._tool = tool
        described = tool.description
        annotations = msgspec.structs.replace(described.annotations, read_only=True)
        self.description = msgspec.structs.replace(described, annotations=annotations)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tool, name)


@mutant(8, "tests/mcp/test_review.py::test_a_call_in_flight_is_not_made_again_by_a_server_that_now_says_it_writes")
def what_a_tool_says_of_itself_now_is_not_heard() -> None:
    from hermes_ws.runtime.calls import Call

    def hooked(refused: Callable[..., Any]) -> Callable[..., Any]:
        async def taken_for_harmless(call: Any) -> Any:
            refusal = await refused(call)
            call._tool = _Harmless(call._tool) if call._in_flight and call._tool is not None else call._tool
            return refusal

        return taken_for_harmless

    replace(Call, "_refused", hooked)


@mutant(8, RECOVERY + "test_a_call_in_flight_is_interrupted_and_not_made_again[tool.effect-1]")
def calls_in_flight_are_made_again() -> None:
    from hermes_ws.entities import ToolCall

    replace(ToolCall, "repeatable", lambda _: property(lambda call: True))
    what_a_tool_says_of_itself_now_is_not_heard()


@mutant(8, RECOVERY + "test_a_call_in_flight_that_only_reads_is_made_again[tool.effect:1:list_files]")
def calls_that_may_be_made_again_are_not() -> None:
    from hermes_ws.entities import ToolCall

    replace(ToolCall, "repeatable", lambda _: property(lambda call: False))


@mutant(8, RECOVERY + "test_a_finished_call_is_never_made_again[commit.after:1:tool.completed]")
def finished_calls_are_made_again() -> None:
    from hermes_ws.runtime.calls import Call
    from hermes_ws.runtime.turn import RunTurn

    def hooked(resume: Callable[..., Any]) -> Callable[..., Any]:
        async def again(turn: Any) -> None:
            for call in turn._run.step.calls if turn._run.step is not None else ():
                made = Call(turn._workshop, turn._conversation, call)
                made._streamed = 2**40
                await turn._workshop.toolbox.of(call.source, call.name).call(made, call.arguments)
            await resume(turn)

        return again

    replace(RunTurn, "resume", hooked)


@mutant(8, RECOVERY + "test_what_was_half_said_is_discarded_and_said_again")
def what_was_half_said_stays() -> None:
    from hermes_ws.reports import Reports

    replace(Reports, "_discard", _always(None))


@mutant(8, RECOVERY + "test_what_was_half_said_is_discarded_and_said_again")
def steps_begin_again() -> None:
    from hermes_ws.runtime.turn import RunTurn

    def hooked(step: Callable[..., Any]) -> Callable[..., Any]:
        @asynccontextmanager
        async def begun_again(turn: Any) -> AsyncGenerator[Any]:
            turn._commit(turn._session.begin_step(turn.run_id, turn._now()))
            async with step(turn) as one:
                yield one

        return begun_again

    replace(RunTurn, "step", hooked)


@mutant(8, RECOVERY + "test_an_answer_that_was_committed_is_not_asked_for_again")
def questions_are_asked_again() -> None:
    from hermes_ws.runtime.questions import Questions

    replace(Questions, "_found", _always(None))


@mutant(8, RECOVERY + "test_a_run_that_only_ever_dies_is_given_up")
def no_run_is_ever_given_up() -> None:
    from hermes_ws.reports import Reports

    replace(
        Reports,
        "take_up",
        lambda take_up: lambda self, now, **given: take_up(self, now, **(given | FOR_EVER)),
    )


@mutant(8, RECOVERY + "test_a_run_that_gets_something_done_each_time_is_not_given_up")
def every_recovery_counts() -> None:
    from hermes_ws.entities import Run

    replace(Run, "fruitless", lambda _: property(lambda run: run.attempt - 1, lambda run, value: None))


@mutant(8, RECOVERY + "test_a_run_that_was_being_stopped_ends_as_cancelled[graceful]")
def stopped_runs_go_on() -> None:
    from hermes_ws.reports import Reports

    def hooked(take_up: Callable[..., Any]) -> Callable[..., Any]:
        def taken_up(self: Any, now: int, **given: Any) -> Any:
            if self.state.active is not None:
                self.state.active.status = "running"
            return take_up(self, now, **given)

        return taken_up

    replace(Reports, "take_up", hooked)


@mutant(8, RECOVERY + "test_a_call_that_was_only_wished_for_is_judged_and_made")
def nobody_takes_runs_up() -> None:
    from hermes_ws.runtime.runtime import Runtime

    replace(Runtime, "_take_up", _never)


@mutant(8, RECOVERY + "test_processes_of_a_dead_server_s_call_are_ended")
def processes_of_dead_servers_stay() -> None:
    from hermes_ws.runtime import runtime

    replace(runtime, "end_leftovers", _never)


@mutant(8, RECOVERY + "test_a_deadline_that_passed_while_the_server_was_down_is_kept")
def deadlines_are_not_kept() -> None:
    from hermes_ws.reports import Reports

    replace(Reports, "next_timer", _always(None))


@mutant(8, RECOVERY + "test_an_approval_for_the_run_holds_after_a_restart_and_no_longer_than_the_run")
def approvals_are_forgotten() -> None:
    from hermes_ws.runtime.conversation import Conversation

    def hooked(make: Callable[..., None]) -> Callable[..., None]:
        def made(self: Any, *given: Any, **named: Any) -> None:
            make(self, *given, **{**named, "rules": []})

        return made

    replace(Conversation, "__init__", hooked)


@mutant(8, RECOVERY + "test_a_retry_goes_on_from_the_failed_run_s_journal")
def retries_begin_anew() -> None:
    from hermes_ws.state import State

    replace(State, "chain", lambda _: lambda state, run_id: [run_id])


# -- 9 to 12: one writer, slow readers, isolation, failing closed ---------------------------------------------


@mutant(9, "tests/server/test_commands.py::test_a_second_run_waits_its_turn")
def two_runs_at_once() -> None:
    from hermes_ws.session import Session

    replace(Session, "_idle", lambda _: property(lambda session: True))


@mutant(9, "tests/server/test_lifecycle.py::test_a_second_server_on_the_same_data_is_refused_and_says_who_has_it")
def two_servers_at_once() -> None:
    import fcntl

    replace(fcntl, "flock", _always(None))


@mutant(10, "tests/server/test_resume.py::test_a_reader_that_takes_nothing_is_aborted_and_harms_nobody")
def nobody_looks_after_stalled_sockets() -> None:
    from hermes_ws.transports.frames import FrameConnection

    replace(FrameConnection, "is_stalled", _always(False))


@mutant(10, "tests/runtime/test_readers.py::test_the_tail_is_bounded_and_knows_what_it_holds", inside=True)
def the_tail_is_not_bounded() -> None:
    from hermes_ws.runtime.tail import Tail

    replace(Tail, "_trim", _always(None))


@mutant(11, "tests/server/test_tools.py::test_conversations_do_not_see_each_others_files")
def one_directory_for_all() -> None:
    from hermes_ws.store.directory import DataDirectory

    replace(DataDirectory, "workdir", lambda _: lambda directory, ref: Path(directory.root) / "hermes-ws-work" / "all")


@mutant(11, "tests/server/test_access.py::test_a_ticket_of_another_conversation_is_403")
def tickets_open_everything() -> None:
    from hermes_ws.runtime.principal import Principal

    replace(Principal, "may_open", _always(True))


@mutant(11, "tests/server/test_blobs.py::test_who_has_one_conversation_sees_and_uses_only_its_images")
def whoever_knows_an_image_may_use_it() -> None:
    from hermes_ws.runtime.images import Images

    replace(Images, "_named", lambda named: lambda images, ref, blob, path, reach: named(images, ref, blob, path, True))


@mutant(2, "tests/store/test_blobs.py::test_nothing_goes_between_being_looked_up_and_being_linked", inside=True)
def images_are_removed_while_others_are_added() -> None:
    from hermes_ws.store.blobs import Blobs

    replace(Blobs, "removing", lambda _: lambda blobs: blobs.adding())


@mutant(2, "tests/faults/test_images.py::test_what_is_committed_is_there")
def images_of_a_conversation_that_has_begun_still_wait_for_it() -> None:
    from hermes_ws.store.memory import MemoryStore
    from hermes_ws.store.sqlite import SqliteStore

    async def nothing(store: Any, ref: Any) -> int:
        return 0

    for store in (MemoryStore, SqliteStore):
        replace(store, "weight", lambda _: nothing)


@mutant(12, "tests/server/test_judged.py::test_an_allowlist_narrowed_while_the_approval_is_open_holds")
def policy_is_asked_only_once() -> None:
    from hermes_ws.runtime.calls import Call

    def hooked(judge: Callable[..., Any]) -> Callable[..., Any]:
        judged: dict[str, Any] = {}

        async def once(call: Any, tool: Any) -> Any:
            if call.call_id not in judged:
                judged[call.call_id] = await judge(call, tool)
            return judged[call.call_id]

        return once

    replace(Call, "_judge", hooked)


@mutant(12, INTERACTIONS + "test_an_approval_that_nobody_answers_refuses_and_a_question_tells_the_model")
def silence_is_consent() -> None:
    from hermes_ws.runtime.calls import Call

    def hooked(refusal: Callable[..., Any]) -> Callable[..., Any]:
        return lambda call, answer: None if answer.resolution.outcome == "expired" else refusal(call, answer)

    replace(Call, "_refusal", hooked)


@mutant(12, RECOVERY + "test_policy_that_was_narrowed_meanwhile_holds_for_a_call_that_was_only_wished_for")
def policy_is_not_asked_again_after_a_restart() -> None:
    from hermes_ws.runtime.calls import Call

    def hooked(admitted: Callable[..., Any]) -> Callable[..., Any]:
        async def waved_through(call: Any, tool: Any) -> Any:
            active = call._conversation.session.state.active
            return None if active is not None and active.attempt > 1 else await admitted(call, tool)

        return waved_through

    replace(Call, "_admitted", hooked)


# -- secrets (11) ------------------------------------------------------------------------------------------------

CANARIES = "tests/server/test_canaries.py::"
SPLIT = """test_what_a_tool_tells_is_seen_nowhere[/tool leak {{\"how\": \"split\"}}]"""


@mutant(11, CANARIES + "test_what_people_say_and_ask_for_is_seen_nowhere")
def events_are_not_scrubbed() -> None:
    from hermes_ws.scrub import Scrubber

    replace(Scrubber, "data", lambda _: lambda scrubber, encoded: encoded)


@mutant(11, CANARIES + SPLIT)
def what_a_call_prints_is_not_waited_for() -> None:
    from hermes_ws.scrub import Flow

    replace(Flow, "add", lambda _: lambda flow, text: flow._scrubber.text(text))


@mutant(11, CANARIES + "test_what_an_agent_says_and_how_it_crashes_is_seen_nowhere")
def what_an_agent_says_is_not_waited_for() -> None:
    from hermes_ws.scrub import Scrubber

    replace(Scrubber, "held_back", _always(0))


@mutant(11, CANARIES + "test_what_an_agent_says_and_how_it_crashes_is_seen_nowhere")
def the_servers_log_is_not_scrubbed() -> None:
    from hermes_ws.observe import BestEffort, Discreet

    replace(Discreet, "write", lambda _: BestEffort.write)


@mutant(11, CANARIES + "test_no_conversation_is_scrubbed_by_anothers_secrets")
def everybody_is_scrubbed_by_everybodys_secrets() -> None:
    from hermes_ws import scrub

    replace(scrub.Scrubber, "data", lambda _: lambda scrubber, encoded: scrub.known.text(encoded.decode()).encode())
    replace(scrub.Scrubber, "text", lambda _: lambda scrubber, text: scrub.known.text(text))


@mutant(11, CANARIES + "test_no_digest_is_left_from_which_a_short_secret_could_be_guessed[reply]")
def digests_are_plain() -> None:
    from hermes_ws.session import Session

    replace(Session, "is_confidential", _always(False))


@mutant(11, CANARIES + "test_a_fork_has_no_secrets")
def forks_tell_of_secrets() -> None:
    from hermes_ws.runtime import commands

    replace(commands, "without_secrets", lambda _: lambda config: config)


@mutant(11, CANARIES + "test_a_header_given_over_the_socket_is_seen_nowhere")
def secrets_are_stored_as_they_are() -> None:
    from hermes_ws.store.vault import Vault

    replace(Vault, "seal", lambda _: lambda vault, ref, name, value: value.encode())


@mutant(11, "tests/test_credentials.py::test_another_address_drops_what_was_stored_for_the_old_one", inside=True)
def secrets_go_to_another_address() -> None:
    from hermes_ws import credentials

    replace(credentials, "_address", _always(None))


@mutant(11, "tests/store/test_vault.py::test_what_was_sealed_opens_nowhere_else", inside=True)
def what_was_sealed_opens_anywhere() -> None:
    from hermes_ws.store import vault

    replace(vault, "_place", _always(b""))


@mutant(11, "tests/test_scrub.py::test_what_is_held_back_does_not_depend_on_what_the_secret_is", inside=True)
def only_beginnings_of_secrets_are_held_back() -> None:
    from hermes_ws.scrub import Scrubber

    def held_back(scrubber: Any, text: str) -> int:
        forms = [form.decode() for form in scrubber._everything().forms]
        ends = [n for n in range(1, len(text) + 1) if any(form.startswith(text[-n:]) for form in forms)]
        return max(ends, default=0)

    replace(Scrubber, "held_back", lambda _: held_back)


from tests.faults import client_mutants as client_mutants  # noqa: E402
from tests.faults import compat_mutants as compat_mutants  # noqa: E402 (these register their own, with what is above)
from tests.faults import inbox_mutants as inbox_mutants  # noqa: E402
from tests.faults import mcp_mutants as mcp_mutants  # noqa: E402
from tests.faults import twins_mutants as twins_mutants  # noqa: E402
