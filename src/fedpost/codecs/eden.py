"""``eden(bits)``: rotation and one to four bits a value, without state; for sites that are seen once.

Law: the relative error of the decoded change is about 0.76, 0.37, 0.19 and 0.10 for 1 to 4 bits, and it is right on
average as far as a rotated block looks like noise: the larger a block is and the more of its values count, the nearer;
not for a few values, nor for one that outweighs the others, so nothing is promised
(Vargaftik et al., "EDEN: Communication-Efficient and Robust Distributed Mean Estimation", ICML 2022). Only matrices are
coded. The bytes are those of :mod:`fedpost.codecs.kernels.eden`. Notes: ``seed``, of 64 bits, from the update itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import blake3
import numpy as np

from fedpost.codecs.codec import CODECS, Notes
from fedpost.codecs.kernels.eden import CENTROIDS, decode_eden, decode_eden_range, encode_eden
from fedpost.codecs.kernels.flat import Floats
from fedpost.codecs.kernels.streams import MAX_SEED
from fedpost.codecs.lossy import Lossy
from fedpost.errors import ConfigError, DecodeError

__all__ = ["Eden", "seed_of"]


@dataclass(frozen=True, slots=True)
class Eden(Lossy):
    """Random rotation, then the nearest of the levels that are best for a normal distribution.

    Attributes:
        bits: Bits a value, 1 to 4.
    """

    bits: int

    keeps_account = False

    def __post_init__(self) -> None:
        Lossy.__post_init__(self)
        if str(self.bits) not in map(str, CENTROIDS):
            raise ConfigError(f"eden({self.bits}): 1 to 4 bits are possible")
        object.__setattr__(self, "bits", int(self.bits))

    def prepare(self, changes: Mapping[str, Floats]) -> Notes:
        """A seed of this update's own."""
        return {"seed": seed_of(changes)}

    def pack(self, change: Floats, notes: Notes, number: int, *, lost: Floats | None) -> bytes:  # noqa: ARG002 - the contract
        """Rotate and round."""
        return encode_eden(change, self.bits, int(str(notes["seed"])), stream=number)

    def check(self, notes: Mapping[str, Any], ranks: Mapping[int, int]) -> Mapping[str, Any]:  # noqa: ARG002 - the contract
        """A seed of 64 bits."""
        seed = notes.get("seed")
        if type(seed) is not int or not 0 <= seed <= MAX_SEED:
            raise DecodeError("its seed is impossible", where=f"update codec {self}")
        return notes

    def unpack(self, data: memoryview, notes: Mapping[str, Any], number: int, out: Floats) -> None:
        """Rotate back a whole tensor."""
        decode_eden(data, notes["seed"], out, stream=number)

    def unpack_range(
        self, data: memoryview, notes: Mapping[str, Any], number: int, shape: tuple[int, ...], start: int, stop: int
    ) -> Floats:
        """Rotate back the blocks that hold a range."""
        return decode_eden_range(data, notes["seed"], math.prod(shape), start, stop, stream=number)

    def __str__(self) -> str:
        return self.spelled("eden", str(self.bits))


def seed_of(changes: Mapping[str, Floats]) -> int:
    """A seed that another update does not have: a digest of the values."""
    hasher = blake3.blake3()
    for change in changes.values():
        hasher.update(change.reshape(-1).view(np.uint8).data)
    return int.from_bytes(hasher.digest()[:8], "little")


CODECS.register("eden", Eden)
