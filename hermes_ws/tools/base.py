"""The seam between a run and a tool.

A :class:`Tool` describes itself and can be called. All that it sees of the world is its :class:`ToolContext`: a
working directory, a way to report while it works, a way to ask a person. It knows nothing of sockets, sequence
numbers or the log, and it is called only after policy, approval and journal have been seen to.

Stopping is cancellation: a tool that holds something (a process, a file) lets go of it in ``finally``, shielded and
bounded in time. A tool that cannot do what it was asked raises :class:`~hermes_ws.errors.ToolError`; the message goes
to the model, so it says what would be right.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

from hermes_ws.protocol.values import Choice, ContentPart, ImagePart, Owner, ToolDescription
from hermes_ws.ranges import AtLeastOne, NonNegative, Pause, Seconds

__all__ = ["NobodyAnswered", "Tool", "ToolContext", "ToolResult", "ToolSettings"]


class NobodyAnswered(Exception):
    """A question that a tool asked expired or was cancelled. The message says which, for the model."""


class ToolSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[tools]`` of the configuration. Bytes are of UTF-8 text, times are seconds."""

    default: list[str] = msgspec.field(default_factory=lambda: ["builtin:*", "mcp:*", "client:*"])
    """Tools a conversation has when its configuration names no ``allow``."""
    preview_bytes: AtLeastOne = 32_768
    """How much of a call's output the event, the snapshot and the model get; the rest is kept for fetching."""
    stream_bytes: NonNegative = 262_144
    """How much of a call's output is streamed as ``tool.output``; after that only the kept file grows."""
    keep_bytes: AtLeastOne = 33_554_432
    """How much of a call's output is kept on disk; what comes after that is dropped, and said so."""
    keep_conversation_bytes: AtLeastOne = 268_435_456
    """The same for all calls of a conversation together. Old outputs go in time (``store.outputs_retention_s``)."""
    terminal_timeout_s: Seconds = 120.0
    """A command's time when the model names none."""
    terminal_max_timeout_s: Seconds = 3_600.0
    """The most a model may ask for."""
    terminal_env: list[str] = []
    """Names of the server's environment variables that commands may see, beside the harmless defaults."""
    terminal_shared: bool = False
    """Whether principals other than a key's own may use the terminal. It is not sandboxed: with it, each of them can
    read what the server's Unix user can, other people's conversations included."""
    terminate_grace_s: Pause = 0.5
    """Time between SIGTERM and SIGKILL."""
    read_bytes: AtLeastOne = 30_000
    """Most that ``read_file`` returns at once."""
    write_bytes: AtLeastOne = 8_388_608
    """Most that a file written or edited by a tool may hold."""
    list_entries: AtLeastOne = 2_000
    """Most entries that ``list_files`` returns."""
    search_matches: AtLeastOne = 500
    """Most matches that ``search_files`` returns."""
    search_file_bytes: AtLeastOne = 2_097_152
    """Files larger than this are not searched."""
    search_timeout_s: Seconds = 20.0
    """The most that a search or a listing may take."""
    fetch_bytes: AtLeastOne = 2_097_152
    """Most that ``fetch_url`` reads of a response."""
    fetch_timeout_s: Seconds = 30.0
    """Time for a whole fetch, redirects included."""
    fetch_redirects: NonNegative = 5
    """Redirects followed, each checked anew."""
    fetch_allow: list[str] = []
    """Hosts, addresses or networks (CIDR) that may be fetched although they are private; ``host:port`` works."""


class ToolResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a call came to. ``output`` is for the model and the log; ``None`` means what was written to
    :meth:`ToolContext.output` (and kept there). ``structured`` is JSON-ready."""

    output: str | None = None
    is_error: bool = False
    structured: Any = None
    content: list[ContentPart] | None = None


class ToolContext(Protocol):
    """Everything that a tool sees."""

    @property
    def conversation_id(self) -> str: ...

    @property
    def run_id(self) -> str: ...

    @property
    def call_id(self) -> str: ...

    @property
    def principal(self) -> str:
        """Who started the run."""
        ...

    @property
    def metadata(self) -> dict[str, Any]:
        """The run's metadata, over the conversation's."""
        ...

    @property
    def workdir(self) -> Path:
        """The conversation's own directory; absolute, resolved, exists."""
        ...

    @property
    def settings(self) -> ToolSettings: ...

    @property
    def stop_mode(self) -> Literal["graceful", "now"]:
        """How a stop that is under way wants it: with ``now`` nothing is given time to finish."""
        ...

    async def output(self, stream: Literal["stdout", "stderr"], chunk: str) -> None:
        """Report text as it comes. Kept whole (up to ``keep_bytes``), streamed up to ``stream_bytes``."""
        ...

    async def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        """Report how far the call is."""
        ...

    async def ask(
        self,
        prompt: str,
        *,
        choices: list[Choice] | None = None,
        allow_other: bool = False,
        multiple: bool = False,
        title: str | None = None,
    ) -> Any:
        """Ask the people at the conversation; returns the answer (a string, or a list with ``multiple``).

        Raises :class:`NobodyAnswered`.
        """
        ...

    async def form(
        self, title: str, message: str, *, schema: dict[str, Any] | None = None, url: str | None = None
    ) -> dict[str, Any] | None:
        """Have people fill in a form (``schema``), or do something at ``url`` and say so. What they filled in, or None
        if they declined. Raises :class:`NobodyAnswered`."""
        ...

    async def hand_over(
        self, tool: ToolDescription, arguments: dict[str, Any], owner: Owner | None = None
    ) -> dict[str, Any]:
        """Have the call made by whoever started the run, or by the client that is its ``owner``; returns what it came
        to, as they say. Raises :class:`NobodyAnswered`."""
        ...

    async def credential(self, server: str, header: str) -> bool:
        """Have somebody give a new value for a header of an MCP server of the conversation. True: it is in force.
        False: nobody did."""
        ...

    async def image(self, data: bytes) -> ImagePart:
        """Store an image that the call came to, once, and how to refer to it in ``content``. Raises
        :class:`~hermes_ws.errors.ToolError` for what is none, or too large."""
        ...


class Tool(Protocol):
    """A tool. Stateless: one object serves every conversation at once."""

    @property
    def description(self) -> ToolDescription: ...

    async def call(self, ctx: ToolContext, arguments: dict[str, Any]) -> ToolResult:
        """Do it. ``arguments`` have been validated against ``description.parameters``."""
        ...
