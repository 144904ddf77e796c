"""A run with something of everything, on a server that dies at its n-th commit, for every n (or some of them)."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import MakeServer
from tests.faults.crashes import Crashing, command, died, finished, of, one
from tests.faults.model_client import LOST
from tests.wire import Json, Server, fresh, open_interactions

LONG = os.environ.get("HERMES_WS_TESTS_LONG") == "1"


@pytest.mark.timeout(900 if LONG else 120)
@pytest.mark.parametrize("point", ["commit.before", "commit.during", "commit.landed", "commit.after"])
async def test_at_whatever_commit_the_server_dies(make_server: MakeServer, tmp_path: Path, point: str) -> None:
    reached, count = True, 1
    while reached:
        reached = await _dies_at(Crashing(make_server), f"{point}:{count}", tmp_path / f"marks-{count}")
        count += 1 if LONG else 9
    assert count > 20


async def _dies_at(crashing: Crashing, point: str, marks: Path) -> bool:
    """Whether the run has so many commits."""
    script = (
        f"/think hm\n/run echo one >> {marks}\n/ask Which? | a | b\n/par\n/run echo two >> {marks}\n"
        '/tool write_file {"path": "x", "content": "y"}\n/fail model_overloaded 1\n/say done'
    )
    start, conversation = command("run.start", input=script), fresh()
    server = crashing.start(point)
    seen, reached = await _worked_with(server, conversation, start)
    if reached:
        await died(server)
        server = crashing.start()
        more, _ = await _worked_with(server, conversation, start)
        assert [text for text in more if text in seen] == seen
    log = await finished(server, conversation, seen)
    server.kill()
    assert one(log, "run.completed")["output"] == "done"
    ended = {e["call_id"]: e["status"] for e in of(log, "tool.completed")}
    for call in of(log, "tool.started", name="terminal"):
        word = call["arguments"]["command"].split()[1]
        times = marks.read_text().split().count(word) if marks.exists() else 0
        assert times == 1 if ended[call["call_id"]] == "ok" else times <= 1, (point, word, ended)
    assert len(of(log, "run.started")) == 1
    return reached


async def _worked_with(server: Server, conversation: str, start: Json) -> tuple[list[str], bool]:
    """Send the run, answer what is asked, until it or the server is at its end: what was seen, whether it died."""
    seen: list[str] = []
    answers: dict[str, Json] = {"approval": {"option": "once"}, "clarify": {"answers": {"answer": "a"}}}
    with suppress(*LOST):
        async with server.socket(conversation, after=0) as socket:
            await socket.send(start)
            while True:
                frame = await socket.recv()
                if "seq" in frame:
                    seen.append(socket.raw[-1])
                if frame["type"] in ("live", "interaction.requested"):
                    for asked in open_interactions(socket.log):
                        name = asked["interaction_id"]
                        await socket.send(command("interaction.reply", interaction_id=name, **answers[asked["kind"]]))
                if frame["type"] == "run.completed":
                    return seen, False
    return seen, True
