"""Every registered update codec keeps the contract."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from fedpost.codecs import CODECS, parse_codec
from fedpost.testing import CodecContract
from fedpost.testing.codecs import observed_capabilities


class TestDense(CodecContract):
    @pytest.fixture
    def codec(self):
        return parse_codec("dense")


class TestCastToBfloat16(CodecContract):
    relative_error = 2**-8

    @pytest.fixture
    def codec(self):
        return parse_codec("cast(bfloat16)")


class TestCastToFloat16(CodecContract):
    relative_error = 2**-11

    @pytest.fixture
    def codec(self):
        return parse_codec("cast(float16)")


class TestCastToFloat32(CodecContract):
    relative_error = 2**-24

    @pytest.fixture
    def codec(self):
        return parse_codec("cast(float32)")


class TestDelta(CodecContract):
    @pytest.fixture
    def codec(self):
        return parse_codec("delta")


class LossyContract(CodecContract):
    """The change of the whole update bounds the error, not the values of a tensor; the laws have tests of their own."""

    def check_law(self, sent, received):
        if sent.dtype.kind != "f" and sent.dtype != ml_dtypes.bfloat16:
            assert received.tobytes() == sent.tobytes()
            return
        assert np.isfinite(received.astype(np.float64)).all()


PATTERNS = '{"[wd]*": uq(1), "*edges": dense, "half": int8, "brain": eden(2), "s*": delta, "*": topk(0.1)}'
LOSSY = [
    *("uq(2)", "eden(1)", "eden(4)", "topk(0.1)", "stc(0.04)", "int8", "int4", "sign"),
    *("uq(2, nonfinite=whole)", "int8(nonfinite=whole)", "auto(budget=1kB/round, nonfinite=whole)"),
    *("auto(budget=1kB/round)", "auto(budget=100MB/round)"),
    *(
        "cast(bfloat16) | int8",
        "cast(bfloat16) | uq(2)",
        "cast(float16) | stc(0.1)",
        PATTERNS,
        '{"*": auto(budget=20kB/round)}',
    ),
]


@pytest.mark.parametrize("spec", LOSSY)
class TestLossy(LossyContract):
    @pytest.fixture
    def codec(self, spec):
        return parse_codec(spec)


class TestCastDelta(CodecContract):
    """Lossless after the cast."""

    relative_error = 2**-8

    @pytest.fixture
    def codec(self):
        return parse_codec("cast(bfloat16) | delta")


class TestLosslessPatterns(CodecContract):
    @pytest.fixture
    def codec(self):
        return parse_codec('{"w*": delta, "*s*": dense}')


class TestPatternsWithoutBase(CodecContract):
    relative_error = 2**-8

    @pytest.fixture
    def codec(self):
        return parse_codec('{"nothing": dense, "*": cast(bfloat16)}')


def test_every_registered_codec_is_here():
    assert set(CODECS) == {"dense", "cast", "delta", "uq", "eden", "topk", "stc", "int8", "int4", "sign", "auto"}


@pytest.mark.parametrize(
    "spec",
    [
        *("dense", "cast(bfloat16)", "cast(float16)", "delta", "uq(0.5)", "uq(2)", "eden(1)", "eden(2)", "topk(0.1)"),
        *("stc(0.1)", "int8", "int4", "sign", "auto(budget=1kB)", "cast(bfloat16) | delta", "cast(float16) | int4"),
        *("cast(bfloat16) | uq(2)", "cast(float16) | topk(0.1)"),
        *('{"w*": delta, "*": dense}', '{"w*": int8, "*": eden(2)}', '{"w*": uq(1)}', '{"*": none}', PATTERNS),
    ],
)
def test_capabilities_are_what_can_be_observed(spec):
    codec = parse_codec(spec)
    assert observed_capabilities(codec) == codec.capabilities


@pytest.mark.parametrize("spec", ["eden(1)", "eden(2)", "eden(4)"])
def test_a_rotation_of_signs_is_not_right_on_average(spec):
    """Two elements and an outlier show it, so it is not promised."""
    assert not parse_codec(spec).capabilities.unbiased
    assert not observed_capabilities(parse_codec(spec)).unbiased
