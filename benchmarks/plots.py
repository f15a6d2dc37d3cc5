"""The page's plots, as SVG that follows the reader's light or dark scheme.

Rules: matplotlib's object API only; text stays text, with the figure at its bar; the same results give the same bytes.
matplotlib knows no CSS: it draws with stand-in colours, which are variables in the file, each with a plain colour for
whoever knows no variables.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from measure import Case
from units import amount, share

__all__ = ["formats_plot", "times_plot"]

_SCHEMES: Final = {
    "paper": ("#010201", "#ffffff", "#161b22"),
    "ink": ("#010202", "#1f2328", "#e6edf3"),
    "muted": ("#010203", "#59636e", "#9198a1"),
    "line": ("#010204", "#d8dee4", "#30363d"),
    "ours": ("#010205", "#0b7a57", "#3fb68b"),
    "light": ("#010206", "#8fd1b8", "#1d5f49"),
    "others": ("#010207", "#8b949e", "#8b949e"),
    "pale": ("#010208", "#c4cad1", "#4b535d"),
}
"""What matplotlib draws with, and the colours by day and by night."""

_PAPER, INK, _MUTED, _LINE, OURS, _LIGHT, OTHERS, PALE = (colours[0] for colours in _SCHEMES.values())
_STYLE: Final[dict[str, Any]] = {
    "svg.hashsalt": "fedpost",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,
    "axes.facecolor": "none",
    "axes.labelcolor": _MUTED,
    "axes.edgecolor": _LINE,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "x",
    "axes.axisbelow": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.7,
    "xtick.color": _MUTED,
    "ytick.color": INK,
    "ytick.major.size": 0,
}
_ROW: Final = 0.25
"""Height of a row, in inches."""


def _ours(name: str) -> bool:
    return name.startswith("fedpost")


def times_plot(path: Path, cases: list[Case]) -> None:
    """Bars of encode and decode times of 100 MB, on a logarithmic axis, ours in colour."""
    chosen = [case for case in cases if case.name in {"encode", "decode"}]
    heights = [len(case.figures) for case in chosen]

    def draw(page: Figure) -> None:
        grid = page.subplots(len(chosen), 1, sharex=True, squeeze=False, height_ratios=heights)
        for axes, case in zip(grid[:, 0], chosen, strict=True):
            rows = sorted(case.figures, key=lambda figure: figure.median, reverse=True)
            colours = [OURS if _ours(row.name) else OTHERS for row in rows]
            bars = axes.barh([row.name for row in rows], [row.median * 1e3 for row in rows], color=colours, height=0.7)
            axes.bar_label(bars, [amount(row.median, row.unit) for row in rows], padding=3, fontsize=8)
            axes.set_title(case.title)
            _logarithmic(axes)
        grid[-1, 0].set_xlabel("milliseconds, median, logarithmic")

    save(path, 9, _ROW * sum(heights) + 1.6, draw)


def formats_plot(path: Path, cases: list[Case]) -> None:
    """Time beside size, a row a format and compression: decoding as a hollow mark, encoding as a full one."""
    case = next(case for case in cases if case.name == "formats")
    values = {(figure.group, figure.name): figure for figure in case.figures}
    names = list(dict.fromkeys(figure.name for figure in case.figures))[::-1]  # the first on top

    def draw(page: Figure) -> None:
        time, size = page.subplots(1, 2, sharey=True, width_ratios=(3, 1))
        for y, name in enumerate(names):
            colour, pale = (OURS, _LIGHT) if _ours(name) else (OTHERS, PALE)
            spent = [values[group, name].median * 1e3 for group in ("encode", "decode")]
            time.plot(spent, [y, y], color=pale, linewidth=3, solid_capstyle="round")
            time.plot(spent[:1], [y], "o", color=colour, markersize=6)
            time.plot(spent[1:], [y], "o", color=colour, markerfacecolor=_PAPER, markersize=6)
            for value in sorted(spent):
                right = value == max(spent)
                time.annotate(
                    amount(value / 1e3, "s"),
                    (value, y),
                    xytext=(7 if right else -7, 0),
                    textcoords="offset points",
                    ha="left" if right else "right",
                    va="center_baseline",
                    fontsize=7.5,
                )
            row = values["size", name]
            (bar,) = size.barh([y], [row.median / 1e6], color=colour, height=0.65)
            size.annotate(
                f"{amount(row.median, 'B')}, {share(row.ratio)}",
                (bar.get_width(), y),
                xytext=(3, 0),
                textcoords="offset points",
                va="center_baseline",
                fontsize=7.5,
            )
        time.set_yticks(range(len(names)), names)
        time.set_ylim(-0.7, len(names) - 0.3)
        _logarithmic(time)
        time.margins(x=0.14)
        time.set_title("● encode   ○ decode")
        time.set_xlabel("milliseconds, median, logarithmic")
        size.set_title("size")
        size.set_xlabel("MB on the wire")
        size.margins(x=0.55)

    save(path, 11, _ROW * len(names) + 1.2, draw)


def _logarithmic(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _position: f"{value:g}")
    axes.margins(x=0.12, y=0.02)


def save(path: Path, width: float, height: float, draw: Callable[[Figure], None]) -> None:
    """Draw and write; the stand-in colours become variables."""
    with mpl.rc_context(_STYLE):
        page = Figure(figsize=(width, height), layout="constrained", facecolor=_PAPER)
        draw(page)
        stream = io.StringIO()
        FigureCanvasSVG(page).print_svg(stream, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    for name, (stand_in, day, _) in _SCHEMES.items():
        text = text.replace(stand_in, f"var(--{name}, {day})")
    night = "; ".join(f"--{name}: {colour}" for name, (_, _, colour) in _SCHEMES.items())
    style = f"<style>@media (prefers-color-scheme: dark) {{ svg {{ {night} }} }}</style>"
    start = text.index(">", text.index("<svg")) + 1
    path.write_text(text[:start] + "\n " + style + text[start:], encoding="utf-8")
