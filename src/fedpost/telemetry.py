"""What happened, how long it took and how many bytes it was: records, and the sinks that take them.

Rules: nothing is recorded unless a sink was given; records are typed and go to JSON Lines (NaN and infinity become
null there); a :class:`Telemetry` is passed as an argument, never found in a global. Byte counts in :class:`Transfer`
are the ledger: their sum over a message is that message's size on the wire.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Protocol, Self

import msgspec

_TAIL: Final = 1 << 16

__all__ = ["NO_TELEMETRY", "Event", "JsonLinesSink", "Record", "Sink", "Span", "Telemetry", "Transfer", "read_records"]

Scalar = bool | int | float | str | None


class _Labelled(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    at: float
    """Seconds since the epoch."""
    round: int | None = None
    site: str | None = None


class Span(_Labelled, frozen=True, kw_only=True, omit_defaults=True, tag="span", tag_field="kind"):
    """One stage of work.

    Attributes:
        stage: ``encode``, ``send``, ``verify``, ``decode``, ``train``, ``aggregate``, ``evaluate``, …
        seconds: How long it took.
    """

    stage: str
    seconds: float


class Transfer(_Labelled, frozen=True, kw_only=True, omit_defaults=True, tag="transfer", tag_field="kind"):
    """Bytes of one tensor, or of the rest of a message, that crossed the wire.

    Attributes:
        direction: ``down`` from the server to a site, ``up`` the other way.
        message: The type of the message.
        tensor: The tensor's name, or None for headers, padding and whatever is not a tensor.
        raw: Bytes as the model holds them; 0 for what is not a tensor.
        stored: Bytes on the wire.
    """

    direction: Literal["down", "up"]
    message: str
    tensor: str | None = None
    raw: int
    stored: int


class Event(_Labelled, frozen=True, kw_only=True, omit_defaults=True, tag="event", tag_field="kind"):
    """Something that happened once.

    Attributes:
        name: ``run_started``, ``site_joined``, ``round_started``, ``result_accepted``, ``result_refused``,
            ``round_ended``, ``run_ended``, …
        values: What there is to say of it.
    """

    name: str
    values: dict[str, Scalar] = {}


Record = Span | Transfer | Event


class Sink(Protocol):
    """Takes records, in the order in which they were made."""

    def record(self, record: Record) -> None:
        """Take one record. It must not block for long: it runs inside the work that it tells of."""


class Telemetry:
    """Makes records and hands them to sinks.

    Args:
        sinks: Who takes the records; none means that nothing is measured.
        round: The label that every record gets, unless it names its own.
        site: Likewise.
    """

    __slots__ = ("round", "sinks", "site")

    def __init__(self, *sinks: Sink, round: int | None = None, site: str | None = None) -> None:  # noqa: A002 - the label's name
        self.sinks: Final = sinks
        self.round: Final = round
        self.site: Final = site

    def labelled(self, *, round: int | None = None, site: str | None = None) -> Telemetry:  # noqa: A002 - the label's name
        """The same sinks with other labels; a label not given stays."""
        return Telemetry(
            *self.sinks, round=self.round if round is None else round, site=self.site if site is None else site
        )

    @contextmanager
    def span(self, stage: str) -> Iterator[None]:
        """Time a stage. It is recorded also when it fails."""
        if not self.sinks:
            yield
            return
        start = time.perf_counter()
        try:
            yield
        finally:
            self.spent(stage, time.perf_counter() - start)

    def spent(self, stage: str, seconds: float) -> None:
        """Record a stage that was timed elsewhere, as on a site."""
        if self.sinks:
            self._emit(Span(at=time.time(), round=self.round, site=self.site, stage=stage, seconds=seconds))

    def transfer(
        self, direction: Literal["down", "up"], message: str, tensor: str | None, *, raw: int, stored: int
    ) -> None:
        """Record bytes on the wire."""
        if self.sinks:
            self._emit(
                Transfer(
                    at=time.time(),
                    round=self.round,
                    site=self.site,
                    direction=direction,
                    message=message,
                    tensor=tensor,
                    raw=raw,
                    stored=stored,
                )
            )

    def event(self, name: str, values: Mapping[str, Scalar] | None = None) -> None:
        """Record that something happened."""
        if self.sinks:
            self._emit(Event(at=time.time(), round=self.round, site=self.site, name=name, values=dict(values or {})))

    def _emit(self, record: Record) -> None:
        for sink in self.sinks:
            sink.record(record)


NO_TELEMETRY: Final = Telemetry()


class JsonLinesSink:
    """Writes one JSON object a line, and every event through to the file, so that the file is whole after a kill.

    Args:
        path: The file; it is made, or appended to.
    """

    def __init__(self, path: Path) -> None:
        _cut_unfinished_line(path)
        self._file = path.open("ab")
        self._encoder = msgspec.json.Encoder()

    def record(self, record: Record) -> None:
        """Append the record."""
        self._file.write(self._encoder.encode(record) + b"\n")
        if isinstance(record, Event):
            self._file.flush()

    def close(self) -> None:
        """Write out what is buffered."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _cut_unfinished_line(path: Path) -> None:
    """Remove what a kill left behind the last line that is whole, so that the next record starts a line of its own."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(end - _TAIL, 0)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        file.truncate(end)


def read_records(path: Path) -> Iterator[Record]:
    """The records of a JSON Lines file; a last line that was cut off by a kill is left out."""
    decoder = msgspec.json.Decoder(Record)
    with path.open("rb") as lines:
        for line in lines:
            if line.endswith(b"\n"):
                yield decoder.decode(line)
