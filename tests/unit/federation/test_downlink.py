"""Models on their way down as versions: what each site is sent, what the server believes, and what the ledger says."""

from __future__ import annotations

import numpy as np
import pytest

import fedpost
from fedpost.codecs import Base
from fedpost.federation import FedAvg, FitIns, Parameters
from fedpost.federation.models import Models, parameters_of
from fedpost.federation.state import StateFolder
from fedpost.frame import DEFAULT_LIMITS
from fedpost.pipeline import Pipeline
from fedpost.protocol import (
    PAYLOADS,
    ErrorReport,
    EvaluationResult,
    MessageType,
    Offer,
    StatusUpdate,
    WeightUpdate,
    own_offer,
)
from fedpost.telemetry import Transfer

ROWS = 200


def model(seed=0):
    chance = np.random.default_rng(seed)
    return {"w": chance.normal(size=(ROWS, 60)).astype(np.float32), "steps": np.array(0, np.int64)}


RAW = 4 * 60 * ROWS + 8


def pipelines(spec="uq(2)", **payloads):
    wanted = dict.fromkeys(PAYLOADS, f"{spec} | fedwt | none") | payloads
    return {payload: Pipeline.parse(text) for payload, text in wanted.items()}


class Drifts(fedpost.NumPyClient):
    """Moves at random, and keeps what it was given."""

    def __init__(self, seed=0):
        self.chance, self.seen = np.random.default_rng(seed), []

    def fit(self, parameters, config):
        self.seen.append([array.copy() for array in parameters])
        return [parameters[0] + 0.1 * self.chance.normal(size=(ROWS, 60)).astype(np.float32), parameters[1] + 1], 1, {}

    def evaluate(self, parameters, config):
        self.seen.append([array.copy() for array in parameters])
        return 0.5, 1, {}


def run(federation, clients, strategy=None, *, wanted=None, **settings):
    strategy = strategy or FedAvg(initial_parameters=model(), min_available_clients=len(clients), fraction_evaluate=1.0)
    federation.serve(strategy, pipelines=wanted or pipelines(), **settings)
    finals = {}
    hosts = [
        federation.host({name: lambda _n, c=client: c}, on_model=lambda site, m: finals.__setitem__(site, m.arrays()))
        for name, client in clients.items()
    ]
    result = federation.result()
    for host in hosts:
        assert host.result().status == "finished"
    return result, finals


def down(federation, **labels):
    rows = [row for row in federation.records.transfers("down") if row.tensor is not None]
    return [row for row in rows if all(getattr(row, key) == value for key, value in labels.items())]


def stored(federation, **labels):
    return sum(row.stored for row in down(federation, **labels))


# ── whole runs ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("spec", ["uq(2)", "delta", "eden(2)", "topk(0.1)", "cast(bfloat16) | delta"])
def test_every_site_works_on_the_bits_that_the_server_has(federation, spec):
    clients = {"a": Drifts(1), "b": Drifts(2)}
    result, finals = run(federation, clients, wanted=pipelines(spec), rounds=5)
    here = {name: array.tobytes() for name, array in result.parameters.arrays().items()}
    assert here == {n: a.tobytes() for n, a in fedpost.load_tensors(federation.folder / "model.fedwt").items()}
    for final in finals.values():
        assert {name: array.tobytes() for name, array in final.items()} == here
    assert sorted(finals) == ["a", "b"]
    for one, other in zip(clients["a"].seen, clients["b"].seen, strict=True):
        assert [array.tobytes() for array in one] == [array.tobytes() for array in other]
    assert not federation.records.events("result_refused")
    if "delta" not in spec:  # uncompressed, it is larger than a snapshot
        assert not federation.records.events("model_resent")


def test_the_ledger_tells_what_travelled_beside_what_the_site_has_then(federation):
    run(federation, {"a": Drifts(1), "b": Drifts(2)}, rounds=4)
    assert stored(federation, round=1, message="training_command") > 1.5 * RAW, "two snapshots"
    for number in range(1, 5):
        for message in ("training_command", "evaluation_command"):
            for site in "ab":
                assert sum(row.raw for row in down(federation, round=number, message=message, site=site)) == RAW
    evaluations = [stored(federation, round=number, message="evaluation_command", site="a") for number in range(1, 5)]
    assert all(0 < nbytes < RAW / 20 for nbytes in evaluations)
    # Who has evaluated a model holds it when it is to be trained, or is the final one.
    assert stored(federation, message="training_command") == stored(federation, message="training_command", round=1)
    assert stored(federation, message="aggregation_result") == 0
    assert sum(row.raw for row in down(federation, message="aggregation_result")) == 2 * RAW
    published = [event.values["bytes"] for event in federation.records.events("model_published")]
    assert len(published) == 4
    assert all(inside <= whole for inside, whole in zip(evaluations, published, strict=True))


