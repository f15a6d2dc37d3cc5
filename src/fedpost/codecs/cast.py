"""``cast(dtype)``: floating-point tensors in a narrower type.

Law: each value is rounded to nearest, ties to even, as IEEE 754 says; float64 to ``bfloat16`` goes through float32, so
values that lie next to a tie may go the other way. Decoding widens it again, which is exact.
The relative error is at most 2⁻⁸ for ``bfloat16`` and 2⁻¹¹ for ``float16`` in its normal range. Integers, booleans and
floats that are not wider stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import ml_dtypes
import numpy as np

from fedpost.codecs.codec import CODECS, Base, Capabilities, Encoding, Notes, Residual
from fedpost.errors import ConfigError, DecodeError, EncodeError, UnsupportedError
from fedpost.tensors import Array, TensorSource, TensorSpec
from fedpost.tensors.dtypes import dtype_from_name, dtype_name
from fedpost.tensors.format import name_of

__all__ = ["Cast"]

_TARGETS: Final = {
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
    "float32": np.dtype(np.float32),
}
_WIDER: Final = tuple(map(np.dtype, (np.float32, np.float64)))


@dataclass(frozen=True, slots=True)
class Cast:
    """Rounds wider floats to a narrower type.

    Attributes:
        dtype: ``bfloat16``, ``float16`` or ``float32``.
    """

    dtype: str

    def __post_init__(self) -> None:
        if self.dtype not in _TARGETS:
            raise ConfigError(f"cast to {self.dtype!r} is not possible", hint=f"Choose one of {', '.join(_TARGETS)}.")

    @property
    def needs_base(self) -> bool:
        """No."""
        return False

    @property
    def capabilities(self) -> Capabilities:
        """Nothing is promised: always the nearest value is taken, the same each time."""
        return Capabilities()

    def narrowed(self, source: TensorSource) -> TensorSource:
        """Tensors as a receiver has them before they are widened; a value too large for the narrower type is infinite.

        Args:
            source: The tensors; those that are wider floats are rounded when they are read.
        """
        target = _TARGETS[self.dtype]
        return _Converted(source, {spec.name: target for spec in source.specs if _is_wider(spec.dtype, target)})

    def encode(
        self,
        tensors: Mapping[str, Array],
        base: Base | None = None,  # noqa: ARG002 - the contract
        residual: Residual | None = None,  # noqa: ARG002 - the contract
    ) -> Encoding:
        """Round what is wider; the notes keep the original element types.

        Raises:
            EncodeError: A finite value is too large for the narrower type.
        """
        out: dict[str, Array] = {}
        for name, array in tensors.items():
            narrow = self.rounded(name, array)
            if narrow is None:
                raise EncodeError(f"a value is too large for {self.dtype}", where=f"tensor {name!r}")
            out[name] = narrow
        return Encoding(out, self.widening(tensors, out))

    def rounded(self, name: str, array: Array) -> Array | None:
        """A tensor in the narrower type, or itself where it is not wider; None where a finite value is too large.

        Raises:
            EncodeError: It is no array, or its name no text.
        """
        name_of(name, array)
        target = _TARGETS[self.dtype]
        # In whatever order their bytes are: what comes back is of the same type.
        if not _is_wider(array.dtype, target):
            return array
        with np.errstate(over="ignore", invalid="ignore"):  # signalling NaN raises "invalid"
            narrow = array.astype(target)
        return narrow if np.array_equal(np.isfinite(narrow), np.isfinite(array)) else None

    @staticmethod
    def widening(tensors: Mapping[str, Array], rounded: Mapping[str, Array]) -> dict[str, dict[str, str]]:
        """The notes of what was rounded: the types that it had."""
        return {
            "widen": {name: dtype_name(tensors[name].dtype) for name in rounded if rounded[name] is not tensors[name]}
        }

    def decode(
        self,
        source: TensorSource,
        notes: Notes,
        base: Base | None = None,  # noqa: ARG002 - the contract
    ) -> TensorSource:
        """Widen again, tensor by tensor or range by range.

        Raises:
            DecodeError: The notes name tensors that are not there, or types that are not floats.
        """
        widen = notes.get("widen")
        narrow = {spec.name for spec in source.specs if spec.dtype == _TARGETS[self.dtype]}
        if not isinstance(widen, dict) or not widen.keys() <= narrow:
            raise DecodeError("its notes do not fit the tensors", where=f"update codec {self}")
        dtypes: dict[str, np.dtype[Any]] = {}
        for name, wide in widen.items():
            dtypes[name] = dtype_from_name(wide) if isinstance(wide, str) else np.dtype(np.void)
            if dtypes[name].newbyteorder("=") not in _WIDER:
                raise UnsupportedError(f"cannot widen to {wide!r}", where=f"tensor {name!r}")
        return _Converted(source, dtypes)

    def __str__(self) -> str:
        return f"cast({self.dtype})"


@dataclass(frozen=True, slots=True)
class _Converted:
    source: TensorSource
    dtypes: Mapping[str, np.dtype[Any]]

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(spec.name, self.dtypes.get(spec.name, spec.dtype), spec.shape) for spec in self.source.specs
        )

    def arrays(self) -> dict[str, Array]:
        return {name: self._convert(name, array) for name, array in self.source.arrays().items()}

    def read(self, name: str, start: int, stop: int) -> Array:
        return self._convert(name, self.source.read(name, start, stop))

    def _convert(self, name: str, array: Array) -> Array:
        if name not in self.dtypes:
            return array
        with np.errstate(over="ignore", invalid="ignore"):  # a signalling NaN is the sender's affair
            other = array.astype(self.dtypes[name])
        other.flags.writeable = False  # as every tensor that was received
        return other


def _is_wider(dtype: np.dtype[Any], target: np.dtype[Any]) -> bool:
    return dtype.newbyteorder("=") in _WIDER and dtype.itemsize > target.itemsize


CODECS.register("cast", Cast)
