"""A run as it goes, in the terminal.

Rules: :meth:`LiveView.record` only counts, under a lock; drawing is done by rich's own timer. Without a terminal there
is one plain line for each finished round and each problem. Names and reasons from other machines are printed as text:
no markup, no control characters.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
import time
from types import TracebackType
from typing import Final, Self

from fedpost.errors import MissingExtraError

try:
    from rich.console import Console, Group, RenderableType
    from rich.live import Live
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text
except ImportError as error:
    raise MissingExtraError("the live view needs rich", hint="Run: pip install 'fedpost[run]'") from error

from fedpost.report.rows import Problem, Round
from fedpost.report.summary import RunSummary, Summarizer
from fedpost.report.units import human_bytes, human_number, human_seconds, plain
from fedpost.telemetry import Event, Record

__all__ = ["LiveView", "final_table"]

_REFRESH: Final = 8
"""Drawings in a second."""
_ROWS: Final = 8
"""So many of the last rounds are listed."""


class LiveView:
    """A telemetry sink that shows the run while it is entered.

    Args:
        console: Where to draw; standard output if not given.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        self._lock = threading.Lock()
        self._counts = Summarizer()
        self._began = time.monotonic()
        self._live: Live | None = None

    def record(self, record: Record) -> None:
        """Count one record; from any thread."""
        with self._lock:
            problems = self._counts.problem_count
            self._counts.add(record)
            if isinstance(record, Event) and not self._console.is_terminal:
                if self._counts.problem_count > problems:
                    self._print(_problem_line(self._counts.problems[-1]))
                elif record.name == "round_ended" and record.round is not None:
                    self._print(self._round_line(self._counts.rounds[record.round]))

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        if self._console.is_terminal:
            self._live = Live(get_renderable=self._view, console=self._console, refresh_per_second=_REFRESH)
            self._live.start(refresh=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._live is not None:
            # The closing table says it all; after an error, what was last seen stays.
            self._live.transient = kind is None
            self._live.stop()
            self._live = None

    def summary(self) -> RunSummary:
        """What was counted so far."""
        with self._lock:
            return self._counts.summary()

    def final_table(self, summary: RunSummary) -> RenderableType:
        """The closing table, to be printed after exit; see :func:`final_table`."""
        return final_table(summary)

    def _print(self, line: str) -> None:
        # Not through the console, which would wrap the line; and a reader that went away must not end the run.
        with contextlib.suppress(OSError):
            self._console.file.write(line + "\n")
            self._console.file.flush()

    def _round_line(self, row: Round) -> str:
        parts = [f"round {row.round}/{self._counts.settings.get('rounds', '?')}"]
        parts += [f"{name} {human_number(value)}" for name, value in _quality(row)]
        parts += [f"sites {row.done}/{row.asked}", f"down {human_bytes(row.bytes.down)}"]
        return plain("  ".join([*parts, f"up {human_bytes(row.bytes.up)}", human_seconds(row.seconds)]))

    def _view(self) -> RenderableType:
        with self._lock:
            counts = self._counts
            ended = [row for row in counts.rounds.values() if row.ended]
            parts: list[RenderableType] = [_heading(counts), self._progress(ended), _now(counts, ended)]
            if ended:
                parts.append(_rounds_table(ended[-_ROWS:]))
            if counts.problems:
                line = _problem_line(counts.problems[-1])
                parts.append(Text(line, style="yellow", no_wrap=True, overflow="ellipsis"))
        return Group(*parts)

    def _progress(self, ended: list[Round]) -> RenderableType:
        counts, current = self._counts, self._counts.current
        planned = counts.settings.get("rounds")
        total = planned if isinstance(planned, int) else 0
        spent = [row.seconds for row in ended if row.round > 0 and row.seconds is not None]
        done = float(sum(1 for row in ended if row.round > 0))
        left = sum(spent) / len(spent) * max(0.0, total - done) if spent else None
        if current is not None and not current.ended and current.asked:
            done += min(1.0, current.done / current.asked)
        grid = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=total or None, completed=done, width=32, pulse=not total)
        elapsed = Text(_clock(time.monotonic() - self._began), style="dim")
        remaining = Text("" if left is None else f"{_clock(left)} left", style="dim")
        grid.add_row(Text(f"round {current.round if current else 0} of {total or '?'}"), bar, elapsed, remaining)
        return grid


