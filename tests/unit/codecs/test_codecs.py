"""Codecs by name; ``dense``; and the law of ``cast``."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest

from fedpost.codecs import CODECS, Cast, Dense, parse_codec
from fedpost.errors import ConfigError, DecodeError, EncodeError, RegistryError, UnsupportedError
from fedpost.tensors import MemoryTensors, TensorSpec

BF16 = np.dtype(ml_dtypes.bfloat16)


@pytest.mark.parametrize("text", ["dense", "cast(bfloat16)", "cast(float16)", "cast(float32)"])
def test_texts_go_both_ways(text):
    assert str(parse_codec(text)) == text
    assert parse_codec(text) == parse_codec(f" {text} ")
    assert hash(parse_codec(text)) == hash(parse_codec(text))


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("sparse", RegistryError, "unknown update codec 'sparse'"),
        ("dens", RegistryError, "Did you mean 'dense'?"),
        ("dense(1)", ConfigError, "update codec 'dense"),
        ("cast", ConfigError, "update codec 'cast'"),
        ("cast(a, b)", ConfigError, "update codec 'cast"),
        ("cast(int8)", ConfigError, "cast to 'int8' is not possible. Choose one of bfloat16, float16, float32."),
        ("cast()", ConfigError, "update codec 'cast"),
    ],
)
def test_what_is_no_codec(text, error, message):
    with pytest.raises(error) as caught:
        parse_codec(text)
    assert message in str(caught.value)


def test_registered_names():
    assert {"dense", "cast"} <= set(CODECS)
    assert CODECS.get("cast") is Cast


def test_dense_does_nothing():
    tensors = {"a": np.zeros(1)}
    encoded, notes, _ = Dense().encode(tensors)
    assert encoded["a"] is tensors["a"]
    assert notes == {}
    source = MemoryTensors(tensors)
    assert Dense().decode(source, {}) is source


def test_cast_narrows_what_is_wider_and_leaves_the_rest():
    tensors = {
        "f8": np.zeros(2),
        "f4": np.zeros(2, np.float32),
        "f2": np.zeros(2, np.float16),
        "bf": np.zeros(2, BF16),
        "big": np.zeros(2, ">f4"),
        "i4": np.zeros(2, np.int32),
        "b": np.zeros(2, bool),
        "c": np.zeros(2, np.complex64),
    }
    small, notes, _ = Cast("bfloat16").encode(tensors)
    assert list(small) == list(tensors)
    assert {name for name in tensors if small[name] is not tensors[name]} == {"f8", "f4", "big"}
    assert small["f8"].dtype == small["f4"].dtype == BF16
    assert notes == {"widen": {"f8": "float64", "f4": "float32", "big": ">float32"}}
    assert Cast("float32").encode(tensors)[1] == {"widen": {"f8": "float64"}}


@pytest.mark.parametrize(
    ("target", "value", "rounded"),
    [
        ("bfloat16", 1 + 2**-8, 1.0),  # half way: to even, down
        ("bfloat16", 1 + 3 * 2**-8, 1 + 2**-6),  # half way: to even, up
        ("bfloat16", 1 + 2**-8 + 2**-20, 1 + 2**-7),
        ("float16", 1 + 2**-11, 1.0),
        ("float16", 1 + 3 * 2**-11, 1 + 2**-9),
        ("float16", 65_504.0, 65_504.0),
        ("float16", 2**-25, 0.0),
        ("float16", 2**-24, 2**-24),
        ("float32", 1 + 2**-24, 1.0),
        ("float32", 1 + 2**-23, 1 + 2**-23),
        ("bfloat16", math.inf, math.inf),
        ("bfloat16", -math.inf, -math.inf),
    ],
)
def test_rounding_is_to_nearest_ties_to_even(target, value, rounded):
    codec = Cast(target)
    small, notes, _ = codec.encode({"a": np.array([value, -value])})
    got = codec.decode(MemoryTensors(small), notes).arrays()["a"]
    assert got.dtype == np.float64
    assert got.tolist() == [rounded, -rounded]


def test_nan_and_negative_zero_stay_what_they_are():
    # Signalling NaN among them, which raises the processor's flag when it is cast.
    bits = np.array([0x7FC00000, 0xFFC00000, 0x7FA12345, 0x80000000], np.uint32)
    codec = Cast("bfloat16")
    small, notes, _ = codec.encode({"a": bits.view(np.float32)})
    got = codec.decode(MemoryTensors(small), notes).arrays()["a"]
    assert np.isnan(got).tolist() == [True, True, True, False]
    assert math.copysign(1, got[3]) == -1


def test_a_signalling_nan_from_afar_is_no_warning():
    narrow = np.array([0x7FA12345], np.uint32).view(np.float32)
    source = Cast("float32").decode(MemoryTensors({"a": narrow}), {"widen": {"a": "float64"}})
    assert np.isnan(source.arrays()["a"]).all()
    assert np.isnan(source.read("a", 0, 1)).all()


@pytest.mark.parametrize(("target", "value"), [("float16", 65_520.0), ("float32", 3.5e38), ("bfloat16", 3.4e38)])
def test_what_is_too_large_is_refused_by_name(target, value):
    with pytest.raises(EncodeError, match=f"tensor 'a': a value is too large for {target}"):
        Cast(target).encode({"a": np.array([1.0, value])})


def test_what_is_no_array_is_refused_by_name():
    with pytest.raises(EncodeError, match="tensor 'a'"):
        Cast("bfloat16").encode({"a": [1.0]})


def test_widened_arrays_are_read_only_like_the_others():
    codec = Cast("bfloat16")
    small, notes, _ = codec.encode({"a": np.zeros(3)})
    assert not codec.decode(MemoryTensors(small), notes).arrays()["a"].flags.writeable


def test_decoding_by_range_and_specs():
    codec = Cast("float16")
    small, notes, _ = codec.encode({"a": np.arange(6.0).reshape(2, 3), "n": np.arange(3)})
    source = codec.decode(MemoryTensors(small), notes)
    assert source.specs == (TensorSpec("a", np.dtype("f8"), (2, 3)), TensorSpec("n", np.dtype("i8"), (3,)))
    assert source.read("a", 2, 5).tolist() == [2, 3, 4]
    assert source.read("a", 2, 5).dtype == np.float64
    assert source.read("n", 0, 2).dtype == np.int64


@pytest.mark.parametrize(
    "notes", [{}, {"widen": None}, {"widen": []}, {"widen": {"b": "float64"}}, {"widen": {"n": "float64"}}]
)
def test_notes_that_do_not_fit(notes):
    tensors = MemoryTensors({"a": np.zeros(1, BF16), "n": np.zeros(1)})
    with pytest.raises(DecodeError) as caught:
        Cast("bfloat16").decode(tensors, notes)
    assert str(caught.value) == "update codec cast(bfloat16): its notes do not fit the tensors"


@pytest.mark.parametrize("wide", ["int64", "complex128", "float16", "bytes[8]", 7, None])
def test_types_that_nothing_is_widened_to(wide):
    with pytest.raises(UnsupportedError, match="tensor 'a': cannot widen to"):
        Cast("bfloat16").decode(MemoryTensors({"a": np.zeros(1, BF16)}), {"widen": {"a": wide}})
