"""What the server is, and how it is: models, capabilities, health, skills, toolsets."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from typing import Any, Final

import anyio
import anyio.to_thread
from starlette.requests import Request
from starlette.responses import Response

from hermes_ws import __version__, policy
from hermes_ws.compat import about
from hermes_ws.compat.about_types import Check, DetailedHealth
from hermes_ws.compat.errors import ApiError
from hermes_ws.errors import StoreError
from hermes_ws.protocol.values import Config
from hermes_ws.routes.context import Api, Route, json_response
from hermes_ws.runtime.command_ids import COMMAND_TTL_MS
from hermes_ws.tools.registry import builtin_tools

__all__ = ["ROUTES"]

_PATIENCE_S: Final = 2.0
"""A log that has not answered by then is not well."""


# -- models --------------------------------------------------------------------------------------------


def _known(api: Api) -> dict[str, Any]:
    server = api.settings.server
    return {
        "alias": server.model_name,
        "default": server.default_agent,
        "defaults": {name: agent.default_model for name, agent in api.runtime.agents.items()},
        "created": api.started_at,
    }


async def models(api: Api, request: Request) -> Response:
    """Every agent that the key may use, the default one under its alias first."""
    return json_response(about.models(api.models(api.caller(request)), **_known(api)))


async def model(api: Api, request: Request) -> Response:
    """One of them."""
    caller, name = api.caller(request), request.path_params["model"]
    if not name:
        raise ApiError(404, "model_not_found", "the address names no model; /v1/models lists them", param="model")
    api.agent(caller, name)
    return json_response(about.model(name, **_known(api)))


# -- what there is -------------------------------------------------------------------------------------


async def capabilities(api: Api, request: Request) -> Response:
    """What this server can do."""
    api.caller(request)
    server = api.settings.server
    told = about.capabilities(
        alias=server.model_name,
        auth=server.auth,
        cors=bool(server.allowed_origins),
        idempotency_s=COMMAND_TTL_MS // 1000,
    )
    return json_response(told)


async def skills(api: Api, request: Request) -> Response:
    """Skills: none."""
    api.caller(request)
    return json_response(about.skills())


async def toolsets(api: Api, request: Request) -> Response:
    """Tools by where they come from, as far as the key goes."""
    bound, runtime = api.caller(request).principal.tools, api.runtime
    agent, _ = runtime.resolve_agent(None, None)
    tools = [tool.description for tool in builtin_tools(runtime.settings.tools).values()]
    reachable = [tool for tool in tools if policy.allowed(tool, None, [bound], ["*"])]
    allowed = [tool.name for tool in reachable if runtime.permissions.allowed(tool, Config(), agent, [bound])]
    return json_response(about.toolsets(reachable, allowed, runtime.settings.operator))


# -- health --------------------------------------------------------------------------------------------


async def health(api: Api, request: Request) -> Response:
    """That the server is there; anybody may ask."""
    return json_response(about.health())


async def detailed(api: Api, request: Request) -> Response:
    """How the server is. What is not well is told with status 200."""
    api.caller(request)
    runtime = api.runtime
    ready = about.readiness(await _checks(api))
    told = DetailedHealth(
        status=ready.status,
        readiness=ready,
        platform="hermes-agent",
        server="hermes-ws",
        version=__version__,
        instance=runtime.instance,
        gateway_state="draining" if runtime.draining else "running",
        platforms={"api_server": {"state": "connected"}},
        active_agents=runtime.active_runs,
        conversations=runtime.conversations,
        gateway_busy=runtime.active_runs > 0,
        gateway_drainable=not runtime.draining,
        exit_reason=None,
        started_at=api.started_at,
        updated_at=datetime.now(UTC).isoformat(timespec="seconds"),
        pid=os.getpid(),
    )
    return json_response(told)


async def _checks(api: Api) -> dict[str, Check]:
    runtime = api.runtime
    agent = runtime.agents.get(api.settings.server.default_agent)
    usage = await anyio.to_thread.run_sync(shutil.disk_usage, runtime.directory.root)
    return {
        "state_db": await _log(api),
        "config": Check(status="ok"),
        "model": Check(status="ok") if agent is not None else Check(status="degraded", detail="no default agent"),
        "disk": about.disk_check(usage.total, usage.free),
        "gateway": Check(
            status="ok",
            state="draining" if runtime.draining else "running",
            connected_platforms=1,
            platforms=1,
        ),
        "background_queues": Check(
            status="ok", active_api_runs=runtime.active_runs, process_completions=0, active_delegations=0
        ),
    }


async def _log(api: Api) -> Check:
    """Whether the log answers."""
    with anyio.move_on_after(_PATIENCE_S):
        try:
            await api.runtime.store.find_run("", "")
        except StoreError:
            return Check(status="degraded", detail="the log cannot be read")
        return Check(status="ok")
    return Check(status="degraded", detail="the log does not answer")


ROUTES: Final[list[Route]] = [
    ("GET", "/v1/models", models),
    ("GET", "/v1/models/{model:path}", model),
    ("GET", "/v1/capabilities", capabilities),
    ("GET", "/v1/skills", skills),
    ("GET", "/v1/toolsets", toolsets),
    ("GET", "/health", health),
    ("GET", "/v1/health", health),
    ("GET", "/health/detailed", detailed),
]
