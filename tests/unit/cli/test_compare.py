"""``fedpost compare`` as a user types it, on small runs that were really run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import save_file

from fedpost.cli import main
from fedpost.telemetry import JsonLinesSink, Telemetry

APP = """\
import numpy as np
import fedpost

class Nearer(fedpost.NumPyClient):
    def fit(self, parameters, config):
        return [parameters[0] + (1 - parameters[0]) / 2], 10, {}

def app(sites, seed):
    start = np.random.default_rng(seed).normal(size=(64, 64)).astype(np.float32)
    def evaluate(server_round, arrays, config):
        away = float(np.abs(arrays[0] - 1).mean())
        return away, {"accuracy": 1 / (1 + away)}
    return fedpost.App(client=lambda site: Nearer(), initialize=lambda: {"w": start}, evaluate=evaluate)
"""
SETTINGS = [("dense", 0), ("uq(2)", 0), ("uq(2)", 1), ("uq(2)", 2)]


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Four runs of two rounds: dense, and ``uq(2)`` with three seeds."""
    folder = tmp_path_factory.mktemp("ran")
    (folder / "app.py").write_text(APP)
    (folder / "run.yaml").write_text("name: near\napp: app.py:app\nsites: 1\nrounds: 2\n")
    for codec, seed in SETTINGS:
        said = ["--set", f"update={{FitRes: {codec}}}", "--set", f"seed={seed}"]
        command = [sys.executable, "-m", "fedpost", "run", "run.yaml", "--json", *said]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=280, check=False)
        assert done.returncode == 0, done.stderr
    return folder / "runs"


@pytest.fixture
def runs(ran, tmp_path):
    return shutil.copytree(ran, tmp_path / "runs")


