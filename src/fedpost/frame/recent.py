"""The chunks that were decompressed last, of all frames together: many small tensors share one.

Rules: memory is bounded by :data:`ROOM` bytes however many frames there are; what is handed out is read-only and never
used again for anything else, so a view of it stays true for as long as somebody holds it; what is left of frames that
are gone goes first.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Final

__all__ = ["RECENT", "ROOM", "Owner", "Recent"]

ROOM: Final = 1 << 24
_MOST: Final = 64
"""Chunks, however small: each one that comes looks at all."""


class Owner:
    """Stands for a frame."""

    __slots__ = ("__weakref__",)


Key = tuple["weakref.ref[Owner]", int, int]


class Recent:
    """Chunks by owner, segment and number; safe to use from many threads.

    Args:
        room: Bytes to keep at most.
    """

    def __init__(self, room: int = ROOM) -> None:
        self._room = room
        self._forget_all()

    def get(self, owner: Owner, index: int, number: int) -> memoryview | None:
        """A chunk, if it is still there."""
        key = (weakref.ref(owner), index, number)
        with self._lock:
            plain = self._kept.pop(key, None)
            if plain is not None:
                self._kept[key] = plain  # the last to go
        return plain

    def keep(self, owner: Owner, index: int, number: int, plain: memoryview) -> None:
        """Keep a chunk, and let go of those that were not asked for longest.

        Args:
            owner: Whose it is.
            index: The segment.
            number: Which chunk of it.
            plain: Its bytes, which must not change.
        """
        key = (weakref.ref(owner), index, number)
        with self._lock:
            if key in self._kept or plain.nbytes > self._room:
                return
            self._drop([other for other in self._kept if other[0]() is None])
            self._kept[key] = plain
            self._filled += plain.nbytes
            while self._filled > self._room or len(self._kept) > _MOST:
                self._drop([next(iter(self._kept))])

    @property
    def nbytes(self) -> int:
        """Bytes that are kept."""
        with self._lock:
            self._drop([key for key in self._kept if key[0]() is None])
            return self._filled

    def _drop(self, keys: list[Key]) -> None:
        for key in keys:
            self._filled -= self._kept.pop(key).nbytes

    def _forget_all(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[Key, memoryview] = {}
        self._filled = 0


RECENT: Final = Recent()

# Another thread may have held the lock at that moment.
os.register_at_fork(after_in_child=RECENT._forget_all)  # noqa: SLF001 - same module
