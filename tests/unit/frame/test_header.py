"""Limits: what a receiver does not want is refused at the last value that is allowed plus one."""

from __future__ import annotations

import dataclasses

import pytest

from fedpost.compression import Compression
from fedpost.errors import LimitError, UnsupportedError
from fedpost.frame import DEFAULT_LIMITS, Frame, Limits
from fedpost.frame.header import Header, SegmentTable, pack_header

MIB = 1 << 20


def frame_of(*segments, compression=None, **sections):
    packing = Compression.parse(compression) if compression else None
    return Frame.build(sections, list(map(memoryview, segments)), compression=packing)


def test_defaults():
    assert Limits() == DEFAULT_LIMITS
    assert dataclasses.asdict(DEFAULT_LIMITS) == {
        "max_frame": 16 << 30,
        "max_header": 16 << 20,
        "max_section": 1 << 20,
        "max_raw": 16 << 30,
        "max_segments": 262_144,
        "max_tensors": 262_144,
        "max_items": 8 << 20,
        "max_integer": 4096,
        "max_chunk": 16 << 20,
        "max_ratio": 100_000,
    }


FULL = frame_of(b"a" * 100, b"b" * 300, x=[1, 2, 3])
PACKED = frame_of(bytes(MIB), bytes(MIB + 5), compression="zstd")

CASES = {
    "max_frame": (FULL, FULL.nbytes, f"a frame of {FULL.nbytes} bytes", None),
    "max_header": (FULL, len(FULL._head) - 40, "a header of", "prologue"),
    "max_segments": (FULL, 2, "2 segments, 1 allowed", "segment table"),
    "max_raw": (FULL, 400, "400 bytes when decompressed, 399 allowed", "segment table"),
    "max_chunk": (PACKED, MIB, "chunks of 1048576 bytes", "segment table"),
    "max_ratio": (
        PACKED,
        -(-MIB // PACKED.stored_size(0)),
        f"1048576 bytes out of {PACKED.stored_size(0)}",
        "segment 0",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_limit_is_the_last_value_that_is_allowed(name):
    frame, value, message, where = CASES[name]
    Frame.decode(bytes(frame), limits=Limits(**{name: value}))
    with pytest.raises(LimitError, match=message) as caught:
        Frame.decode(bytes(frame), limits=Limits(**{name: value - 1}))
    assert caught.value.where == where


def test_raw_bytes_count_decompressed():
    total = 2 * MIB + 5
    Frame.decode(bytes(PACKED), limits=Limits(max_raw=total))
    with pytest.raises(LimitError):
        Frame.decode(bytes(PACKED), limits=Limits(max_raw=total - 1))


def test_features_are_named():
    head = pack_header(Header("blake3", ["holographic"], SegmentTable([], b""), []))
    with pytest.raises(UnsupportedError) as caught:
        Frame.decode(head)
    assert caught.value.where == "header"
    assert "holographic" in caught.value.what
    assert caught.value.hint == "Use a newer fedpost."


def test_a_head_of_nothing_has_the_bytes_of_the_specification():
    head = pack_header(Header("none", [], SegmentTable([], b""), []))
    assert head[:24].hex(" ") == "89 46 50 46 0d 0a 1a 0a 01 00 00 00 00 00 00 00 10 00 00 00 00 00 00 00"
    assert head[40:].hex(" ") == "94 a4 6e 6f 6e 65 90 96 90 c4 00 90 90 00 90 90"
