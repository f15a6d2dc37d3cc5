"""Classes that say what they consist of: nothing of an instance is lost, and nothing of the class is run to make it."""

from __future__ import annotations

import argparse
import array
import dataclasses
import datetime as dt
import enum
import functools
import sys
import types
import typing
import zoneinfo
from dataclasses import dataclass
from typing import Any

import attrs
import msgspec
import numpy as np
import pydantic
import pytest

from fedpost.errors import ConfigError, DecodeError, EncodeError, LimitError
from fedpost.objects import Serializer, TypeRegistry, dumps, loads, new_registry, register
from fedpost.objects.schema import schema

COUNTS = pytest.mark.parametrize("count", [1, 70], ids=["one", "records"])


def known(*classes: Any) -> TypeRegistry:
    registry = new_registry()
    for cls in classes:
        register(cls, name=f"test.{cls.__name__}", registry=registry)
    return registry


def back(value: Any, *classes: Any) -> Any:
    registry = known(*classes)
    return loads(dumps(value, registry=registry), registry=registry)


def claimed(cls: type, state: list[Any], *others: Any) -> bytes:
    """What somebody writes who does not ask the class."""
    fields = known(cls).for_class(cls).fields
    registry = known(*others)
    lie = type("Lie", (), {})
    entry = Serializer(cls=lie, name=f"test.{cls.__name__}", take=lambda _lie: state, make=repr, fields=fields)
    registry.add(entry)
    return dumps(lie(), registry=registry)


# ── what a reader would refuse is told to the writer ─────────────────────────────────────────────────────────────────


@dataclass
class Implicit:
    """Defaults that are not of the declared type."""

    x: int = None
    y: complex = 0
    z: tuple[int, *tuple[str, ...]] = (1,)


@COUNTS
def test_the_type_of_a_default_is_right_too(count):
    values = [Implicit(), Implicit(1, 1.5, (1, "a", "b")), Implicit(2, 1j)] * count
    assert back(values, Implicit) == values
    with pytest.raises(EncodeError, match=r"int or NoneType was expected, not builtins\.str"):
        back([Implicit("a")], Implicit)


def test_the_schema_says_so_too():
    found = schema(Implicit, registry=known(Implicit))["$defs"]["test.Implicit"]["properties"]
    assert found["x"] == {"anyOf": [{"type": "integer"}, {"type": "null"}]}


@dataclass
class Plain:
    x: int
    y: list[float] = dataclasses.field(default_factory=list)


@COUNTS
def test_a_field_of_a_wrong_type_is_told_before_it_is_sent(count):
    good = Plain(1)
    for wrong, field in ((Plain(np.int64(3)), "x"), (Plain(1, [np.float32(1)]), "y")):
        with pytest.raises(EncodeError, match="was expected, not") as caught:
            back({"tasks": [good] * (count - 1) + [wrong]}, Plain)
        assert caught.value.where == f"$.tasks[{count - 1}].{field}"


class Remembers:
    @functools.cached_property
    def double(self) -> int:
        return 2 * self.x


@dataclass
class Data(Remembers):
    x: int


class Base(typing.NamedTuple):
    x: int


class Named(Remembers, Base):
    pass


class Struct(Remembers, msgspec.Struct, dict=True):
    x: int


@attrs.define(slots=False)
class Attrs(Remembers):
    x: int


class Model(pydantic.BaseModel):
    x: int

    @functools.cached_property
    def double(self) -> int:
        return 2 * self.x


@COUNTS
@pytest.mark.parametrize("cls", [Data, Struct, Attrs, Model, Named], ids=lambda cls: cls.__name__)
def test_what_an_instance_holds_beyond_its_fields_is_not_lost_without_a_word(cls, count):
    values = [cls(x=number) for number in range(count)]
    assert [value.double for value in values] == [2 * number for number in range(count)]
    found = back(values, cls)
    assert found == values
    assert "double" not in vars(found[0])
    assert found[0].double == 0
    vars(values[-1])["more"] = 1
    with pytest.raises(EncodeError, match="holds more than its fields: 'more'") as caught:
        back(values, cls)
    assert caught.value.where == f"$[{count - 1}]"


T = typing.TypeVar("T")


