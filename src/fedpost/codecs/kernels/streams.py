"""Random numbers that sender and receiver draw alike, from a seed and nothing else.

The stream is that of Philox4x64-10 (Salmon et al., *Parallel random numbers: as easy as 1, 2, 3*, SC 2011): block i of
four 64-bit words is the cipher of the 256-bit counter i + 1 under the 128-bit key ``seed + 2⁶⁴·stream``, the key's low
word first. It is what ``numpy.random.Philox(key=…).random_raw`` gives, which NumPy keeps stable; only those raw words
are used, never NumPy's distributions.

These streams are for rounding and rotation. They are no source of secrets and no noise for privacy.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

__all__ = ["MAX_SEED", "random_signs", "random_units"]

MAX_SEED: Final = (1 << 64) - 1

_WORDS: Final = 4


def _words(seed: int, stream: int, start: int, count: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Words ``start`` to ``start + count`` of a stream; ``start`` a multiple of four."""
    generator = np.random.Philox(key=seed | stream << 64)
    generator.advance(start // _WORDS)
    words: np.ndarray[Any, np.dtype[np.uint64]] = generator.random_raw(count)
    return words.astype("<u8", copy=False)


def random_signs(seed: int, stream: int, start: int, count: int) -> np.ndarray[Any, np.dtype[np.uint32]]:
    """Signs ``start`` to ``start + count``, each 0 or ``0x80000000``: to be XORed onto the bits of float32.

    Sign i is bit ``i % 64``, the lowest first, of word ``i // 64``. ``start`` is a multiple of 256.
    """
    words = _words(seed, stream, start // 64, -(-count // 64))
    bits = np.unpackbits(words.view(np.uint8), count=count, bitorder="little")
    return bits.astype(np.uint32) << np.uint32(31)


def random_units(seed: int, stream: int, start: int, count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Uniform numbers ``start`` to ``start + count``, multiples of 2⁻²⁴ in [0, 1), float32.

    Number i is the high 24 bits of the low (i even) or high (i odd) half of word ``i // 2``. ``start`` is a multiple
    of 8.
    """
    halves = _words(seed, stream, start // 2, -(-count // 2)).view("<u4")[:count]
    return (halves >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)
