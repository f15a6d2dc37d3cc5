"""Coded updates with one lie each, in every codec: all else is as the specification says, digests are right.

``docs/spec/updates.md``, section 9, says what must be refused. Here each row of it is sent by somebody who can count.
"""

from __future__ import annotations

import struct
import subprocess
import sys
import tracemalloc

import ml_dtypes
import numpy as np
import pytest

from fedpost.codecs import Base
from fedpost.codecs.kernels.bits import BitWriter, put_varint
from fedpost.codecs.kernels.subsets import put_subset, put_symbols
from fedpost.compression import Compression
from fedpost.errors import DecodeError, TruncatedError, UnsupportedError
from fedpost.frame import Frame
from fedpost.pipeline import decode_tensors
from fedpost.tensors import Fedwt

SHAPE = (3, 5)
SIZE = 15
BASE = Base.of(
    {
        "w": np.zeros(SHAPE, np.float32),
        "n": np.zeros(SHAPE, np.int32),
        "big": np.zeros(SHAPE, ">f4"),
        "empty": np.zeros((0, 5), np.float32),
        "v": np.zeros(4, np.float32),
    }
)
NOTES = {"base": BASE.digest, "whole": [], "steps": [1.0], "seed": 1}
NAN, INF = float("nan"), float("inf")


def read(codec, tensors, **notes):
    encoded = Fedwt().encode(tensors)
    sections = {"pipeline": f"{codec} | fedwt | none", "update": {**NOTES, **notes}, **encoded.sections}
    source = decode_tensors(Frame.decode(bytes(Frame.build(sections, encoded.segments))), base=BASE)
    return {spec.name: source.read(spec.name, 0, spec.size) for spec in source.specs}


def read_bytes(codec, data, name="w"):
    return read(codec, {name: np.frombuffer(data, np.uint8)})[name]


def integers(*values):
    return np.array(values, np.int64)


def streams(*steps):
    """The two streams that these steps write."""
    writer = BitWriter()
    for name, *arguments in steps:
        getattr(writer, name)(*(integers(*argument) for argument in arguments))
    return bytes(writer)


def uq(flags, body, *, k=19, length=None, more=b""):
    block = bytes([flags]) + body
    return bytes([k]) + put_varint(len(block) if length is None else length) + block + more


def subset(bits, *sizes):
    return lambda writer: put_subset(writer, np.array(bits, np.bool_), integers(*sizes))


def symbols(*values):
    return lambda writer: put_symbols(writer, integers(*values))


def plain(values, widths):
    return lambda writer: writer.plain(integers(*values), integers(*widths))


def gamma(*values):
    return lambda writer: writer.gamma(integers(*values))


def body(*parts):
    writer = BitWriter()
    for part in parts:
        part(writer)
    return bytes(writer)


def put(data, at, *new):
    return data[:at] + bytes(new) + data[at + len(new) :]


def put_float(data, at, value):
    return put(data, at, *struct.pack("<f", value))


def places(count, width, *parts):
    data = put_varint(count) + bytes([width]) + body(*parts)
    return struct.pack("<I", len(data)) + data


def top(places, *values):
    return b"\4" + places + struct.pack(f"<{len(values)}f", *values)


def stc(places, signs=b"\1", mean=1.0):
    return struct.pack("<f", mean) + places + signs


def unary(*values):
    return lambda writer: writer.unary(integers(*values))


ONE = [0] * 7 + [1] + [0] * 7
GOOD = {
    "uq(2)": uq(0, body(subset(ONE, SIZE), plain([1], [1]), gamma(0))),
    "topk(0.1)": top(places(1, 0, unary(7)), 1.0),
    "stc(0.1)": stc(places(1, 0, unary(7))),
    "eden(2)": b"\2" + struct.pack("<f", 1.0) + bytes(4),
    "int8": b"\x08\x04\x08" + struct.pack("<f", 1.0) + bytes([1] * SIZE),
    "int4": b"\x04\x04\x08" + struct.pack("<f", 1.0) + bytes(8),
    "sign": struct.pack("<f", 1.0) + bytes(2),
}


def test_what_is_true_is_read():
    for codec, data in GOOD.items():
        assert np.isfinite(read_bytes(codec, data)).all()
    assert np.flatnonzero(read_bytes("uq(2)", GOOD["uq(2)"])).tolist() == [7]
    assert np.flatnonzero(read_bytes("stc(0.1)", GOOD["stc(0.1)"])).tolist() == [7]


