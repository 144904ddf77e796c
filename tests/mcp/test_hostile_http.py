"""Hostile servers over HTTP: every switch ends in its time, says what is wrong, and nobody else notices."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.conftest import MakeServer
from tests.mcp.conftest import MakeUgly
from tests.mcp.harm import CALL, CANARY, SETTINGS, Pulse, at, one_run, use
from tests.mcp.running import OfficialServer
from tests.mcp.ugly import SWITCHES, UglyServer, echoes
from tests.mcp.ugly.asking import HOSTILE_FORMS, HOSTILE_URLS
from tests.wire import Json, Server, Socket, fresh, soon, wait_for

STALL_S = 1.0
"""How long another conversation may have to wait for the answer to a ping, at the worst."""
AT_ONCE = SETTINGS.replace("start_timeout_s = 2.0", "start_timeout_s = 15.0\nretry_s = 0.0001")
"""A server that has failed is tried again when it is needed again."""
SOON_S = 3.5
"""A second or so, on a busy machine."""

# What the model reads of a call, by switch. ``.`` stands for what is not ours to say.
ANSWERED = {
    "polite": "ok: fine",
    "asks_and_answers": "ok: never mind",
    "asks_unasked": "ok: fine",
    "bad_base64": r"ok: \[image: left out",
    "bad_events": "ok: fine",
    "cancels_us": "(ok: fine|error: .)",
    "control_session_id": "ok: fine",
    "cookies": "ok: fine",
    "empty_result": "ok: $",
    "error_result": "error: it went wrong",
    "false_image": r"ok: \[image: left out",
    "foreign_progress": "ok: fine",
    "hang_on_delete": "ok: fine",
    "hostile_links": r"ok: \[resource p: ",
    "list_changed_stream": "ok: fine",
    "list_that_changes": "ok: fine",
    "long_instructions": "ok: fine",
    "long_session_id": "(ok: fine|error: .)",
    "missing_output": r"ok: fine\n\[the structured result that the tool promises is missing\]",
    "nan": r'ok: {"n":null,"i":null}|error: .',
    "nul": "ok: before",
    "odd_mime": r"ok: \[image: left out",
    "odd_progress": "ok: fine",
    "progress_beyond_numbers": "ok: fine",
    "reconnect_for_ever": "ok: fine",
    "regex_output": "ok: fine",
    "same_page_for_ever": "ok: fine",
    "script_image": r"ok: \[image: left out",
    "slow_initialize": "ok: fine",
    "two_answers": "ok: the first",
    "unasked_answers": "ok: ",
    "unknown_content": r"ok: \[a part of the result is of a kind that is not understood\]",
    "wrong_id_stream": "(ok|error): ",
    "wrong_output": "ok: fine\n\\[the structured result is not what the tool promises, at \\$.n",
    "sse": "ok: fine",
}
FLOODS = ("progress_flood", "log_flood", "list_changed_flood", "unknown_flood", "ping_flood")
BROKEN = {
    "asks_and_dies": "went away during the call",
    "sse_post_refused": "refused the credentials",
    "big_number": "refused: ",
    "broken": "HTTP 500",
    "broken_gzip": "compressed",
    "cut_stream": "went away during the call",
    "deep_json": ".",
    "die_before_answer": "went away during the call .*disconnected",
    "die_in_call": "went away during the call .*closed",
    "empty_body": ".",
    "end_stream": "went away during the call",
    "endless_headers": "went away during the call .*too long",
    "endless_line": r"larger than mcp\.message_bytes",
    "error_no_object": ".",
    "event_no_json": ".",
    "forbidden": "HTTP 403",
    "gzip_bomb": "compressed",
    "half_json": ".",
    "html": "neither JSON nor",
    "huge_image": r"larger than mcp\.message_bytes",
    "huge_text": r"larger than mcp\.message_bytes",
    "huge_text_stream": r"larger than mcp\.message_bytes",
    "invalid_utf8": ".",
    "json_batch": ".",
    "lone_surrogate": ".",
    "long_error": "refused: e{100}",
    "lost_session": "session",
    "no_content": ".",
    "no_json": ".",
    "no_jsonrpc": ".",
    "null_id": ".",
    "only_accepted": "202",
    "rate_limited": "HTTP 429",
    "redirect_call": "[Rr]edirect|sent us",
    "redirect_file": "[Rr]edirect|sent us",
    "redirect_metadata": "[Rr]edirect|sent us",
    "redirect_see_other": "[Rr]edirect|sent us",
    "redirect_with_body": ".",
    "result_no_content": "of no use",
    "sse_cut_in_call": "went away during the call",
    "teapot": "HTTP 418",
    "unauthorized": r"refused the credentials \(401\)",
    "unauthorized_plainly": r"refused the credentials \(401\)",
    "unavailable": "HTTP 503",
}
HANGING = (
    "endless_keepalives",
    "hang_on_call",
    "hang_on_cancel",
    "progress_for_ever",
    "question_for_answer",
    "resume_for_ever",
    "slow_call",
    "trickle",
    "wrong_id",
)
# What people are told of a server that does not start, by switch.
NEVER_THERE = {
    "broken_always": r"failed: .*HTTP 500",
    "forbidden_always": r"failed: .*HTTP 403",
    "hang_on_connect": "failed: it did not start within 2 s",
    "hang_on_initialize": "failed: it did not start within 2 s",
    "hang_on_initialized": "failed: it did not start within 2 s",
    "hang_on_list": "failed: it did not start within 2 s",
    "html_always": "failed: .*neither JSON nor",
    "huge_list": r"failed: .*larger than mcp\.message_bytes",
    "huge_session_id": "failed: .*too long",
    "list_no_list": "failed: .",
    "many_tools": "failed: .|ready: .*mcp.tools",
    "no_content_always": "failed: .",
    "not_http": "failed: .*disconnected",
    "odd_initialize": "failed: .",
    "odd_session_id": "failed: .",
    "odd_version": "failed: .",
    "only_accepted_always": "failed: .*202",
    "rate_limited_always": "failed: .*HTTP 429",
    "redirect": "failed: .*([Rr]edirect|sent us)",
    "retry_beyond_numbers": "failed: .",
    "sse_foreign_endpoint": "failed: .",
    "sse_without_endpoint": "failed: it did not start within 2 s",
    "teapot_always": "failed: .*HTTP 418",
    "unauthorized_always": r"auth_required: it refused the credentials \(401\)",
    "unauthorized_plainly_always": r"auth_required: it refused the credentials \(401\)",
    "unavailable_always": "failed: .*HTTP 503",
}
# Which tools are offered on, and what is said of the others.
LISTS: dict[str, tuple[list[str], str]] = {
    "bad_schemas": (["good"], "left out"),
    "builtin_names": (["terminal", "read_file", "clarify"], ""),
    "deep_schema": ([], "deep: its schema is nested too deeply"),
    "duplicate_names": (["twin", "good"], "twin: there are two of that name"),
    "endless_pages": ([f"tool_{n}" for n in range(100)], ""),
    "huge_schema": (["good"], r"big: its description is larger than mcp\.schema_bytes"),
    "lying_annotations": (["delete_everything"], ""),
    "missing_fields": (["good"], "left out"),
    "no_tools": ([], ""),
    "odd_annotations": (["good"], ""),
    "odd_names": (["good"], "a tool whose name is no name"),
    "recursive_schema": (["self"], "loop: its schema .* has no end"),
    "regex_schema": (["match"], "invalid: its schema is none"),
    "remote_schema": ([], ""),
    "schema_no_object": (["good"], "left out"),
}
ASKING = {
    "asks": "ok: 1 answers",
    "asks_for_tools": "ok: 1 answers",
    "hostile_forms": f"ok: {len(HOSTILE_FORMS)} answers",
    "hostile_urls": f"ok: {len(HOSTILE_URLS)} answers",
    "long_question": "ok: 1 answers",
    "login_required": "error: .*(declined|browser)",
    "odd_elicitation": "ok: 3 answers",
    "roots": "ok: 1 answers",
    "sampling": "ok: 1 answers",
    "unknown_question": "ok: 1 answers",
}
ECHOES = sorted(name for name in SWITCHES if name.startswith("echo"))
ELSEWHERE = {"elicitation_flood", "many_items"}
"""They are in ``test_bounds.py``."""
DISGUISED = {"echo_reversed", "echo_split", "echo_blocks", "echo_gzip_base64", "echo_escaped"}
"""Ways to write a secret that nobody can know all of."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for all of them; it is as well afterwards as before."""
    running = Server.start(tmp_path_factory.mktemp("hostile"), settings=SETTINGS)
    yield running
    alive = running.process.poll() is None
    running.stop()
    assert alive, running.errors
    assert "Traceback" not in running.errors, running.errors
    assert len(running.errors) < 100_000
    assert CANARY not in running.errors


