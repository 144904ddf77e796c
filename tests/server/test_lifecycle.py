"""Coming up, going down, falling over; settings and the data directory."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import MakeServer
from tests.wire import (
    Json,
    Server,
    clean_environment,
    expect_contiguous,
    fresh,
    open_interactions,
    processes_with,
    soon,
    terminals,
    wait_for,
)


def marker() -> str:
    """A number of seconds for ``sleep`` that no other process sleeps for."""
    return f"60.{int(fresh()[2:], 16)}"


# -- drain -----------------------------------------------------------------------------------------------


async def test_sigterm_says_goaway_lets_runs_finish_and_closes_4503(make_server: MakeServer) -> None:
    server, conversation = make_server(), fresh()
    async with server.socket(conversation) as driver, server.socket(conversation) as idle:
        await driver.greeted()
        await idle.greeted()
        await driver.ok("run.start", input="/sleep 0.5\n/say finished")
        await driver.until("step.started")
        server.terminate()
        goaway = await driver.until("goaway")
        assert goaway["reconnect_after_ms"] > 0
        assert goaway["reason"]
        refused = await driver.error("run.start", input="more")
        assert (refused["code"], refused["retryable"]) == ("overloaded", True)
        final = await driver.until_final()
        assert final["output"] == "finished"
        assert (await driver.closed())[0] == 4503
        assert (await idle.closed())[0] == 4503
    assert await server.exited() == 0
    assert "Traceback" not in server.errors
    server = make_server(data=server.data)
    assert (await server.log(conversation))[-1]["type"] == "run.completed"


async def test_sigterm_gives_a_run_only_so_much_time(make_server: MakeServer) -> None:
    server, conversation, mark = make_server(settings="[server]\ndrain_grace_s = 0.3\n"), fresh(), marker()
    async with server.socket(conversation) as socket:
        await socket.ok("conversation.configure", config={"approvals": {"mode": "auto"}})
        await socket.ok("run.start", input=f"/run sleep {mark}")
        await wait_for(lambda: processes_with(mark, "sleep"))
        server.terminate()
        async with soon(5):
            assert (await socket.closed())[0] == 4503
            assert await server.exited() == 0
    assert not processes_with(mark)
    assert "Traceback" not in server.errors


async def test_a_run_that_waits_for_a_person_does_not_hold_up_the_drain(make_server: MakeServer) -> None:
    server = make_server()
    async with server.socket() as socket:
        await socket.ok("run.start", input="/ask hm?")
        await socket.asked()
        server.terminate()
        async with soon(3):
            assert (await socket.closed())[0] == 4503
            assert await server.exited() == 0


async def test_a_second_signal_ends_it_at_once(make_server: MakeServer) -> None:
    server = make_server(settings="[server]\ndrain_grace_s = 60\n")
    async with server.socket() as socket:
        await socket.ok("run.start", input="/sleep 600")
        await socket.until("step.started")
        server.terminate()
        await socket.until("goaway")
        server.process.send_signal(2)
        async with soon(5):
            await server.exited()


async def test_nobody_new_is_let_in_during_a_drain(make_server: MakeServer) -> None:
    server = make_server()
    async with server.socket() as socket, server.http() as http:
        assert (await http.get("/health")).status_code == 200
        await socket.ok("run.start", input="/sleep 1")
        await socket.until("step.started")
        server.terminate()
        await socket.until("goaway")
        with pytest.raises(OSError):
            async with server.socket(subprotocols=["hermes.v1"]):
                pass
        await socket.closed()


async def test_during_a_drain_clients_without_a_socket_are_told_that_the_server_goes_down(
    make_server: MakeServer,
) -> None:
    server, said = make_server(), [{"role": "user", "content": "hi"}]
    async with server.socket() as socket, server.http() as http:
        session = (await http.post("/api/sessions")).json()["session"]["id"]
        await socket.ok("run.start", input="/sleep 1")
        await socket.until("step.started")
        server.terminate()
        await socket.until("goaway")
        for path, body in (
            ("/v1/runs", {"input": "hi"}),
            ("/v1/responses", {"model": "hermes-agent", "input": "hi"}),
            ("/v1/chat/completions", {"model": "hermes-agent", "messages": said}),
            (f"/api/sessions/{session}/chat", {"message": "hi"}),
        ):
            answer = await http.post(path, json=body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "gateway_draining"), path
            assert answer.headers["Retry-After"] == "1"
        await socket.closed()


# -- crash -----------------------------------------------------------------------------------------------


def expect_whole(log: list[Json]) -> None:
    """One terminal for everything, items, calls and interactions before their run's."""
    assert not {name: count for name, count in terminals(log).items() if count != 1}, log[-8:]
    ended: set[str] = set()
    for event in log:
        assert event.get("run_id") not in ended, event
        if event["type"] in ("run.completed", "run.failed", "run.cancelled"):
            ended.add(event["run_id"])


