"""The decomposers of ``nvflare.fuel.utils.fobs.decomposers.core_decomposers``.

Rules: tuples and sets are written without a decomposer, so registering theirs has no effect, but for a warning in the
log; ordered dictionaries and times have serializers of their own, whose place these take when they are registered.
"""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime
from typing import Any

from fedpost.compat.fobs.datum import DatumManager
from fedpost.compat.fobs.decomposer import Decomposer

__all__ = ["DatetimeDecomposer", "OrderedDictDecomposer", "SetDecomposer", "TupleDecomposer"]


class TupleDecomposer(Decomposer):
    """Tuples as lists."""

    def supported_type(self) -> type[Any]:
        """``tuple``."""
        return tuple

    def decompose(self, target: tuple[Any, ...], manager: DatumManager | None = None) -> Any:  # noqa: ARG002 - the contract
        """The items."""
        return list(target)

    def recompose(self, data: Any, manager: DatumManager | None = None) -> tuple[Any, ...]:  # noqa: ARG002 - the contract
        """A tuple of them."""
        return tuple(data)


class OrderedDictDecomposer(Decomposer):
    """Ordered dictionaries as lists of pairs."""

    def supported_type(self) -> type[Any]:
        """``OrderedDict``."""
        return OrderedDict

    def decompose(self, target: OrderedDict[Any, Any], manager: DatumManager | None = None) -> Any:  # noqa: ARG002 - the contract
        """The items."""
        return list(target.items())

    def recompose(self, data: Any, manager: DatumManager | None = None) -> OrderedDict[Any, Any]:  # noqa: ARG002 - the contract
        """An ordered dictionary of them."""
        return OrderedDict(data)


class SetDecomposer(Decomposer):
    """Sets as lists."""

    def supported_type(self) -> type[Any]:
        """``set``."""
        return set

    def decompose(self, target: set[Any], manager: DatumManager | None = None) -> Any:  # noqa: ARG002 - the contract
        """The members."""
        return list(target)

    def recompose(self, data: Any, manager: DatumManager | None = None) -> set[Any]:  # noqa: ARG002 - the contract
        """A set of them."""
        return set(data)


class DatetimeDecomposer(Decomposer):
    """Times as text of ISO 8601."""

    def supported_type(self) -> type[Any]:
        """``datetime``."""
        return datetime

    def decompose(self, target: datetime, manager: DatumManager | None = None) -> Any:  # noqa: ARG002 - the contract
        """The text."""
        return target.isoformat()

    def recompose(self, data: Any, manager: DatumManager | None = None) -> datetime:  # noqa: ARG002 - the contract
        """The time."""
        return datetime.fromisoformat(data)
