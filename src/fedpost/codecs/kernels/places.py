"""Chosen places in a flat tensor, as Golomb codes of the gaps between them.

Layout: the number k of places, a varint; one byte, b; the two streams of :mod:`~.bits`, which hold the gaps (elements
skipped before each place): ``gap >> b`` in unary, and the low b bits plain.

With a share p of all places, b is ``1 + ⌊log2(ln 0.618 / ln(1 − p))⌋``: Golomb, *Run-length encodings*, IEEE Trans. IT,
1966, as used by Sattler et al., *Robust and communication-efficient federated learning from non-IID data* (STC), IEEE
TNNLS 2020 (arXiv:1903.02891). The reader takes b from the bytes and computes no logarithm.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from fedpost.codecs.kernels.bits import BitReader, BitWriter, Integers, put_varint, take_varint
from fedpost.codecs.kernels.flat import Floats
from fedpost.errors import DecodeError, EncodeError

__all__ = ["greatest", "put_places", "take_places"]

_MOST_BITS: Final = 42
_CHUNK: Final = 1 << 16
_GOLDEN: Final = math.log((math.sqrt(5) - 1) / 2)


def greatest(x: Floats, share: float) -> Integers:
    """Places, in order, of the values of ``x`` (1-D) with the greatest magnitudes: a share of all, and at least one.

    Among equals the first are taken.

    Raises:
        EncodeError: ``x`` has a NaN or an infinity, or the share is not above 0 and at most 1.
    """
    if not 0 < share <= 1:
        raise EncodeError(f"{share!r} is not a share of the values", hint="It is above 0 and at most 1.")
    magnitudes = np.abs(x)
    if not np.isfinite(magnitudes.max(initial=0)):
        raise EncodeError("values are NaN or infinite")
    count = min(x.size, max(1, round(share * x.size)))
    if count == x.size:
        return np.arange(count)
    # Partitioning places instead would take three times as much memory.
    magnitudes.partition(x.size - count)
    least = magnitudes[x.size - count]
    equal = count - int(np.count_nonzero(magnitudes[x.size - count :] > least))
    del magnitudes
    found: list[Integers] = []
    for start in range(0, x.size, _CHUNK):
        chunk = np.abs(x[start : start + _CHUNK])
        taken = chunk > least
        first = np.flatnonzero(chunk == least)[:equal]
        taken[first] = True
        equal -= first.size
        found.append(np.flatnonzero(taken) + start)
    return np.concatenate(found)


def put_places(places: Integers, size: int) -> bytes:
    """Code places of 0 to ``size``, increasing."""
    share = places.size / max(size, 1)
    bits = max(0, 1 + math.floor(math.log2(_GOLDEN / math.log1p(-share)))) if 0 < share < 1 else 0
    writer = BitWriter()
    gaps = np.diff(places, prepend=-1) - 1
    writer.unary(gaps >> bits)
    writer.plain(gaps, np.full(gaps.size, bits))
    return put_varint(places.size) + bytes([bits]) + bytes(writer)


def take_places(data: memoryview, size: int) -> Integers:
    """Read what :func:`put_places` wrote.

    Raises:
        DecodeError: More places than elements, one behind the end, or bytes that do not fit.
    """
    count, at = take_varint(data, 0)
    if count > size:
        raise DecodeError("more places than elements")
    if at >= len(data) or data[at] > _MOST_BITS:
        raise DecodeError("no such width of a gap")
    reader = BitReader(data[at + 1 :])
    high = reader.unary(count)
    if count and int(high.max()) > size >> data[at]:
        raise DecodeError("a place is behind the end")
    places = high << data[at]
    places += reader.plain(np.full(count, data[at]))
    reader.finish()
    places += 1
    np.cumsum(places, out=places)
    places -= 1
    # Gaps are at most twice the size each, so the sum of all cannot have gone over.
    if count and int(places[-1]) >= size:
        raise DecodeError("a place is behind the end")
    return places