def test_bytes_down_are_the_sizes_of_the_frames_sent(federation):
    class Scales:
        def __init__(self, inner):
            self.inner, self.sizes = inner, []
            self.address, self.guarantees, self.close = inner.address, inner.guarantees, inner.close
            self.receive = inner.receive

        def send(self, address, frame):
            self.sizes.append(len(bytes(frame)))
            return self.inner.send(address, frame)

    scales = Scales(federation.endpoint("server"))
    federation.serve(FedAvg(initial_parameters=model()), endpoint=scales, pipelines=pipelines(), rounds=3)
    federation.host({"a": lambda _name: Drifts()}).result()
    federation.result()
    assert sum(row.stored for row in federation.records.transfers("down")) == sum(scales.sizes)


def test_a_strategy_gets_the_model_as_the_sites_have_it_and_may_keep_it(federation):
    seen = []

    class Keeping(FedAvg):
        def configure_fit(self, server_round, parameters, manager):
            seen.append(parameters.arrays()["w"].tobytes())
            return super().configure_fit(server_round, parameters, manager)

        def aggregate_fit(self, server_round, results, failures):
            return (None, {}) if server_round == 2 else super().aggregate_fit(server_round, results, failures)

    client = Drifts()
    run(federation, {"a": client}, Keeping(initial_parameters=model()), rounds=3)
    assert seen == [given[0].tobytes() for given in client.seen]
    assert seen[1] == seen[2]
    assert stored(federation, round=3, message="training_command") == 0


def test_a_model_that_a_strategy_makes_for_one_site_is_sent_whole_and_is_no_version(federation):
    class Personal(FedAvg):
        def configure_fit(self, server_round, parameters, manager):
            asked = super().configure_fit(server_round, parameters, manager)
            if server_round == 2:
                own = {name: array + array.dtype.type(1) for name, array in parameters.arrays().items()}
                asked[0] = (asked[0][0], FitIns(Parameters.of(own), {}))
            return asked

    clients = {"a": Drifts(1), "b": Drifts(2)}
    result, _ = run(federation, clients, Personal(initial_parameters=model(), min_available_clients=2), rounds=3)
    assert [report.sites for report in result.history] == [0, 2, 2, 2]
    (_, a2, a3), (_, b2, b3) = clients["a"].seen, clients["b"].seen
    assert a2[0].tobytes() != b2[0].tobytes()
    np.testing.assert_allclose(a2[0], b2[0] + 1, atol=1e-6)
    assert a3[0].tobytes() == b3[0].tobytes(), "the packets from the version that it had before lead there as well"
    assert stored(federation, round=2, site="a") > RAW / 2 > 4 * stored(federation, round=3, site="a")


def test_a_model_with_a_nan_ends_the_run_with_the_tensor_s_name(federation):
    class Broken(FedAvg):
        def aggregate_fit(self, server_round, results, failures):
            return Parameters.of(model() | {"w": np.full((ROWS, 60), np.nan, np.float32)}), {}

    federation.serve(Broken(initial_parameters=model()), pipelines=pipelines(), rounds=1)
    host = federation.host({"a": lambda _name: Drifts()})
    with pytest.raises(fedpost.errors.EncodeError, match="tensor 'w'"):
        federation.result()
    assert host.result().status == "failed"


# ── with puppets ─────────────────────────────────────────────────────────────────────────────────────────────────────


class Follower:
    """A puppet that takes models as a site does, and answers with a change that is relative to what it took."""

    def __init__(self, federation, name, **registration):
        self.puppet = federation.puppet(name, register=False)
        self.agreement = self.puppet.register(**registration).body.agreement
        self.forget()

    def forget(self):
        self.models = Models(StateFolder(None, DEFAULT_LIMITS), DEFAULT_LIMITS)

    def take(self):
        """The next command, and the model that it is about."""
        command = self.puppet.command()
        return command, parameters_of(self.models.take(command, self.agreement)).arrays()

    def train(self, command, tensors):
        new = {n: a + a.dtype.type(0.1) if a.dtype.kind == "f" else a for n, a in tensors.items()}
        frame = self.agreement.pipeline("FitRes").encode(new, base=Base.of(tensors))
        self.puppet.send(WeightUpdate(num_examples=1), frame, **self.puppet._place(command))

    def round(self):
        command, tensors = self.take()
        self.train(command, tensors)
        return command

    def unknown(self, command, reason="gone"):
        self.puppet.send(ErrorReport(reason=reason, kind="unknown_model"), **self.puppet._place(command))


