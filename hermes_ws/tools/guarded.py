"""The one HTTP client that fetches addresses which somebody else names: a client, a model, a tool.

It resolves a name once, judges every address that came back, and connects to exactly the address it judged, so a name
that resolves to something else a moment later gains nothing. Each request goes through the same door, so a redirect
is judged like a first request, whoever follows it. Proxy variables of the environment are not looked at: a proxy would
resolve by itself.
"""

from __future__ import annotations

import functools
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final, cast

import anyio
import httpcore2
import httpx2

from hermes_ws.errors import ToolError
from hermes_ws.tools.addresses import Address, AllowList, parse_address

__all__ = ["AddressRefused", "GuardedBackend", "Resolve", "guarded_client", "read_bounded", "resolve"]

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Finds the addresses of a host, as text. Raises ``OSError``."""

_TRIED: Final = 4
_CONNECTIONS: Final = 20
_ENCODINGS: Final = frozenset({"", "identity", "gzip", "deflate"})


class AddressRefused(ToolError):
    """The address may not be fetched. Says nothing of where a name leads: that is not for the model to know."""


def guarded_client(
    allow: Sequence[str] | AllowList,
    timeout_s: float | httpx2.Timeout,
    *,
    headers: Mapping[str, str] | None = None,
    resolver: Resolve | None = None,
    around: Callable[[httpx2.AsyncBaseTransport], httpx2.AsyncBaseTransport] = lambda transport: transport,
) -> httpx2.AsyncClient:
    """A client that reaches public addresses and those in ``allow``, and nothing else.

    ``timeout_s`` is for each wait, not the whole: bound that from outside. Redirects are not followed unless a
    request asks for it. ``around`` wraps the transport. Requests raise :class:`AddressRefused` or ``httpx2.HTTPError``.
    """
    allowed = allow if isinstance(allow, AllowList) else AllowList(allow)
    return httpx2.AsyncClient(
        transport=around(_GuardedTransport(GuardedBackend(allowed, resolver or resolve))),
        headers={"Accept-Encoding": "gzip, deflate", **(headers or {})},
        timeout=timeout_s,
        trust_env=False,
    )


async def read_bounded(response: httpx2.Response, limit: int) -> tuple[bytes, bool]:
    """The first ``limit`` bytes of the decoded body of a streamed response, and whether there is more.

    Nested compression is refused: a few bytes of it can keep a decoder busy for hours without a byte coming out.
    """
    if response.headers.get("content-encoding", "").strip().lower() not in _ENCODINGS:
        raise ToolError("the response is compressed in a way that was not asked for")
    body = bytearray()
    async with aclosing(response.aiter_bytes()) as chunks:
        async for chunk in chunks:
            body += chunk[: limit + 1 - len(body)]
            if len(body) > limit:
                return bytes(body[:limit]), True
    return bytes(body), False


async def resolve(host: str, port: int) -> Sequence[str]:
    """What the system's resolver says."""
    try:
        found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise OSError("not a host name") from error
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class GuardedBackend(httpcore2.AsyncNetworkBackend):
    """Connects to addresses that may be reached; the place where names become addresses."""

    def __init__(
        self, allowed: AllowList, resolver: Resolve, network: httpcore2.AsyncNetworkBackend | None = None
    ) -> None:
        self._allowed = allowed
        self._resolve = resolver
        self._network = network or cast("type[httpcore2.AsyncNetworkBackend]", httpcore2.AnyIOBackend)()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        addresses = await self._look_up(host, port, timeout)
        if not all(self._allowed.permits(host, port, address) for address in addresses):
            raise AddressRefused(
                f"{host!r} is not, or not only, at a public address; private addresses are fetched only where the "
                f"operator lists them ({self._allowed.setting})"
            )
        return await self._connect(addresses[:_TRIED], port, timeout, local_address, socket_options)

    async def _look_up(self, host: str, port: int, timeout: float | None) -> list[Address]:
        literal = parse_address(host)
        if literal is not None:
            return [literal]
        try:
            with anyio.fail_after(timeout):
                found = [parse_address(text) for text in await self._resolve(host, port)]
        except TimeoutError as error:
            raise httpcore2.ConnectTimeout(f"{host!r} was not resolved in time") from error
        except OSError as error:
            raise httpcore2.ConnectError(f"{host!r} cannot be resolved: {error.strerror or error}") from error
        addresses = [address for address in found if address is not None]
        if not addresses or len(addresses) < len(found):
            raise httpcore2.ConnectError(f"{host!r} cannot be resolved to an address")
        return addresses

    async def _connect(
        self,
        addresses: Sequence[Address],
        port: int,
        timeout: float | None,
        local_address: str | None,
        socket_options: Iterable[Any] | None,
    ) -> httpcore2.AsyncNetworkStream:
        """The first that answers; they share the time."""
        share = None if timeout is None else timeout / len(addresses)
        for address in addresses[:-1]:
            try:
                return await self._network.connect_tcp(str(address), port, share, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                continue
        return await self._network.connect_tcp(str(addresses[-1]), port, share, local_address, socket_options)

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore2.AsyncNetworkStream:
        raise AddressRefused("Unix sockets are not fetched from")

    async def sleep(self, seconds: float) -> None:
        await self._network.sleep(seconds)


class _GuardedTransport(httpx2.AsyncHTTPTransport):
    """httpx2's own transport over a pool of guarded connections."""

    def __init__(self, backend: GuardedBackend) -> None:
        context = _ssl_context()
        super().__init__(verify=context, trust_env=False)
        if not isinstance(vars(self).get("_pool"), httpcore2.AsyncConnectionPool):
            # Replacing something that is no longer used would leave every fetch unguarded.
            raise RuntimeError("this version of httpx2 keeps its connections elsewhere; the guard would be void")
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=context, max_connections=_CONNECTIONS, network_backend=backend
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        _judge(request.url)
        return await super().handle_async_request(request)


def _judge(url: httpx2.URL) -> None:
    if url.scheme not in ("http", "https"):
        raise AddressRefused(f"{url.scheme!r} addresses are not fetched; use http or https")
    if not url.host:
        raise AddressRefused("the address names no host; write it as https://host/path")
    if url.userinfo:
        raise AddressRefused("the address holds a user name or password, which is not sent; leave it out")


@functools.cache
def _ssl_context() -> ssl.SSLContext:
    """Made once: reading the certificates takes longer than many a fetch."""
    return httpx2.create_ssl_context()
