"""``topk(share)`` and ``stc(share)``: the greatest changes alone; with error feedback, so the others come later.

Law: of each matrix the ``share`` of elements with the greatest magnitudes is sent, the rest is lost for now. ``topk``
sends their values in float32 (Aji and Heafield, arXiv:1704.05021). ``stc`` sends their signs and their mean magnitude
(Sattler et al., "Robust and Communication-Efficient Federated Learning from Non-IID Data", arXiv:1903.02891).
The bytes are those of :mod:`fedpost.codecs.kernels.sparsify`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from fedpost.codecs.codec import CODECS, Notes
from fedpost.codecs.kernels.flat import Floats
from fedpost.codecs.kernels.sparsify import (
    decode_stc,
    decode_stc_range,
    decode_top,
    decode_top_range,
    encode_stc,
    encode_top,
)
from fedpost.codecs.lossy import SelfContained, number_text
from fedpost.errors import ConfigError

__all__ = ["Stc", "TopK"]


@dataclass(frozen=True, slots=True)
class _Share(SelfContained):
    """A share of the elements.

    Attributes:
        share: Of the elements that are sent, above 0 and at most 1.
    """

    share: float

    def __post_init__(self) -> None:
        try:
            share = float(self.share)
        except (ValueError, OverflowError):
            share = math.nan
        if not 0 < share <= 1:
            raise ConfigError(f"{self.share!r} is not a share of the elements", hint="Write it like 0.01.")
        object.__setattr__(self, "share", share)


@dataclass(frozen=True, slots=True)
class TopK(_Share):
    """The greatest changes as they are."""

    read = staticmethod(decode_top)
    read_range = staticmethod(decode_top_range)

    def pack(self, change: Floats, notes: Notes, number: int, *, lost: Floats | None) -> bytes:  # noqa: ARG002 - the contract
        """Places and values of the greatest."""
        return encode_top(change, self.share, residual=lost)

    def __str__(self) -> str:
        return f"topk({number_text(self.share)})"


@dataclass(frozen=True, slots=True)
class Stc(_Share):
    """Sparse ternary compression: the greatest changes as plus or minus their mean."""

    read = staticmethod(decode_stc)
    read_range = staticmethod(decode_stc_range)

    def pack(self, change: Floats, notes: Notes, number: int, *, lost: Floats | None) -> bytes:  # noqa: ARG002 - the contract
        """Places and signs of the greatest."""
        return encode_stc(change, self.share, residual=lost)

    def __str__(self) -> str:
        return f"stc({number_text(self.share)})"


CODECS.register("topk", TopK)
CODECS.register("stc", Stc)
