"""Python objects to bytes and back: a safe pickle.

Rules: what comes back is equal and of the same type; a reader builds only what is registered, and nothing is imported
or called by a name from the wire. Arrays and other large leaves become segments of the frame, so they are not copied.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from fedpost.checksums import DEFAULT_CHECKSUM
from fedpost.compression import Compression
from fedpost.files import replace_file
from fedpost.frame import DEFAULT_LIMITS, Frame, Limits, Verify
from fedpost.objects.decode import ObjectReader
from fedpost.objects.encode import ObjectWriter
from fedpost.objects.external import BlobLeaves, External, LazyLeaf
from fedpost.objects.registering import REGISTRY, new_registry, register, register_deserializer, register_serializer
from fedpost.objects.small import small_frame, small_tree
from fedpost.objects.trees import tree_of
from fedpost.objects.types import Decomposer, Serializer, TypeRegistry
from fedpost.objects.wire import IN_HEADER, SECTION

__all__ = [
    "REGISTRY",
    "BlobLeaves",
    "Decomposer",
    "External",
    "LazyLeaf",
    "Serializer",
    "TypeRegistry",
    "dump",
    "dumps",
    "from_frame",
    "load",
    "loads",
    "new_registry",
    "register",
    "register_deserializer",
    "register_serializer",
    "to_frame",
]

# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def to_frame(
    value: Any,
    *,
    registry: TypeRegistry = REGISTRY,
    checksum: str = DEFAULT_CHECKSUM,
    compression: str | None = None,
    sections: Mapping[str, object] | None = None,
    external: External | None = None,
    manager: Any = None,
) -> Frame:
    """An object as a frame. Arrays and large bytes are referenced, not copied: do not change them while it lives.

    Args:
        value: The object.
        registry: Which types may be written.
        checksum: The digest algorithm's registered name.
        compression: What to compress the large leaves with, such as ``"zstd(3)"``.
        sections: Further header sections.
        external: Where leaves go that are too large for the frame; see :class:`BlobLeaves`.
        manager: Handed to decomposers.

    Raises:
        EncodeError: Part of it has no registered type, or a cycle; the error says where.
    """
    writer = ObjectWriter(registry, manager=manager, external=external)
    return _frame_of(writer.write(value), writer.segments, checksum, compression, sections)


def _frame_of(
    tree: bytes,
    segments: list[memoryview],
    checksum: str,
    compression: str | None,
    sections: Mapping[str, object] | None,
) -> Frame:
    inline = len(tree) < IN_HEADER
    own: dict[str, object] = {SECTION: msgspec.Raw(tree) if inline else None}
    if not inline:
        segments = [memoryview(tree), *segments]
    coder = None if compression is None else Compression.parse(compression)
    return Frame.build(own if sections is None else {**own, **sections}, segments, checksum=checksum, compression=coder)


def dumps(
    value: Any,
    *,
    registry: TypeRegistry = REGISTRY,
    checksum: str = DEFAULT_CHECKSUM,
    compression: str | None = None,
    external: External | None = None,
    manager: Any = None,
) -> bytes:
    """An object as bytes; :func:`to_frame` says what the arguments are, and avoids the one copy that is made here."""
    writer = ObjectWriter(registry, manager=manager, external=external)
    tree = writer.write(value)
    if compression is None and len(tree) < IN_HEADER and not writer.segments:
        return small_frame(tree, checksum)
    return bytes(_frame_of(tree, writer.segments, checksum, compression, None))


def dump(
    value: Any,
    file: BinaryIO | str | os.PathLike[str],
    *,
    registry: TypeRegistry = REGISTRY,
    checksum: str = DEFAULT_CHECKSUM,
    compression: str | None = None,
    external: External | None = None,
    manager: Any = None,
) -> int:
    """Write an object to an open binary file, or to a path, where it replaces a file in one step; return its size.

    Raises:
        EncodeError: As :func:`to_frame`; then nothing was written.
        OSError: The file cannot be written.
    """
    frame = to_frame(
        value,
        registry=registry,
        checksum=checksum,
        compression=compression,
        external=external,
        manager=manager,
    )
    if isinstance(file, str | os.PathLike):
        return replace_file(Path(file), frame.buffers())
    for buffer in frame.buffers():
        _write(file, buffer)
    return frame.nbytes


def _write(file: Any, data: Any) -> None:
    """All of some bytes: a file without a buffer may take a part of them at a time."""
    view = memoryview(data).cast("B")
    while view.nbytes:
        done: Any = file.write(view)
        if done is None and not isinstance(file, io.RawIOBase):  # a writer that does not count took all
            return
        if not done:
            raise BlockingIOError(errno.EAGAIN, "the file takes no more bytes")
        view = view[done:]


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def from_frame(
    frame: Frame,
    *,
    registry: TypeRegistry = REGISTRY,
    limits: Limits = DEFAULT_LIMITS,
    copy: bool = False,
    external: External | None = None,
    manager: Any = None,
) -> Any:
    """The object in a frame.

    Args:
        frame: Its arrays are views of the frame's memory.
        registry: Which types may be built.
        limits: The budget.
        copy: Whether arrays are copied, so that they can be written to.
        external: Where leaves are that were too large for the frame.
        manager: Handed to decomposers.

    Raises:
        UnsupportedError: It uses a type that is not registered, or a later version of one.
        DecodeError: It is no object, or an impossible one.
    """
    tree, leaves = tree_of(frame, limits)
    return ObjectReader(frame, tree, leaves, registry, limits, copy, external, manager).read()


def loads(
    data: bytes | bytearray | memoryview,
    *,
    registry: TypeRegistry = REGISTRY,
    limits: Limits = DEFAULT_LIMITS,
    verify: Verify = "eager",
    copy: bool = False,
    external: External | None = None,
    manager: Any = None,
) -> Any:
    """The object that :func:`dumps` made bytes of. Arrays are read-only views of ``data`` unless ``copy`` is true.

    Raises:
        DecodeError: As :func:`from_frame` and :meth:`fedpost.frame.Frame.decode`.
    """
    tree = small_tree(data, limits) if type(data) is bytes else None
    if tree is not None:
        return ObjectReader(None, tree, 0, registry, limits, copy, external, manager).read()
    frame = Frame.decode(data, limits=limits, verify=verify)
    return from_frame(frame, registry=registry, limits=limits, copy=copy, external=external, manager=manager)


def load(
    file: BinaryIO | str | os.PathLike[str],
    *,
    registry: TypeRegistry = REGISTRY,
    limits: Limits = DEFAULT_LIMITS,
    verify: Verify = "eager",
    copy: bool = False,
    external: External | None = None,
    manager: Any = None,
) -> Any:
    """Read an object from an open binary file, which is read to its end, or from a path, which is mapped.

    Raises:
        DecodeError: As :func:`loads`.
        OSError: The file cannot be read.
    """
    if isinstance(file, str | os.PathLike):
        frame = Frame.open(Path(file), limits=limits, verify=verify)
    else:
        frame = Frame.decode(_read(file, limits.max_frame + 1), limits=limits, verify=verify)
    return from_frame(frame, registry=registry, limits=limits, copy=copy, external=external, manager=manager)


def _read(file: BinaryIO, most: int) -> bytearray:
    """A file to its end; in pieces, as a file may set aside at once whatever it is asked for."""
    out = bytearray()
    while len(out) < most and (data := file.read(min(_PIECE, most - len(out)))):
        out += data
    return out


_PIECE: Final = 1 << 24
