"""The faults of that document's samples, one test each: none of them is here."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
from enum import Enum

import numpy as np
import pytest

from fedpost.compat.kafkafl import AdvancedSerializer, SerializationError, WeightSerializer
from fedpost.errors import ConfigError, DecodeError, IntegrityError, LimitError
from fedpost.frame import Frame, Limits
from fedpost.protocol import MessageType

WEIGHTS = [np.arange(12, dtype=np.float32).reshape(3, 4), np.ones(3, np.int16)]


def same(found, wanted):
    assert [(a.dtype, a.shape, a.tobytes()) for a in found] == [(a.dtype, a.shape, a.tobytes()) for a in wanted]


def as_the_document_writes(weights, metadata=None):
    """FEDWT001 of dense arrays, by the document's layout, with ``struct`` alone."""
    text = json.dumps(metadata or {}).encode()
    out = io.BytesIO()
    out.write(b"FEDWT001" + struct.pack("<II", len(weights), len(text)) + text)
    for weight in weights:
        dtype = str(weight.dtype).encode()
        out.write(struct.pack(f"<B{weight.ndim}I", weight.ndim, *weight.shape))
        out.write(struct.pack("<B", len(dtype)) + dtype + struct.pack("<Q", weight.size))
    for index, weight in enumerate(weights):
        data = weight.tobytes()
        out.write(struct.pack("<IBQ", index, 0, len(data)) + data)
    return out.getvalue()


def test_a_weight_update_is_model_weights():
    """Its protocol passes the message type where the serializer knows only "model_weights"."""

    class TheirMessageType(Enum):
        WEIGHT_UPDATE = "weight_update"

    serializer = AdvancedSerializer()
    for kind in ("weight_update", MessageType.WEIGHT_UPDATE, TheirMessageType.WEIGHT_UPDATE):
        package, metadata = serializer.serialize_comprehensive(WEIGHTS, kind)
        assert metadata.data_type == "weight_update"
        same(serializer.deserialize_comprehensive(package)[0], WEIGHTS)
        with pytest.raises(SerializationError, match="str is no weight_update"):
            serializer.serialize_comprehensive("no weights", kind)
    for kind in MessageType:
        data = WEIGHTS if kind in ("weight_update", "aggregation_result") else {"status": "ready"}
        found, _ = serializer.deserialize_comprehensive(serializer.serialize_comprehensive(data, kind.value)[0])
        np.testing.assert_equal(found, data)


def test_every_key_does_something():
    """Its default_format, compression_level, chunk_size, enable_encryption and validate_on_serialize were ignored."""
    rng = np.random.default_rng(3)
    weights = [np.repeat(rng.integers(0, 9, 3000).astype(np.float32), 20)]

    def made(**config):
        package, metadata = AdvancedSerializer(config).serialize_comprehensive(weights)
        return metadata, Frame.decode(package)

    metadata, frame = made(default_format="numpy_pickle")
    assert (metadata.format, frame.section("pipeline", str)) == ("numpy_pickle", "dense | numpy | zstd(3)")
    metadata, frame = made(default_compression="gzip")
    assert (metadata.compression, frame.coding(0)) == ("gzip", "gzip")
    assert made(compression_level=19)[0].compressed_size < made(compression_level=1)[0].compressed_size
    metadata, frame = made(checksum_algorithm="crc32c")
    assert (len(metadata.checksum), frame.checksum) == (8, "crc32c")
    large = AdvancedSerializer({"default_compression": "none", "chunk_size": 65_536})
    package, _ = large.serialize_comprehensive(weights)
    parts = [len(bytes(part)) for part in large.iter_parts(package)]
    assert len(parts) == 4
    assert max(parts) <= 65_536
    assert sum(parts) >= len(package)
    assert len(AdvancedSerializer({"enable_chunking": False, "chunk_size": 65_536}).iter_parts(package)) == 1
    with pytest.raises(ConfigError, match="sealing is not available"):
        AdvancedSerializer({"enable_encryption": True})


def test_lz4_is_there():
    """Its tables of compressors have no LZ4."""
    weights = [np.zeros(10_000, np.float32)]
    package, metadata = AdvancedSerializer({"default_compression": "lz4"}).serialize_comprehensive(weights)
    assert metadata.original_size / metadata.compressed_size > 100
    assert {Frame.decode(package).coding(0)} == {"lz4"}
    same(AdvancedSerializer().deserialize_comprehensive(package)[0], weights)


@pytest.mark.parametrize("config", [{"checksum_algorithm": "sha256"}, {"compression_level": 9}, {"chunk_size": 4096}])
def test_a_partial_configuration_is_completed(config):
    """Its constructor takes any mapping that is not empty for a whole one, and fails with KeyError later."""
    serializer = AdvancedSerializer(config)
    same(serializer.deserialize_comprehensive(serializer.serialize_comprehensive(WEIGHTS)[0])[0], WEIGHTS)


def test_the_checksums_cover_header_and_metadata():
    """Its checksum covers the compressed data alone."""
    serializer = AdvancedSerializer()
    package, _ = serializer.serialize_comprehensive(WEIGHTS, metadata={"client_id": "honest", "note": "ours"})
    for text in (b"honest", b"ours", b"model_weights", b"zstd", b"binary_custom", b"1.0"):
        assert package.count(text) >= 1
        altered = package.replace(text, bytes([text[0] ^ 1]) + text[1:])
        with pytest.raises(SerializationError) as caught:
            serializer.deserialize_comprehensive(altered)
        assert isinstance(caught.value, IntegrityError)


