"""Frames that somebody made for ``fobs.loads``: refused, nothing is imported, called or written because of them."""

from __future__ import annotations

import random
import sys
import types
import uuid
from enum import Enum
from pathlib import Path

import msgpack
import msgspec
import numpy as np
import ormsgpack
import pytest

from fedpost.compat import fobs
from fedpost.errors import DecodeError, IntegrityError, LimitError, TruncatedError, UnsupportedError
from fedpost.frame import Frame, Limits
from fedpost.objects.wire import Kind, reference


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    monkeypatch.setenv("NVFLARE_DATUM_DIR", str(tmp_path / "datums"))
    fobs.reset()
    yield
    fobs.reset()


class Plain:
    def __init__(self, a=1):
        self.a = a


class Slotted:
    __slots__ = ("__dict__", "a")


class Items(dict):
    pass


class Color(Enum):
    RED = 1


def instance(name, state, *, fields=None, sections=None, rows=(), version=1):
    """The bytes of one instance of a type."""
    table = [*rows, [Kind.INSTANCE, 0, state]]
    tree = ormsgpack.packb(
        [[[name, version, fields]], table, reference(len(table) - 1)], option=ormsgpack.OPT_NON_STR_KEYS
    )
    return bytes(Frame.build({"object": msgspec.Raw(tree), **(sections or {})}))


def name_of(cls):
    return f"{cls.__module__}.{cls.__qualname__}"


def refused(data, kind=DecodeError, **context):
    with pytest.raises((RuntimeError, ValueError)) as caught:
        fobs.loads(data, **context)
    assert isinstance(caught.value, kind)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, RuntimeError)
    return caught.value


GADGETS = [
    *("os.system", "posix.system", "subprocess.Popen", "builtins.eval", "eval", "exec", "type", "object", "function"),
    *("importlib.import_module", "pickle.Unpickler", "ctypes.CDLL", "antigravity.fly", "this.s", "nt.system"),
    *("fedpost.compat.fobs.decomposer.DataClassDecomposer", "nvflare.fuel.utils.fobs.decomposer.DataClassDecomposer"),
    *("fobs_no_such.Thing", "..Thing", "os.", ".os", "__main__.Plain", "numpy.ndarray", "torch.load", "a" * 10_000),
]


@pytest.mark.parametrize("name", GADGETS, ids=lambda name: name[:40])
@pytest.mark.parametrize("state", [["echo pwned"], {"data": {"a": 1}}, None], ids=["list", "dict", "none"])
def test_types_that_nobody_listed(name, state):
    before = set(sys.modules)
    error = refused(instance(name, state), UnsupportedError)
    assert "is not allowed" in str(error)
    assert len(str(error)) < 800
    assert not {module.partition(".")[0] for module in set(sys.modules) - before} & {"antigravity", "this", "ctypes"}


def test_a_listed_name_is_not_imported_when_it_comes(tmp_path, monkeypatch):
    """What could not be found when it was listed is not looked for on the disk when somebody sends it."""
    fobs.add_type_name_whitelist("fobs_later.Thing")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "fobs_later.py").write_text("class Thing: pass\n")
    data = instance("fobs_later.Thing", {"data": {"a": 1}})
    refused(data, UnsupportedError)
    assert "fobs_later" not in sys.modules
    # Once the program has loaded it, it is what was listed.
    import fobs_later

    assert fobs.loads(data).a == 1
    assert type(fobs.loads(data)) is fobs_later.Thing
    del sys.modules["fobs_later"]


@pytest.mark.parametrize("name", ["os.system", "eval", "os.environ"])
def test_only_classes_are_listed(name):
    with pytest.raises(TypeError, match="is not a class"):
        fobs.add_type_name_whitelist(name)


@pytest.mark.parametrize("name", ["subprocess.Popen", "functools.partial", "io.FileIO", "threading.Thread", "int"])
def test_listing_a_class_lets_only_its_attributes_in(name):
    """A program may list what it likes: no constructor runs, and what is no data is refused then or now."""
    try:
        fobs.add_type_name_whitelist(name)
    except ValueError:
        return
    data = instance(name, {"data": {"args": ["echo pwned"], "cmd": "echo pwned"}})
    try:
        found = fobs.loads(data)
    except DecodeError:
        return
    assert vars(found) == {"args": ["echo pwned"], "cmd": "echo pwned"}


# ── states ───────────────────────────────────────────────────────────────────────────────────────────────────────────

STATES = [
    *(None, 1, "text", [], ["a"], {"a": 1}, {1: 2}, {"data": None}, {"data": []}, {"data": {"a": 1}, "more": {}}),
    *({"data": {1: 2}}, {"data": {"": 1}, "list": [1]}, {"dict": {}}, {"slots": []}, {"slots": {"a": 1}}),
    *({"data": {name: 1}} for name in ("__class__", "__dict__", "__init__", "__reduce__", "__del__", "__slots__")),
    *({"slots": {name: 1}} for name in ("__class__", "__dict__", "__weakref__", "__doc__")),
]


