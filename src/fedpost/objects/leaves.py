"""Leaves: text, bytes, arrays and scalars, as they are written and as they come back.

Rules: what is short stands in the tree, and what is long in a segment, which shares its memory; one that comes again is
stored once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fedpost.errors import DecodeError, EncodeError
from fedpost.objects.arrays import array_of, bytes_of, shape_of
from fedpost.objects.cycles import UnfitError
from fedpost.objects.rows import Late, Rows
from fedpost.objects.wire import IN_TREE, MEMORY_CODES, Kind, Text
from fedpost.tensors.dtypes import dtype_name

__all__ = ["Leaves", "blob_of"]

# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Leaves(Rows):
    """Writes leaves."""

    def _str(self, value: str) -> Any:
        if len(value) < IN_TREE:
            return value
        known = self._shared.get(id(value))
        if known is not None:
            return known
        try:
            row = self._blob(Text.STR, memoryview(value.encode()))
        except UnicodeEncodeError:
            row = self._blob(Text.SURROGATES, memoryview(value.encode("utf-8", "surrogatepass")))
        return self._share(value, row)

    def _bytes(self, value: bytes) -> Any:
        if len(value) < IN_TREE:
            return value
        known = self._shared.get(id(value))
        return self._share(value, self._blob(Text.BYTES, memoryview(value))) if known is None else known

    def _bytearray(self, value: bytearray) -> Any:
        known = self._shared.get(id(value))
        return self._share(value, self._blob(Text.BYTEARRAY, memoryview(value))) if known is None else known

    def _memoryview(self, value: memoryview) -> Any:
        known = self._shared.get(id(value))
        if known is not None:
            return known
        code = value.format.removeprefix("@")
        if not value.c_contiguous or code not in MEMORY_CODES:
            raise UnfitError("a memoryview that is not contiguous, or not of numbers")
        data = value.cast("B") if value.nbytes else memoryview(b"")
        return self._share(value, self._blob(Text.MEMORYVIEW, data, code, list(value.shape or ())))

    def _array(self, value: np.ndarray[Any, Any]) -> Any:
        known = self._shared.get(id(value))
        if known is not None:
            if type(known) is Late:
                known.again = True
            return known
        try:
            name = dtype_name(value.dtype)
        except EncodeError as error:
            raise UnfitError(error.what, error.hint) from error
        if value.nbytes < IN_TREE and value.flags.c_contiguous:
            return self._share(value, Late((name, value.shape, 0, value.tobytes())))
        order, data = bytes_of(value)
        if data.nbytes < IN_TREE:
            return self._share(value, Late((name, value.shape, order, bytes(data))))
        return self._share(value, self._row([Kind.ARRAY, name, list(value.shape), order, self._place(data)]))

    def _scalar(self, value: Any) -> Any:
        try:
            # An empty text has a byte that is not of it.
            return self._single(Kind.SCALAR, [dtype_name(value.dtype), value.tobytes()[: value.dtype.itemsize]])
        except EncodeError as error:
            raise UnfitError(error.what, error.hint) from error


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def blob_of(text: int, data: bytes | memoryview, extra: list[Any]) -> Any:
    """Text or bytes.

    Args:
        text: What they are.
        data: Their bytes.
        extra: Of a memoryview, the letter of its elements and its shape.

    Raises:
        DecodeError: They are none.
    """
    if text == Text.BYTES:
        return bytes(data)
    if text == Text.BYTEARRAY:
        return bytearray(data)
    if text == Text.MEMORYVIEW:
        return _memoryview_of(data, *extra)
    try:
        return str(data, "utf-8", "surrogatepass" if text == Text.SURROGATES else "strict")
    except UnicodeDecodeError as error:
        raise DecodeError("a text that is not UTF-8") from error


def _memoryview_of(data: bytes | memoryview, code: Any, shape: Any) -> memoryview:
    if type(code) is not str or type(shape) is not list or not all(type(length) is int for length in shape):
        raise DecodeError("a memoryview without format and shape")
    if code not in MEMORY_CODES:
        raise DecodeError(f"a memoryview of elements {code[:8]!r}")
    view = memoryview(data).toreadonly()
    if code == "B" and shape == [view.nbytes]:
        return view
    if shape == [0] and not view.nbytes:  # cast() makes none that is empty
        whole: memoryview = np.empty(0, code).data if code in "eg" else memoryview(bytes(16)).cast(code)  # type: ignore[call-overload] # one of the letters above
        return whole[:0].toreadonly()
    try:
        if code in "eg" or 0 in shape:  # nor of these
            return _array_view(view, code, shape)
        return view.cast(code, shape)  # type: ignore[call-overload,no-any-return] # checked by cast
    except (TypeError, ValueError, OverflowError) as error:
        raise DecodeError(f"a memoryview that cannot be: {error}") from error


def _array_view(view: memoryview, code: str, shape: list[int]) -> memoryview:
    dtype, lengths, size = shape_of(shape, dtype_name(np.dtype(code)))
    return array_of(dtype, lengths, size, 0, view, copy=False).data
