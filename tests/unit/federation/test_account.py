"""The account of what updates lost: by itself, and kept by real sites in whole runs."""

from __future__ import annotations

import numpy as np
import pytest

import fedpost
from fedpost.codecs import Base
from fedpost.federation import FedAvg, FitIns, Parameters
from fedpost.federation.account import EXPIRES_AFTER, Account
from fedpost.frame import Frame
from fedpost.pipeline import Pipeline, decode_tensors
from fedpost.protocol import (
    PAYLOADS,
    MessageType,
    Offer,
    StatusUpdate,
    own_offer,
)

ONE, TWO = ({"w": np.full((2, 2), value, np.float32)} for value in (1, 2))
LOSSY = ["uq(2)", "eden(1)", "topk(0.1)", "stc(0.04)", "int8", "int4", "sign", "delta"]


# ── by itself ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_was_acknowledged_becomes_the_residual():
    account = Account().booked((3, 1), ONE)
    assert account.residual == {}
    assert account.settled((3, 1)) == Account(ONE, (3, 1))


@pytest.mark.parametrize("last", [None, (2, 1)])
def test_without_an_acknowledgement_it_is_as_it_was(last):
    assert Account(ONE, last).booked((3, 1), TWO).settled(last) == Account(ONE, last)


@pytest.mark.parametrize("acknowledged", [None, (1, 1), (3, 2), (4, 1)])
def test_what_the_server_knows_of_another_history_leaves_nothing(acknowledged):
    """As when a site was started from an older copy of its state."""
    assert Account(ONE, (2, 1)).booked((3, 1), TWO).settled(acknowledged) == Account({}, acknowledged)


def test_an_account_is_settled_once():
    account = Account().booked((3, 1), ONE).settled((3, 1))
    assert account.settled((3, 1)) == account == Account(ONE, (3, 1))


def test_a_later_update_takes_the_place_of_one_that_was_not_settled():
    account = Account(ONE, (2, 1)).booked((3, 1), TWO).booked((3, 2), TWO)
    assert account.settled((2, 1)) == Account(ONE, (2, 1))


def test_what_was_lost_long_ago_counts_for_nothing():
    account = Account().booked((3, 1), ONE)
    assert account.settled((3, 1), 3 + EXPIRES_AFTER) == Account(ONE, (3, 1))
    assert account.settled((3, 1), 4 + EXPIRES_AFTER) == Account({}, (3, 1))
    again = account.settled((3, 1), 3 + EXPIRES_AFTER).booked((43, 1), TWO)
    assert again.settled((3, 1), 44) == Account({}, (3, 1)), "it is the older one's age that counts"
    assert again.settled((43, 1), 44) == Account(TWO, (43, 1))


# ── in whole runs ────────────────────────────────────────────────────────────────────────────────────────────────────


def model():
    chance = np.random.default_rng(0)
    return {
        "w": chance.normal(size=(40, 30)).astype(np.float32),
        "b": chance.normal(size=30).astype(np.float32),
        "steps": np.array(0, np.int64),
    }


class Drifts(fedpost.NumPyClient):
    """Moves towards a point of its own, and keeps what it was given and what it gave back."""

    def __init__(self, number=0, give=None):
        self.target = [array + (number + 1) * 0.1 for array in list(model().values())[:2]]
        self.give, self.seen = give, []

    def get_parameters(self, config):
        return model()

    def fit(self, parameters, config):
        w, b = (a + 0.1 * (t - a) * (1 + np.arange(30) % 4) for a, t in zip(parameters, self.target, strict=False))
        new = [w.astype(np.float32), b.astype(np.float32), parameters[2] + 1]
        self.seen.append(([array.copy() for array in parameters], new))
        return self.give(len(self.seen), new) if self.give else (new, 1, {})


def pipelines(spec, down="dense"):
    return {payload: Pipeline.parse(f"{spec if payload == 'FitRes' else down} | fedwt | none") for payload in PAYLOADS}


def run(federation, clients, strategy=None, *, spec="uq(2)", down="dense", **settings):
    strategy = strategy or FedAvg(initial_parameters=model(), min_available_clients=len(clients))
    federation.serve(strategy, pipelines=pipelines(spec, down), **settings)
    hosts = [federation.host({name: lambda _n, client=client: client}) for name, client in clients.items()]
    result = federation.result()
    for host in hosts:
        assert host.result().status == "finished"
    return result


