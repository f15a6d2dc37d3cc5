"""A value of everything that comes back, the classes that it takes, and a comparison that forgives nothing."""

from __future__ import annotations

import argparse
import array
import collections
import dataclasses
import datetime as dt
import enum
import math
import pathlib
import struct
import types
import typing
import uuid
import zoneinfo
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Any, Generic, NamedTuple, TypeVar

import attr
import attrs
import ml_dtypes
import msgspec
import numpy as np
import pydantic

from fedpost.objects import TypeRegistry, new_registry, register

T = TypeVar("T")
REGISTRY = new_registry()

# ── classes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def known(cls: Any = None, /, registry: TypeRegistry = REGISTRY, **options: Any) -> Any:
    """Register a class under its own name, without the module's, which is the test's matter."""
    if cls is None:
        return lambda cls: known(cls, registry, **options)
    return register(cls, name=f"test.{cls.__name__}", registry=registry, **options)


@known
class Color(enum.Enum):
    RED = "r"
    GREEN = ("g", 2)
    CRIMSON = "r"  # noqa: PIE796 - another name of the same


@known
class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@known
class Mode(enum.StrEnum):
    FAST = enum.auto()


@known
class Right(enum.Flag):
    READ = 1
    WRITE = 2
    BOTH = 3


@known
class Bit(enum.IntFlag):
    ONE = 1
    EIGHT = 8


@known
@dataclass
class Point:
    x: int
    y: float = 0.5
    names: list[str] = field(default_factory=list)


@known
@dataclass(slots=True)
class Slots:
    x: int
    inner: Point | None = None


@known
@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    key: str
    when: dt.datetime


@known
@dataclass
class Grown(Point):
    z: complex = 1j


@known
@dataclass(eq=True)
class Box(Generic[T]):
    content: T
    more: tuple[T, ...] = ()


@known
@dataclass
class Made:
    """What is given to the constructor is not what is kept."""

    start: dataclasses.InitVar[int]
    kept: int = field(init=False)
    count: int = 0

    def __post_init__(self, start: int) -> None:
        self.kept = 2 * start
        self.count += 1


@known
@dataclass
class OwnInit:
    x: int

    def __init__(self, half: int) -> None:
        self.x = 2 * half


@known
@dataclass
class Empty:
    pass


@known
class Pair(NamedTuple):
    left: int
    right: Any = None


Plain = known(collections.namedtuple("Plain", "a b c"))  # noqa: PYI024 - this kind too


@known
class Nothing(NamedTuple):
    pass


@known
class Inner(pydantic.BaseModel):
    x: int
    y: list[float] = []


@known
class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    name: str = pydantic.Field(alias="Name")
    inner: Inner
    weights: np.ndarray[Any, Any] | None = None
    other: dict[str, Inner] = {}
    _secret: int = pydantic.PrivateAttr(default=3)


