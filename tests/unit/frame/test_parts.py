"""Parts: how frames are cut and put together, what a sink sees, and what is left when the disk or the process fails."""

from __future__ import annotations

import errno
import gc
import hashlib
import os
import struct
import subprocess
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import blake3
import numpy as np
import pytest

from fedpost.errors import (
    ConfigError,
    DecodeError,
    EncodeError,
    IntegrityError,
    LimitError,
    LocalError,
    ProtocolError,
    TruncatedError,
)
from fedpost.files import hidden_name
from fedpost.frame import Frame, Limits, Part, PartAssembler, PartLimits, PartPlan, spool
from fedpost.frame.header import read_header
from fedpost.pipeline import Pipeline, decode_tensors
from fedpost.tensors.fedwt import FedwtTensors

HEADER = 88
MIB = 1 << 20


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def a_frame(size=50_000, seed=0, **options):
    data = np.random.default_rng(seed).integers(0, 256, size, np.uint8)
    return Frame.build({"x": 1}, [memoryview(data), memoryview(b"tail")], **options)


def encode_tensors(tensors, pipeline="dense | fedwt | none"):
    return Pipeline.parse(pipeline).encode(tensors)


def wire(frame, max_bytes=HEADER + 4096):
    return [bytes(part) for part in frame.parts(max_bytes)]


def add_all(assembler, frame, *, order=1, skip=(), max_bytes=HEADER + 4096, **sender):
    transfer = None
    for index, data in list(enumerate(wire(frame, max_bytes)))[::order]:
        if index not in skip:
            transfer = assembler.add(Part.decode(data), **sender)
    return transfer


class HashSink:
    def __init__(self):
        self.position, self.hash, self.calls = 0, hashlib.sha256(), 0

    def write(self, offset, data):
        assert offset == self.position
        assert data.readonly
        assert data.nbytes
        self.position += data.nbytes
        self.calls += 1
        self.hash.update(data)


