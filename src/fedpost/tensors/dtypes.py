"""Names of element types, as they stand in frames: NumPy's own where it has one, never code.

``float32``, ``bfloat16``, ``float8_e4m3fn``; ``>float32`` for big-endian; ``datetime64[ns]``, ``timedelta64[s]``;
``bytes[8]``, ``str[12]`` (four bytes a character), ``void[16]``; ``struct[…]`` with the fields as JSON. Object arrays
have no bytes of their own and are refused.
"""

from __future__ import annotations

import functools
import math
import re
from typing import Any, Final

import ml_dtypes
import msgspec
import numpy as np

from fedpost.errors import DecodeError, EncodeError, UnsupportedError

__all__ = ["dtype_from_name", "dtype_name", "float_bits", "integer_range", "is_integer", "is_number"]

# fmt: off
_ML_DTYPES: Final = (
    "bfloat16", "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2",
    "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn",
    "int2", "int4", "uint2", "uint4",
)
_NUMPY: Final = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64", "complex64", "complex128",
)
# fmt: on
_BY_NAME: Final[dict[str, np.dtype[Any]]] = {
    **{name: np.dtype(name) for name in _NUMPY},
    **{name: np.dtype(getattr(ml_dtypes, name)) for name in _ML_DTYPES if hasattr(ml_dtypes, name)},
}
# The 80-bit extended format; on machines where long double is something else, these names are unknown.
_X87_MANTISSA: Final = 63
if np.finfo(np.longdouble).nmant == _X87_MANTISSA:
    _BY_NAME["float80_x87"] = np.dtype(np.longdouble)
    _BY_NAME["complex160_x87"] = np.dtype(np.clongdouble)
_NAMES: Final = {dtype: name for name, dtype in _BY_NAME.items()}

