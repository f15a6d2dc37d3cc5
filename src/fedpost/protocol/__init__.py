"""What peers say to each other, as tables and typed values without I/O."""

from fedpost.protocol.bodies import (
    MAX_PACKETS,
    AggregationResult,
    Body,
    Digest,
    ErrorReport,
    EvaluationCommand,
    EvaluationResult,
    HealthCheck,
    Registration,
    RegistrationReply,
    RunEnd,
    Scalar,
    StatusUpdate,
    TrainingCommand,
    WeightUpdate,
)
from fedpost.protocol.messages import Envelope, Message, MessageType, address_message, decode_message, type_of
from fedpost.protocol.negotiation import PAYLOADS, Agreement, Offer, agree, own_offer
from fedpost.protocol.session import Session, SessionState

__all__ = [
    "MAX_PACKETS",
    "PAYLOADS",
    "AggregationResult",
    "Agreement",
    "Body",
    "Digest",
    "Envelope",
    "ErrorReport",
    "EvaluationCommand",
    "EvaluationResult",
    "HealthCheck",
    "Message",
    "MessageType",
    "Offer",
    "Registration",
    "RegistrationReply",
    "RunEnd",
    "Scalar",
    "Session",
    "SessionState",
    "StatusUpdate",
    "TrainingCommand",
    "WeightUpdate",
    "address_message",
    "agree",
    "decode_message",
    "own_offer",
    "type_of",
]
