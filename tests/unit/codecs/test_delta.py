"""``delta``: exact to the bit, by range, and only with the right base."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fedpost.codecs import Base, Delta
from fedpost.errors import ConfigError, DecodeError, EncodeError
from fedpost.frame import Frame
from fedpost.pipeline import Pipeline, decode_tensors, tensor_sizes
from fedpost.tensors import MemoryTensors

BF16 = np.dtype(ml_dtypes.bfloat16)
SPECIAL = np.array([0x7FC12345, 0xFFA00001, 0x80000000, 0x00000001, 0x7F800000], np.uint32).view(np.float32)
OLD = {
    "w": np.arange(12, dtype=np.float32).reshape(3, 4),
    "special": np.zeros(5, np.float32),
    "h": np.ones(7, BF16),
    "n": np.array(3, np.int64),
    "c": np.ones(3, np.complex128),
    "big": np.arange(4, dtype=">f4"),
    "other shape": np.zeros(3),
    "other type": np.zeros(3),
    "text": np.array(["a", "b"]),
    "empty": np.ones((0, 2), np.float32),
}
NEW = {
    "w": np.asfortranarray(OLD["w"] + np.float32(0.1)),
    "special": SPECIAL,
    "h": -OLD["h"],
    "n": np.array(-4, np.int64),
    "c": OLD["c"] * 1j,
    "big": OLD["big"][::-1],
    "other shape": np.ones(4),
    "other type": np.ones(3, np.float32),
    "text": np.array(["a", "c"]),
    "empty": OLD["empty"],
    "new": np.ones(2),
}


def same(got, expected):
    assert list(got) == list(expected)
    for name, array in expected.items():
        assert (got[name].dtype, got[name].shape) == (array.dtype, array.shape)
        assert got[name].tobytes() == array.tobytes()
        assert not got[name].flags.writeable


@pytest.mark.parametrize("compression", ["none", "lx", "zstd"])
def test_a_delta_comes_back_to_the_bit(compression):
    base = Base.of(OLD)
    frame = Frame.decode(bytes(Pipeline.parse(f"delta | fedwt | {compression}").encode(NEW, base=base)))
    source = decode_tensors(frame, base=Base.of(OLD))
    same(source.arrays(), NEW)
    for name, array in NEW.items():
        middle = array.size // 2
        assert source.read(name, middle, array.size).tobytes() == array.reshape(-1)[middle:].tobytes()
    assert tensor_sizes(frame)["w"][0] == tensor_sizes(frame, base=base)["w"][0] == 48


def test_only_bits_that_differ_are_sent():
    sent, notes, _ = Delta().encode(NEW, Base.of(OLD))
    assert sent["h"].view(np.uint16).tolist() == [0x8000] * 7
    assert notes["whole"] == ["other shape", "other type", "text", "new"]
    assert sent["new"] is NEW["new"]
    assert Delta().encode(OLD, Base.of(OLD))[0]["w"].any() == np.False_


@given(arrays.arrays(np.uint32, 20), arrays.arrays(np.uint32, 20), st.integers(0, 20))
def test_any_bits_come_back(old, new, start):
    base = Base.of({"x": old.view(np.float32)})
    sent, notes, _ = Delta().encode({"x": new.view(np.float32)}, base)
    source = Delta().decode(MemoryTensors(sent), notes, base)
    assert source.arrays()["x"].tobytes() == new.tobytes()
    assert source.read("x", start, 20).tobytes() == new[start:].tobytes()


def test_there_is_no_delta_without_a_base():
    assert Delta().needs_base
    with pytest.raises(ConfigError, match="delta needs a base"):
        Pipeline.parse("delta | fedwt | none").encode(NEW)
    base = Base.of(OLD)
    frame = Pipeline.parse("delta | fedwt | none").encode(NEW, base=base)
    with pytest.raises(DecodeError, match=base.digest.hex()):
        decode_tensors(frame)


def test_another_base_is_refused():
    base, other = Base.of(OLD), Base.of({**OLD, "n": np.array(2, np.int64)})
    sent, notes, _ = Delta().encode(NEW, base)
    with pytest.raises(DecodeError, match=f"{base.digest.hex()}; this is {other.digest.hex()}"):
        Delta().decode(MemoryTensors(sent), notes, other)


@pytest.mark.parametrize(
    "notes",
    [
        {},
        {"base": "x", "whole": []},
        {"base": bytes(16)},
        {"base": bytes(16), "whole": ["no such tensor"]},
        {"base": bytes(16), "whole": "w"},
        {"base": bytes(16), "whole": [["w"]]},
    ],
)
def test_notes_that_do_not_fit(notes):
    with pytest.raises(DecodeError, match="update codec delta"):
        Delta().decode(MemoryTensors({"w": OLD["w"]}), notes, Base(bytes(16), MemoryTensors(OLD)))


@pytest.mark.parametrize("name", ["new", "other shape", "text"])
def test_a_tensor_that_the_base_has_not_is_refused(name):
    base = Base.of(OLD)
    with pytest.raises(DecodeError, match=f"tensor '{name}'"):
        Delta().decode(MemoryTensors({name: NEW[name]}), {"base": base.digest, "whole": []}, base)


def test_the_digest_is_of_all_that_a_model_is():
    digest = Base.of(OLD).digest
    assert len(digest) == 16
    assert Base.of(dict(reversed(OLD.items()))).digest == digest
    assert Base.of({**OLD, "w": np.asfortranarray(OLD["w"])}).digest == digest
    for other in (
        {**OLD, "w": OLD["w"] + 1},
        {**OLD, "w": OLD["w"].reshape(4, 3)},
        {**OLD, "w": OLD["w"].view(np.int32)},
        {**OLD, "x": OLD["w"]},
    ):
        assert Base.of(other).digest != digest
    assert Base.of({"s": np.array(["ab"]), "v": np.array([(1, 2.0)], "i4,f8"), "e": np.zeros(3, "S0")}).digest
    with pytest.raises(EncodeError, match="tensor 'a'"):
        Base.of({"a": [1.0]})


def test_a_model_in_strange_order_is_hashed_by_parts():
    array = np.arange(70_000 * 3, dtype=np.float32).reshape(70_000, 3)
    assert Base.of({"a": array.T}).digest == Base.of({"a": np.ascontiguousarray(array.T)}).digest


def test_other_codecs_take_no_notice():
    frame = Pipeline.parse("cast(bfloat16) | fedwt | none").encode({"w": OLD["w"]}, base=Base.of(OLD))
    same(decode_tensors(frame, base=Base.of(NEW)).arrays(), {"w": OLD["w"]})
