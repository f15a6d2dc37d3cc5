"""What FOBS does, asked of NVFLARE's own and of ours: a program that changes its import sees no difference."""

from __future__ import annotations

import importlib
import io
from collections import OrderedDict
from datetime import datetime
from enum import Enum, IntEnum

import numpy as np
import pytest


def again(fobs, value):
    return fobs.loads(fobs.dumps(value))


class Plain:
    def __init__(self, a, b=None):
        self.a = a
        self._b = b


class Items(dict):
    pass


class NeedsArguments(dict):
    def __init__(self, one, two):
        super().__init__(one=one)
        self.two = two


class Many(list):
    pass


class Color(Enum):
    RED = 1
    CRIMSON = 1  # noqa: PIE796 - an alias


class Level(IntEnum):
    LOW = 1


class Text(str, Enum):  # noqa: UP042 - as NVFLARE has them
    A = "a"


VALUES = [
    *(None, True, 7, -7, 0.5, "text", "é", b"bytes", [], {}, [1, [2, {"a": None}]], {1: 2, "b": [3]}),
    *((1, (2, 3)), {1, 2}, OrderedDict([("z", 1), ("a", (2,))]), datetime(2026, 1, 2, 3, 4, 5, 6)),  # noqa: DTZ001
    *(Color.RED, Level.LOW, Text.A, np.float32(0.5), np.int64(7)),
    *("x" * 100_000, b"x" * 100_000, list(range(1000))),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{type(value).__name__}-{str(value)[:10]}")
def test_values(fobs, value):
    found = again(fobs, [value])[0]
    assert type(found) is type(value)
    assert found == value


def test_arrays_can_be_written_to(fobs):
    for array in (np.arange(6, dtype=np.int32).reshape(2, 3), np.zeros(70_000), np.array(2.0), np.zeros((0, 3))):
        found = again(fobs, {"w": array})["w"]
        assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())
        assert found.flags.writeable


def test_classes_are_their_attributes(fobs):
    found = again(fobs, [Plain(1, b=(2, Plain(3)))])[0]
    assert type(found) is Plain
    assert (found.a, found._b[0], found._b[1].a) == (1, 2, 3)


def test_dictionaries_and_lists_with_attributes(fobs):
    items, many, needy = Items(x=(1,)), Many([1, {2}]), NeedsArguments("a", "b")
    items.note, many.note = "n", [3]
    found = again(fobs, [items, many, needy])
    assert found == [items, many, needy]
    assert [type(value) for value in found] == [Items, Many, NeedsArguments]
    assert (found[0].note, found[1].note, found[2].two) == ("n", [3], "b")


def test_dumping_registers(fobs):
    again(fobs, 1)  # the built-in ones may be registered by the first
    count = fobs.num_decomposers()
    data = fobs.dumps([Plain(1), Color.RED])
    assert fobs.num_decomposers() == count + 2
    assert fobs.loads(data)[0].a == 1
    fobs.dumps([Plain(2), Color.RED])
    assert fobs.num_decomposers() == count + 2


@pytest.mark.parametrize("value", [Plain(1), Color.RED], ids=["class", "enumeration"])
def test_after_reset_nothing_is_allowed_until_it_is_listed(fobs, value):
    data = fobs.dumps({"a": [value]})
    fobs.reset()
    with pytest.raises(ValueError, match=f"{type(value).__qualname__}' is not allowed"):
        fobs.loads(data)
    listed = fobs.register_enum_types if isinstance(value, Enum) else fobs.register_data_classes
    listed(type(value))
    assert type(fobs.loads(data)["a"][0]) is type(value)


def test_listed_by_name(fobs, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / f"listed_{fobs.__name__.partition('.')[0]}.py").write_text("class Listed:\n    a = 0\n")
    name = f"listed_{fobs.__name__.partition('.')[0]}"
    module = importlib.import_module(name)
    value = module.Listed()
    value.a = 5
    data = fobs.dumps(value)
    fobs.reset()
    with pytest.raises(ValueError, match="not allowed"):
        fobs.loads(data)
    fobs.add_type_name_whitelist(f"{name}.Listed")
    assert fobs.loads(data).a == 5
    fobs.reset()
    with pytest.raises(ValueError, match="not allowed"):
        fobs.loads(data)


def test_not_by_themselves(fobs):
    fobs.auto_register_enum_types(False)
    with pytest.raises(RuntimeError):
        fobs.dumps(Color.RED)
    fobs.fobs.auto_register_data_classes(False)
    with pytest.raises(RuntimeError):
        fobs.dumps(Plain(1))
    fobs.auto_register_enum_types(True)
    assert again(fobs, Color.RED) is Color.RED


@pytest.mark.parametrize(
    "value", [lambda: 0, int, len, object(), iter([])], ids=["function", "class", "builtin", "object", "iterator"]
)
def test_what_is_no_data(fobs, value):
    with pytest.raises(RuntimeError):
        fobs.dumps([value])


def test_only_enumerations_are_enumerations(fobs):
    with pytest.raises(TypeError):
        fobs.register_enum_types(Plain)
    with pytest.raises(TypeError):
        fobs.decomposer.EnumTypeDecomposer(Plain)


# ── decomposers ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_first_registration_stays(fobs, decomposer):
    first = decomposer(Plain, lambda obj, _: obj.a, lambda data, _: Plain(("first", data)))
    second = decomposer(Plain, lambda obj, _: obj.a, lambda data, _: Plain(("second", data)))
    fobs.register(first)
    count = fobs.num_decomposers()
    fobs.register(second())
    fobs.register_data_classes(Plain)
    assert fobs.num_decomposers() == count
    assert again(fobs, Plain(1)).a == ("first", 1)


