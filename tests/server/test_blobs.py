"""Images over the wire: stored once, named by their blob, given to who may see them."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hermes_ws.console.view import View
from hermes_ws.protocol.codec import decode_event
from tests.conftest import MakeServer
from tests.pictures import blob_id, data_url, image, picture, stored
from tests.session.second_fold import fold
from tests.wire import Json, Server, fresh, wait_for

AUTO = {"approvals": {"mode": "auto"}}


def pooled(data: Path) -> list[Path]:
    return [path for path in data.glob("hermes-ws-blobs/*/*") if path.is_file()]


async def upload(
    server: Server, data: bytes, mime: str = "image/png", *, key: str | None = None, **query: str
) -> tuple[int, Json]:
    async with server.http(key=key) as http:
        answer = await http.post("/api/blobs", content=data, headers={"content-type": mime}, params=query)
    return answer.status_code, answer.json()


async def fetch(server: Server, blob: str, *, key: str | None = None, **query: str) -> tuple[int, bytes]:
    async with server.http(key=key) as http:
        answer = await http.get(f"/api/blobs/{blob}", params=query)
    return answer.status_code, answer.content


async def ticket(server: Server, conversation: str, role: str = "driver") -> dict[str, str]:
    """The query parameters of one request by somebody who reaches only this conversation."""
    async with server.http() as http:
        granted = (await http.post("/api/tickets", json={"conversation": conversation, "role": role})).json()
    return {"conversation": conversation, "ticket": granted["ticket"]}


async def test_a_data_url_is_stored_once_and_events_name_its_blob(make_server: MakeServer) -> None:
    server, data = make_server(), picture(5_000)
    parts: list[Any] = [{"type": "text", "text": "look"}, {**image(data)[0], "detail": "high"}]
    for conversation in (fresh(), fresh()):
        async with server.socket(conversation) as socket:
            final = await socket.run(parts)
            assert "look" in final["output"]
            snapshot = (await socket.ok("snapshot.get"))["snapshot"]
        expected = [parts[0], {**stored(data), "detail": "high"}]
        log = await server.log(conversation)
        assert [event["input"] for event in log if event["type"] == "run.started"] == [expected]
        assert snapshot["items"][0]["content"] == expected
        assert fold(log).view()["items"] == snapshot["items"]
    assert [path.stat().st_nlink for path in pooled(server.data)] == [3]
    assert await fetch(server, blob_id(data)) == (200, data)
    assert b"base64" not in (server.data / "hermes-ws.db").read_bytes()


async def test_a_queued_run_has_its_images_too_and_so_has_its_retry(server: Server) -> None:
    conversation, data = fresh(), picture()
    async with server.socket(conversation) as socket:
        await socket.ok("run.start", input="/sleep 0.2")
        queued = await socket.ok("run.start", input=[*image(data), {"type": "text", "text": "/fail model_auth"}])
        assert queued["disposition"] == "queued"
        failed = await socket.until_final(queued["run_id"])
        assert failed["type"] == "run.failed"
        await socket.ok("run.retry", run_id=queued["run_id"])
        await socket.until_final()
    log = await server.log(conversation)
    named = [event["input"][0] for event in log if event["type"] in ("run.queued", "run.started")][1:]
    assert named == [stored(data)] * 3


async def test_a_person_at_a_terminal_sees_a_line(server: Server) -> None:
    conversation, data = fresh(), picture(12_345)
    line = f"you: [image png, 12.3 kB, {blob_id(data)}]"
    async with server.socket(conversation, plain=1) as socket:
        await socket.send({"type": "run.start", "input": image(data)})
        while (await socket.recv_line()) != line:
            pass
    async with server.socket(conversation, plain=1) as socket:
        while (await socket.recv_line()) != line:
            pass
    [started] = [event for event in await server.log(conversation) if event["type"] == "run.started"]
    shown = View(color=False).event(decode_event(json.dumps(started).encode()))
    assert shown == f"> {line.removeprefix('you: ')}\n"


@pytest.mark.parametrize("mime", ["image/png", "image/jpeg", "image/gif", "image/webp"])
async def test_an_upload_is_given_back_as_it_came(server: Server, mime: str) -> None:
    data = picture(70_000, mime)
    expected = {name: value for name, value in stored(data, mime).items() if name != "type"}
    assert await upload(server, data, "image/anything") == (201, expected)
    assert await upload(server, data) == (201, expected)
    async with server.http() as http:
        got = await http.get(f"/api/blobs/{blob_id(data)}")
        head = await http.head(f"/api/blobs/{blob_id(data)}")
        known = await http.get(f"/api/blobs/{blob_id(data)}", headers={"if-none-match": got.headers["etag"]})
    assert got.content == data
    for name, value in {
        "content-type": mime,
        "content-length": "70000",
        "etag": f'"{expected["sha256"]}"',
        "cache-control": "private, max-age=31536000, immutable",
        "x-content-type-options": "nosniff",
        "content-disposition": "inline",
    }.items():
        assert got.headers.get_list(name) == head.headers.get_list(name) == [value]
    assert (head.content, known.status_code, known.content) == (b"", 304, b"")


async def test_an_upload_is_used_by_its_id(server: Server) -> None:
    conversation, data = fresh(), picture(2_000_000)
    assert (await upload(server, data))[0] == 201
    lie = {"type": "image", "blob": blob_id(data), "sha256": "0" * 64, "mime": "text/html", "size": 1}
    async with server.socket(conversation) as socket:
        ok = await socket.ok("run.start", id="once", input=[lie])
        again = await socket.ok("run.start", id="once", input=[lie])
        assert (again["run_id"], again["duplicate"]) == (ok["run_id"], True)
        other = await socket.error("run.start", id="once", input=[{"type": "image", "blob": blob_id(data)}])
        assert other["code"] == "id_reused"
        await socket.until_final()
        assert socket.of("run.started")[0]["input"] == [stored(data)]


async def test_an_image_on_the_web_stays_where_it_is(server: Server) -> None:
    parts = [{"type": "image", "url": "https://example.com/disk.png", "mime": "image/png", "detail": "low"}]
    async with server.socket() as socket:
        await socket.run(parts)
        assert socket.of("run.started")[0]["input"] == [
            {"type": "image", "url": "https://example.com/disk.png", "detail": "low"}
        ]


PNG = data_url(picture())


@pytest.mark.parametrize(
    ("part", "code", "path", "words"),
    [
        ({}, "invalid_frame", "", "`url` or `blob`"),
        ({"url": PNG, "blob": "blob_" + "0" * 64}, "invalid_frame", "", "one of the two"),
        ({"url": "ftp://example.com/a.png"}, "invalid_frame", ".url", "http:, https: or data: URL"),
        ({"url": "file:///etc/passwd"}, "invalid_frame", ".url", "http:, https: or data: URL"),
        ({"url": "https://"}, "invalid_frame", ".url", "http:, https: or data: URL"),
        ({"url": "https://[::"}, "invalid_frame", ".url", "http:, https: or data: URL"),
        ({"url": "http://example.com/a b"}, "invalid_frame", ".url", "http:, https: or data: URL"),
        ({"url": ""}, "invalid_frame", ".url", "http:, https: or data: URL"),
        ({"url": "data:"}, "invalid_frame", ".url", "like data:image/png;base64,"),
        ({"url": "data:image/png,%89PNG"}, "invalid_frame", ".url", "like data:image/png;base64,"),
        ({"url": "data:image/png;base64,"}, "invalid_frame", ".url", "this is no image"),
        ({"url": PNG[:-1] + "!"}, "invalid_frame", ".url", "not base64"),
        ({"url": PNG + "\n"}, "invalid_frame", ".url", "not base64"),
        ({"url": PNG + "é"}, "invalid_frame", ".url", "not base64"),
        ({"url": data_url(b"<svg/>", "image/svg+xml")}, "invalid_frame", ".url", "this is no image"),
        ({"url": data_url(picture(5_001))}, "too_large", ".url", "at most 5000 bytes"),
        ({"url": data_url(picture(50_000))}, "too_large", ".url", "at most 5000 bytes"),
        ({"blob": ""}, "invalid_frame", ".blob", "64 hex digits"),
        ({"blob": "blob_../../x"}, "invalid_frame", ".blob", "64 hex digits"),
        ({"blob": "blob_" + "0" * 64}, "not_found", ".blob", "POST /api/blobs"),
        ({"url": 1}, "invalid_frame", ".url", "str"),
        ({"url": PNG, "size": "large"}, "invalid_frame", ".size", "int"),
    ],
)
async def test_what_is_no_image_is_refused_with_why_and_nothing_is_stored(
    small: Server, part: Json, code: str, path: str, words: str
) -> None:
    async with small.socket() as socket:
        before = pooled(small.data)
        error = await socket.error("run.start", input=[*image(picture()), {"type": "image", **part}])
        assert (error["code"], error["path"]) == (code, f"$.input[1]{path}"), error
        assert words in error["message"]
        assert pooled(small.data) == before
        assert (await socket.ok("ping"))["head"] == 0


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server that takes small images, and few."""
    settings = "[blobs]\nimage_bytes = 5000\nconversation_bytes = 12000\nunused_bytes = 12000\ninput_images = 3\n"
    running = Server.start(tmp_path_factory.mktemp("small"), settings=settings)
    yield running
    running.stop()
    assert "Traceback" not in running.errors, running.errors


