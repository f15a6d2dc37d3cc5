"""Telemetry added up: how long stages take, how small and how fast they make things, how often they fail.

Rules: memory is bounded, whatever is recorded: counts, sums, means, deviations and extremes are exact; percentiles come
from buckets whose width grows with the value and are within 1 % of the value at that rank. Nothing divides by zero:
what cannot be said is None. A measure that is negative or no finite number is ignored, and counted as ignored.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping
from typing import Final, TypeVar

import msgspec

from fedpost.telemetry import Event, Record, Scalar, Span, Transfer

__all__ = ["MIB", "Distribution", "Profile", "Profiler", "StageProfile", "Statistics", "TransferProfile"]

_Key = TypeVar("_Key")

MIB: Final = 1 << 20
# DDSketch (Masson, Rim, Lee: VLDB 2019): buckets by the logarithm, so that the error is relative.
_ERROR: Final = 0.01
_GROWTH: Final = (1 + _ERROR) / (1 - _ERROR)
_LOG_GROWTH: Final = math.log(_GROWTH)
_LEAST, _MOST = 1e-12, 1e15
_NOTHING: Final = math.floor(math.log(_LEAST) / _LOG_GROWTH) - 1
_QUANTILES: Final = {"0.5": "p50", "0.9": "p90", "0.99": "p99"}
_MAX_NAMES: Final = 256
_MAX_NAME: Final = 128
_OTHER: Final = "other"
_OUTCOMES: Final = {"result_accepted": ("result", False), "result_refused": ("result", True)}


# ── numbers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Statistics(msgspec.Struct, frozen=True):
    """What is known of many measures.

    Attributes:
        count: How many.
        sum: All together.
        mean: Their mean.
        std: Standard deviation of these measures (not an estimate for others).
        min: The smallest.
        max: The greatest.
        p50: The median, within 1 %.
        p90: Nine of ten are not greater, within 1 %.
        p99: Likewise 99 of 100.
    """

    count: int
    sum: float
    mean: float
    std: float
    min: float
    max: float
    p50: float
    p90: float
    p99: float


class Distribution:
    """Measures of one kind, none of which is kept: at most 3,110 buckets of counts.

    Percentiles are within 1 % for measures from 10⁻¹² to 10¹⁵; what is below counts as the smallest.
    """

    __slots__ = ("_buckets", "_deviation", "_mean", "count", "max", "min", "sum")

    def __init__(self) -> None:
        self.count = 0
        self.sum = 0.0
        self.min = math.inf
        self.max = -math.inf
        self._mean = 0.0
        self._deviation = 0.0
        self._buckets: dict[int, int] = {}

    def add(self, value: float) -> None:
        """Take in a measure: finite, and not negative."""
        self.count += 1
        self.sum += value
        self.min = min(self.min, value)
        self.max = max(self.max, value)
        before = value - self._mean
        self._mean += before / self.count
        self._deviation += before * (value - self._mean)  # Welford: no difference of large squares
        bucket = math.ceil(math.log(min(value, _MOST)) / _LOG_GROWTH) if value >= _LEAST else _NOTHING
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1

    def quantile(self, share: float) -> float:
        """The measure that so many of all are not greater than, within 1 %; NaN when there is none.

        Args:
            share: From 0 to 1.
        """
        rank = max(math.ceil(share * self.count), 1)
        for bucket in sorted(self._buckets):
            rank -= self._buckets[bucket]
            if rank <= 0:
                if bucket == _NOTHING:
                    return self.min
                middle = 2 * math.exp(bucket * _LOG_GROWTH) / (_GROWTH + 1)
                return min(max(middle, self.min), self.max)
        return math.nan

    def statistics(self) -> Statistics | None:
        """What is known of them; None when there are none."""
        if not self.count:
            return None
        return Statistics(
            count=self.count,
            sum=self.sum,
            mean=self._mean,
            std=math.sqrt(max(self._deviation, 0.0) / self.count),
            min=self.min,
            max=self.max,
            **{field: self.quantile(float(share)) for share, field in _QUANTILES.items()},
        )


# ── what is told ─────────────────────────────────────────────────────────────────────────────────────────────────────


class StageProfile(msgspec.Struct, frozen=True):
    """One stage.

    Attributes:
        stage: Its name.
        operations: How often it was done, or failed.
        errors: How often it failed.
        error_rate: Errors over operations.
        seconds: How long it took.
        throughput: MiB a second, by the bytes before compression.
        ratio: Bytes before compression over bytes after it.
    """

    stage: str
    operations: int
    errors: int
    error_rate: float
    seconds: Statistics | None
    throughput: Statistics | None
    ratio: Statistics | None


class TransferProfile(msgspec.Struct, frozen=True):
    """Messages of one type, in one direction.

    Attributes:
        direction: ``down`` or ``up``.
        message: The type.
        records: How many records there were: of tensors, and of what is not a tensor.
        raw: Bytes as the model holds them.
        stored: Bytes on the wire.
        ratio: ``raw`` over ``stored`` of each tensor.
        throughput: MiB a second on the wire, from the first record to the last; None for one moment.
    """

    direction: str
    message: str
    records: int
    raw: int
    stored: int
    ratio: Statistics | None
    throughput: float | None


class Profile(msgspec.Struct, frozen=True):
    """Everything, at one time.

    Attributes:
        stages: By stage, in the order in which they were first seen.
        transfers: By direction and message.
        events: How often each event happened.
        ignored: Measures that were negative or no finite number.
    """

    stages: list[StageProfile]
    transfers: list[TransferProfile]
    events: dict[str, int]
    ignored: int


# ── what adds up ─────────────────────────────────────────────────────────────────────────────────────────────────────


class _Stage:
    def __init__(self) -> None:
        self.operations = 0
        self.errors = 0
        self.seconds = Distribution()
        self.throughput = Distribution()
        self.ratio = Distribution()

    def profile(self, name: str) -> StageProfile:
        measures = (self.seconds.statistics(), self.throughput.statistics(), self.ratio.statistics())
        return StageProfile(name, self.operations, self.errors, self.errors / max(self.operations, 1), *measures)


class _Transfers:
    def __init__(self) -> None:
        self.records = 0
        self.raw = 0
        self.stored = 0
        self.ratio = Distribution()
        self.first = math.inf
        self.last = -math.inf

    def profile(self, direction: str, message: str) -> TransferProfile:
        seconds = self.last - self.first
        rate = self.stored / MIB / seconds if seconds > 0 else None
        return TransferProfile(direction, message, self.records, self.raw, self.stored, self.ratio.statistics(), rate)


class Profiler:
    """Adds up telemetry; a :class:`~fedpost.telemetry.Sink`, safe to use from many threads.

    A span is an operation of its stage. An event with the number ``seconds``, ``raw`` or ``stored`` and the mark
    ``failed`` among its values is an operation of the stage that it names; so are a result that was accepted and one
    that was refused, which is an error. Of stages, kinds of messages and events 256 each are told apart, and the rest
    are called ``other``: a name may come from another machine.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stages: dict[str, _Stage] = {}
        self._transfers: dict[tuple[str, str], _Transfers] = {}
        self._events: dict[str, int] = {}
        self._ignored = 0

    def record(self, record: Record) -> None:
        """Take in one record."""
        match record:
            case Span():
                self.observe(record.stage, record.seconds)
            case Transfer():
                self._transfer(record)
            case Event():
                self._event(record)

    def observe(
        self, stage: str, seconds: float | None = None, *, raw: int = 0, stored: int = 0, failed: bool = False
    ) -> None:
        """Take in one operation.

        Args:
            stage: What was done.
            seconds: How long it took; None when nobody knows.
            raw: Bytes before compression; 0 when there were none.
            stored: Bytes after it; likewise.
            failed: It did not succeed.
        """
        with self._lock:
            entry = self._stages.setdefault(_room(self._stages, stage[:_MAX_NAME], _OTHER), _Stage())
            entry.operations += 1
            entry.errors += failed
            if seconds is not None and self._add(entry.seconds, seconds) and seconds > 0 and raw > 0:
                self._add(entry.throughput, raw / MIB / seconds)
            if raw > 0 and stored > 0:
                self._add(entry.ratio, raw / stored)

    def report(self) -> Profile:
        """What is known now."""
        with self._lock:
            return Profile(
                stages=[stage.profile(name) for name, stage in self._stages.items()],
                transfers=[transfers.profile(*key) for key, transfers in self._transfers.items()],
                events=dict(self._events),
                ignored=self._ignored,
            )

    def to_json(self) -> str:
        """The report as JSON."""
        return msgspec.json.encode(self.report()).decode()

    def to_prometheus(self) -> str:
        """The report in Prometheus' text format, version 0.0.4; times in seconds, sizes in bytes."""
        return "".join(f"{line}\n" for line in _exposition(self.report()))

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _transfer(self, record: Transfer) -> None:
        with self._lock:
            key = _room(self._transfers, (record.direction, record.message[:_MAX_NAME]), (record.direction, _OTHER))
            entry = self._transfers.setdefault(key, _Transfers())
            entry.records += 1
            entry.raw += record.raw
            entry.stored += record.stored
            entry.first, entry.last = min(entry.first, record.at), max(entry.last, record.at)
            if record.raw > 0 and record.stored > 0:
                self._add(entry.ratio, record.raw / record.stored)

    def _event(self, record: Event) -> None:
        with self._lock:
            name = _room(self._events, record.name[:_MAX_NAME], _OTHER)
            self._events[name] = self._events.get(name, 0) + 1
        values = record.values
        if record.name in _OUTCOMES:
            stage, failed = _OUTCOMES[record.name]
            self.observe(stage, failed=failed)
        elif isinstance(mark := values.get("failed"), bool):
            seconds = values.get("seconds")
            self.observe(
                record.name,
                float(seconds) if isinstance(seconds, int | float) else None,
                raw=_count(values, "raw"),
                stored=_count(values, "stored"),
                failed=mark,
            )

    def _add(self, distribution: Distribution, value: float) -> bool:
        """Take in a measure, if it is one."""
        usable = math.isfinite(value) and value >= 0
        if usable:
            distribution.add(value)
        else:
            self._ignored += 1
        return usable


