"""Packages: every format with every compression, what stands in the header, and what is compared with what."""

from __future__ import annotations

import collections
import datetime as dt
from dataclasses import dataclass

import ml_dtypes
import msgspec
import numpy as np
import pytest

from fedpost.compat.kafkafl import (
    AdvancedSerializer,
    CompressionType,
    SerializationError,
    SerializationFormat,
    SerializationProfiler,
)
from fedpost.errors import DecodeError, EncodeError, IntegrityError, LimitError, UnsupportedError
from fedpost.frame import DEFAULT_LIMITS, Frame, Limits, Part, PartAssembler
from fedpost.frame import frame as frame_module
from fedpost.frame import header as header_module
from fedpost.objects import new_registry, register
from fedpost.pipeline import Pipeline, decode_tensors
from fedpost.telemetry import Telemetry
from fedpost.testing.samples import assert_same_tensors

MODEL = {
    "dense": np.random.default_rng(3).standard_normal((50, 40)).astype(np.float32),
    "zeros": np.zeros(9000, np.float64),
    "nan": np.array([np.nan, -0.0, np.inf], np.float16),
    "bfloat16": np.arange(6).astype(ml_dtypes.bfloat16).reshape(2, 3),
    "big": np.arange(4, dtype=">i8"),
    "scalar": np.array(3, np.uint8),
    "empty": np.zeros((0, 5), np.bool_),
    "é": np.arange(3, dtype=np.complex64),
}


class Sink:
    def __init__(self):
        self.records = []

    def record(self, record):
        self.records.append(record)


@pytest.mark.parametrize("compression", CompressionType)
@pytest.mark.parametrize("layout", SerializationFormat)
def test_every_format_with_every_compression(layout, compression):
    serializer = AdvancedSerializer({"default_format": layout, "default_compression": compression})
    package, metadata = serializer.serialize_comprehensive(MODEL, "gradients")
    found, again = AdvancedSerializer().deserialize_comprehensive(package)
    assert_same_tensors(found, MODEL)
    assert metadata == again
    assert (again.format, again.compression) == (layout, compression)
    assert (metadata.compressed_size == metadata.original_size) == (compression == "none")
    arrays = list(MODEL.values())
    as_list, _ = serializer.deserialize_comprehensive(serializer.serialize_comprehensive(arrays)[0])
    assert type(as_list) is list
    assert_same_tensors(dict(enumerate(as_list)), dict(enumerate(arrays)))
    rows = [(name, np.dtype(array.dtype), array.shape) for name, array in MODEL.items()]
    info = serializer.inspect(package)
    assert [(name, shape) for name, _, shape in info.arrays] == [(name, shape) for name, _, shape in rows]
    assert info.arrays[3][1] == "bfloat16"


@pytest.mark.parametrize("algorithm", ["sha256", "blake3", "xxh3", "crc32c"])
def test_the_checksum_is_the_configured_one(algorithm):
    serializer = AdvancedSerializer({"checksum_algorithm": algorithm})
    package, metadata = serializer.serialize_comprehensive(MODEL)
    assert Frame.decode(package).checksum == algorithm
    _, again = serializer.serialize_comprehensive({**MODEL, "scalar": np.array(4, np.uint8)})
    assert len(metadata.checksum) == len(again.checksum)
    assert metadata.checksum != again.checksum
    assert serializer.serialize_comprehensive(MODEL)[1].checksum == metadata.checksum


def test_the_checksum_covers_a_small_object_too():
    serializer = AdvancedSerializer()
    sums = {serializer.serialize_comprehensive(value, "metadata")[1].checksum for value in ({"a": 1}, {"a": 2}, None)}
    assert len(sums) == 3
    _, metadata = serializer.serialize_comprehensive({"a": 1}, "metadata")
    assert 0 < metadata.original_size == metadata.compressed_size


def test_a_large_object_has_a_segment_of_its_own():
    serializer = AdvancedSerializer()
    value = {f"key {number}": number for number in range(50_000)}
    package, metadata = serializer.serialize_comprehensive(value, "generic")
    frame = Frame.decode(package)
    assert (frame.raw_size(0), frame.stored_size(0)) == (metadata.original_size, metadata.compressed_size)
    assert metadata.compressed_size < metadata.original_size / 2
    assert serializer.deserialize_comprehensive(package)[0] == value


