"""Laws of places in memory: a frame reads the same wherever it lies, and so does a tensor inside a file."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpost.frame import Frame
from fedpost.pipeline import Pipeline, decode_tensors
from fedpost.tensors import FORMATS

pytest.importorskip("google.protobuf", reason="the extra fedpost[protobuf] is not installed")

TENSORS = {
    "x": np.array([1], np.uint8),
    "float64": np.arange(700.0),
    "complex64": np.ones((3, 5), np.complex64),
    "y" * 3: np.array([True]),
    "int16": np.arange(9, dtype=np.int16),
    "float32": np.arange(1500, dtype=np.float32).reshape(30, 50),
}
FRAMES = {
    (name, compression): bytes(Pipeline.parse(f"dense | {name} | {compression}").encode(TENSORS))
    for name in FORMATS
    for compression in ("none", "zstd", "lx")
}


@given(st.sampled_from(sorted(FRAMES)), st.integers(0, 63), st.data())
def test_a_frame_reads_the_same_at_any_address(which, offset, data):
    frame = FRAMES[which]
    buffer = np.zeros(len(frame) + 128, np.uint8)
    start = -buffer.ctypes.data % 64 + offset
    buffer[start : start + len(frame)] = np.frombuffer(frame, np.uint8)
    source = decode_tensors(Frame.decode(buffer.data[start : start + len(frame)]))
    for name, array in source.arrays().items():
        wanted = TENSORS[name]
        assert (array.dtype, array.shape, array.tobytes()) == (wanted.dtype, wanted.shape, wanted.tobytes())
        assert float(array.sum().real) == float(wanted.sum().real)  # what lies anywhere can be computed with
        first = data.draw(st.integers(0, wanted.size))
        last = data.draw(st.integers(first, wanted.size))
        np.testing.assert_array_equal(source.read(name, first, last), wanted.reshape(-1)[first:last])


def test_segments_of_an_aligned_frame_are_aligned():
    buffer = np.zeros(len(FRAMES["fedwt", "none"]) + 64, np.uint8)
    start = -buffer.ctypes.data % 64
    frame = buffer[start : start + len(FRAMES["fedwt", "none"])]
    frame[:] = np.frombuffer(FRAMES["fedwt", "none"], np.uint8)
    for array in decode_tensors(Frame.decode(frame.data)).arrays().values():
        assert array.flags.aligned
        assert array.nbytes < 4096 or array.ctypes.data % 64 == 0
