"""Frames that no honest site would send: each is refused with a reason, set aside, and the round goes on without it."""

from __future__ import annotations

import math
import threading
import time

import numpy as np
import pytest

import fedpost.transports.mailbox
from fedpost.errors import RemoteError, TransportError
from fedpost.federation import FedAvg
from fedpost.frame import Limits
from fedpost.pipeline import Pipeline
from fedpost.protocol import (
    AggregationResult,
    ErrorReport,
    EvaluationResult,
    HealthCheck,
    MessageType,
    Registration,
    RegistrationReply,
    RunEnd,
    StatusUpdate,
    TrainingCommand,
    WeightUpdate,
    own_offer,
)
from fedpost.report import write_report
from fedpost.report.summary import summarize
from fedpost.telemetry import JsonLinesSink, read_records


def model(fill=1.0):
    return {"w": np.full((2, 3), fill, np.float32), "steps": np.array(3, np.int64)}


@pytest.fixture
def two(federation):
    """A run of one round that needs both sites; both were asked."""
    federation.serve(
        FedAvg(initial_parameters=model(), min_fit_clients=1, min_available_clients=2), round_timeout=60, attempts=1
    )
    honest, evil = federation.puppet("honest"), federation.puppet("evil")
    return federation, honest, evil, honest.command(), evil.command()


def finish(federation, honest, command, *, evil=None, evil_command=None, sites=2):
    """Let the rest of the round be honest; the attack must have left no trace in the model."""
    if evil is not None:
        evil.train(evil_command, model(4.0))
    honest.train(command, model(2.0))
    result = federation.result()
    assert result.status == "finished"
    assert result.history[1].sites == sites
    wanted = 2.0 if sites == 1 else 3.0
    assert np.array_equal(result.parameters.arrays()["w"], np.full((2, 3), wanted, np.float32))
    assert federation.waiting_frames() == 0


