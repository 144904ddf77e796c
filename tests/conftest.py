"""Server processes for every test directory: one shared by a worker's tests, and others made to order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.wire import Server

MakeServer = Callable[..., Server]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with default settings, shared by all tests of a worker: use conversations of your own."""
    running = Server.start(tmp_path_factory.mktemp("server"))
    yield running
    alive = running.process.poll() is None
    running.stop()
    assert alive, f"the shared server died: {running.errors}"
    assert "Traceback" not in running.errors, running.errors


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[MakeServer]:
    """Start servers with settings of one's own: ``make_server(settings=TOML, environment=..., data=...)``."""
    started: list[Server] = []

    def make(*arguments: str, data: Path | None = None, **options: Any) -> Server:
        made = Server.start(data or tmp_path / f"data-{len(started)}", *arguments, **options)
        started.append(made)
        return made

    yield make
    for one in started:
        one.stop()
