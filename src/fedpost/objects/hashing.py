"""Dictionaries and sets of keys that somebody else chose.

Python hashes text and bytes with a secret, but numbers, and what consists of them, without one: keys can be chosen so
that every one collides with those before it, and a megabyte of them takes hours. So such keys are put in a few at a
time, and the time that they take is compared with what honest keys take.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, Final

from fedpost.errors import DecodeError, LimitError

__all__ = ["dict_of", "set_of"]

_SAFE: Final = frozenset({str, bytes, bool, type(None)})
_FEW: Final = 1024
_STEP: Final = 64
_GRACE: Final = 0.1
_SECONDS_EACH: Final = 20e-6
"""What a key may take: some hundred times what it does take."""


def dict_of(keys: Sequence[Any], values: Sequence[Any]) -> dict[Any, Any]:
    """A dictionary in the order of its keys.

    Raises:
        DecodeError: A key cannot be hashed or comes twice, or there are fewer values than keys.
        LimitError: The keys collide.
    """
    if len(keys) != len(values):
        raise DecodeError(f"{len(keys)} keys for {len(values)} values")
    out: dict[Any, Any] = {}
    _fill(out.update, keys, zip(keys, values, strict=True))
    if len(out) != len(keys):
        raise DecodeError("a key comes twice")
    return out


def set_of(items: Sequence[Any]) -> set[Any]:
    """A set.

    Raises:
        DecodeError: An item cannot be hashed or comes twice.
        LimitError: The items collide.
    """
    out: set[Any] = set()
    _fill(out.update, items, iter(items))
    if len(out) != len(items):
        raise DecodeError("an item of a set comes twice")
    return out


def _fill(update: Callable[[Iterable[Any]], None], keys: Sequence[Any], entries: Iterable[Any]) -> None:
    kinds = set(map(type, keys))
    try:
        if kinds <= _SAFE or (len(keys) <= _FEW and kinds <= {*_SAFE, int, float}):
            update(entries)
            return
        end = time.thread_time() + _GRACE
        rest = iter(entries)
        for _ in range(0, len(keys), _STEP):
            update(islice(rest, _STEP))
            end += _STEP * _SECONDS_EACH
            if time.thread_time() > end:
                raise LimitError("keys that collide", hint="They were chosen to be slow, or their class hashes badly.")
    except (TypeError, RecursionError) as error:
        raise DecodeError(f"a key that cannot be hashed: {error}") from error
