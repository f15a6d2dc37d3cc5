"""The format ``numpy``: files that NumPy itself reads, and headers that it never gets to evaluate."""

from __future__ import annotations

import io
import tracemalloc

import ml_dtypes
import numpy as np
import pytest

from fedpost.errors import DecodeError, EncodeError, LimitError
from fedpost.frame import DEFAULT_LIMITS, Frame, Limits
from fedpost.tensors import FORMATS, Npy


def decoded(sections, segments, limits=DEFAULT_LIMITS):
    return Npy().decode(Frame.decode(bytes(Frame.build(sections, segments))), limits)


def sent(tensors):
    encoded = Npy().encode(tensors)
    return decoded(encoded.sections, encoded.segments)


def test_it_is_registered():
    assert isinstance(FORMATS.get("numpy"), Npy)


def test_each_segment_is_a_file_that_numpy_reads():
    tensors = {
        "a": np.arange(6.0).reshape(2, 3),
        "b": np.asfortranarray(np.eye(3)),
        "c": np.array("é"),
        "d": np.zeros(0),
    }
    encoded = Npy().encode(tensors)
    assert encoded.sections["tensors_npy"].names == list(tensors)
    assert encoded.sections["tensors_npy"].dtypes == ["float64", "float64", "str[1]", "float64"]
    for array, segment in zip(tensors.values(), encoded.segments, strict=True):
        read = np.load(io.BytesIO(segment), allow_pickle=False)
        np.testing.assert_array_equal(read, array)
        assert read.dtype == array.dtype


def test_order_in_memory_is_kept():
    arrays = sent({"f": np.asfortranarray(np.eye(5)), "c": np.eye(5)}).arrays()
    assert arrays["f"].flags.f_contiguous
    assert arrays["c"].flags.c_contiguous


def test_types_without_a_name_in_npy_travel_as_bytes():
    array = np.array([1.5, -2], ml_dtypes.bfloat16)
    encoded = Npy().encode({"a": array})
    assert np.load(io.BytesIO(encoded.segments[0])).dtype == np.dtype("V2")
    got = sent({"a": array}).arrays()["a"]
    assert got.dtype == array.dtype
    assert got.tobytes() == array.tobytes()


def test_ranges_are_of_the_flat_tensor_in_c_order():
    source = sent({"f": np.asfortranarray(np.arange(12.0).reshape(3, 4))})
    assert source.read("f", 2, 6).tolist() == [2, 3, 4, 5]


def test_decoding_copies_no_more_than_headers():
    data = bytes(Frame.build(*_parts({"a": np.zeros(2_000_000), "b": np.zeros((1000, 1000))})))
    frame = Frame.decode(data)
    Npy().decode(frame, DEFAULT_LIMITS)  # what is imported and compiled at first use does not count
    tracemalloc.start()
    arrays = Npy().decode(frame, DEFAULT_LIMITS).arrays()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200_000
    for array in arrays.values():
        assert np.shares_memory(array, np.frombuffer(data, np.uint8))
        assert not array.flags.writeable


def _parts(tensors):
    encoded = Npy().encode(tensors)
    return encoded.sections, encoded.segments


def test_objects_are_refused_by_name():
    with pytest.raises(EncodeError, match="tensor 'a': element type object cannot be put in a frame"):
        Npy().encode({"a": np.array([{}])})


def test_a_header_that_lies():
    encoded = Npy().encode({"a": np.zeros(4, np.float32)})
    good = bytes(encoded.segments[0])
    table = encoded.sections
    for old, new, message in (
        (b"(4,)", b"(5,)", "does not fit 16 bytes"),
        (b"<f4", b"<f8", "the .npy header says"),
        (b"<f4", b"<i4", "the .npy header says"),
        (b"False", b"None ", ".npy header"),
        (b"NUMPY", b"NUMPI", ".npy header"),
    ):
        with pytest.raises(DecodeError, match=message) as caught:
            decoded(table, [memoryview(good.replace(old, new))])
        assert caught.value.where == "tensor 'a'"


def test_too_many_tensors():
    sections, segments = _parts({"a": np.zeros(1), "b": np.zeros(1)})
    decoded(sections, segments, Limits(max_tensors=2))
    with pytest.raises(LimitError, match="2 tensors, 1 allowed"):
        decoded(sections, segments, Limits(max_tensors=1))


def test_stored_sizes_are_those_of_the_segments():
    sections, segments = _parts({"a": np.zeros(100), "b": np.zeros(5)})
    frame = Frame.build(sections, segments)
    source = Npy().decode(frame, DEFAULT_LIMITS)
    assert Npy().stored_sizes(frame, source) == {"a": segments[0].nbytes, "b": segments[1].nbytes}