@pytest.fixture
async def pulse(place: Server) -> AsyncIterator[Pulse]:
    """Somebody else's conversation, who must not have had to wait."""
    async with Pulse.of(place) as beating:
        yield beating
    assert beating.worst_s < STALL_S


def asked_for(ugly: UglyServer, switch: str, timeout_s: float = 5.0) -> Json:
    """The server as a conversation names it."""
    if switch.startswith("sse"):
        return at(ugly.sse_url, timeout_s, transport="sse")
    return at(ugly.url, timeout_s)


def _is_of_the_package(behaviour: Any) -> bool:
    """Tests register switches of their own, too."""
    return bool(behaviour.__module__.startswith("tests.mcp.ugly"))


def test_every_switch_has_its_case() -> None:
    cases: list[Any] = [ANSWERED, FLOODS, BROKEN, HANGING, NEVER_THERE, LISTS, ASKING, ECHOES, ELSEWHERE]
    ours = [name for name, behaviours in SWITCHES.items() if any(_is_of_the_package(b) for b in behaviours.values())]
    named = [name for case in cases for name in case]
    assert len(named) == len(set(named))
    assert {*ours, "polite"} <= set(named)


# -- one switch after the other ----------------------------------------------------------------------------


@pytest.mark.usefixtures("pulse")
@pytest.mark.parametrize("switch", ANSWERED)
async def test_what_is_odd_and_harmless_does_no_harm(place: Server, make_ugly: MakeUgly, switch: str) -> None:
    ugly = make_ugly(switch)
    report = await one_run(place, asked_for(ugly, switch))
    assert re.match(ANSWERED[switch], report.outcome)
    assert report.final["type"] == "run.completed"


