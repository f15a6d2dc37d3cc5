"""Messages as frames: every body comes back, and what does not fit its type is refused."""

from __future__ import annotations

import math
import time

import msgspec
import numpy as np
import pytest

from fedpost.errors import DecodeError, EncodeError, LimitError
from fedpost.frame import Frame, Limits
from fedpost.pipeline import Pipeline
from fedpost.protocol import (
    MAX_PACKETS,
    AggregationResult,
    Agreement,
    Envelope,
    ErrorReport,
    EvaluationCommand,
    EvaluationResult,
    HealthCheck,
    MessageType,
    Registration,
    RegistrationReply,
    RunEnd,
    StatusUpdate,
    TrainingCommand,
    WeightUpdate,
    address_message,
    decode_message,
    own_offer,
    type_of,
)

SCALARS = {"flag": True, "count": -3, "big": 2**64 - 1, "rate": 0.1, "name": "ü\n", "raw": b"\x00\xff", "nan": math.inf}
BODIES = [
    Registration(address="a", session="s-1", offer=own_offer(), wants_model=True, version="1"),
    RegistrationReply(session="s", agreement=Agreement(pipelines={"FitIns": "x"}, checksum="blake3")),
    RegistrationReply(session="s", reason="no"),
    Registration(address="a", session="s-1", offer=own_offer(), account="b-2", holds=[b"x" * 16, b"y" * 16]),
    TrainingCommand(config=SCALARS, initialize=True),
    TrainingCommand(model=b"x" * 16, packets=[b"y" * 16, b"z" * 16], acknowledged=(3, 1)),
    WeightUpdate(num_examples=2**63, metrics=SCALARS, seconds={"train": 0.5}),
    EvaluationCommand(config=SCALARS),
    EvaluationCommand(model=b"x" * 16),
    EvaluationResult(loss=0.25, num_examples=0, metrics=SCALARS),
    AggregationResult(metrics=SCALARS),
    AggregationResult(model=b"x" * 16, packets=[b"y" * 16]),
    StatusUpdate(state="leaving"),
    StatusUpdate(state="ready", holds=[b"x" * 16]),
    HealthCheck(),
    ErrorReport(reason="why"),
    ErrorReport(reason="why", kind="unknown_model"),
    RunEnd(status="failed", reason="why"),
]


def envelope(kind, **values):
    return Envelope.new(kind, sender="site", recipient="server", run="run", round=3, attempt=1, **values)


def sent(**sections):
    return memoryview(bytes(Frame.build(sections)))


def plain(kind=MessageType.STATUS_UPDATE, **values):
    return {"id": "1", "type": kind, "sender": "site", "recipient": "server", "sent": 0.0} | values


def test_there_is_a_body_for_every_type():
    assert {type_of(body) for body in BODIES} == set(MessageType)


@pytest.mark.parametrize("body", BODIES, ids=lambda body: type(body).__name__)
def test_every_body_comes_back_with_its_types(body):
    head = envelope(type_of(body), lifetime=60.0)
    message = decode_message(memoryview(bytes(address_message(head, body))))
    assert (message.envelope, message.body) == (head, body)
    assert type(message.body) is type(body)
    for name in ("config", "metrics"):
        for key, value in getattr(body, name, {}).items():
            assert type(getattr(message.body, name)[key]) is type(value)


def test_tensors_come_along_in_the_same_frame():
    tensors = {"w": np.arange(5000, dtype=np.float32), "b": np.array(1, np.int8)}
    frame = address_message(
        envelope(MessageType.WEIGHT_UPDATE), WeightUpdate(num_examples=1), Pipeline().encode(tensors)
    )
    arrays = decode_message(memoryview(bytes(frame))).tensors().arrays()
    assert list(arrays) == ["w", "b"]
    assert all(np.array_equal(arrays[name], tensors[name]) for name in tensors)


def test_a_message_without_tensors_says_so():
    message = decode_message(memoryview(bytes(address_message(envelope(MessageType.HEALTH_CHECK), HealthCheck()))))
    with pytest.raises(DecodeError, match="no section 'pipeline'"):
        message.tensors()


def test_one_encoded_model_is_addressed_to_many():
    tensors = Pipeline().encode({"w": np.arange(5000, dtype=np.float32)})
    frames = [
        address_message(envelope(MessageType.TRAINING_COMMAND), TrainingCommand(config={"n": n}), tensors)
        for n in range(3)
    ]
    assert [decode_message(memoryview(bytes(frame))).body.config for frame in frames] == [{"n": 0}, {"n": 1}, {"n": 2}]


def test_an_answer_carries_the_question_s_id_and_trace():
    question = envelope(MessageType.TRAINING_COMMAND)
    answer = envelope(MessageType.WEIGHT_UPDATE, answering=question)
    assert (answer.reply_to, answer.trace) == (question.id, question.trace)
    again = envelope(MessageType.STATUS_UPDATE, answering=answer)
    assert (again.reply_to, again.trace) == (answer.id, question.trace)
    assert len({question.id, answer.id, again.id}) == 3


