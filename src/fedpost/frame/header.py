"""The header of a frame: its layout, and every check that must hold before a byte of a segment is looked at.

Rules: a length that the input claims is compared with what is there and with :class:`Limits` before anything is
allocated; also the lengths of a header's own columns, since a byte of them can cost fifty in memory. Tables are arrays
without keys, so that there is one way to write them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Annotated, Final

import blake3
import msgspec

from fedpost.checksums import CHECKSUMS
from fedpost.compression import COMPRESSORS
from fedpost.errors import DecodeError, IntegrityError, LimitError, TruncatedError, UnsupportedError

__all__ = [
    "COUNTED_FROM",
    "DEFAULT_LIMITS",
    "Header",
    "Limits",
    "SegmentTable",
    "array_length",
    "header_digest",
    "header_length",
    "pack_header",
    "read_header",
    "stored_sizes",
]

MAGIC: Final = b"\x89FPF\r\n\x1a\n"
MAJOR: Final = 1
MINOR: Final = 0
FLAG_SEALED: Final = 1

_PROLOGUE: Final = struct.Struct("<8sBBHIQ16s")
_START: Final = struct.Struct("<8sBBHIQ")
"""What the header's digest covers of it."""
_DIGESTED_PROLOGUE: Final = _START.size
_MIN_CHUNK: Final = 1 << 16
_MAX_CODINGS: Final = 255
_MAX_FEATURES: Final = 64
_MAX_SECTIONS: Final = 1024
_FEATURES: Final[frozenset[str]] = frozenset()
_LONGEST_INTEGER: Final = 9
_LONGEST_HEAD: Final = 5
COUNTED_FROM: Final = 1 << 18
"""Bytes of a table from which its columns are counted before they are made: less costs little whatever it holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a receiver is willing to take. Sizes are in bytes.

    Attributes:
        max_frame: Size of a whole frame.
        max_header: Size of the header.
        max_section: Size of one header section other than the tensor table.
        max_raw: Size of all segments after decompression.
        max_segments: Number of segments.
        max_tensors: Number of tensors.
        max_chunk: Size of one chunk after decompression.
        max_ratio: Decompressed size over compressed size, per segment.
        max_swell: Decompressed size of a frame over its size, beyond ``free_raw``.
        free_raw: Decompressed size that a frame of any size may come to.
        max_items: Bytes of an object's tree. What is built out of it is held to it as well: for every 32 of them
            to a row, and to a list or dictionary; for every 16 to an instance or tuple of a list by column; for every 4
            to a number of a list of numbers.
        max_integer: Bytes of one integer in an object.
    """

    max_frame: int = 1 << 34
    max_header: int = 1 << 24
    max_section: int = 1 << 20
    max_raw: int = 1 << 34
    max_segments: int = 1 << 17
    max_tensors: int = 1 << 17
    max_chunk: int = 1 << 24
    max_ratio: int = 100_000
    max_swell: int = 256
    free_raw: int = 1 << 27
    max_items: int = 1 << 25
    max_integer: int = 1 << 20


DEFAULT_LIMITS: Final = Limits()


class SegmentTable(msgspec.Struct, array_like=True, frozen=True):
    """One row a segment, by column.

    Attributes:
        raw: Sizes before compression.
        digests: Digests of the stored bytes, one after the other.
        codings: Registered names of the compressions in use.
        coding: For each segment 0 (stored as it is) or 1 + an index into ``codings``; empty when all are 0.
        chunk: Bytes before compression of every chunk but a segment's last.
        chunks: For each compressed segment the stored sizes of its chunks.
    """

    raw: list[int]
    digests: bytes
    codings: Annotated[list[str], msgspec.Meta(max_length=_MAX_CODINGS)] = []
    coding: list[int] = []
    chunk: int = 0
    # No row may be empty: an empty one costs a byte on the wire and a hundred in memory.
    chunks: list[Annotated[list[int], msgspec.Meta(min_length=1)]] = []


class Header(msgspec.Struct, array_like=True, frozen=True):
    """What follows the prologue.

    Attributes:
        checksum: Registered name of the digest algorithm of the segments.
        requires: Names of features without which the frame must not be read.
        segments: The segment table.
        sections: Named parts for the layers above, each in MessagePack of its own.
    """

    checksum: str
    requires: Annotated[list[str], msgspec.Meta(max_length=_MAX_FEATURES)]
    segments: SegmentTable
    sections: Annotated[list[tuple[str, msgspec.Raw]], msgspec.Meta(max_length=_MAX_SECTIONS)]


_NONE: Final = msgspec.Raw(b"\x90")


class _Outline(msgspec.Struct, array_like=True, frozen=True):
    """A segment table whose columns were passed over, not made."""

    raw: msgspec.Raw
    digests: msgspec.Raw
    codings: msgspec.Raw = _NONE
    coding: msgspec.Raw = _NONE
    chunk: msgspec.Raw = msgspec.Raw(b"\0")
    chunks: msgspec.Raw = _NONE


