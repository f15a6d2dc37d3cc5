"""From the sites' results to one model: checked, spooled, and reduced block by block.

Rules: a result is checked whole before it counts; what counts lies in a spool on disk, encoded as it came, so memory is
that of one model however many sites there are; the reduction runs over blocks of coordinates, and within a block over
the sites in canonical order, so the same results give the same bits whatever order they arrived in.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from fedpost.codecs import Base
from fedpost.errors import RefusedResultError, RunError
from fedpost.federation.types import Parameters
from fedpost.files import replace_file
from fedpost.frame import Frame, Limits
from fedpost.pipeline import decode_tensors
from fedpost.tensors import Array, TensorSource, TensorSpec
from fedpost.tensors.dtypes import integer_range, is_integer, is_number

__all__ = ["BlockReducer", "Spool", "WeightedMean", "check_result", "reduce_blocks"]

BLOCK: Final = 1 << 18
"""Elements per block: with float64 accumulators it fits a core's cache."""


_RESIDENT: Final = 1 << 22
_MAPS: Final = 256


class BlockReducer(Protocol):
    """Combines the same block of every result: a mean, a median, a trimmed mean."""

    def reduce(self, blocks: Iterator[Array], dtype: np.dtype[Any], size: int) -> Array:
        """Combine.

        Args:
            blocks: One 1-D array of ``size`` elements per result, in canonical order, read as they are asked for.
            dtype: The tensor's element type.
            size: Number of elements.

        Returns:
            A 1-D array of ``size`` elements that can be cast to ``dtype``.
        """


class WeightedMean:
    """The mean of FedAvg (McMahan et al., 2017): sum of weight × value over the sum of weights, in float64.

    Args:
        weights: One positive weight a result, in canonical order.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        total = float(sum(weights))
        self._shares = [weight / total for weight in weights]

    def reduce(self, blocks: Iterator[Array], dtype: np.dtype[Any], size: int) -> Array:
        """Accumulate one result after the other."""
        # 64-bit integers need the 64 bits of mantissa that long double has on most machines.
        exact = np.longdouble if dtype.kind in "iu" and dtype.itemsize == 8 else np.float64  # noqa: PLR2004
        wide = np.result_type(dtype, np.float64) if dtype.kind in "fc" else np.dtype(exact)
        total = np.zeros(size, wide)
        scratch = np.empty(size, wide)
        for share, block in zip(self._shares, blocks, strict=True):
            np.copyto(scratch, block, casting="unsafe")
            scratch *= share
            total += scratch
        if not is_integer(dtype):
            return total
        np.rint(total, out=total)
        return total if dtype.kind == "b" else np.clip(total, *integer_range(dtype), out=total)


def reduce_blocks(results: Sequence[Parameters], reducer: BlockReducer, *, block: int = BLOCK) -> Parameters:
    """Reduce results of equal specs to one, block by block.

    Args:
        results: The sites' parameters in canonical order; at least one.
        reducer: How to combine a block.
        block: Elements per block.
    """
    out: dict[str, Array] = {}
    for spec in results[0].specs:
        flat = np.empty(spec.size, spec.dtype)
        for start in range(0, spec.size, block):
            stop = min(start + block, spec.size)
            parts = _blocks(results, spec.name, start, stop)
            flat[start:stop] = reducer.reduce(parts, spec.dtype, stop - start).astype(spec.dtype)
        out[spec.name] = flat.reshape(spec.shape)
    return Parameters.of(out)


def _blocks(results: Iterable[Parameters], name: str, start: int, stop: int) -> Iterator[Array]:
    for result in results:
        yield result.read(name, start, stop)


def check_result(source: TensorSource, expected: Sequence[TensorSpec]) -> None:
    """Check that a result is what was asked for: the same tensors, and every value finite.

    Raises:
        RefusedResultError: A tensor is missing, extra, of another dtype or shape, or has a NaN or an infinity.
    """
    found = {spec.name: spec for spec in source.specs}
    for spec in expected:
        if spec.name not in found:
            raise RefusedResultError("it is missing from the result", where=f"tensor {spec.name!r}")
        other = found.pop(spec.name)
        if (other.dtype, other.shape) != (spec.dtype, spec.shape):
            raise RefusedResultError(
                f"it is {other.dtype}{list(other.shape)}, asked was {spec.dtype}{list(spec.shape)}",
                where=f"tensor {spec.name!r}",
            )
    if found:
        raise RefusedResultError("nobody asked for it", where=f"tensor {next(iter(found))!r}")
    for spec in expected:
        if spec.dtype.kind in "biu" or not is_number(spec.dtype):
            continue
        for start in range(0, spec.size, BLOCK):
            block = source.read(spec.name, start, min(start + BLOCK, spec.size))
            if not np.isfinite(block).all():
                index = start + int(np.argmin(np.isfinite(block)))
                raise RefusedResultError("it has a NaN or an infinity", where=f"tensor {spec.name!r}, element {index}")


class Spool:
    """A private folder of results that were checked and wait for their reduction.

    Results are mapped into memory when they are first read. The pages that reading brought in are let go of again and
    again, so that however many results there are, only a few megabytes of them are resident at a time.

    Args:
        folder: The folder; it is made at once.
        limits: The budget to read them with.

    Attributes:
        limits: The same; it grows with the model.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder = folder
        self.limits = limits
        self._touched: list[_Spooled] = []
        self._touched_bytes = 0
        self._number = 0
        self._files: dict[str, Path] = {}
        self._mapped: dict[_Spooled, None] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, name: str, frame: Frame, specs: tuple[TensorSpec, ...], base: Base | None = None) -> Parameters:
        """Keep a checked result until the next :meth:`clear`; an earlier one of the same name goes.

        Args:
            name: The site's.
            frame: The result.
            specs: Its tensors.
            base: What it is relative to, where its codec needs one.
        """
        self._number += 1  # a handle of an earlier round never reads a later one's file
        path = self._folder / f"{name}.{self._number}.frame"
        replace_file(path, frame.buffers())
        if (earlier := self._files.pop(name, None)) is not None:
            earlier.unlink()
        self._files[name] = path
        return Parameters(_Spooled(path, self.limits, specs, self._touch, base))

    def clear(self) -> None:
        """Forget every result."""
        self._touched.clear()
        self._mapped.clear()
        self._files.clear()
        for path in self._folder.iterdir():
            path.unlink()

    def remove(self) -> None:
        """Forget every result, and the folder."""
        self.clear()
        self._folder.rmdir()

    def _touch(self, source: _Spooled, nbytes: int) -> None:
        if self._touched_bytes > _RESIDENT:
            for touched in set(self._touched):
                touched.let_go()
            self._touched.clear()
            self._touched_bytes = 0
        # Each map holds a file descriptor, and there may be more results than descriptors.
        self._mapped[source] = None
        if len(self._mapped) > _MAPS:
            oldest = next(iter(self._mapped))
            del self._mapped[oldest]
            oldest.unmap()
        # Noted after that: what is handed out now is touched later.
        self._touched.append(source)
        self._touched_bytes += nbytes + mmap.PAGESIZE


