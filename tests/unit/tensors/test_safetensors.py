"""The format ``safetensors``: by hand, and both ways with the library itself."""

from __future__ import annotations

import json
import struct

import ml_dtypes
import numpy as np
import pytest

from fedpost.errors import DecodeError, EncodeError, LimitError, UnsupportedError
from fedpost.frame import DEFAULT_LIMITS, Frame, Limits
from fedpost.tensors import FORMATS, Safetensors
from fedpost.tensors.safetensors import from_bytes, to_bytes
from fedpost.testing.samples import assert_same_tensors, random_array

HEADER = b'{"b":{"dtype":"U8","shape":[1],"data_offsets":[4,5]},"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}'
BY_HAND = struct.pack("<Q", 112) + HEADER + b" " * 7 + b"\0\0\x80\x3f" + b"\x07"
TENSORS = {
    "w": random_array(np.dtype("f4"), (70, 60)),
    "tiny": np.array([True]),
    "half": random_array(np.dtype("f2"), (3, 5)),
    "scalar": np.array(1.5),
    "none": np.ones((0, 4), np.int64),
    "brain": random_array(np.dtype(ml_dtypes.bfloat16), (7,)),
    "f8": random_array(np.dtype(ml_dtypes.float8_e4m3fn), (9,)),
    "f8b": random_array(np.dtype(ml_dtypes.float8_e5m2), (2, 2)),
}


def written(tensors, metadata=None):
    return b"".join(to_bytes(tensors, metadata))


def test_it_is_registered():
    assert isinstance(FORMATS.get("safetensors"), Safetensors)


def test_bytes_written_by_hand():
    assert len(HEADER) + 7 == 112
    tensors = {"b": np.array([7], np.uint8), "a": np.array(1, np.float32)}
    assert written(tensors) == BY_HAND
    assert_same_tensors(from_bytes(BY_HAND)[0], tensors)


def test_the_library_reads_what_we_write():
    library = pytest.importorskip("safetensors")
    found = dict(library.deserialize(written(TENSORS, {"round": "3"})))
    assert found.keys() == TENSORS.keys()
    for name, array in TENSORS.items():
        assert tuple(found[name]["shape"]) == array.shape
        assert bytes(found[name]["data"]) == array.tobytes()
    assert {name: info["dtype"] for name, info in found.items()} == {
        "w": "F32", "tiny": "BOOL", "half": "F16", "scalar": "F64", "none": "I64", "brain": "BF16", "f8": "F8_E4M3",
        "f8b": "F8_E5M2",
    }  # fmt: skip


def test_we_read_what_the_library_writes():
    numpy = pytest.importorskip("safetensors.numpy")
    plain = {name: array for name, array in TENSORS.items() if array.dtype.kind != "V" and array.dtype.isbuiltin == 1}
    arrays, metadata = from_bytes(numpy.save(plain, {"round": "3", "é": ""}))
    assert arrays.keys() == plain.keys()
    assert_same_tensors({name: arrays[name] for name in plain}, plain)
    assert metadata == {"round": "3", "é": ""}
    theirs = numpy.load(written(plain))
    assert_same_tensors({name: theirs[name] for name in plain}, plain)


def test_torch_types_go_both_ways():
    torch = pytest.importorskip("torch")
    library = pytest.importorskip("safetensors.torch")
    kinds = {
        "bfloat16": ml_dtypes.bfloat16,
        "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
        "float8_e5m2": ml_dtypes.float8_e5m2,
        "complex64": np.complex64,
    }
    bits = np.arange(64, dtype=np.uint8)
    theirs = {name: torch.from_numpy(bits.copy()).view(getattr(torch, name)) for name in kinds}
    ours = {name: bits.view(kind) for name, kind in kinds.items()}
    arrays, _ = from_bytes(library.save(theirs))
    assert_same_tensors({name: arrays[name] for name in ours}, ours)
    read = library.load(written(ours))
    for name, tensor in theirs.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name].view(torch.uint8), tensor.view(torch.uint8))


def test_every_tensor_is_aligned():
    data = written(TENSORS)
    (length,) = struct.unpack_from("<Q", data)
    assert not (8 + length) % 8
    for name, info in json.loads(data[8 : 8 + length]).items():
        assert not info["data_offsets"][0] % TENSORS[name].itemsize


@pytest.mark.parametrize("dtype", [">f4", "U3", "M8[s]", "c16", "V4", ml_dtypes.int4, ml_dtypes.float4_e2m1fn])
def test_types_without_a_name_are_refused(dtype):
    with pytest.raises(EncodeError, match=r"tensor 'culprit'.*no name for element type"):
        to_bytes({"culprit": np.zeros(3, dtype)})


def test_what_is_no_text_is_refused():
    for metadata in ({"a": 1}, {1: "a"}, {"a": "\ud800"}):
        with pytest.raises(EncodeError):
            to_bytes({}, metadata)
    for name in ("__metadata__", "\ud800"):
        with pytest.raises(EncodeError):
            to_bytes({name: np.ones(3)})


def test_large_arrays_are_not_copied():
    array = np.ones((100, 100))
    assert any(np.may_share_memory(array, np.frombuffer(piece, np.uint8)) for piece in to_bytes({"w": array}))
    data = np.frombuffer(written({"w": array}), np.uint8)
    assert np.may_share_memory(from_bytes(data.data)[0]["w"], data)


def test_the_segments_of_a_frame_are_the_file():
    segments = Safetensors().encode(TENSORS).segments
    assert_same_tensors(from_bytes(b"".join(segments))[0], TENSORS)
    frame = Frame.build({"tensors_safetensors": len(TENSORS)}, [memoryview(written(TENSORS))])
    assert_same_tensors(Safetensors().decode(frame, DEFAULT_LIMITS).arrays(), TENSORS)


def test_a_model_of_nothing():
    assert from_bytes(written({}, {"a": "b"})) == ({}, {"a": "b"})


def test_budgets():
    for limits in (Limits(max_tensors=7), Limits(max_header=100), Limits(max_frame=100)):
        with pytest.raises(LimitError):
            from_bytes(written(TENSORS), limits=limits)


def test_packed_types_are_refused_by_name():
    with pytest.raises(UnsupportedError, match="'F4'"):
        from_bytes(BY_HAND.replace(b'"U8"', b'"F4"'))


def test_a_section_that_counts_wrong_is_refused():
    with pytest.raises(DecodeError, match="promised"):
        Safetensors().decode(Frame.build({"tensors_safetensors": 1}, [memoryview(BY_HAND)]), DEFAULT_LIMITS)
    with pytest.raises(TypeError):
        Safetensors().stored_sizes(None, None)
