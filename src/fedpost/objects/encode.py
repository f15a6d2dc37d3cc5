"""Python objects to a tree and segments.

Rules: what MessagePack keeps exactly is not touched, and containers of nothing else are recognised by the set of their
items' types, without a look at each; a cycle or too deep a nesting is an error, never a RecursionError; an error says
where in the value it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from operator import attrgetter
from typing import Any, Final, Protocol

import numpy as np
import ormsgpack

from fedpost.errors import EncodeError, FedpostError
from fedpost.objects.arrays import bytes_of
from fedpost.objects.cycles import Fields, cycle_in, step_to
from fedpost.objects.types import Serializer, TypeRegistry, qualified_name
from fedpost.objects.wire import (
    IN_TREE,
    MAX_DEPTH,
    MAX_INT,
    MEMORY_CODES,
    MIN_INT,
    NEAR,
    RECORDS,
    Kind,
    Text,
    reference,
)
from fedpost.tensors.dtypes import dtype_name

__all__ = ["External", "ObjectWriter"]

_PLAIN: Final = frozenset({bool, type(None), float})
_MOSTLY_PLAIN: Final = _PLAIN | {int}
_KEYS: Final = frozenset({str})


class External(Protocol):
    """Where leaves go that are too large for a frame."""

    @property
    def over(self) -> int:
        """Leaves of more bytes than this are put here."""

    def put(self, data: memoryview) -> bytes:
        """Keep a leaf; return what it is found by."""

    def get(self, reference: bytes, size: int) -> Any:
        """The leaf's bytes, as a memoryview; or, where it is to be read later, a function that gives them.

        Raises:
            DecodeError: It is not there, or is another.
        """


class _UnfitError(Exception):
    """Something cannot be written; the path to it is put together on the way out."""

    def __init__(self, what: str, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.path: list[str] = []


class ObjectWriter:
    """Writes one object.

    Args:
        registry: Which types may be written.
        manager: Handed to decomposers.
        external: Where leaves go that are over its size; None keeps all in the frame.
    """

    __slots__ = (
        "_alive",
        "_as_is",
        "_depth",
        "_external",
        "_manager",
        "_registry",
        "_shared",
        "_table",
        "_text_limit",
        "_types",
        "segments",
    )

    def __init__(self, registry: TypeRegistry, *, manager: Any = None, external: External | None = None) -> None:
        self._registry = registry
        self._manager = manager
        self._external = external
        self.segments: list[memoryview] = []
        self._table: list[Any] = []
        self._types: dict[Serializer, int] = {}
        self._shared: dict[int, Any] = {}
        self._alive: list[Any] = []
        self._depth = 0
        # Integers that are too large, and text that is not UTF-8, are so rare that they are left for MessagePack to
        # find: then everything is written again, with a look at each.
        self._as_is = _MOSTLY_PLAIN
        self._text_limit = IN_TREE

    def write(self, value: Any) -> bytes:
        """The tree of a value, packed; its large leaves are then in ``segments``.

        Raises:
            EncodeError: Part of it has no registered type, has a cycle, or is nested too deeply; the error says where.
        """
        try:
            root = self._value(value)
            types = [serializer.row for serializer in self._types]
            return ormsgpack.packb([types, self._table, root], option=_OPTIONS)
        except (_UnfitError, RecursionError) as error:
            raise _explained(error, value, self._state_of) from error
        except ormsgpack.MsgpackEncodeError as error:
            if self._text_limit:
                again = ObjectWriter(self._registry, manager=self._manager, external=self._external)
                again._as_is = _PLAIN
                again._text_limit = 0
                packed = again.write(value)
                self.segments = again.segments
                return packed
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

    def _int(self, value: int) -> Any:
        if MIN_INT <= value <= MAX_INT:
            return value
        return self._row([Kind.INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)])

    def _str(self, value: str) -> Any:
        if len(value) < self._text_limit:
            return value
        try:
            data = value.encode()
        except UnicodeEncodeError:
            return self._blob(Text.SURROGATES, memoryview(value.encode("utf-8", "surrogatepass")))
        return value if len(data) < IN_TREE else self._blob(Text.STR, memoryview(data))

    def _bytes(self, value: bytes) -> Any:
        if len(value) < IN_TREE:
            return value
        known = self._shared.get(id(value))
        return self._share(value, self._blob(Text.BYTES, memoryview(value))) if known is None else known

    def _bytearray(self, value: bytearray) -> Any:
        known = self._shared.get(id(value))
        return self._share(value, self._blob(Text.BYTEARRAY, memoryview(value))) if known is None else known

    def _memoryview(self, value: memoryview) -> Any:
        code = value.format.removeprefix("@")
        if not value.c_contiguous or code not in MEMORY_CODES:
            raise _UnfitError("a memoryview that is not contiguous, or not of numbers")
        data = value.cast("B") if value.nbytes else memoryview(b"")
        return self._blob(Text.MEMORYVIEW, data, code, list(value.shape or ()))

    def _list(self, value: list[Any]) -> Any:
        if len(value) < RECORDS:
            return self._items(value)
        kinds = set(map(type, value))
        if kinds <= self._as_is:
            return value
        if len(kinds) == 1:
            (kind,) = kinds
            if kind is str:
                if max(map(len, value)) < self._text_limit:
                    return value
            elif kind not in _WRITERS:
                serializer = self._registry.for_class(kind)
                if serializer is not None and serializer.fields and not serializer.managed:
                    return self._records(value, serializer)
        return self._items(value)

    def _items(self, value: list[Any], names: tuple[str, ...] | None = None) -> list[Any]:
        """A list whose items must be looked at; the same list when none had to be replaced."""
        out: list[Any] | None = None
        index = 0
        as_is, limit = self._as_is, self._text_limit
        try:
            for index, item in enumerate(value):
                kind = type(item)
                if kind in as_is or (kind is str and len(item) < limit):
                    continue
                self._depth += 1
                if self._depth > MAX_DEPTH:
                    raise RecursionError
                write = _WRITERS.get(kind)
                written = self._registered(item, kind) if write is None else write(self, item)
                self._depth -= 1
                if written is not item:
                    if out is None:
                        out = value.copy()
                    out[index] = written
        except _UnfitError as error:
            error.path.append(f"[{index}]" if names is None else f".{names[index]}")
            raise
        return value if out is None else out

    def _dict(self, value: dict[Any, Any]) -> Any:
        out: dict[str, Any] | None = None
        key: Any = ""
        as_is, limit = self._as_is, self._text_limit
        kinds = set(map(type, value))
        if kinds and (kinds != _KEYS or not limit):
            return self._mapping(value)
        try:
            for key, item in value.items():
                kind = type(item)
                if kind in as_is or (kind is str and len(item) < limit):
                    continue
                self._depth += 1
                if self._depth > MAX_DEPTH:
                    raise RecursionError
                write = _WRITERS.get(kind)
                written = self._registered(item, kind) if write is None else write(self, item)
                self._depth -= 1
                if written is not item:
                    if out is None:
                        out = value.copy()
                    out[key] = written
        except _UnfitError as error:
            error.path.append(step_to(key))
            raise
        return value if out is None else out

    # ── what it does not know ────────────────────────────────────────────────────────────────────────────────────────

    def _mapping(self, value: dict[Any, Any]) -> Any:
        """A dictionary with other keys than text."""
        keys = list(value)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise RecursionError
        key = None
        written_keys, written = [], []
        try:
            for key in keys:
                written_keys.append(self._value(key))
                written.append(self._value(value[key]))
        except _UnfitError as error:
            error.path.append(step_to(key))
            raise
        self._depth -= 1
        return self._row([Kind.DICT, written_keys, written])

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
            raise _UnfitError(error.what, error.hint) from error
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
            raise _UnfitError(error.what, error.hint) from error

    def _records(self, value: list[Any], serializer: Serializer) -> Any:
        """Many instances of one class, by column."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise RecursionError
        fields: tuple[str, ...] = serializer.fields or ()
        columns: list[Any] = []
        try:
            for column in _columns_of(value, serializer.take):
                columns.append(self._list(column))  # noqa: PERF401 - the error needs to know how many are done
        except _UnfitError as error:
            # The column's path begins with the number of the record.
            error.path.insert(len(error.path) - 1, f".{fields[len(columns)]}")
            raise
        except RecursionError:
            raise
        except Exception as error:  # as in _registered
            raise _UnfitError(
                f"can not serialize {_of(serializer.cls)} object: {type(error).__name__}: {error}"
            ) from error
        self._depth -= 1
        return self._row([Kind.RECORDS, self._type(serializer), len(value), columns])

    def _registered(self, value: Any, kind: type) -> Any:
        serializer = self._registry.for_class(kind)
        if serializer is None:
            if isinstance(value, np.generic):
                return self._scalar(value)
            raise _UnfitError(
                f"can not serialize {_of(kind)} object", "Register the type: fedpost.register(…), on both sides."
            )
        if serializer.shared:
            known = self._shared.get(id(value))
            if known is not None:
                return known
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise RecursionError
        try:
            state = serializer.take(value, self._manager) if serializer.managed else serializer.take(value)
        except FedpostError as error:
            raise _UnfitError(f"can not serialize {_of(kind)} object: {error.what}", error.hint) from error
        except RecursionError:
            raise
        except Exception as error:  # the user's own code, or an object that is only half there
            raise _UnfitError(f"can not serialize {_of(kind)} object: {type(error).__name__}: {error}") from error
        self._alive.append(state)
        fields = serializer.fields
        state = self._value(state) if fields is None else self._items(list(state), fields)
        self._depth -= 1
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

    # ── parts ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _row(self, row: list[Any]) -> Any:
        table = self._table
        index = len(table)
        table.append(row)
        return NEAR[index] if index < len(NEAR) else reference(index)

    def _blob(self, text: int, data: memoryview, *more: Any) -> Any:
        return self._row([Kind.BLOB, text, self._place(data), *more])

    def _place(self, data: memoryview) -> Any:
        """The bytes themselves, the number of a segment, or a reference to another place with the size."""
        size = data.nbytes
        if size < IN_TREE:
            return bytes(data)
        if self._external is not None and size > self._external.over:
            return [self._external.put(data), size]
        self.segments.append(data.toreadonly())
        return len(self.segments) - 1

    def _share(self, value: Any, row: Any) -> Any:
        """Let later references to the same object find its row. It is kept alive, or another could get its id."""
        self._alive.append(value)
        self._shared[id(value)] = row
        return row

    def _type(self, serializer: Serializer) -> int:
        return self._types.setdefault(serializer, len(self._types))


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
    int: ObjectWriter._int,  # noqa: SLF001
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


def _of(kind: type) -> str:
    return f"'{qualified_name(kind) if kind.__module__ != 'builtins' else kind.__qualname__}'"


def _explained(error: Exception, value: Any, state_of: Callable[[Any], Any]) -> EncodeError:
    if isinstance(error, _UnfitError):
        return EncodeError(error.what, where="$" + "".join(reversed(error.path)), hint=error.hint)
    path = cycle_in(value, state_of)
    if path is not None:
        start, end = path
        return EncodeError(f"refers back to {start}, a cycle", where=end, hint="Break it, or store a name instead.")
    return EncodeError(f"nested more than {MAX_DEPTH} levels deep", where="$")
