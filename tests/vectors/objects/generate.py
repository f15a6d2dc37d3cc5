"""What the frozen objects hold. ``python tests/vectors/objects/generate.py`` writes what is missing.

Rules: a frame that is there is never written again; a class below never changes its name or its fields.
"""

from __future__ import annotations

import argparse
import collections
import datetime as dt
import enum
import importlib.util
import json
import math
import sys
import uuid
import zoneinfo
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any, NamedTuple

import attrs
import ml_dtypes
import msgspec
import numpy as np
import pydantic

from fedpost.objects import TypeRegistry, new_registry, register, to_frame

HERE = Path(__file__).parent


@dataclass
class Point:
    x: int
    y: float = 0.5
    names: list[str] = field(default_factory=list)


class Pair(NamedTuple):
    left: Any
    right: Any = None


class Color(enum.Enum):
    RED = "r"
    GREEN = "g"


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    x: int
    y: list[float] = []
    _private: int = 3


@attrs.define
class Attrs:
    _hidden: int
    x: str = "a"


class Struct(msgspec.Struct, kw_only=True):
    x: int
    y: int | None = None


CLASSES = (Point, Pair, Color, Right, Model, Attrs, Struct)


def registry() -> TypeRegistry:
    """The registry of the vectors."""
    out = new_registry()
    for cls in CLASSES:
        register(cls, name=f"vector.{cls.__name__}", registry=out)
    return out


def model() -> Model:
    out = Model(x=1, z="extra")
    out._private = 5
    return out


def error() -> ValueError:
    out = ValueError("wrong", 3)
    out.add_note("on site 3")
    return out


def shared() -> Any:
    weights, data = np.arange(2000, dtype=np.float32), bytes(range(256)) * 20
    return {"a": weights, "b": [weights, (data, data)], "c": bytearray(5)}


ARRAY = np.arange(6, dtype=np.int16).reshape(2, 3)
CASES: dict[str, Any] = {
    "tuple": lambda: (1, [2**70]),
    "plain": lambda: {
        "n": None,
        "b": [True, False],
        "i": [0, -1, 2**64 - 1, -(2**63)],
        "t": "é名",
        "e": {},
        "y": b"\0",
    },
    "numbers": lambda: [
        *(2**64, -(2**63) - 1, 2**200, -0.0, math.inf, 1.5, 1 - 2j, Decimal("-0.10"), Decimal("sNaN12")),
        *(Fraction(-1, 3), range(1, 9, 2), slice(None, 3), ...),
    ],
    "texts": lambda: ["xé" * 2000, "\ud800", b"y" * 5000, bytearray(b"ab"), memoryview(np.arange(3.0)), "short"],
    "containers": lambda: [
        *((), (1, (2,)), {3}, frozenset({"a"}), {1: "a", (2, "b"): [None], b"k": {}}),
        *(collections.OrderedDict(b=1, a=2), collections.Counter("aab"), collections.defaultdict(list, {"k": [1]})),
        *(collections.deque([1, 2], 5), argparse.Namespace(a=1)),
    ],
    "moments": lambda: [
        *(dt.date(2026, 1, 2), dt.time(3, 4, 5, 6), dt.datetime(2026, 1, 2, 3, 4), dt.datetime.min),  # noqa: DTZ001, DTZ901 - without a zone too
        *(dt.time(1, 2, fold=1), dt.datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"))),
    ],
    "times": lambda: [
        *(
            dt.date(2026, 1, 2),
            dt.time(3, 4, 5, 6),
            dt.datetime(2026, 1, 2, 3, 4, tzinfo=dt.UTC),
            dt.timedelta(1, 2, 3),
        ),
        dt.datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
        dt.timezone(dt.timedelta(hours=1), "CET"),
    ],
    "names": lambda: [uuid.UUID(int=5), PurePosixPath("a/b")],
    "arrays": lambda: [
        *(ARRAY, ARRAY.T, np.array(2.5, ">f8"), np.zeros((0, 3)), np.ones(3, ml_dtypes.bfloat16), np.array(["é", ""])),
        *(np.float16(1.5), np.int8(-1), np.bool_(True), np.datetime64("2026-01-02"), np.array([(1, 2)], "i4,f8")),
        *(np.ones((40, 50)), np.ones((40, 50)).T, np.ma.MaskedArray([1, 2], [True, False], fill_value=9)),
    ],
    "instances": lambda: [
        *(Point(1), Point(2, 3, ["a"]), Pair(1, Pair(2)), Color.GREEN, Right.READ | Right.WRITE, model(), Attrs(1)),
        *(Struct(x=1), error()),
    ],
    "records": lambda: [Point(number, number / 2, [str(number)]) for number in range(64)],
    "numbers_in_lists": lambda: {
        **{f"int{bits}": [(number % 256 - 128) << bits - 8 for number in range(1024)] for bits in (8, 16, 32, 64)},
        "uint64": [2**64 - 1 - number for number in range(1024)],
        "float": [number / 7 for number in range(1022)] + [math.inf, -0.0],
        "in a tuple": tuple(range(1024)),
    },
    "tuples": lambda: [
        *([(number, str(number), (number, None)) for number in range(64)], {(number, "k"): [] for number in range(64)}),
        *([()] * 64, [(1,)] * 63 + [(1, 2)]),
    ],
    "repeated": lambda: ["y" * 5000] * 2 + [Color.RED, Color.GREEN, Color.RED] + [Color.RED, Color.GREEN] * 40,
    "shared": shared,
    "large_tree": lambda: [shared(), ["a text of some length " * 20 for _ in range(160)]],
}
# The same with every row in the table, which a writer may do.
CASES |= {f"{name}_in_table": CASES[name] for name in ("arrays", "containers", "instances")}


def load(path: Path, name: str) -> ModuleType:
    """A script as a module."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Write the files that are missing."""
    container, reader = load(HERE.parent / "reader.py", "vectors_reader"), load(HERE / "reader.py", "objects_reader")
    for name, make in CASES.items():
        path = HERE / f"{name}.frame"
        if path.exists():
            continue
        data = bytes(to_frame(make(), registry=registry(), compression="zstd(3)" if name == "large_tree" else None))
        described = json.dumps(reader.read_object(data, container))
        with path.with_suffix(".json").open("x") as file:
            file.write(described + "\n")
        with path.open("xb") as file:
            file.write(data)


if __name__ == "__main__":
    main()
