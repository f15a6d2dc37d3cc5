"""What the formats of files have in common: how a file is put into a frame, and found in one.

Rules: such a format is a function that writes files and one that reads them. Either its file is the frame's one
segment, or its tensors lie in pieces of their own; see :mod:`fedpost.tensors.pieces`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fedpost.errors import DecodeError
from fedpost.frame import Frame, Limits
from fedpost.tensors.format import Array, Encoded, MemoryTensors, TensorSource
from fedpost.tensors.pieces import Gathered, Pieces, as_file, segments_of
from fedpost.tensors.placed import PlacedTensors, share_out

__all__ = ["FileFormat", "PiecedFormat"]

_Write = Callable[[Mapping[str, Array]], list[memoryview]]
_Read = Callable[..., tuple[dict[str, Array], Any]]
_Gather = Callable[[Mapping[str, Array]], Gathered]
_Place = Callable[[Pieces, Limits], tuple[PlacedTensors, Any]]


class FileFormat:
    """A format whose file is one segment.

    Args:
        name: The registered name.
        to_bytes: Writes a file.
        from_bytes: Reads one, with its metadata.
    """

    def __init__(self, name: str, to_bytes: _Write, from_bytes: _Read) -> None:
        self.name = name
        self._section = f"tensors_{name}"
        self._to_bytes = to_bytes
        self._from_bytes = from_bytes

    def encode(self, tensors: Mapping[str, Array]) -> Encoded:
        """Write the file; the tensors are copied once, into the segment.

        Raises:
            EncodeError: As ``to_bytes`` of the format's module.
        """
        pieces = self._to_bytes(tensors)
        file = pieces[0] if len(pieces) == 1 else memoryview(b"".join(pieces))
        return Encoded({self._section: len(tensors)}, [file] if tensors else [])

    def decode(self, frame: Frame, limits: Limits) -> MemoryTensors:
        """Check the file and take the arrays out of it.

        Raises:
            DecodeError: The section, the segments or the file are not right.
            LimitError: More tensors than allowed.
        """
        file = as_file(frame, self._section, limits)
        arrays = {} if file is None else self._from_bytes(file, limits=limits)[0]
        _check_count(frame, self._section, len(arrays))
        return MemoryTensors(arrays)

    def stored_sizes(self, frame: Frame, source: TensorSource) -> dict[str, int]:
        """Stored bytes of each tensor: its share of the one segment, by size."""
        sizes = {spec.name: spec.nbytes for spec in source.specs}
        return share_out(frame.stored_size(0), sizes) if sizes else {}


class PiecedFormat:
    """A format whose file is cut into segments, so that large tensors in C order are not copied.

    Args:
        name: The registered name.
        gather: Writes a file in pieces.
        place: Finds and checks the tensors of one.
    """

    def __init__(self, name: str, gather: _Gather, place: _Place) -> None:
        self.name = name
        self._section = f"tensors_{name}"
        self._gather = gather
        self._place = place

    def encode(self, tensors: Mapping[str, Array]) -> Encoded:
        """Write the file; large tensors in C order are not copied.

        Raises:
            EncodeError: As ``to_bytes`` of the format's module.
        """
        out = self._gather(tensors)
        if not tensors:
            return Encoded({self._section: 0}, [])
        return Encoded({self._section: len(tensors)}, out.pieces(), out.dtypes())

    def decode(self, frame: Frame, limits: Limits) -> PlacedTensors:
        """Check where the tensors are; those that have a segment of their own are not touched.

        Raises:
            DecodeError: The section, the segments or the file are not right.
            LimitError: More tensors than allowed.
        """
        if not segments_of(frame, self._section, limits):
            return PlacedTensors(frame, ())
        tensors, _ = self._place(frame, limits)
        _check_count(frame, self._section, len(tensors.specs))
        return tensors

    def stored_sizes(self, frame: Frame, source: TensorSource) -> dict[str, int]:
        """Stored bytes of each tensor: its segment's, or its share of a segment that it shares."""
        if not isinstance(source, PlacedTensors):
            raise TypeError(type(source))
        return source.stored_sizes(frame)


def _check_count(frame: Frame, section: str, found: int) -> None:
    if found != frame.section(section, int):
        raise DecodeError(f"{found} tensors, {frame.section(section, int)} promised", where=f"section {section!r}")
