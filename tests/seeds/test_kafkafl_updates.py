"""That document's CompressionOptimizer and DifferentialUpdateManager: its examples, and none of its faults.

It shows the two classes and no call of them, so the examples are the calls that its code is written for. Its imports
are replaced by one line. What else was completed, as the document leaves it undefined:

=============================  =========================================================================================
name                           completion
=============================  =========================================================================================
``_compress_sparse_weights``   lossless, in the layout FEDWT001 with its sparse arrays
``_compress_dense_weights``    lossless, with ``lx``
``_compress_metadata``         fedpost's objects
``_serialize_full_weights``    a package of :class:`AdvancedSerializer`
a decoder of any of them       ``decompress``, ``apply_differential_update``, ``_dequantize_array``
whether an update arrived      ``acknowledge``, ``reject``, ``forget``, ``acknowledge_gradients``
=============================  =========================================================================================

The faults, a test each:

=====================================================================  ================================================
fault of the document's sample                                         test
=====================================================================  ================================================
gradients, sparse arrays and differential updates are pickles          ``test_nothing_is_a_pickle``
``_quantize_array`` gives a tuple, from which another is subtracted    ``test_a_second_gradient_can_be_compressed``
the gradient before is looked up by ``id(grad)``                       ``test_the_gradient_before_is_found_by_place``
NaN becomes 0                                                          ``test_nan_is_never_a_number``
differences of uint8 wrap around                                       ``test_differences_do_not_wrap``
nothing decodes what it quantizes                                      ``test_what_is_quantized_has_a_way_back``
the state advances before the update is sent                           ``test_the_state_waits_for_the_acknowledgement``
the state advances for layers that are not sent                        ``test_small_changes_add_up_until_they_are_sent``
the norm of what was zero divides                                      ``test_a_layer_of_zeros_can_change``
``prev + (cur - prev) != cur`` for a third of float32                  ``test_layers_arrive_to_the_bit``
−0.0 is lost in sparse arrays, which may be larger than dense ones     ``test_sparse_weights_are_exact_and_small``
numbers are of the machine's own order                                 ``test_byte_order_is_kept``
what is claimed is allocated                                           ``test_nothing_is_made_of_little``
a layer that became NaN is not sent (a comparison is false)            ``test_a_layer_that_became_nan_is_sent``
layers beyond the shorter of two lists are dropped                     ``test_a_new_layer_is_not_dropped``
unsigned integers are subtracted from each other                       ``test_integers_do_not_wrap``
``enable_differential_updates`` is never looked at                     ``test_the_settings_of_updates_count``
=====================================================================  ================================================
"""

from __future__ import annotations

import os
import pickle
import tracemalloc

import ml_dtypes
import msgspec
import numpy as np
import pytest

from fedpost.codecs import Base
from fedpost.compat.kafkafl import (
    AdvancedSerializer,
    CompressionOptimizer,
    DifferentialUpdateManager,
    SerializationError,
    load_settings,
)
from fedpost.errors import DecodeError, EncodeError, LimitError
from fedpost.frame import Frame, Limits
from fedpost.pipeline import Pipeline

KINDS = ("gradients", "sparse_weights", "dense_weights", "metadata")


def model(seed=3):
    rng = np.random.default_rng(seed)
    shapes = ((32, 16, 3, 3), (32,), (128, 64))
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def nearby(weights, seed=4, scale=1e-3):
    rng = np.random.default_rng(seed)
    return [w + (scale * rng.standard_normal(w.shape)).astype(w.dtype) for w in weights]


def same(found, wanted):
    assert [(a.dtype, a.shape, a.tobytes()) for a in found] == [(a.dtype, a.shape, a.tobytes()) for a in wanted]


