"""What comes back is equal, of the same type, to the last bit; and what was one object is one again."""

from __future__ import annotations

import collections
import copy
import io
import math
import sys

import numpy as np
import objects_samples as samples
import pytest
from objects_samples import REGISTRY, difference

from fedpost.errors import EncodeError, LimitError
from fedpost.frame import Limits
from fedpost.objects import dump, dumps, from_frame, load, loads, to_frame

VALUES = samples.all_values()


def again(value, **options):
    return loads(dumps(value, registry=REGISTRY), registry=REGISTRY, **options)


@pytest.mark.parametrize("index", range(len(VALUES)), ids=lambda index: f"{type(VALUES[index]).__name__}-{index}")
def test_comes_back_as_it_was(index):
    value = VALUES[index]
    assert difference(value, again(value)) is None
    assert difference(value, again(value, copy=True)) is None
    # The same inside of others, and as a key where it can be one.
    nested = {"a": [value, (value,)], "b": collections.deque([value])}
    assert difference(nested, again(nested)) is None


def test_all_of_them_at_once_in_a_large_tree():
    assert difference(VALUES, again(VALUES)) is None
    packed = to_frame(VALUES, registry=REGISTRY, compression="zstd(1)")
    assert difference(VALUES, from_frame(packed, registry=REGISTRY)) is None


def test_samples_with_a_hash_are_keys():
    def hashable(value):
        try:
            hash(value)
        except (TypeError, ValueError):
            return False
        return value == value and not isinstance(value, memoryview)  # noqa: PLR0124 - NaN is not

    found = {repr(value): value for value in VALUES if hashable(value)}
    keys = list(dict.fromkeys(found.values()))
    assert len(keys) > 150
    value = dict.fromkeys(keys, 1)
    back = again(value)
    assert difference(list(value), list(back)) is None
    assert all(key in back for key in keys if not isinstance(key, BaseException))
    assert difference(frozenset(keys[:60]), again(frozenset(keys[:60]))) is None


def test_the_comparison_forgives_nothing():
    pairs = [
        (1, True),
        (1, 1.0),
        (0.0, -0.0),
        (math.nan, samples.NEGATIVE_NAN),
        (b"", bytearray()),
        ([1], (1,)),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (np.float32(1), np.float64(1)),
        (np.zeros(2), np.zeros((2, 1))),
        (np.zeros(1, "<f4"), np.zeros(1, ">f4")),
        (samples.TWICE, samples.TWICE.replace(fold=1)),
        (collections.deque([1]), collections.deque([1], 5)),
        (samples.Point(1), samples.Point(2)),
        (samples.Extra(x=1), samples.Extra()),
        ({1}, {True}),
        (ValueError("a"), ValueError("b")),
        (memoryview(b"abcd"), memoryview(b"abcd").cast("I")),
    ]
    for one, other in pairs:
        assert difference(one, other) is not None
        assert difference([one], [copy.copy(one) if not isinstance(one, memoryview) else one]) is None


def test_a_structure_does_not_tell_what_memory_held():
    kind = np.dtype({"names": ["a"], "formats": ["u1"], "offsets": [0], "itemsize": 64})
    for count in (4, 400):
        array = np.zeros((count, 2), kind)[:, 0]
        np.full(count * 64, 0x5A, np.uint8).copy()
        assert bytes([0x5A]) * 16 not in dumps(array)


