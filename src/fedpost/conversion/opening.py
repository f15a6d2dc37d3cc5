"""Files of tensors of every kind, told apart by their content and opened without reading the tensors.

Rules: a suffix says nothing here; what has no mark of its own must be named by the user. A file is mapped: tensors that
are stored as they are are views of it, others are read in blocks. Every error names the file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from fedpost.conversion.disk import BATCH, Scratch, map_file
from fedpost.conversion.npz import read_npz
from fedpost.errors import ConfigError, DecodeError, LimitError, RemoteError, UnsupportedError
from fedpost.frame import DEFAULT_LIMITS, Frame, Limits
from fedpost.pipeline import METADATA, decode_tensors, pipeline_of
from fedpost.tensors import FORMATS, Array, MemoryTensors, TensorSource, TensorSpec
from fedpost.tensors import fedwt1 as _fedwt1
from fedpost.tensors import json_base64 as _json_base64
from fedpost.tensors import msgpack as _msgpack
from fedpost.tensors import protobuf as _protobuf
from fedpost.tensors import safetensors as _safetensors

__all__ = ["KINDS", "MAX_WHOLE", "WHOLE", "ModelFile", "kind_of", "local_limits", "named", "open_model", "read_blocks"]

KINDS: Final = ("frame", "safetensors", "fedwt1", "npz", "msgpack", "json_base64", "protobuf")
"""Kinds of files that can be read: a frame of any format, and the bare files of the formats made elsewhere."""
WHOLE: Final = frozenset({"msgpack", "json_base64", "protobuf"})
"""Formats that cannot be read or written in pieces."""
MAX_WHOLE: Final = 1 << 31
"""Bytes of a file of such a format."""

_MAX_HEADER: Final = 100_000_000  # what safetensors allows
_RAW_RATIO: Final = 16
_PARTS: Final = 8
_MSGPACK: Final = 0x86
_MARK: Final = 16
_STRANGERS: Final = {
    b"\x80\x02": "a Python pickle, which can run code",
    b"\x80\x03": "a Python pickle, which can run code",
    b"\x80\x04": "a Python pickle, which can run code",
    b"\x80\x05": "a Python pickle, which can run code",
    b"\x93NUMPY": "a single .npy array, which has no name; np.savez makes an .npz of it",
    b"\x89HDF": "an HDF5 file",
    b"GGUF": "a GGUF file",
    b"ARROW1": "an Arrow file",
    b"\x1f\x8b": "gzipped; gunzip it first",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; unpack it first",
}
_KNOWN: Final = f"Known kinds: {', '.join(KINDS)}; protobuf has no mark, so name it with --from protobuf."


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file of tensors, open.

    Attributes:
        path: The file.
        kind: One of :data:`KINDS`.
        encoding: How its tensors are encoded: the pipeline of a frame, the format of any other file.
        nbytes: Its size.
        source: Its tensors.
        metadata: What its writer said of them.
        beside: What else a frame holds, by section name.
        memory: What the file and its inflated parts occupy as address space; tensors there cost no memory of their own.
        resident: All tensors are in memory already.
    """

    path: Path
    kind: str
    encoding: str
    nbytes: int
    source: TensorSource
    metadata: dict[str, Any]
    beside: tuple[str, ...] = ()
    memory: tuple[memoryview, ...] = ()
    resident: bool = False

    def mapped(self, array: Array) -> bool:
        """Whether an array that was read is a view of what is mapped, or of what is in memory anyway."""
        return self.resident or any(
            np.may_share_memory(array, np.frombuffer(view, np.uint8)) for view in self.memory if view.nbytes
        )


def open_model(
    path: Path, *, kind: str | None = None, limits: Limits | None = None, scratch: Scratch | None = None
) -> ModelFile:
    """Open a file of tensors.

    Args:
        path: The file.
        kind: One of :data:`KINDS`; without it the content tells.
        limits: The reader's budget; without it what :func:`local_limits` says.
        scratch: Takes what must be inflated whole: the members of a compressed ``.npz``. Without it they go to a
            file without a name in the folder for temporary files (``TMPDIR``).

    Raises:
        ConfigError: No such kind.
        MissingExtraError: The kind needs an extra that is not installed.
        DecodeError: The file is of no known kind, or damaged, or goes over the limits; it names the file.
        OSError: The file cannot be opened, or there is no room for what must be inflated.
    """
    if kind is not None and kind not in KINDS:
        raise ConfigError(f"unknown kind {kind!r}", hint=f"Known: {', '.join(KINDS)}.")
    with named(path):
        view = map_file(path)
        head = bytes(view[:_MARK])
        kind = kind or _kind_of(head)
        if kind is None:
            raise _unknown(head)
        limits = limits or local_limits(view.nbytes)
        if kind == "npz":
            source, metadata, inflated = read_npz(path, view, limits, scratch or Scratch())
            return ModelFile(path, kind, kind, view.nbytes, source, metadata, memory=(view, inflated))
        if kind == "frame":
            return _open_frame(path, view, limits)
        if kind == "fedwt1":
            header = _fedwt1.inspect_header(view, limits=limits)
            whole = Frame.build({_fedwt1.SECTION: len(header.specs)}, [view] if header.specs else [], checksum="none")
            placed = FORMATS.get(kind).decode(whole, limits) if header.specs else _nothing(_fedwt1.from_bytes, view)
            return ModelFile(path, kind, kind, view.nbytes, placed, header.metadata, memory=(view,))
        if kind in WHOLE:
            _check_whole(view.nbytes, kind)
        arrays, noted = _READERS[kind](view, limits=limits)
        in_memory = kind in {"json_base64", "protobuf"}
        return ModelFile(
            path, kind, kind, view.nbytes, MemoryTensors(arrays), noted, memory=(view,), resident=in_memory
        )


