"""What MessagePack cannot hold, replaced by rows: looked for only once packing a tree has failed.

Integers over 64 bits and text with surrogates are so rare that no look at each is spent on them. What was written is
gone through, not the object: nothing that belongs to a class runs again.
"""

from __future__ import annotations

from typing import Any, Final

import ormsgpack

from fedpost.objects.wire import MAX_INT, MIN_INT, Kind, Text, reference

__all__ = ["mended"]


def mended(table: list[Any], root: Any) -> tuple[list[Any], Any]:
    """The rows and the root of a tree without such values. The lists and dictionaries given are not changed."""
    mender = _Mender()
    for row in table:
        mender.add(row)
    return mender.table, mender.value(root)


class _Mender:
    def __init__(self) -> None:
        self.table: list[Any] = []
        self._places: list[int] = []
        """Where the rows that there were are now."""

    def add(self, row: Any) -> None:
        done = self.value(row)
        self._places.append(len(self.table))
        self.table.append(done)

    def value(self, value: Any) -> Any:
        kind = type(value)
        if kind is int:
            return value if MIN_INT <= value <= MAX_INT else self._row(_integer(value))
        if kind is str:
            return self._row(_text(value)) if _has_surrogates(value) else value
        if kind is list:
            return [item if type(item) in _GOOD else self.value(item) for item in value]
        if kind is dict:
            values = self.value(list(value.values()))
            if any(map(_has_surrogates, value)):
                return self._row([Kind.DICT, self.value(list(value)), values])
            return dict(zip(value, values, strict=True))
        return reference(self._places[_index(value)]) if kind is ormsgpack.Ext else value

    def _row(self, row: list[Any]) -> Any:
        self.table.append(row)
        return reference(len(self.table) - 1)


_GOOD: Final = frozenset({float, bool, type(None), bytes})


def _integer(value: int) -> list[Any]:
    return [Kind.INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)]


def _text(value: str) -> list[Any]:
    return [Kind.BLOB, Text.SURROGATES, value.encode("utf-8", "surrogatepass")]


def _has_surrogates(text: str) -> bool:
    if text.isascii():
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _index(ext: Any) -> int:
    """The number of the row that a reference means; it does not tell."""
    index: int = ormsgpack.unpackb(ormsgpack.packb(ext), ext_hook=lambda _code, data: int.from_bytes(data, "little"))
    return index
