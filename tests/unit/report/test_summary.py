"""A ledger is added up as one would by hand."""

from __future__ import annotations

import pytest

from fedpost.report import RunSummary, summarize
from fedpost.report.summary import MAX_PROBLEMS
from fedpost.telemetry import JsonLinesSink, Record, Span, Telemetry, read_records


class Kept(list[Record]):
    """A sink that keeps what it gets."""

    def record(self, record: Record) -> None:
        self.append(record)


def small_run(telemetry: Telemetry) -> None:
    """Two sites, two rounds; in round 2 site b fails once, is refused once, and the round is tried again."""
    telemetry.event("run_started", {"run": "r1", "name": "small", "rounds": 2, "sites": 2, "model_bytes": 400})
    for site in "ab":
        telemetry.labelled(site=site).event("site_joined")
    telemetry.labelled(round=0).event("round_ended", {"accuracy": 0.1, "loss": 2.5, "sites": 0, "seconds": 0.5})
    for number in (1, 2):
        in_round = telemetry.labelled(round=number)
        in_round.event("round_started", {"sites": 2, "attempt": 1})
        in_round.spent("aggregate", 0.25)
        for site in "ab":
            at_site = in_round.labelled(site=site)
            at_site.transfer("down", "fit", "w", raw=400, stored=360)
            at_site.transfer("down", "fit", None, raw=0, stored=64)
            at_site.spent("train", 1.0 if site == "a" else 3.0)
            at_site.spent("receive", 0.125)
            at_site.transfer("up", "result", "w", raw=400, stored=20)
        in_round.labelled(site="a").event("result_accepted", {"examples": 30, "loss": 1.0})
        if number == 1:
            in_round.labelled(site="b").event("result_accepted", {"examples": 10, "loss": 2.0})
        else:
            in_round.labelled(site="b").event("site_failed", {"reason": "out of memory"})
            in_round.event("round_retried", {"reason": "1 of 2"})
            in_round.event("round_started", {"sites": 2, "attempt": 2})
            in_round.labelled(site="a").event("result_accepted", {"examples": 30, "loss": 0.5})
            in_round.labelled(site="b").event("result_refused", {"reason": "not finite"})
        in_round.event("round_ended", {"accuracy": 0.3 * number, "f1": 0.2, "seconds": 2.0})
    telemetry.labelled(site="b").event("site_lost", {"reason": "silent"})
    telemetry.event("run_ended", {"status": "finished", "seconds": 4.5})


@pytest.fixture
def summary(tmp_path) -> RunSummary:
    with JsonLinesSink(tmp_path / "l.jsonl") as sink:
        small_run(Telemetry(sink))
    return summarize(read_records(tmp_path / "l.jsonl"))


def test_the_run(summary):
    assert (summary.run, summary.name, summary.status, summary.seconds) == ("r1", "small", "finished", 4.5)
    assert (summary.finished_rounds, summary.planned_rounds, summary.reason) == (2, 2, None)
    assert summary.settings["model_bytes"] == 400


def test_bytes_are_the_sums_of_the_transfers(summary):
    total = summary.bytes
    assert (total.down, total.up) == (4 * (360 + 64), 4 * 20)
    assert (total.raw_down, total.raw_up) == (4 * 400, 4 * 400)
    assert summary.ratio == pytest.approx(3200 / (1696 + 80))
    for rows in (summary.rounds, summary.sites, summary.tensors):
        assert sum(row.bytes.wire for row in rows) == total.wire
        assert sum(row.bytes.raw for row in rows) == total.raw
    assert [(t.name, t.count, t.bytes.down, t.bytes.up) for t in summary.tensors] == [
        ("w", 8, 1440, 80),
        (None, 4, 256, 0),
    ]


