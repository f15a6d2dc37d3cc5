"""The Hadamard transform."""

from __future__ import annotations

import numpy as np
import pytest

from fedpost.codecs.kernels.hadamard import hadamard_in_place


def transformed(x):
    out = x.copy()
    hadamard_in_place(out, np.empty_like(out))
    return out


@pytest.mark.parametrize("power", range(11))
def test_it_is_the_matrix(power):
    size = 1 << power
    index = np.arange(size)
    matrix = (-1.0) ** np.bitwise_count(index[:, None] & index)
    x = np.random.default_rng(power).standard_normal(size).astype(np.float32)
    assert np.allclose(transformed(x), matrix @ x / np.sqrt(size), atol=1e-5)


@pytest.mark.parametrize("power", [0, 1, 4, 9, 15])
def test_it_is_its_own_inverse(power):
    x = np.random.default_rng(power).standard_normal(1 << power).astype(np.float32)
    assert np.allclose(transformed(transformed(x)), x, atol=1e-5)
    assert np.linalg.norm(transformed(x)) == pytest.approx(np.linalg.norm(x), rel=1e-5)


@pytest.mark.parametrize("power", [1, 2, 3, 6, 7])
def test_the_order_of_the_additions(power):
    x = (np.random.default_rng(3).standard_normal(1 << power) * 10.0 ** np.arange(1 << power % 5).max()).astype(
        np.float32
    )
    y = x.copy()
    for bit in reversed(range(power)):
        for i in range(y.size):
            if not i >> bit & 1:
                j = i | 1 << bit
                y[i], y[j] = y[i] + y[j], y[i] - y[j]
    assert np.array_equal(transformed(x), y * np.float32(2 ** (-power / 2)))
