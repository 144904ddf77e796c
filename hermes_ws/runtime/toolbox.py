"""The tools of one conversation: the server's own, those of its MCP servers as far as they are there, and the functions
of whoever started the run, or else those of the clients at its sockets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from hermes_ws import policy
from hermes_ws.errors import ToolError
from hermes_ws.protocol.commands import ClientTool
from hermes_ws.protocol.values import By, Owner
from hermes_ws.runtime.clients import Clients
from hermes_ws.runtime.functions import ClientFunction
from hermes_ws.tools.base import Tool
from hermes_ws.tools.mcp.servers import Asker, ConversationServers
from hermes_ws.tools.mcp.tool import Scrub, mcp_tools

if TYPE_CHECKING:
    from hermes_ws.tools.mcp.connection import Connection
    from hermes_ws.tools.mcp.offers import Offers

__all__ = ["Toolbox"]


class Toolbox:
    """See the top of the module."""

    def __init__(
        self,
        builtin: Mapping[str, Tool],
        servers: ConversationServers,
        scrub: Scrub,
        clients: Clients,
        functions: Callable[[], Sequence[ClientTool]] = tuple,
        starter: Callable[[], By | None] = lambda: None,
    ) -> None:
        """``functions``: those that whoever started the run executes, as of now; ``starter``: who that is."""
        self._builtin = builtin
        self._functions = functions
        self._starter = starter
        self.clients = clients
        self.servers = servers
        self._scrub = scrub
        self._known: dict[Connection, tuple[Offers, list[Tool]]] = {}
        """Tools made of what connections offer: made once, since they are looked for at every call."""

    async def start(self, asker: Asker | None = None) -> None:
        """Start what has to be started to know all tools; see :meth:`ConversationServers.start`."""
        await self.servers.start(asker)

    def every(self) -> list[Tool]:
        """All tools that are there now."""
        return [*self._builtin.values(), *self._mcp(), *self._of_clients()]

    def _of_clients(self) -> list[ClientFunction]:
        """A run that brought functions of its own has these and no others: who started it knows no others."""
        functions = self._functions()
        return list(map(ClientFunction, functions)) if functions else self.clients.functions(self._starter())

    def _mcp(self) -> list[Tool]:
        known, self._known = self._known, {}
        for connection in self.servers.ready():
            before = known.get(connection)
            if before is None or before[0] is not connection.offers:
                before = (connection.offers, mcp_tools(self.servers, connection, self._scrub))
            self._known[connection] = before
        return [tool for _, tools in self._known.values() for tool in tools]

    def find(self, name: str) -> Tool:
        """The tool that is called so: ``read_file``, ``find_customer``, ``mcp:crm/find_customer``. The server's own
        come first. Raises :class:`ToolError` that says which there are."""
        if name in self._builtin:
            return self._builtin[name]
        every = self.every()
        found = [t for t in every if policy.qualified(t.description) == name]
        found = found or [t for t in every if name in (t.description.name, _long_name(t))]
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(policy.qualified(tool.description) for tool in found)
            raise ToolError(f"there are several tools {name!r}; say which: {names}")
        raise ToolError(self._unknown(name, every))

    def _unknown(self, name: str, every: Sequence[Tool]) -> str:
        count = Counter(tool.description.name for tool in every)
        names = [t.description.name if count[t.description.name] == 1 else _told(t) for t in every]
        missing = "".join(f"; the MCP server {s} cannot be used: {w}" for s, w in self.servers.missing().items())
        return f"there is no tool {name!r}; there are {', '.join(sorted(names))}{missing}"

    async def reach(self, source: str, name: str, asker: Asker, owner: Owner | None = None) -> Tool | None:
        """As :meth:`of`, for a call that was begun. A server that is not there is started first, as after a restart;
        raises :class:`ToolError` if it cannot be. A client's function need not be there any more: the call is for its
        ``owner``, or for whoever started the run."""
        if source == "client":
            there = self.of(source, name)
            same = isinstance(there, ClientFunction) and there.owner == owner
            return there if same else ClientFunction(ClientTool(name=name), owner)
        found = self.of(source, name)
        if found is None and source.startswith("mcp:"):
            await self.servers.use(source.removeprefix("mcp:"), asker, _nothing)
            found = self.of(source, name)
        return found

    def withdrew(self, source: str, name: str) -> bool:
        """Whether a server that is there does not offer this tool any more."""
        there = {f"mcp:{connection.target.server}" for connection in self.servers.ready()}
        return source in there and self.of(source, name) is None

    def of(self, source: str, name: str) -> Tool | None:
        """The tool of this source with this name, if it is there."""
        if source == "builtin":
            return self._builtin.get(name)
        if source == "client":
            return next((tool for tool in self._of_clients() if tool.description.name == name), None)
        for tool in self._mcp():
            if (tool.description.source, tool.description.name) == (source, name):
                return tool
        return None


def _told(tool: Tool) -> str:
    """The name that means this tool and no other."""
    builtin = tool.description.source == "builtin"
    return tool.description.name if builtin else policy.qualified(tool.description)


def _long_name(tool: Tool) -> str:
    """What a model may have been offered it as, when another one had its name too."""
    return f"{tool.description.source.removeprefix('mcp:')}__{tool.description.name}"


async def _nothing(connection: object) -> None:
    """That it is there is enough."""
