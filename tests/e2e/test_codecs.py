"""Update codecs in real federations: eight processes learn as well from a tenth of the bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import fedpost
from fedpost.codecs import Base
from fedpost.codecs.auto import LADDER
from fedpost.pipeline import Pipeline

ROOT = Path(__file__).parents[2]
RAW = 4 * (64 * 64 + 64 * 10 + 64 + 10)


def digits(workspace, *settings):
    """The digits example with other settings, run to its end."""
    for name in ("app.py", "run.yaml"):
        (workspace.folder / name).write_bytes((ROOT / "examples/digits" / name).read_bytes())
    workspace.start("run", "run.yaml", *(word for one in settings for word in ("--set", one))).ok(280)
    return workspace.runs()[-1]


def up(run):
    """Bytes of a result, on average: of the tensors, and of all of it."""
    rows = run.transfers(direction="up", message="weight_update")
    results = len({(row["round"], row["site"]) for row in rows})
    tensors = [row for row in rows if "tensor" in row]
    assert sum(row["raw"] for row in tensors) == results * RAW, "raw bytes are those of the model"
    assert results == 20 * 8
    return sum(row["stored"] for row in tensors) / results, sum(row["stored"] for row in rows) / results


def accuracy(run):
    """The mean of the last five rounds."""
    return float(np.mean([event["values"]["accuracy"] for event in run.events("round_ended")[-5:]]))


def test_eight_sites_with_uq_learn_as_well_from_a_tenth_of_the_bytes(workspace):
    dense = digits(workspace, "update=dense")
    lossy = digits(workspace, "update={FitRes: uq(2)}")
    assert abs(accuracy(dense) - accuracy(lossy)) < 0.02
    assert accuracy(lossy) > 0.94
    (dense_tensors, dense_all), (tensors, everything) = up(dense), up(lossy)
    assert dense_tensors == RAW < dense_all
    assert tensors * 20 < dense_tensors
    assert everything * 10 < dense_all
    assert not lossy.events("result_refused")
    assert not lossy.events("site_failed")
    for log in (lossy.folder / "logs").iterdir():
        assert "Traceback" not in log.read_text()
    page = (lossy.folder / "report.html").read_text()
    assert "uq(2)" in (lossy.folder / "run.yaml").read_text() + page
    model = fedpost.load_tensors(lossy.folder / "model.fedwt")
    assert {array.dtype.name for array in model.values()} == {"float32"}


@pytest.mark.parametrize("spec", ["eden(2)", "stc(0.04)", "int8"])
def test_other_codecs_learn_too(workspace, spec):
    run = digits(workspace, f"update={{FitRes: {spec}}}", "compression={FitRes: zstd}")
    assert run.status == "finished"
    assert accuracy(run) > 0.9
    assert up(run)[0] * 3 < RAW


def test_sites_that_fail_or_die_within_a_run_with_uq(workspace):
    sites = ["good", "fine", "nan", "raises", "exits"]
    workspace.configure("faulty", sites=sites, rounds=3, update={"FitRes": "uq(2)"})
    workspace.start("run", "run.yaml").ok()
    (run,) = workspace.runs()
    assert run.sites() == [0, 2, 2, 2]
    assert all("tensor 'weight'" in reason for reason in run.reasons("site_failed", site="nan"))
    assert len(run.reasons("site_failed", site="nan")) == 3


def test_inspecting_and_converting_an_update_without_its_base(workspace):
    chance = np.random.default_rng(0)
    old = {"weight": chance.normal(size=(300, 200)).astype(np.float32), "bias": np.zeros(300, np.float32)}
    new = {name: array + chance.normal(size=array.shape).astype(np.float32) for name, array in old.items()}
    frame = Pipeline.parse("uq(2) | fedwt | none").encode(new, base=Base.of(old))
    (workspace.folder / "update.frame").write_bytes(bytes(frame))
    shown = workspace.start("inspect", "update.frame").ok()
    assert "uq(2) | fedwt | none" in shown.out
    assert "weight" in shown.out
    workspace.start("inspect", "update.frame", "--json").ok()
    converted = workspace.start("convert", "update.frame", "update.safetensors")
    assert converted.wait() != 0
    assert "base" in converted.err
    assert "Traceback" not in converted.err


def test_a_budget_is_kept_and_what_was_picked_is_told(workspace):
    run = digits(workspace, "update=auto(budget=1200B/round)", "rounds=4")
    picks = [event["values"] for event in run.events("step_picked")]
    assert len(picks) == 4 * 8 + 4, "each result, and each version but the first"
    assert all(pick["step"] in LADDER and pick["over"] is False for pick in picks)
    assert all(row["stored"] <= 1200 for row in run.transfers(direction="up") if "tensor" in row)
    assert "steps picked" in (run.folder / "report.html").read_text()


# ── both ways ────────────────────────────────────────────────────────────────────────────────────────────────────────


def down(run, **labels):
    """Bytes of the model that were sent to sites."""
    rows = [row for row in run.transfers(direction="down", **labels) if "tensor" in row]
    return sum(row["stored"] for row in rows)


def test_eight_sites_with_uq_both_ways_learn_as_well_from_a_tenth_of_the_bytes_down(workspace):
    dense = digits(workspace, "update=dense")
    lossy = digits(workspace, "update=uq(2)")
    assert abs(accuracy(dense) - accuracy(lossy)) < 0.03
    assert up(lossy)[0] * 20 < RAW
    assert down(dense) == 20 * 8 * RAW
    first = down(lossy, round=1)
    assert first < 8 * RAW, "snapshots"
    assert (down(lossy) - first) * 10 < 19 * 8 * RAW
    everything = sum(row["stored"] for row in lossy.transfers(direction="down") if row.get("round", 0) > 1)
    assert everything * 8 < 19 * 8 * RAW, "with headers and all"
    assert not lossy.events("model_resent")
    assert not lossy.events("result_refused")
    assert not lossy.events("message_refused")


@pytest.fixture
def apart(workspace, tmp_path):
    """A server and its sites, each a process of its own, that meet in a folder."""
    url = (tmp_path / "shared").as_uri()
    (tmp_path / "shared").mkdir()

    def start(command, *arguments):
        return workspace.start(command, "run.yaml", "--transport", url, *arguments)

    workspace.server = lambda: start("server")
    workspace.client = lambda site, *more: start("client", "--site", site, "--model", f"{site}.fedwt", *more)
    return workspace


def same_model(space, run, *sites):
    """What sites were given at the end is the server's model, to the bit."""
    here = fedpost.load_tensors(run.folder / "model.fedwt")
    for site in sites:
        there = fedpost.load_tensors(space.folder / f"{site}.fedwt")
        assert {name: array.tobytes() for name, array in there.items()} == {n: a.tobytes() for n, a in here.items()}


