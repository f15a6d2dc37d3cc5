"""The reduction: the same bits in every order, checked results, and a spool that forgets."""

from __future__ import annotations

import itertools

import ml_dtypes
import numpy as np
import pytest

from fedpost.errors import ConfigError, RefusedResultError
from fedpost.federation import ClientProxy, EvaluateRes, FedAvg, FitRes, Parameters
from fedpost.federation.aggregation import Spool, WeightedMean, check_result, reduce_blocks
from fedpost.federation.peers import Available, Peer
from fedpost.federation.types import plain_metrics
from fedpost.frame import DEFAULT_LIMITS
from fedpost.pipeline import Pipeline, decode_tensors
from fedpost.protocol import Session, SessionState
from fedpost.tensors import MemoryTensors, TensorSpec

# Sums of these depend on the order in which they are added.
UNEASY = [1e16, 1.0, -1e16, 3.0]


def results(values=UNEASY, dtype=np.float64):
    return [
        (ClientProxy(f"site-{index}"), FitRes(Parameters.of({"w": np.full(3, value, dtype)}), 1, {"m": value}))
        for index, value in enumerate(values)
    ]


def test_the_values_are_uneasy():
    assert len({sum(order) for order in itertools.permutations(UNEASY)}) > 1


def test_a_permuted_aggregate_fit_gives_the_same_bits():
    seen = set()
    for order in itertools.permutations(results()):
        parameters, metrics = FedAvg().aggregate_fit(1, list(order), [])
        seen.add((parameters.arrays()["w"].tobytes(), metrics["m"]))
    assert len(seen) == 1


def test_a_permuted_aggregate_evaluate_gives_the_same_loss():
    answers = [(ClientProxy(f"s{i}"), EvaluateRes(value, 1, {"m": value})) for i, value in enumerate(UNEASY)]
    seen = {str(FedAvg().aggregate_evaluate(1, list(order), [])) for order in itertools.permutations(answers)}
    assert len(seen) == 1


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))), ids=lambda order: "".join(map(str, order)))
def test_results_that_arrive_in_any_order_give_the_same_model(federation, order):
    start = {"w": np.zeros(3, np.float64)}
    federation.serve(FedAvg(initial_parameters=start, min_available_clients=4), round_timeout=60)
    puppets = [federation.puppet(f"site-{index}") for index in range(4)]
    commands = [puppet.command() for puppet in puppets]
    for count, index in enumerate(order, 1):
        puppets[index].train(commands[index], {"w": np.full(3, UNEASY[index])}, metrics={"m": UNEASY[index]})
        federation.records.wait("result_accepted", count=count)
    result = federation.result()
    wanted, metrics = FedAvg().aggregate_fit(1, results(), [])
    assert result.parameters.arrays()["w"].tobytes() == wanted.arrays()["w"].tobytes()
    assert result.history[1].fit_metrics == metrics


@pytest.mark.parametrize("block", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "int64", "int8", "uint8", "complex64"])
def test_blocks_of_any_size_give_the_weighted_mean(dtype, block):
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    random = np.random.default_rng(1)
    arrays = [random.integers(0, 100, (4, 5)).astype(kind) for _ in range(3)]
    model = reduce_blocks([Parameters.of({"w": array}) for array in arrays], WeightedMean([1, 2, 5]), block=block)
    wide = np.complex128 if kind.kind == "c" else np.float64
    wanted = sum(array.astype(wide) * weight for array, weight in zip(arrays, (1 / 8, 2 / 8, 5 / 8), strict=True))
    wanted = (np.rint(wanted) if kind.kind in "iu" else wanted).astype(kind)
    found = model.arrays()["w"]
    assert (found.dtype, found.shape) == (kind, (4, 5))
    assert np.array_equal(found.astype(wide), wanted.astype(wide))