class _HeaderOutline(msgspec.Struct, array_like=True, frozen=True):
    checksum: msgspec.Raw
    requires: msgspec.Raw
    segments: _Outline
    sections: msgspec.Raw


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Header)
_OUTLINES: Final = msgspec.msgpack.Decoder(_HeaderOutline)
_SIZES: Final = msgspec.msgpack.Decoder(list[int])
_SIZE: Final = msgspec.msgpack.Decoder(int)


def _header_digest(prologue: bytes | memoryview, body: bytes | memoryview) -> bytes:
    hasher = blake3.blake3(prologue)
    hasher.update(body)
    digest: bytes = hasher.digest(16)
    return digest


def pack_header(header: Header) -> bytes:
    """Prologue and header, as they stand at the start of a frame."""
    body = _ENCODER.encode(header)
    start = _START.pack(MAGIC, MAJOR, MINOR, 0, 0, len(body))
    return start + _header_digest(start, body) + body


def header_digest(head: bytes) -> bytes:
    """The 16 bytes of digest in a prologue."""
    return head[_DIGESTED_PROLOGUE : _PROLOGUE.size]


def header_length(start: bytes | bytearray, limits: Limits) -> int | None:
    """Bytes of prologue and header together, by the first bytes of a frame; None as long as they are too few.

    Raises:
        DecodeError: They do not begin a frame.
        LimitError: The header is longer than allowed.
    """
    if start[:8] != MAGIC[: len(start)]:
        raise DecodeError("not a fedpost frame: the first bytes are wrong", where="prologue")
    if len(start) < _PROLOGUE.size:
        return None
    length = int.from_bytes(start[_START.size - 8 : _START.size], "little")
    if length > limits.max_header:
        raise LimitError(f"a header of {length} bytes, {limits.max_header} allowed", where="prologue")
    return _PROLOGUE.size + length


def read_header(view: memoryview, limits: Limits) -> tuple[int, memoryview, Header]:
    """The minor version, the bytes of prologue and header, and the header decoded.

    Raises:
        DecodeError: In any of its kinds; see :meth:`fedpost.frame.Frame.decode`.
    """
    minor, flags, end = _read_prologue(view, limits)
    if flags == FLAG_SEALED:
        raise UnsupportedError("the frame is sealed and no key was given", where="prologue")
    if flags:
        raise UnsupportedError(f"unknown flags {flags:#x}", where="prologue")
    try:
        if end > COUNTED_FROM:
            _count_columns(_OUTLINES.decode(view[_PROLOGUE.size : end]).segments, limits)
        header = _DECODER.decode(view[_PROLOGUE.size : end])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise DecodeError(str(error), where="header") from error
    if header.requires and (unknown := [name for name in header.requires if name not in _FEATURES]):
        raise UnsupportedError(f"needs the feature {unknown[0][:80]!r}", where="header", hint="Use a newer fedpost.")
    if len(header.sections) > 1 and len({name for name, _ in header.sections}) < len(header.sections):
        raise DecodeError("a section comes twice", where="header")
    return minor, view[:end], header


def _read_prologue(view: memoryview, limits: Limits) -> tuple[int, int, int]:
    """Minor version, flags, and where the header ends, once the header's digest was checked."""
    if view.nbytes > limits.max_frame:
        raise LimitError(f"a frame of {view.nbytes} bytes, {limits.max_frame} allowed")
    if view.nbytes < _PROLOGUE.size:
        if view[:8] != MAGIC[: view.nbytes]:
            raise DecodeError("not a fedpost frame: the first bytes are wrong", where="prologue")
        raise TruncatedError(f"{view.nbytes} bytes are less than a prologue", where="prologue")
    magic, major, minor, flags, reserved, length, digest = _PROLOGUE.unpack_from(view)
    if magic != MAGIC:
        raise DecodeError("not a fedpost frame: the first bytes are wrong", where="prologue")
    if major != MAJOR:
        raise UnsupportedError(f"frame version {major}, this reader knows {MAJOR}", where="prologue")
    if length > limits.max_header:
        raise LimitError(f"a header of {length} bytes, {limits.max_header} allowed", where="prologue")
    if length > view.nbytes - _PROLOGUE.size:
        raise TruncatedError(f"a header of {length} bytes does not fit in {view.nbytes}", where="prologue")
    end = _PROLOGUE.size + length
    if _header_digest(view[:_DIGESTED_PROLOGUE], view[_PROLOGUE.size : end]) != digest:
        raise IntegrityError("its digest does not match", where="header", hint="Ask for the frame again.")
    if reserved:
        raise UnsupportedError(f"reserved bytes are {reserved:#x}", where="prologue")
    return minor, flags, end


def array_length(packed: msgspec.Raw) -> int:
    """The number of items of a MessagePack array, by its head; 0 of what is no array."""
    head = bytes(memoryview(packed)[:_LONGEST_HEAD])
    match head[0]:
        case 0xDC:
            return int.from_bytes(head[1:3], "big")
        case 0xDD:
            return int.from_bytes(head[1:], "big")
        case first:
            return first & 0x0F if first & 0xF0 == 0x90 else 0  # noqa: PLR2004 - MessagePack's own marks


