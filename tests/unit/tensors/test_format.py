"""Arrays in memory as a source of tensors, and what a tensor is without its values."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from fedpost.errors import MissingExtraError, RegistryError, UnsupportedError
from fedpost.frame import Frame
from fedpost.pipeline import Pipeline, decode_tensors
from fedpost.tensors import FORMATS, MemoryTensors, TensorSpec


def test_memory_tensors_are_the_arrays_themselves():
    tensors = {"b": np.arange(6.0).reshape(2, 3), "a": np.zeros((), np.int8)}
    source = MemoryTensors(tensors)
    assert source.specs == (
        TensorSpec("b", np.dtype("f8"), (2, 3)),
        TensorSpec("a", np.dtype("i1"), ()),
    )
    assert list(source.arrays()) == ["b", "a"]
    assert all(source.arrays()[name] is tensors[name] for name in tensors)
    assert source.read("b", 1, 4).tolist() == [1, 2, 3]
    assert np.shares_memory(source.read("b", 1, 4), tensors["b"])
    source.arrays()["c"] = np.zeros(1)
    assert list(source.arrays()) == ["b", "a"]


@pytest.mark.parametrize(("shape", "size"), [((), 1), ((0,), 0), ((2, 3), 6), ((5, 0, 7), 0)])
def test_sizes(shape, size):
    spec = TensorSpec("w", np.dtype("f4"), shape)
    assert (spec.size, spec.nbytes) == (size, 4 * size)


def test_unknown_formats_are_told_with_those_that_are_known():
    with pytest.raises(RegistryError, match=r"unknown format 'onnx'\. Known: fedwt, .*numpy"):
        FORMATS.get("onnx")


@pytest.mark.parametrize("layout", [np.asfortranarray, lambda array: np.repeat(array, 2, axis=1)[:, ::2]])
def test_a_range_of_what_is_not_contiguous_copies_no_more_than_that(layout):
    array = layout(np.arange(1 << 18, dtype=np.float64).reshape(512, 512))
    source = MemoryTensors({"w": array, "scalar": np.float32(3)})
    tracemalloc.start()
    part = source.read("w", 1000, 3000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert part.tolist() == list(range(1000, 3000))
    assert peak < array.nbytes // 16
    assert source.read("scalar", 0, 1).tolist() == [3]


def test_a_format_whose_extra_is_missing_is_told_as_what_it_is_in_a_frame(monkeypatch):
    def missing():
        raise MissingExtraError("the format onnx needs onnx", hint="pip install 'fedpost[onnx]'")

    monkeypatch.setattr(FORMATS, "_entries", dict(FORMATS._entries))
    FORMATS.register_lazy("onnx", missing)
    frame = Frame.decode(bytes(Frame.build({"pipeline": "dense | onnx | none"})))
    with pytest.raises(UnsupportedError, match=r"the format onnx needs onnx\. pip install 'fedpost\[onnx\]'"):
        decode_tensors(frame)
    with pytest.raises(MissingExtraError):
        Pipeline.parse("dense | onnx | none")
