"""LX: exact for every bit pattern, small where exponents are few, honest about its layout."""

from __future__ import annotations

import struct

import ml_dtypes
import numpy as np
import pytest

from fedpost.compression import Compression
from fedpost.errors import DecodeError
from fedpost.frame import Frame
from fedpost.pipeline import Pipeline, decode_tensors
from fedpost.tensors.dtypes import dtype_from_name
from fedpost.tensors.lx import Lx, compression_for

WEIGHTS = np.random.default_rng(0).normal(scale=0.02, size=1 << 18)


LEAST = {"float32": 1.17, "float16": 1.1, "bfloat16": 1.4, "float64": 1.05}


@pytest.mark.parametrize(("dtype", "ratio"), LEAST.items())
def test_weights_shrink_and_come_back(dtype, ratio):
    data = WEIGHTS.astype(dtype_from_name(dtype)).view(np.uint8).data
    bits = 8 * data.nbytes // WEIGHTS.size
    packed = Lx().compress(data, bits)
    assert data.nbytes / len(packed) > ratio
    assert Lx().decompress(memoryview(packed), data.nbytes) == data


@pytest.mark.parametrize("bits", [8, 16, 32, 64])
@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 1000, 131_073, 300_001])
def test_every_bit_pattern_and_length_comes_back(bits, size):
    data = memoryview(np.random.default_rng(size).bytes(size))
    assert Lx().decompress(memoryview(Lx().compress(data, bits)), size) == data


def test_layout():
    """0x8001 and 0x4002 in 16 bits, rotated 0x0003 and 0x8004: planes 03 04 and 00 80; one byte is left over."""
    packed = Lx().compress(memoryview(bytes.fromhex("01800240ff")), 16)
    assert packed == bytes([16]) + struct.pack("<2I", 2, 2) + bytes.fromhex("0304 0080 ff")


@pytest.mark.parametrize(
    "chunk",
    [
        b"",
        b"\x07",
        b"\x20",
        bytes([16]) + struct.pack("<2I", 2, 2) + bytes(3),
        bytes([16]) + struct.pack("<2I", 2, 2) + bytes(5),
        bytes([16]) + struct.pack("<2I", 0xFFFFFFFF, 0xFFFFFFFF) + bytes(4),
        bytes([16]) + struct.pack("<2I", 3, 2) + bytes(5),
    ],
    ids=["empty", "unknown words", "no table", "too short", "too long", "huge planes", "a plane that is no zstd"],
)
def test_lying_chunks_are_refused(chunk):
    with pytest.raises(DecodeError):
        Lx().decompress(memoryview(chunk), 4)


def test_what_is_not_made_of_floats_goes_to_zstd():
    lx = Compression.parse("lx")
    assert str(compression_for(lx, np.dtype(np.int64))) == "zstd(1)"
    assert str(compression_for(lx, None)) == "zstd(1)"
    assert str(compression_for(lx, np.dtype(">f4"))) == "zstd(1)"
    assert str(compression_for(lx, np.dtype(np.complex128))) == "lx(64)"
    assert str(compression_for(lx, np.dtype(ml_dtypes.float8_e5m2))) == "lx(8)"
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
