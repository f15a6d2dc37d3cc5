"""The wire frame: a checked header, then segments of bytes that are never copied. Specified in ``docs/spec/frame.md``.

Rules: every length that the input claims is compared with what is there and with :class:`Limits` before anything is
allocated; positions are computed, not read, so segments cannot overlap, leave holes or trail; every byte is covered by
a digest or must be zero. A frame knows segments and named sections. What they mean belongs to the layers above.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Final, Literal, NamedTuple, Self, TypeVar

import msgspec

from fedpost.checksums import CHECKSUMS, DEFAULT_CHECKSUM
from fedpost.compression import Compression
from fedpost.errors import DecodeError, EncodeError, IntegrityError, LimitError, TruncatedError
from fedpost.files import write_buffers
from fedpost.frame.chunks import CHUNK, compress, decompress
from fedpost.frame.header import (
    DEFAULT_LIMITS,
    MINOR,
    Header,
    Limits,
    SegmentTable,
    header_digest,
    pack_header,
    read_header,
    stored_sizes,
)
from fedpost.frame.parts import Parts
from fedpost.frame.recent import RECENT, Owner

__all__ = ["Frame", "Verify"]

ALIGNMENT: Final = 64
_ZEROS: Final = bytes(ALIGNMENT)
_LITTLE: Final = 4
"""A chunk is kept when no more than one in so many of its bytes is asked for."""
_ENCODER: Final = msgspec.msgpack.Encoder()
_NO_SEGMENTS: Final = SegmentTable([], b"")

Verify = Literal["eager", "lazy", "never"]
"""When segment digests are checked: all before anything is handed out, each before its segment is, or not at all."""

T = TypeVar("T")


class _Coded(NamedTuple):
    """What reading compressed segments needs, made when the first one is read.

    Attributes:
        owner: Whose chunks are kept.
        rows: The stored sizes of the chunks of each compressed segment.
    """

    owner: Owner
    rows: dict[int, list[int]]


class Frame:
    """Named header sections and segments of bytes; made by :meth:`build`, :meth:`decode` or :meth:`open`."""

    __slots__ = ("_coded", "_head", "_header", "_sections", "_stored", "_unverified", "minor")

    def __init__(
        self, head: bytes, header: Header, stored: list[Sequence[memoryview]], *, unverified: bytearray, minor: int
    ) -> None:
        self._head = head
        self._header = header
        self._sections: dict[str, msgspec.Raw] = dict(header.sections)
        self._stored = stored
        self._coded: _Coded | None = None
        self._unverified = unverified
        self.minor = minor

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────

    @classmethod
    def build(
        cls,
        sections: Mapping[str, object],
        segments: Sequence[memoryview] = (),
        *,
        checksum: str = DEFAULT_CHECKSUM,
        compression: Compression | Sequence[Compression] | None = None,
    ) -> Self:
        """Make a frame. Segment bytes are referenced, not copied, unless ``compression`` makes new ones.

        Args:
            sections: What MessagePack can carry, by section name.
            segments: C-contiguous buffers of unsigned bytes, one a segment; they must not change while the frame lives.
            checksum: The digest algorithm's registered name.
            compression: How to compress the segments, all in one way or each in its own, in chunks of 1 MiB.

        Raises:
            RegistryError: No such checksum.
            EncodeError: A section holds what MessagePack cannot.
        """
        algorithm = CHECKSUMS.get(checksum)
        if not segments:
            header = Header(checksum, [], _NO_SEGMENTS, _pack_sections(sections))
            return cls(pack_header(header), header, [], unverified=bytearray(), minor=MINOR)
        stored: list[Sequence[memoryview]] = [(segment,) for segment in segments]
        columns: tuple[list[str], list[int], int, list[list[int]]] = ([], [], 0, [])
        if compression is not None:
            each = [compression] * len(segments) if isinstance(compression, Compression) else compression
            stored, codings, coding, chunks = compress(segments, each)
            columns = (codings, coding, CHUNK if chunks else 0, chunks)
        digests = b"".join(map(algorithm.of, stored)) if algorithm.size else b""
        table = SegmentTable([segment.nbytes for segment in segments], digests, *columns)
        header = Header(checksum, [], table, _pack_sections(sections))
        return cls(pack_header(header), header, stored, unverified=bytearray(), minor=MINOR)

    def with_sections(self, sections: Mapping[str, object]) -> Self:
        """The same segments under a header with further sections: what is sent to many is encoded and hashed once.

        Raises:
            EncodeError: A section holds what MessagePack cannot, or is there already.
        """
        old = self._header
        if twice := self._sections.keys() & sections.keys():
            raise EncodeError(f"the frame has a section {min(twice)!r} already")
        header = Header(old.checksum, old.requires, old.segments, [*old.sections, *_pack_sections(sections)])
        return type(self)(pack_header(header), header, self._stored, unverified=self._unverified, minor=MINOR)

    def buffers(self) -> Iterator[memoryview]:
        """The frame's bytes in order, as buffers that share memory with the segments (scatter/gather)."""
        yield memoryview(self._head)
        position = len(self._head)
        for buffers in self._stored:
            if padding := -position % ALIGNMENT:
                yield memoryview(_ZEROS)[:padding]
                position += padding
            for buffer in buffers:
                yield buffer
                position += buffer.nbytes

    def write_to(self, fd: int) -> int:
        """Write the frame to a file descriptor with gathered writes; return its size in bytes."""
        return write_buffers(fd, self.buffers())

    def __bytes__(self) -> bytes:
        return b"".join(self.buffers()) if self._stored else self._head

    def parts(self, max_bytes: int) -> Parts:
        """The frame in parts of at most ``max_bytes`` each, which share its memory; ``docs/spec/parts.md``.

        Raises:
            ConfigError: Too few bytes for a part.
            EncodeError: The frame's segments have no digests.
        """
        return Parts(self, max_bytes)

    @property
    def nbytes(self) -> int:
        """Size on the wire, in bytes."""
        position = len(self._head)
        for buffers in self._stored:
            position += -position % ALIGNMENT + sum(buffer.nbytes for buffer in buffers)
        return position

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────

    @classmethod
    def decode(
        cls, data: bytes | bytearray | memoryview, *, limits: Limits = DEFAULT_LIMITS, verify: Verify = "eager"
    ) -> Self:
        """Read a frame that fills ``data`` exactly. Segments are read-only views of ``data``, which must not change.

        Raises:
            TruncatedError: ``data`` ends early.
            IntegrityError: A digest does not match, or padding is not zero.
            LimitError: More than ``limits`` allow.
            UnsupportedError: Another major version, an unknown flag, feature or name.
            DecodeError: Anything else that the specification forbids.
        """
        view = memoryview(data).toreadonly().cast("B")
        minor, head, header = read_header(view, limits)
        sizes = stored_sizes(header, limits)
        end = head.nbytes
        if not sizes and end == view.nbytes:
            return cls(bytes(head), header, [], unverified=bytearray(), minor=minor)
        stored: list[Sequence[memoryview]] = []
        there = sum(sizes) <= view.nbytes  # a view costs more than a size does
        for size in sizes:
            start = end + -end % ALIGNMENT
            end = start + size
            if there:
                stored.append((view[start:end],))
        if end > view.nbytes:
            raise TruncatedError(f"the frame ends at byte {view.nbytes} of {end}", hint="Ask for it again.")
        if end < view.nbytes:
            raise DecodeError(f"{view.nbytes - end} bytes trail behind the last segment", where=f"byte {end}")
        if _padding_of(view, head.nbytes, sizes):
            raise IntegrityError("padding between segments is not zero")
        unverified = bytearray() if verify == "never" else bytearray(b"\1" * len(stored))
        frame = cls(bytes(head), header, stored, unverified=unverified, minor=minor)
        if verify == "eager":
            frame.verify()
        return frame

    @classmethod
    def open(cls, path: Path, *, limits: Limits = DEFAULT_LIMITS, verify: Verify = "eager") -> Self:
        """Map a file into memory and decode it. Use it for files that nobody else can shorten while they are mapped.

        Raises:
            OSError: The file cannot be opened.
            DecodeError: As :meth:`decode`.
        """
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe would block
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise DecodeError("not a regular file", where=str(path))
            if not status.st_size:  # it could not be mapped
                raise TruncatedError("the file is empty", where=str(path))
            data = mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
        finally:
            os.close(fd)
        return cls.decode(memoryview(data), limits=limits, verify=verify)

    def verify(self) -> None:
        """Check the digest of every segment that was not checked yet.

        Raises:
            IntegrityError: One does not match.
        """
        for index in range(len(self._unverified)):
            self._verify(index)

    @property
    def checksum(self) -> str:
        """The digest algorithm's registered name."""
        return self._header.checksum

    @property
    def digest(self) -> bytes:
        """16 bytes that stand for the whole frame: the header's digest, which covers the digests of the segments."""
        return header_digest(self._head)

    @property
    def section_names(self) -> tuple[str, ...]:
        """The header sections, in order."""
        return tuple(self._sections)

    def section(self, name: str, kind: type[T], *, limit: int | None = None) -> T:
        """Decode one header section as ``kind`` (anything that msgspec can check).

        Args:
            name: The section's name.
            kind: Its type.
            limit: A budget in bytes for this section.

        Raises:
            DecodeError: No such section, or it is not of that type.
            LimitError: It is longer than ``limit``.
        """

        def decode(packed: msgspec.Raw) -> T:
            value: T = msgspec.msgpack.decode(packed, type=kind)
            return value

        return self.decode_section(name, decode, limit=limit)

    def decode_section(self, name: str, decode: Callable[[msgspec.Raw], T], *, limit: int | None = None) -> T:
        """The same with a decoder's own ``decode``, made once for a section that is read often.

        Raises:
            DecodeError: As :meth:`section`.
        """
        try:
            packed = self._sections[name]
        except KeyError:
            raise DecodeError(f"the frame has no section {name!r}", hint=f"It has {self.section_names}.") from None
        if limit is not None and len(memoryview(packed)) > limit:
            raise LimitError(f"{len(memoryview(packed))} bytes, {limit} allowed", where=f"section {name!r}")
        try:
            return decode(packed)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise DecodeError(str(error), where=f"section {name!r}") from error

    def __len__(self) -> int:
        """The number of segments."""
        return len(self._stored)

    def raw_size(self, index: int) -> int:
        """Size of a segment in bytes, decompressed."""
        return self._header.segments.raw[index]

    def stored_size(self, index: int) -> int:
        """Size of a segment in bytes, as it is on the wire."""
        return sum(buffer.nbytes for buffer in self._stored[index])

    def coding(self, index: int) -> str:
        """The registered name of the segment's compression, or ``"none"``."""
        table = self._header.segments
        number = table.coding[index] if table.coding else 0
        return table.codings[number - 1] if number else "none"

    def segment(self, index: int) -> memoryview:
        """A segment's bytes, decompressed: a view where it is stored as it is.

        Raises:
            DecodeError: Its digest does not match, or a chunk is damaged.
        """
        return self.read(index, 0, self.raw_size(index))

    def read(self, index: int, start: int, stop: int) -> memoryview:
        """Bytes ``start`` to ``stop`` of a segment; only the chunks that hold them are decompressed.

        A chunk of which little is asked for is kept for a while, since its neighbours are mostly asked for next.

        Raises:
            DecodeError: As :meth:`segment`.
        """
        self._verify(index)
        coding = self.coding(index)
        if coding == "none":
            return self._stored[index][0][start:stop]
        table = self._header.segments
        raw, chunk = table.raw[index], table.chunk
        parts = self._chunks(index)
        try:
            if _LITTLE * (stop - start) > min(raw, chunk) or chunk > CHUNK or not start < stop:
                return decompress(parts, coding, raw, chunk, start, stop)
            first, last = start // chunk, (stop - 1) // chunk
            plain = [self._kept_chunk(parts, index, number) for number in range(first, last + 1)]
        except DecodeError as error:
            raise type(error)(error.what, where=f"segment {index}, {error.where}") from error
        start, stop = start - first * chunk, stop - first * chunk
        if first == last:
            return plain[0][start:stop]
        return memoryview(b"".join((plain[0][start:], plain[1][: stop - chunk])))

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _verify(self, index: int) -> None:
        if not self._unverified or not self._unverified[index]:
            return
        algorithm = CHECKSUMS.get(self.checksum)
        size = algorithm.size
        if algorithm.of(self._stored[index]) != self._header.segments.digests[index * size : (index + 1) * size]:
            raise IntegrityError(
                f"its {algorithm.name} digest does not match", where=f"segment {index}", hint="Ask for the frame again."
            )
        self._unverified[index] = 0

    def _kept_chunk(self, parts: Sequence[memoryview], index: int, number: int) -> memoryview:
        """A chunk, decompressed: the same memory for as long as it is kept."""
        assert self._coded is not None  # noqa: S101 - it came with the parts
        owner = self._coded.owner
        plain = RECENT.get(owner, index, number)
        if plain is None:
            table = self._header.segments
            start = number * table.chunk
            stop = min(start + table.chunk, table.raw[index])
            plain = decompress(parts, self.coding(index), table.raw[index], table.chunk, start, stop)
            RECENT.keep(owner, index, number, plain)
        return plain

    def _chunks(self, index: int) -> Sequence[memoryview]:
        """The stored chunks of a compressed segment; they are cut out of it once."""
        if self._coded is None:
            coded = (number for number, coding in enumerate(self._header.segments.coding) if coding)
            self._coded = _Coded(Owner(), dict(zip(coded, self._header.segments.chunks, strict=True)))
        lengths = self._coded.rows[index]
        if len(self._stored[index]) != len(lengths):
            whole = self._stored[index][0]
            self._stored[index] = [whole[start:end] for start, end in pairwise(accumulate(lengths, initial=0))]
        return self._stored[index]


def _pack_sections(sections: Mapping[str, object]) -> list[tuple[str, msgspec.Raw]]:
    for name in sections:
        if not isinstance(name, str):
            raise EncodeError(f"the name {name!r} of a header section is not text")
    try:
        return [
            (name, value if type(value) is msgspec.Raw else msgspec.Raw(_ENCODER.encode(value)))
            for name, value in sections.items()
        ]
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise EncodeError(f"a header section cannot be encoded: {error}") from error


def _padding_of(view: memoryview, end: int, sizes: Iterable[int]) -> bool:
    """Whether any byte between segments is not zero."""
    for size in sizes:
        padding = -end % ALIGNMENT
        if padding and view[end : end + padding] != _ZEROS[:padding]:
            return True
        end += padding + size
    return False
