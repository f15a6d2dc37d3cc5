"""How frames and parts are taken apart, altered inside, and put together so that they get past the first checks.

Rules: a digest says nothing to somebody who can compute it, so it is made right after every change; a length that
belongs to a change follows it most of the time. What cannot be taken apart is altered as bytes. Every function here
takes a generator of random numbers and an input, and gives an input.
"""
# ruff: noqa: INP001, PLR2004 - scripts, not a package; shares of mutations are plain numbers

from __future__ import annotations

import random
import struct
from dataclasses import dataclass
from typing import Any

import blake3
import msgpack
from file_structures import FILES, npy
from mutation import Bytewise, Mutator, mutated_int, mutated_tree, or_bytes

from fedpost.checksums import CHECKSUMS

_PROLOGUE = struct.Struct("<8sBBHIQ16s")
_PART = struct.Struct("<8sHHI16s5Q")


# ── frames ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Dissected:
    """A frame in pieces: the prologue's numbers, the header as a tree, each stored segment as chunks."""

    prologue: list[int]
    header: list[Any]
    segments: list[list[bytes]]


def dissect(data: bytes) -> Dissected:
    """Take a frame apart; fails in any way for what is none."""
    _, major, minor, flags, reserved, length, _ = _PROLOGUE.unpack_from(data)
    header = msgpack.unpackb(data[40 : 40 + length], strict_map_key=False)
    raws, _, codings, coding, _, chunks = [*header[2], *([], b"", [], [], 0, [])[len(header[2]) :]][:6]
    rows, end, segments = iter(chunks), 40 + length, []
    for index, raw in enumerate(raws):
        lengths = next(rows) if codings and coding[index] else [raw]
        end += -end % 64
        pieces = []
        for size in lengths:
            pieces.append(data[end : end + size])
            end += size
        segments.append(pieces)
    return Dissected([major, minor, flags, reserved], header, segments)


def seal(frame: Dissected, *, digests: bool = True, length: int | None = None) -> bytes:
    """Put a frame together with right digests."""
    header = frame.header
    if digests and isinstance(header[0], str) and header[0] in CHECKSUMS:
        algorithm = CHECKSUMS.get(header[0])
        header[2][1] = b"".join(algorithm.of([memoryview(piece) for piece in pieces]) for pieces in frame.segments)
    body = header if isinstance(header, bytes) else msgpack.packb(header, unicode_errors="surrogatepass")
    return sealed(frame, body, length)


def sealed(frame: Dissected, body: bytes, length: int | None = None) -> bytes:
    """Put a frame together under a header that is given as bytes."""
    major, minor, flags, reserved = frame.prologue
    numbers = (major & 0xFF, minor & 0xFF, flags & 0xFFFF, reserved & 0xFFFFFFFF)
    start = struct.pack("<8sBBHIQ", b"\x89FPF\r\n\x1a\n", *numbers, (len(body) if length is None else length) % 2**64)
    out = bytearray(start + blake3.blake3(start + body).digest(length=16) + body)
    for pieces in frame.segments:
        out += bytes(-len(out) % 64) + b"".join(pieces)
    return bytes(out)


def frames(bytewise: Bytewise) -> Mutator:
    """Alters a frame anywhere, under digests that are right."""

    def mutate(rng: random.Random, data: bytes) -> bytes:  # noqa: PLR0911 - one for each kind of change
        frame, kind = dissect(data), rng.randrange(20)
        header = frame.header
        if kind < 2:  # the header as bytes
            return sealed(frame, bytewise(rng, msgpack.packb(header)))
        if kind == 2:  # the prologue
            index = rng.randrange(5)
            if index == 4:
                return seal(frame, length=mutated_int(rng, len(msgpack.packb(header))))
            frame.prologue[index] = mutated_int(rng, frame.prologue[index])
            return seal(frame)
        if kind == 3:  # segments in other places
            _shuffle(rng, frame)
            return seal(frame)
        if kind < 6:  # the segment table
            header[2] = mutated_tree(rng, header[2], bytewise)
            return seal(frame, digests=rng.random() < 0.8)
        if kind < 13 and frame.segments:  # what segments hold
            _segment(rng, frame, bytewise)
            return seal(frame)
        if kind < 19:  # the sections
            pairs = header[3]
            pair = rng.choice(pairs) if pairs else []
            if len(pair) == 2 and rng.random() < 0.8:
                pair[1] = mutated_tree(rng, [pair[1]], bytewise)[0]
            else:
                header[3] = mutated_tree(rng, pairs, bytewise)
            return seal(frame)
        frame.header = mutated_tree(rng, header, bytewise)
        return seal(frame)

    return or_bytes(mutate, bytewise)


