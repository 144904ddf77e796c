"""A client written from the served JSON Schema and the protocol's documentation alone.

It believes nothing: every frame is checked against the schema, folded by the second fold (which complains of whatever
the protocol does not allow), and kept as it came. It comes back whenever the line is lost, where it was, and sends
again under its id what was not answered. What all clients of a conversation saw is in one :class:`Journal`, so that in
the end it can be held against the log.
"""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import httpx2
from jsonschema import Draft202012Validator
from jsonschema.protocols import Validator
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

from tests.session.second_fold import BrokenPromiseError, SecondFold, fold

__all__ = ["LOST", "Journal", "ModelClient", "Place", "Sent", "ServedSchema", "Violation", "same_state"]

Json: TypeAlias = dict[str, Any]

LOST = (ConnectionClosed, InvalidHandshake, InvalidMessage, OSError, TimeoutError, EOFError, httpx2.HTTPError)
"""How a line or a server is lost. None of it is anybody's fault."""
DELTAS = frozenset({"message.delta", "reasoning.delta", "tool.output"})
SAMPLE = 20
"""Of this many deltas one is checked against the schema; of everything else, all."""
RESTART_HEAD = 4_000
"""A longer log is not read again from its start just for fun."""
PATIENCE_S = 15.0


class Violation(AssertionError):
    """A promise was broken."""


class ServedSchema:
    """The JSON Schema that the server serves, one validator per type of frame."""

    def __init__(self, document: Json) -> None:
        self._names: dict[str, str] = {}
        self._definitions = document["$defs"]
        for group in ("Event", "Control"):
            for reference in self._definitions[group]["oneOf"]:
                name = reference["$ref"].rpartition("/")[2]
                self._names[self._definitions[name]["properties"]["type"]["const"]] = name
        self._validators: dict[str, Validator] = {}
        self._deltas = 0

    @classmethod
    async def of(cls, place: Place) -> ServedSchema:
        async with httpx2.AsyncClient(trust_env=False, timeout=PATIENCE_S) as http:
            answer = await http.get(place.url + "/schemas/hermes.v1.schema.json", headers=place.headers)
        return cls(answer.raise_for_status().json())

    def check(self, frame: Json) -> None:
        kind = frame["type"]
        if kind in DELTAS:
            self._deltas += 1
            if self._deltas % SAMPLE:
                return
        if kind not in self._names:
            _must(kind.startswith("x_"), "a type that the schema does not know", frame)
            return
        problem = next(self._validator(kind).iter_errors(frame), None)
        _must(problem is None, f"not what the schema says: {problem and problem.message}", frame)

    def _validator(self, kind: str) -> Validator:
        if kind not in self._validators:
            schema = {"$ref": f"#/$defs/{self._names[kind]}", "$defs": self._definitions}
            self._validators[kind] = Draft202012Validator(schema)
        return self._validators[kind]


@dataclass
class Place:
    """Where the server is now; it moves when it is started again."""

    url: str = ""
    key: str = ""

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}


@dataclass
class Sent:
    """A command and what came of it. ``tries``: how often it was sent; ``errors``: those that said to try again."""

    frame: Json
    answer: asyncio.Future[Json]
    client: str
    tries: int = 0
    oks: list[Json] = field(default_factory=list[Json])
    errors: list[Json] = field(default_factory=list[Json])

    def answered(self, frame: Json) -> None:
        """One more answer to it."""
        if frame["type"] == "error":
            self.errors.append(frame)
            _must(not self.oks, "refused, after it was done", frame)
        else:
            first_time = [ok for ok in [*self.oks, frame] if not ok.get("duplicate") and "snapshot" not in ok]
            _must(len(first_time) <= 1, "done twice: ok again, but no duplicate", frame)
            plain = {name: value for name, value in frame.items() if name != "duplicate"}
            first = {name: value for name, value in (self.oks or [frame])[0].items() if name != "duplicate"}
            _must(plain == first or "snapshot" in frame, f"another ok than before, which was {first}", frame)
            self.oks.append(frame)
        if not self.answer.done():
            self.answer.set_result(frame)


