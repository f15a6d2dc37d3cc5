"""How files of each format, and pieces of them, are taken apart, altered inside, and put together.

Rules: as in ``structures.py``.
"""
# ruff: noqa: INP001, PLR2004 - scripts, not a package; shares of mutations are plain numbers

from __future__ import annotations

import json
import random
import struct
from typing import Any

import msgpack
from mutation import Bytewise, Mutator, mutated_int, mutated_text, mutated_tree, or_bytes


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
