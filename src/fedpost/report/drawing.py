"""How plots look, and what they become: part of a page, a file of their own, or pixels.

Rules: matplotlib's object API only, no pyplot state; text stays text; the same figures give the same bytes. On a page
every colour is a CSS variable of the page, so that a plot follows light, dark and print, and an id is unique. An SVG
file brings both palettes along, and is light for a viewer that knows no dark.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from fedpost.report.units import human_bytes

if TYPE_CHECKING:
    # Only in matplotlib's type information.
    from matplotlib.typing import RcKeyType

__all__ = ["DASHES", "STAND_INS", "WIDE", "WIDTH", "Colours", "Draw", "inline_svg", "plot_file", "tick_bytes"]

WIDTH: Final = 420.0
"""In points, which are the units of the viewBox: so wide that text stays legible on a phone and in half a desktop."""
WIDE: Final = 640.0
"""Of a plot that has a page or a file to itself."""
_DPI: Final = 200


@dataclass(frozen=True, slots=True)
class Colours:
    """What a plot is drawn in; lines are told apart by those who do not see all colours, too.

    Attributes:
        ink: Text and values.
        muted: Axes and whatever is beside the point.
        grid: Lines of the grid.
        card: Behind it all.
        lines: One after the other, for what is compared.
    """

    ink: str
    muted: str
    grid: str
    card: str
    lines: tuple[str, ...]


# matplotlib knows no CSS: it draws with stand-in colours, which are replaced in its output.
STAND_INS: Final = Colours("#010203", "#010204", "#010205", "#010206", tuple(f"#01020{n}" for n in "789abc"))
_LIGHT: Final = Colours(
    "#1c1e21", "#5f656d", "#e3e4e2", "#ffffff", ("#0072b2", "#d55e00", "#008f68", "#b0558a", "#2f9ede", "#b97f00")
)
_DARK: Final = Colours(
    "#e8e9ea", "#9aa1a9", "#2d3238", "#1a1d21", ("#56b4e9", "#f0883e", "#35c196", "#e29cc6", "#b3dcff", "#f0c36a")
)
_VARIABLES: Final = Colours(
    "var(--ink)",
    "var(--muted)",
    "var(--line)",
    "var(--card)",
    tuple(f"var(--{name})" for name in ("blue", "orange", "green", "purple", "sky", "gold")),
)
DASHES: Final = ("-", "--", "-.", ":")
"""For more lines than there are colours."""

Draw = Callable[[Figure, Colours], None]


def inline_svg(name: str, height: float, draw: Draw, *, width: float = WIDTH) -> str:
    """A plot for a page.

    Args:
        name: Unique on the page.
        height: In points.
        draw: Draws it, in the colours that it is given.
        width: In points.
    """
    svg = _svg(name, (width, height), draw, transparent=True)
    svg = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', r'<svg \1 aria-hidden="true" focusable="false">', svg, count=1)
    # The page's font instead of matplotlib's; how that is written depends on its version.
    svg = re.sub(
        r"font: ([\d.]+)px [^;\"]*|font-family: [^;\"]*;", lambda m: f"font-size: {m[1]}px" if m[1] else "", svg
    )
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    for stand_in, variable in _pairs(STAND_INS, _VARIABLES):
        svg = svg.replace(stand_in, variable)
    return svg


def plot_file(kind: Literal["svg", "png"], height: float, draw: Draw) -> bytes:
    """A plot as a file of its own.

    Args:
        kind: What is written.
        height: In points; the width is 640.
        draw: Draws it, in the colours that it is given.
    """
    size = (WIDE, height)
    if kind == "png":
        out = io.BytesIO()
        with mpl.rc_context(_style(_LIGHT)):
            figure = _figure(size)
            FigureCanvasAgg(figure)
            draw(figure, _LIGHT)
            figure.savefig(out, format="png", dpi=_DPI, metadata={"Software": None})
        return out.getvalue()
    svg = _svg("plot", size, draw, transparent=False)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px system-ui, 'Segoe UI', Roboto, sans-serif", svg)
    for stand_in, colour in _pairs(STAND_INS, _LIGHT):
        svg = svg.replace(stand_in, colour)
    # Presentation that was written for light is found by its text, so that nothing but a browser has to know of dark.
    rules = "".join(
        f'[style*="{what}: {light}"]{{{what}:{dark}!important}}'
        for light, dark in _pairs(_LIGHT, _DARK)
        for what in ("fill", "stroke")
    )
    style = f"<style>@media (prefers-color-scheme: dark){{{rules}}}</style>"
    start = svg.index(">", svg.index("<svg")) + 1
    return (svg[:start] + style + svg[start:]).encode()


def tick_bytes(value: float, _: int | None = None) -> str:
    """Bytes at an axis: ``10 kB``, without decimals that say nothing."""
    return re.sub(r"\.0+ ", " ", human_bytes(value))


def _pairs(ours: Colours, theirs: Colours) -> list[tuple[str, str]]:
    one, other = ((own.ink, own.muted, own.grid, own.card, *own.lines) for own in (ours, theirs))
    return list(zip(one, other, strict=True))


def _svg(name: str, size: tuple[float, float], draw: Draw, *, transparent: bool) -> str:
    with mpl.rc_context({**_style(STAND_INS), "svg.hashsalt": name}):
        figure = _figure(size)
        FigureCanvasSVG(figure)
        draw(figure, STAND_INS)
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=transparent, metadata={"Date": None, "Creator": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    return re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)


def _figure(size: tuple[float, float]) -> Figure:
    # What is as wide as a file has no card around it, so it keeps from the edge itself.
    margin = 0.14 if size[0] == WIDE else 0.02
    layout = ConstrainedLayoutEngine(h_pad=0.08, w_pad=margin, hspace=0.04)
    return Figure(figsize=(size[0] / 72, size[1] / 72), layout=layout)


def _style(colours: Colours) -> dict[RcKeyType, Any]:
    return {
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 11,
        "text.color": colours.ink,
        "text.parse_math": False,
        "figure.facecolor": colours.card,
        "axes.facecolor": colours.card,
        "axes.labelcolor": colours.muted,
        "axes.edgecolor": colours.grid,
        "axes.titlesize": 11,
        "axes.titlelocation": "left",
        "axes.titlepad": 8,
        "axes.spines.left": False,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.axisbelow": True,
        "grid.color": colours.grid,
        "grid.linewidth": 0.8,
        "legend.frameon": False,
        "xtick.color": colours.muted,
        "ytick.color": colours.muted,
        "xtick.major.size": 0,
        "xtick.minor.size": 0,
        "ytick.major.size": 0,
        "ytick.minor.size": 0,
        "lines.linewidth": 1.9,
        "lines.markersize": 4,
        "lines.solid_capstyle": "round",
        "lines.solid_joinstyle": "round",
    }
