"""Lossless compression of real weights, and of what one client's epoch changes of a model, beside ZipNN and others.

Rules: timed is the way from arrays or bytes in memory to packed bytes in memory, and back; every candidate is checked
bit for bit first. ZipNN alters the bytes that it is given, so it gets a fresh copy each time, which is not timed; so do
all others. For a change everybody but fedpost is given the XOR with the base, and makes it undone in no time.
"""

from __future__ import annotations

import gzip
import importlib.util
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import ml_dtypes
import numpy as np
import zstandard
from measure import Case, Context, Figure, Target, figures, measure, ratio_target, single
from weights import load

from fedpost.codecs import Base
from fedpost.compression import COMPRESSORS
from fedpost.frame import chunks
from fedpost.pipeline import Pipeline, decode_tensors

__all__ = ["can_train", "client_change", "run"]

Arrays = dict[str, np.ndarray[Any, Any]]
Pair = tuple[Callable[[bytearray], Any], Callable[[Any], Any]]

LX, KERNEL, ZIPNN = "fedpost lx", "fedpost lx, its chunks alone", "ZipNN"
FRAME_ZSTD, ZSTD, WHOLE = "fedpost zstd(3)", "zstd-3, in chunks of 1 MiB", "zstd-3, whole"
_DTYPES: Final = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16), "float16": np.dtype("f2")}
_FASTER: Final = {"float32": (2.0, 1.4), "bfloat16": (1.3, 0.85), "float16": (1.3, 0.85)}
_FASHION: Final = Path("/usr/share/datasets/fashion-mnist")


def run(context: Context) -> Case:
    """Measure; where PyTorch and Fashion-MNIST are there, changes too."""
    tiny = context.pick(full=False, quick=False, tiny=True)
    arrays, what = load(quick=context.pick(full=False, quick=True, tiny=True), tiny=tiny)
    weights = {name: array for name, array in arrays.items() if array.dtype == np.float32}
    found: list[Figure] = []
    targets: list[Target] = []
    for name in _DTYPES:
        for threads in (1, 2):
            rows = _measure(context, f"{name} weights, threads: {threads}", name, _cast(weights, name), None, threads)
            found += rows
            targets += _targets(rows, name)
    change = None if tiny or not can_train() else client_change()
    for name in ("float32", "bfloat16") if change else ():
        old, new = (_cast(model, name) for model in change or ())
        found += (rows := _measure(context, f"{name} change", name, new, old, 1))
        text = f"{name} change: lx smaller than ZipNN"
        targets += ratio_target(text, [row for row in rows if row.unit == "B"], LX, ZIPNN, 1.0)
    note = f"The weights are {what}. Sizes are of the packed bytes; a change is one client's epoch on Fashion-MNIST."
    return Case(name="lossless", title="Lossless compression of weights", note=note, figures=found, targets=targets)


def _cast(arrays: Arrays, name: str) -> Arrays:
    return {key: array.astype(_DTYPES[name]) for key, array in arrays.items()}


def _targets(rows: list[Figure], name: str) -> list[Target]:
    targets: list[Target] = []
    for what, least in zip(("encode", "decode"), _FASTER[name], strict=True):
        timed = [row for row in rows if row.group.endswith(what)]
        group = timed[0].group
        text = f"{group}s at least {least} times as fast as ZipNN"
        targets += ratio_target(text, timed, ZIPNN, LX, least, at_least=True)
        for alone in (ZSTD, WHOLE):
            text = f"{group}s zstd through the frame within 1.03 times {alone}"
            targets += ratio_target(text, timed, FRAME_ZSTD, alone, 1.03)
    sizes = [row for row in rows if row.unit == "B"]
    return targets + ratio_target(f"{sizes[0].group} of lx within 0.2 % of ZipNN's", sizes, LX, ZIPNN, 1.002)