_SIZED: Final = {"S": "bytes", "U": "str", "V": "void"}
_SIZED_BACK: Final = {name: letter for letter, name in _SIZED.items()}
_SIZED_NAME: Final = re.compile(r"(bytes|str|void)\[(0|[1-9][0-9]{0,9})\]")
_TIME_NAME: Final = re.compile(
    r"(datetime64|timedelta64)(\[(?:[1-9][0-9]{0,8})?(?:Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?"
)
_MAX_LENGTH: Final = {"bytes": 2**31 - 1, "void": 2**31 - 1, "str": (2**31 - 1) // 4}
_MAX_NAME: Final = 1 << 16
_MAX_NESTING: Final = 8
_MAX_KEPT: Final = 256
"""Characters of a name that is kept with its type: names come from the wire, and a long one has a type of megabytes."""


class _Struct(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    size: int
    fields: list[tuple[str, str, int, list[int]]]


_FLOAT_BITS: Final = {
    **{_BY_NAME[name]: bits for name, bits in (("float16", 16), ("float32", 32), ("float64", 64))},
    **{_BY_NAME[name]: bits for name, bits in (("complex64", 32), ("complex128", 64))},
    **{_BY_NAME[name]: 8 * _BY_NAME[name].itemsize for name in _ML_DTYPES if name in _BY_NAME and "float" in name},
}


def float_bits(dtype: np.dtype[Any]) -> int | None:
    """Bits of the floating-point numbers that a type consists of, or None when it is not made of such numbers.

    Complex numbers are two of them; big-endian and 80-bit numbers do not count.
    """
    return _FLOAT_BITS.get(dtype)


def is_integer(dtype: np.dtype[Any]) -> bool:
    """Whether a type is a boolean or an integer of any width."""
    return dtype.newbyteorder("=") in _NAMES and ("int" in _NAMES[dtype.newbyteorder("=")] or dtype.kind == "b")


def integer_range(dtype: np.dtype[Any]) -> tuple[int, int]:
    """The smallest and the greatest value of an integer type."""
    info: Any = ml_dtypes.iinfo(dtype)  # type: ignore[no-untyped-call] # ships no types
    return int(info.min), int(info.max)


def is_number(dtype: np.dtype[Any]) -> bool:
    """Whether values of this type can be averaged: booleans, integers, floats of any width, complex numbers."""
    return dtype.newbyteorder("=") in _NAMES


def dtype_name(dtype: np.dtype[Any]) -> str:
    """The name of an element type.

    Raises:
        EncodeError: It has none that a reader takes for the same type: object arrays, types of other libraries,
            structures that are too deep or too long, or have titles.
    """
    return _checked_name(dtype) if dtype.hasobject or dtype.names is not None else _kept_name(dtype)


@functools.lru_cache(maxsize=1024)
def _kept_name(dtype: np.dtype[Any]) -> str:
    return _checked_name(dtype)


def _checked_name(dtype: np.dtype[Any]) -> str:
    name = _name(dtype)
    try:
        same = dtype_from_name(name) == dtype
    except DecodeError as error:
        raise EncodeError(f"element type {dtype} cannot be put in a frame: {error.what}") from error
    if not same:
        raise EncodeError(f"element type {dtype} cannot be put in a frame: a reader would take it for another")
    return name


def _name(dtype: np.dtype[Any]) -> str:
    if dtype.names is not None and dtype.fields is not None:
        fields = []
        for name in dtype.names:
            base, shape = dtype.fields[name][0].subdtype or (dtype.fields[name][0], ())
            fields.append((name, _name(base), dtype.fields[name][1], list(shape)))
        return "struct" + msgspec.json.encode(_Struct(dtype.itemsize, fields)).decode()
    big = ">" if dtype.byteorder == ">" else ""
    plain = dtype.newbyteorder("=") if big else dtype
    if plain in _NAMES:
        return big + _NAMES[plain]
    if plain.kind in _SIZED:
        return f"{big}{_SIZED[plain.kind]}[{plain.itemsize // (4 if plain.kind == 'U' else 1)}]"
    if plain.kind in "mM":
        return big + plain.name
    hint = "Convert it to a numeric type." if dtype.hasobject else None
    raise EncodeError(f"element type {dtype} cannot be put in a frame", hint=hint)


def dtype_from_name(name: str, *, nesting: int = 0) -> np.dtype[Any]:
    """The element type of that name.

    Raises:
        UnsupportedError: No such name.
        DecodeError: A structure with impossible fields.
    """
    return _kept_dtype(name, nesting) if len(name) <= _MAX_KEPT else _dtype(name, nesting)


@functools.lru_cache(maxsize=1024)
def _kept_dtype(name: str, nesting: int) -> np.dtype[Any]:
    return _dtype(name, nesting)


def _dtype(name: str, nesting: int) -> np.dtype[Any]:
    if name in _BY_NAME:
        return _BY_NAME[name]
    if name.startswith("struct["):
        return _struct_from_name(name, nesting)
    plain = name.removeprefix(">")
    dtype: np.dtype[Any] | None = _BY_NAME.get(plain)
    if dtype is None and (match := _SIZED_NAME.fullmatch(plain)) and int(match[2]) <= _MAX_LENGTH[match[1]]:
        dtype = np.dtype(f"{_SIZED_BACK[match[1]]}{match[2]}")
    if dtype is None and _TIME_NAME.fullmatch(plain):
        dtype = np.dtype(plain)
    if dtype is None:
        raise UnsupportedError(f"unknown element type {name[:80]!r}")
    return dtype.newbyteorder(">") if name != plain else dtype


def _struct_from_name(name: str, nesting: int) -> np.dtype[Any]:
    if len(name) > _MAX_NAME or nesting > _MAX_NESTING:
        raise DecodeError("a structured element type is too long or too deep")
    try:
        spec = msgspec.json.decode(name.removeprefix("struct"), type=_Struct)
        names, types, offsets, shapes = zip(*spec.fields, strict=True) if spec.fields else ((), (), (), ())
        kinds = [dtype_from_name(kind, nesting=nesting + 1) for kind in types]
        for kind, offset, shape in zip(kinds, offsets, shapes, strict=True):
            # NumPy adds in 32 bits and would take a field behind the end of the element for one inside.
            if not 0 <= offset <= spec.size - kind.itemsize * math.prod(shape):
                raise DecodeError("a field of a structured element type is not inside the element")
        formats = [(kind, tuple(shape)) if shape else kind for kind, shape in zip(kinds, shapes, strict=True)]
        described: Any = {"names": names, "formats": formats, "offsets": offsets, "itemsize": spec.size}
        dtype: np.dtype[Any] = np.dtype(described)
    except (msgspec.DecodeError, ValueError, TypeError, OverflowError, RecursionError) as error:
        if isinstance(error, DecodeError):
            raise
        raise DecodeError(f"a structured element type is impossible: {error}") from error
    return dtype
