"""How models differ: exact where it can be, and never by an overflow, a NaN or a lost bit."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest

from fedpost.conversion import open_model
from fedpost.errors import IntegrityError
from fedpost.pipeline import Pipeline, save_tensors
from fedpost.report.difference import compare, compare_sources
from fedpost.tensors import MemoryTensors
from fedpost.testing.samples import DTYPES, random_array


def difference(one, other, **options):
    """How two arrays differ."""
    (found,) = compare_sources(MemoryTensors({"w": one}), MemoryTensors({"w": other}), **options).tensors
    return found


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_equal_is_equal_and_one_element_is_found(dtype):
    one = random_array(dtype, (70, 60))
    same = difference(one, one.copy())
    assert (same.equal_bits, same.differing, same.relative, same.nan_mismatches) == (True, 0, 0.0, 0)
    other = one.copy()
    place = next(index for index in range(1, one.size) if one.flat[index] != one.flat[0])
    other.flat[0] = one.flat[place]
    found = difference(one, other)
    assert not found.equal_bits
    assert found.differing == 1
    assert found.within(None) is False
    assert found.relative > 0 or found.nan_mismatches


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16, np.longdouble, ">f4"])
def test_floats(dtype):
    one = np.array([3.0, 4.0, 0.0, 1.0], dtype)
    other = np.array([3.0, 4.5, -2.0, 1.0], dtype)
    found = difference(one, other)
    assert found.differing == 2
    assert found.max_abs == 2.0
    assert found.rms == pytest.approx(math.sqrt((0.25 + 4) / 4))
    assert found.relative == pytest.approx(math.sqrt(4.25 / 26))


def test_complex_numbers():
    one = np.array([3 + 4j, 1j, complex(math.inf, 1)], np.complex64)
    found = difference(one, np.array([0, 1j, complex(math.inf, 1)], np.complex64))
    assert (found.differing, found.max_abs) == (1, 5.0)
    found = difference(one, np.array([3 + 4j, 1j, complex(math.inf, 2)], np.complex64))
    assert (found.differing, found.max_abs, found.relative) == (1, math.inf, math.inf)


@pytest.mark.parametrize(
    ("dtype", "one", "other", "greatest"),
    [
        ("int64", -(2**63), 2**63 - 1, 2**64 - 1),
        ("int64", 2**63 - 1, -(2**63), 2**64 - 1),
        ("uint64", 0, 2**64 - 1, 2**64 - 1),
        ("uint64", 2**63 + 1, 2**63, 1),
        ("int64", 2**53 + 1, 2**53, 1),
        ("int8", -128, 127, 255),
        ("uint8", 1, 255, 254),
        (">i4", -(2**31), 2**31 - 1, 2**32 - 1),
        ("bool", True, False, 1),
        (ml_dtypes.int4, -8, 7, 15),
        (ml_dtypes.uint4, 0, 15, 15),
    ],
)
def test_integers_are_exact(dtype, one, other, greatest):
    found = difference(np.array([one, 0], dtype), np.array([other, 0], dtype))
    assert (found.differing, found.max_abs) == (1, greatest)
    assert type(found.max_abs) is int
    assert found.rms == pytest.approx(greatest / math.sqrt(2))


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "float8_e4m3b11fnuz"])
def test_every_pair_of_small_floats_is_exact(name):
    every = np.arange(256, dtype=np.uint8).view(getattr(ml_dtypes, name))
    one, other = np.repeat(every, 256), np.tile(every, 256)
    wide, wider = one.astype(np.float64), other.astype(np.float64)
    found = difference(one, other)
    missing, lacking = np.isnan(wide), np.isnan(wider)
    with np.errstate(invalid="ignore"):
        assert found.nan_mismatches == np.count_nonzero(missing != lacking)
        assert found.differing == np.count_nonzero((wide != wider) & ~(missing & lacking))
        distance = np.abs(wide - wider)[~(missing | lacking) & (wide != wider)]
    assert found.max_abs == distance.max()


def test_not_a_number():
    nan, other_nan = np.array([0x7FC00000, 0x7FC00001], np.uint32).view(np.float32)
    found = difference(np.array([nan, 1, nan]), np.array([nan, nan, 2]))
    assert (found.differing, found.nan_mismatches, found.max_abs) == (2, 2, 0.0)
    assert not found.within(1e9)
    bits = difference(np.array([nan, -0.0], np.float32), np.array([other_nan, 0.0], np.float32))
    assert (bits.equal_bits, bits.differing, bits.relative) == (False, 0, 0.0)
    assert bits.within(0)
    assert not bits.within(None)


def test_infinities():
    one = np.array([math.inf, -math.inf, 1.0])
    assert difference(one, np.array([math.inf, -math.inf, 1.5])).relative == 0.5
    found = difference(one, np.array([math.inf, math.inf, 1.0]))
    assert (found.differing, found.max_abs, found.relative) == (1, math.inf, math.inf)


@pytest.mark.parametrize("scale", [1e-320, 1e-200, 1.0, 1e200, 8e307])
def test_no_square_overflows_or_vanishes(scale):
    one = np.full(1000, scale)
    found = difference(one, one * 0.5)
    assert found.relative == pytest.approx(0.5, rel=1e-3)
    assert found.rms == pytest.approx(scale / 2, rel=1e-3)
    mixed = np.concatenate([one, np.full(1000, 1e-300)])
    assert difference(mixed, mixed * 0.5).relative == pytest.approx(0.5, rel=1e-3)


def test_longer_numbers_than_float64():
    one = np.array([1], np.longdouble)
    found = difference(one, np.nextafter(one, np.longdouble(2)))
    assert found.differing == 1
    assert 0 < found.relative < np.finfo(np.float64).eps


def test_a_zero_model_is_infinitely_far_from_any_other():
    assert difference(np.zeros(3), np.ones(3)).relative == math.inf
    assert difference(np.zeros(3), -np.zeros(3)).relative == 0.0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.array(["north", "south"]), np.array(["north", "sooth"])),
        (np.array([b"ab", b"cd"]), np.array([b"ab", b"ce"])),
        (np.array(["2020-01-01", "NaT"], "M8[D]"), np.array(["2020-01-02", "NaT"], "M8[D]")),
        (np.array([(1, 2.0), (3, 4.0)], "i4,f4"), np.array([(1, 2.0), (3, 5.0)], "i4,f4")),
    ],
)
def test_what_is_no_number(one, other):
    found = difference(one, other)
    assert (found.differing, found.max_abs, found.rms, found.relative) == (1, None, None, math.inf)
    assert difference(one, one.copy()).equal_bits


@pytest.mark.parametrize("size", [1, (1 << 18) + 1, 5_000_000])
def test_blocks_make_no_difference(size):
    random = np.random.default_rng(0)
    one = random.normal(size=size).astype(np.float32)
    other = one + random.normal(scale=1e-3, size=size).astype(np.float32)
    found = difference(one, other)
    apart = one.astype(np.float64) - other
    assert found.differing == np.count_nonzero(apart)
    assert found.max_abs == np.abs(apart).max()
    assert found.rms == pytest.approx(np.sqrt(np.mean(apart**2)), rel=1e-12)
    assert found.relative == pytest.approx(np.linalg.norm(apart) / np.linalg.norm(one.astype(np.float64)), rel=1e-12)


def test_models_are_told_apart_tensor_by_tensor():
    one = {"same": np.ones(3), "near": np.ones(9), "far": np.ones(2), "dtype": np.ones(2), "shape": np.ones(2)}
    other = {"new": np.ones(1), "far": np.zeros(2), "near": np.full(9, 1.001), "same": np.ones(3)}
    other |= {"dtype": np.ones(2, np.float32), "shape": np.ones((2, 1))}
    found = compare_sources(MemoryTensors({**one, "old": np.ones(1)}), MemoryTensors(other))
    assert not found.equal
    assert (found.only_in_first, found.only_in_second) == (["old"], ["new"])
    assert [(pair.name, pair.dtypes, pair.shapes) for pair in found.mismatches] == [
        ("dtype", ("float64", "float32"), ([2], [2])),
        ("shape", ("float64", "float64"), ([2], [2, 1])),
    ]
    assert [tensor.name for tensor in found.tensors] == ["far", "near", "same"]
    assert [tensor.name for tensor in found.differing] == ["far", "near"]


@pytest.mark.parametrize(("tolerance", "equal"), [(None, False), (0.0, False), (0.0009, False), (0.0011, True)])
def test_a_tolerance_is_of_the_relative_difference(tolerance, equal):
    one, other = MemoryTensors({"w": np.full(50, 2.0)}), MemoryTensors({"w": np.full(50, 2.002)})
    found = compare_sources(one, other, tolerance=tolerance)
    assert found.equal is equal
    assert [tensor.name for tensor in found.differing] == ([] if equal else ["w"])
    assert not compare_sources(one, MemoryTensors({}), tolerance=1e9).equal


def test_a_damaged_file_is_named(tmp_path):
    for name in ("one", "other"):
        save_tensors(tmp_path / name, {"w": np.arange(9999.0)}, pipeline=Pipeline.parse("dense | fedwt | zstd"))
    data = bytearray((tmp_path / "other").read_bytes())
    data[-5] ^= 1
    (tmp_path / "other").write_bytes(data)
    with pytest.raises(IntegrityError, match="segment 0") as caught:
        compare(open_model(tmp_path / "one"), open_model(tmp_path / "other"))
    assert caught.value.where.startswith(str(tmp_path / "other"))


def test_any_kinds_are_compared(tmp_path):
    tensors = {"w": np.linspace(0, 1, 5000), "n": np.array(3)}
    save_tensors(tmp_path / "one", tensors)
    save_tensors(tmp_path / "other", tensors, pipeline=Pipeline.parse("cast(float32) | fedwt1 | lz4"))
    np.savez_compressed(tmp_path / "third.npz", **dict(reversed(tensors.items())))
    one, other, third = (open_model(tmp_path / name) for name in ("one", "other", "third.npz"))
    assert compare(one, third).equal
    found = compare(one, other, tolerance=1e-7)
    assert found.equal
    assert 0 < found.tensors[0].relative < 1e-7
