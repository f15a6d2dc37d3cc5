"""Packages that were altered, lie, or ask for too much: a serialization error each time, and nothing is allocated."""

from __future__ import annotations

import random
import struct
import tracemalloc

import msgpack
import msgspec
import numpy as np
import pytest

from fedpost.compat.kafkafl import (
    AdvancedSerializer,
    CompressionOptimizer,
    CompressionType,
    DifferentialUpdateManager,
    ProtocolBufferSerializer,
    SerializationError,
    SerializationFormat,
    WeightSerializer,
)
from fedpost.errors import DecodeError, IntegrityError, LimitError, TruncatedError
from fedpost.frame import Frame, Limits

SMALL = [np.arange(6, dtype=np.float32).reshape(2, 3), np.zeros(600), np.array([True])]
SPARE = 4 << 20
PAIRS = [(layout, compression) for layout in SerializationFormat for compression in CompressionType]


def small(layout, compression):
    serializer = AdvancedSerializer({"default_format": layout, "default_compression": compression})
    return serializer, serializer.serialize_comprehensive(SMALL, metadata={"client_id": "a", "note": "b"})[0]


def refused(read, data, kind=DecodeError):
    with pytest.raises(SerializationError) as caught:
        read(data)
    assert isinstance(caught.value, kind)
    return caught.value


@pytest.mark.parametrize(("layout", "compression"), PAIRS)
def test_every_byte_of_a_small_package(layout, compression):
    serializer, good = small(layout, compression)
    data = bytearray(good)
    for position in range(len(data)):
        data[position] ^= 0xFF
        kind = IntegrityError if position >= 24 else DecodeError
        refused(serializer.deserialize_comprehensive, bytes(data), kind)
        data[position] ^= 0xFF ^ (1 << position % 8)
        refused(serializer.deserialize_comprehensive, bytes(data), kind)
        data[position] = good[position]
    serializer.deserialize_comprehensive(bytes(data))


@pytest.mark.parametrize("compression", CompressionType)
def test_every_byte_of_a_small_object(compression):
    serializer = AdvancedSerializer({"default_compression": compression})
    value = {"weights": [np.zeros(600)], "note": ("a", {1})}
    good = serializer.serialize_comprehensive(value, "aggregation_result")[0]
    for position in range(len(good)):
        data = bytearray(good)
        data[position] ^= 1 << position % 8
        refused(serializer.deserialize_comprehensive, bytes(data), IntegrityError if position >= 24 else DecodeError)


@pytest.mark.parametrize(("layout", "compression"), PAIRS)
def test_truncation_and_what_follows(layout, compression):
    serializer, good = small(layout, compression)
    for size in range(0, len(good), 7):
        refused(serializer.deserialize_comprehensive, good[:size], TruncatedError)
    for tail in (b"\0", bytes(64), good):
        refused(serializer.deserialize_comprehensive, good + tail)


@pytest.mark.parametrize(("layout", "compression"), PAIRS)
def test_altered_parts(layout, compression):
    """Two packages of the same size, cut and mixed."""
    serializer, good = small(layout, compression)
    other = serializer.serialize_comprehensive(SMALL, metadata={"client_id": "c", "note": "d"})[0]
    assert len(good) == len(other)
    for cut in range(64, len(good), 61):
        mixed = good[:cut] + other[cut:]
        if mixed not in (good, other):
            refused(serializer.deserialize_comprehensive, mixed, IntegrityError)


# ── right digests, wrong content ─────────────────────────────────────────────────────────────────────────────────────


def forged(forge, package, changes=None, drop=(), **sections):
    """The package's header under a fresh digest, with other sections."""
    frame = Frame.decode(package)
    found = {name: msgpack.unpackb(frame.section(name, msgspec.Raw)) for name in frame.section_names}
    found["serialization"] = {**found["serialization"], **(changes or {})}
    found = {name: value for name, value in {**found, **sections}.items() if name not in drop}
    stored = [bytes(frame.segment(index)) for index in range(len(frame))]
    return forge.sections(found, *stored)


@pytest.fixture
def plain():
    return AdvancedSerializer({"default_compression": "none", "checksum_algorithm": "blake3"})


