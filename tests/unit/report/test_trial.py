"""What a pipeline makes of a model: figures that can be told in advance."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest

from fedpost.codecs import Base
from fedpost.errors import ConfigError, EncodeError
from fedpost.pipeline import Pipeline, decode_tensors
from fedpost.report.difference import root_mean_square
from fedpost.report.trial import changes_of, strangers, try_pipeline
from fedpost.tensors import MemoryTensors


@pytest.fixture
def model():
    random = np.random.default_rng(0)
    return {
        "w": random.normal(size=(200, 100)).astype(np.float32),
        "b": np.zeros(30, np.float32),
        "steps": np.array(7, np.int64),
    }


@pytest.fixture
def base(model):
    change = np.random.default_rng(1).laplace(scale=0.01, size=model["w"].shape).astype(np.float32)
    return Base.of({**model, "w": model["w"] - change})


def attempt(spec, model, base=None, **how):
    return try_pipeline(Pipeline.parse(spec), model, base, changes_of(MemoryTensors(model), base), **how)


@pytest.mark.parametrize("spec", ["dense | lx", "delta | lx"])
def test_lossless(spec, model, base):
    trial = attempt(spec, model, base)
    assert trial.exact
    assert (trial.relative, trial.max_abs) == (0.0, 0.0)
    assert all(row.exact and row.relative == 0 for row in trial.tensors)
    assert trial.raw == 200 * 100 * 4 + 30 * 4 + 8
    assert trial.ratio == trial.raw / trial.encoded > 1


def test_bytes_are_those_of_the_frame(model, base):
    pipeline = Pipeline.parse("uq(2)")
    trial = attempt("uq(2)", model, base)
    assert trial.encoded == pipeline.encode(model, base=base).nbytes
    assert sum(row.encoded for row in trial.tensors) < trial.encoded
    assert [row.name for row in trial.tensors] == ["w", "b", "steps"]
    assert trial.encode_mb_per_second > 0 < trial.decode_mb_per_second


def test_errors_are_relative_to_what_changed(model, base):
    trial = attempt("uq(2)", model, base)
    decoded = decode_tensors(Pipeline.parse("uq(2)").encode(model, base=base), base=base).arrays()["w"]
    lost = (decoded - model["w"]).astype(np.float64)
    changed = (model["w"] - base.tensors.arrays()["w"]).astype(np.float64)
    row = trial.tensors[0]
    assert row.relative == pytest.approx(np.linalg.norm(lost) / np.linalg.norm(changed), rel=1e-4)
    assert trial.relative == pytest.approx(row.relative, rel=1e-6)  # nothing else changed
    assert row.max_abs == trial.max_abs == pytest.approx(np.abs(lost).max(), rel=1e-6)
    assert not row.exact
    assert not trial.exact


def test_without_a_base_errors_are_relative_to_the_tensor(model):
    trial = attempt("cast(bfloat16)", model)
    lost = model["w"].astype(ml_dtypes.bfloat16).astype(np.float64) - model["w"]
    assert trial.relative == pytest.approx(np.linalg.norm(lost) / np.linalg.norm(model["w"].astype(np.float64)))
    assert trial.tensors[1].exact


def test_an_error_where_nothing_changed_is_infinite(model):
    trial = attempt("cast(bfloat16)", model, Base.of(model))
    assert trial.tensors[0].relative == trial.relative == math.inf
    assert trial.tensors[1].relative == 0.0


def test_what_the_base_has_not_is_relative_to_itself(model):
    base = Base.of({"w": model["w"].T, "b": model["b"]})
    assert strangers(MemoryTensors(model), base) == ["w", "steps"]
    changes = changes_of(MemoryTensors(model), base)
    assert changes["w"] == pytest.approx(float(np.sqrt(np.mean(model["w"].astype(np.float64) ** 2))))
    assert changes["b"] == 0.0


def test_values_that_are_no_numbers_have_no_error():
    model = {"t": np.array(["2020-01-01", "NaT"], "M8[D]"), "w": np.ones((3, 3), np.float32)}
    assert changes_of(MemoryTensors(model), None)["t"] is None
    trial = attempt("dense | numpy", model)
    assert (trial.tensors[0].relative, trial.tensors[0].max_abs, trial.exact) == (None, None, True)


def test_root_mean_square_is_of_finite_values():
    arrays = {
        "nan": np.array([3.0, np.nan, 4.0, np.inf]),
        "huge": np.full(4, 1e300),
        "complex": np.array([3 + 4j]),
        "none": np.zeros((0, 2)),
    }
    source = MemoryTensors(arrays)
    found = {spec.name: root_mean_square(source, spec) for spec in source.specs}
    assert found == {
        "nan": pytest.approx(2.5),
        "huge": pytest.approx(1e300),
        "complex": pytest.approx(5.0),
        "none": 0.0,
    }


def test_refusals_are_the_codecs(model, base):
    with pytest.raises(ConfigError, match="needs a base"):
        attempt("uq(2)", model)
    model["w"][0, 0] = np.nan
    with pytest.raises(EncodeError, match="w"):
        attempt("uq(2)", model, base)


def test_progress_is_told_to_its_end(model):
    told = []
    attempt("dense", model, repeat=2, tell=lambda *step: told.append(step))
    assert [what for what, _, _ in told] == ["encoding", "encoding", "decoding", "decoding", "comparing"]
    assert [done for _, done, _ in told] == [0, 1, 2, 3, 4]
    assert {steps for _, _, steps in told} == {5}


def test_a_model_without_tensors():
    trial = attempt("dense", {})
    assert (trial.raw, trial.ratio, trial.exact, trial.relative) == (0, 0.0, True, 0.0)
