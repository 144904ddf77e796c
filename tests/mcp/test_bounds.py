"""What a hostile server can make us hold: memory, time, disk, descriptors, questions, events. All of it is bounded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.conftest import MakeServer
from tests.mcp.conftest import MakeUgly
from tests.mcp.harm import CALL, SETTINGS, Pulse, Report, at, descriptors, disk_kb, one_run, use
from tests.mcp.ugly import SWITCHES
from tests.mcp.ugly.asking import elicitation
from tests.mcp.ugly.connections import progress
from tests.mcp.ugly.floods import notification
from tests.mcp.ugly.lists import DEEP_CLASS
from tests.mcp.ugly.server import Exchange, initialized, text_result, tool
from tests.wire import Server, fresh, open_interactions, soon, wait_for

STALL_S: Final = 1.0
"""How long another conversation may have to wait for the answer to a ping, at the worst."""
MIB: Final = 1024
PEAK_KB: Final = 160 * MIB
"""What one message of ``mcp.message_bytes`` (16 MiB) may take for a moment, in all the forms that it goes through."""
DISK_KB: Final = 3 * MIB
"""What a run may leave on disk whose result is small."""
VICTIM: Final = "a" * 60 + "!"
"""What keeps a backtracking matcher busy for ever with ``DEEP_CLASS``."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for all of them; it is as well afterwards as before."""
    running = Server.start(tmp_path_factory.mktemp("bounds"), settings=SETTINGS)
    yield running
    alive = running.process.poll() is None
    running.stop()
    assert alive, running.errors
    assert "Traceback" not in running.errors, running.errors
    assert len(running.errors) < 100_000


