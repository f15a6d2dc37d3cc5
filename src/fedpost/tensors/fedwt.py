"""``fedwt``, the native tensor format: tensors are segments of the frame itself, described by a table by column.

Rules (``docs/spec/frame.md``, "Tensors"): a segment holds tensors of one element type, back to back in table order, and
nothing else. Tensors of 4 KiB and more have a segment each and are never copied; smaller ones are gathered.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec
import numpy as np

from fedpost.errors import DecodeError, FedpostError, LimitError
from fedpost.frame import Frame, Limits
from fedpost.frame.header import COUNTED_FROM, array_length
from fedpost.tensors.dtypes import dtype_from_name
from fedpost.tensors.format import (
    FORMATS,
    MAX_ELEMENTS,
    MAX_RANK,
    Array,
    Encoded,
    TensorSource,
    TensorSpec,
    check_fortran,
    check_range,
    in_c_order,
    name_of,
)

__all__ = ["Fedwt", "FedwtTensors"]

SECTION: Final = "tensors"
_GATHER_BELOW: Final = 4096
_SHARED_SEGMENT: Final = 1 << 20
_USUAL_RANK: Final = 4


class _Table(msgspec.Struct, array_like=True, frozen=True):
    names: list[str]
    ranks: bytes
    dims: list[int]
    segments: list[int]
    dtypes: list[str]
    segment_dtypes: list[int]
    fortran: list[int] = []


class _Outline(msgspec.Struct, array_like=True, frozen=True):
    """A table whose columns of unknown length were passed over, not made."""

    names: msgspec.Raw
    ranks: bytes
    dims: msgspec.Raw
    segments: msgspec.Raw
    dtypes: msgspec.Raw
    segment_dtypes: msgspec.Raw
    fortran: msgspec.Raw = msgspec.Raw(b"\x90")


_DECODER: Final = msgspec.msgpack.Decoder(_Table)
_OUTLINES: Final = msgspec.msgpack.Decoder(_Outline)


class _Writer:
    """Places tensors into segments: large ones alone, small ones of a type together."""

    def __init__(self) -> None:
        self.segments: list[memoryview | list[bytes]] = []
        self.segment_dtypes: list[int] = []
        self.dtypes: dict[str, int] = {}
        self._numbers: dict[np.dtype[Any], int] = {}
        self._open: dict[int, int] = {}
        self._filled: defaultdict[int, int] = defaultdict(int)

    def types(self) -> list[np.dtype[Any]]:
        known = [dtype_from_name(name) for name in self.dtypes]
        return [known[number] for number in self.segment_dtypes]

    def number(self, name: object, array: Array) -> int:
        if type(name) is str and type(array) is np.ndarray:
            number = self._numbers.get(array.dtype)
            if number is not None:
                return number
        number = self.dtypes.setdefault(name_of(name, array), len(self.dtypes))
        self._numbers[array.dtype] = number
        return number

    def alone(self, dtype: int, data: memoryview) -> int:
        self.segments.append(data)
        self.segment_dtypes.append(dtype)
        return len(self.segments) - 1

    def gathered(self, dtype: int, data: bytes) -> int:
        index = self._open.get(dtype)
        if index is None or self._filled[index] >= _SHARED_SEGMENT:
            index = self._open[dtype] = len(self.segments)
            self.segments.append([])
            self.segment_dtypes.append(dtype)
        pieces = self.segments[index]
        assert isinstance(pieces, list)  # noqa: S101 - only lists are ever open
        pieces.append(data)
        self._filled[index] += len(data)
        return index


class Fedwt:
    """The native format; see the module's docstring."""

    name: Final = "fedwt"

    def encode(self, tensors: Mapping[str, Array]) -> Encoded:
        """Describe the tensors and refer to their memory; only what is small or not contiguous is copied.

        Raises:
            EncodeError: A name is not text, or an element type has no bytes.
        """
        writer = _Writer()
        ranks = bytearray()
        dims: list[int] = []
        segments: list[int] = []
        fortran: list[int] = []
        for index, (name, array) in enumerate(tensors.items()):
            dtype = writer.number(name, array)
            ranks.append(array.ndim)
            dims += array.shape
            if array.nbytes < _GATHER_BELOW:
                segments.append(writer.gathered(dtype, in_c_order(array).tobytes()))
                continue
            flags = array.flags
            if not flags.c_contiguous:
                if flags.f_contiguous:
                    fortran.append(index)
                    array = array.T  # noqa: PLW2901 - the same memory, in C order
                else:
                    array = in_c_order(array)  # noqa: PLW2901 - there is no way to refer to strided memory
            segments.append(writer.alone(dtype, np.asarray(array).reshape(-1).view(np.uint8).data))
        table = _Table(list(tensors), bytes(ranks), dims, segments, list(writer.dtypes), writer.segment_dtypes, fortran)
        joined = [memoryview(b"".join(s)) if isinstance(s, list) else s for s in writer.segments]
        return Encoded({SECTION: table}, joined, writer.types())

    def decode(self, frame: Frame, limits: Limits) -> FedwtTensors:
        """Check the table against the segments.

        Raises:
            DecodeError: They do not fit each other exactly.
            LimitError: More tensors than allowed.
        """
        return FedwtTensors(frame, limits)

    def stored_sizes(self, frame: Frame, source: TensorSource) -> dict[str, int]:  # noqa: ARG002 - the contract
        """Stored bytes of each tensor: its segment's, or its share of a segment that it shares."""
        if not isinstance(source, FedwtTensors):
            raise TypeError(type(source))
        return source.stored_sizes()


