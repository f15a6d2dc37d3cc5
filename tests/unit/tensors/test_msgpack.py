"""The format ``msgpack``: by hand, and as another MessagePack library sees it."""

from __future__ import annotations

import msgpack
import numpy as np
import pytest

from fedpost.errors import DecodeError, EncodeError, LimitError, UnsupportedError
from fedpost.frame import DEFAULT_LIMITS, Frame, Limits
from fedpost.tensors import FORMATS, MsgPack
from fedpost.tensors.msgpack import from_bytes, to_bytes
from fedpost.testing.samples import assert_same_tensors

BY_HAND = (
    b"\x86\xaffedpost_msgpack\x01\xa8metadata\x80\xa5names\x91\xa1w\xa6dtypes\x91\xa7float32"
    b"\xa6shapes\x91\x92\x01\x02\xa4data\x91\xc4\x08\0\0\x80\x3f\0\0\x20\xc0"
)
TENSORS = {"w": np.array([[1, -2.5]], "<f4")}


def written(tensors, metadata=None):
    return b"".join(to_bytes(tensors, metadata))


def test_it_is_registered():
    assert isinstance(FORMATS.get("msgpack"), MsgPack)


def test_bytes_written_by_hand():
    assert written(TENSORS) == BY_HAND
    assert_same_tensors(from_bytes(BY_HAND)[0], TENSORS)


def test_another_library_reads_and_writes_it():
    tensors = {"w": np.arange(6.0).reshape(2, 3), ">": np.ones(2, ">i2"), "none": np.ones((0, 2))}
    seen = msgpack.unpackb(written(tensors, {"round": 3}))
    assert seen["metadata"] == {"round": 3}
    assert seen["dtypes"] == ["float64", ">int16", "float64"]
    assert seen["shapes"] == [[2, 3], [2], [0, 2]]
    assert seen["data"][0] == tensors["w"].tobytes()
    arrays, metadata = from_bytes(msgpack.packb(dict(reversed(seen.items()))))
    assert_same_tensors(arrays, tensors)
    assert metadata == {"round": 3}


def test_decoding_copies_nothing():
    data = np.frombuffer(written({"w": np.ones((100, 100))}), np.uint8)
    array = from_bytes(data.data)[0]["w"]
    assert np.may_share_memory(array, data)
    assert not array.flags.writeable


def test_a_writable_buffer_gives_read_only_arrays():
    assert not from_bytes(bytearray(BY_HAND))[0]["w"].flags.writeable


@pytest.mark.parametrize("metadata", [{"x": object()}, {"x": 2**70}])
def test_metadata_that_is_no_messagepack_is_refused(metadata):
    with pytest.raises(EncodeError):
        to_bytes(TENSORS, metadata)


def test_another_version_is_refused():
    with pytest.raises(UnsupportedError, match="version 2"):
        from_bytes(BY_HAND.replace(b"msgpack\x01", b"msgpack\x02"))


def test_budgets():
    for limits in (Limits(max_tensors=0), Limits(max_frame=10)):
        with pytest.raises(LimitError):
            from_bytes(BY_HAND, limits=limits)


def test_sections_and_segments_that_do_not_fit_are_refused():
    view = memoryview(BY_HAND)
    for count, segments in ((2, [view]), (1, [view, view]), (0, [view]), (1, []), (-1, [view])):
        with pytest.raises(DecodeError):
            MsgPack().decode(Frame.build({"tensors_msgpack": count}, segments), DEFAULT_LIMITS)


def test_large_arrays_are_not_copied_when_written():
    tensors = {"small": np.arange(3), "w": np.arange(5000.0), "wide": np.zeros(70_000, np.int8)}
    pieces = to_bytes(tensors)
    for name in ("w", "wide"):
        assert any(np.may_share_memory(tensors[name], np.frombuffer(piece, np.uint8)) for piece in pieces)
    assert msgpack.unpackb(written(tensors))["data"] == [array.tobytes() for array in tensors.values()]


@pytest.mark.parametrize("count", [0, 15, 16, 70_000])
def test_heads_are_the_shortest(count):
    tensors = {str(index): np.full(index % 3 * 130, 1, np.uint8) for index in range(count)}
    data = written(tensors)
    assert data == msgpack.packb(msgpack.unpackb(data))
    assert list(from_bytes(data)[0]) == list(tensors)


def test_an_array_of_4_gib_is_refused():
    huge = np.broadcast_to(np.uint8(0), (1 << 32,))
    with pytest.raises(EncodeError, match="tensor 'w'"):
        to_bytes({"w": huge})
