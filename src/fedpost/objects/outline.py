"""An object in a frame as a tree to look at; nothing of it is built, so no type needs to be registered."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from itertools import islice
from typing import Any, Final

import msgspec
import ormsgpack

from fedpost.errors import DecodeError
from fedpost.frame import DEFAULT_LIMITS, Frame, Limits
from fedpost.objects.arrays import numbers_size, scalar_of, shape_of
from fedpost.objects.plans import types_of
from fedpost.objects.trees import tree_of
from fedpost.objects.wire import (
    ALONE,
    EXACTLY,
    IN_PLACE,
    MAY_STAND_IN_PLACE,
    MOST_IN_PLACE,
    ONE_PART,
    REFERENCE,
    Kind,
    Text,
    Tree,
)

__all__ = ["DEEPEST", "Node", "outline", "type_names"]

DEEPEST: Final = 64
"""Levels of an outline at most."""
_MOST_CHILDREN: Final = 100
_MOST_NODES: Final = 10_000
_LONGEST: Final = 60
_LONGEST_NAME: Final = 200
_BLOBS: Final = ("bytes", "bytearray", "memoryview", "str", "str")


class Node(msgspec.Struct, frozen=True, omit_defaults=True):
    """One value.

    Attributes:
        key: How it is reached from the one above: ``.name``, ``[3]``; ``$`` at the root.
        type: Its type: a built-in one, or the registered name with the version.
        size: Bytes that it and all below it take, of the tree and of segments. What is referred to in several places
            counts in one of them.
        value: A short form of it, where it is a leaf.
        shared: The number of what is referred to in several places; its children are told in the first.
        children: What is in it, up to a hundred.
        more: How many children are left out.
    """

    key: str
    type: str
    size: int
    value: str | None = None
    shared: int | None = None
    children: list[Node] = []
    more: int = 0


class _Row(int):
    """A reference to a row."""


_CONTAINERS: Final = (list, dict)
_PLACES: Final = {Kind.BLOB: 2, Kind.ARRAY: 4, Kind.NUMBERS: 2}
"""Which part of a row says where its leaf is."""
_INNER: Final = frozenset({list, dict, _Row})


def outline(frame: Frame, *, depth: int | None = None, limits: Limits = DEFAULT_LIMITS) -> Node:
    """The tree of the object in a frame.

    Args:
        frame: Of its segments none is read but the first, where the tree stands there.
        depth: Levels below the root that are told, at most :data:`DEEPEST`.
        limits: The budget.

    Raises:
        DecodeError: The frame holds no object, or an impossible one.
    """
    return _Outline(*tree_of(frame, limits), frame, DEEPEST if depth is None else min(depth, DEEPEST)).root()


def type_names(frame: Frame, *, limits: Limits = DEFAULT_LIMITS) -> list[str]:
    """The registered types that the object in a frame uses, with their versions, such as ``example.Task v2``.

    Raises:
        DecodeError: The frame holds no object, or an impossible one.
    """
    tree, _ = tree_of(frame, limits)
    return [_type_name(row.name, row.version) for row in types_of(tree.types)]


class _Outline:
    def __init__(self, tree: Tree, leaves: int, frame: Frame, deepest: int) -> None:
        self._types = types_of(tree.types)
        self._leaves = leaves
        self._frame = frame
        self._deepest = deepest
        self._rows: list[Any] = []
        """Those in place as well, each behind the rows in it."""
        self._numbers: dict[int, int] = {}
        """Of the rows in the table, which row that is."""
        self._refused: list[DecodeError] = []
        self._uses = bytearray()
        self._lengths: list[int | None] = []
        """Of rows that are lists, how many items they have."""
        self._leaves_used: set[Any] = set()
        self._sizes: dict[int, int] = {}
        """Bytes by the identity of each list and dictionary, which the rows keep alive."""
        for number, packed in enumerate(tree.table):
            row = self._unpack(packed, number)
            self._numbers[number] = self._add(row, f"row {number} of the object")
        self._root = self._unpack(tree.root, None)
        self._weigh(self._root)
        self._told: dict[int, Node] = {}
        self._nodes = 0

    def _add(self, row: Any, where: str) -> _Row:
        try:
            outside = self._outside(row)
            size = self._weigh(row) + outside
            length = self._length_of(row, outside)
        except (ValueError, TypeError, IndexError) as error:
            raise _impossible(where, error) from error
        self._lengths.append(length)
        self._rows.append(row)
        self._uses.append(0)
        self._sizes[id(row)] = size
        return _Row(len(self._rows) - 1)

    def _unpack(self, packed: msgspec.Raw, number: int | None) -> Any:
        """A row or the root; rows in place are added as they are found."""
        where = "object tree" if number is None else f"row {number} of the object"
        self._refused.clear()
        try:
            return ormsgpack.unpackb(memoryview(packed), ext_hook=partial(self._extension, where))
        except ormsgpack.MsgpackDecodeError as error:
            raise (self._refused or [DecodeError(str(error), where=where)])[0] from error

    def _extension(self, where: str, code: int, data: bytes) -> _Row:
        try:
            return self._found(where, code, data)
        except DecodeError as error:  # MessagePack's own does not say what failed
            self._refused.append(error)
            raise

    def _found(self, where: str, code: int, data: bytes) -> _Row:
        kind = code - IN_PLACE
        if code == REFERENCE and len(data) <= 8:  # noqa: PLR2004 - more rows than memory has
            found = self._numbers.get(int.from_bytes(data, "little"))
            if found is None:
                raise DecodeError("a reference to no earlier row", where="object tree")
            return _Row(found)
        if kind not in MAY_STAND_IN_PLACE or (len(data) > MOST_IN_PLACE and kind not in ALONE):
            raise DecodeError("an extension of MessagePack that objects do not use", where="object tree")
        try:
            EXACTLY(data)
        except msgspec.DecodeError as error:
            raise DecodeError(str(error), where=where) from error
        hook = partial(self._extension, where) if len(data) <= MOST_IN_PLACE else None
        part = ormsgpack.unpackb(data, ext_hook=hook)
        if kind not in ONE_PART and type(part) is not list:
            raise DecodeError("a row in place that is no array", where=where)
        return self._add([kind, part] if kind in ONE_PART else [kind, *part], where)

    def root(self) -> Node:
        return self._node("$", self._root, 0)

    # ── sizes ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _weigh(self, value: Any) -> int:
        """The size of a value, and of all containers in it; without recursion, as nobody knows how deep it is."""
        containers, stack = [], [value]
        while stack:
            item = stack.pop()
            if type(item) in _CONTAINERS and item:
                inner = item.values() if type(item) is dict else item
                if set(map(type, inner)).isdisjoint(_INNER):
                    self._sizes[id(item)] = len(ormsgpack.packb(item))
                    continue
                containers.append(item)
                stack.extend(inner)
        for item in reversed(containers):
            size = sum(map(self._size, item))
            if type(item) is dict:
                size += sum(map(self._size, item.values()))
            self._sizes[id(item)] = size + (1 if len(item) <= _FEW else 3 if len(item) <= _MANY else 5)
        return self._size(value)

    def _size(self, value: Any) -> int:
        if isinstance(value, _Row):
            self._uses[value] = min(self._uses[value] + 1, 2)
            return 3 + (self._sizes[id(self._rows[value])] if self._uses[value] == 1 else 0)
        if type(value) in _CONTAINERS:
            return self._sizes[id(value)] if value else 1
        return len(ormsgpack.packb(value))

    def _outside(self, row: Any) -> int:
        """Bytes of a leaf that are not in the tree."""
        if type(row) is not list or not row or type(row[0]) is not int or not 0 <= row[0] < len(Kind.NAMES):
            raise DecodeError("of no known kind", where="object tree")
        if row[0] not in _PLACES:
            return 0
        place = row[_PLACES[row[0]]]
        if type(place) in (int, list):
            leaf = place if type(place) is int else bytes(place[0])
            if leaf in self._leaves_used:
                raise DecodeError("a leaf that two rows name", where="object tree")
            self._leaves_used.add(leaf)
        if type(place) is int:
            if not 0 <= place < len(self._frame) - self._leaves:
                raise DecodeError(f"leaf {place} of {len(self._frame) - self._leaves}", where="object tree")
            return self._frame.raw_size(place + self._leaves)
        if type(place) is list:
            _, size = place
            if type(size) is not int or size < 0:
                raise DecodeError("a leaf elsewhere that has no size", where="object tree")
            return int(size)
        return 0

    def _length_of(self, row: Any, outside: int) -> int | None:
        """How many items a row has that is a list; what it says of that is compared with what is there."""
        if row[0] == Kind.NUMBERS:
            _, name, place = row
            return numbers_size(name, len(place) if type(place) is bytes else outside)
        if row[0] not in (Kind.RECORDS, Kind.TUPLES):
            return None
        count, columns = row[-2:]
        if not columns or {self._length(column) for column in _list(columns)} != {_number(count, 1 << 62)}:
            raise DecodeError("a column does not have a value for each record")
        if row[0] == Kind.RECORDS:
            number = _number(row[1], len(self._types))
            if len(self._types[number].fields or ()) != len(columns):
                raise DecodeError("records without a column for each field")
        return int(count)

    def _length(self, value: Any) -> int:
        """The length of a list, or of a row that is one."""
        length = self._lengths[value] if isinstance(value, _Row) and value < len(self._lengths) else None
        return len(_list(value)) if length is None else length

    # ── nodes ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _node(self, key: str, value: Any, depth: int) -> Node:
        self._nodes += 1
        if isinstance(value, _Row):
            return self._of_row(key, value, depth)
        size = self._sizes[id(value)] if type(value) in _CONTAINERS and value else len(ormsgpack.packb(value))
        if isinstance(value, dict):
            return self._parent(
                key, "dict", size, len(value), zip(map(_key, value), value.values(), strict=True), depth
            )
        if isinstance(value, list):
            return self._parent(key, "list", size, len(value), _numbered(value), depth)
        return Node(key, type(value).__name__, size, _short(value))

    def _of_row(self, key: str, index: _Row, depth: int) -> Node:
        told = self._told.get(index)
        if told is not None:
            return msgspec.structs.replace(told, key=key, children=[], more=0)
        kind, *parts = self._rows[index]
        try:
            node = self._of_kind(key, index, kind, parts, self._sizes[id(self._rows[index])], depth)
        except (ValueError, TypeError, IndexError) as error:
            raise _impossible("object tree", error) from error
        if self._uses[index] > 1:
            node = msgspec.structs.replace(node, shared=int(index))
            self._told[index] = node
        return node

    def _of_kind(  # noqa: C901, PLR0911, PLR0912 - one each
        self, key: str, index: int, kind: int, parts: list[Any], size: int, depth: int
    ) -> Node:
        if kind == Kind.INTEGER:
            return Node(key, "int", size, f"an integer of {len(parts[0])} bytes")
        if kind == Kind.BLOB:
            return Node(key, _BLOBS[_number(parts[0], Text.COUNT)], size)
        if kind == Kind.SCALAR:
            name, data = parts
            return Node(key, f"numpy.{_cut(name)}", size, _short(scalar_of(name, data)))
        if kind == Kind.ARRAY:
            name, shape, _, _ = parts
            shape_of(shape, name)
            return Node(key, f"array {_cut(name)}", size, "×".join(map(str, shape)) or "0-d")
        if kind == Kind.INSTANCE:
            number, state = parts
            row = self._types[_number(number, len(self._types))]
            name = _type_name(row.name, row.version)
            if row.fields is None:
                return self._parent(key, name, size, 1, [("", state)], depth)
            return self._parent(
                key, name, size, len(row.fields), _paired(map(_key, row.fields), row.fields, state), depth
            )
        if kind == Kind.RECORDS:
            number, count, columns = parts
            row = self._types[_number(number, len(self._types))]
            fields = row.fields or []
            name = f"list of {_number(count, 1 << 62)} {_type_name(row.name, row.version)}"
            names = (f"[:]{_key(field)}" for field in fields)
            return self._parent(key, name, size, len(fields), _paired(names, fields, columns), depth)
        if kind == Kind.NUMBERS:
            return Node(key, f"list of {_cut(parts[0])}", size, more=self._lengths[index] or 0)
        if kind == Kind.TUPLES:
            count, columns = parts
            name = f"list of {count} tuple"
            named = ((f"[:][{number}]", column) for number, column in enumerate(columns))
            return self._parent(key, name, size, len(columns), named, depth)
        if kind == Kind.DICT:
            keys, values = parts
            if isinstance(keys, _Row) or isinstance(values, _Row):
                if self._length(keys) != self._length(values):
                    raise DecodeError(f"{self._length(values)} values for {self._length(keys)} keys")
                inner = [(".keys()", keys), (".values()", values)]
                return self._parent(key, f"dict of {self._length(keys)}", size, len(inner), inner, depth)
            pairs = _paired(map(_key_of, _list(keys)), keys, values)
            return self._parent(key, "dict", size, len(keys), pairs, depth)
        (items,) = parts
        if isinstance(items, _Row):
            self._length(items)
            return self._parent(key, Kind.NAMES[kind], size, 1, [("", items)], depth)
        return self._parent(key, Kind.NAMES[kind], size, len(_list(items)), _numbered(items), depth)

    def _parent(
        self, key: str, kind: str, size: int, count: int, children: Iterable[tuple[str, Any]], depth: int
    ) -> Node:
        shown: list[Node] = []
        for name, child in islice(children, 0 if depth >= self._deepest else _MOST_CHILDREN):
            if self._nodes >= _MOST_NODES:
                break
            shown.append(self._node(name, child, depth + 1))
        return Node(key, kind, size, None if count else "empty", None, shown, count - len(shown))


_FEW: Final = 15
_MANY: Final = 0xFFFF
"""Lengths from which on a container's head takes more bytes."""


