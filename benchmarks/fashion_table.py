"""Accuracy beside bytes of every update codec, on Fashion-MNIST: ``python benchmarks/fashion_table.py``.

A run is a process of its own, and leaves one JSON file in the cache; runs that are there are not made again, so the
program may be stopped and called again at any time. When no run is missing it writes ``benchmarks/fashion-table.json``,
and from it ``docs/fashion-table.md`` and its plot. The exit status is 1 when a run failed or a target was missed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import sys
import tempfile
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3
from fashion.page import cells, gone_rows, render
from fashion.rows import ROWS, coder_of
from fashion.summary import compact, summarize, targets
from measure import Target
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from run import machine_facts
from table import target_line

import fedpost.codecs
from fedpost.errors import MissingExtraError
from fedpost.files import replace_file

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "fashion-table.json"
CACHE = ROOT / "runs" / "fashion-table"
_ROUNDS = 100
_QUICK_ROUNDS = 2
_QUICK_SITES = 2
_QUICK_ROWS = ("dense", "uq2.75")
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass(frozen=True, slots=True)
class Job:
    """A run to make.

    Attributes:
        row: Name of the row.
        seed: Of everything in it.
        rounds: How many.
        file: Where its result belongs.
    """

    row: str
    seed: int
    rounds: int
    file: Path

    def result(self) -> dict[str, Any] | None:
        """The result that is there, if it is one of these settings."""
        if not self.file.is_file():
            return None
        run: dict[str, Any] = json.loads(self.file.read_text(encoding="utf-8"))
        row = ROWS[self.row]
        wanted = {"row": row.name, "up": row.up, "down": row.down, "seed": self.seed, "rounds": self.rounds}
        return run if wanted.items() <= run.items() else None


def codecs_digest() -> str:
    """Twelve digits that the source of the update codecs is known by, as it is now."""
    folder = Path(fedpost.codecs.__file__).parent
    hasher = blake3()
    for file in sorted(folder.rglob("*.py")):
        name, data = file.relative_to(folder).as_posix().encode(), file.read_bytes()
        hasher.update(b"%s\0%d\0" % (name, len(data)) + data)
    return hasher.hexdigest()[:12]


def make(job: Job) -> None:
    """Make one run in this process; say the number of each round that is done, a line each."""
    from fashion.simulation import PER_ROUND, simulate  # PyTorch: the parent does without

    codecs = codecs_digest()  # before they run: another may be there in the end
    sites = PER_ROUND if job.rounds == _ROUNDS else _QUICK_SITES
    run = simulate(ROWS[job.row], job.seed, job.rounds, lambda number: print(number, flush=True), per_round=sites)
    replace_file(job.file, [memoryview(json.dumps(run | {"codecs": codecs}).encode())])


async def make_all(jobs: list[Job], at_once: int, progress: Progress) -> dict[Job, str]:
    """Make runs in processes of their own; return what those that failed have said last."""
    overall = progress.add_task("all runs", total=sum(job.rounds for job in jobs))
    free = asyncio.Semaphore(at_once)
    failed: dict[Job, str] = {}

    async def one(job: Job) -> None:
        async with free:
            task = progress.add_task(f"{job.row}, seed {job.seed}", total=job.rounds)
            said = await _child(job, progress, (overall, task))
            progress.remove_task(task)
        if said is not None:
            failed[job] = said

    await asyncio.gather(*map(one, jobs))
    return failed


async def _child(job: Job, progress: Progress, tasks: tuple[TaskID, ...]) -> str | None:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, "--one", job.row, str(job.seed), str(job.rounds), str(job.file)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **_ONE_THREAD},
    )
    last: deque[str] = deque(maxlen=5)
    try:
        async for line in child.stdout or ():
            text = line.decode(errors="replace").strip()
            if text.isdecimal():
                for task in tasks:
                    progress.advance(task)
            else:
                last.append(text)
        return "\n".join(last) if await child.wait() else None
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()


def results_of(runs: Iterable[dict[str, Any]], missing: list[str]) -> dict[str, Any]:
    """Everything, as JSON carries it."""
    merged = [compact(run) for run in runs]
    versions = merged[0]["versions"] if merged else {}
    machine = {key: value for key, value in machine_facts().items() if key not in {"load", "versions"}}
    return {"machine": machine | {"versions": versions}, "missing": missing, "rows": summarize(merged), "runs": merged}


def written(results: dict[str, Any]) -> str:
    """Results as text: a line a run, for whoever compares two of them."""
    head = json.dumps({key: value for key, value in results.items() if key != "runs"}, indent=1)
    runs = ",\n".join(json.dumps(run, separators=(",", ":")) for run in results["runs"])
    return f'{head[: head.rindex("}")].rstrip()},\n "runs": [\n{runs}\n]}}\n'


def show(console: Console, results: dict[str, Any], promises: list[Target]) -> None:
    """Print the table, and what came of the promises."""
    table = Table(title="Fashion-MNIST, 100 sites, 10 a round", title_justify="left", title_style="bold")
    heads, rows = cells(results["rows"])
    for index, head in enumerate(heads):
        table.add_column(head, justify="right" if index else "left")
    for name, row in rows.items():
        table.add_row(*row, style="bold green" if ROWS[name].packets else "")
    console.print(table)
    for target in promises:
        console.print(target_line(target), style="green" if target.met else "bold red", highlight=False)
    for line in results["missing"]:
        console.print(f"Not measured: {line}", style="yellow", highlight=False)


def seeds_of(text: str) -> list[int]:
    """``0-4`` or ``0,2`` as numbers."""
    out: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        out += range(int(first), int(last or first) + 1)
    if not out:
        raise ValueError(text)
    return out


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Accuracy beside bytes of the update codecs, on Fashion-MNIST.")
    parser.add_argument("--seeds", type=seeds_of, default="0-4", metavar="N-M", help="default: %(default)s")
    parser.add_argument("--only", nargs="+", metavar="ROW", choices=ROWS, help=f"these only: {', '.join(ROWS)}")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="runs at once (default: cores)"
    )
    parser.add_argument("--quick", action="store_true", help="two small rounds of two rows; write no page")
    parser.add_argument("--cache", type=Path, help="folder of the runs (default: runs/fashion-table)")
    parser.add_argument("--collect", action="store_true", help="make no runs; write the page of those that are there")
    parser.add_argument(
        "--render", nargs="?", type=Path, const=RESULTS, metavar="FILE", help="write the page of a file again"
    )
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="folder of the page (default: docs)")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--one", nargs=4, metavar=("ROW", "SEED", "ROUNDS", "FILE"), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Run the program; return its exit status."""
    options = arguments()
    if options.one:
        row, seed, rounds, file = options.one
        make(Job(row, int(seed), int(rounds), Path(file)))
        return 0
    if options.render:
        results = json.loads(options.render.read_text(encoding="utf-8"))
        render(results, options.docs)
        for name in gone_rows(results):
            print(f"Left out: {name} is no row any more.", file=sys.stderr)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        cache = options.cache or (Path(scratch) if options.quick else CACHE)
        cache.mkdir(parents=True, exist_ok=True)
        return table_of(options, cache)


