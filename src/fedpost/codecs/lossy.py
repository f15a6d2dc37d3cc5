"""What lossy update codecs have in common: they code the change of each tensor since a base, one by one.

Rules: the change is ``x = tensor − base + residual``, float32; what was lost of it is the next residual, in codecs that
keep account of it (error feedback: Seide et al. 2014; Karimireddy et al., arXiv:1901.09847). Decoding is
``base + decoded``, one addition an element in float32 (float64 for float64), so every machine gets the same bits. What
is no matrix of floats and whatever the base has not in the same type and shape is sent as it is, to the bit. A
NaN or an infinity in any tensor of floats is an error of the sender, whichever way the tensor goes; with
``nonfinite=whole`` such a tensor is sent as it is.

On the wire a coded tensor is a vector of bytes; its type and shape are those of the base. Notes: ``base``, the digest
of the base; ``whole``, the names of what is sent as it is; and the codec's own.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import ml_dtypes
import numpy as np

from fedpost.codecs.added import CHUNK, Added, added
from fedpost.codecs.changes import Changes, check_finite, explained, is_finite
from fedpost.codecs.codec import Base, Capabilities, Encoding, Notes, Residual, carried, check_base
from fedpost.codecs.kernels.flat import Floats
from fedpost.errors import ConfigError, DecodeError, EncodeError
from fedpost.tensors import Array, TensorSource, TensorSpec
from fedpost.tensors.format import name_of

__all__ = ["MATRIX", "REFUSE", "Lossy", "SelfContained", "laid_out", "located", "number_text", "ranks_of"]

_FLOATS: Final = tuple(map(np.dtype, (np.float16, np.float32, np.float64, ml_dtypes.bfloat16)))
REFUSE: Final = "refuse"
_WHOLE: Final = "whole"
MATRIX: Final = 2
"""Dimensions from which a tensor is a matrix: its first one by all the others. Of fewer it is a vector."""
_LEAST_BYTES, _MOST_BYTES = 64, 32
"""Bytes of a coded tensor are at most this much an element and those, whatever the codec; mostly below one."""


@dataclass(frozen=True, slots=True)
class Lossy(ABC):
    """A codec of changes; subclasses are frozen dataclasses that say how one tensor's change becomes bytes.

    Attributes:
        nonfinite: What becomes of a tensor with a NaN or an infinity in it or in its change: ``refuse`` makes it an
            error, ``whole`` sends it as it is, to the bit.
    """

    nonfinite: str = field(default=REFUSE, kw_only=True)

    keeps_account: ClassVar[bool] = True
    """Whether what was lost is added to the next update."""
    codes_vectors: ClassVar[bool] = False
    """Whether tensors of one dimension, or none, are coded too; else they are sent as they are."""
    unbiased: ClassVar[bool] = False
    """Whether what is decoded is right on average."""

    def __post_init__(self) -> None:
        if self.nonfinite not in (REFUSE, _WHOLE):
            raise ConfigError(f"nonfinite={self.nonfinite!r:.80} is not possible", hint="It is refuse or whole.")

    def spelled(self, name: str, *arguments: str) -> str:
        """The codec's text: its name with its arguments, and with the option where it is not the usual one."""
        given = (*arguments, *([f"nonfinite={_WHOLE}"] if self.nonfinite == _WHOLE else []))
        return f"{name}({', '.join(given)})" if given else name

    @property
    def needs_base(self) -> bool:
        """Yes."""
        return True

    @property
    def capabilities(self) -> Capabilities:
        """A base is needed; bytes do not add up."""
        return Capabilities(unbiased=self.unbiased, stateful=self.keeps_account, needs_base=True)

    @abstractmethod
    def prepare(self, changes: Mapping[str, Floats]) -> Notes:
        """What holds for the whole update, as notes.

        Raises:
            EncodeError: It has values that cannot be coded.
        """

    def planned(
        self,
        changes: Mapping[str, Floats],  # noqa: ARG002 - for those that look
        ranks: Mapping[int, int],  # noqa: ARG002 - the same
        notes: Mapping[str, Any],
    ) -> Mapping[str, Any]:
        """The notes, and what :meth:`pack` needs to know of the whole update beyond them; it is not sent.

        Args:
            changes: Those that are coded.
            ranks: As :meth:`check` takes them, in the same order.
            notes: As :meth:`check` gives them.

        Raises:
            EncodeError: The changes have values that cannot be coded.
        """
        return notes

    @abstractmethod
    def pack(self, change: Floats, notes: Mapping[str, Any], number: int, *, lost: Floats | None) -> bytes:
        """One tensor's change as bytes; what is lost of it goes into ``lost``, which may be the change itself.

        Raises:
            EncodeError: It has values that cannot be coded.
        """

    @abstractmethod
    def check(self, notes: Mapping[str, Any], ranks: Mapping[int, int]) -> Mapping[str, Any]:
        """Check the codec's own notes.

        Args:
            notes: The update's.
            ranks: Of each coded tensor, by its number, in order: how many dimensions it has.

        Returns:
            The notes as :meth:`pack` and :meth:`unpack` take them.

        Raises:
            DecodeError: They are impossible.
        """

    @abstractmethod
    def unpack(self, data: memoryview, notes: Mapping[str, Any], number: int, out: Floats) -> None:
        """Undo :meth:`pack` into ``out``, of the tensor's shape.

        Raises:
            DecodeError: The bytes are not of a tensor of this shape.
        """

    @abstractmethod
    def unpack_range(
        self, data: memoryview, notes: Mapping[str, Any], number: int, shape: tuple[int, ...], start: int, stop: int
    ) -> Floats:
        """Elements of the change, flattened in C order, the same bits as :meth:`unpack` gives.

        Raises:
            DecodeError: As :meth:`unpack`, as far as the bytes were read.
        """

    def encode(
        self, tensors: Mapping[str, Array], base: Base | None = None, residual: Residual | None = None
    ) -> Encoding:
        """Code what changed since the base.

        A residual of another shape than its tensor's is of a model that is no more, and counts for nothing.

        Raises:
            ConfigError: There is no base.
            EncodeError: A value is NaN or infinite, or an entry is not an array.
        """
        base, changes = self.changes(tensors, base, residual)
        with explained(tensors, base, residual, frozenset(changes)):
            encoding = self._encoded(tensors, base, changes)
        kept = carried(residual, tensors, changes) if self.keeps_account else {}
        return encoding._replace(residual={**encoding.residual, **kept}) if kept else encoding

    def _encoded(self, tensors: Mapping[str, Array], base: Base, changes: Mapping[str, Floats]) -> Encoding:
        notes = self.prepare(changes)
        ranks = ranks_of(tensors, changes)
        told = self.planned(changes, ranks, self.check(notes, ranks))
        coded: dict[str, bytes] = {}
        for number, name in enumerate(tensors):
            if name in changes:
                change = changes[name]
                with located(name):
                    coded[name] = self.pack(change, told, number, lost=change if self.keeps_account else None)
                    if self.keeps_account and tensors[name].itemsize < change.itemsize:
                        self.book_rounding(coded[name], told, number, base.tensors, name, change)
        return Encoding(
            laid_out(tensors, coded),
            {"base": base.digest, "whole": [name for name in tensors if name not in changes], **notes},
            dict(changes) if self.keeps_account else {},
        )

    def changes(
        self, tensors: Mapping[str, Array], base: Base | None, residual: Residual | None
    ) -> tuple[Base, Mapping[str, Floats]]:
        """The base, and what changed of each tensor that is coded, in memory of its own.

        Of a codec that keeps no account each is made whenever it is asked for, so that there is one at a time.
        One that is not finite is not among them where such tensors are sent as they are.

        Raises:
            ConfigError: There is no base.
            EncodeError: An entry is not an array, or a value of what is sent as it is is NaN or infinite.
        """
        if base is None:
            raise ConfigError(f"the update codec {self} needs a base", hint="Give the model that the receiver has.")
        old = {spec.name: spec for spec in base.tensors.specs}
        coded = {
            name: array
            for name, array in tensors.items()
            if name_of(name, array)
            and name in old
            and self._codes(old[name], array.dtype, array.shape)
            and not self.stays_whole(name, array, base.tensors)
        }
        changes = Changes(coded, base.tensors, residual or {})
        if self.nonfinite == _WHOLE:
            finite = {name: coded[name] for name, change in changes.items() if is_finite(change)}
            changes = Changes(finite, base.tensors, residual or {})
        else:
            for name, array in tensors.items():
                if name not in coded:
                    check_finite(name, array)
        return base, dict(changes) if self.keeps_account else changes

    def book_rounding(
        self, packed: bytes, notes: Notes, number: int, base: TensorSource, name: str, lost: Floats
    ) -> None:
        """Book what the receiver loses as well, who rounds the sum to a narrow type: it may be the whole change.

        Args:
            packed: What :meth:`pack` made of a tensor's change.
            notes: The update's.
            number: The tensor's.
            base: Has the tensor as it was.
            name: The tensor's.
            lost: What coding has lost of the change; what rounding loses is added.

        Raises:
            EncodeError: A value is too large for the tensor's type once it is coded.
        """
        loss = lost.reshape(-1)
        for start in range(0, loss.size, CHUNK):
            stop = min(start + CHUNK, loss.size)
            change = self.unpack_range(memoryview(packed), notes, number, lost.shape, start, stop)
            before = base.read(name, start, stop)
            received = added(before, change)
            if not np.isfinite(received).all():
                raise EncodeError(
                    f"a value is too large for {received.dtype} once it is coded", hint="Send it with delta or dense."
                )
            change -= np.subtract(received, before, dtype=np.float32)
            loss[start:stop] += change

    def decode(self, source: TensorSource, notes: Notes, base: Base | None = None) -> TensorSource:
        """Add the changes to the base, tensor by tensor or range by range.

        Raises:
            DecodeError: There is no base, it is another than the sender's, or the notes do not fit the tensors.
        """
        base = check_base(notes, base, str(self))
        whole: Any = notes.get("whole")
        specs = {spec.name: spec for spec in source.specs}
        if not isinstance(whole, list | tuple) or not all(isinstance(name, str) and name in specs for name in whole):
            raise DecodeError("its notes do not fit the tensors", where=f"update codec {self}")
        old = {spec.name: spec for spec in base.tensors.specs}
        kept = frozenset(whole)
        out = []
        ranks: dict[int, int] = {}
        for number, spec in enumerate(source.specs):
            if spec.name in kept:
                out.append(spec)
                continue
            found = old.get(spec.name)
            if found is None or not self._codes(found, found.dtype, found.shape):
                raise DecodeError("the base has no such tensor", where=f"tensor {spec.name!r}")
            if spec.dtype != np.uint8 or len(spec.shape) != 1:
                raise DecodeError("a change that is no vector of bytes", where=f"tensor {spec.name!r}")
            if spec.size > _LEAST_BYTES + _MOST_BYTES * found.size:
                raise DecodeError("more bytes than its change can have", where=f"tensor {spec.name!r}")
            ranks[number] = len(found.shape)
            out.append(found)
        told = self.check(notes, ranks)

        def unpack_range(data: memoryview, number: int, shape: tuple[int, ...], start: int, stop: int) -> Floats:
            return self.unpack_range(data, told, number, shape, start, stop)

        return Added(source, base.tensors, tuple(out), kept, unpack_range)

    def stays_whole(self, name: str, array: Array, base: TensorSource) -> bool:  # noqa: ARG002 - for those that code all
        """Whether a tensor that could be coded is sent as it is all the same."""
        return False

    def _codes(self, spec: TensorSpec, dtype: np.dtype[Any], shape: tuple[int, ...]) -> bool:
        if (spec.dtype, spec.shape) != (dtype, shape) or dtype not in _FLOATS or not spec.size:
            return False
        return self.codes_vectors or len(shape) >= MATRIX