@pytest.mark.parametrize(
    "script", ["/stream 300 1", "/run sleep {mark}", "/ask well?", "/think {words}\n/par\n/run echo x"]
)
async def test_a_run_that_a_crash_cut_short_goes_on_once_the_server_is_back(
    make_server: MakeServer, script: str
) -> None:
    server, conversation, mark = make_server(), fresh(), marker()
    script = script.format(mark=mark, words="hm " * 300) + "\n/say done"
    async with server.socket(conversation) as socket:
        await socket.ok("conversation.configure", config={"approvals": {"mode": "auto"}})
        started = await socket.ok("run.start", input=script)
        waiting = await socket.ok("run.start", input="/say next")
        until = {"/s": "message.delta", "/r": "tool.executing", "/a": "run.waiting", "/t": "reasoning.delta"}
        await socket.until(until[script[:2]])
        await socket.recv() if script.startswith("/s") else None
        seen = list(socket.log)
        server.kill()
    server = make_server(data=server.data)
    async with server.socket(conversation, from_="start") as socket:
        await socket.greeted()
        if script.startswith("/a"):
            asked = open_interactions(socket.log)[0]
            await socket.ok("interaction.reply", interaction_id=asked["interaction_id"], answers={"answer": "very"})
        if not any(e["run_id"] == waiting["run_id"] for e in socket.of("run.completed")):
            final = await socket.until_final(waiting["run_id"])
            assert final["type"] == "run.completed"
    log = await server.log(conversation)
    assert log[: len(seen)] == seen
    expect_whole(log)
    ended = next(e for e in log if e["type"] == "run.completed")
    assert (ended["run_id"], ended["output"]) == (started["run_id"], "done")
    assert [e["attempt"] for e in log if e["type"] == "run.recovered"] == [2]
    assert {e["status"] for e in log if e["type"] == "tool.completed"} <= {"ok", "interrupted"}
    assert ("interrupted" in {e.get("status") for e in log}) == ("sleep" in script)
    assert {e["reason"] for e in log if e["type"] == "item.discarded"} <= {"retried"}
    assert [e["answers"] for e in log if e["type"] == "interaction.resolved"] in ([], [{"answer": "very"}])
    await wait_for(lambda: not processes_with(mark))


async def test_nothing_that_was_seen_is_lost_by_kills_in_the_middle_of_a_stream(make_server: MakeServer) -> None:
    server, conversation = make_server(), fresh()
    seen: list[Json] = []
    for _ in range(3):
        async with server.socket(conversation, after=len(seen)) as socket:
            await socket.ok("run.start", input="/stream 100000", when_busy="interrupt")
            while len(socket.of("message.delta")) < 40:
                await socket.recv()
            server.kill()
            assert expect_contiguous(socket.log, after=len(seen)) == len(seen) + len(socket.log)
            seen += socket.log
        server = make_server(data=server.data)
        log = await server.log(conversation)
        assert log[: len(seen)] == seen
        seen = log
    async with server.socket(conversation) as socket:
        await socket.greeted()
        await socket.ok("run.stop", queue="clear")
        await socket.until_final()
    expect_whole(await server.log(conversation))


async def test_the_epoch_stays_and_the_instance_changes(make_server: MakeServer) -> None:
    server, conversation = make_server(), fresh()
    async with server.socket(conversation) as socket:
        await socket.run("hi")
    async with server.socket(conversation) as socket:
        before = await socket.greeted()
    server.kill()
    server = make_server(data=server.data)
    async with server.socket(conversation, after=before["head"], epoch=before["epoch"]) as socket:
        after = await socket.greeted()
    assert after["epoch"] == before["epoch"]
    assert after["server"]["instance"] != before["server"]["instance"]
    assert after["resume"]["mode"] == "replay"


@pytest.mark.parametrize("how", ["restart", "kill", "idle"])
async def test_a_conversation_is_the_same_after_it_left_memory(make_server: MakeServer, how: str) -> None:
    settings = "[conversations]\nidle_s = 0.2\n" if how == "idle" else ""
    server, conversation = make_server(settings=settings), fresh()
    async with server.socket(conversation) as socket:
        config = {"approvals": {"mode": "auto"}, "metadata": {"a": [1, {"b": None}]}, "title": "kept"}
        first = await socket.ok("conversation.configure", config=config, id="first")
        await socket.ok("run.start", input="/think hm\n/run seq 3\n/par\n/tool list_files {}\n/sleep 0.2\n/say end")
        await socket.ok("run.steer", text="quick")
        await socket.until_final()
        await socket.run("/fail model_auth")
        await socket.ok("run.start", input="/stream 100000 5")
        await socket.until("message.delta")
        await socket.ok("run.stop")
        await socket.until_final()
        before = (await socket.ok("snapshot.get"))["snapshot"]
    if how == "idle":
        await asyncio.sleep(2.5)
    else:
        server.terminate() if how == "restart" else server.kill()
        await server.exited()
        server = make_server(data=server.data, settings=settings)
    async with server.socket(conversation) as socket:
        hello = await socket.recv()
        after = await socket.until("snapshot")
        assert await socket.ok("conversation.configure", config=config, id="first") == first | {"duplicate": True}
    del after["type"]
    assert after == before
    assert hello["head"] == before["at"]


