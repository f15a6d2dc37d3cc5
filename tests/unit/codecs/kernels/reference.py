"""The layouts read a second time, in plain Python from what the modules' docstrings say, one number at a time."""

from __future__ import annotations

import struct


class Streams:
    def __init__(self, data):
        length, at = varint(data, 0)
        self.unary_bits = bits_of(data[at : at + length])
        self.plain_bits = bits_of(data[at + length :])

    def unary(self, count):
        return [self._unary() for _ in range(count)]

    def _unary(self):
        number = 0
        while not self.unary_bits.pop(0):
            number += 1
        return number

    def plain(self, widths):
        values = [0] * len(widths)
        for plane in range(max(widths, default=0)):
            for index, width in enumerate(widths):
                if width > plane:
                    values[index] |= self.plain_bits.pop(0) << plane
        return values

    def gamma(self, count):
        widths = self.unary(count)
        return [(1 << width | low) - 1 for width, low in zip(widths, self.plain(widths), strict=True)]


def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            return value, at


def bits_of(data):
    return [byte >> bit & 1 for byte in data for bit in range(8)]


def subset(streams, sizes):
    """The bits of each class."""
    counts = streams.plain([size.bit_length() for size in sizes])
    rare = [min(count, size - count) for count, size in zip(counts, sizes, strict=True)]
    widths = []
    for count, size in zip(rare, sizes, strict=True):
        widths += [(31 * (2 * size - count) // (128 * max(count, 1))).bit_length()] * count
    high = streams.unary(len(widths))
    gaps = [(a << width) + b for a, b, width in zip(high, streams.plain(widths), widths, strict=True)]
    classes = []
    for count, few, size in zip(counts, rare, sizes, strict=True):
        bits = [0] * size
        place = -1
        for gap in gaps[:few]:
            place += gap + 1
            bits[place] = 1
        del gaps[:few]
        classes.append([1 - bit for bit in bits] if 2 * count > size else bits)
    return classes


def symbols(streams, count):
    (depth,) = streams.plain([3])
    found = [0] * count
    for level in range(depth):
        nodes = [[i for i in range(count) if found[i] == node] for node in range(1 << level)]
        for node, bits in zip(nodes, subset(streams, [len(node) for node in nodes]), strict=True):
            for index, bit in zip(node, bits, strict=True):
                found[index] = 2 * found[index] + bit
    return found


def merged(groups):
    out, now = [], []
    for group in groups:
        now = now + group
        if len(now) >= 128:
            out.append(now)
            now = []
    if now:
        if out:
            out[-1] = out[-1] + now
        else:
            out.append(now)
    return out


def cells(streams, of_row, of_column):
    """The cells that are not zero, by class."""
    rectangles = sorted((r + c, r, c) for r in set(of_row) - {0} for c in set(of_column) - {0})
    classes = {}
    for total, r, c in rectangles:
        chosen = [j for j, symbol in enumerate(of_column) if symbol == c]
        classes.setdefault(total, []).extend((i, j) for i, s in enumerate(of_row) if s == r for j in chosen)
    groups = []
    for members, bits in zip(classes.values(), subset(streams, [len(c) for c in classes.values()]), strict=True):
        groups.append([cell for cell, bit in zip(members, bits, strict=True) if bit])
    return groups


def matrix(data, rows, columns):
    """The values of a coded matrix, as a list of rows of integers."""
    flags, streams = data[0], Streams(data[1:])
    of_row = symbols(streams, rows) if flags & 1 else [1] * rows
    of_column = symbols(streams, columns) if flags & 2 else [1] * columns
    groups = cells(streams, of_row, of_column)
    places = [cell for group in groups for cell in group]
    out = [[0] * columns for _ in range(rows)]
    if flags & 4:
        live = [i for i in range(rows) if of_row[i]]
        share = dict(zip(live, symbols(streams, len(live)), strict=True))
        by_share = [[cell for cell in places if share[cell[0]] == s] for s in range(9)]
        for group, bits in zip(by_share, subset(streams, [len(g) for g in by_share]), strict=True):
            for (i, j), bit in zip(group, bits, strict=True):
                out[i][j] = 1 if bit else -1
    else:
        for (i, j), bit in zip(places, streams.plain([1] * len(places)), strict=True):
            out[i][j] = 1 if bit else -1
    least = 1
    while least < 16 and sum(map(len, groups)) >= 64:
        groups = merged(groups)
        kept = []
        for group, bits in zip(groups, subset(streams, [len(g) for g in groups]), strict=True):
            kept.append([cell for cell, bit in zip(group, bits, strict=True) if bit])
        groups = kept
        least += 1
        for i, j in (cell for group in groups for cell in group):
            out[i][j] = least * (1 if out[i][j] > 0 else -1)
    left = [cell for group in groups for cell in group]
    for (i, j), more in zip(left, streams.gamma(len(left)), strict=True):
        out[i][j] += more if out[i][j] > 0 else -more
    assert not any(streams.unary_bits)
    assert not any(streams.plain_bits)
    return out


def tensor(data, rows, columns):
    """The integers of a coded tensor, flat."""
    most = 1 << data[0]
    if columns <= most:
        step = most // columns
        grid = [(min(step, rows - row), columns) for row in range(0, rows, step)]
    else:
        grid = [(1, min(most, columns - at)) for _ in range(rows) for at in range(0, columns, most)]
    at, lengths = 1, []
    for _ in grid:
        length, at = varint(data, at)
        lengths.append(length)
    flat = []
    for (block_rows, block_columns), length in zip(grid, lengths, strict=True):
        flat += [value for row in matrix(data[at : at + length], block_rows, block_columns) for value in row]
        at += length
    assert at == len(data)
    return flat


def places(data, size):
    count, at = varint(data, 0)
    width, streams = data[at], Streams(data[at + 1 :])
    high = streams.unary(count)
    found, place = [], -1
    for a, b in zip(high, streams.plain([width] * count), strict=True):
        place += (a << width) + b + 1
        found.append(place)
    assert place < size
    return found


def philox(key, block):
    """Four words of Philox4x64-10, after Salmon et al., section 3.3 and the constants of their Random123."""
    mask = (1 << 64) - 1
    counter = [block + 1, 0, 0, 0]
    low, high = key & mask, key >> 64
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * counter[0], 0xCA5A826395121157 * counter[2]
        counter = [
            second >> 64 ^ counter[1] ^ low,
            second & mask,
            first >> 64 ^ counter[3] ^ high,
            first & mask,
        ]
        low, high = (low + 0x9E3779B97F4A7C15) & mask, (high + 0xBB67AE8584CAA73B) & mask
    return counter


def words(seed, stream, count):
    return [word for block in range(-(-count // 4)) for word in philox(seed | stream << 64, block)][:count]


def eden(data, size, seed, stream, centroids):
    """The values of a tensor of up to 2**15 values in double precision."""
    bits, (scale,) = data[0], struct.unpack_from("<f", data, 1)
    padded = 1 << (size - 1).bit_length()
    width = -(-padded // 8)
    planes = [bits_of(data[5 + width * plane : 5 + width * (plane + 1)]) for plane in range(bits)]
    block = []
    for i in range(padded):
        number = sum(planes[1 + bit][i] << bit for bit in range(bits - 1))
        block.append(centroids[bits][number] * (-1 if planes[0][i] else 1))
    signs = bits_of(b"".join(word.to_bytes(8, "little") for word in words(seed, stream, -(-padded // 64))))
    out = []
    for i in range(size):
        total = sum(value * (-1) ** (i & j).bit_count() for j, value in enumerate(block))
        out.append(total / padded**0.5 * scale * (-1 if signs[i] else 1))
    return out
