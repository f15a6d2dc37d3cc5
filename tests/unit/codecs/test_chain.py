"""Chains of stages: their shortest form, what fits what, and a cast before a delta."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from fedpost.codecs import (
    Auto,
    Base,
    ByPattern,
    Capabilities,
    Cast,
    Chain,
    Delta,
    Dense,
    Eden,
    Int8,
    Rc,
    TopK,
    Uq,
    capabilities_of,
    chain,
    parse_codec,
)
from fedpost.errors import ConfigError, DecodeError, EncodeError
from fedpost.pipeline import Pipeline, decode_tensors
from fedpost.tensors import MemoryTensors

BF16 = np.dtype(ml_dtypes.bfloat16)
CAST = Cast("bfloat16")


@pytest.mark.parametrize(
    ("stages", "codec"),
    [
        ([Delta(), Uq(2), Rc()], Uq(2)),
        ([Uq(2), Rc()], Uq(2)),
        ([Delta(), Uq(2)], Uq(2)),
        ([Delta(), TopK(0.01)], TopK(0.01)),
        ([Delta(), Auto(9000), Rc()], Auto(9000)),
        ([Delta()], Delta()),
        ([Dense()], Dense()),
        ([CAST], CAST),
        ([CAST, Dense()], CAST),
        ([CAST, Delta()], Chain(CAST, Delta())),
        ([CAST, Delta(), Int8()], Chain(CAST, Int8())),
        ([CAST, Eden(2)], Chain(CAST, Eden(2))),
        ([Chain(CAST, Delta())], Chain(CAST, Delta())),
        ([ByPattern({"*": Dense()})], ByPattern({"*": Dense()})),
    ],
)
def test_stages_make_the_shortest_codec(stages, codec):
    assert chain(*stages) == codec
    assert parse_codec(" | ".join(map(str, stages))) == codec
    assert parse_codec("|".join(map(str, stages))) == codec


MISFITS = {
    "uq(2) | delta": "uq(2) gives symbols, but delta takes a model",
    "rc": "rc takes symbols, and nothing before it gives that",
    "topk(0.01) | uq(2)": "topk(0.01) gives coded bytes, but uq(2) takes a change",
    "delta | delta": "delta gives a change, but delta takes a model",
    "uq(2) | cast(bfloat16)": "uq(2) gives symbols, but cast(bfloat16) takes a model",
    "delta | cast(bfloat16)": "delta gives a change, but cast(bfloat16) takes a model",
    "delta | rc": "delta gives a change, but rc takes symbols",
    "cast(bfloat16) | rc": "cast(bfloat16) gives a model, but rc takes symbols",
    "topk(0.01) | rc": "topk(0.01) gives coded bytes, but rc takes symbols",
    "rc | rc": "rc takes symbols, and nothing before it gives that",
    "uq(2) | rc | rc": "'rc | rc' does not fit: rc gives coded bytes, but rc takes symbols",
    "uq(1) | uq(2)": "uq(1) gives symbols, but uq(2) takes a change",
    "dense | uq(2)": "dense gives tensors as they are sent, but uq(2) takes a change",
    "dense | dense": "dense gives tensors as they are sent, but dense takes a model",
    "delta | dense": "delta gives a change, but dense takes a model",
    "cast(float16) | cast(bfloat16)": "the model is cast already",
    "cast(float16) | delta | delta": "'delta | delta' does not fit",
    "cast(float16) | auto(1kB)": "auto(budget=1kB/round) chooses by the size of the whole message",
    'delta | {"*": uq(2)}': '{"*": uq(2)} is a codec of its own, not a stage',
    'cast(bfloat16) | {"*": delta}': '{"*": delta} is a codec of its own, not a stage',
}


@pytest.mark.parametrize("text", MISFITS)
def test_two_stages_that_do_not_fit_are_named_with_the_reason(text):
    with pytest.raises(ConfigError) as caught:
        parse_codec(text)
    assert MISFITS[text] in str(caught.value)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([], "at least one stage"),
        ([CAST] * 9, "9 stages"),
        ([Chain(CAST, Delta()), Delta()], "is a codec of its own"),
        ([Delta(), Chain(CAST, Delta())], "is a codec of its own"),
        ([ByPattern({"*": Dense()}), Delta()], "is a codec of its own"),
    ],
)
def test_chains_from_python_are_checked_as_well(stages, message):
    with pytest.raises(ConfigError, match=message):
        chain(*stages)


@pytest.mark.parametrize("then", [CAST, Chain(CAST, Delta()), ByPattern({"*": Delta()}), Auto(5)])
def test_a_chain_that_is_built_by_hand_is_checked_when_built(then):
    with pytest.raises(ConfigError, match="does not fit"):
        Chain(CAST, then)


def tensors(seed=0):
    chance = np.random.default_rng(seed)
    return {
        "w": chance.normal(size=(40, 30)).astype(np.float32),
        "d": chance.normal(size=(5, 4)),
        "h": chance.normal(size=9).astype(np.float16),
        "b": chance.normal(size=9).astype(BF16),
        "n": np.arange(7),
    }


def through(codec, new, base, residual=None):
    encoding = codec.encode(new, base, residual)
    return encoding, codec.decode(MemoryTensors(encoding.tensors), encoding.notes, base)


def test_a_cast_before_a_delta_loses_what_the_cast_loses():
    new, base = tensors(), Base.of(tensors(1))
    encoding, got = through(Chain(CAST, Delta()), new, base)
    assert {name: array.dtype for name, array in encoding.tensors.items()} == {
        "w": BF16,
        "d": BF16,
        "h": np.float16,
        "b": BF16,
        "n": np.int64,
    }
    assert encoding.notes == {
        "base": base.digest,
        "widen": {"w": "float32", "d": "float64"},
        "notes": {"whole": []},
    }
    for name, array in got.arrays().items():
        expected = new[name].astype(BF16).astype(new[name].dtype) if name in "wd" else new[name]
        assert array.dtype == new[name].dtype
        assert array.tobytes() == expected.tobytes()
        assert got.read(name, 1, 5).tobytes() == expected.reshape(-1)[1:5].tobytes()


def test_what_changed_little_is_zero_bits_after_a_cast_and_a_delta():
    old = tensors()["w"]
    new = old * np.float32(1.0001)
    encoding, _ = through(Chain(CAST, Delta()), {"w": new}, Base.of({"w": old}))
    assert np.count_nonzero(encoding.tensors["w"].view(np.uint16)) < old.size / 10


def test_the_base_is_told_by_the_digest_of_what_it_was_before_the_cast():
    new, base = tensors(), Base.of(tensors(1))
    encoding, _ = through(Chain(CAST, Delta()), new, base)
    cast = Base.of({name: array.astype(BF16) for name, array in tensors(1).items()})
    for wrong in (None, cast):
        with pytest.raises(DecodeError, match=base.digest.hex()):
            Chain(CAST, Delta()).decode(MemoryTensors(encoding.tensors), encoding.notes, wrong)
    with pytest.raises(ConfigError, match="needs a base"):
        Chain(CAST, Delta()).encode(new)


@pytest.mark.parametrize("notes", [None, [], "x", {"whole": None}, {}])
def test_notes_of_the_codec_that_are_wrong_are_refused(notes):
    new, base = tensors(), Base.of(tensors(1))
    encoding, _ = through(Chain(CAST, Delta()), new, base)
    with pytest.raises(DecodeError):
        Chain(CAST, Delta()).decode(MemoryTensors(encoding.tensors), {**encoding.notes, "notes": notes}, base)


def test_a_base_that_is_too_large_for_the_narrow_type_serves_all_the_same():
    new, base = {"w": np.ones((3, 3), np.float32)}, Base.of({"w": np.full((3, 3), 1e30, np.float32)})
    _, got = through(Chain(Cast("float16"), Delta()), new, base)
    np.testing.assert_array_equal(got.arrays()["w"], new["w"])
    with pytest.raises(EncodeError, match="tensor 'w'"):
        Chain(Cast("float16"), Int8()).encode(new, base)


def test_a_cast_before_a_codec_that_draws_at_random():
    new, base = tensors(), Base.of(tensors(1))
    codec = Chain(CAST, Int8())
    pipeline = Pipeline(codec)
    frame = pipeline.encode(new, base=base)
    got = decode_tensors(frame, base=base).arrays()
    np.testing.assert_allclose(got["w"], new["w"], atol=0.1)
    assert got["w"].dtype == np.float32
    assert frame.section("pipeline", str) == "cast(bfloat16) | int8 | fedwt | none"


@pytest.mark.parametrize("then", [Uq(2), TopK(0.1)])
def test_what_a_cast_loses_is_made_good_later(then):
    """Nothing of what was meant is gone: it has arrived, or it is in the residual; what is not coded is not cast."""
    codec = Chain(CAST, then)
    base, residual = Base.of(tensors(1)), {}
    for step in range(20):
        new = {**tensors(step + 2), "v": np.linspace(0, 1, 9, dtype=np.float32)}
        encoding = codec.encode(new, base, residual)
        got = codec.decode(MemoryTensors(encoding.tensors), encoding.notes, base).arrays()
        assert got["v"].tobytes() == new["v"].tobytes()
        assert "v" not in encoding.residual
        for name in "wd":
            assert np.array_equal(got[name], got[name].astype(BF16).astype(new[name].dtype))
            owed = new[name] + residual.get(name, np.zeros(new[name].shape))
            np.testing.assert_allclose(got[name] + encoding.residual[name], owed, rtol=1e-6, atol=1e-5)
        base, residual = Base.of(got), encoding.residual


@pytest.mark.parametrize("then", ["uq(2)", "topk(0.1)", "uq(2, nonfinite=whole)"])
def test_what_is_too_large_for_the_type_goes_as_it_was_before_a_codec_with_error_feedback(then):
    new = {
        "w": tensors()["w"],
        "large": np.array([[8e4, 1], [2, 3]], np.float32),
        "var": np.array([8e4, 1], np.float32),
    }
    base = Base.of({name: np.zeros_like(array) for name, array in new.items()})
    residual = {name: np.ones(array.shape, np.float32) for name, array in new.items()}
    encoding, got = through(parse_codec(f"cast(float16) | {then}"), new, base, residual)
    assert set(encoding.notes["widen"]) == {"w"}
    for name in ("large", "var"):
        assert got.arrays()[name].tobytes() == new[name].tobytes()
        assert encoding.residual[name] is residual[name]


def test_the_account_of_what_is_no_number_any_more_waits():
    new, base = {"w": np.ones((3, 3), np.bool_)}, Base.of({"w": np.zeros((3, 3), np.bool_)})
    residual = {"w": np.ones((3, 3), np.float32)}
    encoding, got = through(Chain(CAST, Uq(2)), new, base, residual)
    assert got.arrays()["w"].all()
    assert encoding.residual["w"] is residual["w"]


def test_contradictory_capabilities_are_refused_when_stated():
    for stated in ({"lossless": True}, {"lossless": True, "unbiased": True, "stateful": True}):
        with pytest.raises(ConfigError, match="lossless is unbiased"):
            Capabilities(**stated)

    class Torn:
        needs_base = False
        capabilities = Capabilities(needs_base=True)

        def __str__(self):
            return "torn"

    with pytest.raises(ConfigError, match="torn states needs_base both ways"):
        capabilities_of(Torn())
    with pytest.raises(ConfigError, match="torn states needs_base both ways"):
        Pipeline(Torn())


def test_a_codec_that_states_nothing_promises_nothing():
    class Own:
        needs_base = True

    assert capabilities_of(Own()) == Capabilities(needs_base=True)
