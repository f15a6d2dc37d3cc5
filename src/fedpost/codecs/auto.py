"""``auto(budget=1MB/round)``: ``uq`` with the finest step whose message keeps to a budget of bytes.

Law: that of ``uq(a)``, where ``a`` is one of :data:`LADDER`, a message's own. With the next finer step the message
would be over the budget. Where even the coarsest is over it, that one is sent, and the notes say so: ``over``. What
counts is the message's whole frame, or what is coded and its notes where there is none.

Notes: those of ``uq``; ``scale``, the ``a`` that was picked; ``nbytes``, the bytes of the tensors as they are sent;
``over``. How many bytes a step makes is guessed from the entropy of some of the values, then measured by coding: the
guess is corrected by each measurement, so two or three are enough.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from fedpost.codecs.changes import explained
from fedpost.codecs.codec import CODECS, Base, Capabilities, Encoding, Notes, Residual, carried, check_base
from fedpost.codecs.kernels.flat import Floats
from fedpost.codecs.lossy import MATRIX, REFUSE, laid_out, located, ranks_of
from fedpost.codecs.uq import Moments, Uq
from fedpost.errors import ConfigError, DecodeError
from fedpost.tensors import Array, TensorSource

__all__ = ["LADDER", "Auto", "Picked", "encoded_size"]

LADDER: Final = tuple(round(0.5 * 2 ** (number / 4), 3) for number in range(21))
"""Steps in root mean squares, the finest first: 0.5 to 16, four an octave."""

_UNITS: Final = {
    "GiB": 1 << 30,
    "GB": 10**9,
    "MiB": 1 << 20,
    "MB": 10**6,
    "KiB": 1 << 10,
    "kB": 10**3,
    "B": 1,
}
_SIZE: Final = re.compile(rf"([0-9]{{1,16}}(?:\.[0-9]{{1,9}})?)\s*({'|'.join(_UNITS)})(?:/round)?")
_MOST: Final = 1 << 50
_COARSEST: Final = len(LADDER) - 1
_SAMPLE: Final = 1 << 17
_LEAST_SAMPLE: Final = 1 << 9
_TENSOR_BYTES: Final = 32
_TAIL: Final = 32
_GUESSES: Final = 6
_CLASSES: Final = 0.8
"""Share of the entropy that is left, more or less, where rows and columns differ."""


class Picked(NamedTuple):
    """What :class:`Auto` made of a message.

    Attributes:
        scale: The step in root mean squares of the change: ``a`` of ``uq(a)``.
        nbytes: Bytes of the tensors as they were sent, without the frame around them.
        over: Whether the message is over the budget, though its step is the coarsest.
    """

    scale: float
    nbytes: int
    over: bool

    @classmethod
    def of(cls, notes: Notes) -> Picked:
        """What the notes of a message say.

        Raises:
            DecodeError: Something impossible.
        """
        scale, nbytes, over = (notes.get(name) for name in cls._fields)
        if type(scale) is not float or not LADDER[0] <= scale <= LADDER[-1]:
            raise DecodeError("its scale is impossible", where="update codec auto")
        if type(nbytes) is not int or nbytes < 0 or type(over) is not bool:
            raise DecodeError("its size is impossible", where="update codec auto")
        return cls(scale, nbytes, over)


@dataclass(frozen=True, slots=True)
class Auto:
    """Uniform quantization as fine as a budget allows.

    Attributes:
        budget: Bytes of one site's message in one round; as text with a unit: ``1MB``, ``64KiB/round``.
        nonfinite: As of ``uq``.
    """

    budget: int
    nonfinite: str = field(default=REFUSE, kw_only=True)

    def __post_init__(self) -> None:
        budget = _parsed(self.budget)
        if budget is None or not 1 <= budget <= _MOST:
            raise ConfigError(f"auto: {str(self.budget)[:80]!r} is not a budget", hint="Write it like 1MB/round.")
        object.__setattr__(self, "budget", budget)
        self._uq(LADDER[0])  # checks the other

    @property
    def needs_base(self) -> bool:
        """Yes."""
        return True

    @property
    def capabilities(self) -> Capabilities:
        """Those of ``uq``."""
        return self._uq(LADDER[0]).capabilities

    def _uq(self, scale: float) -> Uq:
        return Uq(scale, nonfinite=self.nonfinite)

    def encode(
        self, tensors: Mapping[str, Array], base: Base | None = None, residual: Residual | None = None
    ) -> Encoding:
        """As :meth:`encode_within`, where the message is what is coded and its notes."""
        return self.encode_within(tensors, base, residual, encoded_size)

    def encode_within(
        self,
        tensors: Mapping[str, Array],
        base: Base | None,
        residual: Residual | None,
        measure: Callable[[Encoding], int],
    ) -> Encoding:
        """Pick the step, and code.

        Args:
            tensors: The update, or the model, by name.
            base: What the receiver has already.
            residual: What this sender's last acknowledged update lost.
            measure: Tells how many bytes a message with an encoding has.

        Raises:
            ConfigError: There is no base.
            EncodeError: A value is NaN or infinite, or an entry is not an array.
        """
        base, changes = self._uq(LADDER[0]).changes(tensors, base, residual)
        with explained(tensors, base, residual, frozenset(changes)):
            encoding = self._encoded(tensors, base, changes, measure)
        return encoding._replace(residual={**encoding.residual, **carried(residual, tensors, changes)})

    def _encoded(
        self,
        tensors: Mapping[str, Array],
        base: Base,
        changes: Mapping[str, Floats],
        measure: Callable[[Encoding], int],
    ) -> Encoding:
        search = _Search(self.budget, tensors, base, changes, measure)
        chosen, coded, over = search.run()
        uq, notes = search.law(chosen)
        scratch = np.empty(max((change.size for change in changes.values()), default=0), np.float32)
        for number, name in enumerate(tensors):
            if name in changes:
                change = changes[name]
                decoded = scratch[: change.size].reshape(change.shape)
                uq.unpack(memoryview(coded[name]), notes, number, decoded)
                np.subtract(change, decoded, out=change)
                if tensors[name].itemsize < change.itemsize:
                    with located(name):
                        uq.book_rounding(coded[name], notes, number, base.tensors, name, change)
        return search.encoding(chosen, coded, over=over)._replace(residual=changes)

    def decode(self, source: TensorSource, notes: Notes, base: Base | None = None) -> TensorSource:
        """Add the changes to the base, as ``uq`` does.

        Raises:
            DecodeError: There is no base, it is another than the sender's, or the notes do not fit the tensors.
        """
        base = check_base(notes, base, str(self))
        picked = Picked.of(notes)
        if picked.nbytes != sum(spec.nbytes for spec in source.specs):
            raise DecodeError("its tensors have another size", where=f"update codec {self}")
        return Uq(picked.scale).decode(source, notes, base)

    def __str__(self) -> str:
        return self._uq(LADDER[0]).spelled("auto", f"budget={_written(self.budget)}/round")


def encoded_size(encoding: Encoding) -> int:
    """Bytes of an encoding without a frame: its tensors and its notes."""
    return _nbytes(encoding.tensors) + len(msgspec.msgpack.encode(encoding.notes))


def _nbytes(tensors: Mapping[str, Array]) -> int:
    return sum(array.nbytes for array in tensors.values())


def _parsed(budget: object) -> int | None:
    if not isinstance(budget, str):
        return budget if type(budget) is int else None
    match = _SIZE.fullmatch(budget.strip())
    return int(Decimal(match[1]) * _UNITS[match[2]]) if match else None


def _written(size: int) -> str:
    """A size in the largest unit in which it is exact: whole, or in units of ten with at most three decimals."""
    for unit, factor in _UNITS.items():
        number = Decimal(size) / factor
        digits = 0 if unit.endswith("iB") else 3
        if number >= 1 and number == round(number, digits):
            return f"{number.normalize():f}{unit}"
    return f"{size}B"


class _Search:
    """The finest step within the budget, and what was measured on the way."""

    def __init__(
        self,
        budget: int,
        tensors: Mapping[str, Array],
        base: Base,
        changes: Mapping[str, Floats],
        measure: Callable[[Encoding], int],
    ) -> None:
        self._budget = budget
        self._tensors = tensors
        self._changes = changes
        self._measure = measure
        self._moments = Moments.of(changes)
        self._ranks = ranks_of(tensors, changes)
        self._notes = {"base": base.digest, "whole": [name for name in tensors if name not in changes]}
        self._samples = list(_samples(changes))
        whole = sum(tensors[name].nbytes for name in tensors if name not in changes)
        self._around = whole + _TENSOR_BYTES * len(tensors)
        self._factor = _CLASSES
        self._guesses: dict[int, float] = {}

    def law(self, rung: int) -> tuple[Uq, Mapping[str, Any]]:
        """The codec of a step, and its notes as it takes them."""
        uq = Uq(LADDER[rung])
        return uq, uq.check({"steps": self._steps(rung)}, self._ranks)

    def _steps(self, rung: int) -> list[float]:
        return self._moments.steps(LADDER[rung])

    def encoding(self, rung: int, coded: Mapping[str, bytes], *, over: bool) -> Encoding:
        """What is sent, without the account of what is lost."""
        out = laid_out(self._tensors, coded)
        told = {"scale": LADDER[rung], "nbytes": _nbytes(out), "over": over}
        return Encoding(out, {**self._notes, "steps": self._steps(rung), **told})

    def run(self) -> tuple[int, dict[str, bytes], bool]:
        """The step's place, what it codes to, and whether that is over the budget."""
        finer, fits = -1, len(LADDER)  # the coarsest that is over it, and the finest that is not
        best: dict[str, bytes] = {}
        tries = 0
        while fits - finer > 1:
            guess = self._best() if tries < _GUESSES else (finer + fits) // 2
            rung = min(max(guess, finer + 1), fits - 1)
            coded = self._coded(rung)
            size = self._measure(self.encoding(rung, coded, over=False))
            tries += 1
            packed = sum(map(len, coded.values()))
            self._around, self._factor = size - packed, packed / max(self._guess(rung), 1)
            if size <= self._budget:
                fits, best = rung, coded
            else:
                finer = rung
                if rung == _COARSEST:
                    return rung, coded, True
        return fits, best, False

    def _coded(self, rung: int) -> dict[str, bytes]:
        uq, notes = self.law(rung)
        out = {}
        for number, name in enumerate(self._tensors):
            if name in self._changes:
                with located(name):
                    out[name] = uq.pack(self._changes[name], notes, number, lost=None)
        return out

    def _best(self) -> int:
        """The finest step that should be within the budget."""
        room = self._budget - self._around
        return next((rung for rung in range(len(LADDER)) if self._factor * self._guess(rung) <= room), _COARSEST)

    def _guess(self, rung: int) -> float:
        """Bytes of what is coded, as if every value were coded by itself."""
        if rung not in self._guesses:
            matrices, *vectors = self._steps(rung)
            steps = iter(vectors)
            bits = (
                _entropy(sample, next(steps) if vector else matrices) * size for sample, vector, size in self._samples
            )
            self._guesses[rung] = sum(bits) / 8 + 8 * len(self._samples)
        return self._guesses[rung]


