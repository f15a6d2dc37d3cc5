"""Update codecs on one client's change of ten million numbers: size, error, time of a core and memory, beside others.

Rules: every way starts from the model and its base in memory and ends with the model; the difference, the header and
what is kept for the next update are in the time. Seconds are of the processor, added up over threads: what a core does.
The change is a real one where PyTorch and Fashion-MNIST are there: of a network of 1.66 million numbers, six times,
each time with its units in another order, which changes nothing of how they hang together.
"""

from __future__ import annotations

import math
import multiprocessing
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from lossless import can_train, client_change
from measure import Case, Context, Figure, Target, figures, measure, peak_memory, single
from peers import Arrays
from update_peers import NNCODEC, Way, changes, missing_peers, nncodec, norm, peers_of

from fedpost.codecs import Base
from fedpost.frame import Frame
from fedpost.pipeline import Pipeline, decode_tensors
from fedpost.tensors import MemoryTensors

__all__ = ["run"]

_LOSSY: Final = ("uq(1)", "uq(2)", "uq(3)", "eden(1)", "int8", "int4", "topk(0.01)", "stc(0.04)", "sign")
_SPECS: Final = {f"fedpost {codec}": f"{codec} | fedwt | none" for codec in _LOSSY} | {
    "fedpost delta, lx": "delta | fedwt | lx"
}
_UQ: Final = ("fedpost uq(1)", "fedpost uq(2)", "fedpost uq(3)")
_REFERENCE: Final = "fedpost uq(2)"
_COPIES: Final = 6
_LEAST_SPEED: Final = 200.0
_MOST_MEMORY: Final = 1.5
_SMALLER: Final = 1.25
_MATRIX: Final = 2


def run(context: Context) -> Case:
    """Measure."""
    old, new, what = _model(context)
    raw = sum(array.nbytes for array in new.values())
    whole = norm(changes(new, old))
    ways = {name: _ours(spec) for name, spec in _SPECS.items()} | peers_of(context.without)
    left_out = missing_peers(context.without)
    sent = {name: way.encode(new, old) for name, way in ways.items()}
    errors = {name: norm(changes(way.decode(sent[name], old), new)) / whole for name, way in ways.items()}
    sizes = {name: float(way.size(sent[name])) for name, way in ways.items()}
    equal: dict[str, float] = {}
    if not any(reason.startswith(NNCODEC) for reason in left_out):
        for name in _UQ:
            step, equal[name] = _nncodec_size(new, old, whole, errors[name])
            at = f"{NNCODEC} at the error of {name.removeprefix('fedpost ')}"
            ways[at] = way = nncodec(step)
            sent[at] = way.encode(new, old)
            errors[at] = norm(changes(way.decode(sent[at], old), new)) / whole
            sizes[at] = float(way.size(sent[at]))
    runs = context.runs(9)
    clock = time.process_time
    writing = {name: partial(way.encode, new, old) for name, way in ways.items()}
    encoding = measure(writing, runs=runs, tick=context.tick, allowance=20, clock=clock)
    reading = {name: partial(way.decode, sent[name], old) for name, way in ways.items()}
    decoding = measure(reading, runs=runs, tick=context.tick, allowance=20, clock=clock)
    del sent
    found = [
        *single("size", sizes | {"as they are": float(raw)}, ours=_REFERENCE),
        *_plain("times smaller", {name: raw / size for name, size in sizes.items()}),
        *_plain("relative error", errors),
        *figures("encode", encoding, ours=_REFERENCE),
        *figures("decode", decoding, ours=_REFERENCE),
    ]
    targets = [*_speeds(found, raw), *_ratios(sizes, equal)]
    peaks = _peaks(context)
    for operation, values in peaks.items():
        group = f"peak memory, {operation}"
        found += _plain(group, values)
        targets += [
            Target(text=f"{name}: {group} of a tensor over its size", value=value, bound=_MOST_MEMORY)
            for name, value in values.items()
            if not context.tiny
        ]
    note = (
        f"{raw / 1e6:.0f} MB of float32: {what}. Times are seconds of the processor from the model and its base to "
        "what is sent, and back to the model; without digests. The relative error is the norm of what is lost over "
        "that of the change; what uq, topk, stc and sign lose is sent later. The memory is what comes on top of a "
        "model of one matrix and its base, over its size; what is kept for the next update is one such size, and so "
        "is the model that is decoded."
    )
    return Case(
        name="codecs",
        title="Update codecs on a change of 10 million numbers",
        note=note,
        figures=found,
        targets=targets,
        missing=left_out,
    )


def _ours(spec: str) -> Way:
    pipeline = Pipeline.parse(spec, checksum="none")

    def encode(new: Arrays, old: Arrays) -> bytes:
        return bytes(pipeline.encode_update(new, base=_base(old))[0])

    def decode(sent: bytes, old: Arrays) -> Arrays:
        return decode_tensors(Frame.decode(sent), base=_base(old)).arrays()

    return Way(encode, decode, len)


def _base(old: Arrays) -> Base:
    """The base; both sides know its digest already, so nothing is hashed here."""
    return Base(bytes(16), MemoryTensors(old))


def _plain(group: str, values: Mapping[str, float]) -> list[Figure]:
    """Numbers without a unit, which nobody divides."""
    return [
        Figure(group=group, name=name, unit="", median=value, min=value, n=1, ratio=None)
        for name, value in values.items()
    ]


