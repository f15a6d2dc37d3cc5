"""Arrays of every kind, and damage of every kind, for the suites and for tests of one's own."""

# ruff: noqa: S101 - asserting is what these functions are for
from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

import ml_dtypes
import numpy as np

from fedpost.tensors import Array

__all__ = ["DTYPES", "NAMES", "SHAPES", "assert_same_tensors", "damaged", "memory_layouts", "random_array"]

# fmt: off
_NUMBERS: Final = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64", "complex64", "complex128", "longdouble", "clongdouble",
)
_ML_DTYPES: Final = (
    "bfloat16", "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2",
    "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn", "int2", "int4", "uint2",
    "uint4",
)
# fmt: on
_BIG_ENDIAN: Final = (">i2", ">u4", ">i8", ">f2", ">f4", ">f8", ">c8", ">c16", ">U3", ">M8[us]")
_SIZED: Final = ("S8", "U3", "V16", "M8[ns]", "M8[D]", "m8[s]", "M8[25s]")
_STRUCTURED: Final[Any] = [
    ("id", "i4"),
    ("position", "f4", (3,)),
    ("tag", "S4"),
    ("inner", [("x", ">f8"), ("y", "u1")]),
]

DTYPES: Final[tuple[np.dtype[Any], ...]] = (
    *map(np.dtype, _NUMBERS),
    *(np.dtype(getattr(ml_dtypes, name)) for name in _ML_DTYPES if hasattr(ml_dtypes, name)),
    *map(np.dtype, _BIG_ENDIAN),
    *map(np.dtype, _SIZED),
    np.dtype(_STRUCTURED),
    np.dtype(_STRUCTURED, align=True),
    np.dtype([("exponent", "i2"), ("scale", ml_dtypes.bfloat16)]),
)
"""Element types of every kind that a frame can name."""

SHAPES: Final[tuple[tuple[int, ...], ...]] = ((), (1,), (7,), (0,), (3, 0, 2), (2, 3, 4), (1,) * 32, (70, 60))
"""Scalars, vectors, nothing at all, many dimensions, and enough elements to be more than a page."""

# fmt: off
NAMES: Final = (
    "layer.0.weight", "", " ", "0", "a/b", "../up", "a\0b", "line\nbreak", "weight ", "Weight", "\u00e9", "e\u0301",
    "\u540d\u524d", "\U0001f600", "\u202eright-to-left", "x" * 1000,
)
# fmt: on
"""Names that must come back as they are: empty, odd, long, and equal only after Unicode normalisation."""


def random_array(dtype: np.dtype[Any], shape: tuple[int, ...], *, seed: int = 0) -> Array:
    """An array whose bytes are random where any bytes are a value: NaNs with payloads, subnormals and −0.0 among them.

    Args:
        dtype: One of :data:`DTYPES`, or any other that :func:`numpy.frombuffer` takes.
        shape: Its shape.
        seed: The same one gives the same array.
    """
    random = np.random.default_rng((seed, zlib.crc32(str(dtype).encode())))
    count = math.prod(shape)
    array: Array
    if dtype.kind == "U":  # not every four bytes are a character
        array = np.array([chr(code) * 3 for code in random.integers(32, 0xD7FF, count)], dtype)
    elif dtype.kind == "b":
        array = random.integers(0, 2, count).astype(dtype)
    elif dtype in (np.longdouble, np.clongdouble):  # nor every ten bytes a number
        array = random.standard_normal(count).astype(dtype)
    else:
        array = np.frombuffer(random.bytes(count * dtype.itemsize), dtype)
    return array.reshape(shape)


def memory_layouts(base: Array | None = None) -> dict[str, Array]:
    """Arrays of one element type by the way in which they lie in memory.

    Args:
        base: The values, 70 x 60 of them and of four bytes each; random ones without it.
    """
    base = random_array(np.dtype(np.float32), (70, 60)) if base is None else base
    cube = base.reshape(-1)[: 13 * 17 * 11].reshape(13, 17, 11)
    padded = np.zeros(base.nbytes + 1, np.uint8)
    padded[1:] = base.reshape(-1).view(np.uint8)
    return {
        "C": base,
        "Fortran": np.asfortranarray(base),
        "transposed": base.T,
        "neither": cube.transpose(1, 0, 2),
        "every second": base[::2, ::3],
        "backwards": base[::-1, ::-1],
        "columns": base[:, 5:9],
        "small columns": base[:3, 5:9],
        "small Fortran": np.asfortranarray(base[:3, :4]),
        "broadcast": np.broadcast_to(base[0], (80, 60)),
        "not aligned": padded[1:].view(base.dtype).reshape(base.shape),
        "writable": base.copy(),
        "inside": base[10:60],
        "Fortran, empty": np.empty((0, 5), base.dtype, order="F"),
        "subclass": base.view(np.recarray),
    }


def assert_same_tensors(received: Mapping[str, Array], sent: Mapping[str, Array]) -> None:
    """Check that names, their order, element types, shapes and values are the same, to the bit."""
    assert list(received) == list(sent)
    for name, array in sent.items():
        assert received[name].dtype == array.dtype, name
        assert received[name].shape == array.shape, name
        assert received[name].tobytes() == array.tobytes(), name


def damaged(value: Any) -> Iterator[Any]:
    """Copies of a value of MessagePack's types, each with one thing wrong in it.

    Args:
        value: What an encoder wrote, as plain lists, dictionaries and scalars.
    """
    others: tuple[Any, ...] = (None, True, -1, 2**62, 1.5, "", "x", b"", [], {}, [[]])
    yield from (wrong for wrong in others if wrong != value)
    match value:
        case bool():
            yield not value
        case int():
            yield from (value + 1, value - 1, -value - 1, 2**63 - 1, 2**64 - 1)
        case str():
            yield from (f"{value}x", value[:-1], "\0")
        case bytes():
            yield from (value[:-1], value + b"\0", value + value, b"\xff" * len(value), bytes(len(value)))
        case list():
            yield from ([*value, *value[-1:]], value[:-1], value[::-1], value * 2)
            yield from ([*value, wrong] for wrong in (0, -1, 2**62, "x"))
            yield [*value[:-1], *value[:1]]
            for index, item in _some(value):
                yield from ([*value[:index], wrong, *value[index + 1 :]] for wrong in damaged(item))
        case dict():
            yield {**value, "no such thing": 1}
            for key, item in value.items():
                yield {("no such thing" if other == key else other): kept for other, kept in value.items()}
                yield {other: kept for other, kept in value.items() if other != key}
                yield from ({**value, key: wrong} for wrong in damaged(item))


def _some(items: list[Any]) -> list[tuple[int, Any]]:
    """Items with their indices: all of a row of columns, the first and the last few of a long column."""
    numbered = list(enumerate(items))
    return numbered if len(items) <= 12 else numbered[:2] + numbered[-2:]  # noqa: PLR2004 - more bring nothing new
