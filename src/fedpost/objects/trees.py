"""The tree of an object in a frame, and what may be built out of it.

Rules: a byte of MessagePack can cost eighty in memory, so what a large tree holds is counted before it is made; what a
few bytes stand for (columns, numbers, copies of leaves) is counted when it is built.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from fedpost.errors import DecodeError, LimitError
from fedpost.frame import Frame, Limits
from fedpost.frame.header import array_length
from fedpost.objects.counting import containers_in
from fedpost.objects.wire import PACKED_TREE_DECODER, SECTION, TREE_DECODER, PackedTree, Tree

__all__ = ["Budget", "tree_of"]

_DECODE: Final[Callable[[msgspec.Raw], Tree | None]] = msgspec.msgpack.Decoder(Tree | None).decode
_COUNTED_FROM: Final = 1 << 20
"""Trees of fewer bytes may hold what they like."""
_MOST_TYPES: Final = 1 << 20
"""Bytes of the types of a tree: several thousand of them."""
_HINT: Final = "Raise max_items of the limits: limits=Limits(max_items=…)."


def tree_of(frame: Frame, limits: Limits) -> tuple[Tree, int]:
    """The tree of a frame that holds an object, and the number of segments that it stands in: 0 or 1.

    Raises:
        DecodeError: The frame holds none, or an impossible one.
        LimitError: It has more bytes than ``limits.max_items``, or would take too much memory.
    """
    tree = frame.decode_section(SECTION, _DECODE, limit=min(limits.max_section, limits.max_items))
    if tree is not None:
        return tree, 0
    if not len(frame):
        raise DecodeError("the object's tree is missing", where=f"section {SECTION!r}")
    size = frame.raw_size(0)
    if size > limits.max_items:
        raise LimitError(f"a tree of {size} bytes, {limits.max_items} allowed", where="segment 0", hint=_HINT)
    data = frame.segment(0)
    try:
        if size > _COUNTED_FROM:
            _count(PACKED_TREE_DECODER.decode(data), data, limits)
        return TREE_DECODER.decode(data), 1
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise DecodeError(str(error), where="object tree") from error


def _count(tree: PackedTree, data: memoryview, limits: Limits) -> None:
    rows = array_length(tree.table)
    if rows > limits.max_items >> 5:
        raise LimitError(f"{rows} rows, {limits.max_items >> 5} allowed", where="object tree", hint=_HINT)
    if len(memoryview(tree.types)) > _MOST_TYPES:
        raise LimitError(f"types of more than {_MOST_TYPES} bytes", where="object tree")
    whole = bytes(data)
    if len(data) > limits.max_items >> 2:
        memory = sum(cost * (len(whole) - len(whole.translate(None, marks))) for marks, cost in _MARKS)
        if memory > limits.max_items << 4:
            text = f"items that may take {memory} bytes, {limits.max_items << 4} allowed"
            raise LimitError(text, where="object tree", hint=_HINT)
    most = limits.max_items >> 5
    if containers_in(whole, most) > most:
        text = f"more than {most} lists, dictionaries and rows in place"
        raise LimitError(text, where="object tree", hint=_HINT)


_MARKS: Final = (
    (bytes([0x80, *range(0x90, 0xA0), 0xDC, 0xDD]), 72),
    (bytes([*range(0x81, 0x90), 0xDE, 0xDF]), 232),
    (bytes([*range(0xA0, 0xC0), 0xD9, 0xDA, 0xDB, 0xC4, 0xC5, 0xC6]), 64),
    (bytes(range(0xCA, 0xD4)), 40),
)
"""The bytes that arrays, maps, texts and numbers begin with, and what each takes in memory. Text that is not ASCII, and
floats, have such bytes as well: then the sum is too high, never too low."""


class Budget:
    """What building an object may come to.

    Args:
        frame: The frame that holds its leaves; None if there are none.
        limits: The receiver's.
        rows: The number of its rows.
    """

    __slots__ = ("_copies", "_frame", "_limits", "_numbers", "_objects")

    def __init__(self, frame: Frame | None, limits: Limits, rows: int) -> None:
        self._limits = limits
        self._objects = (limits.max_items >> 4) - rows
        self._numbers = limits.max_items >> 2
        self._frame = frame
        self._copies = limits.free_raw >> 1

    def objects(self, count: int) -> None:
        """Pay for instances or tuples by column.

        Raises:
            LimitError: They are too many.
        """
        self._objects -= count
        if self._objects < 0:
            raise LimitError(f"more than {self._limits.max_items >> 4} objects", where="object tree", hint=_HINT)

    def numbers(self, count: int) -> None:
        """Pay for a list of numbers.

        Raises:
            LimitError: They are too many.
        """
        self._numbers -= count
        if self._numbers < 0:
            what = f"more than {self._limits.max_items >> 2} numbers in lists"
            raise LimitError(what, where="object tree", hint=f"{_HINT} An array is read without that.")

    def copied(self, size: int) -> None:
        """Pay for leaves that a class may copy.

        Raises:
            LimitError: They are too many bytes, as the same are given to many instances.
        """
        self._copies -= size
        if self._copies < 0 and self._frame is not None:  # the first time: most need no more than that
            self._copies += _COPIES * sum(map(self._frame.raw_size, range(len(self._frame))))
            self._frame = None
        if self._copies < 0:
            raise LimitError(
                "leaves that go into too many instances", where="object tree", hint="Raise free_raw of the limits."
            )

    def outside(self, size: int) -> None:
        """A leaf was read that is not in the frame."""
        self._copies += _COPIES * size


_COPIES: Final = 4
