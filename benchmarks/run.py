"""Measure fedpost beside its peers: ``python benchmarks/run.py``.

A full run writes ``benchmarks/results.json``, ``docs/benchmarks.md`` and ``docs/benchmarks.svg``; ``--quick`` and
``--only`` only print, and so does a full run that starts on a busy machine, whose figures nobody should publish. The
exit status is 1 when a full run misses a target or could not write.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
from cases import CASES, Context
from measure import Case
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from table import amount, factor, target_line, write_page, write_plot

ROOT = Path(__file__).parent.parent
_LIBRARIES = (
    *("numpy", "blake3", "msgspec", "safetensors", "flwr", "nvflare", "pyarrow"),
    *("msgpack", "msgpack-numpy"),
)


def machine_facts() -> dict[str, Any]:
    """What the figures depend on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        cpu = platform.processor() or platform.machine()
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "memory": psutil.virtual_memory().total,
        "system": " ".join([platform.system(), ".".join(platform.release().split(".")[:2])]),
        "python": platform.python_version(),
        "versions": versions,
    }


def results_of(machine: dict[str, Any], cases: list[Case], *, quick: bool) -> dict[str, Any]:
    """Everything, as JSON carries it."""
    found = []
    for case in cases:
        row = asdict(case)
        row["targets"] = [asdict(target) | {"met": target.met} for target in case.targets]
        found.append(row)
    return {"machine": machine, "quick": quick, "cases": found}


def show(console: Console, case: Case) -> None:
    """Print a case's figures."""
    table = Table(title=case.title, title_justify="left", title_style="bold")
    table.add_column("")
    table.add_column("who")
    for column in ("median", "min", "runs", "ratio"):
        table.add_column(column, justify="right")
    for row in case.figures:
        style = "bold green" if row.name.startswith("fedpost") else ""
        cells = (amount(row.median, row.unit), amount(row.min, row.unit), str(row.n), factor(row.ratio))
        table.add_row(row.group, row.name, *cells, style=style)
    console.print(table)


def run_cases(names: list[str], scratch: Path, *, quick: bool) -> list[Case]:
    """Run the named cases under a progress bar, which is drawn between timed parts only."""
    columns = (TextColumn("{task.description:8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    cases = []
    with Progress(*columns, console=Console(stderr=True), auto_refresh=False) as progress:

        def ticker(task: TaskID) -> Callable[[int, int], None]:
            def tick(done: int, total: int) -> None:
                progress.update(task, completed=done, total=total, refresh=True)

            return tick

        for name in names:
            task = progress.add_task(name, total=None)
            cases.append(CASES[name](Context(quick=quick, scratch=scratch, tick=ticker(task))))
    return cases


def main() -> int:
    """Run the program; return its exit status."""
    shared = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
    default = shared if shared.is_dir() else Path(tempfile.gettempdir())
    parser = argparse.ArgumentParser(description="Measure fedpost beside its peers.")
    parser.add_argument("--quick", action="store_true", help="three runs, no 1 GB case; write nothing")
    parser.add_argument("--only", metavar="NAME", choices=sorted(CASES), help="run one case; write nothing")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--anyway", action="store_true", help="write the results although the machine is busy")
    parser.add_argument("--scratch", type=Path, default=default, help="folder for large files (default: %(default)s)")
    options = parser.parse_args()
    names = [options.only] if options.only else [name for name in CASES if not (options.quick and name == "large")]

    machine = machine_facts()
    busy = machine["load"] > 0.5 * (machine["cores"] or 1)
    if busy:
        print(f"The machine is busy (load {machine['load']}): figures will be uneven.", file=sys.stderr)
    cases = run_cases(names, options.scratch, quick=options.quick)
    results = results_of(machine, cases, quick=options.quick)
    console = Console(width=None if sys.stdout.isatty() else 120)
    if options.json:
        print(json.dumps(results, indent=2))
    else:
        for case in cases:
            show(console, case)
        for target in (target for case in cases for target in case.targets):
            console.print(target_line(target), style="green" if target.met else "bold red", highlight=False)
    if options.quick or options.only:
        return 0
    if busy and not options.anyway:
        print("Nothing was written; --anyway writes figures of a busy machine too.", file=sys.stderr)
        return 1
    (ROOT / "benchmarks" / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    write_plot(ROOT / "docs" / "benchmarks.svg", cases)
    write_page(ROOT / "docs" / "benchmarks.md", machine, cases, "benchmarks.svg")
    return int(not all(target.met for case in cases for target in case.targets))


if __name__ == "__main__":
    raise SystemExit(main())
