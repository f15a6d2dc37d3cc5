"""Blobs as files of a folder, which may be shared: NFS, SMB, Syncthing, a SyftBox datasite.

Rules: an unfinished file lives in ``.tmp/`` and is renamed into place; links and special files are never followed or
opened, since others can write here; nothing is mapped, since others could shorten a file under the map.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fedpost.blobs.store import BlobInfo, Watch, check_key
from fedpost.errors import LimitError, MissingExtraError, RemoteError, TransportError
from fedpost.files import replace_file

if TYPE_CHECKING:
    from watchdog.events import FileSystemEvent

__all__ = ["FileBlobStore"]

# What somebody else put there is not ours to read: not the medium's fault, nor a reason to stop reading the others.
_FOREIGN: Final = (errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENXIO)
_OPEN: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class FileBlobStore:
    """A folder with the BlobStore contract.

    Args:
        root: The folder; it is made when something is stored or watched.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._temporary = root / ".tmp"
        self._made: set[Path] = set()

    def put(self, key: str, buffers: Iterable[memoryview]) -> int:
        """Write a file beside, then rename it into place."""
        path = self._path(key)
        content = list(buffers)
        with _mapped(key):
            try:
                return self._put(path, content)
            except FileNotFoundError:  # somebody tidied a folder away since it was made
                self._made.clear()
                return self._put(path, content)

    def get(self, key: str, *, max_bytes: int) -> memoryview | None:
        """Read a file into fresh memory, once its size is known to be allowed."""
        path = self._path(key)
        with _mapped(key):
            try:
                fd = os.open(path, _OPEN)
            except FileNotFoundError:
                return None
            except OSError as error:
                if error.errno in _FOREIGN:
                    raise RemoteError(f"it cannot be read: {error.strerror}", where=key) from error
                raise
            try:
                status = os.fstat(fd)
                if not stat.S_ISREG(status.st_mode):
                    raise RemoteError("not a regular file", where=key)
                if status.st_size > max_bytes:
                    raise LimitError(f"{status.st_size} bytes, {max_bytes} allowed", where=key)
                data = memoryview(bytearray(status.st_size))
                filled = 0
                while filled < data.nbytes and (count := os.readv(fd, [data[filled:]])):
                    filled += count
            finally:
                os.close(fd)
        return data[:filled].toreadonly()

    def list(self, folder: str) -> list[BlobInfo]:
        """The regular files of a folder that have the names of blobs."""
        found = []
        with _mapped(folder):
            try:
                entries = os.scandir(self._path(f"{folder}/x").parent)
            except FileNotFoundError:
                return []
            with entries:
                for entry in entries:
                    try:
                        if not entry.name.startswith(".") and entry.is_file(follow_symlinks=False):
                            size = entry.stat(follow_symlinks=False).st_size
                            found.append(BlobInfo(check_key(f"{folder}/{entry.name}"), size))
                    except (FileNotFoundError, TransportError):
                        continue  # taken by somebody else meanwhile, or a foreign file such as a sync tool's own
        return sorted(found, key=lambda blob: blob.key)

    def delete(self, key: str) -> bool:
        """Unlink a file."""
        with _mapped(key):
            try:
                self._path(key).unlink()
            except FileNotFoundError:
                return False
        return True

    def watch(self, folder: str) -> Watch:
        """Watch the folder through the operating system (inotify, FSEvents, kqueue, …).

        Raises:
            MissingExtraError: The extra ``fedpost[run]`` is not installed.
            TransportError: The folder cannot be made or watched.
        """
        path = self._path(f"{folder}/x").parent
        with _mapped(folder):
            self._make(path)
            return _FolderWatch(path)

    def _path(self, key: str) -> Path:
        """The file of a key, once no folder on the way to it is a link to somewhere else."""
        *folders, _ = check_key(key).split("/")
        root = os.path.realpath(self._root)
        for folder in (folders, [".tmp"]):
            expected = os.path.join(root, *folder)  # noqa: PTH118 - compared with what realpath gives
            if os.path.realpath(expected) != expected:
                raise TransportError("a folder on the way is a link", where=key)
        return self._root / key

    def _put(self, path: Path, buffers: Sequence[memoryview]) -> int:
        self._make(self._temporary)
        self._make(path.parent)
        return replace_file(path, buffers, temporary=self._temporary)

    def _make(self, folder: Path) -> None:
        if folder not in self._made:
            folder.mkdir(parents=True, exist_ok=True)
            self._made.add(folder)


@contextmanager
def _mapped(where: str) -> Iterator[None]:
    """Operating system errors become ours."""
    try:
        yield
    except OSError as error:
        raise TransportError(error.strerror or str(error), where=where) from error


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
        self._observer.schedule(Handler(), str(path), event_filter=[FileCreatedEvent, FileMovedEvent])
        self._observer.start()

    def wait(self, timeout: float) -> None:
        self._new.wait(timeout)
        self._new.clear()

    def close(self) -> None:
        if self._observer.is_alive():
            self._observer.stop()
            self._observer.join()
