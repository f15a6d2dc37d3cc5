"""An object in a frame as a tree to look at; nothing of it is built, so no type needs to be registered."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import ormsgpack

from fedpost.errors import DecodeError
from fedpost.frame import DEFAULT_LIMITS, Frame, Limits
from fedpost.objects.arrays import shape_of
from fedpost.objects.decode import tree_of
from fedpost.objects.wire import MAX_DEPTH, REFERENCE, Kind, Text, Tree

__all__ = ["Node", "outline"]

_MOST_CHILDREN: Final = 100
_MOST_NODES: Final = 10_000
_LONGEST: Final = 60
_BLOBS: Final = ("bytes", "bytearray", "memoryview", "str", "str")


class Node(msgspec.Struct, frozen=True, omit_defaults=True):
    """One value.

    Attributes:
        key: How it is reached from the one above: ``.name``, ``[3]``; ``$`` at the root.
        type: Its type: a built-in one, or the registered name with the version.
        size: Bytes that it and all below it take, of the tree and of segments; a shared leaf counts where it is first.
        value: A short form of it, where it is a leaf.
        shared: The number of a leaf that is referred to in several places.
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


def outline(frame: Frame, *, limits: Limits = DEFAULT_LIMITS) -> Node:
    """The tree of the object in a frame.

    Raises:
        DecodeError: The frame holds no object, or an impossible one.
    """
    return _Outline(tree_of(frame, limits), frame).root()


class _Outline:
    def __init__(self, tree: Tree, frame: Frame) -> None:
        self._tree = tree
        self._frame = frame
        self._rows = [_unpack(packed) for packed in tree.table]
        uses = bytearray(len(self._rows))
        for value in (*self._rows, root := _unpack(tree.root)):
            _count(value, uses)
        self._root = root
        self._uses = uses
        self._seen: set[int] = set()
        self._nodes = 0

    def root(self) -> Node:
        return self._node("$", self._root, 0)

    def _node(self, key: str, value: Any, depth: int) -> Node:
        self._nodes += 1
        if depth > MAX_DEPTH or self._nodes > _MOST_NODES:
            return Node(key, "…", 0)
        if isinstance(value, _Row):
            return self._of_row(key, value, depth)
        if isinstance(value, dict):
            return self._parent(key, "dict", [(_key(name), item) for name, item in value.items()], depth)
        if isinstance(value, list):
            return self._parent(key, "list", [(f"[{index}]", item) for index, item in enumerate(value)], depth)
        return Node(key, type(value).__name__, len(ormsgpack.packb(value)), _short(value))

    def _of_row(self, key: str, index: _Row, depth: int) -> Node:
        if index >= len(self._rows) or type(self._rows[index]) is not list or not self._rows[index]:
            raise DecodeError("a reference to no row", where="object tree")
        kind, *parts = self._rows[index]
        try:
            node = self._of_kind(key, kind, parts, index, depth)
        except (ValueError, TypeError, IndexError) as error:
            if isinstance(error, DecodeError):
                raise
            raise DecodeError(f"impossible: {error}", where=f"row {int(index)} of the object") from error
        if self._uses[index] > 1:
            node = msgspec.structs.replace(node, shared=int(index), size=0 if index in self._seen else node.size)
            self._seen.add(index)
        return node

    def _of_kind(self, key: str, kind: Any, parts: list[Any], index: int, depth: int) -> Node:  # noqa: PLR0911 - one each
        size = len(memoryview(self._tree.table[index]))
        if kind == Kind.INTEGER:
            return Node(key, "int", size, f"an integer of {len(parts[0])} bytes")
        if kind == Kind.BLOB:
            return Node(key, _BLOBS[parts[0] if parts[0] < Text.COUNT else 0], size + self._outside(parts[1]))
        if kind == Kind.SCALAR:
            return Node(key, f"numpy.{parts[0]}", size)
        if kind == Kind.ARRAY:
            name, shape, _, place = parts
            shape_of(shape, name)
            return Node(key, f"array {name}", size + self._outside(place), "×".join(map(str, shape)) or "0-d")
        if kind == Kind.INSTANCE:
            row = self._tree.types[parts[0]]
            names = [f".{field}" for field in row.fields] if row.fields is not None else None
            children = [("", parts[1])] if names is None else list(zip(names, parts[1], strict=True))
            return self._parent(key, f"{row.name} v{row.version}", children, depth)
        if kind == Kind.RECORDS:
            row = self._tree.types[parts[0]]
            columns = [(f"[:].{field}", column) for field, column in zip(row.fields or (), parts[2], strict=True)]
            return self._parent(key, f"list of {parts[1]} {row.name} v{row.version}", columns, depth)
        if kind == Kind.DICT:
            pairs = [(f"[{_short(name)}]", item) for name, item in zip(*parts, strict=True)]
            return self._parent(key, "dict", pairs, depth)
        items = [(f"[{number}]", item) for number, item in enumerate(parts[0])]
        return self._parent(key, Kind.NAMES[kind], items, depth)

    def _outside(self, place: Any) -> int:
        """Bytes of a leaf that are not in the tree."""
        if type(place) is int:
            if not 0 <= place < len(self._frame):
                raise DecodeError(f"segment {place} of {len(self._frame)}", where="object tree")
            return self._frame.raw_size(place)
        return int(place[1]) if type(place) is list else 0

    def _parent(self, key: str, kind: str, children: list[tuple[str, Any]], depth: int) -> Node:
        shown = [self._node(name, child, depth + 1) for name, child in children[:_MOST_CHILDREN]]
        hidden = children[_MOST_CHILDREN:]
        size = sum(node.size for node in shown) + sum(_size(child) for _, child in hidden)
        return Node(key, kind, size, None if children else "empty", None, shown, len(hidden))


def _unpack(packed: msgspec.Raw) -> Any:
    def hook(code: int, data: bytes) -> Any:
        if code != REFERENCE:
            raise DecodeError("an extension of MessagePack that objects do not use", where="object tree")
        return _Row(int.from_bytes(data, "little"))

    try:
        return ormsgpack.unpackb(memoryview(packed), ext_hook=hook)
    except ormsgpack.MsgpackDecodeError as error:
        raise DecodeError(str(error), where="object tree") from error


def _count(value: Any, uses: bytearray) -> None:
    """Count how often each row is referred to, up to two."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, _Row):
            if item < len(uses):
                uses[item] = min(uses[item] + 1, 2)
        elif isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)


def _size(value: Any) -> int:
    return 0 if isinstance(value, _Row | list | dict) else len(ormsgpack.packb(value))


def _key(name: str) -> str:
    return f".{name}" if name.isidentifier() else f"[{_short(name)}]"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
