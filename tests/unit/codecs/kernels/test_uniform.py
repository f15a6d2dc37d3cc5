"""UQ: the quantizer's law, and the tensor's bytes."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedpost.codecs.kernels.bits import BitWriter
from fedpost.codecs.kernels.matrices import Sparse, pack_matrix, unpack_matrix
from fedpost.codecs.kernels.subsets import put_subset, put_symbols
from fedpost.codecs.kernels.uniform import decode_range, decode_tensor, encode_tensor, quantize
from fedpost.errors import DecodeError, EncodeError

SHAPES = [(), (0,), (1,), (7,), (3, 0), (1, 1), (40, 30), (64, 3, 5, 5), (2, 3000), (1500, 2), (5, 1, 5000)]


def by_definition(x, step):
    with np.errstate(invalid="ignore"):
        return np.rint(x / np.float32(step))


def decoded(data, step, shape):
    out = np.full(shape, np.nan, np.float32)
    decode_tensor(data, step, out)
    return out


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("factor", [0.01, 1, 3, 1e6])
@pytest.mark.parametrize("block_bits", [None, 10])
def test_the_law(shape, factor, block_bits):
    x = np.random.default_rng(1).laplace(size=shape).astype(np.float32)
    step = factor * 1.37
    residual = np.empty_like(x)
    data = encode_tensor(x, step, residual=residual, block_bits=block_bits)
    out = decoded(data, step, shape)
    assert np.array_equal(out, by_definition(x, step).astype(np.float32) * np.float32(step))
    assert np.array_equal(residual, x - out)
    assert (np.abs(x - out) <= np.float32(0.50001 * step)).all()
    assert (len(data) == 0) == (x.size == 0)


@settings(max_examples=300, deadline=None)
@given(
    hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=40), elements=st.floats(-100, 100, width=32)),
    st.floats(0.0625, 1000, width=32),
)
def test_any_tensor(x, step):
    out = decoded(encode_tensor(x, step), step, x.shape)
    assert np.array_equal(out, by_definition(x, step).astype(np.float32) * np.float32(step))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.floats(0, 3), st.integers(0, 2**32 - 1))
def test_any_matrix(rows, columns, spread, seed):
    rng = np.random.default_rng(seed)
    strength = np.exp(spread * rng.standard_normal((rows, 1)))
    dense = np.rint(rng.standard_normal((rows, columns)) * strength).astype(np.int64).reshape(-1)
    cells = np.flatnonzero(dense)
    found = unpack_matrix(memoryview(pack_matrix(Sparse(cells, dense[cells]), rows, columns)), rows, columns)
    back = np.zeros_like(dense)
    back[found.cells] = found.values
    assert np.array_equal(back, dense)


@pytest.mark.parametrize("factor", [1, 2, 4])
@pytest.mark.parametrize("shape", [(60, 80), (1, 3000), (3000, 1), (200, 24)])
def test_a_second_reader_reads_the_same(update, reference, shape, factor):
    x = update(*shape)
    step = factor * float(np.sqrt(np.square(x, dtype=np.float64).mean())) / 4
    data = encode_tensor(x, step, block_bits=12)
    assert reference.tensor(data, *shape) == by_definition(x, step).astype(int).reshape(-1).tolist()


def test_every_flag_is_used(update):
    flags = set()
    for make in (
        lambda: update(200, 150),
        lambda: update(200, 150) * np.where(np.random.default_rng(2).random((200, 150)) < 0.5, 1, -1),
        lambda: update(150, 1) * np.random.default_rng(3).laplace(size=(150, 200)),
        lambda: update(1, 150) * np.random.default_rng(3).laplace(size=(200, 150)),
        lambda: np.random.default_rng(4).laplace(size=(200, 150)),
    ):
        x = make().astype(np.float32)
        data = encode_tensor(x, 0.7 * float(np.abs(x).mean()))
        assert np.array_equal(decoded(data, 0.7 * float(np.abs(x).mean()), x.shape) != 0, quantized(x) != 0)
        flags.add(data[1 + (1 if len(data) < 130 else 2 if len(data) < 16_000 else 3)])
    assert flags >= {0, 1, 2, 3, 7}


def quantized(x):
    return by_definition(x, 0.7 * float(np.abs(x).mean()))


def test_the_size_is_near_the_entropies(update):
    x = update(600, 800)
    step = 2 * float(np.sqrt(np.square(x, dtype=np.float64).mean()))
    q = by_definition(x, step).astype(int)
    used = q != 0
    rows, columns = (np.rint(2 * np.log2(used.sum(axis) + 0.25)).astype(int) for axis in (1, 0))
    total = int(np.rint(2 * np.log2(used.sum() + 0.25)))
    classes = np.clip(((rows[:, None] + columns[None] - total + 1) >> 1) + 10, 0, 11)
    bits = used.sum() + entropy(rows) + entropy(columns)  # a bit for each sign
    for number in range(12):
        bits += entropy(used[classes == number]) + entropy(np.abs(q[used & (classes == number)]))
    assert 8 * len(encode_tensor(x, step)) < 1.03 * bits


def entropy(values):
    if not values.size:
        return 0.0
    counts = np.unique(values, return_counts=True)[1]
    return float((counts * np.log2(values.size / counts)).sum())


@pytest.mark.parametrize("shape", [(), (700, 30), (9000,), (3, 3000)])
def test_ranges(shape):
    x = np.random.default_rng(6).laplace(size=shape).astype(np.float32)
    data = encode_tensor(x, 1.1, block_bits=10)
    whole = decoded(data, 1.1, shape).reshape(-1)
    for start, stop in ((0, x.size), (0, 0), (x.size, x.size), (x.size // 3, x.size // 2), (x.size - 1, x.size)):
        assert np.array_equal(decode_range(data, 1.1, shape, start, stop), whole[start:stop])


def test_a_range_is_read_without_the_others():
    x = np.random.default_rng(6).laplace(size=(100, 512)).astype(np.float32)
    data = bytearray(encode_tensor(x, 1.1, block_bits=10))
    data[-1] ^= 0xFF  # in the last block
    assert np.array_equal(decode_range(data, 1.1, x.shape, 0, 1024), decoded(encode_tensor(x[:2], 1.1), 1.1, 1024))
    with pytest.raises(DecodeError):
        decode_range(data, 1.1, x.shape, 0, x.size)


def test_adding_touches_nothing_else(update):
    x = update(50, 60)
    step = float(np.abs(x).mean())
    data = encode_tensor(x, step)
    out = np.full_like(x, -0.0)
    decode_tensor(data, step, out, add=True)
    sent = decoded(data, step, x.shape)
    assert np.array_equal(out, sent)
    assert np.signbit(out[sent == 0]).all()


def test_the_residual_may_be_the_tensor_itself(update):
    x = update(50, 60)
    step = float(np.abs(x).mean())
    apart = np.empty_like(x)
    data = encode_tensor(x, step, residual=apart)
    assert encode_tensor(x, step, residual=x) == data
    assert np.array_equal(x, apart)


def test_the_threshold_is_exact():
    for step in np.float32([0.1, 1, 3, 1e-30, 1e30, 0.0123]):
        near = np.float32(0.5) * step
        x = np.array([near], np.float32)
        for _ in range(8):
            x = np.concatenate([np.nextafter(x[:1], np.float32(0)), x, np.nextafter(x[-1:], np.float32(np.inf))])
        expected = np.rint(x / step)
        assert set(expected) == {0, 1}
        assert np.array_equal(quantize(x, float(step)).cells, np.flatnonzero(expected))


def test_large_magnitudes():
    x = np.array([2.0**24 - 3, -(2.0**20), 17, -16, 15, 1e-9], np.float32)
    assert decoded(encode_tensor(x, 1), 1, x.shape).tolist() == [2.0**24 - 3, -(2.0**20), 17, -16, 15, 0]


@pytest.mark.parametrize("greatest", [127, 128, 129, 255, 256, 32_767, 32_768, 2**23])
def test_the_greatest_magnitude_with_classes(update, greatest):
    x = np.minimum(np.abs(update(100, 80)), 20)
    x[3, 4], x[5, 6] = greatest, -greatest
    data = encode_tensor(x, 1)
    assert data[3] & 3
    assert np.array_equal(decoded(data, 1, x.shape), by_definition(x, 1))


def test_a_matrix_of_nothing_with_classes():
    writer = BitWriter()
    put_symbols(writer, np.zeros(3, np.int64))
    put_symbols(writer, np.zeros(5, np.int64))
    put_symbols(writer, np.zeros(0, np.int64))
    put_subset(writer, np.zeros(0, np.bool_), np.zeros(9, np.int64))
    assert unpack_matrix(memoryview(b"\7" + bytes(writer)), 3, 5).cells.size == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused(value):
    x = np.zeros(100_000, np.float32)
    x[77_777] = value
    with pytest.raises(EncodeError, match="NaN or infinite"):
        encode_tensor(x, 1)


@pytest.mark.parametrize(("x", "step", "said"), [(1.0, 1e-8, "too small"), (3.4e38, 2e38, "too large")])
def test_what_cannot_be_decoded_is_refused(x, step, said):
    with pytest.raises(EncodeError, match=said):
        encode_tensor(np.array([x], np.float32), step)


def test_the_greatest_values():
    x = np.array([3.3e38, -3.3e38], np.float32)
    assert np.isfinite(decoded(encode_tensor(x, 3.2e38), 3.2e38, (2,))).all()
    with pytest.raises(DecodeError, match="infinite"):
        decode_tensor(encode_tensor(np.array([2], np.float32), 1), 3e38, x[:1])


@pytest.mark.parametrize("step", [0, -1, np.nan, np.inf, 1e-50, 1e50])
def test_what_is_no_step_is_refused(step):
    data = encode_tensor(np.ones(3, np.float32), 1)
    with pytest.raises(EncodeError, match="not a step"):
        encode_tensor(np.ones(3, np.float32), step)
    with pytest.raises(DecodeError, match="not a step"):
        decode_tensor(data, step, np.empty(3, np.float32))


@pytest.mark.parametrize("block_bits", [9, 23])
def test_block_sizes_have_bounds(block_bits):
    with pytest.raises(EncodeError, match="not possible"):
        encode_tensor(np.ones(3, np.float32), 1, block_bits=block_bits)


def test_frozen_bytes():
    x = np.array([[0, 3, -1, 0], [0, 0.5, 0.51, -20], [100, 0, 0, 0]], np.float32)
    assert encode_tensor(x, 1).hex() == GOLDEN_SMALL
    cells = np.arange(40_000)
    wave = np.abs(cells * 7919 % 1013 - 506) ** 5 // 10**9 >> (cells // 200 * 37 % 200 // 25 + cells % 200 // 25)
    wave[cells * 31 % 101 < cells // 200] *= -1
    large = encode_tensor(wave.astype(np.float32).reshape(200, 200), 99)
    assert large[3] == 7
    assert (len(large), hashlib.sha256(large).hexdigest()) == GOLDEN_LARGE


GOLDEN_SMALL = "13090004c61d020155c308"
GOLDEN_LARGE = (9733, "bebf6b474943a7828aae4a57734a794b66b2c3d0d9aea41184969705c24f65e2")
