"""``numpy``, NumPy's own format: one ``.npy`` file a segment, never with pickle.

It is what many systems send today, kept for readers that know nothing else. Encoding copies every array. Element types
that ``.npy`` cannot name (``bfloat16``) travel as bytes, under the name that the table gives them.
"""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import numpy as np

from fedpost.errors import DecodeError, FedpostError, LimitError
from fedpost.frame import Frame, Limits
from fedpost.frame.header import array_length
from fedpost.tensors.dtypes import dtype_from_name
from fedpost.tensors.foreign import raw_size
from fedpost.tensors.format import (
    FORMATS,
    Array,
    Encoded,
    TensorSource,
    TensorSpec,
    check_fortran,
    check_range,
    in_c_order,
    name_of,
)

__all__ = ["Npy", "NpyTensors"]

SECTION: Final = "tensors_npy"
_MAX_HEADER: Final = 1 << 14
_MAX_DESCR: Final = 8000
_HEADER: Final = re.compile(
    rb"\x93NUMPY(?:\x01\x00(?P<v1>..)|\x02\x00(?P<v2>....))(?P<text>\{'descr': (?P<descr>.+), "
    rb"'fortran_order': (?P<fortran>True|False), 'shape': \((?P<shape>(?:[0-9]{1,19}(?:, |,?(?=\))))*)\), \} *\n)",
    re.DOTALL,
)


class _Table(msgspec.Struct, array_like=True, frozen=True):
    names: list[str]
    dtypes: list[str]


class _Outline(msgspec.Struct, array_like=True, frozen=True):
    """The same, with columns that can be counted before they are made."""

    names: msgspec.Raw
    dtypes: msgspec.Raw


class Npy:
    """NumPy's format; see the module's docstring."""

    name: Final = "numpy"

    def encode(self, tensors: Mapping[str, Array]) -> Encoded:
        """Write one ``.npy`` an array.

        Raises:
            EncodeError: An element type has no bytes.
        """
        dtypes, segments = [], []
        for name, array in tensors.items():
            dtypes.append(name_of(name, array))
            out = io.BytesIO()
            # NumPy would copy a structure, and gaps between fields would be what memory held before.
            whole = in_c_order(array) if array.dtype.names and not array.flags.forc else array
            # What NumPy has no name for is saved as so many bytes without meaning; the table has the name.
            named = whole if _descr(array.dtype) else whole.view(f"V{array.dtype.itemsize}")
            np.save(out, named, allow_pickle=False)
            segments.append(out.getbuffer())
        # An element's size divides NumPy's header of 64 bytes or a multiple, so the whole can be taken for elements.
        kinds = [array.dtype for array in tensors.values()]
        return Encoded({SECTION: _Table(list(tensors), dtypes)}, segments, kinds)

    def decode(self, frame: Frame, limits: Limits) -> NpyTensors:
        """Check every ``.npy`` header against its segment.

        Raises:
            DecodeError: A header lies, or asks for pickle.
            LimitError: More tensors than allowed.
        """
        return NpyTensors(frame, limits)

    def stored_sizes(self, frame: Frame, source: TensorSource) -> dict[str, int]:
        """Stored bytes of each tensor's segment."""
        return {spec.name: frame.stored_size(index) for index, spec in enumerate(source.specs)}


