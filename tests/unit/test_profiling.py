"""Telemetry added up: exact where it says so, within 1 % elsewhere, and of bounded size."""

from __future__ import annotations

import json
import math
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from fedpost.profiling import Distribution, Profiler
from fedpost.telemetry import Event, JsonLinesSink, Span, Telemetry, Transfer, read_records

MIB = 1 << 20
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


def distribution(values):
    out = Distribution()
    for value in values:
        out.add(value)
    return out


def at_rank(values, share):
    return sorted(values)[max(math.ceil(share * len(values)), 1) - 1]


def span(stage, seconds):
    return Span(at=1.0, stage=stage, seconds=seconds)


# ── numbers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["lognormal", "uniform", "constant", "two far apart", "with zeros"])
def test_statistics_are_numpy_s_and_percentiles_within_1_percent(kind):
    rng = np.random.default_rng(3)
    values = {
        "lognormal": rng.lognormal(-6, 2, 20_000),
        "uniform": rng.uniform(0, 30, 10_000),
        "constant": np.full(1000, 0.1),
        "two far apart": np.array([1e-9] * 900 + [1e9] * 100),
        "with zeros": np.concatenate([np.zeros(600), rng.uniform(1, 2, 400)]),
    }[kind].tolist()
    found = distribution(values).statistics()
    assert found.count == len(values)
    assert (found.min, found.max) == (min(values), max(values))
    assert found.sum == pytest.approx(math.fsum(values), rel=1e-12)
    assert found.mean == pytest.approx(np.mean(values), rel=1e-12)
    assert found.std == pytest.approx(np.std(values), rel=1e-9, abs=1e-15)
    for name, share in QUANTILES.items():
        assert getattr(found, name) == pytest.approx(at_rank(values, share), rel=0.01 + 1e-9), name


@given(st.lists(st.one_of(st.just(0.0), st.floats(1e-12, 1e15)), min_size=1), st.floats(0, 1))
def test_any_quantile_of_anything_is_within_1_percent(values, share):
    wanted = at_rank(values, share)
    assert abs(distribution(values).quantile(share) - wanted) <= 0.0100001 * wanted


def test_small_deviations_beside_a_large_mean_are_not_lost():
    values = [1e9 + offset for offset in (4, 7, 13, 16)]
    assert distribution(values).statistics().std == pytest.approx(np.std([4.0, 7.0, 13.0, 16.0]), rel=1e-9)


def test_nothing_has_no_statistics():
    assert Distribution().statistics() is None
    assert math.isnan(Distribution().quantile(0.5))


def test_a_distribution_stays_small_whatever_is_put_in():
    rng = np.random.default_rng(3)
    out = distribution((10.0 ** rng.uniform(-30, 30, 200_000)).tolist())
    assert len(out._buckets) <= 3110
    assert sys.getsizeof(out._buckets) < 200_000


# ── records ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_spans_are_operations_of_their_stage():
    profiler = Profiler()
    telemetry = Telemetry(profiler)
    for seconds in (1.0, 3.0):
        telemetry.spent("train", seconds)
    with telemetry.span("send"):
        pass
    train, send = profiler.report().stages
    assert (train.stage, train.operations, train.errors, train.error_rate) == ("train", 2, 0, 0.0)
    assert (train.seconds.mean, train.seconds.std, train.seconds.min, train.seconds.max) == (2.0, 1.0, 1.0, 3.0)
    assert (train.throughput, train.ratio) == (None, None)
    assert (send.stage, send.seconds.count) == ("send", 1)


def test_transfers_have_ratios_and_speed():
    profiler = Profiler()
    for at, tensor, raw, stored in ((1.0, "w", 4 * MIB, MIB), (2.0, "b", 0, 0), (3.0, None, 0, MIB)):
        profiler.record(Transfer(at=at, direction="up", message="weight_update", tensor=tensor, raw=raw, stored=stored))
    profiler.record(Transfer(at=9.0, direction="down", message="training_command", raw=0, stored=10))
    up, down = profiler.report().transfers
    assert (up.direction, up.message, up.records, up.raw, up.stored) == ("up", "weight_update", 3, 4 * MIB, 2 * MIB)
    assert (up.ratio.count, up.ratio.mean, up.throughput) == (1, 4.0, 1.0)
    assert (down.records, down.ratio, down.throughput) == (1, None, None)


def test_events_that_are_operations():
    profiler = Profiler()
    telemetry = Telemetry(profiler)
    telemetry.event("encode", {"seconds": 2, "raw": 6 * MIB, "stored": 2 * MIB, "failed": False})
    telemetry.event("encode", {"seconds": "soon", "failed": True})
    telemetry.event("run_ended", {"seconds": 7.0})
    report = profiler.report()
    (encode,) = report.stages
    assert (encode.operations, encode.errors, encode.error_rate) == (2, 1, 0.5)
    assert (encode.seconds.count, encode.throughput.mean, encode.ratio.mean) == (1, 3.0, 3.0)
    assert report.events == {"encode": 2, "run_ended": 1}


