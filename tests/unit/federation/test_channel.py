"""Messages over a transport: each takes effect once, and what cannot be read is set aside."""

from __future__ import annotations

import pytest

from fedpost.errors import EncodeError, LimitError
from fedpost.federation.channel import Channel
from fedpost.federation.client import Client, NumPyClient, as_client
from fedpost.frame import DEFAULT_LIMITS
from fedpost.protocol import ErrorReport, MessageType, RunEnd, StatusUpdate
from fedpost.telemetry import Telemetry


@pytest.fixture
def channel(federation):
    return Channel(
        federation.endpoint("server"), frozenset({"server", "alias"}), Telemetry(federation.records), DEFAULT_LIMITS
    )


def test_a_message_that_was_not_acknowledged_comes_again_to_the_next_process(federation, channel):
    puppet = federation.puppet("a", register=False)
    puppet.send(StatusUpdate(state="ready"))
    assert channel.receive(1).message.body == StatusUpdate(state="ready")
    after = Channel(federation.endpoint("server"), frozenset({"server"}), Telemetry(), DEFAULT_LIMITS)
    received = after.receive(1)
    assert received.message.body == StatusUpdate(state="ready")
    received.delivery.ack()
    assert federation.waiting_frames() == 0


def test_messages_of_one_sender_come_in_order(federation, channel):
    puppet = federation.puppet("a", register=False)
    for number in range(50):
        puppet.send(ErrorReport(reason=str(number)))
    assert [channel.receive(1).message.body.reason for _ in range(50)] == [str(number) for number in range(50)]


def test_a_message_is_for_one_of_the_own_names(federation, channel):
    puppet = federation.puppet("a", register=False)
    puppet.send(StatusUpdate(state="ready"), recipient="alias")
    puppet.send(StatusUpdate(state="ready"), recipient="other")
    assert channel.receive(1).message.envelope.recipient == "alias"
    assert channel.receive(0) is None
    assert len(federation.rejected()) == 1


def test_nothing_comes_of_a_wait_that_only_brings_garbage(federation, channel):
    puppet = federation.puppet("a", register=False)
    for _ in range(20):
        puppet.send_bytes(b"garbage")
    assert channel.receive(0.05) is None
    assert len(federation.rejected()) == 20
    assert federation.waiting_frames() == 0


def test_a_frame_over_the_limit_does_not_hide_those_behind_it(federation):
    from fedpost.frame import Limits

    limits = Limits(max_frame=1000)
    channel = Channel(
        federation.endpoint("server", limits), frozenset({"server"}), Telemetry(federation.records), limits
    )
    puppet = federation.puppet("a", register=False)
    puppet.send_bytes(bytes(1001))
    puppet.send(StatusUpdate(state="ready"))
    assert channel.receive(1).message.body == StatusUpdate(state="ready")
    assert "1001 bytes, 1000 allowed" in federation.records.reasons("message_refused")[0]
    with pytest.raises(LimitError):
        federation.store.get(
            "mail/server/" + federation.store.list("mail/server")[0].key.rsplit("/", 1)[1], max_bytes=1000
        )


def test_a_site_refuses_messages_that_are_not_the_server_s(federation):
    host = federation.host({"a": lambda _name: NumPyClient()})
    puppet = federation.puppet("evil", register=False)
    real, puppet.endpoint = puppet.endpoint, _To(puppet.endpoint, "a")
    puppet.send(RunEnd(status="finished"), recipient="a")
    puppet.endpoint = _To(real, "a")
    puppet.send(RunEnd(status="finished"), recipient="a", sender="server", run="another")  # dropped: not its run
    federation.serve(register_timeout=60)
    assert federation.records.wait("site_joined", "a")
    with pytest.raises(Exception, match="round 1 failed"):
        federation.result()
    assert host.result().status == "failed"
    notes = [blob.key for blob in federation.store.list("rejected/a") if blob.key.endswith(".txt")]
    assert len(notes) == 1


class _To:
    """Sends to another address than it is told."""

    def __init__(self, inner, address):
        self.inner, self.address_of_victim = inner, address
        self.address = inner.address

    def send(self, _address, frame):
        return self.inner.send(self.address_of_victim, frame)


# ── what passes for a client ─────────────────────────────────────────────────────────────────────────────────────────


def test_whatever_has_fit_is_a_client():
    class Own:
        def fit(self, parameters, config):
            return parameters, 1, {}

    assert isinstance(as_client(Own()), Client)
    client = as_client(Own())
    assert as_client(client) is client


@pytest.mark.parametrize("thing", [None, 3, object(), NumPyClient])
def test_what_has_no_fit_is_refused(thing):
    with pytest.raises(EncodeError, match="is no client"):
        as_client(thing)


def test_a_client_says_what_it_cannot_do():
    client = as_client(NumPyClient())
    with pytest.raises(NotImplementedError, match="no initial parameters"):
        client.get_parameters({})
    assert MessageType("run_end") is MessageType.RUN_END
