"""What the server takes in: every message one step of its site's session and of the round that is open.

Rules: what is no such step is refused; a refusal is recorded and drops the site from the round, never raises into the
run; a result counts only once it was checked whole and spooled. Nothing here waits, or looks at a clock.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from fedpost.errors import ProtocolError, RefusedResultError, RemoteError, StaleError, TransportError
from fedpost.federation.channel import Channel, Received
from fedpost.federation.downlink import record_pick
from fedpost.federation.intake import Intake
from fedpost.federation.outbox import Outbox, record_bytes
from fedpost.federation.peers import Peer
from fedpost.federation.roster import Roster
from fedpost.federation.rounds import Round
from fedpost.federation.types import (
    ClientProxy,
    EvaluateIns,
    EvaluateRes,
    FitIns,
    FitRes,
    Metrics,
    Parameters,
    plain_metrics,
)
from fedpost.frame import Limits
from fedpost.pipeline import tensor_sizes
from fedpost.protocol import (
    Body,
    Envelope,
    ErrorReport,
    EvaluationCommand,
    EvaluationResult,
    HealthCheck,
    Message,
    MessageType,
    StatusUpdate,
    TrainingCommand,
)
from fedpost.telemetry import Telemetry

__all__ = ["Asked", "Inbox"]

_SITE_STAGES: Final = frozenset({"decode", "train", "encode", "evaluate"})


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of asking some sites.

    Attributes:
        round: The round when it was over; its state tells how.
        results: The answers that count, in canonical order.
    """

    round: Round
    results: list[tuple[ClientProxy, FitRes | EvaluateRes]]

    @property
    def enough(self) -> bool:
        """Whether enough answers count."""
        return len(self.results) >= self.round.minimum


@dataclass(frozen=True, slots=True)
class _Question:
    """What a site was asked, as it can be asked again."""

    body: Body
    parameters: Parameters | None
    account: str


