"""``hermes-ws doctor``: what is wrong, and what to do about it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hermes_ws.agents.base import Finding
from hermes_ws.doctor import Section, examine, healthy, report
from hermes_ws.settings import load
from tests.agents.endpoint_server import Endpoint, fails, text
from tests.conftest import MakeServer
from tests.wire import clean_environment, soon

KEY = "sk-canary-77e0d1c2b3a4"


async def examined(path: Path, toml: str, *, ask: bool = False) -> dict[str, list[Finding]]:
    """What is found about each subject of a configuration."""
    file = path / "settings.toml"
    data = "" if "data =" in toml else f'data = "{path / "data"}"\n'
    file.write_text(toml.replace("[server]\n", f"[server]\nport = 0\n{data}") if "[server]" in toml else toml)
    settings = load(file=file, environment={}).settings
    with_limit = soon(20)
    async with with_limit:
        return {section.subject: section.findings for section in await examine(settings, ask=ask)}


async def test_an_agent_whose_endpoint_has_its_model_is_well(endpoint: Endpoint, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    found = await examined(tmp_path, endpoint.settings(api_key=f"file:{tmp_path}/key", context_window=8_000))
    assert found["agent llm"] == [Finding("ok", "the endpoint answers, and has the model 'test-model'")]
    assert endpoint.others[0].headers["authorization"] == f"Bearer {KEY}"
    assert not endpoint.requests


@pytest.mark.parametrize(
    ("listed", "level", "said"),
    [
        (["test-model:latest"], "ok", "has the model"),
        (["test-modell", "other"], "problem", "set model to one of test-modell"),
        (["other"], "problem", "set model to one of other"),
        (["test-model:8b"], "warning", "not as 'test-model'"),
        ([], "warning", "--ask"),
        (None, "warning", "does not list"),
    ],
)
async def test_a_model_that_is_not_listed_is_noticed(
    endpoint: Endpoint, tmp_path: Path, listed: list[str] | None, level: str, said: str
) -> None:
    endpoint.models = listed
    first = (await examined(tmp_path, endpoint.settings()))["agent llm"][0]
    assert first.level == level
    assert said in first.what + first.advice


async def test_asking_is_asking(endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.plays(text("OK", usage={"prompt_tokens": 8, "completion_tokens": 1}))
    found = (await examined(tmp_path, endpoint.settings(context_window=8_000), ask=True))["agent llm"]
    assert found[1] == Finding("ok", "the model 'test-model' answers, for 9 tokens")
    endpoint.plays(fails(403, {"error": {"message": f"no credit for {KEY}"}}))
    found = (await examined(tmp_path, endpoint.settings(api_key=KEY), ask=True))["agent llm"]
    assert (found[1].level, "no credit" in found[1].what) == ("problem", True)
    assert KEY not in str(found)


async def test_a_window_that_is_not_known_is_worth_a_warning(endpoint: Endpoint, tmp_path: Path) -> None:
    found = await examined(tmp_path, endpoint.settings())
    assert [(f.level, "context_window" in f.what) for f in found["agent llm"]] == [("ok", False), ("warning", True)]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"base_url": "http://127.0.0.1:1/v1"}, "refused"),
        ({"base_url": "127.0.0.1/v1"}, "not like http://"),
        ({"api_key": "env:HERMES_TESTS_NO_SUCH_KEY"}, "HERMES_TESTS_NO_SUCH_KEY"),
        ({"temperature": 1}, "temperature"),
        ({"retries": -1}, "retries"),
        ({"kind": "nosuch"}, "not installed"),
        ({"tools": 7}, "tools"),
    ],
)
async def test_an_agent_that_cannot_work_is_a_problem(
    endpoint: Endpoint, tmp_path: Path, more: dict[str, Any], said: str
) -> None:
    (finding, *_) = (await examined(tmp_path, endpoint.settings(**more)))["agent llm"]
    assert (finding.level, said in finding.what) == ("problem", True), finding


async def test_every_agent_is_checked_and_one_does_not_hide_another(endpoint: Endpoint, tmp_path: Path) -> None:
    broken = '[agents.broken]\nkind = "llm"\nbase_url = "http://127.0.0.1:1/v1"\nmodel = "x"\n[agents.demo]\n'
    found = await examined(tmp_path, endpoint.settings() + broken)
    assert [found[f"agent {name}"][0].level for name in ("llm", "broken", "demo")] == ["ok", "problem", "ok"]


async def test_a_default_agent_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    found = await examined(tmp_path, '[server]\ndefault_agent = "ghost"\n')
    assert found["agents"][0].level == "problem"


@pytest.fixture
async def taken() -> AsyncIterator[int]:
    """A port that another program has."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()