def _impossible(where: str, error: Exception) -> DecodeError:
    if isinstance(error, DecodeError):
        return error if error.where else DecodeError(error.what, where=where)
    return DecodeError(f"impossible: {error}", where=where)


def _number(value: Any, end: int) -> int:
    if type(value) is not int or not 0 <= value < end:
        raise DecodeError(f"a {type(value).__name__} that is no number of what there is")
    return value


def _list(value: Any) -> list[Any]:
    if type(value) is not list:
        raise DecodeError("a container without a list of items")
    return value


def _numbered(items: list[Any]) -> Iterable[tuple[str, Any]]:
    return ((f"[{number}]", item) for number, item in enumerate(items))


def _paired(names: Iterable[str], keys: list[Any], values: Any) -> Iterable[tuple[str, Any]]:
    if len(keys) != len(_list(values)):
        raise DecodeError(f"{len(values)} values for {len(keys)} keys")
    return zip(names, values, strict=True)


def _type_name(name: str, version: int) -> str:
    return f"{_cut(name)} v{version}"


def _cut(text: Any) -> str:
    if type(text) is not str:
        raise DecodeError("a name that is no text")
    return text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}…"


def _key(name: str) -> str:
    return f".{name}" if len(name) <= _LONGEST and name.isidentifier() else f"[{_short(name)}]"


def _key_of(value: Any) -> str:
    """The key of a dictionary with other keys than text."""
    if isinstance(value, _Row):
        return f"[#{int(value)}]"
    if isinstance(value, str):
        return _key(value)
    return "[…]" if isinstance(value, list | dict) else f"[{_short(value)}]"


def _short(value: Any) -> str:
    # Before the form is made: of control characters it is ten times as long.
    text = repr(value[: _LONGEST + 1] if isinstance(value, str | bytes) else value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
