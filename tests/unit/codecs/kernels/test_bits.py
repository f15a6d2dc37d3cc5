"""The two streams of bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpost.codecs.kernels.bits import BitReader, BitWriter, bit_lengths, put_varint, take_varint
from fedpost.errors import DecodeError, TruncatedError


def reading(data):
    """A reader that takes any numbers."""
    return BitReader(data, numbers=1 << 20, zeros=1 << 40)


numbers = st.lists(st.integers(0, 300), max_size=50)


@given(st.integers(0, 2**42 - 1))
def test_a_varint_comes_back(value):
    data = put_varint(value)
    assert len(data) == max(1, -(-value.bit_length() // 7))
    assert take_varint(memoryview(b"x" + data + b"y"), 1) == (value, 1 + len(data))
    with pytest.raises(TruncatedError):
        take_varint(memoryview(data[:-1]), 0)


@pytest.mark.parametrize("data", [b"\x80\x00", b"\xff\x00", b"\xff\xff\xff\xff\xff\xff\x01", b"\x80" * 5 + b"\x80"])
def test_a_varint_has_one_form(data):
    with pytest.raises(DecodeError):
        take_varint(memoryview(data), 0)


@given(st.lists(st.integers(0, 2**53), max_size=20))
def test_bit_lengths(values):
    assert bit_lengths(np.array(values, np.int64)).tolist() == [value.bit_length() for value in values]


@given(numbers, st.lists(st.tuples(st.integers(0, 2**40 - 1), st.integers(0, 40)), max_size=50), numbers)
def test_what_is_written_is_read(unary, plain, gamma):
    writer = BitWriter()
    widths = np.array([width for _, width in plain], np.int64)
    values = np.array([value for value, _ in plain], np.int64)
    writer.unary(np.array(unary, np.int64))
    writer.plain(values, widths)
    writer.gamma(np.array(gamma, np.int64))
    writer.bits(widths > 20)
    reader = reading(memoryview(bytes(writer)))
    half = len(unary) // 2
    assert [*reader.unary(half), *reader.unary(len(unary) - half)] == unary
    assert reader.plain(widths).tolist() == (values & ((1 << widths) - 1)).tolist()
    assert reader.gamma(len(gamma), limit=301).tolist() == gamma
    assert (reader.bits(len(plain)) == (widths > 20)).all()
    reader.finish()


def test_the_bytes():
    writer = BitWriter()
    writer.unary(np.array([0, 2, 1]))  # 1 001 01
    writer.plain(np.array([0b01, 0b110, 0b1]), np.array([2, 3, 0]))  # planes: 10 01 1
    assert bytes(writer) == bytes([1, 0b101001, 0b11001])
    assert bytes(BitWriter()) == b"\0"


def test_more_than_there_is():
    writer = BitWriter()
    writer.unary(np.array([3]))
    writer.plain(np.array([5]), np.array([3]))
    data = memoryview(bytes(writer))
    with pytest.raises(TruncatedError):
        reading(data).unary(2)
    with pytest.raises(TruncatedError):
        reading(data).bits(9)
    with pytest.raises(TruncatedError):
        reading(data).plain(np.array([3, 6]))
    with pytest.raises(DecodeError, match="too large"):
        reading(data).gamma(1, limit=8)
    with pytest.raises(DecodeError, match="too large"):
        reading(data).gamma(1, limit=12)
    assert reading(data).gamma(1, limit=13).tolist() == [12]
    with pytest.raises(DecodeError, match="left over"):
        reading(data).finish()


@pytest.mark.parametrize("data", [b"", b"\x01", b"\x01\x00", b"\x02\x01\x00", b"\x80"])
def test_a_unary_stream_ends_with_a_number(data):
    with pytest.raises(DecodeError):
        reading(memoryview(data))


def test_unary_numbers_are_counted_before_they_are_found():
    writer = BitWriter()
    writer.unary(np.array([0, 2, 1, 5]))
    data = memoryview(bytes(writer))
    assert BitReader(data, numbers=4, zeros=8).unary(4).tolist() == [0, 2, 1, 5]
    with pytest.raises(DecodeError, match="more unary numbers"):
        BitReader(data, numbers=3, zeros=8)
    with pytest.raises(DecodeError, match="longer than it can be"):
        BitReader(data, numbers=4, zeros=4)


@pytest.mark.parametrize("size", [1, 32767, 32768, 32769, 100_000])
def test_long_streams_are_read_in_parts(size):
    """Parts of 2**15 bytes, and numbers across their ends."""
    values = np.random.default_rng(size).integers(0, 30, size)
    writer = BitWriter()
    writer.unary(values)
    writer.plain(values, np.full(size, 5))
    reader = BitReader(memoryview(bytes(writer)), numbers=size, zeros=int(values.sum()))
    assert (reader.unary(size) == values).all()
    assert (reader.plain(np.full(size, 5)) == values).all()
    reader.finish()
