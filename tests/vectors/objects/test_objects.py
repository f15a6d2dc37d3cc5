"""Frozen objects: every version reads them, as does a reader that shares no code; later writers mean the same."""

from __future__ import annotations

import builtins
import importlib.util
import json
import re
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

import msgpack
import pytest

from fedpost.errors import DecodeError
from fedpost.frame import Frame
from fedpost.objects import dumps, load, loads, new_registry, register

HERE = Path(__file__).parent


def script(path, name):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


generate = script(HERE / "generate.py", "objects_generate")
reader = script(HERE / "reader.py", "objects_reader")
container = script(HERE.parent / "reader.py", "objects_container")
samples = script(HERE.parents[1] / "unit" / "objects" / "samples.py", "objects_samples")
NAMES = sorted(path.stem for path in HERE.glob("*.frame"))


def expected_of(name):
    return json.loads((HERE / f"{name}.json").read_text())


def described(data):
    return json.loads(json.dumps(reader.read_object(data, container)))


def renumbered(value, numbers=None):
    """A description in which shared rows have the numbers of their first place, whatever rows they stand in.

    Text is the same wherever it is kept.
    """
    numbers = {} if numbers is None else numbers
    if not isinstance(value, list):
        return value
    if value[:1] == ["shared"] and value[2][:2] == ["blob", "str"]:
        return value[2][1:]
    if value[:1] == ["shared"]:
        return ["shared", numbers.setdefault(value[1], len(numbers)), renumbered(value[2], numbers)]
    return [renumbered(item, numbers) for item in value]


def test_every_case_is_frozen():
    assert sorted(generate.CASES) == NAMES == sorted(path.stem for path in HERE.glob("*.json"))


@pytest.mark.parametrize("name", NAMES)
def test_reads_the_expected_values(name):
    value = load(HERE / f"{name}.frame", registry=generate.registry())
    assert samples.difference(generate.CASES[name](), value) is None
    if name in ("shared", "large_tree"):
        one = value[0] if name == "large_tree" else value
        assert one["a"] is one["b"][0]
        assert one["b"][1][0] is one["b"][1][1]


@pytest.mark.parametrize("name", NAMES)
def test_another_reader_gives_the_expected_values(name):
    assert described((HERE / f"{name}.frame").read_bytes()) == expected_of(name)


# Times are written as numbers since; their text is read for ever. Small rows stand in place; they need not.
WRITTEN_OTHERWISE = {"times", "arrays_in_table", "containers_in_table", "instances_in_table"}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in WRITTEN_OTHERWISE])
def test_later_writers_mean_the_same(name):
    data = dumps(generate.CASES[name](), registry=generate.registry())
    assert renumbered(described(data)) == renumbered(expected_of(name))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_frozen_is_never_written_again(name, tmp_path, monkeypatch):
    for suffix in ("frame", "json"):
        (tmp_path / f"{name}.{suffix}").write_bytes(b"frozen")
    (tmp_path / "reader.py").write_bytes((HERE / "reader.py").read_bytes())
    monkeypatch.setattr(generate, "CASES", {name: generate.CASES[name]})
    monkeypatch.setattr(generate, "HERE", tmp_path)
    monkeypatch.setattr(generate, "load", lambda path, _name: reader if path.parent == tmp_path else container)
    generate.main()
    assert (tmp_path / f"{name}.frame").read_bytes() == b"frozen"
    (tmp_path / f"{name}.frame").unlink()
    with pytest.raises(FileExistsError):
        generate.main()
    assert (tmp_path / f"{name}.json").read_bytes() == b"frozen"


def test_an_old_class_is_read_by_a_later_one():
    @dataclass
    class Point3:
        place: tuple[int, float]
        names: list[str]
        z: int = 7

    registry = new_registry()
    upgrade = {1: lambda fields: {"place": (fields["x"], fields["y"]), "names": fields["names"]}}
    register(Point3, name="vector.Point", version=2, upgrades=upgrade, registry=registry)
    back = load(HERE / "records.frame", registry=registry)
    assert back == [Point3((number, number / 2), [str(number)]) for number in range(64)]


@pytest.mark.parametrize("name", NAMES)
def test_altered_bytes_are_refused_by_both(name):
    data = bytearray((HERE / f"{name}.frame").read_bytes())
    for position in range(0, len(data), max(1, len(data) // 40)):
        data[position] ^= 0x10
        with pytest.raises(DecodeError):
            loads(bytes(data), registry=generate.registry())
        with pytest.raises((ValueError, struct.error)):
            reader.read_object(bytes(data), container)
        data[position] ^= 0x10


def test_the_example_in_the_specification_is_the_frame():
    text = (HERE.parents[2] / "docs" / "spec" / "objects.md").read_text()
    block = re.search(r"```\n((?:[0-9a-f]{2}[ \n])+)```", text.split("## Worked example", 1)[1])[1]
    packed = msgpack.packb(container.read_container((HERE / "tuple.frame").read_bytes())[2]["object"])
    assert bytes.fromhex(block) == packed
    assert f"is {len(packed)} bytes" in text
    assert Frame.open(HERE / "tuple.frame").section_names == ("object",)


def test_every_standard_type_is_in_the_specification():
    text = (HERE.parents[2] / "docs" / "spec" / "objects.md").read_text()
    listed = set(re.findall(r"`([A-Za-z]+)`", text.split("### Standard types", 1)[1].split("## 6", 1)[0]))
    errors = {name for name, cls in vars(builtins).items() if isinstance(cls, type) and issubclass(cls, BaseException)}
    # Aliases such as IOError are no names of their own.
    assert set(new_registry().names) - errors == listed & set(new_registry().names)
    assert {"ValueError", "UnicodeDecodeError", "ExceptionGroup"} <= set(new_registry().names)


def test_the_other_reader_is_short_and_independent():
    text = (HERE / "reader.py").read_text()
    assert len(text.splitlines()) <= 150
    assert not re.search(r"^\s*(import|from) fedpost", text, re.MULTILINE)
