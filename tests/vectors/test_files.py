"""Frozen files of formats made elsewhere, and frozen parts: fedpost reads them, and readers that share no code."""

from __future__ import annotations

import json
import random
import struct
from importlib import import_module
from pathlib import Path

import pytest

from fedpost.errors import DecodeError
from fedpost.frame import Frame, Part, PartAssembler

pytest.importorskip("google.protobuf", reason="the extra fedpost[protobuf] is not installed")

HERE = Path(__file__).parent
FILES = sorted(path.stem for path in (HERE / "files").glob("*.json"))
PARTS = sorted(path.stem for path in (HERE / "parts").glob("*.json"))


def frozen(folder, name):
    """The facts about a frozen file, and the file."""
    facts = json.loads((HERE / folder / f"{name}.json").read_text())
    data = (HERE / folder / f"{name}.{facts.get('format', 'parts')}").read_bytes()
    assert len(data) == facts["size"]
    return facts, data


def described(generate, arrays):
    return [generate.described(name, array) for name, array in arrays.items()]


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", FILES)
def test_a_file_gives_the_expected_values(name, generate):
    facts, data = frozen("files", name)
    arrays, metadata = import_module(f"fedpost.tensors.{facts['format']}").from_bytes(data)
    assert described(generate, arrays) == facts["tensors"]
    assert metadata == generate.FILES[name].metadata


@pytest.mark.parametrize("name", FILES)
def test_another_reader_gives_the_expected_values(name, generate, formats_reader, reader):
    facts, data = frozen("files", name)
    arrays, metadata = formats_reader.READERS[facts["format"]](data, reader.element_type)
    assert described(generate, arrays) == facts["tensors"]
    assert metadata == generate.FILES[name].metadata


@pytest.mark.parametrize("name", FILES)
def test_what_is_written_today_means_the_same(name, generate, formats_reader, reader):
    case = generate.FILES[name]
    module = import_module(f"fedpost.tensors.{case.format}")
    data = b"".join(module.to_bytes(case.tensors(), case.metadata))
    facts, _ = frozen("files", name)
    for arrays, metadata in (
        module.from_bytes(data),
        formats_reader.READERS[case.format](data, reader.element_type),
    ):
        assert described(generate, arrays) == facts["tensors"]
        assert metadata == case.metadata


@pytest.mark.parametrize("name", ["safetensors", "safetensors_empty"])
def test_the_library_reads_our_files(name, generate):
    library = pytest.importorskip("safetensors")
    _, data = frozen("files", name)
    found = {key: (tuple(info["shape"]), bytes(info["data"])) for key, info in library.deserialize(data)}
    arrays = generate.FILES[name].tensors()
    assert found == {key: (array.shape, array.tobytes()) for key, array in arrays.items()}


def test_sparse_arrays_are_coded_and_others_are_not():
    _, data = frozen("files", "fedwt1_sparse")
    assert len(data) < 2000  # of 85,000 bytes
    _, plain = frozen("files", "fedwt1_plain")
    assert b"fedpost" not in plain


@pytest.mark.parametrize("name", [name for name in FILES if not name.startswith("protobuf")])
def test_the_other_reader_refuses_what_is_cut(name, formats_reader, reader):
    facts, data = frozen("files", name)
    read = formats_reader.READERS[facts["format"]]
    for length in range(0, len(data), max(1, len(data) // 61)):
        with pytest.raises((ValueError, IndexError, KeyError, struct.error)):
            read(data[:length], reader.element_type)


# ── parts ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def cut(name):
    """The parts of a frozen run of them, and the frame."""
    facts, data = frozen("parts", name)
    size = facts["max_bytes"]
    frame = (HERE / f"{facts['frame']}.frame").read_bytes()
    largest = len(bytes(Frame.decode(frame).parts(size)[0]))
    return [data[start : start + largest] for start in range(0, len(data), largest)], frame


@pytest.mark.parametrize("name", PARTS)
def test_parts_are_the_frame(name, tmp_path, parts_reader):
    parts, frame = cut(name)
    random.Random(name).shuffle(parts)
    assembler = PartAssembler(tmp_path)
    for part in parts:
        transfer = assembler.add(Part.decode(part), sender="site-1")
    assert bytes(transfer.open()) == frame
    assert parts_reader.join(parts) == frame


@pytest.mark.parametrize("name", PARTS)
def test_frames_are_cut_as_ever(name, generate):
    case = generate.PARTS[name]
    parts = Frame.open(HERE / f"{case.frame}.frame").parts(case.max_bytes)
    assert b"".join(map(bytes, parts)) == frozen("parts", name)[1]


def test_every_flipped_bit_of_a_part_is_seen_by_both(parts_reader):
    parts, _ = cut("tiny")
    for part in (parts[0], parts[len(parts) // 2], parts[-1]):
        for bit in range(len(part) * 8):
            altered = bytearray(part)
            altered[bit // 8] ^= 1 << bit % 8
            with pytest.raises(DecodeError):
                Part.decode(bytes(altered))
            with pytest.raises(ValueError, match="the part does not have"):
                parts_reader.read_part(bytes(altered))
