"""How two models differ, tensor by tensor: for ``fedpost diff``.

Rules: every tensor is read in blocks, so memory does not grow with it; sums are float64, and scaled so that no square
overflows or vanishes; differences of integers are exact, also where they do not fit the type. NaN equals NaN whatever
its bits, and −0.0 equals 0.0: such elements count as equal values, but the tensor's bits differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
import numpy as np

from fedpost.conversion import ModelFile, read_blocks
from fedpost.conversion.opening import named
from fedpost.tensors import Array, TensorSource, TensorSpec
from fedpost.tensors.dtypes import dtype_name, is_integer, is_number
from fedpost.tensors.foreign import array_bytes

__all__ = ["Mismatch", "ModelDifference", "TensorDifference", "compare", "compare_sources", "root_mean_square"]

_STEP: Final = 1 << 18
"""Elements that are compared at a time: their float64 stay in the cache."""
_LONG: Final = 10
"""Bytes of an 80-bit number, which lies in more."""


class Mismatch(msgspec.Struct, frozen=True):
    """A tensor whose element types or shapes differ, so that its values are not compared.

    Attributes:
        name: Its name.
        dtypes: The element types of both.
        shapes: The shapes of both.
    """

    name: str
    dtypes: tuple[str, str]
    shapes: tuple[list[int], list[int]]


class TensorDifference(msgspec.Struct, frozen=True):
    """How the values of a tensor differ. What is infinite is ``null`` in JSON.

    Attributes:
        name: Its name.
        dtype: Its element type.
        shape: Its shape.
        equal_bits: Both have the same bytes.
        differing: Number of elements with different values.
        max_abs: The greatest absolute difference; an int for integers; None where values are no numbers.
        rms: Root of the mean square of the differences, without NaN mismatches; None where values are no numbers.
        relative: The L2 norm of the difference over that of the first tensor: 0 where no value differs, infinite where
            the first is all zero or the difference infinite; infinite also where values that are no numbers differ.
        nan_mismatches: Elements that are NaN in one of the two.
    """

    name: str
    dtype: str
    shape: list[int]
    equal_bits: bool
    differing: int
    max_abs: float | int | None
    rms: float | None
    relative: float
    nan_mismatches: int

    def within(self, tolerance: float | None) -> bool:
        """Whether it counts as equal.

        Args:
            tolerance: The greatest relative difference; None asks for equal bits.
        """
        if tolerance is None or self.equal_bits:
            return self.equal_bits
        return not self.nan_mismatches and self.relative <= tolerance


class ModelDifference(msgspec.Struct, frozen=True):
    """How two models differ.

    Attributes:
        equal: Nothing differs beyond the tolerance.
        only_in_first: Names of tensors.
        only_in_second: Names of tensors.
        mismatches: Tensors of different element types or shapes.
        tensors: All others, the greatest relative difference first.
        tolerance: What was asked for.
    """

    equal: bool
    only_in_first: list[str]
    only_in_second: list[str]
    mismatches: list[Mismatch]
    tensors: list[TensorDifference]
    tolerance: float | None = None

    @property
    def differing(self) -> list[TensorDifference]:
        """The tensors whose values differ beyond the tolerance."""
        return [tensor for tensor in self.tensors if not tensor.within(self.tolerance)]


def compare(first: ModelFile, second: ModelFile, *, tolerance: float | None = None) -> ModelDifference:
    """Compare two files, whatever kind they are of. The order of the tensors and the metadata do not count.

    Args:
        first: The file that differences are relative to.
        second: The other one.
        tolerance: The greatest relative difference of a tensor that counts as equal; None asks for equal bits.

    Raises:
        DecodeError: A file is damaged; it says which, and where.
    """
    return compare_sources(_Named(first), _Named(second), tolerance=tolerance)


def compare_sources(first: TensorSource, second: TensorSource, *, tolerance: float | None = None) -> ModelDifference:
    """Compare two models; see :func:`compare`.

    Raises:
        DecodeError: As the sources say.
    """
    ours, theirs = ({spec.name: spec for spec in source.specs} for source in (first, second))
    mismatches, tensors = [], []
    for name, spec in ours.items():
        other = theirs.get(name)
        if other is None:
            continue
        if (spec.dtype, spec.shape) == (other.dtype, other.shape):
            tensors.append(_difference(spec, first, second))
            continue
        dtypes = dtype_name(spec.dtype), dtype_name(other.dtype)
        mismatches.append(Mismatch(name, dtypes, (list(spec.shape), list(other.shape))))
    tensors.sort(key=lambda tensor: (-tensor.relative, -tensor.nan_mismatches, tensor.equal_bits))
    only = [name for name in ours if name not in theirs], [name for name in theirs if name not in ours]
    equal = not mismatches and not any(only) and all(tensor.within(tolerance) for tensor in tensors)
    return ModelDifference(equal, *only, mismatches, tensors, tolerance)


def root_mean_square(source: TensorSource, spec: TensorSpec) -> float | None:
    """The root of the mean square of a tensor's finite values; None where values are no numbers.

    Raises:
        DecodeError: As the source says.
    """
    if not is_number(spec.dtype):
        return None
    norm = _Norm()
    for block in read_blocks(source, spec):
        for start in range(0, block.size, _STEP):
            with np.errstate(invalid="ignore", over="ignore"):
                piece = block[start : start + _STEP]
                values = np.abs(piece if piece.dtype.kind == "c" else piece.astype(np.float64)).astype(np.float64)
            norm.add(values[np.isfinite(values)])
    return norm.mean(max(spec.size, 1))


class _Named:
    """A file's tensors, whose errors name the file."""

    def __init__(self, model: ModelFile) -> None:
        self._model = model

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        return self._model.source.specs

    def arrays(self) -> dict[str, Array]:
        with named(self._model.path):
            return self._model.source.arrays()

    def read(self, name: str, start: int, stop: int) -> Array:
        with named(self._model.path):
            return self._model.source.read(name, start, stop)