def final_table(summary: RunSummary) -> RenderableType:
    """The table to print when a run is over: how it ended, how good it got, what it sent, what it took."""
    grid = Table.grid(padding=(0, 2))
    style = {"finished": "bold green", "failed": "bold red"}.get(summary.status, "bold yellow")
    status = Text(plain(summary.status), style=style)
    if summary.reason:
        status.append(f": {plain(summary.reason)}", style="not bold")
    planned = summary.planned_rounds
    rows: list[tuple[str, Text | str]] = [("run", Text(plain(summary.name), style="bold")), ("status", status)]
    rows.append(("rounds", f"{summary.finished_rounds}" + (f" of {planned}" if planned is not None else "")))
    scored = [(row, _quality(row)) for row in summary.rounds if _quality(row)]
    if scored:
        rows += [(name, human_number(value)) for name, value in scored[-1][1]]
    if summary.evaluated:
        best = max(summary.evaluated, key=lambda row: row.accuracy or 0.0)
        rows.append(("best accuracy", f"{human_number(best.accuracy)} in round {best.round}"))
    sent = summary.bytes
    rows += [
        ("sites", f"{len(summary.sites)}"),
        ("down", f"{human_bytes(sent.down)} (raw {human_bytes(sent.raw_down)})"),
        ("up", f"{human_bytes(sent.up)} (raw {human_bytes(sent.raw_up)})"),
    ]
    if summary.ratio is not None:
        rows.append(("raw / wire", f"{summary.ratio:.2f}"))
    if summary.picks.told:
        rows.append(("steps", summary.picks.told))
    rows.append(("time", human_seconds(summary.seconds)))
    if summary.problem_count:
        rows.append(("problems", Text(f"{summary.problem_count}", style="yellow")))
    for title, value in rows:
        grid.add_row(Text(title, style="dim"), value if isinstance(value, Text) else Text(value))
    return grid


def _heading(counts: Summarizer) -> Text:
    settings = counts.settings
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(plain(settings.get("name") or settings.get("run") or "waiting for the run"), style="bold")
    for key in ("transport", "update", "serialization", "compression"):
        if settings.get(key):
            text.append(f"  {plain(settings[key], 80)}", style="dim")
    return text


def _now(counts: Summarizer, ended: list[Round]) -> Text:
    current = counts.current
    text = Text(no_wrap=True, overflow="ellipsis")
    if current is not None:
        text.append(f"sites {current.done}/{current.asked}", style="bold" if not current.ended else "")
        if current.attempts > 1:
            text.append(f"  attempt {current.attempts}", style="yellow")
        text.append("  ")
    text.append(f"down {human_bytes(counts.bytes.down)}  up {human_bytes(counts.bytes.up)}")
    for name, value in _quality(ended[-1]) if ended else []:
        text.append(f"  {name} ")
        text.append(human_number(value), style="bold")
    return text


def _rounds_table(rows: list[Round]) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for title in ("round", "accuracy", "loss", "sites", "down", "up", "time"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        loss = row.loss if row.loss is not None else row.train_loss
        table.add_row(
            f"{row.round}",
            human_number(row.accuracy),
            human_number(loss),
            Text(f"{row.done}/{row.asked}", style="yellow" if row.done < row.asked else ""),
            human_bytes(row.bytes.down),
            human_bytes(row.bytes.up),
            human_seconds(row.seconds),
        )
    return table


def _clock(seconds: float) -> str:
    return str(dt.timedelta(seconds=round(seconds)))


def _quality(row: Round) -> list[tuple[str, float]]:
    measured = {
        "accuracy": row.accuracy,
        "loss": row.loss,
        "training loss": row.train_loss if row.loss is None else None,
    }
    return [(name, value) for name, value in measured.items() if value is not None]


def _problem_line(problem: Problem) -> str:
    where = "" if problem.round is None else f"round {problem.round}: "
    who = "" if problem.site is None else f"{plain(problem.site, 60)} "
    return f"{where}{who}{problem.kind}: {plain(problem.reason)}"
