"""Dictionaries and sets of keys that somebody else chose.

Python hashes text and bytes with a secret, but numbers, and what consists of them, without one: keys can be chosen so
that every one collides with those before it, and a megabyte of them takes hours. So such keys are put in a few at a
time, and the time that they take is compared with what honest keys take. What one dictionary may waste is little enough
that many of them together take no longer than other objects of as many bytes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, Final

from fedpost.errors import DecodeError, LimitError

__all__ = ["dict_of", "set_of"]

_SAFE: Final = frozenset({str, bytes, bool, type(None)})
_NUMBERS: Final = _SAFE | {int, float}
_FEW: Final = 64
"""So many numbers do not take long, whatever they are."""
_FIRST_STEP: Final = 8
_STEP: Final = 64
_GRACE: Final = 1e-3
_SECONDS_EACH: Final = 1e-6
"""What a key may take beyond its hash: some twenty times what it does take."""
_HASHES: Final = 4
"""How often a key's hash may be taken again, as to compare it takes as long."""
_TRIES: Final = 3
"""A pause of the process, as for its garbage, is not the fault of the keys, and does not come again."""


def dict_of(keys: Sequence[Any], values: Sequence[Any]) -> dict[Any, Any]:
    """A dictionary in the order of its keys.

    Raises:
        DecodeError: A key cannot be hashed or comes twice, or there are fewer values than keys.
        LimitError: The keys collide.
    """
    if len(keys) != len(values):
        raise DecodeError(f"{len(keys)} keys for {len(values)} values")
    if _are_harmless(keys):
        out = dict(zip(keys, values, strict=True))
    else:
        out = {}
        _fill(out, keys, lambda: zip(keys, values, strict=True))
    if len(out) != len(keys):
        raise DecodeError("a key comes twice")
    return out


def set_of(items: Sequence[Any]) -> set[Any]:
    """A set.

    Raises:
        DecodeError: An item cannot be hashed or comes twice.
        LimitError: The items collide.
    """
    if _are_harmless(items):
        out = set(items)
    else:
        out = set()
        _fill(out, items, lambda: items)
    if len(out) != len(items):
        raise DecodeError("an item of a set comes twice")
    return out


def _are_harmless(keys: Sequence[Any]) -> bool:
    if len(keys) <= _FEW:
        return _NUMBERS.issuperset(map(type, keys))
    return _SAFE.issuperset(map(type, keys))


def _fill(out: dict[Any, Any] | set[Any], keys: Sequence[Any], entries: Callable[[], Iterable[Any]]) -> None:
    try:
        in_time = any(_in_time(out, keys, entries()) for _ in range(_TRIES))
    except Exception as error:  # whatever the class of a key makes of being compared
        raise DecodeError(f"a key that cannot be hashed: {error}") from error
    if not in_time:
        raise LimitError("keys that collide", hint="They were chosen to be slow, or their class hashes badly.")


def _in_time(out: dict[Any, Any] | set[Any], keys: Sequence[Any], entries: Iterable[Any]) -> bool:
    """Put the entries in; false, and nothing is in it, when that takes too long."""
    start = time.thread_time()
    deque(map(hash, keys), maxlen=0)
    hashed = time.thread_time()
    end = hashed + _GRACE + _HASHES * (hashed - start)
    rest, step, done = iter(entries), _FIRST_STEP, 0
    while done < len(keys):
        out.update(islice(rest, step))
        done += step
        step = min(2 * step, _STEP)
        if time.thread_time() > end + done * _SECONDS_EACH:
            out.clear()
            return False
    return True