# ── the examples ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_compression_strategies():
    optimizer = CompressionOptimizer()
    assert tuple(optimizer.compression_strategies) == KINDS
    sparse = [np.where(np.abs(w) > 2.2, w, 0).astype(w.dtype) for w in model()]
    data = {
        "gradients": [w * np.float32(1e-3) for w in model()],
        "sparse_weights": sparse,
        "dense_weights": model(),
        "metadata": {"layers": ["conv", "bias", "dense"], "learning_rate": 0.1, "best": None},
    }
    for kind, strategy in optimizer.compression_strategies.items():
        compressed = strategy(data[kind])
        assert type(compressed) is bytes
        found = optimizer.decompress(compressed)
        if kind == "metadata":
            assert found == data[kind]
            continue
        original_size = sum(w.nbytes for w in data[kind])
        assert original_size / len(compressed) > 1.0, f"No compression achieved for {kind}"  # as its tests demand
        if kind == "gradients":
            assert original_size / len(compressed) > 3.5
            for one, two in zip(found, data[kind], strict=True):
                assert (one.dtype, one.shape) == (two.dtype, two.shape)
                assert np.abs(one - two).max() <= np.abs(two).max() / 127
        else:
            same(found, data[kind])


def test_the_methods_by_their_names():
    optimizer = CompressionOptimizer()
    gradients = [w * np.float32(1e-3) for w in model()]
    assert type(optimizer._compress_gradients(gradients)) is bytes
    assert type(optimizer._compress_sparse_weights(gradients)) is bytes
    assert type(optimizer._compress_dense_weights(gradients)) is bytes
    assert type(optimizer._compress_metadata({})) is bytes
    quantized, min_val, scale = optimizer._quantize_array(gradients[0], bits=8)
    assert (quantized.dtype, quantized.shape, min_val) == (np.uint8, gradients[0].shape, gradients[0].min())
    assert scale == pytest.approx(255 / float(gradients[0].max() - gradients[0].min()))


def test_differential_updates():
    manager = DifferentialUpdateManager()
    assert manager.compression_threshold == 0.1
    assert manager.previous_weights == {}
    current_weights = model()

    # First update - send full weights
    data, differential = manager.create_differential_update("client-1", current_weights)
    assert (type(data), differential) == (bytes, False)
    manager.acknowledge("client-1")  # completed
    same(manager.previous_weights["client-1"], current_weights)

    # No significant changes
    assert manager.create_differential_update("client-1", nearby(current_weights)) == (b"", False)

    # One layer changed
    current_weights[2] = current_weights[2] * np.float32(1.5)
    update, differential = manager.create_differential_update("client-1", current_weights)
    assert differential is True
    assert 0 < len(update) < 0.95 * current_weights[2].nbytes
    receiver = DifferentialUpdateManager()  # completed
    receiver.apply_differential_update("client-1", data)
    same(receiver.apply_differential_update("client-1", update), current_weights)


# ── CompressionOptimizer's faults ────────────────────────────────────────────────────────────────────────────────────


def test_nothing_is_a_pickle(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "ran"),))

    sparse = np.zeros((100, 100), np.float32)
    sparse[7, 7] = 1
    optimizer, manager = CompressionOptimizer(), DifferentialUpdateManager()
    made = [strategy([sparse]) for kind, strategy in optimizer.compression_strategies.items() if kind != "metadata"]
    made.append(optimizer.compression_strategies["metadata"]({"a": sparse}))
    made.append(manager.create_differential_update("a", [sparse])[0])
    manager.acknowledge("a")
    made.append(manager.create_differential_update("a", [sparse * 2])[0])
    assert all(data.startswith(b"\x89FPF\r\n") for data in made)  # frames
    bomb = pickle.dumps([Bomb()])
    for read in (optimizer.decompress, lambda data: manager.apply_differential_update("a", data)):
        with pytest.raises(SerializationError):
            read(bomb)
    with pytest.raises(SerializationError):
        optimizer.compression_strategies["metadata"]({"x": Bomb()})
    assert not list(tmp_path.iterdir())


def test_a_second_gradient_can_be_compressed():
    sender, receiver = CompressionOptimizer(), CompressionOptimizer()
    for seed in range(3):
        gradients = model(seed)
        found = receiver.decompress(sender.compression_strategies["gradients"](gradients))
        assert all(np.abs(a - b).max() <= np.abs(b).max() / 127 for a, b in zip(found, gradients, strict=True))
        assert sender.acknowledge_gradients()
    assert not sender.acknowledge_gradients()  # nothing waits


