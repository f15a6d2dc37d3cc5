"""Frames: what is referenced and what is copied, what is checked when, and what errors say."""

from __future__ import annotations

import os
import pickle
import threading
import tracemalloc

import msgspec
import numpy as np
import pytest

from fedpost.compression import Compression
from fedpost.errors import DecodeError, EncodeError, IntegrityError, LimitError, RegistryError, TruncatedError
from fedpost.frame import Frame

MIB = 1 << 20


def array_of(buffer):
    return np.frombuffer(buffer, np.uint8)


def build(*segments, compression=None, checksum="blake3", **sections):
    packing = Compression.parse(compression) if compression else None
    return Frame.build(sections, list(map(memoryview, segments)), compression=packing, checksum=checksum)


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_segments_stand_at_multiples_of_64():
    segments = [b"a", b"", b"b" * 64, b"c" * 65, b"", b"d"]
    data = bytes(build(*segments, x=1))
    position = len(build(*segments, x=1)._head)
    for segment in segments:
        start = -(-position // 64) * 64
        assert not any(data[position:start])
        assert data[start : start + len(segment)] == segment
        position = start + len(segment)
    assert position == len(data)


def test_encoding_refers_to_the_segments_memory():
    data = bytearray(b"x" * 10_000)
    frame = build(data)
    views = [buffer for buffer in frame.buffers() if buffer.nbytes == 10_000]
    assert len(views) == 1
    assert np.shares_memory(array_of(views[0]), array_of(data))


def test_an_incompressible_chunk_refers_to_the_segments_memory():
    data = os.urandom(MIB) + bytes(MIB) + os.urandom(100)
    frame = build(data, compression="zstd")
    sizes = [buffer.nbytes for buffer in frame._stored[0]]
    assert sizes[0] == MIB
    assert sizes[1] < 100
    assert sizes[2] == 100
    assert np.shares_memory(array_of(frame._stored[0][0]), array_of(data))
    assert bytes(Frame.decode(bytes(frame)).segment(0)) == data


def test_compression_that_brings_nothing_leaves_no_trace():
    data = os.urandom(5000)
    assert bytes(build(data, b"", compression="zstd", x=1)) == bytes(build(data, b"", x=1))


def test_only_segments_that_shrink_are_compressed():
    frame = build(os.urandom(5000), bytes(5000), b"", compression="lz4")
    again = Frame.decode(bytes(frame))
    for one in (frame, again):
        assert [one.coding(index) for index in range(3)] == ["none", "lz4", "none"]
        assert one.stored_size(0) == 5000
        assert one.stored_size(1) < 100
        assert [one.raw_size(index) for index in range(3)] == [5000, 5000, 0]
        assert len(one) == 3


def test_write_to_gives_the_same_bytes(tmp_path):
    frame = build(b"abc", bytes(100_000), x="é", compression="zstd")
    with (tmp_path / "f").open("wb") as file:
        assert frame.write_to(file.fileno()) == frame.nbytes
    assert (tmp_path / "f").read_bytes() == bytes(frame)
    assert bytes(Frame.open(tmp_path / "f")) == bytes(frame)


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_building_and_writing_do_not_copy(compression, tmp_path):
    data = memoryview(os.urandom(32 * MIB))
    tracemalloc.start()
    frame = build(data, compression=compression)
    with (tmp_path / "f").open("wb") as file:
        frame.write_to(file.fileno())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # A compressor's output lives for a chunk at a time.
    assert peak < (4 * MIB if compression else MIB // 4)


def test_the_digest_stands_for_the_bytes():
    frame = build(b"abc", x=1)
    assert len(frame.digest) == 16
    assert frame.digest == Frame.decode(bytes(frame)).digest == bytes(frame)[24:40]
    assert frame.digest != build(b"abd", x=1).digest
    assert frame.digest != build(b"abc", x=2).digest


def test_unknown_checksum():
    with pytest.raises(RegistryError, match="unknown checksum 'md5'"):
        build(checksum="md5")


@pytest.mark.parametrize("value", [object(), {1: object()}, 2**64, -(2**63) - 1, "\ud800", lambda: 1])
def test_sections_that_cannot_be_packed(value):
    with pytest.raises(EncodeError, match="a header section cannot be encoded"):
        build(x=value)


def test_a_section_that_holds_itself():
    loop = []
    loop.append(loop)
    with pytest.raises(EncodeError):
        build(x=loop)


def test_a_section_that_is_there_already_is_refused():
    with pytest.raises(EncodeError):
        build(x=1).with_sections({"x": 2})


def test_a_section_whose_name_is_no_text_is_refused():
    with pytest.raises(EncodeError):
        Frame.build({1: 2})


def test_with_sections_shares_the_segments():
    data = bytearray(10_000)
    base = build(data, x=1)
    more = base.with_sections({"y": [2]})
    assert more.section_names == ("x", "y")
    assert base.section_names == ("x",)
    assert np.shares_memory(array_of(more.segment(0)), array_of(data))
    assert more.digest != base.digest
    assert more.with_sections({}).digest == more.digest


def test_with_sections_of_a_lazy_frame_does_not_trust_it():
    data = bytearray(bytes(build(b"abc" * 100)))
    data[-1] ^= 1
    lazy = Frame.decode(bytes(data), verify="lazy")
    more = lazy.with_sections({"y": 1})
    with pytest.raises(IntegrityError):
        more.segment(0)
    with pytest.raises(IntegrityError):
        Frame.decode(bytes(more))


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: np.frombuffer(data, np.uint8).data])
@pytest.mark.parametrize("verify", ["eager", "lazy", "never"])
def test_decoding_gives_read_only_views(kind, verify):
    data = kind(bytes(build(b"x" * 10_000, b"y" * 100)))
    frame = Frame.decode(data, verify=verify)
    for index, size in ((0, 10_000), (1, 100)):
        segment = frame.segment(index)
        assert segment.readonly
        assert segment.nbytes == size
        assert np.shares_memory(array_of(segment), array_of(data))
        assert np.shares_memory(array_of(frame.read(index, 5, 50)), array_of(data))


