"""Large inputs, 64 KiB to 8 MiB, under limits that they just keep: what grows faster than its input shows here.

Rules: as in ``targets.py``. An input may take a few seconds, and as much memory as the limits let in.
"""
# ruff: noqa: INP001 - a script, not a package; sizes of samples are plain numbers

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial

import numpy as np
import structures
from mutation import Bytewise, Mutator

from fedpost.errors import RemoteError
from fedpost.frame import Frame, Limits
from fedpost.objects import dumps, from_frame
from fedpost.pipeline import Pipeline, decode_tensors

MIB = 1 << 20
LARGEST = 8 * MIB
LIMITS = Limits(max_frame=LARGEST, max_header=MIB, max_raw=2 * LARGEST, max_tensors=1 << 14, max_items=1 << 18)
GROWTH = 160 * MIB
SECONDS = 5.0
SEVERAL = 32  # bytes in a row that are altered


def seeds() -> Iterator[bytes]:
    """Few large tensors, many small ones, compressed ones, and objects of many parts."""
    rng = np.random.default_rng(0)
    encode = {
        spec: partial(Pipeline.parse(spec, checksum="xxh3").encode)
        for spec in ("dense | fedwt | none", "dense | fedwt | zstd(1)", "dense | fedwt | lx", "dense | fedwt1 | none")
    }
    yield bytes(encode["dense | fedwt | none"]({"w": np.zeros(LARGEST - 4096, np.uint8)}))
    yield bytes(encode["dense | fedwt | none"]({f"layer.{i}": np.full(3, i, np.float32) for i in range(1 << 14)}))
    yield bytes(encode["dense | fedwt | zstd(1)"]({"w": rng.integers(0, 5, 15 * MIB, np.uint8)}))
    yield bytes(encode["dense | fedwt | lx"]({"w": rng.standard_normal(MIB).astype(np.float32)}))
    yield bytes(encode["dense | fedwt1 | none"]({str(i): np.arange(6) for i in range(5000)}))
    sparse = np.zeros(2 * MIB, np.float32)
    sparse[::50] = 1
    yield bytes(encode["dense | fedwt1 | none"]({"sparse": sparse}))
    yield dumps([(i, str(i), i / 3) for i in range(20_000)], checksum="xxh3")
    yield dumps({"x": np.zeros(MIB), "keys": {f"key {i}": {i} for i in range(4000)}}, checksum="xxh3")


def check(data: bytes) -> bool:
    """Whether it is accepted; then all of it can be read, at once and by range."""
    try:
        frame = Frame.decode(data, limits=LIMITS)
        if "object" in frame.section_names:
            from_frame(frame, limits=LIMITS)
            return True
        if "pipeline" not in frame.section_names:
            return False
        source = decode_tensors(frame, limits=LIMITS)
        arrays = source.arrays()
        for name, array in list(arrays.items())[:8]:
            if (
                source.read(name, array.size // 3, array.size).tobytes()
                != array.reshape(-1)[array.size // 3 :].tobytes()
            ):
                raise AssertionError(f"a range of {name!r} differs")
    except RemoteError:
        return False
    return True


def mutator(bytewise: Bytewise) -> Mutator:
    """Alters frames; a long run of bytes is altered in a few places, so that it stays long."""

    def seldom(rng: random.Random, data: bytes) -> bytes:
        at = rng.randrange(max(1, len(data)))
        return data[:at] + bytewise(rng, data[at : at + SEVERAL]) + data[at + SEVERAL :]

    return structures.frames(seldom)