def test_a_package_is_a_frame_that_any_fedpost_reads():
    package, _ = AdvancedSerializer().serialize_comprehensive(MODEL, metadata={"note": "x"})
    frame = Frame.decode(package)
    assert frame.section_names == ("pipeline", "tensors", "serialization", "metadata")
    assert_same_tensors(decode_tensors(frame).arrays(), MODEL)


def test_dense_arrays_are_views():
    serializer = AdvancedSerializer({"default_compression": "none"})
    array = np.arange(5000.0)
    frame, _ = serializer.serialize_frame([array])
    assert any(np.shares_memory(np.frombuffer(buffer, np.uint8), array) for buffer in frame.buffers())
    package = bytes(frame)
    (found,), _ = serializer.deserialize_comprehensive(package)
    assert np.shares_memory(found, np.frombuffer(package, np.uint8))
    assert not found.flags.writeable


def test_what_else_is_said_is_kept():
    serializer = AdvancedSerializer()
    given = {"model_version": "2", "round_number": 0, "privacy_applied": True, "noise_scale": 0.5, "layers": ["a"]}
    package, metadata = serializer.serialize_comprehensive(MODEL, metadata=given)
    info = serializer.inspect(package)
    assert (metadata.model_version, metadata.client_id, metadata.round_number) == ("2", None, 0)
    assert info.metadata == metadata
    assert info.extra == {"privacy_applied": True, "noise_scale": 0.5, "layers": ["a"]}
    assert len(given) == 5  # the caller's own is not touched


@pytest.mark.parametrize(
    ("metadata", "what"),
    [
        ({"model_version": b"2"}, "got `bytes` - at `model_version`"),
        ({"round_number": np.float32(1.5)}, "round_number"),
        ({"extra": np.zeros(3)}, "cannot be encoded"),
        ({"client_id": b"a"}, "client_id"),
        ({"client_id": "a" * 1025}, "client_id"),
        ({"client_id": "\ud800"}, "cannot be encoded"),
        ({"round_number": 1.5}, "round_number"),
        ({"round_number": 1 << 70}, "cannot be encoded"),
        ({"extra": object()}, "cannot be encoded"),
        ({3: 4}, "cannot be read back"),
        ({"extra": "x" * (2 << 20)}, "cannot be read back"),
        ("text", "metadata are a mapping, not str"),
    ],
)
def test_metadata_that_cannot_be_sent(metadata, what):
    with pytest.raises(SerializationError, match=what) as caught:
        AdvancedSerializer().serialize_comprehensive(MODEL, metadata=metadata)
    assert isinstance(caught.value, EncodeError)


def test_metadata_of_numpy_is_kept_as_python_s():
    serializer = AdvancedSerializer()
    given = {"model_version": np.int32(2), "round_number": np.int64(3), "client_id": np.str_("site")}
    extra = {"loss": np.float32(0.5), "hits": (np.uint8(7), [np.bool_(True)]), "deep": {"half": np.float16(0.25)}}
    package, metadata = serializer.serialize_comprehensive(MODEL, metadata={**given, **extra})
    assert repr((metadata.model_version, metadata.round_number, metadata.client_id)) == "('2', 3, 'site')"
    assert repr(serializer.inspect(package).extra) == repr({"loss": 0.5, "hits": [7, [True]], "deep": {"half": 0.25}})
    for version, kept in ((None, "1.0"), (2, "2"), (0.5, "0.5")):
        _, metadata = serializer.serialize_comprehensive(MODEL, metadata={"model_version": version, "client_id": None})
        assert (metadata.model_version, metadata.client_id) == (kept, None)


ARRAYS = [np.arange(3.0), np.zeros((2, 2), np.int8)]


@pytest.mark.parametrize("data_type", ["model_weights", "aggregation_result"])
@pytest.mark.parametrize(
    "data",
    [
        tuple(ARRAYS),
        (),
        collections.OrderedDict(b=ARRAYS[0], a=ARRAYS[1]),
        [np.float32(1.5), ARRAYS[0]],
        {"w": ARRAYS[0], "steps": np.int64(7)},
        [np.ma.array([1.0, 2.0], mask=[False, True])],
        collections.deque(ARRAYS),
    ],
    ids=lambda data: type(data).__name__,
)
def test_what_comes_back_is_of_the_type_that_was_sent(data_type, data):
    for layout in SerializationFormat:
        serializer = AdvancedSerializer({"default_format": layout})
        package, metadata = serializer.serialize_comprehensive(data, data_type)
        found, again = serializer.deserialize_comprehensive(package)
        assert metadata == again
        assert repr(found) == repr(data)
        values = (list(one.values()) if isinstance(one, dict) else list(one) for one in (found, data))
        for one, other in zip(*values, strict=True):
            assert (type(one), one.dtype, one.shape) == (type(other), other.dtype, other.shape)


