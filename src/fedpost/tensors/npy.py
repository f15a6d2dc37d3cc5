"""``numpy``, NumPy's own format: one ``.npy`` file a segment, never with pickle.

It is what many systems send today, kept for readers that know nothing else. Encoding copies every array. Element types
that ``.npy`` cannot name (``bfloat16``) travel as bytes, under the name that the table gives them.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from tokenize import TokenError
from typing import Any, Final

import msgspec
import numpy as np

from fedpost.errors import DecodeError, FedpostError, LimitError
from fedpost.frame import Frame, Limits
from fedpost.tensors.dtypes import dtype_from_name
from fedpost.tensors.format import FORMATS, Array, Encoded, TensorSource, TensorSpec, name_of

__all__ = ["Npy", "NpyTensors"]

SECTION: Final = "tensors_npy"
_MAX_HEADER: Final = 1 << 14
_READ_HEADER: Final = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class _Table(msgspec.Struct, array_like=True, frozen=True):
    names: list[str]
    dtypes: list[str]


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
            # What NumPy has no name for is saved as so many bytes without meaning; the table has the name.
            named = array if _has_npy_name(array.dtype) else array.view(f"V{array.dtype.itemsize}")
            np.save(out, named, allow_pickle=False)
            segments.append(out.getbuffer())
        return Encoded({SECTION: _Table(list(tensors), dtypes)}, segments)

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
        table = frame.section(SECTION, _Table)
        if len(table.names) > limits.max_tensors:
            raise LimitError(f"{len(table.names)} tensors, {limits.max_tensors} allowed", where="tensor table")
        if not len(table.names) == len(table.dtypes) == len(frame) == len(set(table.names)):
            raise DecodeError("its names are not one for each segment", where="tensor table")
        self._arrays = {
            name: _array(name, dtype, frame.segment(index))
            for index, (name, dtype) in enumerate(zip(table.names, table.dtypes, strict=True))
        }

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        """What the tensors are, in order."""
        return tuple(TensorSpec(name, array.dtype, array.shape) for name, array in self._arrays.items())

    def arrays(self) -> dict[str, Array]:
        """Every tensor by name, in order."""
        return dict(self._arrays)

    def read(self, name: str, start: int, stop: int) -> Array:
        """Elements ``start`` to ``stop`` of a tensor flattened in C order."""
        return self._arrays[name].reshape(-1)[start:stop]


def _has_npy_name(dtype: np.dtype[Any]) -> bool:
    try:
        return bool(np.lib.format.descr_to_dtype(np.lib.format.dtype_to_descr(dtype)) == dtype)
    except (ValueError, TypeError):
        return False


def _array(name: str, dtype: str, data: memoryview) -> Array:
    where = f"tensor {name!r}"
    stream = io.BytesIO(data[:_MAX_HEADER])  # a copy, so of no more than the header
    try:
        wanted = dtype_from_name(dtype)
        shape, fortran, found = _READ_HEADER[np.lib.format.read_magic(stream)](stream)
    except FedpostError as error:
        raise type(error)(error.what, where=where, hint=error.hint) from error
    except KeyError as error:
        raise DecodeError(f"unknown .npy version {error}", where=where) from None
    except (ValueError, TypeError, SyntaxError, TokenError, RecursionError, MemoryError) as error:
        raise DecodeError(f"bad .npy header: {error}", where=where) from error
    if found.hasobject or (found != wanted and found != np.dtype(f"V{wanted.itemsize}")):
        raise DecodeError(f"the .npy header says {found}, the table {wanted}", where=where)
    if any(dim < 0 for dim in shape) or math.prod(shape) * found.itemsize != data.nbytes - stream.tell():
        raise DecodeError(f"the shape {shape} does not fit {data.nbytes - stream.tell()} bytes", where=where)
    try:
        array: Array = np.ndarray(shape, wanted, data[stream.tell() :].toreadonly(), order="F" if fortran else "C")
    except (ValueError, OverflowError) as error:
        raise DecodeError(f"the shape {shape} is impossible: {error}", where=where) from error
    return array


FORMATS.register(Npy.name, Npy())
