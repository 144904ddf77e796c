"""The built-in tools at work, through the whole server: what they print, where they may go, what they see."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.conftest import MakeServer
from tests.wire import Json, Server, Socket, fresh


async def auto(socket: Socket) -> None:
    await socket.ok("conversation.configure", config={"approvals": {"mode": "auto"}})


def call(name: str, **arguments: object) -> str:
    return f"/tool {name} {json.dumps(arguments)}"


async def calls(server: Server, *lines: str) -> list[Json]:
    """Run a script with everything allowed; its calls' outcomes, in order of their start."""
    async with server.socket() as socket:
        await auto(socket)
        final = await socket.run("\n".join(lines))
        assert final["type"] == "run.completed", final
        done = {event["call_id"]: event for event in socket.of("tool.completed")}
        return [done[event["call_id"]] for event in socket.of("tool.started")]


# -- terminal --------------------------------------------------------------------------------------------


async def test_both_streams_come_as_they_are_printed_and_the_exit_code_is_told(server: Server) -> None:
    async with server.socket() as socket:
        await auto(socket)
        await socket.ok("run.start", input="/run echo out; echo err >&2; sleep 0.3; echo later; exit 3\n/say on")
        first = await socket.until("tool.output")
        assert not socket.of("tool.completed")
        final = await socket.until_final()
    assert final["output"] == "on"
    assert first["stream"] in ("stdout", "stderr")
    printed = {
        stream: "".join(e["chunk"] for e in socket.of("tool.output") if e["stream"] == stream)
        for stream in ("stdout", "stderr")
    }
    assert printed == {"stdout": "out\nlater\n", "stderr": "err\n"}
    [done] = socket.of("tool.completed")
    assert done["status"] == "error"
    assert done["structured"]["exit_code"] == 3
    assert done["truncated"] is False


async def test_chunks_never_split_a_character(server: Server) -> None:
    script = "/run printf '\\360\\237'; sleep 0.1; printf '\\230\\200'; printf '\\377x'"
    async with server.socket() as socket:
        await auto(socket)
        await socket.run(script)
    assert "".join(event["chunk"] for event in socket.of("tool.output")) == "😀\ufffdx"


async def test_long_output_is_cut_in_the_event_and_whole_at_its_address(make_server: MakeServer) -> None:
    server, conversation = make_server(settings="[tools]\npreview_bytes = 2000\nstream_bytes = 5000\n"), fresh()
    async with server.socket(conversation) as socket:
        await auto(socket)
        await socket.run("/run seq 1 20000")
        [done] = socket.of("tool.completed")
    whole = "".join(f"{n}\n" for n in range(1, 20001))
    assert done["truncated"] is True
    assert len(done["output"].encode()) <= 2500
    assert done["output"].startswith("1\n2\n")
    assert f"/api/conversations/{conversation}/tool-calls/{done['call_id']}/output" in done["output"]
    assert sum(len(event["chunk"]) for event in socket.of("tool.output")) <= 5000
    async with server.http() as http:
        path = f"/api/conversations/{conversation}/tool-calls/{done['call_id']}/output"
        assert (await http.get(path)).text == whole
        assert (await http.get(path)).headers["content-type"] == "text/plain; charset=utf-8"
        other = path.replace(conversation, fresh())
        assert (await http.get(other)).status_code == 404
        assert (await http.get(path.replace("output", "output/../output"))).status_code in (200, 404)
    server.stop()
    server = make_server(data=server.data)
    async with server.http() as http:
        assert (await http.get(path)).text == whole


async def test_short_output_is_at_its_address_too(server: Server) -> None:
    conversation = fresh()
    async with server.socket(conversation) as socket:
        await auto(socket)
        await socket.run("/run echo short")
        [done] = socket.of("tool.completed")
    async with server.http() as http:
        answer = await http.get(f"/api/conversations/{conversation}/tool-calls/{done['call_id']}/output")
        missing = await http.get(f"/api/conversations/{conversation}/tool-calls/call_none/output")
    assert answer.text == "short\n"
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")


async def test_a_flood_of_output_does_not_disturb_others(server: Server) -> None:
    async with server.socket() as loud, server.socket() as quiet:
        await auto(loud)
        await loud.ok("run.start", input="/run yes | head -c 60000000 | tr -d q")
        await loud.until("tool.executing")
        for _ in range(20):
            assert (await quiet.command("ping", timeout_s=2.0))["type"] == "ok"
        final = await loud.until_final()
    assert final["type"] == "run.completed"


async def test_the_environment_of_a_command_has_no_secrets_of_the_server(make_server: MakeServer) -> None:
    environment = {
        "API_SERVER_KEY": "top-secret-key",
        "OPENAI_API_KEY": "sk-secret",
        "AWS_SECRET_ACCESS_KEY": "aws-secret",
        "HERMES_WS_TOOLS_TERMINAL_ENV": "WANTED",
        "WANTED": "wanted-value",
        "OTHER": "other-value",
    }
    server = make_server(environment=environment, key="top-secret-key")
    async with server.socket() as socket:
        await auto(socket)
        await socket.run("/run env; cat /proc/self/environ; cat /proc/self/cmdline")
        output = socket.of("tool.completed")[0]["output"]
    assert "wanted-value" in output
    for secret in ("top-secret-key", "sk-secret", "aws-secret", "other-value"):
        assert secret not in output


async def test_stdin_is_empty_and_a_command_that_waits_for_it_ends(server: Server) -> None:
    [done] = await calls(server, "/run cat; echo end")
    assert done["output"] == "end\n"


async def test_what_a_command_leaves_in_the_background_does_not_hold_it_up(server: Server) -> None:
    [done] = await calls(server, "/run sleep 61 & echo started")
    assert done["status"] == "ok"
    assert done["output"] == "started\n"
    assert done["duration_ms"] < 5000