class MeanSink:
    """Adds float32 tensors to a weighted sum straight from slices; knows only the specification of frames."""

    def __init__(self, weight, total):
        self.weight, self.total, self.head, self.runs, self.rest = weight, total, bytearray(), None, b""

    def write(self, offset, data):
        if self.runs is None:
            self.head += data
            try:
                self.begin()
            except TruncatedError:
                return
            offset, data = 0, memoryview(bytes(self.head))
            self.head.clear()
        for start, end, out in self.runs:
            first, last = max(start, offset), min(end, offset + data.nbytes)
            if first < last:
                self.add(out, first - start, data[first - offset : last - offset])

    def begin(self):
        """Once the header is there, every tensor's place in the frame is known."""
        minor, head, header = read_header(memoryview(bytes(self.head)), Limits())
        empty = [(memoryview(b""),) for _ in header.segments.raw]
        tensors = FedwtTensors(Frame(bytes(head), header, empty, unverified=bytearray(), minor=minor), Limits())
        self.runs, end, places = [], head.nbytes, []
        for size in header.segments.raw:
            places.append(end + -end % 64)
            end = places[-1] + size
        for spec, segment, start in zip(tensors.specs, tensors._segments, tensors._starts, strict=True):
            first = places[segment] + start
            self.runs.append((first, first + spec.nbytes, self.total.setdefault(spec.name, np.zeros(spec.size))))

    def add(self, out, position, data):
        data = self.rest + bytes(data)
        position -= len(self.rest)
        self.rest = data[len(data) - len(data) % 4 :]
        values = np.frombuffer(data[: len(data) - len(self.rest)], "<f4")
        out[position // 4 : position // 4 + len(values)] += values * self.weight


# ── cutting ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("max_bytes", [HEADER + 1, HEADER + 7, HEADER + 64, HEADER + 100, 5000, 65_536, 1 << 30])
def test_parts_are_the_frame(max_bytes):
    frame = a_frame(3000)
    parts = list(frame.parts(max_bytes))
    assert b"".join(bytes(b) for part in parts for b in part.payload) == bytes(frame)
    assert [part.index for part in parts] == list(range(len(frame.parts(max_bytes))))
    for part in parts:
        data = bytes(part)
        assert len(data) == part.nbytes <= max_bytes
        assert Part.decode(data) == part
        assert data == b"".join(part.buffers())


@pytest.mark.parametrize(
    ("max_bytes", "size"), [(MIB, 255 * 4096), (HEADER + 4095, 4032), (HEADER + 64, 64), (HEADER + 63, 63)]
)
def test_payloads_are_whole_pages_or_elements(max_bytes, size):
    assert a_frame(2 * MIB).parts(max_bytes).plan.size == size


def test_parts_refer_to_the_tensors_memory():
    data = np.arange(100_000, dtype=np.uint8)
    parts = Frame.build({}, [memoryview(data)]).parts(HEADER + 4096)
    for part in list(parts)[1:]:
        assert len(part.payload) == 1
        assert np.shares_memory(np.frombuffer(part.payload[0], np.uint8), data)
    read = memoryview(bytes(parts[3]))
    assert np.shares_memory(np.frombuffer(Part.decode(read).payload[0], np.uint8), np.frombuffer(read, np.uint8))


def test_a_part_on_the_wire():
    frame = a_frame(200)
    part = frame.parts(HEADER + 64)[2]
    head = struct.pack(
        "<8sHHI16s5Q", b"\x89FPP\r\n\x1a\n", 1, 0, 0, frame.digest, 2, -(-frame.nbytes // 64), frame.nbytes, 128, 64
    )
    payload = bytes(frame)[128:192]
    assert bytes(part) == head + blake3.blake3(payload + head).digest(length=16) + payload
    assert (part.offset, part.plan.count, part.plan.transfer) == (128, -(-frame.nbytes // 64), frame.digest)


def test_one_part_again():
    frame = a_frame()
    parts = frame.parts(10_000)
    assert parts[2] == list(parts)[2]
    assert parts[2] != a_frame(seed=1).parts(10_000)[2]
    assert len({parts[0], parts[0], parts[1]}) == 2
    for index in (-1, len(parts)):
        with pytest.raises(IndexError):
            parts[index]


def test_a_part_needs_room():
    with pytest.raises(ConfigError, match="a header alone has 88"):
        a_frame().parts(HEADER)


def test_a_frame_without_digests_is_not_cut():
    with pytest.raises(EncodeError, match="'none'"):
        a_frame(checksum="none").parts(1000)
    assert len(Frame.build({"x": 1}, checksum="none").parts(1000)) == 1


def test_a_part_that_does_not_fit_its_plan_cannot_be_made():
    plan = a_frame().parts(10_000).plan
    with pytest.raises(DecodeError, match="part 1: 3 bytes instead of"):
        Part(plan, 1, (memoryview(b"abc"),))
    with pytest.raises(DecodeError, match="there are only"):
        Part(plan, plan.count, (memoryview(b"abc"),))
    for total, size in ((0, 0), (0, 1), (5, 0), (5, 6)):
        with pytest.raises(DecodeError, match="cannot be cut"):
            PartPlan(bytes(16), total, size)


def test_splitting_takes_no_memory():
    frame = Frame.build({}, [memoryview(bytearray(30 * MIB))])
    tracemalloc.start()
    try:
        for part in frame.parts(MIB):
            assert part.nbytes <= MIB
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


# ── assembling ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("order", [1, -1])
def test_any_order(order, tmp_path):
    frame = a_frame()
    transfer = add_all(PartAssembler(tmp_path), frame, order=order)
    assert transfer.complete
    assert transfer.missing() == []
    assert bytes(transfer.open()) == bytes(frame)


def test_compressed_frames_too(tmp_path):
    tensors = {"w": np.arange(100_000, dtype=np.float32)}
    frame = encode_tensors(tensors, "dense | fedwt | zstd(3)")
    opened = add_all(PartAssembler(tmp_path), frame).open()
    np.testing.assert_array_equal(decode_tensors(opened).arrays()["w"], tensors["w"])


def test_nothing_is_made_before_the_first_part(tmp_path):
    folder = tmp_path / "deep" / "spool"
    assembler = PartAssembler(folder)
    assert not folder.exists()
    assert assembler.find(bytes(16)) is None
    assert folder.stat().st_mode & 0o777 == 0o700


def test_missing_parts(tmp_path):
    frame = a_frame()
    count = len(wire(frame))
    transfer = add_all(PartAssembler(tmp_path), frame, skip={0, 3, 4, 5, count - 1})
    assert transfer.missing() == [range(1), range(3, 6), range(count - 1, count)]
    assert transfer.received == count - 5
    assert not transfer.complete
    with pytest.raises(TruncatedError, match="5 of 13 parts are missing"):
        transfer.open()


def test_duplicates_change_nothing(tmp_path):
    frame, assembler = a_frame(), PartAssembler(tmp_path)
    add_all(assembler, frame, skip={2})
    transfer = add_all(assembler, frame, skip={2})
    assert transfer.missing() == [range(2, 3)]
    assert bytes(add_all(assembler, frame).open()) == bytes(frame)


def test_resuming(tmp_path):
    frame = a_frame()
    with PartAssembler(tmp_path) as first:
        add_all(first, frame, skip={1, 7}, sender="a")
    with PartAssembler(tmp_path) as second:
        transfer = second.find(frame.digest, sender="a")
        assert transfer.missing() == [range(1, 2), range(7, 8)]
        assert second.find(frame.digest, sender="b") is None
        add_all(second, frame, skip=set(range(20)) - {1, 7}, sender="a")
        assert bytes(transfer.open()) == bytes(frame)
    (complete,) = PartAssembler(tmp_path).transfers()
    assert bytes(complete.open()) == bytes(frame)


def test_discarding(tmp_path):
    frame, assembler = a_frame(), PartAssembler(tmp_path)
    transfer = add_all(assembler, frame)
    opened = transfer.open(verify="lazy")
    transfer.discard()
    transfer.discard()
    assert bytes(opened) == bytes(frame)
    assert names(tmp_path) == ["lock"]
    assert assembler.transfers() == []
    with pytest.raises(LocalError, match="discarded"):
        transfer.missing()
    assert add_all(assembler, frame).complete


def test_senders_do_not_meet(tmp_path):
    frame, assembler = a_frame(), PartAssembler(tmp_path)
    add_all(assembler, frame, skip={0}, sender="../../a")
    add_all(assembler, frame, skip={1}, sender="\udc80/b")
    assert [t.missing() for t in assembler.transfers()] == [[range(1)], [range(1, 2)]]


def test_many_threads(tmp_path):
    frames, assembler = [a_frame(300_000, seed) for seed in range(4)], PartAssembler(tmp_path)
    parts = [data for frame in frames for data in wire(frame)] * 2
    np.random.default_rng(0).shuffle(parts)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda data: assembler.add(Part.decode(data)), parts))
    assert [bytes(assembler.find(frame.digest).open()) for frame in frames] == list(map(bytes, frames))


def test_discarding_while_parts_come(tmp_path):
    frame, assembler, stop = a_frame(), PartAssembler(tmp_path), threading.Event()

    def discard():
        while not stop.is_set():
            for transfer in assembler.transfers():
                transfer.discard()

    thread = threading.Thread(target=discard)
    thread.start()
    try:
        for _ in range(20):
            add_all(assembler, frame)
    finally:
        stop.set()
        thread.join()
    assert bytes(add_all(assembler, frame).open()) == bytes(frame)


def test_one_process_at_a_time(tmp_path):
    assembler = PartAssembler(tmp_path)
    assembler.transfers()
    code = "import sys, pathlib; from fedpost.frame import PartAssembler as A; A(pathlib.Path(sys.argv[1])).transfers()"
    command = [sys.executable, "-c", code, tmp_path]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "ConfigError" in refused.stderr
    assert "another process uses this folder" in refused.stderr
    assembler.close()
    subprocess.run(command, check=True)


# ── budgets ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("limits", "others"),
    [
        ({"sender_transfers": 2}, True),
        ({"sender_spool": 110_000}, True),
        ({"max_transfers": 2}, False),
        ({"max_spool": 110_000}, False),
    ],
)
def test_transfers_are_bounded(limits, others, tmp_path):
    assembler = PartAssembler(tmp_path, PartLimits(**limits))
    first, second, third = (a_frame(seed=seed).parts(10_000)[1] for seed in range(3))
    transfer = assembler.add(first)
    assembler.add(second)
    for _ in range(2):
        with pytest.raises(LimitError, match="Wait until one of them ends"):
            assembler.add(third)
    assert len(names(tmp_path)) == 5
    assembler.add(first)
    if others:
        assembler.add(third, sender="another")
    transfer.discard()
    assert assembler.add(third).received == 1


def test_abandoned_transfers_expire(tmp_path):
    assembler = PartAssembler(tmp_path, PartLimits(max_age=100, sender_transfers=2))
    old, new = (assembler.add(a_frame(seed=seed).parts(10_000)[1]) for seed in range(2))
    os.utime(old._spool.journal, (0, 0))
    third = assembler.add(a_frame(seed=2).parts(10_000)[1])
    assert assembler.transfers() == [new, third]
    assert assembler.expire() == 0
    new._spool.journal.unlink()
    assert assembler.expire() == 1
    assert assembler.expire(now=1e12) == 1
    assert names(tmp_path) == ["lock"]


def test_a_smaller_budget_after_a_restart(tmp_path):
    with PartAssembler(tmp_path) as assembler:
        add_all(assembler, a_frame())
    assert PartAssembler(tmp_path, PartLimits(max_part=1000)).transfers() == []
    assert names(tmp_path) == ["lock"]


# ── failures ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def failing(monkeypatch, target, name, number, at):
    """Let the call number ``at`` fail, having done half its work."""
    real, calls = getattr(target, name), iter(range(1000))

    def call(*args, **options):
        if next(calls) == at:
            if name == "write_buffers":
                os.write(args[0], next(iter(args[1]))[:7])
            raise OSError(number, os.strerror(number))
        return real(*args, **options)

    monkeypatch.setattr(target, name, call)


@pytest.mark.parametrize("at", [0, 1, 2, 3])
@pytest.mark.parametrize(("number", "hint"), [(errno.ENOSPC, "Make room"), (errno.EIO, "Discard")])
def test_a_failing_disk_loses_one_part(at, number, hint, tmp_path, monkeypatch):
    frame, assembler = a_frame(), PartAssembler(tmp_path)
    failing(monkeypatch, spool, "write_buffers", number, at)
    with pytest.raises(LocalError, match=hint):
        add_all(assembler, frame)
    transfer = assembler.find(frame.digest)
    assert transfer.received == at // 2
    assembler.close()
    with PartAssembler(tmp_path) as again:
        assert again.find(frame.digest).received == at // 2
    assert bytes(add_all(assembler, frame).open()) == bytes(frame)


@pytest.mark.parametrize(("target", "name"), [(os, "ftruncate"), (spool, "replace_file")])
def test_a_disk_that_is_full_from_the_start(target, name, tmp_path, monkeypatch):
    frame, assembler = a_frame(), PartAssembler(tmp_path)
    failing(monkeypatch, target, name, errno.ENOSPC, 0)
    with pytest.raises(LocalError, match="No space left on device"):
        add_all(assembler, frame)
    assert names(tmp_path) == ["lock"]
    assert bytes(add_all(assembler, frame).open()) == bytes(frame)


def test_a_file_size_limit(tmp_path):
    """A real error of the file system, in a process of its own."""
    code = """
import pathlib, resource, sys
from fedpost.errors import LocalError
from fedpost.frame import Frame, PartAssembler
frame = Frame.build({}, [memoryview(bytes(100_000))])
assembler = PartAssembler(pathlib.Path(sys.argv[1]))
parts = list(frame.parts(10_088))
transfer = assembler.add(parts[0])
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
for part in parts:
    try:
        assembler.add(part)
    except LocalError as error:
        assert "Make room" in str(error)
assert 0 < transfer.received < len(parts), transfer.missing()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
for part in parts:
    assembler.add(part)
assert bytes(transfer.open()) == bytes(frame)
"""
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True)