@known
class Extra(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    x: int = 1


@known
class Still(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True)
    x: int


class Holder(pydantic.BaseModel, Generic[T]):
    content: T


HolderOfInt = REGISTRY and register(Holder[int], name="test.Holder[int]", registry=REGISTRY)


@known
class Root(pydantic.RootModel[dict[str, int]]):
    pass


@known
class Bare(pydantic.RootModel[list[int]]):
    pass


@known
@pydantic.dataclasses.dataclass
class PydanticData:
    x: int
    y: str = "a"


@known
@attrs.define
class Attrs:
    _private: int
    x: int = attrs.field(default=1, validator=attrs.validators.ge(0))
    text: str = attrs.field(default="3", converter=str)


@known
@attrs.frozen(cache_hash=True)
class Hashed:
    x: int


@known
@attr.s(auto_attribs=True)
class OldAttrs:
    x: int
    y: Any = attr.Factory(list)
    later: int = attr.ib(init=False, default=5)


@known
class Struct(msgspec.Struct):
    x: int
    y: list[Any] = []


@known
class Keywords(msgspec.Struct, kw_only=True, frozen=True, tag="k", rename="camel"):
    first_name: str
    last_name: str = "b"


@known
class Array(msgspec.Struct, array_like=True, gc=False):
    a: int
    b: float | None = None


@known
class MixedStruct(Struct, kw_only=True):
    z: int


@known
class Broken(Exception):  # noqa: N818 - a name of a test
    def __init__(self, code: int, *, more: str = "") -> None:
        super().__init__(f"code {code}")
        self.code = code
        self.more = more


@known
class SlotError(ValueError):
    __slots__ = ("place",)

    def __init__(self, text: str, place: int) -> None:
        super().__init__(text)
        self.place = place


@known
@attrs.define
class AttrsError(Exception):
    x: int
    y: str = "y"


# ── values ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def noted(error: BaseException) -> BaseException:
    """An exception with a note."""
    error.add_note("seen on site 3")
    return error


def made(model: Any, **private: Any) -> Any:
    """A model with private attributes that are not the defaults."""
    for name, value in private.items():
        setattr(model, name, value)
    return model


SIGNALLING = struct.unpack("<d", bytes.fromhex("0100000000 00f87f".replace(" ", "")))[0]
NEGATIVE_NAN = struct.unpack("<d", bytes.fromhex("efbeadde0000f8ff"))[0]
RECORD = np.dtype([("a", "<f4"), ("b", ">i2", (2,)), ("c", "S3")])
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
TWICE = dt.datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN)


def numbers() -> list[Any]:
    """Numbers of the language and its library."""
    edges = [2**p + d for p in (7, 8, 15, 16, 31, 32, 62, 63, 64, 65, 200, 4000) for d in (-1, 0, 1)]
    return [
        *edges,
        *(-edge for edge in edges),
        *(0, True, False, None, ..., NotImplemented),
        *(0.0, -0.0, 1.5, math.inf, -math.inf, math.nan, SIGNALLING, NEGATIVE_NAN, 5e-324, 1e308),
        *(1j, complex(-0.0, math.nan), complex(math.inf, -0.0)),
        *map(Decimal, ("0", "-0", "1E+1000", "0.10", "NaN", "sNaN123", "-Infinity", "9" * 3000)),
        *(Fraction(1, 3), Fraction(-(10**50), 7)),
        *(range(0), range(5, 1, -2), range(10**30), slice(None), slice(1, "b", [2])),
    ]


def texts() -> list[Any]:
    """Texts, bytes, and what stands for such."""
    return [
        *("", "a", "é名😀\0", "x" * 4095, "x" * 4096, "é" * 3000, "\ud800", "a\udcff" * 4000, {"\ud800": "\udfff"}),
        *(b"", b"\0\xff", b"x" * 4095, b"x" * 4096, b"x" * 100_000),
        *(bytearray(), bytearray(b"ab"), bytearray(5000)),
        *(memoryview(b""), memoryview(b"abc"), memoryview(b"x" * 5000), memoryview(np.arange(6.0).reshape(2, 3))),
        *(memoryview(np.zeros((0, 3))), memoryview(np.zeros(0)), memoryview(np.array(3.0))),
        *(memoryview(np.ones(3, code)) for code in "?bBhHiIlLqQefdg"),
        *(memoryview(b"abc").cast("c"), memoryview(b"abc").cast("c")[:0]),
        *(array.array("d", [1.5, -0.0]), array.array("b"), array.array("Q", [2**64 - 1])),
        *(uuid.UUID(int=5), pathlib.Path("a/b"), pathlib.PurePosixPath("/"), pathlib.PureWindowsPath("C:\\x")),
    ]


