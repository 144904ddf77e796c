"""Kill the server again and again while people work with it, and see whether anything was lost.

``python -m tests.faults.torture [--seed N] [--kills N] [--minutes M] [--conversations N] [--points] [--proxy]``

The seed decides who does what and where the server dies; when is a matter of the machine, so the same seed makes a
similar run, not the same. Prints its seed first, figures last; exit status 1 and the logs on disk if a promise was
broken.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from tests.client.proxy import Proxy
from tests.faults.launch import CRASH_AT, MODULE, POINTS, SLOW_DISK
from tests.faults.model_client import LOST, Journal, ModelClient, Place, ServedSchema, Violation
from tests.faults.people import WHAT, People
from tests.faults.verdict import judge
from tests.session.second_fold import BrokenPromiseError
from tests.wire import Server, clean_environment, processes_with

__all__ = ["Plan", "Torture", "TortureError"]

SETTINGS = """
[server]
drain_grace_s = 0.3
[sessions]
interaction_timeout_s = 3
[agents.demo]
retry_delay_s = 0.05
[tools]
terminate_grace_s = 0.2
[log]
level = "warning"
"""
TRIES = 12
"""How often in all a named point that was not reached is tried again: it may be that nobody happened to go there."""
REST_S = 60.0
"""How long it may take until everything has come to its end."""
KINDS = (
    "any",
    "run.started",
    "run.queued",
    "run.recovered",
    "run.stopping",
    "run.completed",
    "step.completed",
    "tool.started",
    "tool.executing",
    "tool.completed",
    "interaction.requested",
    "interaction.resolved",
    "item.discarded",
)
"""What a commit can be told to die with."""


class TortureError(Exception):
    """A promise was broken; says which, of which conversation, and where to look."""


@dataclass
class Plan:
    """What to do, and for how long."""

    seed: int
    data: Path
    kills: int = 200
    minutes: float | None = None
    conversations: int = 3
    points: bool = False
    proxy: bool = False
    without: frozenset[str] = frozenset()
    tell: Callable[[str], None] = lambda line: None


@dataclass
class Torture:
    """One torture. ``figures`` grow as it goes."""

    plan: Plan
    figures: Counter[str] = field(default_factory=Counter[str])
    place: Place = field(default_factory=Place)
    journals: list[Journal] = field(default_factory=list[Journal])
    people: list[People] = field(default_factory=list[People])
    logs: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    _server: Server | None = None
    _proxy: Proxy | None = None
    _began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.plan.seed)
        self.sleeping = f"86.{self.chance.randrange(10**8, 10**9)}"
        self._todo = list(POINTS) if self.plan.points else []

    # -- the whole -----------------------------------------------------------------------------------------

    async def run(self) -> Counter[str]:
        """Returns the figures. Raises :class:`TortureError`."""
        try:
            async with self._at_work():
                while not self._enough():
                    await self._kill_once()
                    self._look()
                await self._verdict()
        except (Violation, BrokenPromiseError, TimeoutError) as broken:
            raise TortureError(
                self._report(repr(broken) if isinstance(broken, TimeoutError) else str(broken))
            ) from None
        finally:
            if self._server is not None:
                self._server.stop()
        self._after_all()
        self.figures["seconds"] = round(time.monotonic() - self._began)
        return self.figures

    @asynccontextmanager
    async def _at_work(self) -> AsyncIterator[None]:
        """The server is up, people are there; on leaving they go."""
        self._server = await asyncio.to_thread(self._start, {})
        async with AsyncExitStack() as stack:
            if self.plan.proxy:
                proxy = Proxy.before(self._server.port, cut_after=(200, 200_000), seed=self.plan.seed)
                self._proxy = await stack.enter_async_context(proxy)
            self._moved()
            http = await stack.enter_async_context(httpx2.AsyncClient(trust_env=False, timeout=15))
            schema = await ServedSchema.of(Place(self._server.url, self._server.key))
            for number in range(self.plan.conversations):
                await self._settle_in(stack, http, schema, f"t{self.plan.seed}-{number}")
            tasks = [asyncio.create_task(people.live()) for people in self.people]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _settle_in(
        self, stack: AsyncExitStack, http: httpx2.AsyncClient, schema: ServedSchema, name: str
    ) -> None:
        journal = Journal(name)
        clients = [
            ModelClient(self.place, journal, schema, http, f"{name}/{n}", random.Random(self.chance.random()), anew)
            for n, anew in enumerate((0.0, 0.3))
        ]
        for client in clients:
            await stack.enter_async_context(client.following())
        marks = self.plan.data / f"marks-{name}"
        chance = random.Random(self.chance.random())
        self.journals.append(journal)
        self.people.append(People(journal, clients, marks, chance, self.sleeping, self.plan.without))

    def _enough(self) -> bool:
        if self.plan.minutes is not None:
            return time.monotonic() - self._began > self.plan.minutes * 60
        return self.figures["kills"] >= self.plan.kills and not self._todo

    def _look(self) -> None:
        """Whether anybody saw a promise broken."""
        for journal in self.journals:
            if journal.violations:
                raise Violation(f"{journal.conversation}: {journal.violations[0]}")
        if self.figures["kills"] % 10 == 0:
            frames = sum(journal.frames for journal in self.journals)
            seen = sum(len(frames) for journal in self.journals for frames in journal.seen.values())
            self.plan.tell(f"{self.figures['kills']} kills, {seen} events in {frames} frames")

    # -- killing -------------------------------------------------------------------------------------------

    async def _kill_once(self) -> None:
        """The server dies, one way or another, and comes back."""
        assert self._server is not None
        kinds = ("moment", "point", "starting", "drain")
        kind = "point" if self._todo else self.chance.choices(kinds, (5, 5, 2, 1))[0]
        if kind == "drain":
            self._server.terminate()
            await self._died(self.chance.random())
        self._kill()
        environment = {}
        if kind == "point":
            point = self._todo.pop(0) if self._todo else ""
            spec = f"{point}:1" if point else self._spec(self.chance.choice(POINTS))
            environment[CRASH_AT] = spec
            reached = await self._live_until_dead(environment)
            self.figures["at " + spec.partition(":")[0]] += reached
            if point and not reached and self.figures["tried again"] < TRIES:
                self.figures["tried again"] += 1
                self._todo.append(point)
        elif kind == "starting":
            await self._kill_while_starting()
        await self._up({})
        await asyncio.sleep(self.chance.expovariate(3))

    def _kill(self) -> None:
        assert self._server is not None
        self._server.kill()
        self.figures["kills"] += 1

    async def _live_until_dead(self, environment: dict[str, str]) -> bool:
        """Start it with orders to die; kill it if it does not. Whether it died as it was told."""
        with suppress(RuntimeError):
            await self._up(environment)
            if "drain" in environment[CRASH_AT]:
                await asyncio.sleep(self.chance.random() * 0.3)
                assert self._server is not None
                self._server.terminate()
            await self._died(3.0)
        assert self._server is not None
        did = self._server.process.poll() == -signal.SIGKILL
        self._kill()
        return did

    async def _died(self, within_s: float) -> None:
        assert self._server is not None
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self._server.process.poll() is None:
                    await asyncio.sleep(0.01)

    async def _kill_while_starting(self) -> None:
        """Not even ready, and dead again."""
        command = [sys.executable, "-m", MODULE, "serve", "--data", str(self.plan.data / "data"), "--port", "0"]
        with (self.plan.data / "starting.err").open("ab") as err:
            process = await asyncio.create_subprocess_exec(
                *command, stdout=subprocess.DEVNULL, stderr=err, env=clean_environment()
            )
            with suppress(TimeoutError):
                async with asyncio.timeout(0.2 + self.chance.random() * 0.6):
                    await process.wait()
            if process.returncode is None:
                process.kill()
            await process.wait()
        self.figures["kills"] += 1

    def _spec(self, point: str) -> str:
        """The point, the how manieth time, and sometimes of what."""
        count = self.chance.choice([1, 1, 2, 3, 8, 25])
        if point.startswith("commit"):
            kind = self.chance.choice(KINDS)
            return f"{point}:{count}" if kind == "any" else f"{point}:{min(count, 3)}:{kind}"
        if point.startswith("tool"):
            return f"{point}:{min(count, 3)}:{self.chance.choice(['terminal', 'terminal', 'write_file', 'clarify'])}"
        return (
            f"{point}:{min(count, 3) if point in ('startup.load', 'startup.take_up') else self.chance.randrange(1, 12)}"
        )

    # -- coming up -----------------------------------------------------------------------------------------

    def _start(self, environment: dict[str, str]) -> Server:
        if self.chance.random() < 0.3:
            environment = {**environment, SLOW_DISK: str(self.chance.choice([2, 5, 20, 50]))}
        return Server.start(self.plan.data / "data", settings=SETTINGS, environment=environment, module=MODULE)

    async def _up(self, environment: dict[str, str]) -> None:
        """Raises ``RuntimeError`` when it dies before it is ready."""
        self._server = await asyncio.to_thread(self._start, environment)
        self._moved()
        self.figures["starts"] += 1

    def _moved(self) -> None:
        assert self._server is not None
        self.place.key = self._server.key
        if self._proxy is not None:
            self._proxy.upstream = self._server.port
        self.place.url = self._server.url if self._proxy is None else self._proxy.url

    # -- the end -------------------------------------------------------------------------------------------

    async def _verdict(self) -> None:
        """Let everything come to its end, and judge each conversation; then once more after one more kill."""
        self.figures["connections"] = sum(journal.connections for journal in self.journals)
        if self._proxy is not None:
            self._proxy.cut_after = None
            self._proxy.cut_all()
        for people in self.people:
            people.over = True
        for people in self.people:
            self.figures += await self._judged(people)
        self._kill()
        await self._up({})
        for people in self.people:
            before = self.logs[people.journal.conversation]
            if await people.clients[0].read_log() != before:
                raise Violation(f"{people.journal.conversation}: the log is another after a kill at rest")

    async def _judged(self, people: People) -> Counter[str]:
        client, name = people.clients[0], people.journal.conversation
        async with asyncio.timeout(REST_S):
            snapshot = await self._at_rest(people)
        log = await client.read_log()
        self.logs[name] = log
        await self._all_told(people, len(log))
        assert self._server is not None
        if await self._server.log(name) != [json.loads(raw) for raw in log]:
            raise Violation(f"{name}: the log over HTTP is another")
        try:
            found = judge(people.journal, log, people.marks, snapshot)
            await self._repeat(people)
        except (Violation, BrokenPromiseError) as broken:
            raise Violation(f"{name}: {broken}") from None
        if await client.read_log() != log:
            raise Violation(f"{name}: commands that were sent again had an effect again")
        return found

    async def _at_rest(self, people: People) -> dict[str, object]:
        """A snapshot in which nothing is going on, and nobody waits for an answer to a command."""
        while True:
            self._look_at(people.journal)
            with suppress(*LOST):
                async with asyncio.timeout(5):
                    answer = await people.clients[0].command("snapshot.get")
                snapshot: dict[str, object] = answer["snapshot"]
                if snapshot["run"] is None and not snapshot["queue"] and not people.waiting:
                    return snapshot
            await asyncio.sleep(0.1)

    async def _all_told(self, people: People, head: int) -> None:
        """Every client comes to the same end."""
        async with asyncio.timeout(15):
            while any(client.at < head for client in people.clients):
                self._look_at(people.journal)
                await asyncio.sleep(0.02)
        self._look_at(people.journal)

    def _look_at(self, journal: Journal) -> None:
        if journal.violations:
            raise Violation(f"{journal.conversation}: {journal.violations[0]}")

    async def _repeat(self, people: People) -> None:
        """Send again, over HTTP, what was done: it is a duplicate, and changes nothing."""
        done = [one for one in people.journal.sent.values() if one.oks and one.frame["type"] != "snapshot.get"]
        for sent in self.chance.sample(done, min(len(done), 40)):
            answer = await people.clients[0].repeat(sent)
            if answer.get("duplicate") is not True:
                raise Violation(f"sent again: {answer}, and it was done before: {sent.frame}")

    def _after_all(self) -> None:
        """Nothing is left behind, and the server never said that it was lost."""
        left = processes_with(self.sleeping)
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if left:
            raise TortureError(self._report(f"processes of calls were left behind: {left}"))
        for file in [*self.plan.data.glob("data/log-*/err"), self.plan.data / "starting.err"]:
            if file.exists() and "Traceback" in (said := file.read_text()):
                raise TortureError(self._report(f"the server wrote to {file}:\n{said[-4000:]}"))

    def _report(self, what: str) -> str:
        """What was broken, and all that is known, on disk."""
        for name, log in self._known_logs().items():
            (self.plan.data / f"log-{name}.jsonl").write_text("".join(raw + "\n" for raw in log))
        for journal in self.journals:
            sent = [{"sent": one.frame, "oks": one.oks, "errors": one.errors} for one in journal.sent.values()]
            lines = "".join(json.dumps(one) + "\n" for one in sent)
            (self.plan.data / f"commands-{journal.conversation}.jsonl").write_text(lines)
        figures = ", ".join(f"{count} {name}" for name, count in sorted(self.figures.items()))
        return f"seed {self.plan.seed}: {what}\nso far {figures}\nlogs and commands are in {self.plan.data}"

    def _known_logs(self) -> dict[str, list[str]]:
        """What was read at the end, or what clients saw."""
        seen = {
            journal.conversation: [raw for frames in journal.seen.values() for _, raw in sorted(frames.items())]
            for journal in self.journals
        }
        return {**seen, **self.logs}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.torture", description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=None, help="instead of so many kills")
    parser.add_argument("--conversations", type=int, default=3)
    parser.add_argument("--points", action="store_true", help="begin with every named point once")
    parser.add_argument("--proxy", action="store_true", help="and cut lines at random")
    parser.add_argument("--without", default="", help=f"leave alone some of: {', '.join(WHAT)}")
    parser.add_argument("--data", type=Path, default=None, help="where to leave what it found")
    return parser.parse_args()


async def _main(plan: Plan) -> None:
    figures = await Torture(plan).run()
    print("\n".join(f"{count:>8} {name}" for name, count in figures.items()))


def main() -> None:
    given = _arguments()
    seed = given.seed if given.seed is not None else int(os.environ.get("HERMES_WS_TESTS_SEED") or time.time())
    print(f"seed {seed}", flush=True)
    data = given.data or Path(tempfile.mkdtemp(prefix="hermes-ws-torture-"))
    data.mkdir(parents=True, exist_ok=True)
    plan = Plan(
        seed=seed,
        data=data,
        kills=given.kills,
        minutes=given.minutes,
        conversations=given.conversations,
        points=given.points,
        proxy=given.proxy,
        without=frozenset(given.without.split(",")),
        tell=lambda line: print(line, flush=True),
    )
    try:
        asyncio.run(_main(plan))
    except TortureError as broken:
        print(f"BROKEN: {broken}", flush=True)
        sys.exit(1)
    if given.data is None:
        shutil.rmtree(data)


if __name__ == "__main__":
    main()
