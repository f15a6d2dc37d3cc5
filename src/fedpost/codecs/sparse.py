"""``topk(share)`` and ``stc(share)``: the greatest changes alone; with error feedback, so the others come later.

Law: of all matrices together the ``share`` of elements with the greatest magnitudes is sent, the rest is lost for now;
of a matrix it may be none. ``topk`` sends their values in float32 (Aji and Heafield, arXiv:1704.05021). ``stc`` sends
their signs and the mean magnitude of those of their matrix (Sattler et al., "Robust and Communication-Efficient
Federated Learning from Non-IID Data", arXiv:1903.02891). The bytes are those of
:mod:`fedpost.codecs.kernels.sparsify`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fedpost.codecs.codec import CODECS
from fedpost.codecs.kernels.flat import Floats
from fedpost.codecs.kernels.places import cuts
from fedpost.codecs.kernels.sparsify import (
    decode_stc,
    decode_stc_range,
    decode_top,
    decode_top_range,
    encode_stc,
    encode_top,
)
from fedpost.codecs.lossy import Lossy, SelfContained, number_text
from fedpost.errors import ConfigError

__all__ = ["Stc", "TopK"]

_CUTS: Final = "cuts"


@dataclass(frozen=True, slots=True)
class _Share(SelfContained):
    """A share of the elements.

    Attributes:
        share: Of the elements that are sent, above 0 and at most 1.
    """

    share: float

    def __post_init__(self) -> None:
        Lossy.__post_init__(self)
        try:
            share = float(self.share)
        except (ValueError, OverflowError):
            share = math.nan
        if not 0 < share <= 1:
            raise ConfigError(f"{self.share!r} is not a share of the elements", hint="Write it like 0.01.")
        object.__setattr__(self, "share", share)

    def planned(
        self, changes: Mapping[str, Floats], ranks: Mapping[int, int], notes: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Where each tensor is cut."""
        found = cuts([change.reshape(-1) for change in changes.values()], self.share)
        return {**notes, _CUTS: dict(zip(ranks, found, strict=True))}


@dataclass(frozen=True, slots=True)
class TopK(_Share):
    """The greatest changes as they are."""

    read = staticmethod(decode_top)
    read_range = staticmethod(decode_top_range)

    def pack(self, change: Floats, notes: Mapping[str, Any], number: int, *, lost: Floats | None) -> bytes:
        """Places and values of the greatest."""
        return encode_top(change, notes[_CUTS][number], residual=lost)

    def __str__(self) -> str:
        return self.spelled("topk", number_text(self.share))


@dataclass(frozen=True, slots=True)
class Stc(_Share):
    """Sparse ternary compression: the greatest changes as plus or minus their mean."""

    read = staticmethod(decode_stc)
    read_range = staticmethod(decode_stc_range)

    def pack(self, change: Floats, notes: Mapping[str, Any], number: int, *, lost: Floats | None) -> bytes:
        """Places and signs of the greatest."""
        return encode_stc(change, notes[_CUTS][number], residual=lost)

    def __str__(self) -> str:
        return self.spelled("stc", number_text(self.share))


CODECS.register("topk", TopK)
CODECS.register("stc", Stc)