class FedwtTensors:
    """The tensors of a frame, as read-only views of its segments.

    Args:
        frame: The frame that holds them.
        limits: The receiver's budget.

    Raises:
        DecodeError: The table and the segments do not fit each other exactly.
        LimitError: More tensors than allowed.
    """

    __slots__ = ("_dtypes", "_fortran", "_frame", "_index", "_names", "_segments", "_shapes", "_specs", "_starts")

    def __init__(self, frame: Frame, limits: Limits) -> None:
        table = frame.decode_section(SECTION, lambda packed: _table(packed, len(frame), limits))
        count = len(table.names)
        where = "tensor table"
        if count > limits.max_tensors:
            raise LimitError(f"{count} tensors, {limits.max_tensors} allowed", where=where)
        if not len(table.ranks) == len(table.segments) == count or sum(table.ranks) != len(table.dims):
            raise DecodeError("its columns have different lengths", where=where)
        if len(set(table.names)) < count:
            raise DecodeError("a name comes twice", where=where)
        if count and max(table.ranks) > MAX_RANK:
            raise DecodeError(f"{max(table.ranks)} dimensions, {MAX_RANK} allowed", where=where)
        if table.dims and (min(table.dims) < 0 or max(table.dims) > MAX_ELEMENTS):
            raise DecodeError("a dimension is negative, or too long", where=where)
        dtypes = _segment_dtypes(table, len(frame))
        self._frame = frame
        self._names = table.names
        self._segments = table.segments
        self._shapes, self._starts, self._dtypes = _place(table, dtypes, [frame.raw_size(i) for i in range(len(frame))])
        self._fortran = frozenset(table.fortran)
        if self._fortran and not 0 <= min(self._fortran) <= max(self._fortran) < count:
            raise DecodeError("the column of Fortran-ordered tensors points past the end", where=where)
        for number in self._fortran:
            nbytes = math.prod(self._shapes[number]) * self._dtypes[number].itemsize
            check_fortran(frame, self._segments[number], nbytes, limits, f"tensor {self._names[number]!r}")
        self._index: dict[str, int] | None = None
        self._specs: tuple[TensorSpec, ...] | None = None

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        """What the tensors are, in order."""
        if self._specs is None:
            self._specs = tuple(map(TensorSpec, self._names, self._dtypes, self._shapes))
        return self._specs

    def arrays(self) -> dict[str, Array]:
        """Every tensor by name, in order: read-only views, zero-copy where the segment is not compressed.

        Raises:
            DecodeError: A segment's digest does not match, or a chunk is damaged.
        """
        views = [self._frame.segment(index) for index in range(len(self._frame))]
        buffers = [views[index] for index in self._segments]
        # One C-level loop: with 10,000 tensors the interpreter's own steps are what decoding costs.
        views_of: Callable[..., Array] = np.ndarray
        arrays = dict(zip(self._names, map(views_of, self._shapes, self._dtypes, buffers, self._starts), strict=True))
        for index in self._fortran:
            name = self._names[index]
            arrays[name] = np.ndarray(
                self._shapes[index], self._dtypes[index], buffers[index], self._starts[index], order="F"
            )
        return arrays

    def read(self, name: str, start: int, stop: int) -> Array:
        """Elements ``start`` to ``stop`` of a tensor flattened in C order; only the bytes that hold them are read.

        Raises:
            DecodeError: As :meth:`arrays`.
        """
        if self._index is None:
            self._index = {name: index for index, name in enumerate(self._names)}
        index = self._index[name]
        dtype, first, shape = self._dtypes[index], self._starts[index], self._shapes[index]
        check_range(math.prod(shape), start, stop)
        if index in self._fortran:
            whole = self._frame.read(self._segments[index], first, first + math.prod(shape) * dtype.itemsize)
            return np.ndarray(shape, dtype, whole, order="F").flat[start:stop]
        end = first + stop * dtype.itemsize
        return np.ndarray(
            (stop - start,), dtype, self._frame.read(self._segments[index], first + start * dtype.itemsize, end)
        )

    def layout(self) -> Iterator[tuple[TensorSpec, int, bool]]:
        """Each tensor with its segment, and whether it lies there in Fortran order.

        A segment holds its tensors back to back, in this order.
        """
        for index, (spec, segment) in enumerate(zip(self.specs, self._segments, strict=True)):
            yield spec, segment, index in self._fortran

    def stored_sizes(self) -> dict[str, int]:
        """Stored bytes of each tensor; a shared segment's bytes are shared out by size."""
        frame = self._frame
        sizes = {}
        for spec, segment in zip(self.specs, self._segments, strict=True):
            raw = frame.raw_size(segment)
            sizes[spec.name] = round(spec.nbytes * frame.stored_size(segment) / raw) if raw else 0
        return sizes