def test_an_array_of_another_class_is_refused_by_its_place():
    with pytest.raises(SerializationError, match="recarray") as caught:
        AdvancedSerializer().serialize_comprehensive([ARRAYS[0], np.array([1.0]).view(np.recarray)])
    assert caught.value.where == "$[1]"


def test_a_mapped_array_is_a_model_like_others(tmp_path):
    np.save(tmp_path / "w.npy", ARRAYS[0])
    mapped = np.load(tmp_path / "w.npy", mmap_mode="r")
    serializer = AdvancedSerializer({"default_format": "msgpack"})
    package, _ = serializer.serialize_comprehensive([mapped])
    (found,), _ = serializer.deserialize_comprehensive(package)
    assert type(found) is np.ndarray
    assert found.tolist() == [0.0, 1.0, 2.0]


def test_the_header_is_not_decoded_more_often_than_it_is_read_back(monkeypatch):
    """What stands in the header of many small tensors costs as much as they do."""
    decoded = []
    honest = frame_module.read_header
    monkeypatch.setattr(frame_module, "read_header", lambda *given: decoded.append(1) or honest(*given))
    monkeypatch.setattr(header_module, "read_header", lambda *given: decoded.append(1) or honest(*given))
    package, _ = AdvancedSerializer().serialize_comprehensive(MODEL)
    assert len(decoded) == 1
    AdvancedSerializer().deserialize_comprehensive(package)
    assert len(decoded) == 2


@pytest.mark.parametrize("data_type", ["model_weights", "gradients", "weight_update"])
@pytest.mark.parametrize("data", [None, "text", b"bytes", np.zeros((2, 2)), 3, [1, 2], {"a": None}, {1: np.zeros(1)}])
def test_what_is_no_model(data_type, data):
    with pytest.raises(SerializationError) as caught:
        AdvancedSerializer().serialize_comprehensive(data, data_type)
    assert isinstance(caught.value, EncodeError)


@pytest.mark.parametrize("data_type", [None, 3, ["model_weights"], "x" * 1025])
def test_what_is_no_data_type(data_type):
    with pytest.raises(SerializationError) as caught:
        AdvancedSerializer().serialize_comprehensive(MODEL, data_type)
    assert isinstance(caught.value, EncodeError)


def test_no_arrays_at_all():
    serializer = AdvancedSerializer()
    for data in ([], {}):
        package, metadata = serializer.serialize_comprehensive(data)
        assert serializer.deserialize_comprehensive(package) == (data, metadata)
        assert (metadata.original_size, metadata.compressed_size) == (0, 0)


@pytest.mark.parametrize("compression", CompressionType)
@pytest.mark.parametrize("layout", SerializationFormat)
def test_objects_come_back_as_they_were(layout, compression):
    value = {
        "weights": [np.arange(3000.0), np.zeros(5, ml_dtypes.bfloat16)],
        "tuple": (1, {2.5}, b"x", bytearray(b"y")),
        "when": dt.date(2024, 2, 29),
        3: None,
    }
    serializer = AdvancedSerializer({"default_format": layout, "default_compression": compression})
    package, metadata = serializer.serialize_comprehensive(value, "aggregation_result")
    found, again = AdvancedSerializer().deserialize_comprehensive(package)
    assert repr(found) == repr(value)
    assert found["weights"][0].dtype == np.float64
    assert metadata == again
    assert metadata.original_size > 24_000
    assert serializer.inspect(package).arrays == ()


def test_types_must_be_registered_where_they_are_read():
    registry = new_registry()

    @register(name="test.Point", registry=registry)
    @dataclass
    class Point:
        x: int

    package, _ = AdvancedSerializer(registry=registry).serialize_comprehensive({"at": Point(3)}, "generic")
    assert AdvancedSerializer(registry=registry).deserialize_comprehensive(package)[0] == {"at": Point(3)}
    with pytest.raises(SerializationError, match=r"test\.Point") as caught:
        AdvancedSerializer(registry=new_registry()).deserialize_comprehensive(package)
    assert isinstance(caught.value, UnsupportedError)
    with pytest.raises(SerializationError) as caught:
        AdvancedSerializer().serialize_comprehensive({"x": object()}, "generic")
    assert isinstance(caught.value, EncodeError)


