"""Blobs in the memory of this process: for tests, and for peers that are threads."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from fedpost.blobs.store import BlobInfo, Watch, check_key
from fedpost.errors import LimitError

__all__ = ["MemoryBlobStore"]


class MemoryBlobStore:
    """A dictionary with the BlobStore contract."""

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}
        self._changed = threading.Condition()
        self._puts = 0

    def put(self, key: str, buffers: Iterable[memoryview]) -> int:
        """Store a copy."""
        data = b"".join(buffers)
        with self._changed:
            self._blobs[check_key(key)] = data
            self._puts += 1
            self._changed.notify_all()
        return len(data)

    def get(self, key: str, *, max_bytes: int) -> memoryview | None:
        """The stored bytes themselves, read-only."""
        data = self._blobs.get(check_key(key))
        if data is None:
            return None
        if len(data) > max_bytes:
            raise LimitError(f"{len(data)} bytes, {max_bytes} allowed", where=key)
        return memoryview(data)

    def list(self, folder: str) -> list[BlobInfo]:
        """The blobs directly under a folder."""
        prefix = check_key(folder) + "/"
        with self._changed:
            found = [BlobInfo(key, len(data)) for key, data in self._blobs.items() if key.startswith(prefix)]
        return sorted((blob for blob in found if "/" not in blob.key[len(prefix) :]), key=lambda blob: blob.key)

    def delete(self, key: str) -> bool:
        """Forget a blob."""
        with self._changed:
            return self._blobs.pop(check_key(key), None) is not None

    def watch(self, folder: str) -> Watch:
        """Wake at every put into the store."""
        check_key(folder)
        return _Watch(self)

    def puts(self) -> int:
        """How many blobs were ever stored."""
        return self._puts

    def wait_for_put(self, seen: int, timeout: float) -> None:
        """Return once there were more than ``seen`` puts, or after ``timeout`` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._puts > seen, timeout)


class _Watch:
    def __init__(self, store: MemoryBlobStore) -> None:
        self._store = store
        self._seen = store.puts()

    def wait(self, timeout: float) -> None:
        self._store.wait_for_put(self._seen, timeout)
        self._seen = self._store.puts()

    def close(self) -> None:
        pass
