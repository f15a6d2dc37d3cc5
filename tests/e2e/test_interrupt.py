"""However a run is stopped, nothing of it keeps running, and what it had is there to read.

A round, and a site that is held, last far longer than anything here is waited for: what ends was stopped.
"""

from __future__ import annotations

import signal

import psutil
import pytest

import fedpost

LONG = {"round_timeout": 1000, "register_timeout": 1000}


def held(workspace, **settings):
    """A run in its second round, with both sites at work."""
    workspace.configure(rounds=3, options={"hold": {"site-0": [2], "site-1": [2]}}, **LONG, **settings)
    command = workspace.start("run", "run.yaml")
    for site in ("site-0", "site-1"):
        workspace.wait_mark(f"{site}.round-2")
    assert len(command.children()) == 2
    return command, workspace.runs()[0]


def gone(command, alive, until):
    until(lambda: not any(alive(child) for child in command.children()), "the sites' end")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_stopped_run_is_gone_and_can_be_read(workspace, until, alive, number):
    command, run = held(workspace)
    command.interrupt(number)
    gone(command, alive, until)
    assert command.wait() == 130
    assert command.err == ""
    assert run.status == "interrupted"
    assert run.sites() == [0, 2]
    assert fedpost.load_tensors(run.folder / "model.fedwt")["steps"] == 1
    page = (run.folder / "report.html").read_text()
    assert "interrupted" in page
    assert page.rstrip().endswith("</html>")
    assert "interrupted" in command.out
    assert not (run.folder / "spool").exists()


def test_sites_that_do_not_listen_are_killed(workspace, until, alive):
    workspace.configure("faulty", sites=["good", "stubborn"], rounds=1, **LONG)
    command = workspace.start("run", "run.yaml")
    workspace.wait_mark("stubborn.round")
    command.children()
    command.interrupt()
    assert command.wait() == 130
    gone(command, alive, until)


def test_a_run_that_is_stopped_while_sites_register_is_gone_too(workspace, until, alive):
    """The second site never gets as far as registering."""
    (workspace.folder / "app.py").write_text(_SLOW)
    workspace.configure(options={}, **LONG)
    command = workspace.start("run", "run.yaml", "--set", "app=app.py:app", "--set", "options={}")
    workspace.wait_event(workspace.current(), "site_joined", site="site-0")
    assert len(command.children()) == 2
    command.interrupt()
    gone(command, alive, until)
    assert command.wait() == 130
    (run,) = workspace.runs()
    assert run.status == "interrupted"
    assert (run.folder / "report.html").is_file()
    assert "Traceback" not in command.err


_SLOW = """
import sys, time
import numpy as np, fedpost
def app(sites, seed):
    if "client" in sys.argv and "site-1" in sys.argv: time.sleep(1000)
    return fedpost.App(client=lambda site: fedpost.NumPyClient(), initialize=lambda: [np.zeros(3)])
"""


def test_an_impatient_user_may_press_twice(workspace, until, alive):
    command, run = held(workspace)
    command.interrupt()
    workspace.wait_event(run, "run_ended")  # the first is being dealt with
    command.interrupt()
    assert command.wait() == 130
    gone(command, alive, until)
    assert "Traceback" not in command.err


def test_sites_end_by_themselves_when_the_run_is_killed(workspace, until, alive):
    command, run = held(workspace)
    command.kill()
    gone(command, alive, until)
    assert run.sites() == [0, 2]
    assert fedpost.load_tensors(run.folder / "model.fedwt")["steps"] == 1


def test_sites_end_by_themselves_when_a_run_in_the_background_of_a_script_is_killed(workspace, until, alive):
    """A shell starts background commands with SIGINT ignored, and their children inherit that."""
    workspace.configure(rounds=3, options={"hold": {"site-0": [1], "site-1": [1]}}, **LONG)
    command = workspace.start("run", "run.yaml", preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    for site in ("site-0", "site-1"):
        workspace.wait_mark(f"{site}.round-1")
    assert len(command.children()) == 2
    command.kill()
    gone(command, alive, until)


def test_a_site_that_does_not_listen_ends_when_the_run_is_killed(workspace, until, alive):
    workspace.configure("faulty", sites=["stubborn"], rounds=1, **LONG)
    command = workspace.start("run", "run.yaml")
    pid = int(workspace.wait_mark("stubborn.round"))
    assert psutil.pid_exists(pid)
    command.children()
    command.kill()
    gone(command, alive, until)


def test_the_report_of_a_killed_run_can_be_written_afterwards(workspace):
    command, run = held(workspace)
    command.kill()
    assert not (run.folder / "report.html").exists()
    workspace.start("report", str(run.folder)).ok()
    assert "unfinished" in (run.folder / "report.html").read_text()
