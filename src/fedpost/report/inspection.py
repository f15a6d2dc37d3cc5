"""What a frame holds: for ``fedpost inspect``.

Rules: it is told from the header alone; only the tree of a large object stands in a segment, whose digest is checked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from fedpost.conversion import kind_of
from fedpost.errors import RemoteError
from fedpost.frame import Frame, Limits
from fedpost.objects.outline import Node, outline, type_names
from fedpost.objects.wire import SECTION
from fedpost.pipeline import METADATA, tensor_sizes, tensor_specs

__all__ = ["FrameDescription", "TensorDescription", "describe"]


class TensorDescription(msgspec.Struct, frozen=True):
    """One tensor.

    Attributes:
        name: Its name.
        dtype: Its element type.
        shape: Length of each dimension.
        raw: Bytes as an array.
        stored: Bytes in the file.
    """

    name: str
    dtype: str
    shape: list[int]
    raw: int
    stored: int


class FrameDescription(msgspec.Struct, frozen=True):
    """A frame.

    Attributes:
        path: The file.
        bytes: Its size.
        digest: Of the header, which covers all other digests; hexadecimal.
        checksum: Digest algorithm of the segments.
        pipeline: How the tensors were encoded, or None without tensors.
        segments: Number of segments.
        raw: Bytes of all tensors as arrays.
        stored: Bytes of all tensors in the file.
        tensors: The tensors, in order.
        metadata: What the writer said of them.
        message: Envelope and body, when the frame is a message.
        object: The tree of the object, when the frame holds one.
        types: The registered types that the object uses, with their versions.
        verified: True after every digest was checked, None when that was not asked for.
    """

    path: str
    bytes: int
    digest: str
    checksum: str
    pipeline: str | None
    segments: int
    raw: int
    stored: int
    tensors: list[TensorDescription]
    metadata: dict[str, Any]
    message: dict[str, Any] | None
    object: Node | None
    types: list[str]
    verified: bool | None


def describe(path: Path, *, verify: bool, limits: Limits, depth: int | None = None) -> FrameDescription:
    """Read a frame's header, and with ``verify`` check every digest.

    Args:
        path: The file.
        verify: Whether to check every digest.
        limits: The budget.
        depth: How many levels of an object to tell; None for all, to a limit.

    Raises:
        DecodeError: The file is no frame, or it is damaged; it says where.
        OSError: The file cannot be opened.
    """
    try:
        frame = Frame.open(path, limits=limits, verify="eager" if verify else "never")
        if SECTION in frame.section_names and not verify:
            frame = Frame.open(path, limits=limits, verify="lazy")  # the tree may stand in a segment
        return _describe(path, frame, limits, verify=verify, depth=depth)
    except RemoteError as error:
        inside = error.where if error.where != str(path) else None
        where = f"{path}: {inside}" if inside else str(path)
        raise type(error)(
            error.what, where=where, hint=error.hint or (_hint(path) if error.where == "prologue" else None)
        ) from error


def _hint(path: Path) -> str | None:
    """What to do with a file of another kind."""
    kind = kind_of(path)
    if kind in (None, "frame"):
        return None
    return f"It is a {kind} file: fedpost convert writes a frame of it, fedpost diff compares it."


def _describe(path: Path, frame: Frame, limits: Limits, *, verify: bool, depth: int | None) -> FrameDescription:
    sections = frame.section_names
    tensors: list[TensorDescription] = []
    if "pipeline" in sections:
        sizes = tensor_sizes(frame, limits=limits)
        tensors = [
            TensorDescription(spec.name, str(spec.dtype), list(spec.shape), *sizes[spec.name])
            for spec in tensor_specs(frame, limits=limits)
        ]
    message = None
    if "envelope" in sections:
        message = {name: frame.section(name, dict[str, Any], limit=limits.max_section) for name in ("envelope", "body")}
    return FrameDescription(
        path=str(path),
        bytes=frame.nbytes,
        digest=frame.digest.hex(),
        checksum=frame.checksum,
        pipeline=frame.section("pipeline", str) if "pipeline" in sections else None,
        segments=len(frame),
        raw=sum(tensor.raw for tensor in tensors),
        stored=sum(tensor.stored for tensor in tensors),
        tensors=tensors,
        metadata=frame.section(METADATA, dict[str, Any], limit=limits.max_section) if METADATA in sections else {},
        message=message,
        object=outline(frame, depth=depth, limits=limits) if SECTION in sections else None,
        types=type_names(frame, limits=limits) if SECTION in sections else [],
        verified=True if verify else None,
    )
