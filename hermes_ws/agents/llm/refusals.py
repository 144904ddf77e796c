"""What an endpoint's refusal means: status, body and exceptions become a :class:`~hermes_ws.errors.ModelError`.

Servers that call themselves OpenAI-compatible agree least on their errors. The status decides where it is clear; where
it is not, what the body says. The message names the endpoint, tells what it said, and what can be done; secrets that it
repeated are taken out.
"""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import ssl
from collections.abc import Iterable, Mapping
from typing import Any, Final, cast
from urllib.parse import quote

import httpx2
import msgspec

from hermes_ws.agents.llm.retry_after import retry_after_s
from hermes_ws.errors import ModelError

__all__ = ["HTML_ADVICE", "Refusals"]

_SAID_CHARS: Final = 500
_LEAST_SECRET: Final = 4
"""Shorter ones are placeholders, and parts of words."""
_SHOWN_PREFIX: Final = 6
"""Endpoints that hide the middle of a key show its ends: what begins like the key is taken for it."""

HTML_ADVICE: Final = "base_url is probably not that of an OpenAI-compatible API; it mostly ends with /v1"

_CONTEXT: Final = re.compile(
    r"context_length_exceeded|context_window_exceeded|exceed_context_size"
    r"|maximum context length|maximum model length|model'?s (maximum )?context length"
    r"|(exceed|longer than|greater than|overflow|too large for|larger than)[^.]{0,60}context"
    r"|context[^.]{0,40}(exceed|overflow|too small|is full)"
    r"|loaded with context length of only|reached context length|context shift is disabled"
    r"|prompt is too long|input is too long|input token count[^.]{0,40}exceed|maximum number of tokens"
    r"|reduce the length of (the|your) (messages|prompt|input)",
    re.IGNORECASE,
)
"""OpenAI, vLLM, SGLang; llama.cpp; Ollama; LM Studio; OpenRouter and those behind it."""
_QUOTA: Final = re.compile(
    r"insufficient_quota|insufficient credits|exceeded your current quota|billing", re.IGNORECASE
)
_LOADING: Final = re.compile(r"loading model|model is (currently )?loading|overloaded|no slot", re.IGNORECASE)
_LIMITED: Final = re.compile(r"rate.?limit|too many requests", re.IGNORECASE)
_KEY: Final = re.compile(
    r"invalid_api_key|api_key_invalid|api key not valid|(incorrect|invalid) api key|unauthorized|authentication",
    re.IGNORECASE,
)
_NO_TOOLS: Final = re.compile(
    r"does not support tools|support tool use|tool.?choice[^.]{0,60}requires|--jinja|tools param requires",
    re.IGNORECASE,
)
_NO_IMAGES: Final = re.compile(
    r"(image|vision|multimodal|mmproj)[^.]{0,60}(not support|unsupported|not a multimodal)"
    r"|not support[^.]{0,40}(image|vision|multimodal)|not a multimodal model|missing data required for image input",
    re.IGNORECASE,
)
_MODEL: Final = re.compile(r"model", re.IGNORECASE)
_LENGTH_STATUSES: Final = frozenset({200, 400, 422, 500})
_OVERLOADED: Final = frozenset({502, 503, 504, 529})


