"""Updates to try the kernels on."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest


def _load(name):
    spec = importlib.util.spec_from_file_location(f"kernels_{name}", Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def reference():
    """The second reader."""
    return _load("reference")


@pytest.fixture(scope="session")
def update():
    """Makes updates like real ones: rows and columns of very different strength, rows of mostly one sign."""

    def make(rows, columns, seed=0):
        rng = np.random.default_rng(seed)
        strength = np.exp(1.5 * rng.standard_normal((rows, 1))) * np.exp(1.5 * rng.standard_normal((1, columns)))
        sign = np.where(rng.random((rows, columns)) < rng.random((rows, 1)), 1, -1)
        return (np.abs(rng.laplace(size=(rows, columns))) * strength * sign).astype(np.float32)

    return make
