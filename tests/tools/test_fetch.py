"""fetch_url and the guarded client, against real servers on this machine."""

from __future__ import annotations

import asyncio
import gzip
import socket
import time
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

import anyio
import httpcore2
import httpx2
import pytest

from hermes_ws.errors import ToolError
from hermes_ws.tools import guarded
from hermes_ws.tools.addresses import AllowList
from hermes_ws.tools.base import ToolResult
from hermes_ws.tools.fetch import FetchUrl
from hermes_ws.tools.guarded import AddressRefused, GuardedBackend, guarded_client, resolve

from .conftest import Context

Answer = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]


class Site:
    """A web server: a path answers with bytes, or with what a function writes."""

    def __init__(self) -> None:
        self.port = 0
        self.answers: dict[str, Answer] = {}
        self.requests: list[str] = []
        self.tasks: set[asyncio.Task[None] | None] = set()

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def page(self, path: str, body: bytes, *headers: str, status: str = "200 OK") -> str:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
        self.answers[path] = "\r\n".join([*lines, "", ""]).encode() + body
        return self.url(path)

    def redirect(self, path: str, target: str) -> str:
        return self.page(path, b"", f"Location: {target}", status="302 Found")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tasks.add(asyncio.current_task())
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.requests.append(head)
            answer = self.answers[head.split()[1]]
            if isinstance(answer, bytes):
                writer.write(answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if head.startswith("HEAD") else answer)
                await writer.drain()
            else:
                await answer(writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    async def stop(self) -> None:
        """End what still answers."""
        for task in self.tasks:
            if task is not None:
                task.cancel()
                await asyncio.wait([task])


@pytest.fixture
async def site(ctx: Context) -> AsyncIterator[Site]:
    """A server on loopback, which is allowed."""
    site = Site()
    server = await asyncio.start_server(site.serve, "127.0.0.1", 0)
    site.port = server.sockets[0].getsockname()[1]
    ctx.configure(fetch_allow=[f"127.0.0.1:{site.port}"])
    async with server:
        yield site
        await site.stop()


async def fetch(ctx: Context, url: str, **arguments: Any) -> ToolResult:
    with anyio.fail_after(15):
        return await FetchUrl(ctx.settings).call(ctx, {"url": url, **arguments})


async def refused(ctx: Context, url: str) -> str:
    with pytest.raises(ToolError) as error:
        await fetch(ctx, url)
    return str(error.value)


# -- what comes back -----------------------------------------------------------------------------------


async def test_fetches_text(ctx: Context, site: Site) -> None:
    url = site.page("/", "grüß dich".encode(), "Content-Type: text/plain; charset=utf-8")
    assert await fetch(ctx, url) == ToolResult(
        output="grüß dich",
        structured={"status": 200, "url": url, "content_type": "text/plain; charset=utf-8", "truncated": False},
    )


@pytest.mark.parametrize(
    ("charset", "body", "text"),
    [
        ("iso-8859-1", b"caf\xe9", "café"),
        ("shift_jis", "日本".encode("shift_jis"), "日本"),
        ("utf-16", "x€".encode("utf-16"), "x€"),
        ("nonsense", b"x", "x"),
        ("zip", b"x", "x"),
        ("punycode", b"x", "x"),
        ("unicode_escape", b"\\u20ac", "\\u20ac"),
        ("utf-8", b"caf\xe9", "caf�"),
    ],
)
async def test_decodes_by_the_charset(ctx: Context, site: Site, charset: str, body: bytes, text: str) -> None:
    result = await fetch(ctx, site.page("/", body, f"Content-Type: text/html; charset={charset}"))
    assert result.output == text


async def test_a_head_is_the_headers(ctx: Context, site: Site) -> None:
    result = await fetch(ctx, site.page("/", b"body", "X-Test: yes"), method="HEAD")
    assert result.output is not None
    assert result.output.startswith("HTTP 200 OK\n")
    assert "x-test: yes" in result.output
    assert "content-length: 4" in result.output


@pytest.mark.parametrize("status", ["404 Not Found", "500 Internal Server Error"])
async def test_a_status_that_says_no_is_an_error(ctx: Context, site: Site, status: str) -> None:
    result = await fetch(ctx, site.page("/", b"why", "Content-Type: text/plain", status=status))
    assert result.is_error
    assert result.output == f"HTTP {status}\n\nwhy"
    assert result.structured["status"] == int(status[:3])


@pytest.mark.parametrize("kind", ["image/png", "application/octet-stream", ""])
async def test_what_is_binary_is_told_with_its_size(ctx: Context, site: Site, kind: str) -> None:
    headers = [f"Content-Type: {kind}"] if kind else []
    result = await fetch(ctx, site.page("/", b"\x89PNG\0\xff", *headers))
    assert result.output == f"[binary content, {kind or 'of unknown type'}, 6 bytes]"


async def test_text_that_says_nothing_of_itself_is_text(ctx: Context, site: Site) -> None:
    assert (await fetch(ctx, site.page("/", b"plain"))).output == "plain"


# -- bounds --------------------------------------------------------------------------------------------


async def test_a_body_is_cut_at_the_bound_and_at_a_character(ctx: Context, site: Site) -> None:
    ctx.configure(fetch_bytes=100)
    result = await fetch(ctx, site.page("/", "€".encode() * 100, "Content-Type: text/plain"))
    assert result.output == "€" * 33 + "\n[cut after 100 bytes]"
    assert result.structured["truncated"]


async def test_a_body_without_end_ends(ctx: Context, site: Site) -> None:
    async def forever(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
        while True:
            writer.write(b"x" * 65_536)
            await writer.drain()

    site.answers["/"] = forever
    result = await fetch(ctx, site.url())
    assert result.structured["truncated"]
    assert len(result.output or "") < ctx.settings.fetch_bytes + 100


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_compression_bomb_stays_small(ctx: Context, site: Site, encoding: str) -> None:
    plain = b"\0" * (64 << 20)
    bomb = gzip.compress(plain) if encoding == "gzip" else zlib.compress(plain)
    url = site.page("/", bomb, "Content-Type: text/plain", f"Content-Encoding: {encoding}")
    tracemalloc.start()
    result = await fetch(ctx, url)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result.structured["truncated"]
    assert peak < 24 << 20


async def test_compressed_text_is_text(ctx: Context, site: Site) -> None:
    body = gzip.compress(b"hello")
    assert (await fetch(ctx, site.page("/", body, "Content-Encoding: gzip"))).output == "hello"


@pytest.mark.parametrize("encoding", ["gzip, gzip", "br", "zstd"])
async def test_compression_not_asked_for_is_refused(ctx: Context, site: Site, encoding: str) -> None:
    body = gzip.compress(gzip.compress(b"hello"))
    assert "compressed" in await refused(ctx, site.page("/", body, f"Content-Encoding: {encoding}"))


async def test_damaged_compression_is_told(ctx: Context, site: Site) -> None:
    assert "the fetch failed" in await refused(ctx, site.page("/", b"nonsense", "Content-Encoding: gzip"))


async def test_the_whole_fetch_has_one_time(ctx: Context, site: Site) -> None:
    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    site.answers["/"] = drip
    ctx.configure(fetch_timeout_s=0.3)
    started = time.monotonic()
    assert "longer than 0.3 s" in await refused(ctx, site.url())
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("answer", [b"nonsense\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\nX: " + b"x" * 300_000 + b"\r\n\r\n"])
async def test_what_is_no_http_is_told(ctx: Context, site: Site, answer: bytes) -> None:
    site.answers["/"] = answer
    assert "the fetch failed" in await refused(ctx, site.url())


# -- redirects -----------------------------------------------------------------------------------------


async def test_redirects_are_followed(ctx: Context, site: Site) -> None:
    end = site.page("/end", b"there", "Content-Type: text/plain")
    site.redirect("/middle", "end")
    result = await fetch(ctx, site.redirect("/", "/middle"))
    assert result.output == "there"
    assert result.structured["url"] == end


async def test_redirects_are_counted(ctx: Context, site: Site) -> None:
    assert "more than 5 redirects" in await refused(ctx, site.redirect("/", "/"))
    assert len(site.requests) == 6


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://127.0.0.1:1/",
        "http://[::1]/",
        "http://localhost/",
        "//10.0.0.1/",
        "file:///etc/passwd",
        "ftp://example.com/",
        "gopher://127.0.0.1/",
        "http://user:pass@127.0.0.1/",
    ],
)
async def test_each_redirect_is_judged(ctx: Context, site: Site, target: str) -> None:
    with pytest.raises(AddressRefused):
        await fetch(ctx, site.redirect("/", target))
    assert len(site.requests) == 1


