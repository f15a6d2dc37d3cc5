"""Federated averaging.

McMahan et al., 2017, "Communication-Efficient Learning of Deep Networks from Decentralized Data".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from fedpost.errors import ConfigError
from fedpost.federation.aggregation import WeightedMean, reduce_blocks
from fedpost.federation.strategies.strategy import Failure, Strategy
from fedpost.federation.types import (
    ClientManager,
    ClientProxy,
    EvaluateIns,
    EvaluateRes,
    FitIns,
    FitRes,
    Metrics,
    Parameters,
)
from fedpost.tensors import Array

__all__ = ["FedAvg"]

R = TypeVar("R", FitRes, EvaluateRes)

EvaluateFn = Callable[[int, list[Array], Metrics], tuple[float, Metrics] | None]


class FedAvg(Strategy):
    """Averages the sites' models, weighted by their numbers of examples.

    Args:
        fraction_fit: Share of the available sites that train in a round.
        fraction_evaluate: Share of the available sites that evaluate the new model.
        min_fit_clients: Fewest sites that train, and fewest results that a round needs.
        min_evaluate_clients: Fewest sites that evaluate, when any do.
        min_available_clients: Sites that must be there before the first round.
        evaluate_fn: ``(server_round, arrays, config) -> (loss, metrics) | None``, on the server's data.
        on_fit_config_fn: ``server_round -> config`` for training.
        on_evaluate_config_fn: ``server_round -> config`` for evaluation.
        initial_parameters: The initial model, or None to ask a site.

    Raises:
        ConfigError: A fraction is outside 0 to 1, or a count is less than 1.
    """

    def __init__(
        self,
        *,
        fraction_fit: float = 1.0,
        fraction_evaluate: float = 0.0,
        min_fit_clients: int = 1,
        min_evaluate_clients: int = 1,
        min_available_clients: int = 1,
        evaluate_fn: EvaluateFn | None = None,
        on_fit_config_fn: Callable[[int], Metrics] | None = None,
        on_evaluate_config_fn: Callable[[int], Metrics] | None = None,
        initial_parameters: Mapping[str, Array] | Sequence[Array] | None = None,
    ) -> None:
        for name, fraction in (("fraction_fit", fraction_fit), ("fraction_evaluate", fraction_evaluate)):
            if not 0 <= fraction <= 1:
                raise ConfigError(f"{name} is {fraction}, not between 0 and 1")
        if min(min_fit_clients, min_evaluate_clients, min_available_clients) < 1:
            raise ConfigError("the smallest number of clients is 1")
        self.fraction_fit = fraction_fit
        self.fraction_evaluate = fraction_evaluate
        self.min_evaluate_clients = min_evaluate_clients
        self.evaluate_fn = evaluate_fn
        self.on_fit_config_fn = on_fit_config_fn
        self.on_evaluate_config_fn = on_evaluate_config_fn
        self.initial_parameters = initial_parameters
        self._min_fit_clients = min_fit_clients
        self._min_available_clients = max(min_available_clients, min_fit_clients)

    @property
    def min_fit_clients(self) -> int:
        """How many results a round needs."""
        return self._min_fit_clients

    @property
    def min_available_clients(self) -> int:
        """How many sites must be there before the first round."""
        return self._min_available_clients

    def initialize_parameters(self, client_manager: ClientManager) -> Parameters | None:  # noqa: ARG002 - the contract
        """The initial model that was given, if any."""
        return None if self.initial_parameters is None else Parameters.of(self.initial_parameters)

    def configure_fit(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, FitIns]]:
        """Draw ``fraction_fit`` of the available sites, ``min_fit_clients`` at least; all get the same instructions."""
        config = self.on_fit_config_fn(server_round) if self.on_fit_config_fn else {}
        count = max(round(self.fraction_fit * client_manager.num_available()), self.min_fit_clients)
        ins = FitIns(parameters, config)
        return [(client, ins) for client in client_manager.sample(count, self.min_fit_clients)]

    def aggregate_fit(
        self,
        server_round: int,  # noqa: ARG002 - the contract
        results: Sequence[tuple[ClientProxy, FitRes]],
        failures: Sequence[Failure],  # noqa: ARG002 - the contract
    ) -> tuple[Parameters | None, Metrics]:
        """Average by numbers of examples, block by block; numeric metrics are averaged the same way."""
        counted = _counted(results)
        if not counted:
            return None, {}
        weights = [count for count, _ in counted]
        model = reduce_blocks([res.parameters for _, res in counted], WeightedMean(weights))
        return model, _mean_metrics([(count, res.metrics) for count, res in counted])

    def evaluate(self, server_round: int, parameters: Parameters) -> tuple[float, Metrics] | None:
        """Whatever ``evaluate_fn`` says."""
        return self.evaluate_fn(server_round, parameters.to_ndarrays(), {}) if self.evaluate_fn else None

    def configure_evaluate(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, EvaluateIns]]:
        """Draw ``fraction_evaluate`` of the available sites; nobody when it is 0."""
        if not self.fraction_evaluate:
            return []
        config = self.on_evaluate_config_fn(server_round) if self.on_evaluate_config_fn else {}
        count = max(round(self.fraction_evaluate * client_manager.num_available()), self.min_evaluate_clients)
        ins = EvaluateIns(parameters, config)
        return [(client, ins) for client in client_manager.sample(count, self.min_evaluate_clients)]

    def aggregate_evaluate(
        self,
        server_round: int,  # noqa: ARG002 - the contract
        results: Sequence[tuple[ClientProxy, EvaluateRes]],
        failures: Sequence[Failure],  # noqa: ARG002 - the contract
    ) -> tuple[float | None, Metrics]:
        """Average losses and numeric metrics by numbers of examples."""
        counted = _counted(results)
        if not counted:
            return None, {}
        total = sum(count for count, _ in counted)
        loss = sum(count * res.loss for count, res in counted) / total
        return loss, _mean_metrics([(count, res.metrics) for count, res in counted])


def _counted(results: Sequence[tuple[ClientProxy, R]]) -> list[tuple[int, R]]:
    """What was trained or evaluated on any examples, with their number, in canonical order."""
    ordered = sorted(results, key=lambda result: result[0])
    return [(res.num_examples, res) for _, res in ordered if res.num_examples > 0]


def _mean_metrics(weighted: Sequence[tuple[int, Metrics]]) -> Metrics:
    """The weighted mean of every numeric metric, over the sites that reported it."""
    sums: defaultdict[str, float] = defaultdict(float)
    weights: defaultdict[str, int] = defaultdict(int)
    for weight, metrics in weighted:
        for name, value in metrics.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                sums[name] += weight * value
                weights[name] += weight
    return {name: total / weights[name] for name, total in sums.items()}
