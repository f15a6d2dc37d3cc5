"""The peers of the table: NNCodec and SZ3 with what the table says of them, error feedback and a step of their own.

Rules: a stream is what the peer wrote, and it is decoded by the peer.
"""

from __future__ import annotations

from typing import Final

from update_peers import NNCodecCoder, SZ3Coder, norm

from fashion.coders import PipelineCoder, Tensors
from fedpost.codecs import Base, Residual
from fedpost.tensors import Array

__all__ = ["SZ3", "NNCodec"]

_EQUAL: Final = "uq(2.75) | fedwt | none"


class NNCodec:
    """NNCodec with error feedback, at the error of ``uq(2.75)``.

    Its step, relative to the root mean square of the update, is found on the first update, and then kept.
    """

    def __init__(self) -> None:
        self._coder = NNCodecCoder()
        self._step: int | None = None
        self._facts: dict[str, float] = {}

    def encode(self, tensors: Tensors, base: Base, residual: Residual | None) -> tuple[bytes, Residual]:
        """Code what changed, and what was lost before."""
        change = _changes(tensors, base, residual)
        if self._step is None:
            self._step = self._calibrate(change, tensors, base)
        data = self._coder.code(change, self._step)
        return data, _less(change, self._coder.read(data, change))

    def decode(self, data: bytes, base: Base) -> dict[str, Array]:
        """Add what it decodes to the base."""
        old = base.tensors.arrays()
        return {name: old[name] + change for name, change in self._coder.read(data, old).items()}

    def facts(self) -> dict[str, float]:
        """The steps of the parameter above the root mean square, and the errors on the first update."""
        return self._facts

    def _calibrate(self, change: dict[str, Array], tensors: Tensors, base: Base) -> int:
        """The coarsest parameter with no more error than ours on this update."""
        data, lost = PipelineCoder(_EQUAL).encode(tensors, base, None)
        most = norm(lost) / norm(change)

        def error(step: int) -> float:
            return norm(_less(change, self._coder.read(self._coder.code(change, step), change))) / norm(change)

        low, high = -4 * NNCodecCoder.OCTAVE, 4 * NNCodecCoder.OCTAVE  # a sixteenth of the root mean square to sixteen
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if error(middle) <= most else (low, middle)
        self._facts = {
            "above": low,
            "error": error(low),
            "uq_error": most,
            "bytes": len(self._coder.code(change, low)),
            "uq_bytes": len(data),
        }
        return low


class SZ3:
    """SZ3 on what changed, without feedback."""

    def __init__(self) -> None:
        self._coder = SZ3Coder()

    def encode(self, tensors: Tensors, base: Base, residual: Residual | None) -> tuple[bytes, Residual]:  # noqa: ARG002 - stateless
        """Code what changed."""
        return self._coder.code(_changes(tensors, base, None)), {}

    def decode(self, data: bytes, base: Base) -> dict[str, Array]:
        """Add what it decodes to the base, whose tensors come in the same order."""
        old = base.tensors.arrays()
        return {name: old[name] + change for name, change in self._coder.read(data, old).items()}

    def facts(self) -> dict[str, float]:
        """The bound."""
        return {"bound": SZ3Coder.BOUND}


def _changes(tensors: Tensors, base: Base, residual: Residual | None) -> dict[str, Array]:
    old = base.tensors.arrays()
    lost = residual or {}
    return {
        name: tensors[name] - array + lost[name] if name in lost else tensors[name] - array
        for name, array in old.items()
    }


def _less(one: Tensors, other: Tensors) -> dict[str, Array]:
    return {name: array - other[name] for name, array in one.items()}
