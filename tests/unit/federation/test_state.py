"""What a site keeps across restarts: killed anywhere, it goes on with the account that the server knows of."""

from __future__ import annotations

import logging

import numpy as np
import pytest

import fedpost
from fedpost.codecs import Base
from fedpost.compression import Compression
from fedpost.federation import FedAvg, SiteHost
from fedpost.federation.account import Account
from fedpost.federation.replicas import Replicas
from fedpost.federation.state import SiteState, StateFolder
from fedpost.frame import DEFAULT_LIMITS, Frame
from fedpost.pipeline import Pipeline
from fedpost.protocol import PAYLOADS, ErrorReport, TrainingCommand, decode_message
from fedpost.telemetry import Telemetry

UQ = dict.fromkeys(PAYLOADS, Pipeline.parse("uq(2) | fedwt | none"))
UP = {payload: Pipeline.parse(f"{'uq(2)' if payload == 'FitRes' else 'dense'} | fedwt | none") for payload in PAYLOADS}


def model(seed=0):
    return {"w": np.random.default_rng(seed).normal(size=(60, 50)).astype(np.float32), "n": np.array(3, np.int64)}


def residual(seed):
    return {"w": np.random.default_rng(seed).normal(size=(60, 50)).astype(np.float32)}


class Crash(BaseException):
    """kill -9."""


class Moves(fedpost.NumPyClient):
    """Always in the same direction, so that what differs between two updates is what was lost before."""

    step = 0.1 * np.random.default_rng(7).laplace(size=(60, 50)).astype(np.float32)

    def __init__(self):
        self.crashes = False

    def fit(self, parameters, config):
        if self.crashes:
            raise Crash
        return [parameters[0] + self.step, parameters[1]], 1, {}

    def evaluate(self, parameters, config):
        return float(parameters[0][0, 0]), 1, {}


# ── the files ────────────────────────────────────────────────────────────────────────────────────────────────────────


def same(one, other):
    def plain(account):
        pending = account.pending and (account.pending[0], {n: a.tobytes() for n, a in account.pending[1].items()})
        return {n: a.tobytes() for n, a in account.residual.items()}, account.last, pending

    return (one.ident, one.run, one.trained, plain(one.account)) == (
        other.ident,
        other.run,
        other.trained,
        plain(other.account),
    )


ACCOUNTS = [
    Account(),
    Account(residual(1), (3, 1)),
    Account(residual(1), (3, 1), ((4, 2), residual(2))),
    Account({}, None, ((4, 2), {})),
]


@pytest.mark.parametrize("account", ACCOUNTS)
def test_a_state_comes_back_from_its_file(tmp_path, account):
    state = SiteState("ident", "run-1", (4, 2), account)
    StateFolder(tmp_path / "new" / "folder", DEFAULT_LIMITS).keep("a", state)
    again = StateFolder(tmp_path / "new" / "folder", DEFAULT_LIMITS)
    assert same(again.state("a"), state)
    assert again.state("b").run == ""
    assert [path.name for path in (tmp_path / "new/folder").iterdir()] == ["a.site"]


def test_the_newest_version_comes_back(tmp_path):
    folder = StateFolder(tmp_path, DEFAULT_LIMITS)
    replicas = Replicas()
    for seed in range(3):
        base = Base.of(model(seed))
        replicas = replicas.with_snapshot(base.digest, base.tensors)
        folder.keep_newest(replicas)
    (back,) = StateFolder(tmp_path, DEFAULT_LIMITS).replicas().models
    assert back.digest == base.digest == Base.of(back.tensors.arrays()).digest


def test_a_version_is_written_once(tmp_path):
    folder, base = StateFolder(tmp_path, DEFAULT_LIMITS), Base.of(model())
    folder.keep_newest(Replicas((base,)))
    (tmp_path / "model.version").unlink()
    folder.keep_newest(Replicas((base,)))
    assert not list(tmp_path.iterdir())


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = StateFolder(None, DEFAULT_LIMITS)
    folder.keep("a", SiteState(account=ACCOUNTS[2]))
    folder.keep_newest(Replicas((Base.of(model()),)))
    assert not list(tmp_path.iterdir())
    assert folder.state("a").account == Account()
    assert folder.replicas() == Replicas()


