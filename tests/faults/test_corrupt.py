"""A log that is damaged: what can be read is served, what cannot says so, and what is no log is refused."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import MakeServer
from tests.faults.crashes import command, finished, of
from tests.faults.disks import start_in_vain
from tests.faults.watched import SEED, company
from tests.wire import Server, fresh

PAGE = 4096
SAID = "\n".join(f"/say {n} {'x' * 300}" for n in range(30))
LONG_SCRIPT = f"{SAID}\n/ask Well? | a | b\n/say well"


def log_of(server: Server) -> Path:
    return server.data / "hermes-ws.db"


def check_point(path: Path) -> None:
    """Bring everything into the one file."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        assert db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0


def pages_of(path: Path, run_id: str) -> list[int]:
    """Pages that are full of a run's events, and of nobody else's."""
    data = path.read_bytes()
    assert data[16:18] == PAGE.to_bytes(2)
    pages = {at: data[at : at + PAGE] for at in range(0, len(data), PAGE)}
    return [at for at, page in pages.items() if page.count(b'"run_id":"') == page.count(run_id.encode()) > 4]


def overwrite(path: Path, places: list[int], chance: random.Random) -> None:
    with path.open("r+b") as file:
        for at in places:
            file.seek(at)
            file.write(chance.randbytes(PAGE))


async def begin(server: Server, conversation: str) -> str:
    """A run that says a good deal, and then waits for a person; its id."""
    async with server.socket(conversation) as socket:
        run = await socket.ok("run.start", input=LONG_SCRIPT)
        await socket.asked()
    return str(run["run_id"])


async def answered(server: Server, conversation: str) -> None:
    """The question is answered, and the run comes to its end."""
    async with company(server) as people:
        watched = await people.watch(conversation)
        view = watched.one.view
        assert view is not None
        await watched.until(lambda: view.interactions)
        [name] = view.interactions
        ok = await watched.one.command("interaction.reply", interaction_id=name, answers={"answer": "a"})
        assert ok["type"] == "ok", ok
        assert of(await watched.verdict(), "run.completed")[-1]["output"] == "well"