class Inbox:
    """The messages of one run's sites, and the round that they are for.

    Args:
        channel: Where they come from.
        outbox: Where answers and repeated commands go.
        roster: The sites.
        intake: Takes results.
        run: The run's id.
        limits: The budget for what sites send.
        telemetry: Where everything is recorded.

    Attributes:
        limits: The budget, which grows with the model.
    """

    def __init__(
        self,
        channel: Channel,
        outbox: Outbox,
        roster: Roster,
        intake: Intake,
        *,
        run: str,
        limits: Limits,
        telemetry: Telemetry,
    ) -> None:
        self._channel: Final = channel
        self._outbox: Final = outbox
        self._roster: Final = roster
        self._peers: Final = roster.peers
        self._intake: Final = intake
        self._run: Final = run
        self.limits = limits
        self._telemetry: Final = telemetry
        self._round: Round | None = None
        self._questions: dict[str, _Question] = {}
        self._answers: dict[str, FitRes | EvaluateRes] = {}
        self._handlers: Final[dict[MessageType, Callable[[Message], None]]] = {
            MessageType.CLIENT_REGISTRATION: self._on_registration,
            MessageType.WEIGHT_UPDATE: self._on_weight_update,
            MessageType.EVALUATION_RESULT: self._on_evaluation_result,
            MessageType.ERROR_REPORT: self._on_error_report,
            MessageType.STATUS_UPDATE: self._on_status_update,
        }

    @property
    def round(self) -> Round:
        """The round that is open, as it stands."""
        if self._round is None:
            raise RuntimeError("no round is open")
        return self._round

    def open(
        self,
        number: int,
        attempt: int,
        minimum: int,
        instructions: Sequence[tuple[ClientProxy, FitIns | EvaluateIns]],
        *,
        initialize: bool = False,
    ) -> None:
        """Begin a round: send instructions, whose answers are taken from now on.

        Args:
            number: The round's number.
            attempt: The attempt at it.
            minimum: How many answers must count.
            instructions: Who is asked for what; parameters that are the same object are encoded once.
            initialize: Ask for initial parameters; those in the instructions are not sent.
        """
        self._intake.begin(instructions[0][1].parameters.specs if instructions else (), initialize=initialize)
        self._answers, self._questions = {}, {}
        self._round = Round(number, attempt, minimum, math.inf, frozenset(client.cid for client, _ in instructions))
        for client, ins in instructions:
            peer = self._peers[client.cid]
            config = plain_metrics(ins.config, "setting")
            command: Body
            if isinstance(ins, FitIns):
                command = TrainingCommand(config=config, initialize=initialize, acknowledged=peer.counted)
            else:
                command = EvaluationCommand(config=config)
            self._questions[peer.name] = _Question(command, None if initialize else ins.parameters, peer.account)
            self._ask(peer)

    def wait_until(self, deadline: float) -> None:
        """Set the time by which the round is over, on the caller's clock."""
        self._round = replace(self.round, deadline=deadline)

    def give_up(self, reason: str) -> None:
        """Wait no longer for the sites that have not answered."""
        for site in sorted(self.round.waiting):
            # Whatever it is doing, it will say so when it is done; until then it is not asked for anything else.
            self.lose(site, ProtocolError(reason))
            try:
                self._outbox.send(self._peers[site], HealthCheck())
            except TransportError as error:
                self.unreachable(site, error)

    def close(self) -> Asked:
        """End the round that is open: what counts is noted, and nothing of it is kept here."""
        finished, self._round = self.round, None
        asked = Asked(finished, [(ClientProxy(site), self._answers[site]) for site in sorted(finished.accepted)])
        for client, answer in asked.results:
            peer = self._peers[client.cid]
            # One that was started again since, and has lost its account, has answered nothing.
            if asked.enough and isinstance(answer, FitRes) and peer.account == self._questions[peer.name].account:
                peer.counted = (finished.number, finished.attempt)
        self._outbox.forget()
        self._answers, self._questions = {}, {}
        return asked

    def lose(self, site: str, reason: RemoteError) -> None:
        """Go on without a site that does not answer or is gone."""
        self._telemetry.labelled(site=site).event("site_lost", {"reason": reason.what})
        self._drop(site, reason)

    def unreachable(self, site: str, error: TransportError) -> None:
        """Go on without a site that cannot be sent anything; it may register again."""
        self.lose(site, ProtocolError(f"its mailbox cannot be written: {error}"))
        self._peers[site].session = self._peers[site].session.left()

    def take(self, received: Received) -> None:
        """Take one message in, and settle its delivery."""
        envelope = received.message.envelope
        current = self._round.number if self._round else None
        known = self._roster.knows(envelope.sender)
        refusal: RemoteError | None = None
        try:
            self._handler(envelope)(received.message)
        except RemoteError as error:
            refusal = error
        except TransportError as error:  # the answer to what this site sent cannot be delivered
            refusal = ProtocolError(f"no answer can be sent to it: {error}")
        # Labelled with what is known to be true: a forged round or sender gets no row of its own.
        telemetry = self._telemetry.labelled(
            round=current if envelope.round == current else None, site=envelope.sender if known else None
        )
        counts = refusal is None and envelope.type is MessageType.WEIGHT_UPDATE
        base = self._intake.base_of(self._peers[envelope.sender]) if counts else None
        sizes = tensor_sizes(received.message.frame, limits=self.limits, base=base) if counts else {}
        record_bytes(telemetry, "up", envelope.type, sizes, received.message.frame.nbytes)
        if refusal is not None:
            result = envelope.type in (MessageType.WEIGHT_UPDATE, MessageType.EVALUATION_RESULT)
            who = "" if known else f"{envelope.sender}: "
            telemetry.event("result_refused" if result else "message_refused", {"reason": f"{who}{refusal}"})
        # What only comes too late is not worth keeping for a person to look at.
        self._channel.settle(received.delivery, None if isinstance(refusal, StaleError) else refusal)

    def _handler(self, envelope: Envelope) -> Callable[[Message], None]:
        handler = self._handlers.get(envelope.type)
        if handler is None:
            raise ProtocolError(f"a {envelope.type} is not for a server")
        if envelope.type is not MessageType.CLIENT_REGISTRATION:
            if envelope.sender not in self._peers:
                raise ProtocolError("the site is not registered")
            leaving = envelope.type is MessageType.STATUS_UPDATE and not envelope.run  # before it was registered
            if envelope.run != self._run and not leaving:
                raise StaleError(f"stale: a {envelope.type} of run {envelope.run!r}")
        return handler

    def _on_registration(self, message: Message) -> None:
        if self._roster.register(message):
            self._drop(message.envelope.sender, ProtocolError("the site was started again"))

    def _on_weight_update(self, message: Message) -> None:
        peer, current = self._answered(message)
        self._has_what_it_was_sent(peer)
        telemetry = self._telemetry.labelled(round=current.number, site=peer.name)
        try:
            answer = self._intake.take(peer, message, telemetry)
        except RemoteError as error:
            self._drop(peer.name, error)
            raise
        record_pick(telemetry, message.frame, self.limits)
        self._accept(message, answer, {})

    def _on_evaluation_result(self, message: Message) -> None:
        peer, _ = self._answered(message)
        self._has_what_it_was_sent(peer)
        body = message.body
        if not isinstance(body, EvaluationResult) or not math.isfinite(body.loss):
            error = RefusedResultError("the loss is not a finite number")
            self._drop(peer.name, error)
            raise error
        self._accept(message, EvaluateRes(body.loss, body.num_examples, body.metrics), {"loss": body.loss})

    def _on_error_report(self, message: Message) -> None:
        peer, current = self._answered(message)
        body = message.body
        if not isinstance(body, ErrorReport):
            raise ProtocolError("not an error report")
        if body.kind == "unknown_model":
            peer.holds = ()
            if not self._outbox.sent(peer).whole:
                self._ask(peer, body.reason)  # with all of it; a site that cannot take that either has failed
                return
        else:
            self._has_what_it_was_sent(peer)
        self._drop(peer.name, RemoteError(body.reason))
        self._telemetry.labelled(round=current.number, site=peer.name).event("site_failed", {"reason": body.reason})

    def _ask(self, peer: Peer, because: str = "") -> None:
        """Send a site its command, with what it lacks of the model."""
        question, now = self._questions[peer.name], self.round
        try:
            self._outbox.send(
                peer, question.body, question.parameters, number=now.number, attempt=now.attempt, because=because
            )
        except TransportError as error:
            self.unreachable(peer.name, error)

    def _has_what_it_was_sent(self, peer: Peer) -> None:
        """An answer says so: a site that cannot have the model says that instead."""
        if (model := self._outbox.sent(peer).model) is not None:
            peer.holds = (model,)

    def _on_status_update(self, message: Message) -> None:
        peer, body = self._peers[message.envelope.sender], message.body
        if not isinstance(body, StatusUpdate):
            raise ProtocolError("not a status update")
        if body.state == "leaving":
            self.lose(peer.name, ProtocolError("the site left"))
            peer.session = peer.session.left()
            return
        if body.holds:
            peer.holds = tuple(body.holds)
        if self._round is None or peer.name not in self._round.waiting:
            peer.session = peer.session.released()

    def _answered(self, message: Message) -> tuple[Peer, Round]:
        """The site and the round that an answer belongs to; the site is free again whatever becomes of the answer."""
        envelope = message.envelope
        peer = self._peers[envelope.sender]
        if self._round is None:
            peer.session = peer.session.released()
            raise StaleError(f"stale: the answer is for round {envelope.round}, which is over")
        try:
            self._round.expect(peer.name, envelope.round, envelope.attempt)
        except ProtocolError:
            if peer.name not in self._round.waiting:
                peer.session = peer.session.released()
            raise
        peer.session = peer.session.step(envelope.type)
        return peer, self._round

    def _accept(self, message: Message, answer: FitRes | EvaluateRes, values: Metrics) -> None:
        site = message.envelope.sender
        if self._round is not None:
            self._round = self._round.accept(site)
        self._answers[site] = answer
        telemetry = self._telemetry.labelled(round=message.envelope.round, site=site)
        seconds: Mapping[str, float] = getattr(message.body, "seconds", {})
        for stage in _SITE_STAGES & seconds.keys():
            if math.isfinite(seconds[stage]) and seconds[stage] >= 0:
                telemetry.spent(stage, seconds[stage])
        told = {**answer.metrics, "examples": answer.num_examples, **values}
        telemetry.event("result_accepted", {k: v for k, v in told.items() if not isinstance(v, bytes)})

    def _drop(self, site: str, reason: RemoteError) -> None:
        if self._round is not None:
            self._round = self._round.drop(site, reason)
