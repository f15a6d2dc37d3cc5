"""``protobuf``, a ``WeightMessage`` of protocol buffers; the schema is ``schema/fedpost_weights.proto``.

Rules (``docs/spec/formats.md``): the message is scanned before it is parsed, and only its own fields, in numbers that
the budget allows, get to the parser. The runtime is the extra ``fedpost[protobuf]``; without it this module imports,
and its functions raise MissingExtraError. Arrays are copied both ways, as the runtime has no views; a message is under
2 GiB.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from fedpost.errors import DecodeError, EncodeError, LimitError, MissingExtraError, TruncatedError, UnsupportedError
from fedpost.frame import DEFAULT_LIMITS, Frame, Limits
from fedpost.tensors.foreign import array_bytes, array_of, dtype_names
from fedpost.tensors.format import FORMATS, Array, Encoded, MemoryTensors, TensorSource
from fedpost.tensors.pieces import Buffer, encoded
from fedpost.tensors.placed import decode_file, stored_shares

__all__ = ["Protobuf", "from_bytes", "to_bytes"]

SECTION: Final = "tensors_protobuf"
_MAX_MESSAGE: Final = (1 << 31) - 1
_VARINT, _BYTES = 0, 2
_METADATA, _WEIGHTS = 1, 2
_SHAPE, _DATA = 2, 4
_WEIGHT_FIELDS: Final = {1: _VARINT, 2: _BYTES, 3: _BYTES, 4: _BYTES, 5: _BYTES}
_MAX_VARINT: Final = 10
_MAX_SHAPE: Final = 64 * _MAX_VARINT
_WHERE: Final = "WeightMessage"


def to_bytes(tensors: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> list[memoryview]:
    """The serialized message, as one buffer.

    Raises:
        MissingExtraError: The protobuf runtime is not installed.
        EncodeError: A type has no bytes, the metadata is not text, or the message would have 2 GiB.
    """
    message = _schema().WeightMessage()
    kinds = dtype_names(tensors)
    if sum(array.nbytes for array in tensors.values()) > _MAX_MESSAGE:
        raise EncodeError("a protocol buffer message ends at 2 GiB", hint="Use the format fedwt.")
    try:
        message.metadata.update(metadata or {})
        for index, ((name, array), kind) in enumerate(zip(tensors.items(), kinds, strict=True)):
            shape, data = array.shape, bytes(array_bytes(array))
            message.weights.add(layer_id=index, shape=shape, dtype=kind, data=data, name=name)
        return [memoryview(message.SerializeToString(deterministic=True))]
    except (TypeError, ValueError, _runtime().Error) as error:
        raise EncodeError(f"it cannot be a WeightMessage: {error}") from error


def from_bytes(
    data: bytes | bytearray | memoryview, *, limits: Limits = DEFAULT_LIMITS
) -> tuple[dict[str, Array], dict[str, str]]:
    """Arrays and metadata of a message that fills ``data`` exactly; the arrays are read-only.

    Raises:
        MissingExtraError: The protobuf runtime is not installed.
        UnsupportedError: A field or an element type that is not known here.
        DecodeError: The bytes are no such message, or go over the limits.
    """
    message = _schema().WeightMessage()
    view = memoryview(data).toreadonly().cast("B")
    if view.nbytes:  # nothing at all is a message of nothing
        _scan(Buffer(view, limits).segment(0), limits)
    try:
        message.ParseFromString(bytes(view))
    except (_runtime().DecodeError, RecursionError) as error:
        raise DecodeError(str(error)[:200], where=_WHERE) from error
    named = {weight.HasField("name") for weight in message.weights}
    arrays: dict[str, Array] = {}
    for index, weight in enumerate(message.weights):
        name = weight.name if weight.HasField("name") else str(index)
        if weight.layer_id != index or len(named) > 1 or name in arrays:
            raise DecodeError(f"weight {index} has another layer_id, or its name is not its own", where=_WHERE)
        arrays[name] = array_of(name, weight.dtype, weight.shape, memoryview(weight.data))
    return arrays, dict(message.metadata)


class Protobuf:
    """Protocol buffers; see the module's docstring."""

    name: Final = "protobuf"

    def encode(self, tensors: Mapping[str, Array]) -> Encoded:
        """Write the message.

        Raises:
            EncodeError: As :func:`to_bytes`.
        """
        return encoded(SECTION, tensors, to_bytes(tensors))

    def decode(self, frame: Frame, limits: Limits) -> MemoryTensors:
        """Check the message and take the arrays out of it.

        Raises:
            DecodeError: As :func:`from_bytes`.
            LimitError: More tensors than allowed.
        """
        return decode_file(frame, SECTION, limits, from_bytes)

    def stored_sizes(self, frame: Frame, source: TensorSource) -> dict[str, int]:
        """Stored bytes of each tensor: its share of the one segment, by size."""
        return stored_shares(frame, source)


