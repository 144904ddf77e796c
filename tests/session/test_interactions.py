"""Questions to people: opening, answering, expiring, remembering. One sentence a case."""

from __future__ import annotations

from typing import Any

import pytest

from hermes_ws.answers import REDACTED
from hermes_ws.decisions import Answer, Ask, Decision, RememberRule
from hermes_ws.errors import CommandError
from hermes_ws.protocol import events as ev
from hermes_ws.protocol.commands import InteractionReply, RunStart, RunStop
from hermes_ws.protocol.values import OnExpire, Option, Role, Rule

from .world import ALICE, BOB, LIMITS, World, approval, as_json, call, clarify, event_types

DAY_MS = 86_400_000


@pytest.fixture
def world() -> World:
    """One run whose one call, ``c1``, has not been judged yet."""
    world = World()
    world.command(RunStart(input="hi"))
    world.commit()
    world.begin_step()
    world.finish_call(call("c1", command="ls"))
    return world


def form(schema: dict[str, Any] | None) -> Ask:
    return Ask(kind="form", title="Fill in", message="Please", schema=schema)


def reply(world: World, name: str, *, role: Role = "driver", **fields: Any) -> Decision:
    return world.command(InteractionReply(interaction_id=name, **fields), role=role)


def refused(world: World, name: str, *, role: Role = "driver", **fields: Any) -> CommandError:
    with pytest.raises(CommandError) as caught:
        reply(world, name, role=role, **fields)
    return caught.value


def resolution(decision: Decision) -> ev.InteractionResolved:
    (found,) = [e for e in decision.events if isinstance(e, ev.InteractionResolved)]
    return found


def remembered(decision: Decision) -> list[RememberRule]:
    return [e for e in decision.effects if isinstance(e, RememberRule)]


# -- opening ----------------------------------------------------------------------------------------------


def test_the_first_question_makes_the_run_wait(world: World) -> None:
    name = world.ask(approval("c1"))
    requested, waiting = world.pending[-1].events
    assert isinstance(requested, ev.InteractionRequested)
    assert requested.expires_at - requested.requested_at == DAY_MS
    assert isinstance(waiting, ev.RunWaiting)
    assert waiting.interactions == [name]
    assert world.state.status == "waiting"


def test_it_resumes_when_none_of_several_is_left_and_says_which_they_were(world: World) -> None:
    one, two = world.ask(clarify()), world.ask(clarify())
    assert event_types(reply(world, two, answers={"q": "a"}).events) == ["interaction.resolved"]
    assert world.state.status == "waiting"
    decision = reply(world, one, answers={"q": "b"})
    assert event_types(decision.events) == ["interaction.resolved", "run.resumed"]
    assert as_json(decision.events[1])["interactions"] == [one, two]


def test_open_questions_are_bounded(world: World) -> None:
    for _ in range(LIMITS.open_interactions):
        world.ask(clarify())
    with pytest.raises(CommandError, match="open already"):
        world.ask(clarify())


# -- answering --------------------------------------------------------------------------------------------


def test_an_answer_says_who_gave_it_and_how_and_reaches_the_agent(world: World) -> None:
    name = world.ask(approval("c1"))
    decision = world.command(InteractionReply(interaction_id=name, option="once", comment="mind the gap"), by=BOB)
    resolved = resolution(decision)
    assert (resolved.outcome, resolved.option, resolved.comment) == ("answered", "once", "mind the gap")
    assert (resolved.by, resolved.via) == (BOB, "socket")
    assert decision.result == {"interaction_id": name}
    world.commit()
    assert world.answers[name].resolution == resolved


def test_the_first_valid_answer_wins_and_the_second_is_told_so(world: World) -> None:
    name = world.ask(approval("c1"))
    reply(world, name, option="once")
    error = refused(world, name, option="deny")
    assert error.code == "interaction_resolved"
    assert error.details is not None
    assert error.details["resolution"]["option"] == "once"
    assert error.details["resolution"]["by"] == {"principal": ALICE.principal}


def test_an_unknown_question_is_not_found(world: World) -> None:
    error = refused(world, "int_9", option="once")
    assert (error.code, error.path) == ("interaction_not_found", "$.interaction_id")


def test_only_the_roles_it_names_may_answer(world: World) -> None:
    name = world.ask(approval("c1"))
    assert refused(world, name, role="observer", option="once").code == "not_permitted"
    assert resolution(reply(world, name, role="responder", option="once")).option == "once"


def test_a_digest_must_be_that_of_what_was_shown(world: World) -> None:
    name = world.ask(approval("c1"))
    error = refused(world, name, option="once", digest="sha256:2")
    assert (error.code, error.details) == ("digest_mismatch", {"digest": "sha256:1"})
    reply(world, name, option="once", digest="sha256:1")