# ── validation ───────────────────────────────────────────────────────────────────────────────────────────────────────


def relabelled(package, **changes):
    """The package with other metadata and right digests, as somebody makes it who means harm."""
    frame = Frame.decode(package)
    header = frame.section("serialization", dict)
    sections = {
        name: {**header, **changes} if name == "serialization" else frame.section(name, msgspec.Raw)
        for name in frame.section_names
    }
    rebuilt = Frame(
        b"", msgspec.structs.replace(frame._header, sections=[]), frame._stored, unverified=bytearray(), minor=0
    )
    rebuilt._sections = {}
    return bytes(rebuilt.with_sections(sections))


@pytest.mark.parametrize("layout", ["binary_custom", "msgpack"])
@pytest.mark.parametrize(
    ("changes", "what", "kind"),
    [
        ({"checksum": "00"}, "checksum is not that of the data", IntegrityError),
        ({"original_size": 7}, "7 bytes", DecodeError),
        ({"compressed_size": 7}, "7 compressed", DecodeError),
        ({"format": "json_base64"}, "its format is json_base64", DecodeError),
        ({"format": "pickle"}, "Invalid enum value 'pickle'", DecodeError),
        ({"compression": "gzip"}, "its compression is gzip", DecodeError),
        ({"container": "object"}, "the data are an object, and they are none", DecodeError),
        ({"container": "list"}, "not named by their places", DecodeError),
        ({"container": "tuple"}, "not named by their places", DecodeError),
        ({"container": "set"}, "Invalid enum value 'set'", DecodeError),
        ({"timestamp": float("nan")}, "its time is no number", DecodeError),
        ({"original_size": -1}, "original_size", DecodeError),
        ({"client_id": 3}, "client_id", DecodeError),
        ({"data_type": "x" * 2000}, "data_type", DecodeError),
        ({"specs": [["a"], b"\1", [3], ["float32"], [0]]}, "there are 8", DecodeError),
        ({"specs": [["a"] * 8, bytes(8), [], ["float32"], [0] * 8]}, "the array is dense", DecodeError),
        ({"specs": [["a"], b"\2", [3], ["float32"], [0]]}, "different lengths", DecodeError),
        ({"specs": [["a"], b"\1", [3], ["float32"], [1]]}, "not in the list", DecodeError),
    ],
)
def test_metadata_that_lie(layout, changes, what, kind):
    package, _ = AdvancedSerializer({"default_format": layout}).serialize_comprehensive(MODEL)
    assert relabelled(package) == package
    with pytest.raises(SerializationError, match=what) as caught:
        AdvancedSerializer().deserialize_comprehensive(relabelled(package, **changes))
    assert isinstance(caught.value, kind)


def test_an_object_that_says_it_is_a_model():
    package, _ = AdvancedSerializer().serialize_comprehensive({"text": 1}, "metadata")
    for kind in ("model_weights", "gradients", "weight_update"):
        with pytest.raises(SerializationError, match="the data are no model"):
            AdvancedSerializer().deserialize_comprehensive(relabelled(package, data_type=kind))


def test_formats_without_a_table_in_the_header_must_say_what_they_hold():
    package, _ = AdvancedSerializer({"default_format": "msgpack"}).serialize_comprehensive(MODEL)
    with pytest.raises(SerializationError, match="says nothing of the arrays"):
        AdvancedSerializer().deserialize_comprehensive(relabelled(package, specs=None))


def test_without_validation_lies_that_do_no_harm_are_not_looked_for():
    package, _ = AdvancedSerializer().serialize_comprehensive(MODEL)
    lying = relabelled(package, original_size=7)
    trusting = AdvancedSerializer({"validate_on_deserialize": False})
    found, metadata = trusting.deserialize_comprehensive(lying)
    assert_same_tensors(found, MODEL)
    assert metadata.original_size == 7
    with pytest.raises(SerializationError):  # digests are always checked
        trusting.deserialize_comprehensive(package[:-1] + bytes([package[-1] ^ 1]))


@pytest.mark.parametrize("layout", SerializationFormat)
def test_serializing_reads_the_header_and_the_tables_back(layout, monkeypatch):
    """A format that writes something else than it was given is found out, without decoding the data again."""
    honest = Pipeline.encode

    def swapping(self, tensors, sections=None):
        return honest(self, {name: array.astype(np.float32) for name, array in tensors.items()}, sections)

    monkeypatch.setattr(Pipeline, "encode", swapping)
    weights = [np.arange(3, dtype=np.float64)]
    if layout == "binary_custom":
        with pytest.raises(SerializationError, match="something else than what was given"):
            AdvancedSerializer({"default_format": layout}).serialize_comprehensive(weights)
    AdvancedSerializer({"default_format": layout, "validate_on_serialize": False}).serialize_comprehensive(weights)


