"""Every command tells how it is used."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import pytest

from fedpost.cli import main

COMMANDS = sorted(main.commands)


def test_the_commands_are_these():
    assert {"run", "server", "client", "inspect", "convert", "diff", "report"} <= set(COMMANDS)


@pytest.mark.parametrize("option", ["-h", "--help"])
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_help_has_an_example_that_can_be_typed(fedpost, command, option):
    result = fedpost(*command.split(), option)
    assert result.exit_code == 0
    assert re.search(rf"(?m)^ +Examples?:\n( +fedpost {command}.*\n)+", result.output), result.output
    assert "\\b" not in result.output


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_name_options_that_exist(fedpost, command):
    text = fedpost(command, "--help").output
    examples, known = text.split("Options:", 1)
    for option in set(re.findall(r" (--[a-z-]+)", "\n".join(re.findall(r"(?m)^ +fedpost .*$", examples)))):
        assert option in known


def test_hidden_options_are_not_shown(fedpost):
    assert "ends-with-stdin" not in fedpost("client", "--help").output


def test_version_and_module():
    result = subprocess.run([sys.executable, "-m", "fedpost", "--help"], capture_output=True, text=True, check=True)
    assert "fedpost run" in result.stdout
    assert result.stderr == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_ctrl_c_while_it_loads_is_no_traceback(tmp_path, number):
    """A module that is slow to load, and is interrupted meanwhile."""
    (tmp_path / "rich.py").write_text(
        f"import os, threading\nos.kill(os.getpid(), {int(number)})\nthreading.Event().wait(60)"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "fedpost", "--help"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert (done.returncode, done.stdout, done.stderr) == (-number, "", "")


def test_loading_it_leaves_ctrl_c_as_it_was():
    code = "import signal, fedpost.cli; assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_what_is_missing_is_named(missing):
    code = f"import sys; sys.modules[{missing!r}] = None; import fedpost.cli"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].endswith("the command line needs click and rich. pip install 'fedpost[run]'")