def containers() -> list[Any]:
    """Containers, empty, nested, and of many."""
    keys = (1, 1.5, b"k", None, True, (1, "a"), frozenset({2}), Color.RED, Decimal(2), dt.date(2026, 1, 2), 2**70)
    return [
        *([], {}, (), set(), frozenset(), [[]], ((),), [{}], {"": {}}),
        {"b": 1, "a": 2, "c": [3, {"z": 1, "y": (2,)}]},
        {key: [key] for key in keys if key != 1 or key is not True},
        {(1, (2, "x")): {frozenset({"a"}): b""}},
        *({1, 2.5, "a", (3,), frozenset({4})}, frozenset({b"", None, uuid.UUID(int=1)})),
        {math.nan: 1},
        *(collections.OrderedDict(b=1, a=2), collections.OrderedDict({1: 2})),
        *(collections.Counter("abca"), collections.Counter({(1,): -3})),
        *(
            collections.defaultdict(list, {"a": [1]}),
            collections.defaultdict(None, {1: 2}),
            collections.defaultdict(int),
        ),
        *(collections.deque([1, (2,)]), collections.deque([1, 2], 2), collections.deque(maxlen=0)),
        *(types.MappingProxyType({"a": 1}), argparse.Namespace(a=1, b=[2]), types.SimpleNamespace(x=(1,))),
        *(list(range(1000)), [2**70] * 3, ["x" * 5000, "y"], [1, "a", 2.5, None, True, b"", [], {}]),
        [[[[[[(1, [2, (3,)])]]]]]],
    ]


def times() -> list[Any]:
    """Dates, times and zones."""
    utc, odd = dt.UTC, dt.timezone(dt.timedelta(hours=-3, microseconds=1))
    return [
        *(dt.date.min, dt.date(2026, 2, 28), dt.time(), dt.time(23, 59, 59, 999_999, utc), dt.time(1, 2, fold=1)),
        *(dt.datetime.min, dt.datetime(2026, 1, 2, 3, 4, 5, 6), dt.datetime.max.replace(tzinfo=utc)),  # noqa: DTZ001, DTZ901 - without a zone too
        *(TWICE, TWICE.replace(fold=1), dt.datetime(2026, 1, 1, tzinfo=odd)),
        *(dt.timedelta(0), dt.timedelta(-1, 3, 5), dt.timedelta.max, dt.timedelta.min),
        *(utc, odd, dt.timezone(dt.timedelta(hours=1), "CET"), dt.timezone(dt.timedelta(0), "UTC+x"), BERLIN),
        zoneinfo.ZoneInfo("America/Argentina/Buenos_Aires"),
    ]


# fmt: off
NARROW = (
    "bfloat16", "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2",
    "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn",
    "int2", "int4", "uint2", "uint4",
)
# fmt: on


def arrays() -> list[Any]:
    """Arrays and scalars of every kind."""
    plain = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    nans = np.array([0x7FC00001, 0xFFA12345, 0x80000000], np.uint32).view(np.float32)
    narrow = [np.dtype(getattr(ml_dtypes, name)) for name in NARROW]
    kinds = [*(np.dtype(code) for code in "?bBhHiIqQefdgFDG"), *map(np.dtype, (">f8", ">i2", ">c8", "S3", "U2", ">U2"))]
    kinds += [np.dtype(name) for name in ("M8[ns]", "m8[25s]", "M8[D]", ">M8[s]", "V5", RECORD)]
    every = [np.zeros(3, kind) for kind in (*kinds, *narrow)]
    return [
        *(plain, plain.T, plain[:, ::2], plain[::-1], np.asfortranarray(plain), np.broadcast_to(plain[:1], (3, 3, 4))),
        *(np.array(5), np.array(2.5, ">f8"), np.zeros((0, 3)), np.zeros((3, 0), order="F"), np.zeros(0, "V0")),
        *(np.ones(5000), np.ones((50, 60)).T, np.ones((100, 100))[::2], nans, np.array([-0.0, math.nan])),
        *(np.array(["2026-01-02", "NaT"], "M8[D]"), np.array([("a", 1)], [("n", "U3"), ("v", ">i8")])),
        *every,
        *(one[0] for one in every),
        *(np.float16(1.5), np.int8(-1), np.bool_(True), np.float64(-0.0), np.str_("é"), np.bytes_(b"a"), np.str_("")),
        *(np.datetime64("NaT"), np.timedelta64(5, "s"), np.zeros((), "V0")[()], nans[0]),
        np.ma.MaskedArray([1.0, 2.0], mask=[True, False], fill_value=7.0),
        np.ma.MaskedArray([1, 2, 3]),
        np.ma.MaskedArray(np.arange(6).reshape(2, 3), mask=np.eye(2, 3, dtype=bool), hard_mask=True),
        np.ma.MaskedArray(np.zeros(2, [("a", "f4"), ("b", "i4")]), mask=[(True, False), (False, False)]),
    ]


