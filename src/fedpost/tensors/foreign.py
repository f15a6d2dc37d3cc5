"""What the formats that were made elsewhere have in common: bytes of arrays, strict JSON, sizes that are possible."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

import msgspec
import numpy as np

from fedpost.errors import DecodeError, EncodeError, FedpostError, LimitError
from fedpost.tensors.dtypes import dtype_from_name
from fedpost.tensors.format import MAX_ELEMENTS, MAX_RANK, Array, in_c_order, name_of

__all__ = ["array_bytes", "array_of", "dtype_named", "dtype_names", "member_size", "raw_size", "strict_json"]


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def array_bytes(array: Array) -> memoryview:
    """An array's elements in C order as bytes: its own memory where it lies so."""
    array = np.asarray(array)
    if not array.nbytes:
        return memoryview(b"")
    return in_c_order(array).reshape(-1).view(np.uint8).data.toreadonly()


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
    if len(shape) > MAX_RANK:
        raise DecodeError(f"{len(shape)} dimensions, {MAX_RANK} allowed", where=where)
    if shape and (min(shape) < 0 or max(shape) > MAX_ELEMENTS):
        raise DecodeError("a dimension is negative, or too long", where=where)
    if math.prod(filter(None, shape)) * max(dtype.itemsize, 1) > MAX_ELEMENTS:
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


def strict_json(data: bytes | memoryview, where: str, most: int | None = None, *, constants: bool = False) -> Any:
    """JSON as RFC 8259 has it: UTF-8, no key twice, no NaN, no number that is infinite, nothing behind the value.

    Args:
        data: The text.
        where: The place, for errors.
        most: Opening brackets and colons allowed, and half of the commas allowed, also in strings: an empty list takes
            two bytes there and sixty here, an entry of an object seven and two hundred.
        constants: Take ``NaN``, ``Infinity`` and ``-Infinity``, which Python's own writer makes.

    Raises:
        DecodeError: It is not.
        LimitError: More of them than allowed.
    """
    try:
        text = str(data, "utf-8")
        if most is not None:
            _check_items(text, most)
        value = (_PYTHON_JSON if constants else _JSON).decode(text)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except FedpostError as error:
        raise type(error)(error.what, where=where) from error
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"not JSON: {str(error)[:200]}", where=where) from error
    return value


def member_size(data: memoryview, key: str, where: str | None = None) -> int:
    """Bytes of one member of a JSON object, before anything is made of the others; 0 when it is not there.

    Raises:
        DecodeError: It is no JSON object.
    """
    try:
        return memoryview(msgspec.json.decode(data, type=_one(key)).member).nbytes
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise DecodeError(f"not a JSON object: {str(error)[:200]}", where=where) from error


@functools.cache
def _one(key: str) -> Any:
    """A type of an object of which nothing counts but one member."""
    return msgspec.defstruct("One", [("member", msgspec.Raw, msgspec.field(default=msgspec.Raw(), name=key))])


def _check_items(text: str, most: int) -> None:
    """Check the numbers of what a text comes to, before any of it is made."""
    counts = {"lists and objects": text.count("[") + text.count("{"), "entries": text.count(":")}
    counts["items"] = text.count(",") - most
    for what, count in counts.items():
        if count > most:
            raise LimitError(f"more than {most} {what}")


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
_PYTHON_JSON: Final = json.JSONDecoder(object_pairs_hook=_no_key_twice, parse_float=_finite)
