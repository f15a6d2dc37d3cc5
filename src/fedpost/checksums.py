"""Digests over buffers, by registered name.

``blake3`` is the default: it is cryptographic and runs near memory speed. ``xxh3`` and ``crc32c`` find accidents, not
attackers. ``none`` is an empty digest, for bytes that something else covers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

import blake3
import crc32c
import xxhash

from fedpost.registry import Registry

__all__ = ["CHECKSUMS", "DEFAULT_CHECKSUM", "Checksum", "Hasher"]

DEFAULT_CHECKSUM: Final = "blake3"


class Hasher(Protocol):
    """What :mod:`hashlib` objects and their cousins have in common."""

    def update(self, data: memoryview, /) -> object:
        """Take in more bytes."""

    def digest(self) -> bytes:
        """The digest of everything taken in."""


@dataclass(frozen=True, slots=True)
class Checksum:
    """One digest algorithm.

    Attributes:
        name: The registered name, as frames carry it.
        size: Length of a digest in bytes; 0 for ``none``.
        new: Makes a fresh hasher.
    """

    name: str
    size: int
    new: Callable[[], Hasher]

    def of(self, buffers: Iterable[memoryview]) -> bytes:
        """The digest of the concatenation of ``buffers`` (C-contiguous), without joining them."""
        if not self.size:
            return b""
        hasher = self.new()
        for buffer in buffers:
            hasher.update(buffer)
        return hasher.digest()


CHECKSUMS: Final[Registry[str, Checksum]] = Registry("checksum")
for _checksum in (
    Checksum("blake3", 32, blake3.blake3),
    Checksum("sha256", 32, hashlib.sha256),
    Checksum("xxh3", 16, xxhash.xxh3_128),
    Checksum("crc32c", 4, crc32c.CRC32CHash),
    Checksum("none", 0, hashlib.sha256),
):
    CHECKSUMS.register(_checksum.name, _checksum)
