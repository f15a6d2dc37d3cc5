"""The ledger of a run, added up.

Rules: one pass, and memory for rounds, sites and tensors only, never for records. Counts are sums of what was recorded:
bytes on the wire are the sum of ``Transfer.stored``, and "raw" is the sum of ``Transfer.raw``, what the same tensors
would have taken as the model holds them. A ledger that several runs were appended to tells of the last one; a run that
was resumed under its own id goes on.
"""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Iterable
from typing import Final

import msgspec

from fedpost.report.rows import Bytes, Picks, Problem, ProblemKind, Round, Site, Stage, Tensor, finished, planned
from fedpost.telemetry import Event, Record, Span, Transfer

__all__ = ["RunSummary", "Summarizer", "summarize"]

Scalar = bool | int | float | str | None

MAX_PROBLEMS: Final = 500
"""So many problems are kept with their reasons, the latest ones; all are counted."""

_PROBLEMS: Final[dict[str, ProblemKind]] = {
    "result_refused": "refused",
    "site_failed": "failed",
    "site_lost": "lost",
    "round_retried": "retried",
}

_SERVER_ONLY: Final = frozenset({"send", "receive", "verify", "spool", "aggregate", "wait"})
"""The server's stages even when labelled with the site that they were for."""


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What a ledger says of its run.

    Attributes:
        status: ``finished``, ``interrupted``, ``failed``, or ``unfinished`` when the ledger has no end.
        started: Seconds since the epoch, or None for an empty ledger.
        seconds: Wall time, up to the last record if the run has no end.
        settings: What ``run_started`` said.
        rounds: By number; a round that was not finished has ``ended`` False.
        problems: The latest :data:`MAX_PROBLEMS` of ``problem_count``.
        picks: What an update codec with a budget picked.
    """

    run: str
    name: str
    status: str
    reason: str | None
    started: float | None
    seconds: float
    settings: dict[str, Scalar]
    rounds: tuple[Round, ...]
    sites: tuple[Site, ...]
    tensors: tuple[Tensor, ...]
    server_stages: tuple[Stage, ...]
    site_stages: tuple[Stage, ...]
    problems: tuple[Problem, ...]
    problem_count: int
    bytes: Bytes
    picks: Picks

    @property
    def finished_rounds(self) -> int:
        """Rounds that ended, without the evaluation of the initial model."""
        return finished(self.rounds)

    @property
    def planned_rounds(self) -> int | None:
        """Rounds that the run was to have, if it said so."""
        return planned(self.settings)

    @property
    def evaluated(self) -> tuple[Round, ...]:
        """Rounds with an accuracy."""
        return tuple(row for row in self.rounds if row.accuracy is not None)

    @property
    def ratio(self) -> float | None:
        """How many times smaller than raw tensors the traffic was."""
        return self.bytes.raw / self.bytes.wire if self.bytes.wire and self.bytes.raw else None


class Summarizer:
    """Adds records up as they come; :func:`summarize` is the usual way in."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self.settings: dict[str, Scalar] = {}
        self.rounds: dict[int, Round] = {}
        self.sites: dict[str, Site] = {}
        self.tensors: dict[str | None, Tensor] = {}
        self.server_stages: dict[str, Stage] = {}
        self.site_stages: dict[str, Stage] = {}
        self.problems: deque[Problem] = deque(maxlen=MAX_PROBLEMS)
        self.problem_count = 0
        self.bytes = Bytes()
        self.picks = Picks()
        self.current: Round | None = None
        self.status = "unfinished"
        self.reason: str | None = None
        self.started: float | None = None
        self.last: float = 0.0
        self.seconds: float | None = None

    def record(self, record: Record) -> None:
        """Take one record in, as a sink of telemetry."""
        self.add(record)

    def add(self, record: Record) -> None:
        """Count one record."""
        if isinstance(record, Event):
            self._event(record)
        elif isinstance(record, Transfer):
            self._transfer(record)
        else:
            self._span(record)
        self.started = record.at if self.started is None else self.started
        self.last = max(self.last, record.at)

    def summary(self) -> RunSummary:
        """What was counted so far; it does not change when more is added."""
        return copy.deepcopy(
            RunSummary(
                run=str(self.settings.get("run") or ""),
                name=str(self.settings.get("name") or self.settings.get("run") or "Federated run"),
                status=self.status,
                reason=self.reason,
                started=self.started,
                seconds=self.last - (self.started or self.last) if self.seconds is None else self.seconds,
                settings=self.settings,
                rounds=tuple(self.rounds[number] for number in sorted(self.rounds)),
                sites=tuple(self.sites[name] for name in sorted(self.sites)),
                tensors=tuple(sorted(self.tensors.values(), key=lambda tensor: -tensor.bytes.wire)),
                server_stages=_longest_first(self.server_stages),
                site_stages=_longest_first(self.site_stages),
                problems=tuple(self.problems),
                problem_count=self.problem_count,
                bytes=self.bytes,
                picks=self.picks,
            )
        )

    def _transfer(self, transfer: Transfer) -> None:
        self.bytes.add(transfer)
        if transfer.round is not None:
            self._round(transfer.round).bytes.add(transfer)
        if transfer.site is not None:
            self._site(transfer.site).bytes.add(transfer)
        tensor = self.tensors.setdefault(transfer.tensor, Tensor(transfer.tensor))
        tensor.count += 1
        tensor.bytes.add(transfer)

    def _span(self, span: Span) -> None:
        on_server = span.site is None or span.stage in _SERVER_ONLY
        stages = self.server_stages if on_server else self.site_stages
        stages.setdefault(span.stage, Stage(span.stage)).add(span.seconds)
        if span.site is not None and not on_server:
            seconds = self._site(span.site).seconds
            seconds[span.stage] = seconds.get(span.stage, 0.0) + span.seconds

    def _event(self, event: Event) -> None:
        values = event.values
        if event.name == "run_started":
            if self.settings.get("run") not in {None, values.get("run")}:
                self._reset()
            self.settings = dict(values)
            self.status, self.reason, self.seconds = "unfinished", None, None
        elif event.name == "run_ended":
            self.status = str(values.get("status") or "finished")
            self.reason = _text(values.get("reason"))
            self.seconds = _number(values.get("seconds"))
        elif event.name == "step_picked" and (step := _number(values.get("step"))) is not None:
            self.picks.add("up" if event.site else "down", step, over=values.get("over") is True)
        row = None if event.round is None else self._round(event.round)
        site = None if event.site is None else self._site(event.site)
        if event.name in _PROBLEMS:
            self._problem(_PROBLEMS[event.name], event, row, site)
        elif site is not None:
            _site_event(event, row, site)
        elif row is not None:
            _round_event(event, row)
            self.current = row if event.name == "round_started" else self.current

    def _problem(self, kind: ProblemKind, event: Event, row: Round | None, site: Site | None) -> None:
        for counted in (row, site):
            if counted is not None and kind in {"refused", "failed"}:
                setattr(counted, kind, getattr(counted, kind) + 1)
        if site is not None and kind == "lost":
            site.lost = True
        self.problem_count += 1
        self.problems.append(Problem(kind, event.round, event.site, _text(event.values.get("reason")) or "no reason"))

    def _round(self, number: int) -> Round:
        return self.rounds.setdefault(number, Round(number))

    def _site(self, name: str) -> Site:
        return self.sites.setdefault(name, Site(name))


