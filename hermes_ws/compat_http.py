"""The OpenAI-compatible routes, and those of hermes-agent: which there are, and errors as their clients expect them.

Requests become commands on a conversation (:mod:`hermes_ws.routes`), and the log is projected back
(:mod:`hermes_ws.compat`). A person at the conversation's socket sees the same run.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route as StarletteRoute

from hermes_ws.compat.errors import ApiError, envelope, of_command
from hermes_ws.errors import CommandError, ConversationDeleted, StoreError
from hermes_ws.routes import about, chat, conversations, responses, responses_socket, runs, sessions
from hermes_ws.routes.context import Api, Handler, Route, json_response

__all__ = ["ROUTES", "SOCKET_PATH", "answer", "is_compatible", "on_http_exception", "routes", "serve_socket"]

ROUTES: Final[list[Route]] = [
    *chat.ROUTES,
    *responses.ROUTES,
    *conversations.ROUTES,
    *runs.ROUTES,
    *sessions.ROUTES,
    *about.ROUTES,
]
SOCKET_PATH: Final = "/v1/responses"
"""Where the Responses API is spoken over a WebSocket."""
serve_socket: Final = responses_socket.serve
_PREFIXES: Final = ("/v1/", "/api/sessions")
_CLIENT_GONE: Final = 499
"""Nobody reads this answer."""

log = structlog.get_logger("hermes_ws.routes")


def is_compatible(path: str) -> bool:
    """Whether clients of these routes ask there, who expect errors in OpenAI's envelope."""
    return path.startswith(_PREFIXES)


def answer(error: ApiError) -> Response:
    """An error as these clients expect it."""
    response = json_response(envelope(error), error.status)
    if error.retry_after_s is not None:
        response.headers["retry-after"] = str(error.retry_after_s)
    if error.status == 401:
        response.headers["www-authenticate"] = "Bearer"
    return response


def on_http_exception(request: Request, error: HTTPException) -> Response:
    """What the router says: there is no such address, or not for this method."""
    path = request.scope["path"][:200]
    if error.status_code == 404:
        return answer(ApiError(404, "not_found", f"there is nothing at {path}; /openapi.json says what is"))
    allow = dict(error.headers or {}).get("Allow", "")
    message = f"{request.method} is not for {path}; it takes {allow}" if allow else str(error.detail)
    response = answer(ApiError(error.status_code, "method_not_allowed", message))
    response.headers.update(error.headers or {})
    return response


def routes(api: Api) -> list[StarletteRoute]:
    """The routes, for the app: one for each path, or the router would name only the first method of several."""
    by_path: dict[str, dict[str, Handler]] = {}
    for method, path, handler in ROUTES:
        by_path.setdefault(path, {})[method] = handler
    return [StarletteRoute(path, _guarded(api, methods), methods=[*methods]) for path, methods in by_path.items()]


def _guarded(api: Api, methods: dict[str, Handler]) -> Callable[[Request], Awaitable[Response]]:
    async def handle(request: Request) -> Response:
        handler = methods["GET" if request.method == "HEAD" else request.method]
        try:
            return await handler(api, request)
        except ApiError as error:
            return answer(error)
        except CommandError as refused:
            return answer(of_command(refused))
        except ConversationDeleted as gone:
            return answer(ApiError(404, "not_found", str(gone)))
        except StoreError as error:
            log.error("log.unusable", path=request.url.path, error=str(error))
            return answer(ApiError(500, "internal", "the log cannot be read or written; the server's log says why"))
        except ClientDisconnect:
            return Response(status_code=_CLIENT_GONE)

    return handle
