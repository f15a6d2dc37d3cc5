"""Objects as trees to look at: nothing is built, sizes are right, and hostile trees cost little."""

from __future__ import annotations

import collections
from dataclasses import dataclass

import msgspec
import numpy as np
import ormsgpack
import pytest

from fedpost.errors import DecodeError
from fedpost.frame import Frame
from fedpost.objects import from_frame, new_registry, register, to_frame
from fedpost.objects.outline import DEEPEST, outline, type_names
from fedpost.objects.wire import REFERENCE, Kind


@dataclass(frozen=True)
class Task:
    """Something that only the writer knows."""

    name: str
    weights: object


def frame_of(value):
    registry = new_registry()
    register(Task, name="example.Task", version=3, upgrades={1: dict, 2: dict}, registry=registry)
    return Frame.decode(bytes(to_frame(value, registry=registry)))


def by_key(node):
    return {child.key: child for child in node.children}


def reference(index):
    return ormsgpack.Ext(REFERENCE, index.to_bytes(4, "little"))


def tree(root, *rows, types=()):
    """A frame with a tree of rows that nobody checked."""
    packed = ormsgpack.packb([list(types), list(rows), root])
    return Frame.decode(bytes(Frame.build({"object": msgspec.Raw(packed)}, [])))


def test_what_is_shown_needs_no_type():
    weights = np.zeros((3, 4000), np.float32)
    frame = frame_of(
        {"tasks": [Task("a", weights), Task("b", weights)], "tags": {"x"}, "n": 10**40, "half": np.int8(3)}
    )
    found = by_key(outline(frame))
    assert [node.type for node in found[".tasks"].children] == ["example.Task v3"] * 2
    first, second = (by_key(node)[".weights"] for node in found[".tasks"].children)
    assert (first.type, first.value) == ("array float32", "3×4000")
    assert first.shared is not None
    assert first.shared == second.shared
    assert found[".tags"].type == "set"
    assert (found[".n"].type, found[".n"].value) == ("int", "an integer of 17 bytes")
    assert (found[".half"].type, found[".half"].value) == ("numpy.int8", "np.int8(3)")
    assert type_names(frame) == ["example.Task v3"]


def test_what_is_shared_counts_once():
    weights = np.zeros(5000)
    once, twice = outline(frame_of([weights])), outline(frame_of([weights, weights]))
    assert weights.nbytes < once.size < weights.nbytes + 100
    assert twice.size - once.size < 10
    assert [child.size for child in twice.children] == [once.children[0].size] * 2


def test_many_records_are_columns():
    found = outline(frame_of([Task(str(number), number) for number in range(500)]))
    assert found.type == "list of 500 example.Task v3"
    assert [child.key for child in found.children] == ["[:].name", "[:].weights"]
    assert found.children[0].more == 400


def test_sizes_add_up_also_of_what_is_left_out():
    whole = [{"k": "x" * 50, "items": [1, 2, (3,)]} for _ in range(1000)]
    frame = frame_of(whole)
    node = outline(frame)
    assert (len(node.children), node.more) == (100, 900)
    assert 0.8 < node.size / frame.raw_size(0) < 1.2
    assert outline(frame, depth=0) == msgspec.structs.replace(node, children=[], more=1000)


def test_a_large_tree_stands_in_a_segment():
    frame = frame_of([str(number) for number in range(100_000)])
    assert len(frame) == 1
    assert outline(frame).more == 99_900


def test_many_numbers_are_counted_and_not_read():
    found = outline(frame_of({"losses": [0.5] * 5000, "pairs": [(number, "a") for number in range(2000)]}))
    losses, pairs = found.children
    assert (losses.type, losses.more, losses.children) == ("list of float64", 5000, [])
    assert losses.size > 5000 * 8
    assert pairs.type == "list of 2000 tuple"
    assert [(child.key, child.type) for child in pairs.children] == [("[:][0]", "list of int16"), ("[:][1]", "list")]


def test_depth_and_number_of_nodes_are_limited():
    deep: list[object] = []
    for _ in range(150):
        deep = [deep]
    node, levels = outline(frame_of(deep)), 0
    while node.children:
        node, levels = node.children[0], levels + 1
    assert (levels, node.more) == (DEEPEST, 1)
    wide = [[[0] * 100 for _ in range(100)] for _ in range(100)]
    found = outline(frame_of(wide))
    assert sum(1 for _ in nodes(found)) <= 10_000
    assert found.more + len(found.children) == 100


def nodes(node):
    queue = collections.deque([node])
    while queue:
        yield (item := queue.popleft())
        queue.extend(item.children)


