"""Where an object contains itself: looked for only once writing it has failed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

import numpy as np

__all__ = ["Fields", "cycle_in", "step_to"]


class Fields(dict[str, Any]):
    """The state of an instance, by field."""


def step_to(key: Any) -> str:
    """How a path goes on to what a key stands for."""
    if isinstance(key, str) and key.isidentifier():
        return f".{key}"
    text = repr(key)
    return f"[{text[:60]}…]" if len(text) > 60 else f"[{text}]"  # noqa: PLR2004 - enough to know it


def cycle_in(value: Any, state_of: Callable[[Any], Any]) -> tuple[str, str] | None:
    """The path of an object that contains itself, and the path at which it comes again.

    Args:
        value: The object.
        state_of: What an instance is written as: fields by name, or another value; None where that is unknown.
    """
    above: dict[int, str] = {}
    stack: list[tuple[str, Any, bool]] = [("$", value, True)]
    seen = 0
    while stack and seen < _MOST_LOOKED_AT:
        path, item, enter = stack.pop()
        if not enter:
            del above[id(item)]
            continue
        seen += 1
        children = _children(item, state_of)
        if children is None:
            continue
        if id(item) in above:
            return above[id(item)], path
        above[id(item)] = path
        stack.append((path, item, False))
        if len(above) <= sys.getrecursionlimit():
            stack.extend((path + step, child, True) for step, child in reversed(children))
    return None


_MOST_LOOKED_AT: Final = 1_000_000


def _children(item: Any, state_of: Callable[[Any], Any]) -> list[tuple[str, Any]] | None:
    if isinstance(item, str | bytes | bytearray | np.ndarray | np.generic | int | float | type(None)):
        return None
    if type(item) not in (dict, list, tuple, set, frozenset):
        state = state_of(item)
        if isinstance(state, Fields):
            return [(f".{name}", child) for name, child in state.items()]
        return None if state is None else [("", state)]
    if isinstance(item, dict):
        return [(step_to(key), child) for key, child in item.items()]
    return [(f"[{index}]", child) for index, child in enumerate(item)]
