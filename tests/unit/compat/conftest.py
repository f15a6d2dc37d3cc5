"""FOBS of both, NVFLARE's own and ours; and servers of requests whose time goes by when the test says so."""

from __future__ import annotations

import importlib
import time
import warnings
from datetime import datetime, timedelta

import pytest

from fedpost.compat.syft_rpc import endpoints


@pytest.fixture(params=["nvflare.fuel.utils.fobs", "fedpost.compat.fobs"], ids=["nvflare", "fedpost"])
def fobs(request, tmp_path, monkeypatch):
    monkeypatch.setenv("NVFLARE_DATUM_DIR", str(tmp_path / "datums"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NVFLARE's own
            module = importlib.import_module(request.param)
            for name in ("datum", "decomposer", "fobs"):
                importlib.import_module(f"{request.param}.{name}")
            if request.param.startswith("nv"):
                scalars = importlib.import_module("nvflare.app_common.decomposers.numpy_decomposers")
    except ImportError:
        pytest.skip("NVFLARE is not installed")
    module.reset()
    if request.param.startswith("nv"):
        for name in ("Float32ScalarDecomposer", "Int64ScalarDecomposer", "NumpyArrayDecomposer"):
            module.register(getattr(scalars, name))
    yield module
    module.auto_register_enum_types(True)
    module.fobs.auto_register_data_classes(True)
    module.reset()


@pytest.fixture
def decomposer(fobs):
    """A function that makes a decomposer of two functions."""

    def make_decomposer(cls, take, make):
        class Made(fobs.Decomposer):
            def supported_type(self):
                return cls

            def decompose(self, target, manager=None):
                return take(target, manager)

            def recompose(self, data, manager=None):
                return make(data, manager)

        return Made

    return make_decomposer


@pytest.fixture
def later(monkeypatch):
    """A function after which it is two hours later for whoever answers requests."""
    now = time.time

    class Later(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(hours=2)

    def go():
        monkeypatch.setattr(time, "time", lambda: now() + 7200)
        monkeypatch.setattr(endpoints, "datetime", Later)

    return go