class _Spooled:
    """A tensor source over a file that is mapped at the first read."""

    __slots__ = ("_base", "_limits", "_map", "_path", "_source", "_touch", "specs")

    def __init__(
        self,
        path: Path,
        limits: Limits,
        specs: tuple[TensorSpec, ...],
        touch: Callable[[_Spooled, int], None],
        base: Base | None = None,
    ) -> None:
        self._base = base
        self._path = path
        self._limits = limits
        self._touch = touch
        self._map: mmap.mmap | None = None
        self._source: TensorSource | None = None
        self.specs = specs

    def arrays(self) -> dict[str, Array]:
        return self._opened().arrays()

    def read(self, name: str, start: int, stop: int) -> Array:
        part = self._opened().read(name, start, stop)
        self._touch(self, part.nbytes)
        return part

    def let_go(self) -> None:
        """Views stay valid: a page that is touched again is read from the file again."""
        if self._map is not None:
            self._map.madvise(mmap.MADV_DONTNEED)

    def unmap(self) -> None:
        """Let go of the file; views that are still in use keep it until they are gone."""
        self._map = self._source = None

    def _opened(self) -> TensorSource:
        if self._source is None:
            try:
                file = self._path.open("rb")
            except FileNotFoundError:
                raise RunError("a result is only there until its round is over", where=self._path.name) from None
            with file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            # Its digests were checked when it was spooled, and nobody else writes here.
            frame = Frame.decode(memoryview(self._map), limits=self._limits, verify="never")
            self._source = decode_tensors(frame, limits=self._limits, base=self._base)
        return self._source
