"""Tensors by slices, out of frames that are still on their way: every element once, at its place, in little memory."""

from __future__ import annotations

import random
import tracemalloc

import ml_dtypes
import numpy as np
import pytest

from fedpost.errors import DecodeError, IntegrityError, LimitError, TruncatedError, UnsupportedError
from fedpost.frame import Frame, Limits, Part, PartAssembler
from fedpost.pipeline import Pipeline, decode_tensors
from fedpost.tensors.slices import TensorSlices

MIB = 1 << 20


def model(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "large": rng.standard_normal((300, 1000)).astype(np.float32),
        "fortran": np.asfortranarray(rng.standard_normal((7, 5, 900))),
        "small": rng.standard_normal(10).astype(np.float32),
        "empty": np.zeros((3, 0), np.float32),
        "scalar": np.array(5.5, np.float32),
        "flags": rng.integers(0, 2, 77).astype(bool),
        "zeros": np.zeros(700_000, np.int64),
        "half": rng.standard_normal(5000).astype(ml_dtypes.bfloat16),
        "big": rng.standard_normal(2000).astype(">f8"),
        "rows": np.array([(1, 2.5), (3, 4.5)] * 600, dtype=[("id", "<i4"), ("x", "<f8")]),
    }


class Collect:
    """Puts tensors together again."""

    def __init__(self):
        self.arrays, self.filled = {}, {}

    def begin(self, specs, pipeline):
        self.pipeline = pipeline
        self.specs = specs
        for spec in specs:
            self.arrays[spec.name] = np.empty(spec.size, spec.dtype)
            self.filled[spec.name] = np.zeros(spec.size, int)

    def take(self, name, place, values):
        assert values.ndim == 1
        assert values.size
        assert not values.flags.writeable
        self.arrays[name][place] = values
        self.filled[name][place] += 1

    def check(self, expected):
        assert [spec.name for spec in self.specs] == list(expected)
        for spec in self.specs:
            assert (self.filled[spec.name] == 1).all()
            found = self.arrays[spec.name].reshape(spec.shape)
            assert (spec.dtype, found.tobytes()) == (expected[spec.name].dtype, expected[spec.name].tobytes())


def written(frame, sizes, sink=None, **limits):
    """A frame's bytes to a sink, cut as the sizes say, over and over."""
    data, sink = bytes(frame), sink or Collect()
    slices = TensorSlices(sink, Limits(**limits))
    offset = number = 0
    while offset < len(data):
        assert not slices.complete
        piece = memoryview(bytearray(data[offset : offset + sizes[number % len(sizes)]]))
        slices.write(offset, piece.toreadonly())
        offset, number = offset + piece.nbytes, number + 1
        piece[:] = b"\xaa" * piece.nbytes  # it was only valid during the call
    assert slices.complete
    return sink


SPECS = ["none", "zstd", "lx", "gzip", "lz4"]


@pytest.mark.parametrize("compression", SPECS)
@pytest.mark.parametrize("sizes", [[1 << 30], [4096], [100_003], [1, 7, 64, 10_000, 3]])
def test_every_element_comes_once_and_where_it_belongs(compression, sizes):
    sink = written(Pipeline.parse(f"dense | fedwt | {compression}").encode(model()), sizes)
    sink.check(model())
    assert sink.pipeline.startswith("dense | fedwt | ")


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_byte_by_byte(compression):
    small = {name: array for name, array in model().items() if array.nbytes < 9000}
    small["fortran"] = np.asfortranarray(np.arange(2000.0).reshape(40, 50))
    written(Pipeline.parse(f"dense | fedwt | {compression}").encode(small), [1]).check(small)


def test_a_frame_without_tensors_is_complete_at_its_header():
    for tensors in ({}, {"empty": np.zeros((2, 0))}):
        sink = written(Pipeline().encode(tensors), [50])
        sink.check(tensors)


class Sum:
    """What an aggregation by slices does."""

    def __init__(self, total, weight):
        self.total, self.weight = total, weight

    def begin(self, specs, pipeline):
        assert pipeline.startswith("dense |")
        for spec in specs:
            self.total.setdefault(spec.name, np.zeros(spec.shape))

    def take(self, name, place, values):
        self.total[name].reshape(-1)[place] += values * self.weight


