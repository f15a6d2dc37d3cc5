"""Python objects to bytes and back, beside NVFLARE's FOBS and pickle: control messages, a model, many records.

Rules: everybody registers the same classes; what comes back is compared with what was sent before a clock runs. A
message takes microseconds, so a run is many calls in a row; but not so many that most runs are interrupted where the
machine does something else as well.
"""

from __future__ import annotations

import importlib
import multiprocessing
import pickle
import statistics
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any, Final

import blake3
import numpy as np
from measure import Case, Context, Figure, Target, figures, measure, peak_memory, ratio_target, single
from messages import CLASSES, ENUMERATIONS, MESSAGES, samples
from peers import MODEL, buffers_of, make_arrays, missing

from fedpost import objects
from fedpost.objects import TypeRegistry

__all__ = ["run"]

OURS: Final = "fedpost"
BARE: Final = "fedpost, no digests"
PICKLE: Final = "pickle 5"
FOBS: Final = "NVFLARE FOBS"
BLAKE3: Final = "BLAKE3 alone"
_AGAIN: Final = 20
_RECORDS: Final = 100_000

Pair = tuple[Callable[[Any], Any], Callable[[Any], Any]]


def _registry() -> TypeRegistry:
    registry = objects.new_registry()
    for cls in (*CLASSES, *ENUMERATIONS):
        objects.register(cls, name=cls.__name__, registry=registry)
    return registry


def _candidates(context: Context) -> dict[str, Pair]:
    """Functions from an object to bytes, and back."""
    registry = _registry()
    found: dict[str, Pair] = {
        OURS: (partial(objects.dumps, registry=registry), partial(objects.loads, registry=registry)),
        PICKLE: (partial(pickle.dumps, protocol=5), pickle.loads),
    }
    if not any(line.startswith("NVFLARE") for line in missing(context.without)):
        fobs = importlib.import_module("nvflare.fuel.utils.fobs")
        fobs.register(importlib.import_module("nvflare.app_common.decomposers.numpy_decomposers").NumpyArrayDecomposer)
        fobs.register_data_classes(*CLASSES)
        fobs.register_enum_types(*ENUMERATIONS)
        found[FOBS] = (fobs.dumps, fobs.loads)
    return found


def run(context: Context) -> Case:
    """Measure."""
    candidates = _candidates(context)
    results: tuple[list[Figure], list[Target]] = ([], [])
    for part in (_messages, _model, _records):
        found, targets = part(context, candidates)
        results[0].extend(found)
        results[1].extend(targets)
    note = (
        f"The {len(MESSAGES)} messages are those of `benchmarks/messages`, each to bytes and back {_AGAIN} times a "
        f"run. The records are {_RECORDS:,} instances of a dataclass with four fields. fedpost makes buffers of "
        "the model that refer to the arrays, and arrays that refer to the bytes received; pickle and FOBS copy."
    )
    return Case(
        name="objects",
        title="Python objects",
        note=note,
        figures=results[0],
        targets=results[1],
        missing=missing(context.without),
    )


# ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _again(function: Callable[[Any], Any], value: Any) -> None:
    for _ in range(_AGAIN):
        function(value)


def _messages(context: Context, candidates: Mapping[str, Pair]) -> tuple[list[Figure], list[Target]]:
    found: list[Figure] = []
    ratios: dict[tuple[str, str], list[float]] = {}
    for title, message in MESSAGES.items():
        packed = {name: dumps(message) for name, (dumps, _) in candidates.items()}
        for name, (_, loads) in candidates.items():
            _check(name, message, loads(packed[name]))
        work: dict[str, dict[str, Callable[[], object]]] = {
            "dumps": {name: partial(_again, dumps, message) for name, (dumps, _) in candidates.items()},
            "loads": {name: partial(_again, loads, packed[name]) for name, (_, loads) in candidates.items()},
        }
        for what, actions in work.items():
            rows = figures(
                f"{title}: {what}", measure(actions, runs=context.runs(101), tick=context.tick), ours=OURS, per=_AGAIN
            )
            found += rows
            medians = {row.name: row.median for row in rows}
            for name in candidates:
                ratios.setdefault((what, name), []).append(medians[name] / medians[OURS])
        sizes = {name: float(len(data)) for name, data in packed.items()}
        found += single(f"{title}: size", sizes, ours=OURS)
        ratios.setdefault(("size", PICKLE), []).append(sizes[PICKLE] / sizes[OURS])
    targets = []
    for what, least in (("dumps", 4.0), ("loads", 6.0)):
        if FOBS in candidates:
            value = statistics.median(ratios[what, FOBS])
            text = f"messages, median: {what} at least {least:g} times as fast as FOBS"
            targets.append(Target(text=text, value=value, bound=least, at_least=True))
        slower = 1 / statistics.median(ratios[what, PICKLE])
        targets.append(Target(text=f"messages, median: {what} within 4 times pickle 5", value=slower, bound=4))
    size = 1 / statistics.median(ratios["size", PICKLE])
    targets.append(Target(text="messages, median: at most 1.15 times the bytes of pickle 5", value=size, bound=1.15))
    return found, targets


