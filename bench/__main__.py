"""``python -m bench``: run the benchmarks, print their tables."""

from __future__ import annotations

import os
import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path

import click
import msgspec

from bench.inbox import inbox
from bench.memory import idle, stalled
from bench.report import Bench, table
from bench.returning import first_event, replay, return_at_once
from bench.streaming import fanout, latency

BENCHES: dict[str, Callable[[bool], Bench]] = {
    "fanout": fanout,
    "latency": latency,
    "first-event": first_event,
    "replay": replay,
    "return": return_at_once,
    "idle": idle,
    "stalled": stalled,
    "inbox": inbox,
}


@click.command()
@click.option("--quick", is_flag=True, help="Fewer rounds: under a minute, and noisier.")
@click.option("--only", type=click.Choice(list(BENCHES)), multiple=True, help="Only this one; may be repeated.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the figures to a file too.")
def main(quick: bool, only: tuple[str, ...], json_file: Path | None) -> None:
    """Measure this server against the same stack with no log behind it. Ratios hold; absolutes are this machine's."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    click.echo(f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores\n")
    done: list[Bench] = []
    begun = time.monotonic()
    for name in only or BENCHES:
        done.append(BENCHES[name](quick))
        click.echo(table(done[-1]) + "\n")
    missed = [f"{bench.name}: {figure.name}" for bench in done for figure in bench.figures if figure.met is False]
    click.echo(f"{time.monotonic() - begun:.0f} s. Targets missed: {'; '.join(missed) or 'none'}.")
    if json_file is not None:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(done)) + b"\n")


if __name__ == "__main__":
    main()
