"""Coded tensors that lie: whatever the bytes are, a decode error or finite values, and no memory for nothing."""

from __future__ import annotations

import random
import struct
import tracemalloc

import numpy as np
import pytest

from fedpost.codecs.kernels.bits import BitWriter, put_varint
from fedpost.codecs.kernels.blocks import decode_blocks, decode_signs, encode_blocks, encode_signs
from fedpost.codecs.kernels.eden import decode_eden, encode_eden
from fedpost.codecs.kernels.places import Cut, cuts
from fedpost.codecs.kernels.sparsify import decode_stc, decode_top, encode_stc, encode_top
from fedpost.codecs.kernels.uniform import decode_tensor, encode_tensor
from fedpost.errors import DecodeError

CODERS = {
    "uniform": (lambda x: encode_tensor(x, 0.7), lambda data, out: decode_tensor(data, 0.7, out)),
    "uniform-blocks": (
        lambda x: encode_tensor(x, 0.7, block_bits=10),
        lambda data, out: decode_tensor(data, 0.7, out, add=True),
    ),
    "uniform-sparse": (lambda x: encode_tensor(x, 6), lambda data, out: decode_tensor(data, 6, out)),
    "eden-1": (lambda x: encode_eden(x, 1, 5), lambda data, out: decode_eden(data, 5, out)),
    "eden-4": (lambda x: encode_eden(x, 4, 5), lambda data, out: decode_eden(data, 5, out)),
    "top": (lambda x: encode_top(x, *cuts([x.reshape(-1)], 0.05)), decode_top),
    "top-half": (lambda x: encode_top(x, *cuts([x.reshape(-1)], 0.05), width=2), decode_top),
    "stc": (lambda x: encode_stc(x, *cuts([x.reshape(-1)], 0.05)), decode_stc),
    "int8": (lambda x: encode_blocks(x, 8, block_bits=6), decode_blocks),
    "int4": (lambda x: encode_blocks(x, 4, scale_width=2), decode_blocks),
    "signs": (encode_signs, decode_signs),
}


def update(rows=45, columns=31):
    rng = np.random.default_rng(8)
    strength = np.exp(rng.standard_normal((rows, 1))) * np.exp(rng.standard_normal((1, columns)))
    return (np.abs(rng.laplace(size=(rows, columns))) * strength * np.sign(rng.normal(size=(rows, 1)))).astype(
        np.float32
    )


@pytest.fixture(params=CODERS)
def coder(request):
    encode, decode = CODERS[request.param]
    x = update()

    def tried(data, shape=x.shape):
        """Whether it was decoded."""
        out = np.zeros(shape, np.float32)
        try:
            decode(bytes(data), out)
        except DecodeError:
            return False
        assert np.isfinite(out).all()
        return True

    return encode(x), tried


