"""The server: runs the rounds, and keeps the model.

Rules: the strategy decides, :class:`~fedpost.federation.exchange.Exchange` asks the sites, this module goes from round
to round; whatever ends the run, the last model and the ledger are on disk, and the sites are told.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from fedpost.errors import ConfigError, RunError
from fedpost.federation.aggregation import Spool
from fedpost.federation.exchange import Exchange
from fedpost.federation.inbox import Asked
from fedpost.federation.strategies import Failure, Strategy
from fedpost.federation.types import ClientProxy, EvaluateRes, FitIns, FitRes, Metrics, Parameters, plain_metrics
from fedpost.frame import DEFAULT_LIMITS, Limits
from fedpost.pipeline import Pipeline, save_tensors
from fedpost.protocol import PAYLOADS, AggregationResult, RunEnd
from fedpost.telemetry import Telemetry
from fedpost.tensors.dtypes import is_number
from fedpost.transports import Endpoint

__all__ = ["RoundReport", "RunResult", "Server", "ServerSettings"]

_INITIALIZE, _FIT, _EVALUATE = range(3)

Evaluation = tuple[float | None, Metrics]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """How a run is run.

    Attributes:
        run: The run's id.
        name: What the run is called.
        rounds: How many rounds.
        folder: Where the model and the spool go.
        pipelines: For each payload of :data:`fedpost.protocol.PAYLOADS` how tensors are encoded.
        sites: The names of the sites that may take part; None for any.
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
    sites: frozenset[str] | None = None
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
        metrics: Of the new model, as ``loss`` is: by the server, or by the sites where the server never evaluates.
        fit_metrics: What the sites measured while they trained, combined.
        sites_metrics: What the sites measured of the new model where the server evaluates as well, combined.
        seconds: How long the round took.
    """

    number: int
    sites: int
    loss: float | None
    metrics: Metrics
    seconds: float
    fit_metrics: Metrics = field(default_factory=dict)
    sites_metrics: Metrics = field(default_factory=dict)


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
        self._strategy = strategy
        self._settings = settings
        self._telemetry = telemetry
        self._spool: Final = Spool(settings.folder / "spool", settings.limits)
        self._sites: Final = Exchange(
            endpoint,
            run=settings.run,
            sites=settings.sites,
            pipelines=settings.pipelines,
            spool=self._spool,
            timeout=settings.round_timeout,
            limits=settings.limits,
            telemetry=telemetry,
            lost=lost,
        )
        self._parameters = Parameters.of({})
        self._history: list[RoundReport] = []
        self._central = False

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
            self._sites.wait_for(self._strategy.min_available_clients, self._settings.register_timeout)
            self._initialize()
            for number in range(1, self._settings.rounds + 1):
                self._run_round(number)
            status = "finished"
        except KeyboardInterrupt:
            status, reason = "interrupted", "stopped by the user"
        except BaseException as error:
            reason = f"{type(error).__name__}: {error}".encode(errors="replace").decode()[:4096]
            raise
        finally:
            last = self._history[-1].metrics if self._history else {}
            self._sites.end(RunEnd(status=status, reason=reason), AggregationResult(metrics=last), self._parameters)
            self._spool.remove()
            seconds = time.monotonic() - started
            self._telemetry.event("run_ended", {"status": status, "reason": reason, "seconds": seconds})
        return RunResult("interrupted" if reason else "finished", self._parameters, self._history)

    def _initialize(self) -> None:
        start = time.monotonic()
        given = self._strategy.initialize_parameters(self._sites.available(self._settings.seed, 0, 0, _INITIALIZE))
        self._set_model(given if given is not None else self._ask_for_parameters())
        self._report(0, 0, start, self._evaluate(0) or (None, {}))

    def _ask_for_parameters(self) -> Parameters:
        """Let one site send the initial model: the first in canonical order, then the next if it cannot."""
        for client in self._sites.available(self._settings.seed, 0, 0, _INITIALIZE).all().values():
            asked = self._sites.ask(0, 1, 1, [(client, FitIns(Parameters.of({})))], initialize=True)
            for _, result in _fit_results(asked):
                # Out of the spool, which the first round clears.
                return Parameters.of({name: array.copy() for name, array in result.parameters.arrays().items()})
        raise RunError("no site has initial parameters", hint="Give the app an initialize function.")

    def _set_model(self, parameters: Parameters) -> None:
        if not parameters.specs:
            raise ConfigError("the initial model has no parameters")
        for spec in parameters.specs:
            if not is_number(spec.dtype):
                raise ConfigError(f"its element type {spec.dtype} cannot be averaged", where=f"tensor {spec.name!r}")
        number = len(self._history)
        self._parameters = self._sites.publish(parameters, number)
        self._strategy.published(number, self._parameters)
        with self._telemetry.span("save"):
            metadata = {"run": self._settings.run, "name": self._settings.name, "round": number}
            save_tensors(self._settings.folder / "model.fedwt", self._parameters.arrays(), metadata=metadata)

    def _run_round(self, number: int) -> None:
        start = time.monotonic()
        telemetry = self._telemetry.labelled(round=number)
        asked = self._fit(number)
        with telemetry.span("aggregate"):
            model, fit_metrics = self._strategy.aggregate_fit(number, _fit_results(asked), _failures(asked))
        if model is not None:
            self._set_model(model)
        central = self._evaluate(number) or (None, {})
        sites = self._evaluate_at_sites(number) or (None, {})
        # Once the server has evaluated, its evaluations are the run's curve, never now one's and now the other's.
        if self._central:
            loss, metrics = sites
            sites_metrics = metrics if loss is None else {**metrics, "loss": loss}
            self._report(number, len(asked.results), start, central, fit_metrics, sites_metrics)
        else:
            self._report(number, len(asked.results), start, sites, fit_metrics)

    def _fit(self, number: int) -> Asked:
        """Ask for training, again if too few results count."""
        settings, minimum = self._settings, self._strategy.min_fit_clients
        for attempt in range(1, settings.attempts + 1):
            self._sites.wait_for(minimum, settings.register_timeout)
            manager = self._sites.available(settings.seed, number, attempt, _FIT)
            instructions = self._strategy.configure_fit(number, self._parameters, manager)
            telemetry = self._telemetry.labelled(round=number)
            telemetry.event("round_started", {"sites": len(instructions), "attempt": attempt})
            asked = self._sites.ask(number, attempt, minimum, instructions)
            if asked.enough:
                return asked
            reason = _too_few(asked)
            if attempt < settings.attempts:
                telemetry.event("round_retried", {"reason": reason})
        raise RunError(
            f"round {number} failed in {settings.attempts} attempts: {reason}",
            hint="Raise round_timeout, or lower min_fit_clients.",
        )

    def _evaluate(self, number: int) -> Evaluation | None:
        with self._telemetry.labelled(round=number).span("evaluate"):
            evaluation = self._strategy.evaluate(number, self._parameters)
        self._central = self._central or evaluation is not None
        return evaluation

    def _evaluate_at_sites(self, number: int) -> Evaluation | None:
        manager = self._sites.available(self._settings.seed, number, 1, _EVALUATE)
        instructions = self._strategy.configure_evaluate(number, self._parameters, manager)
        if not instructions:
            return None
        asked = self._sites.ask(number, 1, 1, instructions)
        results = [(client, result) for client, result in asked.results if isinstance(result, EvaluateRes)]
        return self._strategy.aggregate_evaluate(number, results, _failures(asked))

    def _report(
        self,
        number: int,
        sites: int,
        start: float,
        evaluation: Evaluation,
        fit_metrics: Metrics | None = None,
        sites_metrics: Metrics | None = None,
    ) -> None:
        report = RoundReport(
            number,
            sites,
            None if evaluation[0] is None else float(evaluation[0]),
            plain_metrics(evaluation[1], "metric"),
            time.monotonic() - start,
            plain_metrics(fit_metrics or {}, "metric"),
            plain_metrics(sites_metrics or {}, "metric"),
        )
        self._history.append(report)
        given: Metrics = {
            **report.metrics,
            **{f"fit_{name}": value for name, value in report.fit_metrics.items()},
            **{f"sites_{name}": value for name, value in report.sites_metrics.items()},
            **({} if report.loss is None else {"loss": report.loss}),
            "sites": sites,
            "seconds": report.seconds,
        }
        shown = {name: value for name, value in given.items() if not isinstance(value, bytes)}
        self._telemetry.labelled(round=number).event("round_ended", shown)


def _fit_results(asked: Asked) -> list[tuple[ClientProxy, FitRes]]:
    return [(client, result) for client, result in asked.results if isinstance(result, FitRes)]


def _failures(asked: Asked) -> list[Failure]:
    return [(ClientProxy(site), error) for site, error in sorted(asked.round.dropped.items(), key=lambda item: item[0])]


def _too_few(asked: Asked) -> str:
    dropped = "; ".join(f"{client.cid}: {error.what}" for client, error in _failures(asked))
    return f"{len(asked.results)} of {asked.round.minimum} results needed" + (f" ({dropped})" if dropped else "")
