"""A second reader of objects, written from ``docs/spec/objects.md`` alone: no line of it is shared with fedpost.

What it builds is a description: ``[kind, …]`` in lists, numbers and texts, which JSON can hold. The container is
read by the frames' second reader.
"""

from __future__ import annotations

import hashlib
import math
import struct
from typing import Any

import msgpack

TEXTS = ("bytes", "bytearray", "memoryview", "str", "str")
KINDS = ("int", "blob", "tuple", "set", "frozenset", "dict", "records", "array", "scalar", "instance", "numbers")
TUPLES = len(KINDS)
NUMBERS = {"int8": "<b", "int16": "<h", "int32": "<i", "int64": "<q", "uint64": "<Q", "float64": "<d"}
SHARED = ("blob", "array", "MaskedArray")
REPEATED = ("vector.Color", "vector.Right")


def read_object(data: bytes, container: Any) -> Any:
    """The description of the object in a frame."""
    _, segments, sections = container.read_container(data)
    tree = sections["object"]
    leaves = segments
    if tree is None:
        tree, leaves = segments[0], segments[1:]
        tree = msgpack.unpackb(tree, strict_map_key=True, unicode_errors="strict")
    return Reader(*tree, leaves, container.element_type).read()


class Reader:
    def __init__(self, types: Any, table: Any, root: Any, leaves: list[bytes], element_type: Any) -> None:
        self.types, self.table, self.root, self.leaves = types, table, root, leaves
        self.element_type = element_type
        self.rows, self.uses, self.depths, self.used, self.depth = [], [], [], set(), 0

    def read(self) -> Any:
        for row in self.table:
            self.depth = 0
            self.rows.append(self.row(row))
            self.uses.append(0)
            self.depths.append(self.depth + 1)
            require(self.depth < 200, "rows that nest 200 deep at most")
        root = self.value(self.root)
        require(all(self.uses), "a reference to every row")
        require(self.used == set(range(len(self.leaves))), "a reference to every leaf")
        return root

    def value(self, item: Any) -> Any:  # noqa: PLR0911 - as row
        """A value of MessagePack, described."""
        if isinstance(item, msgpack.ExtType):
            if item.code >= 16:
                return self.in_place(item.code - 16, item.data)
            require(item.code == 1, "references and rows only")
            index = int.from_bytes(item.data, "little")
            require(index < len(self.rows), "references to earlier rows")
            self.uses[index] += 1
            require(self.rows[index][0] in SHARED + REPEATED or self.uses[index] == 1, "one reference to a single row")
            self.depth = max(self.depth, self.depths[index])
            return ["shared", index, self.rows[index]] if self.rows[index][0] in SHARED else self.rows[index]
        if isinstance(item, list):
            return ["list", *map(self.value, item)]
        if isinstance(item, dict):
            require(all(isinstance(key, str) for key in item), "maps of texts")
            return ["dict", *([["str", key], self.value(value)] for key, value in item.items())]
        if isinstance(item, float):
            return ["float", struct.pack("<d", item).hex()]
        if isinstance(item, bytes):
            return ["bytes", item.hex()]
        return [type(item).__name__, item]

    def in_place(self, kind: int, data: bytes) -> Any:
        require(kind in (0, 2, 3, 4, 5, 7, 8, 9) and (len(data) <= 255 or kind in (0, 7, 8)), "rows that may be here")
        part = msgpack.unpackb(data, strict_map_key=True, unicode_errors="strict")
        require(kind != 7 or isinstance(part[3], bytes), "arrays in place with their bytes")
        return self.row([kind, part] if kind in (0, 2, 3, 4) else [kind, *part])

    def items(self, item: Any) -> list[Any]:
        kind, *found = self.value(item)
        require(kind == "list", "an array of items")
        return found

    def columns(self, count: int, columns: list[Any]) -> Any:
        found = [self.items(column) for column in columns]
        require({len(column) for column in found} == {count}, "columns of the same length")
        return zip(*found, strict=True)

    def row(self, row: list[Any]) -> Any:  # noqa: PLR0911 - one line a kind
        kind, *parts = row
        if kind == TUPLES:
            return ["list", *(["tuple", *items] for items in self.columns(*parts))]
        name = KINDS[kind]
        if name == "int":
            return ["int", int.from_bytes(*parts, "little", signed=True)]
        if name == "blob":
            return ["blob", *self.blob(*parts)]
        if name in ("tuple", "set", "frozenset"):
            return [name, *(self.items(*parts) if name == "tuple" else sorted(self.items(*parts), key=repr))]
        if name == "dict":
            return ["dict", *map(list, zip(*map(self.items, parts), strict=True))]
        if name == "records":
            return ["list", *(self.instance(parts[0], list(state)) for state in self.columns(*parts[1:]))]
        if name == "numbers":
            found = struct.iter_unpack(NUMBERS[parts[0]], self.place(parts[1]))
            return ["list", *(self.value(one) for (one,) in found)]
        if name == "array":
            return [name, *self.array(*parts)]
        if name == "scalar":
            require(len(parts[1]) == self.element_type(parts[0]).itemsize, "a scalar of its size")
            return [name, parts[0], parts[1].hex()]
        described = self.value(parts[1])
        return self.instance(parts[0], described[1:] if self.types[parts[0]][2] is not None else described)

    def instance(self, number: int, state: Any) -> Any:
        name, version, fields = self.types[number]
        if fields is not None:
            state = list(map(list, zip(fields, state, strict=True)))
        return [name, version, state]

    def blob(self, text: int, place: Any, *more: Any) -> list[Any]:
        data = self.place(place)
        if text in (3, 4):
            return [TEXTS[text], str(data, "utf-8", "surrogatepass" if text == 4 else "strict")]
        return [TEXTS[text], shown(data), *more]

    def array(self, element: str, shape: list[int], order: int, place: Any) -> list[Any]:
        data = self.place(place)
        require(len(data) == math.prod(shape) * self.element_type(element).itemsize, "an array of its size")
        return [element, shape, "CF"[order], shown(data)]

    def place(self, place: Any) -> bytes:
        if isinstance(place, int):
            require(place not in self.used, "a row of its own for every leaf")
            self.used.add(place)
            return self.leaves[place]
        require(isinstance(place, bytes), "bytes in the frame")
        return place


def shown(data: bytes) -> str:
    return data.hex() if len(data) <= 64 else f"sha256 {hashlib.sha256(data).hexdigest()}"


def require(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"the object does not have {what}")