def _samples(changes: Mapping[str, Floats]) -> list[tuple[Floats, bool, int]]:
    """Of each tensor the magnitudes of some values, drawn alike each time; whether it is a vector; and its size."""
    total = sum(change.size for change in changes.values())
    chance = np.random.default_rng(0)
    out = []
    for change in changes.values():
        flat = change.reshape(-1)
        count = max(_LEAST_SAMPLE, _SAMPLE * flat.size // total)
        drawn = flat if count >= flat.size else flat[chance.integers(0, flat.size, count)]
        out.append((np.abs(drawn), change.ndim < MATRIX, flat.size))
    return out


def _entropy(magnitudes: Floats, step: float) -> float:
    """Bits a value, sign included; what is far out counts as if it were in Elias gamma."""
    if not step:
        return 0.0
    with np.errstate(over="ignore"):
        quantized = np.rint(np.minimum(magnitudes / np.float32(step), 1 << 24)).astype(np.int64)
    counts = np.bincount(np.minimum(quantized, _TAIL))
    counts = counts[counts > 0]
    entropy = float((counts * np.log2(quantized.size / counts)).sum())
    far = quantized[quantized > _TAIL]
    signs = np.count_nonzero(quantized)
    tail = 2 * float(np.log2(far - _TAIL).sum()) + far.size
    bits: float = (entropy + signs + tail) / quantized.size
    return bits


CODECS.register("auto", Auto)
