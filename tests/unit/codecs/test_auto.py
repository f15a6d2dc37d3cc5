"""``auto``: the budget, what was picked, how often is coded, and what is booked."""

from __future__ import annotations

import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpost.codecs import Auto, Base, Uq, parse_codec
from fedpost.codecs.auto import LADDER, Picked, encoded_size
from fedpost.errors import ConfigError, DecodeError, EncodeError
from fedpost.frame import Frame
from fedpost.pipeline import Pipeline, decode_tensors, picked
from fedpost.tensors import MemoryTensors


def model(seed=0, layers=3, rows=60, columns=40):
    """Changes as they are: rows and columns of very different strength."""
    chance = np.random.default_rng(seed)
    out = {}
    for layer in range(layers):
        strength = np.exp(chance.normal(size=(rows, 1))) * np.exp(chance.normal(size=(1, columns)))
        out[f"{layer}.weight"] = (chance.laplace(size=(rows, columns)) * strength).astype(np.float32)
        out[f"{layer}.bias"] = chance.normal(size=rows).astype(np.float32)
    out["steps"] = np.arange(5)
    return out


def zeros(new):
    return Base.of({name: np.zeros_like(array) for name, array in new.items()})


@pytest.mark.parametrize(
    ("text", "budget", "full"),
    [
        ("1MB/round", 10**6, "1MB"),
        ("1MB", 10**6, "1MB"),
        ("1 MB", 10**6, "1MB"),
        ("1000kB", 10**6, "1MB"),
        ("1.5MB/round", 1_500_000, "1.5MB"),
        ("0.25GB", 250_000_000, "250MB"),
        ("2GB", 2 * 10**9, "2GB"),
        ("1MiB", 1 << 20, "1MiB"),
        ("1.5GiB", 3 << 29, "1536MiB"),
        ("64KiB", 1 << 16, "64KiB"),
        ("1GiB/round", 1 << 30, "1GiB"),
        ("12345B", 12345, "12.345kB"),
        ("1234567B", 1_234_567, "1234.567kB"),
        ("999B", 999, "999B"),
        ("1B", 1, "1B"),
    ],
)
def test_budgets(text, budget, full):
    codec = Auto(text)
    assert codec == Auto(budget) == parse_codec(f"auto({text})") == parse_codec(f"auto(budget={text})")
    assert str(codec) == f"auto(budget={full}/round)"
    assert parse_codec(str(codec)) == codec


@settings(deadline=None)
@given(st.integers(1, 1 << 50))
def test_every_budget_comes_back_from_its_text(budget):
    assert parse_codec(str(Auto(budget))) == Auto(budget)


@pytest.mark.parametrize(
    "budget",
    [
        *(
            "",
            "1",
            "MB",
            "1mb",
            "1 M",
            "-1MB",
            "0MB",
            "0.1B",
            "1e6B",
            "1MB/day",
            "1MB/round/round",
            "nanB",
            "1MB round",
        ),
        *(0, -1, 1.5, True, None, 1 << 60, "9" * 30 + "GB", "999999999999GB", b"1MB", [1]),
    ],
    ids=repr,
)
def test_what_is_no_budget(budget):
    with pytest.raises(ConfigError, match="is not a budget"):
        Auto(budget)


def framed(codec, new, base, residual=None, form="fedwt", compression="none"):
    pipeline = Pipeline.parse(f"{codec} | {form} | {compression}")
    frame, lost = pipeline.encode_update(new, {"metrics": {"loss": 0.5}}, base=base, residual=residual)
    return Frame.decode(bytes(frame)), lost


@pytest.mark.parametrize("form", ["fedwt", "numpy", "json_base64"])
@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_the_whole_frame_is_within_the_budget_and_a_finer_step_would_not_be(form, compression):
    new = model(rows=150, columns=120)
    base = zeros(new)
    sizes = [framed(Uq(scale), new, base, form=form, compression=compression)[0].nbytes for scale in LADDER]
    seen = []
    for share in np.linspace(-0.2, 1.2, 8):
        budget = int(sizes[-1] * (sizes[0] / sizes[-1]) ** share)
        frame, _ = framed(Auto(budget), new, base, form=form, compression=compression)
        got = picked(frame)
        seen.append(got.scale)
        assert got.over == (frame.nbytes > budget)
        if got.over:
            assert got.scale == LADDER[-1]
        elif got.scale != LADDER[0]:
            finer = sizes[LADDER.index(got.scale) - 1]
            assert finer + 100 > budget, "it has a few more notes"
    assert len(set(seen)) > 5


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 8), st.integers(2, 60), st.integers(1, 50), st.floats(-0.1, 1.1))
def test_a_finer_step_would_be_over_the_budget(seed, layers, rows, columns, share):
    new = model(seed, layers, rows, columns)
    base = zeros(new)
    tried = {}

    def measure(encoding):
        """Exactly what was measured for each step."""
        tried[encoding.notes["scale"]] = size = encoded_size(encoding)
        return size

    least, most = (encoded_size(Uq(scale).encode(new, base)) for scale in (LADDER[-1], LADDER[0]))
    budget = max(int(least * (most / least) ** share), 1)
    encoding = Auto(budget).encode_within(new, base, None, measure)
    scale, nbytes, over = Picked.of(encoding.notes)
    assert nbytes == sum(array.nbytes for array in encoding.tensors.values())
    assert encoded_size(encoding) == tried[scale]
    assert over == (tried[scale] > budget)
    if over:
        assert scale == LADDER[-1]
    elif scale != LADDER[0]:
        assert tried[LADDER[LADDER.index(scale) - 1]] > budget


