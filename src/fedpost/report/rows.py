"""The rows of a summary: what is counted for a round, a site, a tensor and a stage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal

import msgspec

from fedpost.telemetry import Transfer

__all__ = [
    "GREATEST",
    "Bytes",
    "Picks",
    "Problem",
    "ProblemKind",
    "Round",
    "Site",
    "Stage",
    "Tensor",
    "finished",
    "planned",
]

GREATEST: Final = 1e100
"""Of a metric that is averaged or drawn: sums of squares of such are finite still."""

ProblemKind = Literal["refused", "failed", "lost", "retried"]


class Bytes(msgspec.Struct):
    """Bytes on the wire each way, and what their tensors would have been raw."""

    down: int = 0
    up: int = 0
    raw_down: int = 0
    raw_up: int = 0

    def add(self, transfer: Transfer) -> None:
        """Count one transfer."""
        if transfer.direction == "down":
            self.down += transfer.stored
            self.raw_down += transfer.raw
        else:
            self.up += transfer.stored
            self.raw_up += transfer.raw

    @property
    def wire(self) -> int:
        """Both ways."""
        return self.down + self.up

    @property
    def raw(self) -> int:
        """Both ways, raw."""
        return self.raw_down + self.raw_up


class Picks(msgspec.Struct):
    """The steps that an update codec with a budget picked, and how often; see :mod:`fedpost.codecs.auto`.

    Attributes:
        steps: By direction, ``down`` or ``up``, how many messages had which step.
        over: Messages of both directions that were over the budget with the coarsest step.
    """

    steps: dict[str, dict[float, int]] = {}
    over: int = 0

    def add(self, direction: str, step: float, *, over: bool) -> None:
        """Count one message."""
        steps = self.steps.setdefault(direction, {})
        steps[step] = steps.get(step, 0) + 1
        self.over += over

    @property
    def told(self) -> str:
        """In words, or empty when nothing was picked."""
        parts = []
        for direction, steps in sorted(self.steps.items()):
            usual = max(steps, key=lambda step: (steps[step], -step))
            span = f"{min(steps):g} to {max(steps):g}, mostly {usual:g}" if len(steps) > 1 else f"{usual:g}"
            parts.append(f"{direction} {span}")
        if self.over:
            parts.append(f"{self.over} over the budget")
        return "; ".join(parts)


class Round(msgspec.Struct):
    """One round; round 0 is the evaluation of the initial model.

    Attributes:
        train_loss: The mean of the losses that the sites reported, weighted by their examples.
        metrics: Whatever else the evaluation gave.
        asked: Sites asked in the last attempt; ``done``: sites whose result was used.
    """

    round: int
    accuracy: float | None = None
    loss: float | None = None
    train_loss: float | None = None
    metrics: dict[str, float] = {}
    seconds: float | None = None
    attempts: int = 1
    asked: int = 0
    done: int = 0
    refused: int = 0
    failed: int = 0
    ended: bool = False
    bytes: Bytes = msgspec.field(default_factory=Bytes)
    loss_weight: float = 0.0


class Stage(msgspec.Struct):
    """Seconds spent in one stage, over ``count`` spans."""

    name: str
    seconds: float = 0.0
    count: int = 0
    longest: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one span."""
        self.seconds += seconds
        self.count += 1
        self.longest = max(self.longest, seconds)


class Site(msgspec.Struct):
    """One site over the run: its results, its bytes, the seconds it said it spent per stage."""

    name: str
    accepted: int = 0
    refused: int = 0
    failed: int = 0
    examples: int = 0
    lost: bool = False
    bytes: Bytes = msgspec.field(default_factory=Bytes)
    seconds: dict[str, float] = {}


class Tensor(msgspec.Struct):
    """One tensor over the run; the name None stands for headers, padding and whatever is not a tensor."""

    name: str | None
    count: int = 0
    bytes: Bytes = msgspec.field(default_factory=Bytes)


class Problem(msgspec.Struct, frozen=True):
    """A refused result, a failed or lost site, or a round that was started again."""

    kind: ProblemKind
    round: int | None
    site: str | None
    reason: str


def finished(rounds: Iterable[Round]) -> int:
    """Rounds that ended, without the evaluation of the initial model."""
    return sum(1 for row in rounds if row.ended and row.round > 0)


def planned(settings: Mapping[str, object]) -> int | None:
    """Rounds that a run was to have, if it said so."""
    found = settings.get("rounds")
    return found if isinstance(found, int) else None
