"""Mailboxes in a blob store: each address is a folder, each frame a blob in it, read and then deleted.

It needs no server: a folder that the sites share will do. New frames are seen at once where the store has signals, and
by a look once a second where it has none (NFS, SMB and synchronised folders). Keys sort by time of sending, so frames
of one sender come in order. Rejected frames go to ``rejected/<address>/`` with a note that says why.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from typing import Final
from urllib.parse import urlsplit

from fedpost.blobs import BlobStore, FileBlobStore, MemoryBlobStore
from fedpost.errors import TransportError
from fedpost.frame import Frame, Limits
from fedpost.transports.transport import TRANSPORTS, Guarantees, check_address, path_of

__all__ = ["MailboxEndpoint"]

SCAN_SECONDS: Final = 1.0
"""The longest time that a frame lies unseen where the store gives no signal."""

_NOTE_NAME: Final = 190

SETTLE_SECONDS: Final = 30.0
"""How long an unfinished frame may stay as it is before it is given up."""


class MailboxEndpoint:
    """One address's mailbox.

    Args:
        store: Where the mailboxes are.
        address: The own address.
        limits: ``max_frame`` is the largest frame that is received.
        durable: Whether the store outlives the processes.
    """

    def __init__(self, store: BlobStore, address: str, limits: Limits, *, durable: bool = True) -> None:
        self.address: Final = check_address(address)
        self.guarantees: Final = Guarantees(ordered=True, durable=durable, max_frame=None)
        self._store = store
        self._limits = limits
        self._watch = store.watch(self._folder(address))
        self._backlog: deque[str] = deque()
        self._held: set[str] = set()
        self._unfinished: dict[str, tuple[int, float]] = {}
        self._last_stamp = 0

    def send(self, address: str, frame: Frame) -> int:
        """Put the frame into the other's mailbox."""
        self._last_stamp = max(self._last_stamp + 1, time.time_ns())
        key = f"{self._folder(check_address(address))}/{self._last_stamp:020d}-{secrets.token_hex(4)}.frame"
        return self._store.put(key, frame.buffers())

    def receive(self, timeout: float) -> _MailboxDelivery | None:
        """The oldest frame that was not delivered yet."""
        deadline = time.monotonic() + timeout
        while True:
            if not self._backlog:
                self._look()
            while self._backlog:
                key = self._backlog.popleft()
                self._held.add(key)
                try:
                    data = self._store.get(key, max_bytes=self._limits.max_frame)
                except TransportError:
                    self._held.discard(key)  # to be tried again
                    raise
                if data is not None:
                    if key in self._unfinished and self._unfinished[key][0] != data.nbytes:
                        self._unfinished[key] = (data.nbytes, time.monotonic())
                    return _MailboxDelivery(self, key, data)
                self._held.discard(key)
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self._watch.wait(min(left, SCAN_SECONDS))

    def close(self) -> None:
        """Stop watching. Frames that were not acknowledged stay in the mailbox."""
        self._watch.close()

    # ── for deliveries ───────────────────────────────────────────────────────────────────────────────────────────────

    def settle(self, key: str) -> None:
        """Remove a frame that was dealt with."""
        self._store.delete(key)
        self._held.discard(key)
        self._unfinished.pop(key, None)

    def set_aside(self, key: str, data: memoryview, reason: str) -> None:
        """Move a frame out of the way, with the reason beside it."""
        name = key.rsplit("/", 1)[1]
        folder = f"rejected/{self.address}"
        self._store.put(f"{folder}/{name}", [data])
        # Shortened, since the mailbox may hold names as long as keys can be.
        self._store.put(f"{folder}/{name[:_NOTE_NAME]}.txt", [memoryview(_printable(reason).encode())])
        self.settle(key)

    def postpone(self, key: str, size: int) -> bool:
        """Deliver a frame again when its size has changed; False once it stayed the same for too long."""
        now = time.monotonic()
        known, since = self._unfinished.get(key, (-1, now))
        if known == size and now - since > SETTLE_SECONDS:
            return False
        self._unfinished[key] = (size, since if known == size else now)
        return True

    def _look(self) -> None:
        now = time.monotonic()
        for blob in self._store.list(self._folder(self.address)):
            if blob.key in self._unfinished:
                size, since = self._unfinished[blob.key]
                if blob.size != size or now - since > SETTLE_SECONDS:
                    self._backlog.append(blob.key)
            elif blob.key not in self._held:
                self._backlog.append(blob.key)

    @staticmethod
    def _folder(address: str) -> str:
        return f"mail/{address}"


class _MailboxDelivery:
    __slots__ = ("_data", "_endpoint", "_key")

    def __init__(self, endpoint: MailboxEndpoint, key: str, data: memoryview) -> None:
        self._endpoint = endpoint
        self._key = key
        self._data = data

    @property
    def data(self) -> memoryview:
        return self._data

    def ack(self) -> None:
        self._endpoint.settle(self._key)

    def reject(self, reason: str) -> None:
        self._endpoint.set_aside(self._key, self._data, reason)

    def defer(self) -> bool:
        return self._endpoint.postpone(self._key, self._data.nbytes)


def _printable(text: str) -> str:
    """For a person's terminal: what others sent cannot move the cursor or change colours."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


_MEMORY: Final[dict[str, MemoryBlobStore]] = {}


def _open_file(url: str, address: str, limits: Limits) -> MailboxEndpoint:
    return MailboxEndpoint(FileBlobStore(path_of(url)), address, limits)


def _open_memory(url: str, address: str, limits: Limits) -> MailboxEndpoint:
    """Peers of one process that name the same ``memory://name`` share a store."""
    store = _MEMORY.setdefault(urlsplit(url).netloc, MemoryBlobStore())
    return MailboxEndpoint(store, address, limits, durable=False)


TRANSPORTS.register("file", _open_file)
TRANSPORTS.register("memory", _open_memory)
