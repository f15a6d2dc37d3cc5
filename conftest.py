"""For all tests: Ctrl-C works, how long Hypothesis searches, and every Python block of the documentation is run.

Hypothesis tries the same few examples each time, however slow the machine is, unless ``HYPOTHESIS_PROFILE=search`` asks
for more. Each file of the documentation, and the README, runs in a folder of its own.
"""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

# A shell starts what it runs in the background with Ctrl-C ignored, which commands under test would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Here, not in a folder of tests: a test has the settings that hold when its module is loaded.
_CHECKS = (HealthCheck.too_slow, HealthCheck.data_too_large)
settings.register_profile(
    "ci", max_examples=50, derandomize=True, database=None, deadline=None, suppress_health_check=_CHECKS
)
settings.register_profile("search", max_examples=5000, database=None, deadline=None, suppress_health_check=_CHECKS)
_PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "ci")
settings.load_profile(_PROFILE)
if _PROFILE == "ci" and hasattr(providers, "_local_constants"):
    # Hypothesis also draws numbers that are written in our modules, of those that happen to be loaded: which examples a
    # test has would depend on the tests before it in its process.
    providers._get_local_constants = lambda: providers._local_constants  # noqa: SLF001 - there is no setting for it


def _enter(namespace: dict[str, Any]) -> None:
    folder = tempfile.TemporaryDirectory()
    namespace["_home"], namespace["_folder"] = Path.cwd(), folder
    os.chdir(folder.name)


def _leave(namespace: dict[str, Any]) -> None:
    os.chdir(namespace["_home"])
    namespace["_folder"].cleanup()


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser()], patterns=["README.md", "docs/**/*.md"], setup=_enter, teardown=_leave
).pytest()
