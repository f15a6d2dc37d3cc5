"""What may be registered, under which names, and how a reader takes what an earlier or later program wrote."""

from __future__ import annotations

import dataclasses
import threading
import typing
from dataclasses import dataclass
from typing import Any, NamedTuple

import attrs
import msgspec
import numpy as np
import objects_samples as samples
import pydantic
import pytest

from fedpost.errors import ConfigError, DecodeError, EncodeError, RegistryError, UnsupportedError
from fedpost.objects import (
    Decomposer,
    TypeRegistry,
    dumps,
    loads,
    new_registry,
    register,
    register_deserializer,
    register_serializer,
)
from fedpost.objects.types import Serializer

if typing.TYPE_CHECKING:
    from somewhere import ForTypeCheckers


@dataclass
class One:
    x: int = 1


@dataclass
class Two:
    x: int = 2


# ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_class_and_a_name_are_registered_once():
    registry = new_registry()
    assert register(One, name="one", aliases=("uno",), registry=registry) is One
    for cls, name, what in [
        (One, "other", "One is registered already"),
        (Two, "one", "a type 'one' is registered already"),
        (Two, "uno", "'uno' is registered already"),
        (Two, "Decimal", "'Decimal' is registered already"),
    ]:
        with pytest.raises(RegistryError, match=what):
            register(cls, name=name, registry=registry)
    with pytest.raises(RegistryError, match="'uno'"):
        register(Two, name="two", aliases=("dos", "uno"), registry=registry)
    assert Two not in registry
    assert not {"two", "dos"} & set(registry.names)


@pytest.mark.parametrize("name", ["", " ", "a b", "9a", "a" * 201, "a\n", "a\0", ".a", 5])
def test_names_that_are_none(name):
    with pytest.raises(ConfigError, match="not a name for a type"):
        register(One, name=name, registry=new_registry()) if name else Serializer(
            cls=One, name="", take=list, make=list
        )


def test_without_a_name_it_is_the_qualified_one():
    registry = new_registry()
    register(One, registry=registry)
    assert f"{One.__module__}.One" in registry.names
    assert loads(dumps(One(5), registry=registry), registry=registry) == One(5)


@pytest.mark.parametrize("version", [0, -1, 1.5, True, "1", 1 << 31])
def test_versions_that_are_none(version):
    with pytest.raises(ConfigError, match="not a whole number"):
        register(One, version=version, registry=new_registry())


def test_an_upgrade_is_from_an_earlier_version():
    with pytest.raises(ConfigError, match="upgrade from version 2"):
        register(One, version=2, upgrades={2: dict}, registry=new_registry())


def test_a_class_that_does_not_say_what_it_consists_of():
    class Silent:
        pass

    class InList(list):
        pass

    for cls in (Silent, InList, int, type, tuple):
        with pytest.raises((ConfigError, RegistryError)):
            register(cls, registry=new_registry())

    @dataclass
    class Both(dict):
        x: int = 1

    with pytest.raises(ConfigError, match="is a dict as well"):
        register(Both, registry=new_registry())


def test_registries_are_apart():
    first, second = new_registry(), new_registry()
    register(One, name="one", registry=first)
    data = dumps(One(), registry=first)
    with pytest.raises(EncodeError, match="can not serialize"):
        dumps(One(), registry=second)
    with pytest.raises(UnsupportedError, match="unknown type 'one', version 1") as caught:
        loads(data, registry=second)
    assert "Register its class" in caught.value.hint
    register(Two, name="one", registry=second)
    assert loads(data, registry=second) == Two(1)
    third = TypeRegistry(first)
    register(Two, name="two", registry=third)
    assert "two" not in first.names
    assert loads(data, registry=third) == One(1)
    with pytest.raises(UnsupportedError):
        loads(data, registry=TypeRegistry())


def test_the_name_that_was_meant_is_told():
    registry = new_registry()
    register(One, name="company.Result", registry=registry)
    other = new_registry()
    register(One, name="company.Results", registry=other)
    with pytest.raises(UnsupportedError, match=r"did the sender mean 'company\.Result'"):
        loads(dumps(One(), registry=other), registry=registry)


