"""How inputs are altered: bytes, numbers, texts, and trees of these such as MessagePack and JSON hold.

Rules: everything comes from the generator that is given, so a seed gives the same input again; a mutation never fails,
whatever it is given. What a number may become is where parsers break: ends of ranges, and sizes a little off.
"""
# ruff: noqa: INP001, PLR2004 - scripts, not a package; shares of mutations are plain numbers

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from typing import Any

Bytewise = Callable[[random.Random, bytes], bytes]
Mutator = Callable[[random.Random, bytes], bytes]

_POWERS = (7, 8, 15, 16, 20, 24, 31, 32, 40, 53, 60, 61, 62, 63, 64)
NUMBERS = (0, 1, 2, 3, 4, 5, 6, 8, 16, 63, 64, 65, 255, 65_536, *(2**p + d for p in _POWERS for d in (-1, 0, 1)))

# fmt: off
WORDS = (
    "", "a", "w", "0", "é", "名", "\0", "../x", "os.system", "none", "dense", "fedwt", "numpy", "fedwt1", "safetensors",
    "msgpack", "json_base64", "protobuf", "pickle", "blake3", "sha256", "xxh3", "crc32c", "zstd", "gzip", "lz4", "lx",
    "dense | fedwt | none", "cast(bfloat16) | fedwt | zstd(3)", "dense | msgpack | none", "pipeline", "tensors",
    "tensors_npy", "tensors_safetensors", "tensors_fedwt1", "update", "widen", "metadata", "envelope", "body",
    "float32", "float64", "float16", "bfloat16", "int8", "int64", "uint8", "bool", "complex64", "object", "|O", ">f4",
    ">float32", "bytes[3]", "bytes[0]", "str[2]", "void[4]", "void[0]", "|V4", "datetime64[ns]", "datetime64[25s]",
    "timedelta64", "float8_e4m3fn", "float80_x87", 'struct[8,[["a","float32",0,[]],["b","float32",4,[]]]]',
    "struct[0,[]]", "F32", "F64", "BF16", "U8", "BOOL", "F8_E4M3", "F4", "names", "dtypes", "shapes", "data", "dtype",
    "shape", "data_offsets", "__metadata__", "fedpost", "fedpost_json", "fedpost_msgpack", "AACAPwAAIMA=", "training",
    "weight_update", "training_command", "error_report", "client_registration", "registration_reply", "run_end",
)
# fmt: on


def mutated_int(rng: random.Random, value: int) -> int:
    """A number near to another one, or one that is often mishandled."""
    kind = rng.randrange(6)
    if kind == 0:
        return rng.choice(NUMBERS)
    if kind == 1:
        return -rng.choice(NUMBERS)
    if kind == 2:
        return value ^ 1 << rng.randrange(64)
    if kind == 3:
        return value * rng.choice((2, 3, 4, 8, -1, 1 << 32))
    return value + rng.choice((-64, -8, -4, -2, -1, 1, 2, 4, 8, 64))


def mutated_bytes(rng: random.Random, data: bytes) -> bytes:
    """Bytes with one to four places changed, cut out, doubled or put in."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(out) + 1)
        size = rng.choice((1, 1, 2, 4, 8, 16, 64))
        kind = rng.randrange(8)
        if kind == 0:
            out[at:at] = rng.randbytes(size)
        elif kind == 1:
            del out[at : at + size]
        elif kind == 2:
            out[at:at] = out[at : at + size]
        elif kind == 3:
            number = rng.choice(NUMBERS) & (1 << 8 * min(size, 8)) - 1
            out[at : at + min(size, 8)] = number.to_bytes(min(size, 8), rng.choice(("little", "big")))
        elif kind == 4 and out:
            start = rng.randrange(len(out))
            out[at : at + size] = out[start : start + size]
        elif kind == 5:
            out[at : at + size] = rng.choice((b"\0", b"\xff", b"\x80", b"[", b'"', b"{")) * size
        elif out:
            at = rng.randrange(len(out))
            out[at] ^= 1 << rng.randrange(8)
    return bytes(out)


def mutated_text(rng: random.Random, text: str) -> str:
    """A text that means something here, or one with a few characters changed."""
    if rng.random() < 0.5:
        return rng.choice(WORDS)
    changed = mutated_bytes(rng, text.encode("utf-8", "surrogatepass")).decode("utf-8", "replace")
    return changed if rng.random() < 0.9 else text + rng.choice(WORDS)


def mutated_tree(rng: random.Random, tree: Any, bytewise: Bytewise = mutated_bytes) -> Any:
    """A tree of dicts, lists, texts, bytes and numbers with one to three of its nodes changed."""
    tree = _copied(tree)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        root = [tree]
        slots = list(_slots(root, 4000))
        holder, key = rng.choice(slots)
        other, other_key = rng.choice(slots)
        _change(rng, holder, key, _copied(other[other_key]), bytewise)
        tree = root[0] if root else []
    return tree


def _slots(holder: Any, most: int) -> Any:
    """Every place in a tree: what holds a node, and under which key."""
    todo = [holder]
    while todo and most > 0:
        node = todo.pop()
        for key in list(node if isinstance(node, dict) else range(len(node))):
            most -= 1
            yield node, key
            if isinstance(node[key], dict | list):
                todo.append(node[key])


def _change(  # noqa: C901, PLR0912 - one line for each kind of node
    rng: random.Random, holder: Any, key: Any, other: Any, bytewise: Bytewise
) -> None:
    value, kind = holder[key], rng.randrange(20)
    if kind == 0:
        del holder[key]
    elif kind == 1:
        holder[key] = other
    elif kind == 2:
        holder[key] = rng.choice((None, True, False, 1.5, float("nan"), -1, "", b"", [], {}, [[]], "é", 0))
    elif kind == 3 and isinstance(holder, list):
        holder.insert(key, _copied(value))
    elif kind == 3:
        holder[mutated_text(rng, str(key))] = holder.pop(key)
    elif isinstance(value, bool) or value is None:
        holder[key] = rng.choice((True, False, None, 0, 1))
    elif isinstance(value, int):
        holder[key] = mutated_int(rng, value)
    elif isinstance(value, float):
        holder[key] = rng.choice((0.0, -1.5, 1e308, float("inf"), int(1e18)))
    elif isinstance(value, str):
        holder[key] = mutated_text(rng, value)
    elif isinstance(value, bytes):
        holder[key] = bytewise(rng, value)
    elif isinstance(value, list) and len(value) > 1:
        one, two = rng.randrange(len(value)), rng.randrange(len(value))
        value[one], value[two] = value[two], value[one]
        if rng.random() < 0.3:
            value.append(other)
    elif isinstance(value, list):
        value.append(other)
    elif isinstance(value, dict):
        value[rng.choice(WORDS)] = other


def _copied(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _copied(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_copied(value) for value in tree]
    return tree


def or_bytes(mutator: Mutator, bytewise: Bytewise = mutated_bytes, seldom: float = 0.1) -> Mutator:
    """A mutator that now and then, and whenever it fails, alters bytes without a thought."""

    def mutate(rng: random.Random, data: bytes) -> bytes:
        if rng.random() >= seldom:
            with contextlib.suppress(Exception):  # whatever it is, the input is not of that structure
                return mutator(rng, data)
        return bytewise(rng, data)

    return mutate
