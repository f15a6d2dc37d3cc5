"""The files of requests: which are new, which are not whole yet, which are none.

Rules: nothing is deleted that was not read whole; what is no request is moved aside with a note that says why; what
cannot be read is left alone until it changes.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final
from uuid import UUID

from fedpost.compat.syft_rpc.datasites import Mailbox
from fedpost.compat.syft_rpc.errors import printable
from fedpost.compat.syft_rpc.messages import SyftRequest, SyftResponse
from fedpost.errors import DecodeError, RemoteError, TruncatedError
from fedpost.frame import Limits

__all__ = ["Inbox"]

SETTLE_SECONDS: Final = 30.0
"""How long an unfinished file may stay as it is before it is set aside."""

_UUID: Final = r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"
_REQUEST: Final = re.compile(rf"{_UUID}\.request")
_RESPONSE: Final = re.compile(rf"{_UUID}\.response")
_MAX_REFUSAL: Final = 1 << 17
_log = logging.getLogger("fedpost.compat.syft_rpc")


class Inbox:
    """The requests to one app.

    Args:
        mailbox: Where they are.
        limits: The budget for one.
    """

    def __init__(self, mailbox: Mailbox, limits: Limits) -> None:
        self._mailbox = mailbox
        self._limits = limits
        self._lock = threading.Lock()
        self._taken: set[str] = set()
        self._waiting: dict[str, tuple[int, float]] = {}
        self._unreadable: dict[str, int] = {}

    def new(self) -> list[tuple[str, int]]:
        """Key and size of every file that nobody deals with, by name; they are taken until released."""
        out = []
        now = time.monotonic()
        blobs = self._mailbox.store.list(self._mailbox.requests)
        with self._lock:
            there = {blob.key for blob in blobs}
            self._waiting = {key: known for key, known in self._waiting.items() if key in there}
            self._unreadable = {key: size for key, size in self._unreadable.items() if key in there}
            for blob in blobs:
                if _REQUEST.fullmatch(blob.key.rpartition("/")[2]) is None or blob.key in self._taken:
                    continue
                size, since = self._waiting.get(blob.key, (-1, now))
                if self._unreadable.get(blob.key) == blob.size or (size == blob.size and now - since <= SETTLE_SECONDS):
                    continue
                self._taken.add(blob.key)
                out.append((blob.key, blob.size))
        return out

    def release(self, key: str) -> None:
        """Nobody deals with a file any more."""
        with self._lock:
            self._taken.discard(key)

    def leave(self, key: str, size: int) -> None:
        """Leave a file alone until its size is another."""
        with self._lock:
            self._unreadable[key] = size

    def remove(self, key: str) -> None:
        """Delete a request that was answered."""
        self._mailbox.store.delete(key)

    def clean(self, is_known: Callable[[UUID], bool], keep: timedelta, longest: timedelta) -> None:
        """Delete the refusals whose requests expired so long ago.

        Args:
            is_known: Whether a response is somebody else's to delete.
            keep: For how long a response stays after its request has expired.
            longest: The longest expiry; who asks for more is refused, and not remembered longer than that.
        """
        before = (time.time() - keep.total_seconds()) * 1000
        most = longest.total_seconds() * 1000
        for blob in self._mailbox.store.list(self._mailbox.responses):
            match = _RESPONSE.fullmatch(blob.key.rpartition("/")[2])
            if match is None or is_known(UUID(match[1])):
                continue
            try:
                data = self._mailbox.store.get(blob.key, max_bytes=_MAX_REFUSAL)
                header = None if data is None else SyftResponse.loads(data).header
                if header is not None and min(header.expires, header.created + most) < before:
                    self._mailbox.store.delete(blob.key)
            except RemoteError:  # not ours
                continue

    def read(self, key: str, size: int) -> SyftRequest | None:
        """The request in a file; None when it is gone, is not whole yet, or is none and was set aside.

        Args:
            key: The file.
            size: Its size when it was listed.

        Raises:
            TransportError: The folder cannot be read.
        """
        try:
            data = self._mailbox.store.get(key, max_bytes=self._limits.max_frame)
        except RemoteError as error:  # too large, or a link
            self.leave(key, size)
            _log.warning("%s: %s", key, error)
            return None
        if data is None:
            return None
        try:
            request = SyftRequest.loads(data, limits=self._limits)
        except TruncatedError as error:
            if not self._is_settled(key, data.nbytes):
                return None
            reason = str(error)
        except DecodeError as error:
            reason = str(error)
        else:
            if key == self._mailbox.request(request.id):
                return request
            reason = f"the request {request.id} under another's name"
        self._set_aside(key, data, reason)
        return None

    def _is_settled(self, key: str, size: int) -> bool:
        now = time.monotonic()
        with self._lock:
            known, since = self._waiting.get(key, (-1, now))
            if known != size:
                since = now
            self._waiting[key] = (size, since)
        return now - since > SETTLE_SECONDS

    def _set_aside(self, key: str, data: memoryview, reason: str) -> None:
        name = key.rpartition("/")[2]
        note = printable(reason)
        self._mailbox.store.put(f"{self._mailbox.rejected}/{name}", [data])
        self._mailbox.store.put(f"{self._mailbox.rejected}/{name}.txt", [memoryview(note.encode())])
        self._mailbox.store.delete(key)
        _log.warning("%s was set aside: %s", key, note)
