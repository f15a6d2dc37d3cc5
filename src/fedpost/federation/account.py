"""What a site's updates have lost, for update codecs that keep account of it (error feedback).

Rules: what an update loses counts only once the server has said that the update counted; the account of one that did
not is thrown away, so both sides agree on what was sent. An account that the server's word does not fit is of another
history, and counts for nothing; so does one that is too old.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from fedpost.codecs import NO_RESIDUAL, Residual

__all__ = ["EXPIRES_AFTER", "Account", "Place"]

Place = tuple[int, int]
"""Round and attempt of an update."""

EXPIRES_AFTER: Final = 40
"""Rounds after which what was lost counts for nothing.

Error feedback helps who takes part in about one round in ten or more; whoever is asked less often would add what was
missing from a model that is no more. Of those who are drawn one time in ten, one gap in seventy is longer.
"""


@dataclass(frozen=True, slots=True)
class Account:
    """A site's account; a value.

    Attributes:
        residual: What the acknowledged updates have lost and no later one has made good.
        last: The update that was acknowledged last, or None.
        pending: An update that is not acknowledged yet, and the residual after it.
    """

    residual: Residual = field(default_factory=lambda: NO_RESIDUAL)
    last: Place | None = None
    pending: tuple[Place, Residual] | None = None

    def settled(self, acknowledged: Place | None, now: int = 0) -> Account:
        """The account once the server has said which update of this site counted last.

        Args:
            acknowledged: That update, or None for none.
            now: The round that begins.
        """
        if self.pending is not None and self.pending[0] == acknowledged:
            account = Account(self.pending[1], acknowledged)
        elif acknowledged == self.last:
            account = Account(self.residual, self.last) if self.pending else self
        else:
            return Account(last=acknowledged)
        expired = account.last is not None and now - account.last[0] > EXPIRES_AFTER
        return Account(last=account.last) if expired else account

    def booked(self, update: Place, residual: Residual) -> Account:
        """The account after an update was made."""
        return Account(self.residual, self.last, (update, residual))