@pytest.mark.parametrize("state", STATES, ids=str)
def test_states_of_classes(state):
    fobs.register_data_classes(Plain)
    refused(instance(name_of(Plain), state))


@pytest.mark.parametrize("name", ["__class__", "__dict__", "b", "__setattr__"])
def test_states_of_slots(name):
    fobs.register_data_classes(Slotted)
    assert fobs.loads(instance(name_of(Slotted), {"data": {}, "slots": {"a": 1}})).a == 1
    refused(instance(name_of(Slotted), {"data": {}, "slots": {name: 1}}))


@pytest.mark.parametrize("state", [{"data": {}}, {"dict": []}, {"dict": {}, "list": []}, {"list": [1]}, {}], ids=str)
def test_states_of_dictionaries(state):
    fobs.register_data_classes(Items)
    refused(instance(name_of(Items), state))


@pytest.mark.parametrize("state", [None, 1, "GREEN", "__class__", "name", "mro", [], {"a": 1}, b"RED"], ids=str)
def test_states_of_enumerations(state):
    fobs.register_enum_types(Color)
    refused(instance(name_of(Color), state))


def test_attributes_do_not_hide_the_class():
    fobs.register_data_classes(Plain)
    found = fobs.loads(instance(name_of(Plain), {"data": {"a": 1, "__half": 2}}))
    assert type(found) is Plain
    assert vars(found) == {"a": 1, "__half": 2}


def test_setters_are_not_called():
    called = []

    class Careless:
        @property
        def command(self):
            return None

        @command.setter
        def command(self, value):
            called.append(value)

        def __setattr__(self, name, value):
            called.append(value)

        def __setstate__(self, state):
            called.append(state)

        def __init__(self):
            called.append("constructed")

    fobs.register_data_classes(Careless)
    found = fobs.loads(instance(name_of(Careless), {"data": {"command": "echo pwned"}}))
    assert found.command is None
    assert called == []


def test_other_fields_and_versions():
    fobs.register_data_classes(Plain)
    refused(instance(name_of(Plain), [1], fields=["a"]))
    refused(instance(name_of(Plain), {"data": {}}, version=2), UnsupportedError)


def test_what_a_decomposer_makes_of_nonsense():
    class Into(fobs.Decomposer):
        def supported_type(self):
            return Plain

        def decompose(self, target, manager=None):
            return target.a

        def recompose(self, data, manager=None):
            return Plain(data["a"]["b"])

    fobs.register(Into)
    for state in (None, [], {"a": 1}, "text"):
        refused(instance(name_of(Plain), state))


# ── FOBS' own bytes ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["os.system", "subprocess.Popen", "tests.Plain"])
def test_bytes_of_the_original(name):
    """A gadget as FOBS wrote it: a type's and a decomposer's import path."""
    gadget = {
        "__fobs_type__": name,
        "__fobs_data__": ["echo pwned"],
        "__fobs_dc__": "nvflare.fuel.utils.fobs.decomposer.DataClassDecomposer",
    }
    body = msgpack.packb(gadget)
    refused(body)
    refused(b"\x64\x00" + len(body).to_bytes(8, "big") + body)
    # The same dictionary inside of a frame is a dictionary.
    assert fobs.loads(fobs.dumps(gadget)) == gadget


# ── datums ───────────────────────────────────────────────────────────────────────────────────────────────────────────

ID = uuid.UUID(int=7).bytes


@pytest.mark.parametrize(
    "state",
    [
        *(
            None,
            [],
            [b"short"],
            [ID, 1],
            [ID, 9, 0, b"a"],
            [ID, 1, 0, b"bytes"],
            [ID, 2, 0, "text"],
            [ID, 2, "0", b"a"],
        ),
        *([ID, 3, 0, "/etc/passwd"], [ID, True, 0, "a"], [ID, 2, 5, b"nobody's"], [ID], [str(uuid.UUID(int=7))]),
        *({"datum_id": "a"}, [ID, 2, 0, b"a", b"b"]),
    ],
    ids=str,
)
def test_datums_that_are_none(state, tmp_path):
    refused(instance("fobs.Datum", state))
    refused(instance("fobs.DatumRef", [True, state]))
    refused(instance("fobs.DatumRef", [1, state]))
    assert not list(tmp_path.rglob("*.dat"))


