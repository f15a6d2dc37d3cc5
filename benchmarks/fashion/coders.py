"""What makes bytes of an update, and an update of bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from fedpost.codecs import Base, Residual
from fedpost.frame import Frame
from fedpost.pipeline import Pipeline, decode_tensors
from fedpost.tensors import Array

__all__ = ["Coder", "PipelineCoder", "Tensors"]

Tensors = Mapping[str, Array]


class Coder(Protocol):
    """One way of a sender's updates."""

    def encode(self, tensors: Tensors, base: Base, residual: Residual | None) -> tuple[bytes, Residual]:
        """The bytes of an update, and what it loses."""

    def decode(self, data: bytes, base: Base) -> dict[str, Array]:
        """The tensors, from the bytes and the base alone."""

    def facts(self) -> dict[str, float]:
        """What it has chosen, for the record."""


class PipelineCoder:
    """Frames of a pipeline, whole as they would be sent.

    Args:
        spec: The pipeline.
    """

    def __init__(self, spec: str) -> None:
        self._pipeline = Pipeline.parse(spec)

    def encode(self, tensors: Tensors, base: Base, residual: Residual | None) -> tuple[bytes, Residual]:
        """All buffers of the frame, joined."""
        frame, lost = self._pipeline.encode_update(tensors, base=base, residual=residual)
        return b"".join(frame.buffers()), lost

    def decode(self, data: bytes, base: Base) -> dict[str, Array]:
        """Read the frame."""
        return decode_tensors(Frame.decode(data), base=base).arrays()

    def facts(self) -> dict[str, float]:
        """Nothing."""
        return {}