def test_a_package_that_no_receiver_would_take_is_refused_when_it_is_made():
    limits = Limits(max_raw=1000)
    with pytest.raises(SerializationError, match="cannot be read back"):
        AdvancedSerializer(limits=limits).serialize_comprehensive([np.zeros(1000)])
    package, _ = AdvancedSerializer({"validate_on_serialize": False}, limits=limits).serialize_comprehensive(
        [np.zeros(1000)]
    )
    with pytest.raises(SerializationError) as caught:
        AdvancedSerializer(limits=limits).deserialize_comprehensive(package)
    assert isinstance(caught.value, LimitError)


@pytest.mark.parametrize("data", [None, "text", 3, [1]])
def test_what_is_no_bytes(data):
    with pytest.raises(SerializationError, match="a package is bytes"):
        AdvancedSerializer().deserialize_comprehensive(data)


def test_a_frame_that_is_no_package():
    with pytest.raises(SerializationError, match="no section 'serialization'"):
        AdvancedSerializer().deserialize_comprehensive(bytes(Pipeline().encode(MODEL)))


# ── time, telemetry, parts ───────────────────────────────────────────────────────────────────────────────────────────


def test_what_takes_too_long_is_stopped_between_stages():
    package, _ = AdvancedSerializer().serialize_comprehensive(MODEL)
    slow = AdvancedSerializer(max_serialization_time=1e-9)
    with pytest.raises(SerializationError, match=r"s after encoding, 1e-09 s allowed") as caught:
        slow.serialize_comprehensive(MODEL)
    assert caught.value.where == "max_serialization_time"
    with pytest.raises(SerializationError, match="s after verifying, 1e-09 s allowed"):
        slow.deserialize_comprehensive(package)
    AdvancedSerializer(max_serialization_time=60.0).deserialize_comprehensive(package)


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan")])
def test_a_budget_that_is_none(seconds):
    with pytest.raises(ValueError, match="max_serialization_time: not a time"):
        AdvancedSerializer(max_serialization_time=seconds)


def test_operations_are_told():
    sink, profiler = Sink(), SerializationProfiler()
    serializer = AdvancedSerializer(telemetry=Telemetry(sink, profiler))
    package, metadata = serializer.serialize_comprehensive(MODEL)
    serializer.deserialize_comprehensive(package)
    with pytest.raises(SerializationError):
        serializer.deserialize_comprehensive(package[:-1])
    assert [(record.name, record.values["failed"]) for record in sink.records] == [
        ("serialization", False),
        ("deserialization", False),
        ("deserialization", True),
    ]
    sizes = (metadata.original_size, metadata.compressed_size)
    assert [(record.values["raw"], record.values["stored"]) for record in sink.records] == [sizes, sizes, (0, 0)]
    report = profiler.get_performance_report()
    assert report["compression_ratios"]["mean"] == pytest.approx(sizes[0] / sizes[1])
    assert report["error_rates"]["mean"] == pytest.approx(1 / 3)
    assert [s.error_rate for s in profiler.profiler.report().stages] == [0.0, 0.5]


def test_a_package_in_parts_and_back(tmp_path):
    serializer = AdvancedSerializer({"default_compression": "none", "chunk_size": 8192})
    package, metadata = serializer.serialize_comprehensive(MODEL)
    messages = [bytes(part) for part in serializer.iter_parts(package)]
    assert len(messages) > 8
    assert max(map(len, messages)) <= 8192
    frame, _ = serializer.serialize_frame(MODEL)
    assert len(serializer.iter_parts(frame)) == len(messages)
    with PartAssembler(tmp_path) as assembler:
        for message in reversed(messages):
            transfer = assembler.add(Part.decode(message))
        found, again = serializer.deserialize_comprehensive(transfer.open())
        assert_same_tensors(found, MODEL)
        assert again == metadata
    with pytest.raises(SerializationError):
        serializer.iter_parts(package[:-1])
    whole = AdvancedSerializer({"enable_chunking": False})
    (only,) = whole.iter_parts(package)
    assert len(bytes(only)) > len(package)
    assert DEFAULT_LIMITS.max_frame > len(package)