@pytest.mark.parametrize("down", ["dense", "cast(bfloat16)", "cast(float16)"])
@pytest.mark.parametrize("spec", LOSSY)
def test_a_run_with_each_codec_ends_where_it_should(federation, spec, down):
    """Also when the sites train on a rounded model: the base is what they decode."""
    rounds = 12
    clients = {"a": Drifts(0), "b": Drifts(1)}
    result = run(federation, clients, spec=spec, down=down, rounds=rounds)
    assert [report.sites for report in result.history] == [0] + [2] * rounds
    assert not federation.records.events("result_refused")
    got, start = result.parameters.arrays(), model()
    assert got["steps"] == rounds
    # A quarter of the way at least, whatever is still to come of it.
    assert np.mean(got["w"] - start["w"]) > 0.25 * 0.15
    assert {one.raw for one in federation.records.transfers("up") if one.tensor == "w"} == {4800}
    stored = [one.stored for one in federation.records.transfers("up") if one.tensor == "w"]
    if spec != "delta":
        assert max(stored) < 4800 / 3


@pytest.mark.parametrize("spec", ["uq(2)", "sign", "topk(0.1)"])
def test_what_the_server_counted_and_what_a_site_lost_are_all_it_did(federation, monkeypatch, spec):
    """With one site the global model is what was decoded; the account has the rest, in every round."""
    accounts = []
    original = Account.booked

    def booked(self, update, residual):
        accounts.append((update, residual))
        return original(self, update, residual)

    monkeypatch.setattr(Account, "booked", booked)
    client = Drifts()
    result = run(federation, {"a": client}, spec=spec, rounds=8)
    done = np.sum([new[0].astype(float) - old[0] for old, new in client.seen], axis=0)
    arrived = result.parameters.arrays()["w"].astype(float) - model()["w"]
    assert [update for update, _ in accounts] == [(number, 1) for number in range(1, 9)]
    np.testing.assert_allclose(arrived + accounts[-1][1]["w"], done, atol=1e-5)


def test_results_that_are_kept_decoded_and_those_that_are_not_give_the_same_model(federation, monkeypatch):
    """What does not fit is decoded out of the spool, block by block."""
    models = []
    for budget in (1 << 26, 0):
        monkeypatch.setattr("fedpost.federation.intake._DECODED", budget)
        other = type(federation)(federation.folder / str(budget))
        clients = {"a": Drifts(0), "b": Drifts(1)}
        strategy = FedAvg(initial_parameters=model(), min_available_clients=2)
        models.append(run(other, clients, strategy, rounds=4).parameters.arrays())
        spooled = [one for one in other.records.all if getattr(one, "stage", "") == "spool"]
        assert len(spooled) == 8
    assert {n: a.tobytes() for n, a in models[0].items()} == {n: a.tobytes() for n, a in models[1].items()}


def test_a_client_s_failure_or_refused_result_loses_nothing_that_was_booked(federation, monkeypatch):
    """The second, third and fifth answer do not count: what was lost before them is still there for the next."""
    settled = []
    original = Account.settled

    def kept(self, acknowledged, now):
        after = original(self, acknowledged, now)
        settled.append((acknowledged, self.pending and self.pending[0], after))
        return after

    def give(number, new):
        if number == 2:
            raise RuntimeError("no disk")
        if number == 3:
            return [new[0], new[1], np.array(1.5)], 1, {}
        if number == 5:
            return new, -1, {}
        return new, 1, {}

    monkeypatch.setattr(Account, "settled", kept)
    result = run(federation, {"bad": Drifts(give=give)}, rounds=4, attempts=3)
    assert [report.sites for report in result.history] == [0, 1, 1, 1, 1]
    # What the server says counted last, and what waited for that: the places are (round, attempt).
    assert [(said, pending) for said, pending, _ in settled] == [
        (None, None),
        ((1, 1), (1, 1)),
        ((1, 1), (2, 2)),
        ((2, 3), (2, 3)),
        ((2, 3), (3, 1)),
        ((3, 2), (3, 2)),
    ]
    residuals = [after.residual["w"].tobytes() for _, _, after in settled[1:]]
    assert [residuals[0] == residuals[1], residuals[1] == residuals[2], residuals[2] == residuals[3]] == [
        True,
        False,
        True,
    ]


def test_a_nan_is_the_site_s_error_and_names_the_tensor(federation):
    def give(number, new):
        if number == 1:
            new[0][3, 4] = np.nan
        return new, 1, {}

    result = run(federation, {"bad": Drifts(give=give), "good": Drifts()}, rounds=2)
    assert [report.sites for report in result.history] == [0, 1, 2]
    (reason,) = federation.records.reasons("site_failed", "bad")
    assert "tensor 'w'" in reason
    assert "NaN" in reason


def test_a_site_that_knows_less_sends_dense_beside_one_that_knows_uq(federation):
    strategy = FedAvg(initial_parameters=model(), min_available_clients=2)
    federation.serve(strategy, pipelines=pipelines("uq(2)"), rounds=2)
    poor = federation.puppet("poor", register=False)
    offer = own_offer()
    reply = poor.register(
        Offer(frame=1, updates=["dense"], formats=offer.formats, compressions=[], checksums=offer.checksums)
    )
    assert reply.body.agreement.pipelines["FitRes"].startswith("dense |")
    host = federation.host({"rich": lambda _name: Drifts()})
    for _ in range(2):
        poor.train(poor.command())
    assert [report.sites for report in federation.result().history] == [0, 2, 2]
    host.result()
    stored = {one.site: one.stored for one in federation.records.transfers("up") if one.tensor == "w"}
    assert stored["poor"] == 4800 > 10 * stored["rich"]