def _cut(data):
    return data[:-1]


def _flipped(data):
    return data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]


def _flipped_early(data):
    return data[:70] + bytes([data[70] ^ 1]) + data[71:]


def _empty(data):
    return b""


def _garbage(data):
    return bytes(range(256)) * 10


def _something_else(data):
    return bytes(Pipeline().encode(model()))


@pytest.mark.parametrize("damage", [_cut, _flipped, _flipped_early, _empty, _garbage, _something_else])
@pytest.mark.parametrize("name", ["a.site", "model.version"])
def test_a_damaged_file_is_warned_of_and_counts_for_nothing(tmp_path, caplog, name, damage):
    folder = StateFolder(tmp_path, DEFAULT_LIMITS)
    folder.keep("a", SiteState("ident", "run-1", (4, 2), ACCOUNTS[2]))
    folder.keep_newest(Replicas((Base.of(model()),)))
    file = tmp_path / name
    file.write_bytes(damage(file.read_bytes()))
    again = StateFolder(tmp_path, DEFAULT_LIMITS)
    with caplog.at_level(logging.WARNING, "fedpost.site"):
        state, replicas = again.state("a"), again.replicas()
    assert (state.ident == "ident", len(replicas.models)) == (name != "a.site", int(name != "model.version"))
    assert name != "a.site" or state.account == Account()
    (record,) = caplog.records
    assert str(file) in record.getMessage()


def test_another_site_s_file_is_no_state_of_this_one(tmp_path, caplog):
    StateFolder(tmp_path, DEFAULT_LIMITS).keep("a", SiteState("ident", "run-1", (4, 2), ACCOUNTS[2]))
    (tmp_path / "a.site").rename(tmp_path / "b.site")
    assert StateFolder(tmp_path, DEFAULT_LIMITS).state("b").ident != "ident"
    assert "it is of the site a" in caplog.text


def test_a_version_that_cannot_be_written_costs_nothing_but_bytes(tmp_path, caplog):
    folder = StateFolder(tmp_path / "below", DEFAULT_LIMITS)
    (tmp_path / "below").rmdir()
    (tmp_path / "below").write_bytes(b"")
    folder.keep_newest(Replicas((Base.of(model()),)))
    assert "is not kept" in caplog.text


# ── killed anywhere ──────────────────────────────────────────────────────────────────────────────────────────────────


class Dies:
    """An endpoint whose process is killed before or after it sends a result."""

    def __init__(self, inner, when):
        self.inner, self.when = inner, when
        self.address, self.guarantees, self.close = inner.address, inner.guarantees, inner.close
        self.receive = inner.receive

    def send(self, address, frame):
        result = "weight_update" in decode_message(memoryview(bytes(frame))).envelope.type
        if result and self.when == "before it sends":
            raise Crash
        size = self.inner.send(address, frame)
        if result and self.when == "after it sent":
            raise Crash
        return size


def updates(federation, count):
    """The updates of a site that is never killed, each of which counts."""
    puppets = federation.puppeteer(Moves(), model(), UP)
    puppets.register()
    got = []
    for number in range(1, count + 1):
        puppets.command((number, 1), (number - 1, 1) if got else None)
        got.append(puppets.answer()[1].tobytes())
    puppets.end()
    assert len(set(got)) == count
    return got


WHEN = {
    # when it is killed in its second round; whether its update is on its way, and counts
    "while it trains": [(False, False)],
    "before it sends": [(False, False)],
    "after it sent": [(True, False), (True, True)],
    "in between": [(True, False), (True, True)],
}


