"""Differential updates: what counts as a change, what both sides know, and what a wrong call gets."""

from __future__ import annotations

import random

import numpy as np
import pytest

from fedpost.codecs import Base
from fedpost.compat.kafkafl import AdvancedSerializer, DifferentialUpdateManager, SerializationError, load_settings
from fedpost.compat.kafkafl.references import Reference, fit, length
from fedpost.errors import ConfigError, DecodeError, EncodeError, IntegrityError
from fedpost.frame import Frame

WEIGHTS = [np.arange(1, 25, dtype=np.float32).reshape(4, 6), np.ones(3), np.array(7, np.int64)]


def bits(arrays):
    return [(a.dtype, a.shape, a.tobytes()) for a in arrays]


def pair(codec="delta", settings=None):
    sender = DifferentialUpdateManager(settings, codec=codec)
    receiver = DifferentialUpdateManager(settings, codec=codec)
    update, _ = sender.create_differential_update("a", WEIGHTS)
    receiver.apply_differential_update("a", update)
    assert sender.acknowledge("a", receiver.digest_of("a"))
    return sender, receiver


@pytest.mark.parametrize("codec", ["delta", "uq(0.5)", "int8", "eden(4)", "topk(0.5)"])
@pytest.mark.parametrize("compression", ["none", "gzip", "zstd", "lz4"])
def test_both_sides_hold_the_same_bits_whatever_is_lost(codec, compression):
    settings = load_settings(
        {
            "communication": {"enable_differential_updates": True, "compression_threshold": 0.01},
            "serialization": {"default_compression": compression},
        }
    )
    sender, receiver = (DifferentialUpdateManager(settings, codec=codec) for _ in "12")
    chance, rng = random.Random(1), np.random.default_rng(1)
    weights = [w.copy() for w in WEIGHTS]
    differential = 0
    for _ in range(40):
        weights = [
            weights[0] + rng.standard_normal(weights[0].shape).astype(np.float32),
            weights[1] * rng.choice([1.0, 1.5]),
            weights[2] + rng.integers(2),
        ]
        update, is_differential = sender.create_differential_update("a", weights)
        differential += is_differential
        match chance.choice(["arrives", "arrives", "twice", "lost", "silent", "late"]):
            case "lost":
                sender.reject("a")
                continue
            case "silent":  # it arrives, and nobody says so
                receiver.apply_differential_update("a", update)
                continue
            case "twice":
                receiver.apply_differential_update("a", update)
        try:
            found = receiver.apply_differential_update("a", update)
        except DecodeError:
            sender.forget("a")  # nothing for a model that is not here, after a silent one
            continue
        if update:
            assert sender.acknowledge("a", receiver.digest_of("a"))
        assert bits(found) == bits(sender.previous_weights["a"]) == bits(receiver.previous_weights["a"])
        if codec == "delta":
            assert all(np.linalg.norm(f - w) <= 0.01 * np.linalg.norm(f) for f, w in zip(found, weights, strict=True))
    assert differential > 10


def test_what_was_given_may_change_afterwards():
    """Also where nothing is compressed, and a layer is new in its shape, and so not coded."""
    settings = load_settings(
        {
            "communication": {"enable_differential_updates": True},
            "serialization": {"default_compression": "none"},
        }
    )
    sender, receiver = pair(settings=settings)
    weights = [w.copy() for w in WEIGHTS]
    weights[1] = np.full(5, 3.0)
    update, differential = sender.create_differential_update("a", weights)
    assert differential
    buffer = bytearray(update)
    found = receiver.apply_differential_update("a", buffer)
    assert sender.acknowledge("a", receiver.digest_of("a"))
    wanted = bits(weights)
    weights[1][:] = 9
    buffer[:] = bytes(len(buffer))
    assert bits(found) == bits(sender.previous_weights["a"]) == bits(receiver.previous_weights["a"]) == wanted
    for array in (*found, *sender.previous_weights["a"]):
        assert not array.flags.writeable


def test_clients_have_nothing_to_do_with_each_other():
    sender, receiver = pair()
    other = [w * 3 for w in WEIGHTS]
    update, differential = sender.create_differential_update("b", other)
    assert not differential
    with pytest.raises(SerializationError, match="of this client's"):
        receiver.apply_differential_update("a", update)
    receiver.apply_differential_update("b", update)
    assert bits(receiver.previous_weights["a"]) == bits(WEIGHTS)
    assert list(receiver.previous_weights) == ["a", "b"]
    update, differential = sender.create_differential_update("a", other)
    assert differential
    with pytest.raises(SerializationError, match="another client's"):
        receiver.apply_differential_update("b", update)


