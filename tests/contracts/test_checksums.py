"""Every registered digest is the published algorithm, whatever the buffers are cut into."""

from __future__ import annotations

import pytest

from fedpost.checksums import CHECKSUMS

# Digests of b"abc": FIPS 180-4; the BLAKE3 team's and xxHash's own tools; CRC-32C as RFC 3720 defines it, big-endian.
KNOWN = {
    "blake3": "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85",
    "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    "xxh3": "06b05ab6733a618578af5f94892f3950",
    "crc32c": "364b3fb7",
    "none": "",
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_digest_is_the_published_one(name):
    checksum = CHECKSUMS.get(name)
    assert checksum.name == name
    assert checksum.of([memoryview(b"abc")]).hex() == KNOWN[name]
    assert len(checksum.of([])) == checksum.size == len(KNOWN[name]) // 2


@pytest.mark.parametrize("name", KNOWN)
def test_a_digest_is_of_the_concatenation(name):
    of, data = CHECKSUMS.get(name).of, bytes(range(256)) * 5000
    whole = of([memoryview(data)])
    assert of(memoryview(data)[start : start + 7001] for start in range(0, len(data), 7001)) == whole
    assert of([memoryview(b""), memoryview(bytearray(data)), memoryview(b"")]) == whole
    assert not whole or of([memoryview(data[:-1])]) != whole


def test_every_registered_checksum_is_here():
    assert set(CHECKSUMS) == set(KNOWN)