async def test_a_conversation_that_cannot_be_read_keeps_no_other_from_its_work(make_server: MakeServer) -> None:
    server, broken, sound = make_server(), fresh(), fresh()
    for conversation in (broken, sound):
        async with server.socket(conversation) as socket:
            await socket.ok("run.start", input="/ask hm?")
            await socket.asked()
    server.kill()
    with closing(sqlite3.connect(server.data / "hermes-ws.db")) as database, database:
        changed = database.execute(
            "UPDATE events SET data = ? WHERE seq = 2 AND conversation = (SELECT key FROM conversations WHERE id = ?)",
            (b"rotten", broken),
        )
        assert changed.rowcount == 1
    server = make_server(data=server.data)
    async with server.socket(sound, from_="start") as socket:
        await socket.greeted()
        asked = open_interactions(socket.log)[0]
        await socket.ok("interaction.reply", interaction_id=asked["interaction_id"], answers={"answer": "on"})
        await socket.until("run.completed")
    async with server.http() as http:
        answer = await http.get(f"/api/conversations/{broken}/events")
        assert (answer.status_code, answer.json()["code"]) == (500, "internal")
        assert (await http.get("/api/conversations")).status_code == 200
    async with server.socket(broken, subprotocols=["hermes.v1"]) as socket:
        assert (await socket.closed())[0] == 4500
    async with server.socket(sound) as socket:
        await socket.run("hi")


# -- the data directory ----------------------------------------------------------------------------------


