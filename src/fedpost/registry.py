"""A table from names to things, filled explicitly.

Rules: a duplicate name is refused; an unknown name is refused *by name*, with the nearest known ones; an entry may be
lazy, so that an extra is imported only when somebody asks for it; a frozen registry no longer changes, which is how a
server runs. Readers need no lock: every change swaps a whole dictionary in.
"""

from __future__ import annotations

import difflib
import re
import threading
from collections.abc import Callable, Iterator
from typing import Final, Generic, TypeVar

from fedpost.errors import ConfigError, RegistryError

__all__ = ["Registry", "parse_call", "split_outside"]

K = TypeVar("K", bound=object)
V = TypeVar("V", bound=object)


class _Lazy(Generic[V]):
    __slots__ = ("load",)

    def __init__(self, load: Callable[[], V]) -> None:
        self.load = load


class Registry(Generic[K, V]):
    """Names (or types) to values.

    Args:
        kind: What the entries are, for error messages: ``"compressor"``, ``"format"``.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[K, V | _Lazy[V]] = {}
        self._frozen = False
        self._lock = threading.Lock()

    def register(self, key: K, value: V) -> V:
        """Add an entry and return it.

        Raises:
            RegistryError: The name is taken, or the registry is frozen.
        """
        self._add(key, value)
        return value

    def register_lazy(self, key: K, load: Callable[[], V]) -> None:
        """Add an entry that ``load()`` produces when it is first asked for.

        Raises:
            RegistryError: The name is taken, or the registry is frozen.
        """
        self._add(key, _Lazy(load))

    def get(self, key: K) -> V:
        """Look a name up.

        Raises:
            RegistryError: Nothing is registered under the name.
            MissingExtraError: The entry needs an extra that is not installed.
        """
        try:
            entry = self._entries[key]
        except KeyError:
            raise RegistryError(f"unknown {self.kind} {key!r}", hint=self._suggestion(key)) from None
        if isinstance(entry, _Lazy):
            value = entry.load()
            with self._lock:
                # Resolving an entry is no change of what the registry holds, so it is allowed when frozen.
                self._entries = {**self._entries, key: value}
            return value
        return entry

    def freeze(self) -> None:
        """Refuse every later registration."""
        self._frozen = True

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[K]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<Registry of {self.kind}s: {', '.join(map(str, self._entries))}>"

    def _add(self, key: K, entry: V | _Lazy[V]) -> None:
        with self._lock:
            if self._frozen:
                raise RegistryError(f"cannot register {self.kind} {key!r}: the registry is frozen")
            if key in self._entries:
                raise RegistryError(f"{self.kind} {key!r} is registered already")
            self._entries = {**self._entries, key: entry}

    def _suggestion(self, key: K) -> str:
        known = [str(name) for name in self._entries]
        near = difflib.get_close_matches(str(key), known, n=1)
        return f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known) or 'none'}."


# Possessive where two of them meet, or a long row of blanks would be tried in every way.
_CALL: Final = re.compile(r"\s*([a-z][a-z0-9_]*+)\s*+(?:\(([^()]*+)\))?\s*")


def parse_call(text: str) -> tuple[str, tuple[str, ...]]:
    """Read ``name`` or ``name(argument, …)``, the way in which registered things are written in settings and frames.

    Raises:
        ConfigError: Not of that form.
    """
    match = _CALL.fullmatch(text)
    if match is None:
        raise ConfigError(f"{text[:80]!r} is not a name with arguments", hint="Write it like zstd(3).")
    name, arguments = match.groups()
    return name, tuple(part.strip() for part in arguments.split(",")) if arguments else ()


_OPENING: Final = "([{"
_CLOSING: Final = ")]}"


def split_outside(text: str, separator: str) -> list[str]:
    """Split where a separator stands outside all brackets and quoted text; the parts without space around them.

    Args:
        text: Quoted text in it is between double quotes, with backslashes as in JSON.
        separator: One character.

    Raises:
        ConfigError: A bracket or a quotation is not closed, or one is closed that is not open.
    """
    parts: list[str] = []
    open_ones: list[str] = []
    start = position = 0
    while position < len(text):
        character = text[position]
        if character == '"':
            position = _quoted_end(text, position)
            continue
        if character in _OPENING:
            open_ones.append(_CLOSING[_OPENING.index(character)])
        elif character in _CLOSING and (not open_ones or open_ones.pop() != character):
            raise ConfigError(f"{text[:80]!r} closes a bracket that is not open", hint=f"It is {character!r}.")
        elif character == separator and not open_ones:
            parts.append(text[start:position].strip())
            start = position + 1
        position += 1
    if open_ones:
        raise ConfigError(f"{text[:80]!r} does not close a bracket", hint=f"{open_ones[-1]!r} is missing.")
    return [*parts, text[start:].strip()]


def _quoted_end(text: str, start: int) -> int:
    """Where quoted text ends, behind its second quotation mark."""
    position = start + 1
    while position < len(text):
        if text[position] == '"':
            return position + 1
        position += 2 if text[position] == "\\" else 1
    raise ConfigError(f"{text[:80]!r} does not close a quotation")