def test_decoding_does_not_copy():
    data = bytes(build(os.urandom(32 * MIB)))
    tracemalloc.start()
    frame = Frame.decode(data)
    segment = frame.segment(0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MIB // 4
    assert segment.nbytes == 32 * MIB


def test_a_range_decompresses_no_more_than_its_chunks():
    frame = Frame.decode(bytes(build(bytes(64 * MIB), compression="zstd")))
    tracemalloc.start()
    part = frame.read(0, 30 * MIB - 10, 30 * MIB + 10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert bytes(part) == bytes(20)
    assert part.readonly
    assert peak < 6 * MIB


def test_a_mapped_file_is_not_read(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(bytes(build(bytes(10_000), b"abc")))
    frame = Frame.open(path, verify="lazy")
    path.unlink()  # the map keeps it
    assert bytes(frame.segment(1)) == b"abc"
    assert frame.segment(0).readonly


def test_opening(tmp_path):
    (tmp_path / "empty").touch()
    with pytest.raises(TruncatedError) as caught:
        Frame.open(tmp_path / "empty")
    assert caught.value.where == str(tmp_path / "empty")
    with pytest.raises(FileNotFoundError):
        Frame.open(tmp_path / "none")


def test_each_segment_is_verified_once(monkeypatch):
    frame = Frame.decode(bytes(build(b"a", b"b")), verify="lazy")
    assert bytes(frame._unverified) == b"\1\1"
    frame.segment(1)
    assert bytes(frame._unverified) == b"\1\0"
    frame.verify()
    assert bytes(frame._unverified) == b"\0\0"
    frame.verify()


def test_errors_say_where_and_what_next():
    good = bytes(build(b"abc", b"x" * 100_000, compression="zstd"))
    with pytest.raises(TruncatedError) as cut:
        Frame.decode(good[:-1])
    assert cut.value.what == f"the frame ends at byte {len(good) - 1} of {len(good)}"
    assert cut.value.hint == "Ask for it again."
    with pytest.raises(DecodeError) as longer:
        Frame.decode(good + b"abc")
    assert (longer.value.what, longer.value.where) == ("3 bytes trail behind the last segment", f"byte {len(good)}")
    altered = bytearray(good)
    altered[-1] ^= 1
    with pytest.raises(IntegrityError) as wrong:
        Frame.decode(bytes(altered))
    assert str(wrong.value) == "segment 1: its blake3 digest does not match. Ask for the frame again."
    with pytest.raises(DecodeError) as damaged:
        Frame.decode(bytes(altered), verify="never").segment(1)
    assert damaged.value.where == "segment 1, chunk 0"


def test_sections():
    frame = Frame.decode(bytes(build(number=1, text="é", table=[[1, "a"]])))
    assert frame.section_names == ("number", "text", "table")
    assert frame.section("number", int) == 1
    assert frame.section("table", list[tuple[int, str]]) == [(1, "a")]

    class Row(msgspec.Struct, array_like=True):
        number: int
        text: str

    assert frame.section("table", list[Row]) == [Row(1, "a")]
    with pytest.raises(DecodeError) as unknown:
        frame.section("nothing", int)
    assert str(unknown.value) == "the frame has no section 'nothing'. It has ('number', 'text', 'table')."
    with pytest.raises(DecodeError, match="section 'text': Expected `int`, got `str`"):
        frame.section("text", int)
    with pytest.raises(LimitError, match="section 'text': 3 bytes, 2 allowed"):
        frame.section("text", str, limit=2)
    assert frame.section("text", str, limit=3) == "é"


def test_properties():
    frame = build(b"abc", checksum="sha256")
    assert (frame.checksum, frame.minor, len(frame)) == ("sha256", 0, 1)
    assert Frame.decode(bytes(frame)).checksum == "sha256"


def test_threads_read_one_frame():
    data = np.arange(2 * MIB, dtype=np.uint32).tobytes()
    frame = Frame.decode(bytes(build(data, compression="zstd(1)")), verify="lazy")
    wrong = []

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(30):
            start, stop = sorted(map(int, rng.integers(0, len(data), 2)))
            if bytes(frame.read(0, start, stop)) != data[start:stop]:
                wrong.append((start, stop))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_errors_cross_processes():
    error = IntegrityError("what", where="where", hint="hint")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert (type(again), again.what, again.where, again.hint) == (IntegrityError, "what", "where", "hint")