def how(command):
    body = command.body
    if body.model is None:
        return "plain"
    return f"{len(body.packets)} packets" if body.packets else "snapshot" if command.brings_tensors else "nothing"


@pytest.fixture
def two(federation):
    """A run that needs one of two sites a round, all of them asked."""
    federation.serve(
        FedAvg(initial_parameters=model(), min_fit_clients=1, min_available_clients=2),
        pipelines=pipelines(),
        rounds=4,
        round_timeout=60,
        attempts=1,
    )
    return federation, Follower(federation, "one"), Follower(federation, "two")


def test_a_site_is_sent_a_snapshot_then_packets(two):
    federation, one, other = two
    assert [(how(one.round()), how(other.round())) for _ in range(4)] == [("snapshot",) * 2, *[("1 packets",) * 2] * 3]
    assert federation.result().history[4].sites == 2


def test_a_site_that_failed_for_another_reason_has_the_model_all_the_same(two):
    federation, one, other = two
    command, _ = one.take()
    one.puppet.send(ErrorReport(reason="no disk"), **one.puppet._place(command))
    other.round()
    assert (how(one.round()), how(other.round())) == ("1 packets", "1 packets")
    for _ in range(2):
        one.round()
        other.round()
    federation.result()
    assert not federation.records.events("model_resent")


def test_a_site_that_never_answered_is_not_taken_to_hold_anything(federation):
    federation.serve(
        FedAvg(initial_parameters=model(), min_fit_clients=1, min_available_clients=2),
        pipelines=pipelines(),
        rounds=3,
        round_timeout=60,
    )
    silent, one = Follower(federation, "silent"), Follower(federation, "one")
    first = silent.puppet.command()
    one.round()
    federation.records.wait("result_accepted", "one")
    federation.time_goes_by()
    second, tensors = one.take()  # so the first round is over
    silent.puppet.receive(MessageType.HEALTH_CHECK)
    silent.puppet.send(StatusUpdate(state="ready"))
    one.train(second, tensors)
    third = silent.puppet.command()
    assert (how(first), how(third)) == ("snapshot", "snapshot")
    silent.train(third, parameters_of(silent.models.take(third, silent.agreement)).arrays())
    one.round()
    federation.result()
    assert federation.records.reasons("model_resent", "silent") == ["it is not known to have any version"]


def test_a_site_that_is_late_says_what_it_holds(federation):
    federation.serve(
        FedAvg(initial_parameters=model(), min_fit_clients=1, min_available_clients=2),
        pipelines=pipelines(),
        rounds=3,
        round_timeout=60,
    )
    late, one = Follower(federation, "late"), Follower(federation, "one")
    late.take()
    one.round()
    federation.records.wait("result_accepted", "one")
    federation.time_goes_by()
    second, tensors = one.take()
    late.puppet.receive(MessageType.HEALTH_CHECK)
    late.puppet.send(StatusUpdate(state="ready", holds=late.models.digests))
    one.train(second, tensors)
    command = late.round()
    assert how(command) == "2 packets"
    one.round()
    federation.result()
    assert not federation.records.events("model_resent")


def test_a_site_that_comes_late_gets_a_snapshot_and_one_that_says_what_it_holds_packets(federation):
    federation.serve(
        FedAvg(initial_parameters=model(), min_fit_clients=1), pipelines=pipelines(), rounds=4, round_timeout=60
    )
    one = Follower(federation, "one")
    one.round()
    command, tensors = one.take()
    late = Follower(federation, "late")
    old = Follower(federation, "old", holds=[command.body.model])
    old.models = one.models
    one.train(command, tensors)
    assert (how(late.round()), how(old.round()), how(one.round())) == ("snapshot", "1 packets", "1 packets")
    assert (how(late.round()), how(old.round()), how(one.round())) == ("1 packets", "1 packets", "1 packets")
    federation.result()
    assert not federation.records.events("model_resent"), "both are new"


