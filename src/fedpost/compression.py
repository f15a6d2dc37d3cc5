"""Byte compressors, by registered name: bytes in, bytes out, nothing known of tensors.

Rules: a compressor is named with its level, ``"zstd(3)"``; the level matters only to the sender. Decompression is told
the exact size to expect and refuses anything else, so that a bomb is stopped at that size. Each call is independent of
every other, so chunks can be coded in any order and on any thread.
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

__all__ = ["COMPRESSORS", "Compression", "Compressor"]


class Compressor(Protocol):
    """The contract: what one compression library must offer here."""

    @property
    def default_level(self) -> int:
        """The level that a name without one stands for."""

    @property
    def levels(self) -> Sequence[int]:
        """Every level, from the smallest to the greatest."""

    def compress(self, data: memoryview, level: int) -> bytes:
        """Compress one chunk."""

    def decompress(self, data: memoryview, size: int) -> bytes | memoryview:
        """Decompress one chunk that must come to exactly ``size`` bytes.

        What is returned may be good only until the same thread's next call.

        Raises:
            DecodeError: The chunk is damaged, or is not of that size.
        """


class _Gzip:
    default_level = 6
    levels = range(10)
    _GZIP_FRAMING: Final = 31

    def compress(self, data: memoryview, level: int) -> bytes:
        coder = zlib.compressobj(level, zlib.DEFLATED, self._GZIP_FRAMING)
        return coder.compress(data) + coder.flush()

    def decompress(self, data: memoryview, size: int) -> bytes:
        coder = zlib.decompressobj(self._GZIP_FRAMING)
        try:
            # One byte of slack, so that a chunk which is too long is seen to be so.
            out = coder.decompress(data, size + 1)
        except zlib.error as error:
            raise DecodeError(f"damaged gzip chunk: {error}") from error
        if len(out) != size or not coder.eof or coder.unused_data:
            raise DecodeError(f"gzip chunk does not come to the {size} bytes that the header promises")
        return out


class _Zstd:
    default_level = 3
    levels = range(-50, 23)
    _MAX_WINDOW: Final = 1 << 27

    def __init__(self) -> None:
        # The library's check for extra bytes does not look behind a chunk of nothing, so that chunk is known whole.
        self._empty = zstandard.ZstdCompressor().compress(b"")
        self._local = threading.local()  # contexts are costly to make and not to be shared between threads

    def compress(self, data: memoryview, level: int) -> bytes:
        key = f"compressor{level}"
        coder = getattr(self._local, key, None)
        if coder is None:
            coder = zstandard.ZstdCompressor(level=level)
            setattr(self._local, key, coder)
        out: bytes = coder.compress(data)
        return out

    def decompress(self, data: memoryview, size: int) -> bytes:
        coder = getattr(self._local, "decompressor", None)
        if coder is None:
            coder = self._local.decompressor = zstandard.ZstdDecompressor(max_window_size=self._MAX_WINDOW)
        try:
            # The library allocates what the chunk claims, so the claim is checked first.
            if zstandard.frame_content_size(data) != size or (not size and data != self._empty):
                raise DecodeError(f"zstd chunk does not come to the {size} bytes that the header promises")
            out: bytes = coder.decompress(data, max_output_size=size, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise DecodeError(f"damaged zstd chunk: {error}") from error
        if len(out) != size:
            raise DecodeError(f"zstd chunk does not come to the {size} bytes that the header promises")
        return out


class _Lz4:
    default_level = 0
    levels = range(17)

    def compress(self, data: memoryview, level: int) -> bytes:
        # Level 0 is the fast mode; from 1 up it is LZ4 HC.
        mode = {"mode": "high_compression", "compression": level} if level else {"mode": "default"}
        out: bytes = lz4.block.compress(data, store_size=False, **mode)
        return out

    def decompress(self, data: memoryview, size: int) -> bytes:
        try:
            out: bytes = lz4.block.decompress(data, uncompressed_size=size)
        except lz4.block.LZ4BlockError as error:
            raise DecodeError(f"damaged lz4 chunk: {error}") from error
        if len(out) != size:
            raise DecodeError(f"lz4 chunk does not come to the {size} bytes that the header promises")
        return out


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
    """

    name: str
    level: int

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
        return COMPRESSORS.get(self.name).compress(data, self.level)

    def __str__(self) -> str:
        return f"{self.name}({self.level})"
