"""Objects as something to fuzz: trees altered inside, under digests that are right.

Rules: as in ``targets.py``. What is accepted must be written again, and read again to the same bytes.
"""
# ruff: noqa: INP001, PLR2004 - a script, not a package; shares of mutations are plain numbers

from __future__ import annotations

import datetime as dt
import importlib.util
import random
import sys
from collections import OrderedDict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import structures
from mutation import Bytewise, Mutator, mutated_tree, or_bytes

from fedpost.compat import fobs
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


def fobs_seeds() -> Iterator[bytes]:
    """What NVFLARE's users send."""
    values = [
        {"weights": {"w": np.arange(6.0).reshape(2, 3), "b": np.float32(1)}, "round": 3, "ids": {"a", "b"}},
        [(1, 2.5, None, True), b"bytes", bytearray(b"x"), "é", 1 << 70, 3 + 4j],
        OrderedDict(when=dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC), left=dt.timedelta(seconds=3)),
        [np.zeros(0, np.int8), np.int64(7), {"deep": [[[{"x": ()}]]]}],
    ]
    for value in [*values, values]:
        yield bytes(fobs.dumps(value))


def check_fobs(data: bytes) -> bool:
    """Whether the serializer under NVFLARE's names takes an object; then it can be written, and is read again."""
    try:
        value = fobs.loads(data)
    except RemoteError:
        return False
    try:
        again = fobs.dumps(value)
    except EncodeError:
        return True  # as above
    try:
        fobs.loads(again)
    except RemoteError as error:
        raise AssertionError("what was accepted is refused when it is written again") from error
    return True


def mutator(bytewise: Bytewise) -> Mutator:
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

    return or_bytes(mutate, bytewise, 0.05)


_REFERENCE = "\0row"
_HERE = "\0here"


def _opened(node: Any) -> Any:
    """A tree whose references can be altered as what they are, numbers, and whose rows in place as lists."""
    if isinstance(node, msgpack.ExtType) and node.code > 1:
        return {_HERE: [node.code, _opened(msgpack.unpackb(node.data, unicode_errors="surrogatepass"))]}
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
        match node.get(_HERE):
            case [int(code), part] if 0 <= code < 128:
                return msgpack.ExtType(code, msgpack.packb(_closed(part), unicode_errors="surrogatepass"))
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
