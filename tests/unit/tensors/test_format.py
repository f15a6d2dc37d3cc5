"""Arrays in memory as a source of tensors, and what a tensor is without its values."""

from __future__ import annotations

import numpy as np
import pytest

from fedpost.errors import RegistryError
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