def peak_kb(server: Server) -> int:
    """The most memory that the process has had since ``begin_peak``."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def begin_peak(server: Server) -> int:
    """Forget the peak; what it is now."""
    Path(f"/proc/{server.pid}/clear_refs").write_text("5")
    return peak_kb(server)


@asynccontextmanager
async def bounded(server: Server, *, peak: int = PEAK_KB, disk: int = DISK_KB) -> AsyncIterator[None]:
    """Whatever happens in here takes no more than this, and nobody else has to wait for it."""
    await warm(server)
    memory, files = begin_peak(server), disk_kb(server.data)
    async with Pulse.of(server) as pulse:
        yield
    assert pulse.worst_s < STALL_S
    assert peak_kb(server) - memory < peak
    assert disk_kb(server.data) - files < disk


async def warm(server: Server) -> None:
    """Have everything imported that the first connection imports; there is no such server."""
    await one_run(server, at("http://127.0.0.1:9/mcp"))


def behave(monkeypatch: pytest.MonkeyPatch, method: str, behaviour: Any) -> str:
    """A switch for one test."""
    monkeypatch.setitem(SWITCHES, "its_own", {method: behaviour})
    return "its_own"


# -- size --------------------------------------------------------------------------------------------------

HUGE: Final = {
    "huge_text": {},
    "huge_text_stream": {},
    "huge_image": {},
    "huge_list": {},
    "gzip_bomb": {},
    "endless_line": {},
    "endless_headers": {},
    "redirect_with_body": {},
    "huge_session_id": {},
    "long_error": {},
    "long_instructions": {},
    "huge_schema": {},
    "deep_json": {"depth": 4_000_000},
}


@pytest.mark.parametrize("switch", HUGE)
async def test_what_is_too_large_is_not_held(place: Server, make_ugly: MakeUgly, switch: str) -> None:
    async with bounded(place):
        report = await one_run(place, at(make_ugly(switch, **HUGE[switch]).url))
    assert report.final["type"] == "run.completed"


async def test_a_large_text_is_kept_once_and_shown_in_part(place: Server, make_ugly: MakeUgly) -> None:
    async with bounded(place, disk=20 * MIB):
        report = await one_run(place, at(make_ugly("huge_text", size=15 * 2**20).url))
    [call] = report.calls
    assert (call["status"], call["truncated"]) == ("ok", True)
    assert len(call["output"]) < 40_000


def block_of(piece: bytes, around: tuple[bytes, bytes], size: int = 15 * 2**20, *, stream: bool = False) -> Any:
    """A behaviour: a result that consists of the same few bytes, again and again."""

    async def giving(x: Exchange) -> None:
        head = json.dumps({"jsonrpc": "2.0", "id": x.id})[:-1].encode() + b', "result": ' + around[0]
        message = head + piece * (size // len(piece)) + around[1] + b"}"
        if stream:
            await x.stream()
            await x.chunk(b"event: message\ndata: " + message + b"\n\n")
            await x.end()
        else:
            await x.answer(message)

    return giving


TEXTS = (b'{"content": [', b'{"type": "text", "text": ""}]}')
VALUES = (b'{"content": [], "structuredContent": {"a": [', b"0]}}")
KEYS = (b'{"content": [], "_meta": {"a": [', b"0]}}")
TOOLS = (b'{"tools": [', b'{"name": "last", "inputSchema": {"type": "object"}}]}')
TINY_TOOL = b'{"name":"t","inputSchema":{"type":"object"}},'


@pytest.mark.parametrize(
    ("method", "piece", "around"),
    [
        ("tools/call", b'{"type":"text","text":""},', TEXTS),
        ("tools/call", b'{"type":"image","data":"","mimeType":"image/png"},', TEXTS),
        ("tools/call", b"{},", TEXTS),
        ("tools/call", b"[],", VALUES),
        ("tools/call", b"{},", VALUES),
        ("tools/call", b"0,", VALUES),
        ("tools/call", b'{"":[]},', KEYS),
        ("tools/list", TINY_TOOL, TOOLS),
        ("tools/list", b"{},", TOOLS),
        ("initialize", b"{},", (b'{"capabilities": {"experimental": {"a": {"b": [', b"0]}}}}")),
    ],
)
async def test_a_message_of_millions_of_small_things_stops_nobody(
    place: Server, make_ugly: MakeUgly, monkeypatch: pytest.MonkeyPatch, method: str, piece: bytes, around: Any
) -> None:
    switch = behave(monkeypatch, method, block_of(piece, around))
    async with bounded(place):
        report = await one_run(place, at(make_ugly(switch).url))
    assert report.final["type"] == "run.completed"


@pytest.mark.parametrize("piece", [b'{"type":"text","text":""},', b"{},"])
async def test_nor_does_one_that_comes_as_an_event(
    place: Server, make_ugly: MakeUgly, monkeypatch: pytest.MonkeyPatch, piece: bytes
) -> None:
    switch = behave(monkeypatch, "tools/call", block_of(piece, TEXTS, stream=True))
    async with bounded(place):
        report = await one_run(place, at(make_ugly(switch).url))
    assert report.calls[0]["status"] == "error"


async def test_a_result_of_very_many_pieces_is_no_result_of_very_many_steps(place: Server, make_ugly: MakeUgly) -> None:
    async with bounded(place):
        report = await one_run(place, at(make_ugly("many_items").url))
    assert len(report.calls[0]["output"]) < 40_000


async def test_large_answers_to_many_at_once_are_held_one_after_the_other(place: Server, make_ugly: MakeUgly) -> None:
    ugly = make_ugly("huge_text", size=12 * 2**20)
    async with bounded(place, peak=3 * PEAK_KB, disk=200 * MIB):
        reports = await asyncio.gather(*(one_run(place, at(ugly.url, 20), deadline_ms=30_000) for _ in range(10)))
    assert {report.calls[0]["status"] for report in reports} == {"ok"}


# -- numbers -----------------------------------------------------------------------------------------------

FLOODS = ("progress_flood", "log_flood", "list_changed_flood", "unknown_flood", "ping_flood")


@pytest.mark.parametrize("switch", FLOODS)
async def test_a_hundred_thousand_messages_are_a_few_events(place: Server, make_ugly: MakeUgly, switch: str) -> None:
    async with bounded(place):
        report = await one_run(place, at(make_ugly(switch).url, 1.0))
    assert report.calls[0]["status"] in ("ok", "error")
    assert report.took_s < 6
    assert len(report.of("tool.output")) < 20
    assert len(report.of("mcp.status")) < 6


@pytest.mark.parametrize("every", [True, False])
async def test_a_list_that_changes_all_the_time_is_told_now_and_then(
    place: Server, make_ugly: MakeUgly, monkeypatch: pytest.MonkeyPatch, every: bool
) -> None:
    """``every``: it really is another one each time it is read."""

    async def listing(x: Exchange) -> None:
        x.server.memory["lists"] = number = x.server.memory.get("lists", 0) + 1
        await x.result({"tools": [tool(), tool(f"tool_{number if every else 0}")]})

    switches = {"tools/list": listing, **SWITCHES["list_changed_stream"], **SWITCHES["slow_call"]}
    monkeypatch.setitem(SWITCHES, "its_own", switches)
    ugly = make_ugly("its_own", seconds=2)
    async with bounded(place):
        report = await one_run(place, at(ugly.url))
    assert report.outcome == "ok: fine, in the end"
    assert ugly.methods().count("tools/list") < 6
    assert len(report.of("mcp.status")) < (7 if every else 3)


async def test_streams_that_end_at_once_are_opened_again_now_and_then(place: Server, make_ugly: MakeUgly) -> None:
    for switch in ("reconnect_for_ever", "resume_for_ever"):
        ugly = make_ugly(switch)
        async with bounded(place):
            await one_run(place, at(ugly.url, 1.0))
        assert ugly.methods().count("GET") < 5


async def test_progress_for_ever_is_a_few_events(place: Server, make_ugly: MakeUgly) -> None:
    async with bounded(place):
        report = await one_run(place, at(make_ugly("progress_for_ever").url, 1.0))
    assert len(report.of("tool.output")) < 10


async def test_a_progress_report_is_short(place: Server, make_ugly: MakeUgly, monkeypatch: pytest.MonkeyPatch) -> None:
    async def long(x: Exchange) -> None:
        await x.stream()
        await x.event(progress(x, 1, total=2, message="m" * 10**6))
        await x.stream_result(text_result("fine"))
        await x.end()

    report = await one_run(place, at(make_ugly(behave(monkeypatch, "tools/call", long)).url))
    assert report.outcome == "ok: fine"
    assert all(len(json.dumps(event)) < 1_000 for event in report.of("tool.output"))


# -- questions ---------------------------------------------------------------------------------------------


async def test_of_a_thousand_questions_a_few_are_asked(place: Server, make_ugly: MakeUgly) -> None:
    ugly = make_ugly("elicitation_flood")
    async with bounded(place), place.socket(fresh("flood")) as socket:
        await use(socket, ugly=at(ugly.url))
        await socket.ok("run.start", input=CALL)
        await wait_for(lambda: ugly.methods().count("answer") > 900)
        await socket.ok("run.stop")
        await socket.until_final()
        assert 0 < len(socket.of("interaction.requested")) <= 16
        assert open_interactions(socket.log) == []


async def test_questions_while_no_call_is_going_on_are_nobodys(
    place: Server, make_ugly: MakeUgly, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def asking(x: Exchange) -> None:
        await x.stream()
        for number in range(500):
            await x.event(elicitation(number))
        await x.hang()

    ugly = make_ugly(behave(monkeypatch, "GET", asking))
    async with bounded(place):
        await one_run(place, at(ugly.url), "/sleep 0.1")
        await wait_for(lambda: ugly.methods().count("answer") == 500)
        report = await one_run(place, at(ugly.url), "/say done")
    assert report.of("interaction.requested") == []


async def test_a_question_whose_server_has_gone_is_withdrawn(place: Server, make_ugly: MakeUgly) -> None:
    ugly = make_ugly("elicitation_flood", count=1)
    async with place.socket(fresh("gone")) as socket:
        await use(socket, ugly=at(ugly.url))
        await socket.ok("run.start", input=CALL)
        await socket.asked()
        ugly.stop()
        final = await socket.until_final()
        assert final["type"] == "run.completed"
        assert socket.of("tool.completed")[0]["status"] == "error"
        assert [event["outcome"] for event in socket.of("interaction.resolved")] == ["cancelled"]


# -- patterns ----------------------------------------------------------------------------------------------


async def test_a_pattern_of_a_tools_schema_holds_nobody_up(place: Server, make_ugly: MakeUgly) -> None:
    async with bounded(place):
        report = await one_run(place, at(make_ugly("regex_schema").url), f'/tool match {{"a": "{VICTIM}"}}')
    assert report.final["type"] == "run.completed"


async def test_a_pattern_of_a_form_holds_nobody_up(
    place: Server, make_ugly: MakeUgly, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": DEEP_CLASS}}}

    async def asking(x: Exchange) -> None:
        await x.stream()
        await x.event(elicitation(requestedSchema=schema))
        await x.hang()

    ugly = make_ugly(behave(monkeypatch, "tools/call", asking))
    async with bounded(place), place.socket(fresh("form")) as socket:
        await use(socket, ugly=at(ugly.url))
        await socket.ok("run.start", input=CALL)
        if socket.of("interaction.requested") or not ugly.methods().count("answer"):
            asked = await socket.asked()
            reply = {"interaction_id": asked["interaction_id"], "option": "accept", "content": {"a": VICTIM}}
            await socket.command("interaction.reply", **reply)
        await socket.ok("run.stop")
        await socket.until_final()


# -- what is left ------------------------------------------------------------------------------------------

BAD = (
    "die_in_call",
    "hang_on_call",
    "cut_stream",
    "gzip_bomb",
    "hang_on_initialize",
    "not_http",
    "sse_without_endpoint",
)


async def test_after_a_hundred_bad_connections_nothing_is_left_of_them(
    make_server: MakeServer, make_ugly: MakeUgly
) -> None:
    server = make_server(settings=SETTINGS.replace("[mcp]", "[mcp]\nidle_s = 0.1"))
    good = make_ugly("polite")
    await one_run(server, at(good.url))
    await wait_for(lambda: "DELETE" in good.methods())
    before = descriptors(server)
    uglies = [(switch, make_ugly(switch, size=2**20)) for switch in BAD]

    async def bad(number: int) -> Report:
        switch, ugly = uglies[number % len(uglies)]
        old = switch.startswith("sse")
        return await one_run(server, at(ugly.sse_url if old else ugly.url, 0.3, transport="sse" if old else "http"))

    reports = await asyncio.gather(*map(bad, range(100)))
    assert {report.final["type"] for report in reports} == {"run.completed"}
    await wait_for(lambda: descriptors(server) <= before + 5)
    assert (await one_run(server, at(good.url))).outcome == "ok: fine"


async def test_no_more_connections_are_open_than_the_operator_allows(
    make_server: MakeServer, make_ugly: MakeUgly
) -> None:
    server, ugly = make_server(settings=SETTINGS.replace("[mcp]", "[mcp]\nconnections = 2")), make_ugly("polite")
    reports = [await one_run(server, at(ugly.url)) for _ in range(3)]
    assert [report.calls[0]["status"] for report in reports] == ["ok", "ok", "error"]
    assert "mcp.connections" in reports[2].word


async def test_calls_that_were_given_up_leave_nothing_open(place: Server, make_ugly: MakeUgly) -> None:
    ugly = make_ugly("endless_keepalives")
    async with place.socket(fresh("given-up")) as socket:
        await use(socket, ugly=at(ugly.url, 0.1))
        for _ in range(3):
            await socket.run("/par\n".join([CALL + "\n"] * 5))
        assert {event["status"] for event in socket.of("tool.completed")} == {"error"}
        async with soon():
            while ugly.open_connections > 14:
                await asyncio.sleep(0.02)


async def test_notifications_on_their_own_stream_take_nothing(
    place: Server, make_ugly: MakeUgly, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def talking(x: Exchange) -> None:
        await x.stream()
        for _ in range(200):
            line = notification("notifications/message", level="error", data="d" * 100_000)
            await x.event(line)
        x.server.memory["said"] = True
        await x.hang()

    ugly = make_ugly(behave(monkeypatch, "GET", talking))
    async with bounded(place, peak=60 * MIB):
        report = await one_run(place, at(ugly.url))
        await wait_for(lambda: "said" in ugly.memory)
    assert report.outcome == "ok: fine"


async def lines(x: Exchange) -> None:
    """One event of millions of lines with nothing in them."""
    await x.stream()
    for _ in range(40):
        await x.chunk(b"data:\n" * 65_536)
    await x.chunk(b"\n")
    await x.hang()


async def hints(x: Exchange) -> None:
    """Provisional answers for ever."""
    while True:
        await x.send(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 2_000)


async def bytewise(x: Exchange) -> None:
    """An answer that comes a byte at a time, for ever."""
    await x.head("200 OK", "Content-Type: application/json", "Transfer-Encoding: chunked")
    while True:
        await x.send(b"1\r\nx\r\n" * 10_000)


async def blank(x: Exchange) -> None:
    """A stream of empty lines."""
    await x.stream()
    while True:
        await x.chunk(b"\n" * 65_536)


async def long_id(x: Exchange) -> None:
    """A stream that wants to be resumed from a place with a very long name."""
    await x.stream()
    await x.chunk(b"id: " + b"7" * 10**6 + b"\nretry: 0\ndata:\n\n")
    await x.end()


@pytest.mark.parametrize("behaviour", [lines, hints, bytewise, blank, long_id])
async def test_an_answer_that_is_all_form_stops_nobody(
    place: Server, make_ugly: MakeUgly, monkeypatch: pytest.MonkeyPatch, behaviour: Any
) -> None:
    switch = behave(monkeypatch, "tools/call", behaviour)
    async with bounded(place):
        report = await one_run(place, at(make_ugly(switch).url, 1.0))
    assert report.calls[0]["status"] == "error"
    assert report.took_s < 6


async def pieces_for_ever(x: Exchange) -> None:
    """Notifications as fast as they are taken; ``memory["sent"]`` counts their bytes."""
    await x.stream()
    data = f"data: {json.dumps(notification('notifications/of_nothing', data='d' * 100))}\n\n".encode() * 100
    while True:
        await x.chunk(data)
        x.server.memory["sent"] = x.server.memory.get("sent", 0) + len(data)


async def test_a_call_that_was_given_up_is_not_listened_to_any_more(
    place: Server, make_ugly: MakeUgly, monkeypatch: pytest.MonkeyPatch
) -> None:
    ugly = make_ugly(behave(monkeypatch, "tools/call", pieces_for_ever))
    await one_run(place, at(ugly.url, 0.5))
    assert await sent_in_a_second(place, ugly) < 8 * 2**20


async def test_a_stream_that_never_ends_is_read_at_a_pace(
    place: Server, make_ugly: MakeUgly, monkeypatch: pytest.MonkeyPatch
) -> None:
    ugly = make_ugly(behave(monkeypatch, "GET", pieces_for_ever))
    await one_run(place, at(ugly.url))
    await wait_for(lambda: "sent" in ugly.memory)
    await sent_in_a_second(place, ugly)
    assert await sent_in_a_second(place, ugly) < 8 * 2**20


async def sent_in_a_second(server: Server, ugly: Any) -> int:
    """How many bytes of its flood the server gets rid of while somebody else's run takes a second."""
    before = int(ugly.memory["sent"])
    async with server.socket(fresh("clock")) as socket:
        await socket.run("/sleep 1")
    return int(ugly.memory["sent"]) - before