def found(fedpost, *arguments):
    result = fedpost("compare", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_run_leaves_its_figures_and_is_plotted_among_the_others(runs):
    folders = sorted(runs.iterdir(), key=lambda folder: (folder / "ledger.jsonl").stat().st_mtime)
    assert all((folder / "summary.json").exists() for folder in folders)
    assert (folders[0] / "report.html").read_text().count('<th scope="row" class="word">this run') == 1
    last = (folders[-1] / "report.html").read_text()
    assert "among 3 others" in last
    assert "FitRes: dense" in last


def test_the_table(fedpost, runs):
    result = fedpost("compare", *sorted(runs.iterdir()))
    assert result.exit_code == 0
    head, *rows = result.stdout.splitlines()
    assert head.split()[:3] == ["run", "update", "status"]
    assert "final accuracy" in head
    assert len(rows) == 4
    assert all("finished" in row and row.startswith("near-") for row in rows)
    assert "FitRes: dense" in rows[0]


def test_the_figures_are_the_ledgers(fedpost, runs):
    dense, uq = found(fedpost, runs)[:2]
    assert (dense["pipeline"], dense["status"], dense["rounds"], dense["sites"]) == ("FitRes: dense", "finished", 2, 1)
    assert dense["bytes"]["raw_up"] == 2 * 64 * 64 * 4
    assert dense["ratio_up"] < 1.01
    assert uq["ratio_up"] > 8
    assert dense["final"] == dense["best"] == dense["curve"][-1][1]
    assert dense["best_round"] == 2
    assert [len(run["curve"]) for run in (dense, uq)] == [2, 2]
    assert uq["curve"][-1][0] < dense["curve"][-1][0]
    assert dense["seconds"] > 2 * dense["seconds_per_round"] > 0


def test_metrics(fedpost, runs):
    loss = found(fedpost, runs, "--metric", "loss")[0]
    assert (loss["metric"], loss["final"]) == ("loss", loss["best"])
    assert loss["curve"][0][1] > loss["curve"][1][1]
    result = fedpost("compare", runs, "--metric", "f1")
    assert result.exit_code == 2
    assert "no run has the metric 'f1'. They have: accuracy, loss" in result.stderr


@pytest.mark.parametrize(
    ("sort", "key", "sign"),
    [
        ("up", lambda run: run["up"], 1),
        ("down", lambda run: run["down"], 1),
        ("time", lambda run: run["seconds"], 1),
        ("final", lambda run: run["final"], -1),
        ("best", lambda run: run["best"], -1),
    ],
)
def test_sorting_by_numbers(fedpost, runs, sort, key, sign):
    values = [sign * key(run) for run in found(fedpost, runs, "--sort", sort)]
    assert values == sorted(values)


def test_sorting_by_words(fedpost, runs):
    assert found(fedpost, runs, "--sort", "update")[0]["pipeline"] == "FitRes: dense"
    names = [run["run"] for run in found(fedpost, runs, "--sort", "run")]
    assert names == sorted(names)
    least = [run["final"] for run in found(fedpost, runs, "--sort", "final", "--metric", "loss")]
    assert least == sorted(least)


def test_groups(fedpost, runs):
    dense, uq = found(fedpost, runs, "--group")
    assert (len(dense["runs"]), len(uq["runs"])) == (1, 3)
    assert dense["final"]["interval"] is None
    assert uq["final"]["interval"] > 0
    assert uq["final"]["count"] == 3
    assert uq["curve"][-1][1:] == [uq["final"]["mean"], uq["final"]["interval"]]
    table = fedpost("compare", runs, "--group").stdout
    assert "near, 3 runs" in table
    assert " ± " in table


def test_what_cannot_be_read_has_a_row(fedpost, runs, tmp_path):
    (runs / "empty").mkdir()
    (runs / "nothing").mkdir()
    (runs / "nothing/ledger.jsonl").touch()
    (runs / "broken").mkdir()
    (runs / "broken/ledger.jsonl").write_bytes(b"\x1b[2Jhello\n")
    (runs / "text").write_text("hello\n")
    (runs / "goes-on").mkdir()
    with JsonLinesSink(runs / "goes-on/ledger.jsonl") as sink:
        Telemetry(sink).event("run_started", {"run": "goes-on", "name": "near", "rounds": 9})
        Telemetry(sink, round=1).event("round_ended", {"accuracy": 0.25, "seconds": 1.0})
    result = fedpost("compare", *sorted(runs.iterdir()))
    assert result.exit_code == 0
    rows = {line.split()[0]: line for line in result.stdout.splitlines()}
    for name, says in [
        ("empty", "no ledger"),
        ("nothing", "nothing was recorded yet"),
        ("broken", "not a ledger"),
        ("text", "not a ledger"),
        ("goes-on", "unfinished, last record"),
    ]:
        assert says in rows[name], name
    assert "1/9" in rows["goes-on"]
    assert "0.2500" in rows["goes-on"]
    assert "\x1b" not in result.stdout
    problems = {run["run"]: run.get("problem") for run in found(fedpost, *sorted(runs.iterdir()))}
    assert problems["empty"] == "no ledger"
    assert problems["goes-on"] is None


@pytest.mark.parametrize("how", [[], ["--group"], ["--plot", "plot.svg"], ["--group", "--plot", "plot.png"]])
def test_figures_that_cannot_be_have_a_row(fedpost, runs, tmp_path, monkeypatch, how):
    monkeypatch.chdir(tmp_path)
    spoilt = sorted(runs.iterdir())[:2]
    for folder, old, new in zip(spoilt, ('"loss": ', '"down": '), ("1.7e308", "-5"), strict=True):
        summary = folder / "summary.json"
        summary.write_text(re.sub(f"{old}[\\d.]+", f"{old}{new}", summary.read_text()))
    result = fedpost("compare", runs, "--metric", "loss", *how)
    assert result.exit_code == 0, result.output
    rows = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert "loss is 1.7e+308, which cannot be averaged or drawn" in rows[spoilt[0].name]
    assert "-5 bytes down" in rows[spoilt[1].name]
    told = found(fedpost, runs, "--metric", "loss", *how)
    assert sum("problem" in one for one in told) == 2
    assert len(told) > 2


def test_metrics_as_great_as_they_may_be_are_averaged_and_drawn(fedpost, runs, tmp_path):
    for folder in runs.iterdir():
        summary = folder / "summary.json"
        summary.write_text(re.sub(r'"loss": [\d.]+', f'"loss": 9.{len(folder.name)}e99', summary.read_text(), count=2))
    for group in ([], ["--group"]):
        result = fedpost("compare", runs, "--metric", "loss", "--plot", tmp_path / "plot.svg", *group)
        assert result.exit_code == 0, result.output
        assert "problem" not in json.dumps(found(fedpost, runs, "--metric", "loss", *group))


def test_nothing_to_compare_is_an_exit_code(fedpost, tmp_path):
    (tmp_path / "empty").mkdir()
    result = fedpost("compare", tmp_path / "empty")
    assert result.exit_code == 1
    assert "no ledger" in result.stdout
    assert fedpost("compare", tmp_path / "none").exit_code == 2
    assert fedpost("compare").exit_code == 2


def test_what_the_system_refuses_to_read_has_a_row(fedpost, runs):
    (runs / "folder/ledger.jsonl").mkdir(parents=True)
    result = fedpost("compare", runs)
    assert result.exit_code == 0
    assert "Is a directory" in result.stdout


def test_a_run_that_is_named_twice_is_one(fedpost, runs):
    assert len(found(fedpost, runs, *sorted(runs.iterdir()))) == 4


def test_what_was_killed_is_read_from_its_ledger(fedpost, runs):
    before = found(fedpost, runs)
    for folder in runs.iterdir():
        (folder / "summary.json").unlink()
    assert found(fedpost, runs) == before


@pytest.mark.parametrize("group", [[], ["--group"]], ids=["runs", "groups"])
@pytest.mark.parametrize("kind", ["svg", "png", "html"])
def test_plots(fedpost, runs, tmp_path, kind, group):
    path = tmp_path / f"plot.{kind}"
    result = fedpost("compare", runs, "--plot", path, "--bytes", "up", *group)
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith(f"{path}\n")
    content = path.read_bytes()
    if kind == "png":
        assert content.startswith(b"\x89PNG")
        return
    text = content.decode()
    assert "FitRes: dense" in text
    assert "Sent up so far" in text
    assert "#0102" not in text
    if kind == "svg":
        assert ET.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314 - ours
        assert "prefers-color-scheme: dark" in text
        assert "var(" not in text
    else:
        assert "default-src 'none'" in text
        assert ("near, 3 runs" if group else "near-") in text
    again = tmp_path / f"again.{kind}"
    fedpost("compare", runs, "--plot", again, "--bytes", "up", *group)
    assert again.read_bytes() == content


def test_plots_that_cannot_be(fedpost, runs, tmp_path):
    for path, says in [("plot.pdf", "no known kind"), ("none/plot.svg", "no such folder")]:
        result = fedpost("compare", runs, "--plot", tmp_path / path)
        assert result.exit_code == 2
        assert says in result.stderr
    (tmp_path / "began").mkdir()
    with JsonLinesSink(tmp_path / "began/ledger.jsonl") as sink:
        Telemetry(sink).event("run_started", {"run": "began", "name": "near"})
    result = fedpost("compare", tmp_path / "began", "--plot", tmp_path / "plot.svg")
    assert result.exit_code == 2
    assert "there is nothing to plot" in result.stderr
    assert not (tmp_path / "plot.svg").exists()


def test_a_narrow_terminal_gets_fewer_columns(runs):
    def table(width):
        environment = {"COLUMNS": str(width), "FORCE_COLOR": "1", "TERM": "xterm"}
        shown = CliRunner(env=environment).invoke(main, ["compare", str(runs)], color=True).stdout
        return re.sub(r"\x1b\[[\d;]*m", "", shown)

    narrow, wide = table(90), table(300)
    assert "Not shown, for want of room: " in narrow
    assert "sites" in narrow.splitlines()[-1]
    assert "…" not in narrow
    assert "Not shown" not in wide
    assert all(len(line) <= 90 for line in narrow.splitlines()[1:5])


def test_the_report_command_shows_the_others_too(fedpost, runs):
    folder = min(runs.iterdir())
    assert fedpost("report", folder).exit_code == 0
    page = (folder / "report.html").read_text()
    assert "among 3 others" in page
    assert "FitRes: uq(2)" in page


def test_the_commands_of_the_page_can_be_typed_from_top_to_bottom(runs, tmp_path):
    random = np.random.default_rng(0)
    before = {"w": random.normal(size=(100, 80)).astype(np.float32)}
    save_file(before, tmp_path / "before.safetensors")
    save_file({"w": before["w"] * np.float32(1.001)}, tmp_path / "after.safetensors")
    text = (Path(__file__).parents[3] / "docs/howto/compare-and-compress.md").read_text()
    commands = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len("".join(commands).splitlines()) == 10
    script = "\n".join(["set -e", f'fedpost() {{ {sys.executable} -m fedpost "$@"; }}', *commands])
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all((tmp_path / name).exists() for name in ("codecs.svg", "update.frame", "runs.svg", "runs.html"))


def test_runs_without_the_usual_metrics_are_compared_by_what_they_have(fedpost, tmp_path):
    (tmp_path / "one").mkdir()
    with JsonLinesSink(tmp_path / "one/ledger.jsonl") as sink:
        Telemetry(sink).event("run_started", {"run": "one", "name": "one"})
        Telemetry(sink, round=1).event("round_ended", {"f1\x1b[2J": 0.5})
    result = fedpost("compare", tmp_path / "one")
    assert "final f1" in result.stdout
    assert "0.5000" in result.stdout
    assert "\x1b" not in result.stdout
    assert found(fedpost, tmp_path / "one")[0]["metric"] == "f1\x1b[2J"