def _count_columns(table: _Outline, limits: Limits) -> None:
    """Compare the lengths of the columns before they are made; what they hold is checked once they are.

    Raises:
        DecodeError: They do not fit each other, or the limits.
    """
    count = array_length(table.raw)
    if count > limits.max_segments:
        raise LimitError(f"{count} segments, {limits.max_segments} allowed", where="segment table")
    coding, rows = array_length(table.coding), array_length(table.chunks)
    if coding not in {0, count}:
        raise DecodeError("the column of compressions is not one known number a segment", where="segment table")
    if not coding and rows:
        raise DecodeError("chunks without a compressed segment", where="segment table")
    if rows > count:
        raise DecodeError("the chunk lengths do not match the compressed segments", where="segment table")
    if rows:
        total, chunk = sum(_SIZES.decode(table.raw)), _SIZE.decode(table.chunk)
        _check_chunk(chunk, limits)
        if total > limits.max_raw:
            raise LimitError(f"{total} bytes when decompressed, {limits.max_raw} allowed", where="segment table")
        chunks = total // chunk + count
        if len(memoryview(table.chunks)) > _LONGEST_HEAD * (count + 1) + _LONGEST_INTEGER * chunks:
            raise DecodeError("the chunk lengths do not match the compressed segments", where="segment table")


def stored_sizes(header: Header, limits: Limits) -> list[int]:
    """Each segment's size on the wire, when the table is consistent and within limits.

    Raises:
        DecodeError: In any of its kinds; see :meth:`fedpost.frame.Frame.decode`.
    """
    table = header.segments
    count = len(table.raw)
    if count > limits.max_segments:
        raise LimitError(f"{count} segments, {limits.max_segments} allowed", where="segment table")
    if count and min(table.raw) < 0:
        raise DecodeError("a segment has a negative size", where="segment table")
    if sum(table.raw) > limits.max_raw:
        raise LimitError(f"{sum(table.raw)} bytes when decompressed, {limits.max_raw} allowed", where="segment table")
    if header.checksum not in CHECKSUMS:
        raise UnsupportedError(f"unknown checksum {header.checksum!r}", where="header")
    if len(table.digests) != count * CHECKSUMS.get(header.checksum).size:
        raise DecodeError(f"{len(table.digests)} bytes of digests for {count} segments", where="segment table")
    if not table.coding:
        if table.codings or table.chunks or table.chunk:
            raise DecodeError("chunks without a compressed segment", where="segment table")
        return table.raw
    return _compressed_sizes(table, limits)


def _compressed_sizes(table: SegmentTable, limits: Limits) -> list[int]:
    """The stored sizes when some segments are compressed."""
    coded = sum(map(bool, table.coding))
    if len(table.coding) != len(table.raw) or not 0 <= min(table.coding) <= max(table.coding) <= len(table.codings):
        raise DecodeError("the column of compressions is not one known number a segment", where="segment table")
    for name in table.codings:
        if name not in COMPRESSORS:
            raise UnsupportedError(f"unknown compression {name!r}", where="segment table")
    _check_chunk(table.chunk, limits)
    if len(table.chunks) != coded:
        raise DecodeError("the chunk lengths do not match the compressed segments", where="segment table")
    chunks = iter(table.chunks)
    sizes = [
        _check_chunks(index, next(chunks), raw, table.chunk, limits) if coding else raw
        for index, (raw, coding) in enumerate(zip(table.raw, table.coding, strict=True))
    ]
    raw, stored = sum(table.raw), sum(sizes)
    if raw > limits.free_raw + limits.max_swell * stored:
        text = f"{raw} bytes out of {stored}: over {limits.free_raw} and {limits.max_swell} times as many"
        raise LimitError(text, where="segment table", hint="Raise free_raw of the limits where that is to be expected.")
    return sizes


def _check_chunk(chunk: int, limits: Limits) -> None:
    if chunk < _MIN_CHUNK:  # many tiny chunks cost the reader far more than they cost the writer
        raise DecodeError(f"chunks of {chunk} bytes, {_MIN_CHUNK} are the least", where="segment table")
    if chunk > limits.max_chunk:
        raise LimitError(f"chunks of {chunk} bytes, {limits.max_chunk} allowed", where="segment table")


def _check_chunks(index: int, lengths: list[int], raw: int, chunk: int, limits: Limits) -> int:
    where = f"segment {index}"
    if len(lengths) != -(-raw // chunk) or not lengths:
        raise DecodeError(f"{len(lengths)} chunks for {raw} bytes", where=where)
    if min(lengths) <= 0 or max(lengths) > chunk or lengths[-1] > raw - (len(lengths) - 1) * chunk:
        raise DecodeError("a chunk is empty, or longer than its content", where=where)
    stored = sum(lengths)
    if raw > stored * limits.max_ratio:
        raise LimitError(f"{raw} bytes out of {stored}: a ratio over {limits.max_ratio}", where=where)
    return stored
