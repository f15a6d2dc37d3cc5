"""Chains of stages: ``delta | uq(2) | rc``, and which stage may follow which.

Rules: each stage takes something and gives something, and the next one takes that. ``delta`` before a lossy codec and
``rc`` after a quantizer go without saying, so a chain is brought into its shortest form: ``delta | uq(2) | rc`` *is*
``uq(2)``. The one form that is more than a single codec is a cast before another codec: :class:`Chain`.

====================================  =============  =====================
stage                                 takes          gives
====================================  =============  =====================
``cast``                              a model        a model
``delta``                             a model        a change
``uq``, ``auto``                      a change       symbols
``topk``, ``stc``, ``eden``,          a change       coded bytes
``int8``, ``int4``, ``sign``
``rc``                                symbols        coded bytes
``dense``                             a model        tensors as they are
====================================  =============  =====================

A chain ends wherever what was given can be sent: a model as it is, a change as its bits, symbols by ``rc``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np

from fedpost.codecs.auto import Auto
from fedpost.codecs.cast import Cast
from fedpost.codecs.codec import (
    Base,
    Budgeted,
    Capabilities,
    Codec,
    Encoding,
    Notes,
    Residual,
    capabilities_of,
    carried,
    check_base,
)
from fedpost.codecs.delta import Delta
from fedpost.codecs.dense import Dense
from fedpost.codecs.lossy import Lossy
from fedpost.codecs.patterns import ByPattern
from fedpost.codecs.uq import Uq
from fedpost.errors import ConfigError, DecodeError
from fedpost.tensors import Array, TensorSource

__all__ = ["Chain", "Kind", "Rc", "chain", "kinds"]

_MOST: Final = 8


@dataclass(frozen=True, slots=True)
class Rc:
    """The row × column coder, a stage: what a quantizer's symbols are coded by; it goes without saying."""

    def __str__(self) -> str:
        return "rc"


class Kind(StrEnum):
    """What goes from stage to stage."""

    MODEL = "a model"
    CHANGE = "a change"
    SYMBOLS = "symbols"
    CODED = "coded bytes"
    SENT = "tensors as they are sent"


def kinds(stage: Codec | Rc) -> tuple[Kind, Kind]:
    """What a stage takes, and what it gives. A codec that is not fedpost's own takes a model and is the last."""
    match stage:
        case Rc():
            return Kind.SYMBOLS, Kind.CODED
        case Cast():
            return Kind.MODEL, Kind.MODEL
        case Delta():
            return Kind.MODEL, Kind.CHANGE
        case Uq() | Auto():
            return Kind.CHANGE, Kind.SYMBOLS
        case Lossy():
            return Kind.CHANGE, Kind.CODED
    return Kind.MODEL, Kind.SENT


@dataclass(frozen=True, slots=True)
class Chain:
    """A model in a narrower type, and then another codec, which sees nothing else: also the base is cast.

    Law: that of the codec, of the narrow values; then they are widened. In codecs that keep account, what the cast
    loses is in the residual, and what is not coded, or too large for the type, goes as it was. The base's digest is
    that of the base before the cast. Notes: ``base``, where one is needed; ``widen``, as of the cast; ``notes``, those
    of the codec.

    On the way down, as in ``cast(bfloat16) | uq(2)``, what is coded of every version after the first has values of the
    narrow type alone, so that a whole one is two or three times smaller without loss.

    Attributes:
        first: Rounds the values.
        then: Any codec but a cast, a mapping of patterns, or one that chooses by the size of the whole message.
    """

    first: Cast
    then: Codec

    def __post_init__(self) -> None:
        if isinstance(self.then, Cast):
            raise _misfit(self.first, self.then, "the model is cast already", "One cast is enough.")
        if isinstance(self.then, Chain | ByPattern):
            why = f"{self.then} is a codec of its own, not a stage"
            raise _misfit(self.first, self.then, why, "Write the stages into it.")
        if isinstance(self.then, Budgeted):
            why = f"{self.then} chooses by the size of the whole message"
            raise _misfit(self.first, self.then, why, f"Write {self.then} alone.")

    @property
    def needs_base(self) -> bool:
        """Whether the codec does."""
        return self.then.needs_base

    @property
    def capabilities(self) -> Capabilities:
        """As of a cast: nothing is promised but the account, where the codec keeps one."""
        return Capabilities(stateful=capabilities_of(self.then).stateful, needs_base=self.needs_base)

    def encode(
        self, tensors: Mapping[str, Array], base: Base | None = None, residual: Residual | None = None
    ) -> Encoding:
        """Cast the tensors and the base, and let the codec do its work.

        Raises:
            ConfigError: It needs a base and there is none.
            EncodeError: A value is too large for the narrower type, or cannot be coded.
        """
        told = {"base": base.digest} if base is not None and self.needs_base else {}
        if not self.capabilities.stateful:
            narrow, notes, _ = self.first.encode(tensors)
            out, inner, _ = self.then.encode(narrow, self._cast(base))
            return Encoding(out, {**told, **notes, "notes": _without(inner, told)})
        rounded = {name: self.first.rounded(name, array) for name, array in tensors.items()}
        narrow = {name: tensors[name] if array is None else array for name, array in rounded.items()}
        out, inner, lost = self.then.encode(narrow, self._cast(base), _Owed(tensors, narrow, residual or {}))
        # What is not coded goes as it was: nothing would make good what a cast loses of it.
        coded = {name: array for name, array in out.items() if array is not narrow[name]}
        kept = {name: array for name, array in lost.items() if name in coded}
        return Encoding(
            {**tensors, **coded},
            {**told, **self.first.widening(tensors, {n: narrow[n] for n in coded}), "notes": _without(inner, told)},
            {**kept, **carried(residual, tensors, kept)},
        )

    def decode(self, source: TensorSource, notes: Notes, base: Base | None = None) -> TensorSource:
        """Undo the codec with the base cast in the same way, and widen.

        Raises:
            DecodeError: There is no base, it is another than the sender's, or the notes do not fit the tensors.
        """
        inner: Any = notes.get("notes")
        if not isinstance(inner, dict):
            raise DecodeError("its notes do not fit the tensors", where=f"update codec {self}")
        if self.needs_base:
            base = check_base(notes, base, str(self))
            inner = {**inner, "base": base.digest}
        return self.first.decode(self.then.decode(source, inner, self._cast(base)), notes)

    def _cast(self, base: Base | None) -> Base | None:
        return None if base is None else Base(base.digest, self.first.narrowed(base.tensors))

    def __str__(self) -> str:
        return f"{self.first} | {self.then}"