HALF = [1, 0] * 7 + [1]
LIES = {
    # ── uq: blocks ──
    "uq: no block of that size": ("uq(2)", put(GOOD["uq(2)"], 0, 9), "size of blocks"),
    "uq: blocks too large": ("uq(2)", put(GOOD["uq(2)"], 0, 23), "size of blocks"),
    "uq: no bytes": ("uq(2)", b"", "size of blocks"),
    "uq: no length": ("uq(2)", b"\x13", "varint is cut off"),
    "uq: a length too long": ("uq(2)", b"\x13" + b"\xff" * 6, "varint is too long"),
    "uq: a length in seven bytes": ("uq(2)", b"\x13" + b"\x80" * 6 + b"\1" + bytes(9), "varint is too long"),
    "uq: a length longer than it need be": ("uq(2)", b"\x13\x86\0" + GOOD["uq(2)"][2:], "longer than it need be"),
    "uq: a block past the end": ("uq(2)", uq(0, b"\0", length=1 << 40), "blocks are not as long"),
    "uq: a block that is shorter": ("uq(2)", uq(0, GOOD["uq(2)"][3:], length=1), "blocks are not as long"),
    "uq: bytes behind": ("uq(2)", uq(0, GOOD["uq(2)"][3:], more=b"\0"), "blocks are not as long"),
    "uq: an empty block": ("uq(2)", b"\x13\0", "no such flags"),
    "uq: signs without rows": ("uq(2)", uq(4, GOOD["uq(2)"][3:]), "no such flags"),
    "uq: signs and columns": ("uq(2)", uq(6, GOOD["uq(2)"][3:]), "no such flags"),
    "uq: a flag that is none": ("uq(2)", uq(8, GOOD["uq(2)"][3:]), "no such flags"),
    # ── uq: streams ──
    "uq: unary past the end": ("uq(2)", uq(0, b"\x7f\1"), "unary stream is said"),
    "uq: unary without an end": ("uq(2)", uq(0, b"\2\1\0" + bytes(3)), "does not end with"),
    "uq: unary of zeros": ("uq(2)", uq(0, b"\1\0" + bytes(3)), "does not end with"),
    "uq: a number left": ("uq(2)", uq(0, body(subset(ONE, SIZE), plain([1], [1]), gamma(0), unary(0))), "left over"),
    "uq: a bit left": (
        "uq(2)",
        uq(0, body(subset(ONE, SIZE), plain([1], [1]), gamma(0), plain([1], [1]))),
        "left over",
    ),
    "uq: a byte left": (
        "uq(2)",
        uq(0, body(subset(ONE, SIZE), plain([1], [1]), gamma(0), plain([0], [9]))),
        "left over",
    ),
    # ── uq: subsets, whose counts are its tables ──
    "uq: counts without numbers": ("uq(2)", uq(0, body(plain([7], [4]))), "fewer unary numbers"),
    "uq: no counts": ("uq(2)", uq(0, b"\0"), "fewer bits"),
    "uq: a gap out of its class": (
        "uq(2)",
        uq(0, body(plain([1], [4]), unary(7), plain([0], [2]))),
        "out of its class",
    ),
    "uq: gaps that add up": (
        "uq(2)",
        uq(0, body(plain([7], [4]), unary(9, 9, 9, 9, 9, 9, 9), plain([0] * 7, [1] * 7))),
        "out of its class",
    ),
    "uq: more ones than a class": (
        "uq(2)",
        # Row symbols 1, 2, 2: classes of 5 and of 10 cells, in four bits and three.
        uq(1, body(symbols(1, 2, 2), plain([7, 0], [3, 4]), unary(0, 0, 0, 0, 0, 0, 0))),
        "more ones than the class",
    ),
    "uq: counts of classes that do not sum": (
        "uq(2)",
        uq(1, body(symbols(1, 2, 2), plain([2, 3], [3, 4]), unary(0, 0, 0), plain([0, 0, 0], [1, 1, 1]))),
        "fewer unary numbers",
    ),
    "uq: more rows of a kind than rows": ("uq(2)", uq(1, body(plain([1, 3], [3, 2]), unary(0))), "fewer"),
    "uq: rows deeper than there are": ("uq(2)", uq(1, body(plain([7], [3]))), "fewer"),
    "uq: a class of signs above 8": (
        "uq(2)",
        uq(5, body(symbols(1, 1, 1), subset(ONE, SIZE), symbols(0, 9, 0), subset([1], 1), gamma(0))),
        "class of signs",
    ),
    "uq: no signs": ("uq(2)", uq(0, body(subset(HALF, SIZE))), "fewer"),
    "uq: a magnitude of 2**24": (
        "uq(2)",
        uq(0, body(subset(ONE, SIZE), plain([1], [1]), gamma((1 << 24) - 1))),
        "too large",
    ),
    "uq: a magnitude of 2**40": ("uq(2)", uq(0, body(subset(ONE, SIZE), plain([1], [1]), gamma(1 << 40))), "too large"),
    # ── topk and stc ──
    "topk: no such width": ("topk(0.1)", put(GOOD["topk(0.1)"], 0, 8), "width of a value"),
    "topk: places past the end": ("topk(0.1)", put(GOOD["topk(0.1)"], 1, 200), "places are cut off"),
    "topk: values cut off": ("topk(0.1)", GOOD["topk(0.1)"][:-1], "values as places"),
    "topk: a value too many": ("topk(0.1)", GOOD["topk(0.1)"] + bytes(4), "values as places"),
    "topk: NaN": ("topk(0.1)", top(places(1, 0, unary(3)), NAN), "NaN or infinite"),
    "topk: infinity": ("topk(0.1)", top(places(1, 0, unary(3)), -INF), "NaN or infinite"),
    "topk: more places than elements": ("topk(0.1)", top(places(16, 0, unary(*[0] * 16)), *[1.0] * 16), "more places"),
    "topk: a place behind the end": ("topk(0.1)", top(places(1, 0, unary(15)), 1.0), "behind the end"),
    "topk: places that add up": ("topk(0.1)", top(places(3, 0, unary(7, 6, 0)), 1.0, 1.0, 1.0), "behind the end"),
    "topk: a width of 43": ("topk(0.1)", top(places(1, 43, unary(0), plain([0], [43])), 1.0), "width of a gap"),
    "topk: gaps of 42 bits": (
        "topk(0.1)",
        top(places(2, 42, unary(0, 0), plain([1 << 41] * 2, [42] * 2)), 1.0, 1.0),
        "behind the end",
    ),
    "topk: no width": ("topk(0.1)", top(struct.pack("<I", 1) + b"\1", 1.0), "width of a gap"),
    "stc: no mean": ("stc(0.1)", b"\0\0", "no mean magnitude"),
    "stc: a mean of NaN": ("stc(0.1)", put_float(GOOD["stc(0.1)"], 0, NAN), "mean magnitude"),
    "stc: a mean below zero": ("stc(0.1)", put_float(GOOD["stc(0.1)"], 0, -1.0), "mean magnitude"),
    "stc: an infinite mean": ("stc(0.1)", put_float(GOOD["stc(0.1)"], 0, INF), "mean magnitude"),
    "stc: places past the end": ("stc(0.1)", put(GOOD["stc(0.1)"], 4, 200), "places are cut off"),
    "stc: more places than elements": ("stc(0.1)", stc(places(16, 0, unary(*[0] * 16)), b"\1\1"), "more places"),
    "stc: a place behind the end": ("stc(0.1)", stc(places(1, 2, unary(3), plain([3], [2]))), "behind the end"),
    "stc: no signs": ("stc(0.1)", GOOD["stc(0.1)"][:-1], "signs as places"),
    "stc: signs too many": ("stc(0.1)", GOOD["stc(0.1)"] + b"\0", "signs as places"),
    "stc: a sign of nothing": ("stc(0.1)", put(GOOD["stc(0.1)"], len(GOOD["stc(0.1)"]) - 1, 3), "signs as places"),
    # ── eden ──
    "eden: no bits": ("eden(2)", put(GOOD["eden(2)"], 0, 0), "no such bits"),
    "eden: five bits": ("eden(2)", put(GOOD["eden(2)"], 0, 5), "no such bits"),
    "eden: no bytes": ("eden(2)", b"", "no such bits"),
    "eden: bytes missing": ("eden(2)", GOOD["eden(2)"][:-1], "not as long"),
    "eden: bytes behind": ("eden(2)", GOOD["eden(2)"] + b"\0", "not as long"),
    "eden: a scale of NaN": ("eden(2)", put_float(GOOD["eden(2)"], 1, NAN), "scale"),
    "eden: a scale below zero": ("eden(2)", put_float(GOOD["eden(2)"], 1, -1.0), "scale"),
    "eden: a scale that is huge": ("eden(2)", put_float(GOOD["eden(2)"], 1, 2.0**113), "scale"),
    "eden: an infinite scale": ("eden(2)", put_float(GOOD["eden(2)"], 1, INF), "scale"),
    # ── int8 and int4 ──
    "int8: seven bits": ("int8", put(GOOD["int8"], 0, 7), "layout of blocks"),
    "int8: scales of three bytes": ("int8", put(GOOD["int8"], 1, 3), "layout of blocks"),
    "int8: blocks too small": ("int8", put(GOOD["int8"], 2, 5), "layout of blocks"),
    "int8: blocks too large": ("int8", put(GOOD["int8"], 2, 13), "layout of blocks"),
    "int8: no head": ("int8", b"\x08\x04", "layout of blocks"),
    "int8: a byte missing": ("int8", GOOD["int8"][:-1], "not as long"),
    "int8: a byte behind": ("int8", GOOD["int8"] + b"\0", "not as long"),
    "int8: a scale of NaN": ("int8", put_float(GOOD["int8"], 3, NAN), "scale"),
    "int8: a scale below zero": ("int8", put_float(GOOD["int8"], 3, -1.0), "scale"),
    "int8: an infinite scale": ("int8", put_float(GOOD["int8"], 3, INF), "scale"),
    "int8: a scale that is huge": ("int8", put_float(GOOD["int8"], 3, 2.0**121), "scale"),
    "int8: minus 128": ("int8", put(GOOD["int8"], 9, 0x80), "below the least"),
    "int4: minus 8, low": ("int4", put(GOOD["int4"], 8, 0x08), "below the least"),
    "int4: minus 8, high": ("int4", put(GOOD["int4"], 8, 0x80), "below the least"),
    "int4: a number behind the last": ("int4", put(GOOD["int4"], 14, 0x10), "behind the last number"),
    "int4: a byte missing": ("int4", GOOD["int4"][:-1], "not as long"),
    # ── sign ──
    "sign: a bit behind the last": ("sign", put(GOOD["sign"], 5, 0x80), "behind the last sign"),
    "sign: a byte missing": ("sign", GOOD["sign"][:-1], "not as long"),
    "sign: a byte behind": ("sign", GOOD["sign"] + b"\0", "not as long"),
    "sign: no bytes": ("sign", b"", "not as long"),
    "sign: a mean of NaN": ("sign", put_float(GOOD["sign"], 0, NAN), "mean magnitude"),
    "sign: an infinite mean": ("sign", put_float(GOOD["sign"], 0, INF), "mean magnitude"),
    "sign: a mean below zero": ("sign", put_float(GOOD["sign"], 0, -1.0), "mean magnitude"),
}


