"""A second reader of the formats made elsewhere, from ``docs/spec/formats.md`` alone: it shares no line with fedpost.

Like the second reader of frames it tells good bytes from damaged ones and leaves out budgets. Element types are those
of the frame's specification, so their reader is given. It reads protocol buffers without a library for them.
"""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import msgpack
import numpy as np

Arrays = dict[str, np.ndarray[Any, Any]]
ElementType = Callable[[str], np.dtype[Any]]
File = tuple[Arrays, dict[str, Any]]


def read_section(name: str, sections: dict[str, Any], segments: list[bytes], element_type: ElementType) -> Arrays:
    """The tensors of a frame."""
    count = sections[f"tensors_{name}"]
    require(bool(count) == bool(segments) and all(segments), "segments where there are tensors")
    arrays = READERS[name](b"".join(segments), element_type)[0] if count else {}
    require(len(arrays) == count, "as many tensors as promised")
    return arrays


def read_fedwt1(data: bytes, element_type: ElementType) -> File:
    magic, count, length = struct.unpack_from("<8sII", data)
    require(magic == b"FEDWT001", "the magic")
    metadata, at = parse(data[16 : 16 + length]), 16 + length
    own = metadata.pop("fedpost", {"names": [str(index) for index in range(count)]})
    rows, arrays = [], {}
    for index, name in enumerate(own["names"]):
        ndim = data[at]
        shape = struct.unpack_from(f"<{ndim}I", data, at + 1)
        at += 1 + 4 * ndim
        label = data[at + 1 : at + 1 + data[at]].decode("ascii")
        at += 1 + data[at]
        (size,) = struct.unpack_from("<Q", data, at)
        at += 8
        require(size == math.prod(shape), "as many elements as the shape has")
        named = own.get("dtypes", {}).get(str(index))
        rows.append((name, np.dtype(label) if named is None else element_type(named), shape))
    require(len({row[0] for row in rows}) == count, "a name for each array")
    for number, (name, dtype, shape) in enumerate(rows):
        index, flag, length = struct.unpack_from("<IBQ", data, at)
        require(index == number and flag in (0, 2), "an array that is no pickle")
        body = data[at + 13 : at + 13 + length]
        require(len(body) == length, "a whole array")
        body = unsparse(body, dtype.itemsize, math.prod(shape)) if flag else body
        arrays[name] = array_of(body, dtype, shape)
        at += 13 + length
    require(at == len(data), "nothing behind the last array")
    return arrays, metadata


def unsparse(body: bytes, itemsize: int, size: int) -> bytes:
    count, width, zeros = struct.unpack_from("<QB7s", body)
    require(not any(zeros) and len(body) == 16 + count * (width + itemsize) < size * itemsize, "the length")
    out, index = bytearray(size * itemsize), -1
    for number in range(count):
        start = 16 + number * width
        index += int.from_bytes(body[start : start + width], "little") + 1
        element = body[16 + count * width + number * itemsize :][:itemsize]
        require(index < size and any(element), "an element inside the array that is not zero")
        out[index * itemsize : (index + 1) * itemsize] = element
    return bytes(out)


def read_safetensors(data: bytes, _: ElementType) -> File:
    (length,) = struct.unpack_from("<Q", data)
    require(data[8:9] == b"{" and len(data) >= 8 + length, "a whole header that begins with a brace")
    header, body = parse(data[8 : 8 + length]), data[8 + length :]
    metadata, arrays, end = header.pop("__metadata__", {}), {}, 0
    for name, info in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        start, stop = info["data_offsets"]
        require(start == end and stop <= len(body), "no holes or overlaps")
        arrays[name], end = array_of(body[start:stop], SAFETENSORS[info["dtype"]], info["shape"]), stop
    require(end == len(body), "nothing behind the last tensor")
    return {name: arrays[name] for name in header}, metadata


SAFETENSORS = {
    "BOOL": np.dtype(bool),
    "C64": np.dtype(np.complex64),
    **{f"{letter}{bits}": np.dtype(f"{letter.lower()}{bits // 8}") for letter in "IU" for bits in (8, 16, 32, 64)},
    **{f"F{bits}": np.dtype(f"f{bits // 8}") for bits in (16, 32, 64)},
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F8_E4M3FNUZ": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "F8_E5M2FNUZ": np.dtype(ml_dtypes.float8_e5m2fnuz),
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
}


def read_msgpack(data: bytes, element_type: ElementType) -> File:
    require(data[:1] == b"\x86", "a map of six keys")
    return read_columns(msgpack.unpackb(data), "fedpost_msgpack", bytes, element_type)


def read_json_base64(data: bytes, element_type: ElementType) -> File:
    return read_columns(parse(data), "fedpost_json", lambda text: base64.b64decode(text, validate=True), element_type)


def read_columns(file: dict[str, Any], key: str, of: Callable[[Any], bytes], element_type: ElementType) -> File:
    require(set(file) == {key, "metadata", "names", "dtypes", "shapes", "data"} and file[key] == 1, "the six keys")
    rows = list(zip(*(file[column] for column in ("names", "dtypes", "shapes", "data")), strict=True))
    arrays = {name: array_of(of(data), element_type(dtype), shape) for name, dtype, shape, data in rows}
    require(len(arrays) == len(rows), "no name twice")
    return arrays, file["metadata"]


def read_protobuf(data: bytes, element_type: ElementType) -> File:
    arrays: Arrays = {}
    metadata = {}
    for number, value in fields(data):
        found = dict(fields(value))
        if number == 1:
            metadata[found.get(1, b"").decode()] = found.get(2, b"").decode()
            continue
        require(number == 2 and found.keys() <= {1, 2, 3, 4, 5}, "known fields")
        require(found.get(1, 0) % 2**32 == len(arrays), "the layer's place")
        shape, at, packed = [], 0, found.get(2, b"")
        while at < len(packed):
            dim, at = varint(packed, at)
            shape.append(dim)
        name = found[5].decode() if 5 in found else str(len(arrays))
        require(name not in arrays, "no name twice")
        arrays[name] = array_of(found.get(4, b""), element_type(found[3].decode()), shape)
    return arrays, metadata


def fields(data: bytes) -> Iterator[tuple[int, Any]]:
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        require(tag & 7 in (0, 2), "a number or bytes")
        value: Any
        value, at = varint(data, at)
        if tag & 7:
            value, at = data[at : at + value], at + value
        require(at <= len(data), "a whole field")
        yield tag >> 3, value


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            return value % 2**64, at


READERS: dict[str, Callable[[bytes, ElementType], File]] = {
    "fedwt1": read_fedwt1,
    "json_base64": read_json_base64,
    "msgpack": read_msgpack,
    "protobuf": read_protobuf,
    "safetensors": read_safetensors,
}


def parse(text: bytes) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        require(len(dict(pairs)) == len(pairs), "no key twice")
        return dict(pairs)

    return json.loads(text.decode(), object_pairs_hook=once)


def array_of(data: bytes, dtype: np.dtype[Any], shape: Any) -> np.ndarray[Any, Any]:
    require(len(data) == math.prod(shape) * dtype.itemsize, "as many bytes as the shape needs")
    return np.ndarray(tuple(shape), dtype, data)


def require(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"the file does not have {what}")