def test_initial_parameters_come_from_a_site_as_they_are(federation):
    clients = {"a": Drifts(0), "b": Drifts(1)}
    result = run(federation, clients, FedAvg(min_available_clients=2), rounds=2)
    assert [report.sites for report in result.history] == [0, 2, 2]
    first = clients["a"].seen[0][0]
    assert first[0].tobytes() == model()["w"].tobytes()


def test_a_client_that_trains_in_place_cannot_spoil_the_base(federation):
    class InPlace(Drifts):
        def fit(self, parameters, config):
            for array in parameters:
                if array.flags.writeable:
                    np.add(array, array.dtype.type(1), out=array)
            return [array + array.dtype.type(1) for array in parameters], 1, {}

    result = run(federation, {"a": InPlace()}, rounds=1, spec="uq(0.1)")
    assert result.history[1].sites == 1
    change = result.parameters.arrays()["w"] - model()["w"]
    assert np.unique(np.round(change, 1)).tolist() in ([1.0], [2.0])


def test_each_site_may_be_sent_a_model_of_its_own(federation):
    """The base of a site is what it was sent itself, whatever was sent to others after it."""

    class Personal(FedAvg):
        def configure_fit(self, server_round, parameters, manager):
            asked = super().configure_fit(server_round, parameters, manager)
            return [
                (client, FitIns(Parameters.of({n: a + a.dtype.type(i) for n, a in parameters.arrays().items()}), {}))
                for i, (client, _) in enumerate(asked)
            ]

    clients = {"a": Drifts(0), "b": Drifts(1), "c": Drifts(2)}
    strategy = Personal(initial_parameters=model(), min_available_clients=3)
    result = run(federation, clients, strategy, rounds=2)
    assert [report.sites for report in result.history] == [0, 3, 3], federation.records.reasons("result_refused")
    assert {client.seen[0][0][2].item() for client in clients.values()} == {0, 1, 2}


# ── with puppets ─────────────────────────────────────────────────────────────────────────────────────────────────────


class Lossy:
    """A puppet's own account, kept by the rules."""

    def __init__(self, puppet, spec="uq(2)"):
        self.puppet, self.pipeline, self.account = puppet, Pipeline.parse(f"{spec} | fedwt | none"), Account()
        self.sent = {}

    def train(self, command, fill=0.1, **envelope):
        base = Base.of(command.tensors().arrays())
        self.account = self.account.settled(command.body.acknowledged)
        new = {n: a + a.dtype.type(fill) if a.dtype.kind == "f" else a for n, a in base.tensors.arrays().items()}
        frame, lost = self.pipeline.encode_update(new, base=base, residual=self.account.residual)
        place = (command.envelope.round, command.envelope.attempt)
        self.account = self.account.booked(place, lost)
        body = fedpost.protocol.WeightUpdate(num_examples=1)
        self.puppet.send(body, frame, round=place[0], attempt=place[1], **envelope)
        return decode_tensors(Frame.decode(bytes(frame)), base=base).arrays()


def test_the_server_says_what_counted_last(federation):
    """A late answer, a repeated attempt, and a site that is not asked."""
    federation.serve(
        FedAvg(initial_parameters=model(), min_fit_clients=1, min_available_clients=2),
        rounds=4,
        round_timeout=60,
        pipelines=pipelines("uq(2)"),
    )
    one, other = Lossy(federation.puppet("one")), Lossy(federation.puppet("other"))
    first = one.puppet.command()
    assert first.body.acknowledged is None
    one.train(first)
    other.train(other.puppet.command())
    second, late = one.puppet.command(), other.puppet.command()
    assert (second.body.acknowledged, late.body.acknowledged) == ((1, 1), (1, 1))
    one.train(second)
    federation.records.wait("result_accepted", "one", 2)
    federation.time_goes_by()
    third = one.puppet.command()  # so the second round is over without the other
    other.train(late)
    federation.records.wait("result_refused", "other")
    other.puppet.receive(MessageType.HEALTH_CHECK)
    other.puppet.send(StatusUpdate(state="ready"))
    one.train(third)
    fourth = other.puppet.command()
    assert fourth.body.acknowledged == (1, 1), "a late answer counted"
    assert fourth.envelope.round == 4
    one.train(one.puppet.command())
    other.train(fourth)
    assert [report.sites for report in federation.result().history] == [0, 2, 1, 1, 2]


