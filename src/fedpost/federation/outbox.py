"""What the server sends: each message one step of its site's session, its bytes recorded."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from fedpost.codecs import Base
from fedpost.errors import ProtocolError
from fedpost.federation.channel import Channel
from fedpost.federation.downlink import Downlink, Load, Sizes
from fedpost.federation.host import SERVER
from fedpost.federation.peers import Peer
from fedpost.federation.types import Parameters
from fedpost.pipeline import Pipeline
from fedpost.protocol import (
    AggregationResult,
    Body,
    Envelope,
    EvaluationCommand,
    MessageType,
    TrainingCommand,
    address_message,
    type_of,
)
from fedpost.telemetry import Telemetry

__all__ = ["Outbox", "record_bytes"]

_NO_MODEL: Final = Load(None, {})


class Outbox:
    """Messages from the server to its sites.

    Args:
        channel: The way out.
        run: The run's id.
        pipeline: How the server wants to encode models for training.
        lifetime: Seconds after which a round's command has lost its use.
        telemetry: Where bytes and times are recorded.
    """

    def __init__(self, channel: Channel, run: str, pipeline: Pipeline, lifetime: float, telemetry: Telemetry) -> None:
        self._channel: Final = channel
        self._run: Final = run
        self._lifetime: Final = lifetime
        self._telemetry: Final = telemetry
        self._downlink: Final = Downlink(pipeline, telemetry)
        self._sent: dict[str, Load] = {}

    def publish(self, parameters: Parameters, number: int) -> Parameters:
        """Make a model the newest version; return it as every site will have it."""
        return self._downlink.publish(parameters, number)

    def send(
        self,
        peer: Peer,
        body: Body,
        parameters: Parameters | None = None,
        *,
        number: int = 0,
        attempt: int = 0,
        because: str = "",
        whole: bool = False,
    ) -> None:
        """Send a message to a site and record its bytes.

        Args:
            peer: The site.
            body: What is said.
            parameters: The model that it is about; it travels as was agreed with the site, as far as that lacks it.
            number: The round's number, or 0 outside rounds.
            attempt: The attempt at it.
            because: Why the site is sent a model once more.
            whole: Send all of the model, unless the site has it: it cannot ask for it any more.

        Raises:
            ProtocolError: The session does not allow it now.
            TransportError: The medium failed.
        """
        kind = type_of(body)
        telemetry = self._telemetry.labelled(round=number, site=peer.name)
        if whole and not self._downlink.is_held(peer):
            peer.holds = ()
        load = _NO_MODEL if parameters is None else self._downlink.load(peer, kind, parameters, number)
        if load.model is not None and isinstance(body, TrainingCommand | EvaluationCommand | AggregationResult):
            body = msgspec.structs.replace(body, model=load.model, packets=list(load.packets))
        envelope = Envelope.new(
            kind,
            sender=SERVER,
            recipient=peer.name,
            run=self._run,
            round=number,
            attempt=attempt,
            lifetime=self._lifetime if number else None,
        )
        stepped = peer.session.step(kind)
        with telemetry.span("send"):
            nbytes = self._channel.send(peer.address, address_message(envelope, body, load.frame))
        peer.session = stepped  # only what was sent has happened
        if parameters is not None:
            self._sent[peer.name] = load
            peer.served = peer.served or load.model is not None
        if load.resent and not whole:
            telemetry.event("model_resent", {"reason": because or load.resent})
        # A model that is sent once more is what it was before: it is raw but once.
        sizes = {name: (0, stored) for name, (_, stored) in load.sizes.items()} if because else load.sizes
        record_bytes(telemetry, "down", kind, sizes, nbytes)

    def sent(self, peer: Peer) -> Load:
        """What a site was sent last of a model, in this round."""
        return self._sent.get(peer.name, _NO_MODEL)

    def base(self, peer: Peer) -> Base:
        """The model that a site was sent last, as it has it: what its update is relative to.

        Raises:
            ProtocolError: It was sent none.
        """
        try:
            return self.sent(peer).base
        except ProtocolError as error:
            raise ProtocolError(f"{peer.name}: {error.what}") from error

    def forget(self) -> None:
        """Let go of what was sent in this round."""
        self._sent = {}
        self._downlink.forget()


def record_bytes(
    telemetry: Telemetry, direction: Literal["down", "up"], kind: MessageType, sizes: Sizes, nbytes: int
) -> None:
    """Write a message into the byte ledger: tensor by tensor, then whatever is not a tensor."""
    for name, (raw, stored) in sizes.items():
        telemetry.transfer(direction, kind, name, raw=raw, stored=stored)
    rest = nbytes - sum(stored for _, stored in sizes.values())
    telemetry.transfer(direction, kind, None, raw=0, stored=rest)
