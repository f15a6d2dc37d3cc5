"""The BlobStore contract: bytes under keys, and a way to be told of new ones.

Rules: a put is seen whole or not at all; keys are relative names checked against a strict pattern, so none leads out of
the store; a get takes a budget, because what lies there was written by others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from fedpost.errors import TransportError

__all__ = ["BlobInfo", "BlobStore", "Watch", "check_key"]

_KEY: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}(/[A-Za-z0-9_][A-Za-z0-9._-]{0,199}){0,7}")


def check_key(key: str) -> str:
    """Return the key if it is a plain relative name.

    Raises:
        TransportError: It has empty parts, parts that start with a dot, separators or control characters.
    """
    if _KEY.fullmatch(key) is None:
        raise TransportError(
            f"{key[:200]!r} is not a key", hint="Use letters, digits, '.', '_', '-', and '/' between parts."
        )
    return key


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """What is known of a blob without reading it.

    Attributes:
        key: Its key.
        size: Bytes.
    """

    key: str
    size: int


class Watch(Protocol):
    """Waits for new blobs. It may wake too often, and where the medium gives no signals it sleeps its time out."""

    def wait(self, timeout: float) -> None:
        """Return when something may be new, or after ``timeout`` seconds."""

    def close(self) -> None:
        """Stop watching; idempotent."""


class BlobStore(Protocol):
    """Bytes under keys. Every method may be called from several threads and processes."""

    def put(self, key: str, buffers: Iterable[memoryview]) -> int:
        """Store the buffers as one blob, atomically; an existing one is replaced. Return its size in bytes.

        Raises:
            TransportError: The key is no key, or the medium failed.
        """

    def get(self, key: str, *, max_bytes: int) -> memoryview | None:
        """The blob's bytes in memory of the caller's own, or None when there is no such blob.

        Raises:
            LimitError: It is larger than ``max_bytes``; nothing was read.
            RemoteError: What lies there is no blob, or may not be read.
            TransportError: The key is no key, or the medium failed.
        """

    def list(self, folder: str) -> list[BlobInfo]:
        """The blobs directly under ``folder/``, by key.

        Raises:
            TransportError: The folder's name is no key, or the medium failed.
        """

    def delete(self, key: str) -> bool:
        """Remove a blob; say whether it was there.

        Raises:
            TransportError: The key is no key, or the medium failed.
        """

    def watch(self, folder: str) -> Watch:
        """Watch for blobs under ``folder/``.

        Raises:
            TransportError: The folder's name is no key, or the medium failed.
        """
