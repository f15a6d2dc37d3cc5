"""Where decomposers go round: looked for only once writing an object has failed."""

from __future__ import annotations

from typing import Any, Final

from fedpost.compat.fobs.carried import CarryingManager
from fedpost.objects import TypeRegistry
from fedpost.objects.wire import MAX_DEPTH

__all__ = ["loop_in"]

_MOST_LOOKED_AT: Final = 100_000
_Chain = tuple[Any, str] | None


def loop_in(value: Any, types: TypeRegistry) -> str | None:
    """Classes that are decomposed into each other without end, such as ``X → Y → X``; None if it is another matter."""
    manager = CarryingManager()
    stack: list[tuple[Any, _Chain, int]] = [(value, None, 0)]
    seen = 0
    while stack and seen < _MOST_LOOKED_AT:
        item, chain, depth = stack.pop()
        seen += 1
        if depth > MAX_DEPTH:
            names = _names(chain)
            return _round(names) if names else None
        children = _children(item)
        if children is None:
            serializer = types.for_class(type(item))
            if serializer is None:
                continue
            try:
                state = serializer.take(item, manager) if serializer.managed else serializer.take(item)
            except Exception:  # noqa: BLE001, S112 - the error that is to be explained is another
                continue
            chain = (chain, type(item).__qualname__)
            children = [state] if serializer.fields is None else list(state)
        stack.extend((child, chain, depth + 1) for child in children)
    return None


def _children(item: Any) -> list[Any] | None:
    if type(item) is dict:
        return [*item, *item.values()]
    if type(item) in (list, tuple, set, frozenset):
        return list(item)
    return None


def _names(chain: Any) -> list[str]:
    """The classes on the way, the last one first."""
    out = []
    while chain is not None:
        chain, name = chain
        out.append(name)
    return out


def _round(names: list[str]) -> str | None:
    last = names[0]
    if last not in names[1:]:
        return None
    around = names[: names.index(last, 1) + 1]
    return " → ".join(reversed(around))
