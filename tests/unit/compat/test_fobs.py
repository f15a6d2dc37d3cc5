"""What ``fedpost.compat.fobs`` does beyond the original, and where it is stricter."""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections import OrderedDict, defaultdict
from enum import Enum, Flag, auto
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import attrs
import msgspec
import numpy as np
import pydantic
import pytest

from fedpost.compat import fobs
from fedpost.errors import ConfigError, EncodeError
from fedpost.objects.attributes import has_attributes_only, take_attributes


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    monkeypatch.setenv("NVFLARE_DATUM_DIR", str(tmp_path / "datums"))
    fobs.reset()
    yield
    fobs.reset()


def again(value):
    return fobs.loads(fobs.dumps(value))


class Plain:
    def __init__(self, a=None):
        self.a = a


class Way(Flag):
    IN = auto()
    OUT = auto()


T = TypeVar("T")


class Box(Generic[T]):
    def __init__(self, a):
        self.a = a


class Base:
    __slots__ = ("_Base__hidden", "a")


class Both(Base):
    """Slots of a base, and attributes of its own."""

    __slots__ = ("__dict__", "__own")

    def __init__(self):
        self.a = 1
        self.__own = 2
        self.b = 3


@dataclasses.dataclass
class Wrong:
    number: int


@dataclasses.dataclass(frozen=True)
class Frozen:
    number: int = 1


class Pair(NamedTuple):
    x: int
    y: int = 2


class Struct(msgspec.Struct):
    x: int


class Model(pydantic.BaseModel):
    x: int


@attrs.define
class Attrs:
    x: int


class BrokenError(ValueError):
    pass


class Ordered(OrderedDict):
    pass


@pytest.mark.parametrize(
    "value",
    [Way.IN | Way.OUT, Wrong("no number"), Frozen(), Pair(1), Struct(1), Model(x=1), Attrs(1), Ordered(b=1, a=2)],
    ids=lambda value: type(value).__name__,
)
def test_classes_of_other_kinds(value):
    found = again([value])[0]
    assert type(found) is type(value)
    assert found == value


class Over(Base):
    """Its property has the name of a slot of its base."""

    @property
    def a(self):
        return "property"

    @a.setter
    def a(self, value):
        raise AssertionError(value)


def test_a_property_over_a_slot():
    value = Over()
    Base.a.__set__(value, 5)
    found = again(value)
    assert (found.a, Base.a.__get__(found)) == ("property", 5)


def test_slots_and_attributes_and_generics():
    both, box = Both(), Box[int](5)
    found = again([both, box, BrokenError("a", 1)])
    assert (found[0].a, found[0]._Both__own, found[0].b) == (1, 2, 3)
    assert (type(found[1]), found[1].a) == (Box, 5)
    assert (type(found[2]), found[2].args) == (BrokenError, ("a", 1))
    assert not hasattr(found[0], "_Base__hidden")


class MySet(set):
    pass


class MyDefault(defaultdict):
    pass


class MyArray(np.ndarray):
    pass


class Called:
    def __call__(self):
        return None


@pytest.mark.parametrize(
    "value",
    [MySet({1}), MyDefault(int), np.zeros(3).view(MyArray), Called(), functools.partial(int), threading.Lock(), open],
    ids=lambda value: type(value).__name__,
)
def test_nothing_is_lost_without_a_word(value):
    """FOBS writes some of these without their content."""
    with pytest.raises(
        EncodeError, match=r"^\$\.a: can not serialize '.*' object\. Register a decomposer for it: fobs"
    ):
        fobs.dumps({"a": value})


def test_classes_that_hold_more_are_not_listed():
    for cls in (MySet, MyDefault, MyArray, int, functools.partial):
        assert not has_attributes_only(cls) or cls is functools.partial
    for cls in (MySet, MyDefault, MyArray):
        with pytest.raises(ConfigError, match="holds more than its attributes"):
            fobs.register_data_classes(cls)
    fobs.register_data_classes(Called)  # the program may list what it likes
    assert type(again(Called())) is Called


def test_a_name_that_is_too_long():
    cls = type("A" * 300, (), {})
    with pytest.raises(EncodeError, match="can not serialize"):
        fobs.dumps(cls())
    with pytest.raises(ConfigError, match="is not a name for a type"):
        fobs.register_data_classes(cls)


def test_odd_attributes():
    value = Plain()
    vars(value)["__class__"] = "odd"
    with pytest.raises(TypeError, match="'__class__' is not an instance's own"):
        take_attributes(value)
    with pytest.raises(EncodeError, match="'__class__' is not an instance's own"):
        fobs.dumps(value)


