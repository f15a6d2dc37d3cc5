"""The rounds of federated learning: strategies, the server, the hosts of sites, and what they exchange."""

from fedpost.federation.app import App
from fedpost.federation.client import AnyClient, Client, NumPyClient
from fedpost.federation.host import SERVER, SiteHost
from fedpost.federation.processes import SiteProcesses
from fedpost.federation.server import RoundReport, RunResult, Server, ServerSettings
from fedpost.federation.strategies import Failure, FedAvg, Strategy
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

__all__ = [
    "SERVER",
    "AnyClient",
    "App",
    "Client",
    "ClientManager",
    "ClientProxy",
    "EvaluateIns",
    "EvaluateRes",
    "Failure",
    "FedAvg",
    "FitIns",
    "FitRes",
    "Metrics",
    "NumPyClient",
    "Parameters",
    "RoundReport",
    "RunResult",
    "Server",
    "ServerSettings",
    "SiteHost",
    "SiteProcesses",
    "Strategy",
]
