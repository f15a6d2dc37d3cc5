"""Plots that a command was asked for, as the file's suffix says: SVG, PNG, or a page with the table beneath.

Rules: the file appears whole or not at all; a page needs no network and no script.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fedpost.errors import ConfigError, MissingExtraError
from fedpost.files import replace_file
from fedpost.report.page import render

if TYPE_CHECKING:
    # It loads matplotlib.
    from fedpost.report.drawing import Draw

__all__ = ["PLOT_SUFFIXES", "check_plot", "write_plot"]

PLOT_SUFFIXES: Final = (".svg", ".png", ".html")


def check_plot(path: Path | None) -> None:
    """Check that a plot can be written there, before there is anything to draw.

    Raises:
        ConfigError: Another suffix, or no such folder.
    """
    if path is None:
        return
    if path.suffix.lower() not in PLOT_SUFFIXES:
        hint = f"Give the file one of the suffixes {', '.join(PLOT_SUFFIXES)}."
        raise ConfigError("a plot of no known kind", where=str(path), hint=hint)
    if not path.parent.is_dir():
        raise ConfigError("there is no such folder", where=str(path.parent))


def write_plot(
    path: Path,
    draw: Draw,
    height: float,
    *,
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
) -> None:
    """Write a plot; an existing file is replaced.

    Args:
        path: The file, of one of :data:`PLOT_SUFFIXES`.
        draw: Draws it.
        height: In points; the width is 640.
        title: Of the page.
        columns: The titles of the table on the page.
        rows: Its cells; the first of a row names it.

    Raises:
        MissingExtraError: What draws is not installed.
        OSError: It cannot be written.
    """
    try:
        from markupsafe import Markup  # noqa: PLC0415 - an extra

        from fedpost.report.drawing import WIDE, inline_svg, plot_file  # noqa: PLC0415 - loads matplotlib, an extra
    except ImportError as error:
        raise MissingExtraError(f"a plot needs {error.name}", hint="Run: pip install 'fedpost[run]'") from error
    kind = path.suffix.lower()
    if kind == ".html":
        svg = Markup(inline_svg("plot", height, draw, width=WIDE))  # noqa: S704 - ours; matplotlib escapes its text
        content = render("plot.html.j2", title=title, svg=svg, columns=columns, rows=rows).encode()
    else:
        content = plot_file("png" if kind == ".png" else "svg", height, draw)
    replace_file(path, [memoryview(content)])
