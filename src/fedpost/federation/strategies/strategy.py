"""The strategy contract: pure decisions about who trains what and how results become one model. Flower's names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from fedpost.errors import RemoteError
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

__all__ = ["Failure", "Strategy"]

Failure = tuple[ClientProxy, RemoteError]
"""A site whose result did not count, and why."""


class Strategy(ABC):
    """What a server asks in every round, in this order."""

    @property
    @abstractmethod
    def min_fit_clients(self) -> int:
        """How many results a round needs; with fewer it is tried again."""

    @property
    @abstractmethod
    def min_available_clients(self) -> int:
        """How many sites must be there before the first round."""

    @abstractmethod
    def initialize_parameters(self, client_manager: ClientManager) -> Parameters | None:
        """The initial model, or None to ask one of the sites for it."""

    @abstractmethod
    def configure_fit(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, FitIns]]:
        """Who trains in this round, and with what instructions."""

    @abstractmethod
    def aggregate_fit(
        self, server_round: int, results: Sequence[tuple[ClientProxy, FitRes]], failures: Sequence[Failure]
    ) -> tuple[Parameters | None, Metrics]:
        """Results, in canonical order, to the next model; None keeps the old one."""

    def published(self, server_round: int, parameters: Parameters) -> None:  # noqa: B027 - most have no use for it
        """Take note of what the sites will have of the model that this strategy gave.

        Where models travel as what has changed, that is not quite the same, and the server sends what is missing with
        the next model. So a strategy that keeps a model of its own (server momentum, FedAdam, a moving average) goes on
        from this one; if it went on from its own, what is missing would be added a second time, again and again.
        """

    @abstractmethod
    def evaluate(self, server_round: int, parameters: Parameters) -> tuple[float, Metrics] | None:
        """Loss and metrics on data that the server has, or None."""

    @abstractmethod
    def configure_evaluate(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, EvaluateIns]]:
        """Who evaluates the new model on their own data; empty for nobody."""

    @abstractmethod
    def aggregate_evaluate(
        self, server_round: int, results: Sequence[tuple[ClientProxy, EvaluateRes]], failures: Sequence[Failure]
    ) -> tuple[float | None, Metrics]:
        """The sites' evaluations to one loss and one set of metrics."""
