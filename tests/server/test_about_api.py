"""Models, capabilities, health, skills and toolsets over HTTP."""

from __future__ import annotations

import pytest

from tests.conftest import MakeServer
from tests.wire import Server

TWO_AGENTS = """
[server]
default_agent = "coder"
model_name = "house"
allowed_origins = ["https://app.example"]

[agents.coder]
kind = "demo"

[agents.demo]
kind = "demo"
tools = { deny = ["*"] }

[mcp_servers.crm]
url = "https://crm.example/mcp"
"""


class TestModels:
    async def test_the_default_agent_is_listed_under_its_alias_and_every_agent_by_name(
        self, make_server: MakeServer
    ) -> None:
        server = make_server(settings=TWO_AGENTS)
        listed = await server.get("/v1/models")
        assert listed["object"] == "list"
        assert [model["id"] for model in listed["data"]] == ["house", "coder", "demo"]
        assert listed["data"][0]["root"] == "coder"

    async def test_each_can_be_looked_up(self, server: Server) -> None:
        listed = await server.get("/v1/models")
        for model in listed["data"]:
            assert await server.get(f"/v1/models/{model['id']}") == model

    @pytest.mark.parametrize("name", ["gpt-9", "openai/gpt-9", ""])
    async def test_one_that_is_not_there_is_not_found(self, server: Server, name: str) -> None:
        async with server.http() as http:
            answer = await http.get(f"/v1/models/{name}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


class TestCapabilities:
    async def test_every_endpoint_that_is_named_is_there(self, server: Server) -> None:
        told = await server.get("/v1/capabilities")
        async with server.http() as http:
            for name, endpoint in told["endpoints"].items():
                if "websocket" in name:
                    continue
                path = endpoint["path"].replace("{", "no-").replace("}", "")
                answer = await http.request(endpoint["method"], path, json={})
                assert answer.status_code != 405, name
                assert "there is nothing at" not in answer.text, name

    async def test_they_follow_the_configuration(self, make_server: MakeServer) -> None:
        server = make_server(settings=TWO_AGENTS)
        told = await server.get("/v1/capabilities")
        assert (told["model"], told["platform"], told["features"]["cors"]) == ("house", "hermes-agent", True)
        assert told["auth"] == {"type": "bearer", "required": True}


class TestHealth:
    async def test_anybody_may_ask_whether_it_is_there(self, server: Server) -> None:
        async with server.http(key="") as http:
            health = (await http.get("/v1/health")).json()
            assert (health["status"], health["platform"]) == ("ok", "hermes-agent")
            assert (await http.get("/health")).json()["status"] == "ok"
            assert (await http.get("/health/detailed")).status_code == 401

    async def test_how_it_is(self, server: Server) -> None:
        told = await server.get("/health/detailed")
        assert told["status"] == told["readiness"]["status"]
        checks = told["readiness"]["checks"]
        assert set(checks) == {"state_db", "config", "model", "disk", "gateway", "background_queues"}
        assert checks["state_db"] == {"status": "ok"}
        assert checks["disk"]["free_bytes"] > 0
        assert (told["gateway_state"], told["pid"]) == ("running", server.pid)

    async def test_who_is_at_work_is_counted(self, make_server: MakeServer) -> None:
        server = make_server()
        async with server.http() as http:
            run = (await http.post("/v1/runs", json={"input": "/sleep 60"})).json()
            told = await server.get("/health/detailed")
            assert (told["active_agents"], told["gateway_busy"]) == (1, True)
            assert told["readiness"]["checks"]["background_queues"]["active_api_runs"] == 1
            await http.post(f"/v1/runs/{run['run_id']}/stop")


class TestTools:
    async def test_toolsets_have_their_tools(self, make_server: MakeServer) -> None:
        server = make_server(settings=TWO_AGENTS)
        listed = await server.get("/v1/toolsets")
        builtin, crm = listed["data"]
        assert (listed["platform"], builtin["name"], crm["name"]) == ("api_server", "builtin", "mcp:crm")
        assert {"terminal", "read_file", "clarify"} <= set(builtin["tools"])
        assert {"name", "label", "description", "enabled", "configured", "tools"} <= crm.keys()

    async def test_there_are_no_skills(self, server: Server) -> None:
        assert (await server.get("/v1/skills"))["data"] == []

    @pytest.mark.parametrize("path", ["/v1/models", "/v1/capabilities", "/v1/skills", "/v1/toolsets"])
    async def test_a_key_is_needed(self, server: Server, path: str) -> None:
        async with server.http(key="") as http:
            assert (await http.get(path)).status_code == 401
