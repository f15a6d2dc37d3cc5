"""Hostile chunks of ``lx`` in frames whose digests are all right; the layout is in ``docs/spec/lx.md``."""

from __future__ import annotations

import hashlib
import struct

import pytest
import zstandard

N = 50_000
"""Words of a chunk, which comes to four times as many bytes."""
CHUNK = "segment 0, chunk 0"


def noise(size):
    return hashlib.shake_256(b"noise").digest(size)


def zstd(data, **settings):
    return zstandard.ZstdCompressor(**settings).compress(data)


PLANE = zstd(bytes(N))
PLANES = [PLANE] * 4


def chunk(planes=PLANES, bits=32, rest=b"", lengths=None):
    lengths = [len(plane) for plane in planes] if lengths is None else lengths
    return bytes([bits]) + struct.pack(f"<{len(lengths)}I", *lengths) + b"".join(planes) + rest


def planes(index, wrong):
    """The planes with one exchanged."""
    return [wrong if number == index else plane for number, plane in enumerate(PLANES)]


def blocks(count, size):
    """A zstd frame of so many empty blocks, and one of zeros."""
    head = b"\x28\xb5\x2f\xfd\xa0" + struct.pack("<I", size)
    return head + b"\0\0\0" * count + struct.pack("<I", size << 3 | 3)[:3] + b"\0"


BAD = {
    "three bytes": b"\x20\0\0",
    **{f"words of {bits} bits": chunk(bits=bits) for bits in (0, 1, 7, 9, 24, 34, 35, 128, 255)},
    "words of another width": chunk(bits=64),
    "a table cut off": chunk()[:16],
    "a plane too few": chunk(PLANES[:3], lengths=[len(PLANE)] * 3),
    "a plane too many": chunk(PLANES * 2),
    "a length of 2^32-1": chunk(lengths=[len(PLANE)] * 3 + [2**32 - 1]),
    "lengths that add up too far": chunk(lengths=[2**32 - 1] * 4),
    "a length too long": chunk(lengths=[len(PLANE)] * 3 + [len(PLANE) + 1]),
    "a length too short": chunk(lengths=[len(PLANE)] * 3 + [len(PLANE) - 1]),
    "bytes behind": chunk(rest=b"\0"),
    **{f"plane {index} is garbage": chunk(planes(index, noise(99))) for index in range(4)},
    **{f"plane {index} is cut off": chunk(planes(index, zstd(noise(999) * 50 + b"x" * 50)[:-9])) for index in range(4)},
    **{f"plane {index} comes to too much": chunk(planes(index, zstd(bytes(N + 1)))) for index in range(4)},
    **{f"plane {index} comes to too little": chunk(planes(index, zstd(bytes(N - 1)))) for index in range(4)},
    **{f"plane {index} has something behind": chunk(planes(index, PLANE + b"\0")) for index in range(4)},
    **{f"plane {index} is two": chunk(planes(index, zstd(bytes(N // 2)) * 2)) for index in range(4)},
    **{f"plane {index} is a bomb": chunk(planes(index, zstd(bytes(256 << 20)))) for index in range(4)},
    **{f"plane {index} is nothing": chunk(planes(index, b"")) for index in range(4)},
    "a plane without its size": chunk(planes(3, zstd(bytes(N), write_content_size=False))),
    "a plane that lies about its size": chunk(
        planes(3, b"\x28\xb5\x2f\xfd\xa0" + struct.pack("<I", N) + b"\x02\x00\x10\x00" * 8 + b"\x03\x00\x10\x00")
    ),
    "a plane of 30,000 blocks": chunk(planes(3, blocks(30_000, N))),
    "a plane with a window of 2 GiB": chunk(
        planes(3, b"\x28\xb5\x2f\xfd\x80\xa8" + struct.pack("<I", N) + b"\x03\x00\x10\x00")
    ),
    "a whole lane and something": chunk([noise(2 * N), b"x", PLANE, PLANE]),
    "a whole lane as the second": chunk([b"", noise(2 * N), PLANE, PLANE]),
    "a whole lane too long": chunk([noise(2 * N + 1), b"", PLANE, PLANE]),
    "a whole lane too short": chunk([noise(2 * N - 1), b"", PLANE, PLANE]),
    "a whole lane at the top": chunk([PLANE, PLANE, noise(2 * N), b""]),
}
GOOD = {
    "planes of zeros": chunk(),
    "a plane as it is": chunk(planes(1, noise(N))),
    "a whole lane": chunk([noise(2 * N), b"", PLANE, PLANE]),
    "words of 8 bits": chunk([zstd(bytes(4 * N))], bits=8),
    "words of 16 bits": chunk([zstd(bytes(2 * N))] * 2, bits=16),
    "words that are big-endian": chunk(bits=33),
    "words of 64 bits": chunk([zstd(bytes(N // 2))] * 8, bits=64),
    "a few empty blocks": chunk(planes(3, blocks(20, N))),
}


@pytest.fixture(scope="module")
def outcomes(forge, confine):
    cases = {label: forge.coded(4 * N, [data], coding="lx") for label, data in (BAD | GOOD).items()}
    few = {
        "words that there are not": forge.coded(7, [chunk([b""] * 7 + [b"x"], bits=64, rest=bytes(7))], coding="lx"),
        "less than a word": forge.coded(
            65_543, [chunk([zstd(bytes(8192))] * 8, bits=64, rest=b"1234567")], coding="lx"
        ),
    }
    return confine(cases | few)


@pytest.mark.parametrize("label", BAD)
def test_gets_the_right_error_at_once_and_without_memory(label, outcomes):
    outcome = outcomes[label]
    assert (outcome["error"], outcome["where"]) == ("DecodeError", CHUNK), outcome
    assert outcome["seconds"] < 1


@pytest.mark.parametrize("label", GOOD)
def test_what_is_right_is_taken(label, outcomes):
    assert outcomes[label]["error"] == "accepted", outcomes[label]


def test_bytes_that_fill_no_word(outcomes):
    assert outcomes["less than a word"]["error"] == "accepted", outcomes["less than a word"]
    # A chunk is never longer than its content, so one of less than a word cannot even be said.
    assert outcomes["words that there are not"]["error"] == "DecodeError"
