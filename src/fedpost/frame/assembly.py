"""Frames from their parts: spooled to disk as they come, resumed after a restart. Specified in ``docs/spec/parts.md``.

Rules: nothing on the disk is believed after a restart, or handed to a sink, before it was hashed in memory; memory is
bounded by one part and a byte for each; everything is budgeted before a file is made.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol, Self

import blake3

from fedpost.errors import (
    DecodeError,
    IntegrityError,
    LimitError,
    LocalError,
    ProtocolError,
    TruncatedError,
)
from fedpost.frame.frame import Frame, Verify
from fedpost.frame.hold import Hold
from fedpost.frame.parts import DEFAULT_PART_LIMITS, DIGEST_SIZE, Part, PartLimits, PartPlan
from fedpost.frame.spool import Spool, disk_errors

__all__ = ["PartAssembler", "Sink", "Transfer"]

_OURS: Final = re.compile(r"([0-9a-f]{32}-[0-9a-f]{32})\.(frame|journal)")
_HALF_MADE: Final = re.compile(r"\.[0-9a-f]{32}-[0-9a-f]{1,32}(?:\.journal)?\.[0-9a-f]{8}")
_SENDER: Final = slice(32)  # of a key


class Sink(Protocol):
    """Takes a frame's bytes in order while the rest is still on its way: how to aggregate without waiting."""

    def write(self, offset: int, data: memoryview) -> None:
        """Take the next bytes. The full contract is in ``docs/spec/parts.md``, section 8.

        - The first call has the offset 0, every other one the end of the call before: no gap, overlap or repetition.
          Joined, the data are the frame's bytes. A call may begin and end anywhere, also inside an element.
        - ``data`` is read-only, never empty, and only valid during the call: copy what you keep.
        - A part's digest was checked over the very bytes given. The frame's own digests were not: what comes of them
          must not take effect before :meth:`Transfer.open` has returned.
        - It is called inside :meth:`PartAssembler.add` or :meth:`Transfer.attach`, by their thread, and must not call
          the transfer. What it raises comes out of them: the part counts, and the sink is not called again.

        Args:
            offset: Where ``data`` begins in the frame.
            data: The bytes.
        """


