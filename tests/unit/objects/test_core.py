"""What writing costs and what reading may come to: hooks run once, sharing is kept, budgets hold."""

from __future__ import annotations

import array
import enum
import gc
import io
import weakref
from dataclasses import dataclass, field, make_dataclass
from typing import Any

import msgspec
import numpy as np
import ormsgpack
import pytest

from fedpost.blobs import MemoryBlobStore
from fedpost.errors import DecodeError, EncodeError, LimitError, RegistryError
from fedpost.frame import Frame, Limits
from fedpost.objects import (
    BlobLeaves,
    Decomposer,
    Serializer,
    TypeRegistry,
    dump,
    dumps,
    loads,
    new_registry,
    register,
    to_frame,
)
from fedpost.objects.wire import SECTION, reference


@dataclass
class Task:
    number: int
    content: Any = None
    names: list[str] = field(default_factory=list)


class Phase(enum.Enum):
    TRAIN = "t"
    TEST = "e"


@pytest.fixture
def registry():
    out = new_registry()
    register(Task, name="core.Task", registry=out)
    register(Phase, name="core.Phase", registry=out)
    return out


def frame_of(types, table, root, *segments):
    """A frame with a tree that nobody checked."""
    tree = ormsgpack.packb([types, table, root])
    if len(tree) < 65536:
        return bytes(Frame.build({SECTION: msgspec.Raw(tree)}, [*map(memoryview, segments)]))
    return bytes(Frame.build({SECTION: None}, [memoryview(tree), *map(memoryview, segments)]))


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Counted:
    """What a decomposer counts."""


class CountedDecomposer(Decomposer):
    def __init__(self) -> None:
        self.calls = 0

    def supported_type(self) -> type[Any]:
        return Counted

    def decompose(self, target: Any, manager: Any = None) -> Any:
        self.calls += 1
        manager.append(target)
        return self.calls

    def recompose(self, data: Any, manager: Any = None) -> Any:
        return Counted()


RARE = {
    "an integer": 2**70,
    "a negative integer": -(2**63) - 1,
    "a text with surrogates": "\ud800",
    "a key with surrogates": {"\udfff": 1, "b": (2,)},
    "an integer in a tuple": (1, (2**64,)),
    "many integers": list(range(2**64 - 500, 2**64 + 600)),
    "deep": {"a": [{"b": [2**99, "é\ud800", {1: -(2**99)}]}]},
}


@pytest.mark.parametrize("rare", RARE.values(), ids=RARE)
def test_hooks_run_once_whatever_else_there_is(rare):
    decomposer, seen = CountedDecomposer(), []
    registry = new_registry()
    register(decomposer, registry=registry)
    value = [Counted(), rare, bytes(5000), (1, np.arange(3)), Counted()]
    external = BlobLeaves(MemoryBlobStore(), over=4096)
    data = dumps(value, registry=registry, manager=seen, external=external)
    assert decomposer.calls == len(seen) == 2
    back = loads(data, registry=registry, manager=seen, external=external)
    assert back[1] == rare
    assert type(back[1]) is type(rare)
    assert back[2] == value[2]
    assert back[3][1].tolist() == [0, 1, 2]


def test_what_is_written_is_not_changed():
    value = {"a": [1, 2**70, (3,)], "b": {"\ud800": [(1,)]}, "c": [(1, 2)] * 70}
    copy = {"a": list(value["a"]), "b": {"\ud800": list(value["b"]["\ud800"])}, "c": list(value["c"])}
    assert loads(dumps(value)) == copy == value


@pytest.mark.parametrize("make", [lambda: "x" * 100_000, lambda: "\ud800" * 5000, lambda: memoryview(bytes(100_000))])
def test_what_is_large_is_stored_once_and_comes_back_as_one(make):
    value = make()
    data = dumps([value, {"again": value}])
    assert len(data) < 120_000
    first, second = loads(data)
    assert first == value
    assert second["again"] is first


def test_equal_bytes_outside_of_the_frame_are_two_leaves():
    external = BlobLeaves(MemoryBlobStore(), over=10_000)
    frame = to_frame([np.zeros(5000), np.zeros(5000), bytes(40_000)], external=external)
    assert len(frame) == 2
    first, second, third = loads(bytes(frame), external=external)
    assert first.tolist() == second.tolist() == [0.0] * 5000
    assert third == bytes(40_000)
    copied = loads(bytes(frame), external=external, copy=True)
    copied[0][0] = 1
    assert copied[1][0] == 0


def doubling(wrap, levels=60):
    out = wrap(1, 2)
    for _ in range(levels):
        out = wrap(out, out)
    return out


