"""The few greatest values of a tensor: with their values (top-k), or as plus or minus their mean magnitude (STC).

Top-k: Aji and Heafield, *Sparse communication for distributed gradient descent*, EMNLP 2017 (arXiv:1704.05021). STC:
Sattler et al., IEEE TNNLS 2020 (arXiv:1903.02891). Both need error feedback: what is not sent is added to the next.

Layout, everything little-endian, k places:

- top-k: one byte, 4 for float32 or 2 for float16 values; four bytes, the length of the places; the places
  (:mod:`~.places`); k values.
- STC: the mean magnitude, float32; four bytes, the length of the places; the places; k bits, one for a positive value:
  bit ``i % 8``, the lowest first, of byte ``i // 8``, with zeros behind.

A tensor without elements has no places.
"""

from __future__ import annotations

import struct
from typing import Any, Final, Literal

import numpy as np

from fedpost.codecs.kernels.bits import Integers
from fedpost.codecs.kernels.flat import Floats, flat_view, residual_view
from fedpost.codecs.kernels.places import Cut, greatest, put_places, take_places
from fedpost.errors import DecodeError, EncodeError, TruncatedError

__all__ = ["decode_stc", "decode_stc_range", "decode_top", "decode_top_range", "encode_stc", "encode_top"]

_VALUES: Final[dict[int, np.dtype[Any]]] = {4: np.dtype("<f4"), 2: np.dtype("<f2")}
_LENGTH: Final = struct.Struct("<I")
_MEAN: Final = np.dtype("<f4")


def encode_top(x: Floats, cut: Cut, *, width: Literal[2, 4] = 4, residual: Floats | None = None) -> bytes:
    """Code the values with the greatest magnitudes.

    Args:
        x: Any shape, float32, C-contiguous.
        cut: Which they are.
        width: Bytes of a value: 4 for float32, 2 for float16.
        residual: Takes ``x`` less what is sent, of the same shape, C-contiguous; may be ``x`` itself.

    Raises:
        EncodeError: A value that is taken is NaN or infinite or too large for float16, or there is no such width.
    """
    if width not in _VALUES:
        raise EncodeError(f"values of {width} bytes are not possible", hint="4 and 2 are.")
    flat = flat_view(x)
    places = greatest(flat, cut)
    with np.errstate(over="ignore"):
        values = _finite(flat[places]).astype(_VALUES[width])
    if not np.isfinite(values).all():
        raise EncodeError("a value is too large for float16")
    coded = put_places(places, flat.size)
    _leave(flat, residual, places, values.astype(np.float32))
    return bytes([width]) + _LENGTH.pack(len(coded)) + coded + values.tobytes()


def decode_top(data: memoryview | bytes, out: Floats, *, add: bool = False) -> None:
    """Read what :func:`encode_top` wrote.

    Args:
        data: The bytes.
        out: Takes the values; its shape is the tensor's; float32, C-contiguous.
        add: Add to what is there instead; places that were not sent stay untouched.

    Raises:
        DecodeError: The bytes are not of a tensor of this size, or a value is NaN or infinite.
    """
    flat = flat_view(out)
    _place(flat, *_top(memoryview(data), flat.size), add=add)


def decode_top_range(data: memoryview | bytes, size: int, start: int, stop: int) -> Floats:
    """Elements ``start`` to ``stop`` of a tensor of ``size`` elements flattened in C order.

    Raises:
        DecodeError: As :func:`decode_top`.
    """
    return _ranged(*_top(memoryview(data), size), start, stop)


def _top(view: memoryview, size: int) -> tuple[Integers, Floats]:
    if len(view) == 0 or view[0] not in _VALUES:
        raise DecodeError("no such width of a value")
    dtype = _VALUES[view[0]]
    places, rest = _take(view[1:], size)
    if len(rest) != places.size * dtype.itemsize:
        raise TruncatedError("not as many values as places")
    values = np.frombuffer(rest, dtype)
    if not np.isfinite(values).all():
        raise DecodeError("a value is NaN or infinite")
    return places, values.astype(np.float32)


