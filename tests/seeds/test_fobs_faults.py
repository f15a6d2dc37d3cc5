"""The faults of FOBS 2.9, one test each: none of them is here."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import pathlib
import subprocess
import sys
import uuid
from decimal import Decimal

import ml_dtypes
import numpy as np
import pytest

from fedpost.compat import fobs
from fedpost.errors import DecodeError, EncodeError, IntegrityError, UnsupportedError


@pytest.fixture(autouse=True)
def fresh():
    fobs.reset()
    yield
    fobs.reset()


Point = collections.namedtuple("Point", "x y")  # noqa: PYI024 - the fault is of these


@dataclasses.dataclass(slots=True)
class Slotted:
    a: int
    b: list


@dataclasses.dataclass(slots=True, frozen=True)
class FrozenSlotted:
    a: int = 3


VALUES = [
    *(1 << 64, -(1 << 63) - 1, 1 << 1000),
    *(np.float16(0.5), np.int8(-3), np.bool_(True), np.uint16(9), np.complex64(1 + 2j)),
    *(1 + 2j, frozenset({1, (2,)}), Point(1, [2]), collections.deque([1, 2], maxlen=3)),
    *(dt.date(2026, 1, 2), dt.time(1, 2), dt.timedelta(days=-1, microseconds=5)),
    *(Decimal("0.10"), pathlib.Path("/a/b"), uuid.UUID(int=5), range(3)),
    *(Slotted(1, [2]), FrozenSlotted(), bytearray(b"a"), bytearray(b"a" * 9000), memoryview(b"a" * 9000)),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{type(value).__name__}-{str(value)[:12]}")
def test_what_fails_there(value):
    found = fobs.loads(fobs.dumps([value]))[0]
    assert type(found) is type(value)
    assert found == value


def test_a_defaultdict_keeps_its_default():
    value = collections.defaultdict(list, a=[1])
    found = fobs.loads(fobs.dumps(value))
    assert (type(found), found, found.default_factory) == (type(value), value, list)
    assert found["new"] == []


def test_a_masked_array_keeps_its_mask():
    value = np.ma.MaskedArray([1.0, 2.0], mask=[True, False], fill_value=7)
    found = fobs.loads(fobs.dumps(value))
    assert type(found) is np.ma.MaskedArray
    assert (found.data.tolist(), found.mask.tolist(), found.fill_value) == ([1.0, 2.0], [True, False], 7)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn], ids=lambda dtype: dtype.__name__)
def test_small_floats_keep_their_type(dtype):
    value = np.arange(5).astype(dtype)
    found = fobs.loads(fobs.dumps({"w": value}))["w"]
    assert found.dtype == dtype
    assert found.tobytes() == value.tobytes()


def test_an_error_is_a_type_error():
    """There it is a RuntimeError, which is still caught."""
    for kind in (TypeError, RuntimeError, EncodeError):
        with pytest.raises(kind, match=r"^\$\.a\[1\]: can not serialize 'function' object"):
            fobs.dumps({"a": [1, lambda: 0]})


def test_a_cycle_is_told():
    """There it is a RecursionError."""

    class Node:
        pass

    node = Node()
    node.next = {"again": node}
    with pytest.raises(TypeError, match="a cycle"):
        fobs.dumps(node)


def test_bytes_begin_with_magic_and_version():
    data = fobs.dumps({"a": 1})
    assert data[:9] == b"\x89FPF\r\n\x1a\n" + bytes([data[8]])
    with pytest.raises(UnsupportedError, match="version"):
        fobs.loads(data[:8] + bytes([data[8] + 1]) + data[9:])


def test_any_flipped_byte_is_found():
    """There a flipped byte of an array goes unnoticed."""
    good = fobs.dumps({"w": np.arange(2000.0), "t": (1, "text")})
    for position in [*range(400), *range(400, len(good), 97)]:
        data = bytearray(good)
        data[position] ^= 1 << position % 8
        with pytest.raises(ValueError) as caught:
            fobs.loads(bytes(data))
        assert isinstance(caught.value, IntegrityError if position >= 24 else DecodeError)


def test_no_import_by_name(tmp_path, monkeypatch):
    """There a type's name on the wire is imported, if it was listed by name (CVE-2026-24186: whatever it was)."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "fobs_gadget.py").write_text("raise SystemExit('imported')\nclass Gadget: pass\n")

    class Gadget:
        pass

    Gadget.__module__, Gadget.__qualname__ = "fobs_gadget", "Gadget"
    data = fobs.dumps(Gadget())
    fobs.reset()
    with pytest.raises(ValueError, match=r"'fobs_gadget\.Gadget' is not allowed"):
        fobs.loads(data)
    assert "fobs_gadget" not in sys.modules


def test_a_receiver_refuses_what_it_has_not_registered(tmp_path):
    """Another process, that knows nothing."""
    (tmp_path / "sent").write_bytes(fobs.dumps([Slotted(1, [])]))
    code = f"""
from fedpost.compat import fobs
try:
    fobs.loadf({str(tmp_path / "sent")!r})
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=280)
    assert "Slotted' is not allowed. Use fobs.register()" in done.stdout


def test_nothing_leaks_into_the_core():
    import fedpost.objects

    fobs.dumps(Slotted(1, []))
    with pytest.raises(TypeError, match="can not serialize"):
        fedpost.objects.dumps(Slotted(1, []))


def test_a_manager_is_not_needed():
    """There serialize() without one fails."""
    assert fobs.deserialize(fobs.serialize({"a": 1})) == {"a": 1}


def test_what_is_loaded_can_be_written_to():
    found = fobs.loads(fobs.dumps([np.zeros(3), np.zeros(5000)]))
    for array in found:
        array[0] = 1
    assert [array[0] for array in found] == [1, 1]