@pytest.mark.parametrize(
    "wrap",
    [lambda a, b: [a, b], lambda a, b: (a, b), lambda a, b: {"a": a, "b": b}, lambda a, b: {1: a, 2: b}],
    ids=["list", "tuple", "dict", "mapping"],
)
def test_containers_without_end_are_refused(wrap, monkeypatch):
    monkeypatch.setattr("fedpost.objects.encode._MOST_VISITED", 10_000)
    with pytest.raises(EncodeError, match=r"^\$[\[.].*: more than 10000 containers"):
        dumps(doubling(wrap))


def test_instances_count_once_for_the_depth(registry):
    value = None
    for number in range(199):
        value = Task(number, value)
    back = loads(dumps(value, registry=registry), registry=registry)
    for number in reversed(range(199)):
        assert back.number == number
        back = back.content
    with pytest.raises(EncodeError, match=r"^\$\.content\.content.*nested more than 200"):
        dumps(Task(1, Task(2, value)), registry=registry)


def test_too_deep_says_where():
    value: Any = {"deep": 1}
    for _ in range(250):
        value = [value]
    with pytest.raises(EncodeError, match=r"^\$\.a\[0\]\[0\].*…") as caught:
        dumps({"a": value})
    assert len(str(caught.value.where)) < 400


class Slow(io.RawIOBase):
    """A file that takes little at a time."""

    def __init__(self, most: int | None) -> None:
        self.most, self.data = most, bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int | None:
        if self.most is None:
            return None
        taken = bytes(data[: self.most])
        self.data += taken
        return len(taken)


class Uncounted:
    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: Any) -> None:
        self.data += data


def test_a_file_may_take_a_part_at_a_time():
    value = [np.arange(5000), "a"]
    file, other = Slow(777), Uncounted()
    assert dump(value, file) == dump(value, other) == len(file.data)
    assert bytes(file.data) == bytes(other.data) == dumps(value)
    for most in (0, None):
        with pytest.raises(BlockingIOError):
            dump(value, Slow(most))


# ── columns and numbers ──────────────────────────────────────────────────────────────────────────────────────────────

NUMBERS = {
    "floats": [number / 3 for number in range(2000)],
    "a million floats": [0.1] * 1_000_000,
    "special floats": [float("inf"), -0.0, 5e-324] * 500,
    **{f"{bits} bits": [-(1 << bits - 1), (1 << bits - 1) - 1, *range(-100, 100)] * 10 for bits in (8, 16, 32, 64)},
    "beyond 63 bits": [2**63, 0, 2**64 - 1] * 500,
    "beyond 64 bits": [2**64, 0, -1] * 500,
    "booleans": [True, False] * 1000,
    "nothing": [None] * 2000,
    "integers and floats": [1, 1.0] * 1000,
}


@pytest.mark.parametrize("value", NUMBERS.values(), ids=NUMBERS)
def test_many_numbers_come_back_by_default(value):
    back = loads(dumps(value))
    assert back == value
    assert list(map(type, back)) == list(map(type, value))
    assert str(back[:10]) == str(value[:10])


def test_many_numbers_are_as_short_as_they_can_be():
    for width, most in ((1, 100), (2, 30_000), (4, 1 << 30), (8, 1 << 40)):
        assert len(dumps([most] * 10_000)) < width * 10_000 + 300
    assert len(dumps([0.5] * 1000)) == len(dumps([0.5] * 1023)) - 23 * 9  # few stay in the tree


def test_numbers_are_bounded():
    data = dumps([1] * 10_000)
    assert len(loads(data, limits=Limits(max_items=40_000))) == 10_000
    with pytest.raises(LimitError, match="numbers") as caught:
        loads(data, limits=Limits(max_items=39_000))
    assert "max_items" in str(caught.value.hint)


TUPLES = {
    "pairs": [(number, str(number)) for number in range(100)],
    "nested": [((number, (None,)), [number]) for number in range(100)],
    "of other lengths": [(1,), (1, 2)] * 50,
    "of nothing": [()] * 100,
    "keys": {(number, "a"): (number,) for number in range(100)},
    "a set": {(number, "a") for number in range(100)},
    "a tuple": tuple((number, (number,)) for number in range(3000)),
}


@pytest.mark.parametrize("value", TUPLES.values(), ids=TUPLES)
def test_tuples_by_column(value):
    back = loads(dumps(value))
    assert back == value
    assert type(back) is type(value)


