"""The same tools by every way there is to a server, spoken as in 2026 and as before."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.mcp.desk import ADA, AUTO, LOCAL, NEWEST, TOKEN, call, calls, configure, last, operator_server, states, told
from tests.mcp.official_tools import LOGIN_URL
from tests.mcp.running import OfficialServer, StdioCommand, official_stdio, recorded
from tests.wire import Json, Server, wait_for

WAYS = ("http", "http-json", "sse", "stdio")
ERAS = {"2026-07-28": "", "2025-11-25": "-older"}


@dataclass(frozen=True)
class Field:
    """A server to talk to, and the official one by every way."""

    hosts: dict[str, Server]
    servers: dict[str, OfficialServer]
    records: dict[str, Path]

    def way(self, way: str, era: str) -> Json:
        """How a conversation names it."""
        older = ERAS[era]
        if way == "stdio":
            return {"ref": f"stdio{older}"}
        server = self.servers[("json" if way == "http-json" else "stream") + older]
        url = {"url": server.sse_url, "transport": "sse"} if way == "sse" else {"url": server.url}
        return url | {"headers": {"Authorization": f"Bearer {TOKEN}"}}

    def noted(self, way: str, era: str, **wanted: object) -> list[Json]:
        """What the server noted, by whichever way."""
        older = ERAS[era]
        if way == "stdio":
            seen = recorded(self.records[f"stdio{older}"])
            return [entry for entry in seen if all(entry.get(name) == value for name, value in wanted.items())]
        return self.servers[("json" if way == "http-json" else "stream") + older].seen(**wanted)


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    place = tmp_path_factory.mktemp("transports")
    servers: dict[str, OfficialServer] = {}
    records: dict[str, Path] = {}
    settings = LOCAL
    for older in ERAS.values():
        for name in ("stream", "json"):
            logs = place / f"{name}{older}"
            logs.mkdir()
            servers[name + older] = OfficialServer(logs, json_response=name == "json", older=bool(older))
        records[f"stdio{older}"] = record = place / f"record{older}"
        command = official_stdio(record)
        args = [*command.args, *(["--older"] if older else [])]
        settings += operator_server(f"stdio{older}", StdioCommand(command.command, args, command.env))
    hosts: dict[str, Server] = {}
    try:
        for server in servers.values():
            server.start().tokens(**{TOKEN: ADA})
        for era in ERAS:
            newest = settings.replace(LOCAL, NEWEST) if era == "2026-07-28" else settings
            hosts[era] = Server.start(place / f"data-{era}", settings=newest)
        yield Field(hosts, servers, records)
    finally:
        for server in servers.values():
            server.stop()
        for host in hosts.values():
            host.stop()
    for host in hosts.values():
        assert "Traceback" not in host.errors, host.errors


def every_way(*, but: tuple[str, str] | None = None) -> pytest.MarkDecorator:
    """Each way in each era, but for what the SDK's own server cannot do."""
    return pytest.mark.parametrize(("way", "era"), [(way, era) for way in WAYS for era in ERAS if (way, era) != but])


@every_way()
async def test_calls_lists_pictures_errors_and_progress(field: Field, way: str, era: str) -> None:
    script = [
        call("whoami"),
        call("add", a=20, b=22),
        call("find_customer", query="Grace"),
        call("picture"),
        call("fail", message="no"),
        call("slow", seconds=0.2, steps=2),
        call("read_resource", uri="crm://readme"),
        call("get_prompt", name="letter", arguments={"customer": "Ada"}),
        call("long_text", length=50_000),
    ]
    async with field.hosts[era].socket() as socket:
        await configure(socket, mcp_servers={"crm": field.way(way, era)}, **AUTO)
        await socket.run("\n".join(script))
    whoami, add, found, picture, fail, slow, readme, letter, long = socket.of("tool.completed")
    assert json.loads(whoami["output"])["protocol_version"] == ("2025-11-25" if way == "sse" else era)
    assert add["output"] == "42"
    assert found["structured"]["customers"] == [{"id": "c2", "name": "Grace"}]
    assert picture["content"][0]["mime"] == "image/png"
    assert (fail["status"], "no" in fail["output"]) == ("error", True)
    assert slow["output"] == "took 0.2 s"
    assert readme["output"] == "How this CRM is used."
    assert "letter to Ada" in letter["output"]
    assert long["output"].startswith("xxxxx")
    if way != "http-json":  # one JSON answer leaves no room for anything before it
        assert socket.of("tool.output")
    assert states(socket) == ["starting", "ready"]


@every_way(but=("http-json", "2025-11-25"))  # it has no way to ask back
async def test_forms_and_pages(field: Field, way: str, era: str) -> None:
    async with field.hosts[era].socket() as socket:
        await configure(socket, mcp_servers={"crm": field.way(way, era)}, **AUTO)
        await socket.ok("run.start", input=f"{call('ask_name')}\n{call('ask_login')}\n{call('ask_name')}")
        await socket.reply(await socket.asked(), content={"name": "Bob"})
        page = await socket.asked()
        assert page["url"] == LOGIN_URL
        await socket.reply(page, option="accept")
        await socket.reply(await socket.asked(), option="decline")
        await socket.until_final()
    assert [output for _, output in calls(socket.log)] == [
        "Hello Bob, aged 30, newsletter: False",
        "the user said accept",
        "the user said decline",
    ]


@every_way(but=("http-json", "2026-07-28"))  # it does not notice that nobody waits for its answer
async def test_a_stop_is_passed_on(field: Field, way: str, era: str) -> None:
    key = f"stop-{way}-{era}"
    async with field.hosts[era].socket() as socket:
        await configure(socket, mcp_servers={"crm": field.way(way, era)}, **AUTO)
        await socket.ok("run.start", input=call("wait_forever", key=key))
        await until_noted(field, way, era, "waiting", key)
        await socket.ok("run.stop")
        await socket.until_final()
        await until_noted(field, way, era, "cancelled", key)
        await socket.run(call("add", a=1, b=2))
        assert last(socket)["output"] == "3"


async def until_noted(field: Field, way: str, era: str, kind: str, key: str) -> None:
    await wait_for(lambda: field.noted(way, era, kind=kind, key=key), 5)


@every_way(but=("http-json", "2026-07-28"))  # it announces nothing
async def test_a_new_tool_is_seen(field: Field, way: str, era: str) -> None:
    name = f"grown_{way}_{era}"
    async with field.hosts[era].socket() as socket:
        await configure(socket, mcp_servers={"crm": field.way(way, era)}, **AUTO)
        await socket.run(call("grow", name=name))
        while name not in (await told(socket, "ready"))["tools"]:
            await socket.recv()
        await socket.run(call(name))
        assert last(socket)["output"] == f"{name} at your service"