@pytest.mark.parametrize(("when", "sent", "counts"), [(when, *row) for when, rows in WHEN.items() for row in rows])
def test_a_site_that_is_killed_goes_on_with_the_account_that_the_server_knows(federation, tmp_path, when, sent, counts):
    first, second, third = updates(federation, 3)
    client = Moves()
    puppets = federation.puppeteer(client, model(), UP, state=tmp_path / "state")
    account = puppets.register().account
    puppets.command((1, 1), None)
    assert puppets.answer()[1].tobytes() == first
    if when != "in between":
        puppets.send(fedpost.protocol.RunEnd(status="finished"))  # only to start it again over another endpoint
        puppets.thread.result()
        puppets.start(Dies(federation.endpoint("a"), when))
        client.crashes = when == "while it trains"
        puppets.register()
    puppets.command((2, 1), (1, 1))
    if sent:
        assert puppets.answer()[1].tobytes() == second
    if when == "in between":
        puppets.send(fedpost.protocol.RunEnd(status="finished"))
        puppets.thread.result()
    else:
        with pytest.raises(Crash):
            puppets.thread.result()
    client.crashes = False
    puppets.start()
    assert puppets.register().account == account
    puppets.command((3, 1), (2, 1) if counts else (1, 1))
    place, got = puppets.answer()
    assert (place, got.tobytes()) == ((3, 1), third if counts else second)
    puppets.end()


def test_a_command_that_comes_again_after_its_answer_counted_changes_nothing(federation, tmp_path):
    """As a transport may bring it again that was not told that it had been dealt with."""
    first, second, _ = updates(federation, 3)
    puppets = federation.puppeteer(Moves(), model(), UP, state=tmp_path)
    puppets.register()
    puppets.command((1, 1), None)
    assert puppets.answer()[1].tobytes() == first
    puppets.command((1, 1), None)  # under another id, as to a process that has forgotten the first
    puppets.command((2, 1), (1, 1))
    place, got = puppets.answer()
    assert (place, got.tobytes()) == ((2, 1), second)
    puppets.end()


def test_without_a_folder_a_site_starts_afresh(federation):
    first, *_ = updates(federation, 1)
    puppets = federation.puppeteer(Moves(), model(), UP)
    before = puppets.register()
    puppets.command((1, 1), None)
    assert puppets.answer()[1].tobytes() == first
    puppets.end()
    puppets.start()
    after = puppets.register()
    assert (before.account == after.account, after.holds) == (False, [])
    puppets.command((2, 1), None)
    assert puppets.answer()[1].tobytes() == first
    puppets.end()


def test_another_run_leaves_nothing_of_the_account(federation, tmp_path):
    first, *_ = updates(federation, 1)
    puppets = federation.puppeteer(Moves(), model(), UP, state=tmp_path)
    puppets.register()
    puppets.command((5, 1), None)
    assert puppets.answer()[1].tobytes() == first
    puppets.end()
    puppets.start()
    puppets.register("run-2")
    puppets.command((1, 1), None, run="run-2")
    assert puppets.answer() == ((1, 1), pytest.approx(np.frombuffer(first, np.float32).reshape(60, 50), abs=0))
    puppets.end("run-2")


def test_an_update_that_cannot_be_booked_is_not_sent(federation, tmp_path):
    puppets = federation.puppeteer(Moves(), model(), UP, state=tmp_path / "state")
    puppets.register()
    (tmp_path / "state").rmdir()
    (tmp_path / "state").write_bytes(b"")  # no folder can be there
    puppets.command((1, 1), None)
    body = puppets.receive().body
    assert isinstance(body, ErrorReport)
    assert body.kind == "failed"
    puppets.end()


# ── with a whole server ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_site_that_starts_again_goes_on_with_packets_and_its_account(federation, tmp_path):
    federation.serve(
        FedAvg(initial_parameters=model(), min_fit_clients=2, min_available_clients=2),
        pipelines=UQ,
        rounds=3,
        round_timeout=60,
        attempts=3,
    )
    state, client = tmp_path / "state", Moves()

    hosts = [federation.host({"b": lambda _name: Moves()})]
    dying = Dies(federation.endpoint("a"), "after it sent")
    with pytest.raises(Crash):
        SiteHost(dying, {"a": lambda _name: client}, Telemetry(), state=state).run()
    hosts.append(federation.host({"a": lambda _name: client}, state=state))
    result = federation.result()
    for host in hosts:
        host.result()
    assert [report.sites for report in result.history] == [0, 2, 2, 2]
    joined = federation.records.events("site_joined", "a")
    assert len(joined) == 2
    sent = [row.stored for row in federation.records.transfers("down") if (row.site, row.tensor) == ("a", "w")]
    assert sent[0] > 10_000 > 10 * max(sent[1:])