def test_a_site_that_comes_late_gets_a_snapshot_and_ends_with_the_same_bits(apart):
    apart.configure(
        "steering",
        sites=["early", "late"],
        rounds=4,
        update="uq(2)",
        strategy={"min_available_clients": 1},
        options={"hold": {"early": [2]}},
    )
    commands = [apart.server(), apart.client("early")]
    apart.wait_mark("early.round-2")
    commands.append(apart.client("late"))
    run = apart.current()
    apart.wait_event(run, "site_joined", site="late")
    apart.open_gate()
    for command in commands:
        command.ok()
    assert run.sites() == [0, 1, 1, 2, 2]
    raw = 300 * 100 * 4
    assert down(run, site="late", round=3) > raw / 2
    assert 0 < down(run, site="late", round=4) < raw / 10
    assert 0 < down(run, site="early", round=3) < raw / 10
    same_model(apart, run, "early", "late")


@pytest.mark.parametrize("keeps", [True, False])
def test_a_site_that_is_killed_and_started_again_goes_on_where_it_was_if_it_keeps_its_state(apart, until, keeps):
    apart.configure(
        "steering",
        sites=["a", "b"],
        rounds=4,
        update="uq(2)",
        strategy={"min_fit_clients": 1, "min_available_clients": 2},
        options={"hold": {"b": [3], "a": [3]}},
    )
    state = ["--state", "state-of-b"] if keeps else []
    commands = [apart.server(), apart.client("a")]
    dying = apart.client("b", *state)
    apart.wait_mark("b.round-3")
    apart.wait_mark("a.round-3")
    dying.kill()
    run = apart.current()
    again = apart.client("b", *state)
    until(lambda: len(run.events("site_joined", site="b")) == 2, "the second start's registration")
    if keeps:
        second = apart.client("b", *state)
        assert second.wait() == 2
        assert "another process uses this folder" in second.err
    apart.open_gate()
    for command in [*commands, again]:
        command.ok()
    assert run.sites() == [0, 2, 2, 1, 2]
    raw = 300 * 100 * 4
    assert (down(run, site="b", round=4) < raw / 10) is keeps
    assert len(run.events("model_resent", site="b")) == (0 if keeps else 1)
    same_model(apart, run, "a", "b")
    if keeps:
        assert sorted(path.name for path in (apart.folder / "state-of-b").iterdir()) == [
            "b.site",
            "lock",
            "model.version",
        ]
