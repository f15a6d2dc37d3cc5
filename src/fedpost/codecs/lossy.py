"""What lossy update codecs have in common: they code the change of each tensor since a base, one by one.

Rules: the change is ``x = tensor − base + residual``, float32; what was lost of it is the next residual, in codecs that
keep account of it (error feedback: Seide et al. 2014; Karimireddy et al., arXiv:1901.09847). Decoding is
``base + decoded``, one addition an element in float32 (float64 for float64), so every machine gets the same bits. What
is no matrix of floats and whatever the base has not in the same type and shape is sent as it is, to the bit. A
NaN or an infinity in any tensor of floats is an error of the sender, whichever way the tensor goes.

On the wire a coded tensor is a vector of bytes; its type and shape are those of the base. Notes: ``base``, the digest
of the base; ``whole``, the names of what is sent as it is; and the codec's own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import ml_dtypes
import numpy as np

from fedpost.codecs.codec import Base, Capabilities, Encoding, Notes, Residual, carried, check_base
from fedpost.codecs.kernels.flat import Floats
from fedpost.errors import ConfigError, DecodeError, EncodeError
from fedpost.tensors import Array, TensorSource, TensorSpec
from fedpost.tensors.format import check_range, name_of

__all__ = ["Lossy", "explained", "laid_out", "located", "number_text", "ranks_of"]

_FLOATS: Final = tuple(map(np.dtype, (np.float16, np.float32, np.float64, ml_dtypes.bfloat16)))
_MATRIX: Final = 2
_AHEAD: Final = 1 << 19
"""Elements that are decoded at a time when a tensor is read by range."""
_NOT_FINITE: Final = "it has a NaN or an infinity"
_CHUNK: Final = 1 << 19
"""Elements whose rounding is booked at a time, or that are rounded at a time."""
_NOTHING_AHEAD: Final[tuple[str | None, int, Floats]] = (None, 0, np.empty(0, np.float32))
_LEAST_BYTES, _MOST_BYTES = 64, 32
"""Bytes of a coded tensor are at most this much an element and those, whatever the codec; mostly below one."""


class Lossy(ABC):
    """A codec of changes; subclasses are frozen dataclasses that say how one tensor's change becomes bytes."""

    __slots__ = ()

    keeps_account: bool = True
    """Whether what was lost is added to the next update."""
    codes_vectors: bool = False
    """Whether tensors of one dimension, or none, are coded too; else they are sent as they are."""
    unbiased: bool = False
    """Whether what is decoded is right on average."""

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

    @abstractmethod
    def pack(self, change: Floats, notes: Notes, number: int, *, lost: Floats | None) -> bytes:
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
        told = self.check(notes, ranks_of(tensors, changes))
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
        for name, array in tensors.items():
            if name not in coded and not _is_finite(array):
                raise _refused(name, _NOT_FINITE)
        changes = _Changes(coded, base.tensors, residual or {})
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
        for start in range(0, loss.size, _CHUNK):
            stop = min(start + _CHUNK, loss.size)
            change = self.unpack_range(memoryview(packed), notes, number, lost.shape, start, stop)
            before = base.read(name, start, stop)
            received = _sum(before, change)
            if not np.isfinite(received).all():
                raise EncodeError(f"a value is too large for {received.dtype} once it is coded")
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
        return _Added(self, source, base.tensors, self.check(notes, ranks), tuple(out), kept)

    def stays_whole(self, name: str, array: Array, base: TensorSource) -> bool:  # noqa: ARG002 - for those that code all
        """Whether a tensor that could be coded is sent as it is all the same."""
        return False

    def _codes(self, spec: TensorSpec, dtype: np.dtype[Any], shape: tuple[int, ...]) -> bool:
        if (spec.dtype, spec.shape) != (dtype, shape) or dtype not in _FLOATS or not spec.size:
            return False
        return self.codes_vectors or len(shape) >= _MATRIX


