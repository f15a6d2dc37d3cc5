"""Updates by every codec as something to fuzz: what they note, and the bits, places and scales in their segments.

Rules: as in ``targets.py``. What is accepted has the base's names, shapes and types, and any range of it is the same.
"""
# ruff: noqa: INP001 - a script, not a package; sizes of samples are plain numbers

from __future__ import annotations

import random
from collections.abc import Iterator

import ml_dtypes
import numpy as np
from models import LIMITS, bits, require

from fedpost.codecs import Base
from fedpost.errors import RemoteError
from fedpost.frame import Frame
from fedpost.pipeline import Pipeline, decode_tensors
from fedpost.tensors import Array

LOSSY = ("uq(2)", "uq(0.25)", "eden(1)", "eden(2)", "eden(4)", "topk(0.1)", "stc(0.04)", "int8", "int4", "sign")
CODECS = (*LOSSY, "delta", "cast(bfloat16)", "cast(float16)")


def model(seed: int) -> dict[str, Array]:
    """A model of small tensors of every rank."""
    rng = np.random.default_rng(seed)
    return {
        "w": rng.standard_normal((24, 33)).astype(np.float32),
        "k": rng.standard_normal((3, 2, 5, 5)).astype(np.float32),
        "h": rng.standard_normal((9, 40)).astype(ml_dtypes.bfloat16),
        "b": rng.standard_normal(70),
        "n": np.arange(4),
    }


OLD = model(1)
BASE = Base.of(OLD)


def seeds() -> Iterator[bytes]:
    """An update by every codec, also compressed."""
    for codec in CODECS:
        for compression in ("none", "zstd") if codec in ("uq(2)", "stc(0.04)") else ("none",):
            pipeline = Pipeline.parse(f"{codec} | fedwt | {compression}", checksum="crc32c")
            yield bytes(pipeline.encode(model(2), base=BASE))


def check(data: bytes) -> bool:
    """An update against the base that it names."""
    try:
        frame = Frame.decode(data, limits=LIMITS)
        if "pipeline" not in frame.section_names:
            return False
        source = decode_tensors(frame, limits=LIMITS, base=BASE)
        arrays = source.arrays()
    except RemoteError:
        return False
    found = [(name, array.dtype, array.shape) for name, array in arrays.items()]
    require([(spec.name, spec.dtype, spec.shape) for spec in source.specs] == found, "the specs are others")
    require(sum(array.nbytes for array in arrays.values()) <= LIMITS.max_raw, "over the budget")
    rng = random.Random(data)
    for name, array in arrays.items():
        start, stop = sorted((rng.randint(0, array.size), rng.randint(0, array.size)))
        part = source.read(name, start, stop)
        require(bits(part) == bits(array.reshape(-1)[start:stop]), f"a range of {name!r}")
    return True
