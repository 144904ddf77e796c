"""The JavaScript client's types: its JSDoc as the TypeScript compiler judges it, and what a program in TypeScript sees.

The declarations beside the library are made from it: ``npm run types`` in ``examples/js-client`` makes them anew.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from tests.js.node import JS_CLIENT, ROOT, needs_node, run_node

pytestmark = needs_node

MADE_ANEW = "npm run types in examples/js-client makes it anew"

PROGRAM = """\
import { HermesClient, CommandRefused, type Connection } from "hermes-ws";
import type { MessageItem } from "hermes-ws/frames.d.ts";

const conversation = new HermesClient({ url: "http://127.0.0.1:8642" }).conversation("demo");
conversation.on("message.delta", (event) => event.delta.toUpperCase());
conversation.on("connection", (connection: Connection) => connection.retry_in_ms);
export const said: MessageItem | undefined = conversation.state.items.find((item) => item.type === "message");
export async function ask(): Promise<string> {
  for await (const event of conversation.run("hi")) if (event.type === "tool.started") return event.name;
  const ended = await conversation.run("hi").done;
  return ended.type === "run.completed" ? ended.output : ended.run_id;
}
conversation.approve("int_1").catch((error: unknown) => error instanceof CommandRefused && error.code === "busy");

void conversation.send({ type: "run.begin", input: "hi" }); // WRONG
conversation.on("run.completed", (event) => event.outptu.length); // WRONG
conversation.on("message.delta", (event) => event.delta.toFixed(2)); // WRONG
conversation.state.nonsense; // WRONG
conversation.tool("time", {}, () => "", { gracems: 1 }); // WRONG
"""


def test_the_jsdoc_of_the_client_holds_under_strict(node_modules: Path) -> None:
    done = run_node(node_modules / ".bin" / "tsc", "--project", JS_CLIENT)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_frames_beside_the_client_are_those_of_the_protocol() -> None:
    assert (JS_CLIENT / "frames.d.ts").read_text() == (ROOT / "schemas" / "frames.d.ts").read_text(), MADE_ANEW


def test_the_declarations_are_those_of_the_client(node_modules: Path, tmp_path: Path) -> None:
    done = run_node(node_modules / ".bin" / "tsc", "--project", JS_CLIENT / "tsconfig.types.json", "--outDir", tmp_path)
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "hermes-ws.d.ts").read_text() == (JS_CLIENT / "hermes-ws.d.ts").read_text(), MADE_ANEW


def test_a_program_in_typescript_is_checked_against_the_protocol(node_modules: Path, tmp_path: Path) -> None:
    """With nothing but what the package has in it."""
    package = tmp_path / "node_modules" / "hermes-ws"
    package.mkdir(parents=True)
    for name in ["package.json", *json.loads((JS_CLIENT / "package.json").read_text())["files"]]:
        shutil.copy(JS_CLIENT / name, package)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    program = tmp_path / "program.ts"
    program.write_text(PROGRAM)
    options = [
        "--strict",
        "--noEmit",
        "--target",
        "es2022",
        "--lib",
        "es2023,dom",
        "--types",
        "",
        "--module",
        "nodenext",
    ]
    done = run_node(node_modules / ".bin" / "tsc", *options, program)
    wrong = [number for number, line in enumerate(PROGRAM.splitlines(), 1) if line.endswith("// WRONG")]
    found = [int(number) for number in re.findall(r"program\.ts\((\d+),", done.stdout)]
    assert found == wrong, done.stdout
    assert "node_modules" not in done.stdout
