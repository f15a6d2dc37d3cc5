"""FEDWT001 and protocol buffers, as lists of arrays."""

from __future__ import annotations

import numpy as np
import pytest

from fedpost.compat.kafkafl import ProtocolBufferSerializer, SerializationError, WeightSerializer
from fedpost.errors import DecodeError, EncodeError, LimitError, TruncatedError, UnsupportedError
from fedpost.frame import Limits
from fedpost.tensors import fedwt1

WEIGHTS = [np.arange(6, dtype=np.float32).reshape(2, 3), np.array([True, False]), np.zeros((0, 4), np.int8)]


def same(found, wanted):
    assert [(a.dtype, a.shape, a.tobytes()) for a in found] == [(a.dtype, a.shape, a.tobytes()) for a in wanted]


def test_the_header_alone():
    data = WeightSerializer().serialize_weights([*WEIGHTS, np.ones(50_000)], {"a": [1, None]})
    wanted = {
        "num_arrays": 4,
        "global_metadata": {"a": [1, None]},
        "array_info": [
            {"name": "0", "shape": (2, 3), "dtype": "float32", "size": 6},
            {"name": "1", "shape": (2,), "dtype": "bool", "size": 2},
            {"name": "2", "shape": (0, 4), "dtype": "int8", "size": 0},
            {"name": "3", "shape": (50_000,), "dtype": "float64", "size": 50_000},
        ],
    }
    assert WeightSerializer().inspect(data) == wanted
    assert WeightSerializer().inspect(data[:200]) == wanted
    assert WeightSerializer().deserialize_weights(data)[1] == wanted
    with pytest.raises(SerializationError) as caught:
        WeightSerializer().inspect(data[:60])
    assert isinstance(caught.value, TruncatedError)
    assert all(type(size) is int for row in wanted["array_info"] for size in (*row["shape"], row["size"]))


@pytest.mark.parametrize("dtype", ["complex64", "S3", "M8[s]"])
def test_types_that_are_not_supported(dtype):
    serializer = WeightSerializer()
    weights = [np.zeros(2, np.float32), np.zeros(2, dtype)]
    with pytest.raises(SerializationError, match=r"array 1: element type .* is not supported") as caught:
        serializer.serialize_weights(weights)
    assert isinstance(caught.value, EncodeError)
    data = b"".join(fedwt1.to_bytes({"0": weights[0], "1": weights[1]}))
    with pytest.raises(SerializationError, match="array '1'") as caught:
        serializer.deserialize_weights(data)
    assert isinstance(caught.value, UnsupportedError)


def test_the_supported_types_can_be_changed():
    serializer = WeightSerializer()
    serializer.supported_dtypes.add("complex64")
    serializer.supported_dtypes.discard("float32")
    numbers = [np.arange(3, dtype=np.complex64)]
    same(serializer.deserialize_weights(serializer.serialize_weights(numbers))[0], numbers)
    with pytest.raises(SerializationError, match="float32 is not supported"):
        serializer.serialize_weights(WEIGHTS)
    assert "complex64" not in WeightSerializer().supported_dtypes


@pytest.mark.parametrize("weights", [np.zeros((2, 2)), "text", {"a": np.zeros(1)}, [[1.0, 2.0]], [None]])
def test_what_is_no_list_of_arrays(weights):
    for serialize in (WeightSerializer().serialize_weights, ProtocolBufferSerializer().serialize_weights_protobuf):
        with pytest.raises(SerializationError) as caught:
            serialize(weights)
        assert isinstance(caught.value, EncodeError)


@pytest.mark.parametrize("metadata", [{"fedpost": 1}, {"a": object()}, {"a": float("nan")}])
def test_metadata_that_are_no_json(metadata):
    with pytest.raises(SerializationError):
        WeightSerializer().serialize_weights(WEIGHTS, metadata)


def test_dense_arrays_are_views():
    data = WeightSerializer().serialize_weights([np.arange(1, 100, dtype=np.float32)])
    (found,), _ = WeightSerializer().deserialize_weights(data)
    assert np.shares_memory(found, np.frombuffer(data, np.uint8))


def test_truncation_and_what_follows():
    data = WeightSerializer().serialize_weights(WEIGHTS)
    for size in range(len(data)):
        with pytest.raises(SerializationError) as caught:
            WeightSerializer().deserialize_weights(data[:size])
        assert isinstance(caught.value, TruncatedError)
    with pytest.raises(SerializationError) as caught:
        WeightSerializer().deserialize_weights(data + b"\0")
    assert isinstance(caught.value, DecodeError)


def test_limits_are_the_caller_s():
    with pytest.raises(SerializationError) as caught:
        WeightSerializer(limits=Limits(max_tensors=2)).deserialize_weights(
            WeightSerializer().serialize_weights(WEIGHTS)
        )
    assert isinstance(caught.value, LimitError)
    with pytest.raises(SerializationError) as caught:
        ProtocolBufferSerializer(limits=Limits(max_tensors=2)).deserialize_weights_protobuf(
            ProtocolBufferSerializer().serialize_weights_protobuf(WEIGHTS)
        )
    assert isinstance(caught.value, LimitError)


def test_protocol_buffers():
    data = ProtocolBufferSerializer().serialize_weights_protobuf(WEIGHTS, {"round": 3, "ratio": 0.5, "none": None})
    found, metadata = ProtocolBufferSerializer().deserialize_weights_protobuf(data)
    same(found, WEIGHTS)
    assert metadata == {"round": "3", "ratio": "0.5", "none": "None"}
    for bad in (data[:-1], b"\xff" * 10, b"\x0a"):
        with pytest.raises(SerializationError) as caught:
            ProtocolBufferSerializer().deserialize_weights_protobuf(bad)
        assert isinstance(caught.value, DecodeError)