class _Changes(Mapping[str, Floats]):
    """What changed since the base, and what was lost before, each time in memory of its own."""

    __slots__ = ("_base", "_residual", "_tensors")

    def __init__(self, tensors: Mapping[str, Array], base: TensorSource, residual: Residual) -> None:
        self._tensors = tensors
        self._base = base
        self._residual = residual

    def __getitem__(self, name: str) -> Floats:
        array, residual = self._tensors[name], self._residual.get(name)
        old = self._base.read(name, 0, array.size).reshape(array.shape)
        out = np.empty(array.shape, np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is found when it is coded
            if array.dtype == np.float64:
                np.subtract(array, old, out=out, casting="same_kind")
            else:
                np.subtract(array, old, out=out, dtype=np.float32)
            if residual is not None and residual.shape == array.shape:  # else of a model that is no more
                out += residual
        return out

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors


@contextmanager
def explained(
    tensors: Mapping[str, Array], base: Base, residual: Residual | None, coded: frozenset[str]
) -> Iterator[None]:
    """Say why a change cannot be coded: the tensor has a NaN or an infinity, or the change is too large."""
    try:
        yield
    except EncodeError as error:
        changes = _Changes({name: tensors[name] for name in tensors if name in coded}, base.tensors, residual or {})
        for name in changes:
            if not _is_finite(tensors[name]):
                raise _refused(name, _NOT_FINITE) from error
        for name, change in changes.items():
            if not _is_finite(change):
                raise _refused(name, "its change is too large for float32") from error
        raise


def _is_finite(array: Array) -> bool:
    """Whether no value is NaN or infinite; what is no float has no such value."""
    return not array.dtype.name.startswith(("float", "bfloat")) or bool(np.isfinite(array).all())


def _refused(name: str, what: str) -> EncodeError:
    return EncodeError(what, where=f"tensor {name!r}", hint="Send it with the codec delta or dense.")


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


class _Added:
    """Changes on top of a base."""

    __slots__ = ("_ahead", "_base", "_codec", "_kept", "_notes", "_numbers", "_sizes", "_source", "_specs", "specs")

    def __init__(
        self,
        codec: Lossy,
        source: TensorSource,
        base: TensorSource,
        notes: Mapping[str, Any],
        specs: tuple[TensorSpec, ...],
        kept: frozenset[str],
    ) -> None:
        self._codec = codec
        self._source = source
        self._base = base
        self._notes = notes
        self._kept = kept
        self._specs = {spec.name: spec for spec in specs}
        self._numbers = {spec.name: number for number, spec in enumerate(specs)}
        self._sizes = {spec.name: spec.size for spec in source.specs}
        self._ahead = _NOTHING_AHEAD
        self.specs = specs

    def arrays(self) -> dict[str, Array]:
        return {spec.name: self.read(spec.name, 0, spec.size).reshape(spec.shape) for spec in self.specs}

    def read(self, name: str, start: int, stop: int) -> Array:
        if name in self._kept:
            return self._source.read(name, start, stop)
        spec = self._specs[name]
        check_range(spec.size, start, stop)
        if spec.dtype.itemsize < np.dtype(np.float32).itemsize and stop - start > _CHUNK:
            return self._rounded(spec, start, stop)
        change = self._changes(spec, start, stop)
        out = _sum(self._base.read(name, start, stop), change, spare=self._ahead[0] is None)
        out.flags.writeable = False  # as every tensor that was received
        return out

    def _rounded(self, spec: TensorSpec, start: int, stop: int) -> Array:
        """Much of a narrow type, part by part: the sums in float32 would be twice as large."""
        out = np.empty(stop - start, spec.dtype)
        for first in range(start, stop, _CHUNK):
            last = min(first + _CHUNK, stop)
            change = self._changes(spec, first, last)
            out[first - start : last - start] = _sum(self._base.read(spec.name, first, last), change)
        out.flags.writeable = False
        return out

    def _changes(self, spec: TensorSpec, start: int, stop: int) -> Floats:
        """Elements of a change. A reader goes from front to back, so what follows is decoded as well and kept."""
        name, first, values = self._ahead
        if name != spec.name or start < first or stop > first + values.size:
            first, last = start, max(stop, min(start + _AHEAD, spec.size))
            data = self._source.read(spec.name, 0, self._sizes[spec.name])
            packed, number = np.ascontiguousarray(data).data, self._numbers[spec.name]
            try:
                values = self._codec.unpack_range(packed, self._notes, number, spec.shape, first, last)
            except DecodeError as error:
                raise type(error)(error.what, where=f"tensor {spec.name!r}", hint=error.hint) from error
            # What was read to its end is not kept: there may be many sources.
            self._ahead = (spec.name, first, values) if stop < last else _NOTHING_AHEAD
        elif stop == first + values.size:
            self._ahead = _NOTHING_AHEAD
        return values[start - first : stop - first]


def number_text(number: float) -> str:
    """A codec's argument as short as it can be written without becoming another number."""
    short = f"{number:g}"
    return short if float(short) == number else repr(number)


def _sum(base: Array, change: Floats, *, spare: bool = False) -> Array:
    """One addition an element, rounded to the base's type; in the change's memory where that may be."""
    wide = np.float64 if base.dtype == np.float64 else np.float32
    with np.errstate(over="ignore"):
        total: Array = np.add(base, change, out=change if spare and wide is np.float32 else None, dtype=wide)
        return total.astype(base.dtype, copy=False)