def test_nothing_of_nobody():
    receiver = DifferentialUpdateManager()
    with pytest.raises(SerializationError, match="not here"):
        receiver.apply_differential_update("a", b"")
    assert receiver.digest_of("a") is None
    assert receiver.previous_weights == {}
    assert not receiver.acknowledge("a")
    receiver.reject("a")
    receiver.forget("a")


def test_a_receiver_that_was_started_again_asks_for_a_full_model():
    sender, receiver = pair()
    receiver.forget("a")
    update, differential = sender.create_differential_update("a", [w * 2 for w in WEIGHTS])
    assert differential
    with pytest.raises(SerializationError, match="there is none") as caught:
        receiver.apply_differential_update("a", update)
    assert caught.value.hint == "Ask for a full model."
    sender.forget("a")
    update, differential = sender.create_differential_update("a", WEIGHTS)
    assert not differential
    assert bits(receiver.apply_differential_update("a", update)) == bits(WEIGHTS)


def test_a_damaged_update_changes_nothing():
    sender, receiver = pair()
    update, _ = sender.create_differential_update("a", [w * 2 for w in WEIGHTS])
    for position in range(0, len(update), 3):
        damaged = bytearray(update)
        damaged[position] ^= 0x40
        with pytest.raises(SerializationError):
            receiver.apply_differential_update("a", damaged)
    assert bits(receiver.previous_weights["a"]) == bits(WEIGHTS)
    receiver.apply_differential_update("a", update)


def test_a_result_that_is_not_the_sender_s():
    sender, receiver = pair()
    update, _ = sender.create_differential_update("a", [w * 2 for w in WEIGHTS])
    frame = Frame.decode(update)
    told = {name: frame.section(name, object) for name in frame.section_names}
    stored = [frame.segment(index) for index in range(len(frame))]

    def lie(**said):
        return bytes(Frame.build({**told, "differential": {**told["differential"], **said}}, stored))

    assert receiver.apply_differential_update("a", lie())
    receiver.forget("a")
    receiver.apply_differential_update("a", _full())
    newer = _number(_full())
    assert told["differential"]["number"] < newer
    told["differential"]["number"] = newer
    for result in (bytes(16), b"", told["differential"]["result"][:15]):
        with pytest.raises(SerializationError, match="not what the sender has") as caught:
            receiver.apply_differential_update("a", lie(result=result))
        assert isinstance(caught.value, IntegrityError)
    for said in ({"result": 5}, {"client_id": None}, {"client_id": "x" * 2000}, {"number": -1}, {"number": "7"}):
        with pytest.raises(SerializationError):
            receiver.apply_differential_update("a", lie(**said))
    assert bits(receiver.previous_weights["a"]) == bits(WEIGHTS)


def _full():
    return DifferentialUpdateManager().create_differential_update("a", WEIGHTS)[0]


def _number(update):
    return AdvancedSerializer().inspect(update).extra["update_number"]


def test_an_older_whole_update_does_not_lead_back():
    sender, receiver = DifferentialUpdateManager(), DifferentialUpdateManager()
    old, _ = sender.create_differential_update("a", WEIGHTS)
    newest, differential = sender.create_differential_update("a", [w * 2 for w in WEIGHTS])
    assert not differential  # the one before waits still
    found = receiver.apply_differential_update("a", newest)
    with pytest.raises(SerializationError, match="it is older") as caught:
        receiver.apply_differential_update("a", old)
    assert isinstance(caught.value, DecodeError)
    assert caught.value.hint.startswith("Drop it.")
    digest = receiver.digest_of("a")
    assert bits(receiver.apply_differential_update("a", newest)) == bits(found)  # it came twice
    assert bits(receiver.previous_weights["a"]) == bits(found)
    assert receiver.digest_of("a") == digest
    assert sender.acknowledge("a", digest)
    receiver.forget("a")
    assert bits(receiver.apply_differential_update("a", old)) == bits(WEIGHTS)


def test_an_older_difference_does_not_lead_back_to_where_it_fits():
    """From here to there and back again: the first step would fit once more."""
    sender, receiver = pair()
    there, _ = sender.create_differential_update("a", [w * 2 for w in WEIGHTS])
    receiver.apply_differential_update("a", there)
    assert sender.acknowledge("a", receiver.digest_of("a"))
    back, differential = sender.create_differential_update("a", WEIGHTS)
    assert differential
    receiver.apply_differential_update("a", back)
    with pytest.raises(SerializationError, match="it is older"):
        receiver.apply_differential_update("a", there)
    assert bits(receiver.apply_differential_update("a", back)) == bits(WEIGHTS)
    assert bits(receiver.previous_weights["a"]) == bits(WEIGHTS)