def run(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    return subprocess.run(
        [sys.executable, "-m", "hermes_ws.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=20,
        env=clean_environment() | (environment or {}),
        check=False,
    )


async def test_a_second_server_on_the_same_data_is_refused_and_says_who_has_it(server: Server) -> None:
    second = run("serve", "--data", str(server.data), "--port", "0")
    assert second.returncode != 0
    assert str(server.pid) in second.stderr
    assert str(server.data) in second.stderr
    assert "Traceback" not in second.stderr
    async with server.http() as http:
        assert (await http.get("/health")).status_code == 200


async def test_a_port_that_is_taken_is_refused_with_words(server: Server, tmp_path: Path) -> None:
    second = run("serve", "--data", str(tmp_path), "--port", str(server.port))
    assert second.returncode != 0
    assert str(server.port) in second.stderr
    assert "Traceback" not in second.stderr


async def test_a_data_directory_may_hold_other_files(make_server: MakeServer, tmp_path: Path) -> None:
    data = tmp_path / "mine"
    (data / "notes").mkdir(parents=True)
    (data / "notes" / "a.txt").write_text("keep")
    (data / "data.db").write_bytes(b"not a database")
    (data / "key").write_text("not a key")
    server = make_server(data=data)
    async with server.socket() as socket:
        await socket.run("hi")
    assert (data / "notes" / "a.txt").read_text() == "keep"
    assert (data / "data.db").read_bytes() == b"not a database"
    own = {path.name for path in data.iterdir()} - {"notes", "data.db", "key", server.logs.name}
    assert all(name.startswith("hermes-ws") for name in own)


async def test_names_on_disk_are_not_the_clients(server: Server) -> None:
    conversation = fresh("Very:Special.Name")
    async with server.socket(conversation) as socket:
        await socket.ok("conversation.configure", config={"approvals": {"mode": "auto"}})
        await socket.run("/run pwd; touch here")
        where = Path(socket.of("tool.completed")[0]["output"].strip())
    assert (where / "here").exists()
    assert where.is_relative_to(server.data.resolve())
    assert not [path for path in server.data.rglob("*") if "Special" in path.name]
    assert stat.S_IMODE(where.stat().st_mode) & 0o077 == 0


def test_a_data_directory_that_cannot_be_is_refused_with_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "hermes-ws.db").write_bytes(b"not a database at all" * 100)
    for data in (tmp_path / "file", tmp_path / "broken"):
        process = run("serve", "--data", str(data), "--port", "0")
        assert process.returncode != 0
        assert str(data) in process.stderr
        assert "Traceback" not in process.stderr


# -- settings --------------------------------------------------------------------------------------------


def settings_of(*arguments: str, environment: dict[str, str] | None = None) -> dict[str, tuple[str, str]]:
    """What ``hermes-ws config`` prints: value and origin by name."""
    process = run("config", *arguments, environment=environment)
    assert process.returncode == 0, process.stderr
    rows = [line.split(None, 1) for line in process.stdout.splitlines()]
    return {name: (rest.rsplit("  ", 1)[0].strip(), rest.rsplit("  ", 1)[1].strip()) for name, rest in rows}


def test_later_sources_win_and_config_says_which(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('[server]\nhost = "127.0.0.2"\nport = 1\nmodel_name = "m"\n[readers]\nheartbeat_s = 7.5\n')
    environment = {
        "API_SERVER_PORT": "2",
        "API_SERVER_KEY": "very-secret",
        "API_SERVER_CORS_ORIGINS": "https://a.example, https://b.example",
        "HERMES_WS_PORT": "3",
        "HERMES_WS_TOOLS_FETCH_BYTES": "99",
    }
    found = settings_of("--config", str(file), environment=environment)
    assert found["server.host"] == ('"127.0.0.2"', f"file {file}")
    assert found["server.port"] == ("3", "environment HERMES_WS_PORT")
    assert found["server.key"] == ("(hidden)", "environment API_SERVER_KEY")
    assert found["server.allowed_origins"][1] == "environment API_SERVER_CORS_ORIGINS"
    assert json.loads(found["server.allowed_origins"][0]) == ["https://a.example", "https://b.example"]
    assert found["readers.heartbeat_s"][0] == "7.5"
    assert found["tools.fetch_bytes"] == ("99", "environment HERMES_WS_TOOLS_FETCH_BYTES")
    assert found["readers.stall_s"][1] == "default"
    assert settings_of(environment={"API_SERVER_PORT": "2"})["server.port"] == ("2", "environment API_SERVER_PORT")


def test_the_default_address_is_the_documented_one() -> None:
    found = settings_of()
    assert found["server.host"][0] == '"127.0.0.1"'
    assert found["server.port"] == ("8642", "default")


@pytest.mark.parametrize(
    ("toml", "environment", "named"),
    [
        ("[server]\nprot = 1\n", {}, "port"),
        ("[sever]\nport = 1\n", {}, "server"),
        ("[server]\nport = 'x'\n", {}, "server.port"),
        ("[server]\nport = 70000\n", {}, "server.port"),
        ("not toml", {}, "TOML"),
        ("", {"HERMES_WS_PROT": "1"}, "HERMES_WS_SERVER_PORT"),
        ("", {"HERMES_WS_PORT": "many"}, "HERMES_WS_PORT"),
        ("", {"API_SERVER_PORT": "many"}, "API_SERVER_PORT"),
        ('[server]\ndefault_agent = "nobody"\n', {}, "nobody"),
        ('[agents.x]\nkind = "nothing"\n', {}, "nothing"),
    ],
)
def test_a_wrong_setting_is_named_with_what_would_be_right(
    tmp_path: Path, toml: str, environment: dict[str, str], named: str
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(toml)
    port = () if "port" in named.lower() else ("--port", "0")
    process = run("serve", "--data", str(tmp_path / "data"), "--config", str(file), *port, environment=environment)
    assert process.returncode != 0
    assert named in process.stderr
    assert "Traceback" not in process.stderr


async def test_flags_win_over_the_environment_and_a_key_of_ones_own_works(make_server: MakeServer) -> None:
    environment = {"HERMES_WS_PORT": "1", "HERMES_WS_KEY": "my own key", "HERMES_WS_DATA": "/nonexistent"}
    server = make_server(environment=environment, key="my own key")
    assert not (server.data / "hermes-ws.key").exists()
    async with server.socket() as socket:
        await socket.greeted()


def test_an_empty_key_is_not_a_key(tmp_path: Path) -> None:
    process = run("serve", "--data", str(tmp_path), "--port", "0", environment={"API_SERVER_KEY": "  "})
    assert process.returncode != 0
    assert "server.key" in process.stderr


async def test_no_file_handles_or_processes_are_left_by_work(make_server: MakeServer) -> None:
    server = make_server()
    handles = Path(f"/proc/{server.pid}/fd")
    async with server.http() as http:
        await http.get("/health")
    async with server.socket() as socket:
        await socket.ok("conversation.configure", config={"approvals": {"mode": "auto"}})
        await socket.run("/run true")
    before = len(list(handles.iterdir()))
    for _ in range(5):
        async with server.socket() as socket:
            await socket.ok("conversation.configure", config={"approvals": {"mode": "auto"}})
            await socket.run("/run echo a\n/par\n/run echo b\n/tool list_files {}\n/run sleep 0.1 & echo c")
    await wait_for(lambda: len(list(handles.iterdir())) <= before)
    children = subprocess.run(["ps", "--ppid", str(server.pid)], capture_output=True, text=True, check=False)
    assert len(children.stdout.splitlines()) <= 1
