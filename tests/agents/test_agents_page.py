"""docs/agents.md tells what is there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hermes_ws.agents.llm import endpoint, trimming
from hermes_ws.agents.llm.endpoint_settings import EndpointSettings
from hermes_ws.agents.llm.loop import LlmSettings
from hermes_ws.errors import RUN_CODES
from hermes_ws.protocol.commands import RunStart
from hermes_ws.protocol.schema.docstrings import of_field
from hermes_ws.settings import load
from hermes_ws.transports.server import agent_terms, make_agents
from tests.runtime.conftest import REF, GatedStore, follow, runtime_over, send, until

PAGE = Path(__file__).parents[2] / "docs" / "agents.md"
TEXT = PAGE.read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def rows() -> list[str]:
    """The table of the settings, as their types have it; what has to be given comes first."""
    fields = msgspec.structs.fields(EndpointSettings)
    made: list[str] = []
    for field in sorted(fields, key=lambda f: (not f.required, f.name in LlmSettings.__struct_fields__)):
        default = (
            field.default_factory() if field.default is msgspec.NODEFAULT and not field.required else field.default
        )
        shown = "(to be given)" if field.required else f"`{msgspec.json.encode(default).decode()}`"
        made.append(f"| `{field.name}` | {shown} | {of_field(EndpointSettings, field.name)} |")
    return made


def test_every_setting_is_on_the_page_as_its_type_has_it() -> None:
    wanted = "\n".join(rows())
    assert wanted in TEXT, f"docs/agents.md should have:\n{wanted}"


def test_every_code_of_a_model_is_on_the_page() -> None:
    for code in RUN_CODES:
        if code.startswith("model_") or code == "context_length":
            assert f"| `{code}` |" in TEXT


def test_the_numbers_of_the_trimming_are_those_of_the_code() -> None:
    assert f"{endpoint._RESERVE_TOKENS:,} tokens" in TEXT
    assert f"{trimming.IMAGE_TOKENS:,} for an image" in TEXT


@pytest.mark.parametrize("block", [b for b in blocks("toml") if "[agents." in b])
def test_every_example_makes_its_agents(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("sk-example")
    for name in re.findall(r"env:(\w+)", block):
        monkeypatch.setenv(name, "sk-example")
    file = tmp_path / "settings.toml"
    file.write_text(re.sub(r"file:[^\"]+", f"file:{tmp_path}/key", block))
    settings = load(file=file, environment={}).settings
    agents = make_agents(settings.agents)
    agent_terms(settings.agents)
    assert settings.server.default_agent in agents or "[server]" not in block
    for name, table in settings.agents.items():
        if table["kind"] == "llm":
            assert agents[name].default_model == table["model"]
            assert "context_window" in table


async def test_the_agent_of_ones_own_works(tmp_path: Path) -> None:
    (source,) = blocks("python")
    names: dict[str, Any] = {}
    exec(compile(source, str(PAGE), "exec", dont_inherit=True), names)
    agent = names["create"]({"prefix": "> "})
    (finding,) = await agent.check(ask=False)
    assert finding.what == "it will begin with '> '"
    entry = tomllib.loads(next(b for b in blocks("toml") if "entry-points" in b))
    assert entry["project"]["entry-points"]["hermes_ws.agents"]["echo"].endswith(":create")
    async with runtime_over(GatedStore(), tmp_path, echo=agent) as runtime:
        conversation = await runtime.open(REF)
        sink = follow(runtime, conversation)
        await send(runtime, conversation, RunStart(input="hello", agent="echo"))
        await until(lambda: "run.completed" in sink.types)
    assert sink.events[-1]["output"] == "> hello"
