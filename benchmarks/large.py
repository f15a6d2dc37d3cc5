"""Gigabytes: encoded and decoded in memory, written to a file, mapped and read again."""

from __future__ import annotations

import importlib
import importlib.util
import math
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

import blake3
import numpy as np
from measure import Case, Context, Figure, Target, figures, measure, peak_anonymous, ratio_target, single
from peers import DIGESTS, OURS, Arrays, buffers_of, fedpost_peer, make_arrays

from fedpost.frame import Frame
from fedpost.pipeline import Pipeline, decode_tensors

__all__ = ["run"]

COUNT: Final = 20
_FULL: Final = (5000, 5000)
"""Shape of a tensor: 20 of them are 2 GB, and half of them 1 GB."""

BLAKE3: Final = "BLAKE3 alone"
WRITTEN: Final = "fedpost Frame.write_to, no digests"
WRITTEN_DIGESTS: Final = "fedpost encode and write_to, BLAKE3 digests"
WRITEV: Final = "os.writev of the raw buffers"
BLOCKS: Final = "os.write of the raw buffers, 1 MiB a call (as dd does)"
OPENED: Final = "fedpost Frame.open and arrays(), digests not checked"
READ: Final = "fedpost Frame.open and arrays(), every element added up"
MAPPED: Final = "np.memmap of the same file, every element added up"
_BLOCK: Final = 1 << 20
_AT_ONCE: Final = 5e-3
_FLAT: Final = 4e6


def _make(shape: tuple[int, ...]) -> Arrays:
    """Arrays in memory of their own with the same random numbers: how many there are is what counts here."""
    (first,) = make_arrays(1, shape).values()
    return {f"layer.{index}.weight": first.copy() for index in range(COUNT)}


def _add_up(arrays: Arrays) -> float:
    return sum(float(array.sum()) for array in arrays.values())


def _mapped(path: Path, places: list[int], shape: tuple[int, ...]) -> Arrays:
    """The arrays of a file as NumPy maps them, by someone who knows where they are."""
    whole = np.memmap(path, np.uint8, "r")
    nbytes = 4 * math.prod(shape)
    return {str(start): whole[start : start + nbytes].view(np.float32).reshape(shape) for start in places}


def _places(frame: Frame, nbytes: int) -> list[int]:
    """Where in the file the tensors are, which are of one size."""
    sizes = [buffer.nbytes for buffer in frame.buffers()]
    starts = accumulate(sizes, initial=0)
    return [start for start, size in zip(starts, sizes, strict=False) if size == nbytes]


def _writev(fd: int, raw: list[memoryview]) -> None:
    pending = list(raw)
    while pending:
        written = os.writev(fd, pending)
        while pending and written >= pending[0].nbytes:
            written -= pending.pop(0).nbytes
        if written:
            pending[0] = pending[0][written:]


def _write(fd: int, raw: list[memoryview]) -> None:
    for buffer in raw:
        start = 0
        while start < buffer.nbytes:
            start += os.write(fd, buffer[start : start + _BLOCK])


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _growth_writing(shape: tuple[int, ...], path: Path) -> int:
    """Memory taken, beyond the arrays, to encode and write them; in a fresh process."""
    pipeline = Pipeline()
    arrays = _make(shape)
    with _opened(path) as fd:
        return peak_anonymous(lambda: pipeline.encode(arrays).write_to(fd))


def _growth_reading(path: Path) -> int:
    """Memory taken to open the file, check its digests and read every element; in a fresh process."""
    return peak_anonymous(lambda: _add_up(decode_tensors(Frame.open(path)).arrays()))


def _memory(shape: tuple[int, ...], folder: Path) -> list[Figure]:
    path = folder / "grown.fedwt"
    spawn = multiprocessing.get_context("spawn")
    grown = {}
    for name, job in (
        ("fedpost encode and write_to", partial(_growth_writing, shape, path)),
        ("fedpost Frame.open, digests checked, every element read", partial(_growth_reading, path)),
    ):
        with ProcessPoolExecutor(1, mp_context=spawn) as pool:
            grown[name] = float(pool.submit(job).result())
    path.unlink()
    return single("memory taken", grown, ours=next(iter(grown)))


def _in_memory(context: Context, arrays: Arrays) -> tuple[list[Figure], list[Target]]:
    """Encode to buffers, and decode from bytes that are there."""
    raw = buffers_of(arrays)
    alone: dict[str, Callable[[], object]] = {BLAKE3: lambda: [blake3.blake3(buffer).digest() for buffer in raw]}
    pair = (fedpost_peer(OURS, "none"), fedpost_peer(DIGESTS))
    runs = context.runs(7)
    encoding = measure({p.name: partial(p.encode, arrays) for p in pair} | alone, runs=runs, tick=context.tick)
    received = {p.name: p.arrive(p.encode(arrays)) for p in pair}
    readers: dict[str, Callable[[], object]] = {p.name: partial(p.decode, received[p.name]) for p in pair}
    decoding = measure(readers | alone, runs=runs, tick=context.tick)
    encoded, decoded = figures("encode 1 GB", encoding, ours=OURS), figures("decode 1 GB", decoding, ours=OURS)
    targets = []
    for what, rows in (("encode", encoded), ("decode", decoded)):
        at_once = next(row.median for row in rows if row.name == OURS)
        targets.append(Target(text=f"{what} 1 GB, no digests", value=at_once, bound=_AT_ONCE, unit="s"))
        targets += ratio_target(f"{what} 1 GB with digests within 1.15 times BLAKE3 alone", rows, DIGESTS, BLAKE3, 1.15)
    return encoded + decoded, targets


