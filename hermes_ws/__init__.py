"""hermes-ws: a WebSocket-first run server for agents."""

__version__ = "0.1.0"
