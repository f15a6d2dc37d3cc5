"""A second reader of coded updates, from ``docs/spec/updates.md`` alone: it shares no line with fedpost.

It needs ``struct`` and ``numpy``, and ``ml_dtypes`` for ``bfloat16``; it tells good bytes from damaged ones, without
budgets, and is slow.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]
BRAIN, WIDER = np.dtype(ml_dtypes.bfloat16), ("float32", "float64")
FLOATS = [np.dtype(kind) for kind in ("<f2", "<f4", "<f8", ml_dtypes.bfloat16)]


def undo(update: str, notes: dict[str, Any], sent: Arrays, base: Arrays) -> Arrays:
    """The tensors that were meant, by the base that the notes name."""
    if chain := re.fullmatch(r"cast\(bfloat16\) \| (.*)", update):
        narrow = {tensor: old.astype(BRAIN) if old.dtype.name in WIDER else old for tensor, old in base.items()}
        got = undo(chain[1], notes["notes"], sent, narrow)
        require(all(got[tensor].dtype == BRAIN for tensor in notes["widen"]), "the notes fit the tensors")
        wide = {tensor: np.dtype(text.strip(">")) for tensor, text in notes["widen"].items()}
        wide |= {tensor: wide[tensor].newbyteorder(">") for tensor, text in notes["widen"].items() if text[0] == ">"}
        return {tensor: array.astype(wide.get(tensor, array.dtype)) for tensor, array in got.items()}
    usual = re.sub(r"(, )?nonfinite=whole", "", update)
    name, arguments = re.fullmatch(r"([a-z][a-z0-9]*)(?:\((.*)\))?", usual).groups()  # type: ignore[union-attr]
    require(set(notes["whole"]) <= set(sent), "tensors for its notes")
    out: Arrays = {}
    steps = iter(notes["steps"]) if name == "uq" else iter([])
    matrices = next(steps, None)
    for number, (tensor, array) in enumerate(sent.items()):
        if tensor in notes["whole"]:
            out[tensor] = array
        elif name == "delta":
            out[tensor] = xor(array, base[tensor])
        else:
            old = base[tensor]
            require(array.dtype == np.uint8 and array.ndim == 1, "vectors of bytes")
            require(old.dtype in FLOATS and old.size > 0 and (old.ndim > 1 or name == "uq"), "tensors that are coded")
            require(array.size <= 64 + 32 * old.size, "no more bytes than a change can have")
            told = {**notes, "step": matrices if old.ndim > 1 else next(steps)} if name == "uq" else notes
            change = READERS[name](array.tobytes(), told, number, old.shape)
            require(bool(np.isfinite(change).all()), "finite changes")
            wide = np.float64 if old.dtype == np.float64 else np.float32
            total = old.reshape(-1).astype(wide) + change.astype(wide)
            out[tensor] = total.astype(old.dtype).reshape(old.shape)
    require(next(steps, None) is None, "a step for each vector")
    require(not arguments or float(arguments) > 0, "an argument")
    return out


def xor(one: Array, two: Array) -> Array:
    require((one.dtype, one.shape) == (two.dtype, two.shape), "tensors of one type and shape")
    data = bytes(a ^ b for a, b in zip(one.tobytes(), two.tobytes(), strict=True))
    return np.ndarray(one.shape, one.dtype, data)


# ── section 2 ────────────────────────────────────────────────────────────────────────────────────────────────────────


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(6):
        byte = data[at + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            require(byte > 0 or index == 0, "varints in the shortest form")
            return value, at + index + 1
    raise ValueError("a varint is too long")


def bits_of(data: bytes) -> list[int]:
    return [byte >> bit & 1 for byte in data for bit in range(8)]


class Streams:
    """The unary numbers and the plain bits."""

    def __init__(self, data: bytes) -> None:
        length, at = varint(data, 0)
        unary, plain = data[at : at + length], data[at + length :]
        require(len(unary) == length and (length == 0 or unary[-1] > 0), "a whole unary stream")
        ones = [place for place, bit in enumerate(bits_of(unary)) if bit]
        self.numbers = iter([one - before - 1 for one, before in zip(ones, [-1, *ones], strict=False)])
        self.bits = iter(bits_of(plain))

    def unary(self, count: int) -> list[int]:
        return [next(self.numbers) for _ in range(count)]

    def plain(self, widths: list[int]) -> list[int]:
        values = [0] * len(widths)
        for plane in range(max(widths, default=0)):
            for index, width in enumerate(widths):
                if width > plane:
                    values[index] |= next(self.bits) << plane
        return values

    def gamma(self, count: int) -> list[int]:
        widths = self.unary(count)
        return [(1 << width | low) - 1 for width, low in zip(widths, self.plain(widths), strict=True)]

    def subset(self, sizes: list[int]) -> tuple[list[int], list[int]]:
        """The places of the ones, and how many each class has."""
        counts = self.plain([size.bit_length() for size in sizes])
        require(all(count <= size for count, size in zip(counts, sizes, strict=True)), "ones that fit their class")
        rare = [min(count, size - count) for count, size in zip(counts, sizes, strict=True)]
        widths: list[int] = []
        for size, r in zip(sizes, rare, strict=True):
            widths += [(31 * (2 * size - r) // (128 * r)).bit_length()] * r if r else []
        highs = self.unary(len(widths))
        gaps = iter([high << b | low for high, b, low in zip(highs, widths, self.plain(widths), strict=True)])
        ones, start = [], 0
        for size, count, r in zip(sizes, counts, rare, strict=True):
            at, coded = -1, []
            for _ in range(r):
                at += next(gaps) + 1
                coded.append(start + at)
            require(at < size, "gaps within their class")
            chosen = set(coded)
            ones += coded if 2 * count <= size else [p for p in range(start, start + size) if p not in chosen]
            start += size
        return ones, counts

    def symbols(self, count: int) -> list[int]:
        (depth,) = self.plain([3])
        symbols = [0] * count
        for level in range(depth):
            order = sorted(range(count), key=symbols.__getitem__)
            ones, _ = self.subset([symbols.count(value) for value in range(1 << level)])
            chosen = {order[one] for one in ones}
            symbols = [symbol << 1 | (index in chosen) for index, symbol in enumerate(symbols)]
        return symbols

    def finish(self) -> None:
        rest = list(self.bits)
        require(next(self.numbers, None) is None and len(rest) < 8 and not any(rest), "nothing behind")


# ── section 3 ────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_uq(data: bytes, notes: dict[str, Any], _number: int, shape: tuple[int, ...]) -> Array:
    step = np.float32(notes["step"])
    require(float(step) == notes["step"] >= 0, "steps")
    change = np.zeros(math.prod(shape), np.float32)
    if step == 0:
        require(not data, "no bytes without a step")
        return change
    require(10 <= data[0] <= 22, "a size of blocks")
    grid = list(grid_of(shape, 1 << data[0]))
    at, lengths = 1, []
    for _ in grid:
        length, at = varint(data, at)
        lengths.append(length)
    require(at + sum(lengths) == len(data), "blocks that fill the bytes")
    for (first, rows, columns), length in zip(grid, lengths, strict=True):
        for cell, value in read_block(data[at : at + length], rows, columns):
            change[first + cell] = np.float32(value) * step
        at += length
    return change


def grid_of(shape: tuple[int, ...], most: int) -> Iterator[tuple[int, int, int]]:
    rows = shape[0] if len(shape) > 1 else 1
    columns = math.prod(shape) // rows
    if columns <= most:
        for row in range(0, rows, most // columns):
            yield row * columns, min(most // columns, rows - row), columns
    else:
        for row in range(rows):
            for column in range(0, columns, most):
                yield row * columns + column, 1, min(most, columns - column)


def read_block(data: bytes, rows: int, columns: int) -> Iterator[tuple[int, int]]:
    flags, streams = data[0], Streams(data[1:])
    require(flags in {0, 1, 2, 3, 5, 7}, "flags")
    row_symbols = streams.symbols(rows) if flags & 1 else [1] * rows
    column_symbols = streams.symbols(columns) if flags & 2 else [1] * columns
    row_groups, column_groups = groups_of(row_symbols), groups_of(column_symbols)
    pairs = sorted((one + two, one, two) for one in row_groups for two in column_groups)
    sizes: dict[int, int] = {}
    ends = []
    for total, one, two in pairs:
        sizes[total] = sizes.get(total, 0) + len(row_groups[one]) * len(column_groups[two])
        ends.append(sum(sizes.values()))
    places, counts = streams.subset(list(sizes.values()))
    found, pair = [], 0
    for place in places:
        while place >= ends[pair]:
            pair += 1
        group, other = row_groups[pairs[pair][1]], column_groups[pairs[pair][2]]
        row, column = divmod(place - (ends[pair] - len(group) * len(other)), len(other))
        found.append((group[row], other[column]))
    positive = read_signs(streams, found, row_symbols) if flags & 4 else streams.plain([1] * len(found))
    for (row, column), sign, magnitude in zip(found, positive, magnitudes(streams, counts), strict=True):
        yield row * columns + column, magnitude if sign else -magnitude
    streams.finish()


def groups_of(symbols: list[int]) -> dict[int, list[int]]:
    groups: dict[int, list[int]] = {}
    for index, symbol in enumerate(symbols):
        if symbol:
            groups.setdefault(symbol, []).append(index)
    return groups


def read_signs(streams: Streams, found: list[tuple[int, int]], row_symbols: list[int]) -> list[int]:
    live = [row for row, symbol in enumerate(row_symbols) if symbol]
    share = dict(zip(live, streams.symbols(len(live)), strict=True))
    require(all(one <= 8 for one in share.values()), "classes of signs")
    order = sorted(range(len(found)), key=lambda index: share[found[index][0]])
    ones, _ = streams.subset([sum(share[row] == one for row, _ in found) for one in range(9)])
    chosen = {order[one] for one in ones}
    return [int(index in chosen) for index in range(len(found))]


def magnitudes(streams: Streams, sizes: list[int]) -> list[int]:
    values = [1] * sum(sizes)
    left, m = list(range(len(values))), 1
    while m <= 15 and len(left) >= 64:
        ones, sizes = streams.subset(merged(sizes))
        left, m = [left[one] for one in ones], m + 1
        for index in left:
            values[index] = m
    for index, more in zip(left, streams.gamma(len(left)), strict=True):
        values[index] += more
    require(all(value < 1 << 24 for value in values), "magnitudes of 24 bits")
    return values


def merged(sizes: list[int]) -> list[int]:
    out, members = [], 0
    for size in sizes:
        members += size
        if members >= 128:
            out.append(members)
            members = 0
    if members and out:
        out[-1] += members
    elif members:
        out.append(members)
    return out


# ── sections 4 and 5 ─────────────────────────────────────────────────────────────────────────────────────────────────


def words(seed: int, stream: int, count: int) -> Iterator[int]:
    """The words of Philox4x64-10."""
    mask = (1 << 64) - 1
    for block in range(-(-count // 4)):
        c, key = [block + 1, 0, 0, 0], (seed, stream)
        for _ in range(10):
            one, two = 0xCA5A826395121157 * c[2], 0xD2E7470EE14C6C93 * c[0]
            c = [one >> 64 ^ c[1] ^ key[0], one & mask, two >> 64 ^ c[3] ^ key[1], two & mask]
            key = ((key[0] + 0x9E3779B97F4A7C15) & mask, (key[1] + 0xBB67AE8584CAA73B) & mask)
        yield from c


MAGNITUDES = {
    1: (0.7978845608028654,),
    2: (0.4527800346364921, 1.510417608499096),
    3: (0.24509417894422184, 0.7560052812058781, 1.3439092785050006, 2.1519457045369874),
    4: (
        *(0.1283950298511473, 0.38804829949029174, 0.6567591185324646, 0.9423404564869629),
        *(1.2562311973471783, 1.6180463860218823, 2.069017226531386, 2.732589570995161),
    ),
}


def read_eden(data: bytes, notes: dict[str, Any], number: int, shape: tuple[int, ...]) -> Array:
    bits, at, parts = data[0], 1, []
    table = np.array(MAGNITUDES[bits], np.float32)
    for start in range(0, math.prod(shape), 1 << 15):
        length = min(math.prod(shape) - start, 1 << 15)
        n = 1 << (length - 1).bit_length()
        (scale,) = struct.unpack_from("<f", data, at)
        require(0 <= scale <= 2.0**112, "a scale")
        size = -(-n // 8)
        planes = [np.array(bits_of(data[at + 4 + p * size : at + 4 + (p + 1) * size])) for p in range(bits)]
        require(all(len(plane) == 8 * size and not plane[n:].any() for plane in planes), "whole planes")
        at += 4 + bits * size
        which = sum((plane[:n] << p for p, plane in enumerate(planes[1:])), np.zeros(n, np.int64))
        values = np.where(planes[0][:n] == 1, -table[which], table[which]).astype(np.float32)
        parts.append((hadamard(values) * np.float32(scale))[:length])
    require(at == len(data), "nothing behind the blocks")
    signs = [word >> bit & 1 for word in words(notes["seed"], number, -(-math.prod(shape) // 64)) for bit in range(64)]
    change = np.concatenate(parts)
    return np.where(np.array(signs[: change.size]) == 1, -change, change).astype(np.float32)


def hadamard(values: Array) -> Array:
    n = half = values.size
    while half > 1:
        half //= 2
        pairs = values.reshape(-1, 2, half)
        values = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], axis=1).reshape(-1)
    return values * np.float32(2 ** (-math.log2(n) / 2))


# ── sections 6 to 8 ──────────────────────────────────────────────────────────────────────────────────────────────────


def places_of(data: bytes, size: int) -> list[int]:
    count, at = varint(data, 0)
    require(count <= size and data[at] <= 42, "so many places")
    streams, width = Streams(data[at + 1 :]), data[at]
    highs, place, places = streams.unary(count), -1, []
    for high, low in zip(highs, streams.plain([width] * count), strict=True):
        place += (high << width | low) + 1
        places.append(place)
    require(place < size, "places within the tensor")
    streams.finish()
    return places


def read_topk(data: bytes, _notes: dict[str, Any], _number: int, shape: tuple[int, ...]) -> Array:
    dtype = {4: "<f4", 2: "<f2"}[data[0]]
    (length,) = struct.unpack_from("<I", data, 1)
    places = places_of(data[5 : 5 + length], math.prod(shape))
    require(len(data) == 5 + length + len(places) * data[0], "a value for each place")
    change = np.zeros(math.prod(shape), np.float32)
    change[places] = np.frombuffer(data, dtype, offset=5 + length)
    return change


def read_stc(data: bytes, _notes: dict[str, Any], _number: int, shape: tuple[int, ...]) -> Array:
    mean, length = struct.unpack_from("<fI", data)
    require(0 <= mean < math.inf, "a mean")
    places = places_of(data[8 : 8 + length], math.prod(shape))
    positive = read_bits(data[8 + length :], len(places))
    change = np.zeros(math.prod(shape), np.float32)
    change[places] = [mean if one else -mean for one in positive]
    return change


def read_blocks(data: bytes, _notes: dict[str, Any], _number: int, shape: tuple[int, ...]) -> Array:
    bits, width, k = data[:3]
    require(bits in {4, 8} and width in {2, 4} and 6 <= k <= 12, "a layout of blocks")
    size = math.prod(shape)
    count = -(-size // (1 << k))
    scales = np.frombuffer(data, {4: "<f4", 2: "<f2"}[width], count, 3).astype(np.float32)
    require(bool(((scales >= 0) & (scales <= 2.0**120)).all()), "scales")
    stored = data[3 + width * count :]
    if bits == 4:
        nibbles = [nibble for byte in stored for nibble in (byte & 15, byte >> 4)]
        require(len(stored) == -(-size // 2) and not any(nibbles[size:]), "a nibble for each value")
        numbers = np.array([nibble - 16 if nibble > 7 else nibble for nibble in nibbles[:size]])
    else:
        require(len(stored) == size, "a byte for each value")
        numbers = np.frombuffer(stored, np.int8)
    require(bool((numbers > -(1 << bits - 1)).all()), "numbers above the least")
    return numbers.astype(np.float32) * np.repeat(scales, 1 << k)[:size]


def read_sign(data: bytes, _notes: dict[str, Any], _number: int, shape: tuple[int, ...]) -> Array:
    (mean,) = struct.unpack_from("<f", data)
    require(0 <= mean < math.inf, "a mean")
    negative = read_bits(data[4:], math.prod(shape))
    return np.where(np.array(negative) == 1, -np.float32(mean), np.float32(mean)).astype(np.float32)


def read_bits(data: bytes, count: int) -> list[int]:
    bits = bits_of(data)
    require(len(data) == -(-count // 8) and not any(bits[count:]), "a bit for each")
    return bits[:count]


READERS: dict[str, Callable[[bytes, dict[str, Any], int, tuple[int, ...]], Array]] = {
    "uq": read_uq,
    "eden": read_eden,
    "topk": read_topk,
    "stc": read_stc,
    "int8": read_blocks,
    "int4": read_blocks,
    "sign": read_sign,
}


def require(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"the update does not have {what}")
