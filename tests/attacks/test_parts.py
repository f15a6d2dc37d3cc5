"""Parts that lie. Whoever writes them knows the specification: where a digest would give it away, it is right."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
import tracemalloc

import blake3
import pytest

from fedpost.errors import (
    DecodeError,
    IntegrityError,
    LimitError,
    LocalError,
    ProtocolError,
    TruncatedError,
    UnsupportedError,
)
from fedpost.frame import Frame, Limits, Part, PartAssembler, PartLimits

HEAD = struct.Struct("<8sHHI16s5Q")
MAGIC = b"\x89FPP\r\n\x1a\n"
U64 = 2**64 - 1


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def a_frame(seed=0, size=1500):
    return Frame.build({}, [memoryview(random.Random(seed).randbytes(size))])


def forge(payload=b"x" * 100, *, length=None, digest=None, **fields):
    """A part with a right digest, of whatever is claimed; by default the second of three, of 250 bytes in all."""
    claim = {"magic": MAGIC, "version": 1, "flags": 0, "reserved": 0, "transfer": b"t" * 16}
    claim |= {"index": 1, "count": 3, "total": 250, "offset": 100} | fields
    head = HEAD.pack(*claim.values(), len(payload) if length is None else length)
    return head + (digest or blake3.blake3(payload + head).digest(length=16)) + payload


def test_the_pen_writes_what_is_read():
    part = Part.decode(forge())
    assert (part.index, part.plan.count, part.plan.size, bytes(part)) == (1, 3, 100, forge())


LIES = {
    "another magic": (forge(magic=b"\x89FPF\r\n\x1a\n"), DecodeError),
    "another version": (forge(version=2), UnsupportedError),
    "version 0": (forge(version=0), UnsupportedError),
    "version 257": (forge(version=257), UnsupportedError),
    "flags": (forge(flags=1), UnsupportedError),
    "reserved bytes": (forge(reserved=1 << 31), UnsupportedError),
    "index past the end": (forge(index=3), DecodeError),
    "index far past the end": (forge(index=U64), DecodeError),
    "index past the end where it would lie": (forge(index=3, offset=300), DecodeError),
    "count too small": (forge(count=2), DecodeError),
    "count too large": (forge(count=4), DecodeError),
    "no parts": (forge(count=0), DecodeError),
    "no parts, the first": (forge(count=0, index=0, offset=0), DecodeError),
    "total too small": (forge(total=200), DecodeError),
    "total too large": (forge(total=301), DecodeError),
    "no bytes in all": (forge(total=0), DecodeError),
    "no bytes at all": (forge(b"", total=0, index=0, count=1, offset=0), DecodeError),
    "no bytes, no parts": (forge(b"", total=0, index=0, count=0, offset=0), DecodeError),
    "no bytes here": (forge(b""), DecodeError),
    "a byte later": (forge(offset=101), DecodeError),
    "a byte earlier": (forge(offset=99), DecodeError),
    "at the start": (forge(offset=0), DecodeError),
    "before it begins": (forge(offset=U64 - 99), DecodeError),
    "past the end": (forge(offset=250), DecodeError),
    "the first one elsewhere": (forge(index=0, offset=100), DecodeError),
    "the last one too long": (forge(index=2, offset=200), DecodeError),
    "the last one too short": (forge(b"x" * 49, index=2, offset=200), DecodeError),
    "the middle one too short": (forge(b"x" * 99), DecodeError),
    "the middle one too long": (forge(b"x" * 101), DecodeError),
    "the only one too short": (forge(index=0, count=1, offset=0), DecodeError),
    "the only one too long": (forge(index=0, count=1, offset=0, total=99), DecodeError),
    "count times size wraps": (forge(index=2**58, count=2**58 + 1, offset=2**64 - 2**58, total=U64), DecodeError),
    "everything is largest": (forge(index=U64, count=U64, offset=U64, total=U64), DecodeError),
    "length past the end": (forge(length=101), TruncatedError),
    "length far past the end": (forge(length=U64), TruncatedError),
    "bytes behind": (forge(length=99), DecodeError),
    "a terabyte": (forge(total=1 << 40, count=-(-(1 << 40) // 100)), LimitError),
    "a terabyte of two parts": (forge(index=1, count=2, offset=(1 << 40) - 100, total=1 << 40), LimitError),
    "a million parts": (forge(b"x", index=1, count=1 << 20, offset=1, total=1 << 20), LimitError),
    "another part too large to keep": (forge(index=1, count=2, offset=1 << 27, total=(1 << 27) + 100), LimitError),
    "another digest": (forge(digest=bytes(16)), IntegrityError),
    "a first part without a frame": (forge(index=0, offset=0), DecodeError),
    "a first part of another frame": (forge(bytes(a_frame())[:100], index=0, offset=0), DecodeError),
    "nothing": (b"", TruncatedError),
    "a frame": (bytes(a_frame()), DecodeError),
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_are_refused(lie):
    data, error = LIES[lie]
    with pytest.raises(error) as caught:
        Part.decode(data)
    assert type(caught.value) is error


def test_large_numbers_allocate_nothing(tmp_path):
    lies = [data for data, _ in LIES.values()]
    assembler = PartAssembler(tmp_path)
    assembler.transfers()
    tracemalloc.start()
    try:
        for data in lies:
            with pytest.raises(DecodeError):
                assembler.add(Part.decode(data))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert names(tmp_path) == ["lock"]


def test_what_is_admitted_is_small(tmp_path):
    """The largest frame that is admitted with the most parts costs a byte for each part, and no disk."""
    size = (1 << 34) >> 18
    data = forge(bytes(size), index=1, count=1 << 18, offset=size, total=1 << 34)
    tracemalloc.start()
    try:
        transfer = PartAssembler(tmp_path).add(Part.decode(data))
        assert len(transfer.missing()) == 2
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert sum(path.stat().st_blocks for path in tmp_path.iterdir()) * 512 < 1 << 20


def test_a_terabyte_in_a_process_of_little_memory(tmp_path):
    """With budgets that allow it: what a lie costs is bounded by the number of parts alone."""
    code = """
