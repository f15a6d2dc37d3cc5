"""``fedpost inspect``: frames looked into, whole and damaged."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from fedpost.protocol import Envelope, ErrorReport, MessageType, address_message


def test_inspect_shows_a_message(fedpost, tmp_path):
    head = Envelope.new(MessageType.ERROR_REPORT, sender="north", recipient="server", run="r-1", round=2)
    path = tmp_path / "message.frame"
    path.write_bytes(bytes(address_message(head, ErrorReport(reason="\x1b[2Jno disk"))))
    result = fedpost("inspect", path)
    assert result.exit_code == 0
    assert "error_report" in result.output
    assert "north" in result.output
    assert "no disk" in result.output
    assert "\x1b" not in result.output
    found = json.loads(fedpost("inspect", "--json", path).output)["message"]
    assert (found["envelope"]["round"], found["body"]["reason"]) == (2, "\x1b[2Jno disk")


def damaged(frame: Path, way: str) -> Path:
    data = bytearray(frame.read_bytes())
    if way == "segment":
        data[-1] ^= 1
    elif way == "header":
        data[60] ^= 1
    elif way == "truncated":
        data = data[:-10]
    elif way == "prologue":
        data = data[:20]
    elif way == "empty":
        data = bytearray()
    elif way == "trailing":
        data += b"more"
    elif way == "text":
        data = bytearray(b"layer.weight = [1, 2, 3]\n" * 10)
    elif way == "pickle":
        data = bytearray(b"\x80\x04\x95" + bytes(100))
    elif way == "version":
        data[8] = 9
    frame.write_bytes(data)
    return frame


DAMAGE = {
    "header": "header: its digest does not match",
    "truncated": "the frame ends at byte",
    "prologue": "prologue: 20 bytes are less than a prologue",
    "empty": "the file is empty",
    "trailing": "4 bytes trail behind the last segment",
    "text": "prologue: not a fedpost frame",
    "pickle": "prologue: not a fedpost frame",
    "version": "prologue: frame version 9, this reader knows 1",
}


@pytest.mark.parametrize("options", [(), ("--verify",), ("--json",), ("--verify", "--json")], ids=" ".join)
@pytest.mark.parametrize("way", DAMAGE)
def test_inspect_of_a_file_that_is_no_whole_frame(fedpost, frame, way, options):
    result = fedpost("inspect", *options, damaged(frame, way))
    assert result.exit_code == 1
    if "--json" in options:
        told = json.loads(result.stdout)["error"]
        assert told["where"].startswith(str(frame))
        assert DAMAGE[way] in f"{told['where']}: {told['what']}"
    else:
        assert result.stdout == ""
    assert result.stderr.startswith(f"error: {frame}: ")
    assert DAMAGE[way] in result.stderr
    assert result.stderr.count("\n") == 1, "not one line"
    assert result.stderr.count(str(frame)) == 1


def test_a_damaged_segment_is_found_only_when_asked_for(fedpost, frame):
    path = damaged(frame, "segment")
    assert fedpost("inspect", path).exit_code == 0
    for options in (["--verify"], ["--verify", "--json"]):
        result = fedpost("inspect", *options, path)
        assert result.exit_code == 1
        assert re.search(r"segment \d+: its blake3 digest does not match", result.stderr)


@pytest.mark.parametrize("name", ["none.fedwt", "."])
def test_inspect_of_what_is_no_file_is_a_usage_error(fedpost, tmp_path, name):
    result = fedpost("inspect", tmp_path / name)
    assert result.exit_code == 2
    assert "Usage: " in result.stderr