def _measure(context: Context, group: str, name: str, new: Arrays, old: Arrays | None, threads: int) -> list[Figure]:
    raw = b"".join(array.tobytes() for array in new.values())
    given = raw
    if old is not None:
        given = _xor(raw, b"".join(array.tobytes() for array in old.values()))
    with _threads(threads) as pool:
        ways = _ways(name, new, old, len(raw), pool, threads)
        packed = {}
        for who, (pack, unpack) in ways.items():
            packed[who] = pack(bytearray(given))
            if _bytes(unpack(packed[who])) not in {raw, given}:
                raise AssertionError(f"{who} does not give back what it was given")
        copies: list[bytearray] = []

        def fresh() -> None:
            copies[:] = [bytearray(given)]

        def encode(pack: Callable[[bytearray], Any]) -> object:
            return pack(copies[0])

        runs = context.runs(9)
        writing = {who: partial(encode, pack) for who, (pack, _) in ways.items()}
        encoding = measure(writing, runs=runs, tick=context.tick, before=fresh)
        reading = {who: partial(unpack, packed[who]) for who, (_, unpack) in ways.items()}
        decoding = measure(reading, runs=runs, tick=context.tick)
    sizes = {who: float(_size(data)) for who, data in packed.items()} | {"as they are": float(len(raw))}
    return [
        *single(f"{group}: size", sizes, ours=LX),
        *figures(f"{group}: encode", encoding, ours=LX),
        *figures(f"{group}: decode", decoding, ours=LX),
    ]


# ── who packs, and how ───────────────────────────────────────────────────────────────────────────────────────────────


def _ways(
    name: str, new: Arrays, old: Arrays | None, size: int, pool: ThreadPoolExecutor | None, threads: int
) -> dict[str, Pair]:
    width = _DTYPES[name].itemsize
    lx, level = COMPRESSORS.get("lx"), zstandard.ZstdCompressor
    ways = {
        LX: _frame("lx", new, old),
        KERNEL: _chunked(size, pool, lambda part: lx.compress(part, 1, f"f{width}"), lx.decompress_into),
        FRAME_ZSTD: _frame("zstd(3)", new, old),
        ZSTD: _chunked(size, pool, lambda part: level(level=3).compress(part), _unzstd),
        "byte shuffle and zstd-1": _chunked(
            size, pool, lambda part: level(level=1).compress(_shuffle(part, width)), partial(_unshuffle, width=width)
        ),
    }
    if threads == 1:
        ways[WHOLE] = (level(level=3).compress, zstandard.ZstdDecompressor().decompress)
    if importlib.util.find_spec("pcodec"):
        ways["pcodec-8"] = _pcodec(name, size, pool)
    if importlib.util.find_spec("zipnn"):
        import zipnn

        peer = zipnn.ZipNN(input_format="byte", bytearray_dtype=name, threads=threads)
        ways[ZIPNN] = (peer.compress, peer.decompress)
        if old is not None:
            base = b"".join(array.tobytes() for array in old.values())
            own = zipnn.ZipNN(input_format="byte", bytearray_dtype=name, threads=threads, delta_compressed_type="byte")
            ways["ZipNN, its own delta"] = (
                lambda given: own.compress(bytearray(_xor(given, base)), delta_second_data=bytearray(base)),
                lambda packed: own.decompress(packed, delta_second_data=base),
            )
    return ways


def _frame(compression: str, new: Arrays, old: Arrays | None) -> Pair:
    base = None if old is None else Base.of(old)
    pipeline = Pipeline.parse(f"{'delta' if base else 'dense'} | fedwt | {compression}", checksum="none")
    return lambda _: pipeline.encode(new, base=base), lambda frame: decode_tensors(frame, base=base).arrays()