def test_a_decomposer_must_be_registered_where_it_is_read(fobs, decomposer):
    fobs.register(decomposer(Plain, lambda obj, _: obj.a, lambda data, _: Plain(data)))
    data = fobs.dumps(Plain(1))
    fobs.reset()
    with pytest.raises(ValueError):
        fobs.loads(data)


def test_recursion_until_all_is_native(fobs, decomposer):
    fobs.register(decomposer(Plain, lambda obj, _: {"a": (obj.a, Color.RED)}, lambda data, _: Plain(data["a"])))
    assert again(fobs, [Plain({1, 2})])[0].a == ({1, 2}, Color.RED)


def test_a_decomposer_that_fails(fobs, decomposer):
    done = []

    def take(obj, manager):
        manager.register_post_cb(lambda manager, **given: done.append(given), note="called")
        raise KeyError("broken")

    fobs.register(decomposer(Plain, take, lambda data, _: None))
    with pytest.raises(RuntimeError, match="broken"):
        fobs.dumps({"a": Plain(1)})
    assert done == [{"note": "called"}]


def test_an_error_that_is_set(fobs, decomposer):
    fobs.register(decomposer(Plain, lambda obj, manager: manager.set_error("late") or 1, lambda data, _: data))
    with pytest.raises(RuntimeError, match="late"):
        fobs.dumps(Plain(1))


def test_callbacks_may_add_callbacks(fobs, decomposer):
    done = []

    def first(manager):
        done.append("first")
        manager.register_post_cb(second, number=2)

    def second(manager, number):
        done.append(number)

    def take(obj, manager):
        manager.register_post_cb(first)
        return 1

    fobs.register(decomposer(Plain, take, lambda data, _: data))
    assert again(fobs, Plain(1)) == 1
    assert done == ["first", 2]


def test_a_callback_that_fails(fobs, decomposer):
    def fails(manager):
        raise OSError("full")

    fobs.register(decomposer(Plain, lambda obj, manager: manager.register_post_cb(fails), lambda data, _: data))
    with pytest.raises(RuntimeError, match="fails"):
        fobs.dumps(Plain(1))


def test_the_context_reaches_decomposers(fobs, decomposer):
    seen = []

    def take(obj, manager):
        seen.append(manager.get_fobs_context()["side"])
        return obj.a

    def make(data, manager):
        seen.append(manager.get_fobs_context()["side"])
        return Plain(data)

    fobs.register(decomposer(Plain, take, make))
    fobs.loads(fobs.dumps(Plain(1), fobs_ctx={"side": "sender"}), fobs_ctx={"side": "receiver"})
    assert seen == ["sender", "receiver"]


def test_dictionaries_without_attributes(fobs):
    fobs.register(fobs.decomposer.DictDecomposer(Items))
    found = again(fobs, Items(a=(1, 2), b=Color.RED))
    assert type(found) is Items
    assert found == {"a": (1, 2), "b": Color.RED}


FOLDER = """
from {fobs} import Decomposer


class {name}:
    def __init__(self, a):
        self.a = a


class {name}Decomposer(Decomposer):
    def supported_type(self):
        return {name}

    def decompose(self, target, manager=None):
        return target.a

    def recompose(self, data, manager=None):
        return {name}(("by its decomposer", data))


class NeedsArguments({name}Decomposer):
    def __init__(self, cls):
        self.cls = cls
"""


def test_folders(fobs, tmp_path, monkeypatch, caplog):
    side = fobs.__name__.partition(".")[0]
    package = tmp_path / f"package_{side}"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "one.py").write_text(FOLDER.format(fobs=fobs.__name__, name="One"))
    (package / "broken.py").write_text("import fobs_no_such_package\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    fobs.register_folder(str(package), package.name)
    module = importlib.import_module(f"{package.name}.one")
    assert again(fobs, module.One(1)).a == ("by its decomposer", 1)

    custom = tmp_path / f"custom_{side}"
    (custom / "inner").mkdir(parents=True)
    (custom / "inner" / f"two_{side}.py").write_text(FOLDER.format(fobs=fobs.__name__, name="Two"))
    monkeypatch.syspath_prepend(str(custom))
    fobs.fobs.register_custom_folder(str(custom))
    module = importlib.import_module(f"inner.two_{side}")
    assert again(fobs, module.Two(2)).a == ("by its decomposer", 2)


# ── ways in and out ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_streams_and_files(fobs, tmp_path):
    value = {"a": [1, (2,)], "w": np.arange(5000.0)}
    stream = io.BytesIO()
    fobs.dump(value, stream)
    stream.seek(0)
    path = str(tmp_path / "value.fobs")
    fobs.dumpf(value, path)
    for found in (fobs.load(stream), fobs.loadf(path)):
        assert found["a"] == value["a"]
        assert np.array_equal(found["w"], value["w"])


@pytest.mark.parametrize("size", [1, 7, 1000, 1 << 20])
def test_buffers_in_any_split(fobs, size):
    value = {"a": b"x" * 5000, "w": np.arange(1000.0)}
    buffers = fobs.dumps(value, buffer_list=True)
    assert isinstance(buffers, list)
    data = b"".join(buffers)
    for split in (buffers, [data[start : start + size] for start in range(0, len(data), size)]):
        found = fobs.loads(split)
        assert found["a"] == value["a"]
        assert np.array_equal(found["w"], value["w"])


@pytest.mark.parametrize("data", [b"", b"\0", b"no such thing", b"\x64" + bytes(30)])
def test_what_is_no_object(fobs, data):
    with pytest.raises((RuntimeError, ValueError)):
        fobs.loads(data)
