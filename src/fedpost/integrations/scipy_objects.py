"""SciPy's sparse arrays and matrices inside of objects: their parts as arrays, checked by SciPy when they come back."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import numpy as np

from fedpost.errors import DecodeError, MissingExtraError
from fedpost.objects import Serializer
from fedpost.objects.hashing import dict_of

try:
    from scipy import sparse
except ImportError as error:
    raise MissingExtraError("objects with sparse arrays need SciPy", hint="pip install scipy") from error

__all__ = ["SERIALIZERS"]

_PARTS: Final = {
    "csr": ("data", "indices", "indptr"),
    "csc": ("data", "indices", "indptr"),
    "bsr": ("data", "indices", "indptr"),
    "dia": ("data", "offsets"),
}
"""What each format consists of. The others are written by their coordinates; but a list of lists as ``csr``, since it
takes memory for each row, and those are counted there."""
_INDICES: Final = (np.dtype(np.int32), np.dtype(np.int64))


def _take(value: Any) -> Any:
    if value.format == "lil":
        value = value.tocsr()
    if value.format == "dia":
        return [list(value.shape), [value.data, value.offsets]]
    if value.format in _PARTS:
        used = int(value.indptr[-1])  # there may be room for more
        index = np.result_type(value.indices, value.indptr)
        indices = [value.indices[:used].astype(index, copy=False), value.indptr.astype(index, copy=False)]
        return [list(value.shape), [value.data[:used], *indices]]
    found = value.tocoo()
    return [list(value.shape), [found.data, *found.coords]]


def _make(cls: Any, kind: str, state: Any) -> Any:
    shape, parts = _checked(state)
    if kind == "lil":
        return cls(_compressed(sparse.csr_array, "csr", parts, shape))
    if kind == "dia":
        data, offsets = parts
        return cls((data, offsets), shape=tuple(shape))
    if kind in _PARTS:
        return _compressed(cls, kind, parts, shape)
    data, *coords = parts
    if len(coords) != len(shape):
        raise DecodeError("a sparse array without a coordinate for each dimension")
    found = sparse.coo_array((data, tuple(coords)), shape=tuple(shape))
    if kind == "dok":
        return _keyed(cls, data, coords, shape)
    found.coords = tuple(coords)  # they were made narrower
    out = cls(found)
    out.coords = tuple(coords)
    return out


def _keyed(cls: Any, data: Any, coords: list[Any], shape: list[int]) -> Any:
    """A dictionary of coordinates, which were checked: they can be chosen to collide, and SciPy would not mind."""
    columns = [part.tolist() for part in coords]
    keys = columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))
    out = cls(tuple(shape), dtype=data.dtype)
    out._dict = dict_of(keys, list(data))
    return out


def _checked(state: Any) -> tuple[list[int], list[Any]]:
    """Shape and parts, in memory of their own."""
    if type(state) is not list or len(state) != 2 or type(state[1]) is not list:  # noqa: PLR2004 - shape and parts
        raise DecodeError("the state of a sparse array is its shape and its parts")
    shape, parts = state
    if type(shape) is not list or not all(type(length) is int and 0 <= length < 1 << 62 for length in shape):
        raise DecodeError("the shape of a sparse array is no shape")
    if not all(type(part) is np.ndarray for part in parts):
        raise DecodeError("the parts of a sparse array are arrays")
    if (
        not parts
        or len({part.dtype for part in parts[1:]}) > 1
        or any(part.dtype not in _INDICES for part in parts[1:])
    ):
        raise DecodeError("the indices of a sparse array are no indices")
    if parts[0].dtype.kind not in "biufc":
        raise DecodeError("the data of a sparse array are no numbers")
    return shape, [part.copy() for part in parts]  # their users change them in place


def _compressed(cls: Any, kind: str, parts: list[Any], shape: list[int]) -> Any:
    if len(parts) != len(_PARTS[kind]):
        raise DecodeError(f"a {kind} array consists of data, indices and pointers")
    out = cls(tuple(parts), shape=tuple(shape))
    out.check_format(full_check=True)
    if kind == "bsr" and any(length % step for length, step in zip(out.shape, out.blocksize, strict=True)):
        raise DecodeError("a sparse array that its blocks do not fit into")
    out.data, out.indices, out.indptr = parts  # as before: what checks and matrices do makes indices narrower
    return out


SERIALIZERS: Final = tuple(
    Serializer(cls=cls, name=f"scipy.sparse.{name}", take=_take, make=partial(_make, cls, kind), shared=True)
    for kind in ("csr", "csc", "bsr", "dia", "coo", "lil", "dok")
    for name in (f"{kind}_array", f"{kind}_matrix")
    for cls in (getattr(sparse, name),)
)
