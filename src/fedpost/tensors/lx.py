"""LX: lossless compression of floating-point numbers, as chunks of bytes that say how wide their words are.

Trained weights look like noise to a general compressor, but their exponents are few. LX (1) cuts each word into lanes
of 16 bits; (2) moves the sign of the highest lane down, so that the exponent fills a byte of its own; (3) tries 64 KiB
of each plane of bytes and stores what would not shrink as it is; (4) codes the others with zstd reduced to its Huffman
coder, which on such planes is smaller and faster than its levels.

Layout of a chunk, everything little-endian, n words of b bits:

- one byte: b, which is 8, 16, 32 or 64; one more where the words are big-endian, which is not for those of 8;
- for each byte of a word, from the lowest to the highest, the stored length of its plane: four bytes each;
- the planes in that order;
- the bytes at the end of the content that do not fill a word.

A plane has n bytes, the k-th belongs to the k-th word. Stored in n bytes it stands as it is; otherwise it is one zstd
frame that states its content size, which is n. Words of 8 bits have one plane: their bytes. In wider ones bytes 2i and
2i + 1 are lane i: its low and its high byte; but of the highest lane, whose bits are ``s hhhhhhhh lllllll``, the planes
are ``s lllllll`` and ``hhhhhhhh``. A lane below the highest may be stored whole: n words of 16 bits as the first of its
two planes, in 2n bytes, and nothing as the second. Chunks are independent of each other.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Sequence
from typing import Any, Final

import ml_dtypes
import numpy as np
import zstandard

from fedpost.compression import COMPRESSORS, Compression, unzstd_into
from fedpost.errors import DecodeError
from fedpost.tensors.dtypes import float_bits

__all__ = ["Lx", "compression_for"]

_WORDS: Final[dict[int, np.dtype[Any]]] = {bits: np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)}
_BIG: Final = 1
_KINDS: Final = frozenset((8, *(bits | big for bits in (16, 32, 64) for big in (0, _BIG))))
_LANE: Final = np.dtype("<u2")
_BFLOAT16: Final = np.dtype(ml_dtypes.bfloat16)
_SIGNED: Final = np.dtype("<i2")
_BLOCK: Final = 1 << 16
"""Words that are taken apart or put together at a time: they and their planes stay in the cache."""
_PROBE: Final = 1 << 16
_WORTHWHILE: Final = 0.97
_HUFFMAN: Final = zstandard.ZstdCompressionParameters(
    strategy=zstandard.STRATEGY_FAST, window_log=17, hash_log=6, chain_log=6, search_log=1, min_match=7
)
_SIGN_AND_LOW: Final = np.uint16(0x807F)
_LOW_BITS: Final = np.uint16(7)
_LOW_RANGE: Final = np.uint16(1 << 7)
_BYTE_BITS: Final = np.uint16(8)
_BYTE_RANGE: Final = np.uint16(1 << 8)

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Lanes = np.ndarray[Any, np.dtype[np.uint16]]
Words = np.ndarray[Any, np.dtype[Any]]


class _Scratch(threading.local):
    """Memory of one thread, used again for every chunk: fresh pages would cost more than the work."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(compression_params=_HUFFMAN)
        self.planes = np.empty(0, np.uint8)
        self.words = np.empty((2, 8 * _BLOCK), np.uint8)
        self.lanes = np.empty((2, _BLOCK), _LANE)

    def whole(self, nbytes: int) -> Bytes:
        if self.planes.nbytes < nbytes:
            self.planes = np.empty(nbytes, np.uint8)
        return self.planes[:nbytes]


