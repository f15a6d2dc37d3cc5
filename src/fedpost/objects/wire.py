"""The object tree as it stands in a frame: ``docs/spec/objects.md``.

Rules: what MessagePack keeps exactly stands in the tree as it is; anything else is a row of a table, and a reference to
that row in its place. Rows refer backwards only, so a reader builds them in order and never recurses. A row that is a
container is referred to once, so nothing small can stand for something huge; a large leaf may be referred to often.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import ormsgpack

__all__ = [
    "IN_HEADER",
    "IN_TREE",
    "MAX_DEPTH",
    "NEAR",
    "NUMBERS",
    "RECORDS",
    "REFERENCE",
    "SECTION",
    "Kind",
    "PackedTree",
    "Text",
    "Tree",
    "TypeRow",
    "reference",
]

SECTION: Final = "object"
REFERENCE: Final = 1
"""The code of the one MessagePack extension: the number of a row, unsigned, little-endian, without zeros at its end."""
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
        types: What instances refer to by number.
        table: The rows.
        root: The value itself.
    """

    types: list[TypeRow]
    table: list[msgspec.Raw]
    root: msgspec.Raw


class PackedTree(msgspec.Struct, array_like=True, frozen=True):
    """A tree that is looked at before anything of it is made."""

    types: msgspec.Raw
    table: msgspec.Raw
    root: msgspec.Raw


TREE_DECODER: Final = msgspec.msgpack.Decoder(Tree)
PACKED_TREE_DECODER: Final = msgspec.msgpack.Decoder(PackedTree)


def reference(index: int) -> Any:
    """What stands in the tree for a row."""
    return ormsgpack.Ext(REFERENCE, index.to_bytes(max(1, -(-index.bit_length() // 8)), "little"))


NEAR: Final = tuple(reference(index) for index in range(256))
"""References to the first rows."""