def test_sparse_arrays_are_no_pickles(tmp_path):
    """Its sparse arrays are pickles, which run what they like when they are read."""
    sparse = np.zeros(10_000, np.float32)
    sparse[7] = 1
    data = WeightSerializer().serialize_weights([sparse])
    assert len(data) < 200
    assert b"numpy" not in data
    same(WeightSerializer().deserialize_weights(data)[0], [sparse])

    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "ran"),))

    bomb = pickle.dumps({"shape": (10_000,), "dtype": "float32", "indices": [], "values": Bomb()})
    head = as_the_document_writes([sparse])[: -sparse.nbytes - 13]
    with pytest.raises(SerializationError, match=r"pickle \(flag 1\), which can run code"):
        WeightSerializer().deserialize_weights(head + struct.pack("<IBQ", 0, 1, len(bomb)) + bomb)
    assert list(tmp_path.iterdir()) == []
    pickle.loads(bomb)  # noqa: S301 - what reading it would have done
    assert len(list(tmp_path.iterdir())) == 1


def test_numbers_are_little_endian_on_every_machine():
    """Its header and data are of the machine's own order, and say nothing of it."""
    data = WeightSerializer().serialize_weights(WEIGHTS)
    assert data[8:12] == b"\2\0\0\0"
    assert data == as_the_document_writes(WEIGHTS)
    big = [np.arange(5, dtype=">f4"), np.arange(5, dtype=">i2")]
    same(WeightSerializer().deserialize_weights(WeightSerializer().serialize_weights(big))[0], big)
    serializer = AdvancedSerializer()
    same(serializer.deserialize_comprehensive(serializer.serialize_comprehensive(big)[0])[0], big)


@pytest.mark.parametrize(
    "metadata", [{"loss": float("nan"), "best": [float("-inf"), float("inf")]}, {"fedpost": "x"}, {"fedpost": [1]}]
)
def test_files_that_the_document_wrote_are_read(metadata):
    """Its metadata are what Python writes as JSON, NaN included, and it knows of no reserved key."""
    header = WeightSerializer().deserialize_weights(as_the_document_writes(WEIGHTS, metadata))[1]
    assert repr(header["global_metadata"]) == repr(metadata)


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_counters_of_batches_are_written_and_read(dtype):
    """Every model with BatchNorm has one of 64 bits, which its list of types leaves out and its code takes."""
    weights = [*WEIGHTS, np.array(1 << 40, dtype)]
    same(WeightSerializer().deserialize_weights(WeightSerializer().serialize_weights(weights))[0], weights)
    same(WeightSerializer().deserialize_weights(as_the_document_writes(weights))[0], weights)


def test_shapes_have_64_bits():
    """Its shapes are cut to 32 bits. In FEDWT001, which has no more, such a shape is refused."""
    huge = [np.zeros((2**32 + 1, 0), np.float32)]
    serializer = AdvancedSerializer()
    found, _ = serializer.deserialize_comprehensive(serializer.serialize_comprehensive(huge)[0])
    assert found[0].shape == (2**32 + 1, 0)
    with pytest.raises(SerializationError, match="more than 32 bits"):
        WeightSerializer().serialize_weights(huge)


def test_negative_zeros_and_nans_survive():
    """Its sparse coding drops −0.0, since it equals zero."""
    array = np.zeros(10_000, np.float32)
    array[[3, 5]] = -0.0, np.nan
    same(WeightSerializer().deserialize_weights(WeightSerializer().serialize_weights([array]))[0], [array])
    serializer = AdvancedSerializer()
    same(serializer.deserialize_comprehensive(serializer.serialize_comprehensive([array])[0])[0], [array])


def test_a_sparse_array_is_never_larger_than_the_array():
    """With four indices of 4 bytes for every element its coding of a sparse array can be larger than the array."""
    rng = np.random.default_rng(3)
    array = (rng.random((10, 10, 10, 10)) > 0.901).astype(np.uint8)  # over its threshold
    assert np.count_nonzero(array == 0) / array.size > 0.9
    coo = sum(index.size * 4 for index in np.nonzero(array)) + np.count_nonzero(array)
    assert coo > array.nbytes
    data = WeightSerializer().serialize_weights([array])
    assert len(data) <= len(as_the_document_writes([array]))
    same(WeightSerializer().deserialize_weights(data)[0], [array])


def test_nothing_is_allocated_that_nothing_backs():
    """It allocates what the header claims."""
    head = b"FEDWT001" + struct.pack("<II", 1, 2) + b"{}"
    head += struct.pack("<B2I", 2, 1 << 20, 1 << 14) + b"\7float32" + struct.pack("<Q", 1 << 34)
    with pytest.raises(SerializationError, match="bytes that are allowed") as caught:
        WeightSerializer().deserialize_weights(head)
    assert isinstance(caught.value, LimitError)
    many = b"FEDWT001" + struct.pack("<II", (1 << 32) - 1, 2) + b"{}"
    with pytest.raises(SerializationError, match="4294967295 arrays") as caught:
        WeightSerializer().deserialize_weights(many)
    assert isinstance(caught.value, LimitError)
    bomb, _ = AdvancedSerializer().serialize_comprehensive([np.zeros(1 << 20, np.uint8)])
    with pytest.raises(SerializationError) as caught:
        AdvancedSerializer(limits=Limits(max_raw=1 << 19)).deserialize_comprehensive(bomb)
    assert isinstance(caught.value, LimitError)


def test_errors_are_what_its_users_catch_and_ours_at_once():
    for data in (b"", b"no package", b"\x80\x04N."):
        with pytest.raises(SerializationError) as caught:
            AdvancedSerializer().deserialize_comprehensive(data)
        assert isinstance(caught.value, DecodeError)
        restored = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own
        assert type(restored) is type(caught.value)
