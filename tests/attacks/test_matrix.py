"""Every attack of the list on every format, in frames whose digests are all right. ``README.md`` has the table.

A format that has no place for an attack says why instead of a frame: nothing is left out in silence. What is peculiar
to a format is in ``test_tensors.py`` and ``test_formats.py``, what concerns the frame alone in ``test_headers.py``.
"""

from __future__ import annotations

import importlib.util
import re
import struct
from pathlib import Path

import blake3
import msgpack
import pytest
import zstandard

HERE = Path(__file__).parent
SPEC = importlib.util.spec_from_file_location("attacks_formats", HERE / "test_formats.py")
pens = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(pens)

FORMATS = ("fedwt", "numpy", "fedwt1", "safetensors", "msgpack", "json_base64", "protobuf")
F4 = pens.F4
MIB = 1 << 20
BOMB = zstandard.ZstdCompressor().compress(bytes(256 * MIB))
NO_NEGATIVE = "its numbers have no sign"
NO_HOLES = "arrays stand inline, so nothing can be between them that is not of the syntax"


def file(name, *data, count=1):
    """A frame of a format made elsewhere."""
    return lambda f: f.sections({"pipeline": f"dense | {name} | none", f"tensors_{name}": count}, *data)


def fedwt(data=F4, **changed):
    """A frame of one ``float32`` vector of two, with columns changed."""
    table = {"names": ["a"], "ranks": b"\1", "dims": [2], "segments": [0], "dtypes": ["float32"], "types": [0]}
    return lambda f: f.tensors(*(table | changed).values(), data=data if isinstance(data, tuple) else (data,))


def npy(shape="(2,)", body=F4, descr="'<f4'", dtype="float32", more=""):
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, {more}}}\n"
    return lambda f: f.npy(header, body, dtype=dtype)


def npys(names, dtypes, *files):
    return lambda f: f.sections({"pipeline": "dense | numpy | none", "tensors_npy": [names, dtypes]}, *files)


def npy_file(body=F4, descr="'<f4'"):
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': (2,), }}\n".encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + body


def bomb(sections):
    """A frame of one segment that claims a megabyte and is 256."""

    def make(f):
        table = [[MIB], blake3.blake3(BOMB).digest(), ["zstd"], [1], MIB, [[len(BOMB)]]]
        return f.frame(["blake3", [], table, list(sections.items())], BOMB)

    return make


def raw_table(name, packed):
    """A frame whose section is given as MessagePack."""
    pipeline = {"tensors": "fedwt", "tensors_npy": "numpy"}[name]
    head = b"\x94\xa6blake3\x90\x92\x90\xc4\x00\x92\x92\xa8pipeline" + msgpack.packb(f"dense | {pipeline} | none")
    return lambda f: f.head(head + b"\x92" + msgpack.packb(name) + packed)


ONE = {"names": ["a"], "dtypes": ["float32"], "shapes": [[2]]}
TWICE = {key: value * 2 for key, value in ONE.items()}
WRAPPING = [2**59, 2**59 + 2]
B64 = "AACAPwAAIMA="

