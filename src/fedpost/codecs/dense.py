"""``dense``: the tensors as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fedpost.codecs.codec import CODECS, Notes
from fedpost.tensors import Array, TensorSource

__all__ = ["Dense"]


@dataclass(frozen=True, slots=True)
class Dense:
    """Sends every value as it is: lossless, and what every peer understands."""

    def encode(self, tensors: Mapping[str, Array]) -> tuple[Mapping[str, Array], Notes]:
        """The same tensors, without notes."""
        return tensors, {}

    def decode(self, source: TensorSource, notes: Notes) -> TensorSource:  # noqa: ARG002 - the contract
        """The same tensors."""
        return source

    def __str__(self) -> str:
        return "dense"


CODECS.register("dense", Dense)
