"""Objects as something to fuzz: trees altered inside, under digests that are right.

Rules: as in ``targets.py``. What is accepted must be written again, and read again to the same bytes.
"""
# ruff: noqa: INP001, PLR2004 - a script, not a package; shares of mutations are plain numbers

from __future__ import annotations

import importlib.util
import random
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgpack
import structures
from mutation import Bytewise, mutated_bytes, mutated_tree

from fedpost.errors import EncodeError, RemoteError
from fedpost.frame import Limits
from fedpost.objects import dumps, loads

SAMPLES = Path(__file__).parents[1] / "tests" / "unit" / "objects" / "samples.py"
LIMITS = Limits(max_frame=1 << 20, max_header=1 << 18, max_raw=1 << 21, max_chunk=1 << 20, max_items=1 << 18)
LARGEST_SEED = 8000


@cache
def samples() -> Any:
    """The values and classes of the tests."""
    spec = importlib.util.spec_from_file_location("objects_samples", SAMPLES)
    assert spec is not None and spec.loader is not None  # noqa: S101, PT018 - for the type checker
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def seeds() -> Iterator[bytes]:
    """Objects with everything that there is."""
    values = samples().all_values()
    for value in [*values, *([values[at : at + 7] for at in range(0, len(values), 7)])]:
        data = dumps(value, registry=samples().REGISTRY, checksum="crc32c")
        if len(data) <= LARGEST_SEED:
            yield data


def check(data: bytes) -> bool:
    """Whether an object is accepted; then it can be written, and is read again as the same."""
    registry = samples().REGISTRY
    try:
        value = loads(data, registry=registry, limits=LIMITS)
    except RemoteError:
        return False
    try:
        again = dumps(value, registry=registry)
    except EncodeError:
        return True  # deeper than a writer goes, or longer than what it writes
    try:
        loads(again, registry=registry)
    except RemoteError as error:
        raise AssertionError("what was accepted is refused when it is written again") from error
    return True


def mutator(bytewise: Bytewise) -> structures.Mutator:
    """Alters types, rows, the root or leaves."""
    frames = structures.frames(bytewise)

    def mutate(rng: random.Random, data: bytes) -> bytes:
        frame = structures.dissect(data)
        sections = dict(frame.header[3])
        kind = rng.randrange(10)
        if kind == 0:
            return frames(rng, data)
        tree = _opened(sections["object"])
        if kind == 1 and frame.segments:
            index = rng.randrange(len(frame.segments))
            frame.segments[index] = [bytewise(rng, b"".join(frame.segments[index]))]
            frame.header[2][0][index] = len(frame.segments[index][0])
        elif kind < 4:
            part = rng.randrange(3)
            tree[part] = mutated_tree(rng, [tree[part]], bytewise)[0]
        elif kind < 8 and tree[1]:
            row = rng.randrange(len(tree[1]))
            tree[1][row] = mutated_tree(rng, [tree[1][row]], bytewise)[0]
        elif kind == 8 and tree[1]:
            row = rng.randrange(len(tree[1]))
            tree[1][row] = [rng.randrange(10), *tree[1][row][1:]]
        else:
            _point_elsewhere(rng, tree)
        if rng.random() < 0.3:  # as a segment of its own, which leaves are counted behind
            packed = msgpack.packb(_closed(tree), unicode_errors="surrogatepass")
            frame.segments.insert(0, [packed])
            frame.header[2][0].insert(0, len(packed))
            tree = None
        frame.header[3] = [["object", _closed(tree)]]
        return structures.seal(frame)

    return structures.or_bytes(mutate, bytewise, 0.05)


_REFERENCE = "\0row"


def _opened(node: Any) -> Any:
    """A tree whose references can be altered as what they are: numbers."""
    if isinstance(node, msgpack.ExtType):
        return {_REFERENCE: int.from_bytes(node.data, "little")}
    if isinstance(node, dict):
        return {key: _opened(value) for key, value in node.items()}
    return [_opened(value) for value in node] if isinstance(node, list) else node


def _closed(node: Any) -> Any:
    if isinstance(node, dict):
        number = node.get(_REFERENCE)
        if type(number) is int and number >= 0:
            return msgpack.ExtType(1, number.to_bytes(max(1, -(-number.bit_length() // 8)), "little"))
        return {key: _closed(value) for key, value in node.items()}
    return [_closed(value) for value in node] if isinstance(node, list) else node


def _point_elsewhere(rng: random.Random, node: Any) -> None:
    """Let some references mean other rows."""
    stack = [node]
    while stack:
        holder = stack.pop()
        for key in list(holder if isinstance(holder, dict) else range(len(holder))):
            if isinstance(holder[key], dict | list):
                stack.append(holder[key])
            elif key == _REFERENCE and rng.random() < 0.3:
                holder[key] = rng.randrange(12)


def run(seed: int, inputs: int) -> tuple[int, int, float]:
    """Alter many; how many were accepted and refused, and the most seconds of the processor that one took."""
    rng, mutate, pool = random.Random(seed), mutator(mutated_bytes), list(seeds())
    accepted, slowest = 0, 0.0
    for data in pool:
        check(data)
    for _ in range(inputs):
        data = mutate(rng, rng.choice(pool))
        start = time.process_time()
        taken = check(data)
        slowest = max(slowest, time.process_time() - start)
        accepted += taken
        if taken and len(pool) < 2000:
            pool.append(data)
    return accepted, inputs - accepted, slowest
