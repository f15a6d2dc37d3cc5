"""What the other side has, as one side knows it, and how far a value is from it.

Rules: what was sent is only proposed; it counts once the receiver has acknowledged it. While nobody knows whether it
arrived there is no reference, so the next update stands on its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import numpy as np

from fedpost.codecs import Base
from fedpost.tensors import Array

__all__ = ["Reference", "fit", "length"]

_BLOCK: Final = 1 << 13
"""Elements at a time: they stay in the cache, and BLAS starts no threads for so few."""


class Reference:
    """The arrays that the other side is known to have."""

    __slots__ = ("_held", "_pending")

    def __init__(self) -> None:
        self._held: Base | None = None
        self._pending: Base | None = None

    @property
    def held(self) -> Base | None:
        """What it was last known to have, whatever was sent since."""
        return self._held

    @property
    def usable(self) -> Base | None:
        """What it has, or None where that is not known."""
        return self._held if self._pending is None else None

    def propose(self, pending: Base) -> None:
        """These were sent."""
        self._pending = pending

    def acknowledge(self, digest: bytes | None = None) -> bool:
        """They arrived; False where there is nothing to acknowledge, or the digest is of something else."""
        if self._pending is None or (digest is not None and digest != self._pending.digest):
            return False
        self._held, self._pending = self._pending, None
        return True

    def reject(self) -> None:
        """They did not arrive: the other side has what it had before."""
        self._pending = None

    def settle(self, held: Base) -> None:
        """These are there, without a doubt."""
        self._held, self._pending = held, None

    def arrays(self) -> dict[str, Array]:
        """What it was last known to have, by name."""
        return {} if self._held is None else self._held.tensors.arrays()


def length(array: Array, less: Array | None = None) -> float:
    """The Euclidean norm of an array, or of its difference from another of its type and shape; in float64.

    It works on a block at a time; what is not finite gives what is not finite.
    """
    wide = np.complex128 if array.dtype.kind == "c" else np.float64
    one, two = array.reshape(-1), None if less is None else less.reshape(-1)
    total = 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, one.size, _BLOCK):
            block = one[start : start + _BLOCK].astype(wide)
            if two is not None:
                block -= two[start : start + _BLOCK].astype(wide)
            total += float(np.vdot(block, block).real)
    return math.sqrt(total)


def fit(one: Mapping[str, Array], two: Mapping[str, Array]) -> bool:
    """Whether two models have the same names, element types and shapes."""
    return {name: (array.dtype, array.shape) for name, array in one.items()} == {
        name: (array.dtype, array.shape) for name, array in two.items()
    }
