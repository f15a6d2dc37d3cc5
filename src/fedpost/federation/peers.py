"""The sites as the server knows them: where they are, where their sessions stand, and who can be asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from fedpost.federation.types import ClientProxy
from fedpost.protocol import Agreement, Session, SessionState

__all__ = ["Available", "Peer"]


@dataclass(slots=True)
class Peer:
    """One site.

    Attributes:
        name: The site's name.
        address: Where its messages go.
        session_id: Of its latest start.
        session: Where its session stands.
        agreement: How its tensors are encoded, or None when it was refused.
        account: Names its account of what its updates lost; it may outlive a session.
        counted: Round and attempt of its last update that counted, by that account.
        holds: The versions of the model that it is known to have: it said so, or has answered a command that brought
            one.
        served: Whether it was ever sent a version.
        wants_model: Whether it asked for the final model.
        registered: When its latest start registered, in seconds since the epoch by its own clock.
    """

    name: str
    address: str
    session_id: str
    wants_model: bool
    session: Session = field(default_factory=Session)
    agreement: Agreement | None = None
    account: str = ""
    counted: tuple[int, int] | None = None
    holds: tuple[bytes, ...] = ()
    served: bool = False
    registered: float = 0.0

    @property
    def available(self) -> bool:
        """Whether the site can be asked for something now."""
        return self.session.state is SessionState.READY


class Available:
    """The sites that can be asked now, in canonical order: a :class:`~fedpost.federation.types.ClientManager`.

    Args:
        peers: All sites by name.
        seed: Seeds the draws: the run's seed, the round, the attempt, and what the draw is for.
    """

    def __init__(self, peers: Mapping[str, Peer], seed: tuple[int, ...]) -> None:
        self._clients = {name: ClientProxy(name) for name in sorted(peers) if peers[name].available}
        self._random = np.random.default_rng(seed)

    def num_available(self) -> int:
        """How many there are."""
        return len(self._clients)

    def all(self) -> dict[str, ClientProxy]:
        """Each by name."""
        return dict(self._clients)

    def sample(
        self,
        num_clients: int,
        min_num_clients: int | None = None,
        criterion: Callable[[ClientProxy], bool] | None = None,
    ) -> list[ClientProxy]:
        """Draw without replacement: all there are when fewer than asked for, none when fewer than the minimum."""
        pool = [client for client in self._clients.values() if criterion is None or criterion(client)]
        if len(pool) < (num_clients if min_num_clients is None else min_num_clients):
            return []
        drawn = self._random.permutation(len(pool))[:num_clients]
        return [pool[index] for index in sorted(drawn)]