@pytest.mark.parametrize("target", ["http://[", "http://a:99999999/", "\x01http://"])
async def test_a_redirect_to_nowhere_is_told(ctx: Context, site: Site, target: str) -> None:
    await refused(ctx, site.redirect("/", target))


async def test_whoever_follows_redirects_each_is_judged(ctx: Context, site: Site) -> None:
    url = site.redirect("/", "http://127.0.0.1:1/")
    async with guarded_client(ctx.settings.fetch_allow, 5) as client:
        with pytest.raises(AddressRefused):
            await client.get(url, follow_redirects=True)


# -- the guard -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "LOCALHOST.",
        "127.1",
        "0x7f.1",
        "0x7f000001",
        "2130706433",
        "0177.0.0.1",
        "①②⑦.0.0.1",
        "0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
    ],
)
async def test_loopback_is_refused_however_it_is_written(ctx: Context, site: Site, host: str) -> None:
    site.page("/", b"private")
    ctx.configure(fetch_allow=[])
    await refused(ctx, site.url("/", host))
    assert site.requests == []


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://[fd00:ec2::254]/",
        "http://10.0.0.1/",
        "http://[fe80::1]/",
        "file:///etc/passwd",
        "ftp://example.com/",
        "example.com",
        "http://user@example.com/",
        "http://user:secret@example.com/",
        "https:///path",
    ],
)
async def test_what_is_never_fetched(ctx: Context, url: str) -> None:
    with pytest.raises(AddressRefused) as error:
        await fetch(ctx, url)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("url", ["http://[::1", "http://a:b/", "http://exa mple/\0", "http://" + "a" * 70 + ".com/"])