def test_few_encodings_are_enough():
    counts = []
    for seed in range(12):
        new = model(seed, 4, 50 + 20 * seed, 40)
        base = zeros(new)
        least, most = (encoded_size(Uq(scale).encode(new, base)) for scale in (LADDER[-1], LADDER[0]))
        for share in np.linspace(0, 1, 6):
            tries = []
            budget = int(least * (most / least) ** share)
            Auto(budget).encode_within(
                new, base, None, lambda encoding, tries=tries: tries.append(1) or encoded_size(encoding)
            )
            counts.append(len(tries))
    assert np.mean(counts) <= 3


def test_it_is_what_uq_makes_of_that_step():
    new = model(rows=100, columns=80)
    base = zeros(new)
    residual = {name: np.full(array.shape, 0.01, np.float32) for name, array in new.items() if name != "steps"}
    encoding = Auto(3000).encode(new, base, residual)
    plain = Uq(encoding.notes["scale"]).encode(new, base, residual)
    assert encoding.notes["steps"] == plain.notes["steps"]
    for name in new:
        assert encoding.tensors[name].tobytes() == plain.tensors[name].tobytes()
    assert set(encoding.residual) == set(plain.residual)
    for name, array in plain.residual.items():
        np.testing.assert_array_equal(encoding.residual[name], array)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_what_rounding_loses_is_booked_as_in_uq(dtype):
    new = {"w": model()["0.weight"].astype(dtype)}
    base = Base.of({"w": np.full((60, 40), 3, dtype)})
    encoding = Auto(1500).encode(new, base)
    plain = Uq(encoding.notes["scale"]).encode(new, base)
    np.testing.assert_array_equal(encoding.residual["w"], plain.residual["w"])


def test_over_the_budget_is_told():
    new = model()
    frame, _ = framed(Auto(10), new, zeros(new))
    assert picked(frame).scale == 16.0
    assert picked(frame).over
    assert decode_tensors(frame, base=zeros(new)).arrays()["steps"].tobytes() == new["steps"].tobytes()


def test_room_enough_is_the_finest_and_one_encoding():
    tries = []
    new = model()
    encoding = Auto(10**9).encode_within(new, zeros(new), None, lambda encoding: tries.append(1) or 5)
    assert (encoding.notes["scale"], len(tries)) == (0.5, 1)


@pytest.mark.parametrize("new", [{}, {"n": np.arange(3)}, {"w": np.zeros((4, 4), np.float32)}, {"w": np.zeros((0, 4))}])
def test_updates_without_a_change(new):
    frame, _ = framed(Auto(5000), new, zeros(new))
    assert not picked(frame).over
    for name, array in decode_tensors(frame, base=zeros(new)).arrays().items():
        np.testing.assert_array_equal(array, new[name])


@pytest.mark.parametrize(("one", "rest"), [(1e30, 1e-30), (1e-44, 0), (1e-40, 1e-42), (3e38, 1e38), (1.0, 1e-45)])
def test_values_of_extreme_sizes(one, rest):
    """As in ``uq`` they are coded, or refused by name."""
    new = {"w": np.full((64, 64), rest, np.float32)}
    new["w"][0, 0] = one
    try:
        encoding = Auto(100).encode(new, zeros(new))
    except EncodeError as error:
        assert error.where == "tensor 'w'"  # noqa: PT017 - it may also be coded
        return
    got = Auto(100).decode(MemoryTensors(encoding.tensors), encoding.notes, zeros(new)).arrays()["w"]
    np.testing.assert_allclose(got + encoding.residual["w"], new["w"], rtol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_refused_by_name(value):
    new = {"v": np.ones((2, 2), np.float32), "w": np.array([[1, value]], np.float32)}
    with pytest.raises(EncodeError, match="tensor 'w'"):
        Auto(5000).encode(new, zeros(new))


def test_pipelines_of_other_codecs_have_picked_nothing():
    new = model()
    for text in ("dense", "uq(2)", '{"*": uq(2)}', '{"nothing": auto(1MB)}'):
        assert picked(framed(text, new, zeros(new))[0]) is None
    by_pattern, _ = framed('{"*.bias": none, "*": auto(2.3kB)}', new, zeros(new))
    assert picked(by_pattern).scale in LADDER[1:-1]
    assert by_pattern.nbytes <= 2300
    assert not picked(by_pattern).over


def test_notes_that_are_no_choice_are_refused():
    new = model()
    base = zeros(new)
    encoding = Auto(3000).encode(new, base)
    wrong = {
        "scale": [None, 1, "1", 0.49, 17.0, np.nan, np.inf, -1.0, True],
        "nbytes": [None, 1.0, -1, True, encoding.notes["nbytes"] + 1, 2**64, "1"],
        "over": [None, 0, 1, "no"],
    }
    for name, values in wrong.items():
        for value in values:
            with pytest.raises(DecodeError):
                Auto(3000).decode(MemoryTensors(encoding.tensors), {**encoding.notes, name: value}, base)


def test_nothing_but_the_account_is_left_over():
    """No more than the change, one tensor and what is coded at any time; afterwards the account alone."""
    new = {
        f"{number}": np.random.default_rng(number).laplace(size=(1024, 512)).astype(np.float32) for number in range(8)
    }
    base = zeros(new)
    size = sum(array.nbytes for array in new.values())
    Auto(200_000).encode({"w": new["0"][:9]}, Base.of({"w": new["1"][:9]}))
    tracemalloc.start()
    encoding = Auto(200_000).encode(new, base)
    left, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert not encoding.notes["over"]
    assert left < size + 400_000
    assert peak < 1.7 * size