async def test_a_cookie_stays_with_its_connection(place: Server, make_ugly: MakeUgly) -> None:
    ugly = make_ugly("cookies")
    for _ in range(2):
        before = len(ugly.seen)
        await one_run(place, at(ugly.url))
        assert "cookie" not in ugly.seen[before]["headers"]


@pytest.mark.usefixtures("pulse")
@pytest.mark.parametrize("switch", FLOODS)
async def test_what_nobody_asked_for_is_passed_by(place: Server, make_ugly: MakeUgly, switch: str) -> None:
    report = await one_run(place, asked_for(make_ugly(switch, count=2_000), switch))
    assert report.outcome == "ok: fine, after all that"
    assert len(report.events) < 60


@pytest.mark.usefixtures("pulse")
@pytest.mark.parametrize("switch", BROKEN)
async def test_the_model_is_told_what_was_wrong(place: Server, make_ugly: MakeUgly, switch: str) -> None:
    report = await one_run(place, asked_for(make_ugly(switch), switch))
    assert re.match(f"error: .*{BROKEN[switch]}", report.outcome, re.DOTALL)
    assert len(report.outcome) < 2_000
    assert "pydantic" not in report.outcome
    assert report.final["type"] == "run.completed"
    assert report.took_s < SOON_S


@pytest.mark.usefixtures("pulse")
async def test_a_call_that_hangs_takes_its_time_and_no_more(place: Server, make_ugly: MakeUgly) -> None:
    async def hanging(switch: str) -> tuple[str, bool]:
        report = await one_run(place, asked_for(make_ugly(switch), switch, 0.5))
        return report.outcome, report.took_s < SOON_S

    outcomes = dict(zip(HANGING, await asyncio.gather(*map(hanging, HANGING)), strict=True))
    expected = ("error: the server did not answer within 0.5 s; it was told to stop", True)
    assert {switch: outcome for switch, outcome in outcomes.items() if outcome != expected} == {}


