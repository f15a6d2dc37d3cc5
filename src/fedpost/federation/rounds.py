"""A round as a value and a table: who was asked, who answered, and whether it is over. No I/O, no clock of its own."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Final

from fedpost.errors import ProtocolError, RemoteError, StaleError

__all__ = ["Round", "RoundState"]


class RoundState(Enum):
    """Where a round stands."""

    OPEN = auto()
    """Answers are awaited."""
    COMPLETE = auto()
    """Every site that was asked has answered, and enough of the answers count."""
    PARTIAL = auto()
    """Time is up; sites are missing, but enough answers count."""
    SHORT = auto()
    """Too few answers count, and no more can come in time."""


# (every site answered, enough answers count, enough could still come, time is up) → state
_STATES: Final[dict[tuple[bool, bool, bool, bool], RoundState]] = {
    **{
        (answered, enough, possible, late): RoundState.SHORT
        for answered in (False, True)
        for enough in (False, True)
        for possible in (False, True)
        for late in (False, True)
    },
    (False, False, True, False): RoundState.OPEN,
    (False, True, True, False): RoundState.OPEN,
    (False, True, True, True): RoundState.PARTIAL,
    (True, True, True, False): RoundState.COMPLETE,
    (True, True, True, True): RoundState.COMPLETE,
}


@dataclass(frozen=True, slots=True)
class Round:
    """One attempt at one round; every step makes a new value.

    Attributes:
        number: From 1; 0 before the first round.
        attempt: From 1.
        minimum: How many answers must count.
        deadline: When time is up, on the caller's clock.
        waiting: Sites that were asked and have not answered.
        accepted: Sites whose answers count.
        dropped: Sites whose answers do not count, or that are gone, and why.
    """

    number: int
    attempt: int
    minimum: int
    deadline: float
    waiting: frozenset[str]
    accepted: frozenset[str] = frozenset()
    dropped: dict[str, RemoteError] = field(default_factory=dict)

    def expect(self, site: str, number: int, attempt: int) -> None:
        """Check that an answer belongs here.

        Raises:
            ProtocolError: It is of another round or attempt, or of a site that was not asked or has answered.
        """
        if (number, attempt) != (self.number, self.attempt):
            raise StaleError(
                f"stale: the answer is for round {number}.{attempt}, now is round {self.number}.{self.attempt}"
            )
        if site not in self.waiting:
            raise ProtocolError("the site was not asked, or has answered already")

    def accept(self, site: str) -> Round:
        """The round after an answer that counts."""
        return replace(self, waiting=self.waiting - {site}, accepted=self.accepted | {site})

    def drop(self, site: str, reason: RemoteError) -> Round:
        """The round after an answer that does not count, or without a site that is gone."""
        if site not in self.waiting:
            return self
        return replace(self, waiting=self.waiting - {site}, dropped={**self.dropped, site: reason})

    def state(self, now: float) -> RoundState:
        """Where the round stands at a time."""
        enough = len(self.accepted) >= self.minimum
        possible = len(self.accepted) + len(self.waiting) >= self.minimum
        return _STATES[not self.waiting, enough, possible, now >= self.deadline]
