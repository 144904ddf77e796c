"""A hand-written stdio server with one switch: ``python -m tests.mcp.ugly_stdio SWITCH [FILE]``.

``FILE`` takes the process ids of this program and its children, one a line.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

__all__ = ["FAREWELL", "SECRET_VARIABLE", "STDIO_SWITCHES"]

Json = dict[str, Any]
CHILD: Final = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(120)"
"""A child that stays: for two minutes, should nobody end it."""
STAY_S: Final = 120
"""How long what does not go of itself stays, should nobody end it."""
FAREWELL: Final = "FATAL: the licence has run out"
SECRET_VARIABLE: Final = "UGLY_SECRET"
"""The environment variable that ``echo_secret`` gives away."""


def say(message: Any) -> None:
    write(json.dumps(message).encode() + b"\n")


def write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def polite(message: Json) -> Json | None:
    """What a decent server answers."""
    if "id" not in message or "method" not in message:
        return None
    version = (message.get("params") or {}).get("protocolVersion", "2025-11-25")
    info = {"name": "ugly", "version": "1"}
    hints = {"readOnlyHint": True}
    results: dict[str, Json] = {
        "initialize": {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info},
        "tools/list": {"tools": [{"name": "tool", "inputSchema": {"type": "object"}, "annotations": hints}]},
        "tools/call": {"content": [{"type": "text", "text": f"fine, {os.getpid()}"}]},
        "ping": {},
    }
    if message["method"] not in results:
        error = {"code": -32601, "message": "Method not found"}
        return {"jsonrpc": "2.0", "id": message["id"], "error": error}
    return {"jsonrpc": "2.0", "id": message["id"], "result": results[message["method"]]}


def converse(on_call: Callable[[Json], None] | None = None) -> None:
    """Answer until standard input ends; calls are for ``on_call``, if there is one."""
    for line in sys.stdin.buffer:
        message = json.loads(line)
        if on_call is not None and message.get("method") == "tools/call":
            on_call(message)
        elif (answer := polite(message)) is not None:
            say(answer)


# -- on the way up -------------------------------------------------------------------------------------------


def exits() -> None:
    """Gone at once, with a word on standard error."""
    print(FAREWELL, file=sys.stderr)
    sys.exit(3)


def silent() -> None:
    """Reads everything, says nothing."""
    while sys.stdin.buffer.readline():
        pass


def never_reads() -> None:
    """Does not even read."""
    time.sleep(STAY_S)


def closes_output() -> None:
    """Closes its output and stays."""
    os.close(1)
    time.sleep(STAY_S)


# -- what it says --------------------------------------------------------------------------------------------


def endless_line() -> None:
    """A line that never ends, from the first call on."""

    def for_ever(_: Json) -> None:
        while True:
            write(b"x" * 65536)

    converse(for_ever)


def garbage() -> None:
    """Prints to its output, as beginners do, between its answers."""
    write(b"Starting up...\nDEBUG: 1 + 1 = 2\n\n\x00\x01\x02\n{}\n[]\nnull\n{half\n")
    converse()


def invalid_utf8() -> None:
    """Bytes that are no UTF-8, before the answer to a call."""

    def broken(message: Json) -> None:
        write(b"\xff\xfe\xfd\n")
        say(polite(message))

    converse(broken)


def garbage_flood() -> None:
    """Lines of garbage without end, from the first call on."""

    def for_ever(_: Json) -> None:
        while True:
            write(b"garbage\n" * 10_000)

    converse(for_ever)


def stderr_flood() -> None:
    """A hundred megabytes on standard error before every answer to a call."""

    def flood(message: Json) -> None:
        for _ in range(100):
            sys.stderr.write(("e" * 99 + "\n") * 10_486)
        say(polite(message))

    converse(flood)


def stderr_secret() -> None:
    """Writes its secret to standard error, and gives it back in its answers."""
    print(f"using {os.environ.get(SECRET_VARIABLE)}", file=sys.stderr, flush=True)

    def echo(message: Json) -> None:
        text = f"secret: {os.environ.get(SECRET_VARIABLE)}"
        result = {"content": [{"type": "text", "text": text}]}
        say({"jsonrpc": "2.0", "id": message["id"], "result": result})

    converse(echo)


def environment() -> None:
    """Gives back the whole environment it was started with, and where."""

    def echo(message: Json) -> None:
        structured = {"environment": dict(os.environ), "cwd": str(Path.cwd()), "files": open_files()}
        result = {"content": [], "structuredContent": structured}
        say({"jsonrpc": "2.0", "id": message["id"], "result": result})

    converse(echo)


def open_files() -> list[int]:
    """Descriptors that this process has inherited or opened."""
    return [int(file.name) for file in Path("/proc/self/fd").iterdir() if file.exists()]


# -- how it ends ---------------------------------------------------------------------------------------------


def exits_in_call() -> None:
    """Gone in the middle of a call, with a word on standard error."""

    def leave(_: Json) -> None:
        exits()

    converse(leave)


def hangs_in_call() -> None:
    """Takes calls and never answers them; answers everything else."""
    converse(lambda _: None)


def stays() -> None:
    """Ignores the end of its input and SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    converse()
    time.sleep(STAY_S)


def child_stays() -> None:
    """Leaves a child behind that ignores SIGTERM, in its process group, with its output."""
    note(subprocess.Popen([sys.executable, "-c", CHILD]).pid)
    converse()


def child_escapes() -> None:
    """Leaves a child behind in a session of its own."""
    note(subprocess.Popen([sys.executable, "-c", CHILD], start_new_session=True).pid)
    converse()


def child_holds_output() -> None:
    """Dies in a call; a child keeps its output open, so that no end is ever read."""
    note(subprocess.Popen([sys.executable, "-c", CHILD]).pid)

    def leave(_: Json) -> None:
        os._exit(4)

    converse(leave)


def note(pid: int) -> None:
    """A process that whoever started us should know about."""
    if len(sys.argv) > 2:
        with Path(sys.argv[2]).open("a") as file:
            file.write(f"{pid}\n")


STDIO_SWITCHES: Final[dict[str, Callable[[], None]]] = {
    behaviour.__name__: behaviour
    for behaviour in (
        converse,
        exits,
        silent,
        never_reads,
        closes_output,
        endless_line,
        garbage,
        garbage_flood,
        invalid_utf8,
        stderr_flood,
        stderr_secret,
        environment,
        exits_in_call,
        hangs_in_call,
        stays,
        child_stays,
        child_escapes,
        child_holds_output,
    )
}
"""What each switch does; ``converse`` is the polite one."""


if __name__ == "__main__":
    note(os.getpid())
    STDIO_SWITCHES[sys.argv[1]]()
