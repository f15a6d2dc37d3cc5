"""A few hundred altered inputs for every way in from outside, of which ``make fuzz`` makes millions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("google.protobuf", reason="the extra fedpost[protobuf] is not installed")
pytest.importorskip("safetensors", reason="its library reads what we take")

FUZZ = Path(__file__).parents[2] / "fuzz"
INPUTS = 300


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """What a short run tells: the process, and its results by target."""
    folder = tmp_path_factory.mktemp("fuzz")
    command = [sys.executable, FUZZ / "run.py", "--engine", "random", "--inputs", str(INPUTS), "--minutes", "60"]
    done = subprocess.run(
        [*command, "--json", folder / "results"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "FUZZ_FAILURES": str(folder)},
    )
    assert (folder / "results").exists(), done.stderr
    return done, {result["target"]: result for result in json.loads((folder / "results").read_text())}


def test_nothing_escapes(outcome):
    done, results = outcome
    assert done.returncode == 0, done.stdout[-5000:]
    assert {name: result["failures"] for name, result in results.items() if result["failures"]} == {}


def test_every_target_was_run_and_gets_past_the_first_checks(outcome):
    _, results = outcome
    assert {name.split("_")[0] for name in results} == {
        *("frame", "file", "framed", "chunk", "sparse", "parts", "inspection", "message", "types"),
        *("updates", "objects", "fobs", "large"),
    }
    for name, result in results.items():
        assert result["inputs"] > INPUTS, name  # and what it starts from
        # Structure is altered under right digests: some of it must be taken, and some refused.
        assert 0.05 < result["accepted"] / result["inputs"] < 0.95, name


DEFECTS = {
    "sparse": "import fedpost.tensors.sparse as m; m.check_sparse = lambda *_: None",
    "frame": "import fedpost.frame.frame as m; m._padding_of = lambda *_: False",
    "file_safetensors": (
        "import json, fedpost.tensors.safetensors as m; m.strict_json = lambda text, *_: json.loads(bytes(text))"
    ),
    "parts": "import fedpost.frame.parts as m; m.PartPlan.digest = lambda *_: bytes(16)",
}


@pytest.mark.parametrize("target", DEFECTS)
def test_a_defect_is_found(target, tmp_path):
    """With a check taken out of the reader something comes that must not, and the input is kept."""
    code = f"""
import mmap, sys, warnings
sys.path.insert(0, {str(FUZZ)!r})
{DEFECTS[target]}
import run
sys.exit(run.child_random({target!r}, mmap.mmap(-1, run.COUNTS.size), 20_000, 120, 1))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "FUZZ_FAILURES": str(tmp_path)},
    )
    assert done.returncode == 1, done.stderr[-3000:]
    assert [path.name for path in tmp_path.iterdir()] == [f"{target}-crash"], done.stderr[-3000:]