async def port_of(tmp_path: Path, port: int, host: str = "127.0.0.1") -> Finding:
    file = tmp_path / "port.toml"
    file.write_text(f'[server]\nhost = "{host}"\nport = {port}\ndata = "{tmp_path}"\n')
    sections = await examine(load(file=file, environment={}).settings, ask=False)
    return next(section.findings[0] for section in sections if section.subject == "port")


async def test_a_port_is_free_taken_or_held_by_a_server(tmp_path: Path, taken: int, make_server: MakeServer) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    assert (await port_of(tmp_path, free)).level == "ok"
    assert (await port_of(tmp_path, taken)).level == "problem"
    assert (await port_of(tmp_path, 80, "192.0.2.1")).level == "problem"
    held = await port_of(tmp_path, make_server().port)
    assert (held.level, "held by a running server" in held.what) == ("ok", True)


async def data_of(path: Path) -> list[Finding]:
    return (await examined(path.parent, f'[server]\ndata = "{path}"\n'))["data"]


async def test_the_data_directory_is_looked_at_and_left_alone(tmp_path: Path, make_server: MakeServer) -> None:
    (fresh,) = await data_of(tmp_path / "new")
    assert (fresh.level, "not there yet" in fresh.what) == ("ok", True)
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").touch()
    assert (await data_of(tmp_path / "file"))[0].level == "problem"
    running = make_server()
    (used,) = await data_of(running.data)
    assert (used.level, f"a server is running on it (process {running.pid})" in used.what) == ("ok", True)
    running.stop()
    (left,) = await data_of(running.data)
    assert (left.level, "no server is running" in left.what) == ("ok", True)
    (running.data / "hermes-ws.key").chmod(0o644)
    assert "chmod 600" in (await data_of(running.data))[1].advice


@pytest.mark.skipif(os.geteuid() == 0, reason="everything is writable for root")
async def test_a_data_directory_that_cannot_be_written_to_is_a_problem(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    assert (await data_of(closed))[0].level == "problem"
    assert (await data_of(closed / "inner"))[0].level == "problem"


@pytest.mark.parametrize(
    ("server", "level", "said"),
    [
        ("", "ok", "in the data directory"),
        ('key = "hws_something"', "ok", "of the configuration"),
        ('key = " spaced "', "problem", "white space"),
        ("auth = false", "warning", "no key is needed"),
        ('auth = false\nhost = "0.0.0.0"', "problem", "loopback"),
        ('public_url = "example.org"', "problem", "public_url"),
        ('trusted_proxies = ["somewhere"]', "problem", "trusted_proxies"),
    ],
)
async def test_who_may_come_in_is_checked(tmp_path: Path, server: str, level: str, said: str) -> None:
    (finding,) = (await examined(tmp_path, f"[server]\n{server}\n"))["access"]
    assert (finding.level, said in finding.what) == (level, True), finding
    assert not (tmp_path / "data").exists()


def test_the_report_has_a_line_for_each_finding_and_one_for_what_to_do() -> None:
    sections = [Section("a", [Finding("ok", "fine")]), Section("bcd", [Finding("warning", "hm", "do this")])]
    assert report(sections).splitlines() == [
        "ok       a    fine",
        "warning  bcd  hm",
        "              -> do this",
    ]
    assert healthy(sections)
    assert not healthy([*sections, Section("e", [Finding("problem", "no")])])


async def told(tmp_path: Path, toml: str, *arguments: str) -> tuple[int, str]:
    """The command itself."""
    file = tmp_path / "settings.toml"
    file.write_text(toml.replace("[server]\n", f'[server]\nport = 0\ndata = "{tmp_path}"\n'))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hermes_ws.cli", "doctor", "--config", str(file), *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=clean_environment(),
    )
    async with soon(30):
        output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def test_the_command_says_whether_all_is_well(endpoint: Endpoint, tmp_path: Path) -> None:
    status, output = await told(tmp_path, endpoint.settings())
    assert status == 0, output
    assert "ok       agent llm" in output
    status, output = await told(tmp_path, endpoint.settings(model="nosuch"), "--json")
    found = json.loads(output)
    assert (status, found["ok"]) == (1, False)
    assert [f["level"] for f in found["findings"] if f["subject"] == "agent llm"] == ["problem", "warning"]


async def test_a_configuration_that_cannot_be_read_is_told_as_when_serving(tmp_path: Path) -> None:
    status, output = await told(tmp_path, "[server]\nprot = 1\n")
    assert status == 1
    assert "'prot'" in output