def test_a_repeated_attempt_does_not_count_the_first(federation):
    federation.serve(
        FedAvg(initial_parameters=model(), min_fit_clients=2, min_available_clients=2),
        attempts=2,
        round_timeout=60,
        rounds=2,
        pipelines=pipelines("uq(2)"),
    )
    one, other = Lossy(federation.puppet("one")), Lossy(federation.puppet("other"))
    one.train(one.puppet.command())
    federation.records.wait("result_accepted", "one")
    other.puppet.train(other.puppet.command(), {"w": np.zeros(1)})  # refused, and too few are left
    again = one.puppet.command()
    assert (again.envelope.attempt, again.body.acknowledged) == (2, None)
    got = one.train(again)
    other.train(other.puppet.command())
    second = one.puppet.command()
    assert second.body.acknowledged == (1, 2)
    # Both sent the same, so the model is what either sent.
    np.testing.assert_allclose(second.tensors().arrays()["w"], got["w"], atol=1e-6)
    one.train(second)
    other.train(other.puppet.command())
    assert federation.result().history[2].sites == 2


def test_a_site_that_started_again_has_an_account_of_its_own(federation):
    """Its former life's answer counts in the model, but is not acknowledged to it."""
    federation.serve(
        FedAvg(initial_parameters=model(), min_fit_clients=2, min_available_clients=2),
        rounds=2,
        round_timeout=60,
        pipelines=pipelines("uq(2)"),
    )
    one, other = Lossy(federation.puppet("one")), Lossy(federation.puppet("other"))
    one.train(one.puppet.command())
    federation.records.wait("result_accepted", "one")
    one.puppet.register(session="one-2")
    other.train(other.puppet.command())
    command, second = one.puppet.command(), other.puppet.command()
    assert (command.body.acknowledged, second.body.acknowledged) == (None, (1, 1))
    Lossy(one.puppet).train(command)
    other.train(second)
    assert [report.sites for report in federation.result().history] == [0, 2, 2]


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("dense", "encoded as"),
        ("uq(3)", "encoded as"),
        ("wrong base", "it changes the base"),
        ("no base", "encoded as"),
    ],
)
def test_a_result_that_is_relative_to_something_else_is_refused(federation, spec, reason):
    federation.serve(FedAvg(initial_parameters=model(), min_available_clients=2), pipelines=pipelines("uq(2)"))
    bad, good = federation.puppet("bad"), Lossy(federation.puppet("good"))
    command = bad.command()
    arrays = command.tensors().arrays()
    other = Base.of({name: array + array.dtype.type(1) for name, array in arrays.items()})
    if spec == "wrong base":
        frame = Pipeline.parse("uq(2) | fedwt | none").encode(arrays, base=other)
    elif spec == "no base":
        frame = Pipeline.parse("cast(bfloat16) | fedwt | none").encode(arrays)
    else:
        frame = Pipeline.parse(f"{spec} | fedwt | none").encode(arrays, base=Base.of(arrays))
    bad.send(fedpost.protocol.WeightUpdate(num_examples=1), frame, round=1, attempt=1)
    good.train(good.puppet.command())
    assert federation.result().history[1].sites == 1
    assert reason in federation.records.reasons("result_refused", "bad")[0]


# ── a site and what its server says ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def puppeteer(federation):
    puppets = federation.puppeteer(Drifts(), model(), pipelines("uq(2)"))
    puppets.register()
    return puppets


def test_a_command_that_later_ones_overtook_is_dropped(puppeteer):
    """It would roll back an update that did count."""
    puppeteer.command((1, 1), None)
    _, first = puppeteer.answer()
    puppeteer.command((3, 1), (1, 1))
    place, third = puppeteer.answer()
    assert place == (3, 1)
    puppeteer.command((2, 1), (1, 1))
    puppeteer.command((4, 1), (3, 1))
    place, fourth = puppeteer.answer()
    assert place == (4, 1), "it trained for a round that is over"
    puppeteer.command((5, 1), (3, 1))  # the fourth did not count
    place, fifth = puppeteer.answer()
    assert place == (5, 1)
    # The model never changed: what differs is only what was lost before.
    assert first.tobytes() != third.tobytes() != fourth.tobytes() == fifth.tobytes()
    puppeteer.end()


def test_another_run_begins_with_an_empty_account(puppeteer):
    puppeteer.command((1, 1), None)
    _, first = puppeteer.answer()
    puppeteer.command((2, 1), (1, 1))
    _, second = puppeteer.answer()
    assert first.tobytes() != second.tobytes()
    puppeteer.register("run-2")
    puppeteer.command((1, 1), (2, 1), run="run-2")
    place, again = puppeteer.answer()
    assert (place, again.tobytes()) == ((1, 1), first.tobytes())
    puppeteer.end("run-2")