@pytest.mark.parametrize("lie", LIES)
def test_one_lie(lie):
    codec, data, what = LIES[lie]
    tracemalloc.start()
    with pytest.raises(DecodeError, match=what) as caught:
        read_bytes(codec, data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.where == "tensor 'w'"
    assert peak < 1 << 19


@pytest.mark.parametrize("codec", GOOD)
def test_every_end_is_missed(codec):
    """Every beginning of the bytes, and everything that could stand behind them."""
    data = GOOD[codec]
    for length in range(len(data)):
        with pytest.raises(DecodeError):
            read_bytes(codec, data[:length])
    for more in (b"\0", b"\x80", data):
        with pytest.raises(DecodeError):
            read_bytes(codec, data + more)


@pytest.mark.parametrize("codec", GOOD)
@pytest.mark.parametrize("name", ["n", "big", "empty", "nobody"])
def test_a_change_of_what_has_none(codec, name):
    """Integers, big-endian floats, tensors without elements, and what the base has not."""
    with pytest.raises(DecodeError, match="the base has no such tensor") as caught:
        read_bytes(codec, GOOD[codec], name)
    assert caught.value.where == f"tensor {name!r}"


@pytest.mark.parametrize("codec", [codec for codec in GOOD if not codec.startswith("uq")])
def test_a_change_of_a_vector(codec):
    with pytest.raises(DecodeError, match="the base has no such tensor"):
        read_bytes(codec, GOOD[codec], "v")


def test_bytes_without_a_step_and_a_step_without_bytes():
    assert not read("uq(2)", {"w": np.empty(0, np.uint8)}, steps=[0.0])["w"].any()
    with pytest.raises(DecodeError, match="without a step"):
        read("uq(2)", {"w": np.frombuffer(GOOD["uq(2)"], np.uint8)}, steps=[0.0])
    with pytest.raises(DecodeError, match="size of blocks"):
        read("uq(2)", {"w": np.empty(0, np.uint8)}, steps=[1.0])


@pytest.mark.parametrize("steps", [[], [1.0, 1.0], [1.0] * 1000], ids=len)
def test_steps_for_others_than_there_are(steps):
    with pytest.raises(DecodeError, match="steps"):
        read("uq(2)", {"w": np.frombuffer(GOOD["uq(2)"], np.uint8)}, steps=steps)
    for good in ([1.0, 1.0], [1.0, 0.5]):
        read("uq(2)", {"v": np.frombuffer(uq(0, body(subset([0] * 4, 4))), np.uint8)}, steps=good)
    for wrong in ([1.0], [1.0, 1.0, 1.0]):
        with pytest.raises(DecodeError, match="steps"):
            read("uq(2)", {"v": np.frombuffer(uq(0, body(subset([0] * 4, 4))), np.uint8)}, steps=wrong)


def test_a_step_that_makes_infinity():
    data = uq(0, body(subset(ONE, SIZE), plain([1], [1]), gamma(1 << 20)))
    assert np.isfinite(read("uq(2)", {"w": np.frombuffer(data, np.uint8)})["w"]).all()
    with pytest.raises(DecodeError, match="infinite"):
        read("uq(2)", {"w": np.frombuffer(data, np.uint8)}, steps=[float(np.float32(1e38))])


@pytest.mark.parametrize(
    "codec", ["uq(99)", "uq(-1)", "eden(0)", "eden(1.5)", "topk(2)", "stc(nan)", "uq()", "sign(1)"]
)
def test_a_codec_that_cannot_be(codec):
    with pytest.raises(UnsupportedError):
        read(codec, {"w": np.frombuffer(GOOD["sign"], np.uint8)})


# ── delta and cast, which have no bits of their own ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("w", np.zeros((5, 3), np.float32)),
        ("w", np.zeros(SHAPE, np.float64)),
        ("w", np.zeros(SHAPE, ">f4")),
        ("w", np.zeros(60, np.uint8)),
        ("nobody", np.zeros(SHAPE, np.float32)),
        ("n", np.zeros(SHAPE, np.uint32)),
        ("empty", np.zeros((0, 6), np.float32)),
    ],
)
def test_a_difference_from_what_is_not_there(name, array):
    with pytest.raises(DecodeError, match="the base has no such tensor") as caught:
        read("delta", {name: array})
    assert caught.value.where == f"tensor {name!r}"
    read("delta", {name: array}, whole=[name])


