"""What a reader has: changes on top of a base, decoded as far as they are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from fedpost.codecs.kernels.flat import Floats
from fedpost.errors import DecodeError
from fedpost.tensors import Array, TensorSource, TensorSpec
from fedpost.tensors.format import check_range

__all__ = ["CHUNK", "Added", "added"]

CHUNK: Final = 1 << 19
"""Elements that are rounded at a time."""
_AHEAD: Final = 1 << 19
"""Elements that are decoded at a time when a tensor is read by range."""
_NOTHING_AHEAD: Final[tuple[str | None, int, Floats]] = (None, 0, np.empty(0, np.float32))


class Added:
    """The tensors of an update, as a source; what is read of a change is decoded then.

    Args:
        source: The update as it was sent.
        base: What it changes.
        specs: The tensors, in the order in which they were sent.
        kept: Names of what was sent as it is.
        unpack_range: Decodes elements of a change, float32, flattened in C order, of a tensor's bytes, its number, its
            shape, the first element and one past the last.
    """

    __slots__ = ("_ahead", "_base", "_kept", "_numbers", "_sizes", "_source", "_specs", "_unpack_range", "specs")

    def __init__(
        self,
        source: TensorSource,
        base: TensorSource,
        specs: tuple[TensorSpec, ...],
        kept: frozenset[str],
        unpack_range: Callable[[memoryview, int, tuple[int, ...], int, int], Floats],
    ) -> None:
        self._source = source
        self._base = base
        self._unpack_range = unpack_range
        self._kept = kept
        self._specs = {spec.name: spec for spec in specs}
        self._numbers = {spec.name: number for number, spec in enumerate(specs)}
        self._sizes = {spec.name: spec.size for spec in source.specs}
        self._ahead = _NOTHING_AHEAD
        self.specs = specs

    def arrays(self) -> dict[str, Array]:
        """Every tensor by name, in order, of the base's types and shapes; read-only.

        Raises:
            DecodeError: A change's bytes are not of a tensor of that shape.
        """
        return {spec.name: self.read(spec.name, 0, spec.size).reshape(spec.shape) for spec in self.specs}

    def read(self, name: str, start: int, stop: int) -> Array:
        """Elements ``start`` to ``stop`` of a tensor flattened in C order: 1-D, of the base's type, read-only.

        Raises:
            DecodeError: As :meth:`arrays`, as far as the bytes were read.
        """
        if name in self._kept:
            return self._source.read(name, start, stop)
        spec = self._specs[name]
        check_range(spec.size, start, stop)
        if spec.dtype.itemsize < np.dtype(np.float32).itemsize and stop - start > CHUNK:
            return self._rounded(spec, start, stop)
        change = self._changes(spec, start, stop)
        out = added(self._base.read(name, start, stop), change, spare=self._ahead[0] is None)
        out.flags.writeable = False  # as every tensor that was received
        return out

    def _rounded(self, spec: TensorSpec, start: int, stop: int) -> Array:
        """Much of a narrow type, part by part: the sums in float32 would be twice as large."""
        out = np.empty(stop - start, spec.dtype)
        for first in range(start, stop, CHUNK):
            last = min(first + CHUNK, stop)
            change = self._changes(spec, first, last)
            out[first - start : last - start] = added(self._base.read(spec.name, first, last), change)
        out.flags.writeable = False
        return out

    def _changes(self, spec: TensorSpec, start: int, stop: int) -> Floats:
        """Elements of a change. A reader goes from front to back, so what follows is decoded as well and kept."""
        name, first, values = self._ahead
        if name != spec.name or start < first or stop > first + values.size:
            first, last = start, max(stop, min(start + _AHEAD, spec.size))
            data = self._source.read(spec.name, 0, self._sizes[spec.name])
            packed, number = np.ascontiguousarray(data).data, self._numbers[spec.name]
            try:
                values = self._unpack_range(packed, number, spec.shape, first, last)
            except DecodeError as error:
                raise type(error)(error.what, where=f"tensor {spec.name!r}", hint=error.hint) from error
            # What was read to its end is not kept: there may be many sources.
            self._ahead = (spec.name, first, values) if stop < last else _NOTHING_AHEAD
        elif stop == first + values.size:
            self._ahead = _NOTHING_AHEAD
        return values[start - first : stop - first]


def added(base: Array, change: Floats, *, spare: bool = False) -> Array:
    """One addition an element, rounded to the base's type; in the change's memory where that may be."""
    wide = np.float64 if base.dtype == np.float64 else np.float32
    with np.errstate(over="ignore"):
        total: Array = np.add(base, change, out=change if spare and wide is np.float32 else None, dtype=wide)
        return total.astype(base.dtype, copy=False)
