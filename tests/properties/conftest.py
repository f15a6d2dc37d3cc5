"""How long Hypothesis searches: the same few examples each time, unless ``HYPOTHESIS_PROFILE=search`` asks for more."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

CHECKS = (HealthCheck.too_slow, HealthCheck.data_too_large)

settings.register_profile(
    "ci", max_examples=50, derandomize=True, database=None, deadline=None, suppress_health_check=CHECKS
)
settings.register_profile("search", max_examples=5000, database=None, deadline=None, suppress_health_check=CHECKS)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
