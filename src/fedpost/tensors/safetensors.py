"""``safetensors``, Hugging Face's files: a length, a JSON header, the tensors; written and read by our own code.

Rules (``docs/spec/formats.md``): the tensors fill what follows the header exactly, without holes or overlaps, so
nothing can hide in a file; keys come once. Larger element sizes stand first and the header is padded to 8, so every
tensor lies on a multiple of its element's size. What the format has no name for is refused, never converted.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Annotated, Any, Final

import ml_dtypes
import msgspec
import numpy as np

from fedpost.errors import DecodeError, EncodeError, LimitError, TruncatedError, UnsupportedError
from fedpost.frame import DEFAULT_LIMITS, Limits
from fedpost.tensors.file_formats import PiecedFormat
from fedpost.tensors.foreign import array_bytes, dtype_names, member_size, raw_size, strict_json
from fedpost.tensors.format import FORMATS, Array, TensorSpec
from fedpost.tensors.pieces import Buffer, Gathered, Pieces
from fedpost.tensors.placed import Placed, PlacedTensors

__all__ = ["Safetensors", "from_bytes", "to_bytes"]

METADATA: Final = "__metadata__"
_LENGTH: Final = struct.Struct("<Q")
_ALIGNMENT: Final = 8
_MAX_HEADER: Final = 100_000_000
_SPARE: Final = 1 << 16
_DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "BOOL": np.dtype("bool"),
    "C64": np.dtype("complex64"),
    **{f"I{bits}": np.dtype(f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"U{bits}": np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)},
    **{f"F{bits}": np.dtype(f"float{bits}") for bits in (16, 32, 64)},
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F8_E4M3FNUZ": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "F8_E5M2FNUZ": np.dtype(ml_dtypes.float8_e5m2fnuz),
}
if hasattr(ml_dtypes, "float8_e8m0fnu"):
    _DTYPES["F8_E8M0"] = np.dtype(ml_dtypes.float8_e8m0fnu)
_NAMES: Final = {dtype: name for name, dtype in _DTYPES.items()}


class _Info(msgspec.Struct, forbid_unknown_fields=True):
    dtype: str
    shape: list[int]
    data_offsets: Annotated[list[int], msgspec.Meta(min_length=2, max_length=2)]


def to_bytes(tensors: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> list[memoryview]:
    """The file, as buffers to be written one after the other; large arrays in C order are not copied.

    Raises:
        EncodeError: An element type has no name here, a tensor's name is reserved, or the metadata is not text.
    """
    return _gathered(tensors, metadata).pieces()


def _gathered(tensors: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> Gathered:
    dtype_names(tensors)
    for name, array in tensors.items():
        if array.dtype not in _NAMES:
            raise EncodeError(f"safetensors has no name for element type {array.dtype}", where=f"tensor {name!r}")
        if name == METADATA:
            raise EncodeError(f"the name {METADATA!r} is reserved", where=f"tensor {name!r}")
    # The library's order: by element size, so that everything is aligned without holes, then as given.
    order = sorted(tensors, key=lambda name: -tensors[name].dtype.itemsize)
    offsets, end = {}, 0
    for name in order:
        offsets[name] = [end, end := end + tensors[name].nbytes]
    header: dict[str, object] = {METADATA: _texts(metadata)} if metadata else {}
    for name, array in tensors.items():
        header[name] = {"dtype": _NAMES[array.dtype], "shape": list(array.shape), "data_offsets": offsets[name]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    if len(text) > _MAX_HEADER:
        raise EncodeError(f"a header of {len(text)} bytes, {_MAX_HEADER} allowed")
    out = Gathered()
    out.add(_LENGTH.pack(len(text)) + text)
    out.cut()
    for name in order:
        out.add_elements(array_bytes(tensors[name]), tensors[name].dtype)
    return out


def from_bytes(
    data: bytes | bytearray | memoryview, *, limits: Limits = DEFAULT_LIMITS
) -> tuple[dict[str, Array], dict[str, str]]:
    """Arrays and metadata of a file that fills ``data`` exactly; the arrays are read-only views of it.

    Raises:
        UnsupportedError: An element type that is not known here.
        DecodeError: The bytes do not follow the format, or go over the limits.
    """
    tensors, metadata = _read(Buffer(data, limits), limits)
    return tensors.arrays(), metadata


class Safetensors(PiecedFormat):
    """Hugging Face's format; see the module's docstring."""

    def __init__(self) -> None:
        super().__init__("safetensors", _gathered, _read)


def _texts(metadata: Mapping[Any, Any]) -> dict[str, str]:
    for key, value in metadata.items():
        if not (isinstance(key, str) and isinstance(value, str)):
            raise EncodeError(f"metadata {key!r}: {value!r} is not text to text")
        try:
            f"{key}{value}".encode()
        except UnicodeEncodeError as error:
            raise EncodeError(f"metadata {key!r} has no UTF-8") from error
    return dict(metadata)


def _read(pieces: Pieces, limits: Limits) -> tuple[PlacedTensors, dict[str, str]]:
    where = "safetensors header"
    size = pieces.raw_size(0)
    if size < _LENGTH.size:
        raise TruncatedError(f"{size} bytes are less than a length", where=where)
    (length,) = _LENGTH.unpack(pieces.read(0, 0, _LENGTH.size))
    if length > min(limits.max_header, _MAX_HEADER):
        raise LimitError(f"{length} bytes, {min(limits.max_header, _MAX_HEADER)} allowed", where=where)
    if length > size - _LENGTH.size:
        raise TruncatedError(f"{length} bytes do not fit in {size}", where=where)
    text = pieces.read(0, _LENGTH.size, _LENGTH.size + length)
    if bytes(text[:1]) != b"{":
        raise DecodeError("it does not begin with a brace", where=where)
    if (noted := member_size(text, METADATA, where)) > limits.max_section:
        raise LimitError(f"{noted} bytes of metadata, {limits.max_section} allowed", where=where)
    header = strict_json(text, where, 4 * limits.max_tensors + _SPARE)
    try:
        metadata = msgspec.convert(header.pop(METADATA, {}), dict[str, str])
        infos = msgspec.convert(header, dict[str, _Info])
    except msgspec.ValidationError as error:
        raise DecodeError(str(error), where=where) from error
    if len(infos) > limits.max_tensors:
        raise LimitError(f"{len(infos)} tensors, {limits.max_tensors} allowed", where=where)
    return PlacedTensors(pieces, _place(pieces, _LENGTH.size + length, infos)), metadata


def _place(pieces: Pieces, start: int, infos: dict[str, _Info]) -> list[Placed]:
    """Every tensor's place, in the header's order, when together they are all that follows the header."""
    places: dict[str, Placed] = {}
    piece, first, end = 0, 0, start  # where the piece begins, and where the tensors end so far, in the file
    for name, info in sorted(infos.items(), key=lambda item: item[1].data_offsets):
        where = f"tensor {name!r}"
        if info.dtype not in _DTYPES:
            raise UnsupportedError(f"unknown element type {info.dtype[:80]!r}", where=where)
        spec = TensorSpec(name, _DTYPES[info.dtype], tuple(info.shape))
        nbytes = raw_size(info.shape, spec.dtype, where)
        if info.data_offsets != [end - start, end - start + nbytes]:
            raise DecodeError(f"{info.data_offsets} is not where {nbytes} bytes belong", where=where)
        if nbytes and end == first + pieces.raw_size(piece) and piece + 1 < len(pieces):
            piece, first = piece + 1, end
        if end + nbytes > first + pieces.raw_size(piece):
            raise TruncatedError(f"its {nbytes} bytes are not all in the piece", where=where)
        places[name] = Placed(spec, piece, end - first, nbytes)
        end += nbytes
    if piece + 1 != len(pieces) or end != first + pieces.raw_size(piece):
        raise DecodeError("bytes follow the last tensor", where="safetensors file")
    return [places[name] for name in infos]


FORMATS.register("safetensors", Safetensors())
