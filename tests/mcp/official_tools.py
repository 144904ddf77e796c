"""The tools, resources and prompts of the official server."""

from __future__ import annotations

import base64
import os
import random
import struct
import wave
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Annotated, Any, Final

import anyio
import mcp_types as types
from mcp.server.elicitation import AcceptedElicitation, ElicitationResult
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.prompts.base import UserMessage
from mcp.server.mcpserver.resolve import Elicit, Resolve
from mcp.server.mcpserver.resources import BinaryResource, TextResource
from mcp.server.mcpserver.utilities.types import Image
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import BaseModel, Field

from tests.mcp.witness import Tenant, Witness

__all__ = ["LOGIN_URL", "Crm", "png"]

LOGIN_URL: Final = "https://crm.example.com/login?state=abc"
READ: Final = types.ToolAnnotations(read_only_hint=True)
WRITE: Final = types.ToolAnnotations(read_only_hint=False, destructive_hint=False)
DESTROY: Final = types.ToolAnnotations(read_only_hint=False, destructive_hint=True)
IDEMPOTENT: Final = types.ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=True)


class Customer(BaseModel):
    """A customer, as ``find_customer`` gives it."""

    id: str
    name: str


class Found(BaseModel):
    """The structured answer of ``find_customer``."""

    customers: list[Customer]
    total: int


class Name(BaseModel):
    """The form that ``ask_name`` shows."""

    name: str = Field(description="How shall I call you?", min_length=1, max_length=40)
    age: int = Field(default=30, description="In years", ge=0, le=150)
    newsletter: bool = False


def png(side: int, seed: int = 0) -> bytes:
    """A PNG of noise, ``side`` pixels square, grey: as many bytes as pixels, and the same every time."""
    noise = random.Random(seed)
    rows = b"".join(b"\0" + noise.randbytes(side) for _ in range(side))
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    chunks = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def beep() -> bytes:
    """A hundredth of a second of silence, as WAV."""
    file = BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(1)
        sound.setframerate(8000)
        sound.writeframes(b"\x80" * 80)
    return file.getvalue()


async def ask_for_name(greeting: str) -> Elicit[Name]:
    """What ``ask_name`` has to know first. The SDK asks as the negotiated version has it."""
    return Elicit(f"{greeting}! Who are you?", Name)


