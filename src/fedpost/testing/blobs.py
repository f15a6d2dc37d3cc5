"""The contract of a blob store; see :class:`fedpost.blobs.BlobStore`."""

# ruff: noqa: S101 - asserting is what a suite is for
from __future__ import annotations

import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar, Final

import pytest

from fedpost.blobs import BlobInfo, BlobStore
from fedpost.errors import LimitError, TransportError

__all__ = ["BlobStoreContract"]

_PLENTY: Final = 1 << 30
_BAD_KEYS: Final = {
    "empty": "",
    "separator": "/",
    "absolute": "/etc/passwd",
    "empty part": "a//b",
    "empty end": "a/",
    "up": "..",
    "up inside": "a/../b",
    "up at the end": "a/..",
    "here": ".",
    "here inside": "a/./b",
    "leading dot": ".hidden",
    "leading dot inside": "a/.tmp",
    "leading dash": "-rf",
    "NUL": "a\0b",
    "newline": "a\n",
    "control": "a\x1b[31m",
    "space": "a b",
    "backslash": "a\\b",
    "drive": "C:a",
    "letter outside ASCII": "\u00e9",
    "digit outside ASCII": "\u0663",
    "lone surrogate": "\ud800",
    "part too long": "x" * 201,
    "too many parts": "/".join("abcdefghi"),
    "very long": "x/" * 50_000 + "x",
}
_WAIT: Final = 60.0