def _table(packed: msgspec.Raw, segments: int, limits: Limits) -> _Table:
    """The table; the columns of a large one are counted before they are made, since a byte can cost fifty in memory."""
    if len(memoryview(packed)) > COUNTED_FROM:
        table, where = _OUTLINES.decode(packed), "tensor table"
        count, dims = array_length(table.names), sum(table.ranks)
        if count > limits.max_tensors:
            raise LimitError(f"{count} tensors, {limits.max_tensors} allowed", where=where)
        if dims > _USUAL_RANK * limits.max_tensors:
            raise LimitError(f"{dims} dimensions, {_USUAL_RANK * limits.max_tensors} allowed", where=where)
        columns = ((table.dims, dims), (table.segments, count), (table.segment_dtypes, segments))
        if len(table.ranks) != count or any(array_length(column) != length for column, length in columns):
            raise DecodeError("its columns have different lengths", where=where)
        if array_length(table.dtypes) > segments or array_length(table.fortran) > count:
            raise DecodeError("more element types than segments, or Fortran-ordered tensors than tensors", where=where)
    return _DECODER.decode(packed)


def _segment_dtypes(table: _Table, segments: int) -> list[np.dtype[Any]]:
    """The element type of each segment."""
    if len(table.dtypes) > segments:
        raise DecodeError(f"{len(table.dtypes)} element types for {segments} segments", where="tensor table")
    if len(table.segment_dtypes) != segments:
        raise DecodeError(f"element types for {len(table.segment_dtypes)} of {segments} segments", where="tensor table")
    try:
        known = [dtype_from_name(name) for name in table.dtypes]
    except FedpostError as error:
        raise type(error)(error.what, where="tensor table", hint=error.hint) from error
    if segments and not 0 <= min(table.segment_dtypes) <= max(table.segment_dtypes) < len(known):
        raise DecodeError("a segment's element type is not in the list", where="tensor table")
    return [known[number] for number in table.segment_dtypes]


def _place(
    table: _Table, segment_dtypes: list[np.dtype[Any]], sizes: list[int]
) -> tuple[list[tuple[int, ...]], list[int], list[np.dtype[Any]]]:
    """Shape, first byte within its segment, and element type of every tensor; segments must be filled exactly."""
    itemsizes = [dtype.itemsize for dtype in segment_dtypes]
    ends = [0] * len(sizes)
    shapes, starts, dtypes = [], [], []
    dims, position, count = table.dims, 0, len(sizes)
    for name, rank, segment in zip(table.names, table.ranks, table.segments, strict=True):
        if not 0 <= segment < count:
            raise DecodeError(f"it is in segment {segment} of {count}", where=f"tensor {name!r}")
        shape = tuple(dims[position : position + rank])
        position += rank
        start = ends[segment]
        nbytes = math.prod(shape) * itemsizes[segment]
        if not nbytes and math.prod(filter(None, shape)) * max(itemsizes[segment], 1) > MAX_ELEMENTS:
            raise DecodeError(f"the shape {shape} is too large", where=f"tensor {name!r}")
        ends[segment] = start + nbytes
        if start + nbytes > sizes[segment]:
            raise DecodeError(f"it goes past the end of segment {segment}", where=f"tensor {name!r}")
        shapes.append(shape)
        starts.append(start)
        dtypes.append(segment_dtypes[segment])
    if ends != sizes:
        index = next(i for i, (end, size) in enumerate(zip(ends, sizes, strict=True)) if end != size)
        raise DecodeError(f"its tensors fill {ends[index]} of {sizes[index]} bytes", where=f"segment {index}")
    return shapes, starts, dtypes


FORMATS.register(Fedwt.name, Fedwt())
