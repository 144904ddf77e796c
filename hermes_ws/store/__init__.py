"""The event log. ``base`` says what a store promises; ``sqlite`` and ``memory`` keep it."""
