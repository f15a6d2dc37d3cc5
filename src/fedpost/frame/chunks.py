"""Compressed segments: chunks that are coded independently of each other, large ones on every core.

Rules: a chunk that does not shrink is stored as it is, and so is a segment of which no chunk does; nothing is
decompressed but the chunks that hold the bytes asked for, straight into their place.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Final, TypeVar

import numpy as np

from fedpost.compression import COMPRESSORS, Compression
from fedpost.errors import DecodeError

__all__ = ["CHUNK", "compress", "decompress"]

CHUNK: Final = 1 << 20
_THREADS_FROM: Final = 2 * CHUNK
_SMALL: Final = 1 << 16
_SMALL_NUMBERS: Final = 3 << 18
"""Bytes of a chunk under which handing the interpreter's lock from thread to thread costs more than a second core
brings. Compressors of numbers pass it around with every step of NumPy's."""

T = TypeVar("T")
R = TypeVar("R")

Coded = tuple[list[Sequence[memoryview]], list[str], list[int], list[list[int]]]
"""Stored buffers by segment, and the columns ``codings``, ``coding`` and ``chunks`` of the segment table."""


def compress(segments: Sequence[memoryview], compressions: Sequence[Compression]) -> Coded:
    """Compress each segment in its own way.

    Args:
        segments: C-contiguous buffers of bytes.
        compressions: One for each segment.
    """
    work = [
        (compression, segment[start : start + CHUNK])
        for segment, compression in zip(segments, compressions, strict=True)
        for start in range(0, segment.nbytes, CHUNK)
    ]
    sizes = [plain.nbytes for _, plain in work]
    alone = sum(_SMALL_NUMBERS if compression.number else _SMALL for compression, _ in work) > sum(sizes)
    smaller = iter(_map(_smaller, work, [] if alone else sizes))
    names = {name: number for number, name in enumerate(dict.fromkeys(c.name for c in compressions), 1)}
    stored: list[Sequence[memoryview]] = []
    coding: list[int] = []
    chunks: list[list[int]] = []
    for segment, compression in zip(segments, compressions, strict=True):
        buffers = [next(smaller) for _ in range(0, segment.nbytes, CHUNK)]
        lengths = [buffer.nbytes for buffer in buffers]
        worth = sum(lengths) < segment.nbytes
        stored.append(buffers if worth else (segment,))
        coding.append(names[compression.name] if worth else 0)
        if worth:
            chunks.append(lengths)
    return (stored, list(names), coding, chunks) if chunks else (stored, [], [], [])


def _smaller(work: tuple[Compression, memoryview]) -> memoryview:
    compression, plain = work
    packed = compression.compress(plain)
    return memoryview(packed) if len(packed) < plain.nbytes else plain


def decompress(parts: Sequence[memoryview], coding: str, raw: int, chunk: int, start: int, stop: int) -> memoryview:
    """Bytes ``start`` to ``stop`` of a segment.

    Args:
        parts: The stored chunks.
        coding: The compression's registered name.
        raw: Size of the whole segment before compression.
        chunk: Size of a chunk before compression.
        start: The first byte.
        stop: One past the last byte.

    Raises:
        DecodeError: A chunk is damaged, or does not come to its size.
    """
    compressor = COMPRESSORS.get(coding)
    first, last = start // chunk, -(-stop // chunk)
    out = np.empty(min(last * chunk, raw) - first * chunk, np.uint8)

    def place(number: int) -> None:
        offset = (number - first) * chunk
        size = min(chunk, raw - number * chunk)
        part = parts[number]
        try:
            # A chunk as long as its content is that content: it did not compress.
            if part.nbytes == size:
                out[offset : offset + size] = np.frombuffer(part, np.uint8)
            else:
                compressor.decompress_into(part, out.data[offset : offset + size])
        except DecodeError as error:
            raise type(error)(error.what, where=f"chunk {number}") from error

    numbers = range(first, last)
    _map(place, numbers, [min(chunk, raw - number * chunk) for number in numbers])
    out.flags.writeable = False
    return out.data[start - first * chunk : stop - first * chunk]


def _map(function: Callable[[T], R], items: Sequence[T], sizes: Sequence[int]) -> list[R]:
    """On every core where there is enough to do: the compressors and NumPy let go of the interpreter's lock.

    Args:
        function: The work; doing it twice must do no harm.
        items: What it is done to.
        sizes: Bytes of each item, or nothing when one thread is to do it all.
    """
    batches = _batches(items, sizes)
    pool = _pool() if len(batches) > 1 else None
    if pool is None:
        return list(map(function, items))

    def work(batch: Sequence[T]) -> list[R]:
        return list(map(function, batch))

    waiting: list[Future[list[R]]] = []
    try:
        for batch in batches:
            waiting.append(pool.submit(work, batch))  # noqa: PERF401 - what was taken must be known if one is not
    except RuntimeError:  # the interpreter is ending, or no thread can be started
        _cancel(waiting)
        wait(waiting)
        return list(map(function, items))
    except BaseException:  # Ctrl-C: the executor may not know of the thread that it was starting
        _pool.cache_clear()
        _cancel(waiting)
        pool.shutdown(wait=False)  # wakes that thread as well: it would keep the process from ending
        raise
    try:
        return [result for done in waiting for result in done.result()]
    except BaseException:  # Ctrl-C above all: what nobody waits for is not done
        _cancel(waiting)
        raise


def _cancel(waiting: Iterable[Future[Any]]) -> None:
    for done in waiting:
        done.cancel()


def _batches(items: Sequence[T], sizes: Sequence[int]) -> list[Sequence[T]]:
    """The items in runs of about a chunk's bytes, each worth a thread's while; one run when there is little to do."""
    if sum(sizes) < _THREADS_FROM:
        return [items]
    batches = []
    start = filled = 0
    for number, size in enumerate(sizes, 1):
        filled += size
        if filled >= CHUNK or number == len(sizes):
            batches.append(items[start:number])
            start, filled = number, 0
    return batches


@functools.cache
def _pool() -> ThreadPoolExecutor | None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return ThreadPoolExecutor(cores, thread_name_prefix="fedpost-chunks") if cores > 1 else None


# A forked child has the executor, but none of its threads.
os.register_at_fork(after_in_child=_pool.cache_clear)
