"""The ``llm`` command line, configured as its documentation says for OpenAI-compatible servers."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.clients import RUN_S, environment, need
from tests.acceptance.people import MODEL, PIXEL, quoted
from tests.wire import Server

need("llm")

Llm = Callable[..., str]

MODELS = f"""
- model_id: hermes
  model_name: {MODEL}
  api_base: URL
  api_key_name: hermes
  supports_tools: true
  supports_schema: true
  vision: true
"""


@pytest.fixture
def llm(server: Server, tmp_path: Path) -> Llm:
    """Run the command and return what it printed."""
    (tmp_path / "extra-openai-models.yaml").write_text(MODELS.replace("URL", f"{server.url}/v1"))
    (tmp_path / "keys.json").write_text(json.dumps({"hermes": server.key}))

    def run(*arguments: str, stdin: str = "") -> str:
        done = subprocess.run(
            [sys.executable, "-m", "llm", *arguments],
            input=stdin,
            env=environment(server, LLM_USER_PATH=str(tmp_path)),
            capture_output=True,
            text=True,
            timeout=RUN_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_a_prompt_is_answered(llm: Llm) -> None:
    assert llm("-m", "hermes", "hi").strip() == quoted("hi")
    assert llm("-m", "hermes", "--no-stream", "-s", "Be brief.", "hi").strip() == quoted("hi")


def test_a_conversation_is_continued(llm: Llm) -> None:
    llm("-m", "hermes", "one")
    assert llm("-c", "two").strip() == quoted("two")


def test_a_chat_goes_on_until_it_is_left(llm: Llm) -> None:
    said = llm("chat", "-m", "hermes", stdin="one\ntwo\nexit\n")
    assert quoted("one") in said
    assert quoted("two") in said


def test_a_function_of_ones_own_is_called(llm: Llm) -> None:
    function = 'def weather(city: str) -> str:\n    "The weather of a city."\n    return "It rains in " + city\n'
    assert "It rains in" in llm("-m", "hermes", "--functions", function, "What is the weather in Paris?")


def test_a_schema_is_kept_to(llm: Llm) -> None:
    city = json.loads(llm("-m", "hermes", "--schema", "name, inhabitants int", "Describe Paris."))
    assert isinstance(city["name"], str)
    assert isinstance(city["inhabitants"], int)


def test_an_image_is_sent_along(llm: Llm, tmp_path: Path) -> None:
    image = tmp_path / "pixel.png"
    image.write_bytes(base64.b64decode(PIXEL.partition(",")[2]))
    assert "What is it?" in llm("-m", "hermes", "-a", str(image), "What is it?")


def test_what_it_cost_is_told(llm: Llm) -> None:
    llm("-m", "hermes", "hi")
    [logged] = json.loads(llm("logs", "--json", "-n", "1"))
    assert logged["input_tokens"] > 0
    assert logged["output_tokens"] > 0
