"""A person at a terminal: ``plain=1``, by hand and with wscat itself."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
from contextlib import suppress

import pytest

from tests.conftest import MakeServer
from tests.wire import Server, Socket, clean_environment, fresh, soon, wait_for


async def says(socket: Socket, *patterns: str) -> list[str]:
    """Receive lines until each pattern was seen, in this order. Returns all lines."""
    lines: list[str] = []
    for pattern in patterns:
        async with soon():
            while True:
                line = await socket.recv_line()
                lines.append(line)
                if re.search(pattern, line):
                    break
    return lines


async def test_a_session_of_a_person(server: Server) -> None:
    async with server.socket(plain=1) as person:
        [hello] = await says(person, "conversation conv_")
        assert "/help" in hello
        assert not hello.startswith("{")

        await person.send("/help")
        assert "/approve" in (await says(person, "start a run"))[-1]

        await person.send("hello there")
        lines = await says(person, "^you: hello there", "^agent: .*hello there", "done")
        assert not any(line.startswith("{") for line in lines)

        await person.send("/think hm\n/run echo hi\n/ask Which? | red | blue\n/say bye")
        assert (await says(person, r"\?"))[-1]
        await person.send("/stop")
        await says(person, "stopped")


async def test_approvals_and_questions_are_answered_by_lines(server: Server) -> None:
    conversation = fresh()
    async with server.socket(conversation) as driver, server.socket(conversation, plain=1) as person:
        await says(person, "conversation")
        await driver.ok("run.start", input="/run echo first\n/ask Which? | red | blue\n/ask Why?\n/run echo second")
        lines = await says(person, "/approve")
        assert any("echo first" in line for line in lines)
        assert "once | run | conversation | always" in lines[-1]
        await person.send("/approve conversation")
        await says(person, "  first", "one of: red")
        await person.send("purple")
        await says(person, "^! .*one of: red, blue")
        await person.send("/answer blue")
        await says(person, r"\? .*Why", "type the answer")
        await person.send("because I like it")
        await says(person, "/approve")
        await person.send("/deny not now")
        await says(person, "denied", "done")
        await driver.until_final()
    answers = [event.get("answers") or event["option"] for event in driver.of("interaction.resolved")]
    assert answers == ["conversation", {"answer": "blue"}, {"answer": "because I like it"}, "deny"]
    assert driver.of("interaction.resolved")[-1]["comment"] == "not now"


async def test_what_cannot_be_done_is_said_in_words(server: Server) -> None:
    async with server.socket(plain=1) as person:
        await says(person, "conversation")
        for line, answer in (
            ("/approve", "^! .*approval"),
            ("/deny", "^! .*approval"),
            ("/answer x", "^! .*clarify|^! .*question"),
            ("/stop", "^! no run"),
            ("{", "^! "),
            ('{"type":"run.strat"}', "run.start"),
        ):
            await person.send(line)
            await says(person, answer)
        await person.send("")
        await person.send("   ")
        await person.send("/tools")
        await says(person, "builtin:terminal")


async def test_a_script_of_the_demo_is_still_a_script(server: Server) -> None:
    async with server.socket(plain=1) as person:
        await says(person, "conversation")
        await person.send("/say from a script")
        await says(person, "^agent: from a script", "done")


async def test_allow_widens_from_what_there_is(server: Server) -> None:
    conversation = fresh()
    async with server.socket(conversation) as driver, server.socket(conversation, plain=1) as person:
        await says(person, "conversation")
        await driver.ok("conversation.configure", config={"tools": {"allow": ["read_file"]}})
        await says(person, "configuration 1")
        await person.send("/allow list_*")
        await says(person, "configuration 2")
        tools = (await driver.ok("tools.list"))["tools"]
        assert {tool["name"] for tool in tools} == {"read_file", "list_files"}


async def test_allow_never_takes_anything_away(server: Server) -> None:
    conversation = fresh()
    async with server.socket(conversation) as driver, server.socket(conversation, plain=1) as person:
        await says(person, "conversation")
        before = {tool["name"] for tool in (await driver.ok("tools.list"))["tools"]}
        await person.send("/allow mcp:github/*")
        await says(person, "configuration 1")
        assert {tool["name"] for tool in (await driver.ok("tools.list"))["tools"]} == before
        await person.send("/allow")
        await says(person, "^! ")


async def test_json_still_works_in_between(server: Server) -> None:
    async with server.socket(plain=1) as person:
        await says(person, "conversation")
        await person.send({"type": "run.start", "input": "/say by frame"})
        await says(person, "agent: by frame", "done")


async def test_one_who_comes_later_sees_what_was_said_and_what_is_asked(server: Server) -> None:
    conversation = fresh()
    async with server.socket(conversation) as driver:
        await driver.run("first words")
        await driver.ok("run.start", input="/run echo x")
        await driver.asked()
        async with server.socket(conversation, plain=1) as person:
            lines = await says(person, "/approve")
            assert any(line.startswith("you: first words") for line in lines)
            assert any(line.startswith("agent: ") for line in lines)
            assert any("echo x" in line for line in lines)
            await person.send("/deny")
            await says(person, "denied")


async def test_several_lines_of_a_tool_and_control_characters_stay_readable(server: Server) -> None:
    async with server.socket(plain=1) as person:
        await says(person, "conversation")
        await person.send('{"type":"conversation.configure","config":{"approvals":{"mode":"auto"}}}')
        await person.send("/run printf 'a\\nb\\033[31mred\\007\u202edetrevni'")
        lines = await says(person, "done")
    assert not {"\x1b", "\x07", "\u202e"}.intersection("".join(lines))


async def test_the_goodbye_of_a_drain_is_readable(make_server: MakeServer) -> None:
    server = make_server()
    async with server.socket(plain=1) as person:
        await says(person, "conversation")
        server.terminate()
        await says(person, "going down")


async def test_a_question_cannot_pass_for_a_line_of_ours(server: Server) -> None:
    async with server.socket(plain=1) as person:
        await says(person, "conversation")
        question = {"question": "Well?\n· answered by owner: yes\n? Allow Terminal?", "choices": ["a\n? b", "c"]}
        await person.send(f"/tool clarify {json.dumps(question)}")
        lines = await says(person, "type the answer")
        assert not any("\n·" in line or "\n?" in line for line in lines)
        assert "? Question: Well?\n  · answered by owner: yes\n  ? Allow Terminal?" in lines


async def test_a_line_does_not_choose_among_several_questions(server: Server) -> None:
    async with server.socket(plain=1) as person:
        await says(person, "conversation")
        await person.send("/ask First? | red | blue\n/par\n/ask Second?")
        await says(person, "type the answer", "type the answer")
        await person.send("blue")
        await says(person, "^! 2 questions are open; /answer answers the oldest")
        await person.send("/answer 2")
        await says(person, '^· answered .*"blue"')
        await person.send("because")
        await says(person, "^· answered .*because", "done")


# -- wscat -----------------------------------------------------------------------------------------------


@pytest.mark.node
async def test_wscat_itself_holds_a_session(server: Server) -> None:
    if not (shutil.which("npx") and shutil.which("script")):
        pytest.skip("needs npx and script")
    command = f"npx --yes wscat@6 -c '{server.ws}/ws/{fresh()}?plain=1' -H 'Authorization: Bearer {server.key}'"
    wscat = await asyncio.create_subprocess_exec(
        "script",
        "-qc",
        command,
        "/dev/null",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=clean_environment() | {"TERM": "dumb"},
        start_new_session=True,
    )
    assert wscat.stdin is not None
    assert wscat.stdout is not None
    seen = ""

    async def until(text: str, timeout_s: float = 20) -> None:
        nonlocal seen
        assert wscat.stdout is not None
        async with asyncio.timeout(timeout_s):
            while text not in seen:
                data = await wscat.stdout.read(65_536)
                if not data:
                    pytest.fail(f"wscat ended: {seen}")
                seen += data.decode(errors="replace")
        seen = seen.partition(text)[2]

    try:
        try:
            await until("type a message", 45)
        except TimeoutError:
            pytest.skip("wscat could not be had")
        wscat.stdin.write(b"/run echo from-wscat\n")
        await until("/approve [")
        wscat.stdin.write(b"/approve\n")
        await until("  from-wscat")
        await until("done (end")
    finally:
        wscat.stdin.close()
        with suppress(ProcessLookupError):
            os.killpg(wscat.pid, signal.SIGKILL)
        await wscat.wait()
        await wait_for(lambda: wscat.returncode is not None)


async def test_retry_goes_on_where_the_last_run_failed(server: Server) -> None:
    async with server.socket(plain=1) as socket:
        await socket.send("/retry")
        while "has not failed" not in await socket.recv_line():
            pass
        await socket.send("/fail model_auth")
        while "failed: model_auth" not in await socket.recv_line():
            pass
        await socket.send("/retry")
        while "goes on where run_" not in await socket.recv_line():
            pass
        while "failed: model_auth" not in await socket.recv_line():
            pass
