"""Laws of frames: what goes in comes out, whatever is cut out of it is a part of it, and damage is always told."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpost.checksums import CHECKSUMS
from fedpost.compression import COMPRESSORS, Compression
from fedpost.errors import RemoteError
from fedpost.frame import Frame

KIB = 1 << 10
CHUNK = 1 << 20

packed = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
sections_of = st.dictionaries(st.text(max_size=10), packed, max_size=5)
compressions = st.none() | st.sampled_from([Compression.parse(name) for name in COMPRESSORS])
checksums = st.sampled_from(list(CHECKSUMS))


@st.composite
def contents(draw, largest=5 * KIB):
    """Bytes that compress well, badly or not at all."""
    size = draw(st.integers(0, largest))
    seed = draw(st.integers(0, 2**32))
    noise = random.Random(seed).randbytes(draw(st.integers(0, size)))
    return bytes(size - len(noise)) + noise if draw(st.booleans()) else noise + b"a" * (size - len(noise))


@given(sections_of, st.lists(contents(), max_size=6), checksums, compressions)
def test_round_trip(sections, segments, checksum, compression):
    frame = Frame.build(sections, list(map(memoryview, segments)), checksum=checksum, compression=compression)
    joined = bytes(frame)
    assert joined == b"".join(frame.buffers())
    assert len(joined) == frame.nbytes
    again = Frame.decode(joined)
    assert bytes(again) == joined
    assert again.digest == frame.digest
    for one in (frame, again):
        assert [bytes(one.segment(index)) for index in range(len(one))] == segments
        assert [one.raw_size(index) for index in range(len(one))] == list(map(len, segments))
        assert one.section_names == tuple(sections)
        assert {name: one.section(name, object) for name in sections} == sections
    assert all(again.stored_size(index) <= again.raw_size(index) for index in range(len(again)))


@given(
    st.lists(contents(), max_size=4),
    sections_of,
    sections_of,
    compressions,
    st.sampled_from(["eager", "lazy", "never"]),
)
def test_further_sections_keep_the_segments(segments, first, second, compression, verify):
    second = {name: value for name, value in second.items() if name not in first}
    frame = Frame.build(first, list(map(memoryview, segments)), compression=compression)
    for base in (frame, Frame.decode(bytes(frame), verify=verify)):
        again = Frame.decode(bytes(base.with_sections(second)))
        assert again.section_names == (*first, *second)
        assert {name: again.section(name, object) for name in again.section_names} == first | second
        assert [bytes(again.segment(index)) for index in range(len(again))] == segments
        # The frame that it came of is as it was.
        assert bytes(base) == bytes(frame)


SHAPE = [3 * CHUNK + 12_345, CHUNK, 2 * CHUNK, 1, 100, 0]
LARGE = [random.Random(size).randbytes(size // 3) + bytes(size - size // 3) for size in SHAPE]


@pytest.fixture(scope="module", params=["none", *COMPRESSORS])
def large(request):
    frame = Frame.build({}, list(map(memoryview, LARGE)), compression=Compression.parse(request.param))
    return [frame, Frame.decode(bytes(frame)), Frame.decode(bytes(frame), verify="lazy")]


near = st.builds(lambda chunk, offset: max(chunk * CHUNK + offset, 0), st.integers(0, 4), st.integers(-3, 3))


@given(st.integers(0, len(LARGE) - 1), near | st.integers(0, 4 * CHUNK), near | st.integers(0, 4 * CHUNK))
def test_a_range_is_a_slice_of_the_whole(large, index, one, other):
    start, stop = sorted(min(value, len(LARGE[index])) for value in (one, other))
    for frame in large:
        assert bytes(frame.read(index, start, stop)) == LARGE[index][start:stop]


@given(st.binary(max_size=200))
def test_any_bytes_are_no_frame(data):
    for head in (b"", b"\x89FPF\r\n\x1a\n", b"\x89FPF\r\n\x1a\n\x01\x00\x00\x00\x00\x00\x00\x00"):
        with pytest.raises(RemoteError):
            Frame.decode(head + data)
