"""Random numbers from seeds."""

from __future__ import annotations

import numpy as np
import pytest

from fedpost.codecs.kernels.streams import MAX_SEED, random_signs, random_units


@pytest.mark.parametrize(("seed", "stream"), [(0, 0), (1, 0), (0, 1), (MAX_SEED, MAX_SEED), (0x0123456789ABCDEF, 42)])
def test_they_are_philox(reference, seed, stream):
    words = reference.words(seed, stream, 40)
    signs = [word >> bit & 1 for word in words for bit in range(64)]
    assert random_signs(seed, stream, 0, 2500).tolist() == [sign << 31 for sign in signs[:2500]]
    halves = [half for word in words for half in (word & 0xFFFFFFFF, word >> 32)]
    assert random_units(seed, stream, 0, 77).tolist() == [(half >> 8) / 2**24 for half in halves[:77]]


def test_the_cipher_is_the_published_one(reference):
    # The first known answers of Random123: counter and key zero; reference.philox adds one to the counter.
    assert reference.philox(0, -1) == [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B]


def test_they_can_be_entered_anywhere():
    signs, units = random_signs(5, 6, 0, 4096), random_units(5, 6, 0, 4096)
    assert np.array_equal(random_signs(5, 6, 768, 1000), signs[768:1768])
    assert np.array_equal(random_units(5, 6, 1000, 99), units[1000:1099])


def test_they_look_random():
    signs = random_signs(1, 2, 0, 100_000) >> 31
    units = random_units(1, 2, 0, 100_000)
    assert abs(signs.mean() - 0.5) < 0.01
    assert abs(units.mean() - 0.5) < 0.005
    assert units.min() >= 0
    assert units.max() < 1