def test_a_frozen_registry_takes_nothing_more():
    registry = new_registry()
    register(One, name="one", registry=registry)
    registry.freeze()
    for act in (
        lambda: register(Two, registry=registry),
        lambda: registry.remove(One),
        lambda: registry.change(One, name="x"),
        lambda: register_serializer(Two, registry=registry)(bytes),
    ):
        with pytest.raises(RegistryError, match="frozen"):
            act()
    assert loads(dumps(One(), registry=registry), registry=registry) == One()
    # What it held from the start is still found when it is first used.
    masked = np.ma.MaskedArray([1, 2], [True, False])
    assert loads(dumps(masked, registry=registry), registry=registry).mask.tolist() == [True, False]


def test_removing_and_changing():
    registry = new_registry()
    register(One, name="one", aliases=("uno",), registry=registry)
    registry.change(One, unknown="ignore")
    assert registry.for_name("uno").unknown == "ignore"
    registry.remove(One)
    assert registry.for_name("uno") is None
    assert registry.for_class(One) is None
    for act in (lambda: registry.remove(One), lambda: registry.change(One, name="x")):
        with pytest.raises(RegistryError, match="not registered"):
            act()


def test_an_earlier_name_is_read():
    old, new = new_registry(), new_registry()
    register(One, name="old.One", registry=old)
    register(One, name="new.One", aliases=("old.One",), registry=new)
    assert loads(dumps(One(7), registry=old), registry=new) == One(7)
    assert b"new.One" in dumps(One(7), registry=new)


# ── versions and fields ──────────────────────────────────────────────────────────────────────────────────────────────


def pair_of(old, new, *, version=1, **options):
    """A writer that knows one class, and a reader that knows another under its name."""
    writer, reader = new_registry(), new_registry()
    register(old, name="T", version=version, registry=writer)
    register(new, name="T", registry=reader, **options)
    return lambda value: loads(dumps(value, registry=writer), registry=reader)


def kinds_of_class(name, **fields):
    """Classes of every kind with fields; a default makes one optional."""
    space = {"__annotations__": {key: type(value) if value is not ... else int for key, value in fields.items()}}
    defaults = {key: value for key, value in fields.items() if value is not ...}
    yield "dataclass", dataclass(type(name, (), {**space, **defaults}))
    yield "attrs", attrs.define(type(name, (), {**space, **defaults}))
    yield (
        "struct",
        msgspec.defstruct(name, [(key, int) if v is ... else (key, type(v), v) for key, v in fields.items()]),
    )
    yield (
        "pydantic",
        pydantic.create_model(name, **{key: (int, ...) if v is ... else (type(v), v) for key, v in fields.items()}),
    )
    named = typing.NamedTuple(name, [(key, int if v is ... else type(v)) for key, v in fields.items()])
    named.__new__.__defaults__ = tuple(defaults.values())
    named._field_defaults = defaults
    yield "named tuple", named


KINDS = ["dataclass", "attrs", "struct", "pydantic", "named tuple"]


def of_kind(kind, name, **fields):
    return dict(kinds_of_class(name, **fields))[kind]


@pytest.mark.parametrize("count", [1, 70], ids=["one", "records"])
@pytest.mark.parametrize("kind", KINDS)
def test_fields_come_and_go(kind, count):
    first, second = of_kind(kind, "T", a=...), of_kind(kind, "T", a=..., b=5)
    values = [first(a=number) for number in range(count)]
    # A field that the writer does not know gets its default, anew each time.
    back = pair_of(first, second)(values)
    assert [(value.a, value.b) for value in back] == [(number, 5) for number in range(count)]
    # One that the reader does not know is refused, or left out where that was asked for.
    values = [second(a=number, b=6) for number in range(count)]
    with pytest.raises(DecodeError, match="a field 'b' that is not known here"):
        pair_of(second, first)(values)
    assert [value.a for value in pair_of(second, first, unknown="ignore")(values)] == list(range(count))
    # One without a default must be there.
    third = of_kind(kind, "T", a=..., c=...)
    with pytest.raises(DecodeError, match="lacks its field 'c'"):
        pair_of(first, third)([first(a=1)] * count)


