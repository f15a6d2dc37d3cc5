"""What a server has taken on: which requests were begun, and what was answered.

Rules: a request is noted before its function is called, and its response is kept here before anybody sees it; so after
the process was killed anywhere, a request that was begun is known, and one that was answered has its answer. One
process has a journal at a time. It must not be synchronised: who could delete a note could have a request executed
again. Nothing is forced to the disk, so all this holds when a process dies, not when the power fails.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from uuid import UUID

import msgspec

from fedpost.blobs import FileBlobStore
from fedpost.compat.syft_rpc.messages import RequestHeader, SyftResponse
from fedpost.errors import ConfigError, DecodeError, TransportError
from fedpost.frame import Limits

__all__ = ["Journal"]

_BEGUN: Final = "begun"
_ANSWERED: Final = "answered"
_MAX_NOTE: Final = 1 << 20
_DECODER: Final = msgspec.msgpack.Decoder(RequestHeader)


class Journal:
    """The notes of one server.

    Args:
        folder: Where they are.
        limits: The budget for a response.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder = folder
        self._store = FileBlobStore(folder, own=True)
        self._limits = limits
        self._lock = threading.Lock()
        self._file: int | None = None
        self._begun: dict[UUID, int | None] = {}  # when each expires; headers stay on the disk, as they may be long
        self._running: set[UUID] = set()

    def open(self) -> None:
        """Take the journal and read it.

        Raises:
            ConfigError: Another process, or another server of this one, has it.
            TransportError: It cannot be made or read.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            file = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise TransportError(f"no journal can be kept: {error.strerror}", where=str(self._folder)) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(file)
            raise ConfigError("this app is being served already", where=str(self._folder)) from error
        self._file = file
        try:
            self._begun = {ident: None if note is None else note.expires for ident, note in self._notes()}
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the journal; idempotent."""
        if self._file is not None:
            # A process that a handler has forked holds the file too, and closing it here would not let go of it.
            fcntl.flock(self._file, fcntl.LOCK_UN)
            os.close(self._file)
            self._file = None

    def has(self, ident: UUID) -> bool:
        """Whether a request was begun."""
        return ident in self._begun

    def begin(self, request: RequestHeader) -> None:
        """Note that a request is executed from now on.

        Raises:
            TransportError: It cannot be noted, so it must not be executed.
        """
        self._store.put(f"{_BEGUN}/{request.id}", [memoryview(msgspec.msgpack.encode(request))])
        with self._lock:
            self._running.add(request.id)
            self._begun[request.id] = request.expires

    def answer(self, response: SyftResponse) -> None:
        """Keep the response to a request."""
        try:
            self._store.put(f"{_ANSWERED}/{response.id}", response.frame.buffers())
        finally:
            with self._lock:
                self._running.discard(response.id)

    def response(self, ident: UUID) -> SyftResponse | None:
        """The response to a request, or None while there is none."""
        data = self._store.get(f"{_ANSWERED}/{ident}", max_bytes=self._limits.max_frame)
        try:
            return None if data is None else SyftResponse.loads(data, limits=self._limits)
        except DecodeError:  # cut short by a power failure: as if it had not come to it
            return None

    def unanswered(self) -> list[RequestHeader]:
        """Requests that were begun and have no response: somebody was killed."""
        answered = {blob.key.rpartition("/")[2] for blob in self._store.list(_ANSWERED)}
        return [note for ident, note in self._notes() if note is not None and str(ident) not in answered]

    def forget(self, ident: UUID) -> None:
        """Remove a request."""
        self._store.delete(f"{_ANSWERED}/{ident}")
        self._store.delete(f"{_BEGUN}/{ident}")
        with self._lock:
            self._begun.pop(ident, None)

    def over(self, seconds: float) -> list[UUID]:
        """Requests that expired so many seconds ago, or earlier, and are not being executed."""
        before = (time.time() - seconds) * 1000
        with self._lock:
            return [
                ident
                for ident, expires in self._begun.items()
                if expires is not None and expires < before and ident not in self._running
            ]

    def _notes(self) -> Iterator[tuple[UUID, RequestHeader | None]]:
        for blob in self._store.list(_BEGUN):
            try:
                ident = UUID(blob.key.rpartition("/")[2])
            except ValueError:  # somebody's own file
                continue
            yield ident, self._note(blob.key)

    def _note(self, key: str) -> RequestHeader | None:
        try:
            return _DECODER.decode(self._store.get(key, max_bytes=_MAX_NOTE) or b"")
        except (msgspec.DecodeError, UnicodeDecodeError):  # cut short by a power failure: it was begun all the same
            return None