class Transfer:
    """One frame on its way from one sender. Got from a :class:`PartAssembler`; safe to use from many threads.

    Attributes:
        plan: How the frame is cut.
    """

    def __init__(self, spool: Spool, limits: PartLimits, forget: Callable[[Transfer], None], *, fresh: bool) -> None:
        self.plan = spool.plan
        self._spool = spool
        self._limits = limits
        self._forget = forget
        self._lock = threading.RLock()
        self._received = bytearray(spool.plan.count) if fresh else None
        self._gone = False
        self._sink: Sink | None = None
        self._fed = 0

    @property
    def received(self) -> int:
        """The number of parts that are there.

        Raises:
            LocalError: The spool cannot be read.
        """
        with self._lock:
            return self._known().count(1)

    @property
    def complete(self) -> bool:
        """Whether all parts are there.

        Raises:
            LocalError: The spool cannot be read.
        """
        return self.received == self.plan.count

    def missing(self) -> list[range]:
        """The indices of the parts that are not there, as few ranges, in order.

        Raises:
            LocalError: The spool cannot be read.
        """
        ranges = []
        with self._lock:
            known, end = self._known(), 0
            while (start := _find(known, 0, end)) < len(known):
                end = _find(known, 1, start)
                ranges.append(range(start, end))
        return ranges

    def attach(self, sink: Sink) -> None:
        """Give a sink what is there from the first byte on, at once, and what follows as it comes.

        It takes the place of the one before. After a restart attach a fresh one: it begins at 0 again.

        Raises:
            LocalError: The spool cannot be read.
            Exception: What the sink raises.
        """
        with self._lock:
            self._known()
            self._sink, self._fed = sink, 0
            self._feed(None)

    def open(self, *, verify: Verify = "eager") -> Frame:
        """Map the whole frame, verified through its own digests. It stays on the disk until :meth:`discard`.

        Raises:
            TruncatedError: Parts are missing.
            IntegrityError: A digest does not match. Parts that the disk has damaged are missing from then on; when
                there are none the sender's frame is wrong, and the transfer must be discarded.
            DecodeError: As :meth:`fedpost.frame.Frame.open`.
            LocalError: The spool cannot be read.
        """
        with self._lock:
            if left := self.plan.count - self.received:
                raise TruncatedError(f"{left} of {self.plan.count} parts are missing", hint="Ask for them.")
            try:
                with disk_errors(self._spool.data):
                    frame = Frame.open(self._spool.data, limits=self._limits.frame, verify=verify)
                if frame.digest != self.plan.transfer or (frame.checksum == "none" and len(frame)):
                    raise IntegrityError("its digest is not the one that the parts name", where="frame")
            except DecodeError as error:
                self._received = None  # so that every part is hashed again
                if left := self.plan.count - self.received:
                    text = f"{left} of {self.plan.count} parts were damaged on the disk"
                    raise IntegrityError(text, hint="Ask for the missing parts again.") from error
                raise
        return frame

    def discard(self) -> None:
        """Remove it from the disk. A frame that was opened stays readable.

        Raises:
            LocalError: The files cannot be removed.
        """
        with self._lock:
            if self._gone:
                return
            self._spool.remove()
            self._gone = True
            self._sink = None
            self._forget(self)

    # ── inside the package ───────────────────────────────────────────────────────────────────────────────────────────

    def _add(self, part: Part) -> bool:
        """Take a part; False when the transfer was discarded meanwhile."""
        with self._lock:
            if self._gone:
                return False
            known, index, where = self._known(), part.index, f"part {part.index}"
            if part.plan != self.plan:
                hint = "Discard the transfer to take the frame in parts of another size."
                raise ProtocolError("it does not belong to the parts before it", where=where, hint=hint)
            if not known[index]:
                self._spool.write(part)
                known[index] = 1
                self._feed(part)
            elif self._spool.digest(index) != part.digest:
                raise ProtocolError("it was there before, with other content", where=where)
            return True

    def _expired(self, now: float) -> bool:
        return now - self._spool.modified() > self._limits.max_age

    def _known(self) -> bytearray:
        """One byte a part, 1 when it is there; after a restart every part that the journal claims is hashed."""
        if self._gone:
            raise LocalError("the transfer was discarded")
        if self._received is None:
            received = bytearray(self.plan.count)
            for index, _ in self._spool.read(range(self.plan.count)):
                received[index] = 1
            self._received = received
        return self._received

    def _feed(self, part: Part | None) -> None:
        """Give the sink all that follows what it has."""
        sink, known = self._sink, self._known()
        if sink is None:
            return
        try:
            if part is not None and part.index == self._fed:
                offset = part.offset
                for buffer in part.payload:
                    sink.write(offset, buffer.toreadonly())
                    offset += buffer.nbytes
                self._fed += 1
            if self._fed < (end := _find(known, 0, self._fed)):
                for index, data in self._spool.read(range(self._fed, end)):
                    if index != self._fed:
                        break
                    sink.write(self.plan.offset(index), data)
                    self._fed += 1
                if self._fed < end:  # the disk has damaged it
                    known[self._fed] = 0
        except BaseException:
            self._sink = None
            raise


