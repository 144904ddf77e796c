"""The built-in agent: a tool-calling loop over a :class:`~hermes_ws.agents.llm.model.Model`."""
