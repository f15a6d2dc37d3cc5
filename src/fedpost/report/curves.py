"""A metric against the megabytes that it took: one line a run, or a line and its interval a group of runs.

Rules: bytes are on a logarithmic axis, so what was known before anything was sent has no place on it. A line ends in a
mark, which is hollow when its run did not finish; runs of one update codec share a colour, then differ in their dashes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from fedpost.report.drawing import DASHES, Colours, Draw, inline_svg, tick_bytes
from fedpost.report.grouping import Group, group_curve
from fedpost.report.rows import GREATEST
from fedpost.report.runs import Direction, RunFigures
from fedpost.report.units import plain

__all__ = ["Line", "beside_plot", "curves", "group_line", "run_line"]

_DIRECTIONS: Final = {"both": "up and down", "up": "up", "down": "down"}
_LEGEND: Final = 48
_TITLE: Final = 40
_NAMED: Final = 8
"""So many lines are named one by one."""
_DECADE: Final = 10
_IN_REPORT: Final = 330


@dataclass(frozen=True, slots=True)
class Line:
    """One line.

    Attributes:
        label: The run or group in the legend.
        kind: What lines of one colour share, such as their update codec.
        points: Bytes and value, in order.
        intervals: How far each value can be trusted, or nothing.
        finished: The run came to its end.
        own: It is what the plot is about.
    """

    label: str
    kind: str
    points: Sequence[tuple[float, float]]
    intervals: Sequence[float] = ()
    finished: bool = True
    own: bool = False


def run_line(run: RunFigures, metric: str, direction: Direction = "both", *, own: bool = False) -> Line:
    """The line of a run."""
    label = "this run" if own else run.run.removeprefix(f"{run.name}-")
    points = [(sent, value) for sent, value in run.curve(metric, direction) if abs(value) <= GREATEST]
    return Line(label, run.pipeline, points, (), run.status == "finished", own)


def group_line(group: Group, metric: str, direction: Direction = "both") -> Line:
    """The line of a group of runs."""
    means = group_curve(group, metric, direction)
    count = len(group.runs)
    return Line(
        f"{count} run{'' if count == 1 else 's'}",
        group.pipeline,
        [(sent, value.mean) for sent, value in means],
        [value.interval or 0.0 for _, value in means],
        all(run.status == "finished" for run in group.runs),
    )


def curves(lines: Sequence[Line], metric: str, direction: Direction = "both") -> Draw | None:
    """What draws the lines, or None when none of them has a point."""
    lines = [line for line in lines if line.points]
    if not lines:
        return None

    def draw(figure: Figure, colours: Colours) -> None:
        axes = figure.subplots()
        for line, (colour, dash), label in zip(lines, _styles(lines, colours), _named(lines), strict=True):
            _draw(axes, line, colour, dash, colours.card, label)
        axes.set_xscale("log")
        _byte_axis(axes, [sent for line in lines for sent, _ in line.points])
        axes.set_xlabel(f"Sent {_DIRECTIONS[direction]} so far (log scale)")
        axes.set_title(plain(metric, _TITLE).replace("_", " ").capitalize())
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.margins(x=0.03)
        handles, labels = axes.get_legend_handles_labels()
        columns = 2 if max(map(len, labels)) < _LEGEND / 2 and len(labels) > 1 else 1
        figure.legend(handles, labels, loc="outside lower left", ncols=columns, handlelength=2.4, fontsize=10)

    return draw


def beside_plot(run: RunFigures, others: Sequence[RunFigures], metric: str) -> str | None:
    """The plot on a run's page: itself among others; None when it has no point."""
    draw = curves([run_line(run, metric, own=True), *(run_line(one, metric) for one in others)], metric)
    return None if draw is None else inline_svg("beside", _IN_REPORT, draw)


def _draw(axes: Axes, line: Line, colour: str, dash: str, card: str, label: str | None) -> None:
    width, alpha, order = (2.8, 1.0, 4) if line.own else (1.6, 0.85, 3)
    x, y = [sent for sent, _ in line.points], [value for _, value in line.points]
    axes.plot(x, y, color=colour, linestyle=dash, linewidth=width, alpha=alpha, zorder=order, label=label)
    if any(line.intervals):
        low = [value - by for value, by in zip(y, line.intervals, strict=True)]
        high = [value + by for value, by in zip(y, line.intervals, strict=True)]
        axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    face = colour if line.finished else card
    axes.plot(
        x[-1:], y[-1:], "o", color=colour, markerfacecolor=face, markersize=6 if line.own else 5, zorder=order + 1
    )


def _styles(lines: Sequence[Line], colours: Colours) -> list[tuple[str, str]]:
    """Colour and dashes of each line: the colour by kind, the dashes by what comes again."""
    kinds = list(dict.fromkeys(line.kind for line in lines))
    seen: dict[str, int] = dict.fromkeys(kinds, 0)
    out = []
    for line in lines:
        kind = kinds.index(line.kind)
        lap = kind // len(colours.lines) + seen[line.kind]
        seen[line.kind] += 1
        out.append((colours.lines[kind % len(colours.lines)], DASHES[lap % len(DASHES)]))
    return out


def _named(lines: Sequence[Line]) -> list[str | None]:
    """What the legend says of each line: where there are many, a kind is named once."""
    counts = Counter(line.kind for line in lines)
    told: set[str] = set()
    out: list[str | None] = []
    for line in lines:
        count = counts[line.kind]
        if line.own or line.intervals or (count > 1 and len(lines) <= _NAMED):
            out.append(plain(f"{line.kind}, {line.label}", _LEGEND))
        elif line.kind in told:
            out.append(None)
        else:
            told.add(line.kind)
            out.append(plain(line.kind + (f", {count} runs" if count > 1 else ""), _LEGEND))
    return out


def _byte_axis(axes: Axes, sent: Sequence[float]) -> None:
    least, most = min(sent), max(sent)
    close = most < _DECADE * _DECADE * least
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if close else (1,), numticks=8))
    axes.xaxis.set_major_formatter(FuncFormatter(tick_bytes))
    axes.xaxis.set_minor_formatter(NullFormatter())
    if most < 2 * least:  # so that a tick or two are in it
        axes.set_xlim(least / 2, most * 2)