def test_paths_lead_through_columns(registry):
    wrong = print
    for value, where in (
        ([(number, [wrong] if number == 70 else [1]) for number in range(100)], "$[70][1][0]"),
        ({(number, wrong if number == 70 else 1): 1 for number in range(100)}, f"$[{(70, wrong)!r}][1]"),
        ({number: wrong if number == 70 else 1 for number in range(100)}, "$[70]"),
        ([Task(number, (wrong, 1) if number == 70 else (1, 1)) for number in range(100)], "$[70].content[0]"),
        ({"a": {"b": wrong}}, "$.a.b"),
    ):
        with pytest.raises(EncodeError) as caught:
            dumps(value, registry=registry)
        assert caught.value.where == where


def test_members_are_written_once(registry):
    value = [Phase.TRAIN, Phase.TEST] * 5000
    data = dumps(value, registry=registry)
    assert loads(data, registry=registry) == value
    few = dumps(value[:200], registry=registry)
    assert len(data) - len(few) <= 9800 * 3 + 8
    records = [Task(number, Phase.TEST, [str(number)]) for number in range(500)]
    assert loads(dumps(records, registry=registry), registry=registry) == records


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────

SMALL = Limits(free_raw=1 << 20)


def copies(count, *more):
    """Typed arrays of one segment."""
    table = [[1, 0, 0], *[[9, 0, ["B", True, reference(0)]]] * count]
    return frame_of(
        [["array", 1, None]], table, [reference(index + 1) for index in range(count)], bytes(100_000), *more
    )


def test_a_leaf_is_copied_a_few_times():
    assert len(loads(copies(8), limits=SMALL)) == 8
    with pytest.raises(LimitError, match="too many instances") as caught:
        loads(copies(100), limits=SMALL)
    assert "free_raw" in str(caught.value.hint)
    assert len(loads(copies(100))) == 100


def test_nor_is_one_that_goes_through_a_tuple():
    table: list[Any] = [[1, 0, 0]]
    for _ in range(100):
        table += [[2, [reference(0)]], [9, 0, [[reference(len(table))], None]]]
    data = frame_of([["deque", 1, None]], table, [reference(index) for index in range(2, 202, 2)], bytes(100_000))
    with pytest.raises(LimitError, match="too many instances"):
        loads(data, limits=SMALL)


def test_nor_one_in_the_tree():
    table = [[1, 0, bytes(50_000)], *[[9, 0, ["B", True, reference(0)]]] * 100]
    data = frame_of([["array", 1, None]], table, [reference(index + 1) for index in range(100)])
    with pytest.raises(LimitError, match="too many instances"):
        loads(data, limits=SMALL)


def test_what_classes_keep_as_it_is_may_be_shared(registry):
    weights = np.zeros(100_000)
    back = loads(dumps([Task(number, weights) for number in range(1000)], registry=registry), registry=registry)
    assert len({id(task.content) for task in back}) == 1
    typed = [array.array("d", weights) for _ in range(20)]
    assert loads(dumps(typed), limits=SMALL) == typed


def test_a_leaf_has_one_row():
    for rows in ([[1, 0, 0], [1, 3, 0]], [[7, "int8", [4], 0, 0], [10, "int8", 0]]):
        with pytest.raises(DecodeError, match="two rows"):
            loads(frame_of([], rows, [reference(0), reference(1)], b"leaf"))
    external = BlobLeaves(MemoryBlobStore(), over=100)
    found = external.put(memoryview(bytes(200)))
    twice = frame_of([], [[1, 0, [found, 200]]] * 2, [reference(0), reference(1)])
    with pytest.raises(DecodeError, match="two rows"):
        loads(twice, external=external)


@pytest.mark.parametrize(
    ("types", "match"),
    [
        ([["core.Task", 1, ["number", "content", "names"]]] * 2, "twice"),
        ([["core.Task", 1, ["number", "content", "names"]], ["Decimal", 1, None]], "nothing uses"),
        ([["core.Task", 1 + index, None] for index in range(10_000)], "types, "),
    ],
)
def test_types_are_each_there_once_and_used(types, match, registry):
    with pytest.raises(DecodeError, match=match):
        loads(frame_of(types, [[9, 0, [1, 2, []]]], reference(0)), registry=registry)


def test_a_class_goes_with_its_registry():
    registry = new_registry()
    cls = make_dataclass("Gone", ["x"])
    register(cls, name="core.Gone", registry=registry)
    assert loads(dumps([cls(1)] * 3, registry=registry), registry=registry) == [cls(1)] * 3
    gone = weakref.ref(cls)
    del cls, registry
    gc.collect()
    assert gone() is None


