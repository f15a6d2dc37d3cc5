"""One conversion, from a file to a file.

Rules: tensors are mapped or go through blocks, and what must be kept goes to a file without a name, so memory is that
of one tensor or 16 MiB, whichever is more, whatever the model; the result appears whole or not at all, and only once
it was compared, if that was asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from fedpost.conversion.disk import Progress, Scratch, check_free, unfinished, write_views
from fedpost.conversion.npz import unnamed, write_npz
from fedpost.conversion.opening import WHOLE, ModelFile, named, open_model, read_blocks
from fedpost.conversion.streamed import encode_frame
from fedpost.conversion.target import Target
from fedpost.errors import EncodeError, LocalError, RemoteError
from fedpost.frame import Limits
from fedpost.tensors import Array, MemoryTensors, TensorSource, TensorSpec
from fedpost.tensors import fedwt1 as _fedwt1
from fedpost.tensors import json_base64 as _json_base64
from fedpost.tensors import msgpack as _msgpack
from fedpost.tensors import protobuf as _protobuf
from fedpost.tensors import safetensors as _safetensors
from fedpost.tensors.foreign import array_bytes

__all__ = ["MAX_WHOLE_TENSORS", "Conversion", "FileFacts", "convert"]

MAX_WHOLE_TENSORS: Final = 1 << 30
"""Bytes of tensors that are written in a format which cannot be written in pieces."""

_WRITERS: Final[dict[str, Callable[..., list[memoryview]]]] = {
    "safetensors": _safetensors.to_bytes,
    "fedwt1": _fedwt1.to_bytes,
    "msgpack": _msgpack.to_bytes,
    "json_base64": _json_base64.to_bytes,
    "protobuf": _protobuf.to_bytes,
}


class FileFacts(msgspec.Struct, frozen=True):
    """One side of a conversion.

    Attributes:
        path: The file.
        kind: Such as ``"frame"`` or ``"npz"``.
        encoding: The pipeline of a frame, the format of any other file.
        bytes: Its size.
    """

    path: str
    kind: str
    encoding: str
    bytes: int


class Conversion(msgspec.Struct, frozen=True):
    """What a conversion did.

    Attributes:
        source: What was read.
        target: What was written.
        tensors: Number of tensors.
        raw: Bytes of them as arrays.
        ratio: ``raw`` over the size of the result.
        seconds: How long it took.
        mb_per_second: ``raw`` in MB over that time.
        checked: Whether the result was read back and compared.
        notes: What the result does not carry, or carries in another way, in words.
    """

    source: FileFacts
    target: FileFacts
    tensors: int
    raw: int
    ratio: float
    seconds: float
    mb_per_second: float
    checked: bool
    notes: list[str]


def convert(
    source: Path,
    destination: Path,
    target: Target,
    *,
    kind: str | None = None,
    limits: Limits | None = None,
    force: bool = False,
    check: bool = False,
    progress: Progress | None = None,
) -> Conversion:
    """Write the tensors and the metadata of one file to another.

    Args:
        source: The file to read.
        destination: The file to write; it may be the same one.
        target: What to write.
        kind: What ``source`` is, where its content does not tell.
        limits: The reader's budget.
        force: Replace ``destination``.
        check: Read the result back and compare every tensor, bit for bit, before it takes its name.
        progress: Told how far it is.

    Raises:
        ConfigError: ``destination`` is there and ``force`` is not given, or it has no folder.
        DecodeError: ``source`` is no file of tensors, or damaged; it names the file.
        EncodeError: The target cannot carry a tensor; it names the tensor.
        LocalError: The check failed.
        OSError: As the operating system says; nothing unfinished stays behind.
    """
    start = time.perf_counter()
    progress = progress or _silent
    check_free(destination, replace=force)
    folder = destination.resolve().parent
    with named(source):
        model = open_model(source, kind=kind, limits=limits, scratch=Scratch(folder))
        raw = sum(spec.nbytes for spec in model.source.specs)
        if target.format in WHOLE and raw > MAX_WHOLE_TENSORS:
            raise EncodeError(
                f"{target.format} is written whole, and {raw} bytes are more than the {MAX_WHOLE_TENSORS} allowed",
                hint="fedwt, fedwt1, safetensors and numpy have no such limit.",
            )
        arrays = _mapped(model, Scratch(folder), progress)
    metadata, notes = target.fit(model.metadata)
    notes = [*(f"the section {name!r} is lost: it is no tensor" for name in model.beside), *notes]
    if target.kind == "npz" and (odd := unnamed(arrays)):
        notes.append(f"NumPy has no name for the element type of {_few(odd)}, and reads bytes without meaning")
    with unfinished(destination, replace=force) as temporary:
        _write(temporary, arrays, metadata, target, Scratch(folder), progress)
        if check:
            try:
                _check(temporary, arrays, target, progress)
            except RemoteError as error:  # it names a file that has no name yet
                where = (error.where or "").replace(str(temporary), str(destination), 1)
                raise type(error)(error.what, where=where, hint=error.hint) from error
        written = temporary.stat().st_size
    seconds = time.perf_counter() - start
    return Conversion(
        FileFacts(str(source), model.kind, model.encoding, model.nbytes),
        FileFacts(str(destination), target.kind, str(target), written),
        tensors=len(arrays),
        raw=raw,
        ratio=raw / written,
        seconds=seconds,
        mb_per_second=raw / 1e6 / seconds,
        checked=check,
        notes=notes,
    )


def _mapped(model: ModelFile, scratch: Scratch, progress: Progress) -> dict[str, Array]:
    """Every tensor as a C-contiguous view of a mapped file: the model's own, or what is put on the disk here."""
    arrays: dict[str, Array] = {}
    begins: dict[str, int] = {}
    specs = model.source.specs
    total, done = sum(spec.nbytes for spec in specs), 0
    for spec in specs:
        blocks = read_blocks(model.source, spec)
        first = next(blocks, None)
        if first is None or not spec.nbytes:
            arrays[spec.name] = np.empty(spec.shape, spec.dtype)
        elif model.mapped(first):
            arrays[spec.name] = model.source.read(spec.name, 0, spec.size).reshape(spec.shape)
        else:
            begins[spec.name] = scratch.append([array_bytes(first)], aligned=True)
            del first
            for block in blocks:
                scratch.append([array_bytes(block)])
            done += spec.nbytes
            progress("reading", done, total)
    view = scratch.view()
    for spec in specs:
        if spec.name in begins:
            arrays[spec.name] = np.ndarray(spec.shape, spec.dtype, view, begins[spec.name])
    return {spec.name: arrays[spec.name] for spec in specs}