@pytest.mark.parametrize("fields", [{"option": "perhaps"}, {}, {"comment": "yes"}])
def test_an_approval_takes_one_of_its_options(world: World, fields: dict[str, Any]) -> None:
    error = refused(world, world.ask(approval("c1")), **fields)
    assert (error.code, error.path) == ("invalid_option", "$.option")
    assert error.details == {"options": ["once", "run", "conversation", "always", "deny"]}


@pytest.mark.parametrize("name", ["answers", "content"])
def test_an_approval_takes_nothing_else(world: World, name: str) -> None:
    fields: dict[str, Any] = {name: {"q": "a"}}
    error = refused(world, world.ask(approval("c1")), option="once", **fields)
    assert (error.code, error.path) == ("invalid_answer", f"$.{name}")


def test_arguments_may_be_edited_where_that_was_offered_and_the_call_is_allowed(world: World) -> None:
    edited = {"command": "ls -l"}
    assert (
        refused(world, world.ask(approval("c1", editable=False)), option="once", arguments=edited).path == "$.arguments"
    )
    name = world.ask(approval("c1"))
    assert refused(world, name, option="deny", arguments=edited).path == "$.arguments"
    assert resolution(reply(world, name, option="once", arguments=edited)).arguments == edited


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        ("text", ["a"], ["", " ", 1, True, ["a"], {}]),
        ("secret", ["a"], [1, {"a": 1}]),
        ("number", [1, 0.5, -3], ["1", True, [1]]),
        ("boolean", [True, False], [0, 1, "true"]),
        ("single", ["red", "blue"], ["mauve", 1, ["red"], ""]),
        ("multi", [["red"], ["red", "blue"], []], ["red", ["mauve"], [1], {"red": True}]),
    ],
)
def test_an_answer_must_be_what_the_question_asks_for(
    world: World, kind: Any, right: list[Any], wrong: list[Any]
) -> None:
    name = world.ask(clarify(kind))
    for value in wrong:
        error = refused(world, name, answers={"q": value})
        assert (error.code, error.path) == ("invalid_answer", "$.answers.q")
    for value in right:
        reply(world, name, answers={"q": value})
        name = world.ask(clarify(kind))


def test_free_text_beside_the_choices_is_taken_only_where_it_is_offered(world: World) -> None:
    assert refused(world, world.ask(clarify("single")), answers={"q": "mauve"}).code == "invalid_answer"
    name = world.ask(clarify("single", allow_other=True))
    assert refused(world, name, answers={"q": "  "}).code == "invalid_answer"
    reply(world, name, answers={"q": "mauve"})
    reply(world, world.ask(clarify("multi", allow_other=True)), answers={"q": ["red", "mauve"]})


@pytest.mark.parametrize("answers", [None, {}, {"q": None}])
def test_only_an_optional_question_may_go_unanswered(world: World, answers: dict[str, Any] | None) -> None:
    error = refused(world, world.ask(clarify()), answers=answers)
    assert (error.code, error.path) == ("invalid_answer", "$.answers.q")
    reply(world, world.ask(clarify(required=False)), answers=answers)


def test_an_answer_to_a_question_that_was_not_asked_is_refused(world: World) -> None:
    error = refused(world, world.ask(clarify()), answers={"q": "a", "r": "b"})
    assert (error.code, error.path) == ("invalid_answer", "$.answers.r")


@pytest.mark.parametrize("name", ["option", "content", "arguments"])
def test_a_question_takes_answers_and_nothing_else(world: World, name: str) -> None:
    value: Any = "once" if name == "option" else {}
    error = refused(world, world.ask(clarify()), answers={"q": "a"}, **{name: value})
    assert (error.code, error.path) == ("invalid_answer", f"$.{name}")


def test_a_secret_reaches_the_agent_but_not_the_log(world: World) -> None:
    name = world.ask(clarify("secret"))
    decision = reply(world, name, answers={"q": "hunter2"})
    assert resolution(decision).answers == {"q": REDACTED}
    (answer,) = [e for e in decision.effects if isinstance(e, Answer)]
    assert answer.answers == {"q": "hunter2"}
    world.commit()
    assert not any(b"hunter2" in line for line in world.log)


def test_a_form_is_checked_against_its_schema(world: World) -> None:
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    name = world.ask(form(schema))
    assert refused(world, name).path == "$.content"
    assert refused(world, name, content={}).path == "$.content"
    error = refused(world, name, content={"age": "old"})
    assert (error.code, error.path) == ("invalid_answer", "$.content.age")
    assert resolution(reply(world, name, content={"age": 3})).content == {"age": 3}


def test_without_a_schema_any_object_will_do(world: World) -> None:
    reply(world, world.ask(form(None)), content={"anything": ["goes"]})