def _chunked(
    size: int,
    pool: ThreadPoolExecutor | None,
    pack: Callable[[memoryview], bytes],
    unpack: Callable[[memoryview, memoryview], object],
) -> Pair:
    each: Callable[..., Any] = map if pool is None else pool.map
    places = range(0, size, chunks.CHUNK)

    def encode(given: bytearray) -> list[bytes]:
        view = memoryview(given)
        return list(each(lambda at: pack(view[at : at + chunks.CHUNK]), places))

    def decode(packed: list[bytes]) -> Any:
        out = np.empty(size, np.uint8)
        view = out.data
        list(each(lambda at: unpack(memoryview(packed[at // chunks.CHUNK]), view[at : at + chunks.CHUNK]), places))
        return out

    return encode, decode


def _unzstd(packed: memoryview, out: memoryview) -> None:
    out[:] = zstandard.ZstdDecompressor().decompress(packed)


def _shuffle(part: memoryview, width: int) -> bytes:
    return np.frombuffer(part, np.uint8).reshape(-1, width).T.tobytes()


def _unshuffle(packed: memoryview, out: memoryview, *, width: int) -> None:
    plain = np.frombuffer(zstandard.ZstdDecompressor().decompress(packed), np.uint8)
    np.copyto(np.frombuffer(out, np.uint8).reshape(-1, width), plain.reshape(width, -1).T)


def _pcodec(name: str, size: int, pool: ThreadPoolExecutor | None) -> Pair:
    from pcodec import ChunkConfig, standalone

    number = {"float32": "f4", "float16": "f2", "bfloat16": "u2"}[name]
    config = ChunkConfig(compression_level=8)

    def unpack(packed: memoryview, out: memoryview) -> None:
        standalone.simple_decompress_into(bytes(packed), np.frombuffer(out, number))

    return _chunked(size, pool, lambda part: standalone.simple_compress(np.frombuffer(part, number), config), unpack)


@contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor | None]:
    """Let chunks be coded by so many threads, whatever the machine has."""
    usual = chunks._pool  # noqa: SLF001 - there is no setting for it, as nobody needs one
    pool = ThreadPoolExecutor(count) if count > 1 else None
    chunks._pool = lambda: pool  # type: ignore[assignment] # noqa: SLF001
    try:
        yield pool
    finally:
        chunks._pool = usual  # noqa: SLF001
        if pool is not None:
            pool.shutdown()


def _xor(one: bytes | bytearray, other: bytes) -> bytes:
    return np.bitwise_xor(np.frombuffer(one, np.uint8), np.frombuffer(other, np.uint8)).tobytes()


def _bytes(plain: Any) -> bytes:
    return b"".join(a.tobytes() for a in plain.values()) if isinstance(plain, dict) else bytes(memoryview(plain))


def _size(packed: Any) -> int:
    if isinstance(packed, list):
        return sum(map(len, packed))
    return len(packed) if isinstance(packed, bytes | bytearray) else int(packed.nbytes)


# ── a real change ────────────────────────────────────────────────────────────────────────────────────────────────────


def can_train() -> bool:
    return importlib.util.find_spec("torch") is not None and _FASHION.is_dir()


def client_change() -> tuple[Arrays, Arrays]:
    """A model of 1.66 million numbers after 400 central steps, and after one epoch of a client with 600 images."""
    import torch
    from torch import nn

    def read(name: str, skip: int) -> np.ndarray[Any, Any]:
        return np.frombuffer(gzip.decompress((_FASHION / name).read_bytes()), np.uint8, offset=skip)

    images = torch.tensor(read("train-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)[:13_400].copy())
    inputs = (images.float() / 255 - 0.2860) / 0.3530
    labels = torch.tensor(read("train-labels-idx1-ubyte.gz", 8)[:13_400].astype(np.int64))
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, 10)),
    )

    def train(optimizer: torch.optim.Optimizer, start: int, stop: int) -> Arrays:
        for at in range(start, stop - 31, 32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs[at : at + 32]), labels[at : at + 32]).backward()
            optimizer.step()
        return {name: value.numpy().copy() for name, value in model.state_dict().items()}

    old = train(torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9), 0, 12_800)
    return old, train(torch.optim.SGD(model.parameters(), lr=0.05), 12_800, 13_400)
