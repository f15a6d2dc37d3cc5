"""The table of a tree that is being written, and the leaves beside it."""

from __future__ import annotations

from typing import Any

from fedpost.objects.external import External
from fedpost.objects.types import Serializer
from fedpost.objects.wire import IN_TREE, NEAR, Kind, reference

__all__ = ["Rows"]


class Rows:
    """Rows, types and segments, in the order of their numbers.

    Args:
        external: Where leaves go that are over its size; None keeps all in the frame.
    """

    __slots__ = ("_alive", "_external", "_outside", "_shared", "_table", "_types", "segments")

    def __init__(self, external: External | None) -> None:
        self.segments: list[memoryview] = []
        self._external = external
        self._outside: set[bytes] = set()
        self._table: list[Any] = []
        self._types: dict[Serializer, int] = {}
        self._shared: dict[int, Any] = {}
        self._alive: list[Any] = []

    def _row(self, row: list[Any]) -> Any:
        """Add a row; return the reference to it."""
        table = self._table
        index = len(table)
        table.append(row)
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
