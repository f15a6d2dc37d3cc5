"""Compressors: levels, exact sizes, and what they refuse."""

from __future__ import annotations

import gzip
import random
import threading
import tracemalloc

import lz4.block
import pytest
import zstandard

from fedpost.compression import COMPRESSORS, Compression
from fedpost.errors import ConfigError, DecodeError, RegistryError

NAMES = list(COMPRESSORS)
DATA = [b"", b"x", bytes(100_000), random.Random(1).randbytes(50_000), b"abc" * 30_000]


def plain(compressor, packed, size):
    out = bytearray(size)
    compressor.decompress_into(memoryview(packed), memoryview(out))
    return bytes(out)


@pytest.mark.parametrize(
    ("text", "name", "level"),
    [
        ("gzip", "gzip", 6),
        ("gzip(0)", "gzip", 0),
        ("zstd", "zstd", 3),
        (" zstd( -5 ) ", "zstd", -5),
        ("zstd(22)", "zstd", 22),
        ("lz4", "lz4", 0),
        ("lz4(16)", "lz4", 16),
    ],
)
def test_parse(text, name, level):
    compression = Compression.parse(text)
    assert (compression.name, compression.level) == (name, level)
    assert Compression.parse(str(compression)) == compression


def test_none_is_none():
    assert Compression.parse("none") is None
    assert Compression.parse(" none ") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("zstd(23)", r"'zstd\(23\)': zstd has the levels -50 to 22"),
        ("gzip(10)", "gzip has the levels 0 to 9"),
        ("lz4(-1)", "lz4 has the levels 0 to 16"),
        ("zstd(fast)", "takes one level, a whole number"),
        ("zstd(1.5)", "takes one level, a whole number"),
        ("zstd(1, 2)", "takes one level, a whole number"),
        ("zstd(3", r"Write it like zstd\(3\)"),
        ("", "is not a name with arguments"),
        ("Zstd", "is not a name with arguments"),
    ],
)
def test_parse_refuses(text, message):
    with pytest.raises(ConfigError, match=message):
        Compression.parse(text)


def test_unknown_names():
    with pytest.raises(RegistryError, match=r"unknown compression 'zst'\. Did you mean 'zstd'\?"):
        Compression.parse("zst(3)")
    with pytest.raises(RegistryError):
        Compression.parse("none(1)")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("data", DATA, ids=len)
def test_round_trip_at_the_ends_of_the_levels(name, data):
    compressor = COMPRESSORS.get(name)
    for level in (compressor.levels[0], compressor.default_level, compressor.levels[-1]):
        packed = Compression(name, level).compress(memoryview(data))
        assert plain(compressor, packed, len(data)) == data


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("off", [-1, 1, 10_000])
def test_another_size_than_promised(name, off):
    data = b"abc" * 10_000
    packed = Compression.parse(name).compress(memoryview(data))
    with pytest.raises(DecodeError, match=name):
        plain(COMPRESSORS.get(name), packed, len(data) + off)


@pytest.mark.parametrize("name", NAMES)
def test_damage(name):
    packed = Compression.parse(name).compress(memoryview(random.Random(1).randbytes(5000) * 3))
    for bad in (b"", packed[:-1], packed[1:], packed[:20], bytes(len(packed)), packed + b"\0"):
        with pytest.raises(DecodeError, match=name):
            plain(COMPRESSORS.get(name), bad, 15_000)


def test_the_formats_are_the_libraries_own():
    data = b"abc" * 10_000
    assert gzip.decompress(Compression("gzip", 9).compress(memoryview(data))) == data
    assert zstandard.ZstdDecompressor().decompress(Compression("zstd", 1).compress(memoryview(data))) == data
    assert lz4.block.decompress(Compression("lz4", 0).compress(memoryview(data)), uncompressed_size=30_000) == data
    assert plain(COMPRESSORS.get("gzip"), gzip.compress(data), 30_000) == data


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_a_bomb_is_stopped_at_the_size_that_was_promised(name):
    pack = {"gzip": gzip.compress, "zstd": zstandard.ZstdCompressor().compress}[name]
    packed = memoryview(pack(bytes(50_000_000)))
    tracemalloc.start()
    with pytest.raises(DecodeError):
        plain(COMPRESSORS.get(name), packed, 1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_threads_do_not_share_contexts():
    data = [memoryview(random.Random(seed).randbytes(1000) * 50) for seed in range(8)]
    failures = []

    def work(content):
        compressor = COMPRESSORS.get("zstd")
        for level in (1, 3, 1):
            for _ in range(20):
                packed = compressor.compress(content, level)
                if plain(compressor, packed, content.nbytes) != content:
                    failures.append(level)

    threads = [threading.Thread(target=work, args=(content,)) for content in data]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
