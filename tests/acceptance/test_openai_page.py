"""The examples of docs/openai.md, run as they stand there but for the server's address."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final

import pytest

from tests.acceptance.clients import INSTALL_S, NODE, RUN_S, environment, need, node_program
from tests.wire import Server

need("openai", "langchain_openai")

PAGE: Final = (Path(__file__).parents[2] / "docs" / "openai.md").read_text()


def blocks(language: str) -> list[str]:
    """The code of a language on the page."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found
    return found


def here(server: Server, code: str) -> str:
    """The code with this server's address in place of the usual one."""
    return code.replace("http://127.0.0.1:8642", server.url)


@pytest.mark.filterwarnings("ignore:connect.. must be used as a context manager:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the examples are short: nobody closes their clients
def test_the_examples_for_python_run_one_after_the_other(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KEY", server.key)
    names: dict[str, Any] = {}
    for code in blocks("python"):
        exec(compile(here(server, code), "docs/openai.md", "exec"), names)
    names["client"].close()
    said = capsys.readouterr().out
    for expected in ("You said: “hi”", "Who am I?", "response.completed", "“two”", "Nineteen degrees", "Done."):
        assert expected in said


def test_the_commands_on_the_page_answer(server: Server) -> None:
    for block in blocks("console"):
        commands = re.findall(r"^\$ ((?:.*\\\n)*.*)$", block, re.MULTILINE)
        assert commands
        for command in commands:
            script = here(server, command).replace("curl ", "curl --silent --show-error --fail-with-body ", 1)
            done = subprocess.run(
                ["sh", "-c", script],
                env=environment(server, KEY=server.key),
                capture_output=True,
                text=True,
                timeout=RUN_S,
                check=False,
            )
            assert done.returncode == 0, (script, done.stdout, done.stderr)
            assert done.stdout, script


@pytest.mark.node
@pytest.mark.timeout(INSTALL_S + RUN_S)
def test_the_examples_for_javascript_run(server: Server) -> None:
    node = node_program()
    for code in blocks("javascript"):
        with tempfile.NamedTemporaryFile("w", suffix=".mjs", dir=NODE / "node_modules") as program:
            program.write(here(server, code))
            program.flush()
            done = subprocess.run(
                [node, program.name],
                env=environment(server, KEY=server.key),
                capture_output=True,
                text=True,
                timeout=RUN_S,
                check=False,
            )
        assert done.returncode == 0, done.stderr
        assert "You said: “hi”" in done.stdout
