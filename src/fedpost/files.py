"""Buffers to files: gathered writes, and replacement that is all or nothing.

A reader of a path written here sees the old content or the new one, never a part. Nothing is forced to the disk
platter (no ``fsync``): what survives a power cut is the file system's promise, and every frame carries its own digests.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Final

__all__ = ["hidden_name", "replace_file", "write_buffers"]

# POSIX promises 16 at least; Linux and the BSDs take 1024 buffers in one call.
_IOV_MAX: Final = os.sysconf("SC_IOV_MAX") if "SC_IOV_MAX" in getattr(os, "sysconf_names", {}) else 16
_SHOWN: Final = 40  # characters, of up to four bytes each; file systems take 255 bytes


def write_buffers(fd: int, buffers: Iterable[memoryview]) -> int:
    """Write every buffer to a file descriptor, without joining them, and return the number of bytes.

    Raises:
        OSError: As the operating system says; short writes are continued, not errors.
    """
    pending = [buffer for buffer in buffers if buffer.nbytes]
    total = sum(buffer.nbytes for buffer in pending)
    first = 0
    while first < len(pending):
        batch = pending[first : first + _IOV_MAX]
        written = os.writev(fd, batch)
        for buffer in batch:
            if written < buffer.nbytes:
                pending[first] = buffer[written:]
                break
            written -= buffer.nbytes
            first += 1
    return total


def hidden_name(path: Path) -> str:
    """A new name for what will be ``path``: hidden, and short enough also where that has as long a name as can be."""
    return f".{path.name[:_SHOWN]}.{secrets.token_hex(4)}"


def replace_file(path: Path, buffers: Iterable[memoryview], *, temporary: Path | None = None) -> int:
    """Write a file under another name and rename it into place; return its size in bytes.

    Args:
        path: Where it shall be. Its folder must exist.
        buffers: The content.
        temporary: A folder of the same file system for the unfinished file; ``path``'s own folder without it.

    Raises:
        OSError: As the operating system says; no unfinished file stays behind.
    """
    unfinished = (temporary or path.parent) / hidden_name(path)
    fd = os.open(
        unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666
    )  # less what the umask takes away
    try:
        try:
            size = write_buffers(fd, buffers)
        finally:
            os.close(fd)
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    return size
