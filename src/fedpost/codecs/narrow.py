"""``int8``, ``int4`` and ``sign``: every change in a few bits.

Law: ``int8`` and ``int4`` scale blocks of 256 values by their greatest and round each at random to a neighbour, without
bias; a value is off by less than the block's greatest over 127 or 7 (Alistarh et al., "QSGD", arXiv:1610.02132).
``sign`` sends the sign of each and a matrix's mean magnitude, with error feedback (Karimireddy et al., 2019,
arXiv:1901.09847).
The bytes are those of :mod:`fedpost.codecs.kernels.blocks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from fedpost.codecs.codec import CODECS, Notes
from fedpost.codecs.eden import seed_of
from fedpost.codecs.kernels.blocks import (
    decode_blocks,
    decode_blocks_range,
    decode_signs,
    decode_signs_range,
    encode_blocks,
    encode_signs,
)
from fedpost.codecs.kernels.flat import Floats
from fedpost.codecs.kernels.streams import MAX_SEED
from fedpost.codecs.lossy import SelfContained
from fedpost.errors import DecodeError

__all__ = ["Int4", "Int8", "Sign"]


@dataclass(frozen=True, slots=True)
class _Blocks(SelfContained):
    """Integers of a few bits, scaled by block."""

    bits: ClassVar[Literal[4, 8]]
    keeps_account = False
    unbiased = True
    read = staticmethod(decode_blocks)
    read_range = staticmethod(decode_blocks_range)

    def prepare(self, changes: Mapping[str, Floats]) -> Notes:
        """A seed for the rounding."""
        return {"seed": seed_of(changes)}

    def pack(self, change: Floats, notes: Notes, number: int, *, lost: Floats | None) -> bytes:  # noqa: ARG002 - the contract
        """Scale and round."""
        return encode_blocks(change, self.bits, seed=int(str(notes["seed"])), stream=number)

    def check(self, notes: Mapping[str, Any], ranks: Mapping[int, int]) -> Mapping[str, Any]:  # noqa: ARG002 - the contract
        """A seed of 64 bits, though a reader does not need it."""
        seed = notes.get("seed")
        if type(seed) is not int or not 0 <= seed <= MAX_SEED:
            raise DecodeError("its seed is impossible", where=f"update codec {self}")
        return notes

    def __str__(self) -> str:
        return self.spelled(f"int{self.bits}")


@dataclass(frozen=True, slots=True)
class Int8(_Blocks):
    """Eight bits a value."""

    bits = 8


@dataclass(frozen=True, slots=True)
class Int4(_Blocks):
    """Four bits a value."""

    bits = 4


@dataclass(frozen=True, slots=True)
class Sign(SelfContained):
    """One bit a value."""

    read = staticmethod(decode_signs)
    read_range = staticmethod(decode_signs_range)

    def pack(self, change: Floats, notes: Notes, number: int, *, lost: Floats | None) -> bytes:  # noqa: ARG002 - the contract
        """Signs and the mean magnitude."""
        return encode_signs(change, residual=lost)

    def __str__(self) -> str:
        return self.spelled("sign")


CODECS.register("int8", Int8)
CODECS.register("int4", Int4)
CODECS.register("sign", Sign)
