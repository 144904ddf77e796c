"""A bad network between people and their server, and a server that is killed now and then on top of it."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from tests.conftest import MakeServer
from tests.faults.launch import MODULE
from tests.faults.people import People
from tests.faults.rough import RoughProxy
from tests.faults.torture import SETTINGS
from tests.faults.watched import LONG, SEED, company
from tests.wire import processes_with

SECONDS = 60.0 if LONG else 3.5
KILLS = 10 if LONG else 2


@pytest.mark.timeout(400 if LONG else 120)
@pytest.mark.parametrize("kills", [0, KILLS], ids=["cut", "cut and killed"])
async def test_on_a_bad_line_every_command_is_done_once_and_nothing_is_missed(
    make_server: MakeServer, tmp_path: Path, kills: int
) -> None:
    seed = SEED + kills
    chance = random.Random(seed)
    server = make_server(data=tmp_path / "data", settings=SETTINGS, module=MODULE)
    sleeping = f"87.{chance.randrange(10**8, 10**9)}"
    async with RoughProxy.before(server.port, seed=seed) as proxy, company(server, seed, proxy.url) as people:
        crowd: list[People] = []
        for number in range(3):
            watched = await people.watch(f"rough-{seed}-{number}", clients=3, anew=0.2)
            marks = tmp_path / f"marks-{number}"
            own = random.Random(chance.random())
            crowd.append(People(watched.journal, watched.clients, marks, own, sleeping))
        living = [asyncio.create_task(one.live()) for one in crowd]
        try:
            for _ in range(kills + 1):
                await asyncio.wait(living, timeout=SECONDS / (kills + 1))
                for watched in people.watched:
                    watched.look()
                if kills:
                    server.kill()
                    server = await asyncio.to_thread(
                        make_server, data=tmp_path / "data", settings=SETTINGS, module=MODULE
                    )
                    proxy.upstream = server.port
            proxy.calm = True
            proxy.cut_all()
            for one in crowd:
                one.over = True
            for one, watched in zip(crowd, people.watched, strict=True):
                await watched.until(lambda one=one: not one.waiting)  # type: ignore[misc]
                log = await watched.verdict(one.marks)
                assert len(log) > 50
        finally:
            for task in living:
                task.cancel()
            await asyncio.gather(*living, return_exceptions=True)
        sent = [sent for watched in people.watched for sent in watched.journal.sent.values()]
        again = sum(one.tries > 1 for one in sent)
        print(f"seed {seed}: {len(sent)} commands, {again} sent again, {proxy.connections} lines, {dict(proxy.fates)}")
        assert proxy.cut > 5
        assert again > 0
    assert processes_with(sleeping, "sleep") == []
    assert "Traceback" not in server.errors, server.errors
