"""HTTP to one endpoint: a pool of connections, requests, and what becomes of those that fail.

Cancelling a read closes its connection at once, and with that the endpoint stops working on the answer. Proxy variables
of the environment are honoured: the operator names the endpoint and the environment.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final

import anyio
import httpx2
import msgspec

from hermes_ws import __version__
from hermes_ws.agents.llm.chunks import Chunk
from hermes_ws.agents.llm.endpoint_settings import EndpointSettings, address, request_headers, secrets_of
from hermes_ws.agents.llm.reading import Reading
from hermes_ws.agents.llm.refusals import Refusals

__all__ = ["Connection"]

_LET_GO_S: Final = 2.0
"""What closing a connection may take, whatever else is under way."""


class Connection:
    """The way to one endpoint. Made without a loop; connects on first use."""

    def __init__(self, settings: EndpointSettings) -> None:
        """Raises :class:`~hermes_ws.errors.SettingsError`."""
        self._settings = settings
        self._url = address(settings)
        self._headers = request_headers(settings)
        self.refusals = Refusals(self._url, secrets_of(self._url, self._headers))
        self._client: httpx2.AsyncClient | None = None

    async def aclose(self) -> None:
        """Close every connection."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def chunks(
        self, body: dict[str, Any], model: str, ended: Callable[[], bool]
    ) -> AsyncGenerator[Chunk | None, None]:
        """Ask for a completion; its chunks as they come, and None for the word that there are no more. ``ended``:
        whether the answer has said that it ends. Raises :class:`~hermes_ws.errors.ModelError`."""
        async with self._reading("POST", "/chat/completions", msgspec.json.encode(body)) as reading:
            if not 200 <= reading.status < 300:
                raise self.refusals.of_response(reading.status, reading.headers, await reading.error(), model)
            async with aclosing(reading.chunks(ended)) as chunks:
                async for chunk in chunks:
                    yield chunk
            if reading.done:
                yield None

    async def models(self) -> list[str] | None:
        """The models that the endpoint lists; None if it lists none. Raises :class:`~hermes_ws.errors.ModelError`."""
        async with self._reading("GET", "/models", b"") as reading:
            body = await reading.body(self._settings.event_bytes)
            if reading.status in (404, 405, 501):
                return None
            if reading.status != 200:
                raise self.refusals.of_response(reading.status, reading.headers, body, self._settings.model)
        try:
            return [model.id for model in msgspec.json.decode(body, type=_Models).data]
        except (msgspec.MsgspecError, RecursionError):
            return None

    @asynccontextmanager
    async def _reading(self, method: str, route: str, content: bytes) -> AsyncGenerator[Reading]:
        client = self._connected()
        url = self._url.copy_with(path=self._url.path + route)
        try:
            request = client.build_request(method, url, content=content)
            with anyio.fail_after(self._settings.first_byte_timeout_s):
                response = await client.send(request, stream=True)
            reading = Reading(response, self._settings, self.refusals)
            try:
                yield reading
            finally:
                with anyio.move_on_after(_LET_GO_S, shield=True):
                    await reading.aclose()
        except TimeoutError:
            wait_s = self._settings.first_byte_timeout_s
            raise self.refusals.silent("said nothing", wait_s, "first_byte_timeout_s") from None
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            raise self.refusals.of_failure(error) from None

    def _connected(self) -> httpx2.AsyncClient:
        if self._client is None:
            most, settings = self._settings.connections, self._settings
            nobody = DefaultCookiePolicy(allowed_domains=[])  # what one conversation was given is no other's to send
            self._client = httpx2.AsyncClient(
                cookies=CookieJar(nobody),
                headers={
                    "Accept": "text/event-stream, application/json",
                    "Accept-Encoding": "identity",
                    "Content-Type": "application/json",
                    "User-Agent": f"hermes-ws/{__version__}",
                    **self._headers,
                },
                timeout=httpx2.Timeout(
                    connect=settings.connect_timeout_s, read=None, write=None, pool=settings.first_byte_timeout_s / 2
                ),
                limits=httpx2.Limits(max_connections=most, max_keepalive_connections=most),
            )
        return self._client


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]
