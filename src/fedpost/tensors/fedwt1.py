"""``fedwt1``, the byte layout ``FEDWT001``: a header with a summary of every array, then one record an array.

Rules (``docs/spec/formats.md``): numbers are little-endian. What the layout has no place for, the arrays' names and
element types beyond its ten, stands in its JSON under the key ``fedpost``, so other readers of dense arrays find what
they know. Sparse arrays have the flag 2 and :mod:`~fedpost.tensors.sparse`; flag 1 is a pickle, and refused.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np

from fedpost.errors import DecodeError, EncodeError, FedpostError, LimitError, UnsupportedError
from fedpost.frame import DEFAULT_LIMITS, Limits
from fedpost.tensors.file_formats import PiecedFormat
from fedpost.tensors.foreign import array_bytes, dtype_named, dtype_names, member_size, raw_size, strict_json
from fedpost.tensors.format import FORMATS, Array, TensorSpec
from fedpost.tensors.pieces import Buffer, Cursor, Gathered, Pieces
from fedpost.tensors.placed import Placed, PlacedTensors
from fedpost.tensors.sparse import check_sparse, sparse_bytes

__all__ = ["Fedwt1", "Fedwt1Header", "from_bytes", "inspect_header", "to_bytes"]

SECTION: Final = "tensors_fedwt1"
MAGIC: Final = b"FEDWT001"
RESERVED: Final = "fedpost"
_DENSE, _PICKLED, _SPARSE = 0, 1, 2
_START: Final = struct.Struct("<8sII")
_SIZE: Final = struct.Struct("<Q")
_RECORD: Final = struct.Struct("<IBQ")
_MAX_DIM: Final = (1 << 32) - 1
_MAX_DTYPE: Final = 255
_SPARE: Final = 1 << 16
_TEN: Final = ("float32", "float16", "float64", "int32", "int16", "int8", "uint32", "uint16", "uint8", "bool")
_SIMPLE: Final = (*_TEN, "int64", "uint64", "complex64", "complex128")
# What a writer that knows nothing of the reserved key may give.
_KNOWN: Final = {str(kind): kind for name in _SIMPLE for kind in (np.dtype(name), np.dtype(name).newbyteorder(">"))}


class _Reserved(msgspec.Struct, forbid_unknown_fields=True):
    names: list[str]
    dtypes: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Fedwt1Header:
    """What stands before the arrays.

    Attributes:
        metadata: What the writer noted, without what is reserved.
        specs: The arrays' names, element types and shapes, in order.
        nbytes: Size of the header, in bytes.
    """

    metadata: dict[str, Any]
    specs: tuple[TensorSpec, ...]
    nbytes: int


def to_bytes(tensors: Mapping[str, Array], metadata: Mapping[str, object] | None = None) -> list[memoryview]:
    """The file, as buffers to be written one after the other; large dense arrays are not copied.

    The metadata is what JSON can carry, without the key ``fedpost``.

    Raises:
        EncodeError: A dimension has no 32 bits, a type has no bytes, a name no UTF-8, or the metadata is no JSON.
    """
    return _gathered(tensors, metadata).pieces()


def _gathered(tensors: Mapping[str, Array], metadata: Mapping[str, object] | None = None) -> Gathered:
    out = Gathered()
    kinds = dtype_names(tensors)
    text = _metadata(list(tensors), kinds, dict(metadata or {}))
    out.add(_START.pack(MAGIC, len(tensors), len(text)), text)
    for name, array in tensors.items():
        if max(array.shape, default=0) > _MAX_DIM:
            raise EncodeError(f"the shape {array.shape} needs more than 32 bits", where=f"tensor {name!r}")
        label = _label(array.dtype).encode()
        head = struct.pack(f"<B{array.ndim}IB", array.ndim, *array.shape, len(label))
        out.add(head, label, _SIZE.pack(array.size))
    for index, array in enumerate(tensors.values()):
        data = array_bytes(array)
        coded = sparse_bytes(data, array.dtype.itemsize)
        if coded is None:
            out.add(_RECORD.pack(index, _DENSE, data.nbytes))
            out.add_elements(data, array.dtype)
        else:
            out.add(_RECORD.pack(index, _SPARSE, len(coded)), coded)
    return out


def from_bytes(
    data: bytes | bytearray | memoryview, *, limits: Limits = DEFAULT_LIMITS
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Arrays and metadata of a file that fills ``data`` exactly; dense arrays are read-only views of it.

    Raises:
        UnsupportedError: An array is a pickle, or of a type that is not known here.
        DecodeError: The bytes do not follow the layout, or go over the limits.
    """
    tensors, header = _read(Buffer(data, limits), limits)
    return tensors.arrays(), header.metadata


def inspect_header(data: bytes | bytearray | memoryview, *, limits: Limits = DEFAULT_LIMITS) -> Fedwt1Header:
    """The header of a file, of which ``data`` need not hold more.

    Raises:
        TruncatedError: ``data`` ends before the header does.
        DecodeError: The bytes do not follow the layout, or go over the limits.
    """
    return _header(Cursor(Buffer(data, limits)), limits)


class Fedwt1(PiecedFormat):
    """The layout ``FEDWT001``; see the module's docstring."""

    def __init__(self) -> None:
        super().__init__("fedwt1", _gathered, _read)


def _label(dtype: np.dtype[Any]) -> str:
    """The type as the header names it: as NumPy does, or by its size where NumPy has no short name."""
    label = str(dtype)
    return label if dtype.names is None and label.isascii() and len(label) <= _MAX_DTYPE else f"|V{dtype.itemsize}"


