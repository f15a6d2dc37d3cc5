"""Sparse integer matrices as bits: where the numbers are by row and column classes, then signs, then magnitudes.

Updates of a model are far from uniform: a unit that hardly fires leaves its row and its column almost empty. So each
row and column sends a symbol for how much is in it, on a scale of half octaves, and cells whose two symbols add up to
the same sum are coded together, as a *class*: they are about equally likely not to be zero, and then about equally
large. Rows and columns of zeros take no cells at all. The signs of a row mostly agree (a weight's gradient is the
unit's error times an activation, often not negative), so rows may also send which part of them is positive. The decoder
works with the integers that were sent and never with a logarithm.

Layout: one byte of flags, ``rows | columns << 1 | signs << 2``, then the two streams of :mod:`~.bits`, which hold:

1. with ``rows``: a symbol for each row, by ``put_symbols``: 0 for a row of zeros, else any of 1 to 127; this writer
   sends ``rint(2·log2(total + 0.25))`` for magnitudes of that total, which makes fewer bits than the number of
   non-zeros. Without: every row has symbol 1. The same for the columns with ``columns``.
2. The cells as a subset, the non-zeros being its ones. Cells of rows and columns with symbol 0 are left out. Rows of
   equal symbol form a group, in order, and so do columns. A pair of groups is a rectangle; its cells are in row-major
   order, rectangles in the order of (row symbol + column symbol, row symbol). A class is the rectangles of one sum.
   From here on the non-zeros are in that order.
3. Signs. Without ``signs``: plain bits, one for positive. With it (which needs ``rows``): for each row whose symbol is
   not 0, by ``put_symbols``, one of 0 to 8; this writer sends ``(16·positives + count) // (2·count)``. Then the subset
   of the positives, the non-zeros in stable order of what their row sent, a class for each of the nine.
4. Magnitudes. For m = 1 to 15, while at least 64 have a magnitude of m or more: of those, the subset of the greater.
   The classes for m = 1 are those of the cells, for a greater m what is left of the ones before; each time neighbours
   are merged, in order: a class closes as soon as it has 128 members, and a last one that has fewer joins the one
   before. What is left then, of magnitude m (at most 16) or more, sends ``magnitude − m`` in Elias gamma.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from fedpost.codecs.kernels.bits import BitReader, BitWriter, Integers, differences
from fedpost.codecs.kernels.subsets import put_subset, put_symbols, take_subset, take_symbols
from fedpost.errors import DecodeError

__all__ = ["MAX_MAGNITUDE", "Sparse", "pack_matrix", "unpack_matrix"]

MAX_MAGNITUDE: Final = 1 << 24
"""Magnitudes are below this, so that float32 holds them exactly."""

_ROWS: Final = 1
_COLUMNS: Final = 2
_SIGNS: Final = 4
_SYMBOLS: Final = 128
_SIGN_CLASSES: Final = 9
_PLAIN_MAGNITUDES: Final = 15
_MERGED: Final = 128
_FEW: Final = 64
_SMALL: Final = 512
"""Non-zeros below which classes are not tried."""

Floats = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Sparse:
    """The non-zeros of a matrix.

    Attributes:
        cells: Their places, ``row · columns + column``, each once.
        values: Their values, int64.
    """

    cells: Integers
    values: Integers


@dataclass(frozen=True, slots=True)
class _Axis:
    """Rows or columns, grouped by symbol: ``values`` are the symbols that occur, but for 0."""

    symbols: Integers
    values: Integers
    sizes: Integers
    order: Integers

    @classmethod
    def of(cls, symbols: Integers) -> _Axis:
        counts = np.bincount(symbols, minlength=1)
        counts[0] = 0
        order = np.argsort(symbols.astype(np.uint8), kind="stable")
        values = counts.nonzero()[0]
        return cls(symbols, values, counts[values], order[symbols.size - int(counts.sum()) :])

    @classmethod
    def plain(cls, size: int) -> _Axis:
        return cls(np.ones(size, np.int64), np.array([1]), np.array([size]), np.arange(size))

    def groups(self) -> Integers:
        """For each row or column the number of its group."""
        table = np.zeros(_SYMBOLS, np.int64)
        table[self.values] = np.arange(self.values.size)
        return table[self.symbols]

    def ranks(self) -> Integers:
        """For each row or column its place in its group."""
        ranks = np.zeros(self.symbols.size, np.int64)
        ranks[self.order] = np.arange(self.order.size) - np.repeat(self.starts(), self.sizes)
        return ranks

    def starts(self) -> Integers:
        return np.cumsum(self.sizes) - self.sizes


@dataclass(frozen=True, slots=True)
class _Cells:
    """The rectangles in their order: where each starts, its size, its groups, and the sizes of the classes."""

    starts: Integers
    sizes: Integers
    rows: Integers
    columns: Integers
    classes: Integers
    total: int

    @classmethod
    def of(cls, rows: _Axis, columns: _Axis) -> _Cells:
        sums = (rows.values[:, None] + columns.values[None]).reshape(-1)
        order = np.argsort(sums, kind="stable")
        sizes = np.multiply.outer(rows.sizes, columns.sizes).reshape(-1)[order]
        heads = differences(sums[order], -1).nonzero()[0]
        row, column = np.divmod(order, max(columns.values.size, 1))
        classes = np.add.reduceat(sizes, heads) if heads.size else sizes
        return cls(np.cumsum(sizes) - sizes, sizes, row, column, classes, int(sizes.sum()))


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def pack_matrix(sparse: Sparse, rows: int, columns: int) -> bytes:
    """Code the non-zeros of a matrix of ``rows`` × ``columns``.

    Args:
        sparse: The non-zeros, in the order of their places; magnitudes below :data:`MAX_MAGNITUDE`.
        rows: At least 1.
        columns: At least 1.
    """
    writer = BitWriter()
    if sparse.cells.size < _SMALL:
        return _pack_plain(writer, sparse, rows * columns)
    bounds = np.searchsorted(sparse.cells, np.arange(rows + 1) * columns)
    counts = bounds[1:] - bounds[:-1]
    row = np.repeat(np.arange(rows), counts)
    column = sparse.cells - row * columns
    magnitudes = np.abs(sparse.values)
    row_axis = _Axis.of(_half_octaves(_within(magnitudes, bounds)))
    column_axis = _Axis.of(_half_octaves(np.bincount(column, magnitudes, columns)))
    shares = (16 * _within(sparse.values > 0, bounds) + counts) // np.maximum(2 * counts, 1)
    flags = _worthwhile(row, column, magnitudes, row_axis, column_axis, counts, shares)
    if not flags:
        return _pack_plain(writer, sparse, rows * columns)
    if flags & _ROWS:
        put_symbols(writer, row_axis.symbols)
    else:
        row_axis = _Axis.plain(rows)
    if flags & _COLUMNS:
        put_symbols(writer, column_axis.symbols)
    else:
        column_axis = _Axis.plain(columns)
    cells = _Cells.of(row_axis, column_axis)
    places = _places(row, column, row_axis, column_axis, cells)
    values = np.zeros(cells.total, np.min_scalar_type(-1 - int(magnitudes.max())))
    values[places] = sparse.values
    ones, classes = put_subset(writer, values != 0, cells.classes)
    values = values[ones].astype(np.int64)
    if flags & _SIGNS:
        put_symbols(writer, shares[counts > 0])
        share = np.zeros(cells.total, np.uint8)
        share[places] = shares.astype(np.uint8)[row]
        share = share[ones]
        order = np.argsort(share, kind="stable")
        put_subset(writer, values[order] > 0, np.bincount(share, minlength=_SIGN_CLASSES))
    else:
        writer.bits(values > 0)
    _put_magnitudes(writer, np.abs(values), classes)
    return bytes([flags]) + bytes(writer)


def _within(values: Floats, bounds: Integers) -> Integers:
    """Sums of what is between the bounds."""
    sums = np.zeros(values.size + 1, np.int64)
    np.cumsum(values, out=sums[1:])
    upto = sums[bounds]
    within: Integers = upto[1:] - upto[:-1]
    return within


def _pack_plain(writer: BitWriter, sparse: Sparse, size: int) -> bytes:
    """Without classes the cells are in their own order."""
    used = np.zeros(size, np.bool_)
    used[sparse.cells] = True
    _, classes = put_subset(writer, used, np.array([size]))
    writer.bits(sparse.values > 0)
    _put_magnitudes(writer, np.abs(sparse.values), classes)
    return bytes([0]) + bytes(writer)


def _half_octaves(totals: Floats) -> Integers:
    """Symbols of total magnitudes, which are whole numbers below 2⁴⁶ and so exact."""
    symbols: Integers = np.rint(2 * np.log2(totals + 0.25)).astype(np.int64)
    symbols[totals == 0] = 0
    return symbols


def _places(row: Integers, column: Integers, rows: _Axis, columns: _Axis, cells: _Cells) -> Integers:
    """Where each non-zero stands in the order of the cells."""
    starts = np.zeros((rows.values.size, columns.values.size), np.int64)
    starts[cells.rows, cells.columns] = cells.starts
    group = columns.groups()
    places = starts[rows.groups()[row], group[column]]
    places += rows.ranks()[row] * columns.sizes[group][column]
    places += columns.ranks()[column]
    return places


def _put_magnitudes(writer: BitWriter, magnitudes: Integers, sizes: Integers) -> None:
    least = 1
    while least <= _PLAIN_MAGNITUDES and magnitudes.size >= _FEW:
        ones, sizes = put_subset(writer, magnitudes > least, _merged(sizes))
        magnitudes = magnitudes[ones]
        least += 1
    writer.gamma(magnitudes - least)


def _merged(sizes: Integers) -> Integers:
    merged: list[int] = []
    members = 0
    for size in sizes.tolist():
        members += size
        if members >= _MERGED:
            merged.append(members)
            members = 0
    if members:
        merged[-1:] = [sum(merged[-1:]) + members]
    return np.array(merged, np.int64)


def _worthwhile(
    row: Integers,
    column: Integers,
    magnitudes: Integers,
    rows: _Axis,
    columns: _Axis,
    counts: Integers,
    shares: Integers,
) -> int:
    """Which flags make the fewest bits, by the entropies of the counts; the reader need not agree."""
    shape = rows.values.size, columns.values.size
    of_share = np.bincount(shares, counts, _SIGN_CLASSES)
    positive = np.bincount(shares, shares * counts / 8, _SIGN_CLASSES)
    gain = row.size - _subset_cost(of_share, positive) - _symbol_cost(shares[counts > 0])
    with_rows = _ROWS | _SIGNS * (gain > 0)
    side_rows, side_columns = (_symbol_cost(axis.symbols) for axis in (rows, columns))
    side_rows -= max(gain, 0)
    pairs = rows.groups()[row] * shape[1] + columns.groups()[column]
    used = np.bincount(pairs, minlength=math.prod(shape)).reshape(shape)
    totals = np.bincount(pairs, magnitudes, math.prod(shape)).reshape(shape)
    sums = (rows.values[:, None] + columns.values[None]).reshape(-1)
    cells = np.multiply.outer(rows.sizes, columns.sizes)
    by_sum = [np.bincount(sums, table.reshape(-1)) for table in (cells, used, totals)]
    height, width = rows.symbols.size, columns.symbols.size
    costs = {
        0: _cost(np.array([height * width]), *(np.array([table.sum()]) for table in (used, totals))),
        _COLUMNS: _cost(columns.sizes * height, used.sum(0), totals.sum(0)) + side_columns,
        with_rows: _cost(rows.sizes * width, used.sum(1), totals.sum(1)) + side_rows,
        with_rows | _COLUMNS: _cost(*by_sum) + side_rows + side_columns,
    }
    return min(costs, key=lambda flags: costs[flags])


def _cost(cells: Floats, used: Floats, totals: Floats) -> float:
    """Bits of where the non-zeros are, and of their magnitudes as if these were geometric."""
    return _subset_cost(cells, used) + _subset_cost(totals, used)


def _subset_cost(sizes: Floats, counts: Floats) -> float:
    """Bits of a subset: its entropy, and the counts."""
    share = np.minimum(np.maximum(counts / np.maximum(sizes, 1), 1e-12), 1 - 1e-12)
    entropy = -sizes * (share * np.log2(share) + (1 - share) * np.log2(1 - share))
    return float(entropy.sum() + np.log2(sizes + 1).sum())


def _symbol_cost(symbols: Integers) -> float:
    """Bits of symbols: their entropy, and ten for each that occurs."""
    counts = np.bincount(symbols, minlength=1)
    counts = counts[counts > 0]
    return float((counts * np.log2(symbols.size / counts)).sum() + 10 * counts.size)


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def unpack_matrix(data: memoryview, rows: int, columns: int) -> Sparse:
    """Read what :func:`pack_matrix` wrote for a matrix of ``rows`` × ``columns``, both at least 1.

    Returns:
        The non-zeros, in any order.

    Raises:
        DecodeError: The bytes are not what it writes for any matrix of this shape.
    """
    if len(data) == 0 or data[0] >= 8 or data[0] & (_ROWS | _SIGNS) == _SIGNS:  # noqa: PLR2004 - three flags
        raise DecodeError("no such flags of a coded matrix")
    size = rows * columns
    # Symbols take at most half a number a level, places and signs half a number a cell, magnitudes one. In a subset
    # what they add up to is less than three times as much; in gamma each is below 24.
    numbers = 2 * size + 8 * (rows + columns)
    reader = BitReader(data[1:], numbers=numbers, zeros=3 * numbers + 24 * size)
    row_axis = _Axis.of(take_symbols(reader, rows)) if data[0] & _ROWS else _Axis.plain(rows)
    column_axis = _Axis.of(take_symbols(reader, columns)) if data[0] & _COLUMNS else _Axis.plain(columns)
    cells = _Cells.of(row_axis, column_axis)
    places, counts = take_subset(reader, cells.classes)
    if data[0] & (_ROWS | _COLUMNS):
        row, column = _found(places, row_axis, column_axis, cells)
        found = row * columns + column
    else:
        row = found = places  # the row is asked for only with signs
    if data[0] & _SIGNS:
        shares = np.zeros(rows, np.uint8)
        live = row_axis.symbols.nonzero()[0]
        shares[live] = symbols = take_symbols(reader, live.size)
        if symbols.max(initial=0) >= _SIGN_CLASSES:
            raise DecodeError("no such class of signs")
        share = shares[row]
        order = np.argsort(share, kind="stable")
        positives, _ = take_subset(reader, np.bincount(share, minlength=_SIGN_CLASSES))
        positive = np.zeros(places.size, np.bool_)
        positive[order[positives]] = True
    else:
        positive = reader.bits(places.size)
    values = _take_magnitudes(reader, places.size, counts)
    reader.finish()
    np.negative(values, out=values, where=~positive)
    return Sparse(found, values)


def _found(places: Integers, rows: _Axis, columns: _Axis, cells: _Cells) -> tuple[Integers, Integers]:
    """Row and column of each place; the inverse of :func:`_places`."""
    within = differences(np.searchsorted(places, cells.starts + cells.sizes), 0)
    inside = places - np.repeat(cells.starts, within)
    row, column = np.divmod(inside.astype(np.uint32), np.repeat(columns.sizes[cells.columns].astype(np.uint32), within))
    row_of = rows.order[row + np.repeat(rows.starts()[cells.rows], within)]
    column_of = columns.order[column + np.repeat(columns.starts()[cells.columns], within)]
    return row_of, column_of


def _take_magnitudes(reader: BitReader, count: int, sizes: Integers) -> Integers:
    magnitudes = np.ones(count, np.int64)
    left = np.arange(count)
    least = 1
    while least <= _PLAIN_MAGNITUDES and left.size >= _FEW:
        ones, sizes = take_subset(reader, _merged(sizes))
        left = left[ones]
        least += 1
        magnitudes[left] = least
    magnitudes[left] += reader.gamma(left.size, limit=MAX_MAGNITUDE - least)
    return magnitudes
