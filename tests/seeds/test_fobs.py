"""The document's own examples for FOBS, with the import changed and completed where they leave something open.

The completions:

- ``dxo`` and ``shareable`` of the first example are made here, by NVFLARE's own classes;
- the second example's imports (``datetime``, ``Any``, ``Type``) stand at the top;
- ``FooDecomposer``, ``BarDecomposer``, ``CUSTOM_DATA`` and ``custom_data`` are named there and defined here.
"""

from __future__ import annotations

import argparse
import io
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Type  # noqa: UP035 - as the document has it

import numpy as np
import pytest

from fedpost.compat import fobs


@pytest.fixture(autouse=True)
def fresh():
    fobs.reset()
    yield
    fobs.reset()


def test_usage():
    nvflare = pytest.importorskip("nvflare", reason="the example dumps NVFLARE's own objects")
    from nvflare.apis.dxo import DXO, DataKind
    from nvflare.apis.shareable import Shareable

    assert nvflare
    dxo = DXO(DataKind.WEIGHTS, {"layer": np.arange(3.0)}, {"round": 1})
    shareable = Shareable({"key": "value"})

    data = fobs.dumps(dxo)
    new_dxo = fobs.loads(data)

    # Pickle/json compatible functions can be used also
    data = fobs.dumps(shareable)
    new_shareable = fobs.loads(data)

    assert (type(new_dxo), new_dxo.data_kind, new_dxo.meta) == (DXO, DataKind.WEIGHTS, {"round": 1})
    assert np.array_equal(new_dxo.data["layer"], np.arange(3.0))
    assert (type(new_shareable), new_shareable) == (Shareable, shareable)


def test_four_functions():
    stream = io.BytesIO()
    fobs.dump({"a": (1, 2)}, stream)
    assert stream.getvalue() == fobs.dumps({"a": (1, 2)})
    stream.seek(0)
    assert fobs.load(stream) == fobs.loads(stream.getvalue()) == {"a": (1, 2)}


def test_nothing_fits():
    class xxx:  # noqa: N801 - the document's name
        __slots__ = ()

    xxx.__module__ = "builtins"
    with pytest.raises(TypeError, match=r"can not serialize 'test_nothing_fits\.<locals>\.xxx' object"):
        fobs.dumps(xxx())


# ── "Here is an example of a simple decomposer" ──────────────────────────────────────────────────────────────────────


class Simple:
    def __init__(self, num: int, name: str, timestamp: datetime):
        self.num = num
        self.name = name
        self.timestamp = timestamp


class SimpleDecomposer(fobs.Decomposer):
    def supported_type(self) -> Type[Any]:  # noqa: UP006
        return Simple

    def decompose(self, obj, manager) -> Any:
        return [obj.num, obj.name, obj.timestamp]

    def recompose(self, data: Any, manager) -> Simple:
        return Simple(data[0], data[1], data[2])


def test_a_simple_decomposer():
    fobs.register(SimpleDecomposer)
    data = fobs.dumps(Simple(1, "foo", datetime.now()))  # noqa: DTZ005
    obj = fobs.loads(data)
    assert obj.num == 1
    assert obj.name == "foo"
    assert isinstance(obj.timestamp, datetime)


class Foo(Simple):
    pass


class Bar(Simple):
    pass


class FooDecomposer(SimpleDecomposer):
    def supported_type(self):
        return Foo


class BarDecomposer(SimpleDecomposer):
    def supported_type(self):
        return Bar


def test_class_and_instance(caplog):
    fobs.register(FooDecomposer)
    fobs.register(BarDecomposer())
    assert fobs.num_decomposers() == 2
    assert caplog.text == ""
    # "Only first one takes effect, the others are ignored with a warning message."
    fobs.register(FooDecomposer())
    fobs.register(BarDecomposer)
    assert fobs.num_decomposers() == 2
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]


# ── types ────────────────────────────────────────────────────────────────────────────────────────────────────────────

