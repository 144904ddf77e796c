"""What nobody meant to send: frames, sockets' bytes and HTTP requests, made from the published schema and then spoilt.

Everything takes its chances from one :class:`random.Random`: a seed says again what was sent, and hypothesis may hand
in one that it can shrink. Nothing here talks to a server but :class:`Vitals`, which looks at one from outside.
"""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

from tests.wire import Json, Server, resident_kb, wait_for

__all__ = ["Frames", "Vitals", "cpu_s", "frame", "http_request", "refusals_of", "socket_bytes", "statuses"]

SCRIPTS = (
    "hi",
    "/say x",
    "/ask why? | a | b",
    "/sleep 0.01",
    "/stream 5 0",
    "/think so\n/say x",
    "/fail rate_limited 1",
)
"""What runs are started with: nothing that touches the machine, whatever else was configured."""
NUMBERS = (
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "-0",
    "0.1e-999",
    "9" * 5000,
    "-" + "9" * 40,
    "1.5",
    "00",
    "+1",
    "0x1",
)
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**30, 1e308, -0.5, "",
    " ", "x" * 5000, "\0", "\ud800", "\udfff\ud800", "🙂", "\u2028", "../..", "%00", "null", "*", "[", "int_1",
    "run_1", [], {}, [None], {"": None}, [[[[]]]], {"type": "ping"}, {"__proto__": {}}, [1] * 500,
)  # fmt: skip


class Frames:
    """Commands: as the schema has them, and with something wrong."""

    def __init__(self, schema: Json, chance: Random) -> None:
        self._defs: Json = schema["$defs"]
        self._chance = chance
        self._commands: list[Json] = [self._resolved(one) for one in self._defs["Command"]["oneOf"]]

    def _resolved(self, schema: Json) -> Json:
        while "$ref" in schema:
            schema = self._defs[schema["$ref"].rpartition("/")[2]]
        return schema

    def valid(self) -> Json:
        """One that fits the schema; what it is about need not exist."""
        made: Json = self._value(self._chance.choice(self._commands), 0)
        if made["type"] == "run.start":
            made["input"] = self._chance.choice(SCRIPTS)
        if self._chance.random() < 0.5:
            made.pop("id", None)
        return made

    def _value(self, schema: Json, depth: int) -> Any:
        chance, schema = self._chance, self._resolved(schema)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return chance.choice(schema["enum"])
        if options := schema.get("anyOf") or schema.get("oneOf"):
            return self._value(chance.choice(options), depth)
        match schema.get("type"):
            case "object":
                return self._object(schema, depth)
            case "array":
                return [self._value(schema.get("items", {}), depth + 1) for _ in range(chance.randrange(3))]
            case "string":
                return self._string(schema)
            case "integer" | "number":
                return chance.choice((1, 2, 1000, 10**6)) + schema.get("minimum", 0)
            case "boolean":
                return chance.random() < 0.5
            case "null":
                return None
            case _:
                return chance.choice(("x", 1, None, [], {}))

    def _object(self, schema: Json, depth: int) -> Json:
        needed = set(schema.get("required", ()))
        made: Json = {}
        for name, inner in schema.get("properties", {}).items():
            if name in needed or (depth < 4 and self._chance.random() < 0.4):
                made[name] = self._value(inner, depth + 1)
        return made

    def _string(self, schema: Json) -> str:
        made = self._chance.choice(("x", "demo", "builtin:*", "a b", "é", "once", "int_1", "run_1"))
        pattern = schema.get("pattern")
        return "abc1" if pattern and not re.search(pattern, made) else made

    def spoilt(self) -> bytes:
        """One that somebody got wrong, in one way or several."""
        made: Any = self.valid()
        for _ in range(self._chance.choice((0, 1, 1, 1, 2, 5))):
            made = self._changed(made)
        text = json.dumps(made, ensure_ascii=self._chance.random() < 0.7)
        return self._chance.choice(
            (self._kept, self._kept, self._number, self._twice, self._deep, self._cut, self._noise)
        )(text)

    def _changed(self, made: Any) -> Any:
        """With one value somewhere in it replaced, taken away, renamed or nulled."""
        chance = self._chance
        if not isinstance(made, dict | list) or not made or chance.random() < 0.05:
            return deepcopy(chance.choice(ODD))
        keys: list[Any] = list(made) if isinstance(made, dict) else list(range(len(made)))
        key = chance.choice(keys)
        if isinstance(made[key], dict | list) and chance.random() < 0.6:
            made[key] = self._changed(made[key])
            return made
        match chance.randrange(5):
            case 0:
                del made[key]
            case 1 if isinstance(made, dict):
                made[str(key) + chance.choice(("_", "x", " ", "\0"))] = made.pop(key)
            case 2 if isinstance(made, dict):
                made = dict.fromkeys(made, None) | {"type": made.get("type")}
            case _:
                made[key] = deepcopy(chance.choice(ODD))
        return made

    def _kept(self, text: str) -> bytes:
        return text.encode("utf-8", "surrogatepass")

    def _number(self, text: str) -> bytes:
        return re.sub(r"(?<=[:\[ ])(-?\d+|null|true)(?=[,}\]])", self._chance.choice(NUMBERS), text, count=1).encode(
            "utf-8", "surrogatepass"
        )

    def _twice(self, text: str) -> bytes:
        """The same keys again."""
        again = self._chance.choice(('"type":"ping"', '"id":"a"', '"type":1', '"input":[]', '"type":null'))
        return (text[:-1] + "," + again + text[-1:]).encode("utf-8", "surrogatepass")

    def _deep(self, text: str) -> bytes:
        depth = self._chance.choice((50, 65, 500, 20_000))
        opened, closed = self._chance.choice((("[", "]"), ('{"a":', "}")))
        nested = opened * depth + "1" + closed * self._chance.choice((depth, depth - 1, 0))
        return (text[:-1] + ',"metadata":' + nested + "}").encode("utf-8", "surrogatepass")

    def _cut(self, text: str) -> bytes:
        return text.encode("utf-8", "surrogatepass")[: self._chance.randrange(len(text) + 1)]

    def _noise(self, text: str) -> bytes:
        data = bytearray(text.encode("utf-8", "surrogatepass"))
        for _ in range(self._chance.choice((1, 3, 30))):
            data[self._chance.randrange(len(data)) :][:1] = b""
            at = self._chance.randrange(len(data) + 1)
            data[at:at] = self._chance.choice(
                (b"\xff", b"\xc3", b"\xed\xa0\x80", b"\0", b'"', b"\\u", b"{", b"\xf5\x80")
            )
        return bytes(data)


