"""Parts: pieces of a frame of bounded size, each with its own digest. Specified in ``docs/spec/parts.md``.

Rules: where a part lies follows from the frame's size and the part size alone, and a header that says anything else is
refused, so parts cannot overlap or leave holes; a :class:`Part` that exists fits its plan, and its digest is right;
payloads share memory with the frame, or with the buffer that they were read from.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Final

import blake3

from fedpost.errors import (
    ConfigError,
    DecodeError,
    EncodeError,
    IntegrityError,
    LimitError,
    TruncatedError,
    UnsupportedError,
)
from fedpost.frame.header import DEFAULT_LIMITS, MAGIC, Limits

if TYPE_CHECKING:
    from fedpost.frame.frame import Frame  # it makes parts, so it imports this module

__all__ = ["DEFAULT_PART_LIMITS", "Part", "PartLimits", "PartPlan", "Parts"]

PART_MAGIC: Final = b"\x89FPP\r\n\x1a\n"
PART_VERSION: Final = 1
DIGEST_SIZE: Final = 16
_HEADER: Final = struct.Struct("<8sHHI16sQQQQQ")
_HEADER_SIZE: Final = _HEADER.size + DIGEST_SIZE
_FRAME_DIGEST: Final = slice(24, 40)  # in the frame's prologue
# Where the size allows it, a payload is whole pages of a file, or at least whole elements of every type.
_GRAINS: Final = (4096, 64, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartLimits:
    """What a receiver of parts is willing to take. Sizes are in bytes.

    Attributes:
        frame: What it takes of the frame.
        max_part: Size of a part, which is also what the receiver holds in memory.
        max_parts: Number of parts of a frame.
        max_transfers: Number of unfinished or unopened frames on the disk, of all senders.
        max_spool: Size of all of them, as their headers promise it.
        sender_transfers: The same for one sender.
        sender_spool: The same for one sender.
        max_age: Seconds without a new part after which a transfer is abandoned.
    """

    frame: Limits = DEFAULT_LIMITS
    max_part: int = 1 << 26
    max_parts: int = 1 << 18
    max_transfers: int = 1 << 10
    max_spool: int = 1 << 40
    sender_transfers: int = 8
    sender_spool: int = 1 << 35
    max_age: float = 86_400.0


DEFAULT_PART_LIMITS: Final = PartLimits()


@dataclass(frozen=True, slots=True)
class PartPlan:
    """How a frame is cut. Everything about a part but its payload follows from this and its index.

    Attributes:
        transfer: The frame's digest, 16 bytes.
        total: The frame's size in bytes.
        size: The payload's size in bytes, of every part but the last.

    Raises:
        DecodeError: These are no sizes, or no digest.
    """

    transfer: bytes
    total: int
    size: int

    def __post_init__(self) -> None:
        if len(self.transfer) != DIGEST_SIZE or not 1 <= self.size <= self.total:
            raise DecodeError(f"{self.total} bytes cannot be cut by {self.size}", where="part header")

    @property
    def count(self) -> int:
        """The number of parts."""
        return -(-self.total // self.size)

    def offset(self, index: int) -> int:
        """Where a part's payload lies in the frame."""
        return index * self.size

    def length(self, index: int) -> int:
        """Size of a part's payload in bytes."""
        return min(self.size, self.total - index * self.size)

    def header(self, index: int) -> bytes:
        """The header of a part, without its digest."""
        numbers = (index, self.count, self.total, self.offset(index), self.length(index))
        return _HEADER.pack(PART_MAGIC, PART_VERSION, 0, 0, self.transfer, *numbers)

    def digest(self, index: int, payload: Iterable[memoryview]) -> bytes:
        """The digest of a part: of its payload, then its header.

        The payload comes first since BLAKE3 works on blocks of 1 KiB: behind a header it would run at a quarter.
        """
        hasher = blake3.blake3()
        for buffer in payload:
            hasher.update(buffer)
        hasher.update(self.header(index))
        return hasher.digest(length=DIGEST_SIZE)

    def check(self, limits: PartLimits) -> None:
        """Compare with a receiver's budget.

        Raises:
            LimitError: It allows less.
        """
        if self.total > limits.frame.max_frame:
            raise LimitError(f"a frame of {self.total} bytes, {limits.frame.max_frame} allowed", where="part header")
        if self.count > limits.max_parts:
            raise LimitError(f"{self.count} parts, {limits.max_parts} allowed", where="part header")
        if self.length(0) + _HEADER_SIZE > limits.max_part:
            raise LimitError(f"a part of {self.length(0) + _HEADER_SIZE} bytes, {limits.max_part} allowed")


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a frame, which may begin and end inside a tensor.

    Args:
        plan: How the frame is cut.
        index: Which piece this is, from 0.
        payload: Its bytes: C-contiguous buffers of unsigned bytes that must not change while the part lives.

    Attributes:
        digest: 16 bytes over payload and header.

    Raises:
        DecodeError: The payload does not have the size that plan and index ask for, or begins another frame.
    """

    plan: PartPlan
    index: int
    payload: tuple[memoryview, ...] = field(repr=False, compare=False)  # the digest stands for it
    digest: bytes = field(init=False)

    def __post_init__(self) -> None:
        plan, where = self.plan, f"part {self.index}"
        if not 0 <= self.index < plan.count:
            raise DecodeError(f"there are only {plan.count}", where=where)
        if (size := sum(buffer.nbytes for buffer in self.payload)) != plan.length(self.index):
            raise DecodeError(f"{size} bytes instead of {plan.length(self.index)}", where=where)
        if not self.index and self.payload[0].nbytes >= _FRAME_DIGEST.stop:
            start = bytes(self.payload[0][: _FRAME_DIGEST.stop])
            if not start.startswith(MAGIC) or start[_FRAME_DIGEST] != plan.transfer:
                raise DecodeError("it does not begin the frame that it names", where=where)
        object.__setattr__(self, "digest", plan.digest(self.index, self.payload))

    @property
    def offset(self) -> int:
        """Where the payload lies in the frame."""
        return self.plan.offset(self.index)

    @property
    def nbytes(self) -> int:
        """Size on the wire, in bytes."""
        return _HEADER_SIZE + self.plan.length(self.index)

    def buffers(self) -> Iterator[memoryview]:
        """The part's bytes in order, as buffers that share memory with the frame (scatter/gather)."""
        yield memoryview(self.plan.header(self.index) + self.digest)
        yield from self.payload

    def __bytes__(self) -> bytes:
        return b"".join(self.buffers())

    @classmethod
    def decode(cls, data: bytes | bytearray | memoryview, limits: PartLimits = DEFAULT_PART_LIMITS) -> Part:
        """Read a part that fills ``data`` exactly. The payload is a read-only view of ``data``, which must not change.

        Raises:
            TruncatedError: ``data`` ends early.
            IntegrityError: The digest does not match.
            LimitError: More than ``limits`` allow.
            UnsupportedError: Another version, or unknown flags.
            DecodeError: Anything else that the specification forbids.
        """
        view = memoryview(data).toreadonly().cast("B")
        if view.nbytes > limits.max_part:
            raise LimitError(f"a part of {view.nbytes} bytes, {limits.max_part} allowed")
        plan, index, payload = _read_header(view)
        plan.check(limits)
        part = cls(plan, index, (payload,))
        if part.digest != view[_HEADER.size : _HEADER_SIZE]:
            raise IntegrityError("its digest does not match", where=f"part {index}", hint="Ask for it again.")
        return part