NATIVE = [None, True, 7, 0.5, "text", b"bytes", bytearray(b"array"), memoryview(b"view"), [1, [2]], {"a": {1: 2}}]
INCLUDED = [
    (1, (2,)),
    {1, 2},
    OrderedDict([("b", 1), ("a", 2)]),
    datetime(2026, 1, 2, 3, 4, 5, 6),  # noqa: DTZ001
    argparse.Namespace(a=1, b=[2]),
    *(np.float32(0.5), np.float64(0.25), np.int32(-3), np.int64(1 << 40)),
]


@pytest.mark.parametrize("value", NATIVE + INCLUDED, ids=lambda value: type(value).__name__)
def test_types_that_come_back(value):
    found = fobs.loads(fobs.dumps({"x": [value]}))["x"][0]
    assert type(found) is type(value)
    assert found == value


def test_arrays():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    found = fobs.loads(fobs.dumps(array))
    assert (found.dtype, found.tobytes()) == (array.dtype, array.tobytes())


class Color(Enum):
    RED = 1


@dataclass
class Student:
    name: str
    height: int


def test_enumerations_and_dataclasses_by_themselves():
    found = fobs.loads(fobs.dumps([Color.RED, Student("Ada", 170)]))
    assert found == [Color.RED, Student("Ada", 170)]
    assert found[0] is Color.RED


def test_a_special_decomposer_of_an_enumeration():
    class ByNumber(fobs.Decomposer):
        def supported_type(self):
            return Color

        def decompose(self, target, manager=None):
            return target.value

        def recompose(self, data, manager=None):
            return Color(data)

    generic = fobs.dumps(Color.RED)
    fobs.register(ByNumber)  # "This will prevent FOBS from using the generic decomposer for that class."
    data = fobs.dumps(Color.RED)
    assert b"RED" in generic
    assert b"RED" not in data
    assert fobs.loads(data) is Color.RED


def test_custom_types_in_a_shareable():
    pytest.importorskip("nvflare", reason="the example's shareable is NVFLARE's")
    from nvflare.apis.shareable import Shareable

    CUSTOM_DATA = "custom_data"  # noqa: N806 - the document's name
    fobs.register(SimpleDecomposer)
    custom_data = Simple(1, "foo", None)
    shareable = Shareable()

    shareable[CUSTOM_DATA] = fobs.dumps(custom_data)

    shareable = fobs.loads(fobs.dumps(shareable))

    custom_data = fobs.loads(shareable[CUSTOM_DATA])
    assert (custom_data.num, custom_data.name) == (1, "foo")


def test_fobs_initialize():
    fobs.fobs_initialize()
    fobs.fobs_initialize()
    assert fobs.loads(fobs.dumps({"a": 1})) == {"a": 1}


def test_loops_and_cycles_are_told():
    class X:
        pass

    class Y:
        pass

    def decomposer(one, other):
        class Into(fobs.Decomposer):
            def supported_type(self):
                return one

            def decompose(self, target, manager=None):
                return other()

            def recompose(self, data, manager=None):
                return one()

        return Into

    fobs.register(decomposer(X, Y))
    fobs.register(decomposer(Y, X))
    with pytest.raises(TypeError, match=r"decomposers form a loop: \S+X → \S+Y → \S+X|\S+Y → \S+X → \S+Y"):
        fobs.dumps({"a": X()})
    value = {"a": []}
    value["a"].append(value)
    with pytest.raises(TypeError, match=r"\$\.a\[0\]: refers back to \$, a cycle"):
        fobs.dumps(value)


def test_items_over_the_threshold():
    manager = fobs.DatumManager(threshold=4096)
    data = fobs.serialize({"small": b"a", "large": b"b" * 5000}, manager)
    ((identity, datum),) = manager.get_datums().items()
    assert (datum.datum_id, datum.datum_type, bytes(datum.value)) == (identity, fobs.DatumType.BLOB, b"b" * 5000)
    assert len(data) < 1000
    receiver = fobs.DatumManager()
    receiver.add_datum(datum)
    assert fobs.deserialize(data, receiver) == {"small": b"a", "large": b"b" * 5000}
