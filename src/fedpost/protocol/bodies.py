"""The bodies of messages: what is said, typed, and refused when it does not fit."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from fedpost.protocol.negotiation import Agreement, Offer

__all__ = [
    "MAX_PACKETS",
    "AggregationResult",
    "Body",
    "Count",
    "Digest",
    "ErrorReport",
    "EvaluationCommand",
    "EvaluationResult",
    "HealthCheck",
    "Id",
    "Name",
    "Registration",
    "RegistrationReply",
    "RunEnd",
    "Scalar",
    "StatusUpdate",
    "TrainingCommand",
    "WeightUpdate",
]

Scalar = bool | int | float | str | bytes
"""What configurations and metrics hold."""

_SCALARS: Final = (bool, int, float, str, bytes)

Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]
"""A site's name or an address."""

Text = Annotated[str, msgspec.Meta(max_length=4096)]
Id = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{1,128}\Z")]
Count = Annotated[int, msgspec.Meta(ge=0)]

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
    session: Id
    offer: Offer
    wants_model: bool = False
    version: Text = ""
    account: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{0,128}\Z")] = ""
    holds: _Holds = []


class RegistrationReply(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The server's answer.

    Attributes:
        session: The registration's.
        agreement: How tensors are sent, or None when the site was refused.
        reason: Why it was refused, or empty.
    """

    session: Id
    agreement: Agreement | None = None
    reason: Text = ""


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

    num_examples: Count
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
    num_examples: Count
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

    reason: Text
    kind: Annotated[str, msgspec.Meta(pattern=r"^(failed|unknown_model)\Z")] = "failed"


class RunEnd(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The run is over.

    Attributes:
        status: ``finished``, ``interrupted`` or ``failed``.
        reason: Why, or empty.
    """

    status: Annotated[str, msgspec.Meta(pattern=r"^(finished|interrupted|failed)\Z")]
    reason: Text = ""


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
