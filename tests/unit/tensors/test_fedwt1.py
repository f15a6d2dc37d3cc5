"""The layout FEDWT001: by hand, as its first description writes it, and its header alone."""

from __future__ import annotations

import io
import json
import struct

import ml_dtypes
import numpy as np
import pytest

from fedpost.errors import DecodeError, EncodeError, LimitError, TruncatedError, UnsupportedError
from fedpost.frame import DEFAULT_LIMITS, Frame, Limits
from fedpost.tensors import FORMATS, Fedwt1, placed
from fedpost.tensors.fedwt1 import from_bytes, inspect_header, to_bytes
from fedpost.testing.samples import assert_same_tensors

BY_HAND = bytes.fromhex(
    "46454457 54303031 02000000 02000000 7b7d"  # FEDWT001, two arrays, {}
    "02 01000000 02000000 07 666c6f61743332 0200000000000000"  # float32 (1, 2): 2 elements
    "00 05 75696e7438 0100000000000000"  # uint8 (): 1 element
    "00000000 00 0800000000000000 0000803f 000020c0"
    "01000000 00 0100000000000000 07"
)


def written(tensors, metadata=None):
    return b"".join(to_bytes(tensors, metadata))


def as_first_described(weights, metadata=None):
    """The bytes that the format's first description gives, on a little-endian machine."""
    buffer = io.BytesIO()
    buffer.write(b"FEDWT001")
    buffer.write(np.array([len(weights)], dtype=np.uint32).tobytes())
    metadata_bytes = json.dumps(metadata or {}).encode("utf-8")
    buffer.write(np.array([len(metadata_bytes)], dtype=np.uint32).tobytes())
    buffer.write(metadata_bytes)
    for weight in weights:
        buffer.write(np.array([len(weight.shape)], dtype=np.uint8).tobytes())
        buffer.write(np.array(weight.shape, dtype=np.uint32).tobytes())
        dtype_str = str(weight.dtype)
        buffer.write(np.array([len(dtype_str)], dtype=np.uint8).tobytes())
        buffer.write(dtype_str.encode("utf-8"))
        buffer.write(np.array([weight.size], dtype=np.uint64).tobytes())
    for index, weight in enumerate(weights):
        buffer.write(np.array([index], dtype=np.uint32).tobytes())
        buffer.write(np.array([0], dtype=np.uint8).tobytes())
        array_bytes = weight.tobytes()
        buffer.write(np.array([len(array_bytes)], dtype=np.uint64).tobytes())
        buffer.write(array_bytes)
    return buffer.getvalue()


def test_it_is_registered():
    assert isinstance(FORMATS.get("fedwt1"), Fedwt1)


def test_bytes_written_by_hand():
    tensors = {"0": np.array([[1, -2.5]], "<f4"), "1": np.array(7, "u1")}
    assert written(tensors) == BY_HAND
    arrays, metadata = from_bytes(BY_HAND)
    assert_same_tensors(arrays, tensors)
    assert metadata == {}


def test_the_ten_types_are_written_as_first_described():
    kinds = ("float32", "float16", "float64", "int32", "int16", "int8", "uint32", "uint16", "uint8", "bool")
    weights = [np.ones((3, index), kind) for index, kind in enumerate(kinds)] + [np.ones((60, 70))]
    metadata = {"layers": ["a", "é"], "accuracy": 0.5, "none": None}
    tensors = {str(index): weight for index, weight in enumerate(weights)}
    assert written(tensors, metadata) == as_first_described(weights, metadata)
    arrays, found = from_bytes(as_first_described(weights, metadata))
    assert_same_tensors(arrays, tensors)
    assert found == metadata


@pytest.mark.parametrize("dtype", ["int64", "uint64", "complex64", ">f4", ">i2"])
def test_other_plain_types_of_another_writer_are_read(dtype):
    weights = [np.arange(5).astype(dtype)]
    assert_same_tensors(from_bytes(as_first_described(weights))[0], {"0": weights[0]})


def test_names_and_other_types_stand_under_the_reserved_key():
    tensors = {"w": np.ones(2, "f4"), "b": np.ones(3, ml_dtypes.bfloat16), "s": np.array([(1,)], [("x", "i4")])}
    data = written(tensors, {"round": 3})
    (length,) = struct.unpack_from("<I", data, 12)
    assert json.loads(data[16 : 16 + length]) == {
        "round": 3,
        "fedpost": {"names": ["w", "b", "s"], "dtypes": {"1": "bfloat16", "2": 'struct[4,[["x","int32",0,[]]]]'}},
    }
    assert b"\x08bfloat16" in data
    assert b"\x03|V4" in data
    arrays, metadata = from_bytes(data)
    assert_same_tensors(arrays, tensors)
    assert metadata == {"round": 3}