def test_booleans_scalars_and_empty_tensors_are_reduced_too():
    arrays = {
        "mask": np.array([True, False, True]),
        "count": np.array(3, np.int32),
        "none": np.zeros((0, 4), np.float32),
    }
    other = {
        "mask": np.array([True, True, False]),
        "count": np.array(6, np.int32),
        "none": np.zeros((0, 4), np.float32),
    }
    model = reduce_blocks([Parameters.of(arrays), Parameters.of(other)], WeightedMean([2, 1])).arrays()
    assert model["mask"].tolist() == [True, False, True]
    assert model["count"] == 4
    assert model["none"].shape == (0, 4)


def test_a_result_without_examples_has_no_weight():
    weighted = [
        (ClientProxy("a"), FitRes(Parameters.of({"w": np.ones(2)}), 0, {"m": 9.0})),
        (ClientProxy("b"), FitRes(Parameters.of({"w": np.zeros(2)}), 4, {"m": 1.0})),
    ]
    parameters, metrics = FedAvg().aggregate_fit(1, weighted, [])
    assert parameters.arrays()["w"].tolist() == [0.0, 0.0]
    assert metrics == {"m": 1.0}
    assert FedAvg().aggregate_fit(1, weighted[:1], []) == (None, {})
    assert FedAvg().aggregate_evaluate(1, [], []) == (None, {})


def test_only_numeric_metrics_are_averaged():
    metrics = {"rate": 0.5, "count": 3, "flag": True, "name": "x", "raw": b"y"}
    one = (ClientProxy("a"), FitRes(Parameters.of({"w": np.zeros(1)}), 1, metrics))
    other = (ClientProxy("b"), FitRes(Parameters.of({"w": np.zeros(1)}), 3, {"rate": 1.5}))
    assert FedAvg().aggregate_fit(1, [one, other], [])[1] == {"rate": 1.25, "count": 3.0}


@pytest.mark.parametrize("settings", [{"fraction_fit": 1.1}, {"fraction_evaluate": -0.1}, {"min_fit_clients": 0}])
def test_settings_of_fedavg_that_cannot_be_are_refused(settings):
    with pytest.raises(ConfigError):
        FedAvg(**settings)


SPECS = (TensorSpec("w", np.dtype(np.float32), (2, 2)), TensorSpec("n", np.dtype(np.int64), ()))
GOOD = {"w": np.ones((2, 2), np.float32), "n": np.array(1)}


def test_a_result_that_fits_passes_whatever_its_order():
    check_result(MemoryTensors(GOOD), SPECS)
    check_result(MemoryTensors(dict(reversed(GOOD.items()))), SPECS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"w": None}, "tensor 'w': it is missing"),
        ({"x": np.zeros(1)}, "tensor 'x': nobody asked for it"),
        ({"w": np.ones((4,), np.float32)}, r"tensor 'w': it is float32\[4\], asked was float32\[2, 2\]"),
        ({"w": np.ones((2, 2), np.float64)}, "tensor 'w': it is float64"),
        ({"w": np.ones((2, 2), ">f4")}, "tensor 'w': it is >f4"),
        ({"n": np.array([1])}, r"tensor 'n': it is int64\[1\]"),
        ({"w": np.array([[1, 2], [3, np.nan]], np.float32)}, "tensor 'w', element 3"),
        ({"w": np.array([[1, np.inf], [3, np.nan]], np.float32)}, "tensor 'w', element 1"),
    ],
)
def test_a_result_that_does_not_fit_is_refused_with_the_place(change, message):
    tensors = {name: array for name, array in (GOOD | change).items() if array is not None}
    with pytest.raises(RefusedResultError, match=message):
        check_result(MemoryTensors(tensors), SPECS)


