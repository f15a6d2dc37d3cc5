"""Tensors as the kernels work on them: float32, flat, in the caller's own memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from fedpost.errors import EncodeError

__all__ = ["Floats", "flat_view", "residual_view"]

Floats = np.ndarray[Any, np.dtype[np.float32]]
"""A C-contiguous float32 array of any shape."""


def flat_view(array: Floats) -> Floats:
    """The array's own elements in C order, 1-D.

    Raises:
        EncodeError: It is not float32 in native byte order, or not C-contiguous, so that this would be a copy.
    """
    if array.dtype != np.float32 or not array.flags.c_contiguous:
        raise EncodeError(f"the kernels work on C-contiguous float32 arrays, not on this one of {array.dtype}")
    return array.reshape(-1)


def residual_view(residual: Floats | None, x: Floats) -> Floats | None:
    """The elements of a residual of ``x``, which is flat; None for none.

    Raises:
        EncodeError: As :func:`flat_view`, or it is not of the same size.
    """
    if residual is None:
        return None
    flat = flat_view(residual)
    if flat.size != x.size:
        raise EncodeError(f"a residual of {flat.size} elements for a tensor of {x.size}")
    return flat
