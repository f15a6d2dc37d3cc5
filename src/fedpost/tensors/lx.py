"""LX: lossless compression of floating-point numbers, as chunks of bytes that say how wide their words are.

Trained weights look like noise to a general compressor, but their exponents are few. LX (1) rotates the bits of each
word left by one, so that sign and exponent no longer share a byte and the exponent fills the highest one; (2) splits
the words into planes of bytes; (3) tries 64 KiB of each plane and stores the plane as it is if it would not shrink;
(4) codes the others with zstd reduced to its Huffman coder, which on such planes is smaller and faster than its levels.

Layout of a chunk: one byte, the bits of a word (8, 16, 32 or 64); for each plane, lowest byte first, its stored length
in four bytes, little-endian; the planes, one after the other; the bytes that do not fill a word. A plane as long as
the number of words is stored as it is. Chunks are independent of each other.
"""

from __future__ import annotations

import struct
import threading
from typing import Any, Final

import numpy as np
import zstandard

from fedpost.compression import COMPRESSORS, Compression
from fedpost.errors import DecodeError
from fedpost.tensors.dtypes import float_bits

__all__ = ["Lx", "compression_for"]

_WORDS: Final[dict[int, np.dtype[Any]]] = {bits: np.dtype(f"u{bits // 8}") for bits in (8, 16, 32, 64)}
_BLOCK: Final = 1 << 17
"""Bytes that are rotated and split at a time: they and their planes stay in the cache."""
_PROBE: Final = 1 << 16
_WORTHWHILE: Final = 0.97
_HUFFMAN: Final = zstandard.ZstdCompressionParameters(
    strategy=zstandard.STRATEGY_FAST, window_log=17, hash_log=6, chain_log=6, search_log=1, min_match=7
)


class _Scratch(threading.local):
    """Memory of one thread, used again for every chunk: fresh pages would cost more than the work."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(compression_params=_HUFFMAN)
        self.decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 27)
        self.planes = np.empty(0, np.uint8)
        self.blocks = np.empty((2, _BLOCK), np.uint8)

    def whole(self, nbytes: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        if self.planes.nbytes < nbytes:
            self.planes = np.empty(nbytes, np.uint8)
        return self.planes[:nbytes]


class Lx:
    """The compressor; its level is the number of bits of a word."""

    default_level = 32
    levels = tuple(_WORDS)

    def __init__(self) -> None:
        self._scratch = _Scratch()

    def compress(self, data: memoryview, level: int) -> bytes:
        """Compress a chunk of words of ``level`` bits."""
        scratch = self._scratch
        words = np.frombuffer(data, _WORDS[level], count=data.nbytes * 8 // level)
        planes = _split(words, level, scratch)
        stored = [_pack(plane, scratch.compressor) for plane in planes]
        lengths = struct.pack(f"<{len(stored)}I", *map(len, stored))
        return b"".join([bytes([level]), lengths, *stored, data[words.nbytes :]])

    def decompress(self, data: memoryview, size: int) -> memoryview:
        """Decompress a chunk; the result is good until this thread's next call.

        Raises:
            DecodeError: The chunk is damaged, or is not of that size.
        """
        if not data.nbytes or data[0] not in _WORDS:
            raise DecodeError("lx chunk of unknown words")
        bits = data[0]
        count, rest = size * 8 // bits, size % (bits // 8)
        start = 1 + bits // 2
        if data.nbytes < start:
            raise DecodeError("lx chunk ends in its table of planes")
        lengths = struct.unpack_from(f"<{bits // 8}I", data, 1)
        if start + sum(lengths) + rest != data.nbytes:
            raise DecodeError("lx chunk is not as long as its planes")
        planes = []
        for length in lengths:
            planes.append(_unpack(data[start : start + length], count, self._scratch.decompressor))
            start += length
        out = self._scratch.whole(size)
        _join(planes, out[: count * bits // 8].view(_WORDS[bits]), bits, self._scratch)
        out[size - rest :] = np.frombuffer(data[start:], np.uint8)
        return out.data.toreadonly()


def compression_for(compression: Compression, dtype: np.dtype[Any] | None) -> Compression:
    """What to compress a segment of a type with, where ``lx`` was asked for: other types than floats go to zstd.

    Args:
        compression: What was asked for.
        dtype: The segment's element type, or None when it is not of one type.
    """
    if compression.name != "lx":
        return compression
    bits = None if dtype is None else float_bits(dtype)
    return Compression("zstd", 1) if bits is None else Compression("lx", bits)


def _split(words: np.ndarray[Any, Any], bits: int, scratch: _Scratch) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Words to planes of bytes, rotated, a block at a time."""
    kind = words.dtype.type
    planes = scratch.whole(words.nbytes).reshape(bits // 8, -1)
    step = _BLOCK // words.itemsize
    for start in range(0, words.size, step):
        part = words[start : start + step]
        rotated, shifted = (block[: part.nbytes].view(words.dtype) for block in scratch.blocks)
        np.left_shift(part, kind(1), out=rotated)
        np.right_shift(part, kind(bits - 1), out=shifted)
        np.bitwise_or(rotated, shifted, out=rotated)
        for number, plane in enumerate(planes):
            if number:
                np.right_shift(rotated, kind(8), out=rotated)
            np.copyto(plane[start : start + part.size], rotated, casting="unsafe")
    return planes


def _join(planes: list[np.ndarray[Any, Any]], words: np.ndarray[Any, Any], bits: int, scratch: _Scratch) -> None:
    """Planes of bytes to words, rotated back, a block at a time."""
    kind = words.dtype.type
    step = _BLOCK // words.itemsize
    for start in range(0, words.size, step):
        out = words[start : start + step]
        rotated, low = (block[: out.nbytes].view(words.dtype) for block in scratch.blocks)
        np.copyto(rotated, planes[-1][start : start + out.size])
        for plane in reversed(planes[:-1]):
            np.left_shift(rotated, kind(8), out=rotated)
            np.bitwise_or(rotated, plane[start : start + out.size], out=rotated)
        np.left_shift(rotated, kind(bits - 1), out=low)
        np.right_shift(rotated, kind(1), out=rotated)
        np.bitwise_or(rotated, low, out=out)


def _pack(plane: np.ndarray[Any, np.dtype[np.uint8]], coder: zstandard.ZstdCompressor) -> bytes | memoryview:
    if plane.size > _PROBE and len(coder.compress(plane[:_PROBE].data)) > _WORTHWHILE * _PROBE:
        return plane.data
    packed: bytes = coder.compress(plane.data)
    return packed if len(packed) < plane.size else plane.data


def _unpack(data: memoryview, count: int, coder: zstandard.ZstdDecompressor) -> np.ndarray[Any, Any]:
    if data.nbytes == count:
        return np.frombuffer(data, np.uint8)
    try:
        if zstandard.frame_content_size(data) != count:
            raise DecodeError(f"a plane of an lx chunk does not come to {count} bytes")
        plain = coder.decompress(data, max_output_size=count, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise DecodeError(f"damaged plane of an lx chunk: {error}") from error
    if len(plain) != count:
        raise DecodeError(f"a plane of an lx chunk does not come to {count} bytes")
    return np.frombuffer(plain, np.uint8)


COMPRESSORS.register("lx", Lx())