@dataclass(frozen=True, slots=True)
class _Owed(Mapping[str, Array]):
    """What was lost of each tensor before, and what its cast loses now."""

    tensors: Mapping[str, Array]
    narrow: Mapping[str, Array]
    residual: Residual

    def __getitem__(self, name: str) -> Array:
        wide, before = self.tensors[name], self.residual.get(name)
        if self.narrow[name] is wide:
            return self.residual[name]
        out = np.empty(wide.shape, np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is found when it is coded
            np.subtract(wide, self.narrow[name].astype(wide.dtype), out=out, casting="same_kind")
        if before is not None and before.shape == out.shape:
            out += before
        return out

    def __iter__(self) -> Iterator[str]:
        return (name for name in self.tensors if name in self.residual or self.narrow[name] is not self.tensors[name])

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _without(notes: Notes, told: Notes) -> Notes:
    return {name: note for name, note in notes.items() if name not in told}


def chain(*stages: Codec | Rc) -> Codec:
    """The codec that stages make, in its shortest form.

    Raises:
        ConfigError: There is no stage, there are too many, or two of them do not fit; it says which and why.
    """
    if not stages:
        raise ConfigError("an update codec has at least one stage", hint="Write dense to send tensors as they are.")
    if len(stages) > _MOST:
        raise ConfigError(f"an update codec of {len(stages)} stages", hint=f"{_MOST} are allowed.")
    casts: list[Cast] = []
    codec: Codec = Dense()
    before: Codec | Rc | None = None
    given = Kind.MODEL
    for stage in stages:
        if isinstance(stage, Chain | ByPattern) and len(stages) > 1:
            one, two = (before, stage) if before else (stage, stages[1])
            raise _misfit(one, two, f"{stage} is a codec of its own, not a stage", "Write the stages into it.")
        takes, gives = kinds(stage)
        if takes != given and (takes, given) != (Kind.CHANGE, Kind.MODEL):  # a delta goes without saying
            raise _misfit(before, stage, None if before else f"{stage} takes {takes}, and nothing before it gives that")
        if isinstance(stage, Cast):
            if casts:
                raise _misfit(casts[0], stage, "the model is cast already", "One cast is enough.")
            casts.append(stage)
        elif not isinstance(stage, Rc):
            codec = stage
        before, given = stage, gives
    if not casts:
        return codec
    return casts[0] if isinstance(codec, Dense) else Chain(casts[0], codec)


def _misfit(one: Codec | Rc | None, two: Codec | Rc, why: str | None = None, hint: str | None = None) -> ConfigError:
    pair = str(two) if one is None else f"{one} | {two}"
    if why is None and one is not None:
        why = f"{one} gives {kinds(one)[1]}, but {two} takes {kinds(two)[0]}"
    return ConfigError(f"{pair[:200]!r} does not fit: {(why or '')[:400]}", hint=hint)
