"""The generated files, judged by those who will read them: the TypeScript compiler and the AsyncAPI parser.

Both come from npm, by ``package.json``: see ``tests/js/node.py``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import pytest

from hermes_ws.protocol.commands import COMMAND_TYPES
from hermes_ws.protocol.control import CONTROL_TYPES
from hermes_ws.protocol.events import EVENT_TYPES
from tests.js.node import ROOT, needs_node, node_modules, run_node, unavailable

__all__ = ["node_modules"]

HERE: Final = Path(__file__).parent

pytestmark = needs_node


def test_the_declarations_compile_and_narrow_by_type(node_modules: Path) -> None:
    compiler = node_modules / ".bin" / "tsc"
    options = ["--strict", "--noEmit", "--exactOptionalPropertyTypes", "--target", "es2022", "--module", "nodenext"]
    files = [ROOT / "schemas" / "frames.d.ts", HERE / "narrowing.ts"]
    done = run_node(compiler, *options, *files)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_asyncapi_parser_has_nothing_to_say(node_modules: Path) -> None:
    document = (ROOT / "schemas" / "asyncapi.json").read_text()
    done = run_node("node", HERE / "parse_asyncapi.mjs", stdin=document)
    assert done.returncode == 0, done.stderr
    parsed = json.loads(done.stdout)
    assert parsed["diagnostics"] == []
    assert parsed["channels"] == ["/ws/{conversationId}", "/ws"]
    assert set(parsed["messages"]) == {*EVENT_TYPES, *CONTROL_TYPES, *COMMAND_TYPES}
    assert sorted(parsed["operations"]) == ["receive", "receive", "send", "send"]
    assert set(parsed["security"]) == {"bearer", "subprotocol", "ticket"}


@pytest.mark.parametrize("program", ["node", "npm"])
def test_what_is_missing_is_named_and_may_be_required(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERMES_WS_TESTS_REQUIRE_NODE", "0")
    with pytest.raises(pytest.skip.Exception, match=f"{program} is not installed"):
        unavailable(f"{program} is not installed")
    monkeypatch.setenv("HERMES_WS_TESTS_REQUIRE_NODE", "1")
    with pytest.raises(pytest.fail.Exception, match=f"{program} is not installed, and"):
        unavailable(f"{program} is not installed")
