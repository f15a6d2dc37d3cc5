"""Runs in few figures: from a summary that is true still, or from the ledger, and never from anything else."""

from __future__ import annotations

import os

import msgspec
import pytest

from fedpost.errors import DecodeError, LimitError
from fedpost.report import write_report
from fedpost.report.grouping import Mean, alike, group_curve, mean_of
from fedpost.report.runs import (
    RunFigures,
    figures_of,
    keep_figures,
    lower_is_better,
    read_run,
    run_folders,
    runs_beside,
)
from fedpost.report.summary import summarize
from fedpost.telemetry import JsonLinesSink, Telemetry, read_records


def write_run(folder, *, name="demo", rounds=3, up=100, update="uq(2)", seed=0, end="finished", kept=True, gain=0.0):
    """A run's folder with a ledger, and the summary that its end left."""
    folder.mkdir(parents=True)
    with JsonLinesSink(folder / "ledger.jsonl") as sink:
        telemetry = Telemetry(sink)
        settings = {"run": folder.name, "name": name, "rounds": rounds, "update": update, "seed": seed}
        telemetry.event("run_started", {**settings, "serialization": "fedwt", "compression": "none"})
        telemetry.transfer("up", "hello", None, raw=0, stored=7)
        for number in range(rounds + 1):
            in_round = telemetry.labelled(round=number)
            if number:
                in_round.event("round_started", {"sites": 1, "attempt": 1})
                at_site = in_round.labelled(site="north")
                at_site.transfer("down", "fit", "w", raw=4000, stored=2000)
                at_site.transfer("up", "result", "w", raw=4000, stored=up)
                at_site.event("result_accepted", {"examples": 5, "loss": 1.0})
            measured = {"accuracy": 0.2 * number + gain, "loss": 2.0 - number / 2, "top5_error": 1.0 - 0.1 * number}
            in_round.event("round_ended", {**measured, "sites": 1, "seconds": 0.5})
        if end:
            telemetry.event("run_ended", {"status": end, "reason": None, "seconds": 2.5})
    if kept:
        keep_figures(summarize(read_records(folder / "ledger.jsonl")), folder)
    return folder


def test_figures_are_the_ledgers(tmp_path):
    run = read_run(write_run(tmp_path / "a", kept=False))
    assert (run.run, run.name, run.status, run.sites, run.seconds) == ("a", "demo", "finished", 1, 2.5)
    assert (run.finished_rounds, run.planned_rounds, run.seconds_per_round) == (3, 3, 0.5)
    assert run.metrics == ("accuracy", "loss", "train_loss", "top5_error")
    assert run.final("accuracy") == pytest.approx(0.6)
    assert run.best("accuracy") == (3, pytest.approx(0.6))
    assert run.best("loss") == (3, 0.5)
    assert run.best("top5_error") == (3, pytest.approx(0.7))
    assert run.final("none such") is run.best("none such") is None
    assert (run.bytes.up, run.bytes.down) == (307, 6000)
    assert run.ratio_down == 2.0
    assert run.ratio_up == pytest.approx(12000 / 307)
    assert run.ratio == pytest.approx(24000 / 6307)


def test_a_curve_starts_with_the_first_round_and_adds_up(tmp_path):
    run = read_run(write_run(tmp_path / "a"))
    assert run.curve("loss") == [(2100, 1.5), (4200, 1.0), (6300, 0.5)]
    assert [sent for sent, _ in run.curve("loss", "up")] == [100, 200, 300]
    assert [sent for sent, _ in run.curve("loss", "down")] == [2000, 4000, 6000]
    assert run.curve("none such") == []


def test_the_pipeline_names_what_is_not_usual(tmp_path):
    run = read_run(write_run(tmp_path / "a"))
    assert run.pipeline == "uq(2)"
    said = {**run.settings, "serialization": "msgpack", "compression": "zstd(3)"}
    assert msgspec.structs.replace(run, settings=said).pipeline == "uq(2) | msgpack | zstd(3)"
    assert msgspec.structs.replace(run, settings={}).pipeline == "unknown"


