"""Files in pieces: how the segments of a frame are a foreign format's file.

Rules: the segments, one after the other, are the file, so that it is read and written without the frame as well. No
piece is empty, and what belongs to one tensor lies in one piece. The section of such a format is the number of tensors;
a model of none has no segments.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

import numpy as np

from fedpost.errors import DecodeError, LimitError, TruncatedError
from fedpost.frame import Frame, Limits

__all__ = [
    "Buffer",
    "Cursor",
    "Gathered",
    "Pieces",
    "as_file",
    "segments_of",
]

_ALONE: Final = 4096
_TOGETHER: Final = 1 << 20


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Gathered:
    """A file as pieces: what is large is referred to, what is small is joined."""

    def __init__(self) -> None:
        self._pieces: list[memoryview] = []
        self._dtypes: list[np.dtype[Any] | None] = []
        self._open = bytearray()

    def add(self, *parts: bytes | memoryview) -> None:
        """Append parts."""
        for part in parts:
            self.add_elements(part, None)

    def add_elements(self, part: bytes | memoryview, dtype: np.dtype[Any] | None) -> None:
        """Append a part that consists of elements of one type; None where it does not."""
        if len(part) >= _ALONE:
            self.cut()
            self._pieces.append(memoryview(part))
            self._dtypes.append(dtype)
        else:
            self._open += part
        if len(self._open) >= _TOGETHER:
            self.cut()

    def cut(self) -> None:
        """Let the next part begin a piece."""
        if self._open:
            self._pieces.append(memoryview(bytes(self._open)))
            self._dtypes.append(None)
            self._open.clear()

    def pieces(self) -> list[memoryview]:
        """The pieces, none of them empty."""
        self.cut()
        return self._pieces

    def dtypes(self) -> list[np.dtype[Any] | None]:
        """The element type of each piece, where it consists of elements of one type."""
        self.cut()
        return self._dtypes


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Pieces(Protocol):
    """A file in pieces: a :class:`~fedpost.frame.Frame`, or a :class:`Buffer`."""

    def __len__(self) -> int:
        """The number of pieces."""

    def raw_size(self, index: int) -> int:
        """Size of a piece in bytes."""

    def segment(self, index: int) -> memoryview:
        """A piece."""

    def read(self, index: int, start: int, stop: int) -> memoryview:
        """Bytes ``start`` to ``stop`` of a piece."""


class Buffer:
    """A whole file in memory, as one piece.

    Args:
        data: The file; it must not change while anything read from it lives.
        limits: The reader's budget.

    Raises:
        LimitError: It is longer than a frame may be.
        TruncatedError: It is empty.
    """

    __slots__ = ("_view",)

    def __init__(self, data: bytes | bytearray | memoryview, limits: Limits) -> None:
        self._view = memoryview(data).toreadonly().cast("B")
        if self._view.nbytes > limits.max_frame:
            raise LimitError(f"a file of {self._view.nbytes} bytes, {limits.max_frame} allowed")
        if not self._view.nbytes:
            raise TruncatedError("the file is empty")

    def __len__(self) -> int:
        return 1

    def raw_size(self, index: int) -> int:  # noqa: ARG002 - the contract
        """Size of the file in bytes."""
        return self._view.nbytes

    def segment(self, index: int) -> memoryview:  # noqa: ARG002 - the contract
        """The file."""
        return self._view

    def read(self, index: int, start: int, stop: int) -> memoryview:  # noqa: ARG002 - the contract
        """Bytes ``start`` to ``stop`` of the file."""
        return self._view[start:stop]


def segments_of(frame: Frame, section: str, limits: Limits) -> int:
    """The number of tensors that a frame's section promises, once the segments can be a file.

    Raises:
        DecodeError: No section, or segments that contradict it.
        LimitError: More tensors than allowed.
    """
    count = frame.section(section, int)
    if count > limits.max_tensors:
        raise LimitError(f"{count} tensors, {limits.max_tensors} allowed", where=f"section {section!r}")
    if count < 0 or bool(count) != bool(len(frame)):
        raise DecodeError(f"{count} tensors in {len(frame)} segments", where=f"section {section!r}")
    if any(not frame.raw_size(index) for index in range(len(frame))):
        raise DecodeError("a segment is empty", where=f"section {section!r}")
    return count


def as_file(frame: Frame, section: str, limits: Limits) -> memoryview | None:
    """The one segment of a frame that holds a file; None for a model without tensors.

    Raises:
        DecodeError: As :func:`segments_of`, or there are more segments.
    """
    if not segments_of(frame, section, limits):
        return None
    if len(frame) > 1:
        raise DecodeError(f"{len(frame)} segments for one file", where=f"section {section!r}")
    return frame.segment(0)


class Cursor:
    """Goes through a file in pieces, each field of it within one of them.

    Args:
        pieces: The file; at least one piece, none of them empty.
    """

    __slots__ = ("_at", "_index", "_pieces", "_size", "_view")

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces
        self._index = 0
        self._at = 0
        self._size = pieces.raw_size(0)
        self._view: memoryview | None = None

    def take(self, size: int) -> memoryview:
        """The next bytes.

        Raises:
            TruncatedError: There are not so many left in the piece.
        """
        index, start = self.skip(size)
        if not size:
            return memoryview(b"")
        if self._view is None:
            self._view = self._pieces.segment(index)
        return self._view[start : start + size]

    def skip(self, size: int) -> tuple[int, int]:
        """Pass over bytes; the piece that holds them, and their place in it.

        Raises:
            TruncatedError: There are not so many left in the piece.
        """
        if size and self._at == self._size and self._index + 1 < len(self._pieces):
            self._index, self._at, self._view = self._index + 1, 0, None
            self._size = self._pieces.raw_size(self._index)
        if size > self._size - self._at:
            raise TruncatedError(f"{size} bytes are promised and {self._size - self._at} left in the piece")
        self._at += size
        return self._index, self._at - size

    @property
    def at(self) -> int:
        """The place within the piece."""
        return self._at

    def left(self) -> int:
        """Not 0 when anything is left."""
        return self._size - self._at + len(self._pieces) - 1 - self._index