@pytest.mark.parametrize("size", [100, 70_000])
def test_leaves_are_found_whether_the_tree_is_small_or_large(size):
    """A large tree is a segment itself, before those of the leaves."""
    value = [np.arange(5000), ["x" * 50 + str(number) for number in range(size // 50)], np.ones(5000), b"y" * 5000]
    frame = to_frame(value)
    assert len(frame) == (3 if size == 100 else 4)
    assert difference(value, loads(bytes(frame))) is None
    assert difference(value, from_frame(frame)) is None


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_files(tmp_path):
    value = {"w": np.ones(5000), "n": (1, 2)}
    size = dump(value, tmp_path / "a")
    assert size == (tmp_path / "a").stat().st_size == len(dumps(value))
    assert difference(value, load(tmp_path / "a")) is None
    with (tmp_path / "b").open("wb") as file:
        assert dump(value, file) == size
    for mode in (-1, 0):
        with (tmp_path / "b").open("rb", buffering=mode) as file:
            assert difference(value, load(file)) is None
    assert difference(value, load(io.BytesIO(dumps(value)))) is None
    assert difference(value, load(str(tmp_path / "a"), copy=True)) is None


def test_a_file_that_failed_is_not_written(tmp_path):
    dump(1, tmp_path / "a")
    with pytest.raises(EncodeError):
        dump(object(), tmp_path / "a")
    assert load(tmp_path / "a") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_file_is_asked_for_no_more_than_a_piece_at_a_time():
    """What an open file is asked for it may set aside at once."""

    class Careful(io.BytesIO):
        asked = 0

        def read(self, size=-1):
            assert 0 <= size <= 1 << 24
            type(self).asked += 1
            return super().read(size)

    value = np.zeros(5 << 20)
    assert difference(value, load(Careful(dumps(value, checksum="none")))) is None
    assert Careful.asked == 4
    with pytest.raises(LimitError):
        load(Careful(dumps(value, checksum="none")), limits=Limits(max_frame=1 << 20))


# ── one object stays one ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "make", [lambda: np.ones(10), lambda: np.ones(5000), lambda: b"x" * 5000, lambda: bytearray(3)]
)
def test_a_leaf_that_is_referred_to_twice_is_stored_once(make):
    leaf = make()
    value = {"a": leaf, "b": [leaf, (leaf,)], "c": samples.Pair(1, leaf)}
    back = again(value)
    assert back["a"] is back["b"][0] is back["b"][1][0] is back["c"].right
    assert len(dumps(value, registry=REGISTRY)) < len(dumps(leaf)) + 300


def test_equal_leaves_that_are_two_stay_two():
    back = loads(dumps([np.ones(10), np.ones(10), bytearray(3), bytearray(3)], checksum="none"), copy=True)
    back[0][:] = 2
    assert back[1][0] == 1
    assert back[2] is not back[3]


def test_leaves_of_records_are_shared_too():
    leaf = np.ones(5000)
    back = again([samples.Pair(number, leaf) for number in range(100)])
    assert all(pair.right is back[0].right for pair in back)


def test_small_containers_come_back_by_value():
    inner = [1]
    back = loads(dumps([inner, inner, (inner, inner)]))
    assert back == [[1], [1], ([1], [1])]
    assert back[0] is not back[1]


def test_leaves_that_die_while_writing_do_not_lend_their_place():
    """Arrays that a decomposer makes on the fly are gone at once; the next one may get the same address."""

    @samples.known(registry=(registry := samples.new_registry()))
    class Fleeting(samples.NamedTuple):
        number: int

    registry.change(Fleeting, take=lambda value: np.full(3, value.number), make=lambda state: state, fields=None)
    back = loads(dumps([Fleeting(number) for number in range(50)], registry=registry), registry=registry)
    assert [array.tolist() for array in back] == [[number] * 3 for number in range(50)]


def test_arrays_are_views_unless_copied():
    data = dumps({"small": np.ones(3), "large": np.ones(5000)})
    views, copies = loads(data), loads(data, copy=True)
    whole = np.frombuffer(data, np.uint8)
    assert np.shares_memory(views["large"], whole)
    assert not any(view.flags.writeable for view in views.values())
    assert all(array.flags.writeable and not np.shares_memory(array, whole) for array in copies.values())


# ── cycles and depth ─────────────────────────────────────────────────────────────────────────────────────────────────


class Node:
    """Something with attributes; what it is written as is told by the registry below."""

    def __init__(self, child=None):
        self.child = child


NODES = samples.new_registry()
NODES.add(
    samples.dataclasses.replace(
        REGISTRY.for_class(samples.Point),
        cls=Node,
        name="Node",
        take=lambda node: {"child": node.child},
        make=lambda state: Node(state["child"]),
        fields=None,
        checks={},
        defaults={},
        make_all=None,
    )
)
for each in (samples.Box, samples.Pair, samples.OldAttrs, samples.Struct, samples.Extra):
    samples.known(each, NODES)


def cycles():
    one = [1, 2]
    one.append({"a": (one,)})
    yield "list", one, "$[2].a[0]"
    two = {"k": [None]}
    two["k"][0] = two
    yield "dict", {"x": two}, "$.x.k[0]"
    node = Node()
    node.child = [Node(node)]
    yield "attributes", node, "$.child[0].child"
    box = samples.Box(1)
    box.content = (1, box)
    yield "dataclass", box, "$.content[1]"
    old = samples.OldAttrs(1)
    old.y.append(old)
    yield "attrs", old, "$.y[0]"
    struct = samples.Struct(1)
    struct.y.append(struct)
    yield "struct", struct, "$.y[0]"
    deque = collections.deque()
    deque.append(deque)
    yield "deque", deque, "$"
    keyed = {(1, 2): []}
    keyed[1, 2].append(keyed)
    yield "other keys", keyed, "$[(1, 2)][0]"
    default = collections.defaultdict(list)
    default["a"].append(default)
    yield "defaultdict", default, "$"
    many = [samples.Box(number) for number in range(100)]
    many[70].content = many
    yield "records", many, "$[70].content"
    extra = samples.Extra()
    extra.z = [extra]
    yield "model", extra, "$.__extra__.z[0]"
    error = ValueError("x")
    error.args = ([error],)
    yield "exception", error, "$"


@pytest.mark.parametrize("limit", [1000, 100_000])
@pytest.mark.parametrize(
    ("name", "value", "where"), list(cycles()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_cycle_is_told_with_its_place(name, value, where, limit):
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, before))
    try:
        with pytest.raises(EncodeError, match=r"refers back to \$.*, a cycle") as caught:
            dumps(value, registry=NODES)
    finally:
        sys.setrecursionlimit(before)
    assert caught.value.where.startswith(where), name
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize(
    "wrap", [lambda v: [v], lambda v: {"a": v}, lambda v: (v,), lambda v: {1: v}, samples.Box, Node]
)
def test_depth(wrap):
    value = 1
    for _ in range(95):
        value = wrap(value)
    assert loads(dumps(value, registry=NODES), registry=NODES) is not None
    for _ in range(110):
        value = wrap(value)
    with pytest.raises(EncodeError, match="nested more than 200 levels"):
        dumps(value, registry=NODES)


def test_decomposing_for_ever_is_told():
    registry = samples.new_registry()
    registry.add(samples.dataclasses.replace(NODES.for_class(Node), take=lambda _node: Node()))
    with pytest.raises(EncodeError, match="nested more than 200 levels"):
        dumps(Node(), registry=registry)
    registry.change(Node, take=lambda node: node)
    with pytest.raises(EncodeError, match="cycle"):
        dumps(Node(), registry=registry)


# ── what cannot be written ───────────────────────────────────────────────────────────────────────────────────────────


class Unknown:
    pass


class Hostile:
    @property
    def x(self):
        raise KeyError("no")


@pytest.mark.parametrize(
    ("value", "where", "what"),
    [
        (Unknown(), "$", "can not serialize '.*Unknown' object"),
        ({"a": [1, (Unknown(),)]}, "$.a[1][0]", "can not serialize"),
        ({1: {2}, "k e y": {"b": Unknown()}}, "$['k e y'].b", "can not serialize"),
        ([samples.Box(1)] * 70 + [samples.Box([1, Unknown()])], "$[70].content[1]", "can not serialize"),
        (samples.Box(Unknown()), "$.content", "can not serialize"),
        (np.array([None]), "$", "cannot be put in a frame"),
        ([memoryview(b"abcd")[::2]], "$[0]", "not contiguous"),
        (len, "$", "can not serialize 'builtin_function_or_method'"),
        (samples.Decimal("9" * 5000), "$", "5000 digits"),
        (samples.Fraction(1, 1 << 40_000), "$", "32768 bits"),
        (collections.defaultdict(lambda: 1), "$", "defaultdict made by"),
        (samples.Point.__new__(samples.Point), "$", "AttributeError"),
        ([samples.Point.__new__(samples.Point)] * 70, "$", "AttributeError"),
    ],
)
def test_what_cannot_be_written_is_told_with_its_place(value, where, what):
    with pytest.raises(EncodeError, match=what) as caught:
        dumps(value, registry=REGISTRY)
    assert caught.value.where == where
    assert isinstance(caught.value, TypeError)


def test_what_a_property_raises_is_told():
    registry = samples.new_registry()
    take = samples.dataclasses.replace(
        REGISTRY.for_class(samples.Empty), cls=Hostile, fields=("x",), take=lambda v: (v.x,)
    )
    registry.add(take)
    for value in (Hostile(), [Hostile()] * 70):
        with pytest.raises(EncodeError, match="KeyError"):
            dumps(value, registry=registry)


def test_integers_are_read_up_to_a_limit():
    value = 1 << 80_000
    assert loads(dumps(value)) == value
    with pytest.raises(LimitError, match="an integer of 10001 bytes"):
        loads(dumps(value), limits=Limits(max_integer=10_000))
    assert loads(dumps(value), limits=Limits(max_integer=20_000)) == value
