"""Subsets and short alphabets, coded close to their entropy with whole-array operations only.

A bit sequence in consecutive *classes* of known sizes is coded as, per class, how many ones there are, and the gaps
between them in Rice's code with a parameter that follows from the size and the count. Where more than half are ones,
the gaps are those between the zeros. All arithmetic is on integers, so every machine reads the same.

R. F. Rice, *Some practical universal noiseless coding techniques*, JPL 79-22, 1979; the parameter's rule is A. Kiely,
*Selecting the Golomb parameter in Rice coding*, JPL IPN 42-159, 2004.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from fedpost.codecs.kernels.bits import BitReader, BitWriter, Integers, bit_lengths, differences
from fedpost.errors import DecodeError

__all__ = ["put_subset", "put_symbols", "rice_parameters", "take_subset", "take_symbols"]

Bits = np.ndarray[Any, np.dtype[np.bool_]]

_DEPTH_BITS: Final = np.array([3])


def rice_parameters(sizes: Integers, counts: Integers) -> Integers:
    """How many low bits of a gap are sent plainly: ``bit_length(31·(2n − k) // 128k)`` for k of n, 0 for none.

    It is ``1 + ⌊log2(ln 0.618 / ln(1 − k/n))⌋``, the best for independent bits, with 31/64 for −ln 0.618 and
    ``2k/(2n − k)`` for −ln(1 − k/n).
    """
    return bit_lengths(31 * (2 * sizes - counts) // (128 * np.maximum(counts, 1))) * (counts > 0)


def put_subset(writer: BitWriter, bits: Bits, sizes: Integers) -> tuple[Integers, Integers]:
    """Code a bit sequence in classes.

    Per class of n bits: the number k of ones, plain, in ``bit_length(n)`` bits; all classes together. Then, per class,
    the gaps (bits skipped) before each one, or before each zero where 2k > n: ``gap >> b`` in unary, and the low b
    bits plain, all classes together.

    Args:
        writer: Takes the numbers.
        bits: The sequence.
        sizes: The length of each class; they add up to ``len(bits)``.

    Returns:
        The positions of the ones, and how many each class has.
    """
    ends = np.cumsum(sizes)
    ones = bits.nonzero()[0]
    upto = np.searchsorted(ones, ends)
    counts = differences(upto, 0)
    writer.plain(counts, bit_lengths(sizes))
    positions, rare = ones, counts
    flipped = 2 * counts > sizes
    if flipped.any():
        positions = (bits ^ np.repeat(flipped, sizes)).nonzero()[0]
        rare = np.where(flipped, sizes - counts, counts)
    gaps = positions.copy()
    gaps[1:] -= positions[:-1] + 1
    first = (np.cumsum(rare) - rare)[rare > 0]
    gaps[first] = positions[first] - (ends - sizes)[rare > 0]
    parameters = np.repeat(rice_parameters(sizes, rare), rare)
    writer.unary(gaps >> parameters)
    writer.plain(gaps, parameters)
    return ones, counts


def take_subset(reader: BitReader, sizes: Integers) -> tuple[Integers, Integers]:
    """Read what :func:`put_subset` wrote.

    Returns:
        The positions of the ones, and how many each class has.

    Raises:
        DecodeError: More ones than a class has bits, a gap that leads out of its class, or too few numbers.
    """
    ends = np.cumsum(sizes)
    counts = reader.plain(bit_lengths(sizes))
    if (counts > sizes).any():
        raise DecodeError("more ones than the class has bits")
    flipped = 2 * counts > sizes
    rare = np.where(flipped, sizes - counts, counts)
    positions = reader.unary(int(rare.sum()))  # also tells whether there are so many at all
    parameters = np.repeat(rice_parameters(sizes, rare), rare)
    positions <<= parameters
    positions += reader.plain(parameters)
    positions += 1
    np.cumsum(positions, out=positions)
    used = rare > 0
    last = np.cumsum(rare)[used] - 1
    reached = positions[last]
    base = np.concatenate(([0], reached[:-1]))  # what the cumulated sum was before the class
    if (reached - base > sizes[used]).any():
        raise DecodeError("a gap leads out of its class")
    positions += np.repeat((ends - sizes)[used] - base - 1, rare[used])
    if flipped.any():
        bits = np.zeros(int(sizes.sum()), np.bool_)
        bits[positions] = True
        bits ^= np.repeat(flipped, sizes)
        positions = bits.nonzero()[0]
    return positions, counts


def put_symbols(writer: BitWriter, symbols: Integers) -> None:
    """Code a sequence of numbers of 0 to 127 as a tree of subsets.

    Plain, three bits: the depth d, bits of the greatest. Then per level, from bit d−1 down: that bit of every symbol,
    the symbols in stable order of their higher bits, a class for each value of those.
    """
    depth = int(symbols.max(initial=0)).bit_length()
    writer.plain(np.array([depth]), _DEPTH_BITS)
    for level in reversed(range(depth)):
        node = symbols >> (level + 1)
        order = np.argsort(node.astype(np.uint8), kind="stable")
        sizes = np.bincount(node, minlength=1 << (depth - 1 - level))
        put_subset(writer, (symbols[order] >> level & 1).astype(np.bool_), sizes)


def take_symbols(reader: BitReader, count: int) -> Integers:
    """Read ``count`` numbers that :func:`put_symbols` wrote.

    Raises:
        DecodeError: As :func:`take_subset`.
    """
    (depth,) = reader.plain(_DEPTH_BITS)
    symbols = np.zeros(count, np.int64)
    for level in range(int(depth)):
        order = np.argsort(symbols.astype(np.uint8), kind="stable")
        ones, _ = take_subset(reader, np.bincount(symbols, minlength=1 << level))
        symbols <<= 1
        symbols[order[ones]] |= 1
    return symbols