def _metadata(names: list[str], kinds: list[str], metadata: dict[str, object]) -> bytes:
    if RESERVED in metadata:
        raise EncodeError(f"the metadata key {RESERVED!r} is reserved")
    others = {str(index): kind for index, kind in enumerate(kinds) if kind not in _TEN}
    if others or names != [str(index) for index in range(len(names))]:
        metadata[RESERVED] = {"names": names, **({"dtypes": others} if others else {})}
    try:
        text = json.dumps(metadata, allow_nan=False).encode()
        strict_json(text, "metadata")
    except (FedpostError, TypeError, ValueError, RecursionError) as error:
        raise EncodeError(f"the metadata cannot be JSON: {error}") from error
    if len(text) > _MAX_DIM:
        raise EncodeError(f"{len(text)} bytes of metadata need more than 32 bits")
    return text


def _read(pieces: Pieces, limits: Limits) -> tuple[PlacedTensors, Fedwt1Header]:
    cursor = Cursor(pieces)
    header = _header(cursor, limits)
    placed = list(_records(pieces, cursor, header, limits))
    if cursor.left():
        raise DecodeError("bytes follow the last array")
    return PlacedTensors(pieces, placed), header


def _header(cursor: Cursor, limits: Limits) -> Fedwt1Header:
    where = "FEDWT001 header"
    magic, count, length = _START.unpack(cursor.take(_START.size))
    if magic != MAGIC:
        raise DecodeError("the first bytes are not FEDWT001", where=where)
    if count > limits.max_tensors:
        raise LimitError(f"{count} arrays, {limits.max_tensors} allowed", where=where)
    if length > limits.max_header:
        raise LimitError(f"{length} bytes of metadata, {limits.max_header} allowed", where=where)
    text = cursor.take(length)
    if (noted := length - _own_size(text)) > limits.max_section:
        raise LimitError(f"{noted} bytes of metadata, {limits.max_section} allowed", where=where)
    metadata = strict_json(text, where, 2 * limits.max_tensors + _SPARE, constants=True)
    if not isinstance(metadata, dict):
        raise DecodeError("its metadata is no JSON object", where=where)
    try:
        # What is no object there stands in a file of a writer that knew nothing of the key.
        own = isinstance(metadata.get(RESERVED), dict)
        default = {"names": [str(index) for index in range(count)]}
        reserved = msgspec.convert(metadata.pop(RESERVED) if own else default, _Reserved)
    except msgspec.ValidationError as error:
        raise DecodeError(f"the key {RESERVED!r}: {error}", where=where) from error
    names, kinds = reserved.names, reserved.dtypes
    if not len(names) == len(set(names)) == count:
        raise DecodeError(f"its names are not one for each of {count} arrays", where=where)
    specs = tuple(_spec(cursor, name, kinds.pop(str(index), None)) for index, name in enumerate(names))
    if kinds:
        raise DecodeError(f"an element type for the array {min(kinds)[:40]!r}, which is not there", where=where)
    if sum(spec.nbytes for spec in specs) > limits.max_raw:
        raise LimitError(f"arrays of more than the {limits.max_raw} bytes that are allowed", where=where)
    return Fedwt1Header(metadata, specs, cursor.at)


def _own_size(text: memoryview) -> int:
    """Bytes of what is reserved; 0 where a writer that knows nothing of it put NaN into its metadata, or no JSON."""
    try:
        return member_size(text, RESERVED)
    except DecodeError:
        return 0


def _spec(cursor: Cursor, name: str, kind: str | None) -> TensorSpec:
    """One row of the summary."""
    where = f"tensor {name!r}"
    ndim = cursor.take(1)[0]
    shape = struct.unpack(f"<{ndim}I", cursor.take(4 * ndim))
    label = bytes(cursor.take(cursor.take(1)[0])).decode("ascii", "backslashreplace")
    (size,) = _SIZE.unpack(cursor.take(_SIZE.size))
    if kind is None and label not in _KNOWN:
        raise UnsupportedError(f"unknown element type {label[:80]!r}", where=where)
    dtype = _KNOWN[label] if kind is None else dtype_named(kind, where)
    if label != _label(dtype):
        raise DecodeError(f"its element type is {label[:80]!r}, and {str(kind)[:80]!r}", where=where)
    raw_size(shape, dtype, where)
    spec = TensorSpec(name, dtype, shape)
    if spec.size != size:
        raise DecodeError(f"{size} elements do not fit the shape {shape}", where=where)
    return spec


def _records(pieces: Pieces, cursor: Cursor, header: Fedwt1Header, limits: Limits) -> Iterator[Placed]:
    for number, spec in enumerate(header.specs):
        where = f"tensor {spec.name!r}"
        index, flag, length = _RECORD.unpack(cursor.take(_RECORD.size))
        if flag == _PICKLED:
            raise UnsupportedError(
                "its array is a pickle (flag 1), which can run code", where=where, hint="Ask for it dense."
            )
        if flag not in (_DENSE, _SPARSE):
            raise UnsupportedError(f"unknown flag {flag}", where=where)
        if index != number or (flag == _DENSE and length != spec.nbytes):
            raise DecodeError(f"array {index} of {length} bytes, where {number} of {spec.nbytes} belongs", where=where)
        piece, start = cursor.skip(length)
        if flag == _SPARSE:
            if spec.nbytes > length * limits.max_ratio:
                raise LimitError(f"{spec.nbytes} bytes out of {length}: over {limits.max_ratio}", where=where)
            try:
                check_sparse(pieces.read(piece, start, start + length), spec.dtype.itemsize, spec.size)
            except FedpostError as error:
                raise type(error)(error.what, where=where) from error
        yield Placed(spec, piece, start, length, flag == _SPARSE)


FORMATS.register("fedwt1", Fedwt1())