class _Norm:
    """The L2 norm of what is added, as a scale and a sum of squares that is never far from 1."""

    def __init__(self) -> None:
        self._scale = 0.0
        self._sum = 0.0

    def add(self, values: Array) -> None:
        """Take in absolute values, float64."""
        greatest = float(values.max(initial=0.0))
        if not greatest or math.isinf(self._scale):
            return
        if math.isinf(greatest):
            self._scale, self._sum = math.inf, 1.0
            return
        # A power of two, so that dividing by it rounds nothing; half of it, as the whole may be infinite.
        scale = max(self._scale, math.ldexp(1.0, math.frexp(greatest)[1] - 1))
        self._sum *= (self._scale / scale) ** 2
        scaled = values / scale
        self._sum += float(np.dot(scaled, scaled))
        self._scale = scale

    def over(self, other: _Norm) -> float:
        """This norm over another, without either overflowing."""
        if not self._sum:
            return 0.0
        if not other._sum or math.isinf(self._scale):
            return math.inf
        return self._scale / other._scale * math.sqrt(self._sum / other._sum)

    def mean(self, count: int) -> float:
        """The root of the mean square over so many values."""
        return self._scale * math.sqrt(self._sum / count) if self._sum else 0.0


class _Tally:
    """What is counted of one tensor."""

    def __init__(self) -> None:
        self.differing = 0
        self.nan_mismatches = 0
        self.greatest: float | int = 0
        self.difference = _Norm()
        self.first = _Norm()

    def add(self, distance: Array, first: Array, nan_mismatches: int) -> None:
        """Take in absolute differences (float64, or uint64 where they are exact) and absolute values."""
        self.differing += int(np.count_nonzero(distance)) + nan_mismatches
        self.nan_mismatches += nan_mismatches
        self.greatest = max(self.greatest, distance.max(initial=0).item())
        self.difference.add(distance.astype(np.float64, copy=False))
        self.first.add(first[np.isfinite(first)])


def _difference(spec: TensorSpec, first: TensorSource, second: TensorSource) -> TensorDifference:
    name, shape = dtype_name(spec.dtype), list(spec.shape)
    if all(_same_bytes(*pair) for pair in _pairs(spec, first, second)):
        number = 0 if is_integer(spec.dtype) else 0.0 if is_number(spec.dtype) else None
        rms = None if number is None else 0.0
        return TensorDifference(spec.name, name, shape, True, 0, number, rms, 0.0, 0)
    measure = _measure(spec.dtype)
    if measure is None:
        apart = sum(_different_rows(*pair) for pair in _pairs(spec, first, second))
        return TensorDifference(spec.name, name, shape, False, apart, None, None, math.inf, 0)
    tally = _Tally()
    for one, other in _pairs(spec, first, second):
        for start in range(0, one.size, _STEP):
            tally.add(*measure(one[start : start + _STEP], other[start : start + _STEP]))
    both = max(spec.size - tally.nan_mismatches, 1)
    relative = tally.difference.over(tally.first)
    rms = tally.difference.mean(both)
    counts = tally.differing, tally.greatest, rms, relative, tally.nan_mismatches
    return TensorDifference(spec.name, name, shape, False, *counts)


