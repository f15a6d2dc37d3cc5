"""Compression by strategy: containers, element types, what both sides know of gradients, and what is refused."""

from __future__ import annotations

import ml_dtypes
import msgspec
import numpy as np
import pytest

from fedpost.compat.kafkafl import AdvancedSerializer, CompressionOptimizer, SerializationError
from fedpost.errors import DecodeError, EncodeError, UnsupportedError
from fedpost.frame import Frame
from fedpost.objects import REGISTRY, TypeRegistry, register

ARRAYS = [np.arange(12.0).reshape(3, 4), np.ones(3, np.float32), np.array(5), np.zeros((0, 2)), np.array([True])]
LOSSLESS = ("sparse_weights", "dense_weights", "metadata")


class Mine(msgspec.Struct):
    x: int


def bits(arrays):
    return [(a.dtype, a.shape, a.tobytes()) for a in arrays]


def compress(kind, data):
    return CompressionOptimizer().compression_strategies[kind](data)


@pytest.mark.parametrize("kind", [*LOSSLESS, "gradients"])
@pytest.mark.parametrize("make", [list, tuple, lambda arrays: {f"n{i}": a for i, a in enumerate(arrays)}])
def test_containers_come_back(kind, make):
    data = make(ARRAYS)
    found = CompressionOptimizer().decompress(compress(kind, data))
    assert type(found) is type(data)
    arrays = list(found.values()) if isinstance(found, dict) else list(found)
    if isinstance(found, dict):
        assert list(found) == list(data)
    if kind == "gradients":
        assert bits(arrays[1:]) == bits(ARRAYS[1:])  # what is no matrix of floats is exact
        assert np.abs(arrays[0] - ARRAYS[0]).max() <= 11 / 127
    else:
        assert bits(arrays) == bits(ARRAYS)
    if kind != "metadata":
        assert not any(array.flags.writeable for array in arrays)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_gradients_of_every_float(dtype):
    rng = np.random.default_rng(0)
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    sender, receiver = CompressionOptimizer(), CompressionOptimizer()
    gradients = [rng.standard_normal((40, 50)).astype(kind)]
    for _ in range(3):
        data = sender.compression_strategies["gradients"](gradients)
        (found,) = receiver.decompress(data)
        assert found.dtype == kind
        # Rounding by chance, and to the type.
        bound = np.abs(gradients[0].astype(float)).max() * (1 / 127 + float(ml_dtypes.finfo(kind).eps))
        assert np.abs(found.astype(float) - gradients[0].astype(float)).max() <= bound
        assert sender.acknowledge_gradients()


def test_gradients_are_right_on_average():
    gradient = [np.full((2, 2), 1 / 3, np.float32)]
    gradient[0][0, 0] = 100
    total = sum(
        CompressionOptimizer().decompress(compress("gradients", [gradient[0] + np.float32(1e-4 * n)]))[0]
        for n in range(400)
    )
    assert total[1, 1] / 400 == pytest.approx(1 / 3 + 0.02, abs=0.1)


def test_gradients_that_were_not_acknowledged_are_not_relied_on():
    sender, receiver = CompressionOptimizer(), CompressionOptimizer()
    gradients = [np.ones((3, 4), np.float32)]

    def relative(data):
        return Frame.decode(data).section("compressed", dict[str, object]).get("specs") is None

    strategy = sender.compression_strategies["gradients"]
    assert not relative(strategy(gradients))
    assert not relative(strategy(gradients))
    assert sender.acknowledge_gradients()
    assert not sender.acknowledge_gradients()
    update = strategy(gradients)
    assert relative(update)
    with pytest.raises(SerializationError, match="it changes the base") as caught:
        receiver.decompress(update)
    assert isinstance(caught.value, DecodeError)
    assert not relative(strategy(gradients))  # the one before waits still
    sender.acknowledge_gradients()
    for others in ([gradients[0], gradients[0]], [gradients[0].astype(np.float64)], [np.ones((4, 3), np.float32)]):
        assert not relative(strategy(others))
        sender.acknowledge_gradients()


def relative_pair():
    """A sender, a receiver that has the gradients before, and what differs from them."""
    rng = np.random.default_rng(0)
    sender, receiver = CompressionOptimizer(), CompressionOptimizer()
    before = [rng.standard_normal((8, 8)).astype(np.float32)]
    strategy = sender.compression_strategies["gradients"]
    receiver.decompress(strategy(before))
    assert sender.acknowledge_gradients(receiver.gradients_digest)
    return sender, receiver, strategy([before[0] + np.float32(0.01)])


def test_gradients_that_come_twice_are_the_same_twice():
    sender, receiver, data = relative_pair()
    found = receiver.decompress(data)
    for again in (data, bytearray(data), memoryview(data), memoryview(data[::-1])[::-1]):
        assert bits(receiver.decompress(again)) == bits(found)
    receiver.decompress(compress("metadata", {"between": 1}))
    assert bits(receiver.decompress(data)) == bits(found)
    damaged = bytearray(data)
    damaged[-1] ^= 1
    with pytest.raises(SerializationError, match="digest"):
        receiver.decompress(damaged)
    # What follows is still relative to them.
    assert sender.acknowledge_gradients(receiver.gradients_digest)
    near = [found[0] + np.float32(0.01)]
    (after,) = receiver.decompress(sender.compression_strategies["gradients"](near))
    assert np.abs(after - near[0]).max() <= 0.011 / 127


