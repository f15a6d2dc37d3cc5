"""``fedpost compress`` as a user types it: what is shown and written, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from fedpost.codecs import Base
from fedpost.conversion import open_model
from fedpost.frame import Frame
from fedpost.pipeline import decode_tensors, load_tensors, save_tensors


@pytest.fixture
def before():
    random = np.random.default_rng(0)
    return {
        "layer.weight": random.normal(size=(300, 200)).astype(np.float32),
        "layer.bias": random.normal(size=300).astype(np.float32),
        "steps": np.array(7, np.int64),
    }


@pytest.fixture
def old(before, tmp_path):
    save_file(before, tmp_path / "old.safetensors", metadata={"round": "1"})
    return tmp_path / "old.safetensors"


@pytest.fixture
def new(before, tmp_path):
    random = np.random.default_rng(1)
    after = {
        name: value + random.laplace(scale=0.01, size=value.shape).astype(value.dtype) if value.ndim else value + 1
        for name, value in before.items()
    }
    np.savez(tmp_path / "new.npz", **after)
    return tmp_path / "new.npz"


def codecs(fedpost, *arguments):
    result = fedpost("compress", *arguments, "--json", "--repeat", 1)
    assert result.exit_code == 0, result.output
    return {row["codec"]: row for row in json.loads(result.stdout)["codecs"]}


def test_the_usual_codecs_with_a_base(fedpost, new, old):
    result = fedpost("compress", new, "--base", old, "--repeat", 1)
    assert result.exit_code == 0, result.output
    first, _, head, *rows = result.stdout.splitlines()
    assert first == f"{new}: 3 tensors, 60,301 values, 241 kB"
    assert head.split()[:4] == ["codec", "encoded", "ratio", "error"]
    assert [row.split("  ")[0] for row in rows] == ["delta | lx", "uq(2)", "uq(3)", "eden(1)", "int8", "topk(0.01)"]
    assert "exact" in rows[0]
    assert "layer.weight" not in result.stdout


def test_the_usual_codecs_without_a_base_need_none(fedpost, new):
    found = codecs(fedpost, new)
    assert list(found) == ["dense | lx", "dense | zstd(3)", "cast(bfloat16)"]
    assert [row["exact"] for row in found.values()] == [True, True, False]


def test_every_tensor_of_one_codec(fedpost, new, old):
    result = fedpost("compress", new, "--base", old, "--codec", "uq(2)", "--repeat", 1)
    assert result.exit_code == 0
    rows = {line.split("  ")[0]: line for line in result.stdout.splitlines()}
    assert "300×200" in rows["layer.weight"]
    assert "exact" in rows["steps"]
    assert "uq(2)" in rows
    totals = fedpost("compress", new, "--base", old, "--codec", "uq(2)", "--totals", "--repeat", 1).stdout
    assert "layer.weight" not in totals
    both = fedpost(
        "compress", new, "--base", old, "--codec", "uq(2)", "--codec", "int8", "--per-tensor", "--repeat", 1
    ).stdout
    assert both.count("layer.weight") == 2


def test_json(fedpost, new, old):
    found = codecs(fedpost, new, "--base", old, "--codec", "uq(2)", "--codec", "delta | lx")
    uq, lossless = found["uq(2)"], found["delta | lx"]
    assert uq["pipeline"] == "uq(2) | fedwt | none"
    assert lossless["pipeline"] == "delta | fedwt | lx(1)"
    assert uq["ratio"] > 20 > lossless["ratio"] > 1
    assert uq["raw"] == 300 * 200 * 4 + 300 * 4 + 8
    assert 0 < uq["relative"] < 1
    assert lossless["relative"] == lossless["max_abs"] == 0
    assert [row["name"] for row in uq["tensors"]] == ["layer.weight", "layer.bias", "steps"]
    weight = uq["tensors"][0]
    assert (weight["dtype"], weight["shape"], weight["raw"]) == ("float32", [300, 200], 240_000)
    assert weight["ratio"] == pytest.approx(weight["raw"] / weight["encoded"])
    assert uq["encode_mb_per_second"] > 0 < uq["decode_mb_per_second"]


def test_longer_pipelines(fedpost, new, old):
    assert codecs(fedpost, new, "--base", old, "--codec", "delta | msgpack | zstd(9)")["delta | msgpack | zstd(9)"][
        "exact"
    ]


def test_what_a_codec_chose_by_itself_is_told(fedpost, new, old):
    spec = "auto(budget=10kB/round)"
    found = codecs(fedpost, new, "--base", old, "--codec", spec, "--codec", "uq(2)")
    assert found["uq(2)"]["picked"] is None
    picked = found[spec]["picked"]
    assert picked.startswith("uq(")
    assert found[spec]["encoded"] <= 10_000
    table = fedpost("compress", new, "--base", old, "--codec", spec, "--repeat", 1).stdout
    assert f"{spec}: {picked}" in table


def test_a_codec_that_needs_a_base_says_how_to_give_it(fedpost, new):
    result = fedpost("compress", new, "--codec", "dense", "--codec", "uq(2)")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: uq(2) sends what changed since a model")
    assert "--base OLD" in result.stderr


@pytest.mark.parametrize("spec", ["qu(2)", "uq", "uq(2) | fedwt | none | lx", ""])
def test_a_codec_that_is_none(fedpost, new, old, spec):
    result = fedpost("compress", new, "--base", old, "--codec", spec, "--json")
    assert result.exit_code == 2
    assert "what" in json.loads(result.stdout)["error"]
    assert "Traceback" not in result.stderr


def test_nan_is_refused_as_the_codec_says(fedpost, before, old, tmp_path):
    before["layer.weight"] = before["layer.weight"].copy()
    before["layer.weight"][3, 4] = np.nan
    save_tensors(tmp_path / "nan.fedwt", before)
    alone = fedpost("compress", tmp_path / "nan.fedwt", "--base", old, "--codec", "uq(2)")
    assert alone.exit_code == 1
    assert "layer.weight" in alone.stderr
    both = fedpost(
        "compress", tmp_path / "nan.fedwt", "--base", old, "--codec", "uq(2)", "--codec", "delta", "--repeat", 1
    )
    assert both.exit_code == 0
    assert "uq(2): refused: " in both.stdout
    assert "layer.weight" in both.stdout
    found = codecs(fedpost, tmp_path / "nan.fedwt", "--base", old, "--codec", "uq(2)", "--codec", "delta")
    assert "layer.weight" in found["uq(2)"]["refused"]["where"]
    assert found["delta"]["exact"]
    none = fedpost(
        "compress", tmp_path / "nan.fedwt", "--base", old, "--codec", "uq(2)", "--codec", "uq(3)", "--repeat", 1
    )
    assert none.exit_code == 1


def test_output_is_the_frame_that_was_counted(fedpost, new, old, tmp_path):
    path = tmp_path / "update.frame"
    result = fedpost("compress", new, "--base", old, "--codec", "uq(2)", "--output", path, "--repeat", 1)
    assert result.exit_code == 0
    assert result.stdout.endswith(f"{path}\n")
    base = Base.of(open_model(old).source.arrays())
    decoded = decode_tensors(Frame.open(path), base=base).arrays()
    wanted = open_model(new).source.arrays()
    assert np.abs(decoded["layer.weight"] - wanted["layer.weight"]).max() < 0.05
    assert decoded["steps"] == wanted["steps"]
    assert fedpost("inspect", path).exit_code == 0
    again = fedpost("compress", new, "--base", old, "--codec", "uq(2)", "--output", path)
    assert again.exit_code == 2
    assert "--force" in again.stderr
    assert fedpost("compress", new, "--codec", "dense", "--output", path, "--force", "--repeat", 1).exit_code == 0
    assert load_tensors(path).keys() == wanted.keys()
    many = fedpost("compress", new, "--output", tmp_path / "x")
    assert many.exit_code == 2
    assert "--output is for one codec" in many.stderr


@pytest.mark.parametrize("kind", ["svg", "png", "html"])
def test_plots(fedpost, new, old, tmp_path, kind):
    path = tmp_path / f"plot.{kind}"
    result = fedpost("compress", new, "--base", old, "--plot", path, "--repeat", 1)
    assert result.exit_code == 0, result.output
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG") if kind == "png" else b"topk(0.01)" in content
    assert (b"#0102" in content) is False
    if kind == "html":
        assert b"new.npz" in content


def test_another_model_as_base_is_noted(fedpost, new, tmp_path):
    np.savez(tmp_path / "other.npz", **{"layer.bias": np.zeros(300, np.float32)})
    result = fedpost("compress", new, "--base", tmp_path / "other.npz", "--codec", "uq(2)", "--repeat", 1)
    assert result.exit_code == 0
    assert "note: 2 of 3 tensors are not in" in result.stderr
    assert "layer.weight, steps" in result.stderr.replace("\n", " ")


@pytest.mark.parametrize("how", [[], ["--json"], ["--codec", "dense | lx", "--output", "out.fedwt"]])
@pytest.mark.parametrize(
    ("tensors", "says"),
    [({}, "no tensors"), ({"w": np.zeros((0, 3), np.float32)}, "no values in any of its tensors")],
    ids=["no tensors", "no values"],
)
def test_a_model_of_nothing_is_an_error(fedpost, tmp_path, monkeypatch, tensors, says, how):
    monkeypatch.chdir(tmp_path)
    save_tensors(tmp_path / "empty.fedwt", tensors)
    result = fedpost("compress", "empty.fedwt", *how)
    assert result.exit_code == 1
    assert result.stderr == f"error: empty.fedwt: the model has {says}: there is nothing to compress\n"
    if "--json" in how:
        assert json.loads(result.stdout)["error"]["type"] == "EncodeError"
    assert not (tmp_path / "out.fedwt").exists()


def test_files_that_are_no_models(fedpost, new, tmp_path):
    (tmp_path / "text").write_text("hello, world")
    for arguments in ([tmp_path / "text"], [new, "--base", tmp_path / "text"]):
        result = fedpost("compress", *arguments)
        assert result.exit_code == 1
        assert f"{tmp_path / 'text'}: not a file of tensors" in result.stderr
    assert fedpost("compress", tmp_path / "none").exit_code == 2
