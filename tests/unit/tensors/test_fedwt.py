"""The native format: where tensors go, what is referenced, and what is read of a range."""

from __future__ import annotations

import os
import tracemalloc

import ml_dtypes
import numpy as np
import pytest

from fedpost.compression import Compression
from fedpost.errors import DecodeError, EncodeError, LimitError
from fedpost.frame import DEFAULT_LIMITS, Frame, Limits
from fedpost.pipeline import Pipeline, decode_tensors
from fedpost.tensors import FORMATS, Fedwt

MIB = 1 << 20


def frame_of(tensors, compression=None):
    encoded = Fedwt().encode(tensors)
    packing = Compression.parse(compression) if compression else None
    return Frame.build(encoded.sections, encoded.segments, compression=packing)


def sent(tensors, compression=None, **decoding):
    data = bytes(frame_of(tensors, compression))
    return data, Fedwt().decode(Frame.decode(data, **decoding), DEFAULT_LIMITS)


def table_of(tensors):
    return Fedwt().encode(tensors).sections["tensors"]


def test_it_is_registered():
    assert isinstance(FORMATS.get("fedwt"), Fedwt)
    assert Fedwt().name == "fedwt"


def test_the_table_is_by_column():
    tensors = {
        "a": np.zeros((2, 3), np.float32),
        "b": np.zeros(0, np.int64),
        "c": np.float32(1).reshape(()),
        "large": np.asfortranarray(np.zeros((64, 64))),
    }
    encoded = Fedwt().encode(tensors)
    table = encoded.sections["tensors"]
    assert table.names == ["a", "b", "c", "large"]
    assert table.ranks == b"\2\1\0\2"
    assert table.dims == [2, 3, 0, 64, 64]
    assert table.segments == [0, 1, 0, 2]
    assert table.dtypes == ["float32", "int64", "float64"]
    assert table.segment_dtypes == [0, 1, 2]
    assert table.fortran == [3]
    assert [segment.nbytes for segment in encoded.segments] == [28, 0, 64 * 64 * 8]


def test_4_kib_and_more_stand_alone():
    tensors = {"under": np.zeros(4095, np.uint8), "at": np.zeros(4096, np.uint8), "again": np.zeros(1, np.uint8)}
    assert table_of(tensors).segments == [0, 1, 0]


def test_shared_segments_are_closed_at_1_mib():
    tensors = {str(index): np.zeros(4000, np.uint8) for index in range(600)}
    encoded = Fedwt().encode(tensors)
    sizes = [segment.nbytes for segment in encoded.segments]
    assert sum(sizes) == 600 * 4000
    assert all(MIB <= size < MIB + 4096 for size in sizes[:-1])
    assert len(sizes) == 3


@pytest.mark.parametrize("order", ["C", "F"])
def test_large_tensors_are_referenced(order):
    array = np.zeros((100, 50), order=order)
    (segment,) = Fedwt().encode({"a": array}).segments
    assert np.shares_memory(np.frombuffer(segment, np.uint8), array)
    assert segment.nbytes == array.nbytes


def test_read_only_and_sub_arrays_are_referenced():
    array = np.arange(100_000.0)
    array.flags.writeable = False
    part = array[1000:50_000].reshape(100, 490)
    (segment,) = Fedwt().encode({"a": part}).segments
    assert np.shares_memory(np.frombuffer(segment, np.uint8), part)


def test_encoding_does_not_copy():
    tensors = {f"w{index}": np.zeros((1000, 1000), order="CF"[index % 2]) for index in range(4)}
    tracemalloc.start()
    frame = frame_of(tensors)
    for _ in frame.buffers():
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert frame.nbytes > 32_000_000
    assert peak < 100_000


def test_decoding_does_not_copy():
    data = bytes(
        frame_of({"a": np.zeros((1000, 1000)), "b": np.asfortranarray(np.zeros((1000, 1000))), "c": np.zeros(9)})
    )
    tracemalloc.start()
    arrays = Fedwt().decode(Frame.decode(data), DEFAULT_LIMITS).arrays()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000
    for array in arrays.values():
        assert np.shares_memory(array, np.frombuffer(data, np.uint8))


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_arrays_are_read_only(compression):
    _, source = sent(
        {"a": np.zeros(9), "b": np.zeros((99, 99)), "c": np.asfortranarray(np.zeros((99, 99)))}, compression
    )
    for array in source.arrays().values():
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 1
        with pytest.raises(ValueError, match="cannot set WRITEABLE"):
            array.flags.writeable = True


def test_tensors_are_aligned_where_the_frame_is():
    tensors = {str(index): np.zeros(index % 5, dtype) for index, dtype in enumerate(["i1", "f8", "c16", "i2"] * 20)}
    data = bytes(frame_of(tensors))
    room = np.zeros(len(data) + 64, np.uint8)
    start = -room.ctypes.data % 64
    room[start : start + len(data)] = np.frombuffer(data, np.uint8)
    arrays = Fedwt().decode(Frame.decode(room[start : start + len(data)].data), DEFAULT_LIMITS).arrays()
    assert all(array.flags.aligned for array in arrays.values())


def test_a_range_of_a_fortran_tensor_is_in_c_order():
    array = np.asfortranarray(np.arange(2000.0).reshape(40, 50))
    _, source = sent({"a": array})
    assert source.read("a", 45, 60).tolist() == list(range(45, 60))


def test_a_range_verifies_and_reads_only_its_segment():
    tensors = {"a": np.frombuffer(os.urandom(3 * MIB), np.uint8), "b": np.zeros(5000)}
    data = bytearray(bytes(frame_of(tensors)))
    data[-1] ^= 1
    source = Fedwt().decode(Frame.decode(bytes(data), verify="lazy"), DEFAULT_LIMITS)
    assert bytes(source.read("a", 10, 20)) == tensors["a"][10:20].tobytes()
    with pytest.raises(DecodeError):
        source.read("b", 0, 1)


