"""What digests cost: encoding with each checksum beside the hash function alone, as its own library computes it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Final

import blake3
import crc32c
import xxhash
from measure import Case, Context, Figure, Target, figures, measure, ratio_target
from peers import buffers_of, make_arrays

from fedpost.pipeline import Pipeline

__all__ = ["run"]

_ALONE: Final[dict[str, Callable[[memoryview], object]]] = {
    "blake3": lambda data: blake3.blake3(data).digest(),
    "sha256": lambda data: hashlib.sha256(data).digest(),
    "xxh3": lambda data: xxhash.xxh3_128(data).digest(),
    "crc32c": crc32c.crc32c,
}
_BOUND: Final = 1.15


def run(context: Context, model: tuple[int, tuple[int, ...]]) -> Case:
    """Measure.

    Args:
        context: How to run.
        model: Arguments of :func:`make_arrays`.
    """
    arrays = make_arrays(*model)
    raw = buffers_of(arrays)
    candidates: dict[str, Callable[[], object]] = {}
    for name, alone in _ALONE.items():
        pipeline = Pipeline(checksum=name)
        candidates[_ours(name)] = partial(_encode, pipeline, arrays)
        candidates[f"{name} alone"] = partial(_hash, alone, raw)
    samples = measure(candidates, runs=context.runs(15), tick=context.tick)
    found: list[Figure] = []
    targets: list[Target] = []
    for name in _ALONE:
        pair = {who: samples[who] for who in (_ours(name), f"{name} alone")}
        rows = figures(name, pair, ours=f"{name} alone")
        found += rows
        text = f"encode with {name} digests within {_BOUND} times {name} alone"
        targets += ratio_target(text, rows, _ours(name), f"{name} alone", _BOUND)
    return Case(
        name="hashes",
        title="Digests: encode 100 MB in 25 tensors, beside the hash alone",
        note="The hash alone is one call of its library for each tensor's memory, on one core. Ratios are to it.",
        figures=found,
        targets=targets,
    )


def _ours(name: str) -> str:
    return f"fedpost encode, {name}"


def _encode(pipeline: Pipeline, arrays: dict[str, object]) -> object:
    return list(pipeline.encode(arrays).buffers())


def _hash(alone: Callable[[memoryview], object], raw: list[memoryview]) -> object:
    return [alone(buffer) for buffer in raw]