def test_results_that_were_refused_are_errors():
    profiler = Profiler()
    for name in ("result_accepted", "result_accepted", "result_accepted", "result_refused", "message_refused"):
        profiler.record(Event(at=1.0, name=name))
    (result,) = profiler.report().stages
    assert (result.stage, result.operations, result.errors, result.error_rate) == ("result", 4, 1, 0.25)


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, math.inf, -math.inf])
def test_times_that_are_none(seconds):
    profiler = Profiler()
    profiler.observe("encode", seconds, raw=MIB, stored=0)
    profiler.record(span("encode", seconds))
    report = profiler.report()
    (encode,) = report.stages
    assert (encode.operations, encode.throughput, encode.ratio) == (2, None, None)
    assert (encode.seconds is None) == (seconds != 0)
    assert report.ignored == (2 if seconds else 0)
    assert json.loads(profiler.to_json())["ignored"] == report.ignored


def test_names_from_elsewhere_cannot_fill_the_memory():
    profiler = Profiler()
    for number in range(1000):
        name = f"{number}" + "x" * 10_000
        profiler.record(span(name, 1.0))
        profiler.record(Event(at=1.0, name=name))
        profiler.record(Transfer(at=1.0, direction="up", message=name, raw=2, stored=1))
    report = profiler.report()
    for names in (
        [stage.stage for stage in report.stages],
        [entry.message for entry in report.transfers],
        list(report.events),
    ):
        assert len(names) == 257
        assert names[-1] == "other"
        assert max(map(len, names)) == 128
    assert report.stages[-1].operations == report.events["other"] == report.transfers[-1].records == 744


def test_many_threads():
    profiler = Profiler()

    def work():
        for _ in range(2000):
            profiler.record(span("a", 1.0))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (stage,) = profiler.report().stages
    assert (stage.operations, stage.seconds.count, stage.seconds.sum) == (16_000, 16_000, 16_000.0)


def test_a_run_that_was_written_down_can_be_added_up_later(tmp_path):
    live = Profiler()
    with JsonLinesSink(tmp_path / "run.jsonl") as sink:
        telemetry = Telemetry(sink, live)
        telemetry.spent("train", 0.5)
        telemetry.transfer("up", "weight_update", "w", raw=8, stored=4)
        telemetry.event("result_refused")
    later = Profiler()
    for record in read_records(tmp_path / "run.jsonl"):
        later.record(record)
    assert later.report() == live.report()


# ── what others read ─────────────────────────────────────────────────────────────────────────────────────────────────


def filled():
    profiler = Profiler()
    for number in range(1, 101):
        profiler.observe("encode", number / 100, raw=2 * MIB, stored=MIB, failed=number % 10 == 0)
    profiler.record(Transfer(at=1.0, direction="up", message="weight_update", tensor="w", raw=30, stored=10))
    profiler.record(Event(at=1.0, name='a "quoted" \\ name\nin two lines, é'))
    profiler.observe("encode", math.nan)
    return profiler


def samples(text):
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_prometheus_reads_it():
    found = samples(filled().to_prometheus())
    stage = ("stage", "encode")
    assert found["fedpost_stage_seconds_count", stage] == 100
    assert found["fedpost_stage_seconds_sum", stage] == pytest.approx(50.5)
    assert found["fedpost_stage_seconds", ("quantile", "0.9"), stage] == pytest.approx(0.9, rel=0.01)
    assert found["fedpost_stage_bytes_per_second", ("quantile", "0.5"), stage] == pytest.approx(4 * MIB, rel=0.05)
    assert found["fedpost_stage_ratio_sum", stage] == 200.0
    assert found["fedpost_stage_operations_total", stage] == 101
    assert found["fedpost_stage_errors_total", stage] == 10
    up = (("direction", "up"), ("message", "weight_update"))
    assert found["fedpost_transfer_raw_bytes_total", *up] == 30
    assert found["fedpost_transfer_wire_bytes_total", *up] == 10
    assert found["fedpost_transfer_ratio_count", *up] == 1
    assert found["fedpost_events_total", ("event", 'a "quoted" \\ name\nin two lines, é')] == 1
    assert found["fedpost_ignored_measures_total",] == 1
    kinds = {family.name: family.type for family in text_string_to_metric_families(filled().to_prometheus())}
    assert kinds["fedpost_stage_seconds"] == "summary"
    assert kinds["fedpost_events"] == "counter"


def test_prometheus_reads_a_profile_of_nothing():
    assert samples(Profiler().to_prometheus()) == {("fedpost_ignored_measures_total",): 0.0}


def test_json_says_the_same_as_the_report():
    profiler = filled()
    found = json.loads(profiler.to_json())
    (encode,) = found["stages"]
    assert encode["error_rate"] == pytest.approx(10 / 101)
    assert encode["seconds"]["p50"] == profiler.report().stages[0].seconds.p50
    assert encode["seconds"].keys() == {"count", "sum", "mean", "std", "min", "max", "p50", "p90", "p99"}
    assert Profiler().report().stages == []
