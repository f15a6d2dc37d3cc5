"""``json_base64``, JSON of columns: names, element types, shapes, and the arrays in base64.

Rules (``docs/spec/formats.md``): for readers that have nothing but JSON; a third larger than the arrays. No white space
stands between the members, so none comes twice unseen. Base64 is strict: padded, without line breaks, escapes or bits
that say nothing, so every array has one way to be written.
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from fedpost.errors import DecodeError, EncodeError, FedpostError, LimitError, UnsupportedError
from fedpost.frame import DEFAULT_LIMITS, Limits
from fedpost.tensors.file_formats import FileFormat
from fedpost.tensors.foreign import array_bytes, array_of, dtype_names, strict_json
from fedpost.tensors.format import FORMATS, Array
from fedpost.tensors.pieces import Buffer

__all__ = ["JsonBase64", "from_bytes", "to_bytes"]

KEY: Final = "fedpost_json"
VERSION: Final = 1
_KEYS: Final = (KEY, "metadata", "names", "dtypes", "shapes", "data")
_GROUP: Final = 4
_SPARE: Final = 1 << 16


def to_bytes(tensors: Mapping[str, Array], metadata: Mapping[str, object] | None = None) -> list[memoryview]:
    """The file, as one buffer; the metadata is what JSON can carry.

    Raises:
        EncodeError: A type has no bytes, or the metadata is no JSON.
    """
    kinds = dtype_names(tensors)
    try:
        noted = json.dumps(dict(metadata or {}), allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
        strict_json(noted, "metadata")
    except (FedpostError, TypeError, ValueError, RecursionError) as error:
        raise EncodeError(f"the metadata cannot be JSON: {error}") from error
    shapes = [list(array.shape) for array in tensors.values()]
    data = [array_bytes(array) for array in tensors.values()]  # which msgspec writes in base64
    values = (VERSION, msgspec.Raw(noted), list(tensors), kinds, shapes, data)
    return [memoryview(msgspec.json.encode(dict(zip(_KEYS, values, strict=True))))]


def from_bytes(
    data: bytes | bytearray | memoryview, *, limits: Limits = DEFAULT_LIMITS
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Arrays and metadata of a file that fills ``data`` exactly; the arrays are read-only.

    Raises:
        UnsupportedError: Another version, or an element type that is not known here.
        DecodeError: The bytes do not follow the format, or go over the limits.
    """
    where = "JSON file"
    view = Buffer(data, limits).segment(0)
    try:
        members = msgspec.json.decode(view, type=dict[str, msgspec.Raw])
        _check_members(members, view, limits)
        metadata = strict_json(memoryview(members["metadata"]), where)
        names, dtypes = (msgspec.json.decode(members[key], type=list[str]) for key in ("names", "dtypes"))
        shapes = msgspec.json.decode(members["shapes"], type=list[list[int]])
        texts = msgspec.json.decode(members["data"], type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError(str(error)[:200], where=where) from error
    if not isinstance(metadata, dict):
        raise DecodeError("its metadata is no JSON object", where=where)
    if len(names) > limits.max_tensors:
        raise LimitError(f"{len(names)} tensors, {limits.max_tensors} allowed", where=where)
    if not len(names) == len(set(names)) == len(dtypes) == len(shapes) == len(texts):
        raise DecodeError("its columns have different lengths, or a name comes twice", where=where)
    rows = zip(names, dtypes, shapes, texts, strict=True)
    return {
        name: array_of(name, dtype, shape, _from_base64(memoryview(text), f"tensor {name!r}"))
        for name, dtype, shape, text in rows
    }, metadata


class JsonBase64(FileFormat):
    """JSON with base64; see the module's docstring."""

    def __init__(self) -> None:
        super().__init__("json_base64", to_bytes, from_bytes)


def _check_members(members: dict[str, msgspec.Raw], view: memoryview, limits: Limits) -> None:
    """Check what can be known before the columns are decoded."""
    where = "JSON file"
    if sorted(members) != sorted(_KEYS):
        raise DecodeError(f"its members are not {', '.join(_KEYS)}", where=where)
    version = bytes(memoryview(members[KEY]))
    if version != str(VERSION).encode():
        raise UnsupportedError(f"version {version[:20]!r}, this reader knows {VERSION}", where=where)
    sizes = {key: memoryview(member).nbytes for key, member in members.items()}
    # Quotes, colons, commas and braces: what is more is white space, an escaped key, or a member that came twice.
    if view.nbytes != sum(map(len, _KEYS)) + sum(sizes.values()) + 4 * len(_KEYS) + 1:
        raise DecodeError("white space between its members, or one comes twice", where=where)
    if sizes["metadata"] > limits.max_section:
        raise LimitError(f"{sizes['metadata']} bytes of metadata, {limits.max_section} allowed", where=where)
    if (head := sum(sizes.values()) - sizes["data"]) > limits.max_header:
        raise LimitError(f"{head} bytes beside the arrays, {limits.max_header} allowed", where=where)
    # Commas may stand in names and types as well.
    for column in ("names", "dtypes", "shapes"):
        if _count(memoryview(members[column]), most := 8 * limits.max_tensors + _SPARE) > most:
            raise LimitError(f"{column} of more than {limits.max_tensors} tensors", where=where)
    # Base64 has no commas, so this counts its arrays before any is made.
    if (commas := _count(memoryview(members["data"]), limits.max_tensors)) >= max(limits.max_tensors, 1):
        raise LimitError(f"more than {commas} tensors, {limits.max_tensors} allowed", where=where)


def _count(text: memoryview, most: int) -> int:
    """Commas in a text, up to a number."""
    block, count = 1 << 16, 0
    for start in range(0, text.nbytes, block):
        count += bytes(text[start : start + block]).count(b",")
        if count > most:
            break
    return count


def _from_base64(text: memoryview, where: str) -> memoryview:
    inner = text[1:-1]
    try:
        data = binascii.a2b_base64(inner, strict_mode=True)
    except binascii.Error as error:
        raise DecodeError(f"not base64: {error}", where=where) from error
    last = len(data) - ((len(data) - 1) % 3 + 1 if data else 0)
    if bytes(text[:1]) != b'"' or binascii.b2a_base64(data[last:], newline=False) != bytes(inner[-_GROUP:]):
        raise DecodeError("not base64 as RFC 4648 writes it", where=where)
    return memoryview(data)


FORMATS.register("json_base64", JsonBase64())
