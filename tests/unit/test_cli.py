"""The commands as a user types them: help, frames looked into, wrong arguments, exit codes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from fedpost.cli import main
from fedpost.pipeline import Pipeline, save_tensors
from fedpost.protocol import Envelope, ErrorReport, MessageType, address_message
from fedpost.telemetry import JsonLinesSink, Telemetry

TENSORS = {
    "layer.weight": np.arange(3000, dtype=np.float32).reshape(30, 100),
    "layer.bias": np.zeros(30, np.float64),
    "steps": np.array(7, np.int64),
}
COMMANDS = sorted(main.commands)


def fedpost(*arguments: object):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def frame(tmp_path):
    path = tmp_path / "model.fedwt"
    save_tensors(
        path, TENSORS, metadata={"round": 3, "name": "demo"}, pipeline=Pipeline.parse("dense | fedwt | zstd(3)")
    )
    return path


# ── help ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_commands_are_these():
    assert {"run", "server", "client", "inspect", "report"} <= set(COMMANDS)


@pytest.mark.parametrize("option", ["-h", "--help"])
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_help_has_an_example_that_can_be_typed(command, option):
    result = fedpost(*command.split(), option)
    assert result.exit_code == 0
    assert re.search(rf"(?m)^ +Examples?:\n( +fedpost {command}.*\n)+", result.output), result.output
    assert "\\b" not in result.output


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_name_options_that_exist(command):
    text = fedpost(command, "--help").output
    examples, known = text.split("Options:", 1)
    for option in set(re.findall(r" (--[a-z-]+)", "\n".join(re.findall(r"(?m)^ +fedpost .*$", examples)))):
        assert option in known


def test_hidden_options_are_not_shown():
    assert "ends-with-stdin" not in fedpost("client", "--help").output


def test_version_and_module():
    result = subprocess.run([sys.executable, "-m", "fedpost", "--help"], capture_output=True, text=True, check=True)
    assert "fedpost run" in result.stdout
    assert result.stderr == ""


# ── inspect ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_inspect_shows_tensors_and_metadata(frame):
    result = fedpost("inspect", frame)
    assert result.exit_code == 0
    for text in ("layer.weight", "float32", "30×100", "layer.bias", "float64", "steps", "int64", "scalar"):
        assert text in result.output
    for text in ("dense | fedwt | zstd(3)", "blake3", "metadata round", "demo", "header verified"):
        assert text in result.output


def test_inspect_as_json_says_the_same(frame):
    found = json.loads(fedpost("inspect", "--json", frame).output)
    assert found["path"] == str(frame)
    assert found["bytes"] == frame.stat().st_size
    assert found["verified"] is None
    assert found["metadata"] == {"round": 3, "name": "demo"}
    assert found["pipeline"] == "dense | fedwt | zstd(3)"
    assert [(t["name"], t["dtype"], t["shape"], t["raw"]) for t in found["tensors"]] == [
        ("layer.weight", "float32", [30, 100], 12000),
        ("layer.bias", "float64", [30], 240),
        ("steps", "int64", [], 8),
    ]
    assert found["raw"] == 12248
    assert found["stored"] == sum(tensor["stored"] for tensor in found["tensors"])
    assert found["message"] is None


def test_inspect_verify_says_that_everything_was_checked(frame):
    result = fedpost("inspect", "--verify", frame)
    assert result.exit_code == 0
    assert "every segment verified" in result.output
    assert json.loads(fedpost("inspect", "--verify", "--json", frame).output)["verified"] is True


def test_inspect_shows_a_message(tmp_path):
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
def test_inspect_of_a_file_that_is_no_whole_frame(frame, way, options):
    result = fedpost("inspect", *options, damaged(frame, way))
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith(f"error: {frame}: ")
    assert DAMAGE[way] in result.stderr
    assert result.stderr.count("\n") == 1, "not one line"
    assert result.stderr.count(str(frame)) == 1


def test_a_damaged_segment_is_found_only_when_asked_for(frame):
    path = damaged(frame, "segment")
    assert fedpost("inspect", path).exit_code == 0
    for options in (["--verify"], ["--verify", "--json"]):
        result = fedpost("inspect", *options, path)
        assert result.exit_code == 1
        assert re.search(r"segment \d+: its blake3 digest does not match", result.stderr)


@pytest.mark.parametrize("name", ["none.fedwt", "."])
def test_inspect_of_what_is_no_file_is_a_usage_error(tmp_path, name):
    result = fedpost("inspect", tmp_path / name)
    assert result.exit_code == 2
    assert "Usage: " in result.stderr


# ── configuration ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app.py").write_text(
        "import fedpost\ndef app(sites, seed):\n    return fedpost.App(client=lambda site: None)\n"
    )
    path = tmp_path / "run.yaml"
    path.write_text("name: demo\napp: app.py:app\nsites: [north, south]\nrounds: 1\n")
    return path


def test_a_site_that_the_configuration_does_not_have(config):
    result = fedpost("client", config, "--site", "west")
    assert result.exit_code == 2
    assert "no site 'west'" in result.stderr
    assert fedpost("client", config).exit_code == 2


@pytest.mark.parametrize(
    "command", [["run"], ["server"], ["client", "--site", "north"]], ids=lambda command: command[0]
)
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("ronds=3", "unknown key 'ronds'. Did you mean 'rounds'?"),
        ("compression=zst", "unknown compression 'zst'. Did you mean 'zstd'?"),
        ("sites=[server]", "'server' is the server's own name"),
        ("rounds=[1", "rounds"),
        ("rounds", "write KEY=VALUE"),
        ("app=none.py:app", "no such app"),
    ],
)
def test_wrong_settings_are_told_and_nothing_is_started(config, tmp_path, command, override, message):
    result = fedpost(command[0], config, *command[1:], "--set", override)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    if not override.startswith("app"):
        assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("url", ["ftp://host/x", "no url", "file:relative", "file://host/x", ""])
def test_a_transport_that_is_none(config, url):
    result = fedpost("client", config, "--site", "north", "--transport", url or "x")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")


@pytest.mark.parametrize("address", ["../x", "a/b", ".a", ""])
def test_an_address_that_is_none(config, address, tmp_path):
    result = fedpost("client", config, "--site", "north", "--address", address or " ", "--transport", tmp_path.as_uri())
    assert result.exit_code in (1, 2)
    assert "is not an address" in result.stderr


def test_a_report_is_written_anew(tmp_path):
    with JsonLinesSink(tmp_path / "ledger.jsonl") as sink:
        Telemetry(sink).event("run_started", {"run": "r-1", "name": "demo", "rounds": 1})
    result = fedpost("report", tmp_path)
    assert result.exit_code == 0
    assert result.stdout.strip() == str(tmp_path / "report.html")
    assert "demo" in (tmp_path / "report.html").read_text()


def test_a_folder_without_a_ledger_is_an_error(tmp_path):
    result = fedpost("report", tmp_path)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {tmp_path / 'ledger.jsonl'}: ")
