"""The app inside somebody else's, on somebody else's server: plain ``websocket.send`` takes the extension's place."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.streams import stream
from tests.server.test_inbox import Inbox, answers
from tests.wire import Server, clean_environment, expect_contiguous, fresh

PROGRAM = """
import contextlib
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from hermes_ws.settings import ServerSettings, Settings
from hermes_ws.transports.server import open_app

data, port, ws = sys.argv[1:]


@contextlib.asynccontextmanager
async def lifespan(app):
    async with open_app(Settings(server=ServerSettings(data=data, key="mounted"))) as (inner, runtime, running):
        app.routes.append(Mount("/agents", inner))
        print("mounted", flush=True)
        yield


app = Starlette(routes=[Route("/", lambda request: PlainTextResponse("mine"))], lifespan=lifespan)
uvicorn.run(app, port=int(port), ws=ws, log_level="warning")
"""


@pytest.fixture(scope="module", params=["websockets-sansio", "websockets"])
def mounted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    data = tmp_path_factory.mktemp("mounted")
    with (data / "out").open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(data), str(port), request.param],
            stdout=out,
            stderr=out,
            env=clean_environment(),
        )
    server = Server(data, f"http://127.0.0.1:{port}/agents", "mounted", process, data)
    give_up = time.monotonic() + 15
    while not _listens(port):
        assert process.poll() is None, (data / "out").read_text()
        assert time.monotonic() < give_up
        time.sleep(0.02)
    yield server
    server.stop()
    assert "Traceback" not in Path(data / "out").read_text()


def _listens(port: int) -> bool:
    import socket

    with socket.socket() as line:
        return line.connect_ex(("127.0.0.1", port)) == 0


async def test_a_run_streams_over_a_stock_server(mounted: Server) -> None:
    conversation = fresh()
    async with mounted.socket(conversation) as one, mounted.socket(conversation, from_="start") as two:
        await one.greeted()
        await two.greeted()
        await one.ok("conversation.configure", config={"approvals": {"mode": "auto"}})
        final = await one.run("/think a\n/run echo b\n/stream 2000\n/say c")
        await two.until_final()
        assert final["output"] == "c"
    assert one.counted() == two.counted()
    assert expect_contiguous(one.log) == final["seq"]
    assert await mounted.log(conversation) == one.log


async def test_a_slow_reader_catches_up_on_a_stock_server(mounted: Server) -> None:
    conversation = fresh()
    async with mounted.socket(conversation) as driver, mounted.socket(conversation, after=0) as slow:
        await slow.greeted()
        slow.connection.transport.pause_reading()
        final = await driver.run("/stream 5000\n/say " + "x" * 500_000)
        final = await driver.run("/say " + "x" * 500_000)
        slow.connection.transport.resume_reading()
        await slow.until_seq(final["seq"])
    assert slow.log == driver.log


async def test_the_log_streams_and_is_exported_on_a_stock_server(mounted: Server) -> None:
    conversation = fresh()
    async with mounted.socket(conversation) as driver, stream(mounted, conversation) as some:
        await driver.greeted()
        final = await driver.run("/stream 2000\n/say c")
        await some.until_seq(final["seq"])
    assert some.data == driver.counted()
    async with mounted.http() as http:
        answer = await http.get(f"/api/conversations/{conversation}/export")
    assert answer.text.splitlines() == driver.counted()


async def test_bad_frames_are_errors_on_a_stock_server_too(mounted: Server) -> None:
    async with mounted.socket() as socket:
        await socket.greeted()
        for bad in ("{", "[]", b"\x00\x01", '{"type":"x"}'):
            await socket.send(bad)
            assert (await socket.recv())["type"] == "error"
        assert (await socket.ok("ping"))["head"] == 0


async def test_access_is_judged_on_a_stock_server_too(mounted: Server) -> None:
    from websockets.exceptions import InvalidStatus

    with pytest.raises(InvalidStatus) as caught:
        async with mounted.socket(key="wrong"):
            pass
    assert caught.value.response.status_code in (401, 403)
    async with mounted.socket(key="wrong", subprotocols=["hermes.v1"]) as socket:
        assert (await socket.closed())[0] == 4401
    async with mounted.http(headers={"Origin": "https://evil.example"}) as http:
        assert (await http.get("/api/conversations")).status_code == 403


async def test_plain_text_works_on_a_stock_server_too(mounted: Server) -> None:
    async with mounted.socket(plain=1) as person:
        assert "conversation" in await person.recv_line()
        await person.send("hello")
        while "done" not in await person.recv_line():
            pass


async def test_tickets_name_the_place_where_it_is_mounted(mounted: Server) -> None:
    async with mounted.http() as http:
        grant = (await http.post("/api/tickets", json={"conversation": "demo"})).json()
        mine = await http.get(mounted.url.removesuffix("/agents") + "/")
    assert mine.text == "mine"
    assert grant["url"].startswith("/agents/ws/demo?ticket=")


async def test_the_inbox_works_over_a_stock_server(mounted: Server) -> None:
    async with Inbox.at(mounted) as inbox:
        started = await inbox.ok("run.start", conversation_id="new", input="/ask go?")
        conversation = started["conversation_id"]
        asked = await inbox.asked(conversation)
        await inbox.ok("interaction.reply", conversation_id=conversation, **answers(asked))
        await inbox.until(conversation, status="idle")
        await inbox.ok("inbox.more")
        assert inbox.told[-2:] == ["inbox.page", "ok"]
    async with Inbox.at(mounted) as inbox:
        assert conversation in inbox.lines