def test_an_unreadable_spool_at_the_start(tmp_path, monkeypatch):
    frame = a_frame()
    with PartAssembler(tmp_path) as assembler:
        add_all(assembler, frame)
    assembler = PartAssembler(tmp_path)
    with monkeypatch.context() as patch:
        failing(patch, os, "pread", errno.EIO, 0)
        with pytest.raises(LocalError, match="Input/output error"):
            assembler.transfers()
    assert assembler.find(frame.digest).complete


def flip(path, offset):
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def test_a_part_that_the_disk_damaged_is_asked_for_again(tmp_path):
    frame, assembler = a_frame(), PartAssembler(tmp_path)
    transfer = add_all(assembler, frame)
    flip(transfer._spool.data, 20_000)
    with pytest.raises(IntegrityError, match="1 of 13 parts were damaged on the disk"):
        transfer.open()
    assert transfer.missing() == [range(4, 5)]
    assert bytes(add_all(assembler, frame).open()) == bytes(frame)
    flip(transfer._spool.data, 20_000)
    assembler.close()
    assert PartAssembler(tmp_path).find(frame.digest).missing() == [range(4, 5)]


def test_torn_slots_do_not_count(tmp_path):
    frame = a_frame()
    with PartAssembler(tmp_path) as assembler:
        journal = add_all(assembler, frame)._spool.journal
    os.truncate(journal, 64 + 16 * 10 + 5)
    flip(journal, 64 + 16 * 3 + 2)
    assert PartAssembler(tmp_path).find(frame.digest).missing() == [range(3, 4), range(10, 13)]


