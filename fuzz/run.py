"""Fuzzes every way in from outside: ``make fuzz MINUTES=10``, or ``python fuzz/run.py --help``.

Rules: each target runs in a process of its own with little memory to spare, so a blow-up is a finding, as is an input
that takes more than a second of the processor. Coverage of fedpost's code guides the search where atheris is installed;
elsewhere inputs are altered at random. An input that fails is kept in ``fuzz/failures`` with what it takes to run it
again, and the exit code is 1. What leads to new code is kept in ``fuzz/corpus`` and goes on from there the next time.
"""
# ruff: noqa: INP001, T201, PLC0415 - a script, which prints; atheris must see the first import of what it watches

from __future__ import annotations

import argparse
import hashlib
import json
import mmap
import os
import random
import re
import resource
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
FAILURES = Path(os.environ.get("FUZZ_FAILURES", HERE / "failures"))
MEMORY = Path("/dev/shm")  # noqa: S108 - files in it have names that nobody else can take
SPARE = 192 << 20
MOST_FAILURES = 5  # of a target, until it is left
COUNTS = struct.Struct("<3Q")  # inputs, accepted ones, the most microseconds that one took

Check = Callable[[bytes], None]


class TooMuchError(AssertionError):
    """An input that took too much time or memory."""


@dataclass
class Result:
    """What came of a target."""

    target: str
    engine: str
    inputs: int = 0
    accepted: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    corpus: int = 0
    edges: int | None = None
    new: int | None = None
    failures: list[str] = field(default_factory=list)


# ── the process that runs a target ───────────────────────────────────────────────────────────────────────────────────


def measured(name: str, counts: mmap.mmap) -> Check:
    """A target's check that counts inputs, and refuses to take long or to grow."""
    from targets import TARGETS

    target = TARGETS[name]
    check = target.check
    high_water = Path("/proc/self/clear_refs").open("wb", buffering=0)  # noqa: SIM115 - as long as the process lives

    def one(data: bytes) -> None:
        high_water.write(b"5")  # forget the most memory that there ever was (proc_pid_clear_refs(5))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.process_time()
        accepted = check(data)
        took = time.process_time() - start
        inputs, taken, slowest = COUNTS.unpack_from(counts)
        COUNTS.pack_into(counts, 0, inputs + 1, taken + accepted, max(slowest, int(took * 1e6)))
        if took > target.seconds and inputs > 1:  # the first ones import what they need
            raise TooMuchError(f"{took:.2f} s for {len(data)} bytes")
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        if grown > target.growth and inputs > 1:
            raise TooMuchError(f"{grown >> 20} MiB for {len(data)} bytes")

    return one


def confine(growth: int) -> None:
    """Let the process map no more than a little beyond what it has.

    Args:
        growth: Bytes that one input may take.
    """
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    size = pages * resource.getpagesize() + SPARE + 2 * growth
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def child_random(name: str, counts: mmap.mmap, inputs: int, seconds: float, seed: int) -> int:
    """Alter what there is at random; keep what is accepted, and go on from it."""
    from mutation import mutated_bytes
    from targets import TARGETS

    target, rng = TARGETS[name], random.Random(seed)
    check, mutate, pool = measured(name, counts), target.mutator(mutated_bytes), list(target.seeds())

    def altered() -> Iterator[bytes]:
        yield from list(pool)
        confine(target.growth)
        end = time.monotonic() + seconds
        for _ in range(inputs):
            if time.monotonic() > end:
                break
            yield mutate(rng, rng.choice(pool))[: target.largest]

    accepted, start = 0, len(pool)
    for number, data in enumerate(altered()):
        try:
            check(data)
        except BaseException:  # noqa: BLE001 - whatever comes is what is looked for
            traceback.print_exc()
            (FAILURES / f"{name}-crash").write_bytes(data)
            return 1
        now = COUNTS.unpack_from(counts)[1]
        if now > accepted and number >= start and len(pool) < 1 << 10:
            pool.append(data)
        accepted = now
    return 0