class Lx:
    """The compressor. It has one level; words are as wide as the numbers that the bytes are."""

    default_level = 1
    levels: Sequence[int] = (1,)

    def __init__(self) -> None:
        self._scratch = _Scratch()

    def compress(self, data: memoryview, level: int, number: str = "") -> bytes:  # noqa: ARG002 - there is one level
        """Compress a chunk of numbers of a type such as ``"f4"`` or ``">f4"``, of which width and order matter."""
        big = number.startswith(">")
        bits = 8 * int(number.lstrip("><=")[1:] or 1)
        words = np.frombuffer(data, _WORDS[bits], count=data.nbytes * 8 // bits)
        if big:
            words = words.byteswap()
        scratch = self._scratch
        stored: list[bytes | memoryview] = []
        if words.itemsize == 1:
            stored.append(_pack(words, scratch.compressor))
        else:
            memory = scratch.whole(words.nbytes)
            top = memory[: 2 * words.size].reshape(2, words.size)
            lanes = memory[2 * words.size :].view(_LANE).reshape(words.itemsize // 2 - 1, words.size)
            _split(words, lanes, top, scratch)
            for lane in lanes:
                stored += _pack_lane(lane, scratch.compressor)
            stored += (_pack(plane, scratch.compressor) for plane in top)
        lengths = struct.pack(f"<{len(stored)}I", *map(len, stored))
        return b"".join([bytes([bits | _BIG if big else bits]), lengths, *stored, data[words.nbytes :]])

    def decompress_into(self, data: memoryview, out: memoryview) -> None:
        """Decompress a chunk.

        Raises:
            DecodeError: The chunk is damaged, or is not of that size.
        """
        if not data.nbytes or data[0] not in _KINDS:
            raise DecodeError("lx chunk of unknown words")
        width = data[0] // 8
        words = np.frombuffer(out, _WORDS[8 * width], count=out.nbytes // width)
        rest = out.nbytes % width
        start = 1 + 4 * width
        if data.nbytes < start:
            raise DecodeError("lx chunk ends in its table of planes")
        lengths = struct.unpack_from(f"<{width}I", data, 1)
        if start + sum(lengths) + rest != data.nbytes:
            raise DecodeError("lx chunk is not as long as its planes")
        stored = []
        for length in lengths:
            stored.append(data[start : start + length])
            start += length
        if width == 1:
            plane = np.frombuffer(out, np.uint8)
            if (found := _unpack(stored[0], plane)) is not plane:
                plane[:] = found
        else:
            _join(stored, words, self._scratch)
            if data[0] & _BIG:
                words.byteswap(inplace=True)
        out[out.nbytes - rest :] = data[start:]


def compression_for(compression: Compression, dtype: np.dtype[Any] | None) -> Compression:
    """What to compress a segment of a type with, where ``lx`` was asked for: other types than floats go to zstd.

    Args:
        compression: What was asked for.
        dtype: The segment's element type, or None when it is not of one type.
    """
    if compression.name != "lx":
        return compression
    big = dtype is not None and dtype.byteorder == ">"
    bits = None if dtype is None else float_bits(dtype.newbyteorder("=") if big else dtype)
    return Compression("zstd", 1) if bits is None else Compression("lx", 1, f"{'>' if big else ''}f{bits // 8}")


# ── planes of bytes, stored ──────────────────────────────────────────────────────────────────────────────────────────


def _worthwhile(plane: Bytes, coder: zstandard.ZstdCompressor) -> bool:
    return plane.size <= _PROBE or len(coder.compress(plane[:_PROBE].data)) <= _WORTHWHILE * _PROBE


def _pack(plane: Bytes, coder: zstandard.ZstdCompressor) -> bytes | memoryview:
    if not _worthwhile(plane, coder):
        return plane.data
    packed: bytes = coder.compress(plane.data)
    return packed if len(packed) < plane.size else plane.data


def _pack_lane(lane: Lanes, coder: zstandard.ZstdCompressor) -> list[bytes | memoryview]:
    """A lane as two planes, or whole when neither of them would shrink."""
    start = lane[:_PROBE]
    if any(_worthwhile(plane, coder) for plane in _bytes_of(start)):
        planes: list[bytes | memoryview] = [_pack(plane, coder) for plane in _bytes_of(lane)]
        if sum(map(len, planes)) < lane.nbytes:
            return planes
    return [lane.view(np.uint8).data, b""]


def _bytes_of(lane: Lanes) -> tuple[Bytes, Bytes]:
    return lane.astype(np.uint8), (lane >> _BYTE_BITS).astype(np.uint8)


def _unpack(data: memoryview, plane: Bytes) -> Bytes:
    """A stored plane: where it is, or in the memory given, as far as that is filled."""
    if data.nbytes == plane.size:
        return np.frombuffer(data, np.uint8)
    try:
        unzstd_into(data, plane.data)
    except DecodeError as error:
        raise DecodeError(f"plane of an lx chunk: {error.what}") from error
    return plane


# ── words and their planes ───────────────────────────────────────────────────────────────────────────────────────────


def _split(words: Words, lanes: Lanes, top: Bytes, scratch: _Scratch) -> None:
    """Words to their lower lanes and the two planes of the highest one, a block at a time."""
    low, high = top
    lane_bits = words.dtype.type(16)
    for start in range(0, words.size, _BLOCK):
        part = words[start : start + _BLOCK]
        stop = start + part.size
        lane, moved = scratch.lanes[:, : part.size]
        shifted = scratch.words[0, : part.nbytes].view(words.dtype)
        for lower in lanes:
            np.copyto(lower[start:stop], part, casting="unsafe")
            part = np.right_shift(part, lane_bits, out=shifted)
        np.copyto(lane, part, casting="unsafe")
        np.right_shift(lane, _LOW_BITS, out=moved)
        np.copyto(high[start:stop], moved, casting="unsafe")
        np.bitwise_and(lane, _SIGN_AND_LOW, out=lane)
        np.right_shift(lane, _BYTE_BITS, out=moved)
        np.bitwise_or(lane, moved, out=lane)
        np.copyto(low[start:stop], lane, casting="unsafe")


def _join(stored: Sequence[memoryview], words: Words, scratch: _Scratch) -> None:
    """Stored planes to words, a block at a time."""
    count = words.size
    if not count:
        if any(stored):
            raise DecodeError("plane of an lx chunk without words")
        return
    memory = iter(scratch.whole(words.nbytes).reshape(-1, count))
    lanes = [
        (np.frombuffer(low, np.uint8),)
        if low.nbytes == 2 * count and not high.nbytes
        else (_unpack(low, next(memory)), _unpack(high, next(memory)))
        for low, high in zip(stored[:-2:2], stored[1:-2:2], strict=True)
    ]
    low, high = _unpack(stored[-2], next(memory)), _unpack(stored[-1], next(memory))
    for start in range(0, count, _BLOCK):
        part = words[start : start + _BLOCK]
        stop = start + part.size
        lane, moved = scratch.lanes[:, : part.size]
        # As a signed number it is widened with its sign, which so comes to stand where it belongs.
        np.copyto(lane.view(_SIGNED), low[start:stop].view(np.int8))
        np.bitwise_and(lane, _SIGN_AND_LOW, out=lane)
        np.copyto(moved, high[start:stop])
        np.multiply(moved, _LOW_RANGE, out=moved)  # a multiplication is faster than a shift
        if not lanes:
            np.bitwise_or(lane, moved, out=part)
            continue
        np.bitwise_or(lane, moved, out=lane)
        wide, other = (memory[: part.nbytes].view(words.dtype) for memory in scratch.words)
        _shift_in(lane, wide)
        for number, planes in enumerate(reversed(lanes), 1):
            if len(planes) == 1:
                np.copyto(other, planes[0][2 * start : 2 * stop].view(_LANE))
            else:
                np.copyto(moved, planes[1][start:stop])
                np.multiply(moved, _BYTE_RANGE, out=moved)
                np.bitwise_or(moved, planes[0][start:stop], out=moved)
                np.copyto(other, moved)
            # What was received is written to once only: the first touch of fresh memory is what costs.
            np.bitwise_or(wide, other, out=part if number == len(lanes) else wide)
            if number < len(lanes):
                np.left_shift(wide, words.dtype.type(16), out=wide)


def _shift_in(top: Lanes, wide: Words) -> None:
    """Widen a highest lane to words that have room for the next one below it."""
    if wide.dtype == _WORDS[32]:
        np.copyto(wide.view(np.float32), top.view(_BFLOAT16))  # exactly that, for every bit pattern, in one pass
    else:
        np.copyto(wide, top)
        np.left_shift(wide, wide.dtype.type(16), out=wide)


COMPRESSORS.register("lx", Lx())