def test_gradients_are_acknowledged_by_what_arrived():
    assert CompressionOptimizer().gradients_digest is None
    sender, receiver, data = relative_pair()
    before = receiver.gradients_digest
    assert len(before) == 16
    for other in (before, bytes(16), b""):
        assert not sender.acknowledge_gradients(other)
    receiver.decompress(data)
    assert receiver.gradients_digest != before
    assert sender.acknowledge_gradients(receiver.gradients_digest)
    assert not sender.acknowledge_gradients(receiver.gradients_digest)


def test_gradients_that_were_rejected_are_not_relied_on():
    sender, receiver, lost = relative_pair()
    before = receiver.gradients_digest
    sender.reject_gradients()
    assert not sender.acknowledge_gradients()
    held = sender._held.tensors.arrays()["0"]
    data = sender.compression_strategies["gradients"]([held + np.float32(0.02)])
    assert Frame.decode(data).section("compressed", dict[str, object]).get("specs") is None
    assert receiver.gradients_digest == before
    receiver.decompress(data)
    with pytest.raises(SerializationError, match="it changes the base"):
        receiver.decompress(lost)


def test_complex_values_are_not_quantized():
    with pytest.raises(SerializationError, match="complex") as caught:
        CompressionOptimizer()._quantize_array(np.array([1 + 2j, 3j]))
    assert isinstance(caught.value, EncodeError)


@pytest.mark.parametrize("kind", ["gradients", "sparse_weights", "dense_weights"])
@pytest.mark.parametrize("data", [None, 5, "a", [1.0], {"a": 1}, {1: ARRAYS[0]}, [np.float32(1)], ARRAYS[0]], ids=repr)
def test_what_is_no_model(kind, data):
    with pytest.raises(SerializationError) as caught:
        compress(kind, data)
    assert isinstance(caught.value, EncodeError)


def test_metadata_is_any_object():
    for value in ({"a": (1, {2}), "b": float("inf")}, [], {}, None, "text", {"w": ARRAYS[0], "n": 1}):
        found = CompressionOptimizer().decompress(compress("metadata", value))
        np.testing.assert_equal(found, value)
        assert type(found) is type(value)


def test_types_of_others_are_refused():
    registry = TypeRegistry(REGISTRY)
    register(Mine, name="mine", registry=registry)
    data = CompressionOptimizer(registry=registry).compression_strategies["metadata"](Mine(3))
    assert CompressionOptimizer(registry=registry).decompress(data) == Mine(3)
    with pytest.raises(SerializationError) as caught:
        CompressionOptimizer().decompress(data)
    assert isinstance(caught.value, UnsupportedError)


def test_nothing_compresses_to_little():
    for kind in ("gradients", "sparse_weights", "dense_weights"):
        assert CompressionOptimizer().decompress(compress(kind, [])) == []


def lie(data, drop=(), **said):
    frame = Frame.decode(data)
    told = {name: frame.section(name, msgspec.Raw) for name in frame.section_names if name not in drop}
    compressed = {**frame.section("compressed", dict), **said}
    stored = [frame.segment(index) for index in range(len(frame))]
    return bytes(Frame.build({**told, "compressed": compressed}, stored))


@pytest.mark.parametrize(
    "said",
    [
        {"strategy": "dense_weights"},
        {"strategy": "metadata"},
        {"strategy": "pickle"},
        {"strategy": 3},
        {"container": "object"},
        {"container": "dict", "strategy": "sparse_weights"},
        {"specs": [["0"], b"\2", [-3, -4], ["float32"], [0]]},
        {"specs": [["0"], b"\2", [3, 1 << 62], ["float32"], [0]]},
        {"specs": [["0"], b"\xff", [1] * 255, ["float32"], [0]]},
        {"specs": [["0"], b"\2", [3, 4], ["object"], [0]]},
        {"specs": [["0"], b"\2", [3, 4], ["float32"], [1]]},
        {"specs": [["0"], b"\2", [3], ["float32"], [0]]},
        {"specs": [["1"], b"\2", [3, 4], ["float32"], [0]]},
        {"specs": [["0"], b"\2", [3, 4], ["int32"], [0]]},
        {"specs": [["0"], b"\2", [3, 5], ["float32"], [0]]},
        {"specs": [["0"], b"\2", [0, 5], ["float32"], [0]]},
        {"specs": None},
        {"specs": [[], b"", [], [], []]},
    ],
    ids=str,
)
def test_what_lies_is_refused(said):
    data = compress("gradients", [np.ones((3, 4), np.float32)])
    CompressionOptimizer().decompress(lie(data))
    with pytest.raises(SerializationError) as caught:
        CompressionOptimizer().decompress(lie(data, **said))
    assert isinstance(caught.value, DecodeError)


def test_what_is_no_such_frame():
    package, _ = AdvancedSerializer().serialize_comprehensive(ARRAYS)
    for data in (b"", b"x" * 100, package):
        with pytest.raises(SerializationError):
            CompressionOptimizer().decompress(data)
    data = compress("dense_weights", ARRAYS)
    for position in range(0, len(data), 5):
        damaged = bytearray(data)
        damaged[position] ^= 1
        with pytest.raises(SerializationError):
            CompressionOptimizer().decompress(damaged)
