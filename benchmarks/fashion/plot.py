"""The plot of accuracy against megabytes, in the colours of the benchmarks' plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from plots import INK, OTHERS, OURS, PALE, save

from fashion.rows import ROWS

__all__ = ["plot"]

_LEAST: Final = 60
"""Percent: below it all curves are steep and nobody stops."""
_PANELS: Final = (("Sent by the sites", 1), ("Sent and fetched, 10 sites of 100 a round", 2))


def plot(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Mean accuracy of every row beside the megabytes of all sites so far, a point every five rounds.

    The mark at the end is the accuracy of the table, with its interval.
    """

    def draw(page: Figure) -> None:
        for axes, (title, column) in zip(page.subplots(1, 2, sharey=True), _PANELS, strict=True):
            axes.set_title(title)
            _panel(axes, rows, column)

    save(path, 11, 4.6, draw)


def _panel(axes: Axes, rows: Sequence[Mapping[str, Any]], column: int) -> None:
    ends = []
    for row in rows:
        points = [(point[column], point[3]) for point in row["curve"] if point[3] >= _LEAST]
        if not points:
            continue
        ours = ROWS[row["name"]].packets
        colour = OURS if ours else INK if row["name"] == "dense" else OTHERS
        axes.plot(*zip(*points, strict=True), color=colour if ours else PALE, linewidth=1.6 if ours else 1.1)
        x, y = points[-1][0], row["accuracy"]
        axes.errorbar(x, y, row["accuracy_interval"] or 0, fmt="o", color=colour, markersize=4, linewidth=1, zorder=3)
        ends.append((x, y, row["name"], colour))
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _position: f"{value:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("megabytes of a run, logarithmic")
    axes.margins(x=0.08, y=0.06)
    axes.grid(visible=True, axis="y")
    axes.set_ylabel("accuracy, %" if column == 1 else "")
    # Names stand in a ladder below the ends, so that they do not cover each other where curves end together.
    low, high = axes.get_ylim()
    for rung, (x, y, name, colour) in enumerate(sorted(ends)):
        axes.annotate(
            name,
            (x, y),
            xytext=(x, low + (high - low) * (0.06 + 0.09 * (rung % 6))),
            ha="center",
            fontsize=8,
            color=colour,
            arrowprops={"arrowstyle": "-", "color": PALE, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 3},
        )
