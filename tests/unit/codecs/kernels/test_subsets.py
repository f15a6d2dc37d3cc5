"""Subsets in classes, and trees of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpost.codecs.kernels.bits import BitReader, BitWriter
from fedpost.codecs.kernels.subsets import put_subset, put_symbols, rice_parameters, take_subset, take_symbols
from fedpost.errors import DecodeError


def reading(data):
    """A reader that takes any numbers."""
    return BitReader(data, numbers=1 << 20, zeros=1 << 40)


bits_in_classes = st.lists(st.lists(st.booleans(), max_size=40), max_size=8)


@given(bits_in_classes)
def test_a_subset_comes_back(classes):
    bits = np.array([bit for members in classes for bit in members], np.bool_)
    sizes = np.array([len(members) for members in classes], np.int64)
    writer = BitWriter()
    ones, counts = put_subset(writer, bits, sizes)
    assert ones.tolist() == np.flatnonzero(bits).tolist()
    assert counts.tolist() == [sum(members) for members in classes]
    reader = reading(memoryview(bytes(writer)))
    for found, sent in zip(take_subset(reader, sizes), (ones, counts), strict=True):
        assert found.tolist() == sent.tolist()
    reader.finish()


@given(st.lists(st.integers(0, 127), max_size=200))
def test_symbols_come_back(values):
    writer = BitWriter()
    put_symbols(writer, np.array(values, np.int64))
    reader = reading(memoryview(bytes(writer)))
    assert take_symbols(reader, len(values)).tolist() == values
    reader.finish()


@given(st.integers(1, 2**22), st.data())
def test_the_parameter_is_next_to_the_best(size, data):
    count = data.draw(st.integers(1, max(1, size // 2)))
    (parameter,) = rice_parameters(np.array([size]), np.array([count]))

    def bits(b):  # of a geometric gap
        kept = (1 - count / size) ** (1 << b)
        return b + 1 + kept / (1 - kept)

    assert bits(int(parameter)) <= 1.01 * min(bits(b) for b in range(24))


@pytest.mark.parametrize("share", [0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.97])
def test_the_size_is_near_the_entropy(share):
    bits = np.random.default_rng(0).random(200_000) < share
    writer = BitWriter()
    put_subset(writer, bits, np.array([bits.size]))
    p = bits.mean()
    entropy = -bits.size * (p * math.log2(p) + (1 - p) * math.log2(1 - p))
    assert 0.99 * entropy < 8 * len(bytes(writer)) < 1.035 * entropy + 64


def test_a_count_above_the_size():
    writer = BitWriter()
    writer.plain(np.array([6]), np.array([3]))
    with pytest.raises(DecodeError, match="more ones"):
        take_subset(reading(memoryview(bytes(writer))), np.array([5]))


@pytest.mark.parametrize(("gap", "fits"), [(3, True), (4, False)])
def test_a_gap_stays_in_its_class(gap, fits):
    writer = BitWriter()
    writer.plain(np.array([1, 1]), np.array([3, 3]))
    parameters = rice_parameters(np.array([4, 4]), np.array([1, 1]))
    writer.unary(np.array([gap, 0]) >> parameters)
    writer.plain(np.array([gap, 0]), parameters)
    reader = reading(memoryview(bytes(writer)))
    if fits:
        assert take_subset(reader, np.array([4, 4]))[0].tolist() == [3, 4]
    else:
        with pytest.raises(DecodeError, match="out of its class"):
            take_subset(reader, np.array([4, 4]))
