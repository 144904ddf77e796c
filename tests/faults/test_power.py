"""Lost power: the log is a clean prefix with all that was promised in it, and what was told beyond its end has an epoch
of its own, which is over."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MakeServer
from tests.faults.crashes import finished, of, one
from tests.faults.model_client import DELTAS
from tests.faults.power import Power, with_another_boot
from tests.faults.watched import LONG, SEED, Watched, company
from tests.wire import Json, Server, fresh


@pytest.fixture
def powers() -> Iterator[list[Power]]:
    made: list[Power] = []
    yield made
    for one_power in made:
        one_power.leave()


def promised(watched: Watched, epoch: str) -> int:
    """The last number that somebody saw and that cannot be lost."""
    seen = watched.journal.seen[epoch]
    acknowledged = [ok["at"] for sent in watched.journal.sent.values() for ok in sent.oks if "snapshot" not in ok]
    events = [seq for seq, raw in seen.items() if json.loads(raw)["type"] not in DELTAS]
    return int(max([*events, *acknowledged]))


def expect_prefix(watched: Watched, epoch: str, log: list[Json], kept: int) -> None:
    """What was seen up to ``kept`` is there as it was."""
    for seq, raw in watched.journal.seen[epoch].items():
        if seq <= kept:
            assert log[seq - 1] == json.loads(raw)


async def epoch_of(server: Server, conversation: str) -> str:
    page = await server.get(f"/api/conversations/{conversation}/events", limit=1)
    return str(page["epoch"])


@pytest.mark.parametrize("witness", ["kept", "of another boot", "lost"] if LONG else ["kept", "of another boot"])
@pytest.mark.parametrize("left", ["what was synced", "some more"] if LONG else ["some more"])
async def test_what_a_power_cut_leaves(
    make_server: MakeServer, powers: list[Power], tmp_path: Path, witness: str, left: str
) -> None:
    server, chance = make_server(), random.Random(f"{SEED} {witness} {left}")
    power = Power(server, tmp_path / "trace")
    powers.append(power)
    async with company(server) as people:
        streams = await people.watch(fresh("streams"), anew=0.0, may_lose=True)
        waits = await people.watch(fresh("waits"), anew=0.0, may_lose=True)
        idle = await people.watch(fresh("idle"))
        await idle.one.command("run.start", input="/say idle 1.")
        await idle.at_rest()
        await power.watch()
        await waits.one.command("run.start", input="/ask Well? | a | b\n/say waited")
        asked = await waits.until_seen("interaction.requested")
        await streams.one.command("run.start", input="/think hm\n/say first\n/stream 800 3\n/say streamed")
        count = chance.randrange(60, 160)
        await streams.until_seen("message.delta", count)
        epochs = {watched.name: watched.journal.epochs[-1] for watched in people.watched}
        written, remained = power.cut(chance if left == "some more" else None)
        assert remained < written, "there was something to lose"
        file = server.data / "hermes-ws.unsynced"
        if witness == "lost":
            file.unlink()
        elif witness == "of another boot":
            with_another_boot(file)
        head = streams.journal.head(epochs[streams.name])
        server = make_server(data=server.data)
        after = {watched.name: await epoch_of(server, watched.name) for watched in people.watched}
        assert after[idle.name] == epochs[idle.name]
        assert (after[waits.name] == epochs[waits.name]) == (witness == "kept"), (
            "only what is not known is taken for lost"
        )
        assert after[streams.name] != epochs[streams.name]
        async with server.socket(streams.name, after=head, epoch=epochs[streams.name]) as socket:
            hello = await socket.recv()
            assert hello["resume"]["mode"] == "snapshot"
            assert hello["resume"]["reason"] == "epoch_changed"
            assert hello["epoch"] == after[streams.name]
        people.moved(server)
        ok = await waits.one.command(
            "interaction.reply", interaction_id=asked["interaction_id"], answers={"answer": "a"}
        )
        assert ok["type"] == "ok", ok
        for watched, output in ((streams, "streamed"), (waits, "waited"), (idle, "idle 1.")):
            log = await watched.verdict()
            assert one(log, "run.completed")["output"] == output
            expect_prefix(watched, epochs[watched.name], log, promised(watched, epochs[watched.name]))
        recovered = one(await streams.verdict(), "run.recovered")
        log = await streams.verdict()
        expect_prefix(streams, epochs[streams.name], log, recovered["seq"] - 1)
        assert recovered["seq"] <= head, "numbers that were told are told anew"
    assert "log.was_not_closed" in server.errors
    assert "Traceback" not in server.errors, server.errors


async def test_a_power_cut_that_takes_nothing_that_was_told_changes_no_epoch(
    make_server: MakeServer, powers: list[Power], tmp_path: Path
) -> None:
    server, conversation = make_server(), fresh()
    power = Power(server, tmp_path / "trace")
    powers.append(power)
    async with company(server) as people:
        watched = await people.watch(conversation)
        await power.watch()
        await watched.one.command("run.start", input="/say first\n/ask Well? | a | b\n/say well")
        asked = await watched.until_seen("interaction.requested")
        await watched.until_seen("run.waiting")
        epoch = watched.journal.epochs[-1]
        power.cut()
        server = make_server(data=server.data)
        assert await epoch_of(server, conversation) == epoch
        people.moved(server)
        await watched.one.command("interaction.reply", interaction_id=asked["interaction_id"], answers={"answer": "a"})
        assert one(await watched.verdict(), "run.completed")["output"] == "well"


@pytest.mark.parametrize("kills", [3 if LONG else 2])
async def test_kill_9_changes_no_epoch(make_server: MakeServer, kills: int) -> None:
    server, conversation = make_server(), fresh()
    async with company(server) as people:
        watched = await people.watch(conversation)
        await watched.one.command("run.start", input="/stream 300 3\n/say well")
        for number in range(kills):
            deltas = len([e for e in watched.seen() if e["type"] == "message.delta"])
            await watched.until_seen("message.delta", deltas + 40)
            epoch = watched.journal.epochs[-1]
            server.kill()
            server = make_server(data=server.data)
            assert await epoch_of(server, conversation) == epoch, f"after kill {number + 1}"
            people.moved(server)
        log = await watched.verdict()
        assert one(log, "run.completed")["output"] == "well"
        assert watched.journal.epochs == [epoch]
        assert len(of(log, "run.recovered")) == kills
    await finished(server, conversation)
