"""Types as JSON Schema: what its checker says of values is what ours says of them."""

from __future__ import annotations

import collections
import datetime as dt
import enum
import typing
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, TypeVar

import msgspec
import numpy as np
import pydantic
import pytest

from fedpost.errors import DecodeError
from fedpost.objects import new_registry, register
from fedpost.objects.schema import schema, validate

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed: pip install jsonschema")

T = TypeVar("T")
B = TypeVar("B", bound=int)
Rate = NewType("Rate", float)


class Phase(enum.Enum):
    TRAIN = 1
    EVALUATE = 2


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: float = 0.0


class Site(msgspec.Struct):
    name: str
    ports: list[int] = []


class Leaf(pydantic.BaseModel):
    weight: float


class Model(pydantic.BaseModel):
    name: str = pydantic.Field(min_length=2)
    leaves: list[Leaf] = []


@dataclass
class Task:
    phase: Phase
    site: Site
    lr: float
    tags: dict[str, int] = field(default_factory=dict)
    parent: Task | None = None
    mode: Literal["fast", 3] | None = None
    array: np.ndarray[Any, Any] | None = None
    model: Model | None = None


@dataclass
class Box(Generic[T]):
    item: T
    more: list[T] = field(default_factory=list)


@dataclass
class Odd:
    name: str


@pytest.fixture
def registry():
    out = new_registry()
    for cls in (Phase, Access, Point, Site, Model, Task, Box):
        register(cls, name=f"example.{cls.__name__}", registry=out)
    register(Odd, name="odd/~<name>%20#", version=2, upgrades={1: dict}, unknown="ignore", registry=out)
    return out


def checker(annotation, registry=None):
    """A checker of values' JSON; the schema itself must be one."""
    found = schema(annotation) if registry is None else schema(annotation, registry=registry)
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


# fmt: off
ANNOTATIONS = [
    None, bool, int, float, str, list, dict, Any, object,
    list[int], list[list[str]], dict[str, int], dict[str, list[float]], int | None, str | int | None,
    Literal["a", 1], Literal[True] | None, Annotated[int, "metres"], Rate, B, T, typing.Sequence[int],
    collections.OrderedDict[str, int],
]
# fmt: on
SURE = [bool, None, str, list, dict, Any, object, list[int], Literal["a", 1], Literal[True] | None]
VALUES = [
    *(None, True, 0, 7, 1.5, "", "a", [], [1], [1, "a"], [["a"]], {}, {"k": 1}, {"k": "v"}, {"k": [1.5]}),
    *({"k": [1, "a"]}, [None], -1),
]


@pytest.mark.parametrize("annotation", ANNOTATIONS, ids=str)
def test_both_checkers_say_the_same(annotation):
    check = checker(annotation)
    for value in VALUES:
        if (value is True and annotation not in SURE) or (
            isinstance(value, str) and annotation == typing.Sequence[int]
        ):
            continue  # numbers and sequences to Python
        if annotation == collections.OrderedDict[str, int] and isinstance(value, dict):
            value = collections.OrderedDict(value)  # noqa: PLW2901 - the same as JSON
        try:
            validate(value, annotation)
        except DecodeError:
            ours = False
        else:
            ours = True
        if not isinstance(value, float) or value % 1:  # JSON has whole numbers of both kinds
            assert check.is_valid(value) == ours, value


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (tuple[int, str], (1, "a"), [(1,), (1, "a", 2), ("a", 1), [1, "a"]]),
        (tuple[int, ...], (1, 2, 3), [(1, "a"), [1]]),
        (tuple[()], (), [(1,)]),
        (set[int], {1, 2}, [{"a"}, [1]]),
        (frozenset[str], frozenset("a"), [{"a"}]),
        (dict[int, str], {1: "a"}, [{"a": "a"}, {1: 1}]),
        (bytes, b"x", ["x", bytearray(b"x")]),
        (np.ndarray, np.zeros(2), [[0.0, 0.0]]),
        (dt.date, dt.date(2020, 1, 1), ["2020-01-01"]),
        (Phase, Phase.TRAIN, ["TRAIN", 1]),
        (list[Task | Site], [Site("a")], [[Point(1)], Site("a")]),
        (Box[int], Box("a"), [Site("a")]),
    ],
    ids=str,
)
def test_validate(annotation, good, bad):
    validate(good, annotation)
    for value in bad:
        with pytest.raises(DecodeError, match="was expected, not"):
            validate(value, annotation)


