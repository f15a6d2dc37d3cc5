"""LX: exact for every bit pattern, small where exponents are few, honest about its layout."""

from __future__ import annotations

import struct

import ml_dtypes
import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from fedpost.compression import Compression
from fedpost.errors import DecodeError
from fedpost.frame import Frame
from fedpost.pipeline import Pipeline, decode_tensors
from fedpost.tensors.dtypes import dtype_from_name
from fedpost.tensors.lx import Lx, compression_for

WEIGHTS = np.random.default_rng(0).normal(scale=0.02, size=1 << 18)
NUMBERS = ["f1", "f2", "f4", "f8"]


def pack(data, number):
    return Lx().compress(memoryview(data), 1, number)


def plain(packed, size):
    out = bytearray(size)
    Lx().decompress_into(memoryview(packed), memoryview(out))
    return bytes(out)


@pytest.mark.parametrize(
    ("dtype", "ratio"), {"float32": 1.17, "float16": 1.1, "bfloat16": 1.4, "float64": 1.05}.items()
)
def test_weights_shrink_and_come_back(dtype, ratio):
    array = WEIGHTS.astype(dtype_from_name(dtype))
    packed = pack(array.tobytes(), f"f{array.itemsize}")
    assert array.nbytes / len(packed) > ratio
    assert plain(packed, array.nbytes) == array.tobytes()


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 1000, 131_073, 300_001, 700_002])
def test_every_length_comes_back(number, size):
    data = np.random.default_rng(size).bytes(size)
    assert plain(pack(data, number), size) == data


def test_every_bit_pattern_of_16_bits_comes_back():
    every = np.arange(1 << 16, dtype=np.uint16)
    assert plain(pack(every.tobytes(), "f2"), every.nbytes) == every.tobytes()
    for shift in (0, 16):  # NaN payloads, -0.0 and subnormal numbers of 32 bits, in either half
        wide = every.astype(np.uint32) << np.uint32(shift)
        assert plain(pack(wide.tobytes(), "f4"), wide.nbytes) == wide.tobytes()
    for shift in (0, 16, 32, 48):
        wide = every.astype(np.uint64) << np.uint64(shift)
        assert plain(pack(wide.tobytes(), "f8"), wide.nbytes) == wide.tobytes()


@given(st.binary(max_size=300), st.sampled_from(NUMBERS), st.integers(1, 2000))
def test_any_bytes_come_back(data, number, times):
    assert plain(pack(data * times, number), len(data) * times) == data * times


def test_layout_of_16_bits():
    """0x8001 and 0x4002: planes s lllllll = 81 02 and hhhhhhhh = 00 80; one byte is left over."""
    packed = pack(bytes.fromhex("01800240ff"), "f2")
    assert packed == bytes([16]) + struct.pack("<2I", 2, 2) + bytes.fromhex("8102 0080 ff")
    assert plain(packed, 5) == bytes.fromhex("01800240ff")


def test_layout_of_32_bits():
    """-1.5 is 0xBFC00000, 2 is 0x40000000: a lane of two words as it is, then s lllllll and the exponents."""
    packed = pack(np.array([-1.5, 2], np.float32).tobytes(), "f4")
    assert packed == bytes([32]) + struct.pack("<4I", 4, 0, 2, 2) + bytes.fromhex("00000000 c000 7f80")


def test_layout_of_a_lane_in_planes():
    """A reader takes a lower lane whole and in two planes, coded or not."""
    words = np.array([0x3F800102, 0x3F800304] * 500, np.uint32)
    halves = [bytes([2, 4] * 500), bytes([1, 3] * 500), bytes([0] * 1000), bytes([0x7F] * 1000)]
    for coded in range(16):
        stored = [
            zstandard.ZstdCompressor().compress(plane) if coded >> number & 1 else plane
            for number, plane in enumerate(halves)
        ]
        packed = bytes([32]) + struct.pack("<4I", *map(len, stored)) + b"".join(stored)
        assert plain(packed, 4000) == words.tobytes()


def chunk(bits, lengths, rest):
    return bytes([bits]) + struct.pack(f"<{len(lengths)}I", *lengths) + rest


