"""Chunks that are kept: how much, how long, and that nobody sees them change."""

from __future__ import annotations

import gc
import os
import threading

import numpy as np
import pytest

from fedpost.compression import COMPRESSORS, Compression
from fedpost.frame import Frame
from fedpost.frame.recent import RECENT, Owner, Recent

MIB = 1 << 20
DATA = np.arange(MIB // 2, dtype=np.uint32).tobytes()  # 2 MiB, two chunks


def frame_of(data=DATA, count=1):
    return Frame.decode(bytes(Frame.build({}, [memoryview(data)] * count, compression=Compression("zstd", 1))))


@pytest.fixture
def calls(monkeypatch):
    """How many chunks were decompressed."""
    made = []
    zstd = COMPRESSORS.get("zstd")
    real = type(zstd).decompress_into

    def decompress_into(self, data, out):
        made.append(out.nbytes)
        real(self, data, out)

    monkeypatch.setattr(type(zstd), "decompress_into", decompress_into)
    return made


def test_small_reads_decompress_a_chunk_once(calls):
    frame = frame_of()
    for start in range(0, 2 * MIB, 1000):
        stop = min(start + 1000, 2 * MIB)
        part = frame.read(0, start, stop)
        assert part.readonly
        assert bytes(part) == DATA[start:stop]
    assert calls == [MIB, MIB]


def test_large_reads_are_not_kept(calls):
    frame = frame_of()
    before = RECENT.nbytes
    for _ in range(2):
        assert bytes(frame.segment(0)) == DATA
    assert len(calls) == 4
    assert RECENT.nbytes <= before


def test_views_outlive_what_is_kept():
    frame = frame_of()
    early = frame.read(0, 100, 200)
    others = [frame_of() for _ in range(40)]
    for other in others:
        other.read(0, 5, 10)
    assert bytes(early) == DATA[100:200]
    del frame, others, other
    gc.collect()
    assert bytes(early) == DATA[100:200]


def test_memory_is_bounded_for_all_frames_together():
    frames = [frame_of() for _ in range(40)]
    for frame in frames:
        frame.read(0, 5, 10)
        assert RECENT.nbytes <= 16 * MIB
    assert RECENT.nbytes == 16 * MIB
    del frame, frames
    gc.collect()
    assert RECENT.nbytes == 0


def test_what_was_asked_for_last_stays():
    recent, owner = Recent(300), Owner()
    for number in range(3):
        recent.keep(owner, 0, number, memoryview(bytes([number]) * 100))
    assert recent.get(owner, 0, 0) is not None
    recent.keep(owner, 0, 3, memoryview(bytes(100)))
    assert [recent.get(owner, 0, number) is not None for number in range(4)] == [True, False, True, True]
    recent.keep(owner, 0, 4, memoryview(bytes(301)))
    assert recent.get(owner, 0, 4) is None
    assert recent.get(Owner(), 0, 0) is None
    for number in range(1000):
        recent.keep(owner, 1, number, memoryview(b""))
    assert len(recent._kept) <= 64


def test_damage_is_told_every_time_and_not_kept():
    built = Frame.build({}, [memoryview(DATA)], compression=Compression("zstd", 1))
    data = bytearray(bytes(built))
    data[-built._header.segments.chunks[0][1]] ^= 1  # the second chunk's magic
    frame = Frame.decode(bytes(data), verify="never")
    for _ in range(2):
        with pytest.raises(ValueError, match="segment 0, chunk 1"):
            frame.read(0, 2 * MIB - 10, 2 * MIB)


def test_a_child_that_is_forked_while_a_thread_holds_the_lock():
    frame = frame_of()
    frame.read(0, 5, 10)
    with RECENT._lock:
        child = os.fork()
        if not child:
            same = bytes(frame.read(0, 5, 10)) == DATA[5:10]
            os._exit(0 if same else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_threads_share_what_is_kept():
    frame = frame_of(count=20)
    wrong = []

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(300):
            index, start = int(rng.integers(20)), int(rng.integers(2 * MIB - 100))
            if bytes(frame.read(index, start, start + 100)) != DATA[start : start + 100]:
                wrong.append((index, start))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
