"""What the server says of itself, made of what it knows."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from hermes_ws.compat import about
from hermes_ws.compat.about_types import Check
from hermes_ws.protocol.values import Annotations, ToolDescription

KNOWN: dict[str, Any] = {
    "alias": "hermes-agent",
    "default": "demo",
    "defaults": {"demo": "demo-1", "coder": "qwen"},
    "created": 5,
}


def tool(name: str) -> ToolDescription:
    nothing = Annotations(read_only=True, idempotent=True, destructive=False)
    return ToolDescription(
        name=name, source="builtin", title=name.title(), description="", parameters={}, annotations=nothing
    )


class TestModels:
    def test_the_alias_is_the_default_agent(self) -> None:
        model = about.model("hermes-agent", **KNOWN)
        assert (model.id, model.root, model.parent) == ("hermes-agent", "demo", None)
        assert (model.hermes.agent, model.hermes.model, model.hermes.default) == ("demo", "demo-1", True)

    def test_every_agent_is_one(self) -> None:
        listed = about.models(["hermes-agent", "demo", "coder"], **KNOWN)
        assert [model.id for model in listed.data] == ["hermes-agent", "demo", "coder"]
        coder = listed.data[2]
        assert (coder.root, coder.parent, coder.hermes.default) == ("coder", "hermes-agent", False)

    def test_they_have_what_openais_clients_need(self) -> None:
        model = msgspec.to_builtins(about.model("coder", **KNOWN))
        assert {"id", "object", "created", "owned_by"} <= model.keys()
        assert (model["object"], model["created"], model["owned_by"]) == ("model", 5, "hermes")


class TestCapabilities:
    def test_a_client_of_hermes_agents_finds_what_it_looks_for(self) -> None:
        told = msgspec.to_builtins(about.capabilities(alias="hermes-agent", auth=True, cors=False, idempotency_s=60))
        assert (told["object"], told["platform"]) == ("hermes.api_server.capabilities", "hermes-agent")
        assert told["auth"] == {"type": "bearer", "required": True}
        assert told["runtime"]["mode"] == "server_agent"
        assert told["runtime"]["tool_execution"] == "server"
        assert told["runtime"]["split_runtime"] is False
        assert told["features"]["runs_idempotency"] == {"supported": True, "durable": True, "retention_seconds": 60}
        assert told["endpoints"]["run_events"] == {"method": "GET", "path": "/v1/runs/{run_id}/events"}

    def test_it_says_whose_server_it_is(self) -> None:
        assert about.capabilities(alias="x", auth=False, cors=True, idempotency_s=1).server == "hermes-ws"

    def test_what_is_not_there_is_said_not_to_be(self) -> None:
        features = about.capabilities(alias="x", auth=True, cors=True, idempotency_s=1).features
        assert features["cors"] is True
        for name in ("admin_config_rw", "jobs_admin", "memory_write_api", "audio_api", "realtime_voice"):
            assert features[name] is False

    def test_every_feature_that_hermes_agent_names_is_there(self) -> None:
        named = """chat_completions chat_completions_streaming responses_api responses_streaming run_submission
        run_status run_events_sse run_stop run_approval_response tool_progress_events approval_events session_resources
        session_chat session_chat_streaming session_fork admin_config_rw jobs_admin memory_write_api skills_api
        audio_api realtime_voice session_continuity_header session_key_header cors runs_idempotency run_steer
        model_options session_model_lock browser_extension_control reasoning_streaming"""
        features = about.capabilities(alias="x", auth=True, cors=True, idempotency_s=1).features
        assert set(named.split()) <= set(features)
        assert features["session_key_header"] is None
        assert features["browser_extension_control"] == {"supported": False}


class TestReadiness:
    def test_all_is_well_when_every_check_is(self) -> None:
        assert about.readiness({"a": Check(status="ok"), "b": Check(status="ok")}).status == "ok"

    def test_one_is_enough_to_be_degraded(self) -> None:
        assert about.readiness({"a": Check(status="ok"), "b": Check(status="degraded")}).status == "degraded"

    @pytest.mark.parametrize(("free", "status"), [(1000, "ok"), (101, "ok"), (100, "degraded"), (0, "degraded")])
    def test_a_disk_that_is_nine_tenths_full_is_full(self, free: int, status: str) -> None:
        check = about.disk_check(1000, free)
        assert (check.status, check.free_bytes) == (status, free)

    def test_a_disk_without_a_size_is_not_full(self) -> None:
        assert about.disk_check(0, 0).status == "ok"


class TestToolsets:
    def test_builtin_tools_are_one_and_each_server_of_the_operator_another(self) -> None:
        listed = about.toolsets([tool("terminal"), tool("clarify")], ["clarify"], ["crm", "blog"])
        assert [one.name for one in listed.data] == ["builtin", "mcp:blog", "mcp:crm"]
        assert listed.data[0].tools == ["clarify", "terminal"]
        assert listed.data[0].enabled is True

    def test_a_key_that_may_use_none_sees_none(self) -> None:
        [builtin] = about.toolsets([], [], []).data
        assert (builtin.tools, builtin.enabled) == ([], False)

    def test_there_are_no_skills_and_it_says_so(self) -> None:
        skills = about.skills()
        assert (skills.object, skills.data) == ("list", [])
        assert "no skills" in skills.message
