"""Every registered tensor format keeps the contract."""

from __future__ import annotations

import pytest

from fedpost.tensors import FORMATS
from fedpost.testing import FormatContract


class TestFedwt(FormatContract):
    @pytest.fixture
    def tensor_format(self):
        return FORMATS.get("fedwt")


class TestNumpy(FormatContract):
    zero_copy_encode = False  # its files have a header each

    @pytest.fixture
    def tensor_format(self):
        return FORMATS.get("numpy")


def test_every_registered_format_is_here():
    assert set(FORMATS) == {"fedwt", "numpy"}
    assert {FORMATS.get(name).name for name in FORMATS} == set(FORMATS)