def _room(table: Mapping[_Key, object], key: _Key, other: _Key) -> _Key:
    """The key, or the one for all others when the table is full."""
    return key if key in table or len(table) < _MAX_NAMES else other


def _count(values: Mapping[str, Scalar], key: str) -> int:
    value = values.get(key)
    return value if isinstance(value, int) else 0


# ── Prometheus ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _exposition(profile: Profile) -> Iterator[str]:
    """https://prometheus.io/docs/instrumenting/exposition_formats, "Text-based format"."""
    stages = [({"stage": stage.stage}, stage) for stage in profile.stages]
    yield from _summary("stage_seconds", "How long a stage takes.", [(own, stage.seconds) for own, stage in stages])
    yield from _summary(
        "stage_bytes_per_second", "Speed by bytes before compression.", [(own, s.throughput) for own, s in stages], MIB
    )
    yield from _summary("stage_ratio", "Bytes before over bytes after.", [(own, stage.ratio) for own, stage in stages])
    yield from _counter("stage_operations", "Operations.", [(own, stage.operations) for own, stage in stages])
    yield from _counter("stage_errors", "Operations that failed.", [(own, stage.errors) for own, stage in stages])
    transfers = [({"direction": entry.direction, "message": entry.message}, entry) for entry in profile.transfers]
    yield from _counter("transfer_raw_bytes", "As the model has them.", [(own, e.raw) for own, e in transfers])
    yield from _counter("transfer_wire_bytes", "On the wire.", [(own, entry.stored) for own, entry in transfers])
    yield from _summary("transfer_ratio", "Raw over stored.", [(own, entry.ratio) for own, entry in transfers])
    yield from _counter("events", "Events.", [({"event": name}, count) for name, count in profile.events.items()])
    yield from _counter("ignored_measures", "Measures that were no numbers.", [({}, profile.ignored)])


