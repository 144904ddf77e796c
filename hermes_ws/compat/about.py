"""What the server says of itself, made of what it knows: models, capabilities, readiness, toolsets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from hermes_ws import __version__
from hermes_ws.compat.about_types import (
    Auth,
    Capabilities,
    Check,
    Endpoint,
    Health,
    Model,
    ModelDetails,
    ModelList,
    Readiness,
    RuntimeInfo,
    SkillList,
    Toolset,
    ToolsetList,
)
from hermes_ws.protocol.values import ToolDescription

__all__ = ["capabilities", "disk_check", "health", "model", "models", "readiness", "skills", "toolsets"]

_OWNER: Final = "hermes"
_FULL_PERCENT: Final = 90.0
"""A disk that is fuller than this is as good as full: hermes-agent's measure."""
_WHERE: Final = (
    "Runs belong to the server: agents and tools run there, whoever watches. Functions that a request brings along are "
    "handed back to be executed by whoever sent it."
)
_FEATURES: Final[dict[str, Any]] = {
    "chat_completions": True,
    "chat_completions_streaming": True,
    "responses_api": True,
    "responses_streaming": True,
    "responses_websocket": True,
    "responses_background": True,
    "client_function_tools": True,
    "reasoning_streaming": True,
    "run_submission": True,
    "run_list": True,
    "run_status": True,
    "run_pending_action_status": True,
    "run_events_sse": True,
    "run_event_replay": True,
    "run_event_fanout": True,
    "run_stop": True,
    "run_steer": True,
    "run_inline_images": True,
    "run_session_history": True,
    "run_approval_response": True,
    "run_approval_request_binding": True,
    "run_clarification_response": True,
    "run_clarification_request_binding": True,
    "run_clarification_prompt_version": 1,
    "tool_progress_events": True,
    "approval_events": True,
    "clarification_events": True,
    "session_resources": True,
    "session_chat": True,
    "session_chat_streaming": True,
    "session_fork": True,
    "session_websocket": True,
    "admin_config_rw": False,
    "jobs_admin": False,
    "memory_write_api": False,
    "skills_api": True,
    "audio_api": False,
    "realtime_voice": False,
    "model_options": False,
    "session_model_lock": False,
    "session_continuity_header": "X-Hermes-Session-Id",
    "session_key_header": None,
    "browser_extension_control": {"supported": False},
}
"""What does not depend on the configuration."""
_ENDPOINTS: Final[dict[str, tuple[str, str]]] = {
    "health": ("GET", "/health"),
    "health_detailed": ("GET", "/health/detailed"),
    "openapi": ("GET", "/openapi.json"),
    "models": ("GET", "/v1/models"),
    "model": ("GET", "/v1/models/{model}"),
    "chat_completions": ("POST", "/v1/chat/completions"),
    "responses": ("POST", "/v1/responses"),
    "responses_websocket": ("GET", "/v1/responses"),
    "response": ("GET", "/v1/responses/{response_id}"),
    "response_delete": ("DELETE", "/v1/responses/{response_id}"),
    "response_cancel": ("POST", "/v1/responses/{response_id}/cancel"),
    "runs": ("POST", "/v1/runs"),
    "run_list": ("GET", "/v1/runs"),
    "run_status": ("GET", "/v1/runs/{run_id}"),
    "run_events": ("GET", "/v1/runs/{run_id}/events"),
    "run_approval": ("POST", "/v1/runs/{run_id}/approval"),
    "run_clarification": ("POST", "/v1/runs/{run_id}/clarification"),
    "run_steer": ("POST", "/v1/runs/{run_id}/steer"),
    "run_stop": ("POST", "/v1/runs/{run_id}/stop"),
    "skills": ("GET", "/v1/skills"),
    "toolsets": ("GET", "/v1/toolsets"),
    "sessions": ("GET", "/api/sessions"),
    "session_create": ("POST", "/api/sessions"),
    "session": ("GET", "/api/sessions/{session_id}"),
    "session_update": ("PATCH", "/api/sessions/{session_id}"),
    "session_delete": ("DELETE", "/api/sessions/{session_id}"),
    "session_messages": ("GET", "/api/sessions/{session_id}/messages"),
    "session_fork": ("POST", "/api/sessions/{session_id}/fork"),
    "session_chat": ("POST", "/api/sessions/{session_id}/chat"),
    "session_chat_stream": ("POST", "/api/sessions/{session_id}/chat/stream"),
    "session_websocket": ("GET", "/ws/{session_id}"),
}


