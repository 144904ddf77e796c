"""How long hypothesis looks: briefly by default, thoroughly with ``HERMES_WS_HYPOTHESIS=long``."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile("default", deadline=None, max_examples=200, stateful_step_count=100)
settings.register_profile(
    "long",
    deadline=None,
    max_examples=4000,
    stateful_step_count=120,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HERMES_WS_HYPOTHESIS", "default"))
