"""Chunks on many threads: forks, the end of the interpreter, and how much work is worth a thread."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

import fedpost.tensors  # noqa: F401 - registers lx
from fedpost.compression import Compression
from fedpost.frame import chunks

MIB = 1 << 20
ZSTD = Compression("zstd", 1)
FLOATS = Compression("lx", 1, "f4")


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    """A pool also where the machine has one core."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    chunks._pool.cache_clear()
    yield
    if (pool := chunks._pool()) is not None:
        pool.shutdown()
    chunks._pool.cache_clear()


def packed(data=bytes(8 * MIB)):
    (stored,), names, _, (lengths,) = chunks.compress([memoryview(data)], [ZSTD])
    assert names == ["zstd"]
    assert len(lengths) == len(stored)
    return stored


def threads_of(monkeypatch, segments, compression):
    """The threads that compress segments, by name."""
    seen = set()

    def smaller(work):
        seen.add(threading.current_thread().name)
        return real(work)

    real = chunks._smaller
    monkeypatch.setattr(chunks, "_smaller", smaller)
    chunks.compress([memoryview(segment) for segment in segments], [compression] * len(segments))
    return seen


def test_a_forked_child_has_threads_of_its_own():
    stored = packed()
    child = os.fork()
    if not child:
        signal.alarm(20)  # instead of waiting for ever
        out = chunks.decompress(packed(), "zstd", 8 * MIB, MIB, 0, 8 * MIB)
        os._exit(0 if out.nbytes == 8 * MIB else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert bytes(chunks.decompress(stored, "zstd", 8 * MIB, MIB, 0, 8 * MIB)) == bytes(8 * MIB)


def test_at_the_end_of_the_interpreter_one_thread_does_it():
    code = """
import atexit, os
os.sched_getaffinity = lambda _: {0, 1}
from fedpost.compression import Compression
from fedpost.frame import Frame
def work():
    frame = Frame.build({}, [memoryview(bytes(8 << 20))], compression=Compression("zstd", 1))
    print(Frame.decode(bytes(frame)).segment(0).nbytes)
atexit.register(work)
work()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=280)
    assert done.stdout.split() == [str(8 * MIB)] * 2
    assert not done.stderr


def test_large_chunks_go_to_the_pool(monkeypatch):
    assert all(name.startswith("fedpost-chunks") for name in threads_of(monkeypatch, [bytes(4 * MIB)], ZSTD))


@pytest.mark.parametrize(
    ("sizes", "compression"),
    [([4400] * 1000, ZSTD), ([220_000] * 20, FLOATS), ([MIB], ZSTD), ([], ZSTD), ([0, 0], ZSTD)],
)
def test_little_work_stays_where_it_is(sizes, compression, monkeypatch):
    seen = threads_of(monkeypatch, [bytes(size) for size in sizes], compression)
    assert seen <= {threading.current_thread().name}
    assert bool(seen) == any(sizes)


def test_items_go_to_threads_in_batches_of_a_chunk():
    sizes = [100_000] * 50 + [MIB] * 3 + [5]
    batches = chunks._batches(range(len(sizes)), sizes)
    assert [item for batch in batches for item in batch] == list(range(len(sizes)))
    filled = [sum(sizes[item] for item in batch) for batch in batches]
    assert all(MIB <= size < 2 * MIB for size in filled[:-1])


def test_order_is_kept_whoever_did_the_work():
    rng = np.random.default_rng(0)
    segments = [np.full(int(size), number, np.uint8) for number, size in enumerate(rng.integers(65_536, 3 * MIB, 30))]
    stored, _, coding, lengths = chunks.compress([segment.data for segment in segments], [ZSTD] * 30)
    assert coding == [1] * 30
    for segment, parts, row in zip(segments, stored, lengths, strict=True):
        assert [part.nbytes for part in parts] == row
        assert bytes(chunks.decompress(parts, "zstd", segment.nbytes, MIB, 0, segment.nbytes)) == segment.tobytes()


def test_what_goes_wrong_in_a_thread_comes_out():
    def fail(_):
        raise RuntimeError("in the work itself")

    with pytest.raises(RuntimeError, match="in the work itself"):
        chunks._map(fail, range(4), [MIB] * 4)


def test_work_that_no_thread_takes_any_more_is_done_here_once_the_others_are_done(monkeypatch):
    """As when another thread's Ctrl-C has closed the pool."""
    pool, running, both = chunks._pool(), set(), []
    submit, entered, go_on = pool.submit, threading.Event(), threading.Event()

    def closing(*work):
        if entered.is_set():
            go_on.set()
            raise RuntimeError("cannot schedule new futures after shutdown")
        future = submit(*work)
        assert entered.wait(60)
        return future

    def work(item):
        if item in running:
            both.append(item)
        running.add(item)
        entered.set()
        assert go_on.wait(60)
        running.discard(item)
        return item

    monkeypatch.setattr(pool, "submit", closing)
    assert chunks._map(work, range(3), [MIB] * 3) == [0, 1, 2]
    assert not both


@pytest.mark.parametrize("again", [0, 1])
@pytest.mark.parametrize("number", [1, 2])
def test_ctrl_c_while_a_thread_is_started_leaves_no_thread_behind(number, again):
    """The executor does not know of a thread that was being started, and would not end it with the interpreter."""
    code = f"""
import os, threading
os.sched_getaffinity = lambda _: {{0, 1}}
from fedpost.compression import Compression
from fedpost.frame import chunks
start, started = threading.Thread.start, []
def interrupted(thread):
    start(thread)
    started.append(thread)
    if len(started) == {number}:
        raise KeyboardInterrupt
threading.Thread.start = interrupted
segments, compressions = [memoryview(bytes(8 << 20))], [Compression("zstd", 1)]
try:
    chunks.compress(segments, compressions)
except KeyboardInterrupt:
    print("interrupted")
for _ in range({again}):
    print(len(chunks.compress(segments, compressions)[0][0]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=280)
    assert done.stdout.split() == ["interrupted", *["8"] * again]
    assert not done.stderr