@dataclass
class Box(typing.Generic[T]):
    content: T


def test_what_typing_leaves_in_instances_is_no_attribute():
    value = Box[int](1)
    assert "__orig_class__" in vars(value)
    assert back(value, Box) == value


def test_a_subclass_that_is_to_come_back_as_its_base_may_hold_more():
    class Child(Data):
        pass

    registry = new_registry()
    register(Data, name="test.Data", subclasses=True, registry=registry)
    child = Child(1)
    child.more = 2
    assert loads(dumps(child, registry=registry), registry=registry) == Data(1)


# ── nothing of the class is run ──────────────────────────────────────────────────────────────────────────────────────

RUN: list[str] = []


class OwnInit:
    x: int

    def __init__(self, x: int) -> None:
        RUN.append("init")
        self.x = x


# As in a notebook, where it stands in a file of the name that the decorator's functions have.
OwnInit.__init__.__code__ = OwnInit.__init__.__code__.replace(co_filename="<string>")
dataclass(OwnInit)


@dataclass
class OwnNew:
    x: int

    def __new__(cls, *args: Any) -> Any:
        RUN.append("new")
        return super().__new__(cls)

    def __setattr__(self, name: str, value: Any) -> None:
        RUN.append("set")
        super().__setattr__(name, value)

    def __post_init__(self) -> None:
        RUN.append("post")


@dataclass(frozen=True, slots=True)
class Still:
    x: int


@COUNTS
@pytest.mark.parametrize("cls", [OwnInit, OwnNew, Still], ids=lambda cls: cls.__name__)
def test_a_dataclass_is_built_without_its_own_code(cls, count):
    registry = known(cls)
    data = dumps([cls(number) for number in range(count)], registry=registry)
    RUN.clear()
    found = loads(data, registry=registry)
    assert not RUN
    assert [value.x for value in found] == list(range(count))
    assert {type(value) for value in found} == {cls}


def test_a_dataclass_upon_a_type_of_c_is_refused():
    @dataclass
    class Day(dt.date):
        x: int

    with pytest.raises(ConfigError, match=r"built upon datetime\.date"):
        known(Day)


# ── pydantic ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Marked(pydantic.BaseModel):
    """Validators that change what they see, each time."""

    text: str = ""
    rate: float = 0.0
    count: int = 0
    optional: int = None

    @pydantic.field_validator("text")
    @classmethod
    def _mark(cls, value: str) -> str:
        return value + "!"

    @pydantic.model_validator(mode="after")
    def _number(self) -> Marked:
        self.__dict__["count"] = self.count + 1
        return self


@COUNTS
def test_a_model_comes_back_as_it_was_and_not_as_its_validators_would_make_it(count):
    value = Marked(text="a")
    value.rate = 3
    (found, *_) = back([value] * count, Marked)
    assert (found.text, found.rate, type(found.rate), found.count, found.optional) == ("a!", 3, int, 1, None)
    assert found.model_fields_set == value.model_fields_set


class Checked(pydantic.BaseModel):
    numbers: set[int] = set()
    inner: Any = None
    limit: int = pydantic.Field(default=1, gt=0)


def test_a_model_converts_nothing():
    for state in ([[1, 2], None, 1], [set(), None, "17"], [set(), None, 1.0]):
        with pytest.raises(DecodeError, match="was expected"):
            loads(claimed(Checked, [*state, ["numbers"], None, None]), registry=known(Checked))


@pytest.mark.parametrize("named", [[], ["limit"]], ids=["as a default", "as set"])
def test_a_model_s_own_rules_are_kept(named):
    data = claimed(Checked, [set(), None, -1, named, None, None])
    with pytest.raises(DecodeError, match="greater than 0"):
        loads(data, registry=known(Checked))


class Imports(pydantic.BaseModel):
    what: pydantic.ImportString = None


class Outer(pydantic.BaseModel):
    inner: dict[str, list[Imports]] = {}


class Typed(pydantic.BaseModel):
    what: pydantic.ImportString[typing.Callable[..., Any]] | None = None


@pydantic.dataclasses.dataclass
class ImportsToo:
    what: pydantic.ImportString = None


