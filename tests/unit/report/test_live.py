"""The live view counts in record(), draws on its own, and prints foreign text as text."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import threading

import pytest
from rich.console import Console

from fedpost.report.live import LiveView, final_table
from fedpost.report.summary import RunSummary
from fedpost.telemetry import Telemetry

HOSTILE = "[red]north[/red]\x1b[31m\n"


def play(view: LiveView, rounds: int = 3) -> None:
    telemetry = Telemetry(view)
    telemetry.event("run_started", {"run": "r", "name": "demo [bold]", "rounds": 4, "transport": "memory://"})
    for number in range(1, rounds + 1):
        in_round = telemetry.labelled(round=number)
        in_round.event("round_started", {"sites": 2, "attempt": 1})
        in_round.labelled(site=HOSTILE).transfer("down", "fit", "w", raw=4000, stored=1500)
        in_round.labelled(site=HOSTILE).event("result_accepted", {"examples": 3, "loss": 0.5})
        in_round.event("round_ended", {"accuracy": 0.25 * number, "loss": 1.0, "sites": 1, "seconds": 60.0})
    telemetry.labelled(round=rounds, site=HOSTILE).event("result_refused", {"reason": "[blink]not finite"})


def console(*, terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=100, color_system=None)


def drawn(view: LiveView) -> str:
    page = console(terminal=False)
    page.print(view._view())
    return page.file.getvalue()


def test_without_a_terminal_there_is_a_line_for_each_round_and_problem():
    out = console(terminal=False)
    with LiveView(out) as view:
        play(view)
    lines = out.file.getvalue().splitlines()
    assert lines[0] == "round 1/4  accuracy 0.2500  loss 1.0000  sites 1/2  down 1.50 kB  up 0 B  1 min 00 s"
    assert len(lines) == 4
    assert lines[3] == "round 3: [red]north[/red]\ufffd[31m\ufffd refused: [blink]not finite"


def test_the_view_shows_where_the_run_is():
    view = LiveView(console(terminal=True))
    assert "waiting for the run" in drawn(view)
    play(view)
    text = drawn(view)
    for piece in ("demo [bold]", "memory://", "round 3 of 4", "0:01:00 left", "sites 1/2", "down 4.50 kB"):
        assert piece in text
    assert "accuracy 0.7500" in text
    assert "[red]north[/red]\ufffd[31m\ufffd refused: [blink]not finite" in text
    assert "\x1b" not in text


def test_only_the_last_rounds_are_listed():
    view = LiveView(console(terminal=True))
    play(view, rounds=30)
    # Name, bar, numbers, the table's head, eight rounds, the problem.
    assert len(drawn(view).splitlines()) == 13


def test_on_a_terminal_recording_draws_nothing(monkeypatch):
    out = console(terminal=True)
    monkeypatch.setattr(LiveView, "_view", lambda self: pytest.fail("drawn in record()"))
    play(LiveView(out))
    assert out.file.getvalue() == ""


def test_the_view_is_cleared_after_success_and_left_after_an_error():
    ended, failed = console(terminal=True), console(terminal=True)
    with LiveView(ended) as view:
        play(view)
    with contextlib.suppress(KeyError), LiveView(failed) as view:
        play(view)
        raise KeyError
    assert len(ended.file.getvalue()) > 0
    # Both moved the cursor back while drawing; only the first erased its last drawing.
    assert ended.file.getvalue().endswith("\x1b[2K")
    assert not failed.file.getvalue().endswith("\x1b[2K")


def test_many_threads_may_record():
    view = LiveView(console(terminal=True))
    with view:
        threads = [threading.Thread(target=play, args=(view, 50)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert view.summary().bytes.down == 4 * 50 * 1500


def test_a_reader_that_went_away_does_not_end_the_run():
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with LiveView(Console(file=Gone(), force_terminal=False)) as view:
        play(view)


def summary_of(rounds: int, status: str | None) -> RunSummary:
    view = LiveView(console(terminal=True))
    if rounds:
        play(view, rounds)
    if status:
        Telemetry(view).event("run_ended", {"status": status, "reason": "[red]why", "seconds": 9.0})
    return view.summary()


@pytest.mark.parametrize(("rounds", "status"), [(3, "finished"), (0, None), (1, "failed"), (0, "interrupted")])
def test_the_closing_table(rounds, status):
    out = console(terminal=False)
    out.print(final_table(summary_of(rounds, status)))
    text = out.file.getvalue()
    assert (status or "unfinished") in text
    if rounds:
        assert f"best accuracy  {0.25 * rounds:.4f} in round {rounds}" in text
    if status:
        assert "[red]why" in text


def test_without_rich_the_extra_is_named():
    code = "import sys; sys.modules['rich'] = None; sys.modules['rich.console'] = None; import fedpost.report.live"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MissingExtraError" in done.stderr
    assert "pip install 'fedpost[run]'" in done.stderr
