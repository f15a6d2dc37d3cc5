"""Tags, registration, what is private: who may write what, and who may read it."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

import blake3
import numpy as np
import pandas as pd
import pytest
from pydantic import BaseModel

from fedpost import objects
from fedpost.compat.syft_rpc import (
    DatasetReference,
    PrivateData,
    deserialize,
    mark_private,
    register,
    register_deserializer,
    register_serializer,
    serialize,
)
from fedpost.errors import ConfigError, DecodeError, EncodeError, LimitError, RegistryError, UnsupportedError
from fedpost.frame import Limits
from fedpost.objects import new_registry


class Colour(enum.Enum):
    RED = 1


@dataclass
class Leaf:
    colour: Colour


@dataclass
class Tree:
    leaves: dict[str, list[Leaf]]
    parent: Tree | None = None


class Node(BaseModel):
    name: str
    children: list[Node] = []


# ── what is read ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_with_type_allows_the_classes_of_its_fields_too():
    tree = Tree({"a": [Leaf(Colour.RED)] * 3}, Tree({}))
    assert deserialize(serialize(tree), with_type=Tree) == tree
    assert deserialize(serialize((tree, None)), with_type=tuple[Tree, Tree | None]) == (tree, None)
    node = Node(name="a", children=[Node(name="b")])
    assert deserialize(serialize(node), with_type=Node) == node


def test_what_was_sent_or_read_once_is_not_allowed_from_then_on():
    data = serialize(Leaf(Colour.RED))
    deserialize(data, with_type=Leaf)
    with pytest.raises(UnsupportedError, match=r"unknown type 'Colour'|unknown type 'Leaf'"):
        deserialize(data)
    with pytest.raises(UnsupportedError):
        deserialize(data, with_type=Node)


def test_a_tag_is_not_a_place_to_import_from():
    def named(tag):
        return type(tag, (BaseModel,), {"__annotations__": {"a": int}, "__module__": __name__})(a=1)

    for tag in ("os.system", "subprocess.Popen", "builtins.eval", "tests"):
        with pytest.raises(UnsupportedError, match="unknown type"):
            deserialize(serialize(named(tag)))


def test_the_budget_is_honoured():
    with pytest.raises(LimitError):
        deserialize(serialize(b"x" * 10_000), limits=Limits(max_frame=5000))


@pytest.mark.parametrize(
    ("value", "wanted", "fits"),
    [
        (1, int, True),
        ("1", int, False),
        (1, float, True),
        ([1, 2], list[int], True),
        ([1, "2"], list[int], False),
        ({"a": 1}, dict[str, int], True),
        ({"a": "1"}, dict[str, int], False),
        (None, int | None, True),
        ((1, "a"), tuple[int, str], True),
        ((1,), tuple[int, str], False),
        (np.zeros(2), np.ndarray, True),
        ([0.0], np.ndarray, False),
        ("anything", Any, True),
    ],
)
def test_a_value_is_what_was_expected_or_refused(value, wanted, fits):
    if fits:
        deserialize(serialize(value), with_type=wanted)
    else:
        with pytest.raises(DecodeError, match="was expected"):
            deserialize(serialize(value), with_type=wanted)


# ── registration ─────────────────────────────────────────────────────────────────────────────────────────────────────


class Halves:
    pass


def test_the_two_halves_share_a_tag_and_each_is_registered_once():
    register_deserializer(Halves, name="halves/1")(lambda data: Halves())
    with pytest.raises(EncodeError, match=r"can not serialize .*Halves.*register_serializer"):
        serialize(Halves())
    with pytest.raises(RegistryError, match="called 'halves/1' already"):
        register_serializer(Halves, name="other")(lambda value: b"")
    register_serializer(Halves)(lambda value: b"")
    assert type(deserialize(serialize(Halves()))) is Halves
    for again in (register_serializer, register_deserializer):
        with pytest.raises(RegistryError, match="registered already"):
            again(Halves)(bytes)


class NotBytes:
    pass


def test_a_serializer_gives_bytes_and_a_deserializer_gives_the_class():
    register_serializer(NotBytes)(lambda value: ["not bytes"])
    with pytest.raises(EncodeError, match=r"\$\[1\].*its serializer gave list, not bytes|\$\[1\].*list, not bytes"):
        serialize([0, NotBytes()])

    class Strict:
        pass

    register_serializer(Strict)(lambda value: b"1")
    register_deserializer(Strict)(lambda data: data)
    with pytest.raises(DecodeError, match=r"its deserializer gave .*bytes"):
        deserialize(serialize(Strict()))


def test_a_state_that_is_no_bytes_does_not_reach_the_deserializer():
    seen = []

    class Picky:
        pass

    register_deserializer(Picky, name="Picky")(seen.append)
    forged = type("Picky", (BaseModel,), {"__annotations__": {"a": int}, "__module__": __name__})
    with pytest.raises(DecodeError, match="other parts"):
        deserialize(serialize(forged(a=1)))
    assert seen == []


def test_what_a_deserializer_raises_is_a_decode_error():
    class Fails:
        pass

    register_serializer(Fails)(lambda value: b"")
    register_deserializer(Fails)(lambda data: data[0])
    with pytest.raises(DecodeError, match="IndexError"):
        deserialize(serialize(Fails()))


def test_register_lets_a_class_be_read_everywhere():
    @register
    @dataclass
    class Registered:
        a: int = 0

    assert deserialize(serialize([Registered(3)])) == [Registered(3)]
    with pytest.raises(RegistryError):
        register(Registered)
    with pytest.raises(ConfigError, match="does not say what it consists of"):
        register(Halves)


def test_register_registers_both_halves_or_none():
    @dataclass
    class Both:
        a: int = 0

    @register_deserializer(type("Both", (), {}))
    def read(data):
        raise ValueError

    with pytest.raises(RegistryError):
        register(Both)
    register(Both, name="both/2")
    assert deserialize(serialize(Both(1))) == Both(1)


def test_two_classes_of_one_name_are_told_apart_by_registering_one():
    def make():
        @dataclass
        class Twin:
            a: int = 0

        return Twin

    one, two = make(), make()
    with pytest.raises(RegistryError, match="one of two classes called 'Twin'"):
        serialize([one(), two()])
    assert deserialize(serialize(one(5)), with_type=two) == two(5)  # a class that a notebook has defined anew
    with pytest.raises(RegistryError, match="with_type names two classes"):
        deserialize(serialize(1), with_type=one | two)


def test_classes_that_hold_more_than_their_fields_are_refused():
    @dataclass
    class Both(dict):
        a: int = 0

    with pytest.raises(EncodeError, match="is a dict as well"):
        serialize(Both())


# ── private data ─────────────────────────────────────────────────────────────────────────────────────────────────────


class Patients(PrivateData):
    pass


@mark_private
@dataclass
class Table:
    rows: list[int] = field(default_factory=list)


class Derived(Table):
    pass


@pytest.mark.parametrize("value", [Patients(), Table(), Derived()], ids=lambda value: type(value).__name__)
def test_private_data_are_refused_wherever_they_are(value):
    for where, whole in (
        (r"\$", value),
        (r"\$\.a\[1\]", {"a": [0, value]}),
        (r"\$\[70\]", [0] * 70 + [value]),
        (r"\$\[0\]", [value] * 100),
    ):
        with pytest.raises(EncodeError, match=rf"^{where}: can not serialize .*private data do not leave the site"):
            serialize(whole)


def test_private_data_cannot_be_registered_and_marking_comes_before_a_registration():
    with pytest.raises(RegistryError, match="private"):
        register_serializer(Patients)
    with pytest.raises(RegistryError, match="private"):
        register(Table)

    @register
    @dataclass
    class Was:
        a: int = 0

    serialize(Was())
    mark_private(Was)
    with pytest.raises(EncodeError, match="private"):
        serialize(Was())


def test_classes_of_libraries_can_be_marked_but_not_what_models_consist_of():
    class Frame(pd.DataFrame):
        pass

    class Samples(np.ndarray):
        pass

    mark_private(Frame)
    mark_private(Samples)
    for value in (Frame({"a": [1]}), np.zeros(3).view(Samples)):
        with pytest.raises(EncodeError, match="private"):
            serialize([value])
    serialize(pd.DataFrame({"a": [1]}))
    for kind in (np.ndarray, np.memmap, list, dict, np.float32, object):
        with pytest.raises(ConfigError, match="cannot be marked as private"):
            mark_private(kind)


def test_what_is_copied_out_is_not_recognised():
    """Said in the documentation, and here so that nobody takes more for granted."""
    assert deserialize(serialize(Table([1, 2]).rows)) == [1, 2]


def test_a_reference_says_which_data_set_and_nothing_of_it(tmp_path):
    path = tmp_path / "secret-name.csv"
    path.write_bytes(b"a,b\n" * 3_000_000)
    reference = DatasetReference.of_file("cohort 7", path)
    assert (reference.name, reference.size) == ("cohort 7", 12_000_000)
    assert reference.digest == blake3.blake3(path.read_bytes()).hexdigest()
    data = serialize(reference)
    assert b"secret-name" not in data
    assert len(data) < 500
    assert deserialize(data) == reference
    with pytest.raises(ConfigError, match="not a regular file"):
        DatasetReference.of_file("x", "/dev/null")


@pytest.mark.parametrize(
    "values",
    [
        {"name": "../x"},
        {"name": ""},
        {"name": "a/b"},
        {"name": 1},
        {"size": -1},
        {"size": 1.5},
        {"size": True},
        {"size": 1 << 63},
        {"digest": "AB" * 32},
        {"digest": "ab"},
        {"digest": None},
    ],
    ids=repr,
)
def test_a_reference_that_is_none(values):
    whole = {"name": "a", "size": 1, "digest": ""} | values
    with pytest.raises(ValueError, match="is not"):
        DatasetReference(**whole)

    @dataclass
    class DatasetReferenceForged:
        name: Any
        size: Any
        digest: Any

    registry = new_registry()
    objects.register(DatasetReferenceForged, name="DatasetReference", registry=registry)
    data = objects.dumps(DatasetReferenceForged(**whole), registry=registry)
    with pytest.raises(DecodeError):  # also when it was sent
        deserialize(data)