def test_the_forger_s_pen_writes_what_we_write(forge, plain):
    package = plain.serialize_comprehensive(SMALL)[0]
    found, _ = plain.deserialize_comprehensive(forged(forge, package))
    assert [array.tobytes() for array in found] == [array.tobytes() for array in SMALL]


@pytest.mark.parametrize(
    "changes",
    [
        {"original_size": 1 << 63},
        {"compressed_size": (1 << 64) - 1},
        {"original_size": 0, "compressed_size": 0},
        {"checksum": ""},
        {"checksum": "f" * 64},
        {"checksum": "f" * 100_000},
        {"timestamp": float("inf")},
        {"timestamp": "now"},
        {"format": "protobuf"},
        {"format": ["binary_custom"]},
        {"compression": "zstandard"},
        {"container": "pickle"},
        {"container": "object"},
        {"data_type": None},
        {"data_type": "x" * 100_000},
        {"client_id": "x" * 100_000},
        {"round_number": "1"},
        {"model_version": 1.0},
        {"specs": []},
        {"specs": [["a", "a", "a"], bytes(3), [], ["float32"], [0, 0, 0]]},
        {"specs": [[], b"\xff", [1] * 255, [], []]},
        {"specs": [["0", "1", "2"], b"\1\1\1", [1 << 63] * 3, ["float32"], [0, 0, 0]]},
        {"specs": [["0", "1", "2"], b"\2\1\1", [2, 3, 600, 1], ["float32", "float64", "object"], [0, 1, 2]]},
    ],
    ids=str,
)
def test_lying_metadata(forge, plain, changes):
    package = plain.serialize_comprehensive(SMALL)[0]
    refused(plain.deserialize_comprehensive, forged(forge, package, changes))


@pytest.mark.parametrize("container", ["list", "dict"])
def test_an_object_that_says_it_is_a_model(forge, plain, container):
    package = plain.serialize_comprehensive({"a": (1, 2)}, "metadata")[0]
    assert plain.deserialize_comprehensive(forged(forge, package))[0] == {"a": (1, 2)}
    refused(plain.deserialize_comprehensive, forged(forge, package, {"container": container}))
    refused(plain.deserialize_comprehensive, forged(forge, package, {"data_type": "gradients"}))
    refused(plain.deserialize_comprehensive, forged(forge, package, drop=("object",)))


def test_missing_sections(forge, plain):
    package = plain.serialize_comprehensive(SMALL)[0]
    for name in ("serialization", "pipeline", "tensors"):
        refused(plain.deserialize_comprehensive, forged(forge, package, drop=(name,)))
        refused(plain.inspect, forged(forge, package, drop=("serialization",)))
    refused(plain.deserialize_comprehensive, forged(forge, package, serialization={"format": "binary_custom"}))
    refused(plain.deserialize_comprehensive, forged(forge, package, serialization=[1, 2]))
    refused(plain.inspect, forged(forge, package, metadata=[1]))
    refused(plain.inspect, forged(forge, package, metadata={"x": "y" * (2 << 20)}), LimitError)


def test_a_pipeline_that_names_what_is_not_there(forge, plain):
    package = plain.serialize_comprehensive(SMALL)[0]
    for spec in (
        "cast(bfloat16) | fedwt | none",
        "dense | pickle | none",
        "os.system | fedwt | none",
        "dense | fedwt | none | fedwt",
        "x" * 5000,
    ):
        refused(plain.deserialize_comprehensive, forged(forge, package, pipeline=spec))


def peak(read, data, kind):
    """Refused, and by how much memory grew while it was."""
    tracemalloc.start()
    try:
        refused(read, data, kind)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_huge_counts_in_the_tables(forge, plain):
    package = plain.serialize_comprehensive(SMALL)[0]
    table = [["0", "1", "2"], b"\1\1\1", [1 << 50, 1, 1], [0, 1, 2], ["float32", "float64", "bool"], [0, 1, 2], []]
    assert peak(plain.deserialize_comprehensive, forged(forge, package, tensors=table), DecodeError) < SPARE
    foreign = AdvancedSerializer(
        {"default_format": "msgpack", "default_compression": "none", "checksum_algorithm": "blake3"}
    )
    package = foreign.serialize_comprehensive(SMALL)[0]
    assert peak(foreign.deserialize_comprehensive, forged(forge, package, tensors_msgpack=1 << 40), LimitError) < SPARE


