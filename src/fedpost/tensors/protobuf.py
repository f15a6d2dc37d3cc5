"""``protobuf``, a ``WeightMessage`` of protocol buffers; the schema is ``schema/fedpost_weights.proto``.

Rules (``docs/spec/formats.md``): the message is written and read by hand, field by field, so that arrays are copied
neither way and nothing is made of a message that the budget does not allow; the code that is generated from the schema
reads the same, and is what the tests hold this against. A message is under 2 GiB.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from fedpost.errors import DecodeError, EncodeError, LimitError, TruncatedError, UnsupportedError
from fedpost.frame import DEFAULT_LIMITS, Limits
from fedpost.tensors.file_formats import FileFormat
from fedpost.tensors.foreign import array_bytes, array_of, dtype_names
from fedpost.tensors.format import FORMATS, Array
from fedpost.tensors.pieces import Buffer, Gathered

__all__ = ["Protobuf", "from_bytes", "to_bytes"]

_MAX_MESSAGE: Final = (1 << 31) - 1
_VARINT, _BYTES = 0, 2
_METADATA, _WEIGHTS = 1, 2
_KEY, _VALUE = 1, 2
_LAYER, _SHAPE, _DTYPE, _DATA, _NAME = 1, 2, 3, 4, 5
_ENTRY_FIELDS: Final = {_KEY: _BYTES, _VALUE: _BYTES}
_WEIGHT_FIELDS: Final = {_LAYER: _VARINT, _SHAPE: _BYTES, _DTYPE: _BYTES, _DATA: _BYTES, _NAME: _BYTES}
_MAX_VARINT: Final = 10
_MAX_TAG: Final = 5
_MAX_SHAPE: Final = 64 * _MAX_VARINT
_ENTRY: Final = 32
"""Bytes that an entry of the metadata counts for beside its own: an empty one has two, and costs a receiver more."""
_UINT32, _UINT64 = (1 << 32) - 1, (1 << 64) - 1
_WHERE: Final = "WeightMessage"


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def to_bytes(tensors: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> list[memoryview]:
    """The message, as buffers to be written one after the other; large arrays in C order are not copied.

    Raises:
        EncodeError: A type has no bytes, the metadata is not text, or the message would have 2 GiB.
    """
    out = Gathered()
    for key in sorted(metadata or {}, key=str):
        entry = _field(_KEY, _utf8(key)) + _field(_VALUE, _utf8((metadata or {})[key]))
        out.add(_field(_METADATA, entry))
    kinds = dtype_names(tensors)
    if sum(array.nbytes for array in tensors.values()) > _MAX_MESSAGE:
        raise EncodeError("a protocol buffer message ends at 2 GiB", hint="Use the format fedwt.")
    for index, ((name, array), kind) in enumerate(zip(tensors.items(), kinds, strict=True)):
        data = array_bytes(array)
        # What has the value that a missing field stands for is not written, as the generated code does it.
        head = _number(_LAYER << 3) + _number(index) if index else b""
        if array.ndim:
            head += _field(_SHAPE, b"".join(map(_number, array.shape)))
        head += _field(_DTYPE, kind.encode())
        if data.nbytes:
            head += _number(_DATA << 3 | _BYTES) + _number(data.nbytes)
        tail = _field(_NAME, name.encode())
        out.add(_number(_WEIGHTS << 3 | _BYTES) + _number(len(head) + data.nbytes + len(tail)) + head, data, tail)
    pieces = out.pieces()
    if sum(piece.nbytes for piece in pieces) > _MAX_MESSAGE:
        raise EncodeError("a protocol buffer message ends at 2 GiB", hint="Use the format fedwt.")
    return pieces


def _utf8(text: object) -> bytes:
    if not isinstance(text, str):
        raise EncodeError(f"metadata {text!r} is not text")
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise EncodeError(f"metadata {text!r} has no UTF-8") from error


def _field(number: int, value: bytes) -> bytes:
    return _number(number << 3 | _BYTES) + _number(len(value)) + value


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - seven bits a byte
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def from_bytes(
    data: bytes | bytearray | memoryview, *, limits: Limits = DEFAULT_LIMITS
) -> tuple[dict[str, Array], dict[str, str]]:
    """Arrays and metadata of a message that fills ``data`` exactly; the arrays are read-only views of it.

    Raises:
        UnsupportedError: A field or an element type that is not known here.
        DecodeError: The bytes are no such message, or go over the limits.
    """
    arrays: dict[str, Array] = {}
    metadata: dict[str, str] = {}
    if not memoryview(data).nbytes:  # nothing at all is a message of nothing
        return arrays, metadata
    view = Buffer(data, limits).segment(0)
    if view.nbytes > _MAX_MESSAGE:
        raise LimitError(f"{view.nbytes} bytes, {_MAX_MESSAGE} allowed", where=_WHERE)
    noted = beside = 0
    named: bool | None = None
    for number, start, stop, size in _fields(view, {_METADATA: _BYTES, _WEIGHTS: _BYTES}, _WHERE):
        beside += size
        part = view[start:stop]
        if number == _METADATA:
            noted += size + _ENTRY
            if noted > limits.max_section:
                raise LimitError(f"more than {limits.max_section} bytes of metadata", where=_WHERE)
            entry = _values(part, _ENTRY_FIELDS, f"entry {len(metadata)} of the metadata")
            metadata[_text(entry.get(_KEY), _WHERE)] = _text(entry.get(_VALUE), _WHERE)
            continue
        index, where = len(arrays), f"weight {len(arrays)}"
        if index >= limits.max_tensors:
            raise LimitError(f"more than the {limits.max_tensors} tensors that are allowed", where=_WHERE)
        found = _values(part, _WEIGHT_FIELDS, where)
        content = found.get(_DATA, memoryview(b""))
        beside -= content.nbytes
        if beside > limits.max_header:
            raise LimitError(f"more than {limits.max_header} bytes beside the arrays", where=_WHERE)
        name = _text(found[_NAME], where) if _NAME in found else str(index)
        if name in arrays or named is (_NAME not in found) or _layer(found) != index:
            raise DecodeError("it has another layer_id, or its name is not its own", where=where)
        named = _NAME in found
        arrays[name] = array_of(name, _text(found.get(_DTYPE), where), _shape(found.get(_SHAPE), where), content)
    return arrays, metadata


def _values(view: memoryview, known: Mapping[int, int], where: str) -> dict[int, memoryview]:
    """The fields of a message inside, of which none comes twice, by number."""
    found: dict[int, memoryview] = {}
    for number, start, stop, _ in _fields(view, known, where):
        if number in found:
            raise DecodeError(f"field {number} comes twice", where=where)
        found[number] = view[start:stop]
    return found


def _fields(view: memoryview, known: Mapping[int, int], where: str) -> Iterator[tuple[int, int, int, int]]:
    """The fields of a message: number, where the value begins and ends, and bytes with the tag."""
    at = 0
    while at < view.nbytes:
        begin = at
        tag, at = _varint(view, at, _MAX_TAG)
        number, kind = tag >> 3, tag & 7
        if known.get(number) != kind:
            raise UnsupportedError(f"unknown field {number} of wire type {kind}", where=where)
        start = at
        if kind == _VARINT:
            at = _varint(view, at, _MAX_VARINT)[1]
        else:
            size, start = _varint(view, at, _MAX_TAG)
            at = start + size
            if at > view.nbytes:
                raise TruncatedError(f"field {number} ends at byte {at} of {view.nbytes}", where=where)
        yield number, start, at, at - begin


def _layer(found: Mapping[int, memoryview]) -> int:
    return _varint(found[_LAYER], 0, _MAX_VARINT)[0] & _UINT32 if _LAYER in found else 0


def _shape(packed: memoryview | None, where: str) -> list[int]:
    if packed is None:
        return []
    if packed.nbytes > _MAX_SHAPE:
        raise DecodeError(f"a shape of {packed.nbytes} bytes, {_MAX_SHAPE} allowed", where=where)
    dims, at = [], 0
    while at < packed.nbytes:
        dim, at = _varint(packed, at, _MAX_VARINT)
        dims.append(dim & _UINT64)
    return dims


def _text(value: memoryview | None, where: str) -> str:
    try:
        return "" if value is None else str(value, "utf-8")
    except UnicodeDecodeError as error:
        raise DecodeError(f"text that is not UTF-8: {error}", where=where) from error


def _varint(view: memoryview, at: int, most: int) -> tuple[int, int]:
    """A number, and where it ends."""
    if at < view.nbytes and view[at] < 0x80:  # noqa: PLR2004 - the usual case, four times as fast
        return view[at], at + 1
    value = 0
    for shift, byte in enumerate(view[at : at + most]):
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:  # noqa: PLR2004 - the mark of the last byte
            return value, at + shift + 1
    raise TruncatedError(f"a number at byte {at} has no end", where=_WHERE)


class Protobuf(FileFormat):
    """Protocol buffers; see the module's docstring."""

    def __init__(self) -> None:
        super().__init__("protobuf", to_bytes, from_bytes)


FORMATS.register("protobuf", Protobuf())
