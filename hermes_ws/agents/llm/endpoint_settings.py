"""What an agent of the kind ``llm`` is told in the configuration: where its model is, and how to treat it."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

import httpx2
import msgspec

from hermes_ws.agents.llm.loop import LlmSettings
from hermes_ws.errors import SettingsError
from hermes_ws.ranges import AtLeastOne, NonNegative, Seconds
from hermes_ws.secret_values import resolve

__all__ = ["EndpointSettings", "address", "request_headers", "secrets_of"]

_OURS: Final = frozenset({"messages", "model", "n", "stream", "tools"})
"""Fields of a request that are not the operator's to set."""
_NOT_A_CLIENTS: Final = _OURS | {"stream_options", "tool_choice"}
"""Fields of a request that are no parameters."""
_PARAMETERS: Final[list[str]] = [
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "stop",
    "max_tokens",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "logit_bias",
    "response_format",
    "reasoning_effort",
    "verbosity",
    "parallel_tool_calls",
    "user",
]
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OF_HTTP: Final = frozenset({"connection", "content-length", "content-type", "host", "transfer-encoding"})


class EndpointSettings(LlmSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[agents.NAME]`` with ``kind = "llm"``."""

    base_url: Annotated[str, msgspec.Meta(min_length=1)]
    """The API's address, up to and without `/chat/completions`: `http://127.0.0.1:11434/v1`."""
    model: Annotated[str, msgspec.Meta(min_length=1)]
    """The model, as the endpoint calls it; a conversation may name another."""
    api_key: str | None = None
    """Sent as a bearer token: `env:NAME`, `file:PATH`, or the key itself."""
    headers: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    """Further headers of every request; their values may be `env:NAME` or `file:PATH` too."""
    options: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])
    """Further fields of every request, as the endpoint knows them: `temperature`, `top_p`, `reasoning_effort`."""
    client_parameters: list[str] = msgspec.field(default_factory=_PARAMETERS.copy)
    """Fields of a request that whoever starts a run may set, where `options` does not. `max_tokens` stands for
    `max_completion_tokens` too; it can shorten an answer, and makes it no longer than `max_output_tokens` or, without
    that, half of `context_window`. `[]`: none."""
    context_window: AtLeastOne | None = None
    """Tokens that the model takes, its answer included. With it a conversation is trimmed before it is too long;
    without it only when the endpoint refuses it."""
    max_output_tokens: AtLeastOne | None = None
    """Tokens that one answer may have. Absent: as the endpoint likes."""
    output_limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the endpoint calls that. OpenAI's newer models want `max_completion_tokens`."""
    images: bool = True
    """Whether the model takes images. If not, it is told that there was one."""
    send_reasoning: bool = False
    """Whether the model is sent its own reasoning of the same run back, as `reasoning_content`. Some models work better
    with it in a run with tools; many endpoints refuse it."""
    think_tags: bool = True
    """Whether `<think>…</think>` at the beginning of an answer is reasoning."""
    stream_usage: bool = True
    """Whether to ask for the usage at the end of a stream (`stream_options`), which a few endpoints refuse."""
    trim_retries: NonNegative = 3
    """How often a conversation that the endpoint finds too long is halved and sent again."""
    connect_timeout_s: Seconds = 10.0
    """How long a connection may take."""
    first_byte_timeout_s: Seconds = 300.0
    """How long an answer may take to begin; a local model may have to be loaded first."""
    chunk_timeout_s: Seconds = 120.0
    """How long an answer that has begun may pause. A comment that keeps the line alive counts as a sign of life."""
    connections: AtLeastOne = 100
    """Connections to the endpoint at once; each answer that is on its way needs one."""
    event_bytes: AtLeastOne = 16_777_216
    """What one event of a stream may weigh, and an answer that is not streamed."""
    answer_bytes: AtLeastOne = 268_435_456
    """What one streamed answer may weigh in all."""


def address(settings: EndpointSettings) -> httpx2.URL:
    """The endpoint's address. Raises :class:`SettingsError` for what is none."""
    try:
        url = httpx2.URL(settings.base_url.strip())
    except httpx2.InvalidURL as error:
        raise SettingsError(f"base_url is no address: {error}") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise SettingsError(f"base_url {_bare(url)!r} is not like http://127.0.0.1:11434/v1")
    if url.path.rstrip("/").endswith("/chat/completions"):
        raise SettingsError(f"base_url {_bare(url)!r} names a route; leave out /chat/completions")
    return url.copy_with(path=url.path.rstrip("/"))


def request_headers(settings: EndpointSettings) -> dict[str, str]:
    """The headers that the operator wants in every request, secrets found. Raises :class:`SettingsError`."""
    found: dict[str, str] = {}
    for name, value in settings.headers.items():
        if not _HEADER.fullmatch(name) or name.lower() in _OF_HTTP:
            raise SettingsError(f"headers: {name!r} is no header that can be set")
        found[name] = _header(value, f"headers.{name}")
    if settings.api_key is not None:
        found["Authorization"] = f"Bearer {_header(settings.api_key, 'api_key')}"
    _check_fields(settings)
    return found


def _check_fields(settings: EndpointSettings) -> None:
    """Raises :class:`SettingsError` where a field of a request is nobody's to set."""
    for setting, wrong in (
        ("options", _OURS & settings.options.keys()),
        ("client_parameters", _NOT_A_CLIENTS & set(settings.client_parameters)),
    ):
        if wrong:
            raise SettingsError(f"{setting}: {', '.join(sorted(wrong))} cannot be set there")


def _header(value: str, what: str) -> str:
    """What a header is to hold. Raises :class:`SettingsError`."""
    secret = resolve(value, what).strip()
    if not secret:
        raise SettingsError(f"{what} is empty; leave it out if there is none")
    if not (secret.isprintable() and secret.isascii()):
        raise SettingsError(f"{what} holds characters that no HTTP header can carry; it is one line of plain ASCII")
    return secret


def secrets_of(url: httpx2.URL, headers: dict[str, str]) -> list[str]:
    """What must be in no message: the values of the headers, with the bare key, and what the address holds."""
    values = [*headers.values(), *(value.removeprefix("Bearer ") for value in headers.values())]
    return [*values, url.password, *(value for _, value in url.params.multi_items())]


def _bare(url: httpx2.URL) -> str:
    return str(url.copy_with(userinfo=b"", query=None, fragment=None))
