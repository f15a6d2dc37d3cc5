"""Every registered tensor format keeps the contract."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from fedpost.tensors import FORMATS
from fedpost.testing import FormatContract, formats

SAFETENSORS = [np.dtype(kind) for kind in ("bool", "float16", "float32", "float64", "complex64", ml_dtypes.bfloat16)]
SAFETENSORS += [np.dtype(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)]
SAFETENSORS += [np.dtype(getattr(ml_dtypes, f"float8_{kind}")) for kind in ("e4m3fn", "e5m2", "e4m3fnuz", "e5m2fnuz")]
SAFETENSORS += [np.dtype(ml_dtypes.float8_e8m0fnu)]


class TestFedwt(FormatContract):
    @pytest.fixture
    def tensor_format(self):
        return FORMATS.get("fedwt")


class TestNumpy(FormatContract):
    zero_copy_encode = False  # its files have a header each

    @pytest.fixture
    def tensor_format(self):
        return FORMATS.get("numpy")


class TestFedwt1(FormatContract):
    zero_copy_encode = False  # it knows no Fortran order

    @pytest.fixture
    def tensor_format(self):
        return FORMATS.get("fedwt1")


class TestSafetensors(FormatContract):
    dtypes = tuple(dtype for dtype in FormatContract.dtypes if dtype in SAFETENSORS)
    zero_copy_encode = False  # it knows no Fortran order

    @pytest.fixture
    def tensor_format(self):
        return FORMATS.get("safetensors")

    @pytest.fixture(autouse=True)
    def only_what_it_can_name(self, monkeypatch):
        """The suite's mixture of types, without those that the format refuses to carry."""
        mixture = formats._mixture()
        kept = {name: array for name, array in mixture.items() if array.dtype in self.dtypes}
        monkeypatch.setattr(formats, "_mixture", lambda: kept)


class TestMsgPack(FormatContract):
    zero_copy_encode = False  # the arrays stand inline

    @pytest.fixture
    def tensor_format(self):
        return FORMATS.get("msgpack")


class TestJsonBase64(FormatContract):
    zero_copy_encode = False  # base64
    zero_copy_decode = False

    @pytest.fixture
    def tensor_format(self):
        return FORMATS.get("json_base64")


class TestProtobuf(FormatContract):
    zero_copy_encode = False  # its runtime copies
    zero_copy_decode = False

    @pytest.fixture
    def tensor_format(self):
        pytest.importorskip("google.protobuf")
        return FORMATS.get("protobuf")


def test_every_registered_format_is_here():
    assert set(FORMATS) == {"fedwt", "fedwt1", "json_base64", "msgpack", "numpy", "protobuf", "safetensors"}
    assert {FORMATS.get(name).name for name in FORMATS} == set(FORMATS)
