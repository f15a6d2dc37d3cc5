"""What the formats that were made elsewhere have in common: bytes of arrays, strict JSON, sizes that are possible."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

import numpy as np

from fedpost.errors import DecodeError, EncodeError, FedpostError, LimitError
from fedpost.tensors.dtypes import dtype_from_name
from fedpost.tensors.format import Array, name_of

__all__ = ["array_bytes", "array_of", "dtype_named", "dtype_names", "raw_size", "strict_json"]

_MAX_RANK: Final = 64
_MAX_ELEMENTS: Final = 1 << 60


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def array_bytes(array: Array) -> memoryview:
    """An array's elements in C order as bytes: its own memory where it lies so."""
    array = np.asarray(array)
    if not array.nbytes:
        return memoryview(b"")
    if not array.flags.c_contiguous:
        # Gaps of a structure would be what memory held before; in a copy they are zero.
        out: Array = np.zeros(array.shape, array.dtype) if array.dtype.names else np.empty(array.shape, array.dtype)
        out[...] = array
        array = out
    return array.reshape(-1).view(np.uint8).data.toreadonly()


def dtype_names(tensors: Mapping[str, Array]) -> list[str]:
    """The names of the element types, when all of it are arrays with names that are text.

    Raises:
        EncodeError: They are not, or a name has no UTF-8.
    """
    names = []
    for name, array in tensors.items():
        names.append(name_of(name, array))
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise EncodeError(f"the tensor name {name!r} has no UTF-8") from error
    return names


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def dtype_named(name: str, where: str) -> np.dtype[Any]:
    """The element type of a tensor that was named in a file.

    Raises:
        UnsupportedError: No such name.
        DecodeError: An impossible type.
    """
    try:
        return dtype_from_name(name)
    except FedpostError as error:
        raise type(error)(error.what, where=where, hint=error.hint) from error


def raw_size(shape: Sequence[int], dtype: np.dtype[Any], where: str) -> int:
    """Bytes of an array, in numbers that do not wrap.

    Raises:
        DecodeError: No array has that shape.
    """
    if len(shape) > _MAX_RANK:
        raise DecodeError(f"{len(shape)} dimensions, {_MAX_RANK} allowed", where=where)
    if shape and (min(shape) < 0 or max(shape) > _MAX_ELEMENTS):
        raise DecodeError("a dimension is negative, or too long", where=where)
    if math.prod(filter(None, shape)) * max(dtype.itemsize, 1) > _MAX_ELEMENTS:
        raise DecodeError(f"the shape {tuple(shape)} is too large", where=where)
    return math.prod(shape) * dtype.itemsize


def array_of(name: str, dtype: str, shape: Sequence[int], data: memoryview) -> Array:
    """A read-only view of a tensor's bytes.

    Raises:
        DecodeError: Type, shape and bytes do not fit each other.
    """
    where = f"tensor {name!r}"
    kind = dtype_named(dtype, where)
    if raw_size(shape, kind, where) != data.nbytes:
        raise DecodeError(f"the shape {tuple(shape)} does not fit {data.nbytes} bytes", where=where)
    array: Array = np.ndarray(tuple(shape), kind, data.toreadonly())
    return array


def strict_json(data: bytes | memoryview, where: str, most: int | None = None) -> Any:
    """JSON as RFC 8259 has it: UTF-8, no key twice, no NaN, no number that is infinite, nothing behind the value.

    Args:
        data: The text.
        where: The place, for errors.
        most: Opening brackets allowed, also in strings: an empty list takes two bytes there and sixty here.

    Raises:
        DecodeError: It is not.
        LimitError: More brackets than allowed.
    """
    try:
        text = str(data, "utf-8")
        if most is not None and (brackets := text.count("[") + text.count("{")) > most:
            raise LimitError(f"{brackets} lists and objects, {most} allowed")
        value = _JSON.decode(text)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except FedpostError as error:
        raise type(error)(error.what, where=where) from error
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"not JSON: {str(error)[:200]}", where=where) from error
    return value


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise DecodeError("a key comes twice in a JSON object")
    return result


def _no_constant(name: str) -> NoReturn:
    raise DecodeError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise DecodeError("a number is too large")
    return value


_JSON: Final = json.JSONDecoder(object_pairs_hook=_no_key_twice, parse_constant=_no_constant, parse_float=_finite)
