"""Eight or four bits a value with a scale for each block, and one bit a value with the mean magnitude.

``q = round(x / scale)`` with ``scale = max|x| / (2^(b−1) − 1)`` of the block. With a seed the rounding is by chance, so
that the expectation is ``x`` (Alistarh et al., *QSGD*, NeurIPS 2017, arXiv:1610.02132); without one it is to nearest,
ties to even. A value is decoded as ``float32(q) · float32(scale)``.

Layout, everything little-endian, the tensor flat in C order:

- blocks: one byte, b, 8 or 4; one byte, the width of a scale, 4 for float32 or 2 for float16; one byte, k, 6 to 12;
  a scale for each block of ``2^k`` values, the last of which may be shorter; the numbers q, as int8, or as two's
  complement of four bits, two a byte, the first in the low bits, with zeros behind an odd last one.
- signs: the mean magnitude, float32; a bit a value, one for negative: bit ``i % 8``, the lowest first, of byte
  ``i // 8``, with zeros behind. (Seide et al., *1-bit stochastic gradient descent*, Interspeech 2014; Karimireddy et
  al., *Error feedback fixes SignSGD*, ICML 2019, arXiv:1901.09847.) It needs error feedback.

q is never −2^(b−1). Where it rounds by chance, it is up where number i of stream ``stream`` of the seed
(:mod:`~.streams`) is below ``y − ⌊y⌋``, with ``y = x / scale`` in float32.
"""

from __future__ import annotations

import io
from typing import Any, Final, Literal

import numpy as np

from fedpost.codecs.kernels.flat import Floats, flat_view, residual_view
from fedpost.codecs.kernels.streams import MAX_SEED, random_units
from fedpost.errors import DecodeError, EncodeError, TruncatedError

__all__ = [
    "decode_blocks",
    "decode_blocks_range",
    "decode_signs",
    "decode_signs_range",
    "encode_blocks",
    "encode_signs",
]

Bytes = np.ndarray[Any, np.dtype[np.int8]]

_SCALES: Final[dict[int, np.dtype[Any]]] = {4: np.dtype("<f4"), 2: np.dtype("<f2")}
_MOST: Final = {8: 127, 4: 7}
_BLOCK_BITS: Final = range(6, 13)
_HEAD: Final = 3
_CHUNK: Final = 1 << 15
"""Values that are worked on at a time; a multiple of every block."""
_ALIGNED: Final = 1 << 12
"""A multiple of every block."""
_GREATEST_SCALE: Final = np.float32(2.0**120)
"""So that no value comes out infinite."""
_MEAN: Final = np.dtype("<f4")