class Refusals:
    """Tells what went wrong at one endpoint. ``secrets`` are in none of its messages."""

    def __init__(self, url: httpx2.URL, secrets: Iterable[str]) -> None:
        self._where = f"{url.scheme}://{url.netloc.decode('ascii', 'replace')}{url.path}"
        self._hidden = _pattern(secrets)

    # -- what it said ----------------------------------------------------------------------------------

    def of_response(self, status: int, headers: Mapping[str, str], body: bytes, model: str) -> ModelError:
        """The endpoint answered with an error."""
        said = _said(body)
        limited = status == 429 or bool(_LIMITED.search(said))
        return self._of(status, said, model, retry_after_s(headers, limited=limited))

    def in_stream(self, error: Any, model: str) -> ModelError:
        """The endpoint sent an error where a piece of its answer should be."""
        code = cast(dict[str, Any], error).get("code") if isinstance(error, dict) else None
        status = code if isinstance(code, int) and 400 <= code < 600 else 200
        return self._of(status, _message(error), model, None)

    def _of(self, status: int, said: str, model: str, wait_s: float | None) -> ModelError:
        too_large = status == 413 and not _LIMITED.search(said)
        if too_large or (status in _LENGTH_STATUSES and _CONTEXT.search(said)):
            return ModelError("context_length", self._line(status, said, "the conversation is longer than it takes"))
        if status in (401, 403) or (status in (200, 400) and _KEY.search(said)):
            return ModelError("model_auth", self._line(status, said, "check the agent's api_key"))
        if status == 402 or (status in (200, 429) and _QUOTA.search(said)):
            line = self._line(status, said, "the account behind the api_key has nothing left to spend")
            return ModelError("model_rate_limited", line, retryable=False)
        if status == 429 or (status == 200 and _LIMITED.search(said)):
            return ModelError("model_rate_limited", self._line(status, said, _waiting(wait_s)), retry_after_s=wait_s)
        if status in _OVERLOADED or (status in (200, 500) and _LOADING.search(said)):
            return ModelError("model_overloaded", self._line(status, said, _waiting(wait_s)), retry_after_s=wait_s)
        if status == 408:
            return ModelError("model_unreachable", self._line(status, said, ""), retry_after_s=wait_s)
        retryable = status == 200 or status >= 500
        line = self._line(status, said, _advice(status, said, model))
        return ModelError("model_bad_response", line, retryable=retryable, retry_after_s=wait_s)

    def _line(self, status: int, said: str, advice: str) -> str:
        answered = f"answered {status}" if status != 200 else "broke off"
        what = f": {self._shown(said)}" if said else ""
        return f"{self._where} {answered}{what}{f' ({advice})' if advice else ''}"

    def _shown(self, text: str) -> str:
        """Text of an endpoint, without secrets, on one line, bounded."""
        line = " ".join(self.hide(text).split())
        return line if len(line) <= _SAID_CHARS else f"{line[:_SAID_CHARS]} …"

    def hide(self, text: str) -> str:
        """``text`` without the secrets."""
        return self._hidden.sub("[hidden]", text) if self._hidden is not None else text

    # -- what it did -----------------------------------------------------------------------------------

    def bad(self, problem: str, body: bytes = b"", advice: str = "", *, retryable: bool = True) -> ModelError:
        """The endpoint answered with what cannot be read as an answer."""
        shown = self._shown(body[: 4 * _SAID_CHARS].decode(errors="replace"))
        said = f": {shown}" if shown else ""
        line = f"{self._where} {problem}{said}{f' ({advice})' if advice else ''}"
        return ModelError("model_bad_response", line, retryable=retryable)

    def no_room(self) -> ModelError:
        """The endpoint cut its answer before the first word: the window was full already (Ollama, llama.cpp)."""
        return ModelError("context_length", f"{self._where} had no room left for an answer (raise its context window)")

    def silent(self, what: str, seconds: float, setting: str) -> ModelError:
        """Nothing came in time."""
        return ModelError("model_unreachable", f"{self._where} {what} for {seconds:g} s ({setting})")

    def of_failure(self, error: Exception) -> ModelError:
        """The connection could not be had, or did not hold."""
        reason = self._shown(_reason(error))
        match error:
            case httpx2.PoolTimeout():
                problem, advice = "was not asked: all connections to it are in use", "raise the agent's connections"
            case httpx2.ConnectTimeout():
                problem, advice = "did not take the connection in time", "is it up? (connect_timeout_s)"
            case httpx2.ConnectError() | httpx2.ProxyError():
                problem, advice = f"cannot be reached: {reason}", "is it up, and is base_url right?"
            case httpx2.DecodingError():
                return self.bad(f"sent what cannot be decompressed: {reason}")
            case _:
                problem, advice = f"broke the connection off: {reason}", ""
        return ModelError("model_unreachable", f"{self._where} {problem}{f' ({advice})' if advice else ''}")


def _waiting(wait_s: float | None) -> str:
    return "" if wait_s is None else f"it wants {wait_s:g} s to pass first"


def _advice(status: int, said: str, model: str) -> str:
    """What to do about an error that is not clear from its status."""
    if _NO_TOOLS.search(said):
        return "this model takes no tools: give the agent none, or name another model"
    if _NO_IMAGES.search(said):
        return "this model takes no images: set images = false, or name another model"
    if status == 404 and _MODEL.search(said):
        return (
            f"there is no model {model!r} there: set the agent's model, or the conversation's; `hermes-ws doctor` lists"
        )
    if status in (404, 405) or 300 <= status < 400:
        return HTML_ADVICE
    return ""


def _said(body: bytes) -> str:
    """What an error's body says, in words if it has some."""
    try:
        decoded = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        text = body.decode(errors="replace").strip()
        return "" if text.lstrip("\ufeff").startswith("<") else text
    found = cast(dict[str, Any], decoded) if isinstance(decoded, dict) else {"error": decoded}
    return _message(found.get("error") or found.get("detail") or found)


def _message(error: Any) -> str:
    """The words of an error object, and the code or type that it has beside them."""
    if not isinstance(error, dict):
        return error if isinstance(error, str) else json.dumps(error, ensure_ascii=False)
    told = cast(dict[str, Any], error)
    metadata: Any = told.get("metadata")
    words = [told.get("message"), told.get("code"), told.get("type")]
    words.append(cast(dict[str, Any], metadata).get("raw") if isinstance(metadata, dict) else None)
    found = [str(word) for word in words if isinstance(word, (str, int)) and word]
    return ", ".join(dict.fromkeys(found)) or json.dumps(told, ensure_ascii=False)


def _reason(error: BaseException) -> str:
    """What is at the bottom of a failed connection, in the system's words."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and len(chain) < 10:
        chain.append(cause)
        cause = _below(cause)
    for found in reversed(chain):
        if isinstance(found, ssl.SSLError):
            return f"TLS: {found.reason or found}"
        if isinstance(found, OSError) and found.errno:
            named = isinstance(found, socket.gaierror)
            return (found.strerror or str(found)) if named else os.strerror(found.errno)
    return str(error) or type(error).__name__


def _below(error: BaseException) -> BaseException | None:
    if isinstance(error, BaseExceptionGroup):
        return cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return error.__cause__ or error.__context__


def _pattern(secrets: Iterable[str]) -> re.Pattern[str] | None:
    """Finds the secrets as they are, as they are escaped, and what begins like a long one."""
    forms: set[str] = set()
    for secret in secrets:
        if len(secret) >= _LEAST_SECRET:
            encoded = base64.b64encode(secret.encode()).decode().rstrip("=")
            forms |= {re.escape(form) for form in (secret, quote(secret, safe=""), json.dumps(secret)[1:-1], encoded)}
        if len(secret) >= 2 * _SHOWN_PREFIX:
            forms.add(re.escape(secret[:_SHOWN_PREFIX]) + r"[^\s\"',;)]*")
    return re.compile("|".join(sorted(forms, key=len, reverse=True))) if forms else None
