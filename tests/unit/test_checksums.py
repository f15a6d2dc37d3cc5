"""Digests against the published values of their algorithms."""

from __future__ import annotations

import hashlib

import pytest

from fedpost.checksums import CHECKSUMS, DEFAULT_CHECKSUM
from fedpost.errors import RegistryError

PUBLISHED = {
    ("blake3", b""): "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
    ("sha256", b"abc"): "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    ("xxh3", b""): "99aa06d3014798d86001c324468d497f",
    ("crc32c", b"123456789"): "e3069283",
    ("crc32c", bytes(32)): "8a9136aa",
    ("none", b"anything"): "",
}


@pytest.mark.parametrize(("name", "data"), PUBLISHED)
def test_published_values(name, data):
    assert CHECKSUMS.get(name).of([memoryview(data)]).hex() == PUBLISHED[name, data]


@pytest.mark.parametrize("name", list(CHECKSUMS))
def test_parts_are_as_good_as_the_whole(name):
    checksum = CHECKSUMS.get(name)
    data = memoryview(bytes(range(256)) * 20)
    whole = checksum.of([data])
    assert len(whole) == checksum.size
    assert checksum.of([data[:1], data[1:1], data[1:700], data[700:]]) == whole
    assert checksum.of(iter([data])) == whole
    assert (checksum.of([data[:-1]]) == whole) == (name == "none")


def test_names():
    assert {"blake3", "sha256", "xxh3", "crc32c", "none"} <= set(CHECKSUMS)
    assert DEFAULT_CHECKSUM == "blake3"
    assert all(CHECKSUMS.get(name).name == name for name in CHECKSUMS)


def test_a_hasher_is_fresh_each_time():
    checksum = CHECKSUMS.get("sha256")
    one, other = checksum.new(), checksum.new()
    one.update(memoryview(b"x"))
    assert other.digest() == hashlib.sha256().digest()


def test_unknown_names_are_told_with_the_nearest():
    with pytest.raises(RegistryError, match=r"unknown checksum 'blake2'\. Did you mean 'blake3'\?"):
        CHECKSUMS.get("blake2")