@pytest.mark.parametrize("cls", [Imports, Outer, Typed, ImportsToo], ids=lambda cls: cls.__name__)
def test_a_model_that_imports_what_it_is_told_to_is_refused(cls):
    with pytest.raises(ConfigError, match="imports what it is told to"):
        known(cls)


class Early(pydantic.BaseModel):
    """Refers to a class that comes later."""

    later: Later | None = None  # noqa: F821 - not here yet


def test_a_model_that_is_not_complete_is_looked_at_when_it_is():
    registry = known(Early)

    class Later(pydantic.BaseModel):
        what: pydantic.ImportString = None

    Early.model_rebuild(_types_namespace={"Later": Later})
    assert Early.__pydantic_complete__
    with pytest.raises(DecodeError, match="imports what it is told to"):
        loads(dumps(Early(), registry=registry), registry=registry)


@pydantic.dataclasses.dataclass
class Positive:
    x: typing.Annotated[int, pydantic.Field(gt=0)] = 1
    late: int = dataclasses.field(init=False, default=3)


@COUNTS
def test_a_pydantic_dataclass_keeps_its_rules(count):
    values = [Positive(number + 1) for number in range(count)]
    assert back(values, Positive) == values
    with pytest.raises(DecodeError, match="greater than 0"):
        loads(claimed(Positive, [-5, 3]), registry=known(Positive))


def test_a_pydantic_dataclass_of_more_than_its_fields_is_refused():
    @pydantic.dataclasses.dataclass
    class Start:
        given: dataclasses.InitVar[int]
        x: int = 1

    with pytest.raises(ConfigError, match="InitVar"):
        known(Start)


# ── msgspec ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Meta(msgspec.Struct):
    x: typing.Annotated[int, msgspec.Meta(gt=0)]
    many: typing.Annotated[list[Any], msgspec.Meta(max_length=2)] = []


def test_constraints_of_a_struct_are_kept():
    value = Meta(1, [1j, b""])
    assert back(value, Meta) == value
    for state in ([-4, []], [1, [1, 2, 3]]):
        with pytest.raises(DecodeError, match=r"as msgspec\.Meta"):
            loads(claimed(Meta, state), registry=known(Meta))
        with pytest.raises(EncodeError, match=r"as msgspec\.Meta"):
            dumps(Meta(*state), registry=known(Meta))


# ── enumerations ─────────────────────────────────────────────────────────────────────────────────────────────────────


class Bits(enum.IntFlag):
    ONE = 1
    FOUR = 4


class Wide(enum.Flag):
    A = 1
    B = 2
    C = 4


@pytest.mark.parametrize("number", [2, 8, -1, 1 << 4000, (1 << 40) + 1])
def test_bits_that_are_no_members_are_refused_and_not_kept(number):
    registry = new_registry()
    lie = type("Lie", (), {})
    registry.add(Serializer(cls=lie, name="test.Bits", take=lambda _lie: number, make=repr))
    kept = len(Bits._value2member_map_)
    with pytest.raises(DecodeError, match="no member of Bits"):
        loads(dumps(lie(), registry=registry), registry=known(Bits))
    assert len(Bits._value2member_map_) == kept


def test_bits_that_are_no_members_are_told_to_the_writer():
    with pytest.raises(EncodeError, match="no member of Bits"):
        dumps(Bits(9), registry=known(Bits))
    assert back(Bits.ONE | Bits.FOUR, Bits) == 5
    assert back(Bits(0), Bits) == 0
    assert back(~Wide.A, Wide) is Wide.B | Wide.C


def test_combinations_are_kept_to_a_number(monkeypatch):
    many = enum.Flag("many", [f"M{number}" for number in range(10)])
    monkeypatch.setattr("fedpost.objects.classes._MOST_COMBINATIONS", len(many._value2member_map_) + 1)
    registry = known(many)
    written = [dumps(many(number), registry=registry) for number in (3, 5)]
    for number in (3, 5):
        many._value2member_map_.pop(number)
    assert loads(written[0], registry=registry) == many(3)
    with pytest.raises(LimitError, match="combinations"):
        loads(written[1], registry=registry)


def test_a_member_is_written_once():
    registry = known(Wide)
    few, many = (len(dumps([Wide.A, [Wide.A] * count], registry=registry)) for count in (10, 1010))
    assert many - few <= 3 * 1000 + 10
    assert loads(dumps({"a": Wide.A, "b": (Wide.A,)}, registry=registry), registry=registry)["b"][0] is Wide.A