def test_the_summary_is_what_the_ledger_says(tmp_path):
    kept, fresh = write_run(tmp_path / "1" / "a"), write_run(tmp_path / "2" / "a", kept=False)
    once, again = (msgspec.structs.replace(read_run(path), started=0.0, ledger=0) for path in (kept, fresh))
    assert once == again


def test_a_summary_counts_while_the_ledger_is_as_it_was_or_gone(tmp_path):
    folder = write_run(tmp_path / "a")
    kept = msgspec.json.decode((folder / "summary.json").read_bytes(), type=RunFigures)
    (folder / "summary.json").write_bytes(msgspec.json.encode(msgspec.structs.replace(kept, name="kept")))
    assert read_run(folder).name == "kept"
    with JsonLinesSink(folder / "ledger.jsonl") as sink:  # the run goes on
        Telemetry(sink, round=4).event("round_ended", {"accuracy": 0.9})
    assert (read_run(folder).name, read_run(folder).final("accuracy")) == ("demo", 0.9)
    (folder / "ledger.jsonl").unlink()
    assert read_run(folder).name == "kept"


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[" * 100_000, b"\xff\xfe", b'{"version": 1, "run": 3}'], ids=lambda content: content[:9]
)
def test_a_broken_summary_is_none(tmp_path, content):
    folder = write_run(tmp_path / "a")
    (folder / "summary.json").write_bytes(content)
    assert read_run(folder).finished_rounds == 3


def test_a_summary_of_another_version_is_none(tmp_path):
    folder = write_run(tmp_path / "a")
    text = (folder / "summary.json").read_text()
    (folder / "summary.json").write_text(text.replace('"version": 1', '"version": 2').replace('"demo"', '"other"'))
    assert read_run(folder).name == "demo"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "nothing was recorded yet"),
        (b'{"kind": "ev', "nothing was recorded yet"),
        (b"hello\n", "not a ledger"),
        (b"\xff\xfe\x00\n", "not a ledger"),
        (b"[" * 100_000 + b"\n", "not a ledger"),
        (b'{"kind": "elephant"}\n', "not a ledger"),
    ],
    ids=["empty", "cut", "text", "binary", "deep", "other"],
)
def test_what_is_no_ledger_is_told(tmp_path, content, says):
    (tmp_path / "ledger.jsonl").write_bytes(content)
    with pytest.raises(DecodeError, match=says):
        read_run(tmp_path)


IMPOSSIBLE = [
    (lambda run: run["bytes"].update(down=-5), "-5 bytes down"),
    (lambda run: run["bytes"].update(raw_up=-(1 << 40)), "bytes raw up"),
    (lambda run: run["rounds"][2]["bytes"].update(up=-1), "round 2: -1 bytes up"),
    (lambda run: run["rounds"][1].update(loss=1.7e308), r"round 1: loss is 1.7e\+308"),
    (lambda run: run["rounds"][3]["metrics"].update(top5_error=-1e200), "round 3: top5_error is -1e\\+200"),
    (lambda run: run["rounds"][1].update(seconds=-1.0), "round 1: -1 s"),
    (lambda run: run.update(seconds=1e300), "a time that cannot be"),
    (lambda run: run.update(started=-1.0), "a time that cannot be"),
    (lambda run: run.update(sites=-3), "-3 sites"),
]


@pytest.mark.parametrize(("spoil", "says"), IMPOSSIBLE, ids=[says for _, says in IMPOSSIBLE])
def test_figures_that_cannot_be_are_told(tmp_path, spoil, says):
    folder = write_run(tmp_path / "a")
    said = msgspec.json.decode((folder / "summary.json").read_bytes())
    spoil(said)
    (folder / "summary.json").write_bytes(msgspec.json.encode(said))
    with pytest.raises(DecodeError, match=says) as caught:
        read_run(folder)
    assert caught.value.where == str(folder / "summary.json")
    own = write_run(tmp_path / "own")
    assert beside(own) == ((), 1)


