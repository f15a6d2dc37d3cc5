"""Containers of a packed tree are counted exactly, whatever bytes look like their heads."""

from __future__ import annotations

import random

import ormsgpack
import pytest

from fedpost.objects.counting import containers_in
from fedpost.objects.wire import IN_PLACE, Kind

LEAVES = (
    *(1, 200, 70_000, -1, -200, -(1 << 20), 1 << 40, -(1 << 40), 1.5, None, True, False, "", "a", "é" * 100, "x" * 300),
    *(b"\x90" * 50, b"\x90" * 400, b"\x90" * 70_000, "\x00" * 70_000, "\u0450" * 15, ormsgpack.Ext(1, b"\x90")),
    *(ormsgpack.Ext(1, b"\x90\x91\x91"), ormsgpack.Ext(1, b"\x80" * 16)),
)


def some(chance, depth, count):
    """A value, and its containers added to the count."""
    choice = chance.random()
    if not depth or choice > 0.55:
        return chance.choice(LEAVES)
    count[0] += 1
    size = chance.choice([0, 1, 3, 16, 40])
    if choice < 0.25:
        return [some(chance, depth - 1, count) for _ in range(size)]
    if choice < 0.45:
        return {str(number) * chance.choice([1, 40]): some(chance, depth - 1, count) for number in range(size)}
    return ormsgpack.Ext(IN_PLACE + Kind.TUPLE, ormsgpack.packb([some(chance, 0, count) for _ in range(size)]))


@pytest.mark.parametrize("seed", range(60))
def test_they_are_counted_one_by_one(seed):
    chance = random.Random(seed)
    count = [0]
    packed = ormsgpack.packb([some(chance, 4, count)])
    # A row in place has a list in it, which counts as well.
    exact = count[0] + 1 + sum(1 for _ in rows_in(packed))
    found, less = containers_in(packed, exact), containers_in(packed, exact - 1)
    assert (found <= exact, less > exact - 1) == (True, True)


def rows_in(packed):
    found = []
    ormsgpack.unpackb(packed, ext_hook=lambda code, _: found.append(code))
    return [code for code in found if code >= IN_PLACE]


@pytest.mark.parametrize("count", [15, 16, 65_535, 65_536])
def test_heads_of_every_length(count):
    packed = ormsgpack.packb([[[]] * count, {str(number): {} for number in range(count)}])
    found, less = containers_in(packed, 2 * count + 3), containers_in(packed, 2 * count + 2)
    assert (found, less) == (2 * count + 3, 2 * count + 3)


@pytest.mark.parametrize(
    "packed", [b"\x91\xc1" + b"\x90" * 9, b"\xdd\x00", b"\xd9", b"\xc9\x00\x00", b"\x91\xcb\x00", b""]
)
def test_what_is_damaged_is_counted_up_to_there(packed):
    assert containers_in(packed, 1) <= 1