async def test_what_is_no_address_is_told(ctx: Context, url: str) -> None:
    await refused(ctx, url)


async def test_proxies_of_the_environment_are_not_used(
    ctx: Context, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert (await fetch(ctx, site.page("/", b"direct"))).output == "direct"


class Names:
    """A resolver that answers each question with the next of its answers."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        return self.answers.pop(0)


class Network(httpcore2.AsyncNetworkBackend):
    """Connects to nobody, and remembers to whom it was asked to."""

    def __init__(self, *dead: str) -> None:
        self.asked: list[str] = []
        self.dead = dead

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        self.asked.append(host)
        if host in self.dead:
            raise httpcore2.ConnectError("dead")
        return httpcore2.AsyncMockStream([])


async def test_a_rebound_name_gains_nothing() -> None:
    network = Network()
    backend = GuardedBackend(AllowList([]), Names(["93.184.216.34"], ["127.0.0.1"]), network)
    await backend.connect_tcp("rebind.test", 80)
    with pytest.raises(AddressRefused):
        await backend.connect_tcp("rebind.test", 80)
    assert network.asked == ["93.184.216.34"]


async def test_a_rebound_name_gains_nothing_in_a_fetch(ctx: Context, site: Site) -> None:
    site.redirect("/", site.url("/again", "rebind.test"))
    tool = FetchUrl(ctx.settings, resolver=Names(["127.0.0.1"], ["127.0.0.2"]))
    with pytest.raises(AddressRefused, match=r"'rebind\.test' is not, or not only, at a public address"):
        await tool.call(ctx, {"url": site.url("/", "rebind.test")})
    assert len(site.requests) == 1


async def test_one_private_address_among_public_ones_is_enough() -> None:
    network = Network()
    backend = GuardedBackend(AllowList([]), Names(["93.184.216.34", "::ffff:10.0.0.1"]), network)
    with pytest.raises(AddressRefused):
        await backend.connect_tcp("mixed.test", 80)
    assert network.asked == []


async def test_the_next_address_is_tried_where_one_is_dead() -> None:
    network = Network("1.1.1.1", "1.0.0.1")
    backend = GuardedBackend(AllowList([]), Names(["1.1.1.1", "1.0.0.1", "8.8.8.8"]), network)
    await backend.connect_tcp("x.test", 80, timeout=3)
    assert network.asked == ["1.1.1.1", "1.0.0.1", "8.8.8.8"]


async def test_when_all_are_dead_the_last_one_says_why() -> None:
    backend = GuardedBackend(AllowList([]), Names(["1.1.1.1"]), Network("1.1.1.1"))
    with pytest.raises(httpcore2.ConnectError, match="dead"):
        await backend.connect_tcp("x.test", 80)


@pytest.mark.parametrize("found", [[], ["nonsense"], ["1.1.1.1", "nonsense"]])
async def test_an_answer_that_cannot_be_judged_is_none(found: list[str]) -> None:
    backend = GuardedBackend(AllowList([]), Names(found), Network())
    with pytest.raises(httpcore2.ConnectError, match="cannot be resolved"):
        await backend.connect_tcp("x.test", 80)


async def test_a_resolver_that_hangs_or_fails_is_told(ctx: Context) -> None:
    async def hang(host: str, port: int) -> Sequence[str]:
        await anyio.sleep_forever()
        return []

    async def fail(host: str, port: int) -> Sequence[str]:
        raise socket.gaierror(-2, "Name or service not known")

    async with guarded_client([], 0.05, resolver=hang) as client:
        with pytest.raises(httpx2.ConnectTimeout, match="not resolved in time"):
            await client.get("http://x.test/")
    async with guarded_client([], 5, resolver=fail) as client:
        with pytest.raises(httpx2.ConnectError, match="Name or service not known"):
            await client.get("http://x.test/")


async def test_the_systems_resolver() -> None:
    assert "127.0.0.1" in await resolve("localhost", 80)
    with pytest.raises(OSError, match="not a host name"):
        await resolve("ä" * 70 + ".test", 80)


async def test_unix_sockets_are_refused() -> None:
    backend = GuardedBackend(AllowList([]), resolve)
    with pytest.raises(AddressRefused):
        await backend.connect_unix_socket("/run/docker.sock")


def test_a_client_whose_connections_cannot_be_guarded_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(httpx2.AsyncHTTPTransport, "__init__", lambda self, **_: None)
    with pytest.raises(RuntimeError, match="the guard would be void"):
        guarded_client([], 5)


def test_certificates_are_read_once() -> None:
    assert guarded._ssl_context() is guarded._ssl_context()
