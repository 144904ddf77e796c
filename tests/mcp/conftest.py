"""MCP servers for the tests: the official one as a process, the ugly ones to order, published ones installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mcp import published
from tests.mcp.running import OfficialServer, StdioCommand, official_stdio
from tests.mcp.ugly import UglyServer

MakeOfficial = Callable[..., OfficialServer]
MakeUgly = Callable[..., UglyServer]


@pytest.fixture(scope="session")
def official_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OfficialServer]:
    server = OfficialServer(tmp_path_factory.mktemp("official")).start()
    yield server
    server.stop()
    assert "Traceback" not in server.errors, server.errors


@pytest.fixture
def official(official_process: OfficialServer) -> OfficialServer:
    """The official server over HTTP, having seen nothing and letting nobody in: see ``tokens`` and ``seen``."""
    official_process.reset()
    return official_process


@pytest.fixture
def make_official(tmp_path: Path) -> Iterator[MakeOfficial]:
    """Official servers of a test's own, to be stopped and started again: ``make_official(json_response=True)``."""
    made: list[OfficialServer] = []

    def make(**options: bool) -> OfficialServer:
        logs = tmp_path / f"official-{len(made)}"
        logs.mkdir()
        made.append(OfficialServer(logs, **options).start())
        return made[-1]

    yield make
    for server in made:
        server.stop()


@pytest.fixture
def official_record(tmp_path: Path) -> Path:
    """Where ``official_command`` writes what it saw: read it by ``recorded``."""
    return tmp_path / "official-record"


@pytest.fixture
def official_command(official_record: Path) -> StdioCommand:
    """How to start the official server over stdio."""
    return official_stdio(official_record)


@pytest.fixture
def make_ugly() -> Iterator[MakeUgly]:
    """Misbehaving HTTP servers, in threads of their own: ``make_ugly("hang_on_call")``, as of ``ugly.SWITCHES``."""
    made: list[UglyServer] = []

    def make(switch: str, **options: object) -> UglyServer:
        made.append(UglyServer(switch, **options).start())
        return made[-1]

    yield make
    for server in made:
        server.stop()


@pytest.fixture(scope="session")
def time_server() -> StdioCommand:
    """``mcp-server-time`` from PyPI."""
    return published.time_server()


@pytest.fixture(scope="session")
def sqlite_server(tmp_path_factory: pytest.TempPathFactory) -> StdioCommand:
    """``mcp-server-sqlite`` from PyPI, with a database of the worker's."""
    return published.sqlite_server(tmp_path_factory.mktemp("sqlite") / "test.db")


@pytest.fixture(scope="session")
def git_server() -> StdioCommand:
    """``mcp-server-git`` from PyPI; repositories are named in the calls."""
    return published.git_server()


@pytest.fixture(scope="session")
def everything_server() -> StdioCommand:
    """``@modelcontextprotocol/server-everything`` from npm."""
    return published.everything_server()


@pytest.fixture(scope="session")
def memory_server(tmp_path_factory: pytest.TempPathFactory) -> StdioCommand:
    """``@modelcontextprotocol/server-memory`` from npm, with a memory of the worker's."""
    return published.memory_server(tmp_path_factory.mktemp("memory") / "memory.jsonl")


@pytest.fixture
def filesystem_server(tmp_path: Path) -> StdioCommand:
    """``@modelcontextprotocol/server-filesystem`` from npm, allowed the test's ``tmp_path / "shared"``."""
    shared = tmp_path / "shared"
    shared.mkdir()
    return published.filesystem_server(shared)
