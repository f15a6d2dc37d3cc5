"""Plain data against types: what does not fit is told with its place, and the nearest thing that would."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from enum import Enum, EnumType
from typing import Any, Final, TypeVar, get_args

import msgspec

from fedpost.errors import ConfigError

__all__ = ["typed"]

T = TypeVar("T", bound=msgspec.Struct)


def typed(data: object, kind: type[T], where: Callable[[str], str | None] = lambda path: path or None) -> T:
    """Check plain data against a type.

    Args:
        data: Mappings, lists and scalars; members of enumerations count as their values.
        kind: The type.
        where: The place of a dotted path, for errors.

    Raises:
        ConfigError: It does not fit.
    """
    try:
        return msgspec.convert(_plain(data), kind)
    except msgspec.ValidationError as error:
        what, path, hint = _explained(str(error), kind)
        raise ConfigError(what, where=where(path), hint=hint) from None
    except RecursionError as error:
        raise ConfigError("nested too deep, or inside itself", where=where("")) from error


def _plain(data: object) -> object:
    if isinstance(data, Mapping):
        return {key: _plain(value) for key, value in data.items()}
    return data.value if isinstance(data, Enum) else data


_MESSAGE: Final = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<path>.*)`)?", re.DOTALL)
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(?P<key>.*)`", re.DOTALL)
_CHOICE: Final = re.compile(r"Invalid enum value (?P<value>.*)", re.DOTALL)


def _explained(message: str, kind: type[msgspec.Struct]) -> tuple[str, str, str | None]:
    """What is wrong, the dotted path, and a hint, out of msgspec's message."""
    match = _MESSAGE.fullmatch(message)
    what, path = (match["what"], match["path"] or "") if match else (message, "")
    if unknown := _UNKNOWN.fullmatch(what):
        key, inside = unknown["key"], _type_at(kind, path)
        names = [field.name for field in msgspec.structs.fields(inside)]
        return f"unknown key {key[:80]!r}", f"{path}.{key}".lstrip("."), _nearest(key, names)
    if choice := _CHOICE.fullmatch(what):
        values = _values(_type_at(kind, path))
        return f"unknown value {choice['value'][:80]}", path, _nearest(choice["value"].strip("'"), values)
    return what[:1].lower() + what[1:], path, None


def _type_at(kind: Any, path: str) -> Any:
    for name in filter(None, path.split(".")):
        kind = next(field.type for field in msgspec.structs.fields(kind) if field.name == name)
    return kind


def _values(kind: Any) -> list[str]:
    return [str(value) for value in (kind if isinstance(kind, EnumType) else get_args(kind))]


def _nearest(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}."
