"""What a site's updates have lost, for update codecs that keep account of it (error feedback).

Rules: what an update loses counts only once the server has said that the update counted; the account of one that did
not is thrown away, so both sides agree on what was sent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from fedpost.codecs import Residual

__all__ = ["Account"]

_NOTHING: Final[Residual] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Account:
    """A site's account; a value.

    Attributes:
        residual: What the acknowledged updates have lost and no later one has made good.
        pending: Round and attempt of an update that is not acknowledged yet, and the residual after it.
    """

    residual: Residual = field(default_factory=lambda: _NOTHING)
    pending: tuple[tuple[int, int], Residual] | None = None

    def settled(self, acknowledged: tuple[int, int] | None) -> Account:
        """The account once the server has said which update of this site counted last."""
        if self.pending is None:
            return self
        update, residual = self.pending
        return Account(residual if update == acknowledged else self.residual)

    def booked(self, update: tuple[int, int], residual: Residual) -> Account:
        """The account after an update was made."""
        return Account(self.residual, (update, residual))
