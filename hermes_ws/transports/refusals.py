"""How a request or a socket is told that it is refused: a status and a body in the form that its client expects."""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from hermes_ws import compat_http
from hermes_ws.compat.errors import ApiError
from hermes_ws.errors import CommandCode, CommandError, StoreError
from hermes_ws.protocol.close import CloseCode
from hermes_ws.protocol.codec import encode
from hermes_ws.protocol.control import Error
from hermes_ws.routes.context import json_response
from hermes_ws.transports.auth import Refused
from hermes_ws.transports.incoming import Receive, Send, error_frame
from hermes_ws.transports.manners import SECURITY_HEADERS, request_id

__all__ = ["HANDLERS", "refusal", "refuse", "refuse_socket"]

_STATUS: Final[dict[CommandCode, int]] = {
    "invalid_json": 400,
    "invalid_frame": 400,
    "unknown_type": 400,
    "unsupported": 422,
    "too_large": 413,
    "not_permitted": 403,
    "not_found": 404,
    "run_not_found": 404,
    "interaction_not_found": 404,
    "invalid_option": 422,
    "invalid_answer": 422,
    "rate_limited": 429,
    "overloaded": 503,
    "storage_full": 507,
    "internal": 500,
}
"""HTTP status of a refused command; every other code is a conflict with how things are: 409."""
_SOCKET: Final = re.compile(r"/ws(/[^/]+)?")
_REASON_BYTES: Final = 123
"""What a close frame has room for (RFC 6455, 5.5): a longer reason would cost the code too."""


async def refuse_socket(
    refused: Refused, subprotocol: str | None, scope: MutableMapping[str, Any], receive: Receive, send: Send
) -> None:
    """By HTTP status, or by close code to a client that speaks our protocol and cannot see a status."""
    if subprotocol is not None and refused.close_code is not None:
        await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": []})
        await send({"type": "websocket.close", "code": refused.close_code, "reason": _reason(refused.message)})
        return
    body = encode(_refused_error(refused))
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": refused.close_code or CloseCode.BAD_REQUEST})
        return
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *SECURITY_HEADERS,
        (b"x-request-id", request_id(scope).encode()),
    ]
    if refused.status == 503:
        headers.append((b"retry-after", b"1"))
    await send({"type": "websocket.http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})


def _reason(message: str) -> str:
    """As much of it as fits a close frame."""
    return message.encode(errors="replace")[:_REASON_BYTES].decode(errors="ignore")


_REFUSED_CODES: Final[dict[int, CommandCode]] = {
    400: "invalid_frame",
    404: "not_found",
    408: "invalid_frame",
    415: "unsupported",
    500: "internal",
    503: "overloaded",
}


_API_CODES: Final[dict[int, str]] = {
    401: "invalid_api_key",
    403: "not_permitted",
    408: "request_timeout",
    415: "unsupported_media_type",
    421: "misdirected_request",
}


def _refused_error(refused: Refused) -> Error:
    code = _REFUSED_CODES.get(refused.status, "not_permitted")
    return Error(id=None, code=code, message=refused.message, retryable=refused.status in (500, 503))


def refuse(scope: MutableMapping[str, Any], refused: Refused) -> Response:
    """The answer to a request that is not let in, in the form that its client expects."""
    if compat_http.is_compatible(scope["path"]):
        code = _API_CODES.get(refused.status, "invalid_request")
        return compat_http.answer(ApiError(refused.status, code, refused.message))
    return _refused_response(refused)


def _refused_response(refused: Refused) -> Response:
    response = json_response(_refused_error(refused), refused.status)
    if refused.status == 401:
        response.headers["www-authenticate"] = "Bearer"
    return response


def refusal(refused: CommandError, command_id: str | None) -> Response:
    """A command that was refused, as over HTTP."""
    response = json_response(error_frame(refused, command_id), _STATUS.get(refused.code, 409))
    if refused.retry_after_ms is not None:
        response.headers["retry-after"] = str(max(1, refused.retry_after_ms // 1000))
    return response


async def _on_refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return refuse(request.scope, error)


async def _on_command_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, CommandError)
    return refusal(error, None)


async def _on_store_error(request: Request, error: Exception) -> Response:
    return refusal(CommandError("internal", "the log cannot be read"), None)


async def _on_crash(request: Request, error: Exception) -> Response:
    """The body; Starlette raises the error again for the server's log."""
    if compat_http.is_compatible(request.scope["path"]):
        return compat_http.answer(ApiError(500, "internal", "the server failed at this; its log says why"))
    return refusal(CommandError("internal", "the server failed at this; its log says why"), None)


def _not_upgraded() -> Response:
    """For who looks at a socket's address with a browser or curl."""
    message = "this is the address of a WebSocket, for a client such as wscat; / says what can be asked for by request"
    frame = Error(id=None, code="unsupported", message=message, retryable=False)
    return json_response(frame, 426, {"upgrade": "websocket"})


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if compat_http.is_compatible(request.scope["path"]):
        return compat_http.on_http_exception(request, error)
    if error.status_code == 404 and _SOCKET.fullmatch(request.scope["path"]):
        return _not_upgraded()
    if error.status_code == 404:
        hint = "addresses here end without a slash" if request.scope["path"].endswith("/") else "/ says what is"
        return refusal(CommandError("not_found", f"there is nothing at {request.scope['path'][:200]}; {hint}"), None)
    headers = dict(error.headers or {})
    message = f"{request.method} is not for this address; it takes {headers['Allow']}" if "Allow" in headers else ""
    frame = Error(id=None, code="invalid_frame", message=message or str(error.detail), retryable=False)
    return json_response(frame, error.status_code, headers)


HANDLERS: Final[Mapping[Any, Any]] = {
    Refused: _on_refused,
    CommandError: _on_command_error,
    StoreError: _on_store_error,
    HTTPException: _on_http_exception,
    Exception: _on_crash,
}
"""For Starlette: what is raised, and who answers."""