@pytest.mark.parametrize("limits", [Limits(max_raw=1 << 24), Limits(max_ratio=200)])
@pytest.mark.parametrize("compression", ["zstd", "gzip", "lz4"])
def test_a_bomb(limits, compression):
    """64 MiB of zeros in a few kB, with every digest right."""
    bomb, _ = AdvancedSerializer({"default_compression": compression}).serialize_comprehensive([np.zeros(1 << 23)])
    assert len(bomb) < 1 << 19
    reader = AdvancedSerializer(limits=limits)
    assert peak(reader.deserialize_comprehensive, bomb, LimitError) < SPARE


HUGE = struct.pack("<II", 1, 2) + b"{}"


@pytest.mark.parametrize(
    ("label", "data"),
    [
        ("arrays", b"FEDWT001" + struct.pack("<II", (1 << 32) - 1, 2) + b"{}"),
        ("metadata", b"FEDWT001" + struct.pack("<II", 1, (1 << 32) - 1) + b"{}"),
        ("elements", b"FEDWT001" + HUGE + struct.pack("<B1I", 1, (1 << 32) - 1) + b"\7float32" + b"\xff" * 8),
        ("dimensions", b"FEDWT001" + HUGE + b"\xff" + b"\xff" * 1020 + b"\7float32" + b"\xff" * 8),
        (
            "a sparse array",
            b"FEDWT001"
            + HUGE
            + struct.pack("<B1I", 1, 1 << 31)
            + b"\5uint8"
            + struct.pack("<Q", 1 << 31)
            + struct.pack("<IBQ", 0, 2, 16)
            + struct.pack("<QB7s", 0, 1, bytes(7)),
        ),
        ("a pickle", b"FEDWT001" + HUGE + b"\0\5uint8" + struct.pack("<QIBQ", 1, 0, 1, 2) + b"N."),
        ("nested metadata", b"FEDWT001" + struct.pack("<II", 0, 1 << 22) + b"[" * (1 << 22)),
    ],
)
def test_fedwt001_that_asks_for_too_much(label, data):
    serializer = WeightSerializer()
    assert peak(serializer.deserialize_weights, data, DecodeError) < len(data) * 2 + SPARE


def test_every_byte_of_fedwt001():
    """The layout has no digest: what is read may be wrong, but nothing else happens."""
    serializer = WeightSerializer()
    good = serializer.serialize_weights([*SMALL, np.ones(3, np.int8)], {"a": 1})
    head = len(good) - sum(array.nbytes for array in (SMALL[0], SMALL[2], np.ones(3, np.int8)))
    refusals = 0
    for position in range(len(good)):
        for mask in (1, 0x80, 0xFF):
            data = bytearray(good)
            data[position] ^= mask
            try:
                serializer.deserialize_weights(bytes(data))
            except SerializationError as error:
                assert isinstance(error, DecodeError)  # noqa: PT017 - it may also be read
                refusals += 1
    assert refusals > head


def test_random_bytes_in_protocol_buffers():
    serializer = ProtocolBufferSerializer()
    good = serializer.serialize_weights_protobuf(SMALL, {"a": "b"})
    rng = random.Random(3)
    refusals = 0
    for _ in range(3000):
        data = bytearray(good)
        data[rng.randrange(min(200, len(data)))] = rng.randrange(256)
        try:
            serializer.deserialize_weights_protobuf(bytes(data))
        except SerializationError as error:
            assert isinstance(error, DecodeError)  # noqa: PT017
            refusals += 1
    assert refusals > 100


# ── differential updates and compressed gradients ────────────────────────────────────────────────────────────────────


def differential():
    """A receiver, and an update that it takes."""
    sender, receiver = DifferentialUpdateManager(), DifferentialUpdateManager()
    receiver.apply_differential_update("a", sender.create_differential_update("a", SMALL)[0])
    assert sender.acknowledge("a")
    return receiver, sender.create_differential_update("a", [SMALL[0] + 5, *SMALL[1:]])[0]


