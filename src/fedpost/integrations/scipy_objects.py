"""SciPy's sparse arrays and matrices inside of objects: their parts as arrays, checked by SciPy when they come back."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import numpy as np

from fedpost.errors import DecodeError, MissingExtraError
from fedpost.objects import Serializer

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
"""What each format consists of. The others are written by their coordinates."""


def _take(value: Any) -> Any:
    if value.format in _PARTS:
        return [list(value.shape), [getattr(value, part) for part in _PARTS[value.format]]]
    found = value.tocoo()
    return [list(value.shape), [found.data, *found.coords]]


def _make(cls: Any, kind: str, state: Any) -> Any:
    if type(state) is not list or len(state) != 2 or type(state[1]) is not list:  # noqa: PLR2004 - shape and parts
        raise DecodeError("the state of a sparse array is its shape and its parts")
    shape, parts = state
    if type(shape) is not list or not all(type(length) is int and 0 <= length < 1 << 62 for length in shape):
        raise DecodeError("the shape of a sparse array is no shape")
    if not all(type(part) is np.ndarray for part in parts):
        raise DecodeError("the parts of a sparse array are arrays")
    # Their users change them in place.
    parts = [part.copy() for part in parts]
    if kind in _PARTS:
        out = cls(tuple(parts), shape=tuple(shape))
        if kind != "dia":
            out.check_format(full_check=True)
        return out
    data, *coords = parts
    if len(coords) != len(shape) or any(part.dtype.kind not in "iu" for part in coords):
        raise DecodeError("a sparse array without a coordinate for each dimension")
    found = sparse.coo_array((data, tuple(coords)), shape=tuple(shape))
    return cls(found)


SERIALIZERS: Final = tuple(
    Serializer(cls=cls, name=f"scipy.sparse.{name}", take=_take, make=partial(_make, cls, name.partition("_")[0]))
    for kind in ("csr", "csc", "bsr", "dia", "coo", "lil", "dok")
    for name in (f"{kind}_array", f"{kind}_matrix")
    for cls in (getattr(sparse, name),)
)