@pytest.mark.usefixtures("pulse")
async def test_a_server_that_does_not_start_is_said_to_people_and_to_the_model(
    place: Server, make_ugly: MakeUgly
) -> None:
    async def starting(switch: str) -> tuple[str, str, float]:
        report = await one_run(place, asked_for(make_ugly(switch, count=10_000), switch))
        return report.word, report.outcome, report.took_s

    outcomes = dict(zip(NEVER_THERE, await asyncio.gather(*map(starting, NEVER_THERE)), strict=True))
    assert {s: word for s, (word, _, _) in outcomes.items() if not re.match(NEVER_THERE[s], word)} == {}
    unclear = ("ValidationError", "RuntimeError", "OverflowError")
    assert {s: word for s, (word, _, _) in outcomes.items() if word.endswith(unclear)} == {}
    assert {s: took_s for s, (_, _, took_s) in outcomes.items() if took_s > 2 + SOON_S} == {}
    failed = {s: (word, outcome) for s, (word, outcome, _) in outcomes.items() if word.startswith("failed")}
    assert {s: told for s, (word, told) in failed.items() if word.removeprefix("failed: ")[:30] not in told} == {}


@pytest.mark.usefixtures("pulse")
@pytest.mark.parametrize("switch", LISTS)
async def test_tools_that_are_none_are_left_out_and_the_others_are_there(
    place: Server, make_ugly: MakeUgly, switch: str
) -> None:
    ugly = make_ugly(switch)
    wanted, reason = LISTS[switch]
    report = await one_run(place, asked_for(ugly, switch))
    assert report.status["state"] == "ready", report.word
    assert set(wanted) <= set(report.status["tools"])
    assert re.search(reason, report.word)
    assert not any(entry["path"].startswith("/canary") for entry in ugly.seen)


@pytest.mark.usefixtures("pulse")
@pytest.mark.parametrize("switch", ASKING)
async def test_whoever_asks_gets_an_answer_and_the_call_an_end(place: Server, make_ugly: MakeUgly, switch: str) -> None:
    report = await one_run(place, asked_for(make_ugly(switch), switch))
    assert re.match(ASKING[switch], report.outcome)
    for asked in report.of("interaction.requested"):
        assert len(json.dumps(asked)) < 50_000
        assert "url" not in asked or re.match(r"https?://[^@]+$", asked["url"])


@pytest.mark.usefixtures("pulse")
@pytest.mark.parametrize("switch", ECHOES)
async def test_what_a_server_was_trusted_with_does_not_come_back(
    place: Server, make_ugly: MakeUgly, switch: str
) -> None:
    report = await one_run(place, asked_for(make_ugly(switch), switch, 0.5))
    said = json.dumps(report.events).lower()
    written = [write(CANARY) for way, write in echoes.WRITTEN.items() if f"echo_{way}" not in DISGUISED]
    assert [secret for secret in [CANARY, *written] if secret.lower() in said] == []
    if switch not in DISGUISED:
        assert CANARY[:13] + "w" not in said


# -- names and policy --------------------------------------------------------------------------------------


async def test_a_tool_that_is_called_like_somebody_elses_is_not_taken_for_it(
    place: Server, make_ugly: MakeUgly
) -> None:
    ugly = make_ugly("odd_names")
    report = await one_run(place, at(ugly.url), '/tool mcp:other/tool {"for": "other"}')
    assert report.outcome.startswith("error: ")
    assert "tools/call" not in ugly.methods()


async def test_a_tool_that_is_called_like_a_builtin_one_is_not_taken_for_it(place: Server, make_ugly: MakeUgly) -> None:
    ugly = make_ugly("builtin_names")
    report = await one_run(place, at(ugly.url), '/tool terminal {"command": "echo ours"}')
    assert report.outcome == "ok: ours\n"
    assert "tools/call" not in ugly.methods()


# -- stopping ----------------------------------------------------------------------------------------------

SLEEPERS = ("hang_on_connect", "hang_on_initialize", "hang_on_list", "hang_on_initialized", *HANGING)
"""Where a run can be waiting."""
STUCK = (*SLEEPERS, "hang_on_delete")
"""What can be in the way of an end."""


@pytest.mark.usefixtures("pulse")
@pytest.mark.parametrize("mode", ["graceful", "now"])
async def test_a_stop_works_at_once_whatever_the_server_does(place: Server, make_ugly: MakeUgly, mode: str) -> None:
    async def stopped(switch: str) -> tuple[str, bool]:
        ugly = make_ugly(switch, seconds=60)
        async with place.socket(fresh("stop")) as socket:
            await use(socket, ugly=asked_for(ugly, switch, 60))
            await socket.ok("run.start", input=CALL)
            await underway(socket, ugly, switch)
            began = time.monotonic()
            await socket.ok("run.stop", mode=mode)
            final = await socket.until_final()
            return final["type"], time.monotonic() - began < SOON_S

    outcomes = dict(zip(SLEEPERS, await asyncio.gather(*map(stopped, SLEEPERS)), strict=True))
    assert {s: outcome for s, outcome in outcomes.items() if outcome != ("run.cancelled", True)} == {}