def test_tuples_are_arrays_of_their_length():
    assert checker(tuple[int, str]).is_valid([1, "a"])
    assert not checker(tuple[int, str]).is_valid([1])
    assert checker(tuple[int, ...]).is_valid([1, 2])
    assert checker(tuple[()]).is_valid([])
    assert not checker(tuple[()]).is_valid([1])


GOOD = {"phase": "TRAIN", "site": {"name": "a", "ports": [1]}, "lr": 0.1}


def test_a_registered_class(registry):
    found = schema(Task, registry=registry)
    check = checker(Task, registry)
    assert check.is_valid(GOOD)
    assert check.is_valid({**GOOD, "parent": {**GOOD, "parent": GOOD}, "mode": 3, "model": {"name": "ab"}})
    bad: list[dict[str, Any]] = [
        {"phase": "REST"},
        {"site": {"name": 1}},
        {"site": {}},
        {"lr": "fast"},
        {"tags": {"k": "v"}},
        {"parent": {}},
        {"mode": "slow"},
        {"unknown": 1},
        {"model": {"name": "a"}},
        {"model": {"name": "ab", "leaves": [{"weight": "x"}]}},
    ]
    for change in bad:
        assert not check.is_valid({**GOOD, **change}), change
    assert set(found["$defs"]) == {f"example.{name}" for name in ("Task", "Phase", "Site", "Model")}
    assert found["$defs"]["example.Task"]["required"] == ["phase", "site", "lr"]
    assert found["$defs"]["example.Task"]["properties"]["array"]["anyOf"][0] == {"x-fedpost-type": "ndarray"}


def test_what_pydantic_says_of_its_model(registry):
    check, theirs = checker(Model, registry), jsonschema.Draft202012Validator(Model.model_json_schema())
    for value in ({"name": "ab"}, {"name": "a"}, {}, {"name": "ab", "leaves": [{"weight": 1}]}, {"leaves": [{}]}):
        assert check.is_valid(value) == theirs.is_valid(value), value


def test_generic_classes_flags_and_named_tuples(registry):
    assert checker(Box[int], registry).is_valid({"item": "anything", "more": [1]})
    assert not checker(Box[int], registry).is_valid({"more": [1]})
    assert checker(Access, registry).is_valid(3)
    assert not checker(Access, registry).is_valid("READ")
    assert checker(list[Point], registry).is_valid([{"x": 1}])
    assert not checker(list[Point], registry).is_valid([{"y": 1}])


def test_names_of_any_letters_are_found(registry):
    check = checker(Odd, registry)
    assert check.is_valid({"name": "a", "more": 1})
    assert not check.is_valid({"name": 1})
    assert schema(Odd, registry=registry)["$defs"]["odd/~<name>%20#"]["x-fedpost-version"] == 2


def test_members_of_enumerations_in_literals(registry):
    check = checker(Literal[Phase.TRAIN, "other"], registry)
    assert check.is_valid("TRAIN")
    assert not check.is_valid("EVALUATE")
    validate(Phase.TRAIN, Literal[Phase.TRAIN, "other"])
    with pytest.raises(DecodeError):
        validate(Phase.EVALUATE, Literal[Phase.TRAIN, "other"])


def test_what_json_has_no_word_for():
    assert schema(bytes)["x-fedpost-type"] == "bytes"
    assert checker(collections.abc.Callable[[int], str]).is_valid("anything")
    assert schema(dt.datetime)["$defs"]["datetime"]["x-fedpost-type"] == "datetime"
