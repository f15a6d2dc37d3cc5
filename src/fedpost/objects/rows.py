"""The table of a tree that is being written, and the leaves beside it.

Rules: a row is packed when it is made, so what it refers to is in the table already, and of what it held nothing is
kept; what MessagePack cannot hold after all is looked for once that has failed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import ormsgpack

from fedpost.errors import EncodeError
from fedpost.objects.external import External
from fedpost.objects.types import Serializer
from fedpost.objects.wire import (
    IN_PLACE,
    IN_TREE,
    MAX_INT,
    MIN_INT,
    MOST_IN_PLACE,
    NEAR,
    ONE_PART,
    Kind,
    Text,
    packed_length,
    reference,
)

__all__ = ["Late", "Rows"]

_OPTIONS: Final = (
    # Tuples are arrays to the packer: those that are still there are the parts of a row.
    ormsgpack.OPT_PASSTHROUGH_SUBCLASS
    | ormsgpack.OPT_PASSTHROUGH_DATACLASS
    | ormsgpack.OPT_PASSTHROUGH_DATETIME
    | ormsgpack.OPT_PASSTHROUGH_ENUM
    | ormsgpack.OPT_PASSTHROUGH_UUID
)
_pack: Final = ormsgpack.packb
_Ext: Final = ormsgpack.Ext
_HEADS: Final = {
    **{kind: bytes([0x92, kind]) for kind in ONE_PART},
    **{kind: bytes([0x93, kind]) for kind in (Kind.DICT, Kind.SCALAR, Kind.INSTANCE)},
}
"""What a row in the table begins with that may stand in place as well."""


class Late:
    """A small array, of which it is not known yet whether it comes again: in place if not, else a row.

    Args:
        parts: What its row has behind the kind.
    """

    __slots__ = ("again", "parts", "reference")

    def __init__(self, parts: tuple[Any, ...]) -> None:
        self.parts = parts
        self.again = False
        self.reference: Any = None


class Rows:
    """Rows, types and segments, in the order of their numbers.

    Args:
        external: Where leaves go that are over its size; None keeps all in the frame.
    """

    _rows = 0

    def __init__(self, external: External | None) -> None:
        self.segments: list[memoryview] = []
        self._external = external
        self._outside: set[bytes] = set()
        self._table: list[bytes | memoryview] = []
        """The packed rows, in pieces."""
        self._types: dict[Serializer, int] = {}
        self._shared: dict[int, Any] = {}
        self._alive: list[Any] = []

    def _tree(self, root: Any) -> bytes:
        """All of it, once nothing is missing."""
        packed = self._packed(root, self._settled if self._shared else None)
        types = [serializer.packed for serializer in self._types]
        return b"".join((b"\x93", packed_length(len(types)), *types, packed_length(self._rows), *self._table, packed))

    def _row(self, row: list[Any]) -> Any:
        """Add a row; return the reference to it."""
        packed = self._packed(row)
        self._table.append(packed)
        return self._next()

    def _single(self, kind: int, part: Any) -> Any:
        """A row that is referred to once: what stands for it.

        Args:
            kind: Its kind.
            part: What it has behind that, a list where it is several.
        """
        try:
            packed = _pack(part, self._in_table if self._shared else None, _OPTIONS)
        except ormsgpack.MsgpackEncodeError:
            packed = self._packed(part)
        if len(packed) <= MOST_IN_PLACE:
            return _Ext(IN_PLACE + kind, packed)
        self._table += (_HEADS[kind], packed if kind in ONE_PART else memoryview(packed)[1:])
        return self._next()

    def _in_table(self, late: Late) -> Any:
        """What stands for a small array in a row, which is packed before it is known whether the array comes again."""
        if late.reference is None:
            late.reference = self._row([Kind.ARRAY, *late.parts])
        return late.reference

    def _settled(self, late: Late) -> Any:
        """What stands for it in the root, which is packed last."""
        if late.again or late.reference is not None:
            return self._in_table(late)
        return _Ext(IN_PLACE + Kind.ARRAY, _pack(late.parts))

    def _next(self) -> Any:
        index = self._rows
        self._rows = index + 1
        return NEAR[index] if index < len(NEAR) else reference(index)

    def _blob(self, text: int, data: memoryview, *more: Any) -> Any:
        return self._row([Kind.BLOB, text, self._place(data), *more])

    def _place(self, data: memoryview) -> Any:
        """The bytes themselves, the number of a segment, or a reference to another place with the size."""
        size = data.nbytes
        if size < IN_TREE:
            return bytes(data)
        if self._external is not None and size > self._external.over:
            found = self._external.put(data)
            # A leaf has one row, so of two of the same bytes the second stays here.
            if found not in self._outside:
                self._outside.add(found)
                return [found, size]
        self.segments.append(data.toreadonly())
        return len(self.segments) - 1

    def _share(self, value: Any, row: Any) -> Any:
        """Let later references to the same object find its row. It is kept alive, or another could get its id."""
        self._alive.append(value)
        self._shared[id(value)] = row
        return row

    def _type(self, serializer: Serializer) -> int:
        return self._types.setdefault(serializer, len(self._types))

    # ── what MessagePack cannot hold ─────────────────────────────────────────────────────────────────────────────────

    def _packed(self, value: Any, default: Callable[[Any], Any] | None = None) -> bytes:
        if default is None and self._shared:
            default = self._in_table
        try:
            return _pack(value, default, _OPTIONS)
        except ormsgpack.MsgpackEncodeError:
            pass  # it holds an integer of more than 64 bits, or a text with surrogates
        try:
            return _pack(self._mended(value), default, _OPTIONS)
        except (ormsgpack.MsgpackEncodeError, RecursionError) as error:
            raise EncodeError(f"cannot be encoded: {error}") from error

    def _mended(self, value: Any) -> Any:  # noqa: PLR0911 - one line a kind
        """The same without such values, which are rows. The lists and dictionaries given are not changed.

        What was written is gone through, not the object: nothing that belongs to a class runs again.
        """
        kind = type(value)
        if kind is int:
            return value if MIN_INT <= value <= MAX_INT else self._single(Kind.INTEGER, _bytes_of(value))
        if kind is str:
            if not _has_surrogates(value):
                return value
            return self._row([Kind.BLOB, Text.SURROGATES, value.encode("utf-8", "surrogatepass")])
        if kind is list or kind is tuple:
            return [item if type(item) in _GOOD else self._mended(item) for item in value]
        if kind is dict:
            values = self._mended(list(value.values()))
            if any(map(_has_surrogates, value)):
                return self._single(Kind.DICT, [self._mended(list(value)), values])
            return dict(zip(value, values, strict=True))
        return value


_GOOD: Final = frozenset({float, bool, type(None), bytes, ormsgpack.Ext})


def _bytes_of(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)


def _has_surrogates(text: str) -> bool:
    if text.isascii():
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
