"""Chosen places in a flat tensor, as Golomb codes of the gaps between them.

Layout: the number k of places, a varint; one byte, b; the two streams of :mod:`~.bits`, which hold the gaps (elements
skipped before each place): ``gap >> b`` in unary, and the low b bits plain.

With a share p of all places, b is ``1 + ⌊log2(ln 0.618 / ln(1 − p))⌋``: Golomb, *Run-length encodings*, IEEE Trans. IT,
1966, as used by Sattler et al., *Robust and communication-efficient federated learning from non-IID data* (STC), IEEE
TNNLS 2020 (arXiv:1903.02891). The reader takes b from the bytes and computes no logarithm.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from fedpost.codecs.kernels.bits import BitReader, BitWriter, Integers, put_varint, take_varint
from fedpost.codecs.kernels.flat import Floats
from fedpost.errors import DecodeError, EncodeError

__all__ = ["Cut", "cuts", "greatest", "put_places", "take_places"]

_MOST_BITS: Final = 42
_CHUNK: Final = 1 << 18
_HALF: Final = 16
_LOW: Final = np.uint32(0xFFFF)
_INFINITY: Final = 0x7F800000
_GOLDEN: Final = math.log((math.sqrt(5) - 1) / 2)


class Cut(NamedTuple):
    """Which values of a tensor are taken.

    Attributes:
        least: The bits of a magnitude, as a whole number; all greater ones are taken.
        equal: So many of those that have just these bits, the first ones.
    """

    least: int
    equal: int


def cuts(xs: Sequence[Floats], share: float) -> list[Cut]:
    """What to take of each tensor so that it is a share of the values of all of them, and at least one; but no zeros.

    The values with the greatest magnitudes are taken, and among equals the first. Magnitudes are in the order of their
    bits as whole numbers, so counting these, first by the high half and then by the low one, finds the least without a
    copy of the values.

    Args:
        xs: Arrays of one dimension.
        share: Above 0, at most 1.

    Raises:
        EncodeError: They have a NaN or an infinity, or there is no such share.
    """
    if not 0 < share <= 1:
        raise EncodeError(f"{share!r} is not a share of the values", hint="It is above 0 and at most 1.")
    total = sum(x.size for x in xs)
    count = min(total, max(1, round(share * total)))
    high = np.zeros(1 << _HALF, np.int64)
    for bits in itertools.chain.from_iterable(map(_magnitudes, xs)):
        high += np.bincount(bits >> _HALF, minlength=1 << _HALF)
    if high[_INFINITY >> _HALF :].any():
        raise EncodeError("values are NaN or infinite")
    above, count = _nth(high, count)
    low = np.zeros(1 << _HALF, np.int64)
    for bits in itertools.chain.from_iterable(map(_magnitudes, xs)):
        low += np.bincount(bits[bits >> _HALF == above] & _LOW, minlength=1 << _HALF)
    below, equal = _nth(low, count)
    least = above << _HALF | below
    if not least:  # fewer are not zero
        return [Cut(0, 0)] * len(xs)
    if equal == low[below]:
        return [Cut(least, x.size) for x in xs]
    out = []
    for x in xs:
        there = sum(int(np.count_nonzero(bits == least)) for bits in _magnitudes(x))
        out.append(Cut(least, min(equal, there)))
        equal -= out[-1].equal
    return out


def greatest(x: Floats, cut: Cut) -> Integers:
    """Places, in order, of the values of ``x`` (1-D) that a cut takes."""
    found: list[Integers] = []
    equal = cut.equal
    for number, bits in enumerate(_magnitudes(x)):
        taken = bits > cut.least
        first = np.flatnonzero(bits == cut.least)[:equal]
        taken[first] = True
        equal -= first.size
        found.append(np.flatnonzero(taken) + number * _CHUNK)
    return np.concatenate(found) if found else np.arange(0)


def _nth(counts: Integers, count: int) -> tuple[int, int]:
    """From the greatest on: the number that the ``count``th has, and how many of them have it."""
    sums = np.cumsum(counts[::-1])
    place = int(np.searchsorted(sums, count))
    return counts.size - 1 - place, count - int(sums[place] - counts[-1 - place])


def _magnitudes(x: Floats) -> Iterator[np.ndarray[Any, np.dtype[np.uint32]]]:
    for start in range(0, x.size, _CHUNK):
        yield x[start : start + _CHUNK].view(np.uint32) & np.uint32(0x7FFFFFFF)


def put_places(places: Integers, size: int) -> bytes:
    """Code places of 0 to ``size``, increasing."""
    share = places.size / max(size, 1)
    bits = max(0, 1 + math.floor(math.log2(_GOLDEN / math.log1p(-share)))) if 0 < share < 1 else 0
    writer = BitWriter()
    gaps = places.copy()
    gaps[1:] -= places[:-1]
    gaps[1:] -= 1
    writer.unary(gaps >> bits)
    writer.plain(gaps, _widths(bits, gaps.size))
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
    reader = BitReader(data[at + 1 :], numbers=count, zeros=size >> data[at])
    high = reader.unary(count)
    if count and int(high.max()) > size >> data[at]:
        raise DecodeError("a place is behind the end")
    places = high
    places <<= data[at]
    places += reader.plain(_widths(data[at], count))
    reader.finish()
    places += 1
    np.cumsum(places, out=places)
    places -= 1
    # Gaps are at most twice the size each, so the sum of all cannot have gone over.
    if count and int(places[-1]) >= size:
        raise DecodeError("a place is behind the end")
    return places


def _widths(width: int, count: int) -> Integers:
    """A width for each of so many numbers, which takes no memory."""
    return np.broadcast_to(np.int64(width), count)