class Crm:
    """One method a tool. Their docstrings are the descriptions that a client is given."""

    def __init__(self, server: MCPServer[Any], witness: Witness) -> None:
        self._server = server
        self._witness = witness
        self._counts: dict[str, int] = {}

    def register(self) -> None:
        """Give the server everything."""
        self._add_tools(READ, self.add, self.find_customer, self.people, self.whoami, self.env, self.long_text)
        self._add_tools(READ, self.slow, self.wait_forever, self.picture, self.sound, self.embedded, self.linked)
        self._add_tools(WRITE, self.add_note, self.counter, self.ask_name, self.ask_login, self.fail, self.crash)
        self._add_tools(IDEMPOTENT, self.set_note)
        self._add_tools(DESTROY, self.delete_customer)
        self._server.add_tool(self.grow)
        self._add_resources()
        self._add_prompts()

    def _add_tools(self, hints: types.ToolAnnotations, *tools: Callable[..., Any]) -> None:
        for tool in tools:
            self._server.add_tool(tool, annotations=hints)

    def _add_resources(self) -> None:
        text = TextResource(uri="crm://readme", name="readme", text="How this CRM is used.", mime_type="text/markdown")
        logo = BinaryResource(uri="crm://logo", name="logo", data=png(8), mime_type="image/png")
        self._server.add_resource(text)
        self._server.add_resource(logo)

        @self._server.resource("crm://customers/{customer_id}", name="customer", mime_type="application/json")
        async def customer(customer_id: str, ctx: Context) -> dict[str, Any]:
            return next(c for c in self._tenant(ctx).customers if c["id"] == customer_id)

    def _add_prompts(self) -> None:
        @self._server.prompt(title="A letter to a customer")
        def letter(customer: str, tone: str = "friendly") -> list[UserMessage]:
            """Write a letter."""
            return [UserMessage(f"Write a {tone} letter to {customer}.")]

    def _tenant(self, ctx: Context) -> Tenant:
        return self._witness.tenant((ctx.headers or {}).get("authorization"))

    # -- reading -----------------------------------------------------------------------------------------

    async def add(self, a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    async def find_customer(self, ctx: Context, query: str = "") -> Found:
        """Find customers by a part of their name."""
        found = [Customer(**c) for c in self._tenant(ctx).customers if query.lower() in c["name"].lower()]
        return Found(customers=found, total=len(found))

    async def people(self, ctx: Context) -> list[Customer]:
        """All customers, as a structured list."""
        return [Customer(**customer) for customer in self._tenant(ctx).customers]

    async def whoami(self, ctx: Context) -> dict[str, Any]:
        """What this server sees of its caller."""
        meta = (ctx.request_context.params or {}).get("_meta")
        authorization = (ctx.headers or {}).get("authorization")
        return {"authorization": authorization, "meta": meta, "protocol_version": ctx.protocol_version}

    async def env(self, name: str) -> str:
        """A variable of this server's environment."""
        return os.environ.get(name, "(not set)")

    async def long_text(self, length: int) -> str:
        """So many characters."""
        return "x" * length

    # -- writing -----------------------------------------------------------------------------------------

    async def add_note(self, ctx: Context, customer_id: str, text: str) -> str:
        """Write a note about a customer."""
        self._tenant(ctx).notes.append({"customer_id": customer_id, "text": text})
        self._witness.note("effect", tool="add_note", text=text)
        return "noted"

    async def set_note(self, ctx: Context, customer_id: str, text: str) -> str:
        """Replace the notes about a customer by one."""
        tenant = self._tenant(ctx)
        others = [note for note in tenant.notes if note["customer_id"] != customer_id]
        tenant.notes = [*others, {"customer_id": customer_id, "text": text}]
        self._witness.note("effect", tool="set_note", text=text)
        return "noted"

    async def delete_customer(self, ctx: Context, customer_id: str) -> str:
        """Delete a customer for good."""
        tenant = self._tenant(ctx)
        tenant.customers = [c for c in tenant.customers if c["id"] != customer_id]
        self._witness.note("effect", tool="delete_customer", customer_id=customer_id)
        return "deleted"

    async def counter(self, ctx: Context) -> int:
        """Count the calls of this session. Begins anew when the session was lost."""
        request = ctx.request_context.request
        headers = ctx.headers or {}
        key = headers.get("mcp-session-id") or (request.query_params.get("session_id") if request else None)
        key = key or headers.get("authorization", "the only session")
        self._counts[key] = self._counts.get(key, 0) + 1
        return self._counts[key]

    async def fail(self, message: str = "the CRM is on fire") -> str:
        """Fail, and say why."""
        raise ToolError(message)

    async def crash(self) -> str:
        """Raise what no tool should. The SDK keeps the reason to itself."""
        raise RuntimeError("a reason that nobody is told")

    # -- taking time -------------------------------------------------------------------------------------

    async def slow(self, ctx: Context, seconds: float, steps: int = 4) -> str:
        """Take some time, and say how far it is."""
        for step in range(steps):
            await anyio.sleep(seconds / steps)
            await ctx.report_progress(step + 1, steps, f"step {step + 1}")
        return f"took {seconds} s"

    async def wait_forever(self, key: str) -> None:
        """Never answer; note when somebody cancels."""
        self._witness.note("waiting", tool="wait_forever", key=key)
        try:
            await anyio.sleep_forever()
        finally:
            self._witness.note("cancelled", tool="wait_forever", key=key)

    # -- more than text ----------------------------------------------------------------------------------

    async def picture(self, side: int = 8, seed: int = 0) -> Image:
        """A picture of noise, so many pixels square, about as many bytes."""
        return Image(data=png(side, seed), format="png")

    async def sound(self) -> types.CallToolResult:
        """A short sound."""
        return types.CallToolResult(content=[types.AudioContent(data=_base64(beep()), mime_type="audio/wav")])

    async def embedded(self) -> types.CallToolResult:
        """Two resources in the answer itself: one of text, one of bytes."""
        text = types.TextResourceContents(uri="crm://readme", text="embedded text", mime_type="text/plain")
        logo = types.BlobResourceContents(uri="crm://logo", blob=_base64(png(4)), mime_type="image/png")
        return types.CallToolResult(
            content=[types.EmbeddedResource(resource=text), types.EmbeddedResource(resource=logo)]
        )

    async def linked(self) -> types.CallToolResult:
        """A link to a resource, and a word about it."""
        link = types.ResourceLink(uri="crm://readme", name="readme", mime_type="text/markdown")
        return types.CallToolResult(content=[types.TextContent(text="see there"), link])

    # -- asking ------------------------------------------------------------------------------------------

    async def ask_name(
        self, answer: Annotated[ElicitationResult[Name], Resolve(ask_for_name)], greeting: str = "Hello"
    ) -> str:
        """Ask the user for a name, by a form."""
        if isinstance(answer, AcceptedElicitation):
            return f"Hello {answer.data.name}, aged {answer.data.age}, newsletter: {answer.data.newsletter}"
        return f"the user said {answer.action}"

    async def ask_login(self, ctx: Context) -> types.CallToolResult | types.InputRequiredResult:
        """Send the user to a page to log in."""
        message = "Please log in to the CRM."
        if ctx.protocol_version not in MODERN_PROTOCOL_VERSIONS:
            action = (await ctx.elicit_url(message, LOGIN_URL, "login-1")).action
        elif not ctx.input_responses:
            params = types.ElicitRequestURLParams(message=message, url=LOGIN_URL, elicitation_id="login-1")
            return types.InputRequiredResult(input_requests={"login": types.ElicitRequest(params=params)})
        else:
            action = types.ElicitResult.model_validate(ctx.input_responses["login"]).action
        return types.CallToolResult(content=[types.TextContent(text=f"the user said {action}")])

    # -- changing ----------------------------------------------------------------------------------------

    async def grow(self, ctx: Context, name: str) -> str:
        """Add a tool to what this caller is shown, and say so."""
        self._tenant(ctx).extra_tools.append(name)
        await ctx.session.send_tool_list_changed()
        await ctx.notify_tools_changed()
        return f"there is {name} now"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
