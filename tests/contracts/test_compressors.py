"""Every registered compressor keeps the contract."""

from __future__ import annotations

import pytest

from fedpost.compression import COMPRESSORS
from fedpost.testing import CompressorContract


class TestGzip(CompressorContract):
    @pytest.fixture
    def compressor(self):
        return COMPRESSORS.get("gzip")


class TestZstd(CompressorContract):
    @pytest.fixture
    def compressor(self):
        return COMPRESSORS.get("zstd")


class TestLz4(CompressorContract):
    @pytest.fixture
    def compressor(self):
        return COMPRESSORS.get("lz4")


class TestLx(CompressorContract):
    @pytest.fixture
    def compressor(self):
        return COMPRESSORS.get("lx")


def test_every_registered_compressor_is_here():
    assert set(COMPRESSORS) == {"gzip", "zstd", "lz4", "lx"}
