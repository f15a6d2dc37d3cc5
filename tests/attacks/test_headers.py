"""Hostile prologues, headers and segment tables: every digest is right, and still nothing is believed."""

from __future__ import annotations

import gzip
import hashlib
import struct
import zlib

import lz4.block
import msgpack
import pytest
import zstandard

HUGE = {"1 TB": 10**12, "2^63-1": 2**63 - 1, "2^63": 2**63, "2^64-1": 2**64 - 1}
MIB = 1 << 20


def table(*columns):
    return ["blake3", [], list(columns), []]


def noise(size):
    return hashlib.shake_256(b"noise").digest(size)


def zstd(data, **settings):
    return zstandard.ZstdCompressor(**settings).compress(data)


def lz4_block(data):
    return lz4.block.compress(data, store_size=False)


def nested(depth):
    return b"\x91" * depth + b"\xc0"


def section(packed, name=b"\xa1x"):
    """A header with one section whose bytes are given."""
    return b"\x94\xa6blake3\x90\x92\x90\xc4\x00\x91\x92" + name + packed


# Label: how the frame is made, the class of the error that must come, and the place that it must name (or None).
ATTACKS = {
    # ── the prologue ─────────────────────────────────────────────────────────────────────────────────────────────────
    "nothing at all": (lambda f: b"", "TruncatedError", "prologue"),
    "another magic": (lambda f: f.head([], magic=b"\x89PNG\r\n\x1a\n"), "DecodeError", "prologue"),
    "magic with line ends translated": (
        lambda f: b"\x89FPF\n\x1a\n" + f.head(table([], b""))[8:],
        "DecodeError",
        "prologue",
    ),
    "a text of one letter": (lambda f: b"P", "DecodeError", "prologue"),
    "major 0": (lambda f: f.head(table([], b""), major=0), "UnsupportedError", "prologue"),
    "major 2": (lambda f: f.head(table([], b""), major=2), "UnsupportedError", "prologue"),
    "major 255": (lambda f: f.head(table([], b""), major=255), "UnsupportedError", "prologue"),
    "sealed": (lambda f: f.head(table([], b""), flags=1), "UnsupportedError", "prologue"),
    "sealed, and the header is not ours": (lambda f: f.head(b"\xc1", flags=1), "UnsupportedError", "prologue"),
    **{
        f"flag bit {bit}": (lambda f, bit=bit: f.head(table([], b""), flags=1 << bit), "UnsupportedError", "prologue")
        for bit in range(1, 16)
    },
    "reserved bytes": (lambda f: f.head(table([], b""), reserved=1), "UnsupportedError", "prologue"),
    "header length past the end": (lambda f: f.head(table([], b""), length=1000), "TruncatedError", "prologue"),
    "header length one too long": (
        lambda f: f.head(b := msgpack.packb(table([], b"")), length=len(b) + 1),
        "TruncatedError",
        "prologue",
    ),
    "header length one too short": (
        lambda f: f.head(b := msgpack.packb(table([], b"")), length=len(b) - 1),
        "IntegrityError",
        "header",
    ),
    **{
        f"header length {label}": (lambda f, n=n: f.head(table([], b""), length=n), "LimitError", "prologue")
        for label, n in HUGE.items()
    },
    # ── MessagePack ──────────────────────────────────────────────────────────────────────────────────────────────────
    "an empty header": (lambda f: f.head(b""), "DecodeError", "header"),
    "no MessagePack": (lambda f: f.head(b"\xc1"), "DecodeError", "header"),
    "header is a map": (lambda f: f.head({"checksum": "blake3"}), "DecodeError", "header"),
    "header is too short an array": (lambda f: f.head(["blake3", [], [[], b""]]), "DecodeError", "header"),
    "bytes behind the header": (lambda f: f.head(msgpack.packb(table([], b"")) + b"\0"), "DecodeError", "header"),
    "deep header": (lambda f: f.head(nested(100_000)), "DecodeError", "header"),
    "deep section, 1,000 levels": (lambda f: f.head(section(nested(1000))), "DecodeError", "header"),
    "deep section, 10,000,000 levels": (lambda f: f.head(section(nested(10**7))), "DecodeError", "header"),
    "deep maps": (lambda f: f.head(section(b"\x81\xa0" * 100_000 + b"\xc0")), "DecodeError", "header"),
    **{
        f"{kind} of 2^32-1 in the header": (lambda f, b=byte: f.head(b + b"\xff" * 4), "DecodeError", "header")
        for kind, byte in {"array": b"\xdd", "map": b"\xdf", "str": b"\xdb", "bin": b"\xc6", "ext": b"\xc9"}.items()
    },
    **{
        f"{kind} of 2^32-1 in a section": (
            lambda f, b=byte: f.head(section(b + b"\xff" * 4)),
            "DecodeError",
            "header",
        )
        for kind, byte in {"array": b"\xdd", "map": b"\xdf", "str": b"\xdb", "bin": b"\xc6", "ext": b"\xc9"}.items()
    },
    "arrays of 2^32-1 in arrays of 2^32-1": (
        lambda f: f.head(section((b"\xdd" + b"\xff" * 4) * 200)),
        "DecodeError",
        "header",
    ),
    "a section's name is not UTF-8": (lambda f: f.head(section(b"\xc0", b"\xa2\xff\xfe")), "DecodeError", "header"),
    "a section's name is a surrogate": (
        lambda f: f.head(section(b"\xc0", b"\xa3\xed\xa0\x80")),
        "DecodeError",
        "header",
    ),
    "a section's name is a number": (lambda f: f.head(section(b"\xc0", b"\x01")), "DecodeError", "header"),
    "a section is a triple": (
        lambda f: f.head(["blake3", [], [[], b""], [["a", 1, 2]]]),
        "DecodeError",
        "header",
    ),
    "a section comes twice": (
        lambda f: f.head(["blake3", [], [[], b""], [["a", 1], ["b", 1], ["a", 2]]]),
        "DecodeError",
        "header",
    ),
    "an unknown feature": (
        lambda f: f.head(["blake3", ["holographic"], [[], b""], []]),
        "UnsupportedError",
        "header",
    ),
    "a feature without a name": (lambda f: f.head(["blake3", [""], [[], b""], []]), "UnsupportedError", "header"),
    "an unknown checksum": (lambda f: f.head(["md5", [], [[], b""], []]), "UnsupportedError", "header"),
    "a checksum as an import path": (
        lambda f: f.head(["hashlib.md5", [], [[], b""], []]),
        "UnsupportedError",
        "header",
    ),
    # ── segment sizes ────────────────────────────────────────────────────────────────────────────────────────────────
    **{
        f"a segment of {label}": (lambda f, n=n: f.head(table([n], bytes(32))), "LimitError", "segment table")
        for label, n in HUGE.items()
    },
    "a segment of 1 GB, which is allowed": (lambda f: f.head(table([10**9], bytes(32))), "TruncatedError", None),
    "sizes that wrap around": (
        lambda f: f.frame(table([2**64 - 1, 65], bytes(64)), b"x" * 64),
        "LimitError",
        "segment table",
    ),
    "a segment of -1": (lambda f: f.head(table([-1], bytes(32))), "DecodeError", "segment table"),
    "segments of 64 and -64": (lambda f: f.frame(table([64, -64], bytes(64)), bytes(64)), "DecodeError", None),
    "a segment of -2^63": (lambda f: f.head(table([-(2**63)], bytes(32))), "DecodeError", "segment table"),
    "a segment of 1.0": (lambda f: f.head(table([1.0], bytes(32))), "DecodeError", "header"),
    "a segment of true": (lambda f: f.head(table([True], bytes(32))), "DecodeError", "header"),
    "a segment of null": (lambda f: f.head(table([None], bytes(32))), "DecodeError", "header"),
    "a million segments": (lambda f: f.head(table([0] * 10**6, b"")), "LimitError", "segment table"),
    "no digest": (lambda f: f.frame(table([3], b""), b"abc"), "DecodeError", "segment table"),
    "half a digest": (lambda f: f.frame(table([3], bytes(16)), b"abc"), "DecodeError", "segment table"),
    "a digest too many": (lambda f: f.frame(table([3], bytes(64)), b"abc"), "DecodeError", "segment table"),
    "digests as text": (lambda f: f.frame(table([3], "x" * 32), b"abc"), "DecodeError", "header"),
    "a wrong digest": (lambda f: f.frame(table([3], bytes(32)), b"abc"), "IntegrityError", "segment 0"),
    "segments in each other's place": (
        lambda f: f.frame(["blake3", [], f.table(b"abc", b"xyz"), []], b"xyz", b"abc"),
        "IntegrityError",
        "segment 0",
    ),
    "a trailing byte": (lambda f: f.sections({}, b"abc") + b"\0", "DecodeError", None),
    "a trailing frame": (lambda f: f.sections({}, b"abc") * 2, "DecodeError", None),
    "bytes behind a frame without segments": (lambda f: f.sections({}) + b"x", "DecodeError", None),
    "padding to 64 behind a frame": (lambda f: f.sections({}, b"abc") + bytes(61), "DecodeError", None),
    "something in the padding": (
        lambda f: (d := f.sections({}, b"abc", b"abc"))[:-4] + b"\1" + d[-3:],
        "IntegrityError",
        None,
    ),
    "no padding": (lambda f: f.head(["blake3", [], f.table(b"abc"), []]) + b"abc", "TruncatedError", None),
    # ── compressed segments ──────────────────────────────────────────────────────────────────────────────────────────
    "an unknown compression": (lambda f: f.coded(100, [b"x"], coding="rar"), "UnsupportedError", "segment table"),
    "a compression with a level": (
        lambda f: f.coded(100, [b"x"], coding="zstd(3)"),
        "UnsupportedError",
        "segment table",
    ),
    "the compression none": (lambda f: f.coded(100, [b"x"], coding="none"), "UnsupportedError", "segment table"),
    "a compression as an import path": (
        lambda f: f.coded(100, [b"x"], coding="os.system"),
        "UnsupportedError",
        "segment table",
    ),
    "a compression that is not in the list": (
        lambda f: f.frame(["blake3", [], f.table(b"x", raw=[9], rest=(["zstd"], [2], MIB, [[1]])), []], b"x"),
        "DecodeError",
        "segment table",
    ),
    "a negative compression": (
        lambda f: f.frame(["blake3", [], f.table(b"x", raw=[9], rest=(["zstd"], [-1], MIB, [[1]])), []], b"x"),
        "DecodeError",
        "segment table",
    ),
    "compressions for too many segments": (
        lambda f: f.frame(["blake3", [], f.table(b"x", raw=[9], rest=(["zstd"], [1, 0], MIB, [[1]])), []], b"x"),
        "DecodeError",
        "segment table",
    ),
    "compressions without segments": (
        lambda f: f.head(table([], b"", ["zstd"], [1], MIB, [[1]])),
        "DecodeError",
        "segment table",
    ),
    "chunks without compression": (
        lambda f: f.frame(["blake3", [], f.table(b"x", rest=([], [], 0, [[1]])), []], b"x"),
        "DecodeError",
        "segment table",
    ),
    "chunk rows too many": (
        lambda f: f.frame(["blake3", [], f.table(b"x", raw=[9], rest=(["zstd"], [1], MIB, [[1], [1]])), []], b"x"),
        "DecodeError",
        "segment table",
    ),
    "no chunk row": (
        lambda f: f.frame(["blake3", [], f.table(b"x", raw=[9], rest=(["zstd"], [1], MIB, [])), []], b"x"),
        "DecodeError",
        "segment table",
    ),
    "chunks of 0": (lambda f: f.coded(9, [b"x"], chunk=0), "DecodeError", "segment table"),
    "chunks of -1": (lambda f: f.coded(9, [b"x"], chunk=-1), "DecodeError", "segment table"),
    "chunks of 2^64-1": (lambda f: f.coded(9, [b"x"], chunk=2**64 - 1), "LimitError", "segment table"),
    "chunks of 32 MiB": (lambda f: f.coded(9, [b"x"], chunk=32 * MIB), "LimitError", "segment table"),
    "a million chunks of one byte": (
        lambda f: f.coded(10**6, [bytes(10**6)], chunk=1, lengths=[1] * 10**6),
        "DecodeError",
        "segment table",
    ),
    "a chunk too few": (lambda f: f.coded(MIB + 1, [b"x"]), "DecodeError", "segment 0"),
    "a chunk too many": (lambda f: f.coded(MIB, [b"x", b"x"]), "DecodeError", "segment 0"),
    "an empty compressed segment": (lambda f: f.coded(0, []), "DecodeError", "header"),
    "an empty segment with a chunk": (lambda f: f.coded(0, [b"x"]), "DecodeError", "segment 0"),
    "a chunk of no bytes": (lambda f: f.coded(100, [b""]), "DecodeError", "segment 0"),
    "a chunk of -1 bytes": (
        lambda f: f.coded(2 * MIB, [b"x", b"x"], lengths=[-1, 3]),
        "DecodeError",
        "segment 0",
    ),
    "a chunk longer than its content": (lambda f: f.coded(3, [b"abcd"]), "DecodeError", "segment 0"),
    "a chunk of 2^64-1 bytes": (
        lambda f: f.coded(100, [b"x"], lengths=[2**64 - 1]),
        "DecodeError",
        "segment 0",
    ),
    "chunk lengths that lie": (
        lambda f: f.coded(2 * MIB, [zstd(bytes(MIB)), zstd(bytes(MIB))], lengths=[10, 2 * len(zstd(bytes(MIB))) - 10]),
        "DecodeError",
        "segment 0, chunk 0",
    ),
    "a ratio over the limit": (lambda f: f.coded(MIB, [b"x"]), "LimitError", "segment 0"),
    # ── compressors ──────────────────────────────────────────────────────────────────────────────────────────────────
    **{
        f"{coding} garbage": (
            lambda f, coding=coding: f.coded(100_000, [noise(500)], coding=coding),
            "DecodeError",
            "segment 0, chunk 0",
        )
        for coding in ("gzip", "zstd", "lz4")
    },
    **{
        f"{coding} of too little": (
            lambda f, coding=coding, pack=pack: f.coded(100_000, [pack(bytes(99_999))], coding=coding),
            "DecodeError",
            "segment 0, chunk 0",
        )
        for coding, pack in {"gzip": gzip.compress, "zstd": zstd, "lz4": lz4_block}.items()
    },
    **{
        f"{coding} of too much": (
            lambda f, coding=coding, pack=pack: f.coded(100_000, [pack(bytes(100_001))], coding=coding),
            "DecodeError",
            "segment 0, chunk 0",
        )
        for coding, pack in {"gzip": gzip.compress, "zstd": zstd, "lz4": lz4_block}.items()
    },
    **{
        f"{coding} cut off": (
            lambda f, coding=coding, pack=pack: f.coded(100_000, [pack(noise(5000) * 20)[:-3]], coding=coding),
            "DecodeError",
            "segment 0, chunk 0",
        )
        for coding, pack in {"gzip": gzip.compress, "zstd": zstd, "lz4": lz4_block}.items()
    },
    **{
        f"{coding} with something behind": (
            lambda f, coding=coding, pack=pack: f.coded(100_000, [pack(bytes(100_000)) + b"\0"], coding=coding),
            "DecodeError",
            "segment 0, chunk 0",
        )
        for coding, pack in {"gzip": gzip.compress, "zstd": zstd, "lz4": lz4_block}.items()
    },
    **{
        f"{coding} bomb of 256 MiB": (
            lambda f, coding=coding, pack=pack: f.coded(MIB, [pack(bytes(256 * MIB))], coding=coding),
            "DecodeError",
            "segment 0, chunk 0",
        )
        for coding, pack in {"gzip": gzip.compress, "zstd": zstd}.items()
    },
    "lz4 bomb": (
        # A match of 255 bytes for every byte: 256 MiB out of 1 MiB.
        lambda f: f.coded(MIB, [b"\x1fA\x01\x00" + b"\xff" * (MIB - 20) + b"\x00"], coding="lz4"),
        "DecodeError",
        "segment 0, chunk 0",
    ),
    "two gzip members": (
        lambda f: f.coded(100_000, [gzip.compress(bytes(50_000)) * 2], coding="gzip"),
        "DecodeError",
        "segment 0, chunk 0",
    ),
    "a zlib stream for gzip": (
        lambda f: f.coded(100_000, [zlib.compress(bytes(100_000))], coding="gzip"),
        "DecodeError",
        "segment 0, chunk 0",
    ),
    "two zstd frames": (
        lambda f: f.coded(100_000, [zstd(bytes(50_000)) * 2]),
        "DecodeError",
        "segment 0, chunk 0",
    ),
    "a zstd frame without its content size": (
        lambda f: f.coded(100_000, [zstd(bytes(100_000), write_content_size=False)]),
        "DecodeError",
        "segment 0, chunk 0",
    ),
    "a zstd frame that claims the right size and is larger": (
        # Magic, a descriptor of a single segment with a size of four bytes, the size, then blocks of 128 KiB of zeros.
        lambda f: f.coded(
            100_000,
            [b"\x28\xb5\x2f\xfd\xa0" + struct.pack("<I", 100_000) + b"\x02\x00\x10\x00" * 8 + b"\x03\x00\x10\x00"],
        ),
        "DecodeError",
        "segment 0, chunk 0",
    ),
    "a zstd frame that claims 2^63": (
        lambda f: f.coded(100_000, [b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 2**63) + b"\x01\x00\x00"]),
        "DecodeError",
        "segment 0, chunk 0",
    ),
    "a zstd frame with a window of 2 GiB": (
        lambda f: f.coded(100_000, [b"\x28\xb5\x2f\xfd\x80\xa8" + struct.pack("<I", 100_000) + b"\x03\x00\x10\x00"]),
        "DecodeError",
        "segment 0, chunk 0",
    ),
    "a zstd frame that can be skipped": (
        lambda f: f.coded(100_000, [struct.pack("<II", 0x184D2A50, 4) + b"abcd"]),
        "DecodeError",
        "segment 0, chunk 0",
    ),
    "lz4 with a match before the start": (
        lambda f: f.coded(100_000, [b"\x1fA\xff\xff" + b"\xff" * 100 + b"\x00"], coding="lz4"),
        "DecodeError",
        "segment 0, chunk 0",
    ),
    # ── what must be accepted ────────────────────────────────────────────────────────────────────────────────────────
    "a frame of nothing": (lambda f: f.sections({}), "accepted", None),
    "segments of nothing": (lambda f: f.sections({}, b"", b"", b""), "accepted", None),
    "a later minor version": (
        lambda f: f.frame(
            ["blake3", [], f.table(b"abc", rest=([], [], 0, [], "later", {"x": 1})), [["later", [None]]], 1, {"y": 2}],
            b"abc",
            minor=255,
        ),
        "accepted",
        None,
    ),
    "an unknown section with an unknown extension": (lambda f: f.head(section(b"\xd4\x05\x00")), "accepted", None),
    "zstd as it should be": (lambda f: f.coded(100_000, [zstd(bytes(100_000))]), "accepted", None),
    "lz4 as it should be": (
        lambda f: f.coded(100_000, [lz4_block(bytes(100_000))], coding="lz4"),
        "accepted",
        None,
    ),
    "gzip as it should be": (
        lambda f: f.coded(100_000, [gzip.compress(bytes(100_000))], coding="gzip"),
        "accepted",
        None,
    ),
    "a chunk as it is": (
        lambda f: f.coded(2 * MIB, [bytes(range(256)) * 4096, zstd(bytes(MIB))]),
        "accepted",
        None,
    ),
}


@pytest.fixture(scope="module")
def outcomes(forge, confine):
    return confine({label: make(forge) for label, (make, _, _) in ATTACKS.items()})


@pytest.mark.parametrize("label", ATTACKS)
def test_gets_the_right_error_at_once_and_without_memory(label, outcomes):
    _, error, where = ATTACKS[label]
    outcome = outcomes[label]
    assert outcome["error"] == error, outcome
    assert outcome["seconds"] < 1
    assert error == "accepted" or "RemoteError" in outcome["classes"]
    assert where is None or outcome["where"] == where


def test_the_cell_has_walls(forge, confine):
    """An allowed frame of 128 MiB does not fit: so what fits above did not allocate what it claimed."""
    chunk = zstd(bytes(MIB))
    outcome = confine({"large": forge.coded(128 * MIB, [chunk] * 128)})["large"]
    assert outcome["error"] == "MemoryError"