# ── the standard library ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_zone_is_one_that_there_is_and_nothing_is_imported(monkeypatch):
    monkeypatch.setattr(zoneinfo, "ZoneInfo", lambda key: pytest.fail(f"asked for {key!r}"))
    registry = new_registry()
    lie = type("Lie", (), {})
    registry._by_name = {name: entry for name, entry in registry._by_name.items() if name != "ZoneInfo"}
    registry.add(Serializer(cls=lie, name="ZoneInfo", take=lambda value: value.key, make=repr))
    before = set(sys.modules)
    for key in ("Antarctica/x", "xml/dom", "../etc", "", "a" * 10_000, "fedpost"):
        value = lie()
        value.key = key
        with pytest.raises(DecodeError, match="not the name of a time zone here"):
            loads(dumps(value, registry=registry))
    assert not {name for name in sys.modules.keys() - before if name.startswith(("tzdata.zoneinfo.A", "xml"))}


@pytest.mark.parametrize("cls", [argparse.Namespace, types.SimpleNamespace])
def test_a_namespace_that_would_be_refused_is_not_written(cls):
    with pytest.raises(EncodeError, match="__x"):
        dumps(cls(__x=1))


def test_a_typed_array_is_stored_once():
    values = array.array("d", range(1000))
    one, other = loads(dumps([values, values]))
    assert one is other
    assert one == values
    assert len(dumps([values, values])) < 9000


UTC = dt.UTC
TIMES = [
    (dt.date(2026, 1, 2), "2026-01-02"),
    (dt.date.max, "9999-12-31"),
    (dt.datetime.max, ["9999-12-31T23:59:59.999999", None, 0]),  # noqa: DTZ901 - without a zone too
    (dt.time(3, 4, 5, 6), ["03:04:05.000006", None, 0]),
    (dt.time(3, 4, tzinfo=UTC, fold=1), ["03:04", UTC, 1]),
    (dt.datetime(2026, 1, 2, 3), ["2026-01-02T03", None, 0]),  # noqa: DTZ001 - without a zone too
    (dt.datetime(2026, 1, 2, 3, 4, 5, 6, UTC, fold=1), ["2026-01-02T03:04:05.000006", UTC, 1]),
]


def in_place_of(cls: type, state: Any) -> bytes:
    """A standard type with any state."""
    registry = new_registry()
    name = registry.for_class(cls).name
    registry._by_name = {kept: entry for kept, entry in registry._by_name.items() if kept != name}
    lie = type("Lie", (), {})
    registry.add(Serializer(cls=lie, name=name, take=lambda _lie: state, make=repr))
    return dumps(lie(), registry=registry)


@pytest.mark.parametrize(("value", "text"), TIMES, ids=repr)
def test_times_are_a_number_and_their_text_is_read_too(value, text):
    for data in (dumps(value), in_place_of(type(value), text)):
        found = loads(data)
        assert found == value
        assert type(found) is type(value)
        assert getattr(found, "fold", 0) == getattr(value, "fold", 0)
        assert getattr(found, "tzinfo", None) is getattr(value, "tzinfo", None)
    assert b"03:04" not in dumps(value)


WRONG = [
    (dt.date, 0),
    (dt.date, 1 << 40),
    (dt.date, True),
    (dt.date, b"2026-01-02"),
    (dt.date, "2026-01-02" * 100),
    (dt.time, -1),
    (dt.time, 86_400_000_000),
    (dt.time, 1.0),
    (dt.time, [0, 5, 0]),
    (dt.time, [0, None, 2]),
    (dt.time, ["03:04" * 20, None, 0]),
    (dt.datetime, -1),
    (dt.datetime, 1 << 62),
    (dt.datetime, 10**30),
    (dt.datetime, [0, None]),
    (dt.datetime, [b"", None, 0]),
    (dt.datetime, {"year": 1}),
]


@pytest.mark.parametrize(("cls", "state"), WRONG, ids=repr)
def test_times_that_cannot_be(cls, state):
    with pytest.raises(DecodeError):
        loads(in_place_of(cls, state))
