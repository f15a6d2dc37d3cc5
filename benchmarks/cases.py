"""The benchmark cases: what is encoded, by whom, and which promises the figures must keep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import blake3
from measure import Case, Figure, Target, Tick, figures, measure, single
from peers import DIGESTS, MODEL, OURS, buffers_of, make_arrays, peers

from fedpost.pipeline import Pipeline

__all__ = ["CASES", "Context"]

FLOWER = "Flower Parameters"
BLAKE3 = "BLAKE3 alone"
JOIN = 'b"".join of the raw buffers (memcpy, fresh memory)'
JOINED = "fedpost, no digests, joined to bytes"
REUSED = "memcpy into reused memory"
WARM = "fedpost, no digests, called again at once"
_AGAIN = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """How to run.

    Attributes:
        quick: Few runs, and nothing larger than 100 MB.
        scratch: A folder for large files.
        tick: Is told how many steps of how many are done.
    """

    quick: bool
    scratch: Path
    tick: Tick

    def runs(self, full: int) -> int:
        """How many runs to make where a full benchmark makes ``full``."""
        return min(full, 3) if self.quick else full


def _digests(buffers: list[memoryview]) -> list[bytes]:
    return [blake3.blake3(buffer).digest() for buffer in buffers]


def _again(action: Callable[[], object]) -> object:
    result = None
    for _ in range(_AGAIN):
        result = action()
    return result


def _divide(samples: dict[str, list[float]], name: str) -> None:
    samples[name] = [value / _AGAIN for value in samples[name]]


def _ratio(text: str, samples: list[Figure], one: str, other: str, bound: float, *, at_least: bool) -> list[Target]:
    by_name = {figure.name: figure.median for figure in samples}
    if one not in by_name or other not in by_name:
        return []
    return [Target(text=text, value=by_name[one] / by_name[other], bound=bound, at_least=at_least)]


def encode(context: Context) -> Case:
    """100 MB of float32 in 25 tensors to buffers."""
    arrays = make_arrays(*MODEL)
    raw = buffers_of(arrays)
    reused = memoryview(bytearray(sum(map(len, raw))))
    ours = Pipeline(checksum="none")

    def copy() -> None:
        position = 0
        for buffer in raw:
            reused[position : position + buffer.nbytes] = buffer
            position += buffer.nbytes

    candidates: dict[str, Callable[[], object]] = {p.name: partial(p.encode, arrays) for p in peers().values()}
    candidates |= {
        WARM: lambda: _again(candidates[OURS]),
        JOINED: lambda: bytes(ours.encode(arrays)),
        JOIN: lambda: b"".join(raw),
        REUSED: copy,
        BLAKE3: lambda: _digests(raw),
    }
    samples = measure(candidates, runs=context.runs(25), tick=context.tick)
    _divide(samples, WARM)
    found = figures("encode", samples, ours=OURS)
    targets = [
        *_ratio(
            "encode at least 100 times faster than Flower's ndarrays_to_parameters",
            found,
            FLOWER,
            OURS,
            100,
            at_least=True,
        ),
        *_ratio("encode at least 100 times faster than pickle 5", found, "pickle 5", OURS, 100, at_least=True),
        *_ratio("encode with digests within 1.15 times BLAKE3 alone", found, DIGESTS, BLAKE3, 1.15, at_least=False),
        *_ratio(
            "joined to bytes within 1.10 times b''.join of the raw buffers", found, JOINED, JOIN, 1.1, at_least=False
        ),
    ]
    note = (
        "Each call stands on its own, mostly after another candidate has pushed 100 MB through the caches; only the "
        f"row “{WARM}” is a mean over {_AGAIN} calls in a row."
    )
    return Case(name="encode", title="Encode 100 MB in 25 tensors", note=note, figures=found, targets=targets)


def decode(context: Context) -> Case:
    """The same model back to arrays."""
    arrays = make_arrays(*MODEL)
    raw = buffers_of(arrays)
    received = {peer.name: (peer.decode, peer.arrive(peer.encode(arrays))) for peer in peers().values()}
    candidates: dict[str, Callable[[], object]] = {n: partial(act, data) for n, (act, data) in received.items()}
    candidates |= {WARM: lambda: _again(candidates[OURS]), BLAKE3: lambda: _digests(raw)}
    samples = measure(candidates, runs=context.runs(25), tick=context.tick)
    _divide(samples, WARM)
    found = figures("decode", samples, ours=OURS)
    targets = [
        *_ratio(
            "decode at least 100 times faster than Flower's parameters_to_ndarrays",
            found,
            FLOWER,
            OURS,
            100,
            at_least=True,
        ),
        *_ratio("decode at least 100 times faster than safetensors", found, "safetensors", OURS, 100, at_least=True),
    ]
    note = (
        "From bytes in memory to arrays. fedpost, out-of-band pickle and Arrow give views of what was received; the "
        "others copy it once or more. fedpost's and Arrow's views cannot be written to."
    )
    return Case(name="decode", title="Decode 100 MB in 25 tensors", note=note, figures=found, targets=targets)


def memory(context: Context) -> Case:
    """Peak resident memory over the model."""
    from memory import run

    return run(1 if context.quick else 3, context.tick, everybody=not context.quick)


def names(context: Context) -> Case:
    """200 tensors of 16 bytes: what names, shapes and types cost."""
    arrays = make_arrays(200, (4,))
    sizes = {peer.name: peer.size(peer.encode(arrays)) for peer in peers().values()}
    context.tick(1, 1)
    elements, letters = sum(map(len, buffers_of(arrays))), sum(map(len, arrays))
    note = (
        f"Of these, {elements} bytes are elements and {letters} are letters of names. Flower's Parameters (as its "
        "protobuf message) and np.save carry no names at all. Flower's ArrayRecord is counted as flwr pushes it: "
        "objects and their identifiers. Transport framing is counted for nobody."
    )
    return Case(
        name="names",
        title="Size of 200 tensors of 16 bytes, named like layer.12.weight",
        note=note,
        figures=single("size", sizes, ours=DIGESTS),
        targets=[
            Target(text=f"200 small tensors in at most 8192 bytes, {name}", value=sizes[name], bound=8192)
            for name in (OURS, DIGESTS)
        ],
    )


def many(context: Context) -> Case:
    """10,000 tensors of 16 bytes: cost per tensor."""
    count = 10_000
    arrays = make_arrays(count, (4,))
    chosen = [peer for peer in peers().values() if not peer.name.startswith(("Arrow", "Flower ArrayRecord"))]
    runs = context.runs(15)
    writing = measure({p.name: partial(p.encode, arrays) for p in chosen}, runs=runs, tick=context.tick)
    received = {p.name: (p.decode, p.arrive(p.encode(arrays))) for p in chosen}
    reading = measure({n: partial(act, data) for n, (act, data) in received.items()}, runs=runs, tick=context.tick)
    return Case(
        name="many",
        title="10,000 tensors of 16 bytes, time per tensor",
        note="Encoding to what each library hands to a transport, and back to 10,000 NumPy arrays.",
        figures=figures("encode", writing, ours=OURS, per=count) + figures("decode", reading, ours=OURS, per=count),
        targets=[],
    )


def large(context: Context) -> Case:
    """1 GB through a file."""
    from large import run  # it needs a gigabyte and more: only read when asked for

    return run(context.scratch, context.runs(7), context.tick)


def rounds(context: Context) -> Case:
    """Ten sites, and nothing to learn."""
    from rounds import run

    return run(context.scratch, 20 if context.quick else 200, context.tick)


CASES: dict[str, Callable[[Context], Case]] = {
    "encode": encode,
    "decode": decode,
    "memory": memory,
    "names": names,
    "many": many,
    "large": large,
    "rounds": rounds,
}