def test_a_doubling_tree_is_told_once():
    rows = [[Kind.TUPLE, [1]], *([Kind.TUPLE, [reference(index)] * 2] for index in range(150))]
    found = outline(tree(reference(150), *rows))
    assert sum(1 for _ in nodes(found)) < 500
    assert found.size < 10_000


def test_long_names_and_values_are_cut():
    found = outline(frame_of({"n" * 3000: "\x1b" * 3000, 1: b"\0" * 3000}))
    assert all(len(node.key) < 80 and len(node.value or "") < 80 for node in nodes(found))
    assert "\x1b" not in "".join(str(node) for node in nodes(found))


ROW = [["example.Task", 1, ["name", "weights"]]]
LIES = {
    "itself": (reference(0), [Kind.TUPLE, [reference(0)]]),
    "a later row": (reference(0), [Kind.TUPLE, [reference(1)]], [Kind.TUPLE, []]),
    "no row": (reference(7), [Kind.TUPLE, []]),
    "another extension": (ormsgpack.Ext(9, b"\0"), [Kind.TUPLE, []]),
    "no kind": (reference(0), [99]),
    "a negative kind": (reference(0), [-1, []]),
    "a kind that is a text": (reference(0), ["tuple", []]),
    "no parts": (reference(0), [Kind.TUPLE]),
    "an empty row": (reference(0), []),
    "a row that is a number": (reference(0), 5),
    "items that are no list": (reference(0), [Kind.SET, {"a": 1}]),
    "a dictionary of fewer values": (reference(0), [Kind.DICT, [1, 2], [3]]),
    "an array of no shape": (reference(0), [Kind.ARRAY, "float32", [-1], 0, b""]),
    "an array of no type": (reference(0), [Kind.ARRAY, "object", [1], 0, b""]),
    "an array of no segment": (reference(0), [Kind.ARRAY, "float32", [1], 0, 3]),
    "an array elsewhere of no size": (reference(0), [Kind.ARRAY, "float32", [1], 0, [b"x", "9" * 5000]]),
    "an array elsewhere of less": (reference(0), [Kind.ARRAY, "float32", [1], 0, [b"x", -1]]),
    "a scalar of other bytes": (reference(0), [Kind.SCALAR, "float64", b"123"]),
    "a blob of no kind": (reference(0), [Kind.BLOB, -1, b""]),
    "an integer without bytes": (reference(0), [Kind.INTEGER, 5]),
    "an instance of no type": (reference(0), [Kind.INSTANCE, 1, ["a", 1]]),
    "an instance of the last type": (reference(0), [Kind.INSTANCE, -1, ["a", 1]]),
    "an instance of fewer fields": (reference(0), [Kind.INSTANCE, 0, ["a"]]),
    "an instance whose fields are a text": (reference(0), [Kind.INSTANCE, 0, "ab"]),
    "records of fewer columns": (reference(0), [Kind.RECORDS, 0, 1, [["a"]]]),
    "records of more than there are": (reference(0), [Kind.RECORDS, 0, 1 << 60, [["a"], [1]]]),
    "records of columns that differ": (reference(0), [Kind.RECORDS, 0, 1, [["a"], [1, 2]]]),
    "records of a column that is a number": (reference(0), [Kind.RECORDS, 0, 1, [["a"], 5]]),
    "records of no columns": (reference(0), [Kind.RECORDS, 0, 0, []]),
    "tuples of more than there are": (reference(0), [Kind.TUPLES, 3, [[1], [2]]]),
    "tuples of no columns": (reference(0), [Kind.TUPLES, 1 << 60, []]),
    "numbers of no type": (reference(0), [Kind.NUMBERS, "object", b"12345678"]),
    "numbers of half a one": (reference(0), [Kind.NUMBERS, "int16", b"123"]),
    "a leaf of two rows": (
        [reference(0), reference(1)],
        *[[Kind.ARRAY, "int8", [1], 0, [b"x", 1]]] * 2,
    ),
    "records of no number": (reference(0), [Kind.RECORDS, 0, "one", [["a"], [1]]]),
}


@pytest.mark.parametrize("lie", LIES)
def test_lying_rows_are_refused(lie):
    root, *rows = LIES[lie]
    with pytest.raises(DecodeError) as caught:
        outline(tree(root, *rows, types=ROW))
    assert caught.value.where


def test_a_frame_without_an_object():
    with pytest.raises(DecodeError):
        outline(Frame.build({}, []))


def test_an_outline_of_whatever_a_reader_takes():
    value = {"a": [1, (2.5, None), {3: b"x"}], "b": memoryview(b"y" * 5000), "c": frozenset({1}), "d": "\ud800"}
    frame = frame_of(value)
    assert from_frame(frame) == value
    assert {child.key for child in outline(frame).children} == {".a", ".b", ".c", ".d"}
