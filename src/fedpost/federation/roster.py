"""Who takes part: sites come in, come back, and are refused.

Rules: a registration that was said before changes nothing; a site that was started again is a new session of the same
site, and has its account still if it says so. One of an earlier start that was held up, and comes after that, is stale:
taken for the newest, it would have updates counted to the account of a process that is no more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fedpost.errors import ProtocolError, StaleError
from fedpost.federation.host import SERVER
from fedpost.federation.outbox import Outbox
from fedpost.federation.peers import Peer
from fedpost.pipeline import Pipeline
from fedpost.protocol import Message, MessageType, Registration, RegistrationReply, SessionState, agree
from fedpost.telemetry import Telemetry

__all__ = ["Roster"]

_HELD_UP: Final = 600.0
"""Seconds by which a registration may be older than the latest and is taken for one of an earlier start.

What is older still comes of a clock that was set back, which must not keep a site out.
"""


class Roster:
    """The sites of one run.

    Args:
        outbox: Where replies go.
        sites: The names of the sites that may take part; None for any.
        pipelines: For each payload how tensors shall be encoded.
        telemetry: Where it is recorded who joined.
    """

    def __init__(
        self, outbox: Outbox, sites: frozenset[str] | None, pipelines: Mapping[str, Pipeline], telemetry: Telemetry
    ) -> None:
        self._outbox: Final = outbox
        self._sites: Final = sites
        self._pipelines: Final = pipelines
        self._telemetry: Final = telemetry
        self.peers: Final[dict[str, Peer]] = {}
        self.dead: Final[dict[str, str]] = {}

    def knows(self, name: str) -> bool:
        """Whether a sender's name is one that the run has heard of, or was told of."""
        return name in (self.peers if self._sites is None else self._sites)

    def hopeless(self, count: int) -> bool:
        """Whether so many sites can never be there, as too many have died."""
        return self._sites is not None and len(self._sites) - len(self.dead) < count

    def register(self, message: Message) -> bool:
        """Take a registration in and answer it; return whether it began a new session.

        Raises:
            ProtocolError: The site is refused; it was told why.
            StaleError: An earlier start of the site said it.
            TransportError: The answer cannot be sent.
        """
        body, name = message.body, message.envelope.sender
        if not isinstance(body, Registration):
            raise ProtocolError("not a registration")
        if SERVER in (name, body.address):
            raise ProtocolError(f"{SERVER!r} is the server's own name")
        if self._sites is not None and name not in self._sites:
            reason = "no such site takes part in this run: list it under sites"
            self._refuse(name, body, reason)
            raise ProtocolError(reason)
        known = self.peers.get(name)
        if known is not None:
            if known.session_id == body.session and known.session.state is not SessionState.LEFT:
                return False  # said again; the reply is on its way
            if 0 < known.registered - message.envelope.sent < _HELD_UP:
                raise StaleError("stale: an earlier start of the site wants to take part")
        peer = _registering(name, body)
        peer.registered = message.envelope.sent
        try:
            peer.agreement = agree(self._pipelines, body.offer)
        except ProtocolError as error:
            self._refuse(name, body, error.what)
            raise
        self._outbox.send(peer, RegistrationReply(session=body.session, agreement=peer.agreement))
        if known is not None:
            peer.served = known.served
            peer.counted = known.counted if known.account == peer.account else None
        self.peers[name] = peer
        self.dead.pop(name, None)
        self._telemetry.labelled(site=name).event("site_joined")
        return True

    def _refuse(self, name: str, body: Registration, reason: str) -> None:
        self._outbox.send(_registering(name, body), RegistrationReply(session=body.session, reason=reason))


def _registering(name: str, body: Registration) -> Peer:
    # Who names no account keeps one as long as the session is the same.
    peer = Peer(name, body.address, body.session, body.wants_model, account=body.account or f"session {body.session}")
    peer.holds = tuple(body.holds)
    peer.session = peer.session.step(MessageType.CLIENT_REGISTRATION)
    return peer