BOMB = zstandard.ZstdCompressor().compress(bytes(1 << 24))
EMPTY = zstandard.ZstdCompressor().compress(b"")


@pytest.mark.parametrize(
    ("packed", "size"),
    [
        (b"", 4),
        (b"\x07", 4),
        (b"\x20", 4),
        (chunk(16, [2, 2], bytes(3)), 4),
        (chunk(16, [2, 2], bytes(5)), 4),
        (chunk(16, [0xFFFFFFFF] * 2, bytes(4)), 4),
        (chunk(16, [3, 2], bytes(5)), 4),
        (chunk(16, [4, 0], bytes(4)), 4),
        (chunk(32, [2, 0, 1, 1], bytes(4)), 8),
        (chunk(32, [0, 4, 2, 2], bytes(8)), 8),
        (chunk(32, [4, 2, 2, 2], bytes(10)), 8),
        (chunk(32, [4, 0, 2, len(BOMB)], bytes(6) + BOMB), 8),
        (chunk(32, [len(EMPTY), 0, 0, 0], EMPTY + bytes(3)), 3),
        (chunk(8, [len(BOMB)], BOMB), 8),
    ],
    ids=[
        *("empty", "unknown words", "no table", "too short", "too long", "huge planes", "a plane that is no zstd"),
        *("a highest lane that is whole", "half a lane", "a whole lane as the second", "a lane and a half"),
        *("a bomb", "a plane without words", "a bomb of bytes"),
    ],
)
def test_lying_chunks_are_refused(packed, size):
    with pytest.raises(DecodeError, match="lx chunk"):
        plain(packed, size)


def test_what_is_not_made_of_floats_goes_to_zstd():
    lx = Compression.parse("lx")
    assert str(compression_for(lx, np.dtype(np.int64))) == "zstd(1)"
    assert str(compression_for(lx, None)) == "zstd(1)"
    assert str(compression_for(lx, np.dtype(">i4"))) == "zstd(1)"
    assert str(compression_for(lx, np.dtype([("a", ">f4")]))) == "zstd(1)"
    assert compression_for(lx, np.dtype(">f4")).number == ">f4"
    assert compression_for(lx, np.dtype(">c16")).number == ">f8"
    assert compression_for(lx, np.dtype(ml_dtypes.bfloat16)).number == "f2"
    assert compression_for(lx, np.dtype(np.complex128)).number == "f8"
    assert compression_for(lx, np.dtype(ml_dtypes.float8_e5m2)).number == "f1"
    assert compression_for(Compression.parse("lz4"), np.dtype(np.float32)) == Compression.parse("lz4")


def test_in_a_frame_each_segment_has_its_own_way():
    tensors = {
        "w": WEIGHTS.astype(np.float32),
        "h": WEIGHTS.astype(ml_dtypes.bfloat16),
        "steps": np.arange(100_000),
        "noise": np.random.default_rng(1).integers(0, 256, 100_000, np.uint8),
    }
    frame = Frame.decode(bytes(Pipeline.parse("dense | fedwt | lx").encode(tensors)))
    assert [frame.coding(index) for index in range(len(frame))] == ["lx", "lx", "zstd", "none"]
    decoded = decode_tensors(frame).arrays()
    assert all(decoded[name].tobytes() == array.tobytes() for name, array in tensors.items())
    part = decode_tensors(frame).read("w", 70_000, 200_000)
    assert part.tobytes() == tensors["w"][70_000:200_000].tobytes()


@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
@pytest.mark.parametrize("size", [0, 1, 1001, 100_000])
def test_big_endian_numbers_take_as_much_as_little_endian_ones(kind, size):
    numbers = WEIGHTS[np.arange(size) % WEIGHTS.size].astype(kind)
    little = Lx().compress(numbers.view(np.uint8).data, 1, kind)
    content = numbers.astype(f">{kind}").tobytes() + b"x"
    big = Lx().compress(memoryview(content), 1, f">{kind}")
    assert (big[0], big[1:-1]) == (little[0] + 1, little[1:])
    assert plain(big, len(content)) == content


def test_bytes_have_no_order():
    for bits in (9, 65 + 64):
        with pytest.raises(DecodeError, match="unknown words"):
            plain(chunk(bits, [4], bytes(4)), 4)