@pytest.mark.parametrize(("share", "end"), [("all", "killed"), ("one", "closed")])
async def test_damage_in_one_conversation_is_told_there_and_the_others_go_on(
    make_server: MakeServer, share: str, end: str
) -> None:
    server, chance = make_server(), random.Random(SEED)
    names = [fresh("one"), fresh("victim"), fresh("three")]
    runs = {name: await begin(server, name) for name in names}
    victim = names[1]
    if end == "closed":
        server.terminate()
        await server.exited()
    else:
        server.kill()
    check_point(log_of(server))
    pages = pages_of(log_of(server), runs[victim])[2:]  # the first ones are touched by what others append before them
    assert len(pages) > 5
    overwrite(log_of(server), pages if share == "all" else [pages[len(pages) // 2]], chance)
    server = make_server(data=server.data)
    async with server.http() as http:
        answer = await http.get(f"/api/conversations/{victim}/events", params={"after": 0, "limit": 1000})
        posted = await http.post(f"/api/conversations/{victim}/commands", json=command("run.start", input="hi"))
        refusals = [answer, posted]
    for refused in refusals:
        assert refused.status_code == 500, (refused.status_code, refused.text, f"seed {SEED}")
        assert refused.json()["code"] == "internal"
        assert refused.json()["type"] == "error"
    async with server.socket(victim, after=0, subprotocols=["hermes.v1"]) as socket:
        assert (await socket.closed())[0] == 4500
    for name in names:
        if name != victim:
            await answered(server, name)
    async with server.socket(fresh()) as socket:
        assert (await socket.run("/say new"))["type"] == "run.completed"
    listed = await server.get("/api/conversations")
    assert {one["conversation_id"] for one in listed["conversations"]} >= set(names)
    assert (await server.get("/health"))["status"] == "ok"
    assert "damaged" in server.errors
    server.terminate()
    assert await server.exited() == 0


async def test_damage_under_a_running_server_is_told_and_the_others_go_on(make_server: MakeServer) -> None:
    """The pages are read anew: a conversation leaves memory when it is idle."""
    server, chance = make_server(settings="[conversations]\nidle_s = 0.1\n"), random.Random(SEED)
    victim, other = fresh("victim"), fresh("other")
    async with server.socket(victim) as socket:
        run = await socket.run(f"{SAID}\n/say well")
    await begin(server, other)
    check_point(log_of(server))
    overwrite(log_of(server), pages_of(log_of(server), run["run_id"]), chance)
    with log_of(server).open("r+b") as file, closing(sqlite3.connect(log_of(server), isolation_level=None)) as db:
        db.execute("UPDATE meta SET value = value")  # whoever has pages in memory has to read them again
        file.flush()

    async def refused() -> bool:
        async with server.http() as http:
            answer = await http.get(f"/api/conversations/{victim}/events")
        return answer.status_code == 500

    async with company(server) as people:
        watched = await people.watch(other)
        for _ in range(200):
            if await refused():
                break
            await watched.one.command("ping")
        assert await refused()
        await answered(server, other)


# -- no log at all -------------------------------------------------------------------------------------------


def names_the_log(data: Path) -> str:
    """Start a server that must refuse, and say which file it is about; the one line that it says."""
    line = start_in_vain(data)
    assert "hermes-ws.db" in line
    return line


DAMAGES = {
    "header": "not a database",
    "text": "not a database",
    "schema": "damaged",
    "truncated": "damaged",
    "foreign": "something else",
    "directory": "unable to open",
}
"""What was done to the file, and what is said of it."""


async def test_what_is_no_log_is_refused_at_the_start_and_left_as_it_is(make_server: MakeServer) -> None:
    server, conversation = make_server(), fresh()
    await begin(server, conversation)
    server.terminate()
    await server.exited()
    path = log_of(server)
    check_point(path)
    whole = path.read_bytes()
    for beside in ("-wal", "-shm"):
        path.with_name(path.name + beside).unlink(missing_ok=True)
    for damage, says in DAMAGES.items():
        spoil(path, damage, whole)
        before = path.read_bytes() if path.is_file() else b""
        assert says in names_the_log(server.data), damage
        if path.is_file():
            assert path.read_bytes() == before, f"{damage}: what may still be saved is not touched"
        else:
            path.rmdir()
        path.write_bytes(whole)
    server = make_server(data=server.data)
    await answered(server, conversation)
    await finished(server, conversation)


def spoil(path: Path, damage: str, whole: bytes) -> None:
    match damage:
        case "header":
            path.write_bytes(random.Random(SEED).randbytes(100) + whole[100:])
        case "text":
            path.write_text("dear diary\n" * 1000)
        case "schema":
            path.write_bytes(whole[:100] + random.Random(SEED).randbytes(PAGE - 100) + whole[PAGE:])
        case "truncated":
            path.write_bytes(whole[: len(whole) // 2 // PAGE * PAGE])
        case "foreign":
            path.unlink()
            with closing(sqlite3.connect(path)) as db:
                db.execute("CREATE TABLE people (name TEXT)")
        case _:
            path.unlink()
            path.mkdir()


async def test_a_write_ahead_log_that_is_garbage_ends_where_it_is_damaged(make_server: MakeServer) -> None:
    """Its frames have check sums: what follows a wrong one was never there."""
    server, conversation = make_server(), fresh()
    async with server.socket(conversation) as socket:
        await socket.run("/say first")
    check_point(log_of(server))
    await begin(server, conversation)
    before = await server.log(conversation)
    server.kill()
    wal = log_of(server).with_name("hermes-ws.db-wal")
    with wal.open("r+b") as file:
        file.seek(wal.stat().st_size // 2)
        file.write(random.Random(SEED).randbytes(PAGE))
    server = make_server(data=server.data)
    log = await server.log(conversation)
    kept = next(n for n, event in enumerate(log) if event["type"] == "run.recovered")
    assert 0 < kept < len(before)
    assert log[:kept] == before[:kept]
    await answered(server, conversation)