def test_a_map_of_a_file_is_an_array(tmp_path):
    path = tmp_path / "array"
    np.arange(5000.0).tofile(path)
    found = again({"w": np.memmap(path, np.float64, "r")})["w"]
    assert type(found) is np.ndarray
    assert np.array_equal(found, np.arange(5000.0))


# ── registering ──────────────────────────────────────────────────────────────────────────────────────────────────────


def into(cls, mark):
    class Into(fobs.Decomposer):
        def supported_type(self):
            return cls

        def decompose(self, target, manager=None):
            return str(target)

        def recompose(self, data, manager=None):
            return (mark, data)

    return Into


def test_a_decomposer_takes_the_place_of_the_automatic(caplog):
    fobs.dumps(Plain(1))
    fobs.register(into(Plain, "mine"))
    assert again(Plain(1))[0] == "mine"
    assert caplog.text == ""
    fobs.register(into(Plain, "late"))
    assert again(Plain(1))[0] == "mine"
    assert "Plain has a decomposer already: into.<locals>.Into is ignored" in caplog.text


def test_a_decomposer_takes_the_place_of_a_standard_one():
    assert again(Path("/a")) == Path("/a")
    fobs.register(into(type(Path()), "mine"))
    assert again(Path("/a")) == ("mine", "/a")
    fobs.reset()
    assert again(Path("/a")) == Path("/a")


@pytest.mark.parametrize("cls", [dict, tuple, bytes, np.ndarray, type(None)])
def test_what_is_native_stays_native(cls, caplog):
    fobs.register(into(cls, "mine"))
    fobs.register_data_classes()
    assert "is ignored" in caplog.text
    assert again((1, {"a": b"b"})) == (1, {"a": b"b"})


def test_a_class_that_is_defined_again():
    """As when a notebook's cell runs twice: the new class is meant."""

    def cell():
        class Cell:
            pass

        return Cell

    first, second = cell(), cell()
    again(first())
    assert type(again(second())) is second
    fobs.register_data_classes(third := cell())
    assert type(again(third())) is third
    assert type(again(first())) is first
    assert fobs.num_decomposers() == 1


def test_what_is_no_decomposer():
    for wrong in (Plain, Plain(), 5, None):
        with pytest.raises(TypeError, match="is not a decomposer"):
            fobs.register(wrong)
    with pytest.raises(TypeError, match="is not a class"):
        fobs.register_data_classes(5)
    with pytest.raises(TypeError, match="not the name of a type"):
        fobs.add_type_name_whitelist(Plain)

    class BadDots(into(Plain, "mine")):
        def supported_dots(self):
            return [0]

    with pytest.raises(TypeError, match="0 is not a whole number from 1"):
        fobs.register(BadDots)


def test_two_decomposers_of_one_datum_type(caplog):
    class One(into(Plain, "one")):
        def supported_dots(self):
            return [5]

    class Two(into(Box, "two")):
        def supported_dots(self):
            return [5]

    fobs.register(One)
    fobs.register(Two)
    assert type(fobs.get_dot_handler(5)) is One
    assert "datums of type 5 have a decomposer already" in caplog.text


def test_names_of_standard_types_and_of_nested_classes():
    class Outer:
        class Inner:
            pass

    Plain.Inner = Outer.Inner
    Outer.Inner.__qualname__ = "Plain.Inner"
    fobs.add_type_name_whitelist("uuid.UUID", "collections.OrderedDict", "dict", "fobs_no_such.Thing", "uuid.NoSuch")
    assert fobs.num_decomposers() == 0
    del Plain.Inner


def test_switches_survive_a_reset():
    fobs.auto_register_data_classes(False)
    try:
        fobs.reset()
        with pytest.raises(TypeError):
            fobs.dumps(Plain())
        fobs.register_data_classes(Plain)
        assert again(Plain(3)).a == 3
    finally:
        fobs.auto_register_data_classes(True)
    fobs.reset()
    assert again(Plain(3)).a == 3


def test_many_threads_register_at_once():
    classes = [type(f"Thread{number % 8}", (Plain,), {}) for number in range(8)]
    failed = []
    start = threading.Barrier(8)

    def work():
        start.wait()
        try:
            for _ in range(20):
                for cls in classes:
                    assert type(again(cls(1))) is cls
        except Exception as error:  # noqa: BLE001 - whatever it is
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert fobs.num_decomposers() == 8


def test_enumeration_members_by_name():
    class Numbers(Enum):
        ONE = object()

    assert again(Numbers.ONE) is Numbers.ONE
    assert fobs.EnumTypeDecomposer(Numbers).supported_type() is Numbers
    assert fobs.DataClassDecomposer(Plain).supported_type() is Plain
    assert fobs.DictDecomposer(Ordered).supported_type() is Ordered
