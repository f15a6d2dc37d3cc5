"""Records, their labels, and the JSON Lines that keep them."""

from __future__ import annotations

import json
import math

import pytest

from fedpost.telemetry import NO_TELEMETRY, Event, JsonLinesSink, Span, Telemetry, Transfer, read_records


class Memory:
    def __init__(self):
        self.records = []

    def record(self, record):
        self.records.append(record)


RECORDS = [
    Event(at=1.5, name="run_started", values={"sites": 2, "name": "é", "ratio": 0.5, "ok": True, "none": None}),
    Span(at=2.0, round=0, site="a", stage="train", seconds=0.25),
    Transfer(at=3.0, round=1, site="b", direction="up", message="weight_update", tensor="w", raw=8, stored=5),
    Transfer(at=3.0, direction="down", message="training_command", raw=0, stored=0),
    Event(at=4.0, name="run_ended"),
]


def test_nothing_is_recorded_without_a_sink():
    with NO_TELEMETRY.span("x"):
        pass
    NO_TELEMETRY.event("x", {"a": 1})
    NO_TELEMETRY.transfer("up", "m", None, raw=0, stored=1)
    NO_TELEMETRY.spent("x", 1)
    assert NO_TELEMETRY.sinks == ()


def test_records_go_to_every_sink_in_order():
    one, other = Memory(), Memory()
    telemetry = Telemetry(one, other, round=3, site="a")
    telemetry.event("started")
    with telemetry.span("work"):
        telemetry.transfer("down", "m", "w", raw=10, stored=4)
    telemetry.spent("train", 2.5)
    assert one.records == other.records
    assert [type(record) for record in one.records] == [Event, Transfer, Span, Span]
    assert {(record.round, record.site) for record in one.records} == {(3, "a")}
    transfer, work, train = one.records[1:]
    assert (transfer.direction, transfer.message, transfer.tensor, transfer.raw, transfer.stored) == (
        "down",
        "m",
        "w",
        10,
        4,
    )
    assert (work.stage, train.stage, train.seconds) == ("work", "train", 2.5)
    assert 0 <= work.seconds < 60
    assert all(record.at > 1e9 for record in one.records)


def test_labels():
    sink = Memory()
    telemetry = Telemetry(sink)
    assert (telemetry.round, telemetry.site) == (None, None)
    labelled = telemetry.labelled(round=0)
    assert (labelled.labelled(site="a").round, labelled.labelled(site="a").site) == (0, "a")
    assert labelled.labelled(round=2).round == 2
    labelled.event("x")
    assert sink.records[0].round == 0


def test_a_span_that_fails_is_recorded_and_the_error_goes_on():
    sink = Memory()
    with pytest.raises(ZeroDivisionError), Telemetry(sink).span("work"):
        raise ZeroDivisionError
    assert [record.stage for record in sink.records] == ["work"]


def test_values_of_an_event_are_a_copy():
    sink, values = Memory(), {"a": 1}
    Telemetry(sink).event("x", values)
    values["a"] = 2
    assert sink.records[0].values == {"a": 1}


def test_json_lines_round_trip(tmp_path):
    path = tmp_path / "run.jsonl"
    with JsonLinesSink(path) as sink:
        for record in RECORDS:
            sink.record(record)
    assert list(read_records(path)) == RECORDS
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["event", "span", "transfer", "transfer", "event"]
    assert lines[4] == {"kind": "event", "at": 4.0, "name": "run_ended"}  # what is not said takes no room
    assert lines[1]["round"] == 0


def test_events_are_written_through(tmp_path):
    path = tmp_path / "run.jsonl"
    with JsonLinesSink(path) as sink:
        sink.record(RECORDS[1])
        sink.record(RECORDS[4])
        assert list(read_records(path)) == [RECORDS[1], RECORDS[4]]


def test_a_file_is_gone_on_with(tmp_path):
    path = tmp_path / "run.jsonl"
    for record in RECORDS[:2]:
        with JsonLinesSink(path) as sink:
            sink.record(record)
    assert list(read_records(path)) == RECORDS[:2]


def test_a_last_line_that_was_cut_off_is_left_out(tmp_path):
    path = tmp_path / "run.jsonl"
    with JsonLinesSink(path) as sink:
        for record in RECORDS:
            sink.record(record)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert list(read_records(path)) == RECORDS[: whole[:length].count(b"\n")]


def test_a_run_that_goes_on_after_a_kill_can_be_read(tmp_path):
    path = tmp_path / "run.jsonl"
    path.write_bytes(b'{"kind":"event","at":1.0,"na')
    with JsonLinesSink(path) as sink:
        sink.record(RECORDS[0])
    assert list(read_records(path)) == RECORDS[:1]


def test_what_is_no_finite_number_becomes_null(tmp_path):
    """JSON has no NaN and no infinity."""
    path = tmp_path / "run.jsonl"
    with JsonLinesSink(path) as sink:
        sink.record(Event(at=1.0, name="loss", values={"nan": math.nan, "inf": math.inf}))
    (record,) = read_records(path)
    assert record.values == {"nan": None, "inf": None}
