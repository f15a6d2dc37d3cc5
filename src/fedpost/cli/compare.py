"""``fedpost compare``: runs side by side, what each reached and what it sent for it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
from rich.text import Text

from fedpost.cli.errors import as_json_text, errors
from fedpost.cli.progress import progress
from fedpost.cli.signals import terminable
from fedpost.cli.tables import Column, print_table
from fedpost.errors import ConfigError, DecodeError
from fedpost.report.grouping import Group, alike, group_curve, single
from fedpost.report.plotting import check_plot, write_plot
from fedpost.report.runs import Direction, RunFigures, ledger_of, lower_is_better, read_run, run_folders
from fedpost.report.units import human_bytes, human_number, human_ratio, human_seconds, plain

__all__ = ["compare_command"]

_HEIGHT: Final = 330
_PER_LINE: Final = 14
_MOST_LINES: Final = 20


class _Measure(NamedTuple):
    """A number of a run.

    Attributes:
        title: Of its column.
        of: The number, of a run and for a metric.
        shown: As people read it.
        rank: As :class:`~fedpost.cli.tables.Column` has it.
    """

    title: str
    of: Callable[[RunFigures, str], float | None]
    shown: Callable[[float], str]
    rank: int = 0

    def number(self, metric: str) -> Callable[[RunFigures], float | None]:
        """The number for a metric, as a function of the run alone."""
        return lambda run: self.of(run, metric)


_MEASURES: Final = {
    "rounds": _Measure("rounds", lambda run, _: run.finished_rounds, lambda value: f"{value:.3g}", 2),
    "sites": _Measure("sites", lambda run, _: run.sites, lambda value: f"{value:.3g}", 4),
    "final": _Measure("final", lambda run, metric: run.final(metric), human_number),
    "best": _Measure("best", lambda run, metric: (run.best(metric) or (0, None))[1], human_number, 1),
    "down": _Measure("down", lambda run, _: run.bytes.down, human_bytes),
    "up": _Measure("up", lambda run, _: run.bytes.up, human_bytes),
    "ratio_down": _Measure("raw/down", lambda run, _: run.ratio_down, human_ratio, 1),
    "ratio_up": _Measure("raw/up", lambda run, _: run.ratio_up, human_ratio),
    "seconds": _Measure("time", lambda run, _: run.seconds, human_seconds, 2),
    "seconds_per_round": _Measure("a round", lambda run, _: run.seconds_per_round, human_seconds, 3),
}
_ORDERS: Final = {"final": "final", "best": "best", "down": "down", "up": "up", "time": "seconds"}


class _Broken(NamedTuple):
    """A run that cannot be read."""

    path: Path
    problem: str


@click.command("compare")
@click.argument("runs", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--metric", metavar="NAME", help="What to compare: accuracy, loss, or any metric of the runs.")
@click.option(
    "--sort",
    type=click.Choice(["started", "run", "update", *_ORDERS]),
    default="started",
    show_default=True,
    help="The order; the best, the least or the oldest comes first.",
)
@click.option("--group", is_flag=True, help="Average runs that differ in nothing but the seed: mean ± 95 % interval.")
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Draw the metric against megabytes: .svg, .png, or .html with the table.",
)
@click.option(
    "--bytes",
    "direction",
    type=click.Choice(["both", "up", "down"]),
    default="both",
    show_default=True,
    help="The megabytes of the plot.",
)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON, with the curves.")
def compare_command(
    runs: tuple[Path, ...],
    metric: str | None,
    sort: str,
    group: bool,
    plot: Path | None,
    direction: Direction,
    as_json: bool,
) -> None:
    """Show what runs reached and what they sent for it; RUNS are their folders, or folders of such.

    raw/down and raw/up say how many times more the same tensors would have been as the model holds them. A run that
    still goes on is shown as far as it is; one that cannot be read has a row that says why.

    \b
    Examples:
      fedpost compare runs/*
      fedpost compare runs --sort up --plot runs.svg
      fedpost compare runs/* --group --metric loss --json
    """  # noqa: D301 - \b keeps click from joining the lines
    with errors(as_json=as_json), terminable():
        check_plot(plot)
        found, broken = _read(runs)
        metric = _metric(metric, [figures for figures, _ in found])
        rows = alike(found) if group else [single(figures) for figures, _ in found]
        rows = _sorted(rows, sort, metric)
        if plot is not None and rows:
            _plot(plot, rows, metric, direction, group=group)
    if as_json:
        told = [_as_json(row, metric, direction, group=group) for row in rows]
        told += [{"run": one.path.name, "path": str(one.path), "problem": one.problem} for one in broken]
        click.echo(as_json_text(told))
    else:
        empty = [""] * len(_MEASURES)
        cells = [_cells(row, metric, group=group) for row in rows]
        cells += [[one.path.name or ".", "", Text(plain(one.problem), style="yellow"), *empty] for one in broken]
        all_finished = not broken and all(row.status == "finished" for row in rows)
        print_table(_columns(metric, all_finished=all_finished), cells)
        if plot is not None and rows:
            click.echo(plain(plot, limit=4096))
    if not rows:
        sys.exit(1)


def _read(paths: Sequence[Path]) -> tuple[list[tuple[RunFigures, Path]], list[_Broken]]:
    """Every run in the folders, and those that cannot be read; one that is named twice is one."""
    folders = list(dict.fromkeys(folder for path in paths for folder in run_folders(path)))
    sizes = [_size(ledger_of(folder)) for folder in folders]
    found, broken, done = [], [], 0
    with progress() as show:
        for folder, size in zip(folders, sizes, strict=True):
            show(f"reading {plain(folder.name, 40)}", done, sum(sizes))
            try:
                found.append((read_run(folder), folder))
            except DecodeError as error:
                broken.append(_Broken(folder, error.what))
            except OSError as error:
                broken.append(_Broken(folder, error.strerror or str(error)))
            done += size
    return found, broken


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _metric(asked: str | None, runs: Sequence[RunFigures]) -> str:
    """The metric that was asked for, or the first usual one that a run has.

    Raises:
        ConfigError: No run has it.
    """
    known = list(dict.fromkeys(name for run in runs for name in run.metrics))
    if asked is None:
        return next((name for name in ("accuracy", "loss", "train_loss", *known) if name in known), "accuracy")
    if runs and asked not in known:
        raise ConfigError(f"no run has the metric {asked!r}", hint=f"They have: {', '.join(known) or 'none'}.")
    return asked


def _sorted(rows: list[Group], sort: str, metric: str) -> list[Group]:
    """By a word of the first run, or by the mean of a number; what has no number comes last."""
    if sort == "run":
        return sorted(rows, key=lambda row: row.runs[0].run)
    if sort == "update":
        return sorted(rows, key=lambda row: (row.pipeline, row.runs[0].run))
    measure = _MEASURES.get(_ORDERS.get(sort, ""))
    sign = -1 if sort in {"final", "best"} and not lower_is_better(metric) else 1

    def key(row: Group) -> tuple[bool, float]:
        mean = row.mean(lambda run: run.started if measure is None else measure.of(run, metric))
        return (True, 0.0) if mean is None else (False, sign * mean.mean)

    return sorted(rows, key=key)


def _columns(metric: str, *, all_finished: bool = False) -> list[Column]:
    words = [Column("run", number=False), Column("update", number=False)]
    words.append(Column("status", number=False, rank=1 if all_finished else 0))
    titles = {"final": f"final {metric}".replace("_", " ")}
    return words + [
        Column(plain(titles.get(name, measure.title), 40), rank=measure.rank) for name, measure in _MEASURES.items()
    ]


def _cells(row: Group, metric: str, *, group: bool) -> list[str | Text]:
    count = len(row.runs)
    name = f"{row.name}, {count} run{'' if count == 1 else 's'}" if group else row.runs[0].run or row.name
    out: list[str | Text] = [name, row.pipeline, _status(row)]
    for key, measure in _MEASURES.items():
        mean = row.mean(measure.number(metric))
        if mean is None:
            out.append("\N{EM DASH}")
            continue
        interval = f" ± {measure.shown(mean.interval)}" if mean.interval else ""
        planned = row.runs[0].planned_rounds
        of = f"/{planned}" if key == "rounds" and planned is not None and mean.mean < planned else ""
        out.append(f"{measure.shown(mean.mean)}{of}{interval}")
    return out


def _status(row: Group) -> Text:
    """How it ended; what has no end may still be going on, so when it was last heard of."""
    said = plain(row.status, 40)
    (run, *others) = row.runs
    if row.status == "unfinished" and not others and run.started is not None:
        said += f", last record {human_seconds(max(0.0, time.time() - run.started - run.seconds))} ago"
    return Text(said, style="" if row.status == "finished" else "yellow")


def _plot(path: Path, rows: Sequence[Group], metric: str, direction: Direction, *, group: bool) -> None:
    from fedpost.report.curves import curves, group_line, run_line  # noqa: PLC0415 - matplotlib is slow to load

    make = group_line if group else lambda row, *how: run_line(row.runs[0], *how)
    lines = [make(row, metric, direction) for row in rows]
    if len({row.name for row in rows}) > 1:
        lines = [replace(line, kind=f"{row.name}: {line.kind}") for row, line in zip(rows, lines, strict=True)]
    draw = curves(lines, metric, direction)
    if draw is None:
        raise ConfigError(f"no run has a round with the metric {metric!r}: there is nothing to plot")
    title = f"{metric} against megabytes".replace("_", " ").capitalize()
    cells = [[str(cell) for cell in _cells(row, metric, group=group)] for row in rows]
    height = _HEIGHT + _PER_LINE * min(len(rows), _MOST_LINES)
    write_plot(path, draw, height, title=title, columns=[column.title for column in _columns(metric)], rows=cells)


def _as_json(row: Group, metric: str, direction: Direction, *, group: bool) -> dict[str, Any]:
    """A run with its numbers, or a group with means; the curve is of bytes, value, and for groups the interval."""
    said: dict[str, Any]
    if group:
        said = {"name": row.name, "runs": [run.run for run in row.runs], "status": row.status}
        curve = [(sent, value.mean, value.interval) for sent, value in group_curve(row, metric, direction)]
        means = {name: row.mean(measure.number(metric)) for name, measure in _MEASURES.items()}
        return {**said, "pipeline": row.pipeline, "metric": metric, **means, "curve": curve}
    (run,) = row.runs
    best = run.best(metric)
    said = {"run": run.run, "name": run.name, "status": run.status, "reason": run.reason, "settings": run.settings}
    numbers = {name: measure.of(run, metric) for name, measure in _MEASURES.items()}
    numbers["best_round"] = None if best is None else best[0]
    said |= {"pipeline": run.pipeline, "planned_rounds": run.planned_rounds, "metric": metric, **numbers}
    return {**said, "bytes": run.bytes, "curve": run.curve(metric, direction)}
