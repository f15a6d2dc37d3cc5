"""Frozen frames: every version reads them, as does a reader that shares no code; later encoders mean the same."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import numpy as np
import pytest

from fedpost.frame import Frame
from fedpost.pipeline import METADATA, Pipeline, decode_tensors

HERE = Path(__file__).parent
NAMES = sorted(path.stem for path in HERE.glob("*.frame"))


def expected_of(name):
    return json.loads((HERE / f"{name}.json").read_text())


def test_every_case_is_frozen(generate):
    assert sorted([*generate.CASES, generate.NEWER_MINOR]) == NAMES
    assert sum(path.stat().st_size for path in HERE.glob("*.*")) < 300_000


@pytest.mark.parametrize("verify", ["eager", "lazy", "never"])
@pytest.mark.parametrize("name", NAMES)
def test_reads_the_expected_values(name, verify, generate):
    facts = expected_of(name)
    frame = Frame.open(HERE / f"{name}.frame", verify=verify)
    assert (frame.nbytes, frame.checksum, frame.section("pipeline", str)) == (
        facts["size"],
        facts["checksum"],
        # A frame says its stages in full, with the level of the compression.
        str(Pipeline.parse(facts["pipeline"])),
    )
    source = decode_tensors(frame)
    arrays = source.arrays()
    assert [generate.described(key, array) for key, array in arrays.items()] == facts["tensors"]
    assert [(s.name, generate.type_text(s.dtype), list(s.shape)) for s in source.specs] == [
        (tensor["name"], tensor["type"], tensor["shape"]) for tensor in facts["tensors"]
    ]


@pytest.mark.parametrize("name", NAMES)
def test_another_reader_gives_the_expected_values(name, reader, generate):
    facts = expected_of(name)
    sections, arrays = reader.read_frame((HERE / f"{name}.frame").read_bytes())
    assert sections["checksum"] == facts["checksum"]
    assert [generate.described(key, array) for key, array in arrays.items()] == facts["tensors"]


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"newer_minor"}))
def test_later_encoders_mean_the_same(name, generate, reader):
    facts, case = expected_of(name), generate.CASES[name]
    sections = {} if case.metadata is None else {METADATA: dict(case.metadata)}
    frame = Pipeline.parse(case.pipeline, checksum=case.checksum).encode(case.tensors(), sections)
    again, old = Frame.decode(bytes(frame)), Frame.open(HERE / f"{name}.frame")
    arrays = decode_tensors(again).arrays()
    assert [generate.described(key, array) for key, array in arrays.items()] == facts["tensors"]
    assert again.section_names == old.section_names
    # What is written today is read by the reader of the specification too.
    _, others = reader.read_frame(bytes(frame))
    assert [generate.described(key, array) for key, array in others.items()] == facts["tensors"]


@pytest.mark.parametrize("name", ["metadata", "npy_gzip"])
def test_metadata(name, generate, reader):
    data = (HERE / f"{name}.frame").read_bytes()
    assert Frame.decode(data).section(METADATA, dict) == generate.METADATA
    assert reader.read_frame(data)[0][METADATA] == generate.METADATA


def test_order_in_memory_is_kept(reader):
    arrays = decode_tensors(Frame.open(HERE / "shapes.frame")).arrays()
    _, others = reader.read_frame((HERE / "shapes.frame").read_bytes())
    for name in ("fortran", "fortran cube"):
        assert arrays[name].flags.f_contiguous
        assert others[name].flags.f_contiguous
    assert arrays["c"].flags.c_contiguous


def test_nan_payloads_and_negative_zero_are_kept():
    special = decode_tensors(Frame.open(HERE / "numbers.frame")).arrays()["special32"]
    assert [f"{bits:08x}" for bits in special.view(np.uint32)] == [
        "80000000",
        "7f800000",
        "ff800000",
        "7fc00000",
        "7fa12345",
        "ffc00001",
        "00000001",
    ]


def test_the_last_chunk_is_stored_as_it_is():
    for name in ("chunked_gzip", "chunked_zstd", "chunked_lz4"):
        frame = Frame.open(HERE / f"{name}.frame")
        stored = [frame.stored_size(index) for index in range(len(frame))]
        raw = [frame.raw_size(index) for index in range(len(frame))]
        codings = {frame.coding(index) for index in range(len(frame))}
        assert codings == {"none", name.removeprefix("chunked_")}
        assert 2048 < stored[0] < raw[0] == 2**20 + 2048
        assert bytes(frame.segment(0)[2**20 :]) == bytes(frame.read(0, 2**20, 2**20 + 2048))
        assert bytes(frame.segment(0)[2**20 :]) in (HERE / f"{name}.frame").read_bytes()


def test_a_newer_minor_version_is_told():
    assert Frame.open(HERE / "newer_minor.frame").minor == 7
    assert "later" in Frame.open(HERE / "newer_minor.frame").section_names


@pytest.mark.parametrize("name", ["minimal", "checksum_crc32c", "checksum_sha256", "npy", "gathered_zstd"])
def test_the_other_reader_refuses_altered_bytes(name, reader):
    data = bytearray((HERE / f"{name}.frame").read_bytes())
    for position in range(0, len(data), max(1, len(data) // 97)):
        data[position] ^= 0x10
        with pytest.raises((ValueError, struct.error)):
            reader.read_frame(bytes(data))
        data[position] ^= 0x10
    reader.read_frame(bytes(data))


def test_the_dump_in_the_specification_is_the_frame():
    text = (HERE.parents[1] / "docs" / "spec" / "frame.md").read_text()
    block = text.split("## Worked example", 1)[1]
    rows = re.findall(r"^([0-9a-f]{8})  ((?:[0-9a-f]{2} ?)+)", block, re.MULTILINE)
    data = b"".join(bytes.fromhex(row) for _, row in rows)
    assert data == (HERE / "minimal.frame").read_bytes()
    assert [int(offset, 16) for offset, _ in rows] == list(range(0, len(data), 16))


def test_the_other_reader_is_short_and_independent():
    text = (HERE / "reader.py").read_text()
    assert len(text.splitlines()) <= 150
    assert not re.search(r"^\s*(import|from) fedpost", text, re.MULTILINE)