import dataclasses, pathlib, re, resource, sys
from fedpost.frame import Limits, Part, PartAssembler, PartLimits
data = sys.stdin.buffer.read()
have = int(re.search(r"VmData:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (have + (8 << 20),) * 2)
limits = PartLimits(frame=Limits(max_frame=1 << 41), sender_spool=1 << 41, max_spool=1 << 41)
print(PartAssembler(pathlib.Path(sys.argv[1]), limits).add(Part.decode(data, limits)).missing())
"""
    size = 1 << 22
    data = forge(bytes(size), index=2, count=1 << 18, offset=2 * size, total=1 << 40)
    done = subprocess.run([sys.executable, "-c", code, tmp_path], input=data, capture_output=True, check=True)
    assert done.stdout.strip() == b"[range(0, 2), range(3, 262144)]"


@pytest.mark.parametrize("index", [0, 1, 2])
def test_every_flipped_bit_is_seen(index, tmp_path):
    part = bytes(a_frame(size=300).parts(88 + 192)[index])
    assembler = PartAssembler(tmp_path)
    for position in range(len(part)):
        for bit in range(8):
            data = bytearray(part)
            data[position] ^= 1 << bit
            with pytest.raises(DecodeError):
                assembler.add(Part.decode(data))
    assert not tmp_path.joinpath("lock").exists()


def test_every_cut_is_seen():
    part = bytes(a_frame().parts(400)[1])
    for length in range(len(part)):
        with pytest.raises(TruncatedError):
            Part.decode(part[:length])
    with pytest.raises(DecodeError, match="trail"):
        Part.decode(part + b"\0")


def test_budgets_are_the_receivers():
    frame = a_frame(size=5000)
    data = bytes(frame.parts(2000)[1])
    for limits in (
        PartLimits(frame=Limits(max_frame=5000)),
        PartLimits(max_part=1900),
        PartLimits(max_parts=2),
    ):
        with pytest.raises(LimitError):
            Part.decode(data, limits)
        last = frame.parts(2000)[len(frame.parts(2000)) - 1]
        with pytest.raises(LimitError):
            Part.decode(bytes(last), limits)


def test_an_assembler_has_the_last_word_on_its_budget(tmp_path):
    part = Part.decode(bytes(a_frame().parts(400)[1]))
    with pytest.raises(LimitError):
        PartAssembler(tmp_path, PartLimits(frame=Limits(max_frame=1000))).add(part)
    assert names(tmp_path) in ([], ["lock"])


OTHERS = {
    "another total": {"total": 251},
    "another part size": {"offset": 90, "payload": b"x" * 90, "total": 250},
    "another count": {"total": 350, "count": 4},
}


@pytest.mark.parametrize("other", OTHERS)
def test_parts_that_do_not_belong_together(other, tmp_path):
    assembler = PartAssembler(tmp_path)
    transfer = assembler.add(Part.decode(forge(b"y" * 50, index=2, offset=200)))
    (spooled,) = tmp_path.glob("*.frame")
    before = spooled.read_bytes()
    with pytest.raises(ProtocolError, match="part 1"):
        assembler.add(Part.decode(forge(**OTHERS[other])))
    assert spooled.read_bytes() == before
    assert transfer.missing() == [range(2)]


def test_parts_of_two_frames_under_one_name(tmp_path):
    """Relabelled, with right digests: the frame's own digests tell at the end, and nothing is handed out."""
    frame, other = a_frame(0), a_frame(1)
    stolen = bytes(other.parts(400)[1])
    plan = frame.parts(400).plan
    fields = {"transfer": frame.digest, "count": plan.count, "total": plan.total, "offset": plan.size}
    assembler = PartAssembler(tmp_path)
    assembler.add(Part.decode(forge(stolen[88:], **fields)))
    with pytest.raises(ProtocolError, match="other content"):
        assembler.add(frame.parts(400)[1])
    for part in frame.parts(400):
        if part.index != 1:
            transfer = assembler.add(part)
    with pytest.raises(IntegrityError):
        transfer.open()
    transfer.discard()
    for part in frame.parts(400):
        transfer = assembler.add(part)
    assert bytes(transfer.open()) == bytes(frame)


def test_a_frame_under_another_name(tmp_path):
    """With parts too small for the digest in the prologue to be compared at once."""
    frame, assembler = a_frame(), PartAssembler(tmp_path)
    for part in frame.parts(88 + 20):
        fields = {"index": part.index, "count": part.plan.count, "total": part.plan.total, "offset": part.offset}
        transfer = assembler.add(Part.decode(forge(b"".join(part.payload), **fields)))
    assert transfer.complete
    with pytest.raises(IntegrityError, match="not the one that the parts name"):
        transfer.open()


def test_a_frame_without_digests(tmp_path):
    frame = Frame.build({}, [memoryview(b"a" * 500)], checksum="none")
    data = bytes(frame)
    part = forge(data, transfer=frame.digest, index=0, count=1, total=len(data), offset=0)
    with pytest.raises(IntegrityError):
        PartAssembler(tmp_path).add(Part.decode(part)).open()


def test_no_frame_at_all(tmp_path):
    data = b"\0" * 30
    part = forge(data, index=0, count=1, total=len(data), offset=0)
    with pytest.raises(DecodeError):
        PartAssembler(tmp_path).add(Part.decode(part)).open()


@pytest.mark.parametrize("sender", ["../../etc/passwd", "/etc/passwd", "a\0b", "\udcff", "x" * 100_000, "", ".", "CON"])
@pytest.mark.parametrize("transfer", [b"../../../../etc/", b"\0" * 16, b"/" * 16, b"\xff" * 16])
def test_no_name_leads_out_of_the_folder(sender, transfer, tmp_path):
    folder = tmp_path / "spool"
    assembler = PartAssembler(folder)
    assert assembler.add(Part.decode(forge(transfer=transfer)), sender=sender).received == 1
    assert names(tmp_path) == ["spool"]
    found = names(folder)
    assert len(found) == 3
    assert all(set(name.split(".")[0]) <= set("0123456789abcdef-") for name in found if name != "lock")
    assert assembler.find(transfer, sender=sender)


def test_a_link_in_the_spools_place_is_not_followed(tmp_path):
    (tmp_path / "spool").mkdir()
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    part = Part.decode(forge())
    with PartAssembler(tmp_path / "spool") as assembler:
        path = assembler.add(part)._spool.data
        assembler.transfers()[0].discard()
        path.symlink_to(victim)
        with pytest.raises(LocalError):
            assembler.add(part)
    assert victim.read_bytes() == b"precious"
    assert PartAssembler(tmp_path / "spool").add(part).received == 1
    assert victim.read_bytes() == b"precious"


def test_one_sender_cannot_take_the_place_of_others(tmp_path):
    assembler = PartAssembler(tmp_path, PartLimits(sender_transfers=3, max_transfers=10))
    for number in range(3):
        assembler.add(Part.decode(forge(transfer=bytes([number]) * 16)), sender="greedy")
    for number in range(3, 20):
        with pytest.raises(LimitError):
            assembler.add(Part.decode(forge(transfer=bytes([number]) * 16)), sender="greedy")
    assert assembler.add(Part.decode(forge()), sender="modest").received == 1
    assert len(assembler.transfers()) == 4
