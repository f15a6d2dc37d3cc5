"""Runs, each told in the few figures that it is compared with others by.

Rules: the end of a run leaves ``summary.json`` beside the ledger; it counts as long as the ledger has the size that it
had then, or is no more. Otherwise the ledger is read, in one pass. What a run's folder holds may be anything: a run
that cannot be read is an error that names it, and never stops the reading of another. So is one with figures that
nothing can have measured, such as bytes below zero: what is read can be added up, averaged and drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec

from fedpost.errors import DecodeError, LimitError
from fedpost.files import replace_file
from fedpost.report.rows import GREATEST, Bytes, Round, finished, planned
from fedpost.report.summary import RunSummary, Summarizer
from fedpost.report.units import plain
from fedpost.telemetry import read_records

__all__ = [
    "LEDGER",
    "SUMMARY",
    "Direction",
    "RunFigures",
    "RunsBeside",
    "figures_of",
    "keep_figures",
    "ledger_of",
    "lower_is_better",
    "read_run",
    "run_folders",
    "runs_beside",
]

LEDGER: Final = "ledger.jsonl"
SUMMARY: Final = "summary.json"

Scalar = bool | int | float | str | None
Direction = Literal["both", "up", "down"]

_VERSION: Final = 1
_MAX_SUMMARY: Final = 1 << 25
_MOST: Final = 20
_LOOKED_AT: Final = 500
_LEDGERS: Final = 64_000_000
_MOST_BYTES: Final = 1 << 63
_MOST_SECONDS: Final = 1e12
_PLAIN: Final = {"serialization": "fedwt", "compression": "none"}


class RunFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is compared with others by; ``summary.json`` is this as JSON.

    Attributes:
        version: Of this layout.
        run: Its id.
        name: What it is called: runs of one configuration have one name.
        status: As in :class:`~fedpost.report.RunSummary`.
        reason: Why it did not finish.
        started: Seconds since the epoch, or None when nothing was recorded.
        seconds: Wall time.
        settings: What the run said of itself when it started.
        sites: How many sites took part.
        bytes: On the wire, with what belongs to no round.
        rounds: By number, from the evaluation of the initial model on.
        ledger: Size in bytes of the ledger that it was made from.
    """

    version: int = _VERSION
    run: str
    name: str
    status: str
    reason: str | None
    started: float | None
    seconds: float
    settings: dict[str, Scalar]
    sites: int
    bytes: Bytes
    rounds: tuple[Round, ...]
    ledger: int | None = None

    @property
    def pipeline(self) -> str:
        """The update codec; format and compression as well where they are not the usual ones."""
        stages = [str(self.settings.get("update") or "unknown")]
        for key, usual in _PLAIN.items():
            said = str(self.settings.get(key) or usual)
            stages += [said] if said != usual else []
        return plain(" | ".join(stages))

    @property
    def finished_rounds(self) -> int:
        """Rounds that ended, without the evaluation of the initial model."""
        return finished(self.rounds)

    @property
    def planned_rounds(self) -> int | None:
        """Rounds that the run was to have, if it said so."""
        return planned(self.settings)

    @property
    def seconds_per_round(self) -> float | None:
        """The mean of the rounds that were timed, without the evaluation of the initial model."""
        spent = [row.seconds for row in self.rounds if row.round > 0 and row.seconds is not None]
        return sum(spent) / len(spent) if spent else None

    @property
    def ratio_down(self) -> float | None:
        """How many times smaller than raw tensors what was sent down was."""
        return self.bytes.raw_down / self.bytes.down if self.bytes.down and self.bytes.raw_down else None

    @property
    def ratio_up(self) -> float | None:
        """Likewise, up."""
        return self.bytes.raw_up / self.bytes.up if self.bytes.up and self.bytes.raw_up else None

    @property
    def ratio(self) -> float | None:
        """Likewise, both ways together."""
        return self.bytes.raw / self.bytes.wire if self.bytes.wire and self.bytes.raw else None

    @property
    def metrics(self) -> tuple[str, ...]:
        """What was measured in a round, accuracy and loss first."""
        usual = [name for name in ("accuracy", "loss", "train_loss") if self.values(name)]
        return (*usual, *sorted({name for row in self.rounds for name in row.metrics}))

    def values(self, metric: str) -> list[tuple[int, float]]:
        """Round and value, for rounds that have the metric: ``accuracy``, ``loss``, ``train_loss`` or any other."""
        return [(row.round, value) for row in self.rounds if (value := _value(row, metric)) is not None]

    def final(self, metric: str) -> float | None:
        """The last value."""
        values = self.values(metric)
        return values[-1][1] if values else None

    def best(self, metric: str) -> tuple[int, float] | None:
        """Round and value of the best, the first of several that are equal."""
        sign = -1 if lower_is_better(metric) else 1
        return max(self.values(metric), key=lambda pair: sign * pair[1], default=None)

    def curve(self, metric: str, direction: Direction = "both") -> list[tuple[int, float]]:
        """Bytes that were sent up to the end of a round, and the value then; from the first round on."""
        points, sent = [], 0
        for row in self.rounds:
            sent += {"both": row.bytes.wire, "up": row.bytes.up, "down": row.bytes.down}[direction]
            value = _value(row, metric)
            if value is not None and sent and row.round > 0:
                points.append((sent, value))
        return points