async def test_an_input_has_so_many_images_and_no_more(small: Server) -> None:
    data = picture()
    async with small.socket() as socket:
        error = await socket.error("run.start", input=image(data) * 4)
        assert (error["code"], error["path"]) == ("too_large", "$.input")
        await socket.run(image(data) * 3)


async def test_a_full_conversation_says_so_and_others_are_not_concerned(small: Server) -> None:
    conversation, first = fresh(), picture(5_000)
    async with small.socket(conversation) as socket:
        await socket.run(image(first))
        await socket.run([*image(first), *image(picture(5_000))])
        error = await socket.error("run.start", input=image(picture(5_000)))
        assert (error["code"], error["path"]) == ("too_large", "$.input")
        assert "12000 bytes together" in error["message"]
        await socket.run(image(first))
    status, refused = await upload(small, picture(5_000), conversation=conversation)
    assert (status, refused["code"]) == (413, "too_large")
    async with small.socket() as other:
        await other.run(image(picture(5_000)))


async def test_uploads_that_nobody_uses_fill_up_and_make_room_when_they_are_used(make_server: MakeServer) -> None:
    server = make_server(settings="[blobs]\nunused_bytes = 10000\n")
    one, two, three = (picture(5_000) for _ in range(3))
    assert [(await upload(server, data))[0] for data in (one, two)] == [201, 201]
    status, refused = await upload(server, three)
    assert (status, refused["code"], refused["retryable"]) == (507, "storage_full", True)
    async with server.socket() as socket:
        await socket.run([{"type": "image", "blob": blob_id(one)}])
    assert (await upload(server, three))[0] == 201


