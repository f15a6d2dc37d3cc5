"""A second reader of parts, written from ``docs/spec/parts.md`` alone: no line of it is shared with fedpost."""

from __future__ import annotations

import struct

import blake3


def join(parts: list[bytes]) -> bytes:
    """The frame of all parts, which may come in any order."""
    plans, pieces = set(), {}
    for part in parts:
        index, plan, payload = read_part(part)
        plans.add(plan)
        pieces[index] = payload
    require(len(plans) == 1, "one plan")
    transfer, total, size = plans.pop()
    require(sorted(pieces) == list(range(-(-total // size))), "every part")
    frame = b"".join(pieces[index] for index in sorted(pieces))
    require(len(frame) == total and frame[24:40] == transfer, "the frame that it names")
    return frame


def read_part(data: bytes) -> tuple[int, tuple[bytes, int, int], bytes]:
    """Index, plan (transfer, total, part size) and payload of one part."""
    magic, version, flags, reserved, transfer, *numbers, digest = struct.unpack_from("<8sHHI16s5Q16s", data)
    index, count, total, offset, length = numbers
    require(magic == b"\x89FPP\r\n\x1a\n" and version == 1 and flags == reserved == 0, "the head of a part")
    payload = data[88:]
    require(len(payload) == length, "its length")
    size = offset // index if index else length
    require(1 <= size <= total and index < count == -(-total // size), "a plan")
    require(offset == index * size and length == min(size, total - offset), "its place")
    require(index > 0 or length < 40 or (payload[:8] == b"\x89FPF\r\n\x1a\n" and payload[24:40] == transfer), "a frame")
    require(blake3.blake3(payload + data[:72]).digest(length=16) == digest, "its digest")
    return index, (transfer, total, size), payload


def require(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"the part does not have {what}")