def test_the_file_lost_its_end(tmp_path):
    """A power cut can keep the journal and lose the data."""
    frame = a_frame()
    with PartAssembler(tmp_path) as assembler:
        data = add_all(assembler, frame)._spool.data
    os.truncate(data, 5000)
    assembler = PartAssembler(tmp_path)
    assert assembler.find(frame.digest).missing() == [range(1, 13)]
    assert bytes(add_all(assembler, frame).open()) == bytes(frame)


@pytest.mark.parametrize("at", [*range(0, 64, 5), 63])
def test_a_damaged_journal_is_no_transfer(at, tmp_path):
    with PartAssembler(tmp_path) as assembler:
        flip(add_all(assembler, a_frame())._spool.journal, at)
    assert PartAssembler(tmp_path).transfers() == []
    assert names(tmp_path) == ["lock"]


def test_what_a_sudden_end_left_is_swept_up_and_nothing_else(tmp_path):
    frame = a_frame()
    with PartAssembler(tmp_path) as assembler:
        stem = add_all(assembler, frame)._spool.data.stem
    other = stem[:-1] + ("0" if stem[-1] != "0" else "1")
    kept = ["lock", f"{stem}.frame", f"{stem}.journal", "notes.txt", f"{other}.txt", ".hidden"]
    for name in (
        f"{other}.frame",
        f".{other}.journal.0123abcd",
        f".{stem}.journal.0123abcd",
        f".{stem[:40]}.0123abcd",
        *kept[3:],
    ):
        (tmp_path / name).touch()
    with PartAssembler(tmp_path) as assembler:
        assert len(assembler.transfers()) == 1
    assert names(tmp_path) == sorted(kept)
    (tmp_path / f"{stem}.journal").rename(tmp_path / f"{other}.journal")
    assert PartAssembler(tmp_path).transfers() == []


