"""Eight, four and one bit a value."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedpost.codecs.kernels.blocks import decode_blocks, decode_signs, encode_blocks, encode_signs
from fedpost.errors import DecodeError, EncodeError

SHAPES = [(), (0,), (1,), (3, 0), (5,), (64,), (65,), (3, 30, 7), (70_001,)]
MOST = {8: 127, 4: 7}


def decoded(data, shape, decode=decode_blocks):
    out = np.full(shape, np.nan, np.float32)
    decode(data, out)
    return out


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bits", MOST)
@pytest.mark.parametrize("block_bits", [6, 12])
@pytest.mark.parametrize("width", [4, 2])
@pytest.mark.parametrize("seed", [None, 7])
def test_the_error_is_within_a_step(shape, bits, block_bits, width, seed):
    x = np.random.default_rng(1).laplace(size=shape).astype(np.float32)
    data = encode_blocks(x, bits, block_bits=block_bits, scale_width=width, seed=seed)
    blocks = -(-x.size >> block_bits)
    assert len(data) == 3 + blocks * width + -(-x.size * bits // 8)
    out, flat = decoded(data, shape).reshape(-1), x.reshape(-1)
    for start in range(0, x.size, 1 << block_bits):
        piece = slice(start, start + (1 << block_bits))
        step = np.abs(flat[piece]).max() / MOST[bits] * (1.002 if width == 2 else 1.00001)
        assert np.abs(flat[piece] - out[piece]).max() <= step * (0.5001 if seed is None else 1)


@given(hnp.arrays(np.float32, st.integers(0, 200), elements=st.floats(-(2.0**60), 2.0**60, width=32)), st.booleans())
def test_any_values(x, chance):
    for bits, most in MOST.items():
        out = decoded(encode_blocks(x, bits, seed=1 if chance else None), x.shape)
        assert (np.abs(out - x) <= np.abs(x).max(initial=0) / most * 1.001 + 1e-44).all()


@pytest.mark.parametrize("bits", MOST)
def test_the_mean_over_seeds_is_the_tensor(bits):
    x = np.random.default_rng(2).laplace(size=500).astype(np.float32)
    total, runs = np.zeros(x.size), 500
    for seed in range(runs):
        total += decoded(encode_blocks(x, bits, seed=seed), x.shape)
    step = np.abs(x).max() / MOST[bits]
    assert np.abs(total / runs - x).max() < 5 * step / 2 / runs**0.5


def test_the_bytes():
    x = np.array([7, -7, 3.4, 0, -1.2], np.float32)
    assert encode_blocks(x, 4).hex() == "040408" + "0000803f" + "97" + "03" + "0f"
    assert encode_blocks(x * 127 / 7, 8, block_bits=6, scale_width=2).hex() == "080206" + "003c" + "7f813e00ea"
    assert encode_signs(x).hex() == "7b146e40" + "12"
    chance = encode_blocks((np.arange(70_000) % 1013 - 506).astype(np.float32), 8, seed=2**64 - 1, stream=3)
    assert hashlib.sha256(chance).hexdigest() == GOLDEN


GOLDEN = "8c9eeb3706997365252ba56d59aacb496e165d23139ae5d79de5ac823d5fb189"


@pytest.mark.parametrize("shape", SHAPES)
def test_signs(shape):
    x = np.random.default_rng(3).laplace(size=shape).astype(np.float32)
    residual = np.empty_like(x)
    data = encode_signs(x, residual=residual)
    out = decoded(data, shape, decode_signs)
    mean = np.float32(np.abs(x).mean(dtype=np.float64)) if x.size else 0
    assert np.allclose(out, np.copysign(mean, x), rtol=1e-6)
    assert np.array_equal(residual, x - out)
    assert encode_signs(x, residual=x) == data
    assert np.array_equal(residual, x)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_refused(value):
    x = np.ones(50_000, np.float32)
    x[-1] = value
    with pytest.raises(EncodeError, match="NaN or infinite"):
        encode_blocks(x, 8)
    with pytest.raises(EncodeError, match="NaN or infinite"):
        encode_signs(x)


def test_arguments():
    x = np.ones(5, np.float32)
    for options in (
        {"bits": 5},
        {"block_bits": 5},
        {"block_bits": 13},
        {"scale_width": 8},
        {"seed": -1},
        {"stream": -1},
    ):
        with pytest.raises(EncodeError):
            encode_blocks(x, **{"bits": 8, **options})
    with pytest.raises(EncodeError, match="too large"):
        encode_blocks(x * 1e9, 8, scale_width=2)
    with pytest.raises(EncodeError, match="too large"):
        encode_blocks(x * np.float32(3e38), 4)


def test_the_least_number_is_not_used():
    for bits, number in ((8, b"\x80"), (4, b"\x08")):
        with pytest.raises(DecodeError, match="below the least"):
            decode_blocks(bytes([bits, 4, 6]) + b"\0\0\x80\x3f" + number, np.empty(1, np.float32))