def child_atheris(name: str, counts: mmap.mmap, arguments: list[str]) -> None:
    """Let libFuzzer look for inputs that lead to new code."""
    import atheris

    with atheris.instrument_imports(include=["fedpost"], enable_loader_override=False):
        from targets import TARGETS
    from mutation import mutated_bytes

    def bytewise(rng: random.Random, data: bytes) -> bytes:
        if rng.random() < 0.5:  # noqa: PLR2004
            return mutated_bytes(rng, data)
        changed: bytes = atheris.Mutate(data, len(data) + 64)
        return changed

    mutate = TARGETS[name].mutator(bytewise)
    check = measured(name, counts)

    def mutator(data: bytes, max_size: int, seed: int) -> bytes:
        return mutate(random.Random(seed), data)[:max_size]

    atheris.Setup([sys.argv[0], *arguments], check, custom_mutator=mutator)
    confine(TARGETS[name].growth)
    atheris.Fuzz()


def child(name: str, engine: str, counts_path: str, arguments: list[str]) -> int:
    """Be the process of a target."""
    warnings.simplefilter("error")
    with Path(counts_path).open("r+b") as file:
        counts = mmap.mmap(file.fileno(), COUNTS.size)
    if engine == "random":
        inputs, seconds, seed = arguments
        return child_random(name, counts, int(inputs), float(seconds), int(seed))
    child_atheris(name, counts, arguments)
    return 0


# ── the process that starts them ─────────────────────────────────────────────────────────────────────────────────────


def run_target(name: str, engine: str, *, seconds: float, inputs: int, seed: int) -> Result:
    """Run a target until its time is over, or too much of it fails."""
    from targets import TARGETS

    result = Result(name, engine)
    start = time.monotonic()
    while (left := seconds - (time.monotonic() - start)) >= 1 and len(result.failures) < MOST_FAILURES:
        number = len(result.failures)
        if engine == "random":
            arguments = [str(inputs), str(left), str(seed + number)]
        else:
            folder = prepare_corpus(name)
            arguments = [
                f"-max_total_time={int(left)}",
                f"-artifact_prefix={FAILURES}/{name}-",
                f"-seed={seed + number + 1}",
                f"-max_len={TARGETS[name].largest}",
                "-len_control=0",  # the structure of short inputs would be cut off
                "-mutate_depth=2",
                "-timeout=20",
                "-print_final_stats=1",
                str(folder),
            ]
        if not run_child(result, arguments):
            break
    result.seconds = time.monotonic() - start
    if engine == "atheris":
        result.corpus = sum(1 for _ in (CORPUS / name).iterdir())
    return result


def prepare_corpus(name: str) -> Path:
    """The folder of a target's corpus, with everything that it starts from."""
    from targets import TARGETS

    folder = CORPUS / name
    folder.mkdir(parents=True, exist_ok=True)
    for data in TARGETS[name].seeds():
        path = folder / hashlib.sha1(data, usedforsecurity=False).hexdigest()
        if not path.exists():
            path.write_bytes(data)
    return folder


def run_child(result: Result, arguments: list[str]) -> bool:
    """Start a process; whether it found something."""
    before = {path.name for path in FAILURES.iterdir()}
    # In memory where there is such a folder; a process that libFuzzer ends leaves its files behind.
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        counts_path = Path(folder) / "counts"
        counts_path.write_bytes(bytes(COUNTS.size))
        start = forked if result.engine == "random" else executed
        code, output = start(result.target, result.engine, counts_path, arguments)
        inputs, accepted, slowest = COUNTS.unpack(counts_path.read_bytes())
    result.inputs += inputs
    result.accepted += accepted
    result.slowest = max(result.slowest, slowest / 1e6)
    seen = [int(number) for number in re.findall(r"\bcov: (\d+)", output)]
    if seen:
        result.edges = max(result.edges or 0, *seen)
        result.new = result.edges - seen[0] if result.new is None else result.new + seen[-1] - seen[0]
    artifacts = sorted({path.name for path in FAILURES.iterdir()} - before)
    if not code and not artifacts:
        return False
    for artifact in artifacts or ["none"]:
        result.failures.append(keep(result.target, artifact, output))
    return True