def test_items_that_take_much_memory_are_counted():
    limits = Limits(max_items=1 << 22)
    honest = [{"name": f"n{number}", "value": number} for number in range(60_000)]
    assert loads(dumps(honest), limits=limits) == honest
    with pytest.raises(LimitError, match="items that may take") as caught:
        loads(dumps([[] for _ in range(1_500_000)]), limits=limits)
    assert "max_items" in str(caught.value.hint)
    with pytest.raises(LimitError, match="rows"):
        loads(dumps([{()} for _ in range(200_000)]), limits=limits)
    with pytest.raises(LimitError, match="objects"):
        loads(dumps([(None, None)] * 280_000), limits=limits)


def test_a_frozen_registry_does_not_change():
    def described(cls: type) -> Serializer:
        return Serializer(cls=cls, name=cls.__name__, take=vars, make=dict)

    asked = TypeRegistry(fallback=described)
    asked.freeze()
    before = asked.names
    with pytest.raises(EncodeError, match="can not serialize"):
        dumps(Counted(), registry=asked)
    with pytest.raises(RegistryError, match="frozen"):
        asked.add_lazy("package", ("package.Name",), lambda: [described(Counted)])
    assert asked.names == before
    assert Counted not in asked


# ── rows in place ────────────────────────────────────────────────────────────────────────────────────────────────────


def parts_of(value, registry):
    """How many types and rows a value's tree has, and the codes of the extensions in its root."""
    codes: list[int] = []
    packed = to_frame(value, registry=registry).section(SECTION, msgspec.Raw)
    types, table, _ = msgspec.msgpack.decode(packed, ext_hook=lambda code, _: codes.append(code))
    return len(types), len(table), codes


def test_small_rows_stand_in_place(registry):
    message = {"task": Task(1, (2, {3})), "phase": [Phase.TRAIN, Phase.TRAIN], "rates": np.zeros(30), "big": 1 << 90}
    assert parts_of(message, registry) == (2, 0, [25, 25, 25, 23, 16])
    assert parts_of([("x" * 300,)], registry) == (0, 1, [1])
    back = loads(dumps(message, registry=registry), registry=registry)
    assert back["task"] == message["task"]
    assert back["phase"] == message["phase"]


def test_arrays_stand_in_place_unless_they_come_again(registry):
    rates = np.arange(30)
    assert parts_of([rates], registry) == (0, 0, [23])
    assert parts_of([rates, rates], registry) == (0, 1, [1, 1])
    assert parts_of([(rates,)], registry) == (0, 1, [18])
    for value in ([rates, {"again": rates}], [rates, (rates,)], [(rates,), rates], [Task(1, rates), [rates]]):
        back = loads(dumps(value, registry=registry), registry=registry)
        held = list(leaves_of(back))
        assert len(held) == 2
        assert held[0] is held[1]
        assert np.array_equal(held[0], rates)


def leaves_of(value):
    if isinstance(value, np.ndarray):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        yield from leaves_of(inner)
    if isinstance(value, Task):
        yield from leaves_of(value.content)


def test_a_dictionary_may_begin_with_text(registry):
    value = {"a": (1,), 2: {3}, ("b", 4): [Phase.TEST], None: 5}
    back = loads(dumps(value, registry=registry), registry=registry)
    assert (back, list(back)) == (value, list(value))
    with pytest.raises(EncodeError, match=r"\$\[2\]\.content: can not serialize"):
        dumps({"a": (1,), 2: Task(1, object())}, registry=registry)


def test_many_instances_are_left_as_they_are(registry):
    tasks = [Task(number, number / 2, [str(number)]) for number in range(5000)]
    before = [len(gc.get_referents(task)) for task in tasks]
    assert loads(dumps(tasks, registry=registry), registry=registry) == tasks
    written = [Task(number, "text", [str(number)]) for number in range(5000)]
    dumps(written, registry=registry)
    assert [len(gc.get_referents(task)) for task in written] == before


@pytest.mark.parametrize("ask", [False, True])
def test_one_attribute_too_many_among_many(registry, ask):
    tasks = [Task(number, "text", ["a"]) for number in range(5000)]
    if ask:
        assert all(map(vars, tasks))
    tasks[4321].more = 5
    with pytest.raises(EncodeError, match=r"\$\[4321\]: .* holds more than its fields: 'more'"):
        dumps(tasks, registry=registry)
    del tasks[4321].content  # the class has a value for it
    with pytest.raises(EncodeError, match=r"\$\[4321\]: .* holds more than its fields: 'more'"):
        dumps(tasks, registry=registry)
    del tasks[4321].more
    assert loads(dumps(tasks, registry=registry), registry=registry)[4321].content is None
