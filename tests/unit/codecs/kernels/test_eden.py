"""EDEN: unbiased at a few bits."""

from __future__ import annotations

import hashlib
import itertools
import math

import numpy as np
import pytest

from fedpost.codecs.kernels.eden import CENTROIDS, decode_eden, decode_eden_range, encode_eden
from fedpost.errors import DecodeError, EncodeError


def decoded(data, seed, shape, stream=0):
    out = np.full(shape, np.nan, np.float32)
    decode_eden(data, seed, out, stream=stream)
    return out


def density(x):
    return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def above(x):
    return math.erfc(x / math.sqrt(2)) / 2


@pytest.mark.parametrize("bits", CENTROIDS)
def test_centroids_are_the_fixed_point_of_lloyd_and_max(bits):
    levels = CENTROIDS[bits]
    assert len(levels) == 1 << (bits - 1)
    edges = [0, *((a + b) / 2 for a, b in itertools.pairwise(levels)), math.inf]
    for level, (low, high) in zip(levels, itertools.pairwise(edges), strict=True):
        mean = (density(low) - (0 if high == math.inf else density(high))) / (above(low) - above(high))
        assert mean == pytest.approx(level, abs=1e-13)


@pytest.mark.parametrize("bits", CENTROIDS)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 33, 200, 256])
def test_a_second_reader_reads_the_same(reference, bits, size):
    x = np.random.default_rng(size).laplace(size=size).astype(np.float32)
    data = encode_eden(x, bits, 77, stream=5)
    expected = reference.eden(data, size, 77, 5, CENTROIDS)
    assert np.allclose(decoded(data, 77, (size,), 5), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("bits", "error"), [(1, 0.5708), (2, 0.1331), (3, 0.0358), (4, 0.0096)])
def test_the_error_is_the_papers(bits, error):
    x = np.random.default_rng(0).laplace(size=(3, 1 << 15)).astype(np.float32)
    out = decoded(encode_eden(x, bits, 9), 9, x.shape)
    assert float(np.square(x - out).sum() / np.square(x).sum()) == pytest.approx(error, rel=0.05)


@pytest.mark.parametrize("bits", CENTROIDS)
@pytest.mark.parametrize("size", [300, 1024])
def test_the_mean_over_seeds_is_the_tensor(bits, size):
    x = np.random.default_rng(1).laplace(size=size).astype(np.float32)
    total, runs = np.zeros(size), 500
    for seed in range(runs):
        total += decoded(encode_eden(x, bits, seed), seed, (size,))
    error = np.linalg.norm(total / runs - x) / np.linalg.norm(x)
    one = np.linalg.norm(decoded(encode_eden(x, bits, 0), 0, (size,)) - x) / np.linalg.norm(x)
    assert error < 1.3 * one / math.sqrt(runs) + 0.003


@pytest.mark.parametrize("shape", [(), (0,), (5, 0), (1,), (3, 4, 5), (40_000,), (2, 1 << 15)])
def test_shapes(shape):
    x = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    out = decoded(encode_eden(x, 4, 3), 3, shape)
    assert np.linalg.norm(x - out) <= 0.3 * np.linalg.norm(x)


@pytest.mark.parametrize("size", [1, 70_000])
def test_ranges(size):
    data = encode_eden(np.random.default_rng(6).laplace(size=size).astype(np.float32), 2, 3, stream=4)
    whole = decoded(data, 3, (size,), 4)
    for start, stop in ((0, size), (0, 0), (size, size), (size // 3, size // 2), (size // 5, size), (size - 1, size)):
        assert np.array_equal(decode_eden_range(data, 3, size, start, stop, stream=4), whole[start:stop])


def test_each_seed_and_stream_rotates_differently():
    x = np.random.default_rng(2).standard_normal(500).astype(np.float32)
    coded = {encode_eden(x, 1, seed, stream=stream) for seed in range(3) for stream in range(3)}
    assert len(coded) == 9


@pytest.mark.parametrize("factor", [1e-44, 1e-38, 1e-30, 1e25, 1e30])
def test_extremes(factor):
    x = (np.array([1, -2, 3, -4], np.float64) * factor).astype(np.float32)
    out = decoded(encode_eden(x, 4, 1), 1, (4,)).astype(np.float64)
    assert np.linalg.norm(x - out) <= 0.5 * np.linalg.norm(x.astype(np.float64))


def test_zeros_stay_zeros():
    assert not decoded(encode_eden(np.zeros(70_000, np.float32), 2, 1), 1, (70_000,)).any()


@pytest.mark.parametrize(("value", "said"), [(np.nan, "NaN"), (np.inf, "NaN"), (3e38, "too large")])
def test_what_is_refused(value, said):
    with pytest.raises(EncodeError, match=said):
        encode_eden(np.full(100, value, np.float32), 1, 1)


def test_arguments():
    x = np.ones(4, np.float32)
    for bits, seed, stream in ((0, 1, 0), (5, 1, 0), (1, -1, 0), (1, 1 << 64, 0), (1, 1, -1)):
        with pytest.raises(EncodeError):
            encode_eden(x, bits, seed, stream=stream)
    with pytest.raises(DecodeError, match="64 bits"):
        decode_eden(encode_eden(x, 1, 1), -1, x)


def test_frozen_bytes():
    x = (np.arange(40_000) * 7919 % 1013 - 506).astype(np.float32)
    coded = b"".join(encode_eden(x, bits, 2**63 + bits, stream=bits) for bits in CENTROIDS)
    out = b"".join(
        decoded(encode_eden(x, bits, 2**63 + bits), 2**63 + bits, x.shape).astype("<f4").tobytes() for bits in CENTROIDS
    )
    assert hashlib.sha256(coded).hexdigest() == GOLDEN_CODED
    assert hashlib.sha256(out).hexdigest() == GOLDEN_DECODED


GOLDEN_CODED = "ac8a3a896268c5dfe91983745985133dc01c85d13c7a77b0c36edd00c98fcb54"
GOLDEN_DECODED = "d4ba9ea7e179e699a453b7fedb693391c0ac2c134165195cbd34bbb06655d25b"