# ── a server that lies ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def site(federation):
    """A site that holds one version."""
    puppets = federation.puppeteer(Moves(), model(), UQ)
    puppets.register()
    puppets.digest = Base.of(model()).digest
    snapshot(puppets, (1, 1), puppets.digest)
    assert puppets.answer()[0] == (1, 1)
    return puppets


def snapshot(puppets, place, digest, tensors=None, pipeline="dense | fedwt | lx"):
    body = TrainingCommand(model=digest, acknowledged=None)
    frame = Pipeline.parse(pipeline).encode(tensors or model())
    puppets.send(body, frame, round=place[0], attempt=place[1])


def packets(puppets, place, digest, bases, datas):
    body = TrainingCommand(model=digest, packets=bases)
    frame = Frame.build({}, [memoryview(data) for data in datas])
    puppets.send(body, frame, round=place[0], attempt=place[1])


def a_packet(old, new):
    return bytes(UQ["FitIns"].encode(new, base=Base.of(old)))


def refusal(puppets):
    body = puppets.receive().body
    assert isinstance(body, ErrorReport), body
    return body.kind, body.reason


def _unknown(puppets):
    puppets.send(TrainingCommand(model=bytes(16)), round=2, attempt=1)
    return "is not here"


def _no_base(puppets):
    packets(puppets, (2, 1), bytes(16), [b"x" * 16], [a_packet(model(1), model(2))])
    return "none of the models"


def _wrong_result(puppets):
    packets(puppets, (2, 1), bytes(16), [puppets.digest], [a_packet(model(), model(2))])
    return "said was"


def _fewer_than_said(puppets):
    packets(puppets, (2, 1), bytes(16), [puppets.digest] * 3, [a_packet(model(), model(2))])
    return "3 packets were announced, the frame has 1 segments"


def _more_than_said(puppets):
    packets(puppets, (2, 1), bytes(16), [puppets.digest], [a_packet(model(), model(2))] * 2)
    return "1 packets were announced, the frame has 2 segments"


def _compressed_again(puppets):
    frame = Frame.build({}, [memoryview(bytes(1 << 20))], compression=Compression.parse("zstd"))
    puppets.send(TrainingCommand(model=bytes(16), packets=[puppets.digest]), frame, round=2, attempt=1)
    return "compressed once more"


def _tensors_as_packets(puppets):
    frame = Pipeline().encode(model())
    puppets.send(TrainingCommand(model=bytes(16), packets=[puppets.digest] * len(frame)), frame, round=2, attempt=1)
    return "packets were announced"


def _other_pipeline(puppets):
    data = bytes(Pipeline.parse("uq(4) | fedwt | none").encode(model(2), base=Base.of(model())))
    packets(puppets, (2, 1), bytes(16), [puppets.digest], [data])
    return "agreed was"


def _garbage_as_a_packet(puppets):
    packets(puppets, (2, 1), bytes(16), [puppets.digest], [b"garbage" * 30])
    return "not a fedpost frame"


def _another_snapshot(puppets):
    snapshot(puppets, (2, 1), bytes(16), model(3))
    return "said was"


def _a_snapshot_in_another_way(puppets):
    snapshot(puppets, (2, 1), Base.of(model(3)).digest, model(3), "dense | fedwt | zstd(3)")
    return "agreed was"


LIES = [
    _unknown,
    _no_base,
    _wrong_result,
    _fewer_than_said,
    _more_than_said,
    _compressed_again,
    _tensors_as_packets,
    _other_pipeline,
    _garbage_as_a_packet,
    _another_snapshot,
    _a_snapshot_in_another_way,
]


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.__name__)
def test_a_model_that_cannot_be_had_is_asked_for_again_and_nothing_has_changed(site, lie):
    reason = lie(site)
    kind, said = refusal(site)
    assert kind == "unknown_model"
    assert reason in said
    site.send(TrainingCommand(model=site.digest), round=2, attempt=1)
    place, _ = site.answer()
    assert place == (2, 1), "the version that it held is gone"
    site.end()
