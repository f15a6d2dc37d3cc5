"""The bytes of ``fedpost.compat.fobs``: buffers, streams, files, budgets; and where its functions are imported from."""

from __future__ import annotations

import importlib
import io
from collections import OrderedDict
from datetime import UTC, datetime

import numpy as np
import pytest

from fedpost.compat import fobs
from fedpost.errors import ConfigError, EncodeError
from fedpost.frame import Frame, Limits


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    monkeypatch.setenv("NVFLARE_DATUM_DIR", str(tmp_path / "datums"))
    fobs.reset()
    yield
    fobs.reset()


def again(value):
    return fobs.loads(fobs.dumps(value))


def test_buffers_share_memory():
    array = np.arange(100_000.0)
    buffers = fobs.dumps({"w": array}, buffer_list=True)
    assert any(np.shares_memory(np.frombuffer(buffer, np.uint8), array) for buffer in buffers if len(buffer) > 100_000)


def test_a_frame_like_any_other(tmp_path):
    path = tmp_path / "value"
    fobs.dumpf({"w": np.zeros(5000)}, str(path))
    frame = Frame.open(path)
    assert frame.section_names == ("object",)
    assert list(path.parent.glob(".*")) == []


def test_what_loads_takes():
    data = fobs.dumps([1])
    for given in (data, bytearray(data), memoryview(data), [data], [memoryview(data)[:9], bytearray(data[9:])]):
        assert fobs.loads(given) == [1]
    with pytest.raises(TypeError, match="bytes or a list of buffers"):
        fobs.loads("text")


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        fobs.loadf(str(tmp_path / "missing"))


def test_a_larger_budget():
    value = list(range(200_000))
    data = fobs.dumps(value)
    with pytest.raises(ValueError, match="max_items"):
        fobs.loads(data, fobs_ctx={fobs.FOBSContextKey.LIMITS: Limits(max_items=1000)})
    assert fobs.loads(data, fobs_ctx={fobs.FOBSContextKey.LIMITS: Limits(max_items=1 << 30)}) == value


class Defaults(dict):
    def __init__(self):
        super().__init__(made="by the constructor")


def test_a_dictionary_has_what_it_had():
    """FOBS brings back what the constructor puts in."""
    fobs.register(fobs.DictDecomposer(Defaults))
    value = Defaults()
    del value["made"]
    assert (type(again(value)), again(value)) == (Defaults, {})


def test_streams_end():
    stream = io.BytesIO()
    fobs.serialize_stream([1], stream)
    stream.seek(0)
    assert fobs.deserialize_stream(stream) == [1]


class Piecemeal(io.RawIOBase):
    """Takes some bytes at a time, as a pipe does; after ``most`` nothing more."""

    def __init__(self, most=None):
        self.data = bytearray()
        self.most = most

    def writable(self):
        return True

    def write(self, data):
        if self.most is not None and len(self.data) >= self.most:
            return None
        part = bytes(data[:1000])
        self.data += part
        return len(part)


@pytest.mark.parametrize("write", [fobs.dump, fobs.serialize_stream])
def test_streams_that_take_a_part(write, tmp_path):
    value = {"w": np.arange(5000.0), "b": b"b" * 9000}
    stream = Piecemeal()
    write(value, stream)
    assert np.array_equal(fobs.loads(bytes(stream.data))["w"], value["w"])
    with pytest.raises(BlockingIOError, match="takes no more"):
        write(value, Piecemeal(most=2000))
    with (tmp_path / "raw").open("wb", buffering=0) as file:
        write(value, file)
    assert fobs.loadf(str(tmp_path / "raw"))["b"] == value["b"]


def test_streams_that_do_not_count():
    parts = []

    class Silent:
        def write(self, data):
            parts.append(bytes(data))

    fobs.dump([b"x" * 9000, 1], Silent())
    assert fobs.loads(b"".join(parts)) == [b"x" * 9000, 1]


def test_what_is_loaded_from_nothing_is_an_error_of_the_original():
    for error in (RuntimeError, TypeError, ValueError, ConfigError):
        with pytest.raises(error, match="bytes or a list of buffers were expected"):
            fobs.loads(None)


def test_arguments_for_msgpack_are_ignored():
    data = fobs.serialize({"a": 1}, None, use_bin_type=True)
    assert fobs.deserialize(data, None, raw=False) == {"a": 1}
    stream = io.BytesIO()
    fobs.serialize_stream({"a": 1}, stream, use_bin_type=True)
    stream.seek(0)
    assert fobs.deserialize_stream(stream, raw=False) == {"a": 1}


_INNER = {"get_datum_dir", "new_empty_container", "T"}


@pytest.mark.parametrize("name", ["lobs", "fobs", "datum", "decomposer"])
def test_the_modules_of_the_original(name):
    theirs = pytest.importorskip(f"nvflare.fuel.utils.fobs.{name}")
    ours = importlib.import_module(f"fedpost.compat.fobs.{name}")
    public = getattr(theirs, "__all__", None) or [
        key
        for key, value in vars(theirs).items()
        if key[0].isalpha() and getattr(value, "__module__", None) == theirs.__name__ and key not in _INNER
    ]
    assert set(public) - set(vars(ours)) == set()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TupleDecomposer", (1, 2)),
        ("SetDecomposer", {1, 2}),
        ("OrderedDictDecomposer", OrderedDict(b=1, a=2)),
        ("DatetimeDecomposer", datetime(2026, 1, 2, 3, 4, 5, 6, UTC)),
    ],
)
def test_the_decomposers_of_the_original(name, value):
    module = importlib.import_module("fedpost.compat.fobs.decomposers.core_decomposers")
    decomposer = getattr(module, name)()
    found = decomposer.recompose(decomposer.decompose(value))
    assert (type(found), found) == (type(value), value)
    fobs.register(decomposer)
    assert again([value]) == [value]


@pytest.mark.parametrize("base", [str, int])
def test_subclasses_of_native_types_are_not_emptied(base):
    """The original gives an empty text and 0."""
    with pytest.raises(EncodeError, match="can not serialize"):
        fobs.dumps([type("Named", (base,), {})("7")])