@pytest.mark.parametrize(
    ("content", "mime", "status", "code"),
    [
        (b"<svg/>", "image/svg+xml", 415, "unsupported"),
        (b"", "image/png", 415, "unsupported"),
        (picture(), "application/json", 415, "unsupported"),
        (picture(), "", 415, "unsupported"),
        (picture(5_001), "image/png", 413, "too_large"),
    ],
    ids=["svg", "nothing", "another type", "no type", "too large"],
)
async def test_an_upload_that_is_none_is_refused(
    small: Server, content: bytes, mime: str, status: int, code: str
) -> None:
    before = pooled(small.data)
    refused = await upload(small, content, mime)
    assert (refused[0], refused[1]["code"]) == (status, code)
    assert pooled(small.data) == before


async def test_an_upload_that_is_cut_short_leaves_nothing(server: Server) -> None:
    data, before = picture(100_000), pooled(server.data)
    head = f"POST /api/blobs HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {server.key}\r\n"
    head += "Content-Type: image/png\r\n"
    chunk = b"%x\r\n%b\r\n" % (50_000, data[:50_000])
    for more in ("Content-Length: 100000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n"):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write((head + more).encode() + (data[:50_000] if "Length" in more else chunk))
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        del reader
    assert (await upload(server, picture()))[0] == 201
    assert len(pooled(server.data)) == len(before) + 1
    assert (await fetch(server, blob_id(data)))[0] == 404
    assert (await fetch(server, blob_id(data[:50_000])))[0] == 404


# -- who may ---------------------------------------------------------------------------------------------


