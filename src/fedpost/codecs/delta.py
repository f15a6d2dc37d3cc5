"""``delta``: what changed since a base, as the XOR of the bits.

Law: every value comes back to the bit, NaN payloads, -0.0 and subnormal numbers among them; a difference of floats
would not do that. Each tensor keeps its element type and shape, so that a compression that looks at floats still sees
them: numbers that changed little agree in their sign, exponent and first bits, which become zeros. A tensor that the
base has not, or has in another type or shape, or whose type is no number, is sent as it is.

Notes: ``base``, the 16 bytes of the base's digest, and ``whole``, the names of what is sent as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedpost.codecs.codec import CODECS, Base, Capabilities, Encoding, Notes, Residual, check_base
from fedpost.errors import ConfigError, DecodeError
from fedpost.tensors import Array, TensorSource, TensorSpec
from fedpost.tensors.dtypes import is_number
from fedpost.tensors.format import name_of

__all__ = ["Delta"]


@dataclass(frozen=True, slots=True)
class Delta:
    """Sends the bits that differ from the base's."""

    @property
    def needs_base(self) -> bool:
        """Yes."""
        return True

    @property
    def capabilities(self) -> Capabilities:
        """Nothing is lost; the XOR of a sum is not the sum of the XORs."""
        return Capabilities(unbiased=True, lossless=True, needs_base=True)

    def encode(
        self,
        tensors: Mapping[str, Array],
        base: Base | None = None,
        residual: Residual | None = None,  # noqa: ARG002 - nothing is lost
    ) -> Encoding:
        """XOR with the base; the notes name it, and the tensors that it could not serve for.

        Raises:
            ConfigError: There is no base.
            EncodeError: An entry is not an array, or its element type has no bytes.
        """
        if base is None:
            raise ConfigError("the update codec delta needs a base", hint="Give the model that the receiver has.")
        old = {spec.name: spec for spec in base.tensors.specs}
        out: dict[str, Array] = {}
        whole: list[str] = []
        for name, array in tensors.items():
            name_of(name, array)
            if name in old and _fits(old[name], array.dtype, array.shape):
                flat = base.tensors.read(name, 0, array.size)
                out[name] = _xor(array, flat)
            else:
                out[name] = array
                whole.append(name)
        return Encoding(out, {"base": base.digest, "whole": whole})

    def decode(self, source: TensorSource, notes: Notes, base: Base | None = None) -> TensorSource:
        """XOR again, tensor by tensor or range by range.

        Raises:
            DecodeError: There is no base, it is another than the sender's, or the notes do not fit the tensors.
        """
        base = check_base(notes, base, "delta")
        whole: Any = notes.get("whole")
        specs = {spec.name: spec for spec in source.specs}
        named = isinstance(whole, list | tuple) and all(isinstance(name, str) and name in specs for name in whole)
        if not named:
            raise DecodeError("its notes do not fit the tensors", where="update codec delta")
        old = {spec.name: spec for spec in base.tensors.specs}
        kept = frozenset(whole)
        changed = [name for name in specs if name not in kept]
        for name in changed:
            if name not in old or not _fits(old[name], specs[name].dtype, specs[name].shape):
                raise DecodeError("the base has no such tensor", where=f"tensor {name!r}")
        return _Changed(source, base.tensors, frozenset(changed))

    def __str__(self) -> str:
        return "delta"


@dataclass(frozen=True, slots=True)
class _Changed:
    source: TensorSource
    base: TensorSource
    names: frozenset[str]

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        return self.source.specs

    def arrays(self) -> dict[str, Array]:
        out = self.source.arrays()
        for name in self.names:
            array = out[name]
            out[name] = _locked(_xor(array, self.base.read(name, 0, array.size)))
        return out

    def read(self, name: str, start: int, stop: int) -> Array:
        array = self.source.read(name, start, stop)
        return _locked(_xor(array, self.base.read(name, start, stop))) if name in self.names else array


def _fits(old: TensorSpec, dtype: np.dtype[Any], shape: tuple[int, ...]) -> bool:
    return (old.dtype, old.shape) == (dtype, shape) and is_number(dtype)


def _xor(array: Array, other: Array) -> Array:
    """The bits in which an array differs from as many elements of its type, as an array of its type and shape."""
    out = np.empty(array.shape, array.dtype)
    word = np.dtype(f"u{out.itemsize}") if out.itemsize in {1, 2, 4, 8} else np.dtype(np.uint8)
    one, two = (np.ascontiguousarray(part).reshape(-1).view(word) for part in (array, other))
    np.bitwise_xor(one, two, out=out.reshape(-1).view(word))
    return out


def _locked(array: Array) -> Array:
    array.flags.writeable = False  # as every tensor that was received
    return array


CODECS.register("delta", Delta)
