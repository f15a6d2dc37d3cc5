"""Lists of arrays as one file each: the layout FEDWT001, and protocol buffers.

Rules: FEDWT001 is byte for byte the original's for dense arrays; what that layout left unsafe is not written, and
refused when read: a pickle in a sparse array, counts that nothing backs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np

from fedpost.compat.kafkafl.errors import serialization_errors
from fedpost.errors import EncodeError, UnsupportedError
from fedpost.frame import DEFAULT_LIMITS, Limits
from fedpost.tensors import Array, TensorSpec, fedwt1, protobuf

__all__ = ["ProtocolBufferSerializer", "WeightSerializer"]

_FLOATS: Final = ("float64", "float32", "float16")
_INTEGERS: Final = ("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8")


class WeightSerializer:
    """Writes and reads FEDWT001, ``docs/spec/formats.md``.

    Dense arrays are written as ever. Sparse ones have the flag 2 and a coding without pickle, and only where it makes
    them smaller: every bit is kept, −0.0 and NaN included.

    Args:
        limits: What is taken of a file.

    Attributes:
        supported_dtypes: Element types, in any byte order, that are written and read; others are refused.
    """

    def __init__(self, *, limits: Limits = DEFAULT_LIMITS) -> None:
        self.supported_dtypes = {*_FLOATS, *_INTEGERS, "bool"}
        self._limits = limits

    def serialize_weights(self, weights: list[Array], metadata: Mapping[str, Any] | None = None) -> bytes:
        """Write arrays.

        Args:
            weights: The arrays, in order.
            metadata: What JSON can carry, but the key ``fedpost``.

        Raises:
            SerializationError: A type is not supported, a dimension has no 32 bits, or the metadata is no JSON.
        """
        with serialization_errors():
            tensors = _by_place(weights)
            for name, array in tensors.items():
                dtype = getattr(array, "dtype", None)
                if dtype is not None and not self._supports(dtype):
                    raise EncodeError(f"element type {dtype} is not supported", where=f"array {name}")
            return b"".join(fedwt1.to_bytes(tensors, metadata))

    def deserialize_weights(self, data: bytes | bytearray | memoryview) -> tuple[list[Array], dict[str, Any]]:
        """Read arrays; dense ones are read-only views of ``data``.

        Returns:
            The arrays, and what :meth:`inspect` returns.

        Raises:
            SerializationError: The bytes do not follow the layout, hold a pickle, or go over the limits.
        """
        header = self.inspect(data)
        with serialization_errors():
            arrays, _ = fedwt1.from_bytes(data, limits=self._limits)
        return list(arrays.values()), header

    def inspect(self, data: bytes | bytearray | memoryview) -> dict[str, Any]:
        """Read the header alone, of which ``data`` need not hold more.

        Returns:
            ``num_arrays``; ``global_metadata``; and ``array_info``, for each array its ``name``, ``shape``, ``dtype``
            and ``size``.

        Raises:
            SerializationError: As :meth:`deserialize_weights`, or ``data`` ends inside the header.
        """
        with serialization_errors():
            header = fedwt1.inspect_header(data, limits=self._limits)
            for spec in header.specs:
                if not self._supports(spec.dtype):
                    raise UnsupportedError(f"element type {spec.dtype} is not supported", where=f"array {spec.name!r}")
        info = [_info(spec) for spec in header.specs]
        return {"num_arrays": len(info), "global_metadata": header.metadata, "array_info": info}

    def _supports(self, dtype: np.dtype[Any]) -> bool:
        return str(dtype.newbyteorder("=")) in self.supported_dtypes


class ProtocolBufferSerializer:
    """Writes and reads a ``WeightMessage``; the schema is ``fedpost/tensors/schema/fedpost_weights.proto``.

    Args:
        limits: What is taken of a message.
    """

    def __init__(self, *, limits: Limits = DEFAULT_LIMITS) -> None:
        self._limits = limits

    def serialize_weights_protobuf(self, weights: list[Array], metadata: Mapping[str, Any] | None = None) -> bytes:
        """Write arrays; ``layer_id`` is an array's place.

        Args:
            weights: The arrays, in order.
            metadata: Keys that are text, and values that become text.

        Raises:
            SerializationError: A type has no bytes, the message would have 2 GiB, or the runtime is not installed.
        """
        with serialization_errors():
            texts = {key: str(value) for key, value in (metadata or {}).items()}
            return b"".join(protobuf.to_bytes(_by_place(weights), texts))

    def deserialize_weights_protobuf(self, data: bytes | bytearray | memoryview) -> tuple[list[Array], dict[str, str]]:
        """Read arrays and metadata.

        Raises:
            SerializationError: The bytes are no such message, or go over the limits.
        """
        with serialization_errors():
            arrays, metadata = protobuf.from_bytes(data, limits=self._limits)
        return list(arrays.values()), metadata


def _by_place(weights: Iterable[Array]) -> dict[str, Array]:
    if isinstance(weights, np.ndarray | str | bytes | Mapping):
        raise EncodeError(f"{type(weights).__name__} is not a list of arrays")
    return {str(index): array for index, array in enumerate(weights)}


def _info(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "shape": spec.shape, "dtype": str(spec.dtype), "size": spec.size}
