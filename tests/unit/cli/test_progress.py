"""The bar of what takes long: there on a terminal, and nothing elsewhere."""

from __future__ import annotations

import pytest

from fedpost.cli.progress import progress


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr("fedpost.cli.progress._PATIENCE", -1.0)


def work():
    with progress() as show:
        for what in ("reading [b]", "writing"):
            for done in (0, 500, 1000):
                show(what, done, 1000)


@pytest.mark.usefixtures("at_once")
def test_a_terminal_is_told_what_is_done(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    work()
    out, told = capsys.readouterr()
    assert out == ""
    assert "reading [b]" in told
    assert "1.0/1.0 kB" in told
    assert "writing" in told


@pytest.mark.usefixtures("at_once")
def test_what_is_no_terminal_is_told_nothing(monkeypatch, capsys):
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    work()
    assert capsys.readouterr() == ("", "")


def test_what_is_soon_done_shows_no_bar(monkeypatch, capsys):
    monkeypatch.setattr("fedpost.cli.progress._PATIENCE", 1e9)
    monkeypatch.setenv("FORCE_COLOR", "1")
    work()
    assert "reading" not in capsys.readouterr().err