# Attack: by format what is sent and the class of the error that must come; or why there is no such thing.
MATRIX = {
    "decompression bomb": {
        "fedwt": (
            bomb(
                {
                    "pipeline": "dense | fedwt | zstd(3)",
                    "tensors": [["a"], b"\1", [MIB // 4], [0], ["float32"], [0], []],
                }
            ),
            "DecodeError",
        ),
        "numpy": (
            bomb({"pipeline": "dense | numpy | zstd(3)", "tensors_npy": [["a"], ["float32"]]}),
            "DecodeError",
        ),
        **{
            name: (bomb({"pipeline": f"dense | {name} | zstd(3)", f"tensors_{name}": 1}), "DecodeError")
            for name in FORMATS[2:]
        },
    },
    "length past the end": {
        "fedwt": (fedwt(dims=[3]), "DecodeError"),
        "numpy": (lambda f: f.npy_file(b"\x93NUMPY\1\0\xff\xff{" + F4, dtype="float32"), "DecodeError"),
        "fedwt1": (file("fedwt1", pens.fedwt1(dims=(3,), size=3, length=12)), "TruncatedError"),
        "safetensors": (
            file("safetensors", pens.safetensors({"a": pens.info(shape=(3,), offsets=(0, 12))})),
            "TruncatedError",
        ),
        "msgpack": (file("msgpack", pens.packed(data=[b""]).replace(b"\xc4\0", b"\xc4\x08")), "DecodeError"),
        "json_base64": (file("json_base64", pens.text(shapes=[[3]])), "DecodeError"),
        "protobuf": (file("protobuf", pens.weight()[:-1]), "TruncatedError"),
    },
    "overlapping or out of order": {
        "fedwt": (fedwt(names=["b", "a"], ranks=b"\1\1", dims=[2, 2], segments=[0, 0]), "DecodeError"),
        "numpy": (
            npys(["a", "b"], ["float32", "int32"], npy_file(descr="'<i4'"), npy_file()),
            "DecodeError",
        ),
        "fedwt1": (file("fedwt1", pens.fedwt1(index=1)), "DecodeError"),
        "safetensors": (
            file(
                "safetensors",
                pens.safetensors({"a": pens.info(), "b": pens.info(offsets=(4, 12))}, F4 + F4[:4]),
                count=2,
            ),
            "DecodeError",
        ),
        "msgpack": (file("msgpack", pens.packed(), pens.packed()), "DecodeError"),
        "json_base64": (file("json_base64", pens.text()[:9], pens.text()[9:]), "DecodeError"),
        "protobuf": (
            file("protobuf", pens.weight(more=pens.field(1, 1)) + pens.weight(name=b"b"), count=2),
            "DecodeError",
        ),
    },
    "name twice": {
        "fedwt": (fedwt(F4 * 2, names=["a", "a"], ranks=b"\1\1", dims=[2, 2], segments=[0, 0]), "DecodeError"),
        "numpy": (npys(["a", "a"], ["float32"] * 2, npy_file(), npy_file()), "DecodeError"),
        "fedwt1": (
            file("fedwt1", pens.fedwt1(metadata=b'{"fedpost":{"names":["a","a"]}}', count=2), count=2),
            "DecodeError",
        ),
        "safetensors": (
            file("safetensors", pens.BAD["safetensors"]["a name twice"]),
            "DecodeError",
        ),
        "msgpack": (file("msgpack", pens.packed(**TWICE, data=[F4, F4]), count=2), "DecodeError"),
        "json_base64": (file("json_base64", pens.text(**TWICE, data=[B64, B64]), count=2), "DecodeError"),
        "protobuf": (file("protobuf", pens.weight() + pens.weight(more=pens.field(1, 1)), count=2), "DecodeError"),
    },
    "negative shape": {
        "fedwt": (fedwt(ranks=b"\2", dims=[-1, -2]), "DecodeError"),
        "numpy": (npy("(-1, -2)"), "DecodeError"),
        "fedwt1": NO_NEGATIVE,
        "safetensors": (file("safetensors", pens.safetensors({"a": pens.info(shape=(-1, -2))})), "DecodeError"),
        "msgpack": (file("msgpack", pens.packed(shapes=[[-1, -2]])), "DecodeError"),
        "json_base64": (file("json_base64", pens.text(shapes=[[-1, -2]])), "DecodeError"),
        "protobuf": NO_NEGATIVE,
    },
    "shape whose size wraps": {
        "fedwt": (fedwt(ranks=b"\2", dims=WRAPPING), "DecodeError"),
        "numpy": (npy(str(tuple(WRAPPING))), "DecodeError"),
        "fedwt1": (file("fedwt1", pens.fedwt1(dims=(2**32 - 1,) * 3, size=2)), "DecodeError"),
        "safetensors": (file("safetensors", pens.safetensors({"a": pens.info(shape=WRAPPING)})), "DecodeError"),
        "msgpack": (file("msgpack", pens.packed(shapes=[WRAPPING])), "DecodeError"),
        "json_base64": (file("json_base64", pens.text(shapes=[WRAPPING])), "DecodeError"),
        "protobuf": (file("protobuf", pens.weight(shape=b"".join(map(pens.varint, WRAPPING)))), "DecodeError"),
    },
    "deep header": {
        "fedwt": (raw_table("tensors", b"\x97" + b"\x91" * 100_000 + b"\xc0"), "DecodeError"),
        "numpy": (npy("(" * 9000 + "2" + ")" * 9000), "DecodeError"),
        "fedwt1": (file("fedwt1", pens.fedwt1(metadata=b'{"x":' + pens.DEEP)), "DecodeError"),
        "safetensors": (file("safetensors", pens.safetensors(b'{"x":' + pens.DEEP)), "DecodeError"),
        "msgpack": (
            file("msgpack", pens.packed().replace(b"metadata\x80", b"metadata" + b"\x81\xa1x" * 300_000)),
            "DecodeError",
        ),
        "json_base64": (
            file("json_base64", pens.text().replace(b'"metadata":{}', b'"metadata":' + pens.DEEP)),
            "DecodeError",
        ),
        "protobuf": (file("protobuf", b"\x13" * 300_000), "UnsupportedError"),
    },
    "unknown element type": {
        "fedwt": (fedwt(dtypes=["os.system"]), "UnsupportedError"),
        "numpy": (npy(dtype="os.system"), "UnsupportedError"),
        "fedwt1": (file("fedwt1", pens.fedwt1(dtype=b"os.system")), "UnsupportedError"),
        "safetensors": (file("safetensors", pens.safetensors({"a": pens.info("os.system")})), "UnsupportedError"),
        "msgpack": (file("msgpack", pens.packed(dtypes=["os.system"])), "UnsupportedError"),
        "json_base64": (file("json_base64", pens.text(dtypes=["os.system"])), "UnsupportedError"),
        "protobuf": (file("protobuf", pens.weight(dtype=b"os.system")), "UnsupportedError"),
    },
    "objects": {
        "fedwt": (fedwt(dtypes=["object"]), "UnsupportedError"),
        "numpy": (npy(descr="'|O'", body=b"\x80\x04N."), "DecodeError"),
        "fedwt1": (file("fedwt1", pens.BAD["fedwt1"]["a pickle"]), "UnsupportedError"),
        "safetensors": (file("safetensors", pens.safetensors({"a": pens.info("object")})), "UnsupportedError"),
        "msgpack": (file("msgpack", pens.packed(dtypes=["object"])), "UnsupportedError"),
        "json_base64": (file("json_base64", pens.text(dtypes=["|O"])), "UnsupportedError"),
        "protobuf": (file("protobuf", pens.weight(dtype=b"object")), "UnsupportedError"),
    },
    "hole": {
        "fedwt": (fedwt(dims=[1]), "DecodeError"),
        "numpy": (npy("(1,)"), "DecodeError"),
        "fedwt1": (file("fedwt1", pens.fedwt1(body=F4 + b"\0\0\0\0")), "DecodeError"),
        "safetensors": (
            file(
                "safetensors", pens.safetensors({"a": pens.info(), "b": pens.info(offsets=(12, 20))}, F4 * 3), count=2
            ),
            "DecodeError",
        ),
        "msgpack": NO_HOLES,
        "json_base64": (file("json_base64", pens.text().replace(b",", b" ,")), "DecodeError"),
        "protobuf": (file("protobuf", pens.weight() + pens.field(9, b"hidden")), "UnsupportedError"),
    },
    "bytes behind": {
        "fedwt": (fedwt((F4, F4), types=[0, 0]), "DecodeError"),
        "numpy": (npy(body=F4 + b"\0"), "DecodeError"),
        "fedwt1": (file("fedwt1", pens.fedwt1(tail=b"\0")), "DecodeError"),
        "safetensors": (file("safetensors", pens.safetensors({"a": pens.info()}, F4 + b"\0")), "DecodeError"),
        "msgpack": (file("msgpack", pens.packed() + b"\0"), "DecodeError"),
        "json_base64": (file("json_base64", pens.text() + b" "), "DecodeError"),
        "protobuf": (file("protobuf", pens.weight() + b"\0"), "UnsupportedError"),
    },
    "part of an element": {
        "fedwt": (fedwt(F4[:-1]), "DecodeError"),
        "numpy": (npy(body=F4[:-1]), "DecodeError"),
        "fedwt1": (file("fedwt1", pens.fedwt1(body=F4[:-1])), "DecodeError"),
        "safetensors": (
            file("safetensors", pens.safetensors({"a": pens.info(offsets=(1, 9))}, b"\0" + F4)),
            "DecodeError",
        ),
        "msgpack": (file("msgpack", pens.packed(data=[F4[:-1]])), "DecodeError"),
        "json_base64": (file("json_base64", pens.text(data=["AACAPwAAIA=="])), "DecodeError"),
        "protobuf": (file("protobuf", pens.weight(data=F4[:-1])), "DecodeError"),
    },
    "name that is not UTF-8": {
        "fedwt": (raw_table("tensors", b"\x96\x91\xa1\xff\xc4\1\1\x91\2\x91\0\x91\xa7float32\x91\0"), "DecodeError"),
        "numpy": (raw_table("tensors_npy", b"\x92\x91\xa1\xff\x91\xa7float32"), "DecodeError"),
        "fedwt1": (file("fedwt1", pens.fedwt1(metadata=b'{"fedpost":{"names":["\xff"]}}')), "DecodeError"),
        "safetensors": (
            file("safetensors", pens.safetensors(b'{"\xff":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}')),
            "DecodeError",
        ),
        "msgpack": (file("msgpack", pens.packed(names=["ab"]).replace(b"\xa2ab", b"\xa2\xff\xfe")), "DecodeError"),
        "json_base64": (file("json_base64", pens.text().replace(b'["a"]', b'["\xff"]')), "DecodeError"),
        "protobuf": (file("protobuf", pens.weight(name=b"\xff")), "DecodeError"),
    },
    "right digest over a lie": {
        "fedwt": (fedwt(names=["a", "b"]), "DecodeError"),
        "numpy": (npys(["a", "b"], ["float32"] * 2, npy_file()), "DecodeError"),
        "fedwt1": (file("fedwt1", pens.fedwt1(), count=2), "DecodeError"),
        "safetensors": (file("safetensors", pens.safetensors({"a": pens.info()}), count=2), "DecodeError"),
        "msgpack": (file("msgpack", pens.packed(), count=2), "DecodeError"),
        "json_base64": (file("json_base64", pens.text(), count=2), "DecodeError"),
        "protobuf": (file("protobuf", pens.weight(), count=2), "DecodeError"),
    },
}
CASES = [(attack, name) for attack, row in MATRIX.items() for name, cell in row.items() if not isinstance(cell, str)]
GOOD = {
    "fedwt": fedwt(),
    "numpy": npy(),
    "fedwt1": file("fedwt1", pens.fedwt1()),
    "safetensors": file("safetensors", pens.safetensors({"a": pens.info()})),
    "msgpack": file("msgpack", pens.packed()),
    "json_base64": file("json_base64", pens.text()),
    "protobuf": file("protobuf", pens.weight()),
}


@pytest.fixture(scope="module")
def outcomes(forge, confine):
    frames = {f"{attack}: {name}": MATRIX[attack][name][0](forge) for attack, name in CASES}
    return confine(frames | {name: make(forge) for name, make in GOOD.items()})


@pytest.mark.parametrize(("attack", "name"), CASES)
def test_gets_the_right_error_at_once_and_without_memory(attack, name, outcomes):
    outcome = outcomes[f"{attack}: {name}"]
    assert outcome["error"] == MATRIX[attack][name][1], outcome
    assert "DecodeError" in outcome["classes"]
    assert outcome["seconds"] < 1


@pytest.mark.parametrize("name", GOOD)
def test_the_same_without_the_lie_is_taken(name, outcomes):
    """What the attacks alter is right before."""
    assert outcomes[name]["error"] == "accepted", outcomes[name]


def test_the_table_is_complete():
    assert all(tuple(row) == FORMATS for row in MATRIX.values())
    text = (HERE / "README.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in re.findall(r"^\|.*\|$", text, re.MULTILINE)
    ]
    assert tuple(cell.strip("`") for cell in rows[0][1:]) == ("frame", *FORMATS, "parts")
    found = {row[0]: row[2:-1] for row in rows[2:] if len(row) == len(rows[0])}
    assert found == {
        attack: ["–" if isinstance(cell, str) else "yes" for cell in row.values()] for attack, row in MATRIX.items()
    }