def kind_of(path: Path) -> str | None:
    """The kind of a file as its content tells it, or None.

    Raises:
        DecodeError: It is no regular file, or empty; it names the file.
        OSError: It cannot be opened.
    """
    with named(path):
        return _kind_of(bytes(map_file(path)[:_MARK]))


def local_limits(nbytes: int) -> Limits:
    """The budget for a file of the user's own of that size: it may be large, but not swell without bound."""
    room = max(DEFAULT_LIMITS.max_raw, _RAW_RATIO * nbytes)
    return replace(
        DEFAULT_LIMITS,
        max_frame=max(DEFAULT_LIMITS.max_frame, nbytes),
        max_raw=room,
        free_raw=room,
        max_header=_MAX_HEADER,
        max_section=_MAX_HEADER,
    )


def read_blocks(source: TensorSource, spec: TensorSpec) -> Iterator[Array]:
    """A tensor in C order, in flat arrays of 16 MiB or an eighth of it, whichever is more.

    The eighth is for tensors that are in Fortran order or sparse: each read goes through the whole of them.

    Raises:
        DecodeError: As the source says.
    """
    step = max(BATCH // max(spec.dtype.itemsize, 1), math.ceil(spec.size / _PARTS), 1)
    for start in range(0, spec.size, step):
        yield source.read(spec.name, start, min(start + step, spec.size))


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Let every error about what is in a file name the file.

    Raises:
        RemoteError: What was raised, with the path before the place.
    """
    try:
        yield
    except RemoteError as error:
        if (error.where or "").startswith(str(path)):
            raise
        where = f"{path}: {error.where}" if error.where else str(path)
        raise type(error)(error.what, where=where, hint=error.hint) from error


_READERS: Final[dict[str, Callable[..., tuple[dict[str, Array], dict[str, Any]]]]] = {
    "safetensors": _safetensors.from_bytes,
    "msgpack": _msgpack.from_bytes,
    "json_base64": _json_base64.from_bytes,
    "protobuf": _protobuf.from_bytes,
}


def _open_frame(path: Path, view: memoryview, limits: Limits) -> ModelFile:
    frame = Frame.decode(view, limits=limits, verify="lazy")
    if "pipeline" not in frame.section_names:
        raise DecodeError("a frame without tensors", hint="fedpost inspect shows what it holds.")
    pipeline = pipeline_of(frame)
    raw = sum(frame.raw_size(index) for index in range(len(frame)))
    if pipeline.format.name in WHOLE:
        _check_whole(raw, pipeline.format.name)
    metadata: dict[str, Any] = {}
    if METADATA in frame.section_names:
        metadata = frame.section(METADATA, dict[str, Any], limit=limits.max_section)
    own = {"pipeline", "update", METADATA}
    return ModelFile(
        path,
        "frame",
        str(pipeline),
        view.nbytes,
        decode_tensors(frame, limits=limits),
        metadata,
        beside=tuple(name for name in frame.section_names if name not in own and not name.startswith("tensors")),
        memory=(view,),
        resident=pipeline.format.name in WHOLE and str(pipeline.update) == "dense",
    )


def _nothing(read: Callable[..., tuple[dict[str, Array], Any]], view: memoryview) -> TensorSource:
    """A file of no tensors, read to its end."""
    return MemoryTensors(read(view)[0])


def _kind_of(head: bytes) -> str | None:
    """The kind of a file by its first bytes."""
    length = int.from_bytes(head[:8], "little")
    if head.startswith(b"\x89FPF"):
        return "frame"
    if head.startswith(b"FEDWT001"):
        return "fedwt1"
    if head.startswith((b"PK\3\4", b"PK\5\6")):
        return "npz"
    if head[8:9] == b"{" and length <= _MAX_HEADER:
        return "safetensors"
    if head[:1] == b"{":
        return "json_base64"
    return "msgpack" if head[:1] == bytes([_MSGPACK]) else None


def _unknown(head: bytes) -> UnsupportedError:
    """What to say of a file of no known kind."""
    stranger = next((what for mark, what in _STRANGERS.items() if head.startswith(mark)), None)
    what = f"it is {stranger}" if stranger else f"none begins with {head[:8]!r}"
    return UnsupportedError(f"not a file of tensors that is known here: {what}", hint=_KNOWN)


def _check_whole(nbytes: int, kind: str) -> None:
    if nbytes > MAX_WHOLE:
        raise LimitError(f"{kind} is read whole, and {nbytes} bytes are more than the {MAX_WHOLE} allowed")