def test_a_sender_that_was_started_again_goes_on():
    _, receiver = pair()
    again = DifferentialUpdateManager()
    update, differential = again.create_differential_update("a", [w * 3 for w in WEIGHTS])
    assert not differential
    assert bits(receiver.apply_differential_update("a", update)) == bits([w * 3 for w in WEIGHTS])


def test_what_has_no_number_comes_before_what_has_one():
    serializer, receiver = AdvancedSerializer(), DifferentialUpdateManager()
    package, _ = serializer.serialize_comprehensive(WEIGHTS, "weight_update", {"client_id": "a"})
    for _ in range(2):
        assert bits(receiver.apply_differential_update("a", package)) == bits(WEIGHTS)
    receiver.apply_differential_update("a", _full())
    with pytest.raises(SerializationError, match="it is older"):
        receiver.apply_differential_update("a", package)
    for number in (True, "7", 1.5, [1]):
        said = {"client_id": "a", "update_number": number}
        package, _ = serializer.serialize_comprehensive(WEIGHTS, "weight_update", said)
        with pytest.raises(SerializationError, match="number"):
            receiver.apply_differential_update("a", package)


def test_a_layer_that_is_not_there():
    sender, receiver = pair()
    update, _ = sender.create_differential_update("a", [w * 2 for w in WEIGHTS])
    frame = Frame.decode(update)
    told = {name: frame.section(name, object) for name in frame.section_names}
    told["tensors"][0][-1] = "9"
    told["update"]["whole"] = ["9"]
    stored = [frame.segment(index) for index in range(len(frame))]
    with pytest.raises(SerializationError, match="layers that are not there"):
        receiver.apply_differential_update("a", bytes(Frame.build(told, stored)))


@pytest.mark.parametrize(
    "weights",
    [None, 5, [1.0], ["a"], [None], [[1.0, 2.0]], {"a": 1}, [np.array([object()])]],
    ids=["none", "number", "numbers", "texts", "nothing", "lists", "mapping", "objects"],
)
def test_what_is_no_list_of_arrays(weights):
    manager = DifferentialUpdateManager()
    with pytest.raises((SerializationError, TypeError)) as caught:
        manager.create_differential_update("a", weights)
    assert not isinstance(caught.value, SerializationError) or isinstance(caught.value, EncodeError)
    with pytest.raises(SerializationError, match="id is text"):
        manager.create_differential_update(7, WEIGHTS)


def test_a_codec_that_is_relative_to_nothing():
    with pytest.raises(ConfigError, match="not relative to anything"):
        DifferentialUpdateManager(codec="cast(float16)")


def test_operations_are_measured_and_take_no_longer_than_they_may():
    settings = load_settings(
        {
            "communication": {"enable_differential_updates": True},
            "performance": {"max_serialization_time": 1e-9, "enable_profiling": False},
        }
    )
    with pytest.raises(SerializationError, match="allowed"):
        DifferentialUpdateManager(settings).create_differential_update("a", WEIGHTS)
    serializer = AdvancedSerializer(load_settings({}))
    with serializer.measured("serialization") as current:
        assert current.seconds() >= 0
    assert serializer.profiler.get_performance_report()["serialization_times"]["count"] == 1


def test_lengths():
    assert length(np.array([[3.0, 4.0]])) == 5
    assert length(np.array([1 + 1j]), np.array([1 - 2j])) == 3
    assert length(np.array([3, 4], np.float16), np.array([0, 0], np.float16)) == 5
    assert length(np.zeros((0, 3))) == 0
    many = np.ones(200_000, np.float32)
    assert length(many[::2]) == pytest.approx(np.sqrt(100_000))
    assert np.isnan(length(np.array([np.nan])))
    assert length(np.array([1e300])) == np.inf


def test_references():
    reference = Reference()
    one, two = Base.of({"a": np.ones(2)}), Base.of({"a": np.zeros(2)})
    assert (reference.held, reference.usable, reference.arrays()) == (None, None, {})
    assert not reference.acknowledge()
    reference.propose(one)
    assert reference.acknowledge(one.digest)
    reference.propose(two)
    assert (reference.held, reference.usable) == (one, None)
    assert not reference.acknowledge(one.digest)
    reference.reject()
    assert reference.usable is one
    assert fit({"a": np.ones(2)}, {"a": np.zeros(2)})
    assert not fit({"a": np.ones(2)}, {"a": np.zeros(2, np.float32)})
