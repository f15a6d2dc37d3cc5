"""Blobs in memory, beyond the contract."""

from __future__ import annotations

import threading
import time

from fedpost.blobs import MemoryBlobStore


def test_blobs_are_read_only_and_not_copied():
    store = MemoryBlobStore()
    store.put("a", [memoryview(b"x" * 1000)])
    first, second = store.get("a", max_bytes=1000), store.get("a", max_bytes=1000)
    assert first.readonly
    assert first.obj is second.obj


def test_every_watch_wakes_at_a_put():
    store = MemoryBlobStore()
    watches = [store.watch("folder") for _ in range(3)]
    woken = threading.Semaphore(0)

    def wait(watch):
        watch.wait(60)
        woken.release()

    threads = [threading.Thread(target=wait, args=(watch,)) for watch in watches]
    for thread in threads:
        thread.start()
    store.put("folder/a", [])
    assert all(woken.acquire(timeout=30) for _ in watches)
    for thread in threads:
        thread.join()


def test_a_put_wakes_a_watch_once():
    store = MemoryBlobStore()
    watch = store.watch("folder")
    store.put("folder/a", [])
    watch.wait(60)
    start = time.monotonic()
    watch.wait(1.5)
    assert time.monotonic() - start > 1
    assert store.puts() == 1


def test_stores_have_nothing_in_common():
    first, second = MemoryBlobStore(), MemoryBlobStore()
    first.put("a", [])
    assert second.get("a", max_bytes=1) is None
