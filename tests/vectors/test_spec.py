"""The specification against code and frozen bytes: its tables name what there is, its dumps are what is written."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import numpy as np
import pytest

from fedpost.checksums import CHECKSUMS
from fedpost.compression import COMPRESSORS
from fedpost.frame import DEFAULT_LIMITS, DEFAULT_PART_LIMITS
from fedpost.tensors import FORMATS
from fedpost.tensors.dtypes import dtype_from_name
from fedpost.tensors.sparse import sparse_bytes

HERE = Path(__file__).parent
SPEC = HERE.parents[1] / "docs" / "spec"
UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40, "hours": 3600}


def text(page, start="", end="\n## "):
    """A page, or a section of it."""
    whole = (SPEC / f"{page}.md").read_text()
    return whole[whole.index(start) + len(start) :].split(end, 1)[0] if start else whole


def rows(section):
    """The cells of every table row behind a heading row."""
    found = [
        [cell.strip() for cell in line[1:-1].split("|")] for line in re.findall(r"^\|.*\|$", section, re.MULTILINE)
    ]
    return [row for row in found if not set("".join(row)) <= set("-: ")]


def names(cell):
    return re.findall(r"`([a-z0-9_]+)`", cell)


def number(cell):
    value, _, unit = cell.partition(" ")
    return int(value.replace(",", "")) * UNITS.get(unit, 1)


@pytest.mark.parametrize(
    ("page", "file"),
    [("frame", "minimal.frame"), ("formats", "files/fedwt1_plain.fedwt1"), ("parts", "parts/tiny.parts")],
)
def test_the_dump_is_the_frozen_file(page, file):
    dump = re.findall(r"^([0-9a-f]{8})  ((?:[0-9a-f]{2} ?)+)$", text(page, "## Worked example"), re.MULTILINE)
    data = b"".join(bytes.fromhex(row) for _, row in dump)
    assert [int(offset, 16) for offset, _ in dump] == list(range(0, len(data), 16))
    frozen = (HERE / file).read_bytes()
    assert data == (frozen[: 88 + 5] if page == "parts" else frozen)
    # What the rows below say of single places is there as well: whole bytes at the start of each row.
    places = [row for row in rows(text(page, "## Worked example").replace("\\|", ""))[1:] if len(row) == 3]
    assert len(places) >= 8
    for at, shown, _ in places:
        first = re.match(r"`((?:[0-9a-f]{2}(?: |(?=`)))+)", shown)[1]
        start = int(at, 16)
        assert data[start:].startswith(bytes.fromhex(first)), at


def test_the_chunk_of_lx_is_what_is_written(reader):
    dump = re.findall(r"^[0-9a-f]{8}  ((?:[0-9a-f]{2} ?)+)$", text("lx", "## Worked example"), re.MULTILINE)
    chunk, content = bytes.fromhex(" ".join(dump)), struct.pack("<2f", 1.0, -2.5) + b"xyz"
    assert reader.read_lx(chunk, len(content)) == content
    out = bytearray(len(content))
    COMPRESSORS.get("lx").decompress_into(memoryview(chunk), memoryview(out))
    assert out == content
    assert COMPRESSORS.get("lx").compress(memoryview(content), 1, "f4") == chunk
    for at, shown, _ in rows(text("lx", "## Worked example"))[1:]:
        first = re.match(r"`((?:[0-9a-f]{2}(?: |(?=`)))+)", shown)[1]
        assert chunk[int(at, 16) :].startswith(bytes.fromhex(first)), at


def test_the_limits_are_those_of_the_code():
    for row in rows(text("frame", "### Budgets"))[1:]:
        (name,) = names(row[0])
        assert getattr(DEFAULT_LIMITS, name) == number(row[1]), name
    for row in rows(text("parts", "### Budgets"))[1:]:
        name = row[0].strip("`")
        found = DEFAULT_LIMITS.max_frame if name == "frame.max_frame" else getattr(DEFAULT_PART_LIMITS, name)
        assert found == number(row[1]), name


def test_checksums_and_compressions_are_those_of_the_code():
    table = {names(row[0])[0]: int(row[1]) for row in rows(text("frame", "## 5. Digests"))[1:]}
    assert table == {name: CHECKSUMS.get(name).size for name in CHECKSUMS}
    table = {names(row[0])[0] for row in rows(text("frame", "## 6. Compression"))[1:]}
    assert table == set(COMPRESSORS)


def test_formats_are_those_of_the_code():
    described = {names(row[0])[0] for row in rows(text("formats").split("## 1.")[0])[1:]} | {"fedwt", "numpy"}
    assert described == set(FORMATS)
    for name in described - {"fedwt", "numpy"}:
        assert f"`{name}`" in re.findall(r"^## \d\. (`[a-z0-9_]+`)", text("formats"), re.MULTILINE)


def test_element_types_are_those_of_the_code():
    grammar = text("frame", "## 8. Element types")
    grammar = grammar[: grammar.index("extended  =")]
    small = re.findall(r'"([a-z0-9_]+)"', grammar.split("small     =")[1])
    assert len(small) == 15
    for name in [
        *small,
        "bool",
        "int8",
        "uint64",
        "float16",
        "float32",
        "float64",
        "bfloat16",
        "complex64",
        "complex128",
    ]:
        assert dtype_from_name(name).itemsize in (1, 2, 4, 8, 16)
        assert name not in small or dtype_from_name(name).itemsize == 1


def test_the_sparse_array_in_the_text():
    array = np.zeros(90, np.float32)
    array[2] = 1.5
    coded = sparse_bytes(array.view(np.uint8).data, 4)
    assert coded == struct.pack("<QB7sBf", 1, 1, bytes(7), 2, 1.5)
    said = re.sub(r"\s+", " ", text("formats", "The sparse array"))
    found = "".join(re.findall(r"`((?:[0-9a-f]{2} ?)+)`", said))
    assert bytes.fromhex(found) == coded
    assert f"{len(coded)} bytes of {array.nbytes}" in said


def test_pages_lead_to_each_other():
    for path in SPEC.glob("*.md"):
        for link in re.findall(r"\]\(([a-z]+\.md)", path.read_text()):
            assert (SPEC / link).exists(), f"{path.name}: {link}"