def test_what_a_sudden_end_leaves_of_a_journal_is_known_by_its_name(tmp_path):
    """Whatever the writing of files calls what is not finished, the spool finds it again."""
    with PartAssembler(tmp_path) as assembler:
        stem = add_all(assembler, a_frame())._spool.data.stem
        half = tmp_path / hidden_name(tmp_path / f"{stem}.journal")
    half.touch()
    with PartAssembler(tmp_path) as assembler:
        assert len(assembler.transfers()) == 1
    assert not half.exists()


# ── one assembler at a time ──────────────────────────────────────────────────────────────────────────────────────────


def locked_out(folder):
    """Whether another process is refused."""
    code = "import pathlib, sys; from fedpost.frame import *; PartAssembler(pathlib.Path(sys.argv[1])).transfers()"
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == ("ConfigError" not in done.stderr)
    return done.returncode != 0


def test_a_second_assembler_in_the_process_is_refused_and_takes_nothing_away(tmp_path):
    first, second = PartAssembler(tmp_path), PartAssembler(tmp_path)
    transfer = add_all(first, a_frame(), skip={1})
    for _ in range(2):
        with pytest.raises(ConfigError, match="another assembler of this process") as caught:
            second.transfers()
    assert caught.value.where == str(tmp_path)
    second.close()
    assert locked_out(tmp_path)  # a lock of the process would be gone with the second one's descriptor
    assert transfer.missing() == [range(1, 2)]
    first.close()
    assert len(second.transfers()) == 1
    second.close()
    assert not locked_out(tmp_path)


def test_a_folder_by_another_name_is_the_same_folder(tmp_path):
    (tmp_path / "spool").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "spool")
    with PartAssembler(tmp_path / "spool") as first:
        first.transfers()
        with pytest.raises(ConfigError):
            PartAssembler(tmp_path / "link").transfers()