@pytest.mark.parametrize("whole", [None, "w", ["nobody"], [1], {"w": 1}, b"w", [["w"]]], ids=repr)
def test_a_difference_with_another_list(whole):
    with pytest.raises(DecodeError, match="notes do not fit"):
        read("delta", {"w": np.zeros(SHAPE, np.float32)}, whole=whole)


@pytest.mark.parametrize("digest", [None, b"", bytes(16), bytes(15), "x" * 16, 7], ids=repr)
@pytest.mark.parametrize("codec", ["delta", *GOOD])
def test_another_base(codec, digest):
    tensors = {"w": np.zeros(SHAPE, np.float32) if codec == "delta" else np.frombuffer(GOOD[codec], np.uint8)}
    with pytest.raises(DecodeError, match="base"):
        read(codec, tensors, base=digest)


@pytest.mark.parametrize(
    "widen",
    [
        None,
        [],
        ["w"],
        {"w": None},
        {"w": 3},
        {"w": "int32"},
        {"w": "float16"},
        {"w": "object"},
        {"w": "struct[4,[]]"},
        {"w": "float32", "nobody": "float32"},
        {"n": "float32"},
        {"w": "complex64"},
        {"w": "float128"},
        {"w": "x" * 100_000},
    ],
    ids=lambda widen: repr(widen)[:40],
)
def test_widening_that_is_none(widen):
    tensors = {"w": np.zeros(SHAPE, ml_dtypes.bfloat16), "n": np.zeros(SHAPE, np.int32)}
    assert read("cast(bfloat16)", tensors, widen={"w": "float64"})["w"].dtype == np.float64
    with pytest.raises(DecodeError):
        read("cast(bfloat16)", tensors, widen=widen)