def instances() -> list[Any]:
    """Instances of every kind of class."""
    missing = OSError(2, "no such file")
    return [
        *(Color.RED, Color.CRIMSON, Color.GREEN, Level.HIGH, Mode.FAST, Right.BOTH, Right(0), Bit(9), Bit(0), Bit.ONE),
        *(Point(1), Point(1, 2, ["a"]), Slots(1, Point(2)), Frozen(key="k", when=TWICE), Grown(1, z=2j), Empty()),
        *(Box(1), Box([Box("a")], (Box(1j),)), Made(4), OwnInit(3), [Made(1)] * 2, [OwnInit(i) for i in range(70)]),
        *(Pair(1), Pair(2, Pair(3)), Plain(1, "b", None), Nothing()),
        *(Inner(x=1), Model(Name="n", inner=Inner(x=2)), Extra(x=2, z=[1], a="b"), Extra(), Still(x=1)),
        made(Model(Name="n", inner=Inner(x=2), weights=np.ones(3), other={"k": Inner(x=4)}), _secret=9),
        *(Holder[int](content=3), Root({"a": 1}), Bare([1, 2]), PydanticData(1)),
        *(Attrs(3), Attrs(1, 2, 4), Hashed(3), OldAttrs(1)),
        *(Struct(1), Struct(1, [2]), Keywords(first_name="a"), Array(1), MixedStruct(1, z=2)),
        *(ValueError(1, "b"), KeyError("k"), noted(ZeroDivisionError("x")), Broken(3, more="m"), SlotError("a", 4)),
        *(AttrsError(1), UnicodeDecodeError("utf-8", b"ab", 0, 1, "why"), StopIteration(3), SystemExit(4)),
        *(missing, FileNotFoundError(2, "b", "name"), ImportError("i", name="n"), NameError("n"), AttributeError("x")),
        *(SyntaxError("s", ("f.py", 1, 2, "text")), ExceptionGroup("g", [ValueError(1), noted(TypeError())])),
        [Point(number, number / 2, [str(number)]) for number in range(100)],
        [Pair(number, np.ones(number % 3)) for number in range(64)],
        [Slots(number, Point(number) if number % 2 else None) for number in range(65)],
        [Inner(x=number) for number in range(64)],
        [Struct(number) for number in range(64)],
        [Keywords(first_name=str(number)) for number in range(64)],
        [Level.LOW] * 100,
    ]


def all_values() -> list[Any]:
    """All of the above."""
    return [*numbers(), *texts(), *containers(), *times(), *arrays(), *instances()]


# ── comparison ───────────────────────────────────────────────────────────────────────────────────────────────────────