@pytest.mark.parametrize("index", [0, (1 << 18) - 1, 1 << 18, (1 << 18) + 5])
def test_a_nan_is_found_in_every_block(index):
    array = np.zeros((1 << 18) + 6, np.float32)
    array[index] = np.nan
    with pytest.raises(RefusedResultError, match=f"element {index}:"):
        check_result(MemoryTensors({"w": array}), [TensorSpec("w", array.dtype, array.shape)])


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "complex64", "float16"])
def test_a_nan_is_found_in_every_floating_type(dtype):
    array = np.zeros(5, np.dtype(getattr(ml_dtypes, dtype, dtype)))
    check_result(MemoryTensors({"w": array}), [TensorSpec("w", array.dtype, array.shape)])
    array[3] = np.nan
    with pytest.raises(RefusedResultError, match="element 3"):
        check_result(MemoryTensors({"w": array}), [TensorSpec("w", array.dtype, array.shape)])


@pytest.mark.parametrize("spec", ["dense | fedwt | none", "cast(bfloat16) | numpy | zstd(3)"])
def test_the_spool_gives_back_what_it_got_and_forgets(tmp_path, spec):
    spool = Spool(tmp_path / "spool", DEFAULT_LIMITS)
    frame = Pipeline.parse(spec).encode(GOOD)
    source = decode_tensors(frame)
    kept = spool.add("site-1", frame, source.specs)
    assert kept.specs == source.specs
    assert np.array_equal(kept.arrays()["w"], GOOD["w"])
    assert np.array_equal(kept.read("w", 1, 3), [1.0, 1.0])
    again = spool.add(
        "site-1",
        Pipeline.parse(spec).encode({name: np.asarray(array * 2) for name, array in GOOD.items()}),
        source.specs,
    )
    assert np.array_equal(again.arrays()["w"], GOOD["w"] * 2)
    assert len(list((tmp_path / "spool").iterdir())) == 1
    spool.clear()
    assert list((tmp_path / "spool").iterdir()) == []
    spool.remove()
    assert not (tmp_path / "spool").exists()


# ── who can be asked ─────────────────────────────────────────────────────────────────────────────────────────────────


def peers(**states):
    return {name: Peer(name, name, "s", wants_model=False, session=Session(state)) for name, state in states.items()}


def test_only_ready_sites_are_available_and_in_order():
    known = peers(**{f"s{index}": state for index, state in enumerate(SessionState)}, a=SessionState.READY)
    ready = f"s{list(SessionState).index(SessionState.READY)}"
    assert list(Available(known, (0,)).all()) == ["a", ready]
    assert Available(known, (0,)).num_available() == 2


def test_draws_are_seeded_sorted_and_without_repetition():
    known = peers(**{f"s{index}": SessionState.READY for index in range(9)})
    draws = [[client.cid for client in Available(known, (1, number)).sample(4)] for number in range(20)]
    assert draws == [[client.cid for client in Available(known, (1, number)).sample(4)] for number in range(20)]
    assert all(draw == sorted(set(draw)) and len(draw) == 4 for draw in draws)
    assert len({tuple(draw) for draw in draws}) > 5
    assert set().union(*draws) == set(known)


def test_too_few_sites_are_nobody_and_fewer_than_wanted_are_all():
    known = peers(a=SessionState.READY, b=SessionState.READY)
    assert Available(known, (0,)).sample(3) == []
    assert Available(known, (0,)).sample(3, 2) == [ClientProxy("a"), ClientProxy("b")]
    assert Available(known, (0,)).sample(1, 3) == []
    assert Available(known, (0,)).sample(2, 1, lambda client: client.cid == "b") == [ClientProxy("b")]


@pytest.mark.parametrize("count", [1, 3, 10])
def test_a_fraction_of_the_sites_trains_but_never_fewer_than_the_minimum(count):
    known = peers(**{f"s{index}": SessionState.READY for index in range(count)})
    strategy = FedAvg(fraction_fit=0.3, min_fit_clients=1)
    asked = strategy.configure_fit(1, Parameters.of({"w": np.zeros(1)}), Available(known, (0,)))
    assert len(asked) == max(round(0.3 * count), 1)


def test_plain_metrics_keep_the_type():
    assert plain_metrics({"b": np.bool_(False), "f": np.float16(0.5)}, "metric") == {"b": False, "f": 0.5}
