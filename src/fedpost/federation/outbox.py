"""What the server sends: each message one step of its site's session, tensors encoded once for all who get the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from fedpost.codecs import Base
from fedpost.errors import ProtocolError
from fedpost.federation.channel import Channel
from fedpost.federation.host import SERVER
from fedpost.federation.peers import Peer
from fedpost.federation.types import Parameters
from fedpost.frame import Frame
from fedpost.pipeline import decode_tensors, tensor_sizes
from fedpost.protocol import Body, Envelope, MessageType, address_message, type_of
from fedpost.telemetry import Telemetry

__all__ = ["Outbox", "Sizes", "record_bytes"]

Sizes = Mapping[str, tuple[int, int]]
"""Raw and stored bytes of each tensor of a message."""


@dataclass(slots=True)
class _Encoded:
    """Tensors as they are sent, and as those who get them decode them, once that is asked for."""

    frame: Frame
    sizes: Sizes
    base: Base | None = None


class Outbox:
    """Messages from the server to its sites.

    Args:
        channel: The way out.
        run: The run's id.
        lifetime: Seconds after which a round's command has lost its use.
        telemetry: Where bytes and times are recorded.
    """

    def __init__(self, channel: Channel, run: str, lifetime: float, telemetry: Telemetry) -> None:
        self._channel: Final = channel
        self._run: Final = run
        self._lifetime: Final = lifetime
        self._telemetry: Final = telemetry
        self._parameters: Parameters | None = None
        self._encoded: dict[str, _Encoded] = {}
        self._sent: dict[str, _Encoded] = {}

    def send(
        self, peer: Peer, body: Body, parameters: Parameters | None = None, *, number: int = 0, attempt: int = 0
    ) -> None:
        """Send a message to a site and record its bytes.

        Args:
            peer: The site.
            body: What is said.
            parameters: Tensors to send along, encoded as was agreed with the site.
            number: The round's number, or 0 outside rounds.
            attempt: The attempt at it.

        Raises:
            ProtocolError: The session does not allow it now.
            TransportError: The medium failed.
        """
        kind = type_of(body)
        telemetry = self._telemetry.labelled(round=number, site=peer.name)
        frame, sizes = (None, {}) if parameters is None else self._encode(peer, kind, parameters, number)
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
            nbytes = self._channel.send(peer.address, address_message(envelope, body, frame))
        peer.session = stepped  # only what was sent has happened
        record_bytes(telemetry, "down", kind, sizes, nbytes)

    def base(self, peer: Peer) -> Base:
        """The tensors that a site was sent last, as it decodes them: what its update is relative to.

        Raises:
            ProtocolError: It was sent none.
        """
        if peer.name not in self._sent:
            raise ProtocolError(f"{peer.name} was sent nothing that an update could be relative to")
        sent = self._sent[peer.name]
        if sent.base is None:
            sent.base = Base.of(decode_tensors(sent.frame).arrays())
        return sent.base

    def forget(self) -> None:
        """Let go of the tensors that were encoded last."""
        self._parameters, self._encoded, self._sent = None, {}, {}

    def _encode(self, peer: Peer, kind: MessageType, parameters: Parameters, number: int) -> tuple[Frame, Sizes]:
        if peer.agreement is None:
            raise ProtocolError(f"nothing was agreed with {peer.name}")
        pipeline = peer.agreement.pipeline("EvaluateIns" if kind is MessageType.EVALUATION_COMMAND else "FitIns")
        if self._parameters is not parameters:
            self._parameters, self._encoded = parameters, {}
        key = f"{pipeline} {pipeline.checksum}"
        if key not in self._encoded:
            with self._telemetry.labelled(round=number).span("encode"):
                frame = pipeline.encode(parameters.arrays())
            self._encoded[key] = _Encoded(frame, tensor_sizes(frame))
        encoded = self._encoded[key]
        if kind is MessageType.TRAINING_COMMAND and peer.agreement.pipeline("FitRes").update.needs_base:
            self._sent[peer.name] = encoded
        return encoded.frame, encoded.sizes


def record_bytes(
    telemetry: Telemetry, direction: Literal["down", "up"], kind: MessageType, sizes: Sizes, nbytes: int
) -> None:
    """Write a message into the byte ledger: tensor by tensor, then whatever is not a tensor."""
    for name, (raw, stored) in sizes.items():
        telemetry.transfer(direction, kind, name, raw=raw, stored=stored)
    rest = nbytes - sum(stored for _, stored in sizes.values())
    telemetry.transfer(direction, kind, None, raw=0, stored=rest)