@pytest.mark.parametrize("compression", ["none", "lx"])
def test_a_sum_over_shuffled_parts_is_the_direct_sum(compression, tmp_path):
    names = ("large", "fortran", "small", "scalar", "zeros", "big")
    results = [{name: model(seed)[name] for name in names} for seed in range(3)]
    weights = [0.5, 0.3, 0.2]
    total = {}
    with PartAssembler(tmp_path) as assembler:
        for number, (tensors, weight) in enumerate(zip(results, weights, strict=True)):
            frame = Pipeline.parse(f"dense | fedwt | {compression}").encode(tensors)
            parts = list(frame.parts(50_000))
            random.Random(number).shuffle(parts)
            slices = TensorSlices(Sum(total, weight))
            for position, part in enumerate(parts):
                transfer = assembler.add(Part.decode(bytes(part)))
                if not position:
                    transfer.attach(slices)
            assert slices.complete
            transfer.open()  # only now may the sum count
            transfer.discard()
    for name in names:
        direct = np.zeros(results[0][name].shape)
        for tensors, weight in zip(results, weights, strict=True):
            direct += tensors[name] * weight
        np.testing.assert_array_equal(total[name], direct)


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_memory_is_that_of_a_part_and_a_chunk(compression, tmp_path):
    class Count:
        seen = 0

        def begin(self, specs, pipeline):
            pass

        def take(self, name, place, values):
            self.seen += values.size

    array = np.repeat(np.random.default_rng(0).integers(0, 1 << 30, 4 * MIB), 2)  # 64 MiB
    frame = Pipeline.parse(f"dense | fedwt | {compression}").encode({"a": array})
    wire = [bytes(part) for part in frame.parts(1 << 18)]
    random.Random(0).shuffle(wire)
    with PartAssembler(tmp_path) as assembler:
        transfer, sink = assembler.add(Part.decode(wire[0])), Count()
        slices = TensorSlices(sink)
        transfer.attach(slices)
        tracemalloc.start()
        for data in wire:
            assembler.add(Part.decode(data))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert slices.complete
    assert sink.seen == array.size
    assert peak < 4 * MIB


@pytest.mark.parametrize("other", ["numpy", "safetensors", "msgpack", "fedwt1"])
def test_formats_without_slices_are_refused_by_the_header(other):
    with pytest.raises(UnsupportedError, match="could be sliced"):
        written(Pipeline.parse(f"dense | {other} | none").encode({"a": np.ones(3)}), [100])


def test_what_is_no_frame_is_refused_at_once():
    for data in (b"PK\3\4", b"\x89FPF\r\n\x1a\n\2" + bytes(100)):
        with pytest.raises(DecodeError):
            TensorSlices(Collect()).write(0, memoryview(data))


def test_a_header_is_not_collected_beyond_the_budget():
    head = bytes(Pipeline().encode({"a": np.ones(3)}))[:40]
    with pytest.raises(LimitError, match="a header of"):
        TensorSlices(Collect(), Limits(max_header=10)).write(0, memoryview(head))


def test_an_altered_header_says_nothing():
    data = bytearray(bytes(Pipeline().encode({"a": np.ones(3)})))
    data[60] ^= 1
    sink = Collect()
    with pytest.raises(IntegrityError, match="header"):
        TensorSlices(sink).write(0, memoryview(bytes(data)))
    assert not sink.arrays


def test_budgets_hold_before_anything_is_taken():
    frame = Pipeline.parse("dense | fedwt | zstd").encode({"a": np.zeros(100_000), "b": np.zeros(9, "S1000")})
    for limits in ({"max_tensors": 1}, {"max_raw": 800_000}, {"max_ratio": 10}, {"max_chunk": 999}):
        sink = Collect()
        with pytest.raises(LimitError):
            written(frame, [1000], sink, **limits)
        assert not sink.arrays


def test_an_element_that_memory_has_no_room_for_is_refused():
    frame = Pipeline().encode({"a": np.zeros(3, "S70000")})
    written(frame, [1000], max_chunk=70_000).check({"a": np.zeros(3, "S70000")})
    with pytest.raises(LimitError, match="elements of 70000 bytes"):
        written(frame, [1000], max_chunk=69_999)


def test_padding_that_is_not_zero_is_seen():
    frame = Pipeline().encode({"a": np.ones(3), "b": np.ones(3, np.float32)})
    data = bytearray(bytes(frame))
    data[-13] = 1
    with pytest.raises(IntegrityError):
        Frame.decode(bytes(data))
    with pytest.raises(IntegrityError, match="padding"):
        TensorSlices(Collect()).write(0, memoryview(bytes(data)))


def test_a_damaged_chunk_names_its_segment():
    data = bytearray(bytes(Pipeline.parse("dense | fedwt | zstd").encode({"a": np.zeros(10_000)})))
    data[-1 - data[::-1].index(b"\x28\xb5\x2f\xfd"[::-1])] ^= 0xFF
    with pytest.raises(DecodeError, match="segment 0"):
        TensorSlices(Collect()).write(0, memoryview(bytes(data)))


def test_values_of_a_lying_sender_stay_without_effect(tmp_path):
    """The parts' digests are right and the segment's is not: it shows when the whole is opened."""
    tensors = {"a": np.arange(50_000.0)}
    data = bytearray(bytes(Pipeline().encode(tensors)))
    data[-1] ^= 1
    lying = Frame.decode(bytes(data), verify="never")
    sink = Collect()
    with PartAssembler(tmp_path) as assembler:
        for part in lying.parts(10_000):
            transfer = assembler.add(part)
            if not part.index:
                transfer.attach(TensorSlices(sink))
        assert (sink.filled["a"] == 1).all()
        with pytest.raises(IntegrityError):
            transfer.open()


def test_slices_end_where_the_bytes_do():
    data = bytes(Pipeline().encode(model()))
    slices = TensorSlices(Collect())
    slices.write(0, memoryview(data[:-1]))
    assert not slices.complete
    with pytest.raises(TruncatedError):
        decode_tensors(Frame.decode(data[:-1]))
