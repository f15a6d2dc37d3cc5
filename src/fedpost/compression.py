"""Byte compressors, by registered name: bytes in, bytes out, nothing known of tensors.

Rules: a compressor is named with its level, ``"zstd(3)"``; the level matters only to the sender. A sender that knows
what numbers the bytes are says so, and a compressor of numbers writes it into its chunks. Decompression fills memory of
the exact size to expect and refuses what does not fit, so that a bomb is stopped at that size. Each call is independent
of every other, so chunks can be coded in any order and on any thread.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import lz4.block
import zstandard

from fedpost.errors import ConfigError, DecodeError
from fedpost.registry import Registry, parse_call

__all__ = ["COMPRESSORS", "Compression", "Compressor", "unzstd_into"]


class Compressor(Protocol):
    """The contract: what one compression library must offer here."""

    @property
    def default_level(self) -> int:
        """The level that a name without one stands for."""

    @property
    def levels(self) -> Sequence[int]:
        """Every level, from the smallest to the greatest."""

    def compress(self, data: memoryview, level: int, number: str = "") -> bytes:
        """Compress one chunk.

        Args:
            data: The chunk; bytes that do not fill a number may stand at its end.
            level: One of :attr:`levels`.
            number: What the bytes are, for a compressor of numbers: NumPy's code for a little-endian type, such as
                ``"f4"``; nothing when they are just bytes.
        """

    def decompress_into(self, data: memoryview, out: memoryview) -> None:
        """Decompress one chunk that must come to exactly the bytes of ``out``, which are undefined after an error.

        Raises:
            DecodeError: The chunk is damaged, or is not of that size.
        """


class _Gzip:
    default_level = 6
    levels = range(10)
    _GZIP_FRAMING: Final = 31

    def compress(self, data: memoryview, level: int, number: str = "") -> bytes:  # noqa: ARG002 - the contract
        coder = zlib.compressobj(level, zlib.DEFLATED, self._GZIP_FRAMING)
        return coder.compress(data) + coder.flush()

    def decompress_into(self, data: memoryview, out: memoryview) -> None:
        coder = zlib.decompressobj(self._GZIP_FRAMING)
        try:
            # One byte of slack, so that a chunk which is too long is seen to be so.
            plain = coder.decompress(data, out.nbytes + 1)
        except zlib.error as error:
            raise DecodeError(f"damaged gzip chunk: {error}") from error
        if len(plain) != out.nbytes or not coder.eof or coder.unused_data:
            raise DecodeError(f"gzip chunk does not come to the {out.nbytes} bytes that the header promises")
        out[:] = plain


class _Zstd:
    default_level = 3
    levels = range(-50, 23)

    def __init__(self) -> None:
        self._local = threading.local()  # contexts are costly to make and not to be shared between threads

    def compress(self, data: memoryview, level: int, number: str = "") -> bytes:  # noqa: ARG002 - the contract
        key = f"compressor{level}"
        coder = getattr(self._local, key, None)
        if coder is None:
            coder = zstandard.ZstdCompressor(level=level)
            setattr(self._local, key, coder)
        out: bytes = coder.compress(data)
        return out

    def decompress_into(self, data: memoryview, out: memoryview) -> None:
        unzstd_into(data, out)


class _Lz4:
    default_level = 0
    levels = range(17)

    def compress(self, data: memoryview, level: int, number: str = "") -> bytes:  # noqa: ARG002 - the contract
        # Level 0 is the fast mode; from 1 up it is LZ4 HC.
        mode = {"mode": "high_compression", "compression": level} if level else {"mode": "default"}
        out: bytes = lz4.block.compress(data, store_size=False, **mode)
        return out

    def decompress_into(self, data: memoryview, out: memoryview) -> None:
        try:
            plain: bytes = lz4.block.decompress(data, uncompressed_size=out.nbytes)
        except lz4.block.LZ4BlockError as error:
            raise DecodeError(f"damaged lz4 chunk: {error}") from error
        if len(plain) != out.nbytes:
            raise DecodeError(f"lz4 chunk does not come to the {out.nbytes} bytes that the header promises")
        out[:] = plain


_MAX_WINDOW: Final = 1 << 27
_CHECKSUM_FLAG: Final = 4
_RLE_BLOCK: Final = 1
_FEWEST_BLOCKS: Final = 64
_SMALLEST_BLOCK: Final = 512
_LOCAL: Final = threading.local()


def unzstd_into(data: memoryview, out: memoryview) -> None:
    """Decompress one zstd frame that fills ``data`` exactly and says that it comes to the bytes of ``out``.

    Raises:
        DecodeError: It does not.
    """
    coder = getattr(_LOCAL, "decompressor", None)
    if coder is None:
        coder = _LOCAL.decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
    try:
        fits = zstandard.frame_content_size(data) == out.nbytes and _zstd_end(data, out.nbytes) == data.nbytes
        # With room for all of it the library decompresses straight into its place, without a window of its own.
        room = out if out.nbytes else memoryview(bytearray(1))
        fits = fits and coder.stream_reader(data).readinto(room) == out.nbytes
    except zstandard.ZstdError as error:
        raise DecodeError(f"damaged zstd chunk: {error}") from error
    if not fits:
        raise DecodeError(f"zstd chunk does not come to the {out.nbytes} bytes that the header promises")


def _zstd_end(data: memoryview, size: int) -> int | None:
    """Where a zstd frame ends by the lengths of its blocks (RFC 8878, section 3.1.1), which a stream's reader hides.

    None when it ends nowhere, or has more blocks than anybody would write.
    """
    position = zstandard.frame_header_size(data)
    checksum = 4 if data[4] & _CHECKSUM_FLAG else 0
    for _ in range(_FEWEST_BLOCKS + size // _SMALLEST_BLOCK):
        header = int.from_bytes(data[position : position + 3], "little")
        if position + 3 > data.nbytes:
            return None
        kind, length = header >> 1 & 3, header >> 3
        position += 3 + (1 if kind == _RLE_BLOCK else length)
        if header & 1:
            return position + checksum
    return None


COMPRESSORS: Final[Registry[str, Compressor]] = Registry("compression")
COMPRESSORS.register("gzip", _Gzip())
COMPRESSORS.register("zstd", _Zstd())
COMPRESSORS.register("lz4", _Lz4())


@dataclass(frozen=True, slots=True)
class Compression:
    """A compressor with its level, as a sender uses it.

    Attributes:
        name: A registered name.
        level: The library's own scale of effort.
        number: What the bytes are, where that is known and of use; see :meth:`Compressor.compress`.
    """

    name: str
    level: int
    number: str = ""

    @classmethod
    def parse(cls, spec: str) -> Compression | None:
        """Read ``"none"``, ``"zstd"`` or ``"zstd(3)"``; ``none`` gives None.

        Raises:
            ConfigError: Not of that form, or the level is outside the compressor's range.
            RegistryError: No such compressor.
        """
        name, arguments = parse_call(spec)
        if name == "none" and not arguments:
            return None
        compressor = COMPRESSORS.get(name)
        try:
            (level,) = map(int, arguments) if arguments else (compressor.default_level,)
        except ValueError:
            raise ConfigError(f"{spec!r}: a compression takes one level, a whole number") from None
        if level not in compressor.levels:
            first, last = compressor.levels[0], compressor.levels[-1]
            raise ConfigError(f"{spec!r}: {name} has the levels {first} to {last}")
        return cls(name, level)

    def compress(self, data: memoryview) -> bytes:
        """Compress one chunk at this level."""
        return COMPRESSORS.get(self.name).compress(data, self.level, self.number)

    def __str__(self) -> str:
        return f"{self.name}({self.level})"