def _speeds(found: list[Figure], raw: int) -> list[Target]:
    return [
        Target(
            text=f"{row.name} {row.group}s at least {_LEAST_SPEED:.0f} MB of float32 a second of a core",
            value=raw / 1e6 / row.median,
            bound=_LEAST_SPEED,
            at_least=True,
        )
        for row in found
        if row.name in _UQ and row.group in {"encode", "decode"}
    ]


def _ratios(sizes: Mapping[str, float], equal: Mapping[str, float]) -> list[Target]:
    return [
        Target(
            text=f"{name} at least {_SMALLER} times as small as NNCodec at the same error",
            value=size / sizes[name],
            bound=_SMALLER,
            at_least=True,
        )
        for name, size in equal.items()
    ]


def _nncodec_size(new: Arrays, old: Arrays, whole: float, error: float) -> tuple[int, float]:
    """NNCodec's step with the nearest error that is not above, and its size at the very error, between two steps."""

    def at(step: int) -> tuple[float, float]:
        way = nncodec(step)
        sent = way.encode(new, old)
        return norm(changes(way.decode(sent, old), new)) / whole, float(way.size(sent))

    low, high = -64, 64
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if at(middle)[0] <= error else (low, middle)
    (finer, larger), (coarser, smaller) = at(low), at(high)
    part = (math.log(error) - math.log(finer)) / (math.log(coarser) - math.log(finer))
    return low, math.exp((1 - part) * math.log(larger) + part * math.log(smaller))


# ── memory ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _peaks(context: Context) -> dict[str, dict[str, float]]:
    """What one tensor takes beyond the model and its base, over its size; each codec in a process of its own."""
    spawn = multiprocessing.get_context("spawn")
    names = list(_SPECS)
    shape = context.pick(full=(3072, 3136), quick=(3072, 3136), tiny=(64, 64))
    out: dict[str, dict[str, float]] = {"encode": {}, "decode": {}}
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as pool:
        for name, pair in zip(names, pool.map(partial(_peak, shape), names), strict=True):
            for operation, value in zip(out, pair, strict=True):
                out[operation][name] = value
    return out


def _peak(shape: tuple[int, int], name: str) -> tuple[float, float]:
    pipeline = Pipeline.parse(_SPECS[name], checksum="none")
    _once(pipeline, (64, 64))  # what is imported late is imported now
    old, new = _laplacian(shape)
    base = _base(old)
    nbytes = new["weight"].nbytes
    # The frame and what the update loses, which both are kept.
    encoding, (frame, lost) = peak_memory(lambda: pipeline.encode_update(new, base=base))
    del lost
    decoding, _ = peak_memory(lambda: decode_tensors(frame, base=base).arrays())
    return encoding / nbytes, decoding / nbytes


def _once(pipeline: Pipeline, shape: tuple[int, int]) -> None:
    old, new = _laplacian(shape)
    base = _base(old)
    decode_tensors(Frame.decode(bytes(pipeline.encode(new, base=base))), base=base).arrays()


def _laplacian(shape: tuple[int, int]) -> tuple[Arrays, Arrays]:
    """A model of one matrix, and a change of it with rows and columns of different strength."""
    rng = np.random.default_rng(0)
    old = rng.standard_normal(shape, dtype=np.float32)
    new = rng.standard_normal(shape, dtype=np.float32)
    new *= np.exp(rng.standard_normal((shape[0], 1), dtype=np.float32))
    new *= np.exp(rng.standard_normal((1, shape[1]), dtype=np.float32)) * np.float32(1e-3)
    new += old
    return {"weight": old}, {"weight": new}


# ── the change ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _model(context: Context) -> tuple[Arrays, Arrays, str]:
    """A base, the model after it, and what they are in a phrase."""
    if context.tiny or not can_train():
        shape = context.pick(full=(3072, 3136), quick=(1024, 1024), tiny=(64, 64))
        return *_laplacian(shape), "normally distributed numbers in rows and columns of different strength"
    copies = context.pick(full=_COPIES, quick=1, tiny=1)
    old, new = _trained(context.scratch)
    rng = np.random.default_rng(0)
    bases: Arrays = {}
    models: Arrays = {}
    for copy in range(copies):
        for name, array in old.items():
            rows = rng.permutation(array.shape[0])
            columns = rng.permutation(array.shape[1]) if array.ndim == _MATRIX else None
            for out, source in ((bases, array), (models, new[name])):
                turned = source[rows] if columns is None else source[rows][:, columns]
                out[f"{copy}.{name}"] = np.ascontiguousarray(turned)
    return bases, models, f"one client's epoch on Fashion-MNIST, {copies} times in other orders"


def _trained(scratch: Path) -> tuple[Arrays, Arrays]:
    """The network before and after, trained once and then kept."""
    kept = scratch / "fedpost-client-change.npz"
    if not kept.is_file():
        pair = client_change()
        np.savez(kept, **{f"{side}.{name}": array for side, model in enumerate(pair) for name, array in model.items()})
    with np.load(kept, allow_pickle=False) as file:
        both = dict(file)
    old, new = ({name[2:]: array for name, array in both.items() if name[0] == side} for side in "01")
    return old, new
