"""Arrow tables, record batches and arrays inside of objects: as uncompressed IPC streams, views of the frame when read.

Rules: a stream whose buffers are compressed is refused, since it says itself how much memory it wants; what was read is
validated in full before anybody sees it. A column of an extension type that a reader has not registered comes back as
Arrow has it: its storage, and the type's name in the field's metadata. An array has no such field, so it is refused.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from fedpost.errors import DecodeError, EncodeError, MissingExtraError
from fedpost.objects import Serializer

try:
    import pyarrow as pa
except ImportError as error:
    raise MissingExtraError("objects with Arrow tables need pyarrow", hint="pip install pyarrow") from error

__all__ = ["SERIALIZERS", "read_table", "write_table"]

_DICTIONARY, _BATCH = 2, 3
"""Kinds of messages: Arrow's format/Message.fbs."""
_PLAIN: Final = pa.ipc.IpcWriteOptions(compression=None)


def write_table(table: Any) -> np.ndarray[Any, Any]:
    """A table (or a record batch) as an IPC stream: an array of bytes.

    Raises:
        EncodeError: It has a type without a stream format.
    """
    try:
        size = pa.MockOutputStream()
        _write(size, table)
        out = pa.allocate_buffer(size.size())
        _write(pa.FixedSizeBufferWriter(out), table)
    except pa.ArrowException as error:
        raise EncodeError(f"Arrow cannot write it: {error}") from error
    return np.frombuffer(out, np.uint8)


def _write(sink: Any, table: Any) -> None:
    with pa.ipc.new_stream(sink, table.schema, options=_PLAIN) as writer:
        writer.write(table)


def read_table(data: Any) -> Any:
    """The table of an IPC stream, validated.

    Raises:
        DecodeError: It is no stream, a compressed one, or its values are impossible.
    """
    return _read(data, lambda stream: stream.read_all())


def _read(data: Any, take: Callable[[Any], Any]) -> Any:
    """What ``take`` makes of the reader of a stream, validated."""
    if type(data) is not np.ndarray or data.dtype != np.uint8 or data.ndim != 1:
        raise DecodeError("the state of an Arrow table is an array of bytes")
    buffer = pa.py_buffer(data)
    try:
        messages = pa.ipc.MessageReader.open_stream(buffer)
        compressed = any(_compressed(bytes(message.metadata)) for message in messages)
        if not compressed:
            out = take(pa.ipc.open_stream(buffer))
            out.validate(full=True)
    except DecodeError:
        raise
    except Exception as error:  # Arrow's, or whatever Python makes of names and offsets that lie
        raise DecodeError(f"an impossible Arrow stream: {error}") from error
    if compressed:
        raise DecodeError("an Arrow stream with compressed buffers")
    return out


def _compressed(metadata: bytes) -> bool:
    """Whether a message says that its buffers are compressed; read as FlatBuffers lays tables out."""

    def field(table: int, number: int) -> int:
        """Where a table's field stands, or 0."""
        (back,) = struct.unpack_from("<i", metadata, table)
        (length,) = struct.unpack_from("<H", metadata, table - back)
        slot = 4 + 2 * number
        if slot >= length:
            return 0
        (offset,) = struct.unpack_from("<H", metadata, table - back + slot)
        return table + offset if offset else 0

    def inner(position: int) -> int:
        """Where the table stands that is referred to here."""
        found: int = position + struct.unpack_from("<I", metadata, position)[0]
        return found

    message = inner(0)
    kind_at, header_at = field(message, 1), field(message, 2)
    kind = metadata[kind_at] if kind_at else 0
    if kind not in (_DICTIONARY, _BATCH) or not header_at:
        return False
    batch_at = field(inner(header_at), 1) if kind == _DICTIONARY else header_at
    return bool(batch_at) and bool(field(inner(batch_at), 3))


def _only_batch(stream: Any) -> Any:
    # read_all() leaves batches of no rows out
    batches = list(itertools.islice(stream, 2))
    if len(batches) != 1:
        raise DecodeError("a record batch of no batches, or of several")
    return batches[0]


def _make_batch(data: Any) -> Any:
    return _read(data, _only_batch)


def _take_array(array: Any) -> Any:
    return write_table(pa.RecordBatch.from_arrays([array], names=[""]))


def _take_chunked(array: Any) -> Any:
    return write_table(pa.Table.from_arrays([array], names=[""]))


def _only_column(table: Any) -> Any:
    if table.num_columns != 1:
        raise DecodeError(f"an Arrow array of {table.num_columns} columns")
    name = (table.schema.field(0).metadata or {}).get(b"ARROW:extension:name")
    if name is not None:
        raise DecodeError(
            f"an Arrow array of the extension type {name[:80]!r}, which is not registered here",
            hint="pyarrow.register_extension_type(…)",
        )
    return table.column(0)


SERIALIZERS: Final = (
    Serializer(cls=pa.Table, name="pyarrow.Table", take=write_table, make=read_table, shared=True),
    Serializer(cls=pa.RecordBatch, name="pyarrow.RecordBatch", take=write_table, make=_make_batch, shared=True),
    Serializer(
        cls=pa.ChunkedArray,
        name="pyarrow.ChunkedArray",
        take=_take_chunked,
        make=lambda data: _only_column(read_table(data)),
        shared=True,
    ),
    Serializer(
        cls=pa.Array,
        name="pyarrow.Array",
        take=_take_array,
        make=lambda data: _only_column(_make_batch(data)),
        shared=True,
        subclasses=True,
    ),
)
