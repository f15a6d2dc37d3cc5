"""Results as a page: Markdown tables and one plot."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from measure import Case, Figure, Target

__all__ = ["amount", "factor", "target_line", "write_page", "write_plot"]

_METHOD = """\
## How this was measured

- One process, the same data, one call of each candidate a run, in an order that changes from run to run: a disturbance
  of the machine hits all alike. A warm-up run is not counted. Figures are medians; *min* is the best run.
- The garbage collector is off while a clock runs. What a call returns is alive until its clock has stopped, and is
  freed outside the timed part. Memory that a call allocates counts for it: that is most of what a copying library pays.
- *Ratio* is the median divided by that of fedpost without digests: 100 x means a hundred times as long. In the tables
  of memory and size it is divided by fedpost as it comes, with digests.
- Peers are called as their documentation says, with the arrays in memory and no compression.

## How to read it

- Encoding is fast because nothing is copied: the frame refers to the arrays. They must not change while it lives, and
  the bytes still have to go through a socket or into a file, which costs at least one pass over memory for everybody.
- Digests are on by default, and then time is that of BLAKE3, on one core. The peers here, except for Flower's
  ArrayRecord (SHA-256), digest nothing; compare them with the row without digests, and know what you leave out.
- Decoded arrays are read-only views of what was received. Who wants to write to one copies it, and pays then.
- pickle runs code that the sender chose. It is here as a yardstick, not as an alternative.
- Flower's Parameters and single `.npy` files leave the names out. Flower's ArrayRecord is timed as flwr makes it: each
  array as `.npy`, cut into chunks, every object named by its SHA-256, without the remote calls that push them.
- The Arrow row is our own mapping of tensors to a record batch (one list column each); Arrow has no standard for named
  tensors.
- One virtual machine, two small cores: absolute times elsewhere differ, and page faults cost more here than on bare
  metal. Run `python benchmarks/run.py` to have your own figures; it rewrites this page.
"""


def amount(value: float, unit: str) -> str:
    """A quantity with three digits and a fitting unit."""
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


def target_line(target: Target) -> str:
    """A promise and what came of it, in one line."""
    sign = "≥" if target.at_least else "≤"
    verdict = "met" if target.met else "NOT MET"
    return f"{verdict}: {target.text} ({target.value:,.4g}, {sign} {target.bound:,g})"


def _rows(figures: list[Figure]) -> list[str]:
    lines = []
    for group, members in groupby(figures, key=lambda figure: figure.group):
        lines += [f"| {group} | median | min | runs | ratio |", "|:--|--:|--:|--:|--:|"]
        for row in members:
            name = f"**{row.name}**" if row.name.startswith("fedpost") else row.name
            median, smallest = amount(row.median, row.unit), amount(row.min, row.unit)
            lines.append(f"| {name} | {median} | {smallest} | {row.n} | {factor(row.ratio)} |")
        lines.append("")
    return lines


def write_page(path: Path, machine: Mapping[str, Any], cases: list[Case], plot: str) -> None:
    """Write the whole page."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    where = f"{machine['cpu']}, {machine['cores']} cores, {machine['memory'] / 2**30:.0f} GiB, {machine['system']}"
    lines = [
        "# Benchmarks",
        "",
        f"{where}, load {machine['load']} at the start, Python {machine['python']}; {versions}.",
        "",
        f"![Time to encode and decode 100 MB]({plot})",
        "",
        "## Targets",
        "",
        "| target | bound | measured | |",
        "|:--|--:|--:|:--|",
    ]
    for target in (target for case in cases for target in case.targets):
        sign = "≥" if target.at_least else "≤"
        verdict = "met" if target.met else "**not met**"
        lines.append(f"| {target.text} | {sign} {target.bound:,g} | {target.value:,.4g} | {verdict} |")
    lines.append("")
    for case in cases:
        lines += [f"## {case.title}", "", case.note, "", *_rows(case.figures)]
    path.write_text("\n".join(lines) + "\n" + _METHOD, encoding="utf-8")


def write_plot(path: Path, cases: list[Case]) -> None:
    """Bars of encode and decode times, on a logarithmic axis, ours in colour."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    chosen = [case for case in cases if case.name in {"encode", "decode"}]
    with mpl.rc_context({"svg.hashsalt": "fedpost", "svg.fonttype": "none", "font.size": 9}):
        heights = [len(case.figures) for case in chosen]
        page, axes = plt.subplots(
            len(chosen), 1, figsize=(9, 0.26 * sum(heights) + 1.6), sharex=True, squeeze=False, height_ratios=heights
        )
        for axis, case in zip(axes[:, 0], chosen, strict=True):
            rows = sorted(case.figures, key=lambda figure: figure.median, reverse=True)
            colours = ["#0b6e4f" if row.name.startswith("fedpost") else "#b8bec6" for row in rows]
            bars = axis.barh([row.name for row in rows], [row.median * 1e3 for row in rows], color=colours)
            axis.bar_label(bars, [amount(row.median, row.unit) for row in rows], padding=3, fontsize=8)
            axis.set_title(case.title, loc="left", fontsize=10, fontweight="bold")
            axis.set_xscale("log")
            axis.margins(x=0.12, y=0.02)
            axis.spines[["top", "right"]].set_visible(False)
            axis.grid(axis="x", color="#e3e6ea")
            axis.set_axisbelow(True)
        axes[-1, 0].set_xlabel("milliseconds, median, logarithmic")
        page.tight_layout()
        page.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
        plt.close(page)
