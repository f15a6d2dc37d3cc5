"""EDEN: one to four bits a value, without any state on either side.

Each block of values is multiplied by random signs and rotated by the Hadamard transform, after which it looks like
Gaussian noise of the block's length; each value is then replaced by the nearest of 2ᵇ centroids that are the best for a
Gaussian, and the block is scaled by ``S = ‖x‖² / ⟨R x, c⟩``, which makes the expectation over uniformly random
rotations that of ``x``. The Hadamard transform of random signs is nearly one for large blocks, and none for two values,
or for one that outweighs all the others: there the estimate is biased. A fresh seed for each client and round keeps the
errors of different clients independent, so averages converge.

Vargaftik et al., *EDEN: communication-efficient and robust distributed mean estimation for federated learning*, ICML
2022 (arXiv:2108.08842). The centroids: J. Max, *Quantizing for minimum distortion*, IRE Trans. IT-6, 1960.

Layout: one byte, b, 1 to 4; the blocks. The tensor is flat, in C order, and cut into blocks of 2¹⁵ values; a last block
that is shorter is filled with zeros to a length of a power of two. A block of n values is S, float32 little-endian, and
b bit planes of ⌈n/8⌉ bytes: bit ``i % 8``, the lowest first, of byte ``i // 8`` is value i's, and zeros are behind.
Plane 0 says that the value is negative; planes 1 to b−1 are the bits, the lowest first, of the centroid's number.

A value is decoded, all in float32, as ``c = ±CENTROIDS[b][number]``; ``y`` = the Hadamard transform of the block of c;
``y · S``, with the sign flipped where the random sign says so. The random signs of block j are signs 2¹⁵·j on of stream
``stream`` of the seed (:mod:`~.streams`); their transform is :mod:`~.hadamard`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from fedpost.codecs.kernels.flat import Floats, flat_view
from fedpost.codecs.kernels.hadamard import hadamard_in_place
from fedpost.codecs.kernels.streams import MAX_SEED, random_signs
from fedpost.errors import DecodeError, EncodeError

__all__ = ["CENTROIDS", "decode_eden", "decode_eden_range", "encode_eden"]

CENTROIDS: Final = {
    1: (0.7978845608028654,),
    2: (
        0.4527800346364921,
        1.510417608499096,
    ),
    3: (
        0.24509417894422184,
        0.7560052812058781,
        1.3439092785050006,
        2.1519457045369874,
    ),
    4: (
        0.1283950298511473,
        0.38804829949029174,
        0.6567591185324646,
        0.9423404564869629,
        1.2562311973471783,
        1.6180463860218823,
        2.069017226531386,
        2.732589570995161,
    ),
}
"""The positive half of the 2ᵇ centroids of a standard normal value, by b: each is the mean of what is nearest to it."""

_BLOCK: Final = 1 << 15
_SCALE: Final = np.dtype("<f4")
_GREATEST_SCALE: Final = np.float32(2.0**112)
"""So that no value comes out infinite."""
_FITTING: Final = (2.0**-80, 2.0**80)
"""Lengths of blocks that are rotated as they are; others are brought to about 1 first."""


def encode_eden(x: Floats, bits: int, seed: int, *, stream: int = 0) -> bytes:
    """Code a tensor.

    Args:
        x: Any shape, float32, C-contiguous.
        bits: Per value, 1 to 4.
        seed: 0 to 2⁶⁴−1; not part of the bytes, and to be used for one update only.
        stream: 0 to 2⁶⁴−1: tells the tensors of an update apart.

    Returns:
        The layout in this module's docstring.

    Raises:
        EncodeError: ``x`` has a NaN or an infinity, or is too large for the scale, or there are no such bits.
    """
    if bits not in CENTROIDS:
        raise EncodeError(f"{bits} bits a value are not possible", hint="1 to 4 are.")
    if not (0 <= seed <= MAX_SEED and 0 <= stream <= MAX_SEED):
        raise EncodeError("a seed is not of 64 bits")
    flat = flat_view(x)
    rotated, scratch = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32)
    parts = [bytes([bits])]
    for start, length, padded in _grid(flat.size):
        block = rotated[:padded]
        block[length:] = 0
        parts.append(_pack(flat[start : start + length], block, scratch[:padded], bits, (seed, stream, start)))
    return b"".join(parts)


def decode_eden(data: memoryview | bytes, seed: int, out: Floats, *, stream: int = 0) -> None:
    """Read what :func:`encode_eden` wrote.

    Args:
        data: The bytes.
        seed: The encoder's.
        out: Takes the values; its shape is the tensor's; float32, C-contiguous.
        stream: The encoder's.

    Raises:
        DecodeError: The bytes are not of a tensor of this size. Blocks before the one at fault are in ``out`` already.
    """
    flat = flat_view(out)
    for start, block in _blocks(memoryview(data), flat.size, seed, stream, (0, flat.size)):
        flat[start : start + block.size] = block


def decode_eden_range(
    data: memoryview | bytes, seed: int, size: int, start: int, stop: int, *, stream: int = 0
) -> Floats:
    """Elements ``start`` to ``stop`` of a tensor flattened in C order; only their blocks are read.

    Args:
        data: What :func:`encode_eden` wrote.
        seed: The encoder's.
        size: Number of elements of the tensor.
        start: 0 or more.
        stop: At most ``size``, and not below ``start``.
        stream: The encoder's.

    Raises:
        DecodeError: The bytes are not of a tensor of this size, as far as they were read.
    """
    out = np.zeros(stop - start, np.float32)
    for first, block in _blocks(memoryview(data), size, seed, stream, (start, stop)):
        skipped = max(start - first, 0)
        piece = block[skipped : stop - first]
        out[first + skipped - start :][: piece.size] = piece
    return out


def _blocks(
    view: memoryview, size: int, seed: int, stream: int, wanted: tuple[int, int]
) -> Iterator[tuple[int, Floats]]:
    """The first element and the values of each block with an element of a range."""
    if not (0 <= seed <= MAX_SEED and 0 <= stream <= MAX_SEED):
        raise DecodeError("a seed is not of 64 bits")
    if len(view) == 0 or view[0] not in CENTROIDS:
        raise DecodeError("no such bits a value")
    bits, at = view[0], 1
    grid = list(_grid(size))
    if len(view) != 1 + sum(_SCALE.itemsize + bits * -(-padded // 8) for _, _, padded in grid):
        raise DecodeError("the bytes are not as long as the tensor's blocks")
    table = np.array(CENTROIDS[bits], np.float32)
    table = np.stack([table, -table], axis=-1).reshape(-1)
    scratch = np.empty(_BLOCK, np.float32)
    for start, length, padded in grid:
        stored = view[at : at + _SCALE.itemsize + bits * -(-padded // 8)]
        at += len(stored)
        if start >= wanted[1] or start + length <= wanted[0]:
            continue
        scale = np.frombuffer(stored[: _SCALE.itemsize], _SCALE)[0]
        if not 0 <= scale <= _GREATEST_SCALE:
            raise DecodeError("a block's scale is not a number of 0 to 2**112")
        block = table[_numbers(stored[_SCALE.itemsize :], bits, padded)]
        hadamard_in_place(block, scratch[:padded])
        block *= scale
        block.view(np.uint32)[:] ^= random_signs(seed, stream, start, padded)
        yield start, block[:length]


def _grid(size: int) -> Iterator[tuple[int, int, int]]:
    """Each block's first value, how many there are, and its length with zeros."""
    for start in range(0, size, _BLOCK):
        length = min(_BLOCK, size - start)
        yield start, length, 1 << (length - 1).bit_length()