async def underway(socket: Socket, ugly: UglyServer, switch: str) -> None:
    """Wait until the server is where it hangs."""
    if switch == "hang_on_delete":
        await socket.until_final()
    elif switch in HANGING:
        await socket.until("tool.executing")
    async with soon():
        while not (ugly.seen or switch == "hang_on_connect"):
            await asyncio.sleep(0.02)


@pytest.mark.usefixtures("pulse")
async def test_a_conversation_can_be_deleted_while_its_server_hangs(place: Server, make_ugly: MakeUgly) -> None:
    async def deleted(switch: str) -> tuple[int, int, bool]:
        ugly, conversation = make_ugly(switch, seconds=60), fresh("delete")
        async with place.socket(conversation) as socket, place.http() as http:
            await use(socket, ugly=asked_for(ugly, switch, 60))
            await socket.ok("run.start", input=CALL)
            await underway(socket, ugly, switch)
            began = time.monotonic()
            status = (await http.delete(f"/api/conversations/{conversation}")).status_code
            code, _ = await socket.closed()
            if switch.startswith("hang_"):  # it would notice
                await wait_for(lambda: not ugly.open_connections)
            return status // 100, code, time.monotonic() - began < 2 * SOON_S

    outcomes = dict(zip(STUCK, await asyncio.gather(*map(deleted, STUCK)), strict=True))
    assert {switch: outcome for switch, outcome in outcomes.items() if outcome != (2, 4410, True)} == {}


async def test_the_server_ends_in_time_while_its_mcp_servers_hang(make_server: MakeServer, make_ugly: MakeUgly) -> None:
    server = make_server(settings=SETTINGS + "[server]\ndrain_grace_s = 0.5\n")
    async with asyncio.TaskGroup() as opened:
        for switch in STUCK:
            opened.create_task(begun(server, make_ugly(switch, seconds=60), switch))
    began = time.monotonic()
    server.terminate()
    assert await server.exited() == 0
    assert time.monotonic() - began < 6
    assert "Traceback" not in server.errors


async def begun(server: Server, ugly: UglyServer, switch: str) -> None:
    """A run that has come to its server."""
    async with server.socket(fresh("drain")) as socket:
        await use(socket, ugly=asked_for(ugly, switch, 60))
        await socket.ok("run.start", input=CALL)
        await underway(socket, ugly, switch)


async def test_a_run_ends_at_its_deadline_whatever_its_servers_do(place: Server, make_ugly: MakeUgly) -> None:
    async def late(switch: str) -> tuple[str, str, bool]:
        report = await one_run(place, asked_for(make_ugly(switch, seconds=60), switch, 60), deadline_ms=700)
        return report.final["type"], report.final.get("error", {}).get("code", ""), report.took_s < SOON_S

    outcomes = dict(zip(SLEEPERS, await asyncio.gather(*map(late, SLEEPERS)), strict=True))
    expected = ("run.failed", "deadline_exceeded", True)
    assert {switch: outcome for switch, outcome in outcomes.items() if outcome != expected} == {}


# -- where it may be connected to --------------------------------------------------------------------------

PRIVATE = (
    "http://127.0.0.1:{port}/mcp",
    "http://localhost:{port}/mcp",
    "http://[::1]:{port}/mcp",
    "http://[::ffff:127.0.0.1]:{port}/mcp",
    "http://0.0.0.0:{port}/mcp",
    "http://2130706433:{port}/mcp",
    "http://127.1:{port}/mcp",
    "http://0x7f.0.0.1:{port}/mcp",
    "http://localhost.:{port}/mcp",
    "http://ip6-localhost:{port}/mcp",
    "http://169.254.169.254/latest/",
    "http://[fe80::1]/mcp",
    "http://10.0.0.1:{port}/mcp",
    "http://[64:ff9b::7f00:1]/mcp",
)


