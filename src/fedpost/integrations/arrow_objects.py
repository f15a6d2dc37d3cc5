"""Arrow tables, record batches and arrays inside of objects: as uncompressed IPC streams, views of the frame when read.

Rules: a stream whose buffers are compressed is refused, since it says itself how much memory it wants; what was read is
validated in full before anybody sees it.
"""

from __future__ import annotations

import struct
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
    sink = pa.BufferOutputStream()
    try:
        with pa.ipc.new_stream(sink, table.schema, options=_PLAIN) as writer:
            writer.write(table)
    except pa.ArrowException as error:
        raise EncodeError(f"Arrow cannot write it: {error}") from error
    return np.frombuffer(sink.getvalue(), np.uint8)


def read_table(data: Any) -> Any:
    """The table of an IPC stream, validated.

    Raises:
        DecodeError: It is no stream, a compressed one, or its values are impossible.
    """
    if type(data) is not np.ndarray or data.dtype != np.uint8 or data.ndim != 1:
        raise DecodeError("the state of an Arrow table is an array of bytes")
    buffer = pa.py_buffer(data)
    try:
        for message in pa.ipc.MessageReader.open_stream(buffer):
            if _compressed(memoryview(message.metadata)):
                raise DecodeError("an Arrow stream with compressed buffers")
        table = pa.ipc.open_stream(buffer).read_all()
        table.validate(full=True)
    except (pa.ArrowException, struct.error, OSError) as error:
        raise DecodeError(f"an impossible Arrow stream: {error}") from error
    return table


def _compressed(metadata: memoryview) -> bool:
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
        return position + struct.unpack_from("<I", metadata, position)[0] if position else 0

    message = inner(0) if metadata.nbytes else 0
    kind_at, header = field(message, 1), inner(field(message, 2))
    kind = metadata[kind_at] if kind_at else 0
    if kind == _DICTIONARY:
        header = inner(field(header, 1))
    return kind in (_DICTIONARY, _BATCH) and bool(header) and bool(field(header, 3))


def _batch(data: Any) -> Any:
    batches = read_table(data).to_batches()
    if len(batches) != 1:
        raise DecodeError(f"a record batch of {len(batches)} batches")
    return batches[0]


def _take_array(array: Any) -> Any:
    return write_table(pa.RecordBatch.from_arrays([array], names=[""]))


def _make_array(data: Any) -> Any:
    batch = _batch(data)
    if batch.num_columns != 1:
        raise DecodeError(f"an Arrow array of {batch.num_columns} columns")
    return batch.column(0)


def _take_chunked(array: Any) -> Any:
    return write_table(pa.Table.from_arrays([array], names=[""]))


def _make_chunked(data: Any) -> Any:
    table = read_table(data)
    if table.num_columns != 1:
        raise DecodeError(f"an Arrow array of {table.num_columns} columns")
    return table.column(0)


SERIALIZERS: Final = (
    Serializer(cls=pa.Table, name="pyarrow.Table", take=write_table, make=read_table, shared=True),
    Serializer(cls=pa.RecordBatch, name="pyarrow.RecordBatch", take=write_table, make=_batch, shared=True),
    Serializer(cls=pa.ChunkedArray, name="pyarrow.ChunkedArray", take=_take_chunked, make=_make_chunked, shared=True),
    Serializer(cls=pa.Array, name="pyarrow.Array", take=_take_array, make=_make_array, shared=True, subclasses=True),
)