@pytest.mark.parametrize("kind", KINDS)
def test_fields_in_another_order(kind):
    first, second = of_kind(kind, "T", a=..., b=...), of_kind(kind, "T", b=..., a=...)
    back = pair_of(first, second)([first(a=1, b=2)] * 3)
    assert [(value.a, value.b) for value in back] == [(1, 2)] * 3


@pytest.mark.parametrize("kind", KINDS)
def test_upgrades_go_one_version_at_a_time(kind):
    first, third = of_kind(kind, "T", a=...), of_kind(kind, "T", b=..., c=0)
    upgrades = {
        1: lambda fields: {**{key: fields[key] for key in fields if key != "a"}, "b": fields["a"]},
        2: lambda fields: {**fields, "c": 10 * fields["b"]},
    }
    writer, reader = new_registry(), new_registry()
    register(first, name="T", registry=writer)
    register(third, name="T", version=3, upgrades=upgrades, registry=reader)
    back = loads(dumps([first(a=4)] * 70, registry=writer), registry=reader)
    assert {(value.b, value.c) for value in back} == {(4, 40)}
    partly = new_registry()
    register(third, name="T", version=3, upgrades={1: upgrades[1]}, registry=partly)
    with pytest.raises(UnsupportedError, match="version 1 of the type 'T', and no upgrade from 2"):
        loads(dumps(first(a=4), registry=writer), registry=partly)
    # What is later than what is known here is refused by its number.
    with pytest.raises(UnsupportedError, match="version 3 of the type 'T', 1 is known here"):
        loads(dumps(third(b=1), registry=reader), registry=writer)


def test_an_upgrade_that_fails_is_the_data_s_fault():
    writer, reader = new_registry(), new_registry()
    register(One, name="T", registry=writer)
    register(One, name="T", version=2, upgrades={1: lambda fields: fields["gone"]}, registry=reader)
    with pytest.raises(DecodeError, match="cannot be built: KeyError"):
        loads(dumps(One(), registry=writer), registry=reader)


def test_upgrades_of_a_state_that_is_no_list_of_fields():
    class Text(str):
        __slots__ = ()

    writer, reader = new_registry(), new_registry()
    register_serializer(Text, name="T", registry=writer)(str.__str__)
    register_deserializer(Text, name="T", registry=reader)(Text)
    reader.change(Text, version=2, upgrades={1: lambda state: state + "!"})
    back = loads(dumps(Text("a"), registry=writer), registry=reader)
    assert (type(back), back) == (Text, "a!")


def test_a_default_is_made_anew():
    first, second = One, of_kind("dataclass", "T", x=...)
    del first
    fields = [("x", int), ("many", list, dataclasses.field(default_factory=list))]
    third = dataclasses.make_dataclass("T", fields)
    back = pair_of(second, third)([second(x=1), second(x=2)])
    back[0].many.append(1)
    assert back[1].many == []


# ── types of fields ──────────────────────────────────────────────────────────────────────────────────────────────────


class Custom:
    pass


CHECKED = [
    (int, 1, 1.5),
    (int, True, "1"),
    (float, 1, "1"),
    (str, "a", b"a"),
    (bytes, b"a", bytearray(b"a")),
    (int | None, None, "a"),
    (typing.Optional[str], "a", 1),  # noqa: UP045 - this way of saying it too
    (list[int], [1, 2], [1, "a"]),
    (list[int], [], (1,)),
    (dict[str, float], {"a": 1.5}, {"a": "b"}),
    (dict[str, list[int]], {"a": [1]}, {"a": [b""]}),
    (tuple[int, str], (1, "a"), (1, "a", 2)),
    (tuple[int, ...], (1, 2), (1, "a")),
    (tuple[()], (), (1,)),
    (set[int], {1}, {"a"}),
    (frozenset[str], frozenset("a"), {"a"}),
    (typing.Literal["a", 1], "a", "b"),
    (typing.Literal["a", 1], 1, True),
    (typing.Annotated[int, "positive"], 1, "a"),
    (np.ndarray, np.ones(2), [1]),
    (One, One(), Two()),
    (typing.NewType("Id", int), 1, "a"),
    (typing.Final[int], 1, "a"),
    (list["int"], [1], ["a"]),
    (samples.Level, samples.Level.LOW, 1),
]