# -- the bytes of a socket -------------------------------------------------------------------------------


def frame(
    opcode: int, payload: bytes, *, fin: bool = True, reserved: int = 0, masked: bool = True, length: int | None = None
) -> bytes:
    """One WebSocket frame; ``length`` is what it says of itself."""
    said = len(payload) if length is None else length
    first = bytes([(0x80 if fin else 0) | reserved << 4 | opcode])
    mask = 0x80 if masked else 0
    if said < 126:
        head = first + bytes([mask | said])
    elif said < 65_536:
        head = first + bytes([mask | 126]) + struct.pack("!H", said)
    else:
        head = first + bytes([mask | 127]) + struct.pack("!Q", said)
    key = b"\1\2\3\4"
    return head + (key + bytes(byte ^ key[n % 4] for n, byte in enumerate(payload)) if masked else payload)


def socket_bytes(chance: Random, frames: Frames) -> bytes:
    """A few frames with something wrong in how they are put."""
    made = bytearray()
    for _ in range(chance.randrange(1, 6)):
        payload = frames.spoilt()[:2000]
        match chance.randrange(9):
            case 0:
                made += frame(chance.randrange(16), payload)
            case 1:
                made += frame(1, payload, reserved=chance.randrange(1, 8))
            case 2:
                made += frame(1, payload, masked=False)
            case 3:
                made += frame(1, payload, length=chance.choice((0, 1, 125, 126, 65_536, 2**31, 2**62)))
            case 4:
                cut = chance.randrange(len(payload) + 1)
                made += frame(chance.choice((1, 2)), payload[:cut], fin=False)
                made += b"".join(frame(0, b"", fin=False) for _ in range(chance.randrange(200)))
                made += frame(chance.choice((0, 0, 1)), payload[cut:])
            case 5:
                made += frame(chance.choice((8, 9, 10)), payload[: chance.choice((0, 1, 2, 125, 126, 500))])
            case 6:
                made += frame(8, struct.pack("!H", chance.randrange(65_536)) + payload[:100])
            case 7:
                made += chance.randbytes(chance.randrange(1, 200))
            case _:
                made += frame(1, payload)
    return bytes(made)


# -- HTTP ------------------------------------------------------------------------------------------------