FILL = 8_000_000
ONES = b"\0" + put_varint(FILL) + b"\xff" * FILL
MANY = struct.pack("<I", len(ONES) + 1) + b"\3" + ONES
BOMBS = {
    "uq(2)": uq(0, ONES[1:]),
    "auto(budget=1MB/round)": uq(0, ONES[1:]),
    "topk(0.1)": b"\4" + MANY,
    "stc(0.1)": struct.pack("<f", 1.0) + MANY,
    "stc(0.2)": GOOD["stc(0.1)"] + bytes(FILL),
    **{codec: GOOD[codec] + bytes(FILL) for codec in ("eden(2)", "int8", "int4", "sign")},
}


@pytest.mark.parametrize("codec", BOMBS)
def test_what_unpacks_to_more_than_its_tensor_can_have(codec):
    """Two thousand bytes of zstd, eight million once they are undone, a number in each bit: for fifteen elements."""
    notes = {**NOTES, "scale": 0.5, "nbytes": len(BOMBS[codec]), "over": False}
    encoded = Fedwt().encode({"w": np.frombuffer(BOMBS[codec], np.uint8)})
    sections = {"pipeline": f"{codec} | fedwt | zstd(3)", "update": notes, **encoded.sections}
    data = bytes(Frame.build(sections, encoded.segments, compression=Compression.parse("zstd(3)")))
    assert len(data) < 4000
    tracemalloc.start()
    with pytest.raises(DecodeError, match="more bytes than its change can have"):
        decode_tensors(Frame.decode(data), base=BASE).arrays()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