def test_every_length_but_the_right_one(coder):
    data, tried = coder
    assert tried(data)
    for length in range(0, len(data), 1 + len(data) // 300):
        assert not tried(data[:length])
    assert not tried(data[:-1])
    for more in (b"\0", b"\1", b"\xff", bytes(9), data):
        assert not tried(data + more)


def test_another_shape(coder):
    data, tried = coder
    for shape in ((0,), (3, 0), (1,), (), (7,)):
        assert not tried(data, shape)


def test_every_byte(coder):
    data, tried = coder
    altered = bytearray(data)
    for place in range(0, len(data), 1 + len(data) // 700):
        for mask in (0x01, 0x10, 0x80, 0xFF):
            altered[place] ^= mask
            tried(altered)
            altered[place] = data[place]


def test_random_mutations(coder):
    data, tried = coder
    chance = random.Random(9)
    for _ in range(500):
        altered = bytearray(data)
        for _ in range(chance.randint(1, 6)):
            place = chance.randrange(len(altered))
            match chance.randrange(4):
                case 0:
                    altered[place] = chance.randrange(256)
                case 1:
                    del altered[place : place + chance.randint(1, 9)]
                    altered += bytes(1)
                case 2:
                    altered[place:place] = chance.randbytes(chance.randint(1, 9))
                case _:
                    other = chance.randrange(len(altered))
                    altered[place : place + 8] = altered[other : other + 8]
        tried(altered)


def test_noise(coder):
    data, tried = coder
    chance = random.Random(10)
    for length in range(300):
        tried(chance.randbytes(length))
        tried(data[:3] + chance.randbytes(length))


def test_nothing_is_made_for_what_is_not_there():
    """Counts that the tensor allows, but the bytes do not have."""
    shape = (2048, 2048)
    size = shape[0] * shape[1]
    counts = BitWriter()
    counts.plain(np.array([size // 2]), np.array([size.bit_length()]))
    block = b"\0" + bytes(counts)
    lies = {
        "uniform": (lambda out: decode_tensor(bytes([22]) + put_varint(len(block)) + block, 1.0, out)),
        "top": (lambda out: decode_top(b"\4" + struct.pack("<I", 6) + put_varint(size) + bytes([0, 0]), out)),
        "stc": (lambda out: decode_stc(bytes(4) + struct.pack("<I", 6) + put_varint(size) + bytes([0, 0]), out)),
        "eden": (lambda out: decode_eden(b"\4" + bytes(100), 1, out)),
        "blocks": (lambda out: decode_blocks(b"\x08\x04\x06" + bytes(100), out)),
    }
    out = np.zeros(shape, np.float32)
    for name, lie in lies.items():
        tracemalloc.start()
        with pytest.raises(DecodeError):
            lie(out)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 200_000, name


def test_places_far_behind_the_end():
    for width in (0, 20, 42, 43, 255):
        writer = BitWriter()
        writer.unary(np.array([60, 60]))
        writer.plain(np.array([0, 0]), np.array([width, width]) % 64)
        places = b"\2" + bytes([width]) + bytes(writer)
        with pytest.raises(DecodeError):
            decode_stc(bytes(4) + struct.pack("<I", len(places)) + places + b"\3", np.zeros(100, np.float32))


@pytest.mark.parametrize("scale", [np.nan, np.inf, -1.0, 3e38])
def test_scales_that_are_no_scales(scale):
    for coded, decode in (
        (encode_blocks(np.ones(5, np.float32), 8), decode_blocks),
        (encode_eden(np.ones(5, np.float32), 2, 1), lambda data, out: decode_eden(data, 1, out)),
    ):
        at = 3 if coded[0] == 8 else 1
        with pytest.raises(DecodeError, match="scale"):
            decode(coded[:at] + struct.pack("<f", scale) + coded[at + 4 :], np.empty(5, np.float32))
    if scale == 3e38:
        return
    for coded, decode in (
        (encode_signs(np.ones(5, np.float32)), decode_signs),
        (encode_stc(np.ones(5, np.float32), Cut(0, 0)), decode_stc),
    ):
        with pytest.raises(DecodeError, match="mean magnitude"):
            decode(struct.pack("<f", scale) + coded[4:], np.empty(5, np.float32))


@pytest.mark.parametrize("fill", [0xFF, 0x01, 0x80])
def test_a_stream_of_millions_of_numbers_for_sixteen_elements(fill):
    """The kernels by themselves, without what comes before them."""
    size = 4_000_000
    body = put_varint(size) + bytes([fill]) * size
    block = b"\0" + body
    places = b"\3\0" + body
    lying = struct.pack("<I", len(places)) + places
    for decode, data in (
        (lambda data, out: decode_tensor(data, 0.7, out), b"\x13" + put_varint(len(block)) + block),
        (decode_top, b"\4" + lying),
        (decode_stc, struct.pack("<f", 1.0) + lying),
        (decode_stc, struct.pack("<fIBB", 1.0, 3, 0, 0) + b"\0" + bytes(size)),
    ):
        tracemalloc.start()
        with pytest.raises(DecodeError):
            decode(data, np.zeros((4, 4), np.float32))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1 << 19