@dataclass
class Journal:
    """What everybody saw of one conversation, and what they asked for."""

    conversation: str
    epochs: list[str] = field(default_factory=list[str])
    seen: dict[str, dict[int, str]] = field(default_factory=dict[str, dict[int, str]])
    sent: dict[str, Sent] = field(default_factory=dict[str, Sent])
    snapshots: list[Json] = field(default_factory=list[Json])
    violations: list[str] = field(default_factory=list[str])
    connections: int = 0
    frames: int = 0
    may_lose: bool = False
    """Whether the log may have been replaced by an older one: only then may an epoch change."""

    def head(self, epoch: str) -> int:
        """The last number that anybody saw."""
        return max(self.seen.get(epoch, {0: ""}), default=0)

    def saw(self, epoch: str, seq: int, raw: str) -> bool:
        """Whether it is new; what was seen before must be the same."""
        known = self.seen.setdefault(epoch, {})
        before = known.setdefault(seq, raw)
        _must(before == raw, f"two clients saw different frames under one number: {before}", raw)
        return before is raw

    def began(self, epoch: str) -> None:
        if epoch not in self.epochs:
            _must(not self.epochs or self.may_lose, f"a new epoch after {self.epochs}", epoch)
            self.epochs.append(epoch)

    def compare(self, log: Iterable[str]) -> SecondFold:
        """Everything that was seen is in the log, byte for byte; the log is contiguous. Returns its fold."""
        told = fold([])
        in_log: dict[int, str] = {}
        dropped: set[int] = set()
        for raw in log:
            frame = json.loads(raw)
            told.feed(frame)
            if frame["type"] == "skipped":
                dropped.update(range(frame["from"], frame["to"] + 1))
            else:
                in_log[frame["seq"]] = raw
        for seq, raw in self.seen.get(self.epochs[-1] if self.epochs else "", {}).items():
            gone = seq in dropped and json.loads(raw)["type"] in DELTAS
            _must(gone or in_log.get(seq) == raw, f"seen, but in the log is {in_log.get(seq)}", raw)
        return told