def _counter(name: str, text: str, rows: list[tuple[dict[str, str], int]]) -> Iterator[str]:
    if rows:
        yield f"# HELP fedpost_{name}_total {text}"
        yield f"# TYPE fedpost_{name}_total counter"
    for labels, value in rows:
        yield f"fedpost_{name}_total{_labels(labels)} {value}"


def _summary(
    name: str, text: str, rows: list[tuple[dict[str, str], Statistics | None]], unit: int = 1
) -> Iterator[str]:
    known = [(labels, statistics) for labels, statistics in rows if statistics is not None]
    if known:
        yield f"# HELP fedpost_{name} {text}"
        yield f"# TYPE fedpost_{name} summary"
    for labels, statistics in known:
        for share, field in _QUANTILES.items():
            value = getattr(statistics, field) * unit
            yield f"fedpost_{name}{_labels({**labels, 'quantile': share})} {value!r}"
        yield f"fedpost_{name}_sum{_labels(labels)} {statistics.sum * unit!r}"
        yield f"fedpost_{name}_count{_labels(labels)} {statistics.count}"


def _labels(labels: Mapping[str, str]) -> str:
    escaped = (f'{key}="{value.translate(_ESCAPES)}"' for key, value in labels.items())
    return f"{{{','.join(escaped)}}}" if labels else ""


_ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})
