"""Frozen frames: every version reads them, as does a reader that shares no code; later encoders mean the same."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import numpy as np
import pytest

from fedpost.codecs import Base
from fedpost.errors import DecodeError
from fedpost.frame import DEFAULT_LIMITS, Frame
from fedpost.pipeline import METADATA, Pipeline, decode_tensors

HERE = Path(__file__).parent
NAMES = sorted(path.stem for path in HERE.glob("*.frame"))
BASED = ("delta", "delta_fedwt1_zstd", "delta_lx")
FORMATS = ("fedwt1", "json_base64", "msgpack", "protobuf", "safetensors")


def expected_of(name):
    return json.loads((HERE / f"{name}.json").read_text())


def base_of(facts):
    """What a frozen update is relative to: the tensors of another frozen frame."""
    return Base.of(decode_tensors(Frame.open(HERE / f"{facts['base']}.frame")).arrays()) if "base" in facts else None


def base_frame(facts):
    return (HERE / f"{facts['base']}.frame").read_bytes() if "base" in facts else None


def test_every_case_is_frozen(generate):
    assert sorted([*generate.CASES, generate.NEWER_MINOR]) == NAMES
    assert sorted(generate.FILES) == sorted(path.stem for path in (HERE / "files").glob("*.json"))
    assert sorted(generate.PARTS) == sorted(path.stem for path in (HERE / "parts").glob("*.json"))
    assert sum(path.stat().st_size for path in HERE.rglob("*.*")) < 2_500_000


@pytest.mark.parametrize("there", ["case.frame", "case.json"])
def test_what_is_frozen_is_never_written_again(there, generate, tmp_path):
    (tmp_path / there).write_bytes(b"frozen")
    with pytest.raises(FileExistsError):
        generate.write(tmp_path / "case.frame", b"second", {}, {})
    assert (tmp_path / there).read_bytes() == b"frozen"


def test_the_generator_writes_only_what_is_missing(generate, tmp_path, monkeypatch):
    for path in HERE.rglob("*.*"):
        if path.suffix != ".py":
            copy = tmp_path / path.relative_to(HERE)
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(b"frozen")
    missing = ["minimal.frame", "minimal.json", "files/msgpack.msgpack", "files/msgpack.json"]
    for name in missing:
        (tmp_path / name).unlink()
    monkeypatch.setattr(generate, "HERE", tmp_path)
    generate.main()
    changed = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*") if path.read_bytes() != b"frozen"}
    assert changed == set(missing)
    assert (tmp_path / "minimal.frame").read_bytes() == (HERE / "minimal.frame").read_bytes()


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
    source = decode_tensors(frame, base=base_of(facts))
    arrays = source.arrays()
    assert [generate.described(key, array) for key, array in arrays.items()] == facts["tensors"]
    assert [(s.name, generate.type_text(s.dtype), list(s.shape)) for s in source.specs] == [
        (tensor["name"], tensor["type"], tensor["shape"]) for tensor in facts["tensors"]
    ]


@pytest.mark.parametrize("name", NAMES)
def test_another_reader_gives_the_expected_values(name, read_frame, generate):
    facts = expected_of(name)
    sections, arrays = read_frame((HERE / f"{name}.frame").read_bytes(), base_frame(facts))
    assert sections["checksum"] == facts["checksum"]
    assert [generate.described(key, array) for key, array in arrays.items()] == facts["tensors"]


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"newer_minor"}))
def test_later_encoders_mean_the_same(name, generate, read_frame):
    facts, case = expected_of(name), generate.CASES[name]
    sections = {} if case.metadata is None else {METADATA: dict(case.metadata)}
    frame = Pipeline.parse(case.pipeline, checksum=case.checksum).encode(case.tensors(), sections, base=base_of(facts))
    again, old = Frame.decode(bytes(frame)), Frame.open(HERE / f"{name}.frame")
    arrays = decode_tensors(again, base=base_of(facts)).arrays()
    assert [generate.described(key, array) for key, array in arrays.items()] == facts["tensors"]
    assert again.section_names == old.section_names
    # What is written today is read by the reader of the specification too.
    _, others = read_frame(bytes(frame), base_frame(facts))
    assert [generate.described(key, array) for key, array in others.items()] == facts["tensors"]


@pytest.mark.parametrize("name", ["metadata", "npy_gzip", *(f"in_{name}_zstd" for name in FORMATS)])
def test_metadata(name, generate, read_frame):
    data = (HERE / f"{name}.frame").read_bytes()
    assert Frame.decode(data).section(METADATA, dict) == generate.METADATA
    assert read_frame(data)[0][METADATA] == generate.METADATA


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


@pytest.mark.parametrize("name", ["lx", "lx_cast"])
def test_lx_is_for_floats_in_native_order(name):
    frame = Frame.open(HERE / f"{name}.frame")
    codings = {frame.coding(index) for index in range(len(frame))}
    assert codings >= {"lx"}
    assert name != "lx" or codings == {"lx", "zstd", "none"}
    # Words of every width, and a segment of two chunks.
    data = (HERE / f"{name}.frame").read_bytes()
    widths = {data[data.index(frame._stored[i][0].tobytes())] for i in range(len(frame)) if frame.coding(i) == "lx"}
    assert widths == ({8, 16, 32, 64} if name == "lx" else {16})
    assert name != "lx" or max(frame.raw_size(index) for index in range(len(frame))) > 2**20


def test_lx_takes_floats_of_either_order():
    frame = Frame.open(HERE / "lx_big_endian.frame")
    assert {frame.coding(index) for index in range(len(frame))} == {"lx"}
    data = (HERE / "lx_big_endian.frame").read_bytes()
    assert {data[data.index(frame._stored[i][0].tobytes())] for i in range(len(frame))} == {17, 33, 65}


@pytest.mark.parametrize("name", BASED)
def test_a_delta_names_its_base(name, generate, read_frame):
    facts, frame = expected_of(name), Frame.open(HERE / f"{name}.frame")
    base = base_of(facts)
    notes = frame.section("update", dict)
    assert notes["base"] == base.digest == bytes.fromhex(facts["digest"])
    assert notes["whole"] == ["new", "text", "other order", "other shape", "other type", "bytes"]
    # What did not change is zeros, and another base is refused.
    sent = Pipeline.parse(facts["pipeline"]).format.decode(frame, DEFAULT_LIMITS).arrays()
    assert not sent["flags"].any()
    assert sent["half"].view("u2").tolist() == [0x8000] * 3
    other = Base.of({**generate.model(), "steps": np.array(40, np.int64)})
    for wrong in (None, other):
        with pytest.raises(DecodeError, match=base.digest.hex()):
            decode_tensors(frame, base=wrong)
    with pytest.raises(ValueError, match="the base that is there"):
        read_frame((HERE / f"{name}.frame").read_bytes(), (HERE / "minimal.frame").read_bytes())


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


@pytest.mark.parametrize("name", ["reader", "formats_reader", "parts_reader", "updates_reader"])
def test_the_other_readers_are_short_and_independent(name):
    text = (HERE / f"{name}.py").read_text()
    assert len(text.splitlines()) <= (165 if name == "reader" else 200)
    assert not re.search(r"^\s*(import|from) fedpost", text, re.MULTILINE)