async def test_parallel_calls_run_at_the_same_time(server: Server) -> None:
    one, two = await calls(server, "/run sleep 0.6; echo one", "/par", "/run sleep 0.6; echo two")
    assert (one["output"], two["output"]) == ("one\n", "two\n")
    assert abs(one["ts"] - two["ts"]) < 500


async def test_arguments_that_do_not_fit_and_unknown_tools_are_told_to_the_model(server: Server) -> None:
    wrong, unknown, missing = await calls(
        server, call("terminal", command=7), call("teleport", to="mars"), call("terminal")
    )
    assert (wrong["status"], unknown["status"], missing["status"]) == ("error", "error", "error")
    assert "command" in wrong["output"]
    assert "teleport" in unknown["output"]
    assert "terminal" in unknown["output"]


# -- files -----------------------------------------------------------------------------------------------


async def test_files_are_written_read_edited_listed_and_searched(server: Server) -> None:
    done = await calls(
        server,
        call("write_file", path="a/b.txt", content="one\ntwo\nthree\n"),
        call("read_file", path="a/b.txt"),
        call("edit_file", path="a/b.txt", old_text="two", new_text="TWO"),
        call("search_files", pattern="TW."),
        call("list_files", path="a"),
        "/run cat a/b.txt",
    )
    assert {one["status"] for one in done} == {"ok"}, [one["output"] for one in done]
    assert "two" in done[1]["output"]
    assert "b.txt" in done[3]["output"]
    assert "b.txt" in done[4]["output"]
    assert done[5]["output"] == "one\nTWO\nthree\n"


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../hermes-ws.key",
        "../../hermes-ws.key",
        "a/../../../x",
        "link/passwd",
        "absolute",
        "dangling",
        "~/x",
    ],
)
async def test_no_path_leads_out_of_the_working_directory(server: Server, path: str) -> None:
    links = "/run ln -s /etc link; ln -s /etc/passwd absolute; ln -s ../../outside dangling"
    _, *done = await calls(
        server,
        links,
        call("read_file", path=path),
        call("write_file", path=path, content="owned"),
        call("edit_file", path=path, old_text="root", new_text="owned"),
        call("list_files", path=path),
        call("search_files", pattern="root", path=path),
    )
    outputs = [one["output"] for one in done]
    assert not any("root:x:" in output or server.key in output for output in outputs)
    refused = [one["status"] for one in done]
    # A directory of that very name may be made inside; nothing may be written outside.
    assert refused == ["error"] * 5 or path == "~/x", list(zip(refused, outputs, strict=True))
    assert "owned" not in Path("/etc/passwd").read_text()
    assert not (server.data / "outside").exists()
    assert (server.data / "hermes-ws.key").read_text().strip() == server.key


async def test_conversations_do_not_see_each_others_files(server: Server) -> None:
    await calls(server, call("write_file", path="secret.txt", content="mine"))
    listing, read = await calls(server, call("list_files"), call("read_file", path="secret.txt"))
    assert "secret" not in listing["output"]
    assert read["status"] == "error"


async def test_a_fifo_or_device_does_not_hang_the_file_tools(server: Server) -> None:
    _, fifo, search = await calls(
        server, "/run mkfifo pipe", call("read_file", path="pipe"), call("search_files", pattern="x")
    )
    assert fifo["status"] == "error"
    assert search["status"] == "ok"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/health",
        "http://localhost:{port}/health",
        "http://[::1]:{port}/health",
        "http://[::ffff:127.0.0.1]:{port}/health",
        "http://0.0.0.0:{port}/health",
        "http://2130706433:{port}/health",
        "http://127.1:{port}/health",
        "http://169.254.169.254/latest/meta-data/",
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
    ],
)
async def test_fetch_does_not_reach_private_addresses(server: Server, url: str) -> None:
    [done] = await calls(server, call("fetch_url", url=url.format(port=server.port)))
    assert done["status"] == "error"
    assert '"ok"' not in done["output"]


async def test_fetch_reaches_what_the_operator_lists(make_server: MakeServer) -> None:
    server = make_server(settings='[tools]\nfetch_allow = ["127.0.0.1"]\n')
    [done] = await calls(server, call("fetch_url", url=f"{server.url}/health"))
    assert done["status"] == "ok"
    assert '"ok"' in done["output"]


# -- clarify ---------------------------------------------------------------------------------------------


async def test_a_question_takes_free_text_several_choices_or_one_of_them(server: Server) -> None:
    async with server.socket() as socket:
        await socket.ok(
            "run.start",
            input="\n".join(
                (
                    "/ask Name?",
                    call("clarify", question="Pick", choices=["a", "b"], multiple=True),
                    call("clarify", question="Or else", choices=["a", "b"], allow_other=True),
                )
            ),
        )
        text = await socket.asked()
        assert text["questions"][0]["type"] == "text"
        await socket.reply(text, "Ann")
        several = await socket.asked()
        assert several["questions"][0]["type"] == "multi"
        await socket.reply(several, ["a", "b"])
        other = await socket.asked()
        assert other["questions"][0]["allow_other"] is True
        await socket.reply(other, "something else")
        await socket.until_final()
    assert [e["output"] for e in socket.of("tool.completed")] == ["Ann", '["a","b"]', "something else"]


async def test_many_conversations_work_at_once(server: Server) -> None:
    async def one(n: int) -> str:
        async with server.socket() as socket:
            await auto(socket)
            await socket.run(f"/run echo {n}\n/stream 20 1")
            return str(socket.of("tool.completed")[0]["output"].strip())

    assert await asyncio.gather(*(one(n) for n in range(25))) == [str(n) for n in range(25)]
