"""What strategies and clients exchange, under Flower's names.

Rules: parameters are named tensors that may lie in memory or in a frame on disk; whoever takes ``arrays()`` of all
results at once holds all models at once, whoever reads by range does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import numpy as np

from fedpost.errors import EncodeError
from fedpost.protocol import Scalar
from fedpost.tensors import Array, MemoryTensors, TensorSource, TensorSpec

__all__ = [
    "ClientManager",
    "ClientProxy",
    "EvaluateIns",
    "EvaluateRes",
    "FitIns",
    "FitRes",
    "Metrics",
    "Parameters",
    "plain_metrics",
]

Metrics = dict[str, Scalar]
"""Measurements by name."""


def plain_metrics(metrics: Mapping[Any, object], what: str) -> Metrics:
    """Metrics or settings as the wire carries them: NumPy's scalars become Python's.

    Args:
        metrics: What the user's code gave.
        what: What they are, for the error.

    Raises:
        EncodeError: A value is neither of these types, or a name is not text.
    """
    plain: Metrics = {}
    for name, given in metrics.items():
        value = given.item() if isinstance(given, np.generic) else given
        if not isinstance(name, str) or type(value) not in (bool, int, float, str, bytes):
            raise EncodeError(
                f"it is {type(given).__name__}", where=f"{what} {name!r}", hint="Use bool, int, float, str or bytes."
            )
        plain[name] = cast("Scalar", value)
    return plain


class Parameters:
    """A model's parameters: named tensors, in order.

    Args:
        source: Where they are read from.
    """

    __slots__ = ("_source",)

    def __init__(self, source: TensorSource) -> None:
        self._source = source

    @classmethod
    def of(cls, tensors: Mapping[str, Array] | Sequence[Array]) -> Parameters:
        """Parameters in memory, by name; a sequence gets its indices as names."""
        named = tensors if isinstance(tensors, Mapping) else {str(index): array for index, array in enumerate(tensors)}
        return cls(MemoryTensors({name: np.asanyarray(array) for name, array in named.items()}))

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        """Name, dtype and shape of each tensor, in order."""
        return self._source.specs

    @property
    def nbytes(self) -> int:
        """Size in bytes, as arrays."""
        return sum(spec.nbytes for spec in self.specs)

    def arrays(self) -> dict[str, Array]:
        """Every tensor by name. They may be read-only views; copy what you want to change."""
        return self._source.arrays()

    def to_ndarrays(self) -> list[Array]:
        """Every tensor, in order: the shape in which NumPy clients take a model."""
        return list(self.arrays().values())

    def read(self, name: str, start: int, stop: int) -> Array:
        """Elements ``start`` to ``stop`` of one tensor flattened in C order: a 1-D array."""
        return self._source.read(name, start, stop)

    def in_order(self, specs: Sequence[TensorSpec]) -> Parameters:
        """The same in the order of ``specs``, which are those of the same tensors."""
        wanted = tuple(specs)
        return self if self.specs == wanted else Parameters(_Ordered(self._source, wanted))


@dataclass(frozen=True, slots=True)
class _Ordered:
    """A source's tensors in another order."""

    source: TensorSource
    specs: tuple[TensorSpec, ...]

    def arrays(self) -> dict[str, Array]:
        arrays = self.source.arrays()
        return {spec.name: arrays[spec.name] for spec in self.specs}

    def read(self, name: str, start: int, stop: int) -> Array:
        return self.source.read(name, start, stop)


@dataclass(frozen=True, slots=True)
class FitIns:
    """Train these parameters.

    Attributes:
        parameters: The global model.
        config: Settings for the client.
    """

    parameters: Parameters
    config: Metrics = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FitRes:
    """A client's trained parameters.

    Attributes:
        parameters: The local model.
        num_examples: How many examples it was trained on.
        metrics: The client's own measurements.
    """

    parameters: Parameters
    num_examples: int
    metrics: Metrics = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EvaluateIns:
    """Evaluate these parameters.

    Attributes:
        parameters: The global model.
        config: Settings for the client.
    """

    parameters: Parameters
    config: Metrics = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EvaluateRes:
    """How well parameters did on a client's data.

    Attributes:
        loss: The loss.
        num_examples: How many examples it was evaluated on.
        metrics: The client's own measurements.
    """

    loss: float
    num_examples: int
    metrics: Metrics = field(default_factory=dict)


@dataclass(frozen=True, slots=True, order=True)
class ClientProxy:
    """A site that takes part, as the server sees it.

    Attributes:
        cid: The site's name.
    """

    cid: str


class ClientManager(Protocol):
    """The sites that are there and not busy."""

    def num_available(self) -> int:
        """How many there are."""

    def all(self) -> dict[str, ClientProxy]:
        """Each by name, in canonical order."""

    def sample(
        self,
        num_clients: int,
        min_num_clients: int | None = None,
        criterion: Callable[[ClientProxy], bool] | None = None,
    ) -> list[ClientProxy]:
        """Draw without replacement, seeded by the run and the round; nothing when there are too few."""