def encode_stc(x: Floats, cut: Cut, *, residual: Floats | None = None) -> bytes:
    """Code the values with the greatest magnitudes as plus or minus their mean magnitude.

    Args:
        x: Any shape, float32, C-contiguous.
        cut: Which they are; usually 1/25 of all, or less.
        residual: Takes ``x`` less what is sent, of the same shape, C-contiguous; may be ``x`` itself.

    Raises:
        EncodeError: A value that is taken is NaN or infinite.
    """
    flat = flat_view(x)
    places = greatest(flat, cut)
    values = _finite(flat[places])
    mean = np.float32(np.abs(values).mean(dtype=np.float64) if values.size else 0)
    positive = values > 0
    coded = put_places(places, flat.size)
    _leave(flat, residual, places, np.where(positive, mean, -mean))
    return (
        np.array(mean, _MEAN).tobytes()
        + _LENGTH.pack(len(coded))
        + coded
        + np.packbits(positive, bitorder="little").tobytes()
    )


def decode_stc(data: memoryview | bytes, out: Floats, *, add: bool = False) -> None:
    """Read what :func:`encode_stc` wrote.

    Args:
        data: The bytes.
        out: Takes the values; its shape is the tensor's; float32, C-contiguous.
        add: Add to what is there instead; places that were not sent stay untouched.

    Raises:
        DecodeError: The bytes are not of a tensor of this size, or the mean magnitude is not a number of 0 or more.
    """
    flat = flat_view(out)
    _place(flat, *_stc(memoryview(data), flat.size), add=add)


def decode_stc_range(data: memoryview | bytes, size: int, start: int, stop: int) -> Floats:
    """Elements ``start`` to ``stop`` of a tensor of ``size`` elements flattened in C order.

    Raises:
        DecodeError: As :func:`decode_stc`.
    """
    return _ranged(*_stc(memoryview(data), size), start, stop)


def _stc(view: memoryview, size: int) -> tuple[Integers, Floats]:
    if len(view) < _MEAN.itemsize:
        raise TruncatedError("no mean magnitude")
    mean = np.frombuffer(view[: _MEAN.itemsize], _MEAN)[0]
    if not (mean >= 0 and np.isfinite(mean)):
        raise DecodeError("the mean magnitude is not a number of 0 or more")
    places, rest = _take(view[_MEAN.itemsize :], size)
    if len(rest) != -(-places.size // 8):
        raise DecodeError("not as many signs as places")
    bits = np.unpackbits(np.frombuffer(rest, np.uint8), bitorder="little").view(np.bool_)
    if bits[places.size :].any():
        raise DecodeError("not as many signs as places")
    return places, np.where(bits[: places.size], mean, -mean).astype(np.float32, copy=False)


def _finite(values: Floats) -> Floats:
    if not np.isfinite(values).all():
        raise EncodeError("values are NaN or infinite")
    return values


def _ranged(places: Integers, values: Floats, start: int, stop: int) -> Floats:
    out = np.zeros(stop - start, np.float32)
    first, last = np.searchsorted(places, (start, stop))
    out[places[first:last] - start] = values[first:last]
    return out


def _take(view: memoryview, size: int) -> tuple[Integers, memoryview]:
    if len(view) < _LENGTH.size or len(view) - _LENGTH.size < (length := _LENGTH.unpack_from(view)[0]):
        raise TruncatedError("the places are cut off")
    end = _LENGTH.size + length
    return take_places(view[_LENGTH.size : end], size), view[end:]


def _leave(flat: Floats, residual: Floats | None, places: Integers, sent: Floats) -> None:
    lost = residual_view(residual, flat)
    if lost is None:
        return
    if lost.ctypes.data != flat.ctypes.data:
        lost[:] = flat
    lost[places] -= sent


def _place(flat: Floats, places: Integers, values: Floats, *, add: bool) -> None:
    if add:
        flat[places] += values
    else:
        flat[:] = 0
        flat[places] = values
