"""Every registered update codec keeps the contract."""

from __future__ import annotations

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


def test_every_registered_codec_is_here():
    assert set(CODECS) == {"dense", "cast", "delta"}
