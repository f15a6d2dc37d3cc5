"""Formats: how named arrays become header sections and segments, and how they are found again.

Rules: a format is chosen by registered name and carried in the frame by that name; encoding keeps names, order, dtypes
and shapes exactly; decoding checks everything before it hands out the first array.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from fedpost.errors import EncodeError, LimitError
from fedpost.frame import Frame, Limits
from fedpost.registry import Registry
from fedpost.tensors.dtypes import dtype_name

__all__ = [
    "FORMATS",
    "MAX_ELEMENTS",
    "MAX_RANK",
    "Array",
    "Encoded",
    "Format",
    "MemoryTensors",
    "TensorSource",
    "TensorSpec",
    "check_fortran",
    "check_range",
    "in_c_order",
    "name_of",
]

MAX_RANK: Final = 64
MAX_ELEMENTS: Final = 1 << 60
"""Of a dimension, and of the product of those that are not 0 and an element's size: beyond it array libraries wrap."""

Array = np.ndarray[Any, np.dtype[Any]]
"""An array of any shape and element type."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What a tensor is, without its values.

    Attributes:
        name: Unique within a model.
        dtype: Element type.
        shape: Length of each dimension; ``()`` for a scalar.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size in bytes, uncompressed."""
        return self.size * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}{list(self.shape)}"


def name_of(name: object, array: object) -> str:
    """The name of an array's element type, once it is known to be an array with a name that is text.

    Raises:
        EncodeError: It is not, or its element type has no bytes.
    """
    if not isinstance(name, str):
        raise EncodeError(f"tensor name {name!r} is not text")
    if isinstance(array, np.ma.MaskedArray):
        raise EncodeError("a masked array would lose its mask", where=f"tensor {name!r}", hint="Fill it first.")
    if not isinstance(array, np.ndarray | np.generic):
        raise EncodeError(f"{type(array).__name__} is not a NumPy array", where=f"tensor {name!r}")
    try:
        return dtype_name(array.dtype)
    except EncodeError as error:
        raise EncodeError(error.what, where=f"tensor {name!r}", hint=error.hint) from error


def in_c_order(array: Array) -> Array:
    """The array with its elements in C order: itself where they lie so, else a copy.

    Where a structure is copied the gaps between its fields are zero, not what memory held before.
    """
    if array.flags.c_contiguous:
        return array
    if array.dtype.names is None:
        return np.ascontiguousarray(array)
    out: Array = np.zeros(array.shape, array.dtype)
    out[...] = array
    return out


@dataclass(frozen=True, slots=True)
class Encoded:
    """What a format makes of tensors.

    Attributes:
        sections: Header sections, by name.
        segments: C-contiguous buffers of bytes; they refer to the tensors' own memory where they can.
        dtypes: The element type of each segment that consists of elements of one type, and None for the others; or
            empty, when there is none.
    """

    sections: Mapping[str, object]
    segments: list[memoryview]
    dtypes: Sequence[np.dtype[Any] | None] = ()


class TensorSource(Protocol):
    """Tensors that can be read whole or by range, from memory or out of a frame."""

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        """What the tensors are, in order."""

    def arrays(self) -> dict[str, Array]:
        """Every tensor by name, in order; read-only."""

    def read(self, name: str, start: int, stop: int) -> Array:
        """Elements ``start`` to ``stop`` of the tensor flattened in C order: a 1-D array.

        Raises:
            KeyError: No such tensor.
            IndexError: The range is not within the tensor.
        """


def check_range(size: int, start: int, stop: int) -> None:
    """Check a range of elements of a tensor of ``size`` elements.

    Raises:
        IndexError: The range is not within the tensor.
    """
    if not 0 <= start <= stop <= size:
        raise IndexError(f"elements {start} to {stop} of a tensor of {size}")


def check_fortran(frame: Frame, segment: int, nbytes: int, limits: Limits, where: str) -> None:
    """Check that a tensor in Fortran order can be read by range: a range of it is spread over all of it.

    Where it is compressed every range decompresses the whole, so it is held to the budget of what is decompressed as
    one. Writers give what is compressed in C order.

    Raises:
        LimitError: It lies in a compressed segment, and is longer than a chunk may be.
    """
    if nbytes > limits.max_chunk and frame.coding(segment) != "none":
        what = f"{nbytes} compressed bytes in Fortran order, {limits.max_chunk} allowed"
        raise LimitError(what, where=where, hint="Send it in C order.")


class MemoryTensors:
    """Arrays that are in memory already, as a :class:`TensorSource`.

    Args:
        tensors: The arrays by name; they are referenced, not copied.
    """

    __slots__ = ("_tensors",)

    def __init__(self, tensors: Mapping[str, Array]) -> None:
        self._tensors = tensors

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        """What the tensors are, in order."""
        return tuple(TensorSpec(name, array.dtype, array.shape) for name, array in self._tensors.items())

    def arrays(self) -> dict[str, Array]:
        """The arrays themselves."""
        return dict(self._tensors)

    def read(self, name: str, start: int, stop: int) -> Array:
        """Elements ``start`` to ``stop`` of an array flattened in C order."""
        array = self._tensors[name]
        check_range(array.size, start, stop)
        if array.flags.c_contiguous:
            return array.reshape(-1)[start:stop]
        return array.flat[start:stop]  # flattening it would copy all of it for each range


class Format(Protocol):
    """The contract of a tensor format."""

    @property
    def name(self) -> str:
        """The registered name, as frames carry it."""

    def encode(self, tensors: Mapping[str, Array]) -> Encoded:
        """Turn named arrays into sections and segments.

        Raises:
            EncodeError: An array's element type has no bytes, or a name is not text.
        """

    def decode(self, frame: Frame, limits: Limits) -> TensorSource:
        """Check a frame's tensors and make them readable.

        Raises:
            DecodeError: The tables lie about the segments, or go over the limits.
        """

    def stored_sizes(self, frame: Frame, source: TensorSource) -> dict[str, int]:
        """How many stored bytes of the frame's segments each tensor takes; shared bytes are shared out by size."""


FORMATS: Final[Registry[str, Format]] = Registry("format")