ATTACKS = {
    "stale round": ({"round": 0}, "stale: the answer is for round 0.1"),
    "forged round": ({"round": 7}, "stale: the answer is for round 7.1"),
    "huge round": ({"round": 2**64 - 1}, "stale"),
    "other attempt": ({"attempt": 2}, "stale: the answer is for round 1.2"),
    "other run": ({"run": "run-0"}, "stale: a weight_update of run 'run-0'"),
    "no run": ({"run": ""}, "stale"),
    "unknown sender": ({"sender": "nobody"}, "the site is not registered"),
    "server as sender": ({"sender": "server"}, "the site is not registered"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_answer_with_a_wrong_envelope_is_refused_and_does_not_cost_the_site_its_turn(two, attack):
    federation, honest, evil, command, evil_command = two
    envelope, reason = ATTACKS[attack]
    evil.train(evil_command, model(1e6), **envelope)
    event = federation.records.wait("result_refused")
    assert reason in event.values["reason"]
    assert event.site == (None if "sender" in envelope else "evil"), (
        "what a sender says of itself is not known to be true"
    )
    finish(federation, honest, command, evil=evil, evil_command=evil_command)
    notes = federation.rejected()
    if "stale" in event.values["reason"]:
        assert not notes, "what only comes too late is not kept"
    else:
        (note,) = notes
        assert reason in note


def _compressed(evil, command):
    evil.train(command, model(1e6), pipeline=Pipeline.parse("dense | fedwt | zstd(1)"))


def _other_format(evil, command):
    evil.train(command, model(1e6), pipeline=Pipeline.parse("dense | numpy | none"))


def _other_checksum(evil, command):
    evil.train(command, model(1e6), pipeline=Pipeline.parse("dense | fedwt | none", checksum="none"))


def _no_tensors(evil, command):
    evil.send(WeightUpdate(num_examples=1), round=1, attempt=1)


def _missing(evil, command):
    evil.train(command, {"w": model()["w"]})


def _extra(evil, command):
    evil.train(command, model() | {"more": np.zeros(1, np.float32)})


def _renamed(evil, command):
    evil.train(command, {"W": model()["w"], "steps": model()["steps"]})


def _shape(evil, command):
    evil.train(command, model() | {"w": np.zeros((3, 2), np.float32)})


def _dtype(evil, command):
    evil.train(command, model() | {"w": np.zeros((2, 3), np.float64)})


def _nan(evil, command):
    bad = model()
    bad["w"][1, 1] = np.nan
    evil.train(command, bad)


def _infinity(evil, command):
    bad = model()
    bad["w"][0, 2] = -np.inf
    evil.train(command, bad)


RESULTS = {
    _compressed: "'dense | fedwt | zstd(1)'",
    _other_format: "'dense | numpy | none'",
    _other_checksum: "'none'",
    _no_tensors: "no section 'pipeline'",
    _missing: "tensor 'steps': it is missing",
    _extra: "tensor 'more': nobody asked for it",
    _renamed: "tensor 'w': it is missing",
    _shape: "tensor 'w': it is float32[3, 2], asked was float32[2, 3]",
    _dtype: "tensor 'w': it is float64[2, 3], asked was float32[2, 3]",
    _nan: "tensor 'w', element 4: it has a NaN or an infinity",
    _infinity: "tensor 'w', element 2: it has a NaN or an infinity",
}


@pytest.mark.parametrize("attack", RESULTS, ids=lambda attack: attack.__name__)
def test_a_result_that_does_not_fit_drops_the_site_from_the_round_at_once(two, attack):
    federation, honest, evil, command, evil_command = two
    attack(evil, evil_command)
    assert RESULTS[attack] in federation.records.wait("result_refused", "evil").values["reason"]
    finish(federation, honest, command, sites=1)
    assert RESULTS[attack] in federation.rejected()[0]


MISPLACED = {
    "registration_reply": RegistrationReply(session="x"),
    "training_command": TrainingCommand(),
    "aggregation_result": AggregationResult(),
    "health_check": HealthCheck(),
    "run_end": RunEnd(status="finished"),
    "evaluation_result": EvaluationResult(loss=0.0, num_examples=1),
}


@pytest.mark.parametrize("kind", MISPLACED)
def test_a_message_that_a_site_may_not_send_now_is_refused(two, kind):
    federation, honest, evil, command, evil_command = two
    evil.send(MISPLACED[kind], round=1, attempt=1)
    event = federation.records.wait("result_refused" if kind == "evaluation_result" else "message_refused")
    assert kind in event.values["reason"]
    finish(federation, honest, command, evil=evil, evil_command=evil_command)
    assert len(federation.rejected()) == 1


def test_a_body_that_is_not_of_the_type_is_refused(two):
    federation, honest, evil, command, evil_command = two
    evil.send(ErrorReport(reason="no"), type=MessageType.WEIGHT_UPDATE, round=1, attempt=1)
    assert "section 'body'" in federation.records.wait("message_refused").values["reason"]
    finish(federation, honest, command, evil=evil, evil_command=evil_command)
    assert len(federation.rejected()) == 1


def test_garbage_is_refused_and_set_aside(two):
    federation, honest, evil, command, evil_command = two
    evil.send_bytes(b"\x80\x04\x95 a pickle, or whatever " * 40)
    assert "not a fedpost frame" in federation.records.wait("message_refused").values["reason"]
    finish(federation, honest, command, evil=evil, evil_command=evil_command)
    assert "not a fedpost frame" in federation.rejected()[0]


def test_a_damaged_frame_is_refused(two):
    federation, honest, evil, command, evil_command = two
    data = bytearray(bytes(Pipeline().encode(model())))
    data[-1] ^= 1
    evil.send_bytes(bytes(data))
    assert "digest does not match" in federation.records.wait("message_refused").values["reason"]
    finish(federation, honest, command, evil=evil, evil_command=evil_command)


def test_garbage_under_the_longest_name_that_a_store_takes_does_not_end_the_run(two):
    federation, honest, evil, command, evil_command = two
    federation.store.put("mail/server/" + "a" * 194 + ".frame", [memoryview(b"garbage")])
    federation.records.wait("message_refused")
    finish(federation, honest, command, evil=evil, evil_command=evil_command)
    assert len(federation.rejected()) == 1


def test_a_frame_that_cannot_be_opened_does_not_end_the_run(two, monkeypatch):
    """As one that its sender has made unreadable for others, or has replaced by a link in the last moment."""
    federation, honest, evil, command, evil_command = two
    get = federation.store.get
    tried = threading.Event()

    def denied(key, *, max_bytes):
        if key.endswith("locked.frame"):
            tried.set()
            raise RemoteError("permission denied", where=key)
        return get(key, max_bytes=max_bytes)

    monkeypatch.setattr(federation.store, "get", denied)
    federation.store.put("mail/server/0-locked.frame", [memoryview(b"x")])
    assert tried.wait(60)
    evil.train(evil_command, model(4.0))
    honest.train(command, model(2.0))
    assert federation.result().history[1].sites == 2
    assert "permission denied" in federation.records.reasons("message_refused")[0]


def test_a_truncated_frame_is_waited_for_and_then_refused(two, monkeypatch):
    federation, honest, evil, command, evil_command = two
    monkeypatch.setattr(fedpost.transports.mailbox, "SETTLE_SECONDS", 0.3)
    monkeypatch.setattr(fedpost.transports.mailbox, "SCAN_SECONDS", 0.05)
    start = time.monotonic()
    evil.send_bytes(bytes(Pipeline().encode(model()))[:-5])
    reason = federation.records.wait("message_refused").values["reason"]
    assert "ends at byte" in reason
    assert time.monotonic() - start >= 0.3
    finish(federation, honest, command, evil=evil, evil_command=evil_command)
    assert federation.rejected() == [reason]


def test_a_truncated_frame_that_grows_whole_counts(two, monkeypatch):
    federation, honest, evil, command, _ = two
    monkeypatch.setattr(fedpost.transports.mailbox, "SCAN_SECONDS", 0.05)
    whole = bytes(_weight_update(evil, model(4.0)))
    key = "mail/server/00000000000000000001-late.frame"
    federation.store.put(key, [memoryview(whole[:-5])])
    honest.train(command, model(2.0))
    federation.records.wait("result_accepted", "honest")
    assert not federation.records.events("result_accepted", "evil")
    federation.store.put(key, [memoryview(whole)])
    federation.records.wait("result_accepted", "evil")
    assert federation.result().history[1].sites == 2


def _weight_update(puppet, tensors):
    """The bytes of an answer to round 1 that is not sent."""
    sent = []
    original, puppet.endpoint.send = puppet.endpoint.send, lambda _address, frame: sent.append(frame)
    try:
        puppet.send(WeightUpdate(num_examples=1), Pipeline().encode(tensors), round=1, attempt=1)
    finally:
        puppet.endpoint.send = original
    return sent[0]


def test_a_message_that_comes_twice_counts_once(two):
    federation, honest, evil, command, evil_command = two
    frame = evil.train(evil_command, model(4.0))
    evil.send_bytes(bytes(frame))
    evil.send_bytes(bytes(frame))
    federation.records.wait("result_accepted", "evil")
    finish(federation, honest, command)
    assert len(federation.records.events("result_accepted", "evil")) == 1
    assert not federation.records.events("result_refused")
    assert federation.rejected() == []


def test_of_two_results_for_one_round_the_first_counts(two):
    federation, honest, evil, command, evil_command = two
    evil.train(evil_command, model(4.0))
    evil.train(evil_command, model(1e6))
    assert "answered already" in federation.records.wait("result_refused", "evil").values["reason"]
    finish(federation, honest, command)
    assert len(federation.rejected()) == 1


def test_a_message_for_somebody_else_is_refused(two):
    federation, honest, evil, command, evil_command = two
    evil.train(evil_command, model(1e6), recipient="honest")
    reason = federation.records.wait("message_refused").values["reason"]
    assert "evil" in reason
    assert "for honest is not for" in reason
    finish(federation, honest, command, evil=evil, evil_command=evil_command)
    assert len(federation.rejected()) == 1


def test_an_expired_message_is_dropped_with_a_reason(two):
    federation, honest, evil, command, evil_command = two
    evil.train(evil_command, model(1e6), expires=time.time() - 1)
    reason = federation.records.wait("message_refused").values["reason"]
    assert "evil" in reason
    assert "expired" in reason
    finish(federation, honest, command, evil=evil, evil_command=evil_command)


def test_a_frame_over_the_limit_is_never_read(federation):
    limits = Limits(max_frame=20_000)
    federation.serve(
        FedAvg(initial_parameters=model(), min_available_clients=2), limits=limits, round_timeout=60, attempts=1
    )
    honest, evil = federation.puppet("honest"), federation.puppet("evil")
    command, evil_command = honest.command(), evil.command()
    evil.send_bytes(bytes(20_001))
    reason = federation.records.wait("message_refused").values["reason"]
    assert "20001 bytes, 20000 allowed" in reason
    evil.train(evil_command, model(4.0))
    honest.train(command, model(2.0))
    assert federation.result().history[1].sites == 2
    assert len(federation.records.events("message_refused")) == 1
    assert federation.waiting_frames() == 1  # where it was, for a person to look at


@pytest.mark.parametrize("sender", ["server", "evil"])
def test_nobody_can_register_as_the_server_or_at_its_address(two, sender):
    federation, honest, evil, command, evil_command = two
    body = Registration(address="server", session="s", offer=own_offer())
    evil.send(body, sender=sender, run="")
    assert "'server' is the server's own name" in federation.records.wait("message_refused").values["reason"]
    finish(federation, honest, command, evil=evil, evil_command=evil_command)
    assert len(federation.rejected()) == 1


class Broken:
    """An endpoint whose way to some addresses is blocked, as by a full disk or a file where a folder should be."""

    def __init__(self, inner, blocked):
        self.inner, self.blocked = inner, blocked
        self.address, self.guarantees = inner.address, inner.guarantees
        self.receive, self.close = inner.receive, inner.close

    def send(self, address, frame):
        if address in self.blocked:
            raise TransportError("no space left on device", where=f"mail/{address}")
        return self.inner.send(address, frame)


def test_a_registration_whose_reply_cannot_be_sent_does_not_end_the_run(federation):
    endpoint = Broken(federation.endpoint("server"), {"blocked"})
    federation.serve(FedAvg(initial_parameters=model()), endpoint=endpoint, round_timeout=60)
    evil = federation.puppet("evil", register=False)
    evil.send(Registration(address="blocked", session="s", offer=own_offer()), run="")
    federation.records.wait("message_refused")
    honest = federation.puppet("honest")
    honest.train(honest.command(), model(2.0))
    assert federation.result().history[1].sites == 1


def test_a_site_whose_mailbox_breaks_is_lost_and_the_round_goes_on(federation):
    blocked = set()
    endpoint = Broken(federation.endpoint("server"), blocked)
    federation.serve(FedAvg(initial_parameters=model(), min_available_clients=2), endpoint=endpoint, rounds=2)
    honest, evil = federation.puppet("honest"), federation.puppet("evil")
    command, evil_command = honest.command(), evil.command()
    blocked.add("evil")
    evil.train(evil_command, model(4.0))
    honest.train(command, model(2.0))
    honest.train(honest.command(), model(2.0))
    result = federation.result()
    assert [report.sites for report in result.history] == [0, 2, 1]
    assert "no space left" in federation.records.reasons("site_lost", "evil")[0]


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_is_refused(federation, loss):
    federation.serve(FedAvg(initial_parameters=model(), fraction_evaluate=1.0, min_available_clients=2))
    honest, evil = federation.puppet("honest"), federation.puppet("evil")
    for puppet in (honest, evil):
        puppet.train(puppet.command())
    evil.evaluate(evil.command(), loss)
    assert "not a finite number" in federation.records.wait("result_refused", "evil").values["reason"]
    honest.evaluate(honest.command(), 0.5)
    assert federation.result().history[1].loss == 0.5


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -1.0])
def test_seconds_that_are_no_time_do_not_spoil_the_ledger(two, seconds, tmp_path):
    federation, honest, evil, command, evil_command = two
    evil.train(evil_command, model(4.0), seconds={"train": seconds})
    honest.train(command, model(2.0))
    assert federation.result().status == "finished"
    with JsonLinesSink(tmp_path / "ledger.jsonl") as sink:
        for record in federation.records.all:
            sink.record(record)
    records = list(read_records(tmp_path / "ledger.jsonl"))
    assert len(records) == len(federation.records.all)
    write_report(tmp_path / "ledger.jsonl", tmp_path / "report.html")
    assert all(stage.seconds >= 0 for stage in summarize(records).site_stages)


