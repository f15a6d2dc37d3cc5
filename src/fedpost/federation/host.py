"""A process that hosts sites: it registers them, runs their clients on the server's commands, and answers.

Rules: a command is acknowledged after its answer was sent; a fault in the user's code becomes an error report and the
process goes on; what is not agreed with the server is never sent; what an update lost is booked, and on disk where
states are kept, before the update is sent.
"""

from __future__ import annotations

import logging
import operator
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, SupportsIndex, TypeVar

from fedpost.codecs import Base
from fedpost.errors import EncodeError, ProtocolError, RemoteError, RunError
from fedpost.federation.account import Place
from fedpost.federation.channel import Channel, Received
from fedpost.federation.client import AnyClient, Client, as_client
from fedpost.federation.models import Model, Models, parameters_of
from fedpost.federation.pipelines import result_pipeline, room_for
from fedpost.federation.state import SiteState, StateFolder
from fedpost.federation.types import EvaluateIns, FitIns, Metrics, Parameters, plain_metrics
from fedpost.frame import DEFAULT_LIMITS, Frame, Limits
from fedpost.protocol import (
    AggregationResult,
    Agreement,
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
    Session,
    SessionState,
    StatusUpdate,
    TrainingCommand,
    WeightUpdate,
    address_message,
    own_offer,
    type_of,
)
from fedpost.telemetry import Telemetry
from fedpost.transports import Endpoint

__all__ = ["SERVER", "SiteHost"]

SERVER: Final = "server"
"""The server's name and address."""

_REGISTER_AGAIN: Final = 10.0
_REGISTER_AT_LEAST: Final = 300.0
B = TypeVar("B", bound=Body)
_log = logging.getLogger("fedpost.site")


@dataclass(slots=True)
class _Site:
    name: str
    make: Callable[[str], AnyClient]
    session_id: str
    session: Session = field(default_factory=Session)
    agreement: Agreement | None = None
    state: SiteState = field(default_factory=SiteState)
    run: str = ""
    client: Client | None = None
    register_at: float = 0.0
    register_pause: float = _REGISTER_AGAIN

    def ready_client(self) -> Client:
        if self.client is None:
            self.client = as_client(self.make(self.name))
        return self.client