def _check(name: str, sent: Any, got: Any) -> None:
    """Whether a message came back; arrays in it are compared by their elements."""
    same = type(sent) is type(got)
    if same and isinstance(sent, dict):
        same = sent.keys() == got.keys()
        for key in sent if same else ():
            _check(name, sent[key], got[key])
    elif same:
        same = np.array_equal(sent, got) if isinstance(sent, np.ndarray) else sent == got
    if not same:
        raise AssertionError(f"{name} does not give back what it was given: {sent!r}, {got!r}")


# ── a model ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _state(context: Context) -> dict[str, Any]:
    shape: tuple[int, tuple[int, ...]] = context.pick(full=MODEL, quick=MODEL, tiny=(25, (10, 10)))
    return {"round": 3, "model": make_arrays(*shape), "site": "site-oslo"}


def _model(context: Context, candidates: Mapping[str, Pair]) -> tuple[list[Figure], list[Target]]:
    state = _state(context)
    raw = buffers_of(state["model"])
    writers: dict[str, Callable[[], object]] = {
        BARE: lambda: objects.to_frame(state, checksum="none"),
        OURS: lambda: objects.to_frame(state),
        BLAKE3: lambda: [blake3.blake3(buffer).digest() for buffer in raw],
        PICKLE: partial(candidates[PICKLE][0], state),
    }
    packed = {BARE: objects.dumps(state, checksum="none"), OURS: objects.dumps(state)}
    readers: dict[str, Callable[[], object]] = {
        name: partial(candidates[OURS][1], data) for name, data in packed.items()
    }
    readers[PICKLE] = partial(candidates[PICKLE][1], candidates[PICKLE][0](state))
    if FOBS in candidates:
        writers[FOBS] = partial(candidates[FOBS][0], state)
        readers[FOBS] = partial(candidates[FOBS][1], candidates[FOBS][0](state))
    encode = figures("model: encode", measure(writers, runs=context.runs(11), tick=context.tick), ours=BARE)
    decode = figures("model: decode", measure(readers, runs=context.runs(11), tick=context.tick), ours=BARE)
    peaks = _peaks(context, "model")
    targets = [
        *ratio_target(
            "an object with a model encodes at least 100 times as fast as with pickle 5",
            encode,
            PICKLE,
            BARE,
            100,
            at_least=True,
        ),
        *ratio_target(
            "an object with a model, with digests, within 1.15 times BLAKE3 alone",
            encode,
            OURS,
            BLAKE3,
            1.15,
            at_least=False,
        ),
        *(
            Target(
                text=f"an object with a model, {what}: peak memory over the model under 5 % of it",
                value=peaks[what] / sum(map(len, raw)),
                bound=0.05,
            )
            for what in peaks
        ),
    ]
    return [*encode, *decode], targets


# ── records ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _records(context: Context, candidates: Mapping[str, Pair]) -> tuple[list[Figure], list[Target]]:
    records = samples(context.pick(full=_RECORDS, quick=_RECORDS, tiny=100))
    packed = {name: dumps(records) for name, (dumps, _) in candidates.items()}
    for name, (_, loads) in candidates.items():
        _check(name, records, loads(packed[name]))
    runs = context.runs(11)
    writers = {name: partial(dumps, records) for name, (dumps, _) in candidates.items()}
    readers = {name: partial(loads, packed[name]) for name, (_, loads) in candidates.items()}
    rows = {
        "dumps": figures("records: dumps", measure(writers, runs=runs, tick=context.tick), ours=OURS),
        "loads": figures("records: loads", measure(readers, runs=runs, tick=context.tick), ours=OURS),
    }
    sizes = {name: float(len(data)) for name, data in packed.items()}
    targets = []
    for what, least in (("dumps", 10), ("loads", 4)):
        targets += ratio_target(
            f"records: {what} at least {least} times as fast as FOBS", rows[what], FOBS, OURS, least, at_least=True
        )
        targets += ratio_target(f"records: {what} no slower than pickle 5", rows[what], OURS, PICKLE, 1, at_least=False)
    peaks = _peaks(context, "records")
    targets += [
        Target(text=f"records: peak memory of {what} over the bytes", value=peaks[what] / sizes[OURS], bound=4)
        for what in peaks
        if what == "encode"
    ]
    return [*rows["dumps"], *rows["loads"], *single("records: size", sizes, ours=OURS)], targets


# ── memory ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _peaks(context: Context, what: str) -> dict[str, int]:
    """Bytes by which resident memory grows, in a fresh process; nothing where there is no time for it."""
    if context.tiny:
        return {}
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak, what).result()


def _peak(what: str) -> dict[str, int]:
    registry = _registry()
    value: Any = samples(_RECORDS) if what == "records" else {"round": 3, "model": make_arrays(*MODEL)}
    small: Any = samples(100) if what == "records" else {"model": make_arrays(2, (16, 16))}
    objects.loads(objects.dumps(small, registry=registry), registry=registry)  # what is imported late is imported now
    write = objects.dumps if what == "records" else objects.to_frame
    encoding, _ = peak_memory(lambda: write(value, registry=registry))
    data = objects.dumps(value, registry=registry)
    decoding, _ = peak_memory(lambda: objects.loads(data, registry=registry))
    return {"encode": encoding, "decode": decoding}
