"""``msgpack``, a MessagePack map of columns: names, element types, shapes, and the arrays as ``bin``.

Rules (``docs/spec/formats.md``): the map has exactly its six keys, so none comes twice. Every MessagePack library reads
it. Decoding copies nothing, since msgspec gives views of the input; encoding copies what is small or not in C order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from fedpost.errors import DecodeError, EncodeError, LimitError, UnsupportedError
from fedpost.frame import DEFAULT_LIMITS, Limits
from fedpost.tensors.file_formats import FileFormat
from fedpost.tensors.foreign import array_bytes, array_of, dtype_names
from fedpost.tensors.format import FORMATS, Array
from fedpost.tensors.pieces import Buffer, Gathered

__all__ = ["MsgPack", "from_bytes", "to_bytes"]

KEY: Final = "fedpost_msgpack"
VERSION: Final = 1
_KEYS: Final = 0x86  # a map of six
_FIXARRAY: Final = 0x9
_FEW: Final = 15
_ARRAYS: Final = {0xDC: 2, 0xDD: 4}
_BINS: Final = {0xC4: 1, 0xC5: 2, 0xC6: 4}
_MAX_BIN: Final = (1 << 32) - 1


class _File(msgspec.Struct, forbid_unknown_fields=True):
    fedpost_msgpack: int
    metadata: msgspec.Raw
    names: msgspec.Raw
    dtypes: msgspec.Raw
    shapes: msgspec.Raw
    data: msgspec.Raw


def to_bytes(tensors: Mapping[str, Array], metadata: Mapping[str, object] | None = None) -> list[memoryview]:
    """The file, as buffers to be written one after the other; large arrays in C order are not copied.

    The metadata is what MessagePack can carry.

    Raises:
        EncodeError: A type has no bytes, an array has 4 GiB or more, or the metadata is no MessagePack.
    """
    kinds = dtype_names(tensors)
    shapes = [list(array.shape) for array in tensors.values()]
    columns = {"names": list(tensors), "dtypes": kinds, "shapes": shapes}
    out = Gathered()
    try:
        head = msgspec.msgpack.encode({KEY: VERSION, "metadata": metadata or {}, **columns, "data": None})
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise EncodeError(f"it cannot be MessagePack: {error}") from error
    out.add(head[:-1] + _head(len(tensors), _ARRAYS, (_FIXARRAY << 4 | len(tensors)) if len(tensors) <= _FEW else None))
    for name, array in tensors.items():
        data = array_bytes(array)
        if data.nbytes > _MAX_BIN:
            raise EncodeError(f"{data.nbytes} bytes, a bin has at most {_MAX_BIN}", where=f"tensor {name!r}")
        out.add(_head(data.nbytes, _BINS), data)
    return out.pieces()


def _head(length: int, kinds: Mapping[int, int], short: int | None = None) -> bytes:
    """What stands before so many items or bytes, in the fewest bytes."""
    if short is not None:
        return bytes([short])
    first, width = next((first, width) for first, width in kinds.items() if length < 1 << 8 * width)
    return bytes([first]) + length.to_bytes(width)


def from_bytes(
    data: bytes | bytearray | memoryview, *, limits: Limits = DEFAULT_LIMITS
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Arrays and metadata of a file that fills ``data`` exactly; the arrays are read-only views of it.

    Raises:
        UnsupportedError: Another version, or an element type that is not known here.
        DecodeError: The bytes do not follow the format, or go over the limits.
    """
    view = Buffer(data, limits).segment(0)
    where = "MessagePack file"
    if view[0] != _KEYS:
        raise DecodeError("it does not begin with a map of six keys", where=where)
    try:
        file = msgspec.msgpack.decode(view, type=_File)
        if file.fedpost_msgpack != VERSION:
            raise UnsupportedError(f"version {file.fedpost_msgpack}, this reader knows {VERSION}", where=where)
        columns = (file.names, file.dtypes, file.shapes, file.data)
        counts = [_items(memoryview(column)) for column in columns]
        if max(counts) > limits.max_tensors:
            raise LimitError(f"{max(counts)} tensors, {limits.max_tensors} allowed", where=where)
        noted = memoryview(file.metadata).nbytes
        if noted > limits.max_section:
            raise LimitError(f"{noted} bytes of metadata, {limits.max_section} allowed", where=where)
        head = sum(memoryview(column).nbytes for column in columns[:3])
        if head > limits.max_header:
            raise LimitError(f"{head} bytes beside the arrays, {limits.max_header} allowed", where=where)
        found = msgspec.msgpack.decode(file.metadata, type=dict[str, Any])
        names = msgspec.msgpack.decode(file.names, type=list[str])
        dtypes = msgspec.msgpack.decode(file.dtypes, type=list[str])
        shapes = msgspec.msgpack.decode(file.shapes, type=list[list[int]])
        datas = msgspec.msgpack.decode(file.data, type=list[memoryview])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError(str(error)[:200], where=where) from error
    if len(set(counts)) > 1 or len(set(names)) < len(names):
        raise DecodeError("its columns have different lengths, or a name comes twice", where=where)
    rows = zip(names, dtypes, shapes, datas, strict=True)
    return {row[0]: array_of(*row) for row in rows}, found


def _items(packed: memoryview) -> int:
    """The length of a MessagePack array, before anything is made of its items; -1 for what is no array."""
    first = packed[0]
    if first >> 4 == _FIXARRAY:
        return first & 0xF
    return int.from_bytes(packed[1 : 1 + _ARRAYS[first]]) if first in _ARRAYS else -1


class MsgPack(FileFormat):
    """MessagePack; see the module's docstring."""

    def __init__(self) -> None:
        super().__init__("msgpack", to_bytes, from_bytes)


FORMATS.register("msgpack", MsgPack())
