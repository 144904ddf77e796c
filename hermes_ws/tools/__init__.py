"""Tools: what an agent can do. ``base`` is the seam; the built-in ones sit beside it, one module a kind."""
