"""The plots of one run, as inline SVG for its page; the same summary gives the same bytes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from fedpost.report.drawing import STAND_INS, Colours, inline_svg, tick_bytes
from fedpost.report.rows import GREATEST, Round
from fedpost.report.summary import RunSummary
from fedpost.report.units import human_seconds, plain

__all__ = ["accuracy_plot", "bytes_plot", "time_plot"]

_MARKED: Final = 40
"""Above so many rounds a line has no markers."""
_STAGES: Final = 8
"""So many stages get a bar of their own."""
_LOG_FROM: Final = 12
"""Raw bytes so many times the wire's need a logarithmic axis."""

_MUTED = STAND_INS.muted
_BLUE, _ORANGE, _GREEN = STAND_INS.lines[:3]


def accuracy_plot(summary: RunSummary) -> str | None:
    """Accuracy and loss per round, or None when nothing was evaluated or trained."""
    series = (
        ("Accuracy", [("accuracy", _BLUE, "-", _points(summary, lambda row: row.accuracy))]),
        (
            "Loss",
            [
                ("training", _ORANGE, "--", _points(summary, lambda row: row.train_loss)),
                ("evaluation", _BLUE, "-", _points(summary, lambda row: row.loss)),
            ],
        ),
    )
    panels = [(title, [line for line in lines if line[3]]) for title, lines in series]
    panels = [(title, lines) for title, lines in panels if lines]
    if not panels:
        return None

    def draw(figure: Figure, _colours: Colours) -> None:
        heights = [1.35, 1.0][: len(panels)]
        grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)
        for axes, (title, lines) in zip(grid[:, 0], panels, strict=True):
            axes.set_title(title)
            for _, colour, style, points in lines:
                _line(axes, points, colour, style)
            axes.yaxis.set_major_locator(MaxNLocator(4))
        _round_axis(grid[-1, 0])

    return inline_svg("accuracy", 330, draw)


def bytes_plot(summary: RunSummary) -> str | None:
    """Bytes per round and added up, against raw tensors; None when nothing was sent in a round."""
    rows = [row for row in summary.rounds if row.bytes.wire]
    if not rows:
        return None
    numbers = [row.round for row in rows]
    per_round: list[tuple[list[int], str, str]] = [
        ([row.bytes.raw_down for row in rows], _MUTED, "--"),
        ([row.bytes.raw_up for row in rows], _MUTED, "--"),
        ([row.bytes.down for row in rows], _BLUE, "-"),
        ([row.bytes.up for row in rows], _ORANGE, "-"),
    ]
    if per_round[0] == per_round[1]:
        del per_round[0]
    smallest = min((value for values, _, _ in per_round for value in values if value), default=1)
    largest = max(value for values, _, _ in per_round for value in values)

    def draw(figure: Figure, _colours: Colours) -> None:
        top, bottom = figure.subplots(2, 1, sharex=True)
        for values, colour, style in per_round:
            # Nothing sent is no point on a logarithmic axis.
            _line(top, [(n, v) for n, v in zip(numbers, values, strict=True) if v], colour, style)
        top.set_title("Per round, each way")
        if largest > _LOG_FROM * smallest:
            top.set_yscale("log")
            top.yaxis.set_major_locator(LogLocator(numticks=5))
            top.yaxis.set_minor_formatter(NullFormatter())
            top.set_title("Per round, each way (log scale)")
            top.set_ylim(smallest / 2, largest * 2)
        else:
            top.set_ylim(bottom=0, top=largest * 1.1)
        from_zero = [numbers[0] - 1, *numbers]
        down, up = _running([row.bytes.down for row in rows]), _running([row.bytes.up for row in rows])
        bottom.stackplot(from_zero, down, up, colors=[_BLUE, _ORANGE], linewidth=0, alpha=0.85)
        _line(bottom, list(zip(from_zero, _running([row.bytes.raw for row in rows]), strict=True)), _MUTED, "--")
        bottom.set_ylim(bottom=0)
        bottom.set_title("Added up, both ways")
        bottom.yaxis.set_major_locator(MaxNLocator(4))
        for axes in (top, bottom):
            axes.yaxis.set_major_formatter(FuncFormatter(tick_bytes))
        _round_axis(bottom)

    return inline_svg("bytes", 330, draw)


def time_plot(summary: RunSummary) -> str | None:
    """Seconds by stage, on the server and as the mean of the sites; None when no span was recorded."""
    busy = sum(1 for site in summary.sites if site.seconds) or 1
    panels = [
        ("Server", [(stage.name, stage.seconds) for stage in summary.server_stages], _BLUE),
        ("A site, on average", [(stage.name, stage.seconds / busy) for stage in summary.site_stages], _GREEN),
    ]
    panels = [(title, _fold(bars), colour) for title, bars, colour in panels if bars]
    if not panels:
        return None
    longest = max(seconds for _, bars, _ in panels for _, seconds in bars)
    slots = [len(bars) for _, bars, _ in panels]

    def draw(figure: Figure, colours: Colours) -> None:
        grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=slots)
        for axes, (title, bars, colour) in zip(grid[:, 0], panels, strict=True):
            axes.set_title(title)
            places = range(len(bars))
            # The server's waiting is the sites' working: it is drawn as the time that it leaves free.
            waits = [0.3 if name == "wait" else 1.0 for name, _ in bars]
            for place, (_, seconds), alpha in zip(places, bars, waits, strict=True):
                axes.barh(place, seconds, 0.62, color=colour, alpha=alpha)
                axes.annotate(human_seconds(seconds), (seconds, place), (5, 0), textcoords="offset points", va="center")
            axes.set_yticks(places, [plain(name, 16) for name, _ in bars], color=colours.ink)
            axes.set_ylim(len(bars) - 0.5, -0.5)
            axes.set_xlim(0, longest * 1.2 or 1.0)
            axes.set_xticks([])
            axes.grid(visible=False)
            axes.spines["bottom"].set_visible(False)

    return inline_svg("time", 30 * len(panels) + 28 * sum(slots), draw)


def _points(summary: RunSummary, value: Callable[[Round], float | None]) -> list[tuple[int, float]]:
    points = ((row.round, value(row)) for row in summary.rounds)
    return [(number, y) for number, y in points if y is not None and abs(y) <= GREATEST]


def _running(values: Sequence[int]) -> list[int]:
    return [0, *itertools.accumulate(values)]


def _fold(bars: list[tuple[str, float]]) -> list[tuple[str, float]]:
    rest = sum(seconds for _, seconds in bars[_STAGES:])
    return [*bars[:_STAGES], ("others", rest)] if rest else bars[:_STAGES]


def _line(axes: Axes, points: Sequence[tuple[int, float]], colour: str, style: str) -> None:
    marked = len(points) <= _MARKED and style == "-"
    # One point is no line: it must show even where lines have no markers.
    marker = "o" if marked or len(points) == 1 else ""
    axes.plot([x for x, _ in points], [y for _, y in points], color=colour, linestyle=style, marker=marker)


def _round_axis(axes: Axes) -> None:
    axes.set_xlabel("Round")
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    axes.margins(x=0.02)