def test_a_ledger_with_figures_that_cannot_be_is_told(tmp_path):
    with pytest.raises(DecodeError, match="-4 bytes up"):
        read_run(write_run(tmp_path / "a", up=-11, rounds=1, kept=False))
    with pytest.raises(DecodeError, match="accuracy is 1e"):
        read_run(write_run(tmp_path / "b", gain=1e308, kept=False))
    assert read_run(write_run(tmp_path / "c", gain=1e99)).final("accuracy") == 1e99


@pytest.mark.parametrize("gain", [1e308, -1e308, 1e99])
def test_the_page_of_a_run_with_them_is_written_all_the_same(tmp_path, gain):
    own = write_run(tmp_path / "own", gain=gain, kept=False)
    write_run(tmp_path / "other")
    write_report(own / "ledger.jsonl", tmp_path / "page.html", beside=own)
    assert f"{gain:.3e}" in (tmp_path / "page.html").read_text()


def test_what_is_no_run_is_told(tmp_path):
    with pytest.raises(DecodeError, match="no ledger"):
        read_run(tmp_path)
    folder = write_run(tmp_path / "a", kept=False)
    with pytest.raises(LimitError):
        read_run(folder, most=100)
    assert read_run(folder / "ledger.jsonl") == read_run(folder)


def test_folders_of_runs(tmp_path):
    one, other = write_run(tmp_path / "runs/b"), write_run(tmp_path / "runs/a", kept=False)
    (tmp_path / "runs/empty").mkdir()
    (tmp_path / "runs/text").touch()
    assert run_folders(tmp_path / "runs") == [other, one]
    assert run_folders(one) == [one]
    assert run_folders(tmp_path / "runs/empty") == [tmp_path / "runs/empty"]
    assert run_folders(tmp_path / "runs/text") == [tmp_path / "runs/text"]


def beside(folder):
    return runs_beside(summarize(read_records(folder / "ledger.jsonl")), folder)


def test_runs_beside_are_of_the_same_name(tmp_path):
    own = write_run(tmp_path / "own")
    write_run(tmp_path / "same")
    write_run(tmp_path / "killed", end=None, kept=False)
    write_run(tmp_path / "other", name="other")
    write_run(tmp_path / "unkept", name="other", kept=False)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    found = beside(own)
    assert sorted(run.run for run in found.figures) == ["killed", "same"]
    assert found.left_out == 0
    assert next(run for run in found.figures if run.run == "killed").status == "unfinished"


def test_runs_beside_are_the_twenty_newest(tmp_path):
    own = write_run(tmp_path / "own", rounds=1)
    for number in range(22):
        folder = write_run(tmp_path / f"run-{number:02d}", rounds=1)
        for file in folder.iterdir():
            os.utime(file, (1000 + number, 1000 + number))
    found = sorted(run.run for run in beside(own).figures)
    assert found == [f"run-{number:02d}" for number in range(2, 22)]


def test_runs_beside_that_are_too_large_or_broken_are_left_out(tmp_path, monkeypatch):
    own = write_run(tmp_path / "own")
    kept = write_run(tmp_path / "kept")
    large = write_run(tmp_path / "large", kept=False)
    broken = write_run(tmp_path / "broken", kept=False)
    with (broken / "ledger.jsonl").open("ab") as ledger:
        ledger.write(b"nonsense\n")
    monkeypatch.setattr("fedpost.report.runs._LEDGERS", (large / "ledger.jsonl").stat().st_size + 100)
    assert ({run.run for run in beside(own).figures}, beside(own).left_out) == ({"kept", "large"}, 1)
    monkeypatch.setattr("fedpost.report.runs._LEDGERS", 100)
    assert ({run.run for run in beside(own).figures}, beside(own).left_out) == ({kept.name}, 2)


