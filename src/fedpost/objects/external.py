"""Leaves that are too large for a frame, in a blob store, under the digest of their bytes.

Rules: what is read is compared with the digest that it was asked for by; the same bytes are stored once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

import blake3

from fedpost.blobs import BlobStore
from fedpost.errors import DecodeError, IntegrityError

__all__ = ["BlobLeaves", "External", "LazyLeaf"]

_DIGEST: Final = 32


class External(Protocol):
    """Where leaves go that are too large for a frame."""

    @property
    def over(self) -> int:
        """Leaves of more bytes than this are put here."""

    def put(self, data: memoryview) -> bytes:
        """Keep a leaf; return what it is found by. A frame has the second of two that are found by the same."""

    def get(self, reference: bytes, size: int) -> Any:
        """The leaf's bytes, as a memoryview; or, where it is to be read later, a function that gives them.

        Raises:
            DecodeError: It is not there, or is another.
        """


class LazyLeaf:
    """A large leaf that is not read yet.

    Args:
        load: Gives the leaf.
        size: Its size in bytes.
    """

    __slots__ = ("_load", "size")

    def __init__(self, load: Callable[[], Any], size: int) -> None:
        self._load = load
        self.size = size

    def load(self) -> Any:
        """Read the leaf, whole.

        Raises:
            DecodeError: It is not there, or is another.
        """
        return self._load()


class BlobLeaves:
    """Keeps leaves in a blob store; the claim check of messaging systems.

    Args:
        store: Where they are kept.
        over: Leaves of more bytes than this are kept there.
        folder: The keys' first part.
        lazy: Whether leaves come back as :class:`LazyLeaf`, to be read later.
    """

    def __init__(self, store: BlobStore, *, over: int = 1 << 30, folder: str = "leaves", lazy: bool = False) -> None:
        self._store = store
        self._folder = folder
        self._lazy = lazy
        self.over = over

    def put(self, data: memoryview) -> bytes:
        """Store a leaf; return its BLAKE3 digest, by which it is found.

        Raises:
            TransportError: The store failed.
        """
        digest = blake3.blake3(data, max_threads=blake3.blake3.AUTO).digest()
        self._store.put(self._key(digest), [data])
        return digest

    def get(self, reference: bytes, size: int) -> memoryview | Callable[[], memoryview]:
        """The leaf's bytes, or, where leaves are lazy, a function that gives them.

        Raises:
            DecodeError: It is not there, has another size, or other bytes.
            TransportError: The store failed.
        """
        if len(reference) != _DIGEST:
            raise DecodeError("a leaf outside of the frame is not named by a digest")
        return (lambda: self._read(reference, size)) if self._lazy else self._read(reference, size)

    def _read(self, digest: bytes, size: int) -> memoryview:
        found: Any = self._store.get(self._key(digest), max_bytes=size)
        if found is None:
            raise DecodeError("a leaf is missing in the store", where=self._key(digest), hint="Was it cleaned up?")
        if found.nbytes != size:
            raise DecodeError(f"a leaf of {size} bytes has {found.nbytes} in the store", where=self._key(digest))
        if blake3.blake3(found, max_threads=blake3.blake3.AUTO).digest() != digest:
            raise IntegrityError("a leaf's bytes are not those of its digest", where=self._key(digest))
        view: memoryview = found
        return view

    def _key(self, digest: bytes) -> str:
        return f"{self._folder}/{digest.hex()}"
