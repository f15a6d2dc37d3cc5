"""Measure fedpost beside its peers: ``python benchmarks/run.py``.

A full run writes ``benchmarks/results.json``, and from it ``docs/benchmarks.md`` and its plots; ``--render`` writes the
page again without measuring. ``--quick`` and ``--only`` only print, and so does a full run that starts on a busy
machine, whose figures nobody should publish. The exit status is 1 when a full run misses a target or could not write.
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
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
from cases import CASES
from measure import Case, Context
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from table import columns, render, target_line
from units import amount, factor

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results.json"
_LIBRARIES = (
    *("numpy", "blake3", "xxhash", "crc32c", "msgspec", "protobuf", "zstandard", "lz4"),
    *("safetensors", "flwr", "nvflare", "pyarrow", "msgpack", "msgpack-numpy", "zipnn"),
    *("nncodec", "pysz"),
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
        "date": datetime.now(UTC).date().isoformat(),
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
    if case.wide:
        heads, rows = columns(case)
        table.add_column("who")
        for head in heads:
            table.add_column(head, justify="right")
        for name, cells in rows.items():
            table.add_row(name, *cells, style=_style(name))
    else:
        table.add_column("")
        table.add_column("who")
        for head in ("median", "min", "runs", "ratio"):
            table.add_column(head, justify="right")
        for row in case.figures:
            amounts = (amount(row.median, row.unit), amount(row.min, row.unit), str(row.n), factor(row.ratio))
            table.add_row(row.group, row.name, *amounts, style=_style(row.name))
    console.print(table)
    for line in case.missing:
        console.print(f"Not measured: {line}", style="yellow", highlight=False)


def _style(name: str) -> str:
    return "bold green" if name.startswith("fedpost") else ""


def run_cases(names: list[str], **how: Any) -> list[Case]:
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
            cases.append(CASES[name](Context(tick=ticker(task), **how)))
    return cases


def arguments() -> argparse.Namespace:
    """The command line."""
    shared = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
    default = shared if shared.is_dir() else Path(tempfile.gettempdir())
    parser = argparse.ArgumentParser(description="Measure fedpost beside its peers.")
    parser.add_argument("--quick", action="store_true", help="three runs, less data; write nothing")
    parser.add_argument("--tiny", action="store_true", help="hardly any data, only to see that all runs; write nothing")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=CASES, help=f"these only: {', '.join(CASES)}")
    parser.add_argument("--skip", nargs="+", metavar="NAME", choices=CASES, default=[], help="all but these")
    parser.add_argument("--without", nargs="+", metavar="LIBRARY", default=[], help="as if these were not installed")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--render", nargs="?", type=Path, const=RESULTS, metavar="FILE", help="write the page again")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="folder of the page (default: docs)")
    parser.add_argument("--anyway", action="store_true", help="write the results although the machine is busy")
    parser.add_argument("--scratch", type=Path, default=default, help="folder for large files (default: %(default)s)")
    return parser.parse_args()


def main() -> int:
    """Run the program; return its exit status."""
    options = arguments()
    if options.render:
        render(json.loads(options.render.read_text(encoding="utf-8")), options.docs)
        return 0
    quick = options.quick or options.tiny
    machine = machine_facts()
    busy = machine["load"] > 0.5 * (machine["cores"] or 1)
    if busy:
        print(f"The machine is busy (load {machine['load']}): figures will be uneven.", file=sys.stderr)
    cases = run_cases(
        options.only or [name for name in CASES if name not in options.skip],
        quick=quick,
        tiny=options.tiny,
        scratch=options.scratch,
        without=frozenset(options.without),
    )
    results = results_of(machine, cases, quick=quick)
    console = Console(width=None if sys.stdout.isatty() else 120)
    if options.json:
        print(json.dumps(results, indent=2))
    else:
        for case in cases:
            show(console, case)
        for target in (target for case in cases for target in case.targets if not options.tiny):
            console.print(target_line(target), style="green" if target.met else "bold red", highlight=False)
    if quick or options.only:
        return 0
    if busy and not options.anyway:
        print("Nothing was written; --anyway writes figures of a busy machine too.", file=sys.stderr)
        return 1
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    render(results, options.docs)
    return int(not all(target.met for case in cases for target in case.targets))


if __name__ == "__main__":
    raise SystemExit(main())
