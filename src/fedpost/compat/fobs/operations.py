"""Dumping and loading, under FOBS' names."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from fedpost.compat.fobs.carried import CarryingManager, DatumRow, ManagedLeaves
from fedpost.compat.fobs.context import FOBSContextKey
from fedpost.compat.fobs.datum import DatumManager
from fedpost.compat.fobs.errors import FobsConfigError, FobsDecodeError, FobsEncodeError, fobs_errors
from fedpost.compat.fobs.loops import loop_in
from fedpost.compat.fobs.registration import allowed_types, dot_handlers
from fedpost.errors import EncodeError, LimitError
from fedpost.files import replace_file
from fedpost.frame import DEFAULT_LIMITS, Frame, Limits
from fedpost.objects import from_frame, to_frame

__all__ = [
    "deserialize",
    "deserialize_stream",
    "dump",
    "dump_to_bytes",
    "dump_to_file",
    "dump_to_stream",
    "dumpf",
    "dumps",
    "load",
    "load_from_bytes",
    "load_from_file",
    "load_from_stream",
    "loadf",
    "loads",
    "serialize",
    "serialize_stream",
]

_SECTION: Final = "fobs"
_STEP: Final = 1 << 24
_TOO_DEEP: Final = "nested more than"

Data = bytes | bytearray | memoryview | list[Any]

# ── whole objects: datums travel with them ───────────────────────────────────────────────────────────────────────────


def dumps(
    obj: Any, buffer_list: bool = False, max_value_size: int | None = None, fobs_ctx: dict[str, Any] | None = None
) -> Any:
    """An object as bytes.

    Args:
        obj: The object.
        buffer_list: Whether to return a list of buffers, which share memory with the object's arrays, and not bytes.
        max_value_size: The threshold of the manager that decomposers get: 1024 or more; 10 MiB without it.
        fobs_ctx: What to tell decomposers.

    Raises:
        FobsEncodeError: Part of it cannot be serialized: a TypeError, and a RuntimeError.
        FobsConfigError: ``max_value_size`` is none.
    """
    frame = _dumped(obj, max_value_size, fobs_ctx)
    return list(frame.buffers()) if buffer_list else bytes(frame)


def loads(data: Data, fobs_ctx: dict[str, Any] | None = None) -> Any:
    """The object that :func:`dumps` made bytes of. Its arrays can be written to.

    Args:
        data: The bytes, or a list of buffers that are the bytes together, cut anywhere.
        fobs_ctx: What to tell decomposers, and how much to read at most.

    Raises:
        FobsDecodeError: It is no object, or has a type that is not allowed here: a ValueError, and a RuntimeError.
    """
    with fobs_errors():
        return _loaded(Frame.decode(_joined(data), limits=_limits(fobs_ctx)), fobs_ctx)


def dump(obj: Any, stream: BinaryIO, max_value_size: int | None = None, fobs_ctx: dict[str, Any] | None = None) -> None:
    """Write an object to a stream; the arguments and errors are those of :func:`dumps`.

    Raises:
        OSError: The stream takes no more.
    """
    _write(stream, _dumped(obj, max_value_size, fobs_ctx).buffers())


def load(stream: BinaryIO, fobs_ctx: dict[str, Any] | None = None) -> Any:
    """Read an object from a stream, which is read to its end.

    Raises:
        FobsDecodeError: As :func:`loads`.
    """
    return loads(_read(stream, _limits(fobs_ctx)), fobs_ctx)


def dumpf(obj: Any, file_path: str, max_value_size: int | None = None, fobs_ctx: dict[str, Any] | None = None) -> None:
    """Write an object to a file, which replaces one of that name in one step; otherwise as :func:`dumps`."""
    replace_file(Path(file_path), _dumped(obj, max_value_size, fobs_ctx).buffers())


def loadf(file_path: str, fobs_ctx: dict[str, Any] | None = None) -> Any:
    """Read an object from a file.

    Raises:
        FobsDecodeError: As :func:`loads`.
        OSError: It cannot be read.
    """
    with fobs_errors():
        return _loaded(Frame.open(Path(os.fspath(file_path)), limits=_limits(fobs_ctx)), fobs_ctx)


dump_to_bytes = dumps
dump_to_file = dumpf
dump_to_stream = dump
load_from_bytes = loads
load_from_file = loadf
load_from_stream = load

# ── bodies: a manager keeps the datums ───────────────────────────────────────────────────────────────────────────────


def serialize(obj: Any, manager: DatumManager | None = None, **kwargs: Any) -> bytes:  # noqa: ARG001 - FOBS' own
    """An object as bytes, and what is over the manager's threshold as datums in it, for the caller to carry.

    Args:
        obj: The object.
        manager: Without one nothing is kept beside, as in :func:`dumps`.
        kwargs: Ignored: FOBS passes them to msgpack.

    Raises:
        FobsEncodeError: As :func:`dumps`.
    """
    return bytes(_dumped(obj, None, None) if manager is None else _written(obj, manager, ManagedLeaves(manager)))


def serialize_stream(obj: Any, stream: BinaryIO, manager: DatumManager | None = None, **kwargs: Any) -> None:
    """Write what :func:`serialize` makes to a stream."""
    _write(stream, [memoryview(serialize(obj, manager, **kwargs))])


def deserialize(data: Data, manager: DatumManager | None = None, **kwargs: Any) -> Any:  # noqa: ARG001 - FOBS' own
    """The object that :func:`serialize` made bytes of.

    Args:
        data: The bytes.
        manager: One with the sender's datums, if it had a manager.
        kwargs: Ignored: FOBS passes them to msgpack.

    Raises:
        FobsDecodeError: As :func:`loads`, and where a datum is missing or is another.
    """
    if manager is None:
        return loads(data)
    with fobs_errors():
        limits = _limits(manager.get_fobs_context())
        return _read_frame(Frame.decode(_joined(data), limits=limits), limits, manager, ManagedLeaves(manager))


def deserialize_stream(stream: BinaryIO, manager: DatumManager | None = None, **kwargs: Any) -> Any:
    """Read what :func:`serialize_stream` wrote; the stream is read to its end."""
    limits = _limits(None if manager is None else manager.get_fobs_context())
    return deserialize(_read(stream, limits), manager, **kwargs)


# ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _dumped(obj: Any, threshold: int | None, fobs_ctx: dict[str, Any] | None) -> Frame:
    manager = CarryingManager(threshold, fobs_ctx)
    frame = _written(obj, manager, None)
    with fobs_errors():
        rows = manager.left_over()
        return frame.with_sections({_SECTION: rows}) if rows else frame


def _written(obj: Any, manager: DatumManager, leaves: ManagedLeaves | None) -> Frame:
    types = allowed_types()
    try:
        with fobs_errors():
            frame = to_frame(obj, registry=types, manager=manager, external=leaves)
    except EncodeError as error:
        loop = loop_in(obj, types) if error.what.startswith(_TOO_DEEP) else None
        if loop is None:
            raise
        raise FobsEncodeError(
            f"decomposers form a loop: {loop}", where=error.where, hint="Have one of them return values of other types."
        ) from error
    finally:
        manager.post_process()  # also after a failure: decomposers may have to clean up
    if error_text := manager.get_error():
        raise FobsEncodeError(error_text)
    return frame


def _loaded(frame: Frame, fobs_ctx: dict[str, Any] | None) -> Any:
    limits = _limits(fobs_ctx)
    manager = CarryingManager(fobs_ctx=fobs_ctx)
    manager.handlers = dot_handlers()
    try:
        if _SECTION in frame.section_names:
            for row in frame.section(_SECTION, list[DatumRow], limit=limits.max_section):
                manager.unpack_row(row)
        return _read_frame(frame, limits, manager, None)
    except BaseException:
        manager.discard_files()
        raise


def _read_frame(frame: Frame, limits: Limits, manager: DatumManager, leaves: ManagedLeaves | None) -> Any:
    obj = from_frame(frame, registry=allowed_types(), limits=limits, copy=True, manager=manager, external=leaves)
    manager.post_process()
    if error_text := manager.get_error():
        raise FobsDecodeError(error_text)
    return obj


def _limits(fobs_ctx: dict[str, Any] | None) -> Limits:
    limits = (fobs_ctx or {}).get(FOBSContextKey.LIMITS, DEFAULT_LIMITS)
    if not isinstance(limits, Limits):
        raise FobsConfigError(f"{FOBSContextKey.LIMITS} of the context is {limits!r}, not Limits")
    return limits


def _joined(data: Data) -> bytes | bytearray | memoryview:
    if not isinstance(data, list):
        if not isinstance(data, bytes | bytearray | memoryview):
            raise FobsConfigError(f"bytes or a list of buffers were expected, not {type(data).__name__}")
        return data
    buffers: Iterable[Any] = data
    return data[0] if len(data) == 1 else b"".join(buffers)


def _write(stream: BinaryIO, buffers: Iterable[memoryview]) -> None:
    """Write buffers whole, also to a stream that takes as much as it likes, as unbuffered files and pipes do."""
    for buffer in buffers:
        rest = buffer.cast("B")
        while rest.nbytes:
            # A raw stream's None is "nothing now"; that of any other is of one that does not count.
            count: int | None = cast("Any", stream).write(rest)
            if count is None and not isinstance(stream, io.RawIOBase):
                break
            if not count:
                raise BlockingIOError(errno.EAGAIN, "the stream takes no more", 0)
            rest = rest[count:]


def _read(stream: BinaryIO, limits: Limits) -> bytes:
    """A stream to its end, in steps: it may be one that sets aside what it is asked for."""
    parts, size = [], 0
    while part := stream.read(_STEP):
        size += len(part)
        if size > limits.max_frame:
            with fobs_errors():
                raise LimitError(f"a stream of more than {limits.max_frame} bytes")
        parts.append(part)
    return b"".join(parts)
