"""The server's dealings with the sites: who is there, what they are asked, and which of their answers count.

Rules: every message is a step of the site's session and of the round's table, or it is refused; a refusal is recorded
and drops the site from the round, never raises into the run; a result is checked whole and spooled before it counts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from fedpost.codecs import Base
from fedpost.errors import ProtocolError, RefusedResultError, RemoteError, RunError, StaleError, TransportError
from fedpost.federation.aggregation import Spool, check_result
from fedpost.federation.channel import Channel, Received
from fedpost.federation.host import SERVER, result_pipeline
from fedpost.federation.outbox import Outbox, record_bytes
from fedpost.federation.peers import Available, Peer
from fedpost.federation.rounds import Round, RoundState
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
from fedpost.pipeline import Pipeline, tensor_sizes
from fedpost.protocol import (
    Body,
    Envelope,
    ErrorReport,
    EvaluationCommand,
    EvaluationResult,
    HealthCheck,
    Message,
    MessageType,
    Registration,
    RegistrationReply,
    SessionState,
    StatusUpdate,
    TrainingCommand,
    WeightUpdate,
    agree,
)
from fedpost.telemetry import Telemetry
from fedpost.tensors import TensorSpec
from fedpost.transports import Endpoint

__all__ = ["Asked", "Exchange"]

_WATCH_SECONDS: Final = 1.0
_SLACK: Final = 1 << 20
_LIFETIME: Final = 10.0
"""A command expires after this many round timeouts: generous, since the clocks of sites differ."""

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
        self._outbox = Outbox(self._channel, run, _LIFETIME * timeout, telemetry)
        self._run = run
        self._pipelines = pipelines
        self._spool = spool
        self._timeout = timeout
        self._limits = limits
        self._telemetry = telemetry
        self._lost = lost
        self._sites = sites
        self._dead: dict[str, str] = {}
        self._look_again = 0.0
        self._peers: dict[str, Peer] = {}
        self._round: Round | None = None
        self._expected_specs: tuple[TensorSpec, ...] = ()
        self._initializing = False
        self._answers: dict[str, FitRes | EvaluateRes] = {}
        self._handlers: Final[dict[MessageType, Callable[[Message], None]]] = {
            MessageType.CLIENT_REGISTRATION: self._on_registration,
            MessageType.WEIGHT_UPDATE: self._on_weight_update,
            MessageType.EVALUATION_RESULT: self._on_evaluation_result,
            MessageType.ERROR_REPORT: self._on_error_report,
            MessageType.STATUS_UPDATE: self._on_status_update,
        }

    # ── asking ───────────────────────────────────────────────────────────────────────────────────────────────────────

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
            hopeless = self._sites is not None and len(self._sites) - len(self._dead) < count
            if hopeless or time.monotonic() >= deadline:
                dead = "".join(f"; {site}: {reason}" for site, reason in sorted(self._dead.items()))
                raise RunError(
                    f"{there} {'site is' if there == 1 else 'sites are'} there, {count} are needed{dead}",
                    hint="Start more sites, or lower min_available_clients and min_fit_clients.",
                )
            self._pump(deadline)

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
        self._answers.clear()
        self._spool.clear()
        self._expected_specs = instructions[0][1].parameters.specs if instructions else ()
        self._initializing = initialize
        deadline = time.monotonic() + self._timeout
        sessions = {client.cid: self._peers[client.cid].session_id for client, _ in instructions}
        self._round = Round(number, attempt, minimum, deadline, frozenset(sessions))
        for client, ins in instructions:
            config = plain_metrics(ins.config, "setting")
            command: Body
            if isinstance(ins, FitIns):
                counted = self._peers[client.cid].counted
                command = TrainingCommand(config=config, initialize=initialize, acknowledged=counted)
            else:
                command = EvaluationCommand(config=config)
            parameters = None if initialize else ins.parameters
            try:
                self._outbox.send(self._peers[client.cid], command, parameters, number=number, attempt=attempt)
            except TransportError as error:
                self._unreachable(client.cid, error)
        # The sites' time starts when the last of them has been asked.
        deadline = time.monotonic() + self._timeout
        self._round = replace(self._round, deadline=deadline)
        with self._telemetry.labelled(round=number).span("wait"):
            while self._round.state(now := time.monotonic()) is RoundState.OPEN or (
                # What was there in time is taken in, however long that takes.
                self._round.waiting and deadline <= now < deadline + self._timeout and self._pump(now)
            ):
                if now < deadline:
                    self._pump(deadline)
        late = self._round.waiting if time.monotonic() >= deadline else ()
        for site in sorted(late):
            # Whatever it is doing, it will say so when it is done; until then it is not asked for anything else.
            self._lose(site, ProtocolError(f"no answer within {self._timeout:g} s"))
            try:
                self._outbox.send(self._peers[site], HealthCheck())
            except TransportError as error:
                self._unreachable(site, error)
        finished, self._round = self._round, None
        self._outbox.forget()
        asked = Asked(finished, [(ClientProxy(site), self._answers[site]) for site in sorted(finished.accepted)])
        for client, answer in asked.results:
            peer = self._peers[client.cid]
            # One that was started again since has answered nothing, whatever its former life did.
            if asked.enough and isinstance(answer, FitRes) and peer.session_id == sessions[peer.name]:
                peer.counted = (number, attempt)
        return asked

    def end(self, end: Body, farewell: Body, parameters: Parameters) -> None:
        """Tell every site that the run is over, with the model where one asked for it; a broken medium is recorded."""
        for peer in self._peers.values():
            try:
                if peer.wants_model and peer.available and parameters.specs:
                    self._outbox.send(peer, farewell, parameters)
                self._outbox.send(peer, end)
            except TransportError as error:
                self._unreachable(peer.name, error)

    # ── taking in ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _pump(self, deadline: float) -> bool:
        """Take in one message, if one comes in time, and say so; now and then look for sites that died."""
        now = time.monotonic()
        received = self._channel.receive(min(max(deadline - now, 0), _WATCH_SECONDS))
        if received is not None:
            self._dispatch(received)
        if now >= self._look_again:
            self._look_again = now + _WATCH_SECONDS
            self._look_for_dead()
        return received is not None

    def _look_for_dead(self) -> None:
        for site, reason in self._lost().items():
            self._dead[site] = reason
            self._lose(site, ProtocolError(reason))
            if site in self._peers:
                self._peers[site].session = self._peers[site].session.left()

    def _dispatch(self, received: Received) -> None:
        envelope = received.message.envelope
        current = self._round.number if self._round else None
        known = envelope.sender in (self._peers if self._sites is None else self._sites)
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
        base = self._base_of(self._peers[envelope.sender]) if counts else None
        sizes = tensor_sizes(received.message.frame, limits=self._limits, base=base) if counts else {}
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
        body, name = message.body, message.envelope.sender
        if not isinstance(body, Registration):
            raise ProtocolError("not a registration")
        if SERVER in (name, body.address):
            raise ProtocolError(f"{SERVER!r} is the server's own name")
        if self._sites is not None and name not in self._sites:
            reason = "no such site takes part in this run: list it under sites"
            self._refuse_registration(name, body, reason)
            raise ProtocolError(reason)
        known = self._peers.get(name)
        if known is not None and known.session_id == body.session and known.session.state is not SessionState.LEFT:
            return  # said again; the reply is on its way
        peer = _registering(name, body)
        try:
            peer.agreement = agree(self._pipelines, body.offer)
        except ProtocolError as error:
            self._refuse_registration(name, body, error.what)
            raise
        self._outbox.send(peer, RegistrationReply(session=body.session, agreement=peer.agreement))
        if known is not None and known.session_id == body.session:
            peer.counted = known.counted  # it has kept its account
        self._drop(name, ProtocolError("the site was started again"))
        self._peers[name] = peer
        self._dead.pop(name, None)
        self._telemetry.labelled(site=name).event("site_joined")

    def _refuse_registration(self, name: str, body: Registration, reason: str) -> None:
        self._outbox.send(_registering(name, body), RegistrationReply(session=body.session, reason=reason))

    def _on_weight_update(self, message: Message) -> None:
        peer, current = self._answered(message)
        telemetry = self._telemetry.labelled(round=current.number, site=peer.name)
        body = message.body
        try:
            if not isinstance(body, WeightUpdate):
                raise ProtocolError("not a weight update")
            pipeline = self._pipeline_of(peer)
            sent = (message.frame.section("pipeline", str, limit=4096), message.frame.checksum)
            if sent != (str(pipeline), pipeline.checksum):
                raise ProtocolError(f"encoded as {sent}, agreed was {(str(pipeline), pipeline.checksum)}")
            self._check_size(message)
            base = self._base_of(peer)
            with telemetry.span("verify"):
                source = message.tensors(limits=self._limits, base=base)
                check_result(source, self._expected_specs or source.specs)
            with telemetry.span("spool"):
                parameters = self._spool.add(peer.name, message.frame, source.specs, base)
        except RemoteError as error:
            self._drop(peer.name, error)
            raise
        values = {**body.metrics, "examples": body.num_examples}
        self._accept(message, FitRes(parameters, body.num_examples, body.metrics), body.seconds, values)

    def _pipeline_of(self, peer: Peer) -> Pipeline:
        """How a site's result must be encoded now."""
        if peer.agreement is None:
            raise ProtocolError("nothing was agreed with it")
        return result_pipeline(peer.agreement, initialize=self._initializing)

    def _base_of(self, peer: Peer) -> Base | None:
        """What a site's result is relative to, where its codec needs that."""
        return self._outbox.base(peer) if self._pipeline_of(peer).update.needs_base else None

    def _check_size(self, message: Message) -> None:
        """Before anything is decompressed: a result takes about as much room as the model."""
        frame = message.frame
        raw = sum(map(frame.raw_size, range(len(frame))))
        allowed = _SLACK + 2 * sum(spec.nbytes for spec in self._expected_specs)
        if self._expected_specs and raw > allowed:
            raise RefusedResultError(f"it decompresses to {raw} bytes, {allowed} are plausible for this model")

    def _on_evaluation_result(self, message: Message) -> None:
        peer, _ = self._answered(message)
        body = message.body
        if not isinstance(body, EvaluationResult) or not math.isfinite(body.loss):
            error = RefusedResultError("the loss is not a finite number")
            self._drop(peer.name, error)
            raise error
        values = {**body.metrics, "examples": body.num_examples, "loss": body.loss}
        self._accept(message, EvaluateRes(body.loss, body.num_examples, body.metrics), body.seconds, values)

    def _on_error_report(self, message: Message) -> None:
        peer, current = self._answered(message)
        if not isinstance(message.body, ErrorReport):
            raise ProtocolError("not an error report")
        reason = message.body.reason
        self._drop(peer.name, RemoteError(reason))
        self._telemetry.labelled(round=current.number, site=peer.name).event("site_failed", {"reason": reason})

    def _on_status_update(self, message: Message) -> None:
        peer, body = self._peers[message.envelope.sender], message.body
        if not isinstance(body, StatusUpdate):
            raise ProtocolError("not a status update")
        if body.state == "leaving":
            self._lose(peer.name, ProtocolError("the site left"))
            peer.session = peer.session.left()
        elif self._round is None or peer.name not in self._round.waiting:
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

    def _accept(
        self, message: Message, answer: FitRes | EvaluateRes, seconds: Mapping[str, float], values: Metrics
    ) -> None:
        site = message.envelope.sender
        if self._round is not None:
            self._round = self._round.accept(site)
        self._answers[site] = answer
        telemetry = self._telemetry.labelled(round=message.envelope.round, site=site)
        for stage in _SITE_STAGES & seconds.keys():
            if math.isfinite(seconds[stage]) and seconds[stage] >= 0:
                telemetry.spent(stage, seconds[stage])
        telemetry.event("result_accepted", {k: v for k, v in values.items() if not isinstance(v, bytes)})

    def _unreachable(self, site: str, error: TransportError) -> None:
        self._lose(site, ProtocolError(f"its mailbox cannot be written: {error}"))
        self._peers[site].session = self._peers[site].session.left()

    def _lose(self, site: str, reason: RemoteError) -> None:
        self._telemetry.labelled(site=site).event("site_lost", {"reason": reason.what})
        self._drop(site, reason)

    def _drop(self, site: str, reason: RemoteError) -> None:
        if self._round is not None:
            self._round = self._round.drop(site, reason)


def _registering(name: str, body: Registration) -> Peer:
    peer = Peer(name, body.address, body.session, body.wants_model)
    peer.session = peer.session.step(MessageType.CLIENT_REGISTRATION)
    return peer