def test_a_lifetime_becomes_a_time_of_expiry():
    assert envelope(MessageType.HEALTH_CHECK).expires is None
    assert envelope(MessageType.HEALTH_CHECK, lifetime=5.0).expires == pytest.approx(time.time() + 5, abs=1)


@pytest.mark.parametrize(
    "values",
    [
        {"sender": ""},
        {"sender": "../evil"},
        {"sender": "a/b"},
        {"sender": ".hidden"},
        {"sender": "a\n"},
        {"sender": "a" * 65},
        {"recipient": "sérver"},
        {"run": "a/b"},
        {"run": "r" * 129},
        {"id": ""},
        {"id": "a b"},
        {"round": -1},
        {"round": 1.5},
        {"attempt": -1},
        {"type": "shutdown"},
        {"sent": "now"},
        {"more": 1},
    ],
    ids=str,
)
def test_an_envelope_that_does_not_fit_is_refused(values):
    with pytest.raises(DecodeError, match="section 'envelope'"):
        decode_message(sent(envelope=plain(**values), body={"state": "ready"}))


BAD_BODIES = [
    (MessageType.STATUS_UPDATE, {"state": "dead"}),
    (MessageType.STATUS_UPDATE, {"state": "ready\n"}),
    (MessageType.STATUS_UPDATE, {}),
    (MessageType.STATUS_UPDATE, {"state": "ready", "more": 1}),
    (MessageType.STATUS_UPDATE, []),
    (MessageType.RUN_END, {"status": "over"}),
    (MessageType.ERROR_REPORT, {"reason": "x" * 4097}),
    (MessageType.WEIGHT_UPDATE, {"num_examples": -1}),
    (MessageType.WEIGHT_UPDATE, {"num_examples": "1"}),
    (MessageType.WEIGHT_UPDATE, {"num_examples": 1, "metrics": {"a": [1]}}),
    (MessageType.WEIGHT_UPDATE, {"num_examples": 1, "metrics": {"a": None}}),
    (MessageType.WEIGHT_UPDATE, {"num_examples": 1, "metrics": {1: 1}}),
    (MessageType.WEIGHT_UPDATE, {"num_examples": 1, "seconds": {"train": "long"}}),
    (MessageType.TRAINING_COMMAND, {"config": {"a": {}}}),
    (MessageType.TRAINING_COMMAND, {"model": b"x" * 15}),
    (MessageType.TRAINING_COMMAND, {"model": "x" * 16}),
    (MessageType.TRAINING_COMMAND, {"packets": [b"x" * 16]}),
    (MessageType.TRAINING_COMMAND, {"model": b"x" * 16, "packets": [b"x" * 17]}),
    (MessageType.EVALUATION_COMMAND, {"model": b"x" * 16, "packets": [b"x" * 16] * (MAX_PACKETS + 1)}),
    (MessageType.STATUS_UPDATE, {"state": "ready", "holds": [b"x" * 16] * 3}),
    (MessageType.STATUS_UPDATE, {"state": "ready", "holds": [b"x"]}),
    (MessageType.ERROR_REPORT, {"reason": "x", "kind": "other"}),
    (MessageType.EVALUATION_RESULT, {"loss": None, "num_examples": 1}),
    (MessageType.CLIENT_REGISTRATION, {"address": "../x", "session": "s", "offer": {}}),
    (MessageType.REGISTRATION_REPLY, {"session": "s", "agreement": {"pipelines": [], "checksum": "x"}}),
]


@pytest.mark.parametrize(("kind", "body"), BAD_BODIES, ids=lambda value: str(value)[:60])
def test_a_body_that_does_not_fit_is_refused(kind, body):
    with pytest.raises(DecodeError, match="section 'body'"):
        decode_message(sent(envelope=plain(kind), body=body))


@pytest.mark.parametrize("missing", ["envelope", "body"])
def test_a_frame_that_is_no_message_is_refused(missing):
    sections = {"envelope": plain(), "body": {"state": "ready"}}
    del sections[missing]
    with pytest.raises(DecodeError, match=f"no section '{missing}'"):
        decode_message(sent(**sections))


def test_a_section_over_the_budget_is_refused_before_it_is_read():
    body = WeightUpdate(num_examples=1, metrics={"blob": bytes(2000)})
    data = memoryview(bytes(address_message(envelope(MessageType.WEIGHT_UPDATE), body)))
    with pytest.raises(LimitError, match="section 'body'"):
        decode_message(data, limits=Limits(max_section=1000))


@pytest.mark.parametrize("value", [2**64, 1j, object(), "\udc80"])
def test_what_messagepack_cannot_carry_is_an_encode_error(value):
    with pytest.raises(EncodeError):
        address_message(envelope(MessageType.WEIGHT_UPDATE), _unchecked(value))


def _unchecked(value):
    body = WeightUpdate(num_examples=1)
    msgspec.structs.force_setattr(body, "metrics", {"value": value})
    return body


@pytest.mark.parametrize("value", [None, [1], {}, np.float32(1), 1j])
def test_a_body_with_a_metric_of_another_type_cannot_be_made(value):
    with pytest.raises(ValueError, match="metrics 'm' is"):
        WeightUpdate(num_examples=1, metrics={"m": value})
