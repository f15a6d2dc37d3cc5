"""Clocks and memory gauges: interleaved timing in one process, and peak resident memory in a process of its own.

Rules: in every run each candidate is called once, in an order that changes from run to run, so that a disturbance hits
all alike. The garbage collector is off while a clock runs. What a call returns is freed after its clock has stopped.
"""

from __future__ import annotations

import ctypes
import gc
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Case", "Figure", "Target", "figures", "measure", "peak_memory", "single"]

Tick = Callable[[int, int], None]
_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured quantity.

    Attributes:
        group: What is measured, such as ``"encode"``; figures of a group can be compared.
        name: Who does it.
        unit: ``"s"`` or ``"B"``.
        median: Median of the runs.
        min: The smallest of them.
        n: Number of runs.
        ratio: ``median`` divided by ours, or None where that means nothing.
    """

    group: str
    name: str
    unit: str
    median: float
    min: float
    n: int
    ratio: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A promise about a figure.

    Attributes:
        text: The promise.
        value: What was measured.
        bound: What it is compared with.
        at_least: Whether the value must reach the bound; otherwise it must not go over it.
    """

    text: str
    value: float
    bound: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether the promise holds."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What one benchmark found.

    Attributes:
        name: What ``--only`` calls it.
        title: One line.
        note: What a reader must know to read the figures rightly.
        figures: In groups, in order.
        targets: Promises that these figures keep or break.
    """

    name: str
    title: str
    note: str
    figures: list[Figure]
    targets: list[Target]

    def median(self, group: str, name: str) -> float | None:
        """A figure's median, or None when nobody measured it."""
        return next((f.median for f in self.figures if (f.group, f.name) == (group, name)), None)


def measure(
    candidates: Mapping[str, Callable[[], object]],
    *,
    runs: int,
    tick: Tick,
    before: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """Time every candidate once a run; return seconds by name.

    Args:
        candidates: What to call, by name.
        runs: How often, after one call each to warm up.
        tick: Is told how many runs of how many are done.
        before: Is called before each timed call.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    order = list(candidates)
    shuffle = random.Random(0).shuffle
    gc.collect()
    gc.freeze()  # what is there now is not looked at again by the collections between runs
    gc.disable()
    try:
        for run in range(runs + 1):
            shuffle(order)
            for name in order:
                candidate = candidates[name]
                before()
                start = time.perf_counter()
                result = candidate()
                stop = time.perf_counter()
                del result
                if run:
                    seconds[name].append(stop - start)
            gc.collect()
            tick(run, runs)
    finally:
        gc.enable()
        gc.unfreeze()
    return seconds


def figures(
    group: str, samples: Mapping[str, list[float]], *, ours: str, unit: str = "s", per: int = 1
) -> list[Figure]:
    """Figures of samples, each divided by ``per``, with ratios to the candidate called ``ours``."""
    reference = statistics.median(samples[ours])
    return [
        Figure(
            group=group,
            name=name,
            unit=unit,
            median=(median := statistics.median(values)) / per,
            min=min(values) / per,
            n=len(values),
            ratio=median / reference if reference else None,
        )
        for name, values in samples.items()
    ]


def single(group: str, values: Mapping[str, float], *, ours: str, unit: str = "B") -> list[Figure]:
    """Figures of what is the same in every run."""
    return figures(group, {name: [value] for name, value in values.items()}, ours=ours, unit=unit)


def peak_memory(action: Callable[[], object]) -> int:
    """By how many bytes the resident memory of this process grows, at its highest, while ``action`` runs (Linux).

    What ``action`` returns is alive at the end. Call it in a fresh process: memory that was freed but not returned to
    the operating system could be taken again unseen.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    _CLEAR_REFS.write_text("5")  # sets the high-water mark back to what is resident now
    start = _status("VmRSS")
    result = action()
    peak = _status("VmHWM")
    del result
    return max(peak - start, 0)


def _status(key: str) -> int:
    lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    return int(lines[key].split()[0]) * 1024
