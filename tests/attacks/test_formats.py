"""Hostile files of the formats made elsewhere, alone and in frames whose digests are all right."""

from __future__ import annotations

import json
import struct
from importlib import import_module

import msgpack
import numpy as np
import pytest

from fedpost.errors import DecodeError, RemoteError

NAMES = ("fedwt1", "json_base64", "msgpack", "protobuf", "safetensors")
MODULES = {name: import_module(f"fedpost.tensors.{name}") for name in NAMES}
F4 = struct.pack("<2f", 1, -2.5)


def small(name):
    """A small file with everything in it that a format has."""
    sparse = np.zeros(40, np.float32)
    sparse[[3, 17]] = 1
    tensors = {"w": np.array([[1, -2.5]], "<f4"), "é": sparse, "none": np.ones((0, 3), np.int8), "s": np.array(True)}
    return b"".join(MODULES[name].to_bytes(tensors, {"round": "3"}))


@pytest.mark.parametrize("name", NAMES)
def test_no_length_but_the_right_one_is_taken(name):
    data = small(name)
    read = MODULES[name].from_bytes
    whole = read(data)[0]
    for length in range(len(data)):
        try:
            arrays, _ = read(data[:length])
        except DecodeError:
            continue
        # A message that is cut between two of its fields is a message.
        assert name == "protobuf"
        assert list(arrays) == list(whole)[: len(arrays)]
    for more in (b"\0", b" x", b"\xff" * 9, data):
        with pytest.raises(DecodeError):
            read(data + more)


@pytest.mark.parametrize("name", NAMES)
def test_any_byte_can_be_anything(name):
    """Every byte of a small file, in turn, as each of a few others: it is refused, or other values come."""
    data = bytearray(small(name))
    read = MODULES[name].from_bytes
    for position, byte in enumerate(bytes(data)):
        for wrong in {0, 1, 2, 0x7F, 0x80, 0xFF, byte ^ 1, byte ^ 0x80, *b'"\\{[,9- O'} - {byte}:
            data[position] = wrong
            try:
                arrays, _ = read(data)
                assert sum(array.nbytes for array in arrays.values()) < 10_000
            except RemoteError:
                pass
        data[position] = byte


# ── files as somebody writes them who means harm ─────────────────────────────────────────────────────────────────────


def fedwt1(
    *, metadata=b"{}", count=1, dims=(2,), dtype=b"float32", size=2, index=0, flag=0, length=None, body=F4, tail=b""
):
    head = b"FEDWT001" + struct.pack("<II", count, len(metadata)) + metadata
    row = bytes([len(dims)]) + struct.pack(f"<{len(dims)}I", *dims) + bytes([len(dtype)]) + dtype
    row += struct.pack("<Q", size)
    return head + row + struct.pack("<IBQ", index, flag, len(body) if length is None else length) + body + tail


def sparse(count, width, gaps, values=b""):
    return struct.pack("<QB7x", count, width) + gaps + values


def safetensors(header, body=F4, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def info(dtype="F32", shape=(2,), offsets=(0, 8), **more):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}


def columns(key, **changed):
    return {key: 1, "metadata": {}, "names": ["a"], "dtypes": ["float32"], "shapes": [[2]], "data": [F4]} | changed


def packed(**changed):
    return msgpack.packb(columns("fedpost_msgpack", **changed))


def text(**changed):
    changed = {"data": ["AACAPwAAIMA="]} | changed
    return json.dumps(columns("fedpost_json", **changed), separators=(",", ":")).encode()


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value):
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def weight(shape=b"\x02", dtype=b"float32", data=F4, name=b"a", more=b""):
    return field(2, field(2, shape) + field(3, dtype) + field(4, data) + field(5, name) + more)


DEEP = b"[" * 200_000


def many(value):
    """An object of 700,000 members."""
    return b"{%b}" % b",".join(b'"%x":%b' % (number, value) for number in range(700_000))