class _Stopwatch:
    """Seconds by stage, as they go into an answer."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = now - self._last
        self._last = now


class SiteHost:
    """Runs one or more sites in this process, over one endpoint.

    Args:
        endpoint: The transport's end; its address is where the server sends.
        sites: For each site's name what makes its client; clients are made when first needed.
        telemetry: Where refusals are recorded.
        limits: The budget for what is received.
        on_model: Takes each site's final model; without it none is asked for.
        state: A folder of these sites' own, where they keep what they need to go on after a restart; None for nowhere.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        sites: Mapping[str, Callable[[str], AnyClient]],
        telemetry: Telemetry,
        *,
        limits: Limits = DEFAULT_LIMITS,
        on_model: Callable[[str, Parameters], None] | None = None,
        state: Path | None = None,
    ) -> None:
        self._channel = Channel(endpoint, frozenset(sites), telemetry, limits)
        self._limits = limits
        self._on_model = on_model
        self._end: RunEnd | None = None
        self._folder: Final = StateFolder(state, limits)
        self._models: Final = Models(self._folder, limits)
        self._sites = {
            name: _Site(name, make, uuid.uuid4().hex, state=self._folder.state(name)) for name, make in sites.items()
        }
        self._handlers: Final[dict[MessageType, Callable[[_Site, Message], None]]] = {
            MessageType.REGISTRATION_REPLY: self._on_reply,
            MessageType.TRAINING_COMMAND: self._on_train,
            MessageType.EVALUATION_COMMAND: self._on_evaluate,
            MessageType.AGGREGATION_RESULT: self._on_final_model,
            MessageType.HEALTH_CHECK: self._on_health_check,
            MessageType.RUN_END: self._on_end,
        }

    def run(self) -> RunEnd:
        """Serve until the run has ended for every site hosted here, and say how it ended.

        Raises:
            RunError: The server refused a site.
            TransportError: The medium failed.
            KeyboardInterrupt: Passed on, once the server was told that the sites leave.
        """
        try:
            while any(site.session.state is not SessionState.ENDED for site in self._sites.values()):
                self._register()
                received = self._channel.receive(_REGISTER_AGAIN)
                if received is not None:
                    self._dispatch(received)
        except KeyboardInterrupt:
            self._leave()
            raise
        return self._end or RunEnd(status="finished")

    def _register(self) -> None:
        """Register what has no agreement yet; the server takes a repetition for what it is."""
        now = time.monotonic()
        for site in self._sites.values():
            if site.session.state in (SessionState.NEW, SessionState.REGISTERING) and now >= site.register_at:
                site.register_at = now + site.register_pause
                site.register_pause = min(2 * site.register_pause, _REGISTER_AT_LEAST)
                self._send(site, self._registration(site))

    def _registration(self, site: _Site) -> Registration:
        try:
            own_version = version("fedpost")
        except PackageNotFoundError:  # run from a source tree that is not installed
            own_version = ""
        return Registration(
            address=self._channel.endpoint.address,
            session=site.session_id,
            offer=own_offer(),
            wants_model=self._on_model is not None,
            version=own_version,
            account=site.state.ident,
            holds=self._models.digests,
        )

    def _dispatch(self, received: Received) -> None:
        message = received.message
        site = self._sites[message.envelope.recipient]
        try:
            handler = self._handlers.get(message.envelope.type)
            if handler is None or message.envelope.sender != SERVER:
                raise ProtocolError(f"a {message.envelope.type} from {message.envelope.sender} is not for a site")
            if message.envelope.run == site.run or message.envelope.type is MessageType.REGISTRATION_REPLY:
                handler(site, message)
            else:
                _log.info("%s: dropped a %s of run %s", site.name, message.envelope.type, message.envelope.run)
        except RemoteError as error:
            _log.warning("%s: refused a message: %s", site.name, error)
            self._channel.settle(received.delivery, error)
        else:
            self._channel.settle(received.delivery)

    # ── handlers ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _on_reply(self, site: _Site, message: Message) -> None:
        reply = _body(message, RegistrationReply)
        if reply.session != site.session_id:
            return  # for this site before its restart
        if reply.agreement is None:
            raise RunError(f"the server refused the site: {reply.reason}", where=site.name)
        for payload in ("FitIns", "FitRes", "EvaluateIns"):
            reply.agreement.pipeline(payload)
        if site.session.state is SessionState.REGISTERING:
            site.session = site.session.step(MessageType.REGISTRATION_REPLY)
        if message.envelope.run != site.state.run:  # another run's rounds are numbered as this one's
            site.state = SiteState(site.state.ident, message.envelope.run)
        site.agreement = reply.agreement
        site.run = message.envelope.run

    def _on_train(self, site: _Site, message: Message) -> None:
        command = _body(message, TrainingCommand)
        place = (message.envelope.round, message.envelope.attempt)
        pending = site.state.account.pending
        if place < site.state.trained or (pending is not None and pending[0] == place):
            # Nobody waits for its answer and what it says was acknowledged is out of date, or it was answered already:
            # another update under the same place would be taken for the one that was booked.
            _log.info("%s: dropped a %s that was overtaken", site.name, message.envelope.type)
            return
        site.state = replace(site.state, trained=place)
        self._work(site, message, lambda model, watch: self._train(site, place, command, model, watch))

    def _train(
        self, site: _Site, place: Place, command: TrainingCommand, model: Model, watch: _Stopwatch
    ) -> tuple[Body, Frame | None]:
        client = site.ready_client()
        pipeline = result_pipeline(_agreed(site), initialize=command.initialize)
        base = None
        if command.initialize:
            parameters, examples, metrics = client.get_parameters(command.config), 0, Metrics()
        else:
            if pipeline.update.needs_base:
                model = base = model if isinstance(model, Base) else Base.of(parameters_of(model).arrays())
            ins = FitIns(parameters_of(model), command.config)
            watch.lap("decode")
            result = client.fit(ins)
            parameters, examples, metrics = result.parameters, result.num_examples, result.metrics
        watch.lap("train")
        account = site.state.account.settled(command.acknowledged, place[0])
        frame, lost = pipeline.encode_update(parameters.arrays(), base=base, residual=account.residual)
        site.state = replace(site.state, account=account.booked(place, lost) if lost else account)
        self._folder.keep(site.name, site.state)
        watch.lap("encode")
        return WeightUpdate(
            num_examples=_count(examples), metrics=plain_metrics(metrics, "metric"), seconds=watch.seconds
        ), frame

    def _on_evaluate(self, site: _Site, message: Message) -> None:
        command = _body(message, EvaluationCommand)

        def work(model: Model, watch: _Stopwatch) -> tuple[Body, Frame | None]:
            ins = EvaluateIns(parameters_of(model), command.config)
            watch.lap("decode")
            res = site.ready_client().evaluate(ins)
            watch.lap("evaluate")
            metrics = plain_metrics(res.metrics, "metric")
            body = EvaluationResult(
                loss=float(res.loss), num_examples=_count(res.num_examples), metrics=metrics, seconds=watch.seconds
            )
            return body, None

        self._work(site, message, work)

    def _work(
        self, site: _Site, message: Message, work: Callable[[Model, _Stopwatch], tuple[Body, Frame | None]]
    ) -> None:
        """Do what a command says and answer it, with an error report if it fails."""
        site.session = site.session.step(message.envelope.type)
        kind = "failed" if getattr(message.body, "model", None) is None else "unknown_model"
        try:
            watch = _Stopwatch()
            model = self._models.take(message, site.agreement)
            if isinstance(model, Base):
                self._channel.limits = room_for(self._limits, sum(spec.nbytes for spec in model.tensors.specs))
            kind = "failed"
            body, tensors = work(model, watch)
            answer = self._message(site, body, tensors, answering=message.envelope)
        except Exception as error:  # noqa: BLE001 - whatever the user's code raises is the site's answer
            if kind == "failed":
                _log.exception("%s: %s failed", site.name, message.envelope.type)
            else:
                _log.warning("%s: asks for the whole model: %s", site.name, error)
            text = f"{type(error).__name__}: {error}".encode(errors="replace").decode()
            body = ErrorReport(reason=text[:4096], kind=kind)
            answer = self._message(site, body, answering=message.envelope)
        site.session = site.session.step(type_of(body))
        self._channel.send(SERVER, answer)

    def _on_final_model(self, site: _Site, message: Message) -> None:
        _body(message, AggregationResult)
        if self._on_model is not None:
            self._on_model(site.name, parameters_of(self._models.take(message, site.agreement)))

    def _on_health_check(self, site: _Site, message: Message) -> None:
        _body(message, HealthCheck)
        self._send(site, StatusUpdate(state="ready", holds=self._models.digests), answering=message.envelope)

    def _on_end(self, site: _Site, message: Message) -> None:
        site.session = site.session.step(MessageType.RUN_END)
        self._end = _body(message, RunEnd)

    # ── sending ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _leave(self) -> None:
        for site in self._sites.values():
            if site.session.state not in (SessionState.NEW, SessionState.ENDED):
                self._send(site, StatusUpdate(state="leaving"))

    def _send(self, site: _Site, body: Body, *, answering: Envelope | None = None) -> None:
        kind = type_of(body)
        if kind is not MessageType.STATUS_UPDATE:
            site.session = site.session.step(kind)
        self._channel.send(SERVER, self._message(site, body, answering=answering))

    def _message(
        self, site: _Site, body: Body, tensors: Frame | None = None, *, answering: Envelope | None = None
    ) -> Frame:
        envelope = Envelope.new(
            type_of(body),
            sender=site.name,
            recipient=SERVER,
            run=site.run,
            round=answering.round if answering else 0,
            attempt=answering.attempt if answering else 0,
            answering=answering,
        )
        return address_message(envelope, body, tensors)


def _count(examples: SupportsIndex) -> int:
    count = operator.index(examples)
    if count < 0:
        raise EncodeError(f"the number of examples is {count}")
    return count


def _agreed(site: _Site) -> Agreement:
    if site.agreement is None:
        raise ProtocolError("the server sent a command before it settled on anything")
    return site.agreement


def _body(message: Message, kind: type[B]) -> B:
    """The message's body, which the table of handlers makes this kind."""
    if not isinstance(message.body, kind):
        raise ProtocolError(f"a {message.envelope.type} with the wrong body")
    return message.body