def test_stages_that_a_site_makes_up_are_not_taken_for_the_server_s(two):
    federation, honest, evil, command, evil_command = two
    evil.train(evil_command, model(4.0), seconds={"aggregate": 1e9, "wait": 1e9})
    honest.train(command, model(2.0))
    federation.result()
    stages = {stage.name: stage.seconds for stage in summarize(federation.records.all).server_stages}
    assert max(stages.values()) < 1e6


def test_metrics_cannot_overwrite_what_the_server_counts(two):
    federation, honest, evil, command, evil_command = two
    evil.train(evil_command, model(4.0), examples=1, metrics={"examples": 10**9})
    assert federation.records.wait("result_accepted", "evil").values["examples"] == 1
    finish(federation, honest, command)


def test_forged_rounds_and_senders_do_not_get_rows_in_the_report(two):
    federation, honest, evil, command, evil_command = two
    evil.train(evil_command, model(1e6), round=999_999)
    evil.train(evil_command, model(1e6), sender="ghost")
    federation.records.wait("result_refused", count=2)
    finish(federation, honest, command, evil=evil, evil_command=evil_command)
    summary = summarize(federation.records.all)
    assert [row.round for row in summary.rounds] == [0, 1]
    assert [site.name for site in summary.sites] == ["evil", "honest"]


def test_a_ready_message_during_a_round_does_not_make_the_site_free(two):
    federation, honest, evil, command, evil_command = two
    evil.send(StatusUpdate(state="ready"))
    finish(federation, honest, command, evil=evil, evil_command=evil_command)