@dataclass(frozen=True, slots=True)
class SelfContained(Lossy):
    """A codec whose bytes are read without any notes; subclasses name the functions that read them."""

    @staticmethod
    @abstractmethod
    def read(data: memoryview, out: Floats) -> None:
        """Decode a tensor's bytes into an array of its shape.

        Raises:
            DecodeError: They are not of a tensor of this shape.
        """

    @staticmethod
    @abstractmethod
    def read_range(data: memoryview, size: int, start: int, stop: int) -> Floats:
        """Decode elements ``start`` to ``stop`` of a tensor of ``size`` elements, flattened in C order.

        Raises:
            DecodeError: As :meth:`read`, as far as the bytes were read.
        """

    def prepare(self, changes: Mapping[str, Floats]) -> Notes:  # noqa: ARG002 - the contract
        """Nothing holds for the whole update."""
        return {}

    def check(self, notes: Mapping[str, Any], ranks: Mapping[int, int]) -> Mapping[str, Any]:  # noqa: ARG002 - the contract
        """There is nothing to check."""
        return notes

    def unpack(self, data: memoryview, notes: Mapping[str, Any], number: int, out: Floats) -> None:  # noqa: ARG002 - the contract
        """Read a whole tensor."""
        self.read(data, out)

    def unpack_range(
        self,
        data: memoryview,
        notes: Mapping[str, Any],  # noqa: ARG002 - the contract
        number: int,  # noqa: ARG002 - the contract
        shape: tuple[int, ...],
        start: int,
        stop: int,
    ) -> Floats:
        """Read what holds a range."""
        return self.read_range(data, math.prod(shape), start, stop)


@contextmanager
def located(name: str) -> Iterator[None]:
    """Say of which tensor an error is."""
    try:
        yield
    except EncodeError as error:
        raise EncodeError(error.what, where=f"tensor {name!r}", hint=error.hint) from error


def ranks_of(tensors: Mapping[str, Array], changes: Mapping[str, Floats]) -> dict[int, int]:
    """Of each tensor that is coded, by its number: how many dimensions it has."""
    return {number: array.ndim for number, (name, array) in enumerate(tensors.items()) if name in changes}


def laid_out(tensors: Mapping[str, Array], coded: Mapping[str, bytes]) -> dict[str, Array]:
    """What is sent: bytes of what is coded, everything else as it is, in the order of the tensors."""
    return {name: np.frombuffer(coded[name], np.uint8) if name in coded else array for name, array in tensors.items()}


def number_text(number: float) -> str:
    """A codec's argument as short as it can be written without becoming another number."""
    short = f"{number:g}"
    return short if float(short) == number else repr(number)
