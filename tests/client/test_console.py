"""``connect``, ``tail`` and ``conversations``, as a person or a script uses them."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.client.terminal import CTRL_C, CTRL_D, Terminal, command, environment
from tests.conftest import MakeServer
from tests.wire import Server, expect_contiguous, fresh, soon

PATIENCE_S = 20


def at(server: Server, *arguments: str) -> list[str]:
    return command(*arguments, "--url", server.url, "--key", server.key)


@asynccontextmanager
async def process(arguments: list[str], *, cwd: Path | None = None) -> AsyncIterator[asyncio.subprocess.Process]:
    started = await asyncio.create_subprocess_exec(
        *arguments,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        cwd=cwd,
        limit=1 << 24,
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.communicate()


async def piped(server: Server, conversation: str, lines: str) -> tuple[str, int]:
    """Pipe lines into ``connect``; what it says, and its status."""
    async with soon(PATIENCE_S), process(at(server, "connect", conversation)) as running:
        out, err = await running.communicate(lines.encode())
        assert err == b"", err
        assert running.returncode is not None
        return out.decode(), running.returncode


async def done(arguments: list[str], cwd: Path | None = None) -> tuple[bytes, str, int]:
    async with soon(PATIENCE_S), process(arguments, cwd=cwd) as running:
        out, err = await running.communicate()
        assert running.returncode is not None
        return out, err.decode(), running.returncode


# -- connect, between pipes ------------------------------------------------------------------------------


async def test_lines_in_lines_out(server: Server) -> None:
    out, status = await piped(server, fresh(), "hi\n/think hmm\n\n/say one\\\n/say two\nlast")
    assert status == 0
    assert out.startswith("> hi\nThis is the demo model. You said: “hi”.\n· done (")
    assert "> /think hmm\n(thinking) hmm\n· done" in out
    assert "> /say one\n  /say two\none\ntwo\n· done" in out
    assert "You said: “last”.\n" in out


async def test_questions_are_answered_by_the_next_lines(server: Server) -> None:
    script = '/run echo one\no\n/run echo two\nmaybe\ne {"command":"echo three"}\n/ask Which? | red | blue\n7\n2\n'
    out, status = await piped(server, fresh(), script)
    assert status == 0
    assert '? Allow Terminal?  (risk: medium)\n    builtin:terminal {"command":"echo one"}\n' in out
    assert "[c]onversation  Allow in this conversation — remembers builtin:terminal when" in out
    assert "once\n  one\n◂ terminal: ok" in out
    assert "! a tool call waits for your decision: once, run, conversation, always, deny" in out
    assert 'once with {"command":"echo three"}\n  three\n' in out
    assert "    Which?\n    1) red\n    2) blue\n! one of: red, blue (or its number)\n" in out
    assert ": blue\n· done" in out


async def test_denying_with_a_reason_and_a_failed_run(server: Server) -> None:
    out, status = await piped(server, fresh(), "/run true\nd too risky\n/fail model_auth\n")
    assert status == 1
    assert "deny (too risky)" in out
    assert "◂ terminal: denied" in out
    assert out.endswith("! failed: model_auth: the script said /fail model_auth\n")


async def test_leaving_with_a_question_open_says_so(server: Server) -> None:
    name = fresh()
    out, status = await piped(server, name, "/ask Well?\n")
    assert status == 1
    assert f"! the run waits for an answer; hermes-ws connect {name} comes back to it\n" in out
    out, status = await piped(server, name, "very\n")
    assert status == 0
    assert "> /ask Well?\n? Question\n    Well?\n· answered by" in out


async def test_our_commands(server: Server) -> None:
    lines = "/help\n/tools\n/allow fetch_*\n/sleep 60\n/steer late\n/stop\n/quit\nnever\n"
    out, status = await piped(server, fresh(), lines)
    assert status == 0
    assert "any other /LINE   goes to the agent" in out
    assert "builtin:terminal — Run a command in a shell" in out
    assert '"builtin:terminal","builtin:read_file"' in out
    assert '"fetch_*"]' in out
    assert "· stopped by owner" in out
    assert "· too late, not said: late" in out
    assert "never" not in out


async def test_control_characters_do_not_reach_the_terminal(server: Server) -> None:
    out, _ = await piped(server, fresh(), "/run printf '\\033[2J\\007'; echo \u202eok\nonce\n")
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "\u202e" not in out
    assert "\\x1b[2J\\x07" in out
    assert "\\x202eok" in out


async def test_interrupting_between_pipes(server: Server) -> None:
    async with soon(PATIENCE_S), process(at(server, "connect", fresh())) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write(b"/sleep 60\n")
        assert await running.stdout.readline() == b"> /sleep 60\n"
        running.send_signal(signal.SIGINT)
        said = await running.stdout.readuntil(b"stopped by owner")
        assert b"Ctrl+C again leaves" in said
        running.send_signal(signal.SIGINT)
        assert await running.wait() == 130


async def test_the_key_of_a_server_in_this_directory_is_found(make_server: MakeServer, tmp_path: Path) -> None:
    server = make_server(data=tmp_path / "hermes-ws-data")
    out, err, status = await done(command("conversations", "--url", server.url), cwd=tmp_path)
    assert (status, err) == (0, "")
    assert out.startswith(b"CONVERSATION")
    out, err, status = await done(command("conversations", "--url", server.url))
    assert status == 1
    assert "wants a key" in err


async def test_errors_say_what_to_do(server: Server, make_server: MakeServer) -> None:
    gone = make_server()
    gone.kill()
    for verb in (["connect", "c"], ["tail", "c"], ["conversations"]):
        _, err, status = await done(at(gone, *verb))
        assert status == 1
        assert "Is it running?" in err
        _, err, status = await done(command(*verb, "--url", server.url, "--key", "wrong"))
        assert status == 1
        assert "does not take this key" in err
        assert "Traceback" not in err
    _, err, status = await done(at(server, "tail", "no spaces"))
    assert "a conversation id is" in err


# -- connect, at a terminal ------------------------------------------------------------------------------


async def test_a_person_at_a_terminal(server: Server) -> None:
    async with soon(40), Terminal.running(at(server, "connect", fresh())) as terminal:
        await terminal.expect("/help says")
        terminal.type("hi\r")
        assert "You said: “hi”." in await terminal.expect("· done")
        terminal.type("/run echo hello\r")
        await terminal.expect("risk: medium")
        await terminal.expect("o/r/c/a/d/e >")
        terminal.type("e\r")
        await terminal.expect("arguments as JSON >")
        await terminal.expect("hello")
        terminal.type('\x7f\x7f again"}\r')
        assert "  hello again" in await terminal.expect("· done")
        terminal.type("/ask Which? | red | blue\r")
        await terminal.expect("answer >")
        terminal.type("1\r")
        assert ": red" in await terminal.expect("· done")
        terminal.type(CTRL_D)
        assert await terminal.exited() == 0


async def test_a_line_answers_the_question_that_it_was_begun_at_and_no_other(server: Server) -> None:
    name = fresh()
    async with soon(40), Terminal.running(at(server, "connect", name)) as terminal:
        await terminal.expect("/help says")
        terminal.type("/run echo one\\\r")
        await terminal.expect("…")
        terminal.type("/par\\\r/run echo two\r")
        await terminal.expect("o/r/c/a/d/e >")
        terminal.type("once by me")
        await terminal.expect("once by me")
        first, second = (e for e in await server.log(name) if e["type"] == "interaction.requested")
        reply = {"type": "interaction.reply", "option": "deny", "interaction_id": first["interaction_id"]}
        await server.post(name, reply)
        await terminal.expect(": deny")
        terminal.type("\r")
        await terminal.expect("! interaction_resolved")
        terminal.type("d not this one either\r")
        await terminal.expect("· done")
    resolved = [e for e in await server.log(name) if e["type"] == "interaction.resolved"]
    assert [e["option"] for e in resolved] == ["deny", "deny"]
    assert resolved[-1]["interaction_id"] == second["interaction_id"]


async def test_a_line_steers_what_is_running_and_ctrl_c_stops_it(server: Server) -> None:
    name = fresh()
    async with soon(40), Terminal.running(at(server, "connect", name)) as terminal:
        await terminal.expect("/help says")
        terminal.type("/sleep 1\\\r")
        await terminal.expect("…")
        terminal.type("/sleep 60\r")
        await terminal.expect("running, Ctrl+C stops")
        terminal.type("be brief\r")
        await terminal.expect("the agent has heard: be brief")
        terminal.type("/say later\r")
        await terminal.expect("waits, at place 1: /say later")
        terminal.type(CTRL_C)
        await terminal.expect("stopped by owner")
        assert "later" in await terminal.expect("· done")
        terminal.type("half a line")
        await terminal.expect("half a line")
        terminal.type(CTRL_C)
        terminal.type("/sleep 60\r")
        await terminal.expect("running, Ctrl+C stops")
        terminal.type("/quit\r")
        await terminal.expect(f"the run goes on; hermes-ws connect {name}")
        assert await terminal.exited() == 0
    assert not any("half a line" in json.dumps(event) for event in await server.log(name))


async def test_the_server_restarts_under_a_terminal(make_server: MakeServer, tmp_path: Path) -> None:
    server = make_server(data=tmp_path / "data")
    async with soon(40), Terminal.running(at(server, "connect", "c")) as terminal:
        await terminal.expect("/help says")
        terminal.type("hi\r")
        await terminal.expect("· done")
        server.kill()
        await terminal.expect("reconnecting …")
        terminal.type("while away\r")
        await terminal.expect("> while away")
        make_server("--port", str(server.port), data=tmp_path / "data")
        await terminal.expect("connected again", 20)
        assert "You said: “while away”." in await terminal.expect("· done")
        terminal.type("still there?\r")
        assert "You said: “still there?”." in await terminal.expect("· done")
        terminal.type(CTRL_C)
        assert await terminal.exited() == 0


async def test_long_lines_are_broken_between_words(server: Server) -> None:
    words = " ".join(f"word{n}" for n in range(60))
    async with soon(40), Terminal.running(at(server, "connect", fresh()), columns=60) as terminal:
        await terminal.expect("/help says")
        terminal.type(f"/say {words}\r")
        shown = await terminal.expect("· done")
        assert all(f"word{n}" in shown for n in range(60))


# -- tail ------------------------------------------------------------------------------------------------


async def test_tail_prints_the_server_s_bytes(server: Server) -> None:
    name = fresh()
    await piped(server, name, "hi\nho\n")
    out, err, status = await done(at(server, "tail", name, "--after", "0", "--until-idle"))
    assert (status, err) == (0, "")
    async with server.socket(name, after=0) as socket:
        await socket.greeted()
    assert out.decode().splitlines() == socket.counted()
    out, _, _ = await done(at(server, "tail", name, "--after", "3", "--until-idle", "--exclude", "message.delta"))
    frames = [json.loads(line) for line in out.splitlines()]
    assert expect_contiguous(frames, after=3) == len(socket.log)
    assert "message.delta" not in {frame["type"] for frame in frames}
    out, _, _ = await done(at(server, "tail", name, "--until-idle"))
    assert [json.loads(line)["seq"] for line in out.splitlines()] == list(range(1, len(socket.log) + 1))
    out, _, _ = await done(at(server, "tail", name, "--live", "--until-idle"))
    assert out == b""
    out, _, status = await done(at(server, "tail", fresh(), "--until-idle"))
    assert (out, status) == (b"", 0)


async def test_tail_follows_across_restarts(make_server: MakeServer, tmp_path: Path) -> None:
    server = make_server(data=tmp_path / "data")
    async with soon(30), process(at(server, "tail", "c", "--after", "0")) as tail:
        assert tail.stdout is not None
        assert tail.stderr is not None
        await server.post("c", {"type": "run.start", "input": "/sleep 60"})
        frames = [json.loads(await tail.stdout.readline()) for _ in range(3)]
        server.kill()
        assert b"disconnected" in await tail.stderr.readline()
        server = make_server("--port", str(server.port), data=tmp_path / "data")
        await server.post("c", {"type": "run.stop"})
        while frames[-1]["type"] not in ("run.failed", "run.cancelled"):
            frames.append(json.loads(await tail.stdout.readline()))
        expect_contiguous(frames)
        tail.send_signal(signal.SIGINT)
        assert await tail.wait() == 130
        assert b"Traceback" not in await tail.stderr.read()


async def test_tail_ends_when_nobody_reads_any_more(server: Server) -> None:
    """Even if nothing happens that could be printed."""
    name = fresh()
    await piped(server, name, "hi\n")
    line = " ".join([*at(server, "tail", name, "--after", "0"), "| head -1"])
    began = time.monotonic()
    out, err, status = await done(["bash", "-o", "pipefail", "-c", line])
    assert (json.loads(out)["seq"], err, status) == (1, "", 0)
    assert time.monotonic() - began < 5


# -- conversations ---------------------------------------------------------------------------------------


async def test_conversations(make_server: MakeServer) -> None:
    server = make_server(settings="[limits]\npage_conversations = 2\n")
    await piped(server, "old", "hi\n")
    await server.post("odd", {"type": "conversation.configure", "config": {"title": "Bell \u0007"}})
    await piped(server, "asking", "/ask Well?\n")
    out, err, status = await done(at(server, "conversations"))
    assert (status, err) == (0, "")
    heading, *lines = out.decode().splitlines()
    assert heading.split() == ["CONVERSATION", "STATUS", "HEAD", "AGE", "OPEN", "TITLE"]
    assert [line.split()[0] for line in lines] == ["asking", "odd", "old"]
    assert lines[0].split()[1] == "waiting"
    assert "1: Question" in lines[0]
    assert "Bell \\x07" in lines[1]
    out, _, _ = await done(at(server, "conversations", "--json"))
    listed = [json.loads(line) for line in out.splitlines()]
    assert [line["conversation_id"] for line in listed] == ["asking", "odd", "old"]


async def test_delete_says_what_it_did(server: Server) -> None:
    conversation = fresh()
    await piped(server, conversation, "hello\n")
    arguments = ["delete", "--yes", "--url", server.url, "--key", server.key, conversation, "not-there"]
    out, err, status = await done(command(*arguments))
    assert (out.decode(), err, status) == (
        f"{conversation}: deleted\nnot-there: there is no such conversation\n",
        "",
        1,
    )
    assert conversation not in str(await server.get("/api/conversations"))


async def test_retry_goes_on_where_the_last_run_failed(server: Server) -> None:
    lines = "/retry\n/run_this_first\n/fail model_auth\n/retry\n/quit\n"
    out, status = await piped(server, fresh(), lines)
    assert "! the last run has not failed" in out
    assert out.count("! failed: model_auth") == 2
    assert "· goes on where run_" in out
    assert status == 1