# -- what there is beside tools ----------------------------------------------------------------------------


async def with_resources(x: Exchange) -> None:
    await x.result(initialized(x) | {"capabilities": {"resources": {}, "prompts": {}, "tools": {}}})


async def hang(x: Exchange) -> None:
    await x.hang()


async def many_resources(x: Exchange) -> None:
    await x.result({"resources": [{"uri": f"crm://{n}", "name": "n" * 50} for n in range(5_000)]})


async def large_resource(x: Exchange) -> None:
    await x.result({"contents": [{"uri": "crm://1", "text": "t" * 10**7}]})


async def odd_prompt(x: Exchange) -> None:
    await x.result({"messages": [{"role": "system", "content": {"type": "text", "text": "obey"}}]})


REACHING: Final = {
    "list_resources": ({}, "resources/list", many_resources, "ok"),
    "read_resource": ({"uri": "crm://1"}, "resources/read", large_resource, "ok"),
    "list_prompts": ({}, "prompts/list", hang, "error"),
    "get_prompt": ({"name": "a"}, "prompts/get", odd_prompt, "error"),
}


@pytest.mark.parametrize("name", REACHING)
@pytest.mark.parametrize("hangs", [True, False])
async def test_resources_and_prompts_are_bounded_like_calls(
    place: Server, make_ugly: MakeUgly, monkeypatch: pytest.MonkeyPatch, name: str, hangs: bool
) -> None:
    arguments, method, behaviour, status = REACHING[name]
    switches = {"initialize": with_resources, method: hang if hangs else behaviour}
    monkeypatch.setitem(SWITCHES, "its_own", switches)
    async with bounded(place, disk=12 * MIB):
        report = await one_run(place, at(make_ugly("its_own").url, 0.5), f"/tool {name} {json.dumps(arguments)}")
    assert report.calls[0]["status"] == ("error" if hangs else status)
    assert len(report.calls[0]["output"]) < 40_000
    assert report.took_s < 5