class RunsBeside(NamedTuple):
    """Other runs of the same name.

    Attributes:
        figures: The latest ones, the newest first.
        left_out: How many could not be looked at: without a summary, their ledgers are too large; or broken.
    """

    figures: tuple[RunFigures, ...] = ()
    left_out: int = 0


def lower_is_better(metric: str) -> bool:
    """Whether a metric is better the lower it is: a loss, an error, a perplexity."""
    words = metric.lower().replace("-", "_").split("_")
    return any(part in metric.lower() for part in ("loss", "error", "perplexity")) or bool(
        {"mse", "rmse", "mae", "err"} & set(words)
    )


def figures_of(summary: RunSummary, *, ledger: int | None = None) -> RunFigures:
    """The figures of a run that was summed up.

    Args:
        summary: What its ledger says.
        ledger: The ledger's size in bytes.
    """
    return RunFigures(
        run=summary.run,
        name=summary.name,
        status=summary.status,
        reason=summary.reason,
        started=summary.started,
        seconds=summary.seconds,
        settings=summary.settings,
        sites=len(summary.sites),
        bytes=summary.bytes,
        rounds=summary.rounds,
        ledger=ledger,
    )


def keep_figures(summary: RunSummary, folder: Path) -> None:
    """Write ``summary.json`` beside a run's ledger, which must be closed.

    Raises:
        OSError: It cannot be written.
    """
    ledger = folder / LEDGER
    figures = figures_of(summary, ledger=ledger.stat().st_size if ledger.exists() else None)
    replace_file(folder / SUMMARY, [memoryview(msgspec.json.format(msgspec.json.encode(figures), indent=1))])


def ledger_of(path: Path) -> Path:
    """The ledger of a run's folder; a file is taken for a ledger itself."""
    return path / LEDGER if path.is_dir() else path


def read_run(path: Path, *, most: int | None = None) -> RunFigures:
    """The figures of a run, from its summary if that is still true, else from its ledger.

    Args:
        path: The run's folder, or a ledger.
        most: Bytes of a ledger that are read at most; without it any.

    Raises:
        DecodeError: There is no run, nothing was recorded, the ledger holds something other than records, or there are
            figures that cannot be.
        LimitError: The ledger is larger than that.
        OSError: The ledger cannot be read.
    """
    ledger = ledger_of(path)
    try:
        size = ledger.stat().st_size
    except FileNotFoundError:
        size = None
    kept = _kept(path / SUMMARY) if path.is_dir() else None
    if kept is not None and size in {None, kept.ledger}:
        return _checked(kept, path / SUMMARY)
    if size is None:
        raise DecodeError("no ledger", where=str(path))
    if most is not None and size > most:
        raise LimitError(f"its ledger has {size} bytes, {most} are read", where=str(path))
    summarizer = Summarizer()
    try:
        for record in read_records(ledger):
            summarizer.add(record)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise DecodeError(f"not a ledger: {error}", where=str(ledger)) from error
    summary = summarizer.summary()
    if summary.started is None:
        raise DecodeError("nothing was recorded yet", where=str(ledger))
    return _checked(figures_of(summary, ledger=size), ledger)


def run_folders(path: Path) -> list[Path]:
    """The folder itself if it is a run's; else the runs in it, or itself when there are none or it cannot be read."""
    if not path.is_dir() or _is_run(path):
        return [path]
    try:
        return sorted(inner for inner in path.iterdir() if _is_run(inner)) or [path]
    except OSError:
        return [path]


