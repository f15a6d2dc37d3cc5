"""Peak resident memory of encoding and decoding, a fresh process for each way of doing it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from measure import Case, Context, Figure, Target, figures, peak_memory
from peers import DIGESTS, OURS, Arrays, Peer, buffers_of, make_arrays, missing, peer, peers

__all__ = ["peaks", "run"]

Maker = Callable[[], Arrays]
Resolver = Callable[[str], Peer]
_OPERATIONS = ("encode", "decode")


def _peak(resolve: Resolver, make: Maker, name: str) -> tuple[int, int]:
    """The growth of resident memory while this, a fresh, process encodes and then while it decodes."""
    chosen = resolve(name)
    small = make_arrays(2, (16, 16))
    chosen.decode(chosen.arrive(chosen.encode(small)))  # what is imported late is imported now
    arrays = make()
    encoding, sent = peak_memory(partial(chosen.encode, arrays))
    data = chosen.arrive(sent)
    del sent, arrays
    return encoding, peak_memory(partial(chosen.decode, data))[0]


def peaks(resolve: Resolver, make: Maker, names: Sequence[str]) -> Iterator[tuple[str, tuple[int, int]]]:
    """Bytes beyond the model, encoding and decoding, by name; each name in a process of its own, two at a time.

    Args:
        resolve: Gives the peer of a name; a function of a module, as it is called in the other process.
        make: Makes the arrays there.
        names: Whom to measure.
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=spawn, max_tasks_per_child=1) as pool:
        yield from zip(names, pool.map(partial(_peak, resolve, make), names), strict=True)


def run(context: Context, model: tuple[int, tuple[int, ...]]) -> Case:
    """Measure ours, and the peers too in a full benchmark.

    Args:
        context: How to run.
        model: Arguments of :func:`make_arrays`.
    """
    names = [OURS, DIGESTS] if context.quick else list(peers(context.without))
    make = partial(make_arrays, *model)
    nbytes = sum(map(len, buffers_of(make())))
    work = names + ([] if context.quick else [OURS, DIGESTS])
    samples: dict[str, dict[str, list[float]]] = {o: {name: [] for name in names} for o in _OPERATIONS}
    for done, (name, pair) in enumerate(peaks(peer, make, work), 1):
        for operation, value in zip(_OPERATIONS, pair, strict=True):
            samples[operation][name].append(value)
        context.tick(done, len(work))
    found: list[Figure] = []
    targets = []
    for operation in _OPERATIONS:
        rows = figures(operation, samples[operation], ours=DIGESTS, unit="B")
        found += rows
        targets += [
            Target(
                text=f"{operation}, {row.name}: peak memory over the model under 5 % of it",
                value=row.median / nbytes,
                bound=0.05,
            )
            for row in rows
            if row.name in {OURS, DIGESTS}
        ]
    note = (
        "Growth of the resident set from just before the call to its highest point, in a fresh process, with the model "
        "(or the bytes received) already there. The model is 100 MB. Ratios to a few pages mean little."
    )
    return Case(
        name="memory",
        title="Peak memory beyond the model",
        note=note,
        figures=found,
        targets=targets,
        missing=missing(context.without),
    )
