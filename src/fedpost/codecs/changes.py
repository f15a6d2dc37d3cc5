"""What a writer codes: what has changed since a base, and what was lost before; and what cannot be coded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import numpy as np

from fedpost.codecs.codec import Base, Residual
from fedpost.codecs.kernels.flat import Floats
from fedpost.errors import EncodeError
from fedpost.tensors import Array, TensorSource

__all__ = ["Changes", "check_finite", "explained", "is_finite"]

_NOT_FINITE: Final = "it has a NaN or an infinity"


class Changes(Mapping[str, Floats]):
    """What changed of each tensor, float32, of its shape; made anew, in memory of its own, whenever it is asked for.

    Args:
        tensors: Those that are coded; the base has each in the same type and shape.
        base: What the receiver has.
        residual: What was lost before.
    """

    __slots__ = ("_base", "_residual", "_tensors")

    def __init__(self, tensors: Mapping[str, Array], base: TensorSource, residual: Residual) -> None:
        self._tensors = tensors
        self._base = base
        self._residual = residual

    def __getitem__(self, name: str) -> Floats:
        array, residual = self._tensors[name], self._residual.get(name)
        old = self._base.read(name, 0, array.size).reshape(array.shape)
        out = np.empty(array.shape, np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is found when it is coded
            if array.dtype == np.float64:
                np.subtract(array, old, out=out, casting="same_kind")
            else:
                np.subtract(array, old, out=out, dtype=np.float32)
            if residual is not None and residual.shape == array.shape:  # else of a model that is no more
                out += residual
        return out

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors


@contextmanager
def explained(
    tensors: Mapping[str, Array], base: Base, residual: Residual | None, coded: frozenset[str]
) -> Iterator[None]:
    """Say why a change cannot be coded: the tensor has a NaN or an infinity, or the change is too large."""
    try:
        yield
    except EncodeError as error:
        changes = Changes({name: tensors[name] for name in tensors if name in coded}, base.tensors, residual or {})
        for name in changes:
            if not is_finite(tensors[name]):
                raise _refused(name, _NOT_FINITE) from error
        for name, change in changes.items():
            if not is_finite(change):
                raise _refused(name, "its change is too large for float32") from error
        raise


def check_finite(name: str, array: Array) -> None:
    """Refuse a tensor of floats with a NaN or an infinity.

    Raises:
        EncodeError: It has one.
    """
    if not is_finite(array):
        raise _refused(name, _NOT_FINITE)


def is_finite(array: Array) -> bool:
    """Whether no value is NaN or infinite; what is no float has no such value."""
    return not array.dtype.name.startswith(("float", "bfloat")) or bool(np.isfinite(array).all())


def _refused(name: str, what: str) -> EncodeError:
    return EncodeError(
        what, where=f"tensor {name!r}", hint="Send it with delta or dense, or as it is: nonfinite=whole."
    )
