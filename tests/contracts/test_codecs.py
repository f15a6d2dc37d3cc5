"""Every registered update codec keeps the contract."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from fedpost.codecs import CODECS, parse_codec
from fedpost.testing import CodecContract


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


@pytest.mark.parametrize("spec", ["uq(2)", "eden(1)", "eden(4)", "topk(0.1)", "stc(0.04)", "int8", "int4", "sign"])
class TestLossy(LossyContract):
    @pytest.fixture
    def codec(self, spec):
        return parse_codec(spec)


def test_every_registered_codec_is_here():
    assert set(CODECS) == {"dense", "cast", "delta", "uq", "eden", "topk", "stc", "int8", "int4", "sign"}
