"""``SerializationProfiler``: what serialization costs, under the original's names, on :mod:`fedpost.profiling`."""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from typing import Final

import msgspec

from fedpost.compat.kafkafl.settings import PerformanceSettings
from fedpost.profiling import MIB, Distribution, Profiler
from fedpost.telemetry import Event, Record, Scalar

__all__ = ["SerializationProfiler"]

_LOG: Final = logging.getLogger("fedpost.compat.kafkafl")
_RECENT: Final = 1000
_MAX_METRICS: Final = 64
_OPERATIONS: Final = ("serialization", "deserialization")


class SerializationProfiler:
    """Measures operations, from any thread. It is also a telemetry sink, so a serializer can tell it of its own.

    Args:
        settings: Whether anything is measured, and after how many operations the report is logged; without them it is
            measured, and nothing is logged.

    Attributes:
        metrics: The last 1,000 measures of each kind; the report is of all of them.
        profiler: What adds up, with percentiles, JSON and Prometheus' format.
    """

    def __init__(self, settings: PerformanceSettings | None = None) -> None:
        kinds = ("serialization_times", "deserialization_times", "compression_ratios", "throughput_mbps", "error_rates")
        self.metrics: Final[dict[str, deque[float]]] = {kind: deque(maxlen=_RECENT) for kind in kinds}
        self.profiler: Final = Profiler()
        self._all = {kind: Distribution() for kind in kinds}
        self._enabled = settings is None or settings.enable_profiling
        self._interval = 0 if settings is None else settings.profiling_interval
        self._operations = 0
        self._lock = threading.Lock()

    def profile_operation(
        self,
        operation_type: str,
        data_size: int,
        start_time: float,
        end_time: float,
        compressed_size: int | None = None,
        *,
        failed: bool = False,
    ) -> None:
        """Take in one operation.

        Args:
            operation_type: ``serialization``, ``deserialization``, or another name.
            data_size: Bytes before compression.
            start_time: Seconds of any clock.
            end_time: Seconds of the same clock. Where it is before the start the time is not known, and where the two
                are the same the speed is not.
            compressed_size: Bytes after compression.
            failed: It did not succeed: it counts, its time and bytes do not.
        """
        self._observe(operation_type, end_time - start_time, data_size, compressed_size or 0, failed=failed)

    def record(self, record: Record) -> None:
        """Take in a record of a serializer's telemetry; see :class:`fedpost.telemetry.Sink`."""
        if isinstance(record, Event) and record.name in _OPERATIONS:
            seconds, raw, stored = (_number(record.values.get(key)) for key in ("seconds", "raw", "stored"))
            failed = record.values.get("failed") is True
            self._observe(record.name, math.nan if seconds is None else seconds, raw or 0, stored or 0, failed=failed)
        elif self._enabled:
            self.profiler.record(record)

    def get_performance_report(self) -> dict[str, dict[str, float]]:
        """For each kind of measure that there is: ``mean``, ``std``, ``min``, ``max``, ``count``, and percentiles.

        The mean of ``error_rates`` is the share of operations that failed.
        """
        report = {}
        with self._lock:
            known = {kind: distribution.statistics() for kind, distribution in self._all.items()}
        for kind, statistics in known.items():
            if statistics is not None:
                report[kind] = {key: v for key, v in msgspec.structs.asdict(statistics).items() if key != "sum"}
        return report

    def _observe(self, name: str, seconds: float, raw: float, stored: float, *, failed: bool) -> None:
        if not self._enabled:
            return
        with self._lock:
            due = self._count(name, seconds, raw, stored, failed=failed)
        if due:
            _LOG.info("after %d operations: %s", self._operations, self.get_performance_report())

    def _count(self, name: str, seconds: float, raw: float, stored: float, *, failed: bool) -> bool:
        """Take it in; whether it is time to say something."""
        self._operations += 1
        self._add("error_rates", float(failed))
        if failed:
            self.profiler.observe(name, failed=True)
        else:
            self.profiler.observe(name, seconds, raw=int(raw), stored=int(stored))
            self._add(f"{name}_times", seconds)
            if 0 < seconds < math.inf and raw > 0:
                self._add("throughput_mbps", raw / MIB / seconds)
            if raw > 0 and stored > 0:
                self._add("compression_ratios", raw / stored)
        return bool(self._interval) and not self._operations % self._interval

    def _add(self, kind: str, value: float) -> None:
        if not math.isfinite(value) or value < 0:
            return
        if kind not in self.metrics:
            if len(self.metrics) >= _MAX_METRICS:
                return
            self.metrics[kind], self._all[kind] = deque(maxlen=_RECENT), Distribution()
        self.metrics[kind].append(value)
        self._all[kind].add(value)


def _number(value: Scalar) -> float | None:
    return value if isinstance(value, int | float) and math.isfinite(value) else None