@pytest.mark.parametrize(
    "schema",
    [
        {"type": 5},
        {"pattern": "("},
        {"$ref": "https://example.org/schema.json"},
        {"$ref": "#/$defs/nowhere"},
        {"$ref": "#"},
    ],
    ids=["not a schema", "not a pattern", "somewhere else", "nowhere", "a circle"],
)
def test_a_broken_schema_refuses_the_answer_and_breaks_nothing(world: World, schema: dict[str, Any]) -> None:
    error = refused(world, world.ask(form(schema)), content={})
    assert error.code == "invalid_answer"
    assert "the form's own schema" in error.message


# -- remembering ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("option", "run_id"), [("run", "run_2"), ("conversation", None), ("always", None)])
def test_a_wider_option_remembers_the_rule_that_it_showed(world: World, option: str, run_id: str | None) -> None:
    (effect,) = remembered(reply(world, world.ask(approval("c1")), option=option))
    rule = effect.rule
    assert (rule.scope, rule.run_id, rule.agent, rule.by) == (option, run_id, "llm", ALICE)
    assert rule.rule == Rule(tool="builtin:terminal", match={"command": "ls"})
    assert rule.created_at == world.now


def test_edited_arguments_are_what_is_remembered_never_those_that_were_edited_away(world: World) -> None:
    edited = {"command": "ls -l"}
    (effect,) = remembered(reply(world, world.ask(approval("c1")), option="always", arguments=edited))
    assert effect.rule.rule == Rule(tool="builtin:terminal", match=edited)


@pytest.mark.parametrize("option", ["once", "deny"])
def test_once_and_deny_remember_nothing(world: World, option: str) -> None:
    assert remembered(reply(world, world.ask(approval("c1")), option=option)) == []


def test_a_refusal_never_becomes_a_rule_that_allows(world: World) -> None:
    never = Option(id="never", label="Never", kind="deny", scope="always", rule=Rule(tool="builtin:terminal"))
    name = world.ask(Ask(kind="approval", title="?", message="?", call_id="c1", options=[never]))
    assert remembered(reply(world, name, option="never")) == []


# -- closing without an answer ----------------------------------------------------------------------------


def test_an_approval_that_nobody_answers_takes_its_default(world: World) -> None:
    name = world.ask(approval("c1", timeout_ms=1000))
    world.now += 999
    assert world.take(world.session.tick(world.now)).events == []
    world.now += 1
    decision = world.take(world.session.tick(world.now))
    resolved = resolution(decision)
    assert (resolved.outcome, resolved.option, resolved.via) == ("expired", "deny", "timeout")
    assert remembered(decision) == []
    assert event_types(decision.events) == ["interaction.resolved", "run.resumed"]
    assert refused(world, name, option="once").code == "interaction_expired"


def test_other_questions_are_then_cancelled_and_the_agent_is_told(world: World) -> None:
    name = world.ask(clarify(timeout_ms=1000))
    world.now += 1000
    resolved = resolution(world.take(world.session.tick(world.now)))
    assert (resolved.outcome, resolved.option) == ("expired", None)
    world.commit()
    assert world.answers[name].answers is None


def test_only_what_is_due_expires(world: World) -> None:
    first, second = world.ask(clarify(timeout_ms=1000)), world.ask(clarify(timeout_ms=2000))
    assert world.session.next_timer() == world.now + 1000
    world.now += 1500
    assert resolution(world.take(world.session.tick(world.now))).interaction_id == first
    assert list(world.state.interactions) == [second]


def test_a_call_that_ends_takes_its_questions_along(world: World) -> None:
    mine, other = world.ask(approval("c1")), world.ask(clarify())
    decision = world.complete("c1", "cancelled", "")
    assert event_types(decision.events) == ["interaction.resolved", "tool.completed"]
    assert (resolution(decision).interaction_id, resolution(decision).outcome) == (mine, "cancelled")
    assert list(world.state.interactions) == [other]


def test_a_run_that_ends_takes_its_questions_along(world: World) -> None:
    world.ask(approval("c1"))
    world.command(RunStop(), by=BOB)
    decision = world.end()
    assert event_types(decision.events) == ["interaction.resolved", "run.resumed", "tool.completed", "run.cancelled"]
    assert (resolution(decision).outcome, resolution(decision).by) == ("cancelled", BOB)


def test_a_question_may_still_be_answered_while_its_run_is_being_stopped(world: World) -> None:
    name = world.ask(approval("c1"))
    world.command(RunStop())
    assert event_types(reply(world, name, option="once").events) == ["interaction.resolved", "run.resumed"]
    assert world.state.status == "stopping"


def test_what_happens_on_expiry_is_in_the_event(world: World) -> None:
    world.ask(approval("c1"))
    assert next(iter(world.state.interactions.values())).on_expire == OnExpire(option="deny")
