"""How rounds are configured and results combined; one module a strategy."""

from fedpost.federation.strategies.fedavg import FedAvg
from fedpost.federation.strategies.strategy import Failure, Strategy

__all__ = ["Failure", "FedAvg", "Strategy"]
