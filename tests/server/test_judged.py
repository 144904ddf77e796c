"""The main job, as it is judged: one conversation, two connections, real tools, nothing lost."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.wire import (
    Json,
    Server,
    Socket,
    expect_contiguous,
    fresh,
    processes_with,
    soon,
    terminals,
    wait_for,
)

SCRIPT = """\
/think I should look around first.
/run ls -1 && echo looked
/ask Which one? | red | blue
/run echo "you chose"
/say All done.
"""


async def test_two_connections_see_one_run_and_the_second_answers_everything(server: Server) -> None:
    conversation = fresh()
    async with server.socket(conversation) as one, server.socket(conversation, from_="start") as two:
        await one.greeted()
        await two.greeted()
        started = await one.ok("run.start", input=SCRIPT)
        assert started["disposition"] == "started"

        listing = await two.asked()
        assert listing["kind"] == "approval"
        assert listing["tool"]["name"] == "terminal"
        assert listing["tool"]["arguments"] == {"command": "ls -1 && echo looked"}
        await two.reply(listing, option="once")

        question = await two.asked()
        assert question["kind"] == "clarify"
        [only] = question["questions"]
        assert [option["id"] for option in only["options"]] == ["red", "blue"]
        await two.reply(question, answers={only["id"]: "blue"})

        echo = await two.asked()
        await two.reply(echo, option="once")
        final = await two.until_final(started["run_id"])
        await one.until_final(started["run_id"])

    assert final["type"] == "run.completed"
    assert final["output"] == "All done."
    assert final["stop_reason"] == "end"
    assert two.of("reasoning.available")[0]["text"] == "I should look around first."
    first, clarified, second = two.of("tool.completed")
    assert first["status"] == "ok"
    assert "looked" in first["output"]
    assert first["structured"]["exit_code"] == 0
    assert clarified["name"] == "clarify"
    assert clarified["output"] == "blue"
    assert second["output"].strip() == "you chose"
    assert expect_contiguous(one.log) == expect_contiguous(two.log) == final["seq"]
    assert set(terminals(one.log).values()) == {1}

    assert one.counted() == two.counted()
    async with server.http() as http:
        page = await http.get(f"/api/conversations/{conversation}/events", params={"after": 0})
    assert page.text.partition('"events":[')[2].startswith(",".join(one.counted()) + "]")


async def test_a_question_is_open_while_nobody_is_connected(server: Server) -> None:
    conversation = fresh()
    async with server.socket(conversation) as one:
        await one.ok("run.start", input="/ask Still there?\n/say good")
        question = await one.asked()
    async with server.socket(conversation) as two:
        hello = await two.recv()
        assert question["interaction_id"] in hello["hint"]
        snapshot = await two.until("snapshot")
        assert snapshot["interactions"] == [question]
        assert snapshot["run"]["status"] == "waiting"
        await two.reply(question, "yes")
        final = await two.until_final()
    assert final["output"] == "good"


async def _stream_in_pieces(server: Server, conversation: str, *, every: int, exclude: str = "") -> list[Json]:
    """Follow a run to its end, cutting the line after every so many frames."""
    seen: list[Json] = []
    after = 0
    while not any(frame["type"] == "run.completed" for frame in seen[-5:]):
        async with server.socket(conversation, after=after, exclude=exclude) as socket:
            async with soon():
                while len(socket.log) < every and not socket.of("run.completed"):
                    await socket.recv()
            socket.abort()
        seen += socket.log
        after = expect_contiguous(socket.log, after=after)
    return seen


async def test_both_cut_again_and_again_resume_with_every_delta_exactly_once(server: Server) -> None:
    conversation = fresh()
    started = await server.post(conversation, {"type": "run.start", "input": "/stream 2000 1"})
    assert started["type"] == "ok"
    one, two = await asyncio.gather(
        _stream_in_pieces(server, conversation, every=150), _stream_in_pieces(server, conversation, every=233)
    )
    assert one == two
    text = "".join(event["delta"] for event in one if event["type"] == "message.delta")
    assert text.split() == [str(n) for n in range(2000)]
    assert [event["text"] for event in one if event["type"] == "message.completed"] == [text]
    assert await server.log(conversation) == one


async def test_cut_readers_with_a_filter_account_for_every_number(server: Server) -> None:
    conversation = fresh()
    await server.post(conversation, {"type": "run.start", "input": "/stream 400 1\n/say a\n/say b\n/say c"})
    seen = await _stream_in_pieces(server, conversation, every=3, exclude="message.delta")
    assert "message.delta" not in {frame["type"] for frame in seen}
    whole = await server.log(conversation)
    assert [f for f in seen if f["type"] != "skipped"] == [e for e in whole if e["type"] != "message.delta"]


async def test_edited_arguments_are_what_runs(server: Server) -> None:
    async with server.socket() as socket:
        await socket.ok("run.start", input="/run echo original")
        asked = await socket.asked()
        assert asked["editable"] is True
        await socket.reply(asked, option="once", arguments={"command": "echo edited"}, digest=asked["digest"])
        await socket.until_final()
    assert socket.of("interaction.resolved")[0]["arguments"] == {"command": "echo edited"}
    assert socket.of("tool.started")[0]["arguments"] == {"command": "echo original"}
    assert socket.of("tool.executing")[0]["arguments"] == {"command": "echo edited"}
    assert socket.of("tool.completed")[0]["output"].strip() == "edited"


async def test_an_allowlist_narrowed_in_the_middle_of_a_run_denies_the_next_call(server: Server) -> None:
    async with server.socket() as socket:
        await socket.ok("conversation.configure", config={"approvals": {"mode": "auto"}})
        await socket.ok("run.start", input="/run echo one\n/ask go on?\n/run echo two\n/say end")
        asked = await socket.asked()
        await socket.ok("conversation.configure", config={"tools": {"allow": ["clarify", "read_file"]}})
        await socket.reply(asked, "yes")
        final = await socket.until_final()
    assert final["output"] == "end"
    one, _, two = socket.of("tool.completed")
    assert (one["status"], two["status"]) == ("ok", "denied")
    assert two["call_id"] not in {event["call_id"] for event in socket.of("tool.executing")}


async def test_an_allowlist_narrowed_while_the_approval_is_open_holds(server: Server) -> None:
    async with server.socket() as socket:
        await socket.ok("run.start", input="/run echo no")
        asked = await socket.asked()
        await socket.ok("conversation.configure", config={"tools": {"deny": ["terminal"]}})
        await socket.reply(asked, option="once")
        await socket.until_final()
    assert socket.of("tool.completed")[0]["status"] == "denied"
    assert not socket.of("tool.executing")


_BAD_TEXTS = [
    "{",
    "nonsense",
    '{"type":',
    "[]",
    "42",
    "null",
    '"run.start"',
    "{}",
    '{"type":"run.strat","input":"x"}',
    '{"type":null}',
    '{"type":7}',
    '{"type":"run.start"}',
    '{"type":"run.start","input":7}',
    '{"type":"run.start","input":[{"type":"video","url":"x"}]}',
    '{"type":"run.start","input":"x","when_busy":"maybe"}',
    '{"type":"run.start","input":"x","deadline_ms":-1}',
    '{"type":"run.start","input":"x","id":7}',
    '{"type":"ping","id":""}',
    '{"type":"ping","id":"' + "x" * 200_000 + '"}',
    '{"type":"conversation.configure","config":[]}',
    '{"type":"conversation.configure","config":{"tools":{"allow":"all"}}}',
    '{"type":"conversation.configure","config":' + '{"a":' * 20_000 + "1" + "}" * 20_000 + "}",
    "[" * 50_000,
    '{"type":"run.steer","text":""}',
    '{"type":"ok","id":null,"at":1}',
    "",
    "\x00",
    '{"type":"ping"} {"type":"ping"}',
    "😀",
]
_BAD_BYTES = [b"\xff\xfe", b'{"type":"ping","id":"\xff"}', b"\xed\xa0\x80", b'{"type":"run.start","input":"\xc3\x28"}']


@pytest.mark.timeout(60)
async def test_ten_thousand_malformed_frames_are_ten_thousand_errors_on_a_socket_that_still_works(
    server: Server,
) -> None:
    cheap = [text for text in _BAD_TEXTS if len(text) < 1000]
    async with server.socket() as socket:
        await socket.greeted()

        async def flood() -> None:
            sent = 0
            for text in _BAD_TEXTS:
                await socket.send(text)
                sent += 1
            for data in _BAD_BYTES:
                await socket.send_text_bytes(data)
                await socket.send(data)
                sent += 2
            for n in range(10_000 - sent):
                await socket.send(cheap[n % len(cheap)])

        flooding = asyncio.create_task(flood())
        codes: dict[str, int] = {}
        async with soon(50):
            for _ in range(10_000):
                frame = await socket.recv()
                assert frame["type"] == "error", frame
                codes[frame["code"]] = codes.get(frame["code"], 0) + 1
        await flooding
        assert set(codes) <= {"invalid_json", "invalid_frame", "unknown_type"}
        assert not socket.log
        assert (await socket.ok("ping"))["head"] == 0
        final = await socket.run("hello")
    assert final["type"] == "run.completed"


@pytest.mark.parametrize(
    "command",
    [
        "sleep {marker}",
        "sleep {marker} & sleep {marker}",
        "setsid sleep {marker}",
        "setsid -f sleep {marker}; sleep {marker}",
        "trap '' TERM; sleep {marker}",
        "trap '' TERM INT HUP; while true; do sleep {marker}; done",
        "nohup sleep {marker} & disown; wait",
        "env -i sleep {marker} & sleep {marker}",
    ],
)
@pytest.mark.parametrize("mode", ["graceful", "now"])
async def test_a_stopped_command_is_over_within_a_second_and_leaves_no_process(
    server: Server, command: str, mode: str
) -> None:
    marker = f"60.{fresh()[2:]}".translate(str.maketrans("abcdef", "123456"))
    async with server.socket() as socket:
        await socket.ok("conversation.configure", config={"approvals": {"mode": "auto"}})
        await socket.ok("run.start", input="/run " + command.format(marker=marker))
        await socket.until("tool.executing")
        await wait_for(lambda: processes_with(marker, program="sleep"))
        async with soon(1.0):
            await socket.ok("run.stop", mode=mode)
            final = await _final_of(socket)
    assert (final["type"], final["reason"]) == ("run.cancelled", "stop")
    assert socket.of("tool.completed")[0]["status"] in ("interrupted", "cancelled")
    assert not processes_with(marker)
    assert set(terminals(socket.log).values()) == {1}


async def _final_of(socket: Socket) -> Json:
    return next((e for e in socket.log if e["type"] == "run.cancelled"), None) or await socket.until_final()


async def test_a_model_call_is_cut_within_a_second(server: Server) -> None:
    async with server.socket() as socket:
        await socket.ok("run.start", input="/stream 100000 5")
        await socket.until("message.delta")
        async with soon(1.0):
            await socket.ok("run.stop")
            final = await _final_of(socket)
    assert final["by"]["principal"]
    kept = socket.of("message.completed")[0]
    assert kept["partial"] is True
    assert kept["text"] == "".join(event["delta"] for event in socket.of("message.delta"))


async def test_every_frame_begins_with_its_type_and_events_with_their_number(server: Server) -> None:
    async with server.socket() as socket:
        await socket.greeted()
        await socket.run("/think a\n/tool list_files {}\n/say b")
    for text in socket.raw:
        names = list(json.loads(text))
        assert names[0] == "type"
        if "seq" in names:
            assert names[1:3] == ["seq", "ts"]