def executed(name: str, engine: str, counts: Path, arguments: list[str]) -> tuple[int, str]:
    """Run a target in a fresh process, so that what it imports can be watched; exit code and output."""
    command = [sys.executable, str(HERE / "run.py"), "--child", name, engine, str(counts), *arguments]
    done = subprocess.run(  # noqa: S603 - it is this file
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        env={**os.environ, "TMPDIR": str(counts.parent)},
    )
    return done.returncode, done.stdout


def forked(name: str, engine: str, counts: Path, arguments: list[str]) -> tuple[int, str]:
    """Run a target in a fork, which need not import anything; exit code and output."""
    output = counts.with_name("output")
    process = os.fork()
    if not process:
        code = 1
        with output.open("w") as file:
            sys.stderr = file
            tempfile.tempdir = str(counts.parent)
            try:
                code = child(name, engine, str(counts), arguments)
            except BaseException:  # noqa: BLE001 - nothing may get out of the fork
                traceback.print_exc()
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return code, output.read_text() if output.exists() else ""


def keep(name: str, artifact: str, output: str) -> str:
    """Keep an input that failed under a name that does not change, and what was printed beside it."""
    path = FAILURES / artifact
    data = path.read_bytes() if path.exists() else b""
    kept = FAILURES / f"{name}-{hashlib.sha1(data, usedforsecurity=False).hexdigest()[:12]}"
    if path.exists():
        path.rename(kept)
    lines = [line for line in output.splitlines() if not re.match(r"#\d+\t|\s+0x|MS:|INFO: ", line)]
    command = f"python fuzz/run.py --again {os.path.relpath(kept)}"
    kept.with_suffix(".txt").write_text("\n".join([command, "", *lines[-60:]]) + "\n")
    return kept.name


def again(path: Path) -> int:
    """Run one kept input."""
    from targets import TARGETS

    name = max((name for name in TARGETS if path.name.startswith(name)), key=len)
    print(f"{name}: {'accepted' if TARGETS[name].check(path.read_bytes()) else 'refused'}")
    return 0


def table(results: list[Result]) -> str:
    """The results for people."""
    head = "target                  inputs   per s  accepted  corpus  edges   new  slowest  failures"
    rows = [
        f"{r.target:<20} {r.inputs:>9,} {r.inputs / max(r.seconds, 0.01):>7,.0f} {r.accepted / max(r.inputs, 1):>9.0%} "
        f"{r.corpus or '–':>7} {r.edges or '–':>6} {'–' if r.new is None else r.new:>5} {r.slowest:>6.2f} s  "
        f"{', '.join(r.failures) or '–'}"
        for r in results
    ]
    return "\n".join([head, *rows, f"{'all':<20} {sum(r.inputs for r in results):>9,}"])


def main() -> int:
    """Run what was asked for; 1 when anything failed."""
    if sys.argv[1:2] == ["--child"]:
        return child(*sys.argv[2:5], sys.argv[5:])
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=10, help="time for all targets together")
    parser.add_argument("--inputs", type=int, default=1 << 60, help="at most so many altered inputs a target (random)")
    parser.add_argument("--target", action="append", help="only this one; may be given several times")
    parser.add_argument("--engine", choices=("atheris", "random"), help="atheris where it is installed")
    parser.add_argument("--seed", type=int, default=1, help="of all randomness")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--again", type=Path, help="run one kept input")
    options = parser.parse_args()
    if options.again:
        return again(options.again)
    from targets import TARGETS

    engine = options.engine or ("atheris" if find_spec("atheris") else "random")
    names = options.target or list(TARGETS)
    FAILURES.mkdir(exist_ok=True)
    results = []
    for name in names:
        seconds = options.minutes * 60 / len(names)
        results.append(run_target(name, engine, seconds=seconds, inputs=options.inputs, seed=options.seed))
        print(table(results[-1:]).splitlines()[1], flush=True)
    print(f"\n{table(results)}")
    if options.json:
        options.json.write_text(json.dumps([asdict(result) for result in results]))
    for result in results:
        for failure in result.failures:
            print(f"\n{(FAILURES / failure).with_suffix('.txt').read_text()}")
    return 1 if any(result.failures for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
