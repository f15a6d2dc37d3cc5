"""The benchmark cases: what is encoded, by whom, and which promises the figures must keep."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import blake3
from measure import Case, Context, Target, figures, measure, ratio_target, single
from peers import DIGESTS, MODEL, OURS, buffers_of, make_arrays, missing, peers

from fedpost.frame import Frame
from fedpost.pipeline import Pipeline, decode_tensors

__all__ = ["CASES", "Context"]

FLOWER = "Flower Parameters"
BLAKE3 = "BLAKE3 alone"
JOIN = 'b"".join of the raw buffers (memcpy, fresh memory)'
JOINED = "fedpost, no digests, joined to bytes"
REUSED = "memcpy into reused memory"
WARM = "fedpost, no digests, called again at once"
_AGAIN = 100
LAZY = "fedpost, digests checked when read: frame and table only"
_PER_TENSOR: Final = 2e-6
_LAZY_PER_TENSOR: Final = 1e-6
_TINY: Final = (25, (10, 10))


def _model(context: Context) -> tuple[int, tuple[int, ...]]:
    return context.pick(full=MODEL, quick=MODEL, tiny=_TINY)


def _digests(buffers: list[memoryview]) -> list[bytes]:
    return [blake3.blake3(buffer).digest() for buffer in buffers]


def _again(action: Callable[[], object]) -> object:
    result = None
    for _ in range(_AGAIN):
        result = action()
    return result


def _divide(samples: dict[str, list[float]], name: str) -> None:
    samples[name] = [value / _AGAIN for value in samples[name]]


def encode(context: Context) -> Case:
    """100 MB of float32 in 25 tensors to buffers."""
    arrays = make_arrays(*_model(context))
    raw = buffers_of(arrays)
    reused = memoryview(bytearray(sum(map(len, raw))))
    ours = Pipeline(checksum="none")

    def copy() -> None:
        position = 0
        for buffer in raw:
            reused[position : position + buffer.nbytes] = buffer
            position += buffer.nbytes

    candidates: dict[str, Callable[[], object]] = {
        p.name: partial(p.encode, arrays) for p in peers(context.without).values()
    }
    candidates |= {
        WARM: lambda: _again(candidates[OURS]),
        JOINED: lambda: bytes(ours.encode(arrays)),
        JOIN: lambda: b"".join(raw),
        REUSED: copy,
        BLAKE3: lambda: _digests(raw),
    }
    samples = measure(candidates, runs=context.runs(15), tick=context.tick)
    _divide(samples, WARM)
    found = figures("encode", samples, ours=OURS)
    targets = [
        *ratio_target(
            "encode at least 100 times faster than Flower's ndarrays_to_parameters",
            found,
            FLOWER,
            OURS,
            100,
            at_least=True,
        ),
        *ratio_target("encode at least 100 times faster than pickle 5", found, "pickle 5", OURS, 100, at_least=True),
        *ratio_target(
            "encode with digests within 1.15 times BLAKE3 alone", found, DIGESTS, BLAKE3, 1.15, at_least=False
        ),
        *ratio_target(
            "joined to bytes within 1.10 times b''.join of the raw buffers", found, JOINED, JOIN, 1.1, at_least=False
        ),
    ]
    note = (
        "Each call stands on its own, mostly after another candidate has pushed 100 MB through the caches; only the "
        f"row “{WARM}” is a mean over {_AGAIN} calls in a row."
    )
    return Case(
        name="encode",
        title="Encode 100 MB in 25 tensors",
        note=note,
        figures=found,
        targets=targets,
        missing=missing(context.without),
    )


def decode(context: Context) -> Case:
    """The same model back to arrays."""
    arrays = make_arrays(*_model(context))
    raw = buffers_of(arrays)
    received = {peer.name: (peer.decode, peer.arrive(peer.encode(arrays))) for peer in peers(context.without).values()}
    candidates: dict[str, Callable[[], object]] = {n: partial(act, data) for n, (act, data) in received.items()}
    candidates |= {WARM: lambda: _again(candidates[OURS]), BLAKE3: lambda: _digests(raw)}
    samples = measure(candidates, runs=context.runs(15), tick=context.tick)
    _divide(samples, WARM)
    found = figures("decode", samples, ours=OURS)
    targets = [
        *ratio_target(
            "decode at least 100 times faster than Flower's parameters_to_ndarrays",
            found,
            FLOWER,
            OURS,
            100,
            at_least=True,
        ),
        *ratio_target(
            "decode at least 100 times faster than safetensors", found, "safetensors", OURS, 100, at_least=True
        ),
    ]
    note = (
        "From bytes in memory to arrays. fedpost, out-of-band pickle and Arrow give views of what was received; the "
        "others copy it once or more. fedpost's and Arrow's views cannot be written to."
    )
    return Case(
        name="decode",
        title="Decode 100 MB in 25 tensors",
        note=note,
        figures=found,
        targets=targets,
        missing=missing(context.without),
    )


def memory(context: Context) -> Case:
    """Peak resident memory over the model."""
    from memory import run

    return run(context, _model(context))


def names(context: Context) -> Case:
    """200 tensors of 16 bytes: what names, shapes and types cost."""
    arrays = make_arrays(200, (4,))
    sizes = {peer.name: peer.size(peer.encode(arrays)) for peer in peers(context.without).values()}
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
            Target(text=f"200 tensors of 16 bytes with their names, {name}", value=sizes[name], bound=8192, unit="B")
            for name in (OURS, DIGESTS)
        ],
        missing=missing(context.without),
    )


def many(context: Context) -> Case:
    """10,000 tensors of 16 bytes, and of 4 KiB: cost per tensor."""
    count = context.pick(full=10_000, quick=10_000, tiny=20)
    runs = context.runs(15)
    slow = ("Arrow", "Flower ArrayRecord", "np.savez")  # not made for this, and it shows
    chosen = [peer for peer in peers(context.without).values() if not peer.name.startswith(slow)]
    arrays = make_arrays(count, (4,))
    writing = measure({p.name: partial(p.encode, arrays) for p in chosen}, runs=runs, tick=context.tick)
    received = {p.name: (p.decode, p.arrive(p.encode(arrays))) for p in chosen}
    readers: dict[str, Callable[[], object]] = {n: partial(act, data) for n, (act, data) in received.items()}
    readers[LAZY] = lambda: decode_tensors(Frame.decode(received[DIGESTS][1], verify="lazy"))
    reading = measure(readers, runs=runs, tick=context.tick)

    pages = make_arrays(count, (1024,))
    raw = buffers_of(pages)
    pair = [peer for peer in chosen if peer.name in {OURS, DIGESTS}]
    sent = {p.name: (p.decode, p.arrive(p.encode(pages))) for p in pair}
    digests: dict[str, Callable[[], object]] = {BLAKE3: lambda: _digests(raw)}
    paging = measure({p.name: partial(p.encode, pages) for p in pair} | digests, runs=runs, tick=context.tick)
    fetching = measure(
        {n: partial(act, data) for n, (act, data) in sent.items()} | digests, runs=runs, tick=context.tick
    )

    encoded = figures("encode", writing, ours=OURS, per=count)
    decoded = figures("decode", reading, ours=OURS, per=count)
    bounds = ((encoded, "encode", DIGESTS, _PER_TENSOR), (decoded, "decode", DIGESTS, _PER_TENSOR))
    return Case(
        name="many",
        title="10,000 tensors, time per tensor",
        note="Tensors of 16 bytes: to what each library hands to a transport, and back to 10,000 NumPy arrays, "
        "checked. A lazy decode checks the frame's header and the table of tensors, and makes an array or checks a "
        "digest when it is asked for. Tensors of 4 KiB have a segment and a digest each.",
        figures=[
            *encoded,
            *decoded,
            *figures("encode, 4 KiB each", paging, ours=OURS, per=count),
            *figures("decode, 4 KiB each", fetching, ours=OURS, per=count),
        ],
        targets=[
            Target(text=f"{what} a tensor, 10,000 of 16 bytes, {name}", value=row.median, bound=bound, unit="s")
            for rows, what, name, bound in (*bounds, (decoded, "decode lazily", LAZY, _LAZY_PER_TENSOR))
            for row in rows
            if row.name == name
        ],
        missing=missing(context.without),
    )


def hashes(context: Context) -> Case:
    """Each checksum beside its hash function alone."""
    from hashes import run

    return run(context, _model(context))


def _later(name: str) -> Callable[[Context], Case]:
    """A case that is a module of its own, which is only loaded when it is asked for."""

    def run(context: Context) -> Case:
        case: Case = importlib.import_module(name).run(context)
        return case

    return run


CASES: dict[str, Callable[[Context], Case]] = {
    "encode": encode,
    "decode": decode,
    "memory": memory,
    "formats": _later("formats"),
    "hashes": hashes,
    "names": names,
    "many": many,
    "large": _later("large"),
    "rounds": _later("rounds"),
}
CASES |= {name: _later(name) for name in ("lossless", "objects") if Path(__file__).with_name(f"{name}.py").is_file()}
CASES["codecs"] = _later("updates")  # a module "codecs" is Python's own
