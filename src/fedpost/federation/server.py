"""The server: registers sites, runs the rounds, and keeps the model.

Rules: the strategy decides, the round's table says when it is over, this module only moves messages; one site's fault
is recorded and dropped from the round, never raised; whatever ends the run, the last model and the ledger are on disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from fedpost.errors import ConfigError, ProtocolError, RefusedResultError, RemoteError, RunError
from fedpost.federation.aggregation import Spool, check_result
from fedpost.federation.channel import Channel, Received
from fedpost.federation.host import SERVER
from fedpost.federation.peers import Available, Peer
from fedpost.federation.rounds import Round, RoundState
from fedpost.federation.strategies import Failure, Strategy
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
from fedpost.frame import DEFAULT_LIMITS, Frame, Limits
from fedpost.pipeline import Pipeline, save_tensors, tensor_sizes
from fedpost.protocol import (
    PAYLOADS,
    AggregationResult,
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
    RunEnd,
    SessionState,
    StatusUpdate,
    TrainingCommand,
    WeightUpdate,
    agree,
    type_of,
)
from fedpost.telemetry import Telemetry
from fedpost.tensors.dtypes import is_number
from fedpost.transports import Endpoint

__all__ = ["RoundReport", "RunResult", "Server", "ServerSettings"]

_INITIALIZE, _FIT, _EVALUATE = range(3)
_WATCH_SECONDS: Final = 1.0
_LIFETIME: Final = 10.0
"""A command expires after this many round timeouts: generous, since the clocks of sites differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """How a run is run.

    Attributes:
        run: The run's id.
        name: What the run is called.
        rounds: How many rounds.
        folder: Where the model and the spool go.
        pipelines: For each payload of :data:`fedpost.protocol.PAYLOADS` how tensors are encoded.
        seed: Seeds the draws of sites.
        round_timeout: Seconds after which a round goes on without the sites that are missing.
        register_timeout: Seconds to wait for enough sites.
        attempts: How often a round is tried before the run fails.
        limits: The budget for what sites send.
    """

    run: str
    name: str
    rounds: int
    folder: Path
    pipelines: Mapping[str, Pipeline] = field(default_factory=lambda: dict.fromkeys(PAYLOADS, Pipeline()))
    seed: int = 0
    round_timeout: float = 60.0
    register_timeout: float = 60.0
    attempts: int = 2
    limits: Limits = DEFAULT_LIMITS


@dataclass(frozen=True, slots=True)
class RoundReport:
    """What came of a round.

    Attributes:
        number: From 1; 0 for the initial model.
        sites: How many results went into the model.
        loss: Of the new model, or None when nobody evaluated it.
        metrics: Of the new model.
        seconds: How long the round took.
    """

    number: int
    sites: int
    loss: float | None
    metrics: Metrics
    seconds: float


@dataclass(frozen=True, slots=True)
class RunResult:
    """What came of a run.

    Attributes:
        status: ``finished``, or ``interrupted`` by the user.
        parameters: The last model.
        history: One report a round.
    """

    status: Literal["finished", "interrupted"]
    parameters: Parameters
    history: Sequence[RoundReport]


