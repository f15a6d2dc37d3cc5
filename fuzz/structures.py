"""How frames, parts and files are taken apart, altered inside, and put together so that they get past the first checks.

Rules: a digest says nothing to somebody who can compute it, so it is made right after every change; a length that
belongs to a change follows it most of the time. What cannot be taken apart is altered as bytes. Every function here
takes a generator of random numbers and an input, and gives an input.
"""
# ruff: noqa: INP001, PLR2004 - scripts, not a package; shares of mutations are plain numbers

from __future__ import annotations

import contextlib
import json
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import blake3
import msgpack
from mutation import Bytewise, mutated_bytes, mutated_int, mutated_text, mutated_tree

from fedpost.checksums import CHECKSUMS

Mutator = Callable[[random.Random, bytes], bytes]
_PROLOGUE = struct.Struct("<8sBBHIQ16s")
_PART = struct.Struct("<8sHHI16s5Q")


def or_bytes(mutator: Mutator, bytewise: Bytewise = mutated_bytes, seldom: float = 0.1) -> Mutator:
    """A mutator that now and then, and whenever it fails, alters bytes without a thought."""

    def mutate(rng: random.Random, data: bytes) -> bytes:
        if rng.random() >= seldom:
            with contextlib.suppress(Exception):  # whatever it is, the input is not of that structure
                return mutator(rng, data)
        return bytewise(rng, data)

    return mutate


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


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _json(tree: Any) -> bytes:
    return json.dumps(tree, ensure_ascii=False, separators=(",", ":")).encode()


def safetensors(bytewise: Bytewise) -> Mutator:
    """Alters the header's JSON, or the tensors."""

    def mutate(rng: random.Random, data: bytes) -> bytes:
        (length,) = struct.unpack_from("<Q", data)
        text, body = data[8 : 8 + length], data[8 + length :]
        kind = rng.randrange(10)
        if kind < 6:
            text = _json(mutated_tree(rng, [json.loads(text)], bytewise)[0])
        elif kind < 8:
            text = bytewise(rng, text)
        else:
            body = bytewise(rng, body)
        return struct.pack("<Q", mutated_int(rng, len(text)) % 2**64 if kind == 5 else len(text)) + text + body

    return or_bytes(mutate, bytewise)


def json_base64(bytewise: Bytewise) -> Mutator:
    """Alters the tree."""
    return or_bytes(lambda rng, data: _json(mutated_tree(rng, [json.loads(data)], bytewise)[0]), bytewise, 0.3)


def message_pack(bytewise: Bytewise) -> Mutator:
    """Alters the tree."""

    def mutate(rng: random.Random, data: bytes) -> bytes:
        tree = mutated_tree(rng, [msgpack.unpackb(data, strict_map_key=False)], bytewise)[0]
        packed: bytes = msgpack.packb(tree, unicode_errors="surrogatepass")
        return packed

    return or_bytes(mutate, bytewise, 0.3)


def lx(bytewise: Bytewise) -> Mutator:
    """Alters the width of words, a plane's length or a plane of a chunk; the lengths follow."""

    def mutate(rng: random.Random, data: bytes) -> bytes:
        width = data[0] // 8
        lengths, at, planes = struct.unpack_from(f"<{width}I", data, 1), 1 + 4 * width, []
        for length in lengths:
            planes.append(data[at : at + length])
            at += length
        rest, kind, index = data[at:], rng.randrange(8), rng.randrange(width)
        if kind == 0:
            rest = bytewise(rng, rest)
        elif kind == 1:
            other = rng.randrange(width)
            planes[index], planes[other] = planes[other], planes[index]
        elif kind == 2:
            planes[index] = rng.choice((b"", planes[index] * 2, planes[rng.randrange(width)]))
        elif kind == 3:
            width = rng.choice((0, 1, 2, 3, 4, 8, 16))
            planes = (planes * 16)[:width]
        else:
            planes[index] = bytewise(rng, planes[index])
        sizes = [len(plane) for plane in planes]
        if kind == 4 and sizes:
            sizes[index] = mutated_int(rng, sizes[index]) % 2**32
        return bytes([8 * width]) + struct.pack(f"<{width}I", *sizes) + b"".join(planes) + rest

    return or_bytes(mutate, bytewise)


def fedwt1(bytewise: Bytewise) -> Mutator:
    """Alters metadata, rows of the summary and records; lengths follow."""

    def mutate(rng: random.Random, data: bytes) -> bytes:
        tree = _fedwt1_tree(data)
        if rng.random() < 0.2:
            sparse_ones = [record for record in tree["records"] if record[1] == 2]
            record = rng.choice(sparse_ones)
            record[2] = sparse(bytewise)(rng, record[2])
        else:
            tree = mutated_tree(rng, tree, bytewise)
        return _fedwt1_file(tree)

    return or_bytes(mutate, bytewise, 0.2)