@pytest.mark.parametrize(
    "rows",
    [
        *([[ID, 2, 0, b"a"], [ID, 2, 0, b"b"]], [[ID, 1, 0, b"\xff"]], [[b"", 2, 0, b""]], [[ID, 4, 0, b""]], 7),
        *([[ID, 2, 0, "text"]], [[ID, 2, 9, b"a"]], [["id", 2, 0, b""]], [[ID, 2, -1]]),
    ],
    ids=str,
)
def test_datums_of_the_header(rows):
    fobs.register_data_classes(Plain)
    assert fobs.loads(instance(name_of(Plain), {"data": {}}, sections={"fobs": [[ID, 2, 0, b"a"]]}))
    refused(instance(name_of(Plain), {"data": {}}, sections={"fobs": rows}))


def test_files_stay_where_they_belong(tmp_path):
    found = fobs.loads(instance("fobs.Datum", [ID, 3, 0, b"content"]))
    folder = tmp_path / "datums"
    assert Path(found.value).parent == folder
    assert Path(found.value).read_bytes() == b"content"
    assert Path(found.value).stat().st_mode & 0o077 == 0
    assert str(uuid.UUID(int=7)) not in found.value, "the sender does not choose the name"


def test_files_of_what_is_refused_are_removed(tmp_path):
    row = [Kind.INSTANCE, 0, [ID, 3, 0, b"content"]]
    table = [row, [Kind.INSTANCE, 1, {"data": {"__class__": reference(0)}}]]
    fobs.register_data_classes(Plain)
    tree = ormsgpack.packb([[["fobs.Datum", 1, None], [name_of(Plain), 1, None]], table, reference(1)])
    refused(bytes(Frame.build({"object": msgspec.Raw(tree)})))
    assert list((tmp_path / "datums").iterdir()) == []


def test_very_many_files(tmp_path):
    rows = [[number.to_bytes(16, "big"), 3, 0, b""] for number in range(1025)]
    fobs.register_data_classes(Plain)
    refused(instance(name_of(Plain), {"data": {}}, sections={"fobs": rows}), LimitError)
    assert list((tmp_path / "datums").iterdir()) == []
    fobs.loads(instance(name_of(Plain), {"data": {}}, sections={"fobs": rows[1:]}))
    assert len(list((tmp_path / "datums").iterdir())) == 1024


def test_a_datum_of_somebody_else(tmp_path):
    """What came beside is compared with the digest that the bytes have of it."""
    sender = fobs.DatumManager(4096)
    data = fobs.serialize({"w": np.arange(1000.0)}, sender)
    (datum,) = sender.get_datums().values()
    good = bytes(datum.value)
    path = tmp_path / "datum"
    for value in (good[:-1] + b"\x01", good[:-8], good + b"\0", b""):
        for made in (fobs.Datum.blob_datum(value), fobs.Datum.file_datum(str(path))):
            path.write_bytes(value)
            made.datum_id = datum.datum_id
            receiver = fobs.DatumManager()
            receiver.add_datum(made)
            with pytest.raises(ValueError, match=r"digest does not match|has \d+"):
                fobs.deserialize(data, receiver)


# ── damage and budgets ───────────────────────────────────────────────────────────────────────────────────────────────


def test_truncation_and_what_follows():
    good = fobs.dumps({"a": [1, (2,)], "w": np.arange(1000.0)})
    for size in range(0, len(good), 13):
        refused(good[:size], TruncatedError)
        refused([good[: size // 2], good[size // 2 : size]], TruncatedError)
    refused(good + b"\0")


def test_nonsense():
    rng = random.Random(5)
    good = fobs.dumps({"a": [1, (2,)], "w": np.arange(100.0)})
    for _ in range(300):
        refused(rng.randbytes(rng.randrange(200)))
        data = bytearray(good)
        for _ in range(rng.randrange(1, 5)):
            data[rng.randrange(len(data))] ^= rng.randrange(1, 256)
        if bytes(data) != good:
            refused(bytes(data))


def test_budgets():
    data = fobs.dumps({"w": np.zeros(10_000)})
    context = {fobs.FOBSContextKey.LIMITS: Limits(max_frame=1000)}
    refused(data, LimitError, fobs_ctx=context)
    with pytest.raises(TypeError, match="not Limits"):
        fobs.loads(data, fobs_ctx={fobs.FOBSContextKey.LIMITS: 1000})

    class Endless:
        def read(self, size):
            return bytes(size)

    with pytest.raises(ValueError, match="a stream of more than"):
        fobs.load(Endless(), fobs_ctx={fobs.FOBSContextKey.LIMITS: Limits(max_frame=1 << 20)})


def test_a_flipped_byte_anywhere():
    good = fobs.dumps([Plain(), Color.RED, {"w": np.arange(600.0)}])
    for position in range(len(good)):
        data = bytearray(good)
        data[position] ^= 1 << position % 8
        refused(bytes(data), IntegrityError if position >= 24 else DecodeError)


def test_modules_are_no_data():
    with pytest.raises(TypeError, match="can not serialize 'module' object"):
        fobs.dumps([types])
