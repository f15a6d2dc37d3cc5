"""``uq``: the step, how far off a value may be, and what is sent of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fedpost.codecs import Base, Uq, parse_codec
from fedpost.errors import EncodeError
from fedpost.tensors import MemoryTensors


def coded(codec, changes, residual=None):
    """The notes, what arrives and what is lost of changes from zero."""
    base = Base.of({name: np.zeros_like(array) for name, array in changes.items()})
    encoding = codec.encode(changes, base, residual)
    return encoding.notes, codec.decode(MemoryTensors(encoding.tensors), encoding.notes, base).arrays(), encoding


def rms(*arrays):
    return float(np.sqrt(np.mean(np.concatenate([array.reshape(-1) for array in arrays]).astype(float) ** 2)))


@pytest.mark.parametrize("scale", [0.5, 1, 2, 3, 4])
def test_one_step_for_all_matrices_and_one_for_each_vector(scale):
    chance = np.random.default_rng(3)
    changes = {
        "m": chance.normal(size=(30, 20)).astype(np.float32),
        "n": (chance.normal(size=(2, 3, 4, 5)) * 9).astype(np.float32),
        "b": (chance.normal(size=50) * 0.1).astype(np.float32),
        "s": np.array(-0.3, np.float32),
        "i": np.arange(9),
        "p": np.ones(3, np.float32),
    }
    steps = coded(Uq(scale), changes)[0]["steps"]
    common = scale / 8 * rms(changes["b"], changes["s"])
    assert steps == pytest.approx([scale * rms(changes["m"], changes["n"]), common, common])
    assert [float(np.float32(step)) for step in steps] == steps


def test_the_step_is_that_of_the_change_and_of_what_was_lost_before():
    change = np.full((4, 4), 3.0, np.float32)
    assert coded(Uq(0.5), {"w": change}, {"w": np.full((4, 4), 1.0, np.float32)})[0]["steps"] == [2.0]
    base = Base.of({"w": np.full((4, 4), 100.0, np.float32)})
    assert Uq(0.5).encode({"w": change + 100}, base).notes["steps"] == [1.5]


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 16])
def test_changes_that_are_all_alike_are_sent_at_once(scale):
    """Each is half a step of two root mean squares, and would stay so however long it waited."""
    signs = np.where(np.arange(600).reshape(20, 30) % 7 < 3, 1, -1).astype(np.float32)
    notes, got, encoding = coded(Uq(scale), {"w": signs * np.float32(0.05)})
    assert notes["steps"] == [float(np.float32(0.05))]
    np.testing.assert_allclose(got["w"], signs * np.float32(0.05), rtol=1e-6)
    np.testing.assert_allclose(encoding.residual["w"], 0, atol=1e-8)


@given(
    arrays.arrays(
        np.float32,
        arrays.array_shapes(min_dims=0, max_dims=3, max_side=40),
        elements=st.floats(-(2.0**60), 2.0**60, width=32),
    ),
    st.floats(0.5, 16),
)
def test_nothing_is_off_by_more_than_half_a_step(change, scale):
    notes, got, encoding = coded(Uq(scale), {"x": change})
    if notes["whole"]:
        assert change.ndim < 2
        assert (change >= 0).all()
        assert got["x"].tobytes() == change.tobytes()
        return
    step = np.float64(notes["steps"][change.ndim < 2])
    error = np.abs(got["x"].astype(float) - change.astype(float))
    # What float32 adds to the rule: a rounding of the quotient and one of the product.
    assert (error <= 0.5 * step + 3e-7 * np.abs(change.astype(float)) + 1e-44).all()
    near = np.abs(change) < np.float32(0.4999) * np.float32(step)
    assert not got["x"][near].any()
    np.testing.assert_allclose(
        encoding.residual["x"], change.astype(float) - got["x"], atol=2e-7 * float(np.abs(change).max()) + 1e-44
    )


def test_vectors_are_finer():
    change = np.random.default_rng(0).normal(size=(1, 4096)).astype(np.float32)
    _, got, _ = coded(Uq(2), {"m": change, "v": change[0].copy()})
    rough, fine = (float(np.abs(got[name] - change).max()) for name in "mv")
    assert fine <= 0.5 * 0.25 * rms(change) * 1.0001 < rough


def test_what_did_not_change_takes_no_bytes():
    _, got, encoding = coded(Uq(2), {"w": np.zeros((50, 60), np.float32), "b": -np.ones(3, np.float32)})
    assert encoding.tensors["w"].nbytes == 0
    assert encoding.notes["steps"] == [0.0, 0.125 * 2]
    assert not got["w"].any()


def test_a_change_below_the_least_step_is_booked():
    """Half of the smallest float32 is no step; the change waits."""
    change = np.zeros((100, 100), np.float32)
    change[0, 0] = 1e-45
    notes, got, encoding = coded(Uq(2), {"w": change})
    assert notes["steps"] == [0.0]
    assert not got["w"].any()
    assert encoding.residual["w"].tobytes() == change.tobytes()


def test_the_greatest_changes_that_float32_holds_are_coded():
    _, got, _ = coded(Uq(16), {"w": np.full((3, 3), 3e38, np.float32)})
    np.testing.assert_allclose(got["w"], 3e38, rtol=1e-6)


def test_changes_that_are_not_finite_are_refused_by_name():
    with pytest.raises(EncodeError, match=r"tensor 'w'.*NaN"):
        coded(Uq(2), {"w": np.array([[1.0, np.nan]], np.float32)})


def test_a_single_value_arrives():
    for shape in ((1, 1), (1,), ()):
        change = np.full(shape, -7.25, np.float32)
        step = 7.25 / (1 if len(shape) == 2 else 4)
        _, got, encoding = coded(Uq(2), {"w": change})
        assert abs(float(got["w"].reshape(-1)[0]) + 7.25) <= 0.67 * step
        np.testing.assert_allclose(got["w"] + encoding.residual["w"], change)


def test_what_is_too_small_to_be_sent_is_sent_once_it_has_added_up():
    """One value is far below the step in every update; after twenty it has arrived all the same."""
    codec, residual = parse_codec("uq(2)"), {}
    change = np.zeros((32, 32), np.float32)
    change[0, 1:] = 1.0
    change[5, 5] = 0.05
    arrived = np.zeros_like(change)
    for _ in range(40):
        _, got, encoding = coded(codec, {"w": change}, residual)
        residual = encoding.residual
        arrived += got["w"]
    assert arrived[5, 5] == pytest.approx(40 * 0.05, abs=0.7)
    np.testing.assert_allclose(arrived + residual["w"], 40 * change, atol=1e-3)


def test_updates_of_a_real_shape_are_small():
    """Rows and columns of very different strength, as gradients have them: some fifty times smaller than float32."""
    chance = np.random.default_rng(1)
    strength = np.exp(1.5 * chance.normal(size=(500, 1))) * np.exp(1.5 * chance.normal(size=(1, 400)))
    change = (chance.laplace(size=(500, 400)) * strength).astype(np.float32)
    _, _, encoding = coded(Uq(2), {"w": change})
    assert encoding.tensors["w"].nbytes * 40 < change.nbytes


def test_vectors_that_are_alike_in_size_have_the_step_of_all_together():
    """Each of at least an eighth of the common root mean square: one step, to the bit, for all of them."""
    chance = np.random.default_rng(7)
    for scale in (0.25, 0.5, 1, 2, 3):
        changes = {
            f"v{size}": (chance.normal(size=size) * 2 ** (size % 3)).astype(np.float32) for size in range(20, 60)
        }
        every = np.concatenate(list(changes.values()))
        assert all(rms(change) >= rms(every) / 8 for change in changes.values())
        squares = sum(float(np.square(change.astype(np.float64)).sum()) for change in changes.values())
        steps = coded(Uq(scale), changes)[0]["steps"]
        assert len(steps) == 1 + len(changes)
        assert len(set(steps[1:])) == 1
        assert steps[1] == pytest.approx(scale / 8 * np.sqrt(squares / every.size), rel=1e-7)


def test_a_small_bias_moves_beside_statistics_that_jump():
    chance, residual = np.random.default_rng(0), {}
    model = {"b": np.zeros(64, np.float32), "running_mean": np.zeros(64, np.float32)}
    for _ in range(10):
        jump = (30 * chance.normal(size=64)).astype(np.float32)
        new = {"b": model["b"] - np.float32(0.01), "running_mean": model["running_mean"] + jump}
        encoding = Uq(2).encode(new, base := Base.of(model), residual)
        residual = encoding.residual
        got = Uq(2).decode(MemoryTensors(encoding.tensors), encoding.notes, base).arrays()
        model = {name: np.array(array) for name, array in got.items()}
    np.testing.assert_allclose(model["b"], -0.1, atol=0.011)


@pytest.mark.parametrize("scale", [1, 2, 3, 16])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_variances_and_scales_stay_what_they_are(scale, dtype):
    """One layer's variances jump, and the small ones of another must not become negative beside them."""
    chance = np.random.default_rng(1)
    old = {
        "conv.weight": np.zeros((4, 4), dtype),
        "bn1.running_var": np.ones(32, dtype),
        "bn2.running_var": np.ones(32, dtype),
        "bn2.weight": np.full(32, 0.01, dtype),
        "bn2.running_mean": np.zeros(32, dtype),
    }
    new = {
        "conv.weight": chance.normal(size=(4, 4)).astype(dtype),
        "bn1.running_var": (900 * chance.random(32)).astype(dtype),
        "bn2.running_var": (0.05 * chance.random(32)).astype(dtype),
        "bn2.weight": np.zeros(32, dtype),
        "bn2.running_mean": chance.normal(size=32).astype(dtype),
    }
    lost = {"bn2.running_var": np.full(32, -5, np.float32)}
    for codec in (Uq(scale), parse_codec("auto(100B)")):
        encoding = codec.encode(new, base := Base.of(old), lost)
        assert encoding.notes["whole"] == ["bn1.running_var", "bn2.running_var", "bn2.weight"]
        assert set(encoding.residual) == {"conv.weight", "bn2.running_mean", "bn2.running_var"}
        got = codec.decode(MemoryTensors(encoding.tensors), encoding.notes, base).arrays()
        for name in encoding.notes["whole"]:
            assert got[name].tobytes() == new[name].tobytes()
    old["bn2.weight"][0] = -1  # a scale that was negative is coded
    assert "bn2.weight" not in Uq(scale).encode(new, Base.of(old)).notes["whole"]


@pytest.mark.parametrize("spec", ["uq(2)", "auto(budget=1MB)"])
def test_what_a_vector_has_lost_is_kept_while_it_is_sent_as_it_is(spec):
    codec = parse_codec(spec)
    old, lost = {"b": np.array([1, 2, 3], np.float32)}, np.array([0.25, -0.5, 0.125], np.float32)
    base = Base.of(old)
    whole = codec.encode({"b": np.array([2, 2, 2], np.float32)}, base, {"b": lost})
    assert whole.notes["whole"] == ["b"]
    np.testing.assert_array_equal(whole.residual["b"], lost)
    coded = codec.encode({"b": np.array([2, -2, 2], np.float32)}, base, whole.residual)
    assert coded.notes["whole"] == []
    got = codec.decode(MemoryTensors(coded.tensors), coded.notes, base).arrays()["b"]
    np.testing.assert_allclose(got + coded.residual["b"], np.array([2, -2, 2], np.float32) + lost, atol=1e-6)
    assert not codec.encode({"b": np.ones((3, 1), np.float32)}, base, {"b": lost}).residual
