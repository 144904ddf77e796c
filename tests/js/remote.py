"""The JavaScript client, called from a test: a Node process, and its objects as if they were here.

``bridge.mjs`` is the other end. Whatever the library has can be called by name; what tests use all the time has methods
of its own below, named as in the library. Functions that are passed (listeners, tool handlers, ``getTicket``) are
called here, with their JavaScript arguments.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

from tests.wire import Json, soon

__all__ = ["Client", "Conversation", "Heard", "Inbox", "Iteration", "JsError", "Node", "Remote", "Run", "Thrown"]

R = TypeVar("R", bound="Remote")

BRIDGE = Path(__file__).with_name("bridge.mjs")
LINE_BYTES = 64 * 1_048_576
"""Longest line from the process: a snapshot in it may be large."""
EXIT_S = 10.0
"""How long the process may live on when everything in it is closed."""


class Thrown(Exception):
    """Raised by a function of a test: what it was called by there gets an ``Error`` that says so."""


class JsError(Exception):
    """Something was thrown there. ``name`` is its class; its fields are attributes."""

    def __init__(self, told: Json) -> None:
        super().__init__(f"{told['name']}: {told['message']}")
        self.name: str = told["name"]
        self.message: str = told["message"]
        self.fields: Json = told["fields"]

    def __getattr__(self, name: str) -> Any:
        if name != "fields" and name in self.fields:
            return self.fields[name]
        raise AttributeError(f"no {name}: {self}")


class Node:
    """A Node process with the library in it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._callbacks: list[Callable[..., Any]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._opened: list[Remote] = []
        self._warnings = Heard()

    @classmethod
    @asynccontextmanager
    async def started(cls) -> AsyncIterator[Self]:
        """A process that must end by itself, in peace, once every conversation in it is closed."""
        process = await asyncio.create_subprocess_exec(
            "node",
            BRIDGE,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=LINE_BYTES,
        )
        node = cls(process)
        reading = asyncio.gather(node._read(), node._read_warnings())
        try:
            yield node
            await node._leave()
            async with soon(EXIT_S):
                await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            await reading
            assert node._warnings == []
        assert process.returncode == 0

    async def client(self, url: str, **options: Any) -> Client:
        """``new HermesClient({url, ...options})``, with a WebSocket."""
        return await self.make(Client, "HermesClient", {"url": url, **options})

    async def make(self, kind: type[R], what: str, *args: Any) -> R:
        """``new what(...args)``."""
        made: Remote = await self.ask("make", what=what, args=self.outward(list(args)))
        return kind(self, made.handle)

    async def ask(self, act: str, **fields: Any) -> Any:
        """Have something done; what came of it, or :class:`JsError`."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        number = len(self._asked) + 1
        self._asked[number] = answer
        await self._write({"id": number, "do": act, **fields})
        return await answer

    def outward(self, value: Any) -> Any:
        """As it travels: objects by their handles, functions by their numbers."""
        match value:
            case Remote():
                return {"$handle": value.handle}
            case _ if callable(value):
                self._callbacks.append(value)
                return {"$callback": len(self._callbacks) - 1}
            case dict():
                return {key: self.outward(one) for key, one in value.items()}
            case list():
                return [self.outward(one) for one in value]
        return value

    def inward(self, value: Any) -> Any:
        match value:
            case {"$handle": int(handle)}:
                return Remote(self, handle)
            case {"$error": told}:
                return JsError(told)
            case dict():
                return {key: self.inward(one) for key, one in value.items()}
            case list():
                return [self.inward(one) for one in value]
        return value

    async def warned(self, text: str) -> None:
        """Wait for a line on stderr with this in it. Whatever else is said there fails the test."""
        self._warnings.remove(await self._warnings.until(lambda line: text in line))

    def will_be_closed(self, opened: Remote) -> None:
        """Before the process is left."""
        self._opened.append(opened)

    async def _leave(self) -> None:
        for opened in self._opened:
            await opened.call("close")
        assert self._process.stdin is not None
        self._process.stdin.close()

    async def _write(self, frame: Json) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(frame).encode() + b"\n")
        await self._process.stdin.drain()

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            frame = json.loads(line)
            if "callback" in frame:
                self._call_back(frame)
            elif not (answer := self._asked[frame["id"]]).done():
                if "error" in frame:
                    answer.set_exception(JsError(self.inward(frame["error"])))
                else:
                    answer.set_result(self.inward(frame["value"]))
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(AssertionError("the Node process has ended"))
                answer.exception()

    async def _read_warnings(self) -> None:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            self._warnings(line.decode().rstrip())

    def _call_back(self, frame: Json) -> None:
        """Plain functions are called at once, so that what they note is in order."""
        said = self._callbacks[frame["callback"]](*self.inward(frame["args"]))
        task = asyncio.create_task(self._answer(frame["call"], said))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, call: int, said: Any | Awaitable[Any]) -> None:
        try:
            value = await said if inspect.isawaitable(said) else said
        except Thrown as thrown:
            await self._write({"answer": call, "error": str(thrown)})
        else:
            await self._write({"answer": call, "value": self.outward(value)})


class Remote:
    """An object there."""

    def __init__(self, node: Node, handle: int) -> None:
        self.node = node
        self.handle = handle

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Remote) and (self.node, self.handle) == (other.node, other.handle)

    def __hash__(self) -> int:
        return self.handle

    async def call(self, path: str, *args: Any, look: str | None = None, listen: dict[str, Heard] | None = None) -> Any:
        """``object.path(...args)``; a promise is waited for. In the same breath there: ``look`` at this of the result,
        ``listen`` to it."""
        given, listeners = self.node.outward(list(args)), self.node.outward(listen or {})
        return await self.node.ask("call", on=self.handle, path=path, args=given, look=look, listen=listeners)

    async def get(self, path: str) -> Any:
        """``object.path``; a promise is waited for."""
        return await self.node.ask("get", on=self.handle, path=path)


class Heard(list[Any]):
    """A listener: what it was called with, in order."""

    def __init__(self) -> None:
        super().__init__()
        self._more = asyncio.Event()

    def __call__(self, *args: Any) -> None:
        self.append(args[0] if len(args) == 1 else args)
        self._more.set()

    async def until(self, wanted: Callable[[Any], object]) -> Any:
        """Wait for one of which this holds; the first."""
        async with soon():
            while not (found := [one for one in self if wanted(one)]):
                self._more.clear()
                await self._more.wait()
        return found[0]

    async def until_type(self, type_: str, **fields: Any) -> Json:
        """Wait for an event of this type with these fields."""
        found: Json = await self.until(
            lambda event: event["type"] == type_ and all(event.get(name) == value for name, value in fields.items())
        )
        return found


class Iteration(Remote):
    """``object[Symbol.asyncIterator]()``."""

    @classmethod
    async def over(cls, iterable: Remote) -> Self:
        return cls(iterable.node, (await iterable.node.ask("iterate", on=iterable.handle)).handle)

    async def next(self) -> Json | None:
        """The next value; None at the end."""
        values = await self.take(1)
        return values[0] if values else None

    async def take(self, most: int = 1_000_000) -> list[Json]:
        """So many values, fewer if it ends before."""
        async with soon(60):
            values: list[Json] = (await self.node.ask("next", on=self.handle, most=most))["values"]
        return values


class Run(Remote):
    """What ``conversation.run`` returns."""

    async def events(self) -> list[Json]:
        """From the first to the last."""
        return await (await Iteration.over(self)).take()

    async def run_id(self) -> str:
        return str(await self.get("run_id"))

    async def done(self) -> Json:
        """Its terminal event."""
        async with soon(60):
            event: Json = await self.get("done")
        return event


class Connected(Remote):
    """What a conversation and the inbox have in common."""

    async def ready(self) -> None:
        async with soon():
            await self.get("ready")

    async def on(self, type_: str) -> Heard:
        """Listen."""
        heard = Heard()
        await self.call("on", type_, heard)
        return heard


class Inbox(Connected):
    """What ``client.inbox`` returns."""


class Conversation(Connected):
    """What ``client.conversation`` returns."""

    async def state(self) -> Json:
        state: Json = await self.get("state")
        return state

    async def seq(self) -> int:
        return int(await self.get("seq"))

    async def run(self, said: Any, options: Json | None = None) -> Run:
        return await self._begun("run", said, options or {})

    async def retry(self, run_id: str) -> Run:
        return await self._begun("retry", run_id)

    async def _begun(self, how: str, *args: Any) -> Run:
        return Run(self.node, (await self.call(how, *args, look="done")).handle)

    async def said(self, what: str) -> Json:
        """Run it to its end; the terminal event."""
        return await (await self.run(what)).done()

    async def send(self, type_: str, **fields: Any) -> Json:
        """A command; its ``ok``."""
        async with soon(60):
            ok: Json = await self.call("send", {"type": type_, **fields})
        return ok

    async def asked(self, kind: str | None = None) -> Json:
        """The oldest open interaction, of this kind; waits for one."""
        heard = await self.on("interaction")
        is_open = [one for one in (await self.state())["interactions"] if kind in (None, one["kind"])]
        asked: Json = is_open[0] if is_open else await heard.until(lambda one: kind in (None, one["kind"]))
        return asked

    async def reached(self, seq: int) -> None:
        """Wait until everything up to this number was received."""
        heard = await self.on("state")
        if await self.seq() < seq:
            await heard.until(lambda state: state["at"] >= seq)

    async def settled(self) -> Json:
        """Wait until no run is active or queued; the state."""
        heard = await self.on("state")
        state = await self.state()
        if state["run"] is None and not state["queue"]:
            return state
        found: Json = await heard.until(lambda state: state["run"] is None and not state["queue"])
        return found


class Client(Remote):
    """A ``HermesClient``."""

    async def conversation(self, conversation_id: str, **options: Any) -> Conversation:
        """Opened; ``from_`` is ``from``. Closed when the process is left."""
        conversation, _ = await self.listening(conversation_id, **options)
        return conversation

    async def listening(self, conversation_id: str, *types: str, **options: Any) -> tuple[Conversation, list[Heard]]:
        """The same, with listeners that miss nothing: a conversation connects at once."""
        given = {name.rstrip("_"): value for name, value in options.items()}
        listen = {type_: Heard() for type_ in types}
        opened = await self._opened("conversation", conversation_id, given, listen=listen)
        return Conversation(self.node, opened), list(listen.values())

    async def inbox(self, **options: Any) -> Inbox:
        return Inbox(self.node, await self._opened("inbox", options))

    async def _opened(self, how: str, *args: Any, **beside: Any) -> int:
        opened: Remote = await self.call(how, *args, **beside)
        self.node.will_be_closed(opened)
        return opened.handle