def _fedwt1_tree(data: bytes) -> dict[str, Any]:
    _, count, length = struct.unpack_from("<8sII", data)
    metadata, at = json.loads(data[16 : 16 + length]), 16 + length
    rows: list[list[Any]] = []
    found: list[list[Any]] = []
    for _ in range(count):
        ndim = data[at]
        dims = list(struct.unpack_from(f"<{ndim}I", data, at + 1))
        at += 1 + 4 * ndim
        label = data[at + 1 : at + 1 + data[at]]
        at += 1 + data[at]
        rows.append([dims, label.decode("ascii"), struct.unpack_from("<Q", data, at)[0]])
        at += 8
    for _ in range(count):
        index, flag, size = struct.unpack_from("<IBQ", data, at)
        found.append([index, flag, data[at + 13 : at + 13 + size], 0])
        at += 13 + size
    return {"count": 0, "metadata": metadata, "rows": rows, "records": found}


def _fedwt1_file(tree: dict[str, Any]) -> bytes:
    text = _json(tree["metadata"])
    out = b"FEDWT001" + struct.pack("<II", (len(tree["rows"]) + tree["count"]) % 2**32, len(text)) + text
    for dims, label, size in tree["rows"]:
        name = label.encode()
        out += bytes([len(dims)]) + struct.pack(f"<{len(dims)}I", *(dim % 2**32 for dim in dims))
        out += bytes([len(name)]) + name + struct.pack("<Q", size % 2**64)
    for index, flag, body, more in tree["records"]:
        out += struct.pack("<IBQ", index % 2**32, flag % 2**8, (len(body) + more) % 2**64) + body
    return out


def sparse(bytewise: Bytewise) -> Mutator:
    """Alters the number of elements, the gaps or the values."""

    def mutate(rng: random.Random, data: bytes) -> bytes:
        count, width, rest = struct.unpack_from("<QB7s", data)
        middle = 16 + min(count, 1 << 16) * width
        gaps, values = data[16:middle], data[middle:]
        kind = rng.randrange(8)
        if kind == 0:
            count = mutated_int(rng, count)
        elif kind == 1:
            width = rng.choice((0, 1, 2, 4, 8, 3, 16))
        elif kind == 2:
            rest = bytewise(rng, rest)[:7].ljust(7, b"\0")
        elif kind < 6 and gaps:
            at = rng.randrange(len(gaps) // width) * width
            number = mutated_int(rng, int.from_bytes(gaps[at : at + width], "little")) % (1 << 8 * width)
            gaps = gaps[:at] + number.to_bytes(width, "little") + gaps[at + width :]
        else:
            values = bytewise(rng, values)
        return struct.pack("<QB7s", count % 2**64, width, rest) + gaps + values

    return or_bytes(mutate, bytewise)


def npy(bytewise: Bytewise) -> Mutator:
    """Alters the text of a ``.npy`` header, or what follows it."""

    def mutate(rng: random.Random, data: bytes) -> bytes:
        (length,) = struct.unpack_from("<H", data, 8)
        text, body = data[10 : 10 + length], data[10 + length :]
        if rng.random() < 0.3:
            body = bytewise(rng, body)
        elif rng.random() < 0.7:
            number = str(mutated_int(rng, 2)).encode()
            places = [at for at, byte in enumerate(text) if 0x30 <= byte < 0x3A]  # digits
            at = rng.choice(places)
            text = text[:at] + number + text[at + 1 :]
        else:
            text = bytewise(rng, text)
        return data[:8] + struct.pack("<H", len(text)) + text + body

    return or_bytes(mutate, bytewise)


def protobuf(bytewise: Bytewise) -> Mutator:
    """Alters the fields of a message and of the messages in it."""

    def mutate(rng: random.Random, data: bytes) -> bytes:
        return _message(mutated_tree(rng, _fields(data), bytewise))

    return or_bytes(mutate, bytewise, 0.2)


def _fields(data: bytes, depth: int = 0) -> list[Any]:
    found, at = [], 0
    while at < len(data):
        tag, at = _varint(data, at)
        value: Any
        value, at = _varint(data, at)
        if tag & 7:
            value, at = data[at : at + value], at + value
            if tag >> 3 in (1, 2) and not depth:
                value = _fields(value, 1)
        found.append([tag >> 3, value])
    return found


def _message(fields: list[Any]) -> bytes:
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += _packed(number << 3) + _packed(value)
        else:
            inner = _message(value) if isinstance(value, list) else value
            inner = inner.encode() if isinstance(inner, str) else inner
            out += _packed(number << 3 | 2) + _packed(len(inner)) + inner
    return out


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:  # the mark of the last byte
            return value, at


def _packed(value: int) -> bytes:
    value, out = value % 2**64, b""
    while value > 0x7F:  # the most that one byte holds
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def text(bytewise: Bytewise) -> Mutator:  # noqa: ARG001 - the same shape as the others
    """Alters a text."""
    return lambda rng, data: mutated_text(rng, data.decode("utf-8", "replace")).encode("utf-8", "surrogatepass")


FILES = {
    "fedwt1": fedwt1,
    "json_base64": json_base64,
    "msgpack": message_pack,
    "protobuf": protobuf,
    "safetensors": safetensors,
}