@pytest.mark.parametrize("url", PRIVATE)
async def test_private_addresses_are_refused_before_a_byte_is_sent(
    server: Server, make_ugly: MakeUgly, url: str
) -> None:
    ugly = make_ugly("polite")
    for transport in ("http", "sse"):
        report = await one_run(server, at(url.format(port=ugly.port), transport=transport))
        assert report.status["state"] == "failed"
        assert re.search("public address|cannot be resolved|not fetched", report.status["error"]), report.word
        assert report.took_s < SOON_S
    assert ugly.connections == 0


@pytest.mark.parametrize("where", ["{base}/other", "http://localhost:{port}/mcp", "http://169.254.169.254/x"])
@pytest.mark.parametrize("switch", ["redirect", "redirect_call", "redirect_see_other"])
async def test_a_redirect_leads_nowhere_with_the_headers(
    place: Server, make_ugly: MakeUgly, switch: str, where: str
) -> None:
    victim = make_ugly("polite")
    to = where.format(base=victim.base, port=victim.port)
    report = await one_run(place, at(make_ugly(switch, to=to).url))
    assert report.calls[0]["status"] == "error"
    assert victim.connections == 0
    assert CANARY not in json.dumps(report.events)


@pytest.mark.parametrize(
    "to", ["http://169.254.169.254/latest/", "http://127.0.0.1:{port}/messages", "//evil.example/"]
)
async def test_the_old_transport_posts_nowhere_else(place: Server, make_ugly: MakeUgly, to: str) -> None:
    victim = make_ugly("polite")
    ugly = make_ugly("sse_foreign_endpoint", to=to.format(port=victim.port))
    report = await one_run(place, at(ugly.sse_url, transport="sse"))
    assert report.status["state"] == "failed"
    assert victim.connections == 0


# -- dying, and coming back --------------------------------------------------------------------------------


async def test_a_server_that_was_gone_is_used_again_when_it_is_back(
    make_server: MakeServer, make_official: Any
) -> None:
    crm: OfficialServer = make_official()
    crm.tokens(ada={"customers": []})
    server = make_server(settings=AT_ONCE)
    async with server.socket(fresh("back")) as socket:
        await use(socket, crm={"url": crm.url, "headers": {"Authorization": "Bearer ada"}})
        await socket.run("/tool whoami {}")
        crm.stop()
        await socket.run("/tool mcp:crm/whoami {}")
        crm.start()
        crm.tokens(ada={"customers": []})
        await socket.run("/tool mcp:crm/whoami {}")
        first, without, again = socket.of("tool.completed")
    assert (first["status"], without["status"], again["status"]) == ("ok", "error", "ok")
    assert "crm" in without["output"]


@pytest.mark.parametrize(
    "dies", ["connect", "initialize", "notifications/initialized", "tools/list", "tools/call", "GET"]
)
async def test_a_server_may_die_anywhere_and_come_back(
    make_server: MakeServer, monkeypatch: pytest.MonkeyPatch, make_ugly: MakeUgly, dies: str
) -> None:
    async def die(x: Any) -> None:
        x.cut()

    monkeypatch.setitem(SWITCHES, "dies", {dies: die})
    server, ugly = make_server(settings=AT_ONCE), make_ugly("dies")
    async with server.socket(fresh("dies")) as socket:
        await use(socket, ugly=at(ugly.url, 2))
        assert (await socket.run(CALL, deadline_ms=9_000))["type"] == "run.completed"
        SWITCHES["dies"].clear()
        await socket.run(CALL, deadline_ms=9_000)
    assert socket.of("tool.completed")[-1]["output"].endswith("fine")


async def test_a_hundred_conversations_whose_servers_hang_are_each_their_own(
    make_server: MakeServer, make_ugly: MakeUgly
) -> None:
    server, ugly, good = make_server(settings=SETTINGS), make_ugly("hang_on_call"), make_ugly("polite")
    async with Pulse.of(server) as pulse:
        began = time.monotonic()
        reports = await asyncio.gather(*(one_run(server, at(ugly.url, 1.0)) for _ in range(100)))
        took_s = time.monotonic() - began
        report = await one_run(server, at(good.url))
    assert {report.outcome for report in reports} == {
        "error: the server did not answer within 1 s; it was told to stop"
    }
    assert took_s < 8
    assert report.outcome == "ok: fine"
    assert pulse.worst_s < STALL_S