def other(forge, data, **sections):
    """The frame with other sections, under right digests."""
    frame = Frame.decode(data)
    found = {name: msgpack.unpackb(frame.section(name, msgspec.Raw)) for name in frame.section_names}
    for name, changes in sections.items():
        found[name] = {**found[name], **changes} if isinstance(changes, dict) else changes
    return forge.sections(found, *(bytes(frame.segment(index)) for index in range(len(frame))))


@pytest.mark.parametrize(
    "sections",
    [
        {"differential": {"client_id": "b"}},
        {"differential": {"client_id": None}},
        {"differential": {"client_id": "x" * 100_000}},
        {"differential": {"result": bytes(16)}},
        {"differential": {"result": "x" * 16}},
        {"differential": []},
        {"update": {"base": bytes(16)}},
        {"update": {"base": None}},
        {"update": {"whole": ["0", "nobody"]}},
        {"update": {"whole": "0"}},
        {"update": []},
        {"pipeline": "dense | fedwt | none"},
        {"pipeline": "uq(2) | fedwt | none"},
        {"pipeline": "pickle | fedwt | none"},
        {"tensors": [["9"], b"\2", [2, 3], [0], ["float32"], [0]]},
        {"tensors": [["0"], b"\2", [3, 2], [0], ["float32"], [0]]},
        {"tensors": [["0"], b"\2", [1 << 40, 1 << 40], [0], ["float32"], [0]]},
    ],
    ids=lambda sections: str(sections)[:60],
)
def test_lying_differential_updates(forge, sections):
    receiver, update = differential()
    before = [array.tobytes() for array in receiver.previous_weights["a"]]
    plain = other(forge, update)
    refused(lambda data: receiver.apply_differential_update("a", data), other(forge, update, **sections))
    assert [array.tobytes() for array in receiver.previous_weights["a"]] == before
    found = receiver.apply_differential_update("a", plain)
    assert found[0].tobytes() == (SMALL[0] + 5).tobytes()


@pytest.mark.parametrize("specs", [[["0"], b"\2", [1 << 30, 1 << 30], ["float64"], [0]], None, [[], b"", [], [], []]])
def test_gradients_that_ask_for_too_much(forge, specs):
    """What is relative to nothing says what it is; that is believed as far as there are bytes for it."""
    data = CompressionOptimizer().compression_strategies["gradients"]([SMALL[0]])
    reader = CompressionOptimizer()
    assert peak(reader.decompress, other(forge, data, compressed={"specs": specs}), DecodeError) < SPARE
    wide = CompressionOptimizer().compression_strategies["gradients"]([np.zeros((4096, 1024), np.float32)])
    assert len(wide) < 1 << 16
    limited = CompressionOptimizer(limits=Limits(max_raw=1 << 20))
    assert peak(limited.decompress, wide, LimitError) < SPARE
    for name in ("uq(2)", "sign", "dense", "cast(float16)"):
        refused(reader.decompress, other(forge, data, pipeline=f"{name} | fedwt | zstd(3)"))


def test_random_bytes_in_updates_and_gradients():
    """Digests are right, and the bytes below are noise: an error, or arrays of what was said."""
    rng = random.Random(5)
    data = CompressionOptimizer().compression_strategies["gradients"]([SMALL[0], np.ones((20, 30))])
    frame = Frame.decode(data)
    sections = {name: frame.section(name, msgspec.Raw) for name in frame.section_names}
    refusals = 0
    for _ in range(300):
        segments = []
        for index in range(len(frame)):
            segment = bytearray(frame.segment(index))
            segment[rng.randrange(len(segment))] = rng.randrange(256)
            segments.append(memoryview(segment))
        try:
            found = CompressionOptimizer().decompress(bytes(Frame.build(sections, segments)))
        except SerializationError as error:
            assert isinstance(error, DecodeError)  # noqa: PT017 - it may also be read
            refusals += 1
            continue
        assert [(array.dtype, array.shape) for array in found] == [(SMALL[0].dtype, (2, 3)), (np.float64, (20, 30))]
        assert all(np.isfinite(array).all() for array in found)
    assert 0 < refusals < 300
