"""The document "Model Serialization and Communication Protocol": its own examples on serialization and profiling.

Its imports are replaced by one line. What else was completed, as the document leaves it undefined:

=============================  =========================================================================================
name                           completion
=============================  =========================================================================================
``_generate_sparse_weights``   two float32 layers of which 95 % are zero
``_generate_dense_weights``    three float32 layers of normal numbers, shaped as in its first test
``_generate_gradients``        the same, times 0.001
``federated_learning_pb2``     its class is used, and fedpost's own schema; the document shows none
``time``                       imported
=============================  =========================================================================================
"""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from fedpost.compat.kafkafl import (
    AdvancedSerializer,
    CompressionType,
    ProtocolBufferSerializer,
    SerializationError,
    SerializationFormat,
    SerializationMetadata,
    SerializationProfiler,
    WeightSerializer,
    load_settings,
)


def dense():
    return [
        np.random.randn(32, 32, 3, 64).astype(np.float32),  # noqa: NPY002 - as the document has it
        np.random.randn(64).astype(np.float32),  # noqa: NPY002
        np.random.randn(128, 64).astype(np.float32),  # noqa: NPY002
    ]


class TestSerializationTestSuite:
    """Comprehensive test suite for serialization functionality."""

    def test_weight_serialization_roundtrip(self):
        """Test that weights can be serialized and deserialized correctly."""
        # Create test weights
        weights = [
            np.random.randn(32, 32, 3, 64).astype(np.float32),  # noqa: NPY002
            np.random.randn(64).astype(np.float32),  # noqa: NPY002
            np.random.randn(128, 64).astype(np.float32),  # noqa: NPY002
        ]

        serializer = AdvancedSerializer()

        # Serialize
        serialized_data, metadata = serializer.serialize_comprehensive(weights)

        # Deserialize
        deserialized_weights, recovered_metadata = serializer.deserialize_comprehensive(serialized_data)

        # Verify correctness
        assert len(weights) == len(deserialized_weights)
        for original, recovered in zip(weights, deserialized_weights):  # noqa: B905
            np.testing.assert_array_equal(original, recovered)
        assert metadata == recovered_metadata  # what the document fetches and does not look at

    def test_compression_effectiveness(self):
        """Test compression ratios for different data types."""
        test_cases = [
            ("sparse_weights", self._generate_sparse_weights()),
            ("dense_weights", self._generate_dense_weights()),
            ("gradients", self._generate_gradients()),
        ]

        for data_type, data in test_cases:
            serializer = AdvancedSerializer()
            compressed, metadata = serializer.serialize_comprehensive(data)

            compression_ratio = metadata.original_size / metadata.compressed_size
            assert compression_ratio > 1.0, f"No compression achieved for {data_type}"

            print(f"{data_type}: {compression_ratio:.2f}x compression")  # noqa: T201
            assert len(compressed) < metadata.original_size  # with its header

    def _generate_sparse_weights(self):
        rng = np.random.default_rng(3)
        return [
            np.where(rng.random(shape) > 0.95, rng.standard_normal(shape), 0).astype(np.float32)
            for shape in ((200, 300), (500,))
        ]

    def _generate_dense_weights(self):
        return dense()

    def _generate_gradients(self):
        return [array * np.float32(1e-3) for array in dense()]


def test_the_default_configuration_spelled_out():
    config = {
        "default_format": SerializationFormat.BINARY_CUSTOM,
        "default_compression": CompressionType.ZSTD,
        "checksum_algorithm": "sha256",
        "enable_encryption": False,
        "compression_level": 3,
        "chunk_size": 1024 * 1024,  # 1MB chunks for large models
        "validate_on_serialize": True,
        "validate_on_deserialize": True,
    }
    serializer = AdvancedSerializer(config)
    assert {key: serializer.config[key] for key in config} == config
    default = AdvancedSerializer(None).config
    assert {key: default[key] for key in config} == {**config, "compression_level": None}  # zstd's own default is 3
    assert AdvancedSerializer({}).config == default  # the document's "or" does the same