def summarize(records: Iterable[Record]) -> RunSummary:
    """Add up the records of a run, in the order in which they were made."""
    summarizer = Summarizer()
    for record in records:
        summarizer.add(record)
    return summarizer.summary()


def _site_event(event: Event, row: Round | None, site: Site) -> None:
    if event.name == "site_joined":
        site.lost = False
    elif event.name == "result_accepted" and row is not None:
        examples, loss = _count(event.values.get("examples")), _number(event.values.get("loss"))
        row.done += 1
        site.accepted += 1
        site.examples += examples
        if loss is not None and examples:
            row.loss_weight += examples
            row.train_loss = (row.train_loss or 0.0) + (loss - (row.train_loss or 0.0)) * examples / row.loss_weight


def _round_event(event: Event, row: Round) -> None:
    if event.name == "round_started":
        # A new attempt starts from nothing; what was refused before stays counted.
        row.asked, row.done = _count(event.values.get("sites")), 0
        row.attempts = max(1, _count(event.values.get("attempt")))
        row.train_loss, row.loss_weight, row.ended = None, 0.0, False
    elif event.name == "round_ended":
        numbers = {name: number for name, value in event.values.items() if (number := _number(value)) is not None}
        row.ended = True
        row.accuracy, row.loss = numbers.pop("accuracy", None), numbers.pop("loss", None)
        row.seconds, row.done = numbers.pop("seconds", None), int(numbers.pop("sites", row.done))
        row.metrics = numbers


def _longest_first(stages: dict[str, Stage]) -> tuple[Stage, ...]:
    return tuple(sorted(stages.values(), key=lambda stage: -stage.seconds))


def _number(value: Scalar) -> float | None:
    """The value if it is a finite number; JSON has null for the others."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if usable and not isinstance(value, str) else None


def _count(value: Scalar) -> int:
    return int(_number(value) or 0)


def _text(value: Scalar) -> str | None:
    return None if value is None else str(value)
