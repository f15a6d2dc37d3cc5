"""Limits: what a receiver does not want is refused at the last value that is allowed plus one."""

from __future__ import annotations

import dataclasses
import os

import msgspec
import pytest

from fedpost.compression import Compression
from fedpost.errors import DecodeError, LimitError, UnsupportedError
from fedpost.frame import DEFAULT_LIMITS, Frame, Limits
from fedpost.frame.header import COUNTED_FROM, Header, SegmentTable, array_length, header_length, pack_header

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
        "max_segments": 131_072,
        "max_tensors": 131_072,
        "max_items": 32 << 20,
        "max_integer": 1 << 20,
        "max_chunk": 16 << 20,
        "max_ratio": 100_000,
        "max_swell": 256,
        "free_raw": 128 << 20,
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


SWOLLEN = 2 * MIB + 5 - 7 * sum(map(PACKED.stored_size, range(2)))


def test_a_frame_may_swell_by_so_much_beyond_what_is_free():
    Frame.decode(bytes(PACKED), limits=Limits(max_swell=7, free_raw=SWOLLEN))
    for limits in (Limits(max_swell=7, free_raw=SWOLLEN - 1), Limits(max_swell=6, free_raw=SWOLLEN)):
        with pytest.raises(LimitError, match="2097157 bytes out of") as caught:
            Frame.decode(bytes(PACKED), limits=limits)
        assert caught.value.where == "segment table"
        assert "free_raw" in caught.value.hint


def test_what_is_stored_as_it_is_counts_for_what_swells():
    frame = frame_of(os.urandom(MIB), bytes(MIB), compression="zstd")
    Frame.decode(bytes(frame), limits=Limits(max_swell=2, free_raw=0))
    with pytest.raises(LimitError):
        Frame.decode(bytes(frame_of(bytes(MIB), compression="zstd")), limits=Limits(max_swell=2, free_raw=0))


@pytest.mark.parametrize(
    ("packed", "length"),
    [
        (b"\x90", 0),
        (b"\x9f" + b"\0" * 15, 15),
        (b"\xdc\x01\x02" + b"\0" * 258, 258),
        (b"\xdd\x00\x01\x00\x00" + b"\0" * 65_536, 65_536),
        (b"\xdd\xff\xff\xff\xff", 2**32 - 1),
        (b"\x80", 0),
        (b"\xa1x", 0),
        (b"\xc4\x00", 0),
        (b"\xdf\x00\x00\x00\x00", 0),
        (b"\x05", 0),
    ],
)
def test_the_length_of_an_array_stands_in_its_head(packed, length):
    assert array_length(msgspec.Raw(packed)) == length


def test_large_tables_are_read_as_small_ones_are():
    """More segments than are counted beforehand, compressed and not, by the wire's longest integers."""
    segments = [memoryview(bytes(100 + number % 50)) for number in range(9000)]
    for compression in (None, Compression("zstd", 1)):
        data = bytes(Frame.build({"x": "y"}, segments, compression=compression))
        assert len(data) > COUNTED_FROM
        frame = Frame.decode(data)
        assert [frame.raw_size(index) for index in range(9000)] == [segment.nbytes for segment in segments]
        assert bytes(frame.segment(8999)) == segments[8999]


def test_how_long_a_header_is():
    head = bytes(frame_of(b"abc", x=1))
    length = len(frame_of(b"abc", x=1)._head)
    assert [header_length(head[:size], Limits()) for size in (0, 7, 39)] == [None] * 3
    assert [header_length(head[:size], Limits()) for size in (40, 100)] == [length] * 2
    with pytest.raises(LimitError):
        header_length(head, Limits(max_header=length - 41))
    for wrong in (b"\x89PNG", b"x", b"\x89FPF\r\n\x1a\r"):
        with pytest.raises(DecodeError):
            header_length(wrong, Limits())


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
