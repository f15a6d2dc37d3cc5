"""The profiler's names: what it counts, what it leaves out, and when it speaks."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest

from fedpost.compat.kafkafl import PerformanceSettings, SerializationProfiler
from fedpost.telemetry import Event, Span

MIB = 1 << 20


def test_the_report_is_numpy_s():
    profiler = SerializationProfiler()
    durations = np.random.default_rng(3).uniform(0.1, 2, 5000).tolist()
    for duration in durations:
        profiler.profile_operation("deserialization", 3 * MIB, 0.0, duration, compressed_size=2 * MIB)
    report = profiler.get_performance_report()
    times = report["deserialization_times"]
    assert times["count"] == 5000
    for name, measure in (("mean", np.mean), ("std", np.std), ("min", np.min), ("max", np.max)):
        assert times[name] == pytest.approx(measure(durations))
    assert times["p90"] == pytest.approx(np.quantile(durations, 0.9), rel=0.02)
    assert report["compression_ratios"] == pytest.approx(
        {"count": 5000, "mean": 1.5, "std": 0, "min": 1.5, "max": 1.5, "p50": 1.5, "p90": 1.5, "p99": 1.5}
    )
    assert report["throughput_mbps"]["max"] == pytest.approx(3 / min(durations))
    assert report["error_rates"]["mean"] == 0.0
    assert len(profiler.metrics["deserialization_times"]) == 1000
    assert profiler.metrics["deserialization_times"][-1] == durations[-1]


@pytest.mark.parametrize(("duration", "timed"), [(0.0, 1), (-1.0, 0), (math.nan, 0), (math.inf, 0)])
def test_times_that_are_none(duration, timed):
    profiler = SerializationProfiler()
    profiler.profile_operation("serialization", MIB, 1.0, 1.0 + duration, 0)
    report = profiler.get_performance_report()
    assert report.get("serialization_times", {"count": 0})["count"] == timed
    assert report["error_rates"]["count"] == 1
    assert not {"throughput_mbps", "compression_ratios"} & report.keys()


def test_nothing_was_measured():
    assert SerializationProfiler().get_performance_report() == {}


def test_errors_are_counted_and_not_timed():
    profiler = SerializationProfiler()
    profiler.profile_operation("serialization", MIB, 0.0, 1.0, MIB)
    profiler.profile_operation("serialization", MIB, 0.0, 9.0, 1, failed=True)
    report = profiler.get_performance_report()
    assert (report["error_rates"]["mean"], report["error_rates"]["count"]) == (0.5, 2)
    assert (report["serialization_times"]["max"], report["compression_ratios"]["max"]) == (1.0, 1.0)
    assert list(profiler.metrics["error_rates"]) == [0.0, 1.0]


def test_other_operations_have_times_of_their_own_and_cannot_fill_the_memory():
    profiler = SerializationProfiler()
    for number in range(200):
        profiler.profile_operation(f"send-{number}", 0, 0.0, 1.0)
    assert profiler.get_performance_report()["send-0_times"]["count"] == 1
    assert len(profiler.metrics) == 64


def test_it_is_a_sink():
    profiler = SerializationProfiler()
    values = {"seconds": 2.0, "raw": 4 * MIB, "stored": MIB, "failed": False}
    profiler.record(Event(at=1.0, name="serialization", values=values))
    profiler.record(Span(at=1.0, stage="train", seconds=1.0))
    report = profiler.get_performance_report()
    assert (report["throughput_mbps"]["mean"], report["compression_ratios"]["mean"]) == (2.0, 4.0)
    assert [stage.stage for stage in profiler.profiler.report().stages] == ["serialization", "train"]


def test_events_of_that_name_with_anything_in_them():
    profiler = SerializationProfiler()
    profiler.record(Event(at=1.0, name="serialization"))
    profiler.record(Event(at=1.0, name="serialization", values={"seconds": "soon", "raw": None, "stored": math.nan}))
    assert profiler.get_performance_report()["error_rates"]["count"] == 2
    assert "serialization_times" not in profiler.get_performance_report()


def test_it_speaks_every_so_many_operations(caplog):
    caplog.set_level(logging.INFO, "fedpost.compat.kafkafl")
    profiler = SerializationProfiler(PerformanceSettings(profiling_interval=3))
    for _ in range(7):
        profiler.profile_operation("serialization", MIB, 0.0, 1.0)
    assert [record.args[0] for record in caplog.records] == [3, 6]
    assert "serialization_times" in caplog.text
    caplog.clear()
    silent = SerializationProfiler()
    silent.profile_operation("serialization", MIB, 0.0, 1.0)
    assert caplog.records == []


def test_switched_off_it_measures_nothing():
    profiler = SerializationProfiler(PerformanceSettings(enable_profiling=False, profiling_interval=1))
    profiler.profile_operation("serialization", MIB, 0.0, 1.0)
    profiler.record(Span(at=1.0, stage="train", seconds=1.0))
    assert profiler.get_performance_report() == {}
    assert profiler.profiler.report().stages == []
