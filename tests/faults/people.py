"""The people of one conversation: what they start, answer, steer, stop and configure, at random.

Whatever they do leaves something to be counted by: a run's input and a steer carry a token of their own, so does a
configuration's title; and a command that is run leaves a mark in a file outside of everything.
"""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.model_client import Journal, Json, ModelClient

__all__ = ["People"]

MOST_WAITING = 5
"""Runs in the queue beyond which nobody starts another."""
WHAT = {
    "start": 10.0,
    "interrupt": 1.0,
    "steer": 2.5,
    "stop": 1.2,
    "configure": 1.5,
    "retry": 1.0,
    "snapshot": 1.0,
    "late": 0.5,
    "race": 0.0,
}
"""What they do, and how often. They race whenever there is a question."""
PAUSE_S = 0.25
"""The longest that people wait between two things they do."""


@dataclass
class People:
    """``over``: they begin nothing new, and answer what is open, so that all comes to an end."""

    journal: Journal
    clients: list[ModelClient]
    marks: Path
    chance: random.Random
    sleeping: str
    """Seconds that only commands of this torture sleep for."""
    without: frozenset[str] = frozenset()
    """What they leave alone."""
    over: bool = False
    tokens: int = 0
    raced: set[str] = field(default_factory=set[str])
    """Interactions that they have answered."""
    _tasks: set[asyncio.Task[Json]] = field(default_factory=set[asyncio.Task[Json]])

    async def live(self) -> None:
        """Do things, and answer questions, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._act())
            group.create_task(self._answer())

    @property
    def waiting(self) -> int:
        """How many of their commands have no answer yet."""
        return len([task for task in self._tasks if not task.done()])

    async def _act(self) -> None:
        while True:
            await asyncio.sleep(self.chance.random() * PAUSE_S)
            if not self.over and self.waiting < 12:
                self._something()
            if self.chance.random() < 0.02:
                self.chance.choice(self.clients).cut()

    def _do(self, type_: str, **fields: object) -> asyncio.Task[Json]:
        client = self.chance.choice(self.clients)
        task = asyncio.create_task(client.command(type_, **fields))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def token(self, prefix: str) -> str:
        self.tokens += 1
        return f"{prefix}{self.tokens}.{self.journal.conversation}."

    # -- what they do --------------------------------------------------------------------------------------

    def _something(self) -> None:
        likely = {name: weight for name, weight in WHAT.items() if name not in self.without}
        match self.chance.choices(list(likely), list(likely.values()))[0]:
            case "start":
                if self._queued() < MOST_WAITING:
                    self._do("run.start", input=self._script(), when_busy=self.chance.choice(["queue", "reject"]))
            case "steer" if self.chance.random() < 0.3:
                self._do("run.start", input=self.token("s"), when_busy="steer")
            case "interrupt":
                self._do("run.start", input=self._script(), when_busy="interrupt")
            case "steer":
                self._do("run.steer", text=self.token("s"), if_late=self.chance.choice(["queue", "return"]))
            case "stop":
                mode, queue = self.chance.choice(["graceful", "now"]), self.chance.choice(["keep", "keep", "clear"])
                self._do("run.stop", mode=mode, queue=queue)
            case "configure":
                self._configure()
            case "retry":
                if failed := self._failed():
                    self._do("run.retry", run_id=self.chance.choice(failed))
            case "snapshot":
                self._do("snapshot.get")
            case _:
                self._do("interaction.reply", interaction_id="int_none", option="once")

    def _queued(self) -> int:
        view = self.clients[0].view
        return len(view.queue) if view is not None else 0

    def _failed(self) -> list[str]:
        """Runs that somebody saw fail, the newest ones."""
        frames = self.journal.seen.get(self.journal.epochs[-1], {}) if self.journal.epochs else {}
        newest = sorted(frames)[-400:]
        failed = (json.loads(frames[seq]) for seq in newest if frames[seq].startswith('{"type":"run.failed"'))
        return [frame["run_id"] for frame in failed]

    def _configure(self) -> None:
        mode = self.chance.choice(["ask", "ask", "auto"])
        tools = self.chance.choice([None, None, {"deny": ["write_file"]}])
        self._do(
            "conversation.configure",
            config={"title": self.token("t"), "approvals": {"mode": mode}, "tools": tools},
        )

    # -- scripts -------------------------------------------------------------------------------------------

    def _script(self) -> str:
        """One thing that a run can do, or two of them, and a last word by which it is known."""
        parts = [self._part() for _ in range(self.chance.choice([1, 1, 2]))]
        return "\n".join([*parts, f"/say done {self.token('r')}"])

    def _part(self) -> str:
        kinds = ("stream", "think", "mark", "slow", "par", "ask", "read", "write", "overload", "fail", "leave", "sleep")
        match self.chance.choices(kinds, (3, 2, 4, 4, 3, 3, 2, 2, 1, 0.5, 1.5, 1))[0]:
            case "stream":
                return f"/stream {self.chance.choice([20, 100, 300])} {self.chance.choice([0, 1, 2])}"
            case "think":
                return "/think well, let me see\n/say I see"
            case "mark":
                return f"/run {self._mark()}"
            case "slow":
                return f"/run sleep 0.0{self.chance.randrange(10)}; {self._mark()}; sleep 0.{self.chance.randrange(3)}"
            case "par":
                return f"/run {self._mark()}\n/par\n/run {self._mark()}; sleep 0.1\n/par\n/ask Well? | a | b | c"
            case "ask":
                return "/ask Which? | a | b | c"
            case "read":
                return '/tool list_files {}\n/par\n/tool read_file {"path": "written.txt"}'
            case "write":
                written = json.dumps({"path": "written.txt", "content": self.token("w")})
                return f"/tool write_file {written}"
            case "overload":
                return "/fail model_overloaded 1"
            case "fail":
                return "/fail model_auth"
            case "leave":
                command = f"setsid sleep {self.sleeping} & {self._mark()}; sleep {self.sleeping}"
                return f"/tool terminal {json.dumps({'command': command, 'timeout_s': 0.4})}"
            case _:
                return "/sleep 0.05\n/sleep 0.1"

    def _mark(self) -> str:
        """A command that leaves a mark of its own, once for every time that it is run."""
        return f"echo {self.token('m')} >> {self.marks}"

    # -- answers -------------------------------------------------------------------------------------------

    async def _answer(self) -> None:
        """Sooner or later two people answer what is open, each something else."""
        while True:
            await asyncio.sleep(self.chance.random() * PAUSE_S)
            for asked in self._open():
                if self.over or self.chance.random() < 0.5:
                    self._race(asked)

    def _open(self) -> list[Json]:
        found: dict[str, Json] = {}
        for client in self.clients:
            if client.view is not None:
                found |= client.view.interactions
        return [asked for name, asked in found.items() if name not in self.raced]

    def _race(self, asked: Json) -> None:
        name = asked["interaction_id"]
        self.raced.add(name)
        for client in self.clients if "race" not in self.without else [self.chance.choice(self.clients)]:
            frame: Json = {"interaction_id": name, **self._choice(asked)}
            task = asyncio.create_task(client.command("interaction.reply", **frame))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _choice(self, asked: Json) -> Json:
        if asked["kind"] != "approval":
            return {"answers": {"answer": self.chance.choice(["a", "b", "c"])}}
        option = self.chance.choices(["once", "run", "conversation", "deny"], (6, 1, 1, 1.5))[0]
        if option != "deny" and asked["tool"]["name"] == "terminal" and self.chance.random() < 0.2:
            return {"option": option, "arguments": {"command": self._mark()}}
        return {"option": option}
