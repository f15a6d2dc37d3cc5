"""The page's plots, as inline SVG.

Rules: matplotlib's object API only, no pyplot state; text stays text; every colour is a CSS variable of the page, so
that a plot follows light, dark and print; an id is unique on the page; the same summary gives the same bytes.
"""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from fedpost.report.rows import Round
from fedpost.report.summary import RunSummary
from fedpost.report.units import human_bytes, human_seconds, plain

if TYPE_CHECKING:
    # Only in matplotlib's type information.
    from matplotlib.typing import RcKeyType

__all__ = ["accuracy_plot", "bytes_plot", "time_plot"]

_WIDTH: Final = 420.0
"""In points, which are the units of the viewBox: so wide that text stays legible on a phone and in half a desktop."""
_MARKED: Final = 40
"""Above so many rounds a line has no markers."""
_STAGES: Final = 8
"""So many stages get a bar of their own."""
_LOG_FROM: Final = 12
"""Raw bytes so many times the wire's need a logarithmic axis."""

# matplotlib knows no CSS: it draws with stand-in colours, which are replaced in its output.
_INK, _MUTED, _GRID = "#010203", "#010204", "#010205"
_BLUE, _ORANGE, _GREEN = "#010206", "#010207", "#010208"
_VARIABLES: Final = {
    _INK: "var(--ink)",
    _MUTED: "var(--muted)",
    _GRID: "var(--line)",
    _BLUE: "var(--blue)",
    _ORANGE: "var(--orange)",
    _GREEN: "var(--green)",
}
_STYLE: Final[dict[RcKeyType, Any]] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": _INK,
    "text.parse_math": False,
    "axes.labelcolor": _MUTED,
    "axes.edgecolor": _GRID,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.8,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.9,
    "lines.markersize": 4,
    "lines.solid_capstyle": "round",
    "lines.solid_joinstyle": "round",
}


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

    def draw(figure: Figure) -> None:
        heights = [1.35, 1.0][: len(panels)]
        grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)
        for axes, (title, lines) in zip(grid[:, 0], panels, strict=True):
            axes.set_title(title)
            for _, colour, style, points in lines:
                _line(axes, points, colour, style)
            axes.yaxis.set_major_locator(MaxNLocator(4))
        _round_axis(grid[-1, 0])

    return _svg("accuracy", 330, draw)


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

    def draw(figure: Figure) -> None:
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
            axes.yaxis.set_major_formatter(FuncFormatter(_tick_bytes))
        _round_axis(bottom)

    return _svg("bytes", 330, draw)


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

    def draw(figure: Figure) -> None:
        grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=slots)
        for axes, (title, bars, colour) in zip(grid[:, 0], panels, strict=True):
            axes.set_title(title)
            places = range(len(bars))
            # The server's waiting is the sites' working: it is drawn as the time that it leaves free.
            waits = [0.3 if name == "wait" else 1.0 for name, _ in bars]
            for place, (_, seconds), alpha in zip(places, bars, waits, strict=True):
                axes.barh(place, seconds, 0.62, color=colour, alpha=alpha)
                axes.annotate(human_seconds(seconds), (seconds, place), (5, 0), textcoords="offset points", va="center")
            axes.set_yticks(places, [plain(name, 16) for name, _ in bars], color=_INK)
            axes.set_ylim(len(bars) - 0.5, -0.5)
            axes.set_xlim(0, longest * 1.2 or 1.0)
            axes.set_xticks([])
            axes.grid(visible=False)
            axes.spines["bottom"].set_visible(False)

    return _svg("time", 30 * len(panels) + 28 * sum(slots), draw)


def _points(summary: RunSummary, value: Callable[[Round], float | None]) -> list[tuple[int, float]]:
    return [(row.round, y) for row in summary.rounds if (y := value(row)) is not None]


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


def _tick_bytes(value: float, _: int | None) -> str:
    return re.sub(r"\.0+ ", " ", human_bytes(value))


def _round_axis(axes: Axes) -> None:
    axes.set_xlabel("Round")
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    axes.margins(x=0.02)


def _svg(name: str, height: float, draw: Callable[[Figure], None]) -> str:
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(
            figsize=(_WIDTH / 72, height / 72), layout=ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.02, hspace=0.04)
        )
        FigureCanvasSVG(figure)
        draw(figure)
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', r'<svg \1 aria-hidden="true" focusable="false">', svg, count=1)
    # The page's font instead of matplotlib's; how that is written depends on its version.
    svg = re.sub(
        r"font: ([\d.]+)px [^;\"]*|font-family: [^;\"]*;", lambda m: f"font-size: {m[1]}px" if m[1] else "", svg
    )
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    for stand_in, variable in _VARIABLES.items():
        svg = svg.replace(stand_in, variable)
    return svg