class PartAssembler:
    """Puts frames together from parts that come in any order, in a folder of its own.

    Nothing is touched before the first call. A folder has one assembler at a time, for any number of
    threads; a second one is refused, in this process and in others, until the first one is closed or gone.

    Args:
        folder: Made when needed, for this user only. Nobody else may write in it.
        limits: The budget.
    """

    def __init__(self, folder: Path, limits: PartLimits = DEFAULT_PART_LIMITS) -> None:
        self._folder = folder
        self._limits = limits
        self._lock = threading.Lock()
        self._transfers: dict[str, Transfer] = {}
        self._held: Hold | None = None

    def add(self, part: Part, *, sender: str = "") -> Transfer:
        """Take a part of a new frame or of one on its way. A part that is there already changes nothing.

        Args:
            part: The part.
            sender: Whose it is, as the transport knows it. Transfers and budgets are the sender's own.

        Raises:
            LimitError: The frame, or all on the disk together, would be over the budget.
            ProtocolError: Other parts of that frame were cut otherwise, or this one had other content.
            LocalError: The disk is full or failed. The part does not count, all others do.
            Exception: What the transfer's sink raises. The part counts.
        """
        key = _key(part.plan.transfer, sender)
        while True:
            transfer = self._all().get(key) or self._admit(key, part.plan)
            if transfer._add(part):  # noqa: SLF001 - same module
                return transfer

    def find(self, transfer: bytes, *, sender: str = "") -> Transfer | None:
        """A transfer on its way, also from before a restart; the frame's digest names it."""
        return self._all().get(_key(transfer, sender))

    def transfers(self) -> list[Transfer]:
        """All transfers on their way."""
        return list(self._all().values())

    def expire(self, now: float | None = None) -> int:
        """Discard the transfers that are abandoned; return how many. New transfers do this too.

        Args:
            now: Seconds since 1970; the clock without it.
        """
        moment = time.time() if now is None else now
        old = [transfer for transfer in self.transfers() if transfer._expired(moment)]  # noqa: SLF001 - same module
        for transfer in old:
            transfer.discard()
        return len(old)

    def close(self) -> None:
        """Let another assembler use the folder. What is there can be resumed; the transfers at hand are not for use."""
        with self._lock:
            if self._held is not None:
                self._held.release()
            self._held = None
            self._transfers.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _admit(self, key: str, plan: PartPlan) -> Transfer:
        plan.check(self._limits)
        self.expire()
        with self._lock:
            if transfer := self._transfers.get(key):
                return transfer
            limits, sender = self._limits, key[_SENDER]
            everybody = [other.plan.total for other in self._transfers.values()]
            own = [other.plan.total for name, other in self._transfers.items() if name[_SENDER] == sender]
            for who, sizes, count, room in (
                ("this sender", own, limits.sender_transfers, limits.sender_spool),
                ("all senders", everybody, limits.max_transfers, limits.max_spool),
            ):
                if len(sizes) >= count or sum(sizes) + plan.total > room:
                    text = f"{len(sizes)} transfers of {sum(sizes)} bytes from {who} and one of {plan.total}"
                    raise LimitError(f"{text}, {count} of {room} bytes allowed", hint="Wait until one of them ends.")
            spool = Spool.create(self._folder / key, plan)
            transfer = self._transfers[key] = Transfer(spool, limits, self._forget, fresh=True)
        return transfer

    def _forget(self, transfer: Transfer) -> None:
        with self._lock:
            for key in [key for key, other in self._transfers.items() if other is transfer]:
                del self._transfers[key]

    def _all(self) -> dict[str, Transfer]:
        """The transfers by key, found on the disk at first use."""
        with self._lock:
            if self._held is not None and not self._held.ours:
                self._held = None
                self._transfers.clear()
            if self._held is None:
                with disk_errors(self._folder):
                    self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                    held = Hold(self._folder / "lock")
                    try:
                        self._scan()
                    except BaseException:
                        held.release()
                        raise
                self._held = held
            return self._transfers

    def _scan(self) -> None:
        """Take up what was left; sweep up what a sudden end left half made. Files of other names are not touched."""
        found = [entry.name for entry in os.scandir(self._folder)]
        files = {name: match for name in found if (match := _OURS.fullmatch(name))}
        for name, match in files.items():
            if name == f"{match[1]}.journal" and f"{match[1]}.frame" in files:
                spool = Spool.resume(self._folder / match[1], self._limits)
                if spool is not None:
                    self._transfers[match[1]] = Transfer(spool, self._limits, self._forget, fresh=False)
        for name in found:
            if _HALF_MADE.fullmatch(name) or (name in files and files[name][1] not in self._transfers):
                (self._folder / name).unlink()


def _key(transfer: bytes, sender: str) -> str:
    """A file name: hexadecimal digits and a dash, whatever the sender calls itself."""
    name = blake3.blake3(sender.encode("utf-8", "surrogatepass")).hexdigest(length=DIGEST_SIZE)
    return f"{name}-{transfer.hex()}"


def _find(known: bytearray, value: int, start: int) -> int:
    """The next index of a value, or the end."""
    index = known.find(value, start)
    return len(known) if index < 0 else index
