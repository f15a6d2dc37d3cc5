"""``dense``: the tensors as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fedpost.codecs.codec import CODECS, Base, Capabilities, Encoding, Notes, Residual
from fedpost.tensors import Array, TensorSource

__all__ = ["Dense"]


@dataclass(frozen=True, slots=True)
class Dense:
    """Sends every value as it is: lossless, and what every peer understands."""

    @property
    def needs_base(self) -> bool:
        """No."""
        return False

    @property
    def capabilities(self) -> Capabilities:
        """All that needs no account and no base."""
        return Capabilities(linear=True, unbiased=True, lossless=True)

    def encode(
        self,
        tensors: Mapping[str, Array],
        base: Base | None = None,  # noqa: ARG002 - the contract
        residual: Residual | None = None,  # noqa: ARG002 - the contract
    ) -> Encoding:
        """The same tensors, without notes."""
        return Encoding(tensors, {})

    def decode(
        self,
        source: TensorSource,
        notes: Notes,  # noqa: ARG002 - the contract
        base: Base | None = None,  # noqa: ARG002 - the contract
    ) -> TensorSource:
        """The same tensors."""
        return source

    def __str__(self) -> str:
        return "dense"


CODECS.register("dense", Dense)
