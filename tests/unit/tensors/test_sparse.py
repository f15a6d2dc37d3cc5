"""Sparse coding: by hand, to the bit, and only one way to write it."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from fedpost.errors import DecodeError, TruncatedError, UnsupportedError
from fedpost.tensors.sparse import SparseElements, check_sparse, sparse_bytes
from fedpost.testing.samples import DTYPES, random_array


def data(array):
    return memoryview(array.tobytes())


def coded(count, width, gaps, values, rest=bytes(7)):
    return memoryview(struct.pack("<QB", count, width) + rest + gaps + values)


def test_bytes_written_by_hand():
    array = np.zeros(20, "<i4")
    array[[2, 3, 19]] = [1, -1, 258]
    expected = bytes.fromhex("0300000000000000 01 00000000000000 02 00 0f 01000000 ffffffff 02010000")
    assert sparse_bytes(data(array), 4) == expected
    check_sparse(memoryview(expected), 4, 20)
    assert bytes(SparseElements(memoryview(expected), 4, 20).read(0, 20)) == array.tobytes()


def test_gaps_take_the_least_width():
    for gap, width in ((255, 1), (256, 2), (65535, 2), (65536, 4)):
        array = np.zeros(gap + 1, np.float64)
        array[gap] = 1
        assert sparse_bytes(data(array), 8)[8] == width


def test_nothing_but_zeros():
    assert sparse_bytes(data(np.zeros(5)), 8) == bytes(8) + b"\1" + bytes(7)
    assert sparse_bytes(data(np.zeros(2)), 8) is None
    assert sparse_bytes(memoryview(b""), 0) is None


def test_signs_of_zero_and_payloads_of_nan_are_kept():
    array = np.zeros(100, np.float32)
    array[5] = -0.0
    array.view(np.uint32)[7] = 0x7FC12345
    result = sparse_bytes(data(array), 4)
    assert bytes(SparseElements(memoryview(result), 4, 100).read(0, 100)) == array.tobytes()


def test_it_is_chosen_only_when_smaller():
    array = np.zeros(100, np.float32)
    for filled in range(100):
        array[filled] = 1
        result = sparse_bytes(data(array), 4)
        assert (result is not None) == (16 + 5 * (filled + 1) < 400)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_element_type(dtype):
    array = np.zeros(1000, dtype)
    array[[0, 400, 999]] = random_array(dtype, (3,))
    result = sparse_bytes(data(array), dtype.itemsize)
    check_sparse(memoryview(result), dtype.itemsize, 1000)
    for start, stop in ((0, 1000), (0, 1), (1, 400), (400, 1000), (999, 1000), (5, 5)):
        part = SparseElements(memoryview(result), dtype.itemsize, 1000).read(start, stop)
        assert bytes(part) == array[start:stop].tobytes()


ONE = struct.pack("<I", 1)
BAD = {
    "nothing": (b"", TruncatedError),
    "half a head": (bytes(15), TruncatedError),
    "a width of three": (coded(1, 3, b"\0\0\0", ONE), UnsupportedError),
    "a width of none": (coded(0, 0, b"", b""), UnsupportedError),
    "marks": (coded(0, 1, b"", b"", b"\0\0\0\0\0\0\1"), UnsupportedError),
    "more than there are": (coded(101, 1, bytes(101), ONE * 101), DecodeError),
    "2^64-1 elements": (coded(2**64 - 1, 1, b"\0", ONE), DecodeError),
    "a byte too few": (coded(1, 1, b"\0", ONE[:-1]), DecodeError),
    "a byte too many": (coded(1, 1, b"\0", ONE + b"\0"), DecodeError),
    "behind the last": (coded(1, 1, b"\x64", ONE), DecodeError),
    "behind the last in steps": (coded(2, 1, b"\x32\x32", ONE * 2), DecodeError),
    "a gap of 2^64-1": (coded(1, 8, b"\xff" * 8, ONE), DecodeError),
    "gaps that wrap": (coded(2, 8, struct.pack("<QQ", 5, 2**64 - 2), ONE * 2), DecodeError),
    "gaps wider than needed": (coded(1, 2, b"\1\0", ONE), DecodeError),
    "a zero that is listed": (coded(1, 1, b"\0", bytes(4)), DecodeError),
    "not smaller": (coded(80, 1, bytes(80), ONE * 80), DecodeError),
}


@pytest.mark.parametrize("label", BAD)
def test_what_is_not_written_so_is_refused(label):
    payload, error = BAD[label]
    with pytest.raises(error) as caught:
        check_sparse(memoryview(payload), 4, 100)
    assert type(caught.value) is error


def test_no_bytes_an_element():
    with pytest.raises(DecodeError):
        check_sparse(coded(0, 1, b"", b""), 0, 100)