def _read_header(view: memoryview) -> tuple[PartPlan, int, memoryview]:
    """The plan, the index and the payload, when all numbers of the header follow from the plan."""
    where = "part header"
    if view[:8] != PART_MAGIC[: view.nbytes]:
        raise DecodeError("not a part of a frame: the first bytes are wrong", where=where)
    if view.nbytes < _HEADER_SIZE:
        raise TruncatedError(f"{view.nbytes} bytes are less than a part's header", where=where)
    _, version, flags, reserved, transfer, index, count, total, offset, length = _HEADER.unpack_from(view)
    if version != PART_VERSION:
        raise UnsupportedError(f"part version {version}, this reader knows {PART_VERSION}", where=where)
    if flags or reserved:
        raise UnsupportedError(f"flags are {flags:#x}, reserved bytes {reserved:#x}", where=where)
    payload = view[_HEADER_SIZE:]
    if length > payload.nbytes:
        raise TruncatedError(f"{payload.nbytes} of {length} bytes", where=f"part {index}", hint="Ask for it again.")
    if length < payload.nbytes:
        raise DecodeError(f"{payload.nbytes - length} bytes trail behind it", where=f"part {index}")
    # The part size is not sent: it would be one more number that could contradict the others.
    plan = PartPlan(transfer, total, offset // index if index else length)
    # With ``index < count`` nothing below can be negative; Python's integers do not wrap.
    if index >= count or count != plan.count or offset != plan.offset(index) or length != plan.length(index):
        raise DecodeError(
            f"part {index} of {count} with {length} bytes at {offset} does not fit a frame of {total}", where=where
        )
    return plan, index, payload


class Parts:
    """A frame, cut: iterate to send it, index to send a part again. Each part is made, and hashed, when asked for.

    Args:
        frame: The frame, which is referred to, not copied.
        max_bytes: Size of a part on the wire, header included.

    Raises:
        ConfigError: ``max_bytes`` leaves no room for a payload.
        EncodeError: The frame's segments have no digests, so parts of two frames could be mixed unseen.
    """

    __slots__ = ("_buffers", "_starts", "plan")

    def __init__(self, frame: Frame, max_bytes: int) -> None:
        room = max_bytes - _HEADER_SIZE
        if room < 1:
            raise ConfigError(f"parts of {max_bytes} bytes: a header alone has {_HEADER_SIZE}")
        if frame.checksum == "none" and len(frame):
            raise EncodeError("a frame with the checksum 'none' cannot be sent in parts", hint="Use another checksum.")
        grain = next(grain for grain in _GRAINS if grain <= room)
        self._buffers = [buffer for buffer in frame.buffers() if buffer.nbytes]
        self._starts = list(accumulate((buffer.nbytes for buffer in self._buffers), initial=0))
        total = self._starts[-1]
        self.plan = PartPlan(frame.digest, total, min(room - room % grain, total))

    def __len__(self) -> int:
        return self.plan.count

    def __iter__(self) -> Iterator[Part]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, index: int) -> Part:
        if not 0 <= index < len(self):
            raise IndexError(index)
        start = self.plan.offset(index)
        end = start + self.plan.length(index)
        payload = []
        number = bisect_right(self._starts, start) - 1
        while start < end:
            first = self._starts[number]
            piece = self._buffers[number][start - first : end - first]
            payload.append(piece)
            start += piece.nbytes
            number += 1
        return Part(self.plan, index, tuple(payload))
