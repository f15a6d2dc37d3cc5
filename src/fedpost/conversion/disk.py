"""What a conversion keeps on disk rather than in memory, and the file that it leaves there.

Rules: what is unfinished has no name, or one that is removed whatever happens; the result appears in one step, and
takes the place of another file only when that was asked for.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from fedpost.errors import ConfigError, DecodeError, TruncatedError
from fedpost.files import hidden_name, write_buffers

__all__ = ["BATCH", "Progress", "Scratch", "check_free", "map_file", "unfinished", "write_views"]

BATCH: Final = 1 << 24
"""Bytes that are worked on at a time."""

Progress = Callable[[str, int, int], None]
"""Told what is done (``"reading"``, ``"compressing"``, ``"writing"``, ``"checking"``), and how many bytes of all."""

_ALIGNMENT: Final = 64
_DESCRIPTORS: Final = Path("/proc/self/fd")
_NO_LINKS: Final = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK)


class Scratch:
    """A growing file without a name: gone when nobody refers to it, however the process ends.

    Args:
        folder: A folder on a disk with room for it; the folder for temporary files without it, for those who read.
    """

    __slots__ = ("__weakref__", "_fd", "_folder", "_size")

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._fd: int | None = None
        self._size = 0

    def append(self, buffers: Iterable[memoryview], *, aligned: bool = False) -> int:
        """Write buffers behind what is there, on a multiple of 64 bytes if wished; where they begin.

        Raises:
            OSError: The disk is full or failed.
        """
        try:
            if self._fd is None:
                with tempfile.TemporaryFile(dir=self._folder, prefix=".fedpost-", buffering=0) as file:
                    self._fd = os.dup(file.fileno())
                weakref.finalize(self, os.close, self._fd)
            padding = -self._size % _ALIGNMENT if aligned else 0
            start = self._size + padding
            self._size += write_buffers(self._fd, [memoryview(bytes(padding)), *buffers])
        except OSError as error:
            folder = self._folder or tempfile.gettempdir()
            hint = "" if self._folder else " (what is compressed is unpacked there; TMPDIR names another folder)"
            raise OSError(error.errno, f"{error.strerror}{hint}", str(folder)) from error
        return start

    def view(self) -> memoryview:
        """Everything that was written, mapped."""
        if self._fd is None or not self._size:
            return memoryview(b"")
        return memoryview(mmap.mmap(self._fd, 0, access=mmap.ACCESS_READ))


def map_file(path: Path) -> memoryview:
    """A regular file, mapped and read-only.

    Raises:
        DecodeError: It is no regular file, or empty.
        OSError: It cannot be opened.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe would block
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise DecodeError("not a regular file")
        if not status.st_size:
            raise TruncatedError("the file is empty")
        return memoryview(mmap.mmap(fd, 0, access=mmap.ACCESS_READ))
    finally:
        os.close(fd)


@contextmanager
def unfinished(path: Path, *, replace: bool) -> Iterator[Path]:
    """A new, empty file that takes the name ``path`` at the end of the block, and is removed on any error.

    Where the file system can, it has no name before, so that nothing stays behind a process that is killed.

    Args:
        path: Where it shall be. Its folder must exist.
        replace: Whether another file may be there already.

    Raises:
        ConfigError: Another file is there, or came there meanwhile.
        OSError: As the operating system says.
    """
    path = Path(os.path.realpath(path))
    check_free(path, replace=replace)
    fd = _nameless(path.parent)
    if fd is not None:
        try:
            yield _DESCRIPTORS / str(fd)
            _appear(fd, path, replace=replace)
        finally:
            os.close(fd)
        return
    temporary = path.with_name(hidden_name(path))
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))  # less the umask
    try:
        yield temporary
        if replace:
            temporary.replace(path)
        else:
            _link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _nameless(folder: Path) -> int | None:
    """A new file without a name, which nobody has to remove however this process ends; None where there is no such."""
    if not hasattr(os, "O_TMPFILE") or not _DESCRIPTORS.is_dir():
        return None
    try:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666)
    except OSError:  # this file system has none; if it is for another reason, a file with a name fails of it, too
        return None


def _appear(fd: int, path: Path, *, replace: bool) -> None:
    """Give a file without a name its name."""
    # With the descriptor of a folder (it is not used) Python calls linkat, and that alone follows the link: open(2).
    link = {"src": _DESCRIPTORS / str(fd), "src_dir_fd": fd, "follow_symlinks": True}
    try:
        os.link(dst=path, **link)  # type: ignore[arg-type] # arguments of several types
    except FileExistsError:
        if not replace:
            raise _taken(path) from None
        temporary = path.with_name(hidden_name(path))
        try:
            os.link(dst=temporary, **link)  # type: ignore[arg-type] # as above
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def check_free(path: Path, *, replace: bool) -> None:
    """Check that a file can be written at ``path``.

    Raises:
        ConfigError: No such folder, or something is there that may not be replaced.
    """
    if not path.parent.is_dir():
        raise ConfigError("its folder does not exist", where=str(path))
    if path.exists() and not path.is_file():
        raise ConfigError("not a regular file", where=str(path))
    if path.exists() and not replace:
        raise _taken(path)


def write_views(path: Path, buffers: Iterable[memoryview], progress: Progress, total: int) -> None:
    """Write buffers to an existing, empty file, a bounded number of bytes at a time.

    Raises:
        OSError: As the operating system says.
    """
    with path.open("wb", buffering=0) as file:
        done, waiting, held = 0, [], 0
        for buffer in buffers:
            for start in range(0, buffer.nbytes, BATCH):
                part = buffer[start : start + BATCH]
                waiting.append(part)
                held += part.nbytes
                if held >= BATCH:
                    done += write_buffers(file.fileno(), waiting)
                    waiting, held = [], 0
                    progress("writing", done, total)
        write_buffers(file.fileno(), waiting)
    progress("writing", total, total)


def _link(temporary: Path, path: Path) -> None:
    """Give a file its name without ever replacing another."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise _taken(path) from None
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        check_free(path, replace=False)  # this file system has no links
        temporary.replace(path)


def _taken(path: Path) -> ConfigError:
    return ConfigError("the file is there already", where=str(path), hint="--force replaces it.")
