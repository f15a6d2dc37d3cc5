"""The session's table, against an expectation written out here, for every state and every message."""

from __future__ import annotations

import itertools

import pytest

from fedpost.errors import ProtocolError
from fedpost.protocol import MessageType, Session, SessionState

# Written from the protocol's prose: one row a state, what each message leads to; a message that is missing is refused.
EXPECTED = {
    "NEW": "client_registration>REGISTERING run_end>ENDED",
    "REGISTERING": "client_registration>REGISTERING registration_reply>READY run_end>ENDED",
    "READY": "client_registration>REGISTERING training_command>TRAINING evaluation_command>EVALUATING "
    "aggregation_result>READY status_update>READY health_check>READY run_end>ENDED",
    "TRAINING": "client_registration>REGISTERING weight_update>READY error_report>READY "
    "status_update>TRAINING health_check>TRAINING run_end>ENDED",
    "EVALUATING": "client_registration>REGISTERING evaluation_result>READY error_report>READY "
    "status_update>EVALUATING health_check>EVALUATING run_end>ENDED",
    "LEFT": "client_registration>REGISTERING run_end>ENDED",
    "ENDED": "run_end>ENDED",
}
TABLE = {state: dict(step.split(">") for step in row.split()) for state, row in EXPECTED.items()}


def test_the_expectation_names_every_state():
    assert set(TABLE) == {state.name for state in SessionState}


@pytest.mark.parametrize("message", MessageType)
@pytest.mark.parametrize("state", SessionState)
def test_every_message_in_every_state(state, message):
    session = Session(state)
    if message.value in TABLE[state.name]:
        assert session.step(message) == Session(SessionState[TABLE[state.name][message.value]])
    else:
        with pytest.raises(ProtocolError, match=f"{message.value} is not allowed while .* {state.name.lower()}"):
            session.step(message)
    assert session == Session(state), "a step changed the value it started from"


@pytest.mark.parametrize("state", SessionState)
def test_a_command_that_was_given_up_frees_only_a_site_that_works(state):
    working = state in (SessionState.TRAINING, SessionState.EVALUATING)
    assert Session(state).released().state is (SessionState.READY if working else state)


@pytest.mark.parametrize("state", SessionState)
def test_a_site_that_went_away_is_away_unless_the_run_is_over(state):
    ended = state is SessionState.ENDED
    assert Session(state).left().state is (SessionState.ENDED if ended else SessionState.LEFT)


def test_no_sequence_of_messages_leads_out_of_an_ended_session():
    for sequence in itertools.permutations(MessageType, 2):
        session = Session(SessionState.ENDED)
        for message in sequence:
            try:
                session = session.step(message)
            except ProtocolError:
                continue
        assert session.state is SessionState.ENDED
        assert session.released() == session.left() == session


def test_work_is_only_reached_through_an_agreement():
    """From NEW, no sequence of three messages without a reply to a registration makes a site work."""
    for sequence in itertools.product([m for m in MessageType if m is not MessageType.REGISTRATION_REPLY], repeat=3):
        session = Session()
        for message in sequence:
            try:
                session = session.step(message)
            except ProtocolError:
                continue
        assert session.state not in (SessionState.READY, SessionState.TRAINING, SessionState.EVALUATING)