class NpyTensors:
    """The arrays of a frame of ``.npy`` segments, as read-only views.

    Args:
        frame: The frame that holds them.
        limits: The receiver's budget.

    Raises:
        DecodeError: A header lies, or asks for pickle.
        LimitError: More tensors than allowed.
    """

    def __init__(self, frame: Frame, limits: Limits) -> None:
        outline = frame.section(SECTION, _Outline)
        if (count := max(array_length(outline.names), array_length(outline.dtypes))) > limits.max_tensors:
            raise LimitError(f"{count} tensors, {limits.max_tensors} allowed", where="tensor table")
        table = frame.section(SECTION, _Table)
        if not len(table.names) == len(table.dtypes) == len(frame) == len(set(table.names)):
            raise DecodeError("its names are not one for each segment", where="tensor table")
        self._frame = frame
        self._places = [_place(frame, limits, *row) for row in enumerate(zip(table.names, table.dtypes, strict=True))]
        self._index = {name: index for index, name in enumerate(table.names)}

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        """What the tensors are, in order."""
        return tuple(spec for spec, _, _ in self._places)

    def arrays(self) -> dict[str, Array]:
        """Every tensor by name, in order."""
        return {spec.name: self._array(index) for index, (spec, _, _) in enumerate(self._places)}

    def read(self, name: str, start: int, stop: int) -> Array:
        """Elements ``start`` to ``stop`` of a tensor flattened in C order; only the bytes that hold them are read."""
        index = self._index[name]
        spec, first, fortran = self._places[index]
        check_range(spec.size, start, stop)
        if fortran:
            return self._array(index).flat[start:stop]
        size = spec.dtype.itemsize
        return np.ndarray(
            (stop - start,), spec.dtype, self._frame.read(index, first + start * size, first + stop * size)
        )

    def _array(self, index: int) -> Array:
        spec, first, fortran = self._places[index]
        content = self._frame.segment(index)[first:].toreadonly()
        return np.ndarray(spec.shape, spec.dtype, content, order="F" if fortran else "C")


def _descr(dtype: np.dtype[Any]) -> str | None:
    """How a ``.npy`` header says an element type; None when it has no way that NumPy reads as the same type."""
    return _describe(dtype) if dtype.names is not None else _kept_descr(dtype)


@functools.lru_cache(maxsize=256)
def _kept_descr(dtype: np.dtype[Any]) -> str | None:
    """The same of what is small; a structure from the wire may be megabytes."""
    return _describe(dtype)


def _describe(dtype: np.dtype[Any]) -> str | None:
    try:
        descr = np.lib.format.dtype_to_descr(dtype)
        text = repr(descr)
        fits = len(text.encode("latin1")) <= _MAX_DESCR
        return text if fits and np.lib.format.descr_to_dtype(descr) == dtype else None
    except (ValueError, TypeError, IndexError):
        return None


def _place(frame: Frame, limits: Limits, index: int, row: tuple[str, str]) -> tuple[TensorSpec, int, bool]:
    """What a segment's tensor is, where its elements start, and whether they are in Fortran order.

    The header is matched as text. NumPy's own parser evaluates it, and some texts end the process.
    """
    name, dtype = row
    where = f"tensor {name!r}"
    try:
        wanted = dtype_from_name(dtype)
    except FedpostError as error:
        raise type(error)(error.what, where=where, hint=error.hint) from error
    found = _HEADER.match(frame.read(index, 0, min(_MAX_HEADER, frame.raw_size(index))))
    if found is None or found.end() - found.start("text") != int.from_bytes(found["v1"] or found["v2"], "little"):
        raise DecodeError("its segment does not begin with a .npy header as NumPy writes it", where=where)
    descr = found["descr"].decode("latin1")
    if descr not in (_descr(wanted), *(f"'{order}V{wanted.itemsize}'" for order in "|<>")):
        raise DecodeError(f"the .npy header says {descr[:80]}, the table {dtype[:80]}", where=where)
    shape = tuple(map(int, found["shape"].replace(b",", b" ").split()))
    nbytes = frame.raw_size(index) - found.end()
    if raw_size(shape, wanted, where) != nbytes:
        raise DecodeError(f"the shape {shape} does not fit {nbytes} bytes", where=where)
    fortran = found["fortran"] == b"True"
    if fortran:
        check_fortran(frame, index, nbytes, limits, where)
    return TensorSpec(name, wanted, shape), found.end(), fortran


FORMATS.register(Npy.name, Npy())
