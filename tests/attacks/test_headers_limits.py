"""Headers as large as may be, whose columns would cost fifty times as much; and bombs that tell their true size."""

from __future__ import annotations

import struct

import pytest
import zstandard

from fedpost.frame import Limits

MIB = 1 << 20
LARGEST = Limits().max_header - 400
"""Bytes of a column in a header that is just allowed."""
MOST = Limits().max_segments
CHUNK = zstandard.ZstdCompressor().compress(bytes(MIB))


def array(items, count):
    return b"\xdd" + struct.pack(">I", count) + items * count


def names(count):
    return b"\xdd" + struct.pack(">I", count) + b"".join(b"\xa5%05x" % number for number in range(count))


def headed(forge, body):
    data = forge.head(body)
    return data + bytes(-len(data) % 64)


def segments(forge, *, checksum=b"\xa4none", requires=b"\x90", sections=b"\x90", **columns):
    """A frame whose segment table's columns are given as MessagePack."""
    usual = {"raw": b"\x90", "digests": b"\xc4\0", "codings": b"\x90", "coding": b"\x90", "chunk": b"\0"}
    table = {**usual, "chunks": b"\x90", **columns}
    return headed(forge, b"\x94" + checksum + requires + b"\x96" + b"".join(table.values()) + sections)


def tensors(forge, **columns):
    """A frame of one empty segment, whose tensor table's columns are given as MessagePack."""
    usual = {"names": b"\x90", "ranks": b"\xc4\0", "dims": b"\x90", "segments": b"\x90"}
    table = {**usual, "dtypes": b"\x91\xa7float32", "segment_dtypes": b"\x91\0", "fortran": b"\x90", **columns}
    pipeline = b"\x92\xa8pipeline\xb4dense | fedwt | none"
    tail = b"\x92\xa7tensors\x97" + b"".join(table.values())
    return segments(forge, raw=b"\x91\0", sections=b"\x92" + pipeline + tail)


def npy(forge, names, dtypes):
    """A frame of one empty segment, whose table of ``.npy`` files is given as MessagePack."""
    pipeline = b"\x92\xa8pipeline\xb4dense | numpy | none"
    return segments(forge, raw=b"\x91\0", sections=b"\x92" + pipeline + b"\x92\xabtensors_npy\x92" + names + dtypes)


def ranks(count, rank):
    return b"\xc6" + struct.pack(">I", count) + bytes([rank]) * count


ZSTD = {"codings": b"\x91\xa4zstd", "chunk": b"\xce\0\1\0\0"}
EACH_64_KIB = {**ZSTD, "raw": array(b"\xce\0\1\0\0", MOST), "coding": array(b"\1", MOST)}
ONE_16_GIB = {**ZSTD, "raw": b"\x91\xcf" + struct.pack(">Q", 1 << 34), "coding": b"\x91\1"}

