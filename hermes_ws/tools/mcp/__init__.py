"""MCP servers of a conversation: connecting to them, calling their tools, keeping them in bounds."""