@pytest.mark.parametrize("metric", ["loss", "train_loss", "val-mse", "top5_error", "Perplexity", "mae"])
def test_lower_is_better(metric):
    assert lower_is_better(metric)


@pytest.mark.parametrize("metric", ["accuracy", "f1", "auc", "maestro", "terrain"])
def test_higher_is_better(metric):
    assert not lower_is_better(metric)


def test_means_have_students_interval():
    assert mean_of([]) is mean_of([None]) is None
    assert mean_of([3, None]) == Mean(3.0, None, 1)
    two = mean_of([1.0, 3.0])
    assert (two.mean, two.count) == (2.0, 2)
    assert two.interval == pytest.approx(12.706)  # t for one degree of freedom times 2**0.5 / 2**0.5
    assert mean_of([1.0, 2.0, 3.0]).interval == pytest.approx(4.303 / 3**0.5)
    assert mean_of([5.0] * 50).interval == 0.0
    many = [float(value % 2) for value in range(100)]
    assert mean_of(many).interval == pytest.approx(1.96 * (25 / 99) ** 0.5 / 10, rel=1e-3)


CONFIG = "name: demo\napp: app.py:app\nsites: 1\nrounds: 3\noptions: {rate: RATE}\n"


def test_runs_alike_differ_in_their_seed_alone(tmp_path):
    runs = []
    for name, how, rate, said in [
        ("a", {"seed": 0}, "0.1", ""),
        ("b", {"seed": 1, "gain": 0.1}, "0.1", "# --set seed=1\n# --set output=x\n"),
        ("c", {"seed": 0}, "0.2", ""),
        ("d", {"seed": 2}, "0.3", "# --set options.rate=0.1\n"),
        ("e", {"seed": 0, "update": "dense"}, "0.1", ""),
        ("f", {"seed": 0}, "[", ""),
    ]:
        folder = write_run(tmp_path / name, **how)
        (folder / "run.yaml").write_text(said + CONFIG.replace("RATE", rate))
        runs.append((read_run(folder), folder))
    groups = alike(runs)
    assert [[run.run for run in group.runs] for group in groups] == [["a", "b", "d"], ["c"], ["e"], ["f"]]
    first = groups[0]
    assert first.mean(lambda run: run.final("accuracy")).mean == pytest.approx(0.6 + 0.1 / 3)
    curve = group_curve(first, "accuracy")
    assert [sent for sent, _ in curve] == [2100, 4200, 6300]
    assert curve[-1][1] == first.mean(lambda run: run.final("accuracy"))
    assert first.status == "finished"


def test_a_group_tells_of_every_end(tmp_path):
    folders = [write_run(tmp_path / name, seed=0, end=end) for name, end in (("a", "failed"), ("b", None), ("c", None))]
    (group,) = alike([(read_run(folder), folder) for folder in folders])
    assert group.status == "2 unfinished, 1 failed"


def test_figures_of_a_summary(tmp_path):
    folder = write_run(tmp_path / "a")
    assert figures_of(summarize(read_records(folder / "ledger.jsonl"))).ledger is None


def test_the_page_shows_the_others(tmp_path):
    own = write_run(tmp_path / "own")
    write_run(tmp_path / "dense", update="dense", up=4000)
    write_run(tmp_path / "failed", end="failed", update="<b>")
    write_report(own / "ledger.jsonl", tmp_path / "page.html", beside=own)
    text = (tmp_path / "page.html").read_text()
    assert "among 2 others" in text
    assert "<b>" not in text
    assert text.count(">this run") == text.count(">uq(2), this run<") == 1
    assert '<span class="flag">failed</span>' in text
    write_report(own / "ledger.jsonl", tmp_path / "alone.html")
    assert "among 0 others" in (tmp_path / "alone.html").read_text()
