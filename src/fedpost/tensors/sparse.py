"""Sparse coding: the elements of an array whose bits are not all zero, and the gaps between them.

Rules (``docs/spec/formats.md``, "Sparse coding"): exact for any element type of a fixed size, since "zero" is about
bits, so −0.0 and the payloads of NaNs are kept; chosen only where it is smaller than the array; there is one way to
write an array, and a reader refuses every other. All arithmetic is NumPy's, over whole arrays.
"""

from __future__ import annotations

import struct
from typing import Any, Final, cast

import numpy as np

from fedpost.errors import DecodeError, TruncatedError, UnsupportedError

__all__ = ["SparseElements", "check_sparse", "sparse_bytes"]

_HEAD: Final = struct.Struct("<QB7s")
_NO_BYTES: Final = bytes(7)
_WIDTHS: Final = (1, 2, 4, 8)

_Elements = np.ndarray[Any, np.dtype[Any]]


def sparse_bytes(data: memoryview, itemsize: int) -> bytes | None:
    """Code an array's bytes; None when that would not make them fewer.

    Args:
        data: Elements, back to back.
        itemsize: Bytes of an element; at least 1 when there are any bytes.
    """
    # The smallest coding is a head and, for each element, a gap of one byte.
    if data.nbytes <= _HEAD.size:
        return None
    elements = _elements(data, itemsize)
    filled = _filled(elements)
    if _HEAD.size + int(np.count_nonzero(filled)) * (itemsize + 1) >= data.nbytes:
        return None
    indices = np.flatnonzero(filled)
    gaps = np.diff(indices, prepend=-1) - 1
    width = _width(int(gaps.max(initial=0)))
    if _HEAD.size + len(indices) * (itemsize + width) >= data.nbytes:
        return None
    values = elements[indices]
    return b"".join((_HEAD.pack(len(indices), width, _NO_BYTES), gaps.astype(f"<u{width}").tobytes(), values.tobytes()))


def check_sparse(payload: memoryview, itemsize: int, size: int) -> None:
    """Check a coded array of ``size`` elements of ``itemsize`` bytes in full.

    Raises:
        TruncatedError: Shorter than its head.
        UnsupportedError: A width or a mark that is not known here.
        DecodeError: It is not what a writer makes of any such array.
    """
    indices, values = _read(payload, itemsize, size)
    if not _filled(values).all():
        raise DecodeError("a sparse array lists an element that is zero")
    if len(values) * (itemsize + indices[1]) + _HEAD.size >= size * itemsize:
        raise DecodeError("a sparse array is not smaller than the array itself")


class SparseElements:
    """A coded array, to be read by range.

    Args:
        payload: The coding; the budget for what is read of it is the caller's affair.
        itemsize: Bytes of an element.
        size: How many elements the array has.

    Raises:
        DecodeError: As :func:`check_sparse`, where it would read or write past an end.
    """

    __slots__ = ("_indices", "_itemsize", "_values")

    def __init__(self, payload: memoryview, itemsize: int, size: int) -> None:
        (self._indices, _), self._values = _read(payload, itemsize, size)
        self._itemsize = itemsize

    def read(self, start: int, stop: int) -> memoryview:
        """The bytes of elements ``start`` to ``stop``."""
        first, last = (int(place) for place in np.searchsorted(self._indices, np.array([start, stop], np.uint64)))
        out = np.zeros((stop - start) * self._itemsize, np.uint8)
        places = self._indices[first:last] - np.uint64(start)
        _elements(out.data, self._itemsize)[places] = self._values[first:last]
        return out.data.toreadonly()


def _read(payload: memoryview, itemsize: int, size: int) -> tuple[tuple[_Elements, int], _Elements]:
    """Indices (with the width of their gaps) and values of a coded array, when the indices rise and are inside it."""
    if payload.nbytes < _HEAD.size:
        raise TruncatedError(f"{payload.nbytes} bytes are less than the head of a sparse array")
    count, width, rest = _HEAD.unpack_from(payload)
    if width not in _WIDTHS or rest != _NO_BYTES:
        raise UnsupportedError(f"a sparse array has gaps of {width} bytes and the marks {rest.hex()}")
    if not itemsize or count > size or payload.nbytes != _HEAD.size + count * (width + itemsize):
        raise DecodeError(f"{payload.nbytes} bytes do not hold {count} of {size} elements of {itemsize} bytes")
    middle = _HEAD.size + count * width
    gaps = np.frombuffer(payload[_HEAD.size : middle], f"<u{width}")
    if _width(int(gaps.max(initial=0))) != width:
        raise DecodeError(f"a sparse array has gaps of {width} bytes that need fewer")
    indices = np.cumsum(gaps, dtype=np.uint64)
    indices += np.arange(count, dtype=np.uint64)
    # A step is at most `size`, far from the width of the sum: if it wraps, it does so after an index out of range.
    if count and (int(gaps.max()) >= size or bool((indices >= np.uint64(size)).any())):
        raise DecodeError(f"a sparse array has an element behind the last of {size}")
    return (indices, width), _elements(payload[middle:], itemsize)


def _elements(data: memoryview, itemsize: int) -> _Elements:
    """Elements as numbers without a sign where NumPy has such of that size, else as rows of bytes."""
    if itemsize in _WIDTHS:
        return np.frombuffer(data, f"<u{itemsize}")
    return np.frombuffer(data, np.uint8).reshape(-1, itemsize)


def _filled(elements: _Elements) -> _Elements:
    """Which elements have a bit that is not zero."""
    return cast("_Elements", elements != 0 if elements.ndim == 1 else np.any(elements, axis=1))


def _width(gap: int) -> int:
    return next(width for width in _WIDTHS if gap < 1 << 8 * width)
