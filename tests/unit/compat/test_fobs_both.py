"""What FOBS does, asked of NVFLARE's own and of ours: a program that changes its import sees no difference."""

from __future__ import annotations

import importlib
import io
import warnings
from collections import OrderedDict
from datetime import datetime
from enum import Enum, IntEnum
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(params=["nvflare.fuel.utils.fobs", "fedpost.compat.fobs"], ids=["nvflare", "fedpost"])
def fobs(request, tmp_path, monkeypatch):
    monkeypatch.setenv("NVFLARE_DATUM_DIR", str(tmp_path / "datums"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NVFLARE's own
            module = importlib.import_module(request.param)
            for name in ("datum", "decomposer", "fobs") if request.param.startswith("nv") else ("datum", "decomposer"):
                importlib.import_module(f"{request.param}.{name}")
            if request.param.startswith("nv"):
                scalars = importlib.import_module("nvflare.app_common.decomposers.numpy_decomposers")
    except ImportError:
        pytest.skip("NVFLARE is not installed")
    module.reset()
    if request.param.startswith("nv"):
        for name in ("Float32ScalarDecomposer", "Int64ScalarDecomposer", "NumpyArrayDecomposer"):
            module.register(getattr(scalars, name))
    yield module
    module.auto_register_enum_types(True)
    switch(module, enabled=True)
    module.reset()


def switch(fobs, *, enabled):
    """``auto_register_data_classes``: NVFLARE's package does not export it."""
    (getattr(fobs, "auto_register_data_classes", None) or fobs.fobs.auto_register_data_classes)(enabled)


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
    switch(fobs, enabled=False)
    with pytest.raises(RuntimeError):
        fobs.dumps(Plain(1))
    fobs.auto_register_enum_types(True)
    assert again(fobs, Color.RED) is Color.RED


@pytest.mark.parametrize("value", [lambda: 0, int, len, object(), iter([])], ids=str)
def test_what_is_no_data(fobs, value):
    with pytest.raises(RuntimeError):
        fobs.dumps([value])


def test_only_enumerations_are_enumerations(fobs):
    with pytest.raises(TypeError):
        fobs.register_enum_types(Plain)
    with pytest.raises(TypeError):
        fobs.decomposer.EnumTypeDecomposer(Plain)


# ── decomposers ──────────────────────────────────────────────────────────────────────────────────────────────────────


def decomposer(fobs, cls, take, make):
    class Made(fobs.Decomposer):
        def supported_type(self):
            return cls

        def decompose(self, target, manager=None):
            return take(target, manager)

        def recompose(self, data, manager=None):
            return make(data, manager)

    return Made


def test_the_first_registration_stays(fobs):
    first = decomposer(fobs, Plain, lambda obj, _: obj.a, lambda data, _: Plain(("first", data)))
    second = decomposer(fobs, Plain, lambda obj, _: obj.a, lambda data, _: Plain(("second", data)))
    fobs.register(first)
    count = fobs.num_decomposers()
    fobs.register(second())
    fobs.register_data_classes(Plain)
    assert fobs.num_decomposers() == count
    assert again(fobs, Plain(1)).a == ("first", 1)


def test_a_decomposer_must_be_registered_where_it_is_read(fobs):
    fobs.register(decomposer(fobs, Plain, lambda obj, _: obj.a, lambda data, _: Plain(data)))
    data = fobs.dumps(Plain(1))
    fobs.reset()
    with pytest.raises(ValueError):
        fobs.loads(data)


def test_recursion_until_all_is_native(fobs):
    fobs.register(decomposer(fobs, Plain, lambda obj, _: {"a": (obj.a, Color.RED)}, lambda data, _: Plain(data["a"])))
    assert again(fobs, [Plain({1, 2})])[0].a == ({1, 2}, Color.RED)


def test_a_decomposer_that_fails(fobs):
    done = []

    def take(obj, manager):
        manager.register_post_cb(lambda manager, **given: done.append(given), note="called")
        raise KeyError("broken")

    fobs.register(decomposer(fobs, Plain, take, lambda data, _: None))
    with pytest.raises(RuntimeError, match="broken"):
        fobs.dumps({"a": Plain(1)})
    assert done == [{"note": "called"}]


def test_an_error_that_is_set(fobs):
    fobs.register(decomposer(fobs, Plain, lambda obj, manager: manager.set_error("late") or 1, lambda data, _: data))
    with pytest.raises(RuntimeError, match="late"):
        fobs.dumps(Plain(1))


def test_callbacks_may_add_callbacks(fobs):
    done = []

    def first(manager):
        done.append("first")
        manager.register_post_cb(second, number=2)

    def second(manager, number):
        done.append(number)

    def take(obj, manager):
        manager.register_post_cb(first)
        return 1

    fobs.register(decomposer(fobs, Plain, take, lambda data, _: data))
    assert again(fobs, Plain(1)) == 1
    assert done == ["first", 2]


def test_a_callback_that_fails(fobs):
    def fails(manager):
        raise OSError("full")

    fobs.register(decomposer(fobs, Plain, lambda obj, manager: manager.register_post_cb(fails), lambda data, _: data))
    with pytest.raises(RuntimeError, match="fails"):
        fobs.dumps(Plain(1))


def test_the_context_reaches_decomposers(fobs):
    seen = []

    def take(obj, manager):
        seen.append(manager.get_fobs_context()["side"])
        return obj.a

    def make(data, manager):
        seen.append(manager.get_fobs_context()["side"])
        return Plain(data)

    fobs.register(decomposer(fobs, Plain, take, make))
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
    (getattr(fobs, "register_custom_folder", None) or fobs.fobs.register_custom_folder)(str(custom))
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


# ── datums ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_thresholds(fobs):
    manager = fobs.datum.DatumManager
    assert manager().threshold == 10 << 20
    assert manager(2048).threshold == 2048
    with pytest.raises(ValueError, match="at least 1024"):
        manager(1000)
    with pytest.raises(TypeError, match="must be int"):
        manager("1 MB")
    with pytest.raises(ValueError, match="at least 1024"):
        fobs.dumps({}, max_value_size=10)


def test_a_manager_keeps_what_is_large(fobs):
    manager = fobs.datum.DatumManager(2048)
    kind = fobs.datum.DatumType
    small, text, blob = (
        manager.externalize("a" * 2047),
        manager.externalize("a" * 2048),
        manager.externalize(b"b" * 3000),
    )
    assert small == "a" * 2047
    assert [type(ref) for ref in (text, blob)] == [fobs.datum.DatumRef] * 2
    datums = manager.get_datums()
    assert [(datum.datum_type, len(datum.value)) for datum in datums.values()] == [(kind.TEXT, 2048), (kind.BLOB, 3000)]
    assert manager.internalize(text) == "a" * 2048
    assert manager.internalize(small) is small
    assert manager.get_datum(blob.datum_id).value == b"b" * 3000
    own = fobs.datum.Datum.file_datum("/some/path", dot=3)
    assert manager.internalize(manager.externalize(own)) is own
    with pytest.raises(RuntimeError, match="can't find datum"):
        fobs.datum.DatumManager().internalize(text)


def test_externalizer_and_internalizer(fobs):
    manager = fobs.datum.DatumManager(1024)
    items = Items(a=["x" * 2000, {"b": b"y" * 2000}], c=1)
    items.note = "z" * 2000
    out = fobs.decomposer.Externalizer(manager).externalize(items)
    assert len(manager.get_datums()) == 3
    assert items["a"][0] == "x" * 2000, "what it was given stays as it is"
    assert (type(out), out["c"]) == (Items, 1)
    back = fobs.decomposer.Internalizer(manager).internalize(out)
    assert back == items
    assert fobs.decomposer.Externalizer(None).externalize(items) is items


@pytest.mark.parametrize("value", ["x" * 5000, b"y" * 5000, ["x" * 5000, {"deep": b"y" * 5000}]], ids=["s", "b", "n"])
def test_values_over_the_threshold_travel(fobs, value):
    def take(obj, manager):
        return fobs.decomposer.Externalizer(manager).externalize(obj.a)

    def make(data, manager):
        return Plain(fobs.decomposer.Internalizer(manager).internalize(data))

    fobs.register(decomposer(fobs, Plain, take, make))
    found = fobs.loads(fobs.dumps([Plain(value), Plain(1)], max_value_size=1024))
    assert found[0].a == value
    assert found[1].a == 1


def test_a_programs_own_datums_travel(fobs, tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(b"w" * 10_000)
    datum = fobs.datum.Datum

    def take(obj, manager):
        return [datum.blob_datum(b"blob"), datum.text_datum("téxt"), {"file": datum.file_datum(str(path))}]

    def make(data, manager):
        return Plain(data)

    def whole(obj, manager):
        return fobs.decomposer.Externalizer(manager).externalize(take(obj, manager))

    def back(data, manager):
        return make(fobs.decomposer.Internalizer(manager).internalize(data), manager)

    fobs.register(decomposer(fobs, Plain, whole, back))
    blob, text, files = again(fobs, Plain(None)).a
    kind = fobs.datum.DatumType
    assert (blob.datum_type, blob.value) == (kind.BLOB, b"blob")
    assert (text.datum_type, text.value) == (kind.TEXT, "téxt")
    assert files["file"].datum_type is kind.FILE
    assert files["file"].value != str(path)
    assert Path(files["file"].value).read_bytes() == b"w" * 10_000


def test_a_carrier_of_datums(fobs):
    """With a manager of the caller's, the datums are the caller's to carry."""

    def take(obj, manager):
        return fobs.decomposer.Externalizer(manager).externalize({"a": obj.a})

    def make(data, manager):
        return Plain(fobs.decomposer.Internalizer(manager).internalize(data)["a"])

    fobs.register(decomposer(fobs, Plain, take, make))
    sender = fobs.datum.DatumManager(4096)
    data = fobs.serialize([Plain(b"x" * 10_000)], sender)
    assert len(data) < 1000
    (sent,) = sender.get_datums().values()
    assert bytes(sent.value) == b"x" * 10_000
    with pytest.raises(RuntimeError, match="can't find datum"):
        fobs.deserialize(data, fobs.datum.DatumManager())
    receiver = fobs.datum.DatumManager()
    receiver.add_datum(sent)
    assert fobs.deserialize(data, receiver)[0].a == b"x" * 10_000
    stream = io.BytesIO()
    fobs.serialize_stream({"a": 1}, stream, fobs.datum.DatumManager())
    stream.seek(0)
    assert fobs.deserialize_stream(stream, fobs.datum.DatumManager()) == {"a": 1}


def test_datums_that_somebody_processes(fobs):
    """A decomposer sends all its items in one datum, which comes before the object is built."""

    class Batch(fobs.Decomposer):
        def supported_type(self):
            return Plain

        def supported_dots(self):
            return [77]

        def process_datum(self, datum, manager):
            manager.get_fobs_context()["items"] = datum.value.split(",")

        def decompose(self, target, manager=None):
            items = manager.get_fobs_context().setdefault("items", [])
            if not items:
                manager.register_post_cb(self.finish)
            items.append(target.a)
            return len(items) - 1

        def finish(self, manager):
            items = manager.get_fobs_context()["items"]
            manager.add_datum(fobs.datum.Datum.text_datum(",".join(items), 77))

        def recompose(self, data, manager=None):
            return Plain(manager.get_fobs_context()["items"][data])

    fobs.register(Batch)
    assert type(fobs.get_dot_handler(77)) is Batch
    assert fobs.get_dot_handler(78) is None
    data = fobs.dumps([Plain("a"), {"b": Plain("b")}], fobs_ctx={"x": 1})
    found = fobs.loads(data)
    assert (found[0].a, found[1]["b"].a) == ("a", "b")
    fobs.reset()
    with pytest.raises((RuntimeError, ValueError)):
        fobs.loads(data)
