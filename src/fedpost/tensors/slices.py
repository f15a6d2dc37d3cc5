"""Tensors out of a frame that is still on its way: slices of them, as its parts come.

Rules: a header is read once all of it is there, with every check that a whole frame gets; memory is bounded by the
header, one part and one chunk, whatever the frame's size. **Values are provisional**: the digest of the part that
brought them was checked, and the header's, but not the digests of the segments. What comes of the values must not take
effect before :meth:`fedpost.frame.Transfer.open` has returned, and must be thrown away when that fails.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, Final, Protocol

import numpy as np

from fedpost.errors import DecodeError, IntegrityError, LimitError, UnsupportedError
from fedpost.frame import DEFAULT_LIMITS, Frame, Limits
from fedpost.frame.chunks import decompress
from fedpost.frame.header import Header, header_length, read_header, stored_sizes
from fedpost.tensors.fedwt import SECTION, FedwtTensors
from fedpost.tensors.format import Array, TensorSpec

__all__ = ["Place", "TensorSink", "TensorSlices"]

Place = slice | np.ndarray[Any, np.dtype[np.intp]]
"""Where elements lie in a tensor that is flattened in C order: from one to another, or each by its index."""

_ALIGNMENT: Final = 64
_BLOCK: Final = 1 << 16
"""Elements of a tensor in Fortran order at a time: the index of each takes several times its memory."""


class TensorSink(Protocol):
    """Takes tensors by slices; what an aggregation implements."""

    def begin(self, specs: tuple[TensorSpec, ...], pipeline: str) -> None:
        """Learn what will come, before anything of it does.

        Args:
            specs: The tensors, in order.
            pipeline: How they were made, as the frame says it; unless it begins with ``dense``, values are not the
                tensors themselves but what an update codec made of them.
        """

    def take(self, name: str, place: Place, values: Array) -> None:
        """Take some elements of a tensor; every element comes exactly once, and those of one tensor in its own order.

        Args:
            name: Whose they are.
            place: Where they belong in the tensor flattened in C order: ``flat[place] += values`` adds them up.
            values: 1-D, of the tensor's element type, read-only, and only valid during the call.
        """


class TensorSlices:
    """A :class:`fedpost.frame.Sink` that finds the tensors of the format ``fedwt`` in the bytes it is given.

    Attach it to a :class:`fedpost.frame.Transfer`, which takes parts in any order and gives on what is there without
    gaps. Slices of a segment that is not compressed are given on at once, those of a compressed one by the chunk.

    Args:
        sink: Takes the slices.
        limits: The receiver's budget.
    """

    def __init__(self, sink: TensorSink, limits: Limits = DEFAULT_LIMITS) -> None:
        self._sink = sink
        self._limits = limits
        self._head: bytearray | None = bytearray()
        self._runs: Iterator[_Run] = iter(())
        self._run: _Run | None = None
        self._tensors: _Tensors | None = None
        self._position = 0
        self._held = bytearray()

    @property
    def complete(self) -> bool:
        """Whether every tensor was given on to its end."""
        return self._head is None and self._run is None

    def write(self, offset: int, data: memoryview) -> None:
        """Take the frame's next bytes; see :meth:`fedpost.frame.Sink.write`.

        Args:
            offset: Where ``data`` begins in the frame.
            data: The bytes.

        Raises:
            UnsupportedError: The frame holds tensors of another format, which have no slices, or none.
            DecodeError: The header is wrong in any way, or a chunk is damaged.
        """
        if self._head is not None:
            self._head += data
            if (end := header_length(self._head, self._limits)) is None or len(self._head) < end:
                return
            head, self._head = self._head, None
            self._begin(head[:end])
            offset, data = end, memoryview(head)[end:].toreadonly()
        while self._run is not None and data.nbytes:
            taken = self._run.start - offset
            if taken > 0:  # padding before it
                if any(data[:taken]):
                    raise IntegrityError("padding between segments is not zero")
            else:
                taken = self._advance(self._run, data)
            offset, data = offset + min(taken, data.nbytes), data[taken:]

    def _begin(self, head: bytearray) -> None:
        """Lay out what follows the header."""
        minor, start, header = read_header(memoryview(bytes(head)), self._limits)
        sizes = stored_sizes(header, self._limits)
        empty: list[Sequence[memoryview]] = [()] * len(sizes)
        frame = Frame(bytes(start), header, empty, unverified=bytearray(), minor=minor)
        if SECTION not in frame.section_names:
            hint = "Only those of the format fedwt can be taken while they come; open the whole frame."
            raise UnsupportedError("the frame has no tensors that could be sliced", where="header", hint=hint)
        tensors = FedwtTensors(frame, self._limits)
        self._tensors = _Tensors(tensors, self._sink, self._limits)
        self._runs = _runs(header, sizes, start.nbytes, frame)
        self._sink.begin(tensors.specs, frame.section("pipeline", str, limit=self._limits.max_section))
        self._next_run()

    def _next_run(self) -> None:
        self._position = 0
        self._run = next(self._runs, None)

    def _advance(self, run: _Run, data: memoryview) -> int:
        """Take what belongs to a run; return how many bytes that is."""
        assert self._tensors is not None  # noqa: S101 - it came with the first run
        piece = data[: run.stored - self._position]
        self._position += piece.nbytes
        run.start += piece.nbytes
        if run.coding == "none":
            self._tensors.feed(run.segment, piece)
        elif piece.nbytes == run.stored:
            self._tensors.feed(run.segment, _inflate(run, piece))
        else:
            self._held += piece
            if self._position == run.stored:
                held, self._held = self._held, bytearray()
                self._tensors.feed(run.segment, _inflate(run, memoryview(held)))
        if self._position == run.stored:
            self._next_run()
        return piece.nbytes


class _Run:
    """Stored bytes that are given on together: a segment that is not compressed, or a chunk."""

    __slots__ = ("coding", "raw", "segment", "start", "stored")

    def __init__(self, segment: int, start: int, stored: int, raw: int, coding: str) -> None:
        self.segment = segment
        self.start = start
        self.stored = stored
        self.raw = raw
        self.coding = coding


def _runs(header: Header, sizes: list[int], end: int, frame: Frame) -> Iterator[_Run]:
    """Everything that is stored, in order; nothing is made before its turn."""
    table = header.segments
    rows = iter(table.chunks)
    for segment, stored in enumerate(sizes):
        start = end + -end % _ALIGNMENT
        end = start + stored
        coding, raw = frame.coding(segment), table.raw[segment]
        if coding != "none":
            row = next(rows)
            for number, (length, before) in enumerate(zip(row, accumulate(row, initial=0), strict=False)):
                plain = min(table.chunk, raw - number * table.chunk)
                # A chunk as long as its content is that content.
                yield _Run(segment, start + before, length, plain, coding if length < plain else "none")
        elif stored:
            yield _Run(segment, start, stored, raw, coding)


def _inflate(run: _Run, stored: memoryview) -> memoryview:
    try:
        return decompress([stored], run.coding, run.raw, run.raw, 0, run.raw)
    except DecodeError as error:
        raise type(error)(error.what, where=f"segment {run.segment}") from error


class _Tensors:
    """Cuts the bytes of segments into elements of tensors."""

    def __init__(self, tensors: FedwtTensors, sink: TensorSink, limits: Limits) -> None:
        self._sink = sink
        self._rest = bytearray()
        self._done = 0
        self._queues: dict[int, list[tuple[TensorSpec, bool]]] = {}
        for spec, segment, fortran in tensors.layout():
            if spec.dtype.itemsize > limits.max_chunk:
                text = f"elements of {spec.dtype.itemsize} bytes, {limits.max_chunk} allowed"
                raise LimitError(text, where=f"tensor {spec.name!r}")
            if spec.nbytes:
                self._queues.setdefault(segment, []).append((spec, fortran))
        for queue in self._queues.values():
            queue.reverse()  # the next one is at the end

    def feed(self, segment: int, data: memoryview) -> None:
        """Take the next bytes of a segment; they end with it at the latest."""
        queue = self._queues[segment]
        while data.nbytes:
            spec, fortran = queue[-1]
            itemsize = spec.dtype.itemsize
            left = (spec.size - self._done) * itemsize - len(self._rest)
            piece, data = data[:left], data[left:]
            if self._rest:
                need = itemsize - len(self._rest)
                self._rest += piece[:need]
                piece = piece[need:]
                if len(self._rest) == itemsize:
                    self._give(spec, memoryview(bytes(self._rest)), fortran=fortran)
                    self._rest.clear()
            if whole := piece.nbytes - piece.nbytes % itemsize:
                self._give(spec, piece[:whole], fortran=fortran)
            self._rest += piece[whole:]
            if self._done == spec.size:
                queue.pop()
                self._done = 0

    def _give(self, spec: TensorSpec, data: memoryview, *, fortran: bool) -> None:
        values = np.frombuffer(data, spec.dtype)
        start, self._done = self._done, self._done + values.size
        if not fortran:
            self._sink.take(spec.name, slice(start, self._done), values)
            return
        for first in range(0, values.size, _BLOCK):
            block = values[first : first + _BLOCK]
            numbers = np.arange(start + first, start + first + block.size)
            index = np.unravel_index(numbers, spec.shape, order="F")
            self._sink.take(spec.name, np.ravel_multi_index(index, spec.shape), block)
