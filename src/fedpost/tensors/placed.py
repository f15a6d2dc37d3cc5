"""Tensors at known places of a file in pieces; what they take of it, shared out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from fedpost.frame import Frame
from fedpost.tensors.format import Array, TensorSpec, check_range
from fedpost.tensors.pieces import Pieces
from fedpost.tensors.sparse import SparseElements

__all__ = ["Placed", "PlacedTensors", "share_out"]


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a tensor lies.

    Attributes:
        spec: What it is.
        piece: The piece that holds it.
        start: Its first byte within the piece.
        length: Bytes that it takes there.
        sparse: It is coded; see :mod:`fedpost.tensors.sparse`.
    """

    spec: TensorSpec
    piece: int
    start: int
    length: int
    sparse: bool = False


class PlacedTensors:
    """Tensors at known places of a file, as read-only views of it where they are not coded.

    Args:
        pieces: The file.
        placed: What was found in it and checked: no name twice, every place inside its piece.
    """

    __slots__ = ("_ahead", "_pieces", "_placed", "specs")

    def __init__(self, pieces: Pieces, placed: Iterable[Placed]) -> None:
        self._pieces = pieces
        self._placed = {place.spec.name: place for place in placed}
        self._ahead: tuple[str, SparseElements] | None = None
        self.specs = tuple(place.spec for place in self._placed.values())

    def arrays(self) -> dict[str, Array]:
        """Every tensor by name, in order.

        Raises:
            DecodeError: A segment's digest does not match, or a chunk is damaged.
        """
        views = {index: self._pieces.segment(index) for index in {place.piece for place in self._placed.values()}}
        return {
            name: _array(place, views[place.piece][place.start : place.start + place.length])
            for name, place in self._placed.items()
        }

    def read(self, name: str, start: int, stop: int) -> Array:
        """Elements ``start`` to ``stop`` of a tensor flattened in C order.

        Raises:
            DecodeError: As :meth:`arrays`.
        """
        place = self._placed[name]
        check_range(place.spec.size, start, stop)
        if place.sparse:
            return np.ndarray((stop - start,), place.spec.dtype, self._coded(name, place, stop).read(start, stop))
        first = place.start + start * place.spec.dtype.itemsize
        end = place.start + stop * place.spec.dtype.itemsize
        return np.ndarray((stop - start,), place.spec.dtype, self._pieces.read(place.piece, first, end))

    def _coded(self, name: str, place: Placed, stop: int) -> SparseElements:
        """A coded tensor. A reader goes from front to back, so its indices are kept until they have been read."""
        ahead = self._ahead
        if ahead is None or ahead[0] != name:
            data = self._pieces.read(place.piece, place.start, place.start + place.length)
            ahead = (name, SparseElements(data, place.spec.dtype.itemsize, place.spec.size))
        self._ahead = ahead if stop < place.spec.size else None
        return ahead[1]

    def stored_sizes(self, frame: Frame) -> dict[str, int]:
        """Stored bytes of each tensor: its share of its segment, and of the segments that hold none."""
        held: dict[int, dict[str, int]] = {}
        for name, place in self._placed.items():
            if place.length:
                held.setdefault(place.piece, {})[name] = place.length
        # All that holds none is shared out at once: every second segment of a large model does not.
        beside = sum(frame.stored_size(index) for index in range(len(frame)) if index not in held)
        sizes = share_out(beside, {name: place.length for name, place in self._placed.items()})
        for index, weights in held.items():
            for name, size in share_out(frame.stored_size(index), weights).items():
                sizes[name] += size
        return sizes


def share_out(total: int, weights: Mapping[str, int]) -> dict[str, int]:
    """Share out a number of bytes by weight, to the byte; evenly where nothing has a weight."""
    if not any(weights.values()):
        weights = dict.fromkeys(weights, 1)
    whole, seen, shares = sum(weights.values()), 0, {}
    for name, weight in weights.items():
        shares[name] = total * (seen + weight) // whole - total * seen // whole
        seen += weight
    return shares


def _array(place: Placed, data: memoryview) -> Array:
    spec = place.spec
    if place.sparse:
        data = SparseElements(data, spec.dtype.itemsize, spec.size).read(0, spec.size)
    return np.ndarray(spec.shape, spec.dtype, data)