def test_the_ten_fields_of_the_metadata():
    before = time.time()
    _, metadata = AdvancedSerializer().serialize_comprehensive(
        dense(), "gradients", {"model_version": "2.1", "client_id": "site-1", "round_number": 7}
    )
    assert list(metadata.__dict__) == [
        "format",
        "compression",
        "checksum",
        "original_size",
        "compressed_size",
        "timestamp",
        "model_version",
        "client_id",
        "round_number",
        "data_type",
    ]
    assert (metadata.format, metadata.compression) == (SerializationFormat.BINARY_CUSTOM, CompressionType.ZSTD)
    assert len(bytes.fromhex(metadata.checksum)) == 32
    assert metadata.original_size == sum(array.nbytes for array in dense())
    assert 0 < metadata.compressed_size < metadata.original_size
    assert before <= metadata.timestamp <= time.time()
    assert (metadata.model_version, metadata.client_id, metadata.round_number) == ("2.1", "site-1", 7)
    assert metadata.data_type == "gradients"
    made = SerializationMetadata(SerializationFormat.MSGPACK, CompressionType.NONE, "00", 1, 1, 2.0, "1.0")
    assert (made.client_id, made.round_number, made.data_type) == (None, None, "model_weights")


def test_the_members_of_the_enumerations():
    assert {member.name: member.value for member in SerializationFormat} == {
        "BINARY_CUSTOM": "binary_custom",
        "NUMPY_PICKLE": "numpy_pickle",
        "PROTOBUF": "protobuf",
        "MSGPACK": "msgpack",
        "JSON_BASE64": "json_base64",
    }
    assert {member.name: member.value for member in CompressionType} == {
        "NONE": "none",
        "GZIP": "gzip",
        "ZSTD": "zstd",
        "LZ4": "lz4",
    }


@pytest.mark.parametrize(
    ("data_type", "data"),
    [
        ("model_weights", [np.arange(3.0), np.zeros((2, 0), np.int8)]),
        ("gradients", {"layer.weight": np.ones((2, 2), np.float16)}),
        ("metadata", {"learning_rate": 0.1, "layers": ["a", "b"], "best": None}),
        ("aggregation_result", [np.arange(4, dtype=np.int64)]),
        ("aggregation_result", {"weights": [np.arange(4, dtype=np.int64)], "clients": 3}),
        ("anything", ["text", b"bytes", 1, 2.5, True, None, {"inner": [[]]}]),
    ],
)
def test_its_data_types(data_type, data):
    serializer = AdvancedSerializer()
    package, _ = serializer.serialize_comprehensive(data, data_type)
    found, metadata = serializer.deserialize_comprehensive(package)
    np.testing.assert_equal(found, data)
    assert repr(found) == repr(data)  # types, and the order of keys
    assert metadata.data_type == data_type


def test_weight_serializer():
    serializer = WeightSerializer()
    assert serializer.supported_dtypes - {"int64", "uint64"} == {
        "float32", "float16", "float64",
        "int32", "int16", "int8",
        "uint32", "uint16", "uint8",
        "bool",
    }  # fmt: skip
    weights = [np.ones((3, 2), np.dtype(kind)) for kind in sorted(serializer.supported_dtypes)]
    data = serializer.serialize_weights(weights, {"layers": ["a", "b"]})
    assert data[:8] == b"FEDWT001"
    found, metadata = serializer.deserialize_weights(data)
    assert [(array.dtype, array.tolist()) for array in found] == [(a.dtype, a.tolist()) for a in weights]
    assert metadata["num_arrays"] == 12
    assert metadata["global_metadata"] == {"layers": ["a", "b"]}
    first = metadata["array_info"][0]
    assert (first["shape"], first["dtype"], first["size"]) == ((3, 2), "bool", 6)
    with pytest.raises(SerializationError, match="FEDWT001"):
        serializer.deserialize_weights(b"FEDWT002" + data[8:])


