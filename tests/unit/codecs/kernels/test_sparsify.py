"""Top-k and STC, and the places that both send."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpost.codecs.kernels.places import cuts, greatest, put_places, take_places
from fedpost.codecs.kernels.sparsify import decode_stc, decode_top, encode_stc, encode_top
from fedpost.errors import EncodeError

SHAPES = [(), (0,), (1,), (3, 0), (30, 50), (7, 11, 13)]


def cut(x, share):
    return cuts([x.reshape(-1)], share)[0]


def decoded(decode, data, shape, **options):
    out = np.full(shape, np.nan, np.float32)
    decode(data, out, **options)
    return out


@given(st.integers(1, 3000), st.data())
def test_places_come_back(reference, size, data):
    places = np.array(sorted(data.draw(st.sets(st.integers(0, size - 1), max_size=60))), np.int64)
    coded = put_places(places, size)
    assert take_places(memoryview(coded), size).tolist() == places.tolist()
    assert reference.places(coded, size) == places.tolist()


@pytest.mark.parametrize("share", [0.001, 0.01, 0.04, 0.1, 0.3])
def test_places_are_near_the_entropy(share):
    size = 400_000
    places = np.flatnonzero(np.random.default_rng(0).random(size) < share)
    p = places.size / size
    entropy = -size * (p * math.log2(p) + (1 - p) * math.log2(1 - p))
    coded = put_places(places, size)
    assert 8 * len(coded) < 1.035 * entropy
    assert coded[3 if places.size >= 1 << 14 else 2] == 1 + math.floor(math.log2(math.log(0.618) / math.log(1 - p)))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("share", [0.04, 0.5, 1])
@pytest.mark.parametrize("width", [4, 2])
def test_top(shape, share, width):
    x = np.random.default_rng(3).laplace(size=shape).astype(np.float32)
    residual = np.empty_like(x)
    data = encode_top(x, cut(x, share), width=width, residual=residual)
    out = decoded(decode_top, data, shape)
    count = min(x.size, max(1, round(share * x.size)))
    assert np.count_nonzero(out) == count
    chosen = np.where(np.abs(x) >= np.sort(np.abs(x), axis=None)[x.size - count], x, 0) if x.size else x
    assert np.allclose(out, chosen, rtol=1e-3 if width == 2 else 0)
    assert np.array_equal(residual, x - out)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("share", [0.04, 1])
def test_stc(shape, share):
    x = np.random.default_rng(4).laplace(size=shape).astype(np.float32)
    residual = np.empty_like(x)
    data = encode_stc(x, cut(x, share), residual=residual)
    out = decoded(decode_stc, data, shape)
    places = greatest(x.reshape(-1), cut(x, share))
    sent = x.reshape(-1)[places]
    assert np.array_equal(np.flatnonzero(out), places)
    if places.size:
        mean = np.float32(np.abs(sent).mean(dtype=np.float64))
        assert np.array_equal(out.reshape(-1)[places], np.copysign(mean, sent))
    assert np.array_equal(residual, x - out)


@pytest.mark.parametrize(("encode", "decode"), [(encode_top, decode_top), (encode_stc, decode_stc)])
def test_adding_and_the_residual_in_place(encode, decode):
    x = np.random.default_rng(5).laplace(size=(40, 50)).astype(np.float32)
    data, whole = encode(x, cut(x, 0.1)), x.copy()
    out = np.full_like(x, -0.0)
    decode(data, out, add=True)
    sent = decoded(decode, data, x.shape)
    assert np.array_equal(out, sent)
    assert np.signbit(out[sent == 0]).all()
    assert encode(whole, cut(whole, 0.1), residual=whole) == data
    assert np.array_equal(whole, x - sent)


def test_frozen_bytes():
    x = np.array([0, 5, -1, 0, 0.5, 0, -8, 0, 0, 2], np.float32)
    assert encode_top(x, cut(x, 0.3)).hex() == GOLDEN_TOP
    assert encode_top(x, cut(x, 0.3), width=2).hex() == GOLDEN_TOP_HALF
    assert encode_stc(x, cut(x, 0.3)).hex() == GOLDEN_STC


GOLDEN_TOP = "040500000003010129010000a040000000c100000040"
GOLDEN_TOP_HALF = "02050000000301012901004500c80040"
GOLDEN_STC = "0000a04005000000030101290105"


@pytest.mark.parametrize("share", [0, -1, 1.5, math.nan])
def test_what_is_no_share_is_refused(share):
    with pytest.raises(EncodeError, match="share"):
        cuts([np.ones(5, np.float32)], share)


@pytest.mark.parametrize("encode", [encode_top, encode_stc])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_refused(encode, value):
    x = np.array([1, value, 2], np.float32)
    with pytest.raises(EncodeError, match="NaN or infinite"):
        cuts([x], 0.5)
    with pytest.raises(EncodeError, match="NaN or infinite"):
        encode(x, cut(np.ones(3, np.float32), 0.5))


def test_what_float16_cannot_hold_is_refused():
    x = np.array([1, 1e6], np.float32)
    with pytest.raises(EncodeError, match="too large for float16"):
        encode_top(x, cut(x, 0.5), width=2)
    with pytest.raises(EncodeError, match="3 bytes"):
        encode_top(x, cut(x, 0.5), width=3)
