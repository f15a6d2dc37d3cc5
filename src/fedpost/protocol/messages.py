"""What peers say to each other: message types, their bodies, and the envelope that every message carries.

Rules: a message is one frame. Its header has the sections ``envelope`` and ``body``, and tensors where the type has
them; nothing is nested or base64'd. Bodies are typed and refused when they do not fit. The seven types of the seed
protocol keep their names; the others are what rounds need.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Final

import msgspec

from fedpost.codecs import Base
from fedpost.errors import ProtocolError
from fedpost.frame import DEFAULT_LIMITS, Frame, Limits
from fedpost.pipeline import decode_tensors
from fedpost.protocol.negotiation import Agreement, Offer
from fedpost.tensors import TensorSource

__all__ = [
    "MAX_PACKETS",
    "AggregationResult",
    "Body",
    "Digest",
    "Envelope",
    "ErrorReport",
    "EvaluationCommand",
    "EvaluationResult",
    "HealthCheck",
    "Message",
    "MessageType",
    "Name",
    "Registration",
    "RegistrationReply",
    "RunEnd",
    "Scalar",
    "StatusUpdate",
    "TrainingCommand",
    "WeightUpdate",
    "address_message",
    "decode_message",
    "message_sections",
    "type_of",
]

Scalar = bool | int | float | str | bytes
"""What configurations and metrics hold."""

_PIPELINE: Final = "pipeline"
_SCALARS: Final = (bool, int, float, str, bytes)

Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]
"""A site's name or an address."""

_Text = Annotated[str, msgspec.Meta(max_length=4096)]
_Id = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{1,128}\Z")]
_Count = Annotated[int, msgspec.Meta(ge=0)]

Digest = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
"""What a model is known by: the digest of a :class:`fedpost.codecs.Base`."""

MAX_PACKETS: Final = 256
"""Packets that a message may bring; a site that is further behind gets a snapshot."""

_Holds = Annotated[list[Digest], msgspec.Meta(max_length=2)]


class _Scalars(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A body with configurations or metrics. msgspec has no union of text and bytes, so they are checked here."""

    def __post_init__(self) -> None:
        for field in ("config", "metrics"):
            for name, value in getattr(self, field, {}).items():
                if type(value) not in _SCALARS:
                    raise ValueError(f"{field} {name!r} is {type(value).__name__}, not bool, int, float, str or bytes")


class _OfModel(_Scalars, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A body of a message that brings a model, in one of four ways.

    With ``packets`` the segments of the frame are packets, each a whole frame: the first changes the first of these
    bases into the second, the last one changes the last base into ``model``. With ``model`` alone the tensors that come
    along are all of it (a snapshot), or, when none do, the site has it already. Without ``model`` the tensors are those
    of no version that anybody refers to again.

    Attributes:
        model: The model's digest, or None.
        packets: The digests of the packets' bases.
    """

    model: Digest | None = None
    packets: Annotated[list[Digest], msgspec.Meta(max_length=MAX_PACKETS)] = []

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.packets and self.model is None:
            raise ValueError("packets that lead to no model")


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

    id: _Id
    type: MessageType
    sender: Name
    recipient: Name
    run: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{0,128}\Z")] = ""
    round: _Count = 0
    attempt: _Count = 0
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


class Registration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A site wants to take part.

    Attributes:
        address: Where messages for the site go; several sites may share one.
        session: Fresh for each start of the site, so that a restart is told from a repetition.
        offer: What the site understands.
        wants_model: Whether the final model shall be sent.
        version: The site's fedpost.
        account: Names the account of what the site's updates lost: who has it still after a restart says the same.
            Empty where none outlives the session.
        holds: The models that the site has, so that it can be sent what changed.
    """

    address: Name
    session: _Id
    offer: Offer
    wants_model: bool = False
    version: _Text = ""
    account: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{0,128}\Z")] = ""
    holds: _Holds = []


class RegistrationReply(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The server's answer.

    Attributes:
        session: The registration's.
        agreement: How tensors are sent, or None when the site was refused.
        reason: Why it was refused, or empty.
    """

    session: _Id
    agreement: Agreement | None = None
    reason: _Text = ""


class TrainingCommand(_OfModel, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Train a model (FitIns), or send the initial one.

    Attributes:
        config: The strategy's settings for the site.
        initialize: Send initial parameters instead of training; then no tensors come along.
        acknowledged: Round and attempt of the site's last update that counted.
    """

    config: dict[str, Any] = {}
    initialize: bool = False
    acknowledged: tuple[int, int] | None = None


class WeightUpdate(_Scalars, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The model that a site trained (FitRes); its tensors come with this message.

    Attributes:
        num_examples: How many examples it was trained on.
        metrics: The site's own measurements.
        seconds: Time spent per stage on the site.
    """

    num_examples: _Count
    metrics: dict[str, Any] = {}
    seconds: dict[str, float] = {}


class EvaluationCommand(_OfModel, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Evaluate a model (EvaluateIns).

    Attributes:
        config: The strategy's settings for the site.
    """

    config: dict[str, Any] = {}


class EvaluationResult(_Scalars, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How well the model did on a site's data (EvaluateRes).

    Attributes:
        loss: The loss.
        num_examples: How many examples it was evaluated on.
        metrics: The site's own measurements.
        seconds: Time spent per stage on the site.
    """

    loss: float
    num_examples: _Count
    metrics: dict[str, Any] = {}
    seconds: dict[str, float] = {}


class AggregationResult(_OfModel, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The final model, for a site that asked for it.

    Attributes:
        metrics: What the server measured of it.
    """

    metrics: dict[str, Any] = {}


class StatusUpdate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A site's state.

    Attributes:
        state: ``ready``, or ``leaving`` for good.
        holds: The models that the site has.
    """

    state: Annotated[str, msgspec.Meta(pattern=r"^(ready|leaving)\Z")]
    holds: _Holds = []


class HealthCheck(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Asks for a status update."""


class ErrorReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A command failed on the site.

    Attributes:
        reason: What went wrong, in a line.
        kind: ``failed``, or ``unknown_model`` when the model could not be had from what came: the site does not hold
            what it is relative to.
    """

    reason: _Text
    kind: Annotated[str, msgspec.Meta(pattern=r"^(failed|unknown_model)\Z")] = "failed"


class RunEnd(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The run is over.

    Attributes:
        status: ``finished``, ``interrupted`` or ``failed``.
        reason: Why, or empty.
    """

    status: Annotated[str, msgspec.Meta(pattern=r"^(finished|interrupted|failed)\Z")]
    reason: _Text = ""


Body = (
    Registration
    | RegistrationReply
    | TrainingCommand
    | WeightUpdate
    | EvaluationCommand
    | EvaluationResult
    | AggregationResult
    | StatusUpdate
    | HealthCheck
    | ErrorReport
    | RunEnd
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