def test_a_site_without_the_model_is_sent_all_of_it_in_the_same_round_and_attempt(two):
    federation, one, other = two
    one.round()
    other.round()
    one.forget()
    command = one.puppet.command()
    assert how(command) == "1 packets"
    one.unknown(command, "it is not here")
    again, tensors = one.take()
    assert how(again) == "snapshot"
    assert (again.envelope.round, again.envelope.attempt) == (command.envelope.round, command.envelope.attempt)
    assert again.envelope.id != command.envelope.id
    assert (again.body.acknowledged, again.body.config) == (command.body.acknowledged, command.body.config)
    one.train(again, tensors)
    other.round()
    for _ in range(2):
        assert (how(one.round()), how(other.round())) == ("1 packets", "1 packets")
    assert [report.sites for report in federation.result().history] == [0, 2, 2, 2, 2]
    assert federation.records.reasons("model_resent", "one") == ["it is not here"]
    assert not federation.records.events("site_failed")


def test_a_site_that_cannot_take_a_snapshot_either_is_out_of_the_round(two):
    federation, one, other = two
    one.round()
    other.round()
    for _ in range(2):
        one.unknown(one.puppet.command())
    federation.records.wait("site_failed", "one")
    other.round()
    command = one.puppet.command()
    assert how(command) == "snapshot", "it holds nothing"
    one.unknown(command)
    other.round()
    one.unknown(one.puppet.command())
    other.round()
    assert [report.sites for report in federation.result().history] == [0, 2, 1, 1, 1]
    assert len(federation.records.events("site_failed", "one")) == 3


def test_a_site_that_says_so_of_a_model_that_is_no_version_has_failed(federation):
    federation.serve(FedAvg(initial_parameters=model(), min_available_clients=2), rounds=1, round_timeout=60)
    one, other = federation.puppet("one"), federation.puppet("other")
    command = one.command()
    one.send(ErrorReport(reason="why", kind="unknown_model"), **one._place(command))
    assert federation.records.wait("site_failed", "one").values["reason"] == "why"
    other.train(other.command())
    assert federation.result().history[1].sites == 1


def test_evaluation_asks_for_what_is_missing_as_well(federation):
    federation.serve(
        FedAvg(initial_parameters=model(), fraction_evaluate=1.0), pipelines=pipelines(), rounds=1, round_timeout=60
    )
    one = Follower(federation, "one")
    one.round()
    one.forget()
    command = one.puppet.command()
    one.unknown(command)
    again, tensors = one.take()
    assert (how(command), how(again)) == ("1 packets", "snapshot")
    one.puppet.send(EvaluationResult(loss=0.25, num_examples=1), **one.puppet._place(again))
    result = federation.result()
    assert result.history[1].loss == 0.25
    assert tensors["w"].tobytes() == result.parameters.arrays()["w"].tobytes()


def test_an_error_report_that_comes_twice_is_answered_once(two):
    federation, one, other = two
    one.round()
    other.round()
    command = one.puppet.command()
    one.unknown(command)
    one.puppet.command()
    one.unknown(command)
    one.unknown(command)
    federation.records.wait("site_failed", "one")
    other.round()
    for number in range(2):
        assert (how(one.round()), how(other.round())) == ("snapshot" if number == 0 else "1 packets", "1 packets")
    federation.result()
    commands = down(federation, round=2, site="one", tensor="w")
    assert len(commands) == 2, "two error reports, and one of them was answered with a snapshot"


# ── what sites can do ────────────────────────────────────────────────────────────────────────────────────────────────


def offer(**lacks):
    own = own_offer()
    fields = {
        name: [v for v in getattr(own, name) if v not in lacks.get(name, [])] for name in own.__struct_fields__[1:]
    }
    return Offer(frame=1, **fields)


def knows(federation, wanted, **lacks):
    """Two rounds of one full site and one that lacks something; what that was sent."""
    federation.serve(
        FedAvg(initial_parameters=model(), min_available_clients=2), pipelines=wanted, rounds=2, round_timeout=60
    )
    poor, full = Follower(federation, "poor", offer=offer(**lacks)), Follower(federation, "full")
    commands, given = [], []
    for _ in range(2):
        command, tensors = poor.take()
        theirs, other = full.take()
        assert {n: a.tobytes() for n, a in tensors.items()} == {n: a.tobytes() for n, a in other.items()}
        poor.train(command, tensors)
        full.train(theirs, other)
        commands.append(command)
        given.append(tensors)
    assert [report.sites for report in federation.result().history] == [0, 2, 2]
    return commands


