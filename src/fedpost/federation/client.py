"""The user's side of a site: what a client must be able to do."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from fedpost.errors import EncodeError
from fedpost.federation.types import EvaluateIns, EvaluateRes, FitIns, FitRes, Metrics, Parameters
from fedpost.protocol import Scalar
from fedpost.tensors import Array

__all__ = ["AnyClient", "Client", "NumPyClient", "as_client"]


class Client(ABC):
    """A client that works with named tensors."""

    def get_parameters(self, config: Metrics) -> Parameters:
        """Initial parameters, for a server that has none.

        Raises:
            NotImplementedError: The client has none to give.
        """
        raise NotImplementedError(f"{type(self).__name__} has no initial parameters to give")

    @abstractmethod
    def fit(self, ins: FitIns) -> FitRes:
        """Train on the site's own data. The parameters given are read-only."""

    def evaluate(self, ins: EvaluateIns) -> EvaluateRes:
        """Evaluate on the site's own data.

        Raises:
            NotImplementedError: The client cannot evaluate.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot evaluate")


class NumPyClient:
    """A client that works with a list of arrays, in Flower's shape: what has these methods need not inherit from it.

    ``fit`` may return a mapping of names to arrays as well; a list is taken to be in the order of the parameters given.
    """

    def get_parameters(self, config: dict[str, Scalar]) -> Sequence[Array] | Mapping[str, Array]:
        """Initial parameters, for a server that has none."""
        raise NotImplementedError(f"{type(self).__name__} has no initial parameters to give")

    def fit(
        self, parameters: list[Array], config: dict[str, Scalar]
    ) -> tuple[Sequence[Array] | Mapping[str, Array], int, dict[str, Scalar]]:
        """Train on the site's own data; return the new parameters, the number of examples, and metrics."""
        raise NotImplementedError(f"{type(self).__name__} cannot fit")

    def evaluate(self, parameters: list[Array], config: dict[str, Scalar]) -> tuple[float, int, dict[str, Scalar]]:
        """Evaluate on the site's own data; return the loss, the number of examples, and metrics."""
        raise NotImplementedError(f"{type(self).__name__} cannot evaluate")


AnyClient = Client | NumPyClient
"""What an app may hand over."""


class _FromNumPy(Client):
    def __init__(self, client: NumPyClient) -> None:
        self._client = client

    def get_parameters(self, config: Metrics) -> Parameters:
        return Parameters.of(self._client.get_parameters(config))

    def fit(self, ins: FitIns) -> FitRes:
        tensors, num_examples, metrics = self._client.fit(ins.parameters.to_ndarrays(), ins.config)
        if not isinstance(tensors, Mapping):
            names = [spec.name for spec in ins.parameters.specs]
            if len(tensors) != len(names):
                raise EncodeError(f"fit returned {len(tensors)} arrays, the model has {len(names)}")
            tensors = dict(zip(names, tensors, strict=True))
        return FitRes(Parameters.of(tensors), int(num_examples), metrics)

    def evaluate(self, ins: EvaluateIns) -> EvaluateRes:
        loss, num_examples, metrics = self._client.evaluate(ins.parameters.to_ndarrays(), ins.config)
        return EvaluateRes(float(loss), int(num_examples), metrics)


def as_client(client: AnyClient) -> Client:
    """Take either kind of client.

    Raises:
        EncodeError: It has no ``fit`` method.
    """
    if isinstance(client, Client):
        return client
    if not inspect.ismethod(getattr(client, "fit", None)):
        raise EncodeError(f"{type(client).__name__} is no client: it has no fit method")
    return _FromNumPy(client)
