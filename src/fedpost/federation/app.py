"""What a user's app hands to fedpost: how to make a client, and what the server can do by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fedpost.federation.client import AnyClient
from fedpost.federation.strategies import Strategy
from fedpost.federation.strategies.fedavg import EvaluateFn
from fedpost.federation.types import Metrics
from fedpost.tensors import Array

__all__ = ["App"]


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """A federated application.

    The factory named in the configuration returns one, in the server's process and in every site's. Nothing of it runs
    before it is needed: ``client`` only where the site is, the others only on the server.

    Attributes:
        client: ``site name -> client``; called once, in the process that hosts the site, which alone reads its data.
        initialize: Makes the initial model: arrays by name, or in order. Without it the first site is asked.
        evaluate: ``(round, arrays, config) -> (loss, metrics)`` on data that the server has; ``metrics["accuracy"]`` is
            what the live view and the report plot.
        fit_config: ``round -> settings`` that clients get for training.
        evaluate_config: ``round -> settings`` that clients get for evaluation.
        strategy: A strategy of the user's own; without it the configuration's.
    """

    client: Callable[[str], AnyClient]
    initialize: Callable[[], Mapping[str, Array] | Sequence[Array]] | None = None
    evaluate: EvaluateFn | None = None
    fit_config: Callable[[int], Metrics] | None = None
    evaluate_config: Callable[[int], Metrics] | None = None
    strategy: Strategy | None = None