@dataclass
class ModelClient:
    """One person's program. :meth:`follow` is to be run beside it; :meth:`command` waits for its answer."""

    place: Place
    journal: Journal
    schema: ServedSchema
    http: httpx2.AsyncClient
    name: str = "model"
    chance: random.Random = field(default_factory=random.Random)
    start_anew: float = 0.15
    """How often it forgets where it was and begins from a snapshot, or the start, or without deltas."""
    closed: bool = False
    live: asyncio.Event = field(default_factory=asyncio.Event)
    view: SecondFold | None = None
    """What it knows; of what epoch; from where on (None: from the start)."""
    epoch: str | None = None
    from_snapshot: Json | None = None
    _excluded: bool = False
    _connection: ClientConnection | None = None
    _unanswered: dict[str, Sent] = field(default_factory=dict[str, Sent])
    _asked: Counter[str] = field(default_factory=Counter[str])
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    # -- following -----------------------------------------------------------------------------------------

    @asynccontextmanager
    async def following(self) -> AsyncIterator[ModelClient]:
        task = asyncio.create_task(self.follow())
        try:
            yield self
        finally:
            self.closed = True
            for one in [task, *self._tasks]:
                one.cancel()
            await asyncio.gather(task, *self._tasks, return_exceptions=True)

    async def follow(self) -> None:
        """Stay connected until closed, or until a promise is broken; that is kept in the journal."""
        try:
            while not self.closed:
                with suppress(*LOST):
                    await self._connect()
                self._connection = None
                self.live.clear()
                await asyncio.sleep(0.02 + self.chance.random() * 0.05)
        except (Violation, BrokenPromiseError) as broken:
            self.journal.violations.append(f"{self.name}: {broken}")

    def cut(self) -> None:
        """Lose the line."""
        if self._connection is not None:
            self._connection.transport.abort()

    @property
    def at(self) -> int:
        return self.view.at if self.view is not None else 0

    def _query(self) -> str:
        """How to connect: where we were, as a rule."""
        anew = self.view is None or self.chance.random() < self.start_anew
        if not anew:
            query = f"after={self.at}" + (f"&epoch={self.epoch}" if self.epoch else "")
        else:
            self.view, self.from_snapshot = None, None
            self._excluded = self.chance.random() < 0.3
            from_start = self.chance.random() < 0.5 and self.journal.head(self.epoch or "") < RESTART_HEAD
            query = "from=start" if from_start else "from=snapshot"
            self.epoch = None
        return query + ("&exclude=message.delta,reasoning.delta,tool.output" if self._excluded else "")

    async def _connect(self) -> None:
        before = {epoch: self.journal.head(epoch) for epoch in self.journal.epochs}
        async with connect(
            f"ws{self.place.url.removeprefix('http')}/ws/{self.journal.conversation}?{self._query()}",
            additional_headers=self.place.headers,
            compression=None,
            max_size=None,
            proxy=None,
            open_timeout=PATIENCE_S,
            close_timeout=0.2,
            ping_interval=None,
        ) as connection:
            hello = await self._frame(connection)
            _must(hello["type"] == "hello", "hello comes first", hello)
            await self._greet(connection, hello, before)
            self._connection = connection
            self.journal.connections += 1
            self._asked.clear()
            await self._send_again()
            while True:
                self._take(await self._frame(connection))

    async def _frame(self, connection: ClientConnection) -> Json:
        raw = await connection.recv()
        assert isinstance(raw, str)
        frame: Json = json.loads(raw)
        self.journal.frames += 1
        if "seq" not in frame or self.epoch is None or self.journal.saw(self.epoch, frame["seq"], raw):
            self.schema.check(frame)
        if "seq" in frame and frame["type"] == "conversation.created" and self.epoch is None:
            self.epoch = frame["epoch"]
            self.journal.began(frame["epoch"])
            self.journal.saw(frame["epoch"], frame["seq"], raw)
        return frame

    async def _greet(self, connection: ClientConnection, hello: Json, before: dict[str, int]) -> None:
        """``hello``, and what was asked for, up to ``live``."""
        resume, epoch = hello["resume"], hello["epoch"]
        if epoch is not None:
            self.journal.began(epoch)
            _must(hello["head"] >= before.get(epoch, 0), f"somebody saw {before.get(epoch)} already", hello)
        else:
            _must(not before and hello["head"] == 0, "it exists, but has no epoch", hello)
        if self.epoch not in (None, epoch):
            _must(resume["mode"] == "snapshot", "another epoch: what is replayed is of no use", hello)
            self.view = None
        self.epoch = epoch
        if resume["mode"] == "snapshot":
            _must(self.view is None or "reason" in resume, "a snapshot although a replay was asked for", hello)
            snapshot = await self._frame(connection)
            _must(snapshot["type"] == "snapshot" and snapshot["at"] == resume["to"], "not the snapshot", snapshot)
            self._begin_at({name: value for name, value in snapshot.items() if name != "type"})
        else:
            _must(resume["mode"] == "replay" and resume["from"] == self.at + 1, f"not from {self.at + 1} on", hello)
            self.view = self.view or SecondFold()
            _must(resume["to"] == hello["head"], "replayed up to the head", hello)
        while (frame := await self._frame(connection))["type"] != "live":
            self._take(frame)
        _must(frame["at"] == hello["head"] == self.at, f"not told up to there, but to {self.at}", frame)
        self.live.set()

    def _begin_at(self, snapshot: Json) -> None:
        self.journal.snapshots.append(snapshot)
        self.from_snapshot = snapshot
        self.view = SecondFold(snapshot if snapshot["at"] else None)

    def _take(self, frame: Json) -> None:
        """One frame, after ``hello``."""
        assert self.view is not None
        match frame["type"]:
            case "ok" | "error":
                self._answered(frame)
            case "heartbeat":
                _must(frame["head"] == self.at, f"not told up to there, but to {self.at}", frame)
            case "goaway":
                pass
            case kind:
                _must("seq" in frame or kind == "skipped", "not to be expected here", frame)
                _must(not (self._excluded and kind in DELTAS), "this was excluded", frame)
                self.view.feed(frame)

    # -- commands ------------------------------------------------------------------------------------------

    async def command(self, type_: str, **fields: Any) -> Json:
        """Send it, as often as it takes; its ``ok``, or an ``error`` that would be the same the next time."""
        frame = {"type": type_, "id": str(uuid.UUID(int=self.chance.getrandbits(128))), **fields}
        sent = Sent(frame, asyncio.get_running_loop().create_future(), self.name)
        self._unanswered[frame["id"]] = self.journal.sent[frame["id"]] = sent
        await self._send(sent)
        return await sent.answer

    async def repeat(self, sent: Sent) -> Json:
        """Send a command again that was answered, on the other road; its answer."""
        answer = await self._post(sent)
        sent.answered(answer)
        return answer

    async def _send(self, sent: Sent) -> None:
        if self._connection is not None:
            sent.tries += 1
            self._asked[sent.frame["id"]] += 1
            with suppress(*LOST):
                await self._connection.send(json.dumps(sent.frame))

    async def _send_again(self) -> None:
        """What was not answered, under its id; some of it over HTTP instead."""
        for sent in list(self._unanswered.values()):
            if self.chance.random() < 0.2:
                self._soon(self._post_unanswered(sent))
            else:
                await self._send(sent)

    async def _post_unanswered(self, sent: Sent) -> None:
        with suppress(*LOST):
            self._settle(await self._post(sent), sent)

    async def _post(self, sent: Sent) -> Json:
        sent.tries += 1
        address = f"{self.place.url}/api/conversations/{self.journal.conversation}/commands"
        answer: Json = (await self.http.post(address, json=sent.frame, headers=self.place.headers)).json()
        self.schema.check(answer)
        return answer

    def _answered(self, frame: Json) -> None:
        self._asked[frame["id"]] -= 1
        _must(self._asked[frame["id"]] >= 0, "answered more often than asked", frame)
        self._settle(frame, self.journal.sent[frame["id"]])

    def _settle(self, frame: Json, sent: Sent) -> None:
        if frame["type"] == "error" and frame["retryable"] and frame["code"] in ("internal", "overloaded"):
            if frame["id"] in self._unanswered:
                self._soon(self._later(sent))
            return
        self._unanswered.pop(frame["id"], None)
        sent.answered(frame)

    async def _later(self, sent: Sent) -> None:
        await asyncio.sleep(0.1)
        await self._send(sent)

    def _soon(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Any) -> None:
        try:
            await work
        except (Violation, BrokenPromiseError) as broken:
            self.journal.violations.append(f"{self.name}: {broken}")

    @property
    def unanswered(self) -> list[Json]:
        return [sent.frame for sent in self._unanswered.values()]

    # -- comparing -----------------------------------------------------------------------------------------

    async def read_log(self) -> list[str]:
        """Every frame that counts, as it comes to somebody who begins with the first."""
        raws: list[str] = []
        async with connect(
            f"ws{self.place.url.removeprefix('http')}/ws/{self.journal.conversation}?after=0",
            additional_headers=self.place.headers,
            compression=None,
            max_size=None,
            proxy=None,
            close_timeout=0.2,
        ) as connection:
            while True:
                async with asyncio.timeout(PATIENCE_S):
                    raw = await connection.recv()
                assert isinstance(raw, str)
                frame = json.loads(raw)
                if "seq" in frame or frame["type"] == "skipped":
                    raws.append(raw)
                elif frame["type"] == "live":
                    connection.transport.abort()
                    return raws


def same_state(one: Json, other: Json) -> str:
    """How two views of the same moment differ ("" if not): a window's items are the last of the others'."""
    window = min(len(one["items"]), len(other["items"]))
    for name in ("at", "config", "config_version", "run", "queue", "interactions", "usage"):
        if one.get(name) != other.get(name):
            return f"{name}: {one.get(name)!r} and {other.get(name)!r}"
    ones, others = one["items"][-window:] if window else [], other["items"][-window:] if window else []
    return next((f"{a!r} and {b!r}" for a, b in zip(ones, others, strict=True) if a != b), "")


def _must(holds: bool, otherwise: str, what: object) -> None:
    if not holds:
        raise Violation(f"{otherwise}: {str(what)[:2000]}")