class BlobStoreContract:
    """Override the fixture :meth:`store`.

    Attributes:
        signals: A watch wakes when a blob is put; without signals it sleeps its time out.
    """

    signals: ClassVar[bool] = True

    @pytest.fixture
    def store(self) -> BlobStore:
        """The store under test, empty."""
        raise NotImplementedError

    # ── put and get ──────────────────────────────────────────────────────────────────────────────────────────────────

    @pytest.mark.parametrize(
        "parts",
        [
            [],
            [b""],
            [b"x"],
            [b"a", b"", b"bc"],
            [bytes([n % 256]) * n for n in range(3000)],
            [bytes(range(256)) * 40_000],
        ],
        ids=["no buffer", "empty", "one byte", "some", "thousands", "10 MB"],
    )
    def test_a_blob_comes_back(self, store: BlobStore, parts: list[bytes]) -> None:
        """The buffers are stored as one blob, of the size that is returned."""
        data = b"".join(parts)
        assert store.put("folder/name", (memoryview(part) for part in parts)) == len(data)
        assert _content(store, "folder/name") == data

    @pytest.mark.parametrize(
        "key", ["a", "a/b", "a/b/c/d/e/f/g/h", "A.b-c_d", "_", "9", "x" * 200, "a..b", "a.", "CON"]
    )
    def test_keys_are_plain_names(self, store: BlobStore, key: str) -> None:
        """Every key of the pattern is a key."""
        store.put(key, [memoryview(key.encode())])
        assert _content(store, key) == key.encode()
        assert store.delete(key)

    def test_keys_are_told_apart(self, store: BlobStore) -> None:
        """Case matters, and so does every character."""
        keys = ["f/a", "f/A", "f/a.", "f/a_", "f/aa", "g/a", "fa"]
        for key in keys:
            store.put(key, [memoryview(key.encode())])
        assert [_content(store, key) for key in keys] == [key.encode() for key in keys]

    def test_there_is_no_blob_before_it_is_put(self, store: BlobStore) -> None:
        """A key without a blob gives None, whether or not its folder is there."""
        assert store.get("folder/name", max_bytes=_PLENTY) is None
        store.put("folder/other", [memoryview(b"x")])
        assert store.get("folder/name", max_bytes=_PLENTY) is None

    def test_a_put_replaces(self, store: BlobStore) -> None:
        """The last blob under a key is the one that is there, be it shorter or longer."""
        for data in (b"first", b"2", b"a longer third one"):
            store.put("folder/name", [memoryview(data)])
            assert _content(store, "folder/name") == data
        assert len(store.list("folder")) == 1

    def test_what_was_got_stays(self, store: BlobStore) -> None:
        """The bytes belong to the caller: they outlive the blob, and nobody else changes them."""
        store.put("folder/name", [memoryview(b"old" * 10_000)])
        got = store.get("folder/name", max_bytes=_PLENTY)
        assert got is not None
        store.put("folder/name", [memoryview(b"new" * 10_000)])
        assert bytes(got) == b"old" * 10_000
        store.delete("folder/name")
        assert bytes(got) == b"old" * 10_000

    def test_what_was_put_can_be_used_again(self, store: BlobStore) -> None:
        """The buffers belong to the caller again when the put returns."""
        data = bytearray(b"before")
        store.put("folder/name", [memoryview(data)])
        data[:] = b"after!"
        assert _content(store, "folder/name") == b"before"

    def test_a_failed_put_leaves_nothing(self, store: BlobStore) -> None:
        """A put that stops half-way is as if it had never been: the old blob stays, no other appears."""
        store.put("folder/name", [memoryview(b"old")])

        def failing() -> Iterator[memoryview]:
            yield memoryview(b"new")
            raise RuntimeError("the sender died")

        for key in ("folder/name", "folder/other"):
            with pytest.raises(RuntimeError):
                store.put(key, failing())
        assert store.list("folder") == [BlobInfo("folder/name", 3)]
        assert _content(store, "folder/name") == b"old"

    @pytest.mark.parametrize("key", _BAD_KEYS.values(), ids=_BAD_KEYS)
    @pytest.mark.parametrize("method", ["put", "get", "list", "delete", "watch"])
    def test_what_is_no_key_is_refused(self, store: BlobStore, method: str, key: str) -> None:
        """No key leads out of the store or means two things; every method refuses it, and nothing happens."""
        calls: dict[str, Callable[[], object]] = {
            "put": lambda: store.put(key, [memoryview(b"x")]),
            "get": lambda: store.get(key, max_bytes=_PLENTY),
            "list": lambda: store.list(key),
            "delete": lambda: store.delete(key),
            "watch": lambda: store.watch(key),
        }
        with pytest.raises(TransportError):
            calls[method]()

    # ── budget ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def test_a_blob_of_the_size_of_the_budget_is_read(self, store: BlobStore) -> None:
        """The budget is the largest size that is allowed; an empty blob needs none."""
        store.put("folder/name", [memoryview(b"12345")])
        store.put("folder/empty", [])
        assert _content(store, "folder/name", max_bytes=5) == b"12345"
        assert _content(store, "folder/empty", max_bytes=0) == b""
        with pytest.raises(LimitError):
            store.get("folder/name", max_bytes=4)
        assert _content(store, "folder/name") == b"12345"

    def test_over_the_budget_nothing_is_read(self, store: BlobStore) -> None:
        """What is too large is refused before memory is taken for it."""
        store.put("folder/name", [memoryview(bytes(1 << 20))] * 24)
        tracemalloc.start()
        try:
            with pytest.raises(LimitError):
                store.get("folder/name", max_bytes=1000)
            assert tracemalloc.get_traced_memory()[1] < 4 << 20
        finally:
            tracemalloc.stop()

    # ── list and delete ──────────────────────────────────────────────────────────────────────────────────────────────

    def test_a_list_is_in_order(self, store: BlobStore) -> None:
        """Blobs are listed by key, with their sizes, however they were put."""
        names = ["b", "a", "10", "9", "B", "a.b", "a-b", "_"]
        for size, name in enumerate(names):
            store.put(f"folder/{name}", [memoryview(bytes(size))])
        expected = sorted((f"folder/{name}", size) for size, name in enumerate(names))
        assert [(blob.key, blob.size) for blob in store.list("folder")] == expected

    def test_a_list_has_direct_children_only(self, store: BlobStore) -> None:
        """Neither folders below nor folders whose names begin alike are listed."""
        for key in ("folder/a", "folder/sub/b", "folder/sub/sub/c", "folder2/d", "folde", "folder.e"):
            store.put(key, [memoryview(b"x")])
        assert store.list("folder") == [BlobInfo("folder/a", 1)]
        assert store.list("folder/sub") == [BlobInfo("folder/sub/b", 1)]

    def test_a_folder_without_blobs_lists_nothing(self, store: BlobStore) -> None:
        """A folder need not exist to be listed, and is empty again when its last blob is gone."""
        assert store.list("folder") == []
        store.put("folder/name", [memoryview(b"x")])
        store.delete("folder/name")
        assert store.list("folder") == []

    def test_many_blobs_are_listed(self, store: BlobStore) -> None:
        """A list is whole, whatever pages the medium gives it in."""
        keys = [f"folder/{number:05d}" for number in range(1500)]
        for key in keys:
            store.put(key, [memoryview(b"x")])
        assert [blob.key for blob in store.list("folder")] == keys

    def test_delete_says_whether_it_was_there(self, store: BlobStore) -> None:
        """A second delete does nothing and says so."""
        assert not store.delete("folder/name")
        store.put("folder/name", [memoryview(b"x")])
        assert store.delete("folder/name")
        assert not store.delete("folder/name")
        assert store.get("folder/name", max_bytes=_PLENTY) is None

    def test_one_of_many_deletes_wins(self, store: BlobStore) -> None:
        """Of several that delete a blob at the same time, one is told that it was there."""
        with ThreadPoolExecutor(8) as pool:
            for _ in range(50):
                store.put("folder/name", [memoryview(b"x")])
                assert sum(pool.map(lambda _: store.delete("folder/name"), range(8))) == 1

    # ── atomicity ────────────────────────────────────────────────────────────────────────────────────────────────────

    def test_a_reader_never_sees_a_part(self, store: BlobStore) -> None:
        """While writers replace a blob and readers read and list it, each reads one writer's bytes, whole."""
        sizes = {ord("a"): 300_000, ord("b"): 70_001, ord("c"): 5}
        store.put("folder/name", [memoryview(b"c" * 5)])
        done: list[int] = []

        def write(letter: int) -> None:
            part = memoryview(bytes([letter]) * sizes[letter])
            middle = len(part) // 2
            try:
                for _ in range(150):
                    store.put("folder/name", [part[:middle], part[middle:]])
            finally:
                done.append(letter)

        def read() -> int:
            count = 0
            while len(done) < len(sizes) or not count:
                data = _content(store, "folder/name")
                assert data == data[:1] * sizes[data[0]]
                (blob,) = store.list("folder")
                assert blob.key == "folder/name"
                assert blob.size in sizes.values()
                count += 1
            return count

        with ThreadPoolExecutor(6) as pool:
            readers = [pool.submit(read) for _ in range(3)]
            writers = [pool.submit(write, letter) for letter in sizes]
            for writer in writers:
                writer.result(_WAIT)
            for reader in readers:
                reader.result(_WAIT)

    def test_blobs_of_many_writers_do_not_meet(self, store: BlobStore) -> None:
        """Writers of different keys, and of folders that are not there yet, do not disturb each other."""

        def write(number: int) -> None:
            store.put(f"folder{number % 7}/{number}", [memoryview(bytes([number]) * 1000)])

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(write, range(200)))
        for number in range(200):
            assert _content(store, f"folder{number % 7}/{number}") == bytes([number]) * 1000

    # ── watching ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def test_a_watch_wakes_at_a_put(self, store: BlobStore) -> None:
        """A put wakes who waits, long before the time is over; the blob is there then."""
        watch = store.watch("folder")
        timer = threading.Timer(0.3, store.put, ("folder/name", [memoryview(b"x")]))
        timer.start()
        try:
            assert _waited(store, watch.wait, signals=self.signals) < _WAIT / 2
        finally:
            timer.join()
            watch.close()

    def test_a_put_before_the_wait_is_not_missed(self, store: BlobStore) -> None:
        """What was put after the watch began and before the wait did ends the wait."""
        watch = store.watch("folder")
        store.put("folder/name", [memoryview(b"x")])
        try:
            assert _waited(store, watch.wait, signals=self.signals) < _WAIT / 2
        finally:
            watch.close()

    def test_a_watch_gives_up(self, store: BlobStore) -> None:
        """Where nothing happens a wait ends after its time; one of no length ends at once."""
        watch = store.watch("folder")
        start = time.monotonic()
        watch.wait(0)
        watch.wait(0.2)
        watch.close()
        assert time.monotonic() - start < _WAIT / 2

    def test_a_watch_is_closed_more_than_once(self, store: BlobStore) -> None:
        """Closing is idempotent, ends nobody else's watch, and leaves the store as it is."""
        watch, other = store.watch("folder"), store.watch("folder")
        watch.close()
        watch.close()
        store.put("folder/name", [memoryview(b"x")])
        assert _waited(store, other.wait, signals=self.signals) < _WAIT / 2
        other.close()
        assert _content(store, "folder/name") == b"x"


def _content(store: BlobStore, key: str, *, max_bytes: int = _PLENTY) -> bytes:
    data = store.get(key, max_bytes=max_bytes)
    assert data is not None, key
    return bytes(data)


def _waited(store: BlobStore, wait: Callable[[float], None], *, signals: bool) -> float:
    """Wait, as a receiver does, until the folder has a blob: how long one wait for it took."""
    start = time.monotonic()
    while not store.list("folder") and time.monotonic() - start < _WAIT:
        wait(_WAIT if signals else 0.5)  # a wait may end early, for no reason
    if signals:
        wait(0)
    return time.monotonic() - start
