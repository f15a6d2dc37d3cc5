"""What a pipeline makes of a model: bytes, errors and speed, tensor by tensor; for ``fedpost compress``.

Rules: the model is encoded as a whole, since codecs look at all of it, and every frame is read back from its bytes;
what is counted are the bytes of that frame. Beside model and base there are what the codec keeps and one decoded
tensor at a time. An error is relative to what changed since the base, or to the tensor where nothing can be said of
that. Speeds are those of raw bytes, medians over some repetitions, with the digests and without the disk.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Final

import msgspec

from fedpost.codecs import Base, Uq
from fedpost.conversion.opening import local_limits
from fedpost.frame import Frame
from fedpost.pipeline import Pipeline, decode_tensors, picked, tensor_sizes
from fedpost.report.difference import compare_sources, root_mean_square
from fedpost.tensors import Array, MemoryTensors, TensorSource, TensorSpec
from fedpost.tensors.dtypes import dtype_name, is_integer

__all__ = ["TensorTrial", "Trial", "changes_of", "strangers", "try_pipeline"]

Tell = Callable[[str, int, int], None]

_MEGA: Final = 1e6


class TensorTrial(msgspec.Struct, frozen=True):
    """One tensor.

    Attributes:
        name: Its name.
        dtype: Its element type.
        shape: Length of each dimension.
        raw: Bytes as an array.
        encoded: Bytes in the frame.
        ratio: Raw over encoded bytes, or None without any.
        exact: It comes back to the bit.
        relative: L2 norm of the error over that of the change, infinite (``null`` in JSON) for an error where nothing
            changed; None where values are no numbers.
        max_abs: The greatest absolute error; None where values are no numbers.
    """

    name: str
    dtype: str
    shape: list[int]
    raw: int
    encoded: int
    ratio: float | None
    exact: bool
    relative: float | None
    max_abs: float | int | None


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """The whole model.

    Attributes:
        pipeline: The pipeline, in full.
        picked: What a codec that chooses by itself has picked; None for others.
        raw: Bytes of all tensors as arrays.
        encoded: Bytes of the frame, with its header.
        ratio: Raw over encoded bytes.
        exact: Every tensor comes back to the bit.
        relative: L2 norm of all errors over that of all changes, without tensors of integers.
        max_abs: The greatest absolute error.
        encode_mb_per_second: Raw megabytes a second.
        decode_mb_per_second: Raw megabytes a second.
        tensors: The tensors, in order.
    """

    pipeline: str
    picked: str | None
    raw: int
    encoded: int
    ratio: float
    exact: bool
    relative: float
    max_abs: float
    encode_mb_per_second: float
    decode_mb_per_second: float
    tensors: list[TensorTrial]


def strangers(model: TensorSource, base: Base) -> list[str]:
    """The tensors of a model that a base has not, in the same type and shape: they are sent as they are."""
    old = {spec.name: (spec.dtype, spec.shape) for spec in base.tensors.specs}
    return [spec.name for spec in model.specs if old.get(spec.name) != (spec.dtype, spec.shape)]


def changes_of(model: TensorSource, base: Base | None) -> dict[str, float | None]:
    """The root mean square of what changed in each tensor since the base; of the tensor where there is no base.

    Raises:
        DecodeError: As the sources say.
    """
    found = {} if base is None else {one.name: one.rms for one in compare_sources(base.tensors, model).tensors}
    return {
        spec.name: found[spec.name] if spec.name in found else root_mean_square(model, spec) for spec in model.specs
    }


def try_pipeline(
    pipeline: Pipeline,
    tensors: Mapping[str, Array],
    base: Base | None,
    changes: Mapping[str, float | None],
    *,
    repeat: int = 3,
    tell: Tell | None = None,
) -> Trial:
    """Encode and decode a model, and compare.

    Args:
        pipeline: How.
        tensors: The model.
        base: What the receiver has, for an update codec that needs it.
        changes: What :func:`changes_of` gave for them.
        repeat: How often each way is timed.
        tell: Is told what is done, and how many steps of all.

    Raises:
        ConfigError: The update codec needs a base and there is none.
        EncodeError: A tensor cannot be encoded; it is named.
    """
    model = MemoryTensors(tensors)
    raw = sum(spec.nbytes for spec in model.specs)
    steps, told = 2 * repeat + 1, tell or (lambda _what, _done, _all: None)
    spent: tuple[list[float], list[float]] = ([], [])
    for number in range(repeat):
        told("encoding", number, steps)
        start = time.perf_counter()
        frame = pipeline.encode(tensors, base=base)
        buffers = list(frame.buffers())
        spent[0].append(time.perf_counter() - start)
    data = b"".join(buffers)
    del frame, buffers
    limits = local_limits(max(raw, len(data)))
    for number in range(repeat):
        told("decoding", repeat + number, steps)
        start = time.perf_counter()
        decoded = decode_tensors(Frame.decode(data, limits=limits), limits=limits, base=base)
        for spec in decoded.specs:
            decoded.read(spec.name, 0, spec.size)
        spent[1].append(time.perf_counter() - start)
    told("comparing", steps - 1, steps)
    read = Frame.decode(data, limits=limits)
    choice = picked(read, limits=limits)
    sizes = tensor_sizes(read, limits=limits, base=base)
    rows, totals = _errors(model, decode_tensors(read, limits=limits, base=base), changes, sizes)
    encoding, decoding = (raw / _MEGA / max(median(seconds), 1e-9) for seconds in spent)
    return Trial(
        pipeline=str(pipeline),
        picked=None if choice is None else str(Uq(choice.scale)),
        raw=raw,
        encoded=len(data),
        ratio=raw / len(data),
        exact=all(row.exact for row in rows),
        relative=_over(*totals),
        max_abs=max((float(row.max_abs) for row in rows if row.max_abs is not None), default=0.0),
        encode_mb_per_second=encoding,
        decode_mb_per_second=decoding,
        tensors=rows,
    )


def _errors(
    model: TensorSource,
    decoded: TensorSource,
    changes: Mapping[str, float | None],
    sizes: Mapping[str, tuple[int, int]],
) -> tuple[list[TensorTrial], tuple[float, float]]:
    """A row for each tensor, and the L2 norms of all errors and all changes, without integers."""
    found = {one.name: one for one in compare_sources(model, decoded).tensors}
    rows, lost, changed = [], 0.0, 0.0
    for spec in model.specs:
        one, change, encoded = found[spec.name], changes[spec.name], sizes[spec.name][1]
        relative = None
        if one.rms is not None and change is not None:
            relative = _over(one.rms, change)
            # A count of steps would outweigh all weights.
            weight = 0.0 if is_integer(spec.dtype) else math.sqrt(spec.size)
            lost, changed = math.hypot(lost, one.rms * weight), math.hypot(changed, change * weight)
        rows.append(_row(spec, encoded, exact=one.equal_bits, relative=relative, max_abs=one.max_abs))
    return rows, (lost, changed)


def _row(spec: TensorSpec, encoded: int, *, exact: bool, relative: float | None, max_abs: float | None) -> TensorTrial:
    ratio = spec.nbytes / encoded if encoded else None
    name, shape = dtype_name(spec.dtype), list(spec.shape)
    return TensorTrial(spec.name, name, shape, spec.nbytes, encoded, ratio, exact, relative, max_abs)


def _over(error: float, change: float) -> float:
    return error / change if change else math.inf if error else 0.0