def runs_beside(run: RunSummary, folder: Path) -> RunsBeside:
    """Other runs of the same name in the folder that a run's folder is in.

    Few and small files are read: the 500 folders that changed last, of these the 20 newest of that name, and no more
    than 64 MB of the ledgers of those that left no summary.

    Args:
        run: The run.
        folder: Its folder.
    """
    found: list[RunFigures] = []
    left_out, room = 0, _LEDGERS
    for path in _newest_first(folder.parent, but=folder):
        if len(found) == _MOST:
            break
        kept = _kept(path / SUMMARY)
        if kept is None and _name_in(path / LEDGER) != run.name:
            continue
        if kept is not None and kept.name != run.name:
            continue
        try:
            figures = read_run(path, most=room)
        except (DecodeError, OSError):
            left_out += 1
            continue
        if figures != kept:
            room -= figures.ledger or 0
        found.append(figures)
    return RunsBeside(tuple(sorted(found, key=lambda one: -(one.started or 0.0))), left_out)


def _newest_first(output: Path, *, but: Path) -> list[Path]:
    changed: list[tuple[int, Path]] = []
    try:
        folders = [path for path in output.iterdir() if path.name != but.name]
    except OSError:
        return []
    for path in folders:
        times = list(_times(path))
        if times:
            changed.append((max(times), path))
    return [path for _, path in sorted(changed, reverse=True)[:_LOOKED_AT]]


def _times(folder: Path) -> Iterator[int]:
    """When the files of a run changed; nothing for what is no run."""
    for name in (LEDGER, SUMMARY):
        try:
            yield (folder / name).stat().st_mtime_ns
        except OSError:
            continue


def _is_run(path: Path) -> bool:
    return any(True for _ in _times(path))


def _kept(path: Path) -> RunFigures | None:
    """A summary that is whole and of this version."""
    try:
        if path.stat().st_size > _MAX_SUMMARY:
            return None
        found = msgspec.json.decode(path.read_bytes(), type=RunFigures)
    except (OSError, msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return found if found.version == _VERSION else None


def _name_in(ledger: Path) -> str | None:
    """The name of the run that a ledger begins with."""
    try:
        first: Mapping[str, object] = getattr(next(read_records(ledger), None), "values", {})
    except (OSError, msgspec.MsgspecError, ValueError, RecursionError):
        return None
    name = first.get("name")
    return name if isinstance(name, str) else None


def _value(row: Round, metric: str) -> float | None:
    if metric in {"accuracy", "loss", "train_loss"}:
        value: float | None = getattr(row, metric)
        return value
    return row.metrics.get(metric)


def _checked(run: RunFigures, where: Path) -> RunFigures:
    """A run whose figures are possible.

    Raises:
        DecodeError: One is not.
    """
    if problem := _impossible(run):
        raise DecodeError(problem, where=str(where))
    return run


def _impossible(run: RunFigures) -> str | None:
    """What no run can have had, or None."""
    if not all(0 <= seconds <= _MOST_SECONDS for seconds in (run.started or 0.0, run.seconds)):
        return f"a time that cannot be: started at {run.started:g}, {run.seconds:g} s"
    if not 0 <= run.sites <= _MOST_BYTES:
        return f"{run.sites} sites"
    if problem := _impossible_bytes(run.bytes):
        return problem
    for row in run.rounds:
        if problem := _impossible_bytes(row.bytes) or _impossible_round(row):
            return f"round {row.round}: {problem}"
    return None


def _impossible_bytes(sent: Bytes) -> str | None:
    for name in sent.__struct_fields__:
        if not 0 <= (count := getattr(sent, name)) <= _MOST_BYTES:
            return f"{count} bytes {name.replace('_', ' ')}"
    return None


def _impossible_round(row: Round) -> str | None:
    if row.seconds is not None and not 0 <= row.seconds <= _MOST_SECONDS:
        return f"{row.seconds:g} s"
    metrics = {"accuracy": row.accuracy, "loss": row.loss, "train_loss": row.train_loss, **row.metrics}
    for name, value in metrics.items():
        if value is not None and not (math.isfinite(value) and abs(value) <= GREATEST):
            return f"{name} is {value:g}, which cannot be averaged or drawn"
    return None