def _shuffle(rng: random.Random, frame: Dissected) -> None:
    """Add, drop or exchange a segment, in the table too."""
    raws = frame.header[2][0]
    if not raws or rng.random() < 0.3:
        piece = rng.randbytes(rng.choice((0, 1, 8, 64)))
        frame.segments.append([piece])
        raws.append(len(piece))
    elif rng.random() < 0.5:
        index = rng.randrange(len(raws))
        del raws[index], frame.segments[index]
    else:
        one, two = rng.randrange(len(raws)), rng.randrange(len(raws))
        for column in (raws, frame.segments):
            column[one], column[two] = column[two], column[one]


def _segment(rng: random.Random, frame: Dissected, bytewise: Bytewise) -> None:
    """Alter what a segment holds, as the format that it is of would have it, and mend its size in the table."""
    table = frame.header[2]
    plain = len(table) < 4 or not table[3]
    sections = {pair[0] for pair in frame.header[3]}
    index = rng.randrange(len(frame.segments))
    kinds = {f"tensors_{name}": of for name, of in FILES.items()}
    kind = next((kinds[name] for name in sections if isinstance(name, str) and name in kinds), None)
    if plain and kind is not None and rng.random() < 0.9:
        # The segments are a file; it goes into one or two of them.
        file = kind(bytewise)(rng, b"".join(piece for pieces in frame.segments for piece in pieces))
        cut = rng.randrange(len(file) + 1) if rng.random() < 0.1 else 0
        pieces = [piece for piece in (file[:cut], file[cut:]) if piece]
        frame.segments, table[0] = [[piece] for piece in pieces], [len(piece) for piece in pieces]
        return
    number = rng.randrange(len(frame.segments[index]))
    old = frame.segments[index][number]
    inner = npy(bytewise) if "tensors_npy" in sections and plain else bytewise
    new = frame.segments[index][number] = inner(rng, old)
    if len(new) == len(old) or rng.random() < 0.1:
        return
    if plain or not table[3][index]:
        table[0][index] = len(new)
    else:
        table[5][sum(map(bool, table[3][:index]))][number] = len(new)


# ── parts ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def records(data: bytes) -> list[list[Any]]:
    """A run of parts and what happens between them: a byte that says what, a length, the part."""
    found, at = [], 0
    while at + 5 <= len(data):
        act, size = struct.unpack_from("<BI", data, at)
        found.append([act, data[at + 5 : at + 5 + size]])
        at += 5 + size
    return found


def recorded(found: list[list[Any]]) -> bytes:
    """The run as bytes."""
    return b"".join(struct.pack("<BI", act & 0xFF, len(part)) + part for act, part in found)


def parts(bytewise: Bytewise) -> Mutator:
    """Alters the order of parts, their headers, their content, and what happens to the receiver."""

    def mutate(rng: random.Random, data: bytes) -> bytes:
        found = records(data)
        for _ in range(rng.choice((1, 1, 2, 3))):
            index, kind = rng.randrange(len(found)), rng.randrange(8)
            if kind == 0:
                rng.shuffle(found)
            elif kind == 1:
                found.insert(rng.randrange(len(found) + 1), list(found[index]))
            elif kind == 2 and len(found) > 1:
                del found[index]
            elif kind == 3:
                found.insert(index, [rng.randrange(1, 8), rng.randbytes(4)])
            elif kind == 4:
                found[index][1] = bytewise(rng, found[index][1])
            else:
                found[index][1] = _part(rng, found[index][1], bytewise)
        return recorded(found)

    return or_bytes(mutate, bytewise, 0.02)


def _part(rng: random.Random, part: bytes, bytewise: Bytewise) -> bytes:
    """A part with a field or its payload changed, under a right digest."""
    magic, *numbers = _PART.unpack_from(part)
    payload = part[88:]
    index = rng.randrange(len(numbers) + 2)
    if index < len(numbers) and index != 3:
        numbers[index] = mutated_int(rng, numbers[index])
    elif index == 3:
        numbers[3] = bytewise(rng, numbers[3])[:16]
    else:
        payload = bytewise(rng, payload)
        if rng.random() < 0.3:
            numbers[-1] = len(payload)
    widths = (16, 16, 32, 0, 64, 64, 64, 64, 64)
    numbers = [n if isinstance(n, bytes) else n % (1 << w) for n, w in zip(numbers, widths, strict=True)]
    head = _PART.pack(magic, *numbers)
    return head + blake3.blake3(payload + head).digest(length=16) + payload