_METHODS = (
    "GET",
    "GET",
    "GET",
    "POST",
    "POST",
    "HEAD",
    "OPTIONS",
    "PUT",
    "DELETE",
    "PATCH",
    "TRACE",
    "CONNECT",
    "get",
    "X",
)
_PATHS = (
    "/", "/health", "/api/conversations", "/api/conversations/{id}/events", "/api/conversations/{id}/commands",
    "/api/conversations/{id}/tool-calls/{id}/output", "/api/tickets", "/schemas/{id}", "/schemas/reference.md",
    "/api/conversations/{id}/items", "/api/conversations/{id}/export", "/api/interactions",
    "/ws/{id}", "/api/nothing", "*", "", "http://localhost/health", "localhost:80",
)  # fmt: skip
_IDS = (
    "demo", "new", "a.b:c", "", ".", "..", "%2e%2e", "%00", "%ff", "%", "%zz", "%F0%9F%98%80", "a%2Fb", "x" * 128,
    "x" * 129, "x" * 5000, "//", "a//b", ";", "a;b", "\\", "'", "é", "%ED%A0%80", "\x7f", "a b", "\t",
)  # fmt: skip
_QUERIES = (
    "", "", "after=0", "after=-1", "after=1e9", "after=999999999999999", "after=9999999999999999", "after=٣",
    "after=%00", "limit=0", "limit=-0", "limit=99999999", "limit=1&limit=2", "wait_ms=100", "wait_ms=999999999999",
    "cursor=x", "cursor=%00", "cursor=" + "x" * 3000, "cursor=MTox", "cursor=eyJhIjoxfQ", "ticket=x", "ticket=%ff",
    "ticket=", "plain=1", "plain=2", "exclude=message.delta", "exclude=%00", "from=now", "from=x", "epoch=x&after=1",
    "before=x", "before=%ff", "exclude=,", "after=1&exclude=run.started&wait_ms=50",
    "&&&=&=", "%", "a=%ZZ", "?", "#x", "&".join(f"p{n}=x" for n in range(80)),
)  # fmt: skip
_HEADERS = (
    "Host: localhost", "Host: evil.example", "Host:", "Host: localhost:99999999", "Origin: http://localhost",
    "Origin: null", "Origin: http://evil.example", "Origin: ", "Authorization: Bearer x", "Authorization: Basic eDp5",
    "Authorization:", "Authorization: Bearer \xff", "Content-Length: 5", "Content-Length: -1", "Content-Length: 5, 5",
    "Content-Length: 5x", "Content-Length: 99999999999999999999", "Content-Length: +5", "Content-Length : 5",
    "Transfer-Encoding: chunked", "Transfer-Encoding: identity", "Transfer-Encoding: chunked, chunked",
    "Transfer-Encoding: xchunked", "Transfer-Encoding:\tchunked", "Expect: 100-continue", "Expect: x",
    "Upgrade: websocket", "Upgrade: h2c", "Connection: upgrade", "Connection: keep-alive, upgrade",
    "Connection: close", "Connection: x", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Key: x", "Sec-WebSocket-Key: é",
    "Sec-WebSocket-Protocol: hermes.v1", "Sec-WebSocket-Protocol: hermes.v9",
    "Sec-WebSocket-Protocol: hermes.bearer.x", "Sec-WebSocket-Protocol: ,,",
    "Sec-WebSocket-Protocol: hermes.v1, hermes.bearer.%%%", "Sec-WebSocket-Extensions: permessage-deflate",
    "Sec-WebSocket-Extensions: x;;;", "X-Forwarded-Host: evil.example", "X: " + "y" * 9000, "X: " + "y" * 70_000,
    "X: \0", "X: a\r\n b", "X\0: y", ": y", "no colon", "Range: bytes=0-1", "Cookie: \xff\xfe",
    "Accept: text/event-stream", "Accept: application/jsonl", "Accept: ;q=,*/*;q=9,/", "Last-Event-ID: 1",
    "Last-Event-ID: ²", "Content-Type: text/plain", "Access-Control-Request-Method: X",
    "\r\n".join(f"X-{n}: y" for n in range(200)),
)  # fmt: skip
_UPGRADE = (
    "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)  # fmt: skip


def http_request(chance: Random, frames: Frames, key: str, conversation: str) -> bytes:
    """A request of a kind that there is, mostly, with nothing, one thing or a few things wrong in it."""
    wrong = set(chance.choices(range(8), k=chance.choice((0, 1, 1, 1, 2, 3))))
    path = chance.choice(_PATHS)
    while "{id}" in path:
        path = path.replace("{id}", chance.choice(_IDS) if 0 in wrong else conversation, 1)
    if 1 in wrong or chance.random() < 0.3:
        path += "?" + chance.choice(_QUERIES)
    version = chance.choice(("HTTP/1.0", "HTTP/2.0", "HTTP/9.9", "", "HTTP/1.1 x")) if 2 in wrong else "HTTP/1.1"
    read = ("/events", "/items", "/export")
    posted = path.startswith(("/api/tickets", "/api/conversations/")) and not any(name in path for name in read)
    method = chance.choice(_METHODS) if 3 in wrong else "POST" if posted else "GET"
    headers = [f"Authorization: Bearer {key}", "Host: localhost"]
    headers += _UPGRADE if path.startswith("/ws") else ()
    for _ in range(chance.choice((1, 1, 2, 4)) if 4 in wrong else 0):
        headers.insert(chance.randrange(len(headers) + 1), chance.choice(_HEADERS))
    if 5 in wrong:
        del headers[chance.randrange(len(headers))]
    body = _body(chance, frames, headers, wrong=6 in wrong) if posted or chance.random() < 0.1 else b""
    if not any(header.startswith("Connection") for header in headers) and chance.random() < 0.9:
        headers.append("Connection: close")
    newline = "\n" if chance.random() < 0.02 else "\r\n"
    head = newline.join([f"{method} {path} {version}", *headers, "", ""])
    made = head.encode(chance.choice(("utf-8", "latin-1")), "replace") + body
    match chance.randrange(4) if 7 in wrong else -1:
        case 0:
            return made + made
        case 1:
            return made[: chance.randrange(len(made) + 1)]
        case 2:
            at = chance.randrange(len(made))
            return made[:at] + chance.randbytes(3) + made[at:]
        case 3:
            return chance.randbytes(chance.randrange(1, 300))
        case _:
            return made


def _body(chance: Random, frames: Frames, headers: list[str], *, wrong: bool) -> bytes:
    """A body; the header that goes with it is the right one, or ``wrong``."""
    ticket = b'{"conversation":"demo","ttl_s":%s}' % chance.choice(NUMBERS).encode()
    body = chance.choice((frames.spoilt(), frames.spoilt(), ticket, b"x" * 200_000))
    if not wrong:
        headers.append(f"Content-Length: {len(body)}")
        return body
    match chance.randrange(4):
        case 0:
            headers.append(f"Content-Length: {len(body) + chance.choice((-1, 1, 10_000_000))}")
        case 1:
            headers.append("Transfer-Encoding: chunked")
            said = chance.choice((b"%x" % len(body), b"%X;ext=1" % len(body), b"-1", b"fffffffffffffffff", b"zz", b""))
            return said + b"\r\n" + body + b"\r\n0\r\n" + chance.choice((b"\r\n", b"X: y\r\n\r\n", b""))
        case 2:
            headers += [f"Content-Length: {len(body)}", "Transfer-Encoding: chunked"]
        case _:
            pass
    return body


_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) [A-Za-z' -]*\r\n")


def statuses(answer: bytes) -> list[int]:
    """The statuses in what a line brought."""
    return [int(found[1]) for found in _STATUS.finditer(answer)]


def refusals_of(answer: bytes) -> Iterator[Json]:
    """The refusals in what a line brought, as frames."""
    for head in _STATUS.finditer(answer):
        headers, _, rest = answer[head.end() :].partition(b"\r\n\r\n")
        length = re.search(rb"(?im)^content-length: (\d+)", headers)
        if b"application/json" in headers and length and len(rest) >= int(length[1]) > 0:
            body = rest[: int(length[1])]
            if body.startswith(b'{"type":"error"'):
                yield json.loads(body)


# -- the server, from outside ----------------------------------------------------------------------------


class Vitals:
    """What a server holds: memory and file descriptors, as they are now and as they were."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.memory_kb = resident_kb(server.pid)
        self.descriptors = self._count()

    def _count(self) -> int:
        return len(os.listdir(f"/proc/{self._server.pid}/fd"))  # noqa: PTH208

    async def expect_no_growth(self, margin_kb: int, margin_descriptors: int = 4) -> int:
        """Descriptors come back, and memory stays within the margin. Returns the growth, KiB."""
        await wait_for(lambda: self._count() <= self.descriptors + margin_descriptors)
        grown = resident_kb(self._server.pid) - self.memory_kb
        assert grown < margin_kb, f"the server grew by {grown} KiB"
        return grown

    def expect_calm(self) -> None:
        """Nothing went wrong that nobody expected, and the process is there."""
        said = self._server.errors
        for word in ("Traceback", "ERROR", "[error", "CRITICAL", "Exception", "exception was never retrieved"):
            assert word not in said, said[max(0, said.index(word) - 1000) :][:4000]
        assert self._server.process.poll() is None


def cpu_s(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
