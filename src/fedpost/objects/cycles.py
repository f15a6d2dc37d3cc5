"""Where an object contains itself: looked for only once writing it has failed."""

from __future__ import annotations

import sys
from typing import Any, Final

import numpy as np

__all__ = ["cycle_in", "step_to"]


def step_to(key: Any) -> str:
    """How a path goes on to what a key stands for."""
    if isinstance(key, str) and key.isidentifier():
        return f".{key}"
    text = repr(key)
    return f"[{text[:60]}…]" if len(text) > 60 else f"[{text}]"  # noqa: PLR2004 - enough to know it


def cycle_in(value: Any) -> tuple[str, str] | None:
    """The path of an object that contains itself, and the path at which it comes again."""
    above: dict[int, str] = {}
    stack: list[tuple[str, Any, bool]] = [("$", value, True)]
    seen = 0
    while stack and seen < _MOST_LOOKED_AT:
        path, item, enter = stack.pop()
        if not enter:
            del above[id(item)]
            continue
        seen += 1
        children = _children(item)
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


def _children(item: Any) -> list[tuple[str, Any]] | None:
    if isinstance(item, dict):
        return [(step_to(key), child) for key, child in item.items()]
    if isinstance(item, list | tuple | set | frozenset):
        return [(f"[{index}]", child) for index, child in enumerate(item)]
    if isinstance(item, str | bytes | bytearray | np.ndarray | np.generic | int | float | type(None)):
        return None
    if hasattr(item, "__dict__"):
        return [(f".{name}", child) for name, child in vars(item).items()]
    slots = [name for base in type(item).__mro__ for name in getattr(base, "__slots__", ())]
    return [(f".{name}", getattr(item, name)) for name in slots if hasattr(item, name)] if slots else None