def test_the_gradient_before_is_found_by_place():
    """Another array of the same values, in new memory, is as near to the one before."""
    sender, receiver = CompressionOptimizer(), CompressionOptimizer()
    first = model()
    sizes = []
    for gradients in (first, nearby(first, scale=1e-6), nearby(first, 5, scale=1e-6)):
        data = sender.compression_strategies["gradients"]([g.copy() for g in gradients])
        sizes.append(Frame.decode(data).section("compressed", dict[str, object]).get("specs"))
        found = receiver.decompress(data)
        assert sender.acknowledge_gradients()
    assert [said is None for said in sizes] == [False, True, True]  # relative to the one before
    # And so it is nearer than eight bits alone could be.
    assert np.abs(found[2] - gradients[2]).max() < np.abs(gradients[2]).max() / 127 / 50
    # Where the one before is far away it is not used.
    data = sender.compression_strategies["gradients"](model(9))
    assert Frame.decode(data).section("compressed", dict[str, object])["specs"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_is_never_a_number(value):
    optimizer = CompressionOptimizer()
    gradients = [np.ones((3, 4), np.float32), np.ones((2, 2), np.float32)]
    gradients[1][0, 1] = value
    with pytest.raises(SerializationError, match="tensor '1'") as caught:
        optimizer.compression_strategies["gradients"](gradients)
    assert isinstance(caught.value, EncodeError)
    with pytest.raises(SerializationError, match="NaN or infinite"):
        optimizer._quantize_array(gradients[1])
    same(optimizer.decompress(optimizer.compression_strategies["dense_weights"](gradients)), gradients)


def test_differences_do_not_wrap():
    """200 after 250 is −50, and not 206."""
    sender, receiver = CompressionOptimizer(), CompressionOptimizer()
    for value in (250.0, 200.0, 255.0, 0.0):
        gradients = [np.array([[value, 0.0, 255.0]], np.float32)]
        found = receiver.decompress(sender.compression_strategies["gradients"](gradients))
        assert abs(found[0][0, 0] - value) <= 2.1
        sender.acknowledge_gradients()


@pytest.mark.parametrize("bits", [1, 4, 8, 12, 16])
def test_what_is_quantized_has_a_way_back(bits):
    optimizer = CompressionOptimizer()
    for array in (
        model()[2],
        np.full((3, 3), 7.5, np.float32),
        np.zeros((0, 3)),
        np.array(2.0),
        np.array([-1e30, 1e30]),
    ):
        quantized, least, scale = optimizer._quantize_array(array, bits)
        assert int(quantized.max(initial=0)) < 1 << bits
        found = optimizer._dequantize_array(quantized, least, scale)
        assert found.shape == array.shape
        np.testing.assert_allclose(found, array, rtol=1e-12, atol=0.5000001 / scale)
    with pytest.raises(SerializationError, match="not possible"):
        optimizer._quantize_array(np.ones(3), bits=32)


def test_sparse_weights_are_exact_and_small():
    optimizer = CompressionOptimizer()
    sparse = np.zeros((100, 100), np.float32)
    sparse[3, 4], sparse[5, 6] = -0.0, np.nan
    data = optimizer.compression_strategies["sparse_weights"]([sparse])
    same(optimizer.decompress(data), [sparse])
    assert len(data) < 1000
    rng = np.random.default_rng(3)
    dense = (rng.random((10, 10, 10, 10)) > 0.901).astype(np.uint8)  # over the document's threshold
    assert len(optimizer.compression_strategies["sparse_weights"]([dense])) < dense.nbytes


def test_byte_order_is_kept():
    optimizer, manager = CompressionOptimizer(), DifferentialUpdateManager()
    big = [np.arange(12, dtype=">f4").reshape(3, 4), np.arange(5, dtype=">i2")]
    for kind in ("sparse_weights", "dense_weights"):
        same(optimizer.decompress(optimizer.compression_strategies[kind](big)), big)
    same(optimizer.decompress(optimizer.compression_strategies["gradients"](big)), big)  # what is not coded is exact
    same(manager.apply_differential_update("a", manager.create_differential_update("a", big)[0]), big)


def test_nothing_is_made_of_little():
    """A frame of a hundred bytes that says it is gradients of 16 TB."""
    table = [["0"], b"\2", [1 << 21, 1 << 21], ["float32"], [0]]
    said = {"strategy": "gradients", "container": "list", "specs": table}
    base = Base.of({"0": np.zeros((2, 2), np.float32)})
    notes = {"base": bytes(16), "whole": [], "seed": 1}
    good = Pipeline.parse("int8 | fedwt | zstd(3)").encode({"0": np.ones((2, 2), np.float32)}, base=base)
    sections = {name: good.section(name, msgspec.Raw) for name in good.section_names if name != "update"}
    lie = Frame.build({**sections, "update": notes, "compressed": said}, [good.segment(0)])
    tracemalloc.start()
    with pytest.raises(SerializationError, match="more values than there are"):
        CompressionOptimizer().decompress(bytes(lie))
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    large = CompressionOptimizer().compression_strategies["dense_weights"]([np.zeros(1 << 20, np.float32)])
    with pytest.raises(SerializationError) as caught:
        CompressionOptimizer(limits=Limits(max_raw=1 << 20)).decompress(large)
    assert isinstance(caught.value, LimitError)


# ── DifferentialUpdateManager's faults ───────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def pair():
    """A sender and a receiver that have the same model."""
    sender, receiver = DifferentialUpdateManager(), DifferentialUpdateManager()
    update, _ = sender.create_differential_update("a", model())
    receiver.apply_differential_update("a", update)
    assert sender.acknowledge("a", receiver.digest_of("a"))
    return sender, receiver


def test_the_state_waits_for_the_acknowledgement(pair):
    sender, receiver = pair
    first, second = ([w * np.float32(factor) for w in model()] for factor in (1.5, 3))
    lost, differential = sender.create_differential_update("a", first)
    assert differential
    same(sender.previous_weights["a"], model())
    # It did not arrive: the next one is relative to what the receiver has.
    sender.reject("a")
    late, differential = sender.create_differential_update("a", second)
    assert differential
    same(receiver.apply_differential_update("a", late), second)
    same(receiver.apply_differential_update("a", late), second)  # twice does no harm
    # Nobody knows whether it arrived: the next one stands on its own.
    update, differential = sender.create_differential_update("a", first)
    assert not differential
    same(receiver.apply_differential_update("a", update), first)
    assert not sender.acknowledge("a", bytes(16))  # the receiver has something else
    same(sender.previous_weights["a"], model())
    assert sender.acknowledge("a", receiver.digest_of("a"))
    same(sender.previous_weights["a"], first)
    # What comes late is refused, or leads to what is there.
    with pytest.raises(SerializationError, match="it is older than the update that was applied last") as caught:
        receiver.apply_differential_update("a", late)
    assert isinstance(caught.value, DecodeError)
    same(receiver.apply_differential_update("a", lost), first)
    same(receiver.apply_differential_update("a", b""), first)


def test_small_changes_add_up_until_they_are_sent(pair):
    """Its reference moves with every layer, so a layer that drifts by 6 % a round is never sent."""
    sender, receiver = pair
    weights, sent = model(), []
    for _ in range(12):
        weights = [weights[0] * np.float32(1.06), weights[1], weights[2] * np.float32(1.5)]
        update, differential = sender.create_differential_update("a", weights)
        assert differential
        found = receiver.apply_differential_update("a", update)
        assert sender.acknowledge("a", receiver.digest_of("a"))
        same(sender.previous_weights["a"], found)
        assert np.linalg.norm(found[0] - weights[0]) <= 0.1 * np.linalg.norm(found[0])
        sent.append(found[0].tobytes() == weights[0].tobytes())
    assert sent == [False, True] * 6


def test_a_layer_of_zeros_can_change():
    manager = DifferentialUpdateManager()
    zeros = [np.zeros((3, 3), np.float32), np.ones((3, 3), np.float32)]
    manager.create_differential_update("a", zeros)
    manager.acknowledge("a")
    assert manager.create_differential_update("a", zeros) == (b"", False)
    update, differential = manager.create_differential_update("a", [zeros[0] + np.float32(1e-30), zeros[1]])
    assert differential
    assert list(tensors_of(update)) == ["0"]


def tensors_of(update):
    frame = Frame.decode(update)
    return msgspec.msgpack.decode(frame.section("tensors", msgspec.Raw))[0]


def test_layers_arrive_to_the_bit(pair):
    sender, receiver = pair
    rng = np.random.default_rng(5)
    weights = [(w * rng.uniform(-3, 3, w.shape)).astype(np.float32) for w in model()]
    before = model()[2]
    assert np.mean(before + (weights[2] - before) != weights[2]) > 0.1  # what the document sends does not add up
    update, _ = sender.create_differential_update("a", weights)
    same(receiver.apply_differential_update("a", update), weights)
    assert sender.acknowledge("a", receiver.digest_of("a"))
    same(sender.previous_weights["a"], weights)


def test_a_layer_that_became_nan_is_sent(pair):
    sender, receiver = pair
    weights = model()
    weights[1][3] = np.nan
    update, differential = sender.create_differential_update("a", weights)
    assert differential
    same(receiver.apply_differential_update("a", update), weights)


def test_a_new_layer_is_not_dropped(pair):
    sender, receiver = pair
    for weights in ([*model(), np.ones((2, 2))], model()[:2]):
        update, differential = sender.create_differential_update("a", weights)
        assert not differential
        same(receiver.apply_differential_update("a", update), weights)
        assert sender.acknowledge("a", receiver.digest_of("a"))


@pytest.mark.parametrize("dtype", ["uint8", "uint64", "int8", "bool", "int64"])
def test_integers_do_not_wrap(dtype):
    sender, receiver = DifferentialUpdateManager(), DifferentialUpdateManager()
    for values in ([1, 0, 1], [0, 1, 1], [0, 1, 1], [1, 1, 0]):
        weights = [np.array(values, dtype), np.array([2**62 * values[0]], np.int64)]
        update, _ = sender.create_differential_update("a", weights)
        same(receiver.apply_differential_update("a", update), weights)
        if update:
            assert sender.acknowledge("a", receiver.digest_of("a"))


def test_the_settings_of_updates_count(caplog):
    def sizes(**communication):
        settings = load_settings({"communication": communication, "serialization": {"default_compression": "lz4"}})
        manager = DifferentialUpdateManager(settings)
        manager.create_differential_update("a", model())
        manager.acknowledge("a")
        update, differential = manager.create_differential_update("a", [w * np.float32(1.2) for w in model()])
        return differential, Frame.decode(update).section("pipeline", str) if update else None

    assert sizes(enable_differential_updates=True) == (True, "delta | fedwt | lz4(0)")
    assert sizes(enable_differential_updates=True, compression_threshold=0.3) == (False, None)
    assert sizes(enable_differential_updates=False) == (False, "dense | fedwt | lz4(0)")
    assert not caplog.records


def test_a_whole_update_is_a_package():
    update, _ = DifferentialUpdateManager().create_differential_update("a", model())
    found, metadata = AdvancedSerializer().deserialize_comprehensive(update)
    same(found, model())
    assert (metadata.client_id, metadata.data_type) == ("a", "weight_update")


def test_narrow_floats_are_compared_too():
    manager = DifferentialUpdateManager()
    weights = [np.arange(1, 13).reshape(3, 4).astype(ml_dtypes.bfloat16)]
    manager.create_differential_update("a", weights)
    manager.acknowledge("a")
    near = [(weights[0].astype(np.float32) * 1.01).astype(ml_dtypes.bfloat16)]
    assert manager.create_differential_update("a", near) == (b"", False)
    assert manager.create_differential_update("a", [weights[0] * 2])[1]
