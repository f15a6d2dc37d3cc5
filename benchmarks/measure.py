"""Clocks and memory gauges: interleaved timing in one process, and peak memory in a process of its own.

Rules: in every run each candidate is called once, in an order that changes from run to run, so that a disturbance hits
all alike. The garbage collector is off while a clock runs. What a call returns is freed after its clock has stopped.
"""

from __future__ import annotations

import ctypes
import gc
import random
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

__all__ = [
    "Case",
    "Context",
    "Figure",
    "Target",
    "Tick",
    "figures",
    "measure",
    "peak_anonymous",
    "peak_memory",
    "ratio_target",
    "single",
]

T = TypeVar("T")

Tick = Callable[[int, int], None]
_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_SAMPLE_EVERY = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """How to run.

    Attributes:
        quick: Few runs, and nothing larger than 100 MB.
        scratch: A folder for large files.
        tick: Is told how many steps of how many are done.
        tiny: Only see that everything runs: figures mean nothing. Implies ``quick``.
        without: Libraries to leave out as if they were not installed.
    """

    quick: bool
    scratch: Path
    tick: Tick
    tiny: bool = False
    without: frozenset[str] = frozenset()

    def runs(self, full: int) -> int:
        """How many runs to make where a full benchmark makes ``full``."""
        return 1 if self.tiny else min(full, 3) if self.quick else full

    def pick(self, *, full: T, quick: T, tiny: T) -> T:
        """One of three sizes."""
        return tiny if self.tiny else quick if self.quick else full


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
        ratio: ``median`` divided by what it is compared with (ours, where nothing else is said), or None where that
            means nothing.
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
        unit: Of both: ``"s"``, ``"B"``, or nothing for a ratio.
    """

    text: str
    value: float
    bound: float
    at_least: bool = False
    unit: str = ""

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
        missing: Who could not be measured, and why.
        wide: Whether the groups are columns of one table, rather than tables.
        legend: What a column or a row means, in a line each.
    """

    name: str
    title: str
    note: str
    figures: list[Figure]
    targets: list[Target]
    missing: tuple[str, ...] = ()
    wide: bool = False
    legend: tuple[str, ...] = ()

    def median(self, group: str, name: str) -> float | None:
        """A figure's median, or None when nobody measured it."""
        return next((f.median for f in self.figures if (f.group, f.name) == (group, name)), None)


def measure(
    candidates: Mapping[str, Callable[[], object]],
    *,
    runs: int,
    tick: Tick,
    before: Callable[[], object] = lambda: None,
    allowance: float = float("inf"),
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Time every candidate once a run; return seconds by name.

    Args:
        candidates: What to call, by name.
        runs: How often, after one call each to warm up (that call counts for who takes half the allowance or more).
        tick: Is told how many runs of how many are done.
        before: Is called before each timed call.
        allowance: Seconds after which a slow candidate sits out the runs that are left.
        clock: What tells the seconds.
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
                if sum(seconds[name]) >= allowance:
                    continue
                candidate = candidates[name]
                before()
                start = clock()
                result = candidate()
                stop = clock()
                del result
                if run or stop - start >= allowance / 2:
                    seconds[name].append(stop - start)
            gc.collect()
            tick(run, runs)
    finally:
        gc.enable()
        gc.unfreeze()
    return seconds


def figures(
    group: str,
    samples: Mapping[str, list[float]],
    *,
    ours: str = "",
    unit: str = "s",
    per: int = 1,
    reference: float | None = None,
) -> list[Figure]:
    """Figures of samples, each divided by ``per``, with ratios to ``reference`` or else the candidate ``ours``."""
    if reference is None:
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


def ratio_target(text: str, rows: list[Figure], one: str, other: str, bound: float, **how: bool) -> list[Target]:
    """A promise about the ratio of two medians; none where one of the two was not measured.

    Args:
        text: The promise.
        rows: Figures of one group.
        one: Whose median is divided.
        other: By whose.
        bound: What the ratio is compared with.
        how: ``at_least`` of :class:`Target`.
    """
    by_name = {figure.name: figure.median for figure in rows}
    if one not in by_name or other not in by_name:
        return []
    return [Target(text=text, value=by_name[one] / by_name[other], bound=bound, **how)]


def peak_memory(action: Callable[[], T]) -> tuple[int, T]:
    """By how many bytes the resident memory of this process grows, at its highest, while ``action`` runs (Linux).

    Call it in a fresh process: memory that was freed but not returned to the operating system could be taken again
    unseen.

    Returns:
        The bytes, and what ``action`` returned.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    _CLEAR_REFS.write_text("5")  # sets the high-water mark back to what is resident now
    start = _status("VmRSS")
    result = action()
    peak = _status("VmHWM")
    return max(peak - start, 0), result


def peak_anonymous(action: Callable[[], object]) -> int:
    """The same for memory that no file backs, looked at every millisecond: a mapped file takes no memory (Linux)."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    stopped = threading.Event()
    seen = [_status("RssAnon")]

    def watch() -> None:
        while not stopped.wait(_SAMPLE_EVERY):
            seen.append(max(seen.pop(), _status("RssAnon")))

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = _status("RssAnon")  # with the thread's own stack in it
    seen[0] = start
    result = action()
    last = _status("RssAnon")
    stopped.set()
    watcher.join()
    del result
    return max(seen[0], last) - start


def _status(key: str) -> int:
    lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    return int(lines[key].split()[0]) * 1024
