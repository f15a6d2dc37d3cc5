"""The two files of a frame on its way: its bytes, and the digests of the parts that are there.

Rules (``docs/spec/parts.md``, "The journal"): a part's digest is written after its bytes, so being killed between any
two instructions loses at most a part that is sent again; what is read is hashed first, so the journal is a claim that
is checked, never believed; a file is open only while it is used, so that transfers cost no descriptors.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

import blake3

from fedpost.errors import DecodeError, LocalError
from fedpost.files import replace_file, write_buffers
from fedpost.frame.parts import DIGEST_SIZE, Part, PartLimits, PartPlan

__all__ = ["Spool", "disk_errors"]

_MAGIC: Final = b"\x89FPJ\r\n\x1a\n"
_HEADER: Final = struct.Struct("<8sHHI16sQQ")
_SLOTS: Final = _HEADER.size + DIGEST_SIZE  # 64: a slot of 16 bytes never crosses a page
_FLAGS: Final = os.O_CLOEXEC | os.O_NOFOLLOW
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Spool:
    """A frame's file, preallocated but sparse, and its journal beside it. Not safe to use from several threads.

    Args:
        stem: Path of both, without the suffix.
        plan: How the frame is cut.
    """

    def __init__(self, stem: Path, plan: PartPlan) -> None:
        self.plan = plan
        self.data = stem.with_suffix(".frame")
        self.journal = stem.with_suffix(".journal")

    @classmethod
    def create(cls, stem: Path, plan: PartPlan) -> Self:
        """Make both files. The journal comes last: without one, the other counts for nothing.

        Raises:
            LocalError: The disk failed; no file stays behind.
        """
        spool = cls(stem, plan)
        try:
            with _opened(spool.data, os.O_RDWR | os.O_CREAT | os.O_TRUNC) as fd, disk_errors(spool.data):
                os.ftruncate(fd, plan.total)
            with disk_errors(spool.journal):
                replace_file(spool.journal, [memoryview(_pack(plan))])
        except LocalError:
            spool.data.unlink(missing_ok=True)
            raise
        return spool

    @classmethod
    def resume(cls, stem: Path, limits: PartLimits) -> Self | None:
        """What an earlier process left, unless the journal is damaged, belongs elsewhere, or is over the budget now.

        Raises:
            LocalError: The disk failed.
        """
        journal = stem.with_suffix(".journal")
        with _opened(journal) as fd, disk_errors(journal):
            head = os.pread(fd, _SLOTS, 0)
        if len(head) < _SLOTS or head[_HEADER.size :] != _digest(head[: _HEADER.size]):
            return None
        *_, transfer, total, size = _HEADER.unpack_from(head)
        try:
            plan = PartPlan(transfer, total, size)
            plan.check(limits)
        except DecodeError:
            return None
        return cls(stem, plan) if head == _pack(plan) and stem.name.endswith(transfer.hex()) else None

    def write(self, part: Part) -> None:
        """Write a part's bytes, then its digest.

        Raises:
            LocalError: The disk is full or failed; the part is not there.
        """
        _write_at(self.data, part.offset, part.payload)
        _write_at(self.journal, _slot(part.index), [memoryview(part.digest)])

    def digest(self, index: int) -> bytes:
        """The digest of a part as the journal has it.

        Raises:
            LocalError: The disk failed.
        """
        with _opened(self.journal) as fd, disk_errors(self.journal):
            return os.pread(fd, DIGEST_SIZE, _slot(index))

    def read(self, indices: Iterable[int]) -> Iterator[tuple[int, memoryview]]:
        """Those of the parts that are there and whole, all in one buffer: each is valid until the next.

        Raises:
            LocalError: The disk failed.
        """
        buffer: memoryview | None = None
        with _opened(self.journal) as journal, _opened(self.data) as data:
            for index in indices:
                with disk_errors(self.data):
                    digest = os.pread(journal, DIGEST_SIZE, _slot(index))
                    if len(digest) < DIGEST_SIZE or not any(digest):
                        continue
                    buffer = buffer or memoryview(bytearray(self.plan.length(0)))
                    view = buffer[: self.plan.length(index)]
                    whole = _fill(data, view, self.plan.offset(index))
                if whole and self.plan.digest(index, [view]) == digest:
                    yield index, view.toreadonly()

    def modified(self) -> float:
        """When a part came last, in seconds since 1970; 0 if the files are gone."""
        try:
            return self.journal.stat().st_mtime
        except OSError:
            return 0.0

    def remove(self) -> None:
        """Remove both files. The journal goes first: without one, the other is swept up at the next start.

        Raises:
            LocalError: The disk failed.
        """
        with disk_errors(self.journal):
            self.journal.unlink(missing_ok=True)
            self.data.unlink(missing_ok=True)


def _slot(index: int) -> int:
    return _SLOTS + index * DIGEST_SIZE


def _digest(head: bytes) -> bytes:
    return blake3.blake3(head).digest(length=DIGEST_SIZE)


def _pack(plan: PartPlan) -> bytes:
    head = _HEADER.pack(_MAGIC, 1, 0, 0, plan.transfer, plan.total, plan.size)
    return head + _digest(head)


def _fill(fd: int, view: memoryview, offset: int) -> bool:
    filled = 0
    while filled < view.nbytes and (count := os.preadv(fd, [view[filled:]], offset + filled)):
        filled += count
    return filled == view.nbytes


def _write_at(path: Path, offset: int, buffers: Iterable[memoryview]) -> None:
    with _opened(path, os.O_WRONLY) as fd, disk_errors(path):
        os.lseek(fd, offset, os.SEEK_SET)
        write_buffers(fd, buffers)


@contextmanager
def _opened(path: Path, mode: int = os.O_RDONLY) -> Iterator[int]:
    with disk_errors(path):
        fd = os.open(path, mode | _FLAGS, 0o600)
    try:
        yield fd
    finally:
        with disk_errors(path):  # network file systems tell of a full disk here
            os.close(fd)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Say what an error of the disk means.

    Args:
        path: What the error is about.

    Raises:
        LocalError: Instead of an ``OSError``.
    """
    try:
        yield
    except OSError as error:
        hint = "Make room and send the part again." if error.errno in _FULL else "Discard the transfer if it stays so."
        raise LocalError(f"the spool failed: {error.strerror or error}", where=str(path), hint=hint) from error
