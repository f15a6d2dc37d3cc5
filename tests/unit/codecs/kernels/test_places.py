"""The greatest values: exactly those that sorting gives, and in little memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from fedpost.codecs.kernels.blocks import encode_blocks, encode_signs
from fedpost.codecs.kernels.places import cuts, greatest, put_places, take_places
from fedpost.codecs.kernels.sparsify import encode_stc, encode_top
from fedpost.errors import EncodeError

RNG = np.random.default_rng(2)


def sorted_out(x, share):
    """By a stable sort of the magnitudes, the greatest first; where too few are not zero, these."""
    count = min(x.size, max(1, round(share * x.size)))
    found = np.sort(np.argsort(-np.abs(x), kind="stable")[:count])
    return found[x[found] != 0]


@pytest.mark.parametrize("share", [1e-6, 0.01, 0.3, 0.5, 0.999, 1.0])
@pytest.mark.parametrize(
    "x",
    [
        RNG.standard_normal(1),
        RNG.standard_normal(1000),
        RNG.integers(-3, 4, 5000),
        np.zeros(70),
        np.tile([0.0, -0.0, 1e-45, -1e-45], 30),
        RNG.standard_normal(300_000) * np.exp(8 * RNG.standard_normal(300_000)),
        np.repeat([1.0, -1.0, 1 + 2**-23], 100_000),
        np.array([3e38, -3e38, 1e-38, 0.0]),
    ],
    ids=range(8),
)
def test_they_are_what_sorting_gives(x, share):
    x = x.astype(np.float32)
    (cut,) = cuts([x], share)
    places = greatest(x, cut)
    assert places.tolist() == sorted_out(x, share).tolist()
    assert take_places(memoryview(put_places(places, x.size)), x.size).tolist() == places.tolist()


def test_of_nothing_there_is_none():
    nothing = np.empty(0, np.float32)
    assert cuts([], 0.5) == []
    assert greatest(nothing, cuts([nothing], 0.5)[0]).size == 0


@pytest.mark.parametrize("levels", [0, 1, 3])
@pytest.mark.parametrize("share", [1e-6, 0.01, 0.3, 1.0])
def test_of_many_tensors_the_greatest_of_all_are_taken(share, levels):
    """As of one that holds them one after the other; some have none."""
    sizes = [300_000, 0, 1, 4000, 7, 262_144, 0]
    xs = [(RNG.standard_normal(size) * scale).astype(np.float32) for scale, size in enumerate(sizes, 1)]
    if levels:
        xs = [np.clip(np.rint(x), -levels, levels) for x in xs]
    starts = np.cumsum([0, *sizes[:-1]])
    found = [greatest(x, cut) + start for x, cut, start in zip(xs, cuts(xs, share), starts, strict=True)]
    assert np.concatenate(found).tolist() == sorted_out(np.concatenate(xs), share).tolist()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -np.nan])
@pytest.mark.parametrize("share", [0.1, 1.0])
def test_what_is_not_finite_is_refused(value, share):
    x = np.ones(600_000, np.float32)
    x[-1] = value
    with pytest.raises(EncodeError, match="NaN or infinite"):
        cuts([x], share)


@pytest.mark.parametrize(
    ("encode", "most"),
    [
        (lambda x: encode_top(x, *cuts([x.reshape(-1)], 0.01)), 0.45),
        (lambda x: encode_stc(x, *cuts([x.reshape(-1)], 0.01)), 0.45),
        (lambda x: encode_signs(x, residual=x), 0.2),
        (lambda x: encode_blocks(x, 8, seed=1), 0.45),
        (lambda x: encode_blocks(x, 4, seed=1), 0.3),
    ],
    ids=["top", "stc", "signs", "int8", "int4"],
)
def test_they_take_less_than_half_of_the_tensor(encode, most):
    x = RNG.standard_normal((2048, 2048)).astype(np.float32)
    tracemalloc.start()
    encode(x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < most * x.nbytes