def test_an_assembler_that_is_gone_holds_nothing(tmp_path):
    add_all(PartAssembler(tmp_path), a_frame())
    gc.collect()
    with PartAssembler(tmp_path) as assembler:
        assert len(assembler.transfers()) == 1


def test_a_forked_child_does_not_hold_what_its_parent_holds(tmp_path):
    with PartAssembler(tmp_path) as assembler:
        add_all(assembler, a_frame(), skip={1})
        child = os.fork()
        if not child:
            try:
                assembler.transfers()
            except ConfigError:
                os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert locked_out(tmp_path)
        assert len(assembler.transfers()) == 1
    assert not locked_out(tmp_path)


# ── what does not belong together ────────────────────────────────────────────────────────────────────────────────────


def test_parts_of_another_size(tmp_path):
    frame, assembler = a_frame(), PartAssembler(tmp_path)
    transfer = add_all(assembler, frame, skip={1})
    with pytest.raises(ProtocolError, match="Discard the transfer"):
        assembler.add(frame.parts(10_000)[1])
    assert transfer.missing() == [range(1, 2)]
    transfer.discard()
    assert assembler.add(frame.parts(10_000)[1]).received == 1


def test_other_content_for_the_same_part(tmp_path):
    frame, assembler = a_frame(), PartAssembler(tmp_path)
    parts = frame.parts(5000)
    assembler.add(parts[1])
    forged = Part(parts.plan, 1, (memoryview(bytes(parts.plan.size)),))
    with pytest.raises(ProtocolError, match="other content"):
        assembler.add(forged)
    assert bytes(add_all(assembler, frame, max_bytes=5000).open()) == bytes(frame)


def test_a_whole_that_is_not_the_frame(tmp_path):
    frame, assembler = a_frame(), PartAssembler(tmp_path)
    parts = frame.parts(5000)
    assembler.add(Part(parts.plan, 1, (memoryview(bytes(parts.plan.size)),)))
    for index in {*range(len(parts))} - {1}:
        transfer = assembler.add(parts[index])
    assert transfer.complete
    with pytest.raises(IntegrityError, match="segment 0"):
        transfer.open()
    assert transfer.complete


# ── sinks ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("at", [1, 5, 13])
def test_a_sink_sees_the_frame_in_order(order, at, tmp_path):
    frame, assembler, sink = a_frame(), PartAssembler(tmp_path), HashSink()
    for number, data in enumerate(wire(frame)[::order], 1):
        transfer = assembler.add(Part.decode(data))
        if number == at:
            transfer.attach(sink)
        if order == 1 and number >= at:
            assert sink.position == min(number * 4096, frame.nbytes)
    assert sink.position == frame.nbytes
    assert sink.hash.digest() == hashlib.sha256(bytes(frame)).digest()


def test_a_sink_gets_the_parts_own_memory(tmp_path):
    seen = []

    class Keep:
        def write(self, offset, data):
            seen.append(data)

    assembler, parts = PartAssembler(tmp_path), a_frame().parts(5000)
    assembler.add(parts[0]).attach(Keep())
    data = bytes(parts[1])
    assembler.add(Part.decode(data))
    assert np.shares_memory(np.frombuffer(seen[-1], np.uint8), np.frombuffer(data, np.uint8))


def test_a_sink_begins_again_after_a_restart(tmp_path):
    frame = a_frame()
    with PartAssembler(tmp_path) as assembler:
        add_all(assembler, frame, skip={6}).attach(HashSink())
    assembler, sink = PartAssembler(tmp_path), HashSink()
    assembler.find(frame.digest).attach(sink)
    assert sink.position == 6 * 4096
    add_all(assembler, frame)
    assert sink.hash.digest() == hashlib.sha256(bytes(frame)).digest()


def test_a_failing_sink_is_let_go(tmp_path):
    frame, assembler = a_frame(), PartAssembler(tmp_path)

    class Failing(HashSink):
        def write(self, offset, data):
            super().write(offset, data)
            if offset >= 8192:
                raise OSError(errno.ENOSPC, "the sink's own")

    sink = Failing()
    parts = wire(frame)
    assembler.add(Part.decode(parts[0])).attach(sink)
    assembler.add(Part.decode(parts[1]))
    with pytest.raises(OSError, match="the sink's own"):
        assembler.add(Part.decode(parts[2]))
    transfer = add_all(assembler, frame, skip={2})
    assert transfer.complete
    assert sink.position == 3 * 4096
    with pytest.raises(OSError, match="the sink's own"):
        transfer.attach(Failing())
    assert bytes(transfer.open()) == bytes(frame)


