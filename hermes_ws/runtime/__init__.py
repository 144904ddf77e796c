"""The runtime joins session, log, agents and readers.

``runtime`` holds conversations in memory and spawns tasks; ``conversation`` is one of them at work; ``readers`` and
``tail`` deliver; ``turn`` and ``calls`` are what an agent and a tool see; ``commands`` is everything a client can send.
"""