def _pack(x: Floats, block: Floats, scratch: Floats, bits: int, signs: tuple[int, int, int]) -> bytes:
    exponent = 0
    length = _length(x)
    if not np.isfinite(length):
        raise EncodeError("cannot quantize: values are NaN or infinite")
    if length and not _FITTING[0] < length < _FITTING[1]:
        exponent = int(np.frexp(np.abs(x).max())[1])
        x = np.ldexp(x, -exponent)
        length = _length(x)
    block[: x.size] = x
    block.view(np.uint32)[:] ^= random_signs(*signs, block.size)
    hadamard_in_place(block, scratch)
    if length:
        block *= np.float32(np.sqrt(block.size) / length)
    negative = np.signbit(block)
    magnitudes = np.abs(block, out=block)
    centroids = CENTROIDS[bits]
    numbers = np.zeros(block.size, np.uint8)
    for lower, upper in itertools.pairwise(centroids):
        numbers += magnitudes > np.float32((lower + upper) / 2)
    chosen = np.array(centroids, np.float32)[numbers]
    along = float(np.multiply(magnitudes, chosen, out=chosen).sum(dtype=np.float64))  # ⟨R x, c⟩·√n / ‖x‖
    # Orthonormal: S·c has the scale of the block, whose length is that of x.
    with np.errstate(over="ignore"):
        scale = np.float32(np.ldexp(length * np.sqrt(block.size) / along, exponent)) if length else np.float32(0)
    if not scale <= _GREATEST_SCALE:
        raise EncodeError("cannot quantize: values are too large")
    planes = [negative, *((numbers >> bit & 1) for bit in range(bits - 1))]
    return np.array(scale, _SCALE).tobytes() + b"".join(np.packbits(p, bitorder="little").tobytes() for p in planes)


def _length(x: Floats) -> float:
    with np.errstate(invalid="ignore"):  # a signalling NaN; it is refused all the same
        return float(np.sqrt(np.square(x, dtype=np.float64).sum()))


def _numbers(planes: memoryview, bits: int, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Places in the table of centroids: the number's bits above the sign's."""
    rows = np.frombuffer(planes, np.uint8).reshape(bits, -1)
    unpacked = np.unpackbits(rows, axis=1, bitorder="little")
    if unpacked[:, size:].any():
        raise DecodeError("the bits behind the last value are not zero")
    numbers = unpacked[0, :size]
    for bit in range(1, bits):
        numbers |= unpacked[bit, :size] << np.uint8(bit)
    return numbers
