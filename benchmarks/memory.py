"""Peak resident memory of encoding and decoding, one fresh process a figure."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from measure import Case, Figure, Target, Tick, figures, peak_memory
from peers import DIGESTS, MODEL, OURS, buffers_of, make_arrays, peers

__all__ = ["run"]


def _peak(operation: str, name: str) -> int:
    """The growth of resident memory in this, a fresh, process."""
    peer = peers()[name]
    small = make_arrays(2, (16, 16))
    peer.decode(peer.arrive(peer.encode(small)))  # what is imported late is imported now
    arrays = make_arrays(*MODEL)
    if operation == "encode":
        return peak_memory(partial(peer.encode, arrays))
    data = peer.arrive(peer.encode(arrays))
    return peak_memory(partial(peer.decode, data))


def run(runs: int, tick: Tick, *, everybody: bool) -> Case:
    """Measure ours, and the peers too if ``everybody`` shall be."""
    names = list(peers()) if everybody else [OURS, DIGESTS]
    model = sum(map(len, buffers_of(make_arrays(*MODEL))))
    jobs = [(operation, name) for operation in ("encode", "decode") for name in names]
    samples: dict[tuple[str, str], list[float]] = {job: [] for job in jobs}
    spawn = multiprocessing.get_context("spawn")
    for done in range(runs * len(jobs)):
        job = jobs[done % len(jobs)]
        with ProcessPoolExecutor(1, mp_context=spawn) as pool:
            samples[job].append(pool.submit(_peak, *job).result())
        tick(done + 1, runs * len(jobs))
    found: list[Figure] = []
    targets = []
    for operation in ("encode", "decode"):
        rows = figures(operation, {name: samples[operation, name] for name in names}, ours=DIGESTS, unit="B")
        found += rows
        targets += [
            Target(
                text=f"{operation}, {row.name}: peak memory over the model under 5 % of it",
                value=row.median / model,
                bound=0.05,
            )
            for row in rows
            if row.name in {OURS, DIGESTS}
        ]
    note = (
        "Growth of the resident set from just before the call to its highest point, in a fresh process, with the model "
        "(or the bytes received) already there. The model is 100 MB. Ratios to a few pages mean little."
    )
    return Case(name="memory", title="Peak memory beyond the model", note=note, figures=found, targets=targets)
