"""Accuracy against bytes: the table is made from end to end on hardly any data, and its sums are checked by hand.

No figure is judged.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from fedpost.codecs import Base

_FOLDER = Path(__file__).parents[2] / "benchmarks"
_PROGRAM = _FOLDER / "fashion_table.py"
_RESULTS = _FOLDER / "fashion-table.json"
_DATASET = Path("/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz")
_RAW = 1000

needs_data = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None or not _DATASET.is_file(),
    reason="needs PyTorch (pip install 'fedpost[torch]') and apt-get install dataset-fashion-mnist",
)


def _program(*arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, str(_PROGRAM), *map(str, arguments)], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def load() -> Iterator[Callable[[str], ModuleType]]:
    """Imports a module of the benchmarks; they are gone from this process afterwards."""
    sys.path.insert(0, str(_FOLDER))
    yield importlib.import_module
    sys.path.remove(str(_FOLDER))
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(_FOLDER)):
            del sys.modules[name]


@pytest.fixture
def published() -> dict[str, Any]:
    return json.loads(_RESULTS.read_text())


def _render(results: dict[str, Any], folder: Path) -> tuple[str, str]:
    """The page of some results, and what the program says."""
    (folder / "results.json").write_text(json.dumps(results))
    command = [sys.executable, str(_PROGRAM), "--render", str(folder / "results.json"), "--docs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return (folder / "fashion-table.md").read_text(), done.stderr


def _results(load: Callable[[str], ModuleType], runs: list[dict[str, Any]]) -> dict[str, Any]:
    runs = [load("fashion.summary").compact(run) for run in runs]
    machine = {"date": "2026-01-01", "python": "3.11", "versions": {"numpy": "2"}}
    return {"machine": machine, "missing": [], "rows": load("fashion.summary").summarize(runs), "runs": runs}


def _run(row: str, accuracy: float, *, seed: int = 0, **more: Any) -> dict[str, Any]:
    """A run of four rounds with two of three sites, as the cache has it."""
    return {
        "row": row,
        "seed": seed,
        "raw": _RAW,
        "evaluations": [[number, 1.0, accuracy] for number in (1, 2, 3, 4)],
        "uplinks": [[100, 150]] * 4,
        "sites": [[0, 1], [0, 1], [1, 2], [0, 2]],
        "packets": [_RAW, 30, 40, 50, 60],
        "snapshots": [800, 810, 820, 830, 840],
    } | more


@needs_data
def test_it_runs_from_end_to_end_and_then_has_nothing_left_to_do(tmp_path):
    first = json.loads(_program("--quick", "--json", "--cache", tmp_path, "--jobs", 2))
    assert {path.name for path in tmp_path.iterdir()} == {"dense-0.json", "uq2.75-0.json"}
    times = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = json.loads(_program("--quick", "--json", "--cache", tmp_path))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == times
    assert (again["rows"], again["runs"]) == (first["rows"], first["runs"])
    dense, ours = first["rows"]
    assert (dense["name"], ours["name"]) == ("dense", "uq2.75")
    assert 0.99 < dense["up"] < 1, "a dense frame is the model and a header"
    assert 0.99 < dense["down_fetched"] < 1
    assert min(ours["up"], ours["down_packet"]) > 10
    runs = {run["row"]: run for run in first["runs"]}
    assert runs["dense"]["sites"] == runs["uq2.75"]["sites"], "all rows of a seed have the same draws"
    assert len(runs["uq2.75"]["sites"]) == 2
    assert all(0 < run["evaluations"][-1][2] < 1 for run in runs.values())
    assert all(len(run["codecs"]) == 12 for run in runs.values())
    assert all(0 < size < runs["dense"]["packets"][0] for size in runs["uq2.75"]["snapshots"])


def test_the_published_page_is_that_of_the_published_results(tmp_path):
    _program("--render", _RESULTS, "--docs", tmp_path)
    docs = _FOLDER.parent / "docs"
    again = f"run {_PROGRAM} --render"
    assert (tmp_path / "fashion-table.md").read_text() == (docs / "fashion-table.md").read_text(), again
    assert ET.parse(docs / "fashion-table.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314 - our own


def test_the_published_rows_are_what_the_published_runs_say(load, published):
    rows = load("fashion.summary").summarize(published["runs"])
    known = load("fashion.rows").ROWS
    assert json.loads(json.dumps(rows)) == [row for row in published["rows"] if row["name"] in known]


def test_rows_that_are_no_more_are_left_out_and_named(load, tmp_path):
    results = _results(load, [_run("dense", 0.80), _run("uq2.75", 0.79)])
    results["rows"].append(results["rows"][1] | {"name": "uq2", "title": "uq(2), both ways"})
    results["runs"].append(results["runs"][1] | {"row": "uq2", "codecs": "0123456789ab"})
    page, said = _render(results, tmp_path)
    assert "Left out, as there are no such rows any more: uq2." in page
    assert "uq(2), both ways" not in page
    assert "uq(2.75), both ways" in page
    assert "codecs 0123456789ab" not in page
    assert said == "Left out: uq2 is no row any more.\n"


def test_runs_of_rows_that_are_no_more_are_not_collected(tmp_path):
    (tmp_path / "uq2-0.json").write_text("{}")
    command = [sys.executable, str(_PROGRAM), "--collect", "--only", "dense", "--json", "--cache", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert (done.returncode, done.stderr) == (0, "Left out: uq2 is no row any more.\n")
    assert json.loads(done.stdout)["runs"] == []


def test_rows_of_different_codecs_are_told(load, tmp_path):
    runs = [_run("dense", 0.80), _run("uq2.75", 0.79), _run("uq4", 0.78), _run("uq4", 0.77, seed=1)]
    told = "**The runs were not all made by the same source of the codecs.**"
    assert told not in _render(_results(load, runs), tmp_path)[0], "nobody knows"
    same = [run | {"codecs": "aaa"} for run in runs]
    assert told not in _render(_results(load, same), tmp_path)[0]
    mixed = [runs[0], runs[1] | {"codecs": "aaa"}, runs[2] | {"codecs": "aaa"}, runs[3] | {"codecs": "bbb"}]
    page, _ = _render(_results(load, mixed), tmp_path)
    assert told in page
    lines = page.splitlines()
    assert "- codecs not recorded: dense, both ways." in lines
    assert "- made by codecs aaa: uq(2.75), both ways; uq(4), both ways." in lines
    assert "- made by codecs bbb: uq(4), both ways." in lines


def test_the_digest_of_the_codecs_is_that_of_their_source(load, monkeypatch, tmp_path):
    program = load("fashion_table")
    first = program.codecs_digest()
    assert first == program.codecs_digest()
    assert len(first) == 12
    found = set()
    for files in ({"a.py": "1"}, {"a.py": "2"}, {"b.py": "1"}, {"a.py": "1", "inner/b.py": ""}):
        folder = tmp_path / str(len(found))
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        (folder / "__init__.py").touch()
        monkeypatch.setattr(program.fedpost.codecs, "__file__", str(folder / "__init__.py"))
        found.add(program.codecs_digest())
    assert len(found) == 4


def test_what_is_fetched_is_judged_with_first_models_and_without(load, tmp_path):
    results = _results(load, [_run("dense", 0.80), _run("uq2.75", 0.79)])
    row = results["rows"][1]
    targets = {target.text: target for target in load("fashion.summary").targets(results["rows"])}
    name = "uq(2.75), both ways: down, fetched"
    later = targets[f"{name} after the first model, 10 sites of 100 a round"]
    every = targets[f"{name}, all (with first models), 10 sites of 100 a round"]
    assert (later.value, later.bound, later.met) == (row["down_later"], 5, True)
    assert (every.value, every.bound, every.met) == (row["down_fetched"], 5, False)
    page, _ = _render(results, tmp_path)
    assert "a site that returns fetches 20.8 x less than the raw model" in page
    assert "all that is fetched, first models too, is 3.01 x less." in page


def test_many_seeds_have_an_interval_too(load):
    runs = [_run("dense", 0.5 + 0.01 * (seed % 2), seed=seed) for seed in range(11)]
    (row,) = load("fashion.summary").summarize([load("fashion.summary").compact(run) for run in runs])
    # Student's t with ten degrees of freedom, times the standard error of six of 50 and five of 51.
    assert row["accuracy_interval"] == pytest.approx(2.228 * math.sqrt(30 / 11 / 10 / 11))


def test_a_site_fetches_the_smaller_of_packets_and_snapshot(load):
    fetched = load("fashion.summary").fetched
    # Versions 0, 1, 2, 3. Site 0 has 0, then 1, then 3; site 1 has 0, 1, 2; site 2 first comes at 2.
    assert fetched(_run("uq2.75", 0.5)) == ([800, 800, 820], [30, 30, 40, 40 + 50, 50])
    assert fetched(_run("uq2.75", 0.5, packets=[_RAW, 30, 40, 5000, 60]))[1] == [30, 30, 40, 830, 830]
    assert fetched(_run("uq2.75", 0.5), everyone=True) == ([800], [30, 40, 50])


def test_rows_are_compared_seed_by_seed(load):
    summarize = load("fashion.summary").summarize
    runs = [_run("dense", 0.80), _run("uq2.75", 0.79), _run("dense", 0.60, seed=1), _run("uq2.75", 0.56, seed=1)]
    runs.append(_run("uq2.75", 0.99, seed=2))  # there is no dense run to compare it with
    runs = [load("fashion.summary").compact(run) for run in runs]
    dense, ours = summarize(runs)
    assert (dense["seeds"], ours["seeds"]) == (2, 3)
    assert "loss" not in dense
    assert dense["accuracy"] == pytest.approx(70)
    assert ours["loss"] == pytest.approx(2.5)
    # Student's t with one degree of freedom, times the standard error of 1 and 4.
    assert ours["loss_interval"] == pytest.approx(12.706 * math.sqrt(4.5) / math.sqrt(2))
    assert ours["up"] == pytest.approx(_RAW / 125)
    assert ours["down_packet"] == pytest.approx(_RAW / 45)
    assert ours["down_later"] == pytest.approx(_RAW * 5 / 240)
    assert ours["down_fetched"] == pytest.approx(_RAW * 8 / (240 + 2420))
    assert ours["down_everyone"] == pytest.approx(_RAW * 4 / (800 + 120))


def test_a_result_of_other_settings_is_not_taken_for_this_one(load, tmp_path):
    program = load("fashion_table")
    row = program.ROWS["uq2.75"]
    job = program.Job("uq2.75", 3, 100, tmp_path / "uq2.75-3.json")
    assert job.result() is None
    settings = {"row": "uq2.75", "up": row.up, "down": row.down, "seed": 3, "rounds": 100}
    job.file.write_text(json.dumps(settings))
    assert job.result() == settings
    for other in ({"rounds": 2}, {"seed": 4}, {"up": "uq(3) | fedwt | none"}):
        job.file.write_text(json.dumps(settings | other))
        assert job.result() is None, other


@pytest.mark.parametrize(("text", "seeds"), [("0-4", [0, 1, 2, 3, 4]), ("2", [2]), ("0,3-4", [0, 3, 4])])
def test_seeds_are_written_as_ranges(load, text, seeds):
    assert load("fashion_table").seeds_of(text) == seeds


@pytest.mark.parametrize(("package", "spec"), [("nncodec", "nncodec"), ("pysz", "sz3")])
def test_a_peer_decodes_what_it_coded(load, package, spec):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"needs pip install --no-deps {package}")
    random = np.random.default_rng(0)
    old = {"weight": random.normal(size=(120, 90)).astype(np.float32), "bias": np.zeros(120, np.float32)}
    new = {name: array + random.laplace(scale=0.01, size=array.shape).astype(np.float32) for name, array in old.items()}
    base, coder = Base.of(old), load("fashion.rows").coder_of(spec)
    data, lost = coder.encode(new, base, None)
    received = coder.decode(data, base)
    size = sum(array.nbytes for array in new.values())
    assert len(data) < size / 2
    for name, array in new.items():
        change = array - old[name]
        wrong = array - received[name]
        assert received[name].shape == array.shape
        assert np.linalg.norm(wrong) < 0.7 * np.linalg.norm(change), name
        if lost:
            np.testing.assert_allclose(lost[name], wrong, atol=1e-6)