async def test_who_has_one_conversation_sees_and_uses_only_its_images(server: Server) -> None:
    mine, theirs, data, secret = fresh(), fresh(), picture(), picture()
    async with server.socket(mine) as one, server.socket(theirs) as two:
        await one.run(image(data))
        await two.run(image(secret))
    await upload(server, unused := picture())
    assert await fetch(server, blob_id(data), key="", **await ticket(server, mine, "observer")) == (200, data)
    nowhere = await fetch(server, "blob_" + "0" * 64, key="", **await ticket(server, mine))
    for blob in (blob_id(secret), blob_id(unused)):
        assert await fetch(server, blob, key="", **await ticket(server, mine)) == nowhere
    assert nowhere[0] == 404
    assert (await fetch(server, blob_id(secret), conversation=mine))[0] == 404
    query = await ticket(server, mine)
    async with server.socket(mine, key="", ticket=query["ticket"]) as bound:
        for blob in (blob_id(secret), blob_id(unused), "blob_" + "0" * 64):
            error = await bound.error("run.start", input=[{"type": "image", "blob": blob}])
            assert (error["code"], error["path"]) == ("not_found", "$.input[0].blob")
        await bound.run([{"type": "image", "blob": blob_id(data)}])
    foreign = (await ticket(server, mine))["ticket"]
    assert (await fetch(server, blob_id(secret), key="", conversation=theirs, ticket=foreign))[0] == 403


async def test_what_a_ticket_uploads_is_its_conversations_at_once(server: Server) -> None:
    conversation, other, data = fresh(), fresh(), picture(2_000_000)
    status, body = await upload(server, data, key="", **await ticket(server, conversation))
    assert (status, body["blob"]) == (201, blob_id(data))
    assert (await fetch(server, blob_id(data), key="", **await ticket(server, conversation)))[0] == 200
    assert (await fetch(server, blob_id(data), key="", **await ticket(server, other)))[0] == 404
    query = await ticket(server, conversation)
    async with server.socket(conversation, key="", ticket=query["ticket"]) as socket:
        await socket.run([{"type": "image", "blob": blob_id(data)}])
        assert socket.of("run.started")[0]["input"] == [stored(data)]
    async with server.http(key="") as http:
        nameless = await http.post("/api/blobs", content=data, params={"ticket": query["ticket"]})
    assert nameless.status_code == 401


async def test_only_drivers_upload_and_nobody_does_without_a_key(server: Server) -> None:
    data, conversation = picture(), fresh()
    for role, expected in (("observer", 403), ("responder", 403), ("driver", 201)):
        assert (await upload(server, data, key="", **await ticket(server, conversation, role)))[0] == expected
    assert (await upload(server, data, key=""))[0] == 401
    assert (await fetch(server, blob_id(data), key=""))[0] == 401
    assert (await upload(server, data, conversation="new"))[0] == 400
    assert (await upload(server, data, conversation="no id"))[0] == 400
    for nonsense in ("x", "blob_", "blob_" + "g" * 64, "..%2f..%2fhermes-ws.key", "%00"):
        assert (await fetch(server, nonsense))[0] == 404


# -- forks, deletion, upkeep -----------------------------------------------------------------------------


async def test_a_fork_has_the_images_that_it_shows(server: Server) -> None:
    source, first, second = fresh(), picture(), picture()
    async with server.socket(source) as socket:
        boundary = (await socket.run(image(first)))["run_id"]
        await socket.run(image(second))
        fork = (await socket.ok("conversation.fork", after_run=boundary))["conversation_id"]
    async with server.http() as http:
        await http.delete(f"/api/conversations/{source}")
    assert (await fetch(server, blob_id(first), conversation=fork)) == (200, first)
    assert (await fetch(server, blob_id(second), conversation=fork))[0] == 404
    log = await server.log(fork)
    assert [event["input"] for event in log if event["type"] == "run.started"] == [[stored(first)]]