def test_rounds(summary):
    zero, one, two = summary.rounds
    assert (zero.accuracy, zero.loss, zero.done, zero.bytes.wire) == (0.1, 2.5, 0, 0)
    assert (one.asked, one.done, one.refused, one.failed, one.attempts) == (2, 2, 0, 0, 1)
    assert one.train_loss == pytest.approx((30 * 1.0 + 10 * 2.0) / 40)
    assert (two.asked, two.done, two.refused, two.failed, two.attempts) == (2, 1, 1, 1, 2)
    assert two.train_loss == pytest.approx(0.5)
    assert two.metrics == {"f1": 0.2}
    assert two.loss is None


def test_sites_stages_and_problems(summary):
    a, b = summary.sites
    assert (a.accepted, a.refused, a.failed, a.examples, a.lost) == (3, 0, 0, 90, False)
    assert (b.accepted, b.refused, b.failed, b.examples, b.lost) == (1, 1, 1, 10, True)
    assert a.seconds == {"train": 2.0}
    # The server's own stage stays the server's, whichever site it was for.
    assert {s.name: (s.seconds, s.count, s.longest) for s in summary.server_stages} == {
        "aggregate": (0.5, 2, 0.25),
        "receive": (0.5, 4, 0.125),
    }
    assert [(s.name, s.seconds, s.longest) for s in summary.site_stages] == [("train", 8.0, 3.0)]
    assert [(p.kind, p.round, p.site, p.reason) for p in summary.problems] == [
        ("failed", 2, "b", "out of memory"),
        ("retried", 2, None, "1 of 2"),
        ("refused", 2, "b", "not finite"),
        ("lost", None, "b", "silent"),
    ]


def test_a_ledger_of_two_runs_tells_of_the_last_and_a_resumed_run_goes_on():
    kept = Kept()
    small_run(Telemetry(kept))
    telemetry = Telemetry(kept)
    telemetry.event("run_started", {"run": "r1", "rounds": 3})
    resumed = summarize(kept)
    assert (resumed.status, resumed.finished_rounds, len(resumed.sites)) == ("unfinished", 2, 2)
    telemetry.event("run_started", {"run": "r2"})
    other = summarize(kept)
    assert (other.run, other.rounds, other.sites, other.bytes.wire, other.problem_count) == ("r2", (), (), 0, 0)


def test_nothing_recorded():
    summary = summarize([])
    assert (summary.status, summary.seconds, summary.started, summary.ratio) == ("unfinished", 0.0, None, None)


def test_wall_time_without_an_end_is_up_to_the_last_record():
    assert summarize([Span(at=10.0, stage="send", seconds=1), Span(at=12.5, stage="send", seconds=1)]).seconds == 2.5


def test_numbers_that_are_none_are_left_out():
    kept = Kept()
    values = {"accuracy": None, "loss": float("nan"), "ok": True, "note": "x", "seconds": None}
    Telemetry(kept, round=1).event("round_ended", values)
    (row,) = summarize(kept).rounds
    assert (row.accuracy, row.loss, row.seconds, row.metrics, row.ended) == (None, None, None, {}, True)


def test_problems_are_all_counted_and_the_latest_kept():
    kept = Kept()
    for number in range(MAX_PROBLEMS + 7):
        Telemetry(kept, round=1, site="a").event("result_refused", {"reason": f"{number}"})
    summary = summarize(kept)
    assert (summary.problem_count, len(summary.problems), summary.problems[0].reason) == (507, 500, "7")
    assert summary.sites[0].refused == summary.rounds[0].refused == 507


def test_steps_that_were_picked_are_counted_by_direction():
    kept = Kept()
    telemetry = Telemetry(kept)
    telemetry.event("run_started", {"run": "r1"})
    assert summarize(kept).picks.told == ""
    for site, number, step, over in (("a", 1, 2.0, False), ("b", 1, 2.83, True), ("a", 2, 2.0, False)):
        telemetry.labelled(round=number, site=site).event("step_picked", {"step": step, "bytes": 10, "over": over})
    telemetry.labelled(round=1).event("step_picked", {"step": 16.0, "bytes": 10, "over": False})
    telemetry.labelled(round=1).event("step_picked", {"step": None})
    assert summarize(kept).picks.told == "down 16; up 2 to 2.83, mostly 2; 1 over the budget"