@pytest.mark.parametrize(("kind", "good", "bad"), CHECKED)
def test_a_field_is_what_it_was_declared_to_be(kind, good, bad):
    declared = dataclasses.make_dataclass("T", [("x", kind)])
    anything = dataclasses.make_dataclass("T", [("x", Any)])
    writer, reader = new_registry(), new_registry()
    for cls in (One, Two, samples.Level):
        register(cls, registry=writer)
        register(cls, registry=reader)
    register(anything, name="T", registry=writer)
    register(declared, name="T", registry=reader)
    for count in (1, 70):
        back = loads(dumps([anything(good)] * count, registry=writer), registry=reader)
        assert samples.difference(good, back[0].x) is None or good is True
        # One that is wrong among many is found.
        with pytest.raises(DecodeError, match="was expected, not") as caught:
            loads(dumps([anything(good)] * (count - 1) + [anything(bad)], registry=writer), registry=reader)
        assert caught.value.where == "T.x"


ANYTHING_GOES = [Any, object, typing.TypeVar("T"), typing.Callable, type[int], "ForTypeCheckers", typing.ClassVar]


@pytest.mark.parametrize("kind", ANYTHING_GOES)
def test_an_annotation_that_says_nothing_takes_anything(kind):
    cls = dataclasses.make_dataclass("T", [("x", Any)])
    cls.__annotations__ = {"x": kind}
    registry = new_registry()
    register(cls, name="T", registry=registry)
    assert loads(dumps(cls([1, "a"]), registry=registry), registry=registry).x == [1, "a"]


@dataclass
class HalfKnown:
    known: int
    other: ForTypeCheckers
    itself: HalfKnown | None = None


def test_one_annotation_that_is_unknown_leaves_the_others():
    registry = new_registry()
    register(HalfKnown, name="T", registry=registry)
    value = HalfKnown(1, "anything", HalfKnown(2, None))
    assert loads(dumps(value, registry=registry), registry=registry) == value
    for wrong, where in ((HalfKnown("a", 1), "$.known"), (HalfKnown(1, 1, 5), "$.itself")):
        with pytest.raises(EncodeError, match="was expected") as caught:
            dumps(wrong, registry=registry)
        assert caught.value.where == where


def test_checks_of_the_class_itself_run():
    class Checked(pydantic.BaseModel):
        x: int = pydantic.Field(ge=0)

    @attrs.define
    class Valid:
        x: int = attrs.field(validator=attrs.validators.ge(0))

    class Post(msgspec.Struct):
        x: int

        def __post_init__(self):
            if self.x < 0:
                raise ValueError("negative")

    registry = new_registry()
    for cls in (Checked, Valid, Post):
        register(cls, name=cls.__name__, registry=registry)
        value = cls(x=1)
        assert loads(dumps(value, registry=registry), registry=registry) == value
        object.__setattr__(value, "x", -1) if cls is not Post else msgspec.structs.force_setattr(value, "x", -1)
        with pytest.raises(DecodeError, match=f"{cls.__name__!r} cannot be built"):
            loads(dumps(value, registry=registry), registry=registry)


# ── subclasses ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Base:
    def __init__(self, tag):
        self.tag = tag


class Middle(Base):
    pass


class Leaf(Middle):
    pass


class Other(Base):
    pass


def by_tag(cls):
    class ByTag(Decomposer):
        def supported_type(self):
            return cls

        def decompose(self, target, manager=None):
            return target.tag

        def recompose(self, data, manager=None):
            return cls(data)

    return ByTag