_CELL = """
import resource, sys
import numpy as np
from fedpost.codecs import Base
from fedpost.errors import DecodeError
from fedpost.frame import Frame
from fedpost.pipeline import decode_tensors

base = Base.of({"w": np.zeros((3, 5), np.float32)})
def read(data):
    decode_tensors(Frame.decode(data), base=base).arrays()
sizes = [int(size) for size in sys.argv[1].split(",")]
good, *frames = (sys.stdin.buffer.read(size) for size in sizes)
read(good)  # imports
pages = int(open("/proc/self/statm").read().split()[0])
most = pages * resource.getpagesize() + (64 << 20)
resource.setrlimit(resource.RLIMIT_AS, (most, most))
resource.setrlimit(resource.RLIMIT_CPU, (30, 30))
for data in frames:
    try:
        read(data)
    except DecodeError:
        print("refused")
"""


def test_a_process_without_memory_to_spare_refuses_them():
    """Forty million bytes once they are undone; the process has 64 MiB more than it needs."""
    base = Base.of({"w": np.zeros(SHAPE, np.float32)})
    ones = b"\0" + put_varint(40_000_000) + b"\xff" * 40_000_000
    frames = []
    for data in (GOOD["uq(2)"], uq(0, ones[1:])):
        encoded = Fedwt().encode({"w": np.frombuffer(data, np.uint8)})
        sections = {"pipeline": "uq(2) | fedwt | zstd(3)", "update": {**NOTES, "base": base.digest}, **encoded.sections}
        frames.append(bytes(Frame.build(sections, encoded.segments, compression=Compression.parse("zstd(3)"))))
    assert len(frames[1]) < 4000
    sizes = ",".join(str(len(frame)) for frame in frames)
    done = subprocess.run(
        [sys.executable, "-c", _CELL, sizes], input=b"".join(frames), capture_output=True, check=False, timeout=280
    )
    assert (done.returncode, done.stdout.decode().split()) == (0, ["refused"]), done.stderr.decode()


@pytest.mark.parametrize(
    ("codec", "data"),
    [
        ("uq(2)", uq(0, b"\x80\2" + b"\xff" * 256)),
        ("uq(2)", uq(0, b"\x80\2" + bytes(255) + b"\1")),
        ("topk(0.1)", top(struct.pack("<I", 260) + b"\3\0\x80\2" + b"\xff" * 256)),
        ("stc(0.1)", stc(struct.pack("<I", 260) + b"\3\0\x80\2" + b"\xff" * 256)),
        ("topk(0.1)", top(struct.pack("<I", 7) + b"\1\0\4" + bytes(3) + b"\1", 1.0)),
    ],
)
def test_more_numbers_than_a_tensor_can_have(codec, data):
    with pytest.raises(DecodeError, match=r"than there can be|longer than it can be"):
        read_bytes(codec, data)


def test_what_is_cut_off_says_so():
    for data in (uq(0, body(plain([7], [4]))), b"\x13\x80", uq(0, b"\x7f\1")):
        with pytest.raises(TruncatedError):
            read_bytes("uq(2)", data)
