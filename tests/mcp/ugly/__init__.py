"""HTTP servers for MCP that misbehave, written by hand: ``UglyServer("hang_on_call")``, one switch each.

Apart from its switch a server is polite: it initializes, has one read-only tool ``tool``, answers calls with ``fine``.
``SWITCHES`` has them all. What speaks over stdio is in ``tests/mcp/ugly_stdio.py``.
"""

from tests.mcp.ugly import asking, connections, echoes, floods, lists, refusals, results
from tests.mcp.ugly.server import SWITCHES, UglyServer

__all__ = ["SWITCHES", "UglyServer", "asking", "connections", "echoes", "floods", "lists", "refusals", "results"]
