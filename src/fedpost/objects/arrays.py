"""Arrays, scalars and other large leaves: what they are stands in the tree, their bytes there or in a segment."""

from __future__ import annotations

import array
import functools
import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from fedpost.errors import DecodeError
from fedpost.tensors.dtypes import dtype_from_name

__all__ = ["array_of", "bytes_of", "numbers_of", "numbers_size", "scalar_of", "shape_of", "write_numbers"]

_MAX_RANK: Final = 64


def bytes_of(array: np.ndarray[Any, Any]) -> tuple[int, memoryview]:
    """An array's order (0 for C, 1 for Fortran) and its elements in it as bytes: its own memory if it can be."""
    flags = array.flags
    if flags.c_contiguous:
        order = 0
    elif flags.f_contiguous:
        order, array = 1, array.T
    else:
        order = 0
        # Gaps of a structure would be what memory held before; in a copy they are zero.
        out: np.ndarray[Any, Any] = (np.zeros if array.dtype.names else np.empty)(array.shape, array.dtype)
        out[...] = array
        array = out
    if not array.nbytes:
        return order, memoryview(b"")
    return order, array.reshape(-1).view(np.uint8).data.toreadonly()


def shape_of(shape: Any, name: Any) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """Element type, shape and size in bytes of an array that somebody described.

    Raises:
        DecodeError: There is no such array.
    """
    if type(name) is not str or type(shape) is not list or len(shape) > _MAX_RANK:
        raise DecodeError("an array's element type or shape is none")
    try:
        return _checked_shape(name, *shape)
    except TypeError as error:
        raise DecodeError(f"{str(shape)[:80]} is not the shape of an array") from error


@functools.lru_cache(maxsize=1024, typed=True)
def _checked_shape(name: str, *shape: Any) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    if shape and (set(map(type, shape)) != {int} or min(shape) < 0):
        raise DecodeError(f"{str(shape)[:80]} is not the shape of an array")
    dtype = dtype_from_name(name)
    # What NumPy multiplies must not wrap, also where a dimension is 0.
    if math.prod(length for length in shape if length) * max(dtype.itemsize, 1) >= 1 << 62:
        raise DecodeError(f"an array of shape {str(shape)[:80]} is impossible")
    return dtype, shape, math.prod(shape) * dtype.itemsize


def array_of(
    dtype: np.dtype[Any], shape: tuple[int, ...], nbytes: int, order: Any, data: bytes | memoryview, *, copy: bool
) -> np.ndarray[Any, Any]:
    """An array over bytes, read-only; or one that can be written to: a copy, unless the bytes are the reader's own.

    Raises:
        DecodeError: The bytes are not as many, or the order is none.
    """
    if len(data) != nbytes or type(order) is not int or not 0 <= order <= 1:  # a memoryview here is one of bytes
        raise DecodeError(f"an array of {nbytes} bytes has {len(data)}, or no order")
    if not order and nbytes and len(shape) == 1 and not copy:  # most are, and it is the fastest
        return np.frombuffer(data, dtype)
    layout: Any = "F" if order else "C"
    if not nbytes:
        out: np.ndarray[Any, Any] = np.empty(shape, dtype, layout)
        out.flags.writeable = copy
        return out
    out = np.ndarray(shape, dtype, data, 0, None, layout)
    return np.array(out, order="K") if copy and not out.flags.writeable else out


def scalar_of(name: Any, data: Any) -> Any:
    """A NumPy scalar.

    Raises:
        DecodeError: No such element type, or not its size.
    """
    dtype, _, nbytes = shape_of([], name)
    if type(data) is not bytes or len(data) != nbytes:
        raise DecodeError(f"a scalar of type {name!r} is not {nbytes} bytes")
    return np.ndarray((), dtype, data or b"\0")[()]  # a buffer of no bytes is none


_NUMBERS: Final = {
    name: np.dtype(name).newbyteorder("<") for name in ("int8", "int16", "int32", "int64", "uint64", "float64")
}
"""What a list of numbers may be kept as."""


def write_numbers(values: Sequence[Any]) -> tuple[str, memoryview] | None:
    """Numbers of one type as bytes, little-endian: the element type's name, and the bytes; None if that cannot be.

    Args:
        values: Floats, or integers; the latter take the least width that they all have room in.
    """
    kind = type(values[0])
    if kind is float:
        name, found = "float64", np.frombuffer(array.array("d", values), np.float64)
    elif kind is not int:
        return None
    else:
        try:
            found = np.frombuffer(array.array("q", values), np.int64)
            least, most = int(found.min()), int(found.max())
            name = next(name for name in _NUMBERS if np.iinfo(name).min <= least and most <= np.iinfo(name).max)
        except OverflowError:
            try:
                name, found = "uint64", np.frombuffer(array.array("Q", values), np.uint64)
            except OverflowError:
                return None
    return name, found.astype(_NUMBERS[name], copy=False).view(np.uint8).data.toreadonly()


def numbers_size(name: Any, nbytes: int) -> int:
    """How many numbers so many bytes are.

    Raises:
        DecodeError: They are of no such type, or not a whole number of them.
    """
    dtype = _NUMBERS.get(name) if type(name) is str else None
    if dtype is None or nbytes % dtype.itemsize:
        raise DecodeError(f"{nbytes} bytes are no list of numbers of the type {str(name)[:40]!r}")
    return nbytes // dtype.itemsize


def numbers_of(name: str, data: bytes | memoryview) -> list[Any]:
    """The list that :func:`write_numbers` made bytes of; their size has been checked."""
    out: list[Any] = np.frombuffer(data, _NUMBERS[name]).tolist() if len(data) else []
    return out
