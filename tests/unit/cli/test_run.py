"""``fedpost run``, ``server``, ``client`` and ``report`` without a federation: settings and errors."""

from __future__ import annotations

import json
import traceback

import pytest

from fedpost.config import load_config
from fedpost.telemetry import JsonLinesSink, Telemetry


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app.py").write_text(
        "import fedpost\ndef app(sites, seed):\n    return fedpost.App(client=lambda site: None)\n"
    )
    path = tmp_path / "run.yaml"
    path.write_text("name: demo\napp: app.py:app\nsites: [north, south]\nrounds: 1\n")
    return path


def test_a_site_that_the_configuration_does_not_have(fedpost, config):
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
def test_wrong_settings_are_told_and_nothing_is_started(fedpost, config, tmp_path, command, override, message):
    result = fedpost(command[0], config, *command[1:], "--set", override)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    if not override.startswith("app"):
        assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("url", ["ftp://host/x", "no url", "file:relative", "file://host/x", ""])
def test_a_transport_that_is_none(fedpost, config, url):
    result = fedpost("client", config, "--site", "north", "--transport", url or "x")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")


@pytest.mark.parametrize("address", ["../x", "a/b", ".a", ""])
def test_an_address_that_is_none(fedpost, config, address, tmp_path):
    result = fedpost("client", config, "--site", "north", "--address", address or " ", "--transport", tmp_path.as_uri())
    assert result.exit_code in (1, 2)
    assert "is not an address" in result.stderr


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        ("compression: zst", "run.yaml:5", "unknown compression 'zst'"),
        ("seed: 3\nupdate:\n  FitIns: dense\n  FitRes: nonsense", "run.yaml:8", "unknown update codec 'nonsense'"),
        ("update:\n  default: dense\n  FitReS: dense", "run.yaml:7", "update: unknown payload 'FitReS'"),
        ("serialization: {default: pickle}", "run.yaml:5", "unknown format 'pickle'"),
        ("checksum: md5", "run.yaml:5", "unknown checksum 'md5'"),
    ],
)
def test_a_stage_that_there_is_not_is_told_with_its_line(fedpost, config, text, where, message):
    config.write_text(f"{config.read_text()}{text}\n")
    result = fedpost("run", config)
    assert result.exit_code == 2
    assert f"{where}: {message}" in result.stderr


def test_a_stage_of_the_command_line_is_not_blamed_on_the_file(fedpost, config):
    config.write_text(f"{config.read_text()}update: {{default: dense}}\n")
    result = fedpost("run", config, "--set", "update.default=nonsense")
    assert result.stderr.startswith("error: --set update.default: unknown update codec 'nonsense'")


def test_a_wrong_setting_is_told_as_json_too(fedpost, config):
    result = fedpost("run", config, "--set", "rounds=many", "--json")
    assert result.exit_code == 2
    error = json.loads(result.stdout)["error"]
    assert (error["type"], error["where"]) == ("ConfigError", "--set rounds")
    assert error["what"].startswith("rounds: ")


# ── whose error it is ────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_oserror_of_the_users_own_code_keeps_its_traceback(fedpost, config):
    (config.parent / "app.py").write_text("def app(sites, seed):\n    open('data/digits.csv')\n")
    for options in ([], ["--json"]):
        result = fedpost("run", config, *options)
        assert isinstance(result.exception, FileNotFoundError)
        assert "app.py" in "".join(traceback.format_tb(result.exc_info[2]))
        assert result.exit_code == 1
        if options:
            error = json.loads(result.stdout)["error"]
            assert (error["type"], error["where"]) == ("FileNotFoundError", "data/digits.csv")


def test_an_oserror_of_our_own_is_one_line(fedpost, config):
    config.with_name("runs").write_text("in the way")
    for options in ([], ["--json"]):
        result = fedpost("run", config, *options)
        assert isinstance(result.exception, SystemExit)
        assert result.exit_code == 1
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
        if options:
            assert json.loads(result.stdout)["error"]["where"].startswith("runs/demo-")


# ── the run's folder ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("options", "head"),
    [
        ([], ""),
        (
            ["--set", "rounds=2", "--set", "options={}", "--set", "seed=\n7"],
            "# --set rounds=2\n# --set options={}\n# --set seed=\\n7\n",
        ),
        (["--set", "rounds=2", "--transport", "file:///tmp/x"], "# --set rounds=2\n# --set transport=file:///tmp/x\n"),
    ],
)
def test_a_runs_folder_keeps_what_the_command_line_said(fedpost, config, options, head):
    """No site comes, so the run fails; its folder is there."""
    result = fedpost("server", config, *options, "--set", "register_timeout=0.01", "--json")
    assert result.exit_code != 0
    (kept,) = config.parent.glob("runs/*/run.yaml")
    lines = kept.read_text().replace("# --set register_timeout=0.01\n", "")
    assert lines == head + config.read_text()
    assert load_config(kept) == load_config(config)


# ── report ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_report_is_written_anew(fedpost, tmp_path):
    with JsonLinesSink(tmp_path / "ledger.jsonl") as sink:
        Telemetry(sink).event("run_started", {"run": "r-1", "name": "demo", "rounds": 1})
    result = fedpost("report", tmp_path)
    assert result.exit_code == 0
    assert result.stdout.strip() == str(tmp_path / "report.html")
    assert "demo" in (tmp_path / "report.html").read_text()


def test_a_folder_without_a_ledger_is_an_error(fedpost, tmp_path):
    result = fedpost("report", tmp_path)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {tmp_path / 'ledger.jsonl'}: ")
