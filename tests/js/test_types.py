"""The JavaScript client's JSDoc, judged by the TypeScript compiler against ``schemas/frames.d.ts``."""

from __future__ import annotations

from pathlib import Path

from tests.js.node import JS_CLIENT, needs_node, run_node

pytestmark = needs_node


def test_the_types_of_the_client_hold_under_strict(node_modules: Path) -> None:
    done = run_node(node_modules / ".bin" / "tsc", "--project", JS_CLIENT)
    assert (done.returncode, done.stdout) == (0, "")


def test_a_frame_that_the_protocol_does_not_know_is_found(node_modules: Path, tmp_path: Path) -> None:
    """The check above can fail: what a program may not do with the client is refused."""
    program = tmp_path / "wrong.mjs"
    program.write_text(
        f'import {{ HermesClient }} from "{JS_CLIENT / "hermes-ws.js"}";\n'
        'const conversation = new HermesClient({ url: "http://127.0.0.1:8642" }).conversation("demo");\n'
        'void conversation.send({ type: "run.begin", input: "hi" });\n'
        'conversation.on("run.completed", (event) => event.outptu.length);\n'
        'conversation.on("message.delta", (event) => event.delta.length);\n'
    )
    options = ["--checkJs", "--strict", "--noEmit", "--target", "es2022", "--lib", "es2023,dom", "--types", ""]
    done = run_node(node_modules / ".bin" / "tsc", *options, "--module", "nodenext", program)
    found = [line.partition("error ")[2] for line in done.stdout.splitlines() if "wrong.mjs" in line]
    assert [line[:6] for line in found] == ["TS2322", "TS2551"], done.stdout
