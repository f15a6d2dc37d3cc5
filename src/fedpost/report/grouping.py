"""Runs that differ in nothing but their seed, told as one: means, and how far they can be trusted.

Rules: a mean stands with its 95 % interval, Student's t over the runs, which are taken for independent; of one run
there is none. Runs are alike when the ledgers say the same of them and their configurations have the same strategy and
options; a run whose configuration cannot be read is like those alone that have none either.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from fedpost.config import load_config
from fedpost.errors import FedpostError
from fedpost.report.runs import Direction, RunFigures

__all__ = ["Group", "Mean", "alike", "group_curve", "mean_of", "single"]

# Two-sided 95 % quantiles of Student's t for 1, 2, … degrees of freedom.
# fmt: off
_T: Final = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)
# fmt: on
_NORMAL: Final = 1.960
_OF_A_RUN: Final = frozenset({"run", "seed", "transport"})


class Mean(msgspec.Struct, frozen=True):
    """A mean over runs.

    Attributes:
        mean: The mean.
        interval: Half of the 95 % interval's width; None for a single value.
        count: How many values.
    """

    mean: float
    interval: float | None
    count: int


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Runs of the same settings.

    Attributes:
        runs: Their figures.
        name: What they are called.
        pipeline: How they send tensors.
    """

    runs: tuple[RunFigures, ...]
    name: str
    pipeline: str

    @property
    def status(self) -> str:
        """How they ended, with how many of each."""
        counts = Counter(run.status for run in self.runs)
        if len(counts) == 1:
            return next(iter(counts))
        return ", ".join(f"{count} {status}" for status, count in counts.most_common())

    def mean(self, value: Callable[[RunFigures], float | None]) -> Mean | None:
        """The mean of a number over its runs; None when no run has it."""
        return mean_of(value(run) for run in self.runs)


def mean_of(values: Iterable[float | None]) -> Mean | None:
    """The mean of what is there, or None when nothing is."""
    found = [float(value) for value in values if value is not None]
    if not found:
        return None
    mean, count = math.fsum(found) / len(found), len(found)
    if count == 1:
        return Mean(mean, None, 1)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in found) / (count - 1))
    quantile = _T[count - 2] if count - 2 < len(_T) else _NORMAL
    return Mean(mean, quantile * deviation / math.sqrt(count), count)


def alike(runs: Sequence[tuple[RunFigures, Path]]) -> list[Group]:
    """Runs of the same settings but for the seed, in the order of the first of each.

    Args:
        runs: The figures of each and its folder, where its configuration is.
    """
    groups: dict[bytes, list[RunFigures]] = {}
    for figures, folder in runs:
        said = {key: value for key, value in figures.settings.items() if key not in _OF_A_RUN}
        key = msgspec.json.encode([figures.name, said, _configured(folder)], order="sorted", enc_hook=str)
        groups.setdefault(key, []).append(figures)
    return [Group(runs=tuple(found), name=found[0].name, pipeline=found[0].pipeline) for found in groups.values()]


def single(run: RunFigures) -> Group:
    """A run as a group of its own."""
    return Group(runs=(run,), name=run.name, pipeline=run.pipeline)


def group_curve(group: Group, metric: str, direction: Direction = "both") -> list[tuple[float, Mean]]:
    """The mean bytes and the mean value by round, over the runs that have the round."""
    by_round: dict[int, list[tuple[int, float]]] = {}
    for run in group.runs:
        for row, point in zip(_rounds(run, metric, direction), run.curve(metric, direction), strict=True):
            by_round.setdefault(row, []).append(point)
    out = []
    for number in sorted(by_round):
        points = by_round[number]
        value = mean_of(value for _, value in points)
        if value is not None:
            out.append((sum(sent for sent, _ in points) / len(points), value))
    return out


def _rounds(run: RunFigures, metric: str, direction: Direction) -> list[int]:
    """The rounds of a curve's points: the last ones that have the metric, as the first may have sent nothing."""
    numbers = [number for number, _ in run.values(metric)]
    return numbers[len(numbers) - len(run.curve(metric, direction)) :]


def _configured(folder: Path) -> Any:
    """What a run's configuration says beside what its ledger does, or None."""
    file = folder / "run.yaml"
    try:
        lines = file.read_text("utf-8").splitlines()
        said = [line.removeprefix("# --set ") for line in lines if line.startswith("# --set ")]
        pairs = [pair.encode().decode("unicode_escape").partition("=") for pair in said]
        config = load_config(file, {key: value for key, _, value in pairs})
    except (OSError, ValueError, FedpostError):
        return None
    return [config.options, msgspec.to_builtins(config.strategy)]