def _to_file(context: Context, arrays: Arrays, folder: Path) -> list[Figure]:
    raw = buffers_of(arrays)
    on, off = Pipeline(), Pipeline(checksum="none")
    ready = off.encode(arrays)
    peer_file = folder / "peer.safetensors"
    with _opened(folder / "written") as fd:

        def empty() -> None:
            os.ftruncate(fd, 0)
            os.lseek(fd, 0, os.SEEK_SET)
            peer_file.unlink(missing_ok=True)

        writers: dict[str, Callable[[], object]] = {
            WRITTEN: lambda: ready.write_to(fd),
            WRITTEN_DIGESTS: lambda: on.encode(arrays).write_to(fd),
            WRITEV: lambda: _writev(fd, raw),
            BLOCKS: lambda: _write(fd, raw),
        }
        if safetensors := _safetensors(context):
            writers["safetensors save_file"] = lambda: safetensors.save_file(arrays, peer_file)
        writing = measure(writers, runs=context.runs(5), tick=context.tick, before=empty)
        empty()
    return figures("write 2 GB", writing, ours=WRITEV)


def _from_file(context: Context, arrays: Arrays, folder: Path) -> list[Figure]:
    ours, theirs = folder / "model.fedwt", folder / "model.safetensors"
    frame = Pipeline().encode(arrays)
    with _opened(ours) as fd:
        frame.write_to(fd)
    first = next(iter(arrays.values()))
    places = _places(frame, first.nbytes)
    if len(places) != len(arrays):
        raise RuntimeError("the tensors are not where they should be")
    readers: dict[str, Callable[[], object]] = {
        OPENED: lambda: decode_tensors(Frame.open(ours, verify="never")).arrays(),
        "fedpost Frame.open and arrays(), digests checked": lambda: decode_tensors(Frame.open(ours)).arrays(),
        READ: lambda: _add_up(decode_tensors(Frame.open(ours, verify="never")).arrays()),
        # The same file: of two with the same bytes, the one that was written first is slower to read, whosever it is.
        MAPPED: lambda: _add_up(_mapped(ours, places, first.shape)),
    }
    if safetensors := _safetensors(context):
        safetensors.save_file(arrays, theirs)
        readers["safetensors load_file"] = lambda: safetensors.load_file(theirs)
    reading = measure(readers, runs=context.runs(5), tick=context.tick)
    return figures("read 2 GB", reading, ours=OPENED)


def _safetensors(context: Context) -> Any:
    name = "safetensors"
    if name in context.without or importlib.util.find_spec(name) is None:
        return None
    return importlib.import_module("safetensors.numpy")


def run(context: Context) -> Case:
    """Measure in the scratch folder, which should have 7 GB free in a full benchmark."""
    shape = context.pick(full=_FULL, quick=(1000, 1000), tiny=(40, 40))
    with tempfile.TemporaryDirectory(prefix="fedpost-bench-", dir=context.scratch) as name:
        folder = Path(name)
        taken = _memory(shape, folder)
        arrays = _make(shape)
        half = dict(list(arrays.items())[: COUNT // 2])
        in_memory, targets = _in_memory(context, half)
        writing = _to_file(context, arrays, folder)
        reading = _from_file(context, arrays, folder)
    targets += [
        *ratio_target("write_to of 2 GB within 1.1 times os.writev of the raw buffers", writing, WRITTEN, WRITEV, 1.1),
        *ratio_target("2 GB mapped and added up within 1.1 times np.memmap", reading, READ, MAPPED, 1.1),
        *(Target(text=f"memory taken, 2 GB, {row.name}", value=row.median, bound=_FLAT, unit="B") for row in taken),
    ]
    return Case(
        name="large",
        title="1 GB in memory, 2 GB through a file",
        note="20 tensors, of which 10 are encoded to buffers and decoded from bytes in memory. The files are in memory "
        "(tmpfs) where the machine has it, so that no disk is measured; each is empty before it is written. Ratios of "
        "writing are to os.writev. fedpost maps a file, and without digests to check touches no tensor until it is "
        "used; load_file reads everything into arrays of its own. Memory taken is the growth of anonymous memory at "
        "its highest, looked at every millisecond, in a process of its own: a mapped file is not counted."
        + (" A quick run is 25 times smaller." if context.quick else ""),
        figures=[*in_memory, *writing, *reading, *taken],
        targets=targets,
        missing=() if _safetensors(context) else ("safetensors",),
    )