def _write(
    path: Path,
    arrays: Mapping[str, Array],
    metadata: Mapping[str, Any],
    target: Target,
    scratch: Scratch,
    progress: Progress,
) -> None:
    if target.kind == "npz":
        write_npz(path, arrays, metadata, target.compression, progress)
    elif target.framed:
        frame = encode_frame(
            arrays,
            metadata,
            format=target.format,
            compression=target.compression,
            checksum=target.checksum,
            scratch=scratch,
            progress=progress,
        )
        write_views(path, frame.buffers(), progress, frame.nbytes)
    else:
        buffers = _WRITERS[target.format](arrays, metadata)
        write_views(path, buffers, progress, sum(buffer.nbytes for buffer in buffers))


def _check(path: Path, arrays: Mapping[str, Array], target: Target, progress: Progress) -> None:
    """Compare what was written with what was meant."""
    source = open_model(path, kind=target.kind).source
    meant = [TensorSpec(name, array.dtype, array.shape) for name, array in arrays.items()]
    if list(source.specs) != meant:
        raise LocalError("the result does not hold the same tensors")
    expected: TensorSource = MemoryTensors(arrays)
    total, done = sum(spec.nbytes for spec in meant), 0
    for spec in meant:
        for one, other in zip(read_blocks(source, spec), read_blocks(expected, spec), strict=True):
            if not np.array_equal(np.asarray(array_bytes(one)), np.asarray(array_bytes(other))):
                raise LocalError("the result does not hold the same values", where=f"tensor {spec.name!r}")
            done += one.nbytes
            progress("checking", done, total)


def _few(names: list[str]) -> str:
    return f"tensor {names[0]!r}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _silent(_what: str, _done: int, _total: int) -> None:
    """Progress that nobody wants to know."""