def test_sparse_arrays_are_small_and_exact():
    array = np.zeros((100, 100), np.float32)
    array[3, 4], array[50, 60] = -0.0, np.nan
    data = written({"w": array, "dense": np.ones(3)})
    assert len(data) < 300
    assert_same_tensors(from_bytes(data)[0], {"w": array, "dense": np.ones(3)})


def test_a_sparse_array_that_is_read_by_range_is_taken_apart_once(monkeypatch):
    array = np.zeros(10_000, np.float32)
    array[::7] = 1
    encoded = Fedwt1().encode({"w": array, "v": array})
    tensors = Fedwt1().decode(Frame.build(encoded.sections, encoded.segments), DEFAULT_LIMITS)
    taken = []

    class Counted(placed.SparseElements):
        def __init__(self, *arguments):
            taken.append(arguments)
            super().__init__(*arguments)

    monkeypatch.setattr(placed, "SparseElements", Counted)
    for name in ("w", "v"):
        parts = [tensors.read(name, start, min(start + 999, 10_000)) for start in range(0, 10_000, 999)]
        np.testing.assert_array_equal(np.concatenate(parts), array)
    np.testing.assert_array_equal(tensors.read("w", 10, 20), array[10:20])
    assert len(taken) == 3


def test_large_arrays_are_not_copied():
    array = np.ones((100, 100))
    assert any(np.may_share_memory(array, np.frombuffer(piece, np.uint8)) for piece in to_bytes({"w": array}))
    data = np.frombuffer(written({"w": array}), np.uint8)
    assert np.may_share_memory(from_bytes(data.data)[0]["w"], data)


def test_the_segments_of_a_frame_are_the_file():
    tensors = {"w": np.ones((100, 100)), "v": np.arange(5), "x": np.ones(5000, np.int8), "z": np.zeros(9999)}
    encoded = Fedwt1().encode(tensors)
    assert len(encoded.segments) > 2
    assert_same_tensors(from_bytes(b"".join(encoded.segments))[0], tensors)


def test_a_frame_of_one_segment_is_read_as_well():
    tensors = {"w": np.ones((100, 100)), "v": np.arange(5)}
    frame = Frame.build({"tensors_fedwt1": 2}, [memoryview(written(tensors))])
    assert_same_tensors(Fedwt1().decode(frame, DEFAULT_LIMITS).arrays(), tensors)


def test_the_header_alone_is_enough_to_inspect():
    data = written({"w": np.ones((100, 100)), "v": np.arange(5)}, {"round": 3})
    header = inspect_header(data)
    assert [str(spec) for spec in header.specs] == ["w: float64[100, 100]", "v: int64[5]"]
    assert header.metadata == {"round": 3}
    assert inspect_header(data[: header.nbytes]) == header
    for length in range(header.nbytes):
        with pytest.raises(TruncatedError):
            inspect_header(data[:length])


def test_dimensions_have_32_bits():
    with pytest.raises(EncodeError, match="32 bits"):
        to_bytes({"w": np.empty((0, 2**32), np.float32)})
    assert from_bytes(written({"w": np.empty((0, 2**32 - 1), np.int8)}))[0]["w"].shape == (0, 2**32 - 1)


@pytest.mark.parametrize(
    "metadata", [{"fedpost": 1}, {"x": float("nan")}, {"x": object()}, {1: 2, "1": 3}, {"x": "\ud800"}, {(1,): 2}]
)
def test_metadata_that_is_no_json_is_refused(metadata):
    with pytest.raises(EncodeError):
        to_bytes({"w": np.ones(2)}, metadata)


def test_names_without_utf8_are_refused():
    with pytest.raises(EncodeError, match="UTF-8"):
        to_bytes({"\ud800": np.ones(2)})


def test_a_pickle_is_refused_by_name():
    data = bytearray(BY_HAND)
    at = data.index(bytes.fromhex("00000000 00 08"))
    data[at + 4] = 1
    with pytest.raises(UnsupportedError, match="pickle"):
        from_bytes(data)
    data[at + 4] = 3
    with pytest.raises(UnsupportedError, match="flag 3"):
        from_bytes(data)


def test_budgets():
    data = written({"w": np.zeros(10**6), "v": np.ones(3)})
    for limits in (Limits(max_tensors=1), Limits(max_raw=10**6), Limits(max_ratio=1000), Limits(max_frame=10)):
        with pytest.raises(LimitError):
            from_bytes(data, limits=limits)
    with pytest.raises(LimitError):
        from_bytes(written({"w": np.ones(3)}, {"x": "y" * 100}), limits=Limits(max_header=100))


def test_a_section_that_counts_wrong_is_refused():
    with pytest.raises(DecodeError, match="promised"):
        Fedwt1().decode(Frame.build({"tensors_fedwt1": 1}, [memoryview(BY_HAND)]), DEFAULT_LIMITS)
    with pytest.raises(TypeError):
        Fedwt1().stored_sizes(None, None)