def table_of(options: argparse.Namespace, cache: Path) -> int:
    """Make what is missing, and write and show the table."""
    names = options.only or (_QUICK_ROWS if options.quick else list(ROWS))
    rounds, seeds = (_QUICK_ROUNDS, [0]) if options.quick else (_ROUNDS, options.seeds)
    missing = []
    for name in list(names):
        try:
            coder_of(ROWS[name].up)
        except MissingExtraError as error:
            missing.append(f"{ROWS[name].title} ({error.what})")
            names = [other for other in names if other != name]
    # By seed first: a row and dense of the same seed are there early.
    jobs = [Job(name, seed, rounds, cache / f"{name}-{seed}.json") for seed, name in itertools.product(seeds, names)]
    failed: dict[Job, str] = {}
    if not options.collect:
        columns = (TextColumn("{task.description:16}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True)) as progress:
            wanted = [job for job in jobs if job.result() is None]
            failed = asyncio.run(make_all(wanted, options.jobs, progress))
    for job, said in failed.items():
        print(f"{job.row}, seed {job.seed}, failed:\n{said}", file=sys.stderr)
    for name in sorted({name for file in cache.glob("*-*.json") if (name := file.stem.rpartition("-")[0]) not in ROWS}):
        print(f"Left out: {name} is no row any more.", file=sys.stderr)
    results = results_of((run for job in jobs if (run := job.result()) is not None), missing)
    promises = [] if options.quick else targets(results["rows"])
    if options.json:
        print(written(results), end="")
    else:
        show(Console(width=None if sys.stdout.isatty() else 160), results, promises)
    if not (options.quick or options.only or failed):
        RESULTS.write_text(written(results), encoding="utf-8")
        render(results, options.docs)
    return int(bool(failed) or not all(target.met for target in promises))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        raise SystemExit(main())
    raise SystemExit(130)
