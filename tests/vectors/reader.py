"""A second reader of frames, written from ``docs/spec/frame.md`` alone: no line of it is shared with fedpost.

It is short: it tells good bytes from damaged ones, without budgets; ``xxh3`` goes unchecked. Plain frames need
``struct``, ``blake3`` (the header's digest), ``msgpack`` (section 3) and ``numpy``. The rest is for what a frame may
have: ``zstandard``, ``zlib``, ``lz4`` (section 6), ``hashlib`` (5), and ``json``, ``re``, ``ml_dtypes`` (8).
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
import struct
import zlib
from itertools import accumulate
from typing import Any

import blake3
import lz4.block
import ml_dtypes
import msgpack
import numpy as np
import zstandard


def read_frame(data: bytes, other_formats: Any = None, other_updates: Any = None) -> tuple[dict[str, Any], Any]:
    """The header sections and the tensors; formats made elsewhere and updates of a base are the other readers'."""
    checksum, segments, sections = read_container(data)
    update, form, _ = (stage.strip() for stage in sections["pipeline"].rsplit("|", 2))
    own = {"fedwt": read_fedwt, "numpy": read_npy}
    arrays = own[form](sections, segments) if form in own else other_formats(form, sections, segments, element_type)
    if cast := re.fullmatch(r"cast\(([^)]*)\)", update):
        for name, wide in sections["update"]["widen"].items():
            require(arrays[name].dtype == element_type(cast[1]), "the notes fit the tensors")
            arrays[name] = arrays[name].astype(element_type(wide))
    elif update != "dense":
        arrays = other_updates(update, sections["update"], arrays)
    return {**sections, "checksum": checksum}, arrays


def read_container(data: bytes) -> tuple[str, list[bytes], dict[str, Any]]:
    magic, major, _minor, flags, reserved, length, digest = struct.unpack_from("<8sBBHIQ16s", data)
    require(magic == b"\x89FPF\r\n\x1a\n" and major == 1 and flags == 0 and reserved == 0, "a frame of version 1")
    body = data[40 : 40 + length]
    require(len(body) == length, "a whole header")
    require(blake3.blake3(data[:24] + body).digest(length=16) == digest, "the header's digest")
    checksum, requires, table, pairs, *_later = msgpack.unpackb(body, strict_map_key=False)
    require(not requires, "no feature that is unknown")
    require(len(dict(pairs)) == len(pairs), "no section twice")
    return checksum, list(read_segments(data, 40 + length, checksum, table)), dict(pairs)


def read_segments(data: bytes, end: int, checksum: str, table: list[Any]) -> Any:
    raws, digests, codings, coding, chunk, chunk_lengths, *_later = [*table, *([], b"", [], [], 0, [])[len(table) :]]
    digest_size = {"blake3": 32, "sha256": 32, "xxh3": 16, "crc32c": 4, "none": 0}[checksum]
    require(len(digests) == digest_size * len(raws), "one digest a segment")
    rows = iter(chunk_lengths)
    for index, raw in enumerate(raws):
        number = coding[index] if coding else 0
        lengths = next(rows) if number else [raw]
        start = end + -end % 64
        require(not any(data[end:start]), "zeros between segments")
        end = start + sum(lengths)
        stored = data[start:end]
        require(len(stored) == sum(lengths), "a whole segment")
        if checksum != "xxh3":
            require(digest_of(checksum, stored) == digests[index * digest_size :][:digest_size], "the digest")
        if number:
            stored = b"".join(unpack_chunks(codings[number - 1], stored, lengths, raw, chunk))
        require(len(stored) == raw, "the size that the table says")
        yield stored
    require(end == len(data), "nothing behind the last segment")


def digest_of(checksum: str, data: bytes) -> bytes:
    if checksum == "crc32c":
        value = 0xFFFFFFFF
        for byte in data:
            value ^= byte
            for _ in range(8):
                value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        return (value ^ 0xFFFFFFFF).to_bytes(4, "big")
    hashers = {"blake3": blake3.blake3, "sha256": hashlib.sha256}
    return b"" if checksum == "none" else hashers[checksum](data).digest()


