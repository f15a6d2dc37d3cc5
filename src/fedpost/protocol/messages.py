"""What peers say to each other: message types, and the envelope that every message carries.

Rules: a message is one frame. Its header has the sections ``envelope`` and ``body``, and tensors where the type has
them; nothing is nested or base64'd. Bodies are typed and refused when they do not fit. Seven of the types have the
names that federated learning over Kafka gave them; the others are what rounds need.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final

import msgspec

from fedpost.codecs import Base
from fedpost.errors import ProtocolError
from fedpost.frame import DEFAULT_LIMITS, Frame, Limits
from fedpost.pipeline import decode_tensors
from fedpost.protocol.bodies import (
    AggregationResult,
    Body,
    Count,
    ErrorReport,
    EvaluationCommand,
    EvaluationResult,
    HealthCheck,
    Id,
    Name,
    Registration,
    RegistrationReply,
    RunEnd,
    StatusUpdate,
    TrainingCommand,
    WeightUpdate,
)
from fedpost.tensors import TensorSource

__all__ = [
    "Envelope",
    "Message",
    "MessageType",
    "address_message",
    "decode_message",
    "message_sections",
    "type_of",
]

_PIPELINE: Final = "pipeline"


class MessageType(StrEnum):
    """The types of messages."""

    CLIENT_REGISTRATION = "client_registration"
    REGISTRATION_REPLY = "registration_reply"
    TRAINING_COMMAND = "training_command"
    WEIGHT_UPDATE = "weight_update"
    EVALUATION_COMMAND = "evaluation_command"
    EVALUATION_RESULT = "evaluation_result"
    AGGREGATION_RESULT = "aggregation_result"
    STATUS_UPDATE = "status_update"
    HEALTH_CHECK = "health_check"
    ERROR_REPORT = "error_report"
    RUN_END = "run_end"


class Envelope(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Who sent what to whom, for which round of which run.

    Attributes:
        id: Unique; a receiver that has seen it ignores the message.
        type: The message's type.
        sender: The sender's name.
        recipient: The recipient's name.
        run: The run's id; empty before registration.
        round: The round's number, from 1; 0 outside rounds.
        attempt: Which attempt at the round, from 1; 0 outside rounds.
        sent: Seconds since the epoch, by the sender's clock.
        expires: When the message has lost its use, or None.
        reply_to: Id of the message that this one answers, or empty.
        trace: Id that the messages of one exchange share, or empty.
    """

    id: Id
    type: MessageType
    sender: Name
    recipient: Name
    run: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{0,128}\Z")] = ""
    round: Count = 0
    attempt: Count = 0
    sent: float
    expires: float | None = None
    reply_to: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{0,128}\Z")] = ""
    trace: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{0,128}\Z")] = ""

    @classmethod
    def new(
        cls,
        type: MessageType,  # noqa: A002 - the attribute's name
        *,
        sender: str,
        recipient: str,
        run: str = "",
        round: int = 0,  # noqa: A002 - the attribute's name
        attempt: int = 0,
        lifetime: float | None = None,
        answering: Envelope | None = None,
    ) -> Envelope:
        """Make an envelope with a fresh id, sent now.

        Args:
            type: The message's type.
            sender: The sender's name.
            recipient: The recipient's name.
            run: The run's id.
            round: The round's number.
            attempt: The attempt at it.
            lifetime: Seconds until the message expires, or None.
            answering: The envelope of the message that this one answers.
        """
        now = time.time()
        ident = uuid.uuid4().hex
        return cls(
            id=ident,
            type=type,
            sender=sender,
            recipient=recipient,
            run=run,
            round=round,
            attempt=attempt,
            sent=now,
            expires=None if lifetime is None else now + lifetime,
            reply_to=answering.id if answering else "",
            trace=(answering.trace or answering.id) if answering else ident,
        )


_BODIES: Final[dict[MessageType, type[Body]]] = {
    MessageType.CLIENT_REGISTRATION: Registration,
    MessageType.REGISTRATION_REPLY: RegistrationReply,
    MessageType.TRAINING_COMMAND: TrainingCommand,
    MessageType.WEIGHT_UPDATE: WeightUpdate,
    MessageType.EVALUATION_COMMAND: EvaluationCommand,
    MessageType.EVALUATION_RESULT: EvaluationResult,
    MessageType.AGGREGATION_RESULT: AggregationResult,
    MessageType.STATUS_UPDATE: StatusUpdate,
    MessageType.HEALTH_CHECK: HealthCheck,
    MessageType.ERROR_REPORT: ErrorReport,
    MessageType.RUN_END: RunEnd,
}
_TYPES: Final = {body: kind for kind, body in _BODIES.items()}


@dataclass(frozen=True, slots=True)
class Message:
    """A message that was received and checked.

    Attributes:
        envelope: Who, what, for which round.
        body: What it says.
        frame: The frame that carried it, with every digest checked.
    """

    envelope: Envelope
    body: Body
    frame: Frame

    def tensors(self, *, limits: Limits = DEFAULT_LIMITS, base: Base | None = None) -> TensorSource:
        """The tensors that came along, relative to ``base`` where their codec needs one.

        Raises:
            DecodeError: None did, or they are impossible.
        """
        return decode_tensors(self.frame, limits=limits, base=base)

    @property
    def brings_tensors(self) -> bool:
        """Whether tensors came along."""
        return _PIPELINE in self.frame.section_names

    def packets(self) -> list[memoryview]:
        """The packets that came along, each the bytes of a frame that is still to be checked.

        Raises:
            ProtocolError: They are not as many as the body says, or not as they were made.
        """
        said: list[bytes] = getattr(self.body, "packets", [])
        if len(self.frame) != len(said) or self.brings_tensors:
            raise ProtocolError(f"{len(said)} packets were announced, the frame has {len(self.frame)} segments")
        if any(self.frame.coding(index) != "none" for index in range(len(said))):
            raise ProtocolError("a packet that is compressed once more")
        return [self.frame.segment(index) for index in range(len(said))]


def type_of(body: Body) -> MessageType:
    """The message type that a body belongs to."""
    return _TYPES[type(body)]


def message_sections(envelope: Envelope, body: Body) -> Mapping[str, object]:
    """The header sections that make a frame a message."""
    return {"envelope": envelope, "body": body}


def address_message(envelope: Envelope, body: Body, tensors: Frame | None = None) -> Frame:
    """Make a message; ``tensors``, a frame that a pipeline encoded, is shared by all who get the same ones.

    Raises:
        EncodeError: The body holds what MessagePack cannot.
    """
    sections = message_sections(envelope, body)
    return Frame.build(sections) if tensors is None else tensors.with_sections(sections)


def decode_message(data: memoryview, *, limits: Limits = DEFAULT_LIMITS) -> Message:
    """Check a frame in full and read its envelope and body; tensors are checked when they are asked for.

    Raises:
        DecodeError: The bytes are no frame, the frame is no message, or the body does not fit the type.
    """
    frame = Frame.decode(data, limits=limits)
    envelope = frame.section("envelope", Envelope, limit=limits.max_section)
    body = frame.section("body", _BODIES[envelope.type], limit=limits.max_section)
    return Message(envelope, body, frame)
