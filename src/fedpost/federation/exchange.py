"""The server's dealings with the sites over time: it waits for them, asks them, and ends with them.

Rules: a round has a deadline; what was there in time is taken in, and a site that is late is not asked again before it
says that it is ready. What a message means is the business of :class:`~fedpost.federation.inbox.Inbox`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from fedpost.errors import ProtocolError, RunError, TransportError
from fedpost.federation.aggregation import Spool
from fedpost.federation.channel import Channel
from fedpost.federation.host import SERVER
from fedpost.federation.inbox import Asked, Inbox
from fedpost.federation.intake import Intake
from fedpost.federation.outbox import Outbox
from fedpost.federation.peers import Available
from fedpost.federation.pipelines import offered, room_for
from fedpost.federation.roster import Roster
from fedpost.federation.rounds import RoundState
from fedpost.federation.types import ClientProxy, EvaluateIns, FitIns, Parameters
from fedpost.frame import Limits
from fedpost.pipeline import Pipeline
from fedpost.protocol import Body
from fedpost.telemetry import Telemetry
from fedpost.transports import Endpoint

__all__ = ["Exchange"]

_WATCH_SECONDS: Final = 1.0
_LIFETIME: Final = 10.0
"""A command expires after this many round timeouts: generous, since the clocks of sites differ."""


class Exchange:
    """The sites of one run, over one endpoint.

    Args:
        endpoint: The transport's end, with the address ``server``.
        run: The run's id.
        sites: The names of the sites that may take part; None for any.
        pipelines: For each payload how tensors shall be encoded.
        spool: Where results wait.
        timeout: Seconds that a site has to answer.
        limits: The budget for what sites send.
        telemetry: Where everything is recorded.
        lost: Says which sites are known to have died since it was last asked, and how.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        run: str,
        sites: frozenset[str] | None,
        pipelines: Mapping[str, Pipeline],
        spool: Spool,
        timeout: float,
        limits: Limits,
        telemetry: Telemetry,
        lost: Callable[[], Mapping[str, str]],
    ) -> None:
        self._channel = Channel(endpoint, frozenset({SERVER}), telemetry, limits)
        self._outbox = Outbox(self._channel, run, pipelines["FitIns"], _LIFETIME * timeout, telemetry)
        self._roster = Roster(self._outbox, sites, offered(pipelines), telemetry)
        self._peers = self._roster.peers
        intake = Intake(self._outbox, spool, limits)
        self._inbox = Inbox(
            self._channel, self._outbox, self._roster, intake, run=run, limits=limits, telemetry=telemetry
        )
        self._limits = limits
        self._budgeted = self._channel, self._inbox, intake, spool
        self._timeout = timeout
        self._telemetry = telemetry
        self._lost = lost
        self._look_again = 0.0

    def available(self, *seed: int) -> Available:
        """The sites that can be asked now, with their draws seeded."""
        return Available(self._peers, seed)

    def wait_for(self, count: int, timeout: float) -> None:
        """Take registrations in until enough sites are there.

        Raises:
            RunError: Too few came in time.
        """
        deadline = time.monotonic() + timeout
        while (there := sum(peer.available for peer in self._peers.values())) < count:
            if self._roster.hopeless(count) or time.monotonic() >= deadline:
                dead = "".join(f"; {site}: {reason}" for site, reason in sorted(self._roster.dead.items()))
                raise RunError(
                    f"{there} {'site is' if there == 1 else 'sites are'} there, {count} are needed{dead}",
                    hint="Start more sites, or lower min_available_clients and min_fit_clients.",
                )
            self._pump(deadline)

    def publish(self, parameters: Parameters, number: int) -> Parameters:
        """Make a model the one that sites are asked to work on from now on.

        Args:
            parameters: The strategy's model.
            number: The round that it came of.

        Returns:
            The model as the sites will have it: where it travels as what has changed, that is the global model.

        Raises:
            EncodeError: The update codec cannot carry it.
        """
        limits = room_for(self._limits, parameters.nbytes)
        for part in self._budgeted:
            part.limits = limits
        return self._outbox.publish(parameters, number)

    def ask(
        self,
        number: int,
        attempt: int,
        minimum: int,
        instructions: Sequence[tuple[ClientProxy, FitIns | EvaluateIns]],
        *,
        initialize: bool = False,
    ) -> Asked:
        """Send instructions and take answers in until the round is over.

        Args:
            number: The round's number.
            attempt: The attempt at it.
            minimum: How many answers must count.
            instructions: Who is asked for what; parameters that are the same object are encoded once.
            initialize: Ask for initial parameters; those in the instructions are not sent.
        """
        # The sites' time starts when the last of them has been asked.
        self._inbox.open(number, attempt, minimum, instructions, initialize=initialize)
        deadline = time.monotonic() + self._timeout
        self._inbox.wait_until(deadline)
        with self._telemetry.labelled(round=number).span("wait"):
            while self._inbox.round.state(now := time.monotonic()) is RoundState.OPEN or (
                # What was there in time is taken in, however long that takes.
                self._inbox.round.waiting and deadline <= now < deadline + self._timeout and self._pump(now)
            ):
                if now < deadline:
                    self._pump(deadline)
        if time.monotonic() >= deadline:
            self._inbox.give_up(f"no answer within {self._timeout:g} s")
        return self._inbox.close()

    def end(self, end: Body, farewell: Body, parameters: Parameters) -> None:
        """Tell every site that the run is over, with the model where one asked for it; a broken medium is recorded."""
        for peer in self._peers.values():
            try:
                if peer.wants_model and peer.available and parameters.specs:
                    self._outbox.send(peer, farewell, parameters, whole=True)
                self._outbox.send(peer, end)
            except TransportError as error:
                self._inbox.unreachable(peer.name, error)

    def _pump(self, deadline: float) -> bool:
        """Take in one message, if one comes in time, and say so; now and then look for sites that died."""
        now = time.monotonic()
        received = self._channel.receive(min(max(deadline - now, 0), _WATCH_SECONDS))
        if received is not None:
            self._inbox.take(received)
        if now >= self._look_again:
            self._look_again = now + _WATCH_SECONDS
            self._look_for_dead()
        return received is not None

    def _look_for_dead(self) -> None:
        for site, reason in self._lost().items():
            self._roster.dead[site] = reason
            self._inbox.lose(site, ProtocolError(reason))
            if site in self._peers:
                self._peers[site].session = self._peers[site].session.left()
