"""Every tensor format with every compression, beside the peers, on real weights: time, size and memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final

import numpy as np
from measure import Case, Context, Figure, figures, measure
from memory import peaks
from peers import Arrays, Peer, buffers_of, fedpost_peer, make_arrays, missing, peer, peers
from weights import load

from fedpost.errors import MissingExtraError

__all__ = ["COMPRESSIONS", "FORMATS", "REFERENCE", "run"]

FORMATS: Final = {
    "fedwt": "the native format: the frame's own segments, one table by column",
    "fedwt1": "the FEDWT001 file: a table of named tensors, then their bytes",
    "protobuf": "a WeightSet message",
    "msgpack": "a MessagePack map of names to dtype, shape and bytes",
    "json_base64": "JSON, with the bytes in Base64: a third larger, for whoever can read nothing else",
    "numpy": "one .npy image a tensor",
    "safetensors": "a .safetensors file",
}
COMPRESSIONS: Final = {
    "none": "as it is",
    "lz4": "the fastest, for updates that are mostly zeros",
    "zstd": "level 3",
    "gzip": "level 6, for whoever can read nothing else",
    "lx": "byte planes and Huffman codes where a segment's element type is known, zstd(1) where it is not",
}
REFERENCE: Final = "fedpost fedwt"
_FASTEST: Final = "fedpost fedwt, no digests"
_ALLOWANCE: Final = 1.5
_LEGEND: Final = (
    "*encode*: from arrays in memory to all the buffers that a transport is handed",
    "*decode*: from bytes in memory to all the arrays, digests checked where there are any",
    f"*ratio*: the time divided by that of “{REFERENCE}”",
    "*size*: bytes on the wire, and what part of the arrays' own bytes that is",
    "*peak encode*, *peak decode*: the highest growth of resident memory during the call, in a process of its own",
)


def _cell(format_name: str, compression: str) -> str:
    return f"fedpost {format_name}" + ("" if compression == "none" else f" + {compression}")


def _resolve(name: str) -> Peer:
    """The peer of a row; called in the processes that measure memory too."""
    if name == _FASTEST:
        return fedpost_peer(name, "none")
    if not name.startswith("fedpost "):
        return peer(name)
    format_name, _, compression = name.removeprefix("fedpost ").partition(" + ")
    return fedpost_peer(name, spec=f"dense | {format_name} | {compression or 'none'}")


def _unable() -> dict[str, str]:
    """The formats that need what is not installed, each with the reason."""
    reasons = {}
    for name in FORMATS:
        try:
            _resolve(_cell(name, "none")).encode(make_arrays(1, (1,)))
        except MissingExtraError as error:
            reasons[name] = str(error)
    return reasons


def _check(name: str, arrays: Arrays, decoded: Mapping[str, Any] | Iterable[Any]) -> None:
    """A figure of who loses something is worth nothing."""
    if isinstance(decoded, Mapping):
        decoded = [decoded.get(name) for name in arrays]  # not everybody keeps the order
    back = list(decoded)
    if len(back) != len(arrays) or not all(map(np.array_equal, arrays.values(), back)):
        raise RuntimeError(f"{name} does not give back what it was given")


def _arrays(*, quick: bool, tiny: bool) -> Arrays:
    return load(quick=quick, tiny=tiny)[0]


def run(context: Context) -> Case:
    """Measure; groups of candidates by compression, so that never more than a few copies of the model are held."""
    arrays, what = load(quick=context.quick, tiny=context.tiny)
    nbytes = sum(map(len, buffers_of(arrays)))
    others = [name for name in peers(context.without, compressed=True) if not name.startswith("fedpost")]
    unable = _unable()
    batches = [[_cell(name, compression) for name in FORMATS if name not in unable] for compression in COMPRESSIONS]
    batches[0] = [_FASTEST, *batches[0], *others]
    encoding: dict[str, list[float]] = {}
    decoding: dict[str, list[float]] = {}
    sizes: dict[str, list[float]] = {}
    for batch in batches:
        ways = {name: _resolve(name) for name in batch}
        how: dict[str, Any] = {"runs": context.runs(3), "tick": context.tick, "allowance": _ALLOWANCE}
        encoding |= measure({name: partial(way.encode, arrays) for name, way in ways.items()}, **how)
        readers: dict[str, Callable[[], object]] = {}
        for name, way in ways.items():
            sent = way.encode(arrays)
            sizes[name] = [way.size(sent)]
            received = way.arrive(sent)
            del sent
            _check(name, arrays, way.decode(received))
            readers[name] = partial(way.decode, received)
            del received
        decoding |= measure(readers, **how)
        del readers

    some = [_FASTEST, REFERENCE, _cell("fedwt", "lx")]
    resident = context.pick(full=list(encoding), quick=some, tiny=some[-1:])
    measured = {}
    make = partial(_arrays, quick=context.quick, tiny=context.tiny)
    for done, (name, pair) in enumerate(peaks(_resolve, make, resident), 1):
        measured[name] = pair
        context.tick(done, len(resident))
    order = sorted(encoding, key=lambda name: min(encoding[name]) + min(decoding[name]))
    found: list[Figure] = [
        *figures("encode", {name: encoding[name] for name in order}, ours=REFERENCE),
        *figures("decode", {name: decoding[name] for name in order}, ours=REFERENCE),
        *figures("size", {name: sizes[name] for name in order}, unit="B", reference=nbytes),
    ]
    for index, group in enumerate(("peak encode", "peak decode")):
        rows: dict[str, list[float]] = {name: [measured[name][index]] for name in order if name in measured}
        found += figures(group, rows, unit="B", reference=nbytes)
    note = (
        f"The model is {what}: {len(arrays)} tensors, {nbytes / 1e6:,.1f} MB. fedpost's rows are with BLAKE3 digests, "
        "made and checked, except for one. Compressors run on every core, in chunks of 1 MiB. Every row was checked to "
        "give back the same arrays. Sorted by the time to encode and decode."
    )
    return Case(
        name="formats",
        title="Formats and compressions, on real weights",
        note=note,
        figures=found,
        targets=[],
        missing=(*(f"fedpost {name} ({reason})" for name, reason in unable.items()), *missing(context.without)),
        wide=True,
        legend=(
            *_LEGEND,
            *(f"*{name}*: {text}" for name, text in FORMATS.items()),
            *(f"*{name}*: {text}" for name, text in COMPRESSIONS.items() if name != "none"),
        ),
    )
