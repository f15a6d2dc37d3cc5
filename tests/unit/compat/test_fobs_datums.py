"""What is kept beside an object: datums that travel with it, and those that somebody carries."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest

from fedpost.compat import fobs


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


class Keeps(fobs.Decomposer):
    """Whatever the instance has goes through the manager."""

    def supported_type(self):
        return Plain

    def decompose(self, target, manager=None):
        return fobs.Externalizer(manager).externalize(target.a)

    def recompose(self, data, manager=None):
        return Plain(data)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_large_values_keep_their_type(kind):
    fobs.register(Keeps)
    found = fobs.loads(fobs.dumps(Plain([kind(b"x" * 9000)]), max_value_size=1024)).a[0]
    assert type(found) is kind
    assert found == b"x" * 9000


def test_one_datum_twice():
    datum = fobs.Datum.blob_datum(b"x" * 9000)
    data = fobs.dumps([datum, {"again": datum}])
    assert data.count(b"x" * 9000) == 1
    found = fobs.loads(data)
    assert found[0] is found[1]["again"]
    assert found[0].datum_id == datum.datum_id


def test_empty_files_and_missing_files(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    found = again(fobs.Datum.file_datum(str(tmp_path / "empty")))
    assert Path(found.value).read_bytes() == b""
    for wrong in (str(tmp_path / "missing"), str(tmp_path), None):
        with pytest.raises(RuntimeError, match="file of a datum cannot be read"):
            fobs.dumps([fobs.Datum.file_datum(wrong)])


def test_datums_that_are_none():
    for wrong in (fobs.Datum.text_datum(b"bytes"), fobs.Datum.blob_datum("text"), fobs.Datum.blob_datum(None)):
        with pytest.raises(RuntimeError, match="a datum of type"):
            fobs.dumps(wrong)
    named = fobs.Datum.blob_datum(b"")
    named.datum_id = "no uuid"
    with pytest.raises(RuntimeError, match="is not the id of a datum"):
        fobs.dumps(named)
    with pytest.raises(RuntimeError, match="the manager has no datum"):
        fobs.dumps(fobs.DatumRef(fobs.Datum.blob_datum(b"").datum_id))


def test_text_that_nothing_refers_to(tmp_path):
    class Leaves(Keeps):
        def decompose(self, target, manager=None):
            manager.register_post_cb(lambda manager: manager.add_datum(fobs.Datum.text_datum("é")))
            return 5

        def recompose(self, data, manager=None):
            return [datum.value for datum in manager.get_datums().values()]

    fobs.register(Leaves)
    assert again(Plain()) == ["é"]


def test_a_manager_and_an_array():
    value = {"w": np.arange(3000.0), "t": "é" * 5000, "b": bytearray(b"b" * 9000), "s": b"s"}
    sender = fobs.DatumManager(4096)
    data = fobs.serialize(value, sender)
    assert sorted(len(datum.value) for datum in sender.get_datums().values()) == [9000, 10_000, 24_000]
    receiver = fobs.DatumManager()
    for datum in sender.get_datums().values():
        receiver.add_datum(datum)
    found = fobs.deserialize(data, receiver)
    assert np.array_equal(found["w"], value["w"])
    found["w"][0] = 7
    assert value["w"][0] == 0, "the sender's array stays as it is"
    assert {key: (type(found[key]), found[key]) for key in "tbs"} == {
        key: (type(value[key]), value[key]) for key in "tbs"
    }


def test_a_manager_that_has_files(tmp_path):
    """Datums that came as files are mapped; what is written to an array does not reach the file."""
    sender = fobs.DatumManager(4096)
    data = fobs.serialize([np.arange(3000.0)], sender)
    receiver = fobs.DatumManager()
    for datum in sender.get_datums().values():
        (tmp_path / datum.datum_id).write_bytes(datum.value)
        received = fobs.Datum.file_datum(str(tmp_path / datum.datum_id))
        received.datum_id = datum.datum_id
        receiver.add_datum(received)
    (found,) = fobs.deserialize(data, receiver)
    found[0] = 7
    assert found.sum() == np.arange(3000.0).sum() + 7
    assert np.fromfile(received.value)[0] == 0


def test_own_datums_and_a_carrier():
    datum = fobs.Datum.text_datum("own")
    sender = fobs.DatumManager()
    data = fobs.serialize({"d": datum}, sender)
    assert sender.get_datum(datum.datum_id) is datum
    with pytest.raises(RuntimeError, match="can't find datum"):
        fobs.deserialize(data, fobs.DatumManager())
    receiver = fobs.DatumManager()
    receiver.add_datum(datum)
    assert fobs.deserialize(data, receiver)["d"] is datum
    with pytest.raises(ValueError, match="where a manager was given for it"):
        fobs.deserialize(fobs.dumps({"d": datum}), receiver)


def test_the_callers_context_is_the_callers():
    context = {}
    fobs.register(Keeps)
    manager = fobs.DatumManager(fobs_ctx=context)
    assert manager.get_fobs_context() is context
    with pytest.raises(TypeError, match="cb is not callable"):
        manager.register_post_cb("no function")
    manager.set_error("first")
    manager.set_error("second")
    assert manager.get_error() == "first"


def test_an_error_while_reading():
    class Fails(Keeps):
        def recompose(self, data, manager=None):
            manager.set_error("too late")

    fobs.register(Fails)
    data = fobs.dumps(Plain())
    with pytest.raises(ValueError, match="too late"):
        fobs.loads(data)


def test_a_handler_that_fails():
    class Fails(Keeps):
        def supported_dots(self):
            return [9]

        def process_datum(self, datum, manager):
            assert datum.value == "other"

    fobs.register(Fails)
    data = fobs.dumps(fobs.Datum.text_datum("text", dot=9))
    with pytest.raises(ValueError, match="a datum that cannot be processed: AssertionError"):
        fobs.loads(data)


@pytest.mark.parametrize("rare", [1 << 70, "\ud800"], ids=["integer", "text"])
@pytest.mark.parametrize("wrap", [lambda datum: datum, Plain], ids=["datum", "reference"])
def test_beside_what_is_rarely_written(rare, wrap):
    """Such values may make the writer look at everything twice; a datum travels all the same, and once."""
    fobs.register(Keeps)
    datum = fobs.Datum.blob_datum(b"x" * 9000)
    data = fobs.dumps([wrap(datum), rare, datum])
    assert data.count(b"x" * 9000) == 1
    found = fobs.loads(data)
    assert found[1] == rare
    assert found[2].value == b"x" * 9000
    assert getattr(found[0], "a", found[0]) is found[2]


def test_a_managers_leaves_beside_what_is_rarely_written():
    sender = fobs.DatumManager(4096)
    data = fobs.serialize([np.arange(3000.0), b"b" * 9000, 1 << 70], sender)
    assert len(sender.get_datums()) == 2
    receiver = fobs.DatumManager()
    for datum in sender.get_datums().values():
        receiver.add_datum(datum)
    assert fobs.deserialize(data, receiver)[1:] == [b"b" * 9000, 1 << 70]


def test_equal_leaves_are_one_datum_and_two_arrays():
    sender = fobs.DatumManager(4096)
    data = fobs.serialize([np.arange(3000.0), np.arange(3000.0)], sender)
    assert len(sender.get_datums()) == 1
    one, two = fobs.deserialize(data, sender)
    one[0] = 7
    assert two[0] == 0


def test_a_copy_of_a_datum_is_that_datum():
    datum = fobs.Datum.blob_datum(b"x" * 9000)
    found = fobs.loads(fobs.dumps([datum, copy.copy(datum)]))
    assert found[0] is found[1]
