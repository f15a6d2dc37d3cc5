"""Blobs as files of a folder, which may be shared: NFS, SMB, Syncthing, a SyftBox datasite.

Rules: an unfinished file lives in ``.tmp/`` and is renamed into place; links and special files are never followed or
opened, since others can write here; nothing is mapped where others could shorten a file under the map.
"""

from __future__ import annotations

import errno
import logging
import mmap
import os
import secrets
import stat
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fedpost.blobs.store import BlobInfo, Watch, check_key
from fedpost.errors import LimitError, MissingExtraError, RemoteError, TransportError
from fedpost.files import write_buffers

if TYPE_CHECKING:
    from watchdog.events import FileSystemEvent

__all__ = ["FileBlobStore"]

# What somebody else put there is not ours to read: not the medium's fault, nor a reason to stop reading the others.
_FOREIGN: Final = (errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENXIO)
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_OPEN: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class FileBlobStore:
    """A folder with the BlobStore contract.

    Args:
        root: The folder; it is made when something is stored or watched. It may be reached by a link, unlike what is
            in it.
        own: Whether nobody else can write there: then blobs are mapped, not read, and cost no memory.
    """

    def __init__(self, root: Path, *, own: bool = False) -> None:
        self._root = root
        self._own = own

    def put(self, key: str, buffers: Iterable[memoryview]) -> int:
        """Write a file beside, then rename it into place."""
        *folder, name = check_key(key).split("/")
        unfinished = f"{secrets.token_hex(8)}.{name}"
        with _mapped(key), self._folder([".tmp"], make=True) as temporary:
            fd = os.open(unfinished, _CREATE, 0o644, dir_fd=temporary)
            try:
                try:
                    size = write_buffers(fd, buffers)
                finally:
                    os.close(fd)
                with self._folder(folder, make=True) as target:
                    os.replace(unfinished, name, src_dir_fd=temporary, dst_dir_fd=target)
            except BaseException:
                with suppress(FileNotFoundError):
                    os.unlink(unfinished, dir_fd=temporary)
                raise
        return size

    def get(self, key: str, *, max_bytes: int) -> memoryview | None:
        """Read a file into fresh memory, or map it where it is our own, once its size is known to be allowed."""
        *folder, name = check_key(key).split("/")
        with _mapped(key):
            try:
                with self._folder(folder) as parent:
                    fd = _open_own(name, parent, key)
            except FileNotFoundError:
                return None
            try:
                status = os.fstat(fd)
                if not stat.S_ISREG(status.st_mode):
                    raise RemoteError("not a regular file", where=key)
                if status.st_size > max_bytes:
                    raise LimitError(f"{status.st_size} bytes, {max_bytes} allowed", where=key)
                if self._own and status.st_size:
                    return memoryview(mmap.mmap(fd, status.st_size, access=mmap.ACCESS_READ))
                view = memoryview(bytearray(status.st_size))
                filled = 0
                while filled < len(view) and (count := os.readv(fd, [view[filled:]])):
                    filled += count
            finally:
                os.close(fd)
        return view[:filled].toreadonly()

    def list(self, folder: str) -> list[BlobInfo]:
        """The regular files of a folder that have the names of blobs."""
        found = []
        with _mapped(folder):
            try:
                with self._folder(check_key(folder).split("/")) as fd, os.scandir(fd) as entries:
                    for entry in entries:
                        try:
                            if not entry.name.startswith(".") and entry.is_file(follow_symlinks=False):
                                size = entry.stat(follow_symlinks=False).st_size
                                found.append(BlobInfo(check_key(f"{folder}/{entry.name}"), size))
                        except (FileNotFoundError, TransportError):
                            continue  # taken by somebody else meanwhile, or a foreign file such as a sync tool's own
            except FileNotFoundError:
                return []
        return sorted(found, key=lambda blob: blob.key)

    def delete(self, key: str) -> bool:
        """Unlink a file."""
        *folder, name = check_key(key).split("/")
        with _mapped(key):
            try:
                with self._folder(folder) as parent:
                    os.unlink(name, dir_fd=parent)
            except FileNotFoundError:
                return False
        return True

    def watch(self, folder: str) -> Watch:
        """Watch the folder through the operating system (inotify, FSEvents, kqueue, …).

        Raises:
            MissingExtraError: The extra ``fedpost[run]`` is not installed.
            TransportError: The folder cannot be made or watched.
        """
        parts = check_key(folder).split("/")
        with _mapped(folder), self._folder(parts, make=True):
            return _FolderWatch(self._root.joinpath(*parts))

    @contextmanager
    def _folder(self, parts: Iterable[str], *, make: bool = False) -> Iterator[int]:
        """A descriptor of a folder, reached without following links: others could put one there."""
        if make:
            self._root.mkdir(parents=True, exist_ok=True)
        fd = os.open(self._root, _FOLDER)
        try:
            for part in parts:
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(part, dir_fd=fd)
                inner = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=fd)
                os.close(fd)
                fd = inner
            yield fd
        finally:
            os.close(fd)


def _open_own(name: str, folder: int, key: str) -> int:
    try:
        return os.open(name, _OPEN, dir_fd=folder)
    except OSError as error:
        if error.errno in _FOREIGN:
            raise RemoteError(f"it cannot be read: {error.strerror}", where=key) from error
        raise


@contextmanager
def _mapped(where: str) -> Iterator[None]:
    """Operating system errors become ours."""
    try:
        yield
    except OSError as error:
        raise TransportError(error.strerror or str(error), where=where) from error


_NO_MORE_WATCHES: Final = (errno.EMFILE, errno.ENOSPC)  # inotify's limits per user
_log = logging.getLogger("fedpost.blobs")


class _FolderWatch:
    def __init__(self, path: Path) -> None:
        try:
            from watchdog.events import FileCreatedEvent, FileMovedEvent, FileSystemEventHandler  # noqa: PLC0415 - extra
            from watchdog.observers import Observer  # noqa: PLC0415 - extra
        except ImportError as error:
            raise MissingExtraError(
                "watching a folder needs the package watchdog", hint="pip install 'fedpost[run]'"
            ) from error
        new = threading.Event()

        class Handler(FileSystemEventHandler):
            def on_any_event(self, event: FileSystemEvent) -> None:  # noqa: ARG002 - any event will do
                new.set()

        self._new = new
        self._observer = Observer()
        self._observer.daemon = True
        try:
            self._observer.schedule(Handler(), str(path), event_filter=[FileCreatedEvent, FileMovedEvent])
            self._observer.start()
        except OSError as error:
            if error.errno not in _NO_MORE_WATCHES:
                raise
            # Without signals a wait lasts its time, and the next look finds what is new.
            _log.warning("%s cannot be watched (%s); it is looked at every second", path, error.strerror)

    def wait(self, timeout: float) -> None:
        self._new.wait(timeout)
        self._new.clear()

    def close(self) -> None:
        if self._observer.is_alive():
            self._observer.stop()
            self._observer.join()
