"""Why an object cannot be written, and where in it: put together only once writing it has failed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from fedpost.errors import EncodeError
from fedpost.objects.types import Serializer, qualified_name
from fedpost.objects.wire import MAX_DEPTH

__all__ = [
    "Fields",
    "TooDeepError",
    "UnfitError",
    "check_attributes",
    "check_column",
    "check_one",
    "cycle_in",
    "explained",
    "step_to",
    "text_of",
]


class UnfitError(Exception):
    """Something cannot be written; the path to it is put together on the way out."""

    def __init__(self, what: str, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.path: list[str] = []


class TooDeepError(UnfitError):
    """It is nested too deeply, or has no end."""

    def __init__(self) -> None:
        super().__init__(f"nested more than {MAX_DEPTH} levels deep")


def text_of(kind: type) -> str:
    """A class as messages name it."""
    return f"'{qualified_name(kind) if kind.__module__ != 'builtins' else kind.__qualname__}'"


def check_one(serializer: Serializer, value: Any, state: Sequence[Any]) -> None:
    """Refuse an instance that a reader would refuse, or not see all of.

    Raises:
        UnfitError: It is one.
    """
    found = serializer.fit.unfit(value, state)
    if found is not None:
        field, what = found
        raise _of_field(type(value), field, what) if field else _of_more(type(value), what)


def check_attributes(serializer: Serializer, values: Sequence[Any]) -> None:
    """Refuse instances of which a reader would not see all."""
    found = serializer.fit.more_than_fields(values)
    if found is not None:
        index, what = found
        error = _of_more(type(values[0]), what)
        error.path.append(f"[{index}]")
        raise error


def check_column(serializer: Serializer, place: int, column: Sequence[Any], kinds: set[type]) -> None:
    """Refuse values of a field that a reader would refuse."""
    index = serializer.fit.wrong_in(place, column, kinds)
    if index is not None:
        name = (serializer.fields or ())[place]
        error = _of_field(serializer.cls, name, serializer.fit.mismatch(place, column[index]))
        error.path.append(f"[{index}]")
        raise error


def _of_more(kind: type, what: str) -> UnfitError:
    return UnfitError(f"{text_of(kind)} object {what}", "Make them fields, or register a Decomposer.")


def _of_field(kind: type, field: str, what: str) -> UnfitError:
    error = UnfitError(what, f"Convert it, or declare the field of {text_of(kind)} as what it holds.")
    error.path.append(f".{field}")
    return error


def explained(error: Exception, value: Any, state_of: Callable[[Any], Any]) -> EncodeError:
    """The error that a user sees.

    Args:
        error: An :class:`UnfitError` or a RecursionError.
        value: What was to be written.
        state_of: As of :func:`cycle_in`.
    """
    if not isinstance(error, UnfitError) or isinstance(error, TooDeepError):
        path = cycle_in(value, state_of)
        if path is not None:
            start, end = path
            return EncodeError(f"refers back to {start}, a cycle", where=end, hint="Break it, or store a name instead.")
    if not isinstance(error, UnfitError):
        error = TooDeepError()
    where = "$" + "".join(reversed(error.path))
    if len(where) > _LONGEST:
        where = f"{where[: _LONGEST // 2]}…{where[-_LONGEST // 2 :]}"
    return EncodeError(error.what, where=where, hint=error.hint)


_LONGEST: Final = 300


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