def test_a_sink_never_sees_what_the_disk_damaged(tmp_path):
    frame, assembler, sink = a_frame(), PartAssembler(tmp_path), HashSink()
    transfer = add_all(assembler, frame, skip={0})
    transfer.attach(sink)
    flip(transfer._spool.data, 20_000)
    assembler.add(frame.parts(HEADER + 4096)[0])
    assert sink.position == 4 * 4096
    assert transfer.missing() == [range(4, 5)]
    add_all(assembler, frame)
    assert sink.hash.digest() == hashlib.sha256(bytes(frame)).digest()


@pytest.mark.parametrize("max_bytes", [HEADER + 37, HEADER + 1000, HEADER + 4096, MIB])
def test_a_mean_straight_from_slices(max_bytes, tmp_path):
    rng, weights, total = np.random.default_rng(0), [0.5, 0.25, 0.25], {}
    sites = [{"a": rng.normal(size=(30, 50)).astype("f4"), "b": rng.normal(size=7).astype("f4")} for _ in weights]
    assembler = PartAssembler(tmp_path)
    for number, (tensors, weight) in enumerate(zip(sites, weights, strict=True)):
        order = rng.permutation(len(encode_tensors(tensors).parts(max_bytes)))
        sink = MeanSink(weight, total)
        for position, index in enumerate(order):
            transfer = assembler.add(encode_tensors(tensors).parts(max_bytes)[int(index)], sender=str(number))
            if not position:
                transfer.attach(sink)
        assert transfer.open(verify="eager")
    for name, found in total.items():
        mean = sum(site[name].astype("f8") * weight for site, weight in zip(sites, weights, strict=True))
        np.testing.assert_allclose(found, mean.ravel(), rtol=1e-12)


# ── memory ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_assembling_takes_the_memory_of_a_part(tmp_path):
    parts = wire(Frame.build({}, [memoryview(bytearray(20 * MIB))]), MIB)
    assembler = PartAssembler(tmp_path)
    assembler.transfers()
    tracemalloc.start()
    try:
        for data in parts[:0:-1]:
            transfer = assembler.add(Part.decode(data))
        transfer.attach(HashSink())
        before = tracemalloc.get_traced_memory()[1]
        transfer = assembler.add(Part.decode(parts[0]))  # the sink reads all the others from the disk
        assert before < 200_000
        assert tracemalloc.get_traced_memory()[1] < MIB + 200_000
        transfer.open()
        assert tracemalloc.get_traced_memory()[1] < MIB + 200_000
    finally:
        tracemalloc.stop()


def test_a_large_frame_in_little_memory(tmp_path):
    """300 MB into a process that may have 16 MB more than it has."""
    code = """
import pathlib, re, resource, struct, sys
from fedpost.frame import Part, PartAssembler
def have():
    return int(re.search(r"VmData:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) * 1024
buffer = memoryview(bytearray(1 << 20))
assembler = PartAssembler(pathlib.Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_DATA, (have() + (16 << 20),) * 2)
class Count:
    seen = 0
    def write(self, offset, data):
        assert offset == self.seen
        self.seen += data.nbytes
transfer, count = None, Count()
while head := sys.stdin.buffer.read(4):
    part = buffer[: struct.unpack("<I", head)[0]]
    sys.stdin.buffer.readinto(part)
    transfer = assembler.add(Part.decode(part))
    if transfer.received == 1:
        transfer.attach(count)
frame = transfer.open()
assert count.seen == frame.nbytes > 300_000_000
print(frame.digest.hex())
transfer.discard()
try:
    bytearray(64 << 20)
except MemoryError:
    print("bounded")
"""
    frame = Frame.build({}, [memoryview(np.arange(300_000_000 // 8, dtype=np.int64).view(np.uint8))])
    child = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    parts = frame.parts(MIB)
    # The second half first, so that the sink reads back from the disk as well.
    for index in (0, *range(len(parts) // 2, len(parts)), *range(1, len(parts) // 2)):
        child.stdin.write(struct.pack("<I", parts[index].nbytes))
        child.stdin.writelines(parts[index].buffers())
    output = child.communicate()[0].decode().split()
    assert child.returncode == 0
    assert output == [frame.digest.hex(), "bounded"]
