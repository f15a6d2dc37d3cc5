"""Whole runs in one process: a server, site hosts with real clients, and what each is promised."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

import fedpost
from fedpost.checksums import CHECKSUMS
from fedpost.codecs import CODECS
from fedpost.errors import ConfigError, RunError
from fedpost.federation import EvaluateRes, FedAvg, FitRes
from fedpost.pipeline import Pipeline
from fedpost.protocol import PAYLOADS, MessageType, Offer, StatusUpdate, decode_message, own_offer
from fedpost.tensors import FORMATS


def model(fill=0.0):
    return {"w": np.full((2, 3), fill, np.float32), "steps": np.array(0, np.int64)}


class Plus(fedpost.NumPyClient):
    """Adds a number to everything."""

    def __init__(self, number, examples=1):
        self.number, self.examples = number, examples

    def get_parameters(self, config):
        return model(self.number)

    def fit(self, parameters, config):
        return [array + array.dtype.type(self.number) for array in parameters], self.examples, {"number": self.number}

    def evaluate(self, parameters, config):
        return float(parameters[0].mean()) + self.number, self.examples, {"number": self.number}


class Answers(fedpost.NumPyClient):
    """Gives back whatever it was told to."""

    def __init__(self, give):
        self.give = give

    def fit(self, parameters, config):
        return self.give(parameters)


def run(federation, clients, strategy=None, **settings):
    """A run with one host a client; return its result."""
    strategy = strategy or FedAvg(initial_parameters=model(), min_available_clients=len(clients))
    federation.serve(strategy, **settings)
    hosts = [federation.host({name: lambda _name, client=client: client}) for name, client in clients.items()]
    result = federation.result()
    for host in hosts:
        assert host.result().status == "finished"
    return result


# ── rounds ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_results_are_averaged_by_examples_and_the_model_is_on_disk(federation):
    result = run(federation, {"a": Plus(1, examples=3), "b": Plus(5, examples=1)}, rounds=3)
    assert result.status == "finished"
    assert [report.sites for report in result.history] == [0, 2, 2, 2]
    assert [report.fit_metrics.get("number") for report in result.history] == [None, 2.0, 2.0, 2.0]
    saved = fedpost.load_tensors(federation.folder / "model.fedwt")
    assert list(saved) == ["w", "steps"]
    assert {name: (array.dtype.name, array.shape) for name, array in saved.items()} == {
        "w": ("float32", (2, 3)),
        "steps": ("int64", ()),
    }
    assert np.array_equal(saved["w"], np.full((2, 3), 6.0))
    assert saved["steps"] == 6
    assert sorted(path.name for path in federation.folder.iterdir()) == ["model.fedwt"], "the spool is still there"


def test_sites_of_one_process_share_an_endpoint(federation):
    federation.serve(FedAvg(initial_parameters=model(), min_available_clients=3), rounds=2)
    host = federation.host({name: lambda name: Plus(int(name[1])) for name in ("s1", "s2", "s3")})
    assert np.array_equal(federation.result().parameters.arrays()["w"], np.full((2, 3), 4.0))
    assert host.result().status == "finished"


def test_clients_are_made_once_and_only_when_needed(federation):
    made = []

    def make(name):
        made.append(name)
        return Plus(1)

    federation.serve(FedAvg(initial_parameters=model(), fraction_fit=0.5, min_available_clients=4), rounds=1, seed=3)
    hosts = [federation.host({name: make}) for name in ("a", "b", "c", "d")]
    federation.result()
    for host in hosts:
        host.result()
    assert len(made) == len(set(made)) == 2


def test_a_server_without_parameters_asks_the_first_site_that_has_some(federation):
    class Poor(Plus):
        def get_parameters(self, config):
            raise NotImplementedError("none here")

    result = run(federation, {"a": Poor(1), "b": Plus(7)}, FedAvg(min_available_clients=2))
    assert np.array_equal(result.parameters.arrays()["w"], np.full((2, 3), 7.0 + 4.0))
    assert "none here" in federation.records.reasons("site_failed", "a")[0]


def test_a_server_that_nobody_gives_parameters_fails_and_tells_the_sites(federation):
    federation.serve(FedAvg())
    host = federation.host({"a": lambda _name: Answers(None)})
    with pytest.raises(RunError, match="no site has initial parameters"):
        federation.result()
    end = host.result()
    assert (end.status, "no site has initial parameters" in end.reason) == ("failed", True)


def test_the_sites_evaluate_the_new_model(federation):
    strategy = FedAvg(
        initial_parameters=model(),
        fraction_evaluate=1.0,
        min_available_clients=2,
        on_evaluate_config_fn=lambda number: {"round": number},
    )
    result = run(federation, {"a": Plus(1, examples=1), "b": Plus(2, examples=3)}, strategy, rounds=2)
    # Each round adds (1 + 3 * 2) / 4; a site's loss is the mean of the model plus its number.
    assert [report.loss for report in result.history] == [None, 3.5, 5.25]
    assert result.history[2].metrics["number"] == 1.75
    assert len(federation.records.events("result_accepted")) == 8


def test_the_server_s_evaluation_and_the_sites_are_told_apart(federation):
    strategy = FedAvg(
        initial_parameters=model(),
        fraction_evaluate=1.0,
        evaluate_fn=lambda number, arrays, config: (10.0 + number, {"accuracy": 0.5, "number": -1}),
    )
    result = run(federation, {"a": Plus(1)}, strategy)
    report = result.history[1]
    assert (report.loss, report.metrics) == (11.0, {"accuracy": 0.5, "number": -1})
    assert report.fit_metrics == {"number": 1.0}
    assert report.sites_metrics == {"number": 1.0, "loss": 2.0}
    values = federation.records.events("round_ended")[1].values
    assert (values["loss"], values["number"], values["fit_number"], values["sites_loss"]) == (11.0, -1, 1.0, 2.0)


def test_a_server_that_evaluates_only_some_rounds(federation):
    def evaluate(number, arrays, config):
        return (float(number), {"accuracy": 0.5}) if number == 2 else None

    strategy = FedAvg(initial_parameters=model(), evaluate_fn=evaluate)
    result = run(federation, {"a": Plus(1)}, strategy, rounds=3)
    assert [report.loss for report in result.history] == [None, None, 2.0, None]
    assert result.history[2].metrics == {"accuracy": 0.5}


def test_settings_and_metrics_of_every_type_arrive_as_they_are(federation):
    config = {"flag": True, "off": False, "count": -7, "rate": 0.25, "name": "ß\n", "raw": b"\x00\xff", "big": 2**63}
    seen = {}

    class Echo(fedpost.Client):
        def fit(self, ins):
            seen["fit"] = ins.config
            return FitRes(ins.parameters, 1, dict(ins.config))

        def evaluate(self, ins):
            seen["evaluate"] = ins.config
            return EvaluateRes(0.5, 1, dict(ins.config))

    class Keeping(FedAvg):
        def aggregate_fit(self, server_round, results, failures):
            seen["fit metrics"] = results[0][1].metrics
            return super().aggregate_fit(server_round, results, failures)

        def aggregate_evaluate(self, server_round, results, failures):
            seen["evaluate metrics"] = results[0][1].metrics
            return super().aggregate_evaluate(server_round, results, failures)

    strategy = Keeping(
        initial_parameters=model(),
        fraction_evaluate=1.0,
        on_fit_config_fn=lambda _round: config,
        on_evaluate_config_fn=lambda _round: config,
    )
    assert run(federation, {"a": Echo()}, strategy).status == "finished"
    for name in ("fit", "evaluate", "fit metrics", "evaluate metrics"):
        assert seen[name] == config
        assert {key: type(value) for key, value in seen[name].items()} == {k: type(v) for k, v in config.items()}


def test_numpy_scalars_are_accepted_as_metrics(federation):
    metrics = {
        "f32": np.float32(0.5),
        "f64": np.float64(0.1),
        "i64": np.int64(3),
        "u8": np.uint8(255),
        "flag": np.bool_(True),
        "text": np.str_("x"),
    }
    seen = {}

    class Keeping(FedAvg):
        def aggregate_fit(self, server_round, results, failures):
            seen.update(results[0][1].metrics)
            return super().aggregate_fit(server_round, results, failures)

    client = Answers(lambda parameters: (parameters, np.int64(4), metrics))
    run(federation, {"a": client}, Keeping(initial_parameters=model()))
    assert seen == {"f32": 0.5, "f64": 0.1, "i64": 3, "u8": 255, "flag": True, "text": "x"}
    assert [type(value) for value in seen.values()] == [float, float, int, int, bool, str]
    assert federation.records.events("result_accepted")[0].values["examples"] == 4


# ── clients that fail ────────────────────────────────────────────────────────────────────────────────────────────────


def _raise(error):
    def fit(_parameters):
        raise error

    return fit


FAULTS = {
    "raises": (_raise(RuntimeError("the disk is full")), "RuntimeError: the disk is full"),
    "raises with a surrogate": (_raise(RuntimeError("no file bad\udcff.csv")), "RuntimeError: no file"),
    "raises at length": (_raise(ValueError("x" * 10_000)), "ValueError: xxx"),
    "returns nothing": (lambda _parameters: None, "TypeError"),
    "too few arrays": (lambda parameters: (parameters[:1], 1, {}), "fit returned 1 arrays, the model has 2"),
    "too many arrays": (
        lambda parameters: ([*parameters, parameters[0]], 1, {}),
        "fit returned 3 arrays, the model has 2",
    ),
    "objects": (lambda parameters: ([np.array([object()] * 6), parameters[1]], 1, {}), "tensor"),
    "metric list": (lambda parameters: (parameters, 1, {"m": [1]}), "metric 'm': it is list"),
    "metric none": (lambda parameters: (parameters, 1, {"m": None}), "metric 'm': it is NoneType"),
    "metric array": (lambda parameters: (parameters, 1, {"m": np.zeros(2)}), "metric 'm': it is ndarray"),
    "metric complex": (lambda parameters: (parameters, 1, {"m": np.complex64(1)}), "metric 'm': it is complex64"),
    "metric name": (lambda parameters: (parameters, 1, {3: 1}), "metric 3"),
    "metric too big": (lambda parameters: (parameters, 1, {"m": 2**70}), "EncodeError"),
    "metric surrogate": (lambda parameters: (parameters, 1, {"m": "\udcff"}), "EncodeError"),
    "negative examples": (lambda parameters: (parameters, -1, {}), "examples"),
    "examples none": (lambda parameters: (parameters, None, {}), "TypeError"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_client_s_fault_is_its_site_s_answer_and_both_rounds_go_on(federation, fault):
    give, reason = FAULTS[fault]
    clients = {"bad": Answers(give), "good": Plus(1)}
    result = run(federation, clients, rounds=2, round_timeout=60, attempts=1)
    assert [report.sites for report in result.history] == [0, 1, 1]
    reasons = federation.records.reasons("site_failed", "bad")
    assert len(reasons) == 2, "the site was not asked again, or its process ended"
    assert reason in reasons[0]
    assert not federation.records.events("site_lost")


UNFIT = {
    "text": (lambda p: ([np.array(["a"] * 6), p[1]], 1, {}), "tensor 'w': it is <U1[6]"),
    "shape": (lambda p: ([p[0].T.copy(), p[1]], 1, {}), "tensor 'w': it is float32[3, 2]"),
    "dtype": (lambda p: ([p[0].astype(np.float64), p[1]], 1, {}), "tensor 'w': it is float64[2, 3]"),
    "missing name": (lambda p: ({"w": p[0]}, 1, {}), "tensor 'steps': it is missing"),
    "extra name": (lambda p: ({"w": p[0], "steps": p[1], "x": p[0]}, 1, {}), "tensor 'x': nobody asked"),
    "nan": (lambda p: ([np.full_like(p[0], np.nan), p[1]], 1, {}), "tensor 'w', element 0: it has a NaN"),
    "inf": (
        lambda p: ([np.full_like(p[0], np.inf), p[1]], 1, {}),
        "tensor 'w', element 0: it has a NaN or an infinity",
    ),
}


@pytest.mark.parametrize("fault", UNFIT)
def test_a_result_that_does_not_fit_is_refused_and_both_rounds_go_on(federation, fault):
    give, reason = UNFIT[fault]
    result = run(federation, {"bad": Answers(give), "good": Plus(1)}, rounds=2, round_timeout=60, attempts=1)
    assert [report.sites for report in result.history] == [0, 1, 1]
    reasons = federation.records.reasons("result_refused", "bad")
    assert len(reasons) == 2
    assert reason in reasons[0]


class NumPyScalars(fedpost.Client):
    """Measures with NumPy, as people do."""

    def fit(self, ins):
        return FitRes(ins.parameters, np.int64(5), {})

    def evaluate(self, ins):
        return EvaluateRes(np.float32(0.5), np.int64(5), {})


def test_numpy_scalars_are_accepted_for_examples_and_loss(federation):
    strategy = FedAvg(initial_parameters=model(), fraction_evaluate=1.0)
    result = run(federation, {"a": NumPyScalars()}, strategy)
    assert (result.history[1].sites, result.history[1].loss) == (1, 0.5)


def test_a_client_that_cannot_be_made_is_its_site_s_answer(federation):
    def make(_name):
        raise FileNotFoundError("no share for this site")

    federation.serve(FedAvg(initial_parameters=model(), min_available_clients=2))
    hosts = [federation.host({"bad": make}), federation.host({"good": lambda _name: Plus(1)})]
    assert federation.result().history[1].sites == 1
    for host in hosts:
        host.result()
    assert "no share for this site" in federation.records.reasons("site_failed", "bad")[0]


def test_failures_are_given_to_the_strategy_with_their_reasons(federation):
    seen = []

    class Keeping(FedAvg):
        def aggregate_fit(self, server_round, results, failures):
            seen.extend((client.cid, str(error)) for client, error in failures)
            return super().aggregate_fit(server_round, results, failures)

    clients = {"bad": Answers(_raise(RuntimeError("why"))), "good": Plus(1), "worse": Answers(UNFIT["nan"][0])}
    run(federation, clients, Keeping(initial_parameters=model(), min_available_clients=3))
    assert [cid for cid, _ in seen] == ["bad", "worse"]
    assert "why" in seen[0][1]
    assert "NaN" in seen[1][1]


# ── sites that are silent ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_silent_site_is_left_out_after_the_timeout_and_not_waited_for_again(federation):
    federation.serve(
        FedAvg(initial_parameters=model(), min_fit_clients=1, min_available_clients=2),
        rounds=3,
        round_timeout=60,
    )
    silent = federation.puppet("silent")
    host = federation.host({"good": lambda _name: Plus(1)})
    federation.records.wait("result_accepted", "good")
    federation.time_goes_by()
    result = federation.result()  # so the other two rounds wait for nobody
    host.result()
    assert [report.sites for report in result.history] == [0, 1, 1, 1]
    assert federation.records.reasons("site_lost") == ["no answer within 60 s"]
    assert silent.receive(MessageType.TRAINING_COMMAND).envelope.round == 1
    assert silent.receive(MessageType.TRAINING_COMMAND, MessageType.RUN_END).envelope.type is MessageType.RUN_END


def test_a_slow_site_is_asked_again_when_it_is_ready_and_its_late_answer_does_not_count(federation):
    federation.serve(
        FedAvg(initial_parameters=model(), min_fit_clients=1, min_available_clients=2), rounds=3, round_timeout=60
    )
    slow, good = federation.puppet("slow"), federation.puppet("good")
    late = slow.command()
    good.train(good.command(), model(1.0))
    federation.records.wait("result_accepted", "good")
    federation.time_goes_by()
    second = good.command()  # so the first round is over
    slow.train(late, model(1e6))
    assert (
        "stale: the answer is for round 1.1, now is round 2.1"
        in federation.records.wait("result_refused").values["reason"]
    )
    slow.receive(MessageType.HEALTH_CHECK)
    slow.send(StatusUpdate(state="ready"))
    good.train(second, model(1.0))
    slow.train(slow.command(), model(3.0))
    good.train(good.command(), model(1.0))
    result = federation.result()
    assert [report.sites for report in result.history] == [0, 1, 1, 2]
    assert np.array_equal(result.parameters.arrays()["w"], np.full((2, 3), 2.0))


def test_too_few_results_are_tried_again_and_then_fail_the_run(federation):
    federation.serve(
        FedAvg(initial_parameters=model(), min_fit_clients=2, min_available_clients=2), rounds=1, attempts=3
    )
    hosts = [
        federation.host({"bad": lambda _name: Answers(_raise(RuntimeError("broken")))}),
        federation.host({"good": lambda _name: Plus(1)}),
    ]
    with pytest.raises(
        RunError, match=r"round 1 failed in 3 attempts: . of 2 results needed \(bad: RuntimeError: broken\)"
    ):
        federation.result()
    assert [host.result().status for host in hosts] == ["failed", "failed"]
    assert len(federation.records.events("round_retried")) == 2
    assert [event.values["attempt"] for event in federation.records.events("round_started")] == [1, 2, 3]
    assert federation.records.events("run_ended")[0].values["status"] == "failed"
    assert np.array_equal(fedpost.load_tensors(federation.folder / "model.fedwt")["w"], model()["w"])


def test_a_retry_is_another_attempt_whose_old_answers_are_stale(federation):
    federation.serve(
        FedAvg(initial_parameters=model(), min_fit_clients=2, min_available_clients=2), attempts=2, round_timeout=60
    )
    one, other = federation.puppet("one"), federation.puppet("other")
    first = one.command()
    other.train(other.command(), {"w": np.zeros(1)})  # it is refused, and too few are left
    federation.records.wait("round_retried")
    one.train(first, model(1e6))
    assert "stale: the answer is for round 1" in federation.records.wait("result_refused", "one").values["reason"]
    again = one.command()
    assert (again.envelope.round, again.envelope.attempt) == (1, 2)
    one.train(again, model(1.0))
    other.train(other.command(), model(1.0))
    assert np.array_equal(federation.result().parameters.arrays()["w"], model(1.0)["w"])


def test_too_few_sites_fail_the_run(federation):
    federation.serve(FedAvg(initial_parameters=model(), min_available_clients=2), register_timeout=60)
    puppet = federation.puppet("only")
    federation.time_goes_by()
    with pytest.raises(RunError, match=r"\b1\b.*\b2\b"):
        federation.result()
    assert puppet.receive(MessageType.RUN_END).body.status == "failed"


def test_a_site_that_leaves_is_dropped_at_once_and_may_come_back(federation):
    federation.serve(
        FedAvg(initial_parameters=model(), min_fit_clients=1, min_available_clients=2), rounds=2, round_timeout=60
    )
    leaver, good = federation.puppet("leaver"), federation.puppet("good")
    leaver.command()
    leaver.send(StatusUpdate(state="leaving"))
    federation.records.wait("site_lost", "leaver")
    back = leaver.register(session="leaver-2")
    assert back.body.agreement is not None
    good.train(good.command(), model(1.0))
    leaver.train(leaver.command(), model(3.0))
    good.train(good.command(), model(1.0))
    assert [report.sites for report in federation.result().history] == [0, 1, 2]


def test_a_site_that_starts_again_within_a_round_takes_part_from_the_next(federation):
    federation.serve(
        FedAvg(initial_parameters=model(), min_fit_clients=1, min_available_clients=2), rounds=2, round_timeout=60
    )
    restarted, good = federation.puppet("restarted"), federation.puppet("good")
    before = restarted.command()
    restarted.register(session="restarted-2")
    restarted.train(before, model(1e6))  # of its former life
    federation.records.wait("result_refused", "restarted")
    good.train(good.command(), model(1.0))
    restarted.train(restarted.command(), model(3.0))
    good.train(good.command(), model(1.0))
    result = federation.result()
    assert [report.sites for report in result.history] == [0, 1, 2]
    assert np.array_equal(result.parameters.arrays()["w"], model(2.0)["w"])


@pytest.mark.parametrize(("older", "stale"), [(5.0, True), (1e5, False)], ids=["held up", "clock set back"])
def test_a_registration_of_an_earlier_start_is_stale(federation, older, stale):
    federation.serve(FedAvg(initial_parameters=model(), min_available_clients=2), round_timeout=60)
    one = federation.puppet("one")
    one.send(_registration(one, "one-0"), run="", sent=time.time() - older)
    if stale:
        assert "an earlier start" in federation.records.wait("message_refused", "one").values["reason"]
    else:
        federation.records.wait("site_joined", "one", 2)
    other = federation.puppet("other")
    one.train(one.command(), model(1.0))
    other.train(other.command(), model(1.0))
    federation.result()
    assert len(federation.records.events("site_joined", "one")) == (1 if stale else 2)


def test_a_registration_of_an_earlier_start_is_stale_once_the_site_has_left_too(federation):
    federation.serve(FedAvg(initial_parameters=model(), min_available_clients=2))
    one = federation.puppet("one")
    one.send(StatusUpdate(state="leaving"))
    federation.records.wait("site_lost", "one")
    one.send(_registration(one, "one-0"), run="", sent=time.time() - 5)
    assert "an earlier start" in federation.records.wait("message_refused", "one").values["reason"]


def test_a_registration_said_twice_is_answered_once(federation):
    federation.serve(FedAvg(initial_parameters=model(), min_available_clients=2))
    one = federation.puppet("one")
    one.send(_registration(one), run="")
    two = federation.puppet("two")
    one.train(one.command(), model(1.0))
    two.train(two.command(), model(1.0))
    assert federation.result().history[1].sites == 2
    assert len(federation.records.events("site_joined", "one")) == 1


def _registration(puppet, session=None):
    from fedpost.protocol import Registration

    return Registration(address=puppet.name, session=session or f"{puppet.name}-1", offer=own_offer())


def test_a_late_site_takes_part_from_the_next_round(federation):
    federation.serve(FedAvg(initial_parameters=model()), rounds=2, round_timeout=60)
    early = federation.puppet("early")
    command = early.command()
    late = federation.puppet("late")
    early.train(command, model(1.0))
    early.train(early.command(), model(1.0))
    late.train(late.command(), model(3.0))
    assert [report.sites for report in federation.result().history] == [0, 1, 2]


# ── what is agreed ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_payload_travels_as_agreed_and_a_site_that_knows_less_gets_the_plain_one(federation):
    pipelines = {
        "FitIns": Pipeline.parse("dense | numpy | zstd(3)", checksum="xxh3"),
        "FitRes": Pipeline.parse("cast(bfloat16) | fedwt | lz4(0)", checksum="xxh3"),
        "EvaluateIns": Pipeline.parse("cast(float16) | fedwt | none", checksum="xxh3"),
    }
    federation.serve(
        FedAvg(initial_parameters=model(1.0), fraction_evaluate=1.0, min_available_clients=2), pipelines=pipelines
    )
    rich, poor = federation.puppet("rich"), federation.puppet("poor", register=False)
    poor.register(Offer(frame=1, updates=["dense"], formats=["fedwt"], compressions=[], checksums=["blake3"]))
    asked = {puppet.name: puppet.command() for puppet in (rich, poor)}
    assert asked["rich"].frame.section("pipeline", str) == "dense | numpy | zstd(3)"
    assert asked["rich"].frame.checksum == "xxh3"
    assert asked["poor"].frame.section("pipeline", str) == "dense | fedwt | none"
    assert asked["poor"].frame.checksum == "blake3"
    for command in asked.values():
        assert np.array_equal(command.tensors().arrays()["w"], model(1.0)["w"])
    rich.train(asked["rich"], pipeline=pipelines["FitRes"])
    poor.train(asked["poor"])
    evaluate = {puppet.name: puppet.command() for puppet in (rich, poor)}
    assert evaluate["rich"].frame.section("pipeline", str) == "cast(float16) | fedwt | none"
    assert evaluate["rich"].tensors().arrays()["w"].dtype == np.float32
    assert evaluate["poor"].frame.section("pipeline", str) == "dense | fedwt | none"
    for puppet in (rich, poor):
        puppet.evaluate(evaluate[puppet.name], 0.5)
    result = federation.result()
    assert (result.history[1].sites, result.history[1].loss) == (2, 0.5)
    assert np.array_equal(result.parameters.arrays()["w"], model(1.0)["w"])


def test_a_site_that_offers_nothing_usable_is_refused_with_the_reason(federation):
    federation.serve(FedAvg(initial_parameters=model()), round_timeout=60)
    useless = federation.puppet("useless", register=False)
    reply = useless.register(Offer(frame=1, updates=["dense"], formats=["own"], compressions=[], checksums=["blake3"]))
    assert reply.body.agreement is None
    assert "the format fedwt" in reply.body.reason
    assert "the format fedwt" in federation.records.wait("message_refused").values["reason"]
    good = federation.puppet("good")
    good.train(good.command())
    assert federation.result().history[1].sites == 1


def test_a_host_that_is_refused_ends_with_the_reason(federation, monkeypatch):
    monkeypatch.setattr(
        "fedpost.federation.host.own_offer",
        lambda: Offer(frame=2, updates=list(CODECS), formats=list(FORMATS), compressions=[], checksums=list(CHECKSUMS)),
    )
    federation.serve(FedAvg(initial_parameters=model()), register_timeout=60)
    host = federation.host({"old": lambda _name: Plus(1)})
    with pytest.raises(RunError, match=r"old: the server refused the site: .*frames of version 2"):
        host.result()
    good = federation.puppet("good")
    good.train(good.command())
    federation.result()


@pytest.mark.parametrize("spec", ["dense | numpy | gzip(1)", "cast(float16) | fedwt | lz4(3)"])
def test_runs_with_other_pipelines_end_with_the_same_model(federation, spec):
    pipelines = dict.fromkeys(PAYLOADS, Pipeline.parse(spec, checksum="crc32c"))
    result = run(federation, {"a": Plus(1), "b": Plus(3)}, rounds=2, pipelines=pipelines)
    assert np.array_equal(result.parameters.arrays()["w"], model(4.0)["w"])


# ── accounting ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Scales:
    """An endpoint that weighs every frame."""

    def __init__(self, inner):
        self.inner = inner
        self.address, self.guarantees, self.close = inner.address, inner.guarantees, inner.close
        self.sent: list[tuple[str, int]] = []
        self.received: list[tuple[str, int]] = []

    def send(self, address, frame):
        data = bytes(frame)
        self.sent.append((decode_message(memoryview(data)).envelope.type.value, len(data)))
        return self.inner.send(address, frame)

    def receive(self, timeout):
        delivery = self.inner.receive(timeout)
        if delivery is not None:
            kind = decode_message(delivery.data).envelope.type.value
            self.received.append((kind, delivery.data.nbytes))
        return delivery


def weighed(federation):
    """A run over scales, with every kind of message in it."""
    scales = Scales(federation.endpoint("server"))
    strategy = FedAvg(initial_parameters=model(), fraction_evaluate=1.0, min_available_clients=3)
    pipelines = dict.fromkeys(PAYLOADS, Pipeline.parse("dense | fedwt | zstd(3)"))
    federation.serve(strategy, endpoint=scales, rounds=2, pipelines=pipelines)
    kept = []
    clients = {"a": Plus(1), "b": Plus(2), "bad": Answers(_raise(RuntimeError("no")))}
    hosts = [
        federation.host({name: lambda _name, c=client: c}, on_model=lambda site, model: kept.append(site))
        for name, client in clients.items()
    ]
    federation.result()
    for host in hosts:
        host.result()
    assert sorted(kept) == ["a", "b", "bad"]
    return scales


def by_kind(pairs):
    return {
        kind: sum(size for _, size in group) for kind, group in itertools.groupby(sorted(pairs), lambda pair: pair[0])
    }


def test_the_ledger_s_bytes_down_are_the_sizes_of_the_frames_sent(federation):
    scales = weighed(federation)
    recorded = by_kind([(one.message, one.stored) for one in federation.records.transfers("down")])
    assert recorded == by_kind(scales.sent)
    assert set(recorded) == {
        "registration_reply",
        "training_command",
        "evaluation_command",
        "aggregation_result",
        "run_end",
    }


def test_the_ledger_s_bytes_up_are_the_sizes_of_the_results_received(federation):
    scales = weighed(federation)
    recorded = by_kind([(one.message, one.stored) for one in federation.records.transfers("up")])
    received = by_kind(scales.received)
    for kind in ("weight_update", "evaluation_result"):
        assert recorded[kind] == received[kind]


def test_the_ledger_counts_every_message_that_came_up(federation):
    scales = weighed(federation)
    recorded = by_kind([(one.message, one.stored) for one in federation.records.transfers("up")])
    assert recorded == by_kind(scales.received)


def test_the_ledger_counts_each_tensor_for_each_round_and_site(federation):
    weighed(federation)
    for direction, message in (("down", "training_command"), ("up", "weight_update")):
        rows = [one for one in federation.records.transfers(direction) if one.message == message and one.tensor]
        sites = ("a", "b", "bad") if direction == "down" else ("a", "b")
        wanted = sorted((number, site, tensor) for number in (1, 2) for site in sites for tensor in ("steps", "w"))
        assert sorted((one.round, one.site, one.tensor) for one in rows) == wanted
        assert {one.raw for one in rows if one.tensor == "w"} == {24}
        assert {one.raw for one in rows if one.tensor == "steps"} == {8}


def test_the_ledger_has_the_stages_of_sites_and_server(federation):
    weighed(federation)
    spans = [record for record in federation.records.all if hasattr(record, "stage")]
    on_sites = {(span.site, span.round, span.stage) for span in spans if span.site}
    for site, number in itertools.product("ab", (1, 2)):
        for stage in ("decode", "train", "encode", "evaluate", "send", "spool"):
            assert (site, number, stage) in on_sites
    assert {"encode", "wait", "aggregate", "evaluate", "verify", "save"} <= {
        span.stage for span in spans if not span.site
    }
    assert all(span.seconds >= 0 for span in spans)


# ── settings that cannot work ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("initial", [{}, {"w": np.array(["a"])}])
def test_an_initial_model_that_cannot_be_averaged_is_an_error_at_once(federation, initial):
    federation.serve(FedAvg(initial_parameters=initial))
    federation.puppet("a")
    with pytest.raises(ConfigError, match=r"no parameters|cannot be averaged"):
        federation.result()


def test_the_sites_are_told_when_the_strategy_fails(federation):
    class Broken(FedAvg):
        def aggregate_fit(self, server_round, results, failures):
            raise ZeroDivisionError("in the strategy")

    federation.serve(Broken(initial_parameters=model()))
    host = federation.host({"a": lambda _name: Plus(1)})
    with pytest.raises(ZeroDivisionError):
        federation.result()
    end = host.result()
    assert (end.status, end.reason) == ("failed", "ZeroDivisionError: in the strategy")


def test_a_strategy_that_keeps_the_old_model_may(federation):
    class Keeping(FedAvg):
        def aggregate_fit(self, server_round, results, failures):
            return None, {"kept": True}

    result = run(federation, {"a": Plus(1)}, Keeping(initial_parameters=model(9.0)), rounds=2)
    assert np.array_equal(result.parameters.arrays()["w"], model(9.0)["w"])
    assert result.history[2].fit_metrics == {"kept": True}
