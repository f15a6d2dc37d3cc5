"""Results as a page: Markdown tables, with the plots beside it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from measure import Case, Figure, Target
from plots import formats_plot, times_plot
from units import amount, factor, share

__all__ = ["columns", "render", "target_line"]

_METHOD = """\
## How this was measured

- One process, the same data, one call of each candidate a run, in an order that changes from run to run: a disturbance
  of the machine hits all alike. A warm-up run is not counted. Figures are medians; *min* is the best run.
- The garbage collector is off while a clock runs. What a call returns is alive until its clock has stopped, and is
  freed outside the timed part. Memory that a call allocates counts for it: that is most of what a copying library pays.
- *Ratio* is the median divided by that of fedpost without digests: 100 x means a hundred times as long. In the tables
  of memory and size it is divided by fedpost as it comes, with digests.
- Peers are called as their documentation says, with the arrays in memory and no compression, but for
  np.savez_compressed.
- A candidate that takes seconds has fewer runs than the others, and no warm-up.

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
  metal. `make bench` measures your own figures and rewrites this page; `python benchmarks/run.py --render` rewrites it
  from `benchmarks/results.json`.
"""


def target_line(target: Target) -> str:
    """A promise and what came of it, in one line."""
    sign = "≥" if target.at_least else "≤"
    verdict = "met" if target.met else "NOT MET"
    return f"{verdict}: {target.text} ({amount(target.value, target.unit)}, {sign} {amount(target.bound, target.unit)})"


def _rows(figures: list[Figure]) -> list[str]:
    lines = []
    for group, members in groupby(figures, key=lambda figure: figure.group):
        lines += [f"| {group} | median | min | runs | ratio |", "|:--|--:|--:|--:|--:|"]
        for row in members:
            median, smallest = amount(row.median, row.unit), amount(row.min, row.unit)
            lines.append(f"| {_bold(row.name)} | {median} | {smallest} | {row.n} | {factor(row.ratio)} |")
        lines.append("")
    return lines


def columns(case: Case) -> tuple[list[str], dict[str, list[str]]]:
    """A case as one table of a row a name, where the groups are columns, each with its ratio beside it.

    Returns:
        The heads of the columns, and the cells of each row by name.
    """
    units = {figure.group: figure.unit for figure in case.figures}
    by_place = {(figure.group, figure.name): figure for figure in case.figures}
    heads = [head for group, unit in units.items() for head in (group, "ratio" if unit == "s" else "of model")]
    rows = {}
    for name in dict.fromkeys(figure.name for figure in case.figures):
        cells = []
        for group, unit in units.items():
            row = by_place.get((group, name))
            scale = factor if unit == "s" else share
            cells += [amount(row.median, unit), scale(row.ratio)] if row else ["-", "-"]
        rows[name] = cells
    return heads, rows


def _wide(case: Case) -> list[str]:
    heads, rows = columns(case)
    lines = [f"| | {' | '.join(heads)} |", "|:--" + "|--:" * len(heads) + "|"]
    return [*lines, *(f"| {_bold(name)} | {' | '.join(cells)} |" for name, cells in rows.items()), ""]


def _bold(name: str) -> str:
    return f"**{name}**" if name.startswith("fedpost") else name


def _section(case: Case, plot: str | None) -> list[str]:
    lines = [f"## {case.title}", "", case.note, ""]
    if plot:
        lines += [f"![{case.title}]({plot})", ""]
    lines += _wide(case) if case.wide else _rows(case.figures)
    if case.missing:
        lines += ["Not measured: " + "; ".join(case.missing) + ".", ""]
    if case.legend:
        lines += [*(f"- {line}" for line in case.legend), ""]
    return lines


def render(results: Mapping[str, Any], folder: Path) -> None:
    """Write the page and its plots into ``folder``.

    Args:
        results: What ``results.json`` holds.
        folder: Where ``benchmarks.md`` is.
    """
    cases = [_case(row) for row in results["cases"]]
    plots = {"encode": ("benchmarks.svg", times_plot), "formats": ("benchmarks-formats.svg", formats_plot)}
    drawn = {}
    for case in cases:
        file, plot = plots.get(case.name, ("", None))
        if plot is not None:
            plot(folder / file, cases)
            drawn[case.name] = file
    _write_page(folder / "benchmarks.md", results["machine"], cases, drawn)


def _case(row: Mapping[str, Any]) -> Case:
    """A case as :mod:`json` gives it back."""
    targets = [{key: value for key, value in target.items() if key != "met"} for target in row["targets"]]
    return Case(
        **{
            **row,
            "figures": [Figure(**figure) for figure in row["figures"]],
            "targets": [Target(**target) for target in targets],
            "missing": tuple(row["missing"]),
            "legend": tuple(row["legend"]),
        }
    )


def _write_page(path: Path, machine: Mapping[str, Any], cases: list[Case], plots: Mapping[str, str]) -> None:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    where = f"{machine['cpu']}, {machine['cores']} cores, {machine['memory'] / 2**30:.0f} GiB, {machine['system']}"
    lines = [
        "# Benchmarks",
        "",
        f"Measured on {machine['date']}: {where}, load {machine['load']} at the start; Python {machine['python']}.",
        f"Libraries: {versions}.",
        "",
        "## Targets",
        "",
        "| target | bound | measured | |",
        "|:--|--:|--:|:--|",
    ]
    for target in (target for case in cases for target in case.targets):
        sign = "≥" if target.at_least else "≤"
        verdict = "met" if target.met else "**not met**"
        bound, value = amount(target.bound, target.unit), amount(target.value, target.unit)
        lines.append(f"| {target.text} | {sign} {bound} | {value} | {verdict} |")
    lines.append("")
    for case in cases:
        lines += _section(case, plots.get(case.name))
    path.write_text("\n".join(lines) + "\n" + _METHOD, encoding="utf-8")
