"""Numbers and foreign text as people read them; used by the page, its plots and the live view."""

from __future__ import annotations

import unicodedata
from typing import Final

__all__ = ["human_bytes", "human_number", "human_ratio", "human_seconds", "plain"]

_DASH: Final = "\N{EM DASH}"
_BYTE_UNITS: Final = ("kB", "MB", "GB", "TB")
_ROUNDS_UP: Final = 999.5
"""From here on three digits would print as 1000."""


def plain(text: object, limit: int = 200) -> str:
    """Foreign text on one line: control, format and unassigned characters become U+FFFD; long text is cut."""
    cut = str(text)
    cut = cut if len(cut) <= limit else cut[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c)[0] == "C" else c for c in cut)


def human_bytes(count: float) -> str:
    """Bytes in decimal units with three digits: ``512 B``, ``1.53 kB``, ``84.1 MB``."""
    if count < _ROUNDS_UP:
        return f"{count:.0f} B"
    power = 1
    while count / 1000**power >= _ROUNDS_UP and power < len(_BYTE_UNITS):
        power += 1
    return f"{_three_digits(count / 1000**power)} {_BYTE_UNITS[power - 1]}"


def human_seconds(seconds: float | None) -> str:
    """A duration: ``850 µs``, ``12.0 ms``, ``4.21 s``, ``2 min 05 s``, ``1 h 02 min``."""
    if seconds is None:
        return _DASH
    if seconds * 1e6 < _ROUNDS_UP:
        return f"{seconds * 1e6:.0f} µs" if seconds else "0 s"
    if seconds * 1e3 < _ROUNDS_UP:
        return f"{_three_digits(seconds * 1e3)} ms"
    if seconds < 59.95:  # noqa: PLR2004 - would print as 60.0 s
        return f"{_three_digits(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def human_number(value: float | None) -> str:
    """A measured number with four decimals, or a dash when there is none; whole numbers are grouped."""
    if value is None:
        return _DASH
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e5 or value == 0 else f"{value:.3e}"  # noqa: PLR2004 - what fits


def human_ratio(ratio: float | None) -> str:
    """How many times smaller, with three digits: ``3.94×``, ``52.1×``, ``104×``; a dash when there is none."""
    return _DASH if ratio is None else f"{_three_digits(ratio)}\N{MULTIPLICATION SIGN}"


def _three_digits(value: float) -> str:
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"  # noqa: PLR2004