ATTACKS = {
    "sizes": (lambda f: segments(f, raw=array(b"\0", LARGEST)), "LimitError", "segment table"),
    "sizes in 9 bytes": (
        lambda f: segments(f, raw=array(b"\xcf" + b"\1" * 8, LARGEST // 9)),
        "LimitError",
        "segment table",
    ),
    "compressions": (lambda f: segments(f, coding=array(b"\1", LARGEST)), "DecodeError", "segment table"),
    "names of compressions": (lambda f: segments(f, codings=array(b"\xa0", LARGEST)), "DecodeError", "header"),
    "features": (lambda f: segments(f, requires=array(b"\xa0", LARGEST)), "DecodeError", "header"),
    "sections": (lambda f: segments(f, sections=array(b"\x92\xa0\xc0", LARGEST // 3)), "DecodeError", "header"),
    "digests": (
        lambda f: segments(f, digests=b"\xc6" + struct.pack(">I", LARGEST) + bytes(LARGEST)),
        "DecodeError",
        "segment table",
    ),
    "chunk rows without a compression": (
        lambda f: segments(f, chunks=array(b"\x91\1", LARGEST // 2)),
        "DecodeError",
        "segment table",
    ),
    "empty chunk rows": (lambda f: segments(f, chunks=array(b"\x90", LARGEST)), "DecodeError", "segment table"),
    "chunk rows of one compressed segment": (
        lambda f: segments(f, **ONE_16_GIB, chunks=array(b"\x91\1", LARGEST // 2)),
        "DecodeError",
        "segment table",
    ),
    "one chunk row": (
        lambda f: segments(f, **ONE_16_GIB, chunks=b"\x91" + array(b"\1", LARGEST)),
        "DecodeError",
        "segment table",
    ),
    "one chunk row that is just not too long to be made": (
        lambda f: segments(f, **ONE_16_GIB, chunks=b"\x91" + array(b"\1", 9 << 18)),
        "DecodeError",
        "segment 0",
    ),
    "chunk rows that are nested": (
        lambda f: segments(f, **ONE_16_GIB, chunks=b"\x91" + array(b"\x91\x90", LARGEST // 2)),
        "DecodeError",
        "segment table",
    ),
    "as many segments as may be, which are not there": (
        lambda f: segments(f, **EACH_64_KIB, chunks=array(b"\x91\xcd\1\1", MOST)),
        "TruncatedError",
        None,
    ),
    "as many segments as may be, and a digest too few": (
        lambda f: segments(f, checksum=b"\xa6crc32c", raw=array(b"\0", MOST), digests=b"\xc4\4abcd"),
        "DecodeError",
        "segment table",
    ),
    "as many empty segments as may be": (lambda f: segments(f, raw=array(b"\0", MOST)), "accepted", None),
    "names of .npy files": (lambda f: npy(f, array(b"\xa2ab", LARGEST // 3), b"\x90"), "LimitError", "tensor table"),
    "types of .npy files": (lambda f: npy(f, b"\x90", array(b"\xa2ab", LARGEST // 3)), "LimitError", "tensor table"),
    "names of tensors": (lambda f: tensors(f, names=array(b"\xa2ab", LARGEST // 3)), "LimitError", "tensor table"),
    "dimensions": (lambda f: tensors(f, dims=array(b"\1", LARGEST)), "DecodeError", "tensor table"),
    "dimensions of tensors that are there": (
        lambda f: tensors(f, names=names(MOST), ranks=ranks(MOST, 64), dims=array(b"\1", 64 * MOST)),
        "LimitError",
        "tensor table",
    ),
    "places of tensors": (lambda f: tensors(f, segments=array(b"\1", LARGEST)), "DecodeError", "tensor table"),
    "types": (lambda f: tensors(f, dtypes=array(b"\xa2ab", LARGEST // 3)), "DecodeError", "tensor table"),
    "types of segments": (
        lambda f: tensors(f, segment_dtypes=array(b"\0", LARGEST)),
        "DecodeError",
        "tensor table",
    ),
    "tensors in Fortran order": (lambda f: tensors(f, fortran=array(b"\1", LARGEST)), "DecodeError", "tensor table"),
    "as many tensors as may be, and the last two have one name": (
        lambda f: tensors(
            f,
            names=names(MOST - 1)[:-6].replace(struct.pack(">I", MOST - 1), struct.pack(">I", MOST), 1)
            + b"\xa200\xa200",
            ranks=ranks(MOST, 4),
            dims=array(b"\0\xcd\2\0\xcd\2\0\xcd\2\0", MOST).replace(
                struct.pack(">I", MOST), struct.pack(">I", 4 * MOST), 1
            ),
            segments=array(b"\0", MOST),
        ),
        "DecodeError",
        "tensor table",
    ),
    "as many tensors as may be, and the last one has a byte": (
        lambda f: tensors(
            f,
            names=names(MOST),
            ranks=ranks(MOST, 1),
            dims=array(b"\0", MOST)[:-1] + b"\1",
            segments=array(b"\0", MOST),
        ),
        "DecodeError",
        f"tensor '{MOST - 1:05x}'",
    ),
    # ── bombs that are what they say they are ────────────────────────────────────────────────────────────────────────
    "3 GiB of zeros in 150 kB": (lambda f: f.coded(3 << 30, [CHUNK] * 3072), "LimitError", "segment table"),
    "16 GiB of zeros in 800 kB": (lambda f: f.coded(16 << 30, [CHUNK] * 16384), "LimitError", "segment table"),
    "3 GiB of zeros in a thousand segments": (
        lambda f: f.frame(
            [
                "blake3",
                [],
                f.table(
                    *[CHUNK * 3] * 1024,
                    raw=[3 * MIB] * 1024,
                    rest=(["zstd"], [1] * 1024, MIB, [[len(CHUNK)] * 3] * 1024),
                ),
                [],
            ],
            *[CHUNK * 3] * 1024,
        ),
        "LimitError",
        "segment table",
    ),
}


@pytest.fixture(scope="module")
def outcomes(forge, confine):
    return confine({label: make(forge) for label, (make, _, _) in ATTACKS.items()})


@pytest.mark.parametrize("label", ATTACKS)
def test_is_refused_before_it_costs_anything(label, outcomes):
    _, error, where = ATTACKS[label]
    outcome = outcomes[label]
    assert outcome["error"] == error, outcome
    assert outcome["seconds"] < 1
    assert error == "accepted" or "RemoteError" in outcome["classes"]
    assert where is None or outcome["where"] == where