def test_the_exact_class_comes_first_then_the_nearest_base_that_allows_it():
    registry = new_registry()
    register(by_tag(Base), name="base", subclasses=True, registry=registry)
    data = dumps(Leaf("l"), registry=registry)
    assert type(loads(data, registry=registry)) is Base
    register(by_tag(Middle), name="middle", registry=registry)  # does not allow it
    assert type(loads(dumps(Leaf("l"), registry=registry), registry=registry)) is Base
    assert type(loads(dumps(Middle("m"), registry=registry), registry=registry)) is Middle
    registry.change(Middle, subclasses=True)
    assert type(loads(dumps(Leaf("l"), registry=registry), registry=registry)) is Middle
    register(by_tag(Leaf), name="leaf", registry=registry)
    for cls, expected in ((Leaf, Leaf), (Middle, Middle), (Other, Base), (Base, Base)):
        assert type(loads(dumps(cls("x"), registry=registry), registry=registry)) is expected
    registry.remove(Leaf)
    assert type(loads(dumps(Leaf("l"), registry=registry), registry=registry)) is Middle


def test_subclasses_of_native_types_are_not_taken_for_them():
    for cls, value in ((str, "a"), (int, 1), (dict, {}), (list, []), (bytes, b""), (float, 1.0), (tuple, ())):
        sub = type("Sub", (cls,), {})
        with pytest.raises(EncodeError, match="can not serialize"):
            dumps([1, sub(value)])
        with pytest.raises(EncodeError, match="can not serialize"):
            dumps({"a": sub(value)})


# ── decomposers and halves ───────────────────────────────────────────────────────────────────────────────────────────


class WithManager(Decomposer):
    """Keeps tags in a manager's list."""

    def supported_type(self):
        return Base

    def decompose(self, target, manager=None):
        manager.append(target.tag)
        return len(manager) - 1

    def recompose(self, data, manager=None):
        return Base(manager[data])


@pytest.mark.parametrize("given", [WithManager, WithManager()], ids=["class", "instance"])
def test_a_decomposer_gets_the_manager(given):
    registry, manager = new_registry(), []
    assert register(given, name="base", registry=registry) is given
    data = dumps([Base("a"), Base("b")] * 40, registry=registry, manager=manager)
    assert manager == ["a", "b"] * 40
    back = loads(data, registry=registry, manager=manager)
    assert [value.tag for value in back] == manager
    with pytest.raises(EncodeError, match="AttributeError"):
        dumps(Base("a"), registry=registry)
    with pytest.raises(DecodeError, match="cannot be built"):
        loads(data, registry=registry)


def test_the_halves_of_the_document():
    registry = new_registry()

    @register_serializer(Base, name="base", registry=registry)
    def serialize(value):
        return value.tag.encode()

    with pytest.raises(DecodeError, match="no deserializer is registered"):
        loads(dumps(Base("é"), registry=registry), registry=registry)

    @register_deserializer(Base, registry=registry)
    def deserialize(data):
        return Base(data.decode())

    assert loads(dumps(Base("é"), registry=registry), registry=registry).tag == "é"
    for again in (register_serializer, register_deserializer):
        with pytest.raises(RegistryError, match="has a function for this already"):
            again(Base, registry=registry)(serialize)
    registry.change(Base, take=lambda _value: b"\xff")
    with pytest.raises(DecodeError, match="cannot be built: UnicodeDecodeError"):
        loads(dumps(Base("x"), registry=registry), registry=registry)


def test_a_half_of_another_name_or_the_wrong_half():
    registry = new_registry()
    register_deserializer(Base, name="base", registry=registry)(Base)
    with pytest.raises(RegistryError, match="is called 'base' already"):
        register_serializer(Base, name="other", registry=registry)(bytes)
    with pytest.raises(EncodeError, match="no serializer is registered"):
        dumps(Base("a"), registry=registry)
    with pytest.raises(RegistryError, match="has a function"):
        register_serializer(One, registry=(known := _with(One)))(bytes)
    assert One in known