RESERVED = {"names": ["a"]}
BAD_JSON = {
    "NaN": b'{"x":NaN}',
    "Infinity": b'{"x":-Infinity}',
    "a number beyond all": b'{"x":1e999}',
    "a number of 5,000 digits": b'{"x":' + b"9" * 5000 + b"}",
    "a key twice": b'{"x":1,"x":1}',
    "a key twice, once escaped": b'{"x":1,"\\u0078":1}',
    "a key twice inside": b'{"x":[{"y":1,"y":1}]}',
    "deep lists": b'{"x":' + DEEP,
    "deep objects": b'{"x":' * 100_000,
    "not UTF-8": b'{"\xff":1}',
    "half a surrogate pair": b'{"\\ud800":1}',
    "a byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"x":1}'.encode("utf-16"),
    "a comment": b"{}//",
    "a control character": b'{"\n":1}',
    "a list": b"[]",
    "null": b"null",
    "nothing": b"",
    "two values": b"{} {}",
    "no end": b'{"x":"',
    "a code": b"__import__('os').system('touch /tmp/owned')",
}

BAD = {
    "fedwt1": {
        # NaN and infinity stand in its files from elsewhere, and are taken.
        **{f"JSON: {k}": fedwt1(metadata=data) for k, data in BAD_JSON.items() if k not in ("NaN", "Infinity")},
        "metadata of lists": fedwt1(metadata=b'{"x":[' + b"[]," * 2_000_000 + b"1]}"),
        "metadata of many members": fedwt1(metadata=many(b"1")),
        "another magic": b"FEDWT002" + fedwt1()[8:],
        "arrays that are not there": fedwt1(count=2),
        "2^32-1 arrays": fedwt1(count=2**32 - 1),
        "131,072 arrays in a few bytes": fedwt1(count=1 << 17),
        "4 GiB of metadata": b"FEDWT001" + struct.pack("<II", 1, 2**32 - 1) + b"{}",
        "16 MiB of metadata that are not there": b"FEDWT001" + struct.pack("<II", 1, 1 << 24) + b"{}",
        "no names": fedwt1(metadata=b'{"fedpost":{}}'),
        "a name too many": fedwt1(metadata=b'{"fedpost":{"names":["a","b"]}}'),
        "a name twice": fedwt1(metadata=b'{"fedpost":{"names":["a","a"]}}', count=2),
        "a name that is a number": fedwt1(metadata=b'{"fedpost":{"names":[1]}}'),
        "another reserved key": fedwt1(metadata=b'{"fedpost":{"names":["a"],"x":1}}'),
        "a type of no array": fedwt1(metadata=b'{"fedpost":{"names":["a"],"dtypes":{"1":"int8"}}}'),
        "a type with a sign": fedwt1(metadata=b'{"fedpost":{"names":["a"],"dtypes":{"+0":"int8"}}}'),
        "two types": fedwt1(metadata=b'{"fedpost":{"names":["a"],"dtypes":{"0":"int32"}}}'),
        "a type of code": fedwt1(metadata=b'{"fedpost":{"names":["a"],"dtypes":{"0":"os.system"}}}'),
        "an impossible type": fedwt1(metadata=b'{"fedpost":{"names":["a"],"dtypes":{"0":"struct[8,["}}}'),
        **{f"type {kind!r}": fedwt1(dtype=kind) for kind in (b"object", b"O", b"", b"M8[s/0]", b"f4", b"\xff", b"|O")},
        "a size that is not the shape's": fedwt1(size=3),
        "a size of 2^64-1": fedwt1(size=2**64 - 1),
        "a shape beyond all": fedwt1(dims=(2**32 - 1,) * 3, size=2**64 - 1),
        "nothing, beyond all": fedwt1(dims=(0, *(2**32 - 1,) * 3), size=0, body=b""),
        "255 dimensions": fedwt1(dims=(1,) * 254 + (2,)),
        "more than it may hold": fedwt1(dims=(2**31, 2), size=2**32, length=2**34),
        "another index": fedwt1(index=1),
        "a pickle": fedwt1(flag=1, body=b"\x80\x04cos\nsystem\n(S'touch /tmp/owned'\ntR."),
        "flag 255": fedwt1(flag=255),
        "a length too short": fedwt1(length=4),
        "a length too long": fedwt1(length=9),
        "a length of 2^64-1": fedwt1(length=2**64 - 1),
        "bytes that trail": fedwt1(tail=b"\0"),
        "a sparse bomb of 16 GiB": fedwt1(dims=(2**32 - 1,), size=2**32 - 1, flag=2, body=sparse(0, 1, b"")),
        "a sparse bomb of 1.5 MB": fedwt1(dims=(400_001,), size=400_001, flag=2, body=sparse(0, 1, b"")),
        "a sparse array that is longer": fedwt1(flag=2, body=sparse(2, 1, b"\0\0", F4)),
        "a sparse array behind its end": fedwt1(dims=(100,), size=100, flag=2, body=sparse(2, 1, b"\x32\x32", F4)),
        "a sparse array of 2^64-1": fedwt1(dims=(100,), size=100, flag=2, body=sparse(2**64 - 1, 1, b"\0", F4)),
        "a sparse array of no bytes": fedwt1(
            metadata=b'{"fedpost":{"names":["a"],"dtypes":{"0":"void[0]"}}}',
            dtype=b"|V0",
            flag=2,
            body=sparse(0, 1, b""),
        ),
    },
    "safetensors": {
        **{f"JSON: {label}": safetensors(data, b"") for label, data in BAD_JSON.items()},
        "metadata of many members": safetensors(b'{"__metadata__":' + many(b'""') + b"}", b""),
        "members without number": safetensors(many(b"1"), b""),
        "lists": safetensors(b'{"x":[' + b"[]," * 2_000_000 + b"1]}"),
        "a length of 2^64-1": safetensors({"a": info()}, length=2**64 - 1),
        "a header of 16 MiB that is not there": safetensors({"a": info()}, length=1 << 24),
        "a space before the brace": safetensors(b" " + json.dumps({"a": info()}).encode()),
        "a name twice": safetensors(b'{"a":%b,"a":%b}' % ((json.dumps(info()).encode(),) * 2)),
        "a hole at the start": safetensors({"a": info(offsets=(8, 16))}, F4 * 2),
        "a hole between": safetensors({"a": info(), "b": info(offsets=(9, 17))}, F4 * 3),
        "a hole at the end": safetensors({"a": info()}, F4 + b"\0"),
        "an overlap": safetensors({"a": info(), "b": info(offsets=(4, 12))}, F4 + F4[:4]),
        "the same bytes twice": safetensors({"a": info(), "b": info()}),
        "past the end": safetensors({"a": info(shape=(3,), offsets=(0, 12))}),
        "offsets backwards": safetensors({"a": info(offsets=(8, 0))}),
        "offsets below zero": safetensors({"a": info(offsets=(-8, 0))}),
        "offsets of 2^64": safetensors({"a": info(offsets=(2**64, 2**64 + 8))}),
        "one offset": safetensors({"a": info(offsets=(0,))}),
        "offsets with a fraction": safetensors({"a": info(offsets=(0, 8.5))}),
        "an offset that is true": safetensors({"a": info("U8", (1,), (False, True))}, b"\0"),
        "a shape that does not fit": safetensors({"a": info(shape=(3,))}),
        "a shape below zero": safetensors({"a": info(shape=(-1, -2))}),
        "a shape beyond all": safetensors({"a": info(shape=(2**61, 2**61))}),
        "nothing, beyond all": safetensors({"a": info(shape=(0, 2**61), offsets=(0, 0))}, b""),
        "a shape of 5,000": safetensors({"a": info(shape=(1,) * 5000 + (2,))}),
        "a shape of text": safetensors({"a": info(shape=("2",))}),
        "another key": safetensors({"a": info(x=1)}),
        "no type": safetensors({"a": {"shape": [2], "data_offsets": [0, 8]}}),
        **{
            f"type {kind!r}": safetensors({"a": info(kind)}) for kind in ("F4", "F33", "object", "float32", "", 7, None)
        },
        "metadata that is no text": safetensors({"__metadata__": {"x": 1}}, b""),
        "metadata that is a list": safetensors({"__metadata__": []}, b""),
        "a tensor that is a number": safetensors({"a": 1}, b""),
        "300,000 tensors": safetensors({f"{i:x}": info("U8", (0,), (0, 0)) for i in range(300_000)}, b""),
    },
    "msgpack": {
        **{
            f"first byte {byte:#x}": bytes([byte]) + packed()[1:] for byte in (0x80, 0x85, 0x87, 0x96, 0xC0, 0xDE, 0xDF)
        },
        "keys twice": b"\x86" + packed(data=[])[1:-6] + b"\xa5names\x90",
        "another key": msgpack.packb(
            {"x" if key == "data" else key: v for key, v in columns("fedpost_msgpack").items()}
        ),
        **{
            f"{key} is {wrong!r}": packed(**{key: wrong})
            for key in columns("fedpost_msgpack")
            for wrong in (None, 7, "x")
        },
        "a name twice": packed(names=["a"] * 2, dtypes=["float32"] * 2, shapes=[[2]] * 2, data=[F4] * 2),
        "a name too few": packed(names=[]),
        "a name too many": packed(names=["a", "b"]),
        "a name of bytes": packed(names=[b"a"]),
        "a name that is not UTF-8": packed(names=["ab"]).replace(b"\xa2ab", b"\xa2\xff\xfe"),
        "data of text": packed(data=["12345678"]),
        "a type of code": packed(dtypes=["os.system"]),
        "shapes of text": packed(shapes=[["2"]]),
        "a shape that does not fit": packed(shapes=[[3]]),
        "a shape below zero": packed(shapes=[[-2]]),
        "a shape of minus times minus": packed(shapes=[[-1, -2]]),
        "a shape beyond all": packed(shapes=[[2**63, 2**63]]),
        "nothing, beyond all": packed(shapes=[[0, 2**63]], data=[b""]),
        "a shape of 5,000": packed(shapes=[[1] * 5000 + [2]]),
        "a truth in a shape": packed(shapes=[[2, True]]),
        "2^32-1 names": packed(names=[]).replace(b"names\x90", b"names\xdd\xff\xff\xff\xff"),
        "4 GiB of data": packed(data=[b""]).replace(b"\xc4\x00", b"\xc6\xff\xff\xff\xff"),
        "300,000 tensors": packed(names=[""] * 300_000),
        "300,000 arrays": packed(data=[b""] * 300_000),
        "deep shapes": packed(shapes=[]).replace(b"shapes\x90", b"shapes" + b"\x91" * 300_000),
        "deep metadata": packed().replace(b"metadata\x80", b"metadata" + b"\x81\xa1x" * 300_000),
        "metadata of lists": packed(metadata={"x": [[]] * 2_000_000}),
        "metadata with a list for a key": packed().replace(b"metadata\x80", b"metadata\x81\x90\x01"),
    },
    "json_base64": {
        **{
            f"JSON: {label}": text().replace(b'"metadata":{}', b'"metadata":' + data)
            for label, data in BAD_JSON.items()
        },
        **{f"{key} is {wrong!r}": text(**{key: wrong}) for key in columns("fedpost_json") for wrong in (None, 7, "x")},
        "metadata of lists": text(metadata={"x": [[]] * 2_000_000}),
        "white space": text().replace(b",", b", "),
        "white space before": b" " + text(),
        "white space behind": text() + b"\n",
        "a member twice": text()[:-1] + b',"names":["a"]}',
        "a member twice, escaped": text()[:-1] + b',"n\\u0061mes":["a"]}',
        "another member": text(x=1),
        "an escaped member": text().replace(b'"names"', b'"n\\u0061mes"'),
        "no member": b"{}",
        "a list": b"[]",
        "deep": DEEP,
        "deep shapes": text().replace(b"[[2]]", DEEP),
        "a version of 1.0": text(fedpost_json=1.0),
        "a name twice": text(names=["a"] * 2, dtypes=["float32"] * 2, shapes=[[2]] * 2, data=["AACAPwAAIMA="] * 2),
        "a name too many": text(names=["a", "b"]),
        "a name of half a pair": text().replace(b'["a"]', b'["\\ud800"]'),
        "a type of code": text(dtypes=["os.system"]),
        "a shape that does not fit": text(shapes=[[3]]),
        "a shape below zero": text(shapes=[[-1, -2]]),
        "a shape beyond all": text(shapes=[[2**63, 2**63]]),
        "a shape of 5,000 digits": text().replace(b"[[2]]", b"[[" + b"9" * 5000 + b"]]"),
        "a shape of 1e999": text().replace(b"[[2]]", b"[[1e999]]"),
        "nothing, beyond all": text(shapes=[[0, 2**63]], data=[""]),
        "base64 with a line break": text(data=["AACAPwAA\nIMA="]),
        "base64 without its end": text(data=["AACAPwAAIMA"]),
        "base64 with bits that say nothing": text(data=["AACAPwAAIMB="]),
        "base64 of the other alphabet": text(data=["AACA-wAAIMA="]),
        "base64 of other signs": text(data=["AACAPwAAIMé="]),
        "300,000 tensors": text(data=[""] * 300_000),
        "two million names": text(names=["ab"] * 2_000_000),
        "300,000 names": text(names=[""] * 300_000),
    },
    "protobuf": {
        "text": b"hello, world",
        "a field of no number": field(0, b""),
        "another field": weight() + field(3, b"x"),
        "another field of 2^29": weight() + field(2**29 - 1, b"x"),
        "a weight that is a number": field(2, 7),
        "another field of a weight": weight(more=field(6, b"x")),
        "an array twice": weight(more=field(4, F4)),
        "a name twice in one": weight(more=field(5, b"a")),
        "a name in two": weight() + weight(more=field(1, 1)),
        "a name that is not UTF-8": weight(name=b"\xff\xfe"),
        "a type that is not UTF-8": weight(dtype=b"\xff\xfe"),
        "one with a name and one without": weight() + field(2, field(1, 1) + field(3, b"int8")),
        "another layer": weight(more=field(1, 1)),
        "layer 2^32": weight(more=field(1, 2**32 + 7)),
        "a group": weight() + b"\x13\x14",
        "groups, deep": b"\x13" * 300_000,
        "a wire type of 7": weight() + b"\x17",
        "a number without an end": weight() + b"\x12" + b"\xff" * 11,
        "a length of 2^63": weight() + b"\x12" + varint(2**63),
        "a length past the end": weight()[:-1],
        "a shape that does not fit": weight(shape=b"\x03"),
        "a shape beyond all": weight(shape=varint(2**63) * 2),
        "nothing, beyond all": weight(shape=b"\0" + varint(2**63), data=b""),
        "a shape of 500": weight(shape=b"\x01" * 500 + b"\x02"),
        "a shape of a megabyte": weight(shape=b"\x01" * 2**20),
        "a shape that ends early": weight(shape=b"\x82"),
        "a shape that is not packed": field(2, field(2, 2) + field(3, b"float32") + field(4, F4)),
        **{f"type {kind!r}": weight(dtype=kind) for kind in (b"object", b"", b"os.system", b"struct[8,[", b"f4")},
        "300,000 weights": b"\x12\x00" * 300_000,
        "metadata that is not UTF-8": field(1, field(1, b"\xff")) + weight(),
        "metadata of another field": field(1, field(3, b"x")) + weight(),
        "entries of nothing": b"\x0a\x00" * 1_000_000,
        "a key a million times": field(1, b"\x0a\x00" * 1_000_000),
        "a tag of six bytes": b"\x92\x80\x80\x80\x80\x00" + weight()[1:],
        "metadata of 17 MiB": field(1, field(1, bytes(17 << 20))) + weight(),
    },
}
CLASSES = {
    "LimitError": {
        "fedwt1: metadata of lists",
        "fedwt1: 2^32-1 arrays",
        "fedwt1: 4 GiB of metadata",
        "fedwt1: a sparse bomb of 16 GiB",
        "fedwt1: a sparse bomb of 1.5 MB",
        "safetensors: lists",
        "safetensors: a length of 2^64-1",
        "safetensors: 300,000 tensors",
        "msgpack: 300,000 tensors",
        "msgpack: 300,000 arrays",
        "msgpack: metadata of lists",
        "json_base64: metadata of lists",
        "json_base64: 300,000 tensors",
        "json_base64: 300,000 names",
        "protobuf: metadata of 17 MiB",
        "protobuf: entries of nothing",
        "protobuf: a key a million times",
        "safetensors: metadata of many members",
        "safetensors: members without number",
        "fedwt1: metadata of many members",
        "json_base64: two million names",
    },
    "UnsupportedError": {
        "fedwt1: arrays that are not there",
        "fedwt1: 131,072 arrays in a few bytes",
        "fedwt1: a type of code",
        "fedwt1: type b'object'",
        "fedwt1: type b'O'",
        "fedwt1: type b''",
        "fedwt1: type b'M8[s/0]'",
        "fedwt1: type b'f4'",
        "fedwt1: type b'\\xff'",
        "fedwt1: type b'|O'",
        "fedwt1: a pickle",
        "fedwt1: flag 255",
        "safetensors: type 'F4'",
        "safetensors: type 'F33'",
        "safetensors: type 'object'",
        "safetensors: type 'float32'",
        "safetensors: type ''",
        "msgpack: fedpost_msgpack is 7",
        "msgpack: a type of code",
        "json_base64: fedpost_json is None",
        "json_base64: fedpost_json is 7",
        "json_base64: fedpost_json is 'x'",
        "json_base64: a version of 1.0",
        "json_base64: a type of code",
        "protobuf: 300,000 weights",
        "protobuf: text",
        "protobuf: a field of no number",
        "protobuf: another field",
        "protobuf: another field of 2^29",
        "protobuf: a weight that is a number",
        "protobuf: another field of a weight",
        "protobuf: a group",
        "protobuf: groups, deep",
        "protobuf: a wire type of 7",
        "protobuf: a shape that is not packed",
        "protobuf: type b'object'",
        "protobuf: type b''",
        "protobuf: type b'os.system'",
        "protobuf: type b'f4'",
        "protobuf: metadata of another field",
    },
    "TruncatedError": {
        "fedwt1: 16 MiB of metadata that are not there",
        "fedwt1: more than it may hold",
        "safetensors: a header of 16 MiB that is not there",
        "safetensors: past the end",
        "protobuf: a number without an end",
        "protobuf: a length of 2^63",
        "protobuf: a length past the end",
        "protobuf: a tag of six bytes",
        "protobuf: a shape that ends early",
    },
}
"""Lies that are told by another error than DecodeError itself."""
RIGHT = {label: error for error, labels in CLASSES.items() for label in labels}

