"""``.npz``, NumPy's archives: a zip file of one ``.npy`` an array, never with pickle.

Rules: no header is evaluated. A member becomes a segment of the format ``numpy``, and that format's reader checks it.
Sizes are compared with the budget before anything is inflated, and every member's CRC is checked before it is used.
What NumPy has no name for (``bfloat16``) is written as bytes without meaning, as NumPy does, with its name as the
member's comment; the model's metadata is the archive's comment, as JSON. NumPy passes over both.
"""

from __future__ import annotations

import ast
import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from fedpost.compression import Compression
from fedpost.conversion.disk import BATCH, Progress, Scratch
from fedpost.errors import DecodeError, EncodeError, FedpostError, IntegrityError, LimitError, UnsupportedError
from fedpost.frame import Frame, Limits
from fedpost.tensors import FORMATS, Array, TensorSource
from fedpost.tensors.dtypes import dtype_from_name, dtype_name
from fedpost.tensors.foreign import array_bytes, dtype_names, strict_json

__all__ = ["MAX_COMMENT", "read_npz", "unnamed", "write_npz"]

MAX_COMMENT: Final = 65535
"""Bytes of metadata that an archive has room for."""
_SUFFIX: Final = ".npy"
_SECTION: Final = "tensors_npy"
_METADATA: Final = "fedpost_metadata"
_END: Final = struct.Struct("<4s4H2IH")
_END64: Final = struct.Struct("<4sQ2H2I4Q")
_LOCATOR: Final = 20
_LOCAL: Final = struct.Struct("<4s5H3I2H")
_MAX_DIRECTORY: Final = 1 << 24
_MAX_HEADER: Final = 1 << 14
_MAX_DESCR: Final = 8000
_MAX_NESTING: Final = 16
_ENCRYPTED: Final = 1
_INFLATE: Final = -15
_DESCR: Final = re.compile(rb"\x93NUMPY(?:\x01\x00..|[\x02\x03]\x00....)\{'descr': (.+?), 'fortran_order': ", re.DOTALL)
_UNICODE: Final = b"\x93NUMPY\x03\x00"
_HEAD: Final = len(_UNICODE) + 4
_REST: Final = re.compile(
    rb"(True|False), 'shape': \(((?:[0-9]{1,19}(?:, |,?(?=\))))*)\), \} *\n", re.DOTALL
)  # behind what _DESCR matches
_SIMPLE: Final = re.compile(r"'([<>|][a-zA-Z][0-9]{0,10}(?:\[[0-9]{0,9}[a-zA-Z]{1,2}\])?)'")
_FIELDS: Final = re.compile(r"\[(?:'[^'\\]*'|[0-9]+|[\[\](), ])*\]")

_Place = tuple[bool, int, int]
"""Whether a member lies in the file itself or inflated, and its first and last byte there."""

# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_npz(
    path: Path, view: memoryview, limits: Limits, scratch: Scratch
) -> tuple[TensorSource, dict[str, Any], memoryview]:
    """The arrays of an archive, its metadata, and the memory that holds what had to be inflated.

    Args:
        path: The file.
        view: The same, mapped.
        limits: The reader's budget.
        scratch: Takes the members that are compressed.

    Raises:
        UnsupportedError: A member is encrypted, an array of objects, or compressed in a way that NumPy does not know.
        DecodeError: The archive is damaged, or goes over the limits.
    """
    members, comment = _directory(path, view, limits)
    places = [_stored(info, view, limits) or _inflated(info, view, scratch) for info in members]
    inflated = scratch.view()
    segments = [(view if stored else inflated)[start:end] for stored, start, end in places]
    kinds = [_kind(info, segment) for info, segment in zip(members, segments, strict=True)]
    if odd := [number for number, segment in enumerate(segments) if _is_unicode(segment)]:
        for number in odd:
            places[number] = _without_descr(members[number], segments[number], kinds[number], scratch)
        inflated = scratch.view()
        segments = [(view if stored else inflated)[start:end] for stored, start, end in places]
    names = [info.filename.removesuffix(_SUFFIX) for info in members]
    frame = Frame.build({_SECTION: [names, kinds]}, segments, checksum="none")
    return FORMATS.get("numpy").decode(frame, limits), _metadata(comment), inflated