def _with(cls):
    registry = new_registry()
    register(cls, registry=registry)
    return registry


# ── lazy entries and threads ─────────────────────────────────────────────────────────────────────────────────────────


def serializer_of(cls, name):
    return Serializer(cls=cls, name=name, take=lambda value: value.x, make=cls)


def test_lazy_entries_are_loaded_once_by_class_or_name():
    calls = []

    def load():
        calls.append(1)
        return [serializer_of(One, "one"), serializer_of(Two, "two")]

    registry = new_registry()
    registry.add_lazy(One.__module__.partition(".")[0], ("one", "two"), load)
    assert registry.for_name("two").cls is Two
    assert registry.for_class(One).name == "one"
    assert calls == [1]
    assert loads(dumps([One(), Two()], registry=registry), registry=registry) == [One(), Two()]


def test_a_package_that_is_not_there_is_told_as_an_unknown_type():
    def load():
        raise ImportError("no such package")

    registry, writer = new_registry(), new_registry()
    registry.add_lazy("somewhere", ("one",), load)
    register(One, name="one", registry=writer)
    with pytest.raises(UnsupportedError, match="'one' cannot be read: no such package"):
        loads(dumps(One(), registry=writer), registry=registry)


def test_a_lazy_entry_is_never_missing_while_it_is_loaded():
    """One thread loads it, others look for it: all find it."""
    for _ in range(30):
        started = threading.Barrier(8)
        registry, found = new_registry(), []
        registry.add_lazy("nowhere", ("one",), lambda: [serializer_of(One, "one")])

        def look(started=started, registry=registry, found=found):
            started.wait()
            found.append(registry.for_name("one"))

        threads = [threading.Thread(target=look) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [entry.cls for entry in found] == [One] * 8


def test_threads_register_while_others_read_and_write():
    registry = new_registry()
    register(One, name="one", registry=registry)
    data, stop, failures, rounds = dumps([One(), {"a": (1,)}], registry=registry), threading.Event(), [], []

    def read():
        try:
            while not stop.is_set():
                assert loads(data, registry=registry) == [One(), {"a": (1,)}]
                assert dumps([One(), {"a": (1,)}], registry=registry) == data
                with pytest.raises(EncodeError):
                    dumps(object(), registry=registry)
                rounds.append(1)
        except BaseException as error:  # noqa: BLE001 - handed to the test
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    classes = [dataclasses.make_dataclass(f"C{number}", [("x", int)]) for number in range(300)]
    for cls in classes:
        register(cls, name=cls.__name__, registry=registry)
        assert loads(dumps(cls(1), registry=registry), registry=registry) == cls(1)
    for cls in classes[::2]:
        registry.remove(cls)
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert rounds
    assert len(registry) == len(new_registry()) + 1 + 150


def test_two_threads_cannot_register_one_name():
    registry, outcomes, started = new_registry(), [], threading.Barrier(8)

    def attempt():
        cls = dataclasses.make_dataclass("C", [("x", int)])
        started.wait()
        try:
            register(cls, name="one", registry=registry)
            outcomes.append("in")
        except RegistryError:
            outcomes.append("refused")

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["in"] + ["refused"] * 7


class Pair(NamedTuple):
    a: int


def test_a_fallback_registers_what_is_written_and_nothing_that_is_read():
    seen = []

    def fallback(cls):
        seen.append(cls)
        return serializer_of(cls, f"auto.{cls.__name__}") if cls is One else None

    registry = TypeRegistry(new_registry(), fallback=fallback)
    data = dumps([One(3), One(4)], registry=registry)
    assert seen == [One]
    assert loads(data, registry=registry) == [One(3), One(4)]
    with pytest.raises(UnsupportedError, match=r"unknown type 'auto\.One'"):
        loads(data, registry=TypeRegistry(new_registry(), fallback=fallback))
    with pytest.raises(EncodeError):
        dumps(Pair(1), registry=registry)
