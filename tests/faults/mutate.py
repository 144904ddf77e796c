"""Run each mutant against the test that must notice it: ``python -m tests.faults.mutate [NAME ...]``.

First all these tests without any mutant, which must be green; then each under its own, which must be red. Exit status
1 if one is not.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from tests.faults.launch import MODULE, MUTANT
from tests.faults.mutants import MUTANTS, Mutant

AT_ONCE = 2
LIMIT_S = 180
REASON = 150


def _pytest(*arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Its own pytest, of our own Python; stopped if it takes too long."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "tests.faults.mutants"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HERMES_WS_TESTS_")}
    return subprocess.run(
        [*command, f"--timeout={LIMIT_S}", *arguments],
        env={**kept, "COLUMNS": "400", "HERMES_WS_TESTS_MODULE": MODULE, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def _applies(name: str) -> str:
    """What is wrong with a mutant that cannot even be made ("" if nothing): its test would be red for nothing."""
    code = f"from tests.faults.mutants import MUTANTS; MUTANTS[{name!r}].apply()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return done.stderr.strip().rpartition("\n")[2] if done.returncode else ""


def _reason(output: str) -> str:
    """What pytest says of the test: it is to be red for what the mutant does, not for a mistake in the mutant."""
    failed = [line for line in output.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    return failed[0].partition(" - ")[2][:REASON] if failed else "no reason given"


def _judged(named: tuple[str, Mutant]) -> tuple[str, bool, str]:
    """A mutant's name, whether it was noticed, and a line on it."""
    name, one = named
    began = time.monotonic()
    wrong = _applies(name)
    if wrong:
        return name, False, f"cannot be made: {wrong}"
    done = _pytest(one.test, environment={MUTANT: name})
    took = f"{time.monotonic() - began:.0f} s"
    if done.returncode == 1:
        return name, True, f"noticed, {took}: {_reason(done.stdout)}"
    if done.returncode == 0:
        return name, False, f"NOT NOTICED by {one.test}, {took}"
    return name, False, f"{one.test} could not be run: {done.stdout.strip().rpartition(chr(10))[2]}{done.stderr[-300:]}"


def main() -> None:
    names = sys.argv[1:] or list(MUTANTS)
    chosen = {name: MUTANTS[name] for name in names}
    tests = sorted({one.test for one in chosen.values()})
    print(f"{len(chosen)} mutants, {len(tests)} tests; without a mutant first", flush=True)
    sane = _pytest("-n", str(AT_ONCE), *tests, environment={})
    if sane.returncode != 0:
        print(sane.stdout[-6000:], sane.stderr[-2000:])
        raise SystemExit("the tests are not green without a mutant")
    unnoticed = 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for name, noticed, line in pool.map(_judged, chosen.items()):
            print(f"{chosen[name].guarantee:>3}  {name}: {line}", flush=True)
            unnoticed += not noticed
    if unnoticed:
        raise SystemExit(f"{unnoticed} of {len(chosen)} mutants were not noticed")
    print(f"all {len(chosen)} were noticed")


if __name__ == "__main__":
    main()
