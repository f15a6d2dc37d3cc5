"""The object tree as it stands in a frame: ``docs/spec/objects.md``.

Rules: what MessagePack keeps exactly stands in the tree as it is; anything else is a row of a table, and a reference to
that row in its place. Rows refer backwards only, so a reader builds them in order and never recurses. A row that is a
container is referred to once, so nothing small can stand for something huge; a large leaf may be referred to often. Of
what is referred to once, the small stands in its place itself: its bytes bound how deep such rows are in each other.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import ormsgpack

__all__ = [
    "ALONE",
    "EXACTLY",
    "IN_HEADER",
    "IN_PLACE",
    "IN_TREE",
    "MAX_DEPTH",
    "MAY_STAND_IN_PLACE",
    "MOST_IN_PLACE",
    "NEAR",
    "NUMBERS",
    "ONE_PART",
    "RECORDS",
    "REFERENCE",
    "SECTION",
    "TYPES_DECODER",
    "Kind",
    "PackedTree",
    "Text",
    "Tree",
    "TypeRow",
    "packed_length",
    "reference",
]

SECTION: Final = "object"
REFERENCE: Final = 1
"""The code of a MessagePack extension: the number of a row, unsigned, little-endian, without zeros at its end."""
IN_PLACE: Final = 16
"""The code of an extension that is a row itself is this and the row's kind."""
MOST_IN_PLACE: Final = 255
"""Bytes of such a row at most."""
IN_TREE: Final = 4096
"""Leaves of fewer bytes stand in the tree, others in segments of their own."""
IN_HEADER: Final = 1 << 16
"""A tree of fewer bytes stands in the header, another in the first segment."""
RECORDS: Final = 64
"""From so many records of one class on, or tuples of one length, a list is written by column."""
NUMBERS: Final = 1024
"""From so many floats on, or integers within 64 bits, a list is written as a leaf."""
MAX_DEPTH: Final = 200
MEMORY_CODES: Final = frozenset("?cbBhHiIlLqQnNefdg")
"""What the elements of a memoryview may be: the letters of the module ``struct``, and ``g`` of NumPy."""
MIN_INT: Final = -(1 << 63)
MAX_INT: Final = (1 << 64) - 1


class Kind:
    """What a row is; its number is the row's first item. Plain numbers, as they are written."""

    INTEGER: Final = 0
    BLOB: Final = 1
    TUPLE: Final = 2
    SET: Final = 3
    FROZENSET: Final = 4
    DICT: Final = 5
    RECORDS: Final = 6
    ARRAY: Final = 7
    SCALAR: Final = 8
    INSTANCE: Final = 9
    NUMBERS: Final = 10
    TUPLES: Final = 11

    NAMES: Final = (
        *("integer", "blob", "tuple", "set", "frozenset", "dict", "records", "array", "scalar", "instance"),
        *("numbers", "tuples"),
    )


ONE_PART: Final = frozenset({Kind.INTEGER, Kind.TUPLE, Kind.SET, Kind.FROZENSET})
"""Rows of one part: in place they are that part, and others the array of their parts."""
ALONE: Final = frozenset({Kind.INTEGER, Kind.SCALAR, Kind.ARRAY})
"""Rows that refer to nothing: in place they may be longer, as they are not in each other."""
MAY_STAND_IN_PLACE: Final = ONE_PART | ALONE | {Kind.DICT, Kind.INSTANCE}


class Text:
    """What the bytes of a blob are."""

    BYTES: Final = 0
    BYTEARRAY: Final = 1
    MEMORYVIEW: Final = 2
    STR: Final = 3
    SURROGATES: Final = 4

    COUNT: Final = 5


class TypeRow(msgspec.Struct, array_like=True, frozen=True):
    """A registered type that the tree uses.

    Attributes:
        name: Its registered name.
        version: The version of its layout.
        fields: The names of its fields, when its state is a list of their values; else None.
    """

    name: str
    version: int
    fields: list[str] | None


class Tree(msgspec.Struct, array_like=True, frozen=True):
    """The whole of an object but for its large leaves.

    Attributes:
        types: What instances refer to by number, packed: most readers have seen the same before.
        table: The rows.
        root: The value itself.
    """

    types: msgspec.Raw
    table: list[msgspec.Raw]
    root: msgspec.Raw


class PackedTree(msgspec.Struct, array_like=True, frozen=True):
    """A tree that is looked at before anything of it is made."""

    types: msgspec.Raw
    table: msgspec.Raw
    root: msgspec.Raw


EXACTLY: Final = msgspec.msgpack.Decoder(msgspec.Raw).decode
"""Refuses bytes that are not one value."""
TYPES_DECODER: Final = msgspec.msgpack.Decoder(list[TypeRow])
TREE_DECODER: Final = msgspec.msgpack.Decoder(Tree)
PACKED_TREE_DECODER: Final = msgspec.msgpack.Decoder(PackedTree)


def reference(index: int) -> Any:
    """What stands in the tree for a row."""
    return ormsgpack.Ext(REFERENCE, index.to_bytes(max(1, -(-index.bit_length() // 8)), "little"))


_SHORT: Final = tuple(bytes((0x90 | count,)) for count in range(16))


def packed_length(count: int) -> bytes:
    """What an array of so many items begins with."""
    if count < len(_SHORT):
        return _SHORT[count]
    return b"\xdc" + count.to_bytes(2, "big") if count < 1 << 16 else b"\xdd" + count.to_bytes(4, "big")


NEAR: Final = tuple(reference(index) for index in range(256))
"""References to the first rows."""