def model(name: str, *, alias: str, default: str, defaults: Mapping[str, str], created: int) -> Model:
    """What ``name`` stands for. ``defaults``: agents, with the model that each uses; ``alias`` is the ``default``."""
    agent = default if name == alias else name
    return Model(
        id=name,
        object="model",
        created=created,
        owned_by=_OWNER,
        permission=[],
        root=agent,
        parent=None if name == alias else alias,
        hermes=ModelDetails(agent=agent, model=defaults.get(agent, ""), default=agent == default),
    )


def models(names: Iterable[str], **known: Any) -> ModelList:
    """All that ``names`` stand for; ``known`` as for :func:`model`."""
    return ModelList(object="list", data=[model(name, **known) for name in names])


def capabilities(*, alias: str, auth: bool, cors: bool, idempotency_s: int) -> Capabilities:
    """What this server can do. ``idempotency_s``: how long an ``Idempotency-Key`` is remembered."""
    remembered = {"supported": True, "durable": True, "retention_seconds": idempotency_s}
    return Capabilities(
        object="hermes.api_server.capabilities",
        platform="hermes-agent",
        server="hermes-ws",
        version=__version__,
        model=alias,
        auth=Auth(type="bearer", required=auth),
        runtime=RuntimeInfo(mode="server_agent", tool_execution="server", split_runtime=False, description=_WHERE),
        features={**_FEATURES, "runs_idempotency": remembered, "cors": cors},
        endpoints={name: Endpoint(method=method, path=path) for name, (method, path) in _ENDPOINTS.items()},
    )


def health() -> Health:
    """That the server is there."""
    return Health(status="ok", platform="hermes-agent", server="hermes-ws", version=__version__)


def disk_check(total: int, free: int) -> Check:
    """The disk that the log is on; hermes-agent's measure of how full is too full."""
    used = round((total - free) / total * 100, 1) if total else 0.0
    full = used >= _FULL_PERCENT
    return Check(
        status="degraded" if full else "ok",
        detail="little space is left" if full else None,
        used_percent=used,
        free_bytes=free,
    )


def readiness(checks: dict[str, Check]) -> Readiness:
    """All of them together."""
    degraded = any(check.status == "degraded" for check in checks.values())
    return Readiness(status="degraded" if degraded else "ok", checks=checks)


def skills() -> SkillList:
    """None, and that this is not an accident."""
    message = "this server has no skills of its own; what agents can do is at /v1/toolsets"
    return SkillList(object="list", data=[], message=message)


def toolsets(builtin: Sequence[ToolDescription], allowed: Iterable[str], servers: Iterable[str]) -> ToolsetList:
    """The built-in tools that the key may use, of which ``allowed`` are there by default, and the operator's MCP
    servers."""
    default = set(allowed)
    own = Toolset(
        name="builtin",
        label="Built-in tools",
        description="; ".join(f"{tool.name}: {tool.title}" for tool in builtin),
        enabled=any(tool.name in default for tool in builtin),
        configured=True,
        tools=sorted(tool.name for tool in builtin),
    )
    others = [
        Toolset(
            name=f"mcp:{name}",
            label=f"MCP server {name}",
            description=f'A conversation uses it by mcp_servers {{"NAME": {{"ref": "{name}"}}}} in its configuration.',
            enabled=False,
            configured=True,
            tools=[],
        )
        for name in sorted(servers)
    ]
    return ToolsetList(object="list", platform="api_server", data=[own, *others])