def test_protocol_buffer_serializer():
    serializer = ProtocolBufferSerializer()
    weights = dense()
    data = serializer.serialize_weights_protobuf(weights, {"round": 3, "site": "a"})
    found, metadata = serializer.deserialize_weights_protobuf(data)
    assert metadata == {"round": "3", "site": "a"}
    for original, recovered in zip(weights, found, strict=True):
        np.testing.assert_array_equal(original, recovered)
    from fedpost.tensors.schema import fedpost_weights_pb2

    message = fedpost_weights_pb2.WeightMessage()
    message.ParseFromString(data)
    first = message.weights[0]
    assert (first.layer_id, list(first.shape), first.dtype) == (0, [32, 32, 3, 64], "float32")
    assert first.data == weights[0].tobytes()
    assert [weight.layer_id for weight in message.weights] == [0, 1, 2]


def test_profiler():
    profiler = SerializationProfiler()
    assert list(profiler.metrics) == [
        "serialization_times", "deserialization_times", "compression_ratios", "throughput_mbps", "error_rates",
    ]  # fmt: skip
    # As FederatedLearningCommunicator.send_model_update does.
    weights = dense()
    start_time = time.time()
    AdvancedSerializer().serialize_comprehensive(weights)
    end_time = time.time()
    data_size = sum(w.nbytes for w in weights)
    profiler.profile_operation("serialization", data_size, start_time, end_time)
    profiler.profile_operation("serialization", 2 << 20, 1.0, 3.0, compressed_size=1 << 20)
    assert list(profiler.metrics["serialization_times"])[1:] == [2.0]
    assert list(profiler.metrics["compression_ratios"]) == [2.0]
    assert list(profiler.metrics["throughput_mbps"])[1:] == [1.0]
    report = profiler.get_performance_report()
    times = list(profiler.metrics["serialization_times"])
    assert {"mean", "std", "min", "max", "count"} <= report["serialization_times"].keys()
    for name, measure in (("mean", np.mean), ("std", np.std), ("min", np.min), ("max", np.max), ("count", len)):
        assert report["serialization_times"][name] == pytest.approx(measure(times))
    assert "deserialization_times" not in report  # nothing was measured


TEMPLATE = """\
# serialization_config.yaml
serialization:
  default_format: "binary_custom"
  default_compression: "zstd"
  compression_level: 3
  validate_on_serialize: true
  validate_on_deserialize: true
  enable_chunking: true
  chunk_size: 1048576  # 1MB

communication:
  message_timeout: 30000
  max_retries: 3
  enable_differential_updates: true
  compression_threshold: 0.1

security:
  encryption_enabled: false
  encryption_algorithm: "fernet"
  key_rotation_interval: 86400  # 24 hours

privacy:
  differential_privacy_enabled: false
  privacy_budget: 1.0
  noise_mechanism: "laplace"

kafka:
  bootstrap_servers: ["localhost:9092"]
  topics:
    weight_updates: "federated_weight_updates"
    aggregation_results: "federated_aggregation_results"
  max_message_size: 10485760  # 10MB

performance:
  enable_profiling: true
  profiling_interval: 100  # Log every 100 operations
  max_serialization_time: 30.0  # seconds
"""


def test_the_configuration_template(tmp_path):
    import yaml

    path = tmp_path / "serialization_config.yaml"
    path.write_text(TEMPLATE)
    settings = load_settings(path)
    for part, keys in yaml.safe_load(TEMPLATE).items():
        for key, value in keys.items():
            found = getattr(getattr(settings, part), key)
            if key == "topics":
                found = {name: getattr(found, name) for name in value}
            assert (list(found) if isinstance(found, tuple) else found) == value, (part, key)
    assert load_settings(yaml.safe_load(TEMPLATE)) == settings
    weights = dense()
    serializer = AdvancedSerializer(
        settings.serialization, max_serialization_time=settings.performance.max_serialization_time
    )
    found, _ = serializer.deserialize_comprehensive(serializer.serialize_comprehensive(weights)[0])
    np.testing.assert_equal(found, weights)


def test_the_template_as_json_as_its_communicator_reads_it(tmp_path):
    import yaml

    path = tmp_path / "config.json"
    path.write_text(json.dumps(yaml.safe_load(TEMPLATE)))
    assert load_settings(path) == load_settings(yaml.safe_load(TEMPLATE))
    # CommunicationProtocol hands the part over as it is.
    assert AdvancedSerializer(yaml.safe_load(TEMPLATE).get("serialization", {})).settings.enable_chunking