def unpack_chunks(coding: str, stored: bytes, lengths: list[int], raw: int, chunk: int) -> Any:
    for number, end in enumerate(accumulate(lengths)):
        packed = stored[end - lengths[number] : end]
        size = min(chunk, raw - number * chunk)
        yield packed if len(packed) == size else UNPACK[coding](packed, size)


def read_lx(packed: bytes, size: int) -> bytes:
    """A chunk of ``lx``, from ``docs/spec/lx.md``."""
    width, big = {8: (1, 0), **{bits + big: (bits // 8, big) for bits in (16, 32, 64) for big in (0, 1)}}[packed[0]]
    count, at, stored = size // width, 1 + 4 * width, []
    for length in struct.unpack_from(f"<{width}I", packed, 1):
        stored.append(packed[at : at + length])
        at += length
    require(at + size % width == len(packed), "an lx chunk of the right length")
    planes = list(stored)
    for low in range(0, width - 2, 2):
        if count and len(stored[low]) == 2 * count and not stored[low + 1]:  # a lane that is stored whole
            planes[low : low + 2] = stored[low][::2], stored[low][1::2]
    for index, plane in enumerate(planes):
        if len(plane) != count:
            planes[index] = zstandard.ZstdDecompressor().decompress(plane, max_output_size=count)
            require(len(planes[index]) == count, "a plane of an lx chunk")
    if width > 1:  # the sign stands beside the lowest seven bits of the highest lane
        pairs = [(low & 0x80) << 8 | high << 7 | low & 0x7F for low, high in zip(*planes[-2:], strict=True)]
        planes[-2:] = bytes(pair & 0xFF for pair in pairs), bytes(pair >> 8 for pair in pairs)
    return bytes(byte for word in zip(*planes[:: -1 if big else 1], strict=True) for byte in word) + packed[at:]


UNPACK = {
    "gzip": lambda packed, _: zlib.decompress(packed, 31),
    "zstd": lambda packed, size: zstandard.ZstdDecompressor().decompress(packed, max_output_size=size),
    "lz4": lambda packed, size: lz4.block.decompress(packed, uncompressed_size=size),
    "lx": read_lx,
}


def read_fedwt(sections: dict[str, Any], segments: list[bytes]) -> dict[str, np.ndarray[Any, Any]]:
    names, ranks, dims, places, dtypes, segment_dtypes, *rest = sections["tensors"]
    fortran = set(rest[0]) if rest else set()
    used, dims, arrays = [0] * len(segments), iter(dims), {}
    for index, (name, rank, place) in enumerate(zip(names, ranks, places, strict=True)):
        shape = tuple(next(dims) for _ in range(rank))
        dtype = element_type(dtypes[segment_dtypes[place]])
        order = "F" if index in fortran else "C"
        arrays[name] = np.ndarray(shape, dtype, segments[place], used[place], order=order)
        used[place] += math.prod(shape) * dtype.itemsize
    require(len(arrays) == len(names), "no tensor twice")
    require(used == list(map(len, segments)), "tensors that fill the segments")
    return arrays


def read_npy(sections: dict[str, Any], segments: list[bytes]) -> dict[str, np.ndarray[Any, Any]]:
    names, dtypes, *_later = sections["tensors_npy"]
    arrays = [np.load(io.BytesIO(segment), allow_pickle=False) for segment in segments]
    return {n: a.view(element_type(d)) for n, d, a in zip(names, dtypes, arrays, strict=True)}


def element_type(name: str) -> np.dtype[Any]:
    plain = name.removeprefix(">")
    if plain.startswith("struct["):
        size, fields = json.loads(plain.removeprefix("struct"))
        names, kinds, offsets, shapes = zip(*fields, strict=True) if fields else ((), (), (), ())
        formats = [(element_type(kind), tuple(shape)) for kind, shape in zip(kinds, shapes, strict=True)]
        return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": size})
    if sized := re.fullmatch(r"(bytes|str|void)\[(\d+)\]", plain):
        dtype = np.dtype({"bytes": "S", "str": "U", "void": "V"}[sized[1]] + sized[2])
    else:
        dtype = np.dtype(getattr(ml_dtypes, plain, {"float80_x87": "g", "complex160_x87": "G"}.get(plain, plain)))
    return dtype.newbyteorder(">") if name != plain else dtype


def require(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"the frame does not have {what}")
