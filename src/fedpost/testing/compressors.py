"""The contract of a byte compressor; see :class:`fedpost.compression.Compressor`."""

# ruff: noqa: S101 - asserting is what a suite is for
from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Final

import numpy as np
import pytest

from fedpost.compression import Compressor
from fedpost.errors import DecodeError
from fedpost.frame import DEFAULT_LIMITS

__all__ = ["CompressorContract"]

_CHUNKS: Final[dict[str, bytes]] = {
    "nothing": b"",
    "one byte": b"\x07",
    "zeros": bytes(1 << 20),
    "random": random.Random(1).randbytes(100_000),
    "text": b"the quick brown fox jumps over the lazy dog; " * 2000,
    "floats": np.random.default_rng(1).standard_normal(30_000).astype(np.float32).tobytes(),
    "odd": bytes(range(256)) * 401 + b"\x01",
}
_SHORT: Final = b"federated learning, federated learning, and so on" + bytes(range(40))


class CompressorContract:
    """Override the fixture :meth:`compressor`."""

    @pytest.fixture
    def compressor(self) -> Compressor:
        """The compressor under test."""
        raise NotImplementedError

    # ── what goes in comes out ───────────────────────────────────────────────────────────────────────────────────────

    @pytest.mark.parametrize("data", _CHUNKS.values(), ids=_CHUNKS)
    def test_a_chunk_comes_back(self, compressor: Compressor, data: bytes) -> None:
        """Whatever the bytes are, also none or one, they come back."""
        packed = compressor.compress(memoryview(data), compressor.default_level)
        assert isinstance(packed, bytes)
        assert _plain(compressor, packed, len(data)) == data

    def test_every_level_comes_back(self, compressor: Compressor) -> None:
        """Every level that is offered works, and the receiver need not know which it was."""
        assert compressor.default_level in compressor.levels
        for level in compressor.levels:
            for data in (_SHORT * 20, b"", b"x"):
                packed = compressor.compress(memoryview(data), level)
                assert _plain(compressor, packed, len(data)) == data, level

    def test_it_compresses(self, compressor: Compressor) -> None:
        """What repeats itself becomes much smaller."""
        data = _CHUNKS["text"]
        assert len(compressor.compress(memoryview(data), compressor.default_level)) * 5 < len(data)

    @pytest.mark.parametrize(
        "view",
        [
            lambda data: memoryview(bytearray(data)),
            lambda data: memoryview(b"###" + data + b"###")[3:-3],
            lambda data: np.frombuffer(data, np.uint8).data,
            lambda data: memoryview(bytearray(data)).toreadonly(),
        ],
        ids=["writable", "inside", "array", "read-only"],
    )
    def test_views_are_taken_as_they_are(self, compressor: Compressor, view: Callable[[bytes], memoryview]) -> None:
        """Chunks are views of larger memory; both directions read exactly what the view shows, and change nothing."""
        shown = view(_SHORT)
        packed = compressor.compress(shown, compressor.default_level)
        assert shown == _SHORT
        stored = view(packed)
        assert _plain(compressor, stored, len(_SHORT)) == _SHORT
        assert stored == packed

    def test_calls_are_independent(self, compressor: Compressor) -> None:
        """Chunks can be decompressed in any order, also after one that was refused."""
        parts = [bytes([number]) * (number + 1) * 50 for number in range(20)]
        packed = [compressor.compress(memoryview(part), compressor.default_level) for part in parts]
        for number in random.Random(2).sample(range(20), 20):
            with pytest.raises(DecodeError):
                _plain(compressor, packed[number][:-1], len(parts[number]))
            assert _plain(compressor, packed[number], len(parts[number])) == parts[number]

    def test_threads_do_not_meet(self, compressor: Compressor) -> None:
        """Chunks can be coded on any thread, many at once."""

        def there_and_back(seed: int) -> bool:
            data = random.Random(seed).randbytes(500) * (seed % 40 + 1)
            packed = compressor.compress(memoryview(data), compressor.levels[-(seed % 2)])
            return _plain(compressor, packed, len(data)) == data

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(there_and_back, range(300)))

    # ── what must be refused ─────────────────────────────────────────────────────────────────────────────────────────

    def test_another_size_is_refused(self, compressor: Compressor) -> None:
        """A chunk comes to exactly the size that was promised, or to nothing."""
        for data in (b"", b"x", _SHORT, _CHUNKS["zeros"]):
            packed = memoryview(compressor.compress(memoryview(data), compressor.default_level))
            size = len(data)
            for wrong in {0, size - 1, size + 1, 2 * size + 1, size + 100_000, DEFAULT_LIMITS.max_chunk} - {size, -1}:
                with pytest.raises(DecodeError):
                    _plain(compressor, packed, wrong)

    def test_a_truncated_chunk_is_refused(self, compressor: Compressor) -> None:
        """A chunk that lost its end, wherever it was cut, is refused."""
        for data in (b"x", _SHORT, _SHORT * 50):
            packed = memoryview(compressor.compress(memoryview(data), compressor.default_level))
            for end in chain(range(min(len(packed), 200)), range(max(len(packed) - 50, 0), len(packed))):
                with pytest.raises(DecodeError):
                    _plain(compressor, packed[:end], len(data))

    def test_extra_bytes_are_refused(self, compressor: Compressor) -> None:
        """Nothing may hide behind the end of a chunk: no padding, no second chunk, not even an empty one."""
        empty = compressor.compress(memoryview(b""), compressor.default_level)
        for data in (b"", b"x", _SHORT, _CHUNKS["zeros"]):
            packed = compressor.compress(memoryview(data), compressor.default_level)
            for extra in (b"\0", b"\xff", bytes(100), b"extra", empty, packed):
                with pytest.raises(DecodeError):
                    _plain(compressor, packed + extra, len(data))

    def test_garbage_is_refused(self, compressor: Compressor) -> None:
        """Bytes that were never compressed are refused, not crashed on."""
        source = random.Random(3)
        for length in chain(range(1, 100), (1000, 100_000)):
            with pytest.raises(DecodeError):
                _plain(compressor, source.randbytes(length), 1 << 20)
        for garbage in (b"", bytes(1000), b"\xff" * 1000):
            with pytest.raises(DecodeError):
                _plain(compressor, garbage, DEFAULT_LIMITS.max_chunk)

    def test_an_altered_chunk_does_no_harm(self, compressor: Compressor) -> None:
        """Whatever byte is altered: a DecodeError, or exactly as many bytes as promised (digests notice the rest)."""
        packed = compressor.compress(memoryview(_SHORT * 3), compressor.default_level)
        for position in range(len(packed)):
            for flip in (0x01, 0x80, 0xFF):
                altered = bytearray(packed)
                altered[position] ^= flip
                try:
                    out = _plain(compressor, altered, len(_SHORT) * 3)
                except DecodeError:
                    continue
                assert len(out) == len(_SHORT) * 3

    def test_a_bomb_is_stopped_at_the_size(self, compressor: Compressor) -> None:
        """A chunk that comes to far more than it should costs no more memory than it should."""
        packed = compressor.compress(memoryview(bytes(32 << 20)), compressor.default_level)
        tracemalloc.start()
        try:
            with pytest.raises(DecodeError):
                _plain(compressor, packed, 1000)
            assert tracemalloc.get_traced_memory()[1] < 4 << 20
        finally:
            tracemalloc.stop()


def _plain(compressor: Compressor, packed: bytes | bytearray | memoryview, size: int) -> bytes:
    """What a chunk comes to, in memory of that size."""
    out = bytearray(size)
    compressor.decompress_into(memoryview(packed), memoryview(out))
    return bytes(out)
