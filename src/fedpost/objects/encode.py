"""Python objects to a tree and segments.

Rules: what MessagePack keeps exactly is not touched, and containers of nothing else are recognised by the set of their
items' types, without a look at each; what belongs to a class runs once for each instance; a cycle, too deep a nesting
or containers without end are an error, never a RecursionError; an error says where in the value it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from operator import attrgetter, itemgetter
from typing import Any, Final, NoReturn

import numpy as np

from fedpost.errors import FedpostError
from fedpost.objects.arrays import write_numbers
from fedpost.objects.cycles import (
    Fields,
    TooDeepError,
    UnfitError,
    check_attributes,
    check_column,
    check_one,
    explained,
    step_to,
    text_of,
)
from fedpost.objects.external import External
from fedpost.objects.leaves import Leaves
from fedpost.objects.types import Serializer, TypeRegistry
from fedpost.objects.wire import IN_TREE, MAX_DEPTH, NUMBERS, RECORDS, Kind

__all__ = ["ObjectWriter"]

_PLAIN: Final = frozenset({bool, type(None), float, int})
_is_plain: Final = _PLAIN.issuperset
_are_keys: Final = frozenset({str}).issuperset
_FEW: Final = 8
"""So many items are looked at one by one, as no other way is faster."""
_MOST_VISITED: Final = 1 << 22
"""Containers gone through at most: of one that holds another twice, which does the same, there is soon no end."""


class ObjectWriter(Leaves):
    """Writes one object.

    Args:
        registry: Which types may be written.
        manager: Handed to decomposers.
        external: Where leaves go that are over its size; None keeps all in the frame.
    """

    _depth = 0
    _visited = 0

    def __init__(self, registry: TypeRegistry, *, manager: Any = None, external: External | None = None) -> None:
        super().__init__(external)
        self._registry = registry
        self._manager = manager

    def write(self, value: Any) -> bytes:
        """The tree of a value, packed; its large leaves are then in ``segments``.

        Raises:
            EncodeError: Part of it has no registered type, has a cycle, or is nested too deeply; the error says where.
        """
        try:
            return self._tree(self._value(value))
        except (UnfitError, RecursionError) as error:
            raise explained(error, value, self._state_of) from error

    # ── what MessagePack knows ───────────────────────────────────────────────────────────────────────────────────────

    def _value(self, value: Any) -> Any:
        kind = type(value)
        write = _WRITERS.get(kind)
        if write is not None:
            return write(self, value)
        return self._registered(value, kind)

    def _plain(self, value: Any) -> Any:
        return value

    def _list(self, value: Sequence[Any], kinds: set[type] | None = None) -> Any:  # noqa: C901, PLR0911, PLR0912 - one line a kind of list
        """A list or tuple; its types, where they are known already."""
        size = len(value)
        if size <= _FEW:
            return self._items(value)
        if size < RECORDS:
            return value if _is_plain(map(type, value)) else self._items(value)
        if kinds is None:
            kinds = set(map(type, value))
        if kinds <= _PLAIN:
            return self._numbers(value) if size >= NUMBERS and len(kinds) == 1 else value
        if len(kinds) == 1:
            (kind,) = kinds
            if kind is str:
                if max(map(len, value)) < IN_TREE:
                    return value
            elif kind is tuple:
                if len(value[0]) and len(set(map(len, value))) == 1:
                    return self._tuples(value)
            elif kind not in _WRITERS:
                serializer = self._registry.for_class(kind)
                if serializer is not None:
                    if serializer.shared:
                        return self._repeated(value, serializer)
                    if serializer.fields and not serializer.managed:
                        return self._records(value, serializer)
        return self._items(value)

    def _items(self, value: Sequence[Any], keys: Sequence[str] = ()) -> Sequence[Any]:
        """A list or tuple whose items must be looked at; the same one when none had to be replaced.

        Args:
            value: The list.
            keys: What paths call its items by, when that is not their numbers.
        """
        out: list[Any] | None = None
        entered = False
        index = -1
        try:
            for item in value:
                index += 1
                kind = type(item)
                if kind in _PLAIN or (kind is str and len(item) < IN_TREE):
                    continue
                if not entered:
                    entered = True
                    self._depth += 1
                    self._visited += 1
                    if self._depth >= MAX_DEPTH or self._visited > _MOST_VISITED:
                        self._refuse()
                write = _WRITERS.get(kind)
                written = self._registered(item, kind) if write is None else write(self, item)
                if written is not item:
                    if out is None:
                        out = list(value)
                    out[index] = written
        except UnfitError as error:
            error.path.append(f".{keys[index]}" if keys else f"[{index}]")
            raise
        if entered:
            self._depth -= 1
        return value if out is None else out

    def _dict(self, value: dict[Any, Any]) -> Any:  # noqa: C901, PLR0912 - as _items
        for key in value:  # mostly the first is like the others
            if type(key) is not str:
                return self._mapping(value)
            break
        if len(value) > _FEW and _is_plain(map(type, value.values())) and _are_keys(map(type, value)):
            return value
        out: dict[Any, Any] | None = None
        entered = mixed = False
        key = None
        try:
            for key, item in value.items():
                if type(key) is not str:
                    mixed = True
                kind = type(item)
                if kind is str:
                    if len(item) < IN_TREE:
                        continue
                elif kind in _PLAIN:
                    continue
                if not entered:
                    entered = True
                    self._depth += 1
                    self._visited += 1
                    if self._depth >= MAX_DEPTH or self._visited > _MOST_VISITED:
                        self._refuse()
                write = _WRITERS.get(kind)
                written = self._registered(item, kind) if write is None else write(self, item)
                if written is not item:
                    if out is None:
                        out = value.copy()
                    out[key] = written
        except UnfitError as error:
            error.path.append(step_to(key))
            raise
        if entered:
            self._depth -= 1
        if mixed:
            return self._of_keys(list(value), list((out or value).values()))
        return value if out is None else out

    def _enter(self) -> None:
        """Go into a container: count it, and the level."""
        self._depth += 1
        self._visited += 1
        if self._depth >= MAX_DEPTH or self._visited > _MOST_VISITED:
            self._refuse()

    def _refuse(self) -> NoReturn:
        if self._depth >= MAX_DEPTH:
            raise TooDeepError
        raise UnfitError(
            f"more than {_MOST_VISITED} containers",
            "One that is held twice is written twice: store a name instead.",
        )

    # ── what it does not know ────────────────────────────────────────────────────────────────────────────────────────

    def _mapping(self, value: dict[Any, Any]) -> Any:
        """A dictionary with other keys than text."""
        self._enter()
        try:
            written = self._list(list(value.values()))
        except UnfitError as error:
            if error.path:  # its last step is the number of the key
                error.path.append(step_to(list(value)[int(error.path.pop()[1:-1])]))
            raise
        self._depth -= 1
        return self._of_keys(list(value), written)

    def _of_keys(self, keys: list[Any], written: Any) -> Any:
        """A dictionary whose values are written."""
        self._enter()
        try:
            written_keys = self._list(keys)
        except UnfitError as error:
            if error.path:
                error.path.append(step_to(keys[int(error.path.pop()[1:-1])]))
            raise
        self._depth -= 1
        return self._single(Kind.DICT, [written_keys, written])

    def _numbers(self, value: Sequence[Any]) -> Any:
        """Many numbers of one type."""
        leaf = write_numbers(value)
        if leaf is None:
            return value
        if self._depth >= MAX_DEPTH - 1:
            raise TooDeepError
        name, data = leaf
        return self._row([Kind.NUMBERS, name, self._place(data)])

    def _tuples(self, value: Sequence[tuple[Any, ...]]) -> Any:
        """Many tuples of one length, by column."""
        self._enter()
        columns: list[Any] = []
        try:
            for column in map(list, zip(*value, strict=True)):
                columns.append(self._list(column))  # noqa: PERF401 - the error needs to know how many are done
        except UnfitError as error:
            error.path.insert(len(error.path) - 1, f"[{len(columns)}]")
            raise
        self._depth -= 1
        return self._row([Kind.TUPLES, len(value), columns])

    def _repeated(self, value: Sequence[Any], serializer: Serializer) -> list[Any]:
        """Instances of one class that are stored once, however often they come."""
        self._enter()
        ids = list(map(id, value))
        for identity, item in dict(zip(ids, value, strict=True)).items():
            if identity not in self._shared:
                try:
                    self._share(item, self._row([Kind.INSTANCE, self._type(serializer), self._state(item, serializer)]))
                except UnfitError as error:
                    error.path.append(f"[{ids.index(identity)}]")
                    raise
        self._depth -= 1
        return list(map(self._shared.__getitem__, ids))

    def _tuple(self, value: tuple[Any, ...]) -> Any:
        if len(value) > _FEW:
            return self._single(Kind.TUPLE, self._list(value))
        for item in value:
            kind = type(item)
            if kind not in _PLAIN and (kind is not str or len(item) >= IN_TREE):
                return self._single(Kind.TUPLE, self._items(value))
        return self._single(Kind.TUPLE, value)

    def _set(self, value: set[Any]) -> Any:
        return self._single(Kind.SET, self._list(list(value)))

    def _frozenset(self, value: frozenset[Any]) -> Any:
        return self._single(Kind.FROZENSET, self._list(list(value)))

    def _records(self, value: Sequence[Any], serializer: Serializer) -> Any:
        """Many instances of one class, by column."""
        self._enter()
        fields: tuple[str, ...] = serializer.fields or ()
        columns: list[Any] = []
        checked = False
        try:
            found = serializer.fit.dictionaries(value)
            if found is None:
                check_attributes(serializer, value)
            for place, column in enumerate(_columns_of(value, serializer.take, found)):
                checked = False
                kinds = set(map(type, column))
                check_column(serializer, place, column, kinds)
                checked = True
                columns.append(self._list(column, kinds))
        except UnfitError as error:
            if checked:  # the column's path begins with the number of the record
                error.path.insert(len(error.path) - 1, f".{fields[len(columns)]}")
            raise
        except RecursionError:
            raise
        except Exception as error:  # as in _state
            raise _unfit(serializer.cls, error) from error
        self._depth -= 1
        return self._row([Kind.RECORDS, self._type(serializer), len(value), columns])

    def _registered(self, value: Any, kind: type) -> Any:
        serializer = self._registry.for_class(kind)
        if serializer is None:
            if isinstance(value, np.generic):
                return self._scalar(value)
            raise UnfitError(
                f"can not serialize {text_of(kind)} object", "Register the type: fedpost.register(…), on both sides."
            )
        if serializer.shared:
            known = self._shared.get(id(value))
            if known is not None:
                return known
            if not serializer.constant:
                row = [Kind.INSTANCE, self._type(serializer), self._state(value, serializer)]
                return self._share(value, self._row(row))
        state = self._state(value, serializer)
        return self._single(Kind.INSTANCE, [self._type(serializer), state])

    def _state(self, value: Any, serializer: Serializer) -> Any:
        """What an instance is written as."""
        try:
            state = serializer.take(value, self._manager) if serializer.managed else serializer.take(value)
        except RecursionError:
            raise
        except Exception as error:  # the user's own code, or an object that is only half there
            raise _unfit(type(value), error) from error
        if serializer.fields is None:
            if type(state) is str and len(state) < IN_TREE:
                return state
            self._alive.append(state)
            self._enter()
            state = self._value(state)
            self._depth -= 1
            return state
        if not serializer.fit.fits(value, state):
            check_one(serializer, value, state)
        self._alive.append(state)
        return self._items(state, serializer.fields)

    def _state_of(self, value: Any) -> Any:
        """What a cycle is looked for in."""
        serializer = self._registry.for_class(type(value))
        if serializer is None:
            return None
        try:
            state = serializer.take(value, self._manager) if serializer.managed else serializer.take(value)
        except Exception:  # noqa: BLE001 - writing has failed already; this only looks for the reason
            return None
        return state if serializer.fields is None else Fields(zip(serializer.fields, state, strict=True))


def _unfit(kind: type, error: Exception) -> UnfitError:
    what = f"can not serialize {text_of(kind)} object"
    if isinstance(error, FedpostError):
        return UnfitError(f"{what}: {error.what}", error.hint)
    return UnfitError(f"{what}: {type(error).__name__}: {error}")


_WRITERS: Final[Mapping[type, Callable[[ObjectWriter, Any], Any]]] = {
    type(None): ObjectWriter._plain,  # noqa: SLF001 - the class's own table
    bool: ObjectWriter._plain,  # noqa: SLF001
    float: ObjectWriter._plain,  # noqa: SLF001
    int: ObjectWriter._plain,  # noqa: SLF001
    str: ObjectWriter._str,  # noqa: SLF001
    bytes: ObjectWriter._bytes,  # noqa: SLF001
    bytearray: ObjectWriter._bytearray,  # noqa: SLF001
    memoryview: ObjectWriter._memoryview,  # noqa: SLF001
    list: ObjectWriter._list,  # noqa: SLF001
    dict: ObjectWriter._dict,  # noqa: SLF001
    tuple: ObjectWriter._tuple,  # noqa: SLF001
    set: ObjectWriter._set,  # noqa: SLF001
    frozenset: ObjectWriter._frozenset,  # noqa: SLF001
    np.ndarray: ObjectWriter._array,  # noqa: SLF001
    np.memmap: ObjectWriter._array,  # noqa: SLF001 - its elements; it comes back as a plain array
}


def _columns_of(
    values: Sequence[Any], take: Callable[[Any], Any], dictionaries: list[Mapping[str, Any]] | None
) -> Iterator[list[Any]]:
    if isinstance(take, attrgetter):  # a column at a time needs no tuple for each instance
        return (_column(name, values, dictionaries) for name in take.__reduce__()[1])
    return map(list, zip(*map(take, values), strict=True))


def _column(name: str, values: Sequence[Any], dictionaries: list[Mapping[str, Any]] | None) -> list[Any]:
    if dictionaries is not None:
        with suppress(KeyError):  # the next line says what is missing
            return list(map(itemgetter(name), dictionaries))
    return list(map(attrgetter(name), values))