GOOD = {
    "fedwt1": {
        "one tensor": fedwt1(),
        "metadata that looks like code": fedwt1(metadata=b'{"x":"__import__(\'os\')"}'),
        "a sparse array": fedwt1(dims=(100,), size=100, flag=2, body=sparse(2, 1, b"\0\x05", F4)),
    },
    "safetensors": {
        "one tensor": safetensors({"a": info()}),
        "white space": safetensors(b'{ "a" :\t' + json.dumps(info()).encode() + b"\n}  "),
        "a name of a path": safetensors({"../../etc/passwd": info(), "__metadata__": {"x": "y"}}),
    },
    "msgpack": {"one tensor": packed(), "metadata": packed(metadata={"x": [1, None, {"y": b"z"}]})},
    "json_base64": {"one tensor": text(), "metadata": text(metadata={"names": [1, None, {"data": "z"}]})},
    "protobuf": {"one tensor": weight(), "metadata": field(1, field(1, b"x")) + weight()},
}


@pytest.fixture(scope="module")
def outcomes(forge, confine):
    """What comes of every file, as the one segment of a frame that promises a tensor."""
    frames = {
        f"{name}: {label}": forge.sections({"pipeline": f"dense | {name} | none", f"tensors_{name}": 1}, data)
        for files in (BAD, GOOD)
        for name, cases in files.items()
        for label, data in cases.items()
        if data
    }
    return confine(frames)


