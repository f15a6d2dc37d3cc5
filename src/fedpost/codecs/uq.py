"""``uq(a)``: uniform quantization with error feedback, the default lossy codec.

Law: one step for all matrices of the update, ``a`` times the root mean square of their changes; what is nearer to zero
than half of it is zero, everything else is off by at most half of it. Vectors (biases, statistics of normalization)
have a step of their own, ``a / 8`` times their root mean square. No step is above the greatest change, or changes that
are all alike would never be sent. What is lost goes into the next update.

The bytes are those of :mod:`fedpost.codecs.kernels.uniform`. Notes: ``steps``, that of the matrices and that of the
vectors, float32; 0 where nothing changed, and then nothing is sent. The method follows NNCodec (ISO/IEC 15938-17) and
Seide et al. (2014).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np

from fedpost.codecs.codec import CODECS, Notes
from fedpost.codecs.kernels.flat import Floats
from fedpost.codecs.kernels.uniform import decode_range, decode_tensor, encode_tensor
from fedpost.codecs.lossy import Lossy, number_text
from fedpost.errors import ConfigError, DecodeError, EncodeError

__all__ = ["Moments", "Uq"]

_FINER: Final = 8
_MATRIX: Final = 2
_LEAST, _MOST = 0.01, 16.0
_BLOCK_BITS: Final = 19
_PIECE: Final = 1 << 13
"""Elements that are squared at a time: of more the product would be shared out to threads, which takes longer."""
_GREATEST: Final = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class Uq(Lossy):
    """Uniform quantization.

    Attributes:
        scale: The step, in root mean squares of the change: 1 to 4 is usual, the smaller the finer.
    """

    scale: float

    codes_vectors = True

    def __post_init__(self) -> None:
        try:
            scale = float(self.scale)
        except (ValueError, OverflowError):
            scale = math.nan
        if not _LEAST <= scale <= _MOST:
            raise ConfigError(f"uq({self.scale}): the step is {_LEAST:g} to {_MOST:g} root mean squares")
        object.__setattr__(self, "scale", scale)

    def prepare(self, changes: Mapping[str, Floats]) -> Notes:
        """The steps of this update."""
        return {"steps": Moments.of(changes).steps(self.scale)}

    def pack(self, change: Floats, notes: Notes, number: int, *, lost: Floats | None) -> bytes:  # noqa: ARG002 - the contract
        """Quantize, and code what is not zero."""
        step = _step(notes, change.ndim)
        if not step:
            return b""
        return encode_tensor(change, step, residual=lost, block_bits=_BLOCK_BITS)

    def check(self, notes: Mapping[str, Any]) -> None:
        """Two steps, none negative."""
        steps = notes.get("steps")
        if (
            not isinstance(steps, list | tuple)
            or [type(step) for step in steps] != [float, float]
            or not all(0 <= step <= _GREATEST and float(np.float32(step)) == step for step in steps)
        ):
            raise DecodeError("its steps are impossible", where=f"update codec {self}")

    def unpack(self, data: memoryview, notes: Mapping[str, Any], number: int, out: Floats) -> None:  # noqa: ARG002 - the contract
        """Read a whole tensor."""
        step = _step(notes, out.ndim)
        if step:
            decode_tensor(data, step, out)
            return
        if data.nbytes:
            raise DecodeError("bytes of a change without a step")
        out[...] = 0

    def unpack_range(
        self, data: memoryview, notes: Mapping[str, Any], number: int, shape: tuple[int, ...], start: int, stop: int
    ) -> Floats:
        """Read the blocks that hold a range."""
        step = _step(notes, len(shape))
        if step:
            return decode_range(data, step, shape, start, stop)
        out = np.empty(shape, np.float32)
        self.unpack(data, notes, number, out)
        return out.reshape(-1)[start:stop]

    def __str__(self) -> str:
        return f"uq({number_text(self.scale)})"


def _step(notes: Mapping[str, Any], rank: int) -> float:
    step: float = notes["steps"][rank < _MATRIX]
    return step


@dataclass(frozen=True, slots=True)
class Moments:
    """What the steps of an update depend on, of matrices and of vectors.

    Attributes:
        squares: Sum of squares.
        counts: Number of elements.
        greatest: Greatest magnitude.
    """

    squares: tuple[float, float]
    counts: tuple[int, int]
    greatest: tuple[float, float]

    @classmethod
    def of(cls, changes: Mapping[str, Floats]) -> Self:
        """Those of an update.

        Raises:
            EncodeError: It has a NaN or an infinity.
        """
        squares, counts, greatest = [0.0, 0.0], [0, 0], [0.0, 0.0]
        for name, change in changes.items():
            vector = change.ndim < _MATRIX
            square, most = _sum_of_squares(change)
            if not math.isfinite(square):
                raise EncodeError(
                    "it has a NaN or an infinity",
                    where=f"tensor {name!r}",
                    hint="Send it with the codec delta or dense.",
                )
            squares[vector] += square
            counts[vector] += change.size
            greatest[vector] = max(greatest[vector], most)
        return cls((squares[0], squares[1]), (counts[0], counts[1]), (greatest[0], greatest[1]))

    def steps(self, scale: float) -> list[float]:
        """That of the matrices and that of the vectors; 0 where nothing changed."""
        steps = []
        for square, count, most, part in zip(
            self.squares, self.counts, self.greatest, (scale, scale / _FINER), strict=True
        ):
            step = part * math.sqrt(square / count) if count else 0.0
            steps.append(float(np.float32(min(step, most))))
        return steps


def _sum_of_squares(change: Floats) -> tuple[float, float]:
    """It and the greatest magnitude, in float64, without a copy of the whole."""
    flat = change.reshape(-1)
    buffer = np.empty(min(flat.size, _PIECE))
    total = greatest = 0.0
    for start in range(0, flat.size, _PIECE):
        part = flat[start : start + _PIECE]
        greatest = max(greatest, float(part.max()), -float(part.min()))
        piece = buffer[: part.size]
        np.copyto(piece, part)
        total += float(np.dot(piece, piece))
    return total, greatest


CODECS.register("uq", Uq)
