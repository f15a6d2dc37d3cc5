"""The session between the server and one site, as a table.

Rules: a session says only what may be said next, it does no I/O and keeps no time. Both sides run the same table; the
side that sends and the side that receives take the same step. A message that the table does not have is a
:class:`~fedpost.errors.ProtocolError` and changes nothing. A registration starts over from any state, since sites
restart; an end is an end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Final

from fedpost.errors import ProtocolError
from fedpost.protocol.messages import MessageType

__all__ = ["Session", "SessionState"]


class SessionState(Enum):
    """Where a session stands."""

    NEW = auto()
    REGISTERING = auto()
    READY = auto()
    TRAINING = auto()
    EVALUATING = auto()
    LEFT = auto()
    ENDED = auto()


_S = SessionState
_M = MessageType

_STEPS: Final[dict[tuple[SessionState, MessageType], SessionState]] = {
    **{(state, _M.CLIENT_REGISTRATION): _S.REGISTERING for state in _S if state is not _S.ENDED},
    **{(state, _M.RUN_END): _S.ENDED for state in _S},
    **{(state, _M.STATUS_UPDATE): state for state in (_S.READY, _S.TRAINING, _S.EVALUATING)},
    **{(state, _M.HEALTH_CHECK): state for state in (_S.READY, _S.TRAINING, _S.EVALUATING)},
    (_S.REGISTERING, _M.REGISTRATION_REPLY): _S.READY,
    (_S.READY, _M.TRAINING_COMMAND): _S.TRAINING,
    (_S.READY, _M.EVALUATION_COMMAND): _S.EVALUATING,
    (_S.READY, _M.AGGREGATION_RESULT): _S.READY,
    (_S.TRAINING, _M.WEIGHT_UPDATE): _S.READY,
    (_S.TRAINING, _M.ERROR_REPORT): _S.READY,
    (_S.EVALUATING, _M.EVALUATION_RESULT): _S.READY,
    (_S.EVALUATING, _M.ERROR_REPORT): _S.READY,
}


@dataclass(frozen=True, slots=True)
class Session:
    """A value; every step makes a new one.

    Attributes:
        state: Where the session stands.
    """

    state: SessionState = SessionState.NEW

    def step(self, message: MessageType) -> Session:
        """The session after a message was sent or received.

        Raises:
            ProtocolError: The message is not allowed in this state.
        """
        try:
            return replace(self, state=_STEPS[self.state, message])
        except KeyError:
            raise ProtocolError(f"{message} is not allowed while the session is {self.state.name.lower()}") from None

    def released(self) -> Session:
        """The session after the command that the site works on was given up."""
        working = self.state in (SessionState.TRAINING, SessionState.EVALUATING)
        return replace(self, state=SessionState.READY) if working else self

    def left(self) -> Session:
        """The session after the site went away; it may register again."""
        return self if self.state is SessionState.ENDED else replace(self, state=SessionState.LEFT)
