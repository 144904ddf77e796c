"""Agents: who does the work of a run. ``base`` is the seam; each kind of agent is a package or module beside it."""
