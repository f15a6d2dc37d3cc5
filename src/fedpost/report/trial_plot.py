"""Codecs side by side on one model: how small, at which error, how fast; and the ratio of every tensor by its size."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from fedpost.report.drawing import Colours, Draw, tick_bytes
from fedpost.report.trial import Trial
from fedpost.report.units import human_ratio, plain

__all__ = ["trial_height", "trial_plot"]

_BAR: Final = 26.0
_SCATTER: Final = 230.0
_ROOM: Final = 60.0
_NAME: Final = 28


def trial_height(trials: Mapping[str, Trial]) -> float:
    """The height of the plot, in points."""
    return 2 * (_BAR * len(trials) + _ROOM) + _SCATTER


def trial_plot(trials: Mapping[str, Trial]) -> Draw:
    """What draws the trials.

    Args:
        trials: By what each codec is called, in order.
    """

    def draw(figure: Figure, colours: Colours) -> None:
        heights = [_BAR * len(trials) + _ROOM] * 2 + [_SCATTER]
        grid = figure.add_gridspec(3, 2, height_ratios=heights)
        each = list(trials.values())
        names = [plain(name, _NAME) for name in trials]
        panels: list[tuple[str, Sequence[float], Callable[[float], str]]] = [
            ("Raw / encoded", [one.ratio for one in each], human_ratio),
            ("Error, L2 relative", [one.relative for one in each], _percent),
            ("Encode, MB/s of raw", [one.encode_mb_per_second for one in each], _whole),
            ("Decode, MB/s of raw", [one.decode_mb_per_second for one in each], _whole),
        ]
        for place, (title, values, shown) in enumerate(panels):
            axes = figure.add_subplot(grid[place // 2, place % 2])
            axes.set_title(title)
            _bars(axes, names if place % 2 == 0 else None, values, shown, colours)
        axes = figure.add_subplot(grid[2, :])
        axes.set_title("Every tensor: raw / encoded, by its raw size (log scales)")
        _scatter(axes, names, each, colours)

    return draw


def _bars(
    axes: Axes, names: Sequence[str] | None, values: Sequence[float], shown: Callable[[float], str], colours: Colours
) -> None:
    lengths = [value if math.isfinite(value) else 0.0 for value in values]
    for place, (value, length) in enumerate(zip(values, lengths, strict=True)):
        axes.barh(place, length, 0.62, color=_colour(colours, place))
        axes.annotate(shown(value), (length, place), (5, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(values)), names or [""] * len(values), color=colours.ink)
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.set_xlim(0, max(lengths) * 1.25 or 1.0)
    axes.set_xticks([])
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)


def _scatter(axes: Axes, names: Sequence[str], trials: Sequence[Trial], colours: Colours) -> None:
    for place, (name, trial) in enumerate(zip(names, trials, strict=True)):
        points = [(row.raw, row.ratio) for row in trial.tensors if row.raw and row.ratio]
        if points:
            colour = _colour(colours, place)
            axes.plot(*zip(*points, strict=True), "o", color=colour, alpha=0.55, markeredgewidth=0, label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(LogLocator(numticks=8))
    axes.xaxis.set_major_formatter(FuncFormatter(tick_bytes))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(NullFormatter())


def _colour(colours: Colours, place: int) -> str:
    return colours.lines[place % len(colours.lines)]


def _percent(value: float) -> str:
    if not value:
        return "none"
    return f"{100 * value:.3g} %" if math.isfinite(value) else "of no change"


def _whole(value: float) -> str:
    return f"{value:,.0f}"
