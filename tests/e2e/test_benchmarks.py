"""The benchmarks run from end to end on hardly any data, and draw their page. No figure is judged."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

_RUN = Path(__file__).parents[2] / "benchmarks" / "run.py"
_PEERS = {
    "safetensors": "safetensors",
    "flwr": "Flower",
    "nvflare": "NVFLARE",
    "pyarrow": "Arrow",
    "msgpack_numpy": "msgpack-numpy",
}
_CASES = ("encode", "decode", "memory", "formats", "hashes", "names", "many", "large", "rounds")


def _run(*arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, str(_RUN), *map(str, arguments)], capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Every case, without the libraries that take long to load or need not be there."""
    scratch = tmp_path_factory.mktemp("scratch")
    text = _run("--tiny", "--json", "--scratch", scratch, "--without", *_PEERS)
    assert not list(scratch.iterdir()), "it left something behind"
    return json.loads(text)


def test_every_case_has_figures(results):
    assert {case["name"] for case in results["cases"]} >= set(_CASES)
    for case in results["cases"]:
        assert case["figures"], case["name"]
        for figure in case["figures"]:
            assert figure["n"] >= 1
            assert 0 <= figure["min"] <= figure["median"]
            assert math.isfinite(figure["median"])
            # Nothing may be no memory, or no error; but never no time.
            assert figure["median"] > 0 or figure["unit"] in ("B", ""), figure


def test_the_machine_is_described(results):
    facts = results["machine"]
    assert facts.keys() >= {"date", "cpu", "cores", "memory", "python", "versions"}
    assert facts["versions"]["numpy"] != "not installed"


def test_a_case_names_the_peers_that_are_missing_and_goes_on(results):
    cases = {case["name"]: case for case in results["cases"]}
    for name in ("encode", "decode", "memory", "formats", "names", "many"):
        assert cases[name]["missing"] == [f"{peer} (left out)" for peer in _PEERS.values()], name
        names = {figure["name"] for figure in cases[name]["figures"]}
        assert "np.save, one call an array" in names or name == "memory"
        assert not [who for who in names if who.startswith(tuple(_PEERS.values()))]


def test_every_format_is_measured_with_every_compression(results):
    (case,) = (case for case in results["cases"] if case["name"] == "formats")
    for group in ("encode", "decode", "size"):
        names = {figure["name"] for figure in case["figures"] if figure["group"] == group}
        for form in ("fedwt", "fedwt1", "protobuf", "msgpack", "json_base64", "numpy", "safetensors"):
            assert names >= {f"fedpost {form}", *(f"fedpost {form} + {name}" for name in ("gzip", "zstd", "lz4", "lx"))}


def test_the_page_is_drawn_from_the_results_alone(results, tmp_path):
    file = tmp_path / "results.json"
    file.write_text(json.dumps(results))
    pages = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        _run("--render", file, "--docs", folder)
        pages.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert pages[0] == pages[1]
    assert pages[0].keys() == {"benchmarks.md", "benchmarks.svg", "benchmarks-formats.svg"}
    for name in ("benchmarks.svg", "benchmarks-formats.svg"):
        assert ET.fromstring(pages[0][name]).tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314 - our own
    text = pages[0]["benchmarks.md"].decode()
    assert "| **fedpost json_base64 + lz4** |" in text
    assert "Not measured: safetensors (left out); Flower (left out)" in text
    assert all(case["title"] in text for case in results["cases"])


def test_the_published_page_is_that_of_the_published_results(tmp_path):
    _run("--render", _RUN.with_name("results.json"), "--docs", tmp_path)
    published = _RUN.parents[1] / "docs" / "benchmarks.md"
    assert (tmp_path / "benchmarks.md").read_text() == published.read_text(), f"run {_RUN} --render"