def _directory(path: Path, view: memoryview, limits: Limits) -> tuple[list[zipfile.ZipInfo], bytes]:
    """The members in order, once there are not too many of them and none covers another."""
    _check_directory(view, limits)
    try:
        with zipfile.ZipFile(path) as archive:
            members, comment = archive.infolist(), archive.comment
    except (zipfile.BadZipFile, struct.error, ValueError, EOFError, NotImplementedError) as error:
        raise DecodeError(f"damaged zip file: {error}", where="npz directory") from error
    if any(info.filename.endswith("/data.pkl") for info in members):
        raise UnsupportedError("a PyTorch checkpoint is a pickle, which can run code", hint="Save it as .safetensors.")
    if sum(info.file_size for info in members) > limits.max_raw:
        raise LimitError(f"arrays of more than the {limits.max_raw} bytes that are allowed", where="npz directory")
    end = 0
    for info in sorted(members, key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise DecodeError("members overlap", where=_where(info))
        end = info.header_offset + info.compress_size
    return members, comment


def _check_directory(view: memoryview, limits: Limits) -> None:
    """Check the size of the directory, of which the library makes an object a member."""
    tail = bytes(view[-_END.size - MAX_COMMENT - _LOCATOR - _END64.size :])
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < _END.size:
        raise DecodeError("the zip file has no directory: it is cut off", where="npz directory")
    entries, size, _, comment = _END.unpack_from(tail, at)[4:]
    if at + _END.size + comment != len(tail):
        raise DecodeError("the zip file does not end with its directory", where="npz directory")
    before = at - _LOCATOR - _END64.size
    if before >= 0 and tail[before : before + 4] == b"PK\6\6":
        entries, size = _END64.unpack_from(tail, before)[7:9]
    if entries > limits.max_tensors or size > _MAX_DIRECTORY:
        raise LimitError(f"a directory of {entries} members in {size} bytes", where="npz directory")


def _data(info: zipfile.ZipInfo, view: memoryview) -> int:
    """Where a member's bytes begin, once they are all there."""
    if info.flag_bits & _ENCRYPTED:
        raise UnsupportedError("it is encrypted", where=_where(info))
    if not info.filename.endswith(_SUFFIX):
        raise UnsupportedError("it is no .npy file", where=_where(info))
    at = info.header_offset
    if not 0 <= at <= view.nbytes - _LOCAL.size:
        raise DecodeError("it lies outside of the file", where=_where(info))
    magic, *_, name, extra = _LOCAL.unpack_from(view, at)
    start: int = at + _LOCAL.size + name + extra
    if magic != b"PK\3\4" or start + info.compress_size > view.nbytes:
        raise DecodeError("its header is damaged", where=_where(info))
    return start


def _stored(info: zipfile.ZipInfo, view: memoryview, limits: Limits) -> _Place | None:
    """Where a member that is stored as it is lies; None for one that is compressed."""
    start = _data(info, view)
    if info.compress_type == zipfile.ZIP_DEFLATED:
        if info.file_size > info.compress_size * limits.max_ratio:
            raise LimitError(f"{info.file_size} bytes out of {info.compress_size}", where=_where(info))
        return None
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        raise UnsupportedError(f"compression {info.compress_type} is not NumPy's", where=_where(info))
    if zlib.crc32(view[start : start + info.file_size]) != info.CRC:
        raise IntegrityError("its CRC does not match", where=_where(info))
    return True, start, start + info.file_size


def _inflated(info: zipfile.ZipInfo, view: memoryview, scratch: Scratch) -> _Place:
    """Inflate a member onto the disk; where it lies there."""
    start = _data(info, view)
    left = view[start : start + info.compress_size]
    coder = zlib.decompressobj(_INFLATE)
    begin, size, crc = scratch.append([], aligned=True), 0, 0
    try:
        pending: bytes | memoryview = b""
        while not coder.eof and size <= info.file_size:
            if not pending:
                pending, left = left[:BATCH], left[BATCH:]
            out = coder.decompress(pending, BATCH)
            pending = coder.unconsumed_tail
            if not out and not pending and not left and not coder.eof:
                break
            size, crc = size + len(out), zlib.crc32(out, crc)
            scratch.append([memoryview(out)])
    except zlib.error as error:
        raise DecodeError(f"damaged: {error}", where=_where(info)) from error
    if size != info.file_size or not coder.eof:
        raise DecodeError(f"it does not come to its {info.file_size} bytes", where=_where(info))
    if crc != info.CRC:
        raise IntegrityError("its CRC does not match", where=_where(info))
    return False, begin, begin + size


def _kind(info: zipfile.ZipInfo, segment: memoryview) -> str:
    """The name of the element type of a ``.npy`` file; the rest of its header is the format's affair."""
    found = _DESCR.match(segment[:_MAX_HEADER])
    if found is None:
        raise DecodeError("not a .npy file as NumPy writes it", where=_where(info))
    try:
        dtype = _dtype(found[1].decode("utf-8" if _is_unicode(segment) else "latin1"))
        if info.comment and dtype.kind == "V" and dtype.names is None:
            named = dtype_from_name(info.comment.decode("utf-8", "replace"))
            dtype = named if named.itemsize == dtype.itemsize else dtype
        return dtype_name(dtype)
    except UnicodeDecodeError as error:
        raise DecodeError("its header is no UTF-8", where=_where(info)) from error
    except FedpostError as error:
        raise UnsupportedError(error.what, where=_where(info), hint=error.hint) from error


def _is_unicode(segment: memoryview) -> bool:
    return bytes(segment[: len(_UNICODE)]) == _UNICODE


def _without_descr(info: zipfile.ZipInfo, segment: memoryview, kind: str, scratch: Scratch) -> _Place:
    """A member of version 3, whose fields have names beyond Latin-1, as one of bytes without meaning; where it lies.

    The format ``numpy`` knows versions 1 and 2; the element type stands in its table.
    """
    head = bytes(segment[:_MAX_HEADER])
    start = _DESCR.match(head)
    rest = None if start is None else _REST.match(head, start.end())
    if rest is None or rest.end() - _HEAD != int.from_bytes(head[_HEAD - 4 : _HEAD], "little"):
        raise DecodeError("not a .npy file as NumPy writes it", where=_where(info))
    shape = tuple(map(int, rest[2].replace(b",", b" ").split()))
    described = {"descr": f"|V{dtype_from_name(kind).itemsize}", "fortran_order": rest[1] == b"True", "shape": shape}
    new = io.BytesIO()
    np.lib.format.write_array_header_1_0(new, described)
    begin = scratch.append([new.getbuffer()], aligned=True)
    for at in range(rest.end(), segment.nbytes, BATCH):
        scratch.append([segment[at : at + BATCH]])
    return False, begin, begin + new.getbuffer().nbytes + segment.nbytes - rest.end()


def _dtype(descr: str) -> np.dtype[Any]:
    """The element type that a header names; a list of fields is parsed as literals, when it is a shallow one."""
    try:
        if simple := _SIMPLE.fullmatch(descr):
            if simple[1][1] == "O":
                raise UnsupportedError("an array of objects is a pickle, which can run code")
            return np.dtype(simple[1])
        depth = deepest = 0
        for character in descr:
            depth += (character in "[(") - (character in ")]")
            deepest = max(deepest, depth)
        if not _FIELDS.fullmatch(descr) or deepest > _MAX_NESTING or len(descr) > _MAX_HEADER:
            raise UnsupportedError(f"unknown element type {descr[:80]}")
        found: np.dtype[Any] = np.lib.format.descr_to_dtype(ast.literal_eval(descr))
    except (ValueError, TypeError, SyntaxError, LookupError, MemoryError, RecursionError) as error:
        if isinstance(error, FedpostError):
            raise
        raise UnsupportedError(f"unknown element type {descr[:80]}") from error
    return found


def _metadata(comment: bytes) -> dict[str, Any]:
    """The metadata in an archive's comment; any other comment is a person's and says nothing about the model."""
    try:
        found = strict_json(comment, "npz comment") if comment else {}
    except DecodeError:
        return {}
    inside = found.get(_METADATA) if isinstance(found, dict) else None
    return inside if isinstance(inside, dict) else {}


def _where(info: zipfile.ZipInfo) -> str:
    return f"member {info.filename[:200]!r}"


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def write_npz(
    path: Path,
    arrays: Mapping[str, Array],
    metadata: Mapping[str, object],
    compression: Compression | None,
    progress: Progress,
) -> None:
    """Write an archive to an existing, empty file, block by block.

    Args:
        path: The file.
        arrays: The arrays, C-contiguous.
        metadata: What JSON can carry, in at most :data:`MAX_COMMENT` bytes.
        compression: ``gzip`` stands for the zip file's deflate; None stores.
        progress: Told after each array.

    Raises:
        EncodeError: A name cannot be a member's.
        OSError: As the operating system says.
    """
    dtype_names(arrays)
    for name in arrays:
        if "\0" in name or len(name.encode()) > MAX_COMMENT - len(_SUFFIX):
            raise EncodeError("a zip file cannot have such a name", where=f"tensor {name[:200]!r}")
        if name.endswith(_SUFFIX) and name.removesuffix(_SUFFIX) in arrays:
            raise EncodeError("NumPy would take it for the one without .npy", where=f"tensor {name[:200]!r}")
    kind = zipfile.ZIP_STORED if compression is None else zipfile.ZIP_DEFLATED
    total, done = sum(array.nbytes for array in arrays.values()), 0
    level = None if compression is None else compression.level
    with zipfile.ZipFile(path, "w", kind, compresslevel=level) as archive:
        archive.comment = json.dumps({_METADATA: dict(metadata)}, ensure_ascii=False).encode() if metadata else b""
        for name, array in arrays.items():
            known = _named(array.dtype)
            with archive.open(name + _SUFFIX, "w", force_zip64=True) as member:
                for block in _blocks(array if known else array.view(f"V{array.dtype.itemsize}")):
                    member.write(block)
            if not known:
                archive.getinfo(name + _SUFFIX).comment = dtype_name(array.dtype).encode()
            done += array.nbytes
            progress("writing", done, total)


def unnamed(arrays: Mapping[str, Array]) -> list[str]:
    """The arrays whose element type NumPy reads as bytes without meaning."""
    return [name for name, array in arrays.items() if not _named(array.dtype)]


def _named(dtype: np.dtype[Any]) -> bool:
    try:
        descr = np.lib.format.dtype_to_descr(dtype)
        short = len(repr(descr).encode("latin1")) <= _MAX_DESCR
        return short and bool(np.lib.format.descr_to_dtype(descr) == dtype)
    except (ValueError, TypeError, IndexError):
        return False


def _blocks(array: Array) -> Iterator[bytes | memoryview]:
    """A ``.npy`` file, piece by piece."""
    head = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(array.dtype)
    np.lib.format.write_array_header_1_0(head, {"descr": descr, "fortran_order": False, "shape": array.shape})
    yield head.getvalue()
    data = array_bytes(array)
    yield from (data[start : start + BATCH] for start in range(0, data.nbytes, BATCH))