def difference(one: Any, other: Any, path: str = "$") -> str | None:  # noqa: C901, PLR0911, PLR0912 - one line a kind
    """Where two values differ, to the type, the bit and the order; None where they do not."""
    if type(one) is not type(other) and not (isinstance(one, np.integer) and one.dtype == other.dtype):
        # C has two integers of 64 bits, and NumPy a class for each; on the wire they are one.
        return f"{path}: {type(one)} and {type(other)}"
    if isinstance(one, np.ma.MaskedArray):
        parts = [("data", one.data, other.data), ("mask", one.mask, other.mask)]
        parts += [("fill", one.fill_value, other.fill_value), ("hard", one.hardmask, other.hardmask)]
        return first(difference(a, b, f"{path}.{name}") for name, a, b in parts)
    if isinstance(one, np.ndarray | np.generic):
        same = (one.dtype, one.shape) == (other.dtype, other.shape) and bits(one) == bits(other)
        return None if same else f"{path}: {one!r} and {other!r}"
    if isinstance(one, memoryview):
        same = (one.format, one.shape, one.tobytes()) == (other.format, other.shape, other.tobytes())
        return None if same else f"{path}: {one!r}"
    if isinstance(one, enum.Enum):
        return None if one is other or (isinstance(one, enum.Flag) and one == other) else f"{path}: {one!r}, {other!r}"
    if isinstance(one, float):
        return None if struct.pack("<d", one) == struct.pack("<d", other) else f"{path}: {one!r} and {other!r}"
    if isinstance(one, complex):
        return difference([one.real, one.imag], [other.real, other.imag], path)
    if isinstance(one, Decimal):
        return None if str(one) == str(other) else f"{path}: {one!r} and {other!r}"
    if isinstance(one, set | frozenset):
        left, right = list(one), list(other)
        matched = [any(difference(a, b) is None for b in right) for a in left]
        return None if len(left) == len(right) and all(matched) else f"{path}: {one!r} and {other!r}"
    if isinstance(one, dict | types.MappingProxyType):
        kept = difference(getattr(one, "default_factory", None), getattr(other, "default_factory", None), path)
        return kept or difference([*one, *one.values()], [*other, *other.values()], f"{path}<keys and values>")
    if isinstance(one, list | tuple | collections.deque):
        if len(one) != len(other) or getattr(one, "maxlen", None) != getattr(other, "maxlen", None):
            return f"{path}: {len(one)} and {len(other)} items"
        return first(difference(a, b, f"{path}[{i}]") for i, (a, b) in enumerate(zip(one, other, strict=True)))
    if isinstance(one, dt.datetime | dt.time):
        text = difference([one.isoformat(), one.fold], [other.isoformat(), other.fold], path)
        return text or difference(one.tzinfo, other.tzinfo, f"{path}.tzinfo")
    if isinstance(one, BaseException):
        return difference(state_of_exception(one), state_of_exception(other), path)
    if isinstance(one, pydantic.BaseModel):
        parts_of = [(vars(m), m.model_fields_set, m.__pydantic_extra__, m.__pydantic_private__) for m in (one, other)]
        return difference(*parts_of, path)
    if isinstance(one, slice):
        return difference([one.start, one.stop, one.step], [other.start, other.stop, other.step], path)
    if (fields := fields_of(one)) is not None:
        return first(difference(getattr(one, key), getattr(other, key), f"{path}.{key}") for key in fields)
    if isinstance(one, argparse.Namespace | types.SimpleNamespace):
        return difference(vars(one), vars(other), path)
    if isinstance(one, type):
        return None if one is other else f"{path}: {one} and {other}"
    return None if one == other and repr(one) == repr(other) else f"{path}: {one!r} and {other!r}"


def first(found: typing.Iterable[str | None]) -> str | None:
    """The first difference of several."""
    return next(filter(None, found), None)


def bits(value: Any) -> list[bytes]:
    """The values of an array; gaps between fields, and the padding of long doubles, are not values."""
    value = np.asarray(value)
    if value.dtype.names is not None:
        return [data for name in value.dtype.names for data in bits(value[name])]
    if value.dtype in (np.dtype("g"), np.dtype("G")):
        raw = np.frombuffer(value.tobytes(), np.uint8).reshape(-1, 16)
        return [raw[:, :10].tobytes()]
    return [value.tobytes()]


def fields_of(value: Any) -> list[str] | None:
    """The names of what a value consists of, where its class says it."""
    if isinstance(value, msgspec.Struct):
        return list(value.__struct_fields__)
    if attrs.has(type(value)):
        return [found.name for found in attrs.fields(type(value))]
    if dataclasses.is_dataclass(value):
        return [found.name for found in dataclasses.fields(value)]
    return None


def state_of_exception(error: BaseException) -> list[Any]:
    """What an exception tells."""
    more = [name for base in type(error).__mro__ for name in getattr(base, "__slots__", ()) if name[0] != "_"]
    members = ("name", "path", "filename", "start", "reason", "value", "code", "lineno", "text", "errno", "exceptions")
    return [str(error), error.args, vars(error), [getattr(error, name, None) for name in (*members, *more)]]
