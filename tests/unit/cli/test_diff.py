"""``fedpost diff`` as a user types it: what is shown, and the exit codes of ``diff``."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fedpost.pipeline import save_tensors


@pytest.fixture
def other(frame, tensors):
    """A model that differs a little, in another kind of file."""
    path = frame.with_name("other.npz")
    tensors["layer.weight"] = tensors["layer.weight"] * np.float32(1.001)
    tensors["layer.bias"] = tensors["layer.bias"].reshape(5, 6)
    tensors["more\x1b[2J"] = np.zeros(2)
    np.savez(path, **tensors)
    return path


def test_equal_files(fedpost, frame):
    same = frame.with_name("same.safetensors")
    fedpost("convert", frame, same)
    result = fedpost("diff", frame, same)
    assert (result.exit_code, result.stdout) == (0, "3 tensors, equal bit for bit\n")
    shown = fedpost("diff", "--all", frame, same)
    assert shown.exit_code == 0
    assert all(name in shown.stdout for name in ("layer.weight", "layer.bias", "steps"))


def test_different_files(fedpost, frame, other):
    result = fedpost("diff", frame, other)
    assert result.exit_code == 1
    assert "only in B: more" in result.stdout
    assert "\x1b" not in result.stdout
    assert "layer.bias: float64 30 and float64 5×6" in result.stdout
    assert "layer.weight" in result.stdout
    assert "0.001" in result.stdout
    assert "2,999" in result.stdout
    assert "steps" not in result.stdout
    assert result.stdout.endswith("2 of 3 common tensors differ\n")


def test_json(fedpost, frame, other):
    result = fedpost("diff", frame, other, "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert (found["equal"], found["compared"], found["differing"], found["tolerance"]) == (False, 2, 1, None)
    assert found["mismatches"] == [{"name": "layer.bias", "dtypes": ["float64"] * 2, "shapes": [[30], [5, 6]]}]
    assert (found["only_in_first"], found["only_in_second"]) == ([], ["more\x1b[2J"])
    (tensor,) = found["tensors"]
    assert (tensor["name"], tensor["dtype"], tensor["shape"], tensor["differing"]) == (
        "layer.weight",
        "float32",
        [30, 100],
        2999,
    )
    assert tensor["relative"] == pytest.approx(0.001, rel=1e-3)
    shown = json.loads(fedpost("diff", frame, other, "--json", "--all").stdout)["tensors"]
    assert [tensor["name"] for tensor in shown] == ["layer.weight", "steps"]


@pytest.mark.parametrize(("tolerance", "code"), [("0", 1), ("1e-4", 1), ("1e-2", 0)])
def test_tolerance(fedpost, frame, tmp_path, tensors, tolerance, code):
    tensors["layer.weight"] = tensors["layer.weight"] * np.float32(1.001)
    save_tensors(tmp_path / "near.fedwt", tensors)
    result = fedpost("diff", frame, tmp_path / "near.fedwt", "--tolerance", tolerance)
    assert result.exit_code == code
    assert ("equal within the tolerance" in result.stdout) is (code == 0)


def test_only_bits_differ(fedpost, tmp_path):
    save_tensors(tmp_path / "a.fedwt", {"w": np.array([0.0, 1.0])})
    save_tensors(tmp_path / "b.fedwt", {"w": np.array([-0.0, 1.0])})
    result = fedpost("diff", tmp_path / "a.fedwt", tmp_path / "b.fedwt")
    assert result.exit_code == 1
    assert "bits only" in result.stdout
    assert fedpost("diff", tmp_path / "a.fedwt", tmp_path / "b.fedwt", "--tolerance", "0").exit_code == 0


@pytest.mark.parametrize("as_json", [False, True])
def test_trouble_is_2(fedpost, frame, tmp_path, as_json):
    text = tmp_path / "text"
    text.write_text("hello, world")
    result = fedpost("diff", frame, text, *(["--json"] if as_json else []))
    assert result.exit_code == 2
    assert f"{text}: not a file of tensors" in result.stderr
    if as_json:
        assert json.loads(result.stdout)["error"]["where"] == str(text)
    assert fedpost("diff", frame).exit_code == 2
    assert fedpost("diff", frame, tmp_path / "none").exit_code == 2
    assert fedpost("diff", frame, frame, "--tolerance", "-1").exit_code == 2


def test_messages_are_compared_when_they_are_named(fedpost, frame):
    message = frame.with_name("m.pb")
    fedpost("convert", frame, message)
    assert fedpost("diff", message, frame).exit_code == 2
    assert fedpost("diff", message, frame, "--from", "protobuf").exit_code == 0
    assert fedpost("diff", message, message, "--from", "protobuf").exit_code == 0
