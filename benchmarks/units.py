"""Quantities as people read them."""

from __future__ import annotations

__all__ = ["amount", "factor", "share"]


def amount(value: float, unit: str) -> str:
    """A quantity with three digits and a fitting unit; a plain number where it has none."""
    if not unit:
        return f"{value:,.4g}"
    if unit == "B":
        if value < 1e6:
            return f"{value:,.0f} B"
        return f"{value / 1e6:,.3g} MB"
    for scale, name in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if value >= scale:
            return f"{value / scale:.3g} {name}" if value < 100 * scale else f"{value / scale:.0f} {name}"
    return f"{value / 1e-9:.3g} ns"


def factor(ratio: float | None) -> str:
    """A ratio, as a multiple."""
    if ratio is None:
        return "-"
    return f"{ratio:,.0f} x" if ratio >= 99.5 else f"{ratio:.3g} x"


def share(ratio: float | None) -> str:
    """A ratio, as a part of a whole."""
    if ratio is None:
        return "-"
    return f"{100 * ratio:.2g} %" if ratio < 0.1 else f"{100 * ratio:.1f} %"