def _schema() -> Any:
    """The generated module, which needs the runtime."""
    try:
        return importlib.import_module("fedpost.tensors.schema.fedpost_weights_pb2")
    except ImportError as error:
        hint = "pip install 'fedpost[protobuf]'"
        raise MissingExtraError("the format protobuf needs the protobuf runtime", hint=hint) from error


def _runtime() -> Any:
    return importlib.import_module("google.protobuf.message")


def _load() -> Protobuf:
    _schema()
    return Protobuf()


def _scan(view: memoryview, limits: Limits) -> None:
    """Check everything that could make a parser allocate more than the bytes that are there."""
    if view.nbytes > _MAX_MESSAGE:
        raise LimitError(f"{view.nbytes} bytes, {_MAX_MESSAGE} allowed", where=_WHERE)
    weights = beside = 0
    for number, kind, start, stop in _fields(view):
        if number not in (_METADATA, _WEIGHTS) or kind != _BYTES:
            raise UnsupportedError(f"unknown field {number} of wire type {kind}", where=_WHERE)
        if number == _METADATA:
            beside += stop - start
            for inner, inner_kind, _, _ in _fields(view[start:stop]):
                if inner not in (1, 2) or inner_kind != _BYTES:
                    raise UnsupportedError(f"unknown field {inner} of an entry of the metadata", where=_WHERE)
        else:
            weights += 1
            beside += _scan_weight(view[start:stop], weights - 1)
        if weights > limits.max_tensors:
            raise LimitError(f"more than the {limits.max_tensors} tensors that are allowed", where=_WHERE)
        if beside > limits.max_header:
            raise LimitError(f"more than {limits.max_header} bytes beside the arrays", where=_WHERE)


def _scan_weight(view: memoryview, index: int) -> int:
    """Check one weight; how many bytes it has beside its array's."""
    where = f"weight {index}"
    seen, beside = set(), view.nbytes
    for number, kind, start, stop in _fields(view):
        if _WEIGHT_FIELDS.get(number) != kind:
            raise UnsupportedError(f"unknown field {number} of wire type {kind}", where=where)
        if number in seen:
            raise DecodeError(f"field {number} comes twice", where=where)
        seen.add(number)
        if number == _SHAPE and stop - start > _MAX_SHAPE:
            raise DecodeError(f"a shape of {stop - start} bytes, {_MAX_SHAPE} allowed", where=where)
        if number == _DATA:
            beside -= stop - start
    return beside


def _fields(view: memoryview) -> Iterator[tuple[int, int, int, int]]:
    """The fields of a message: number, wire type, and where the value begins and ends."""
    at = 0
    while at < view.nbytes:
        tag, at = _varint(view, at)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            start, (_, at) = at, _varint(view, at)
        elif kind == _BYTES:
            size, start = _varint(view, at)
            at = start + size
        else:
            raise UnsupportedError(f"unknown field {number} of wire type {kind}", where=_WHERE)
        if at > view.nbytes:
            raise TruncatedError(f"field {number} ends at byte {at} of {view.nbytes}", where=_WHERE)
        yield number, kind, start, at


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift, byte in enumerate(view[at : at + _MAX_VARINT]):
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:  # noqa: PLR2004 - the mark of the last byte
            return value, at + shift + 1
    raise TruncatedError(f"a number at byte {at} has no end", where=_WHERE)


FORMATS.register_lazy(Protobuf.name, _load)