async def test_deletion_takes_what_no_other_conversation_refers_to(make_server: MakeServer) -> None:
    server, one, other, shared, own = make_server(), fresh(), fresh(), picture(), picture()
    for conversation, images in ((one, [shared, own]), (other, [shared])):
        async with server.socket(conversation) as socket:
            await socket.run([part for data in images for part in image(data)])
    async with server.http() as http:
        assert (await http.delete(f"/api/conversations/{one}")).status_code == 204
    await wait_for(lambda: len(pooled(server.data)) == 1)
    assert (await fetch(server, blob_id(own)))[0] == 404
    assert await fetch(server, blob_id(shared), conversation=other) == (200, shared)
    async with server.socket(one) as socket:
        error = await socket.error("run.start", input=[{"type": "image", "blob": blob_id(own)}])
        assert error["code"] == "not_found"
    async with server.http() as http:
        assert (await http.delete(f"/api/conversations/{other}")).status_code == 204
    await wait_for(lambda: pooled(server.data) == [])


async def test_a_server_forgets_uploads_that_nobody_uses(make_server: MakeServer) -> None:
    server = make_server(settings="[blobs]\nunused_s = 60\n[store]\nsweep_every_s = 0.1\n")
    unbegun, begun, used = fresh(), fresh(), picture()
    await upload(server, picture())
    await upload(server, picture(), conversation=unbegun)
    await upload(server, used, conversation=begun)
    async with server.socket(begun) as socket:
        await socket.run([{"type": "image", "blob": blob_id(used)}])
    long_ago = time.time() - 100
    for path in [*pooled(server.data), *server.data.glob("hermes-ws-images/*/unbegun")]:
        os.utime(path, (long_ago, long_ago))
    await wait_for(lambda: len(pooled(server.data)) == 1)
    await wait_for(lambda: not [*server.data.glob("hermes-ws-images/*/unbegun")])
    assert await fetch(server, blob_id(used), conversation=begun) == (200, used)


# -- garbage ---------------------------------------------------------------------------------------------


async def test_garbage_is_refused_or_taken_and_never_breaks_anything(server: Server) -> None:
    seed = int(os.environ.get("HERMES_WS_TESTS_SEED", "0")) or random.randrange(2**32)
    chance = random.Random(seed)
    good = data_url(picture(60))
    async with server.socket() as socket:
        for _ in range(300):
            url = list(good)
            for _ in range(chance.randint(1, 4)):
                at = chance.randrange(len(url))
                url[at : at + chance.randint(0, 3)] = chance.choices("=+/,;:da \n\x00é😀A%", k=chance.randint(0, 3))
            part = {"type": "image", chance.choice(["url", "url", "url", "blob"]): "".join(url)}
            answer = await socket.command("run.start", input=[part])
            assert answer["type"] == "ok" or answer["code"] in ("invalid_frame", "queue_full"), (seed, part, answer)
        await socket.ok("run.stop", queue="clear") if await _busy(socket) else None
        assert (await socket.run("still there"))["type"] == "run.completed"
    assert "Traceback" not in server.errors


async def _busy(socket: Any) -> bool:
    return (await socket.ok("snapshot.get"))["snapshot"].get("run") is not None


async def test_an_old_log_with_data_urls_in_it_is_read_as_ever(make_server: MakeServer) -> None:
    server, conversation, data = make_server(), fresh(), picture()
    async with server.socket(conversation) as socket:
        await socket.run(image(data))
    server.terminate()
    await server.exited()
    _as_it_used_to_be(server.data / "hermes-ws.db", json.dumps([stored(data)]), json.dumps(image(data)))
    again = make_server(data=server.data)
    async with again.socket(conversation, after=0) as socket:
        await socket.greeted()
        assert socket.of("run.started")[0]["input"] == image(data)
        final = await socket.run("and now?")
    assert final["type"] == "run.completed"
    assert fold(await again.log(conversation)).view()["items"][0]["content"] == image(data)


def _as_it_used_to_be(log: Path, new: str, old: str) -> None:
    """Have the log's events hold ``old`` where they hold ``new``."""
    compact = [json.dumps(json.loads(text), separators=(",", ":")) for text in (new, old)]
    with closing(sqlite3.connect(log)) as db, db:
        found = "instr(CAST(data AS TEXT), ?)"
        changed = db.execute(
            f"UPDATE events SET data = CAST(replace(CAST(data AS TEXT), ?, ?) AS BLOB) WHERE {found}",
            (*compact, compact[0]),
        )
        assert changed.rowcount == 1
