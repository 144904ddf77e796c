"""Kills while an image is on its way: what events name is there, and nothing else stays for good."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import MakeServer
from tests.faults.crashes import Crashing, command, finished, until_dead
from tests.pictures import blob_id, image, picture, stored
from tests.wire import Server, fresh, wait_for

UPKEEP = "[blobs]\nunused_s = 60\n[store]\nsweep_every_s = 0.1\n"


def files(data: Path, where: str) -> list[Path]:
    return [path for path in data.glob(where) if path.is_file()]


async def fetch(server: Server, data: bytes, conversation: str) -> tuple[int, bytes]:
    async with server.http() as http:
        answer = await http.get(f"/api/blobs/{blob_id(data)}", params={"conversation": conversation})
    return answer.status_code, answer.content


@pytest.mark.parametrize("point", ["image.pooled", "image.linked", "commit.before:1:run.started"])
async def test_what_is_stored_and_not_committed_is_found_again_or_goes(make_server: MakeServer, point: str) -> None:
    servers, conversation, data = Crashing(make_server, settings=UPKEEP), fresh(), picture()
    start = command("run.start", input=image(data))
    server = servers.start(point)
    assert await until_dead(server, conversation, start) == []
    again = servers.start()
    assert (await again.post(conversation, start))["type"] == "ok"
    log = await finished(again, conversation)
    assert [event["input"] for event in log if event["type"] == "run.started"] == [[stored(data)]]
    assert await fetch(again, data, conversation) == (200, data)
    assert len(files(again.data, "hermes-ws-blobs/*/*")) == 1


@pytest.mark.parametrize("point", ["image.pooled", "image.linked", "commit.before:1:run.started"])
async def test_what_nobody_sends_again_goes_in_time(make_server: MakeServer, point: str) -> None:
    servers, data = Crashing(make_server, settings=UPKEEP), picture()
    server = servers.start(point)
    assert await until_dead(server, fresh(), command("run.start", input=image(data))) == []
    for path in files(server.data, "hermes-ws-images/*/unbegun"):
        os.utime(path, (1_000, 1_000))
    again = servers.start()
    await wait_for(
        lambda: not files(again.data, "hermes-ws-blobs/*/*") and not files(again.data, "hermes-ws-images/*/*")
    )


@pytest.mark.parametrize("point", ["commit.landed:1:run.started", "commit.after:1:run.started"])
async def test_what_is_committed_is_there(make_server: MakeServer, point: str) -> None:
    servers, conversation, data = Crashing(make_server, settings=UPKEEP), fresh(), picture()
    server = servers.start(point)
    await until_dead(server, conversation, command("run.start", input=image(data)))
    for path in [*files(server.data, "hermes-ws-images/*/*"), *files(server.data, "hermes-ws-blobs/*/*")]:
        os.utime(path, (1_000, 1_000))
    again = servers.start()
    log = await finished(again, conversation)
    assert [event["input"] for event in log if event["type"] == "run.started"] == [[stored(data)]]
    await wait_for(lambda: not files(again.data, "hermes-ws-images/*/unbegun"))
    assert await fetch(again, data, conversation) == (200, data)


async def test_a_deletion_that_was_killed_is_finished(make_server: MakeServer) -> None:
    servers, conversation, data = Crashing(make_server), fresh(), picture()
    server = servers.start()
    async with server.socket(conversation) as socket:
        await socket.run(image(data))
    server.kill()
    [folder] = [path for path in (server.data / "hermes-ws-images").iterdir() if path.is_dir()]
    folder.rename(folder.with_name(folder.name + ".deleting"))
    again = servers.start()
    assert await fetch(again, data, conversation) == (200, data), "it was not deleted after all"
    async with again.http() as http:
        assert (await http.delete(f"/api/conversations/{conversation}")).status_code == 204
    again.kill()
    last = servers.start()
    other = fresh()
    async with last.socket(other) as socket:
        await socket.run("hi")
    async with last.http() as http:  # whichever of them comes to it: after a deletion there is a sweep
        assert (await http.delete(f"/api/conversations/{other}")).status_code == 204
    await wait_for(lambda: not files(last.data, "hermes-ws-blobs/*/*"))
