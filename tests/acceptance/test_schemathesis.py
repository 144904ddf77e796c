"""schemathesis over ``/openapi.json``: whatever is sent, the server answers as the document says, and never with a 5xx.

It makes requests that fit the document and requests that do not, one by one and in sequences. What a schema cannot say
is in ``schemathesis.toml`` beside this file.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.acceptance.clients import environment, need
from tests.conftest import MakeServer

need("schemathesis")

CONFIGURATION: Final = Path(__file__).with_name("schemathesis.toml")
PATIENCE_S: Final = 240
"""For all of one test; on a machine that does nothing else it takes half a minute."""


@pytest.mark.timeout(PATIENCE_S + 30)
@pytest.mark.parametrize("phases", ["examples,coverage", "fuzzing,stateful"])
def test_every_route_answers_as_the_document_says(make_server: MakeServer, tmp_path: Path, phases: str) -> None:
    server = make_server()
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIGURATION), "run"),
        *(f"{server.url}/openapi.json", "--header", f"Authorization: Bearer {server.key}"),
        *("--phases", phases, "--max-examples", "10", "--seed", "1", "--continue-on-failure"),
        *("--request-timeout", "10", "--no-color", "--output-sanitize", "false"),
    ]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment(server),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-2_000:]
    assert "Traceback" not in server.errors, server.errors[-5_000:]
