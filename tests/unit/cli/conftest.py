"""Commands in this process, and a frame to look into."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

from fedpost.cli import main
from fedpost.pipeline import Pipeline, save_tensors

TENSORS = {
    "layer.weight": np.arange(3000, dtype=np.float32).reshape(30, 100),
    "layer.bias": np.zeros(30, np.float64),
    "steps": np.array(7, np.int64),
}


@pytest.fixture
def fedpost():
    """Runs a command as a user types it."""
    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def tensors():
    return dict(TENSORS)


@pytest.fixture
def frame(tmp_path):
    path = tmp_path / "model.fedwt"
    save_tensors(
        path, TENSORS, metadata={"round": 3, "name": "demo"}, pipeline=Pipeline.parse("dense | fedwt | zstd(3)")
    )
    return path
