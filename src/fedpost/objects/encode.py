"""Python objects to a tree and segments.

Rules: what MessagePack keeps exactly is not touched, and containers of nothing else are recognised by the set of their
items' types, without a look at each; what belongs to a class runs once for each instance; a cycle, too deep a nesting
or containers without end are an error, never a RecursionError; an error says where in the value it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import attrgetter
from typing import Any, Final

import numpy as np
import ormsgpack

from fedpost.errors import EncodeError, FedpostError
from fedpost.objects.arrays import bytes_of, write_numbers
from fedpost.objects.cycles import Fields, TooDeepError, UnfitError, check_all, check_one, explained, step_to, text_of
from fedpost.objects.external import External
from fedpost.objects.mending import mended
from fedpost.objects.rows import Rows
from fedpost.objects.types import Serializer, TypeRegistry
from fedpost.objects.wire import IN_TREE, MAX_DEPTH, MEMORY_CODES, NUMBERS, RECORDS, Kind, Text
from fedpost.tensors.dtypes import dtype_name

__all__ = ["ObjectWriter"]

_PLAIN: Final = frozenset({bool, type(None), float, int})
_is_plain: Final = _PLAIN.issuperset
_are_keys: Final = frozenset({str}).issuperset
_MOST_VISITED: Final = 1 << 22
"""Containers gone through at most: of one that holds another twice, which does the same, there is soon no end."""


class ObjectWriter(Rows):
    """Writes one object.

    Args:
        registry: Which types may be written.
        manager: Handed to decomposers.
        external: Where leaves go that are over its size; None keeps all in the frame.
    """

    __slots__ = ("_depth", "_manager", "_registry", "_visited")

    def __init__(self, registry: TypeRegistry, *, manager: Any = None, external: External | None = None) -> None:
        super().__init__(external)
        self._registry = registry
        self._manager = manager
        self._depth = 0
        self._visited = 0

    def write(self, value: Any) -> bytes:
        """The tree of a value, packed; its large leaves are then in ``segments``.

        Raises:
            EncodeError: Part of it has no registered type, has a cycle, or is nested too deeply; the error says where.
        """
        try:
            root = self._value(value)
        except (UnfitError, RecursionError) as error:
            raise explained(error, value, self._state_of) from error
        types = [serializer.row for serializer in self._types]
        try:
            return ormsgpack.packb([types, self._table, root], option=_OPTIONS)
        except ormsgpack.MsgpackEncodeError:
            pass  # it holds an integer of more than 64 bits, or a text with surrogates
        try:
            return ormsgpack.packb([types, *mended(self._table, root)], option=_OPTIONS)
        except (ormsgpack.MsgpackEncodeError, RecursionError) as error:
            raise EncodeError(f"cannot be encoded: {error}") from error

    # ── what MessagePack knows ───────────────────────────────────────────────────────────────────────────────────────

    def _value(self, value: Any) -> Any:
        kind = type(value)
        write = _WRITERS.get(kind)
        if write is not None:
            return write(self, value)
        return self._registered(value, kind)

    def _plain(self, value: Any) -> Any:
        return value

    def _str(self, value: str) -> Any:
        if len(value) < IN_TREE:
            return value
        known = self._shared.get(id(value))
        if known is not None:
            return known
        try:
            row = self._blob(Text.STR, memoryview(value.encode()))
        except UnicodeEncodeError:
            row = self._blob(Text.SURROGATES, memoryview(value.encode("utf-8", "surrogatepass")))
        return self._share(value, row)

    def _bytes(self, value: bytes) -> Any:
        if len(value) < IN_TREE:
            return value
        known = self._shared.get(id(value))
        return self._share(value, self._blob(Text.BYTES, memoryview(value))) if known is None else known

    def _bytearray(self, value: bytearray) -> Any:
        known = self._shared.get(id(value))
        return self._share(value, self._blob(Text.BYTEARRAY, memoryview(value))) if known is None else known

    def _memoryview(self, value: memoryview) -> Any:
        known = self._shared.get(id(value))
        if known is not None:
            return known
        code = value.format.removeprefix("@")
        if not value.c_contiguous or code not in MEMORY_CODES:
            raise UnfitError("a memoryview that is not contiguous, or not of numbers")
        data = value.cast("B") if value.nbytes else memoryview(b"")
        return self._share(value, self._blob(Text.MEMORYVIEW, data, code, list(value.shape or ())))

    def _list(self, value: list[Any]) -> Any:  # noqa: C901, PLR0911 - one line a kind of list
        if _is_plain(map(type, value)):
            return value if len(value) < NUMBERS else self._numbers(value)
        if len(value) < RECORDS:
            return self._items(value)
        kinds = set(map(type, value))
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
                        return self._repeated(value, kind)
                    if serializer.fields and not serializer.managed:
                        return self._records(value, serializer)
        return self._items(value)

    def _items(self, value: list[Any], keys: Iterable[Any] | None = None) -> list[Any]:
        """A list whose items must be looked at; the same list when none had to be replaced.

        Args:
            value: The list.
            keys: What paths call its items by, when that is not their numbers.
        """
        out: list[Any] | None = None
        index, entered = 0, False
        try:
            for index, item in enumerate(value):
                kind = type(item)
                if kind in _PLAIN or (kind is str and len(item) < IN_TREE):
                    continue
                if not entered:
                    self._enter()
                    entered = True
                write = _WRITERS.get(kind)
                written = self._registered(item, kind) if write is None else write(self, item)
                if written is not item:
                    if out is None:
                        out = value.copy()
                    out[index] = written
        except UnfitError as error:
            error.path.append(f"[{index}]" if keys is None else step_to(list(keys)[index]))
            raise
        if entered:
            self._depth -= 1
        return value if out is None else out

    def _dict(self, value: dict[Any, Any]) -> Any:
        if not _are_keys(map(type, value)):
            return self._mapping(value)
        if _is_plain(map(type, value.values())):
            return value
        values = list(value.values())
        written = self._items(values, value)
        return value if written is values else dict(zip(value, written, strict=True))

    def _enter(self) -> None:
        """Go into a container: count it, and the level."""
        self._depth += 1
        self._visited += 1
        if self._depth >= MAX_DEPTH:
            raise TooDeepError
        if self._visited > _MOST_VISITED:
            raise UnfitError(
                f"more than {_MOST_VISITED} containers",
                "One that is held twice is written twice: store a name instead.",
            )

    # ── what it does not know ────────────────────────────────────────────────────────────────────────────────────────

    def _mapping(self, value: dict[Any, Any]) -> Any:
        """A dictionary with other keys than text."""
        keys = list(value)
        self._enter()
        try:
            written_keys = self._list(keys)
            written = self._list(list(value.values()))
        except UnfitError as error:
            if error.path:  # its last step is the number of the key
                error.path.append(step_to(keys[int(error.path.pop()[1:-1])]))
            raise
        self._depth -= 1
        return self._row([Kind.DICT, written_keys, written])

    def _numbers(self, value: list[Any]) -> Any:
        """Many numbers of one type."""
        leaf = None if len(set(map(type, value))) > 1 else write_numbers(value)
        if leaf is None:
            return value
        if self._depth >= MAX_DEPTH - 1:
            raise TooDeepError
        name, data = leaf
        return self._row([Kind.NUMBERS, name, self._place(data)])

    def _tuples(self, value: list[tuple[Any, ...]]) -> Any:
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

    def _repeated(self, value: list[Any], kind: type) -> list[Any]:
        """Instances of one class that are stored once, however often they come."""
        self._enter()
        ids = list(map(id, value))
        for identity, item in dict(zip(ids, value, strict=True)).items():
            if identity not in self._shared:
                try:
                    self._registered(item, kind)
                except UnfitError as error:
                    error.path.append(f"[{ids.index(identity)}]")
                    raise
        self._depth -= 1
        return list(map(self._shared.__getitem__, ids))

    def _tuple(self, value: tuple[Any, ...]) -> Any:
        return self._row([Kind.TUPLE, self._list(list(value))])

    def _set(self, value: set[Any]) -> Any:
        return self._row([Kind.SET, self._list(list(value))])

    def _frozenset(self, value: frozenset[Any]) -> Any:
        return self._row([Kind.FROZENSET, self._list(list(value))])

    def _array(self, value: np.ndarray[Any, Any]) -> Any:
        known = self._shared.get(id(value))
        if known is not None:
            return known
        try:
            name = dtype_name(value.dtype)
        except EncodeError as error:
            raise UnfitError(error.what, error.hint) from error
        if value.nbytes < IN_TREE and value.flags.c_contiguous:
            order, place = 0, value.tobytes()
        else:
            order, data = bytes_of(value)
            place = self._place(data)
        return self._share(value, self._row([Kind.ARRAY, name, list(value.shape), order, place]))

    def _scalar(self, value: Any) -> Any:
        try:
            # An empty text has a byte that is not of it.
            return self._row([Kind.SCALAR, dtype_name(value.dtype), value.tobytes()[: value.dtype.itemsize]])
        except EncodeError as error:
            raise UnfitError(error.what, error.hint) from error

    def _records(self, value: list[Any], serializer: Serializer) -> Any:
        """Many instances of one class, by column."""
        self._enter()
        fields: tuple[str, ...] = serializer.fields or ()
        columns: list[Any] = []
        checked = False
        try:
            taken = list(_columns_of(value, serializer.take))
            check_all(serializer, value, taken)
            checked = True
            for column in taken:
                columns.append(self._list(column))  # noqa: PERF401 - the error needs to know how many are done
        except UnfitError as error:
            if checked:  # the column's path begins with the number of the record
                error.path.insert(len(error.path) - 1, f".{fields[len(columns)]}")
            raise
        except RecursionError:
            raise
        except Exception as error:  # as in _registered
            raise UnfitError(
                f"can not serialize {text_of(serializer.cls)} object: {type(error).__name__}: {error}"
            ) from error
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
        try:
            state = serializer.take(value, self._manager) if serializer.managed else serializer.take(value)
        except FedpostError as error:
            raise UnfitError(f"can not serialize {text_of(kind)} object: {error.what}", error.hint) from error
        except RecursionError:
            raise
        except Exception as error:  # the user's own code, or an object that is only half there
            raise UnfitError(f"can not serialize {text_of(kind)} object: {type(error).__name__}: {error}") from error
        self._alive.append(state)
        fields = serializer.fields
        if fields is None:
            self._enter()
            state = self._value(state)
            self._depth -= 1
        else:
            check_one(serializer, value, state)
            state = self._items(list(state), fields)
        row = self._row([Kind.INSTANCE, self._type(serializer), state])
        return self._share(value, row) if serializer.shared else row

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


_OPTIONS: Final = (
    ormsgpack.OPT_PASSTHROUGH_SUBCLASS
    | ormsgpack.OPT_PASSTHROUGH_DATACLASS
    | ormsgpack.OPT_PASSTHROUGH_DATETIME
    | ormsgpack.OPT_PASSTHROUGH_TUPLE
    | ormsgpack.OPT_PASSTHROUGH_ENUM
    | ormsgpack.OPT_PASSTHROUGH_UUID
)


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


def _columns_of(values: list[Any], take: Callable[[Any], Any]) -> Iterator[list[Any]]:
    if isinstance(take, attrgetter):  # a column at a time needs no tuple for each instance
        return (list(map(attrgetter(name), values)) for name in take.__reduce__()[1])
    return map(list, zip(*map(take, values), strict=True))