def _pairs(spec: TensorSpec, first: TensorSource, second: TensorSource) -> Iterator[tuple[Array, Array]]:
    return zip(read_blocks(first, spec), read_blocks(second, spec), strict=True)


def _same_bytes(one: Array, other: Array) -> bool:
    return np.array_equal(_rows(one), _rows(other))


def _different_rows(one: Array, other: Array) -> int:
    """Elements with different bytes."""
    return int(np.count_nonzero((_rows(one) != _rows(other)).any(axis=1)))


def _rows(array: Array) -> Array:
    """The bytes of each element that mean something: a structure's gaps and what fills up long doubles do not."""
    dtype = array.dtype
    if dtype.names is not None:
        out: Array = np.zeros(array.shape, dtype)
        out[...] = array
        array = out
    flat = np.asarray(array_bytes(array))
    if dtype.kind in "fc" and dtype.itemsize // (1 + (dtype.kind == "c")) > _LONG:
        return flat.reshape(-1, dtype.itemsize // (1 + (dtype.kind == "c")))[:, :_LONG]
    return flat.reshape(array.size if array.nbytes else 0, -1 if array.nbytes else 1)


_Measure = Callable[[Array, Array], tuple[Array, Array, int]]
"""From two flat arrays: absolute differences, absolute values of the first, and elements that are NaN in one alone."""


def _measure(dtype: np.dtype[Any]) -> _Measure | None:
    if not is_number(dtype):
        return None
    if is_integer(dtype):
        return _integers
    if dtype.kind == "c":
        return _complex if dtype.itemsize <= 16 else _long_complex  # noqa: PLR2004 - of two float64
    return _floats if dtype.kind != "f" or dtype.itemsize <= 8 else _long_floats  # noqa: PLR2004 - a float64


def _integers(one: Array, other: Array) -> tuple[Array, Array, int]:
    """Exact: the difference of any two 64-bit integers fits 64 bits without a sign, in arithmetic that wraps."""
    wide = np.dtype(np.uint64 if one.dtype.kind == "u" and one.dtype.itemsize == 8 else np.int64)  # noqa: PLR2004
    ours, theirs = one.astype(wide), other.astype(wide)
    left, right = ours.view(np.uint64), theirs.view(np.uint64)
    distance = np.where(ours >= theirs, left - right, right - left)
    return distance, np.abs(ours.astype(np.float64)), 0


def _floats(one: Array, other: Array) -> tuple[Array, Array, int]:
    with np.errstate(invalid="ignore"):  # signalling NaN
        return _distance(one.astype(np.float64), other.astype(np.float64))


def _complex(one: Array, other: Array) -> tuple[Array, Array, int]:
    with np.errstate(invalid="ignore"):
        return _distance(one.astype(np.complex128), other.astype(np.complex128))


def _long_floats(one: Array, other: Array) -> tuple[Array, Array, int]:
    return _distance(one.astype(np.longdouble), other.astype(np.longdouble))


def _long_complex(one: Array, other: Array) -> tuple[Array, Array, int]:
    return _distance(one.astype(np.clongdouble), other.astype(np.clongdouble))


def _distance(one: Array, other: Array) -> tuple[Array, Array, int]:
    missing, lacking = np.isnan(one), np.isnan(other)
    mismatched = int(np.count_nonzero(missing != lacking))
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        distance = np.abs(one - other)
        distance[np.isnan(distance)] = np.inf  # one infinite part of a complex number less another
        distance[(one == other) | missing | lacking] = 0  # also two infinities
        tiny = np.float64(np.finfo(np.float64).smallest_subnormal)
        narrow = distance.astype(np.float64)
        narrow[(narrow == 0) & (distance != 0)] = tiny  # a longer number that is not zero
        size = np.abs(one).astype(np.float64)
    return narrow, size, mismatched
