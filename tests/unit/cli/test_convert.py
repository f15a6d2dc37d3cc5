"""``fedpost convert`` as a user types it."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import safetensors.numpy

from fedpost.pipeline import load_tensors, save_tensors
from fedpost.testing.samples import assert_same_tensors


def test_one_line_says_what_was_done(fedpost, frame, tensors):
    path = frame.with_name("model.safetensors")
    result = fedpost("convert", frame, path)
    assert result.exit_code == 0
    assert re.fullmatch(
        rf"{path}: safetensors, 3 tensors, 12\.2 kB in 12\.\d kB \(0\.9\dx\), [\d.]+ \wm?s, \d+ MB/s\n", result.stdout
    )
    assert result.stderr == "note: metadata 'round' is written as text\n"
    assert safetensors.numpy.load_file(path).keys() == tensors.keys()


def test_json_says_the_same(fedpost, frame, tensors):
    path = frame.with_name("out.frame")
    result = fedpost(
        "convert", frame, path, "--format", "numpy", "--compression", "zstd", "--checksum", "xxh3", "--check", "--json"
    )
    assert result.exit_code == 0
    done = json.loads(result.stdout)
    assert done["source"] == {
        "path": str(frame),
        "kind": "frame",
        "encoding": "dense | fedwt | zstd(3)",
        "bytes": frame.stat().st_size,
    }
    assert done["target"]["encoding"] == "dense | numpy | zstd(3)"
    assert done["target"]["bytes"] == path.stat().st_size
    assert (done["tensors"], done["raw"], done["checked"], done["notes"]) == (3, 12248, True, [])
    assert_same_tensors(load_tensors(path), tensors)


def test_a_check_is_told(fedpost, frame):
    assert fedpost("convert", frame, frame.with_name("x.npz"), "--check").stdout.endswith(", compared bit for bit\n")


def test_a_message_needs_to_be_named(fedpost, frame, tensors):
    message, back = frame.with_name("m.pb"), frame.with_name("back.fedwt")
    assert fedpost("convert", frame, message).exit_code == 0
    result = fedpost("convert", message, back)
    assert result.exit_code == 1
    assert f"error: {message}: not a file of tensors that is known here" in result.stderr
    assert "--from protobuf" in result.stderr
    assert fedpost("convert", message, back, "--from", "protobuf").exit_code == 0
    assert_same_tensors(load_tensors(back), tensors)
    # Where the content tells, it goes before, here as in fedpost diff.
    assert fedpost("convert", frame, back, "--from", "protobuf", "--force").exit_code == 0
    assert fedpost("diff", frame, back, "--from", "protobuf").exit_code == 0
    assert_same_tensors(load_tensors(back), tensors)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["out.bin"], 2, "the suffix '.bin' does not say what to write. Use --format"),
        (["out.npz", "--compression", "zstd"], 2, "an .npz has gzip alone. Use --frame."),
        (["out.fedwt", "--bare"], 2, "the format fedwt has no file without a frame"),
        (["out.fedwt", "--format", "fedwtt"], 2, "'fedwtt' is not one of"),
        (["out.fedwt", "--compression", "zst"], 2, "unknown compression 'zst'. Did you mean 'zstd'?"),
        (["there.npz"], 2, "the file is there already. --force replaces it."),
        (["no/such/out.npz"], 2, "its folder does not exist"),
        (["model.fedwt", "--from", "npz"], 2, "the file is there already"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_what_goes_wrong_is_one_line_and_an_exit_code(fedpost, frame, monkeypatch, arguments, code, message, as_json):
    monkeypatch.chdir(frame.parent)
    frame.with_name("there.npz").write_bytes(b"precious")
    before = sorted(path.name for path in frame.parent.iterdir())
    result = fedpost("convert", "model.fedwt", *arguments, *(["--json"] if as_json else []))
    assert result.exit_code == code
    assert message in result.stderr
    assert sorted(path.name for path in frame.parent.iterdir()) == before
    assert frame.with_name("there.npz").read_bytes() == b"precious"
    if as_json and "Usage:" not in result.stderr:
        error = json.loads(result.stdout)["error"]
        assert error.keys() == {"type", "what", "where", "hint"}
        text = (f"{error['where']}: " if error["where"] else "") + error["what"]
        assert message in text + (f". {error['hint']}" if error["hint"] else "")
    else:
        assert result.stdout == ""


def test_a_tensor_that_the_target_cannot_carry_is_named(fedpost, tmp_path):
    save_tensors(tmp_path / "in.fedwt", {"fine": np.zeros(2), "words": np.array(["a"])})
    result = fedpost("convert", tmp_path / "in.fedwt", tmp_path / "out.safetensors")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: tensor 'words': safetensors has no name for element type <U1")
    assert not (tmp_path / "out.safetensors").exists()


def test_names_from_elsewhere_cannot_move_the_cursor(fedpost, tmp_path):
    save_tensors(tmp_path / "in.fedwt", {"w": np.zeros(2)}, metadata={"\x1b[2J": b"raw"})
    result = fedpost("convert", tmp_path / "in.fedwt", tmp_path / "out.npz")
    assert result.exit_code == 0
    assert "is lost" in result.stderr
    assert "\x1b" not in result.output
