"""What FOBS keeps beside an object, asked of NVFLARE's own and of ours."""

from __future__ import annotations

import io
from pathlib import Path

import pytest


class Plain:
    def __init__(self, a):
        self.a = a


class Items(dict):
    pass


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
def test_values_over_the_threshold_travel(fobs, decomposer, value):
    def take(obj, manager):
        return fobs.decomposer.Externalizer(manager).externalize(obj.a)

    def make(data, manager):
        return Plain(fobs.decomposer.Internalizer(manager).internalize(data))

    fobs.register(decomposer(Plain, take, make))
    found = fobs.loads(fobs.dumps([Plain(value), Plain(1)], max_value_size=1024))
    assert found[0].a == value
    assert found[1].a == 1


def test_a_programs_own_datums_travel(fobs, decomposer, tmp_path):
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

    fobs.register(decomposer(Plain, whole, back))
    blob, text, files = fobs.loads(fobs.dumps(Plain(None))).a
    kind = fobs.datum.DatumType
    assert (blob.datum_type, blob.value) == (kind.BLOB, b"blob")
    assert (text.datum_type, text.value) == (kind.TEXT, "téxt")
    assert files["file"].datum_type is kind.FILE
    assert files["file"].value != str(path)
    assert Path(files["file"].value).read_bytes() == b"w" * 10_000


def test_a_carrier_of_datums(fobs, decomposer):
    """With a manager of the caller's, the datums are the caller's to carry."""

    def take(obj, manager):
        return fobs.decomposer.Externalizer(manager).externalize({"a": obj.a})

    def make(data, manager):
        return Plain(fobs.decomposer.Internalizer(manager).internalize(data)["a"])

    fobs.register(decomposer(Plain, take, make))
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
