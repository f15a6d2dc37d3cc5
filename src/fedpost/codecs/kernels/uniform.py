"""UQ: uniform quantization, and the tensor's bytes.

``q = rint(x / step)`` in float32, halves to even, so what is within half a step of zero is zero; the reconstruction is
``float32(q) · step``, one float32 product, and what is lost is ``x − float32(q) · step``.

A tensor is a matrix: its first dimension by all the others; of one dimension, or none, it is one row. It is cut into
blocks of consecutive elements, each coded on its own by :mod:`~.matrices`: whole rows, as many as fill at most
``2^k`` elements, or pieces of ``2^k`` columns of one row where a row is longer than that.

Layout: one byte, k, 10 to 22; a varint per block, its length in bytes; the blocks. A tensor without elements has no
bytes at all.

The row and column statistics follow what ISO/IEC 15938-17 (NNCodec) and Sattler et al. (arXiv:1805.08768) found of
updates: mostly zero, the rest in few rows. There is no wider zone around zero, as there is in those: it would make a
single update smaller at equal error, but what it holds back comes late where sites take part now and then.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from fedpost.codecs.kernels.bits import Integers, put_varint, take_varint
from fedpost.codecs.kernels.flat import Floats, flat_view, residual_view
from fedpost.codecs.kernels.matrices import MAX_MAGNITUDE, Sparse, pack_matrix, unpack_matrix
from fedpost.errors import DecodeError, EncodeError, TruncatedError

__all__ = ["decode_range", "decode_tensor", "encode_tensor", "quantize"]

_BLOCK_BITS: Final = 22
_DENSE_BLOCK_BITS: Final = 19
_LEAST_BLOCK_BITS: Final = 10
_SAMPLE: Final = 1 << 12
_DENSE: Final = 1 / 16
_CHUNK: Final = 1 << 15
"""Elements that are compared at a time: they stay in the cache."""


def quantize(x: Floats, step: float) -> Sparse:
    """The non-zeros of ``rint(x / step)``.

    Args:
        x: 1-D, float32.
        step: Positive, finite; used as float32.

    Returns:
        Their places in order, and values below 2²⁴ in magnitude.

    Raises:
        EncodeError: ``x`` has a NaN or an infinity, or the step is too small for it.
    """
    step32 = _step(step, EncodeError)
    least = _least(step32)
    found: list[Integers] = []
    buffer = np.empty(min(_CHUNK, x.size), np.float32)
    mask = np.empty(buffer.size, np.bool_)
    greatest = np.float32(0)
    for start in range(0, x.size, _CHUNK):
        chunk = x[start : start + _CHUNK]
        magnitudes = np.abs(chunk, out=buffer[: chunk.size])
        greatest = np.maximum(greatest, magnitudes.max())  # propagates NaN
        found.append(np.greater_equal(magnitudes, least, out=mask[: chunk.size]).nonzero()[0] + start)
    with np.errstate(over="ignore"):
        if not greatest / step32 < MAX_MAGNITUDE - 1:
            what = "the step is too small for the values" if np.isfinite(greatest) else "values are NaN or infinite"
            raise EncodeError(f"cannot quantize: {what}")
    cells = np.concatenate(found) if found else np.empty(0, np.int64)
    values = x[cells]
    quotients = np.rint(values / step32)
    with np.errstate(over="ignore"):
        if not np.isfinite(np.abs(quotients).max(initial=0) * step32):
            raise EncodeError("cannot quantize: values are too large")
    return Sparse(cells, quotients.astype(np.int64))


def _step(step: float, error: type[EncodeError | DecodeError]) -> np.float32:
    with np.errstate(over="ignore"):
        step32 = np.float32(step)
    if not (step32 > 0 and np.isfinite(step32)):
        raise error(f"{step!r} is not a step")
    return step32


def _least(step: np.float32) -> np.float32:
    """The smallest float32 that is not quantized to zero; the formula is monotone."""
    half, ahead, behind = np.float32(0.5), np.float32(np.inf), np.float32(0)
    least = half * step
    while least / step <= half:
        least = np.nextafter(least, ahead)
    while (below := np.nextafter(least, behind)) / step > half:
        least = below
    return least


def encode_tensor(x: Floats, step: float, *, residual: Floats | None = None, block_bits: int | None = None) -> bytes:
    """Quantize and code a tensor.

    Args:
        x: Any shape, float32, C-contiguous.
        step: Positive, finite; used as float32. It is not part of the bytes.
        residual: Takes ``x − decode_tensor(…)``, of the same shape, C-contiguous; may be ``x`` itself.
        block_bits: The greatest size of a block, as a power of two, 10 to 22. None chooses: large blocks are smaller
            in sum, but where many values are not zero they take more memory while they are coded.

    Returns:
        The layout in this module's docstring.

    Raises:
        EncodeError: As :func:`quantize`; then the residual is untouched only from the block at fault on.
    """
    flat = flat_view(x)
    lost = residual_view(residual, flat)
    step32 = _step(step, EncodeError)
    if block_bits is None:
        sample = flat[:: max(flat.size // _SAMPLE, 1)]
        dense = np.count_nonzero(np.abs(sample) >= _least(step32)) > _DENSE * sample.size
        block_bits = _DENSE_BLOCK_BITS if dense else _BLOCK_BITS
    if not _LEAST_BLOCK_BITS <= block_bits <= _BLOCK_BITS:
        raise EncodeError(f"blocks of 2**{block_bits} elements are not possible")
    blocks = []
    for start, rows, columns in _grid(x.shape, block_bits):
        piece = flat[start : start + rows * columns]
        sparse = quantize(piece, step)
        if lost is not None:
            kept = lost[start : start + rows * columns]
            if kept.ctypes.data != piece.ctypes.data:
                kept[:] = piece
            kept[sparse.cells] -= sparse.values.astype(np.float32) * step32
        blocks.append(pack_matrix(sparse, rows, columns))
    if not blocks:
        return b""
    return b"".join([bytes([block_bits]), *(put_varint(len(block)) for block in blocks), *blocks])


def decode_tensor(data: memoryview | bytes, step: float, out: Floats, *, add: bool = False) -> None:
    """Read what :func:`encode_tensor` wrote.

    Args:
        data: The bytes.
        step: The encoder's step.
        out: Takes the values; its shape is the tensor's; float32, C-contiguous.
        add: Add to what is there instead: one float32 addition for each non-zero, nothing elsewhere.

    Raises:
        DecodeError: The bytes are not of a tensor of this shape. Blocks before the one at fault are in ``out`` already.
    """
    flat = flat_view(out)
    step32 = _step(step, DecodeError)
    for start, size, sparse in _blocks(memoryview(data), out.shape, 0, flat.size):
        piece = flat[start : start + size]
        values = _values(sparse, step32)
        if add:
            piece[sparse.cells] += values
        else:
            piece[:] = 0
            piece[sparse.cells] = values


def decode_range(data: memoryview | bytes, step: float, shape: Sequence[int], start: int, stop: int) -> Floats:
    """Elements ``start`` to ``stop`` of a tensor flattened in C order; only their blocks are read.

    Args:
        data: What :func:`encode_tensor` wrote.
        step: The encoder's step.
        shape: The tensor's.
        start: 0 or more.
        stop: At most the tensor's size, and not below ``start``.

    Raises:
        DecodeError: The bytes are not of a tensor of this shape, as far as they were read.
    """
    out = np.zeros(stop - start, np.float32)
    step32 = _step(step, DecodeError)
    for first, _, sparse in _blocks(memoryview(data), shape, start, stop):
        places = sparse.cells + (first - start)
        kept = (places >= 0) & (places < out.size)
        out[places[kept]] = _values(sparse, step32)[kept]
    return out


def _values(sparse: Sparse, step: np.float32) -> Floats:
    with np.errstate(over="ignore"):
        values: Floats = sparse.values.astype(np.float32) * step
    if not np.isfinite(values).all():
        raise DecodeError("a value is infinite")
    return values


def _blocks(data: memoryview, shape: Sequence[int], start: int, stop: int) -> Iterator[tuple[int, int, Sparse]]:
    """First element, number of elements and non-zeros of each block with an element of a range; checks all lengths."""
    if not math.prod(shape):
        if len(data):
            raise DecodeError("bytes for a tensor without elements")
        return
    if len(data) == 0 or not _LEAST_BLOCK_BITS <= data[0] <= _BLOCK_BITS:
        raise DecodeError("no such size of blocks")
    grid = list(_grid(shape, data[0]))
    at, lengths = 1, []
    for _ in grid:
        length, at = take_varint(data, at)
        lengths.append(length)
    if at + sum(lengths) != len(data):
        raise TruncatedError("the blocks are not as long as the tensor's bytes")
    for (first, rows, columns), length in zip(grid, lengths, strict=True):
        if first < stop and start < first + rows * columns:
            yield first, rows * columns, unpack_matrix(data[at : at + length], rows, columns)
        at += length


def _grid(shape: Sequence[int], block_bits: int) -> Iterator[tuple[int, int, int]]:
    """Each block's first element, rows and columns."""
    size, most = math.prod(shape), 1 << block_bits
    rows = shape[0] if len(shape) > 1 else 1
    if not size:
        return
    columns = size // rows
    if columns <= most:
        step = most // columns
        for row in range(0, rows, step):
            yield row * columns, min(step, rows - row), columns
        return
    for row in range(rows):
        for column in range(0, columns, most):
            yield row * columns + column, 1, min(most, columns - column)