@pytest.mark.parametrize(("start", "stop"), [(0, 6), (3, 4), (2, 1), (-1, 2)])
def test_a_range_outside_the_tensor_is_refused(start, stop):
    _, source = sent({"a": np.arange(3.0), "b": np.arange(3.0)})
    with pytest.raises((ValueError, IndexError)):
        source.read("a", start, stop)


def test_stored_sizes_share_a_segment_by_size():
    frame = Frame.decode(bytes(frame_of({"a": np.zeros(100), "b": np.zeros(300), "c": np.zeros(0)}, "zstd")))
    source = Fedwt().decode(frame, DEFAULT_LIMITS)
    sizes = Fedwt().stored_sizes(frame, source)
    assert sizes["b"] == pytest.approx(3 * sizes["a"], abs=2)
    assert sizes["c"] == 0
    assert sizes["a"] + sizes["b"] == pytest.approx(frame.stored_size(0), abs=1)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({1: np.zeros(1)}, "tensor name 1 is not text"),
        ({b"a": np.zeros(1)}, "tensor name b'a' is not text"),
        ({"a": [1.0]}, "tensor 'a': list is not a NumPy array"),
        ({"a": 1.0}, "tensor 'a': float is not a NumPy array"),
        ({"a": None}, "tensor 'a': NoneType is not a NumPy array"),
        ({"a": np.array([{}])}, "tensor 'a': element type object cannot be put in a frame. Convert"),
    ],
)
def test_what_cannot_be_encoded(tensors, message):
    with pytest.raises(EncodeError, match=message):
        Fedwt().encode(tensors)


def test_scalars_and_sub_classes_become_plain_arrays():
    record = np.rec.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")])
    _, source = sent({"scalar": np.float32(2.5), "record": record})
    arrays = source.arrays()
    assert arrays["scalar"] == np.float32(2.5)
    assert arrays["scalar"].shape == ()
    assert type(arrays["record"]) is np.ndarray
    assert arrays["record"]["b"].tolist() == [2.0]


def test_narrow_types_keep_every_bit():
    for dtype in (ml_dtypes.float8_e4m3fn, ml_dtypes.int4, ml_dtypes.float4_e2m1fn, np.bool_):
        array = np.arange(256, dtype=np.uint8).view(dtype)
        _, source = sent({"a": array})
        assert source.arrays()["a"].view(np.uint8).tolist() == list(range(256))


def test_too_many_tensors():
    frame = Frame.decode(bytes(frame_of({"a": np.zeros(1), "b": np.zeros(1)})))
    Fedwt().decode(frame, Limits(max_tensors=2))
    with pytest.raises(LimitError, match="tensor table: 2 tensors, 1 allowed"):
        Fedwt().decode(frame, Limits(max_tensors=1))


def test_specs_are_text_for_people():
    _, source = sent({"w": np.zeros((2, 3), np.float32)})
    (spec,) = source.specs
    assert str(spec) == "w: float32[2, 3]"
    assert (spec.size, spec.nbytes) == (6, 24)


# ── Fortran order and compression ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("spec", ["dense | fedwt | zstd(1)", "cast(bfloat16) | fedwt | lx", "dense | numpy | gzip(1)"])
def test_what_is_compressed_lies_in_c_order(spec):
    gaps = np.zeros((40, 60), {"names": ["a"], "formats": ["<f4"], "offsets": [4], "itemsize": 8}, order="F")
    tensors = {"w": np.asfortranarray(np.arange(2400.0).reshape(40, 60)), "gaps": gaps, "s": np.ones((9, 9))[::2, ::-3]}
    frame = Frame.decode(bytes(Pipeline.parse(spec).encode(tensors)))
    arrays = decode_tensors(frame).arrays()
    assert all(array.flags.c_contiguous for array in arrays.values())
    assert all(np.array_equal(arrays[name], array) for name, array in tensors.items() if "cast" not in spec)
    if "fedwt" in spec:
        assert frame.section("tensors", list)[6] == []


def test_what_is_not_compressed_is_still_not_copied():
    array = np.asfortranarray(np.arange(2400.0).reshape(40, 60))
    frame = Pipeline.parse("dense | fedwt | none").encode({"w": array})
    assert frame.section("tensors", list)[6] == [0]
    assert any(np.may_share_memory(array, np.frombuffer(buffer, np.uint8)) for buffer in frame.buffers())


def test_a_mask_is_not_lost_on_the_way_to_c_order():
    masked = np.ma.masked_array(np.eye(3), np.eye(3) > 0)
    for wrong in (masked, [1.0], None):
        with pytest.raises(EncodeError):
            Pipeline.parse("dense | fedwt | zstd").encode({"w": wrong})


@pytest.mark.parametrize("form", ["fedwt", "numpy"])
def test_a_large_compressed_tensor_in_fortran_order_is_refused(form):
    """Each range of it would decompress all of it."""
    encoded = FORMATS.get(form).encode({"w": np.zeros((512, 512), order="F")})
    data = bytes(Frame.build(encoded.sections, encoded.segments, compression=Compression.parse("zstd")))
    limits = Limits(max_chunk=2 * MIB)
    source = FORMATS.get(form).decode(Frame.decode(data, limits=limits), limits)
    assert not source.read("w", 1000, 2000).any()
    limits = Limits(max_chunk=2 * MIB - 8)
    frame = Frame.decode(data, limits=limits)
    with pytest.raises(LimitError, match="tensor 'w': 2097152 compressed bytes in Fortran order, 2097144 allowed"):
        FORMATS.get(form).decode(frame, limits)
