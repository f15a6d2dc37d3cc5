"""The server's memory is that of a model or two, however many results there are."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

MIB = 1 << 20
MODEL_MIB = 20

# In a process of its own: spools results, reduces them, and tells the peak of its memory above what importing took.
# The results are one file under many names, so that the disk need not hold them all.
_CHILD = """
import gc, json, os, sys, threading, time
from pathlib import Path
import numpy as np
from fedpost.federation import ClientProxy, FedAvg, FitRes, Parameters
from fedpost.federation.aggregation import Spool, check_result
from fedpost.frame import DEFAULT_LIMITS, Frame
from fedpost.pipeline import Pipeline, decode_tensors

folder, count, spec, elements = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def encoded():
    array = np.random.default_rng(0).normal(size=(64, elements // 64)).astype(np.float32)
    frame = Pipeline.parse(spec).encode({"w": array, "n": np.array(1)})
    with (folder / "one").open("wb") as file:
        frame.write_to(file.fileno())

encoded()
gc.collect()
base = resident()
Path("/proc/self/clear_refs").write_text("5")  # from here on VmHWM is the peak

spool = Spool(folder / "spool", DEFAULT_LIMITS)
frame = Frame.open(folder / "one")
source = decode_tensors(frame)
check_result(source, source.specs)
results = []
for number in range(count):
    if number < 3:
        kept = spool.add(f"site-{number:03d}", frame, source.specs)
    else:
        path = folder / "spool" / f"site-{number:03d}.frame"
        os.link(next((folder / "spool").glob("site-000.*")), path)
        kept = Parameters(type(kept._source)(path, DEFAULT_LIMITS, source.specs, spool._touch))
    results.append((ClientProxy(f"site-{number:03d}"), FitRes(kept, 1 + number % 3)))
del frame, source
model, _ = FedAvg().aggregate_fit(1, results, [])
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
peak = int(status["VmHWM"].split()[0]) << 10
arrays = model.arrays()
print(json.dumps({"base": base, "peak": peak, "mean": float(arrays["w"].mean()), "n": int(arrays["n"])}))
"""


def growth(folder, count, spec):
    """Peak memory above the start, in MiB."""
    folder.mkdir()
    out = subprocess.run(
        [sys.executable, "-c", _CHILD, str(folder), str(count), spec, str(MODEL_MIB * MIB // 4)],
        check=False,
        capture_output=True,
        timeout=280,
    )
    assert out.returncode == 0, out.stderr.decode()
    found = json.loads(out.stdout)
    assert found["n"] == 1
    assert abs(found["mean"]) < 0.01
    return (found["peak"] - found["base"]) / MIB


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("spec", "many"), [("dense | fedwt | none", 200), ("cast(bfloat16) | fedwt | none", 50)])
def test_memory_does_not_grow_with_the_number_of_results(tmp_path, spec, many):
    few_mib, many_mib = growth(tmp_path / "few", 8, spec), growth(tmp_path / "many", many, spec)
    assert abs(many_mib - few_mib) < 5, (few_mib, many_mib)
    assert max(few_mib, many_mib) < 3 * MODEL_MIB