def test_a_site_without_the_codec_is_sent_the_same_bits_dense(federation):
    commands = knows(federation, pipelines(), updates=["uq"])
    assert [how(command) for command in commands] == ["plain", "plain"]
    assert {command.frame.section("pipeline", str) for command in commands} == {"dense | fedwt | none"}


def test_a_site_without_lx_is_sent_plain_snapshots_and_the_same_packets(federation):
    first, second = knows(federation, pipelines(), compressions=["lx"])
    assert (how(first), how(second)) == ("snapshot", "1 packets")
    assert first.frame.section("pipeline", str) == "dense | fedwt | none"


def test_a_site_that_cannot_read_packets_is_sent_snapshots(federation):
    wanted = pipelines("uq(2)", FitIns="uq(2) | fedwt | zstd(3)", EvaluateIns="uq(2) | fedwt | zstd(3)")
    commands = knows(federation, wanted, compressions=["zstd"])
    assert [how(command) for command in commands] == ["snapshot", "snapshot"]
    (told,) = federation.records.events("model_resent")
    assert "it cannot read the packets" in told.values["reason"]


def test_snapshots_are_compressed_with_lx(federation):
    first, _ = knows(federation, pipelines())
    assert first.frame.section("pipeline", str) == "dense | fedwt | lx(1)"
    assert first.frame.nbytes < 0.95 * RAW


def test_packets_are_the_same_frames_for_all(federation):
    commands = {}
    federation.serve(
        FedAvg(initial_parameters=model(), min_available_clients=2), pipelines=pipelines(), rounds=2, round_timeout=60
    )
    sites = [Follower(federation, name) for name in ("one", "two")]
    for _ in range(2):
        for site in sites:
            commands[site.puppet.name] = site.round()
    packets = [bytes(command.packets()[0]) for command in commands.values()]
    assert packets[0] == packets[1]
    federation.result()
    spans = [span for span in federation.records.all if getattr(span, "stage", "") == "encode" and span.site is None]
    assert len(spans) == 1, "the snapshot of the first version, and nothing else"
    assert isinstance(federation.records.transfers("down")[0], Transfer)


class Swaps(fedpost.Client):
    """Gives its result in another order."""

    def fit(self, ins):
        arrays = {name: array + 1 for name, array in ins.parameters.arrays().items()}
        return fedpost.federation.FitRes(Parameters.of({name: arrays[name] for name in reversed(arrays)}), 1)


@pytest.mark.parametrize("spec", ["dense", "uq(2)"])
def test_whatever_order_a_site_sends_its_tensors_in_a_list_means_the_same(federation, spec):
    federation.serve(
        FedAvg(
            initial_parameters={"a": np.zeros((3, 2), np.float32), "b": np.ones((3, 2), np.float32)},
            min_available_clients=2,
        ),
        pipelines=pipelines(spec),
        rounds=3,
    )
    lists = []

    class Notes(fedpost.NumPyClient):
        def fit(self, parameters, config):
            lists.append([float(array.mean()) for array in parameters])
            return [array + 1 for array in parameters], 1, {}

    hosts = [federation.host({"a": lambda _: Swaps()}), federation.host({"b": lambda _: Notes()})]
    federation.result()
    for host in hosts:
        host.result()
    assert lists[0] == [0, 1]
    assert all(a < b for a, b in lists), "the second tensor stays the second"


class Momentum(FedAvg):
    """Keeps a model of its own."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.own, self.told = None, []

    def aggregate_fit(self, server_round, results, failures):
        mean, metrics = super().aggregate_fit(server_round, results, failures)
        return Parameters.of({name: array + 0 for name, array in mean.arrays().items()}), metrics

    def published(self, server_round, parameters):
        self.told.append((server_round, parameters.arrays()["w"].tobytes()))


def test_a_strategy_is_told_what_the_sites_will_have(federation):
    strategy = Momentum(initial_parameters=model(), min_available_clients=1)
    client = Drifts()
    run(federation, {"a": client}, strategy, rounds=3)
    assert [number for number, _ in strategy.told] == [0, 1, 2, 3]
    assert [data for _, data in strategy.told[:3]] == [seen[0].tobytes() for seen in client.seen]