class Server:
    """Runs one federation over one endpoint.

    Args:
        endpoint: The transport's end, with the address ``server``.
        strategy: Who trains what, and how results are combined.
        settings: How the run is run.
        telemetry: Where everything is recorded.
        lost: Says which sites are known to have died since it was last asked, and how: for whoever watches their
            processes. It may raise to end the run.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        strategy: Strategy,
        settings: ServerSettings,
        telemetry: Telemetry,
        *,
        lost: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._lost = lost
        self._strategy = strategy
        self._settings = settings
        self._telemetry = telemetry
        self._channel = Channel(endpoint, frozenset({SERVER}), telemetry, settings.limits)
        self._spool = Spool(settings.folder / "spool", settings.limits)
        self._peers: dict[str, Peer] = {}
        self._parameters = Parameters.of({})
        self._history: list[RoundReport] = []
        self._round: Round | None = None
        self._fit_results: dict[str, FitRes] = {}
        self._evaluations: dict[str, EvaluateRes] = {}
        self._encoded: dict[tuple[int, str], tuple[Parameters, Frame, dict[str, tuple[int, int]]]] = {}
        self._handlers: Final[dict[MessageType, Callable[[Message], None]]] = {
            MessageType.CLIENT_REGISTRATION: self._on_registration,
            MessageType.WEIGHT_UPDATE: self._on_weight_update,
            MessageType.EVALUATION_RESULT: self._on_evaluation_result,
            MessageType.ERROR_REPORT: self._on_error_report,
            MessageType.STATUS_UPDATE: self._on_status_update,
        }

    def run(self) -> RunResult:
        """Run all rounds.

        Returns:
            The last model and the history; after Ctrl-C those of the rounds that were finished.

        Raises:
            RunError: Too few sites came, or a round failed in every attempt.
            TransportError: The medium failed.
        """
        started = time.monotonic()
        status: Literal["finished", "interrupted", "failed"] = "failed"
        reason = ""
        try:
            self._wait_for_sites(self._strategy.min_available_clients)
            self._initialize()
            for number in range(1, self._settings.rounds + 1):
                self._run_round(number)
            status = "finished"
        except KeyboardInterrupt:
            status = reason = "interrupted"
        except BaseException as error:
            reason = f"{type(error).__name__}: {error}"
            raise
        finally:
            self._end(RunEnd(status=status, reason=reason[:4096]))
            self._spool.clear()
            seconds = time.monotonic() - started
            self._telemetry.event("run_ended", {"status": status, "reason": reason, "seconds": seconds})
        return RunResult("interrupted" if reason else "finished", self._parameters, self._history)

    # ── the run ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _wait_for_sites(self, count: int) -> None:
        deadline = time.monotonic() + self._settings.register_timeout
        while (there := sum(peer.available for peer in self._peers.values())) < count:
            if time.monotonic() >= deadline:
                raise RunError(
                    f"{there} sites are there after {self._settings.register_timeout:g} s, {count} are needed",
                    hint="Start more sites, or lower min_available_clients.",
                )
            self._pump(deadline - time.monotonic())

    def _initialize(self) -> None:
        given = self._strategy.initialize_parameters(self._available(0, 0, _INITIALIZE))
        self._set_model(given if given is not None else self._ask_for_parameters())
        start = time.monotonic()
        self._report(0, 0, self._evaluate(0), start)

    def _ask_for_parameters(self) -> Parameters:
        """Let one site send the initial model: the first in canonical order, then the next if it cannot."""
        for client in self._available(0, 0, _INITIALIZE).all().values():
            self._ask(0, 1, 1, [(client, FitIns(Parameters.of({})))], initialize=True)
            if self._fit_results:
                parameters = self._fit_results[client.cid].parameters
                model = Parameters.of({name: array.copy() for name, array in parameters.arrays().items()})
                self._spool.clear()
                return model
        raise RunError("no site has initial parameters", hint="Give the app an initialize function.")

    def _set_model(self, parameters: Parameters) -> None:
        if not parameters.specs:
            raise ConfigError("the initial model has no parameters")
        for spec in parameters.specs:
            if not is_number(spec.dtype):
                raise ConfigError(f"its element type {spec.dtype} cannot be averaged", where=f"tensor {spec.name!r}")
        self._parameters = parameters
        self._encoded.clear()
        with self._telemetry.span("save"):
            metadata = {"run": self._settings.run, "name": self._settings.name, "round": len(self._history)}
            save_tensors(self._settings.folder / "model.fedwt", parameters.arrays(), metadata=metadata)

    def _run_round(self, number: int) -> None:
        start = time.monotonic()
        for attempt in range(1, self._settings.attempts + 1):
            self._wait_for_sites(self._strategy.min_fit_clients)
            manager = self._available(number, attempt, _FIT)
            instructions = self._strategy.configure_fit(number, self._parameters, manager)
            finished = self._ask(number, attempt, self._strategy.min_fit_clients, instructions)
            if finished.state(time.monotonic()) is not RoundState.SHORT:
                break
            reason = _too_few(finished)
            self._telemetry.labelled(round=number).event("round_retried", {"reason": reason, "attempt": attempt})
        else:
            raise RunError(
                f"round {number} failed in {self._settings.attempts} attempts: {reason}",
                hint="Raise round_timeout, or lower min_fit_clients.",
            )
        telemetry = self._telemetry.labelled(round=number)
        results = [(ClientProxy(site), self._fit_results[site]) for site in sorted(finished.accepted)]
        with telemetry.span("aggregate"):
            model, fit_metrics = self._strategy.aggregate_fit(number, results, _failures(finished))
        self._spool.clear()
        self._fit_results.clear()
        if model is not None:
            self._set_model(model)
        central = self._evaluate(number)
        federated = self._evaluate_at_sites(number)
        loss, metrics = central or federated or (None, {})
        self._report(number, len(results), (loss, {**fit_metrics, **metrics}), start)

    def _evaluate(self, number: int) -> tuple[float | None, Metrics] | None:
        with self._telemetry.labelled(round=number).span("evaluate"):
            return self._strategy.evaluate(number, self._parameters)

    def _evaluate_at_sites(self, number: int) -> tuple[float | None, Metrics] | None:
        manager = self._available(number, 1, _EVALUATE)
        instructions = self._strategy.configure_evaluate(number, self._parameters, manager)
        if not instructions:
            return None
        self._evaluations.clear()
        finished = self._ask(number, 1, 1, instructions)
        results = [(ClientProxy(site), self._evaluations[site]) for site in sorted(finished.accepted)]
        return self._strategy.aggregate_evaluate(number, results, _failures(finished))

    def _report(self, number: int, sites: int, evaluation: tuple[float | None, Metrics] | None, start: float) -> None:
        given, measured = evaluation or (None, {})
        loss, metrics = None if given is None else float(given), plain_metrics(measured, "metric")
        report = RoundReport(number, sites, loss, metrics, time.monotonic() - start)
        self._history.append(report)
        shown = {name: value for name, value in metrics.items() if not isinstance(value, bytes)}
        values = {**shown, "sites": sites, "seconds": report.seconds, **({} if loss is None else {"loss": loss})}
        self._telemetry.labelled(round=number).event("round_ended", values)

    def _end(self, end: RunEnd) -> None:
        """Tell every site, with the final model where one asked for it."""
        for peer in self._peers.values():
            if peer.session.state is SessionState.LEFT:
                continue
            if peer.wants_model and peer.available and self._parameters.specs:
                last = self._history[-1].metrics if self._history else {}
                self._send(peer, AggregationResult(metrics=last), self._parameters)
            self._send(peer, end)

    # ── asking sites ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _available(self, number: int, attempt: int, purpose: int) -> Available:
        return Available(self._peers, (self._settings.seed, number, attempt, purpose))

    def _ask(
        self,
        number: int,
        attempt: int,
        minimum: int,
        instructions: Sequence[tuple[ClientProxy, FitIns | EvaluateIns]],
        *,
        initialize: bool = False,
    ) -> Round:
        """Send instructions and take answers in until the round is over."""
        self._fit_results.clear()
        self._spool.clear()
        telemetry = self._telemetry.labelled(round=number)
        self._round = Round(
            number,
            attempt,
            minimum,
            time.monotonic() + self._settings.round_timeout,
            frozenset(client.cid for client, _ in instructions),
        )
        if instructions and isinstance(instructions[0][1], FitIns):
            telemetry.event("round_started", {"sites": len(instructions), "attempt": attempt})
        for client, ins in instructions:
            body: Body
            if isinstance(ins, FitIns):
                body = TrainingCommand(config=plain_metrics(ins.config, "setting"), initialize=initialize)
            else:
                body = EvaluationCommand(config=plain_metrics(ins.config, "setting"))
            tensors = None if initialize else ins.parameters
            self._send(self._peers[client.cid], body, tensors, number=number, attempt=attempt)
        with telemetry.span("wait"):
            while self._round.state(now := time.monotonic()) is RoundState.OPEN:
                self._pump(self._round.deadline - now)
        for site in self._round.waiting:
            self._lose(site, ProtocolError(f"no answer within {self._settings.round_timeout:g} s"))
            self._send(self._peers[site], HealthCheck())
        finished, self._round = self._round, None
        return finished

    def _send(
        self, peer: Peer, body: Body, parameters: Parameters | None = None, *, number: int = 0, attempt: int = 0
    ) -> None:
        kind = type_of(body)
        telemetry = self._telemetry.labelled(round=number, site=peer.name)
        frame, sizes = (None, {}) if parameters is None else self._encode(peer, kind, parameters, number)
        envelope = Envelope.new(
            kind,
            sender=SERVER,
            recipient=peer.name,
            run=self._settings.run,
            round=number,
            attempt=attempt,
            lifetime=_LIFETIME * self._settings.round_timeout if number else None,
        )
        peer.session = peer.session.step(kind)
        with telemetry.span("send"):
            nbytes = self._channel.send(peer.address, envelope, body, frame)
        _record(telemetry, "down", kind, sizes, nbytes)

    def _encode(
        self, peer: Peer, kind: MessageType, parameters: Parameters, number: int
    ) -> tuple[Frame, dict[str, tuple[int, int]]]:
        """Encode once for all the sites that get the same parameters in the same way."""
        if peer.agreement is None:
            raise ProtocolError(f"nothing was agreed with {peer.name}")
        payload = "EvaluateIns" if kind is MessageType.EVALUATION_COMMAND else "FitIns"
        pipeline = peer.agreement.pipeline(payload)
        key = (id(parameters), f"{pipeline} {pipeline.checksum}")
        if key not in self._encoded:
            with self._telemetry.labelled(round=number).span("encode"):
                frame = pipeline.encode(parameters.arrays())
            # The parameters are kept as well, so that their id stays theirs.
            self._encoded[key] = (parameters, frame, tensor_sizes(frame))
        _, frame, sizes = self._encoded[key]
        return frame, sizes

    # ── taking in messages ───────────────────────────────────────────────────────────────────────────────────────────

    def _pump(self, timeout: float) -> None:
        """Take in one message, if one comes in time, and look for sites that died."""
        received = self._channel.receive(min(max(timeout, 0), _WATCH_SECONDS))
        for site, reason in self._lost().items():
            self._lose(site, ProtocolError(reason))
            if site in self._peers:
                self._peers[site].session = self._peers[site].session.left()
        if received is not None:
            self._dispatch(received)

    def _dispatch(self, received: Received) -> None:
        envelope = received.message.envelope
        telemetry = self._telemetry.labelled(round=envelope.round or None, site=envelope.sender)
        try:
            handler = self._handlers.get(envelope.type)
            if handler is None:
                raise ProtocolError(f"a {envelope.type} is not for a server")
            if envelope.type is not MessageType.CLIENT_REGISTRATION:
                if envelope.sender not in self._peers:
                    raise ProtocolError("the site is not registered")
                if envelope.run != self._settings.run:
                    raise ProtocolError(f"stale: a {envelope.type} of run {envelope.run!r}")
            handler(received.message)
        except RemoteError as error:
            refused = envelope.type in (MessageType.WEIGHT_UPDATE, MessageType.EVALUATION_RESULT)
            telemetry.event("result_refused" if refused else "message_refused", {"reason": str(error)})
            received.delivery.reject(str(error))
        else:
            received.delivery.ack()

    def _on_registration(self, message: Message) -> None:
        body, name = message.body, message.envelope.sender
        if not isinstance(body, Registration):
            raise ProtocolError("not a registration")
        if SERVER in (name, body.address):
            raise ProtocolError(f"{SERVER!r} is the server's own name")
        peer = self._peers.get(name)
        repeated = peer is not None and peer.session_id == body.session and peer.agreement is not None
        if peer is None or not repeated:
            if peer is not None and self._round is not None:
                self._round = self._round.drop(name, ProtocolError("the site was started again"))
            peer = Peer(name, body.address, body.session, body.wants_model)
            peer.session = peer.session.step(MessageType.CLIENT_REGISTRATION)
        reply = RegistrationReply(session=body.session)
        try:
            peer.agreement = agree(self._settings.pipelines, body.offer)
            reply = RegistrationReply(session=body.session, agreement=peer.agreement)
        except ProtocolError as error:
            reply = RegistrationReply(session=body.session, reason=error.what)
        if repeated:  # the first reply is on its way; the session stands where it stood
            return
        self._send(peer, reply)
        if peer.agreement is None:
            raise ProtocolError(f"registration refused: {reply.reason}")
        self._peers[name] = peer
        self._telemetry.labelled(site=name).event("site_joined")

    def _expected(self, message: Message) -> tuple[Peer, Round]:
        """The peer and the round that an answer belongs to; the site is free again whatever becomes of its answer."""
        envelope = message.envelope
        peer = self._peers[envelope.sender]
        current = self._round
        try:
            if current is None:
                raise ProtocolError(f"stale: the answer is for round {envelope.round}, which is over")
            current.expect(peer.name, envelope.round, envelope.attempt)
            peer.session = peer.session.step(envelope.type)
        except ProtocolError:
            peer.session = peer.session.released()
            raise
        return peer, current

    def _on_weight_update(self, message: Message) -> None:
        peer, current = self._expected(message)
        telemetry = self._telemetry.labelled(round=current.number, site=peer.name)
        try:
            if not isinstance(message.body, WeightUpdate):
                raise ProtocolError("not a weight update")
            agreed = None if peer.agreement is None else peer.agreement.pipelines["FitRes"]
            sent = message.frame.section("pipeline", str, limit=4096)
            if sent != agreed:
                raise ProtocolError(f"encoded as {sent!r}, agreed was {agreed!r}")
            with telemetry.span("decode"):
                source = message.tensors(limits=self._settings.limits)
                check_result(source, self._parameters.specs or source.specs)
            with telemetry.span("spool"):
                parameters = self._spool.add(peer.name, message.frame, source.specs)
        except RemoteError as error:
            self._drop(peer.name, error)
            raise
        body = message.body
        self._fit_results[peer.name] = FitRes(parameters, body.num_examples, body.metrics)
        self._round = current.accept(peer.name)
        sizes = tensor_sizes(message.frame)
        self._accepted(telemetry, message, sizes, body.seconds, {"examples": body.num_examples, **body.metrics})

    def _on_evaluation_result(self, message: Message) -> None:
        peer, current = self._expected(message)
        body = message.body
        if not isinstance(body, EvaluationResult) or body.loss != body.loss:  # noqa: PLR0124 - the test for NaN
            error = RefusedResultError("the loss is not a number")
            self._drop(peer.name, error)
            raise error
        self._evaluations[peer.name] = EvaluateRes(body.loss, body.num_examples, body.metrics)
        self._round = current.accept(peer.name)
        telemetry = self._telemetry.labelled(round=current.number, site=peer.name)
        self._accepted(telemetry, message, {}, body.seconds, {"examples": body.num_examples, "loss": body.loss})

    def _accepted(
        self,
        telemetry: Telemetry,
        message: Message,
        sizes: Mapping[str, tuple[int, int]],
        seconds: Mapping[str, float],
        values: Metrics,
    ) -> None:
        _record(telemetry, "up", message.envelope.type, sizes, message.frame.nbytes)
        for stage, spent in seconds.items():
            telemetry.spent(stage[:64], spent)
        telemetry.event("result_accepted", {k: v for k, v in values.items() if not isinstance(v, bytes)})

    def _on_error_report(self, message: Message) -> None:
        peer, current = self._expected(message)
        if not isinstance(message.body, ErrorReport):
            raise ProtocolError("not an error report")
        self._drop(peer.name, RemoteError(message.body.reason))
        self._telemetry.labelled(round=current.number, site=peer.name).event(
            "site_failed", {"reason": message.body.reason}
        )

    def _on_status_update(self, message: Message) -> None:
        peer, body = self._peers[message.envelope.sender], message.body
        if not isinstance(body, StatusUpdate):
            raise ProtocolError("not a status update")
        if body.state == "leaving":
            self._lose(peer.name, ProtocolError("the site left"))
            peer.session = peer.session.left()
        elif self._round is None or peer.name not in self._round.waiting:
            peer.session = peer.session.released()

    def _lose(self, site: str, reason: RemoteError) -> None:
        self._telemetry.labelled(site=site).event("site_lost", {"reason": reason.what})
        self._drop(site, reason)

    def _drop(self, site: str, reason: RemoteError) -> None:
        if self._round is not None:
            self._round = self._round.drop(site, reason)


def _record(
    telemetry: Telemetry,
    direction: Literal["down", "up"],
    kind: MessageType,
    sizes: Mapping[str, tuple[int, int]],
    nbytes: int,
) -> None:
    """Write a message into the byte ledger: tensor by tensor, then whatever is not a tensor."""
    for name, (raw, stored) in sizes.items():
        telemetry.transfer(direction, kind, name, raw=raw, stored=stored)
    rest = nbytes - sum(stored for _, stored in sizes.values())
    telemetry.transfer(direction, kind, None, raw=0, stored=rest)


def _failures(finished: Round) -> list[Failure]:
    return [(ClientProxy(site), error) for site, error in sorted(finished.dropped.items(), key=lambda item: item[0])]


def _too_few(finished: Round) -> str:
    reasons = "; ".join(f"{site}: {error.what}" for site, error in sorted(finished.dropped.items()))
    return f"{len(finished.accepted)} of {finished.minimum} results needed" + (f" ({reasons})" if reasons else "")