def encode_blocks(
    x: Floats,
    bits: Literal[4, 8],
    *,
    block_bits: int = 8,
    scale_width: Literal[2, 4] = 4,
    seed: int | None = None,
    stream: int = 0,
) -> bytes:
    """Code a tensor.

    Args:
        x: Any shape, float32, C-contiguous.
        bits: Per value, 8 or 4.
        block_bits: Values of a block, as a power of two, 6 to 12.
        scale_width: Bytes of a scale: 4 for float32, 2 for float16.
        seed: 0 to 2⁶⁴−1 for stochastic rounding; the reader does not need it. None rounds to nearest.
        stream: 0 to 2⁶⁴−1: tells the tensors of an update apart.

    Raises:
        EncodeError: ``x`` has a NaN or an infinity, or a value is too large for the scale, or there is no such layout.
    """
    if bits not in _MOST or scale_width not in _SCALES or block_bits not in _BLOCK_BITS:
        raise EncodeError(f"no layout of {bits} bits, scales of {scale_width} bytes and blocks of 2**{block_bits}")
    if not (0 <= (seed or 0) <= MAX_SEED and 0 <= stream <= MAX_SEED):
        raise EncodeError("a seed is not of 64 bits")
    flat = flat_view(x)
    at = _HEAD + scale_width * -(-flat.size // (1 << block_bits))
    out = io.BytesIO(bytes(at + -(-flat.size * bits // 8)))  # gives its bytes away without a copy
    out.write(bytes([bits, scale_width, block_bits]))
    for start in range(0, flat.size, _CHUNK):
        piece = flat[start : start + _CHUNK]
        scale = _scales(piece, 1 << block_bits, _MOST[bits], _SCALES[scale_width])
        out.seek(_HEAD + scale_width * (start >> block_bits))
        out.write(scale.data)
        with np.errstate(divide="ignore", invalid="ignore"):  # blocks of zeros
            y = piece / _spread(scale, 1 << block_bits, piece.size)
        whole = np.floor(y) if seed is not None else np.rint(y)
        if seed is not None:
            whole += random_units(seed, stream, start, piece.size) < y - whole
        np.copyto(whole, 0, where=np.isnan(y))
        # A scale is rounded, so the greatest value may come out a little above the greatest number.
        numbers = np.clip(whole, -_MOST[bits], _MOST[bits]).astype(np.int8)
        out.seek(at + start * bits // 8)
        out.write((numbers if bits == 8 else _pack_nibbles(numbers)).data)  # noqa: PLR2004
    return out.getvalue()


def decode_blocks(data: memoryview | bytes, out: Floats) -> None:
    """Read what :func:`encode_blocks` wrote.

    Args:
        data: The bytes.
        out: Takes the values; its shape is the tensor's; float32, C-contiguous.

    Raises:
        DecodeError: The bytes are not of a tensor of this size, or a scale is not a number of 0 to 2¹²⁰.
    """
    flat = flat_view(out)
    _read_blocks(memoryview(data), flat.size, 0, flat)


def decode_blocks_range(data: memoryview | bytes, size: int, start: int, stop: int) -> Floats:
    """Elements ``start`` to ``stop`` of a tensor of ``size`` elements flattened in C order; only their blocks are read.

    Raises:
        DecodeError: The bytes are not of a tensor of this size, as far as they were read.
    """
    first, last = _around(size, start, stop)
    out = np.empty(last - first, np.float32)
    _read_blocks(memoryview(data), size, first, out)
    return out[start - first : stop - first]


def _around(size: int, start: int, stop: int) -> tuple[int, int]:
    """Whole blocks around a range."""
    return start - start % _ALIGNED, min(stop + -stop % _ALIGNED, size)


def _read_blocks(view: memoryview, size: int, first: int, out: Floats) -> None:
    """Read as many values as there is room for, from a multiple of a block on."""
    head = tuple(view[:_HEAD])
    if len(head) < _HEAD or head[0] not in _MOST or head[1] not in _SCALES or head[2] not in _BLOCK_BITS:
        raise DecodeError("no such layout of blocks")
    bits, width, block = head[0], head[1], 1 << head[2]
    scale_bytes = width * -(-size // block)
    if len(view) != _HEAD + scale_bytes + -(-size * bits // 8):
        raise TruncatedError("the bytes are not as long as the tensor's blocks")
    stored = np.frombuffer(view[_HEAD + scale_bytes :], np.int8)[first * bits // 8 :]
    scales = np.frombuffer(view[_HEAD : _HEAD + scale_bytes], _SCALES[width])
    scales = scales[first // block : -(-(first + out.size) // block)].astype(np.float32)
    if not ((scales >= 0) & (scales <= _GREATEST_SCALE)).all():
        raise DecodeError("a block's scale is not a number of 0 to 2**120")
    for start in range(0, out.size, _CHUNK):
        piece = out[start : start + _CHUNK]
        if bits == 8:  # noqa: PLR2004
            numbers = stored[start : start + piece.size]
        else:
            numbers = _unpack_nibbles(stored[start // 2 : (start + piece.size + 1) // 2], piece.size)
        if (numbers < -_MOST[bits]).any():
            raise DecodeError("a number is below the least")
        scale = scales[start // block :][: -(-piece.size // block)]
        np.multiply(numbers, _spread(scale, block, piece.size), out=piece, dtype=np.float32)


def encode_signs(x: Floats, *, residual: Floats | None = None) -> bytes:
    """Code a tensor as the signs of its values and their mean magnitude.

    Args:
        x: Any shape, float32, C-contiguous.
        residual: Takes ``x`` less what is sent, of the same shape, C-contiguous; may be ``x`` itself.

    Raises:
        EncodeError: ``x`` has a NaN or an infinity.
    """
    flat = flat_view(x)
    total = 0.0
    with np.errstate(invalid="ignore"):  # a signalling NaN; it is refused all the same
        for start in range(0, flat.size, _CHUNK):
            total += float(np.abs(flat[start : start + _CHUNK]).sum(dtype=np.float64))
    if not np.isfinite(total):
        raise EncodeError("values are NaN or infinite")
    mean = np.float32(total / max(flat.size, 1))
    lost = residual_view(residual, flat)
    parts = [np.array(mean, _MEAN).tobytes()]
    for start in range(0, flat.size, _CHUNK):
        piece = flat[start : start + _CHUNK]
        negative = np.signbit(piece)
        parts.append(np.packbits(negative, bitorder="little").tobytes())
        if lost is not None:
            np.subtract(piece, np.where(negative, -mean, mean), out=lost[start : start + _CHUNK])
    return b"".join(parts)


def decode_signs(data: memoryview | bytes, out: Floats) -> None:
    """Read what :func:`encode_signs` wrote.

    Args:
        data: The bytes.
        out: Takes the values; its shape is the tensor's; float32, C-contiguous.

    Raises:
        DecodeError: The bytes are not of a tensor of this size, or the mean magnitude is not a number of 0 or more.
    """
    flat = flat_view(out)
    _read_signs(memoryview(data), flat.size, 0, flat)


def decode_signs_range(data: memoryview | bytes, size: int, start: int, stop: int) -> Floats:
    """Elements ``start`` to ``stop`` of a tensor of ``size`` elements flattened in C order.

    Raises:
        DecodeError: As :func:`decode_signs`.
    """
    first, last = _around(size, start, stop)
    out = np.empty(last - first, np.float32)
    _read_signs(memoryview(data), size, first, out)
    return out[start - first : stop - first]


def _read_signs(view: memoryview, size: int, first: int, out: Floats) -> None:
    if len(view) != _MEAN.itemsize + -(-size // 8):
        raise TruncatedError("the bytes are not as long as the tensor's signs")
    mean = np.frombuffer(view[: _MEAN.itemsize], _MEAN)[0]
    if not (mean >= 0 and np.isfinite(mean)):
        raise DecodeError("the mean magnitude is not a number of 0 or more")
    if size % 8 and view[-1] >> size % 8:
        raise DecodeError("the bits behind the last sign are not zero")
    packed = np.frombuffer(view[_MEAN.itemsize :], np.uint8)[first // 8 :]
    table = np.array([mean, -mean], np.float32)
    for start in range(0, out.size, _CHUNK):
        piece = out[start : start + _CHUNK]
        bits = np.unpackbits(packed[start // 8 : (start + _CHUNK) // 8 + 1], count=piece.size, bitorder="little")
        table.take(bits, out=piece, mode="clip")


def _scales(piece: Floats, block: int, most: int, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    magnitudes = np.abs(piece)
    greatest = np.maximum.reduceat(magnitudes, np.arange(0, piece.size, block))
    if not np.isfinite(greatest).all():
        raise EncodeError("values are NaN or infinite")
    wanted = greatest / np.float32(most)
    with np.errstate(over="ignore"):
        scale = wanted.astype(dtype)
        # Never below what is wanted, or the greatest values would be cut; nor zero because float32 is at its end.
        scale = np.where(
            (scale < wanted) | ((scale == 0) & (greatest > 0)), np.nextafter(scale, np.asarray(np.inf, dtype)), scale
        )
    if not (scale <= _GREATEST_SCALE).all():
        raise EncodeError("a value is too large for the scale")
    return scale.astype(dtype, copy=False)


def _spread(scale: np.ndarray[Any, Any], block: int, size: int) -> Floats:
    """The scale of each value."""
    return np.repeat(scale.astype(np.float32), block)[:size]


def _pack_nibbles(numbers: Bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    nibbles = numbers.view(np.uint8) & np.uint8(0xF)
    packed = nibbles[::2].copy()
    packed[: nibbles.size // 2] |= nibbles[1::2] << np.uint8(4)
    return packed


def _unpack_nibbles(packed: Bytes, size: int) -> Bytes:
    numbers = np.empty(2 * packed.size, np.int8)
    numbers[::2] = np.left_shift(packed, 4) >> 4  # arithmetic: brings the sign down
    numbers[1::2] = packed >> 4
    if size % 2 and numbers[-1]:
        raise DecodeError("the bits behind the last number are not zero")
    return numbers[:size]
