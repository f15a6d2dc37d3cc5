"""A file that one holder has at a time, in this process and among all of them."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import weakref
from pathlib import Path
from typing import ClassVar

from fedpost.errors import ConfigError

__all__ = ["Hold"]


class Hold:
    """A file that nobody else may hold, here or in another process, until it is released or its holder ends.

    The system's lock belongs to the process, and goes with whichever of its descriptors of the file is closed first: so
    a process that holds the file must not open it again, and has to know that itself.

    Raises:
        ConfigError: Somebody else holds it.
        OSError: It cannot be made or locked.
    """

    _lock: ClassVar = threading.RLock()
    _held: ClassVar[set[tuple[int, int]]] = set()

    def __init__(self, path: Path) -> None:
        self._pid = os.getpid()
        with self._lock:
            try:
                status = os.lstat(path)
            except FileNotFoundError:
                status = None
            if status is not None and (status.st_dev, status.st_ino) in self._held:
                text = "another assembler of this process uses this folder"
                raise ConfigError(text, where=str(path.parent), hint="Close it first.")
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                # Not flock, and no lock of the open file: these would live on in forked children.
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(self._fd)
                if error.errno not in (errno.EACCES, errno.EAGAIN):
                    raise
                raise ConfigError(
                    "another process uses this folder", where=str(path.parent), hint="Give each its own."
                ) from error
            status = os.fstat(self._fd)
            self._key = (status.st_dev, status.st_ino)
            self._held.add(self._key)
        self._release = weakref.finalize(self, self._let_go, self._pid, self._fd, self._key)

    @property
    def ours(self) -> bool:
        """False in a child that was forked since: locks are not handed down."""
        return self._pid == os.getpid()

    def release(self) -> None:
        """Let others in."""
        self._release()

    @classmethod
    def _let_go(cls, pid: int, fd: int, key: tuple[int, int]) -> None:
        with cls._lock:
            os.close(fd)
            if pid == os.getpid():
                cls._held.discard(key)

    @classmethod
    def _forked(cls) -> None:
        cls._lock = threading.RLock()
        cls._held = set()


os.register_at_fork(after_in_child=Hold._forked)  # noqa: SLF001 - same module
