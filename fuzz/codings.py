"""What compressors and the sparse coding take, as something to fuzz."""
# ruff: noqa: INP001, PLR2004 - scripts, not a package; acts and sizes of samples are plain numbers

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from typing import Any

import file_structures
import numpy as np
from models import FindingError, other, require
from mutation import Bytewise, Mutator

from fedpost.compression import COMPRESSORS
from fedpost.errors import RemoteError
from fedpost.tensors.sparse import SparseElements, check_sparse, sparse_bytes

SLOW = 4096  # bytes that the reader of LX in plain Python takes a millisecond for
NUMBERS = ("", "f1", "f2", "f4", "f8")
"""What the bytes of a chunk are, for a compressor of numbers."""


def check_compressor(name: str) -> Callable[[bytes], bool]:
    """A chunk behind four bytes of the size that it must come to."""
    compressor = COMPRESSORS.get(name)

    def check(data: bytes) -> bool:
        size = int.from_bytes(data[:4], "little") % (1 << 20)
        try:
            plain = unpacked(compressor, data[4:], size)
        except RemoteError:
            return False
        if name == "lx" and size < SLOW:
            require(other("reader").read_lx(data[4:], size) == plain, "another reader")
        rng = random.Random(data)
        packed = compressor.compress(memoryview(plain), rng.choice(compressor.levels), rng.choice(NUMBERS))
        try:
            require(unpacked(compressor, packed, size) == plain, "compressed again")
        except RemoteError as error:
            raise FindingError("what was accepted is refused when it is compressed again") from error
        return True

    return check


def unpacked(compressor: Any, packed: bytes, size: int) -> bytes:
    """A chunk decompressed into memory that held something before."""
    found = []
    for fill in (b"\xa5", b"\x5a"):
        out = bytearray(fill * size)
        compressor.decompress_into(memoryview(packed), memoryview(out))
        found.append(bytes(out))
    require(found[0] == found[1], "not all of it was written")
    return found[0]


def chunks(name: str) -> Callable[[], Iterator[bytes]]:
    """Chunks of a compressor at several levels."""

    def seeds() -> Iterator[bytes]:
        compressor = COMPRESSORS.get(name)
        contents = [b"", b"a", bytes(70_000), np.arange(800, dtype=np.float32).tobytes(), b"abc" * 33]
        for plain in [*contents, np.linspace(0, 1, 500).tobytes() + b"odd"]:
            for level in list(compressor.levels)[:: max(1, len(compressor.levels) // 4)]:
                for number in NUMBERS if name == "lx" else ("",):
                    yield struct.pack("<I", len(plain)) + compressor.compress(memoryview(plain), level, number)

    return seeds


def chunk_mutator(name: str) -> Callable[[Bytewise], Mutator]:
    """Alters a chunk, or the size that it must come to."""

    def mutator(bytewise: Bytewise) -> Mutator:
        inner = file_structures.lx(bytewise) if name == "lx" else bytewise

        def mutate(rng: random.Random, data: bytes) -> bytes:
            if rng.random() < 0.9:
                return data[:4] + inner(rng, data[4:])
            return struct.pack("<I", rng.randrange(1 << rng.randrange(1, 21))) + data[4:]

        return mutate

    return mutator


def check_sparse_coding(data: bytes) -> bool:
    """An array of few elements behind a byte for the size of one and eight for their number."""
    if len(data) < 9:
        return False
    itemsize, size = data[0], int.from_bytes(data[1:9], "little")
    payload = memoryview(data)[9:]
    try:
        check_sparse(payload, itemsize, size)
        if itemsize * size > 1 << 21:
            return False
        whole = bytes(SparseElements(payload, itemsize, size).read(0, size))
    except RemoteError:
        return False
    require(sparse_bytes(memoryview(whole), itemsize) == payload, "there is another way to write it")
    rng = random.Random(data)
    start, stop = sorted((rng.randint(0, size), rng.randint(0, size)))
    part = bytes(SparseElements(payload, itemsize, size).read(start, stop))
    require(part == whole[start * itemsize : stop * itemsize], "a range differs")
    return True


def sparse_seeds() -> Iterator[bytes]:
    """Arrays of few elements, with gaps of several widths."""
    for kind in ("u1", "<f4", "<f8", "V3"):
        for places in ([], [0], [5, 300], [1, 2, 70_000]):
            array = np.zeros(70_001 if places[-1:] == [70_000] else 400, kind)
            elements = array.view(np.uint8).reshape(len(array), -1)
            elements[places] = 7
            coded = sparse_bytes(elements.reshape(-1).data, array.dtype.itemsize)
            yield struct.pack("<BQ", array.dtype.itemsize, len(array)) + (coded or b"")


def sparse_mutator(bytewise: Bytewise) -> Mutator:
    """Alters the array, or what it is said to be."""
    inner = file_structures.sparse(bytewise)

    def mutate(rng: random.Random, data: bytes) -> bytes:
        return (bytewise(rng, data[:9]) if rng.random() < 0.2 else data[:9]) + inner(rng, data[9:])

    return mutate