CASES = [(name, label) for name, cases in BAD.items() for label in cases]


@pytest.mark.parametrize(("name", "label"), CASES)
def test_a_lie_is_refused_at_once_and_without_memory(name, label, outcomes):
    outcome = outcomes[f"{name}: {label}"]
    assert outcome["error"] == RIGHT.get(f"{name}: {label}", "DecodeError"), outcome
    assert "DecodeError" in outcome["classes"]
    assert outcome["seconds"] < 1


@pytest.mark.parametrize(("name", "label"), [(name, label) for name, cases in GOOD.items() for label in cases])
def test_what_is_right_is_taken(name, label, outcomes):
    assert outcomes[f"{name}: {label}"]["error"] == "accepted"


@pytest.mark.parametrize(("name", "label"), CASES)
def test_a_file_alone_is_refused_as_well(name, label):
    with pytest.raises(DecodeError):
        MODULES[name].from_bytes(BAD[name][label])


def test_what_cannot_be_is_refused_by_name():
    for name, label, error in (
        ("fedwt1", "a pickle", "UnsupportedError"),
        ("fedwt1", "a sparse bomb of 16 GiB", "LimitError"),
        ("fedwt1", "2^32-1 arrays", "LimitError"),
        ("safetensors", "type 'F4'", "UnsupportedError"),
        ("safetensors", "300,000 tensors", "LimitError"),
        ("msgpack", "300,000 arrays", "LimitError"),
        ("json_base64", "300,000 tensors", "LimitError"),
        ("protobuf", "metadata of 17 MiB", "LimitError"),
    ):
        with pytest.raises(DecodeError) as caught:
            MODULES[name].from_bytes(BAD[name][label])
        assert type(caught.value).__name__ == error, label
