"""Laws of parts: any size, order, repetition and end of the process give the frame, or say what is missing."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fedpost.errors import IntegrityError, TruncatedError
from fedpost.frame import Frame, Part, PartAssembler, PartLimits

HEADER = 88
SMALL = PartLimits(max_parts=1 << 12)


def make(sizes, seed=0):
    rng = random.Random(seed)
    return Frame.build({"seed": seed}, [memoryview(rng.randbytes(size)) for size in sizes])


frames = st.builds(make, st.lists(st.integers(0, 2000), max_size=4), st.integers(0, 9))
part_sizes = st.integers(HEADER + 1, HEADER + 3000) | st.sampled_from([HEADER + 1, HEADER + 64, 1 << 20])


class Joined:
    """A sink that knows what it must get."""

    def __init__(self):
        self.data = bytearray()

    def write(self, offset, data):
        assert offset == len(self.data)
        assert data.readonly
        assert data.nbytes
        self.data += data


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def indices(transfer):
    return [index for run in transfer.missing() for index in run]


@given(frames, part_sizes)
def test_parts_are_the_frame(frame, max_bytes):
    parts = frame.parts(max_bytes)
    wire = list(map(bytes, parts))
    assert all(HEADER < len(data) <= max_bytes for data in wire)
    assert b"".join(data[HEADER:] for data in wire) == bytes(frame)
    assert [Part.decode(data) for data in wire] == [parts[index] for index in range(len(parts))]


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(frames, part_sizes, st.randoms(use_true_random=False), st.data())
def test_any_order_with_duplicates_losses_and_restarts(frame, max_bytes, rng, data):
    wire = list(map(bytes, frame.parts(max_bytes)))
    first = [index for index in range(len(wire)) if rng.random() < 0.6] or [0]
    first += rng.choices(first, k=len(first) // 3)
    rng.shuffle(first)
    with tempfile.TemporaryDirectory() as folder:
        with PartAssembler(Path(folder), SMALL) as assembler:
            for index in first:
                transfer = assembler.add(Part.decode(wire[index]))
            assert indices(transfer) == sorted({*range(len(wire))} - {*first})
        with PartAssembler(Path(folder), SMALL) as assembler:
            transfer, sink = assembler.find(frame.digest), Joined()
            rest = indices(transfer)
            assert rest == sorted({*range(len(wire))} - {*first})
            rng.shuffle(rest)
            attach_at = data.draw(st.integers(0, len(rest)))
            for number, index in enumerate(rest):
                if number == attach_at:
                    transfer.attach(sink)
                assembler.add(Part.decode(wire[index]))
            if attach_at == len(rest):
                transfer.attach(sink)
            assert sink.data == bytes(frame)
            assert bytes(transfer.open()) == bytes(frame)


class Assembling(RuleBasedStateMachine):
    """An assembler beside what it must know: which parts are there."""

    @initialize(frame=frames, size=st.integers(200, 700))
    def begin(self, frame, size):
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name)
        self.frame = frame
        self.wire = list(map(bytes, frame.parts(HEADER + size)))
        self.size = frame.parts(HEADER + size).plan.size
        self.there = set()
        self.damaged = set()
        self.assembler = PartAssembler(self.path)
        self.sink = None
        self.begun = False

    @rule(data=st.data())
    def add(self, data):
        index = data.draw(st.integers(0, len(self.wire) - 1))
        self.assembler.add(Part.decode(self.wire[index]))
        self.begun = True
        if index not in self.there:
            self.damaged.discard(index)
        self.there.add(index)
        if self.sink:
            self.feed()

    @precondition(lambda self: self.begun)
    @rule()
    def attach(self):
        self.sink = Joined()
        self.assembler.find(self.frame.digest).attach(self.sink)
        self.feed(0)

    def feed(self, position=None):
        """What the sink reads back is checked, so it finds the first damaged part."""
        start = len(self.sink.data)
        assert bytes(self.frame).startswith(self.sink.data)
        index = start // self.size
        if start < self.frame.nbytes and index in self.there:
            assert index in self.damaged
            self.there.discard(index)

    @precondition(lambda self: self.begun)
    @rule()
    def restart(self):
        self.assembler.close()
        self.assembler = PartAssembler(self.path)
        self.sink = None
        self.there -= self.damaged

    @precondition(lambda self: self.begun)
    @rule(data=st.data())
    def damage(self, data):
        """Only what no sink has had yet is read again."""
        index = data.draw(st.integers(0, len(self.wire) - 1))
        if index in self.there and index not in self.damaged:
            (path,) = self.path.glob("*.frame")
            with path.open("r+b") as file:
                file.seek(index * self.size)
                byte = file.read(1)[0]
                file.seek(index * self.size)
                file.write(bytes([byte ^ 0x55]))
            self.damaged.add(index)

    @precondition(lambda self: self.begun)
    @rule(data=st.data())
    def tear(self, data):
        """A slot of the journal is lost, as a power cut may do; it shows at the restart."""
        index = data.draw(st.integers(0, len(self.wire) - 1))
        if index in self.there:
            (path,) = self.path.glob("*.journal")
            with path.open("r+b") as file:
                file.seek(64 + 16 * index)
                file.write(bytes(data.draw(st.integers(1, 16))))
            self.there.discard(index)
            self.restart()

    @precondition(lambda self: self.begun)
    @rule()
    def open(self):
        transfer = self.assembler.find(self.frame.digest)
        if len(self.there) < len(self.wire):
            with pytest.raises(TruncatedError):
                transfer.open()
        elif self.damaged:
            with pytest.raises(IntegrityError):
                transfer.open()
            self.there -= self.damaged
        else:
            assert bytes(transfer.open()) == bytes(self.frame)

    @precondition(lambda self: self.begun)
    @rule()
    def discard(self):
        self.assembler.find(self.frame.digest).discard()
        assert names(self.path) == ["lock"]
        self.there, self.damaged, self.sink, self.begun = set(), set(), None, False

    @invariant()
    def knows_what_is_missing(self):
        if getattr(self, "begun", False):
            transfer = self.assembler.find(self.frame.digest)
            assert indices(transfer) == sorted({*range(len(self.wire))} - self.there)
            assert transfer.complete == (len(self.there) == len(self.wire))

    def teardown(self):
        if hasattr(self, "assembler"):
            self.assembler.close()
            self.folder.cleanup()


TestAssembling = Assembling.TestCase
TestAssembling.settings = settings(stateful_step_count=30)


# ── being killed ─────────────────────────────────────────────────────────────────────────────────────────────────────

CALLS = ("open", "writev", "ftruncate", "rename", "replace", "lseek", "close", "unlink", "mkdir", "pread")


def killed_after(calls, work):
    """Fork, do the work, and kill the child with SIGKILL right before its system call number ``calls``; was it?"""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of threads, and none is used here
        child = os.fork()
    if not child:
        count = iter(range(calls))
        for name in CALLS:
            real = getattr(os, name)

            def counted(*args, real=real, **options):
                if next(count, None) is None:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **options)

            setattr(os, name, counted)
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code != 0


def test_killed_before_any_system_call(tmp_path):
    frame = make([1500, 10])
    wire = [bytes(part) for part in frame.parts(HEADER + 640)]
    order = [1, 0, 2, 1]
    assert len(wire) == 3
    seen, calls = set(), 0
    while True:
        folder = tmp_path / str(calls)

        def work(folder=folder):
            assembler = PartAssembler(folder)
            for index in order:
                assembler.add(Part.decode(wire[index]))

        if not killed_after(calls, work):
            break
        assembler = PartAssembler(folder)
        transfer = assembler.find(frame.digest)
        there = frozenset() if transfer is None else frozenset({0, 1, 2} - {*indices(transfer)})
        assert there in ({*()}, {1}, {0, 1}, {0, 1, 2})
        seen.add(there)
        for data in wire:
            transfer = assembler.add(Part.decode(data))
        assert bytes(transfer.open()) == bytes(frame)
        transfer.discard()
        assert names(folder) == ["lock"]
        calls += 1
    assert calls > 30
    assert len(seen) == 4


def test_killed_while_discarding_and_while_resuming(tmp_path):
    frame = make([1500])
    wire = [bytes(part) for part in frame.parts(HEADER + 640)]
    calls, killed = 0, True
    while killed:
        folder = tmp_path / str(calls)
        with PartAssembler(folder) as assembler:
            for data in wire[1:]:
                assembler.add(Part.decode(data))
        (folder / ".{0}-{0}.journal.01234567".format("ab" * 16)).touch()

        def work(folder=folder):
            assembler = PartAssembler(folder)
            assembler.find(frame.digest).missing()
            assembler.find(frame.digest).discard()

        killed = killed_after(calls, work)
        assembler = PartAssembler(folder)
        transfer = assembler.find(frame.digest)
        assert transfer is None or transfer.missing() == [range(1)]
        for data in wire:
            transfer = assembler.add(Part.decode(data))
        assert bytes(transfer.open()) == bytes(frame)
        calls += 1
    assert calls > 10


def test_a_process_killed_between_write_and_journal(tmp_path):
    """The same with a process of its own, which dies with the bytes of part 2 on the disk and no word of them."""
    frame = make([100_000], seed=3)
    wire = b"".join(bytes(part) for part in frame.parts(HEADER + 4096))
    code = """
import os, pathlib, signal, sys
from fedpost.frame import Part, PartAssembler, spool
real = spool._write_at
def write_at(path, offset, buffers):
    if path.suffix == ".journal" and offset == 64 + 16 * 2:
        os.kill(os.getpid(), signal.SIGKILL)
    real(path, offset, buffers)
spool._write_at = write_at
assembler = PartAssembler(pathlib.Path(sys.argv[1]))
while data := sys.stdin.buffer.read(88 + 4096):
    assembler.add(Part.decode(data))
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path], input=wire, check=False)
    assert done.returncode == -signal.SIGKILL
    (spooled,) = tmp_path.glob("*.frame")
    assert spooled.read_bytes()[: 3 * 4096] == bytes(frame)[: 3 * 4096]
    assembler, sink = PartAssembler(tmp_path), Joined()
    transfer = assembler.find(frame.digest)
    parts = frame.parts(HEADER + 4096)
    assert transfer.missing() == [range(2, len(parts))]
    transfer.attach(sink)
    for index in range(2, len(parts)):
        assembler.add(parts[index])
    assert hashlib.sha256(sink.data).digest() == hashlib.sha256(bytes(frame)).digest()
    assert bytes(transfer.open()) == bytes(frame)
