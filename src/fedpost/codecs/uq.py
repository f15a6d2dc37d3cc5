"""``uq(a)``: uniform quantization with error feedback, the default lossy codec.

Law: one step for all matrices of the update, ``a`` times the root mean square of their changes; what is nearer to zero
than half of it is zero, everything else is off by at most half of it. A vector (biases, statistics of normalization)
has the step ``a / 8`` times the root mean square of all vectors, or ``a`` times its own where that is less: else a
small one beside others that move much would never move. No step is above the greatest change, or changes that are all
alike would never be sent. What is lost goes into the next update. A vector that has nothing below zero, neither in the
base nor now, is sent as it is: of a variance that came out negative a model would take the root.

The bytes are those of :mod:`fedpost.codecs.kernels.uniform`. Notes: ``steps``, that of the matrices and then that of
each vector that is coded, in order, float32; 0 where nothing changed, and then nothing is sent. The method follows
NNCodec (ISO/IEC 15938-17) and Seide et al. (2014).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

import numpy as np

from fedpost.codecs.codec import CODECS, Notes
from fedpost.codecs.kernels.flat import Floats
from fedpost.codecs.kernels.uniform import decode_range, decode_tensor, encode_tensor
from fedpost.codecs.lossy import MATRIX, Lossy, number_text
from fedpost.errors import ConfigError, DecodeError, EncodeError
from fedpost.tensors import Array, TensorSource

__all__ = ["Moment", "Moments", "Uq"]

_FINER: Final = 8
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
        Lossy.__post_init__(self)
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

    def pack(self, change: Floats, notes: Notes, number: int, *, lost: Floats | None) -> bytes:
        """Quantize, and code what is not zero."""
        step = _step(notes, number, change.ndim)
        if not step:
            return b""
        return encode_tensor(change, step, residual=lost, block_bits=_BLOCK_BITS)

    def check(self, notes: Mapping[str, Any], ranks: Mapping[int, int]) -> Mapping[str, Any]:
        """A step of the matrices and one for each vector, none negative; and which is whose."""
        steps = notes.get("steps")
        vectors = [number for number, rank in ranks.items() if rank < MATRIX]
        if (
            not isinstance(steps, list | tuple)
            or len(steps) != 1 + len(vectors)
            or not all(type(step) is float for step in steps)
            or not all(0 <= step <= _GREATEST and float(np.float32(step)) == step for step in steps)
        ):
            raise DecodeError("its steps are impossible", where=f"update codec {self}")
        return {**notes, "steps": (steps[0], dict(zip(vectors, steps[1:], strict=True)))}

    def unpack(self, data: memoryview, notes: Mapping[str, Any], number: int, out: Floats) -> None:
        """Read a whole tensor."""
        step = _step(notes, number, out.ndim)
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
        step = _step(notes, number, len(shape))
        if step:
            return decode_range(data, step, shape, start, stop)
        out = np.empty(shape, np.float32)
        self.unpack(data, notes, number, out)
        return out.reshape(-1)[start:stop]

    def stays_whole(self, name: str, array: Array, base: TensorSource) -> bool:
        """A vector without anything below zero."""
        if array.ndim >= MATRIX:
            return False
        with np.errstate(invalid="ignore"):  # a NaN, which is refused later
            return bool((array >= 0).all() and (base.read(name, 0, array.size) >= 0).all())

    def __str__(self) -> str:
        return self.spelled("uq", number_text(self.scale))


def _step(notes: Mapping[str, Any], number: int, rank: int) -> float:
    """The step of a tensor, of notes as :meth:`Uq.check` gives them."""
    matrices, vectors = notes["steps"]
    step: float = vectors[number] if rank < MATRIX else matrices
    return step


class Moment(NamedTuple):
    """What the step of some values depends on.

    Attributes:
        square: Sum of squares.
        size: Number of elements.
        greatest: Greatest magnitude.
    """

    square: float = 0.0
    size: int = 0
    greatest: float = 0.0

    def joined(self, other: Moment) -> Moment:
        """That of both."""
        return Moment(self.square + other.square, self.size + other.size, max(self.greatest, other.greatest))

    def rms(self, scale: float) -> float:
        """A multiple of the root mean square."""
        return scale * math.sqrt(self.square / self.size) if self.size else 0.0


@dataclass(frozen=True, slots=True)
class Moments:
    """What the steps of an update depend on.

    Attributes:
        matrices: Of all matrices together.
        vectors: Of each vector.
    """

    matrices: Moment
    vectors: tuple[Moment, ...]

    @classmethod
    def of(cls, changes: Mapping[str, Floats]) -> Self:
        """Those of an update.

        Raises:
            EncodeError: It has a NaN or an infinity.
        """
        matrices, vectors = Moment(), []
        for name, change in changes.items():
            square, greatest = _sum_of_squares(change)
            if not math.isfinite(square):
                raise EncodeError(
                    "it has a NaN or an infinity",
                    where=f"tensor {name!r}",
                    hint="Send it with delta or dense, or as it is: nonfinite=whole.",
                )
            moment = Moment(square, change.size, greatest)
            if change.ndim < MATRIX:
                vectors.append(moment)
            else:
                matrices = matrices.joined(moment)
        return cls(matrices, tuple(vectors))

    def steps(self, scale: float) -> list[float]:
        """That of the matrices, and that of each vector; 0 where nothing changed."""
        together = Moment()
        for vector in self.vectors:
            together = together.joined(vector)
        common = together.rms(scale / _FINER)
        steps = [min(self.matrices.rms(scale), self.matrices.greatest)]
        steps += [min(common, vector.rms(scale), vector.greatest) for vector in self.vectors]
        return [float(np.float32(step)) for step in steps]


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
