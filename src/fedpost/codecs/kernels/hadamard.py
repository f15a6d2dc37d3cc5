"""The orthonormal Walsh–Hadamard transform of float32 vectors, with the same bits everywhere.

``y = H·x / √n`` for n a power of two, H in natural (Hadamard) order: ``H[i, j] = (−1)^popcount(i & j)``. It is its own
inverse. The order of the additions is part of the definition: butterflies ``(a + b, a − b)`` over the bits of the index
from the highest to the lowest, each sum rounded to float32; at last one multiplication by ``float32(2^(−log2(n)/2))``.

Fino and Algazi, *Unified matrix treatment of the fast Walsh–Hadamard transform*, IEEE Trans. Computers, 1976.
"""

from __future__ import annotations

import numpy as np

from fedpost.codecs.kernels.flat import Floats

__all__ = ["hadamard_in_place"]


def hadamard_in_place(x: Floats, scratch: Floats) -> None:
    """Transform a vector in place.

    Args:
        x: 1-D, float32, C-contiguous; its length is a power of two.
        scratch: As ``x``; its values are lost.
    """
    size = x.size
    low = 1 << (size.bit_length() - 1) // 2
    high = size // low
    # Rows are long enough for vector instructions; the low bits of the index become high ones by transposing.
    here, there = _butterflies(x, scratch, high)
    np.copyto(there.reshape(low, high), here.reshape(high, low).T)
    here, there = _butterflies(there, here, low)
    scale = np.float32(2 ** (-(size.bit_length() - 1) / 2))
    if here is x:
        np.copyto(there, here)
    np.multiply(scratch.reshape(low, high).T, scale, out=x.reshape(high, low))


def _butterflies(here: Floats, there: Floats, count: int) -> tuple[Floats, Floats]:
    """Over the highest log2(count) bits of the index; gives the vector that holds the result, and the other."""
    half = here.size // 2
    for _ in range(count.bit_length() - 1):
        pairs, out = here.reshape(-1, 2, half), there.reshape(-1, 2, half)
        np.add(pairs[:, 0], pairs[:, 1], out=out[:, 0])
        np.subtract(pairs[:, 0], pairs[:, 1], out=out[:, 1])
        here, there = there, here
        half //= 2
    return here, there
