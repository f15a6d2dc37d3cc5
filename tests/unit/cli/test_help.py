"""Every command tells how it is used."""

from __future__ import annotations

import re
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
