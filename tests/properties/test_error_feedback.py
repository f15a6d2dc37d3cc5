"""Error feedback over a medium that loses, doubles and reorders: both sides always agree on what was sent.

The rules of server and site are those of ``federation/inbox.py`` and ``federation/host.py``; updates, accounts and
bases are the real ones, without a transport.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from fedpost.codecs import Base
from fedpost.federation.account import Account
from fedpost.frame import Frame
from fedpost.pipeline import Pipeline, decode_tensors

SITES = ("a", "b", "c")
SHAPES = {"w": (6, 5), "b": (5,), "n": ()}
PLACE = tuple[int, int]


def values(chance: np.random.Generator, scale: float) -> dict[str, np.ndarray[Any, Any]]:
    return {name: (scale * chance.laplace(size=shape)).astype(np.float32) for name, shape in SHAPES.items()}


@dataclass
class Site:
    """One life of a site, and what a witness knows of it."""

    session: int
    account: Account = field(default_factory=Account)
    trained: PLACE = (0, 0)
    lost: dict[PLACE, Any] = field(default_factory=dict)
    changes: dict[PLACE, Any] = field(default_factory=dict)


@dataclass
class Peer:
    """A site as the server knows it."""

    session: int
    counted: PLACE | None = None
    sent: dict[str, np.ndarray[Any, Any]] = field(default_factory=lambda: {n: np.zeros(s) for n, s in SHAPES.items()})
    changed: dict[str, np.ndarray[Any, Any]] = field(
        default_factory=lambda: {n: np.zeros(s) for n, s in SHAPES.items()}
    )


@dataclass
class Command:
    """What the server sends."""

    site: str
    place: PLACE
    acknowledged: PLACE | None
    model: bytes


@dataclass
class Result:
    """What a site sends."""

    site: str
    session: int
    place: PLACE
    frame: bytes


class Federation(RuleBasedStateMachine):
    """One server, three sites, and a medium with messages in it."""

    codec = "uq(2)"
    down = "dense"

    def __init__(self) -> None:
        super().__init__()
        self.chance = np.random.default_rng(0)
        self.up = Pipeline.parse(f"{self.codec} | fedwt | none")
        self.model = values(self.chance, 1.0)
        self.sites = {name: Site(0) for name in SITES}
        self.peers = {name: Peer(0) for name in SITES}
        self.place: PLACE = (0, 1)
        self.waiting: set[str] = set()
        self.accepted: dict[str, tuple[int, dict[str, Any]]] = {}
        self.base: Base | None = None
        self.medium: list[Command | Result] = []
        self.doubled: set[int] = set()
        self.counted = 0

    # ── the server ───────────────────────────────────────────────────────────────────────────────────────────────────

    def ask(self, sites: frozenset[str]) -> None:
        frame = Pipeline.parse(f"{self.down} | fedwt | none").encode(self.model)
        self.base = Base.of(decode_tensors(frame).arrays())
        self.waiting, self.accepted = set(sites), {}
        for name in sorted(sites):
            self.medium.append(Command(name, self.place, self.peers[name].counted, bytes(frame)))

    @precondition(lambda self: self.base is None)
    @rule(sites=st.frozensets(st.sampled_from(SITES), min_size=1))
    def a_round_begins(self, sites: frozenset[str]) -> None:
        self.place = (self.place[0] + 1, 1)
        self.ask(sites)

    @precondition(lambda self: self.base is not None)
    @rule(minimum=st.integers(1, 3), again=st.booleans())
    def time_is_up(self, minimum: int, again: bool) -> None:
        """What is there counts if it is enough; else the round is tried again, or given up."""
        if len(self.accepted) >= minimum:
            for name, (session, got) in self.accepted.items():
                self.count(name, session, got)
            self.model = {
                name: np.mean([got[name] for _, got in self.accepted.values()], axis=0).astype(np.float32)
                for name in SHAPES
            }
            self.base = None
        elif again and self.place[1] < 3:
            self.place = (self.place[0], self.place[1] + 1)
            self.ask(frozenset(SITES))
        else:
            self.base = None
        if self.base is None:
            self.waiting = set()

    def count(self, name: str, session: int, got: dict[str, Any]) -> None:
        peer = self.peers[name]
        if peer.session != session:
            return
        peer.counted = self.place
        self.counted += 1
        assert self.base is not None
        old = self.base.tensors.arrays()
        change = self.sites[name].changes[self.place] if self.sites[name].session == session else None
        for tensor in SHAPES:
            peer.sent[tensor] += got[tensor].astype(float) - old[tensor]
            if change is not None:
                peer.changed[tensor] += change[tensor]

    def take(self, result: Result, *, refused: bool) -> None:
        """A result of the round that is open, of a site that was asked, and only once."""
        if self.base is None or result.place != self.place or result.site not in self.waiting:
            return
        self.waiting.discard(result.site)
        if not refused and self.peers[result.site].session == result.session:
            got = decode_tensors(Frame.decode(result.frame), base=self.base).arrays()
            self.accepted[result.site] = (result.session, got)

    # ── a site ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def train(self, command: Command, *, fails: bool) -> None:
        site = self.sites[command.site]
        if command.place < site.trained:
            return
        site.trained = command.place
        base = Base.of(decode_tensors(Frame.decode(command.model)).arrays())
        if fails:
            return
        old = base.tensors.arrays()
        step = values(self.chance, 0.1)
        new = {name: old[name] + step[name] for name in SHAPES}
        site.account = site.account.settled(command.acknowledged, command.place[0])
        before = site.account
        frame, lost = self.up.encode_update(new, base=base, residual=site.account.residual)
        site.account = site.account.booked(command.place, lost)
        assert site.account.settled(before.last) == before, "an update that is rolled back changed something"
        site.lost[command.place] = lost
        site.changes[command.place] = {name: new[name].astype(float) - old[name] for name in SHAPES}
        self.medium.append(Result(command.site, site.session, command.place, bytes(frame)))

    # ── the medium ───────────────────────────────────────────────────────────────────────────────────────────────────

    @precondition(lambda self: self.medium)
    @rule(
        index=st.integers(0, 1 << 16), fate=st.sampled_from(["arrives"] * 6 + ["is lost", "comes twice", "goes wrong"])
    )
    def a_message(self, index: int, fate: str) -> None:
        """Any of them, in any order; peers know what they have seen, so one that comes twice is handled once."""
        message = self.medium[index % len(self.medium)]
        if fate == "comes twice" and id(message) not in self.doubled and isinstance(message, Result):
            # Sites forget what they have seen when they start again; a server does not.
            self.doubled.add(id(message))
        else:
            self.medium.remove(message)
        if fate == "is lost":
            return
        if isinstance(message, Command):
            self.train(message, fails=fate == "goes wrong")
        else:
            self.take(message, refused=fate == "goes wrong")

    @precondition(lambda self: self.medium)
    @rule(index=st.integers(0, 1 << 16))
    def the_newest_messages_arrive(self, index: int) -> None:
        """So that many rounds are whole: everything that is of this round, commands first."""
        for kind in (Command, Result):
            for message in [one for one in self.medium if isinstance(one, kind) and one.place == self.place]:
                self.medium.remove(message)
                if isinstance(message, Command):
                    self.train(message, fails=False)
                else:
                    self.take(message, refused=index % 7 == 0)

    @rule(name=st.sampled_from(SITES), told=st.booleans())
    def a_site_starts_again(self, name: str, told: bool) -> None:
        """It registers at once, or the server has not heard of it yet."""
        self.sites[name] = Site(self.sites[name].session + 1)
        if told:
            self.a_site_registers(name)

    @rule(name=st.sampled_from(SITES))
    def a_site_registers(self, name: str) -> None:
        """Said again by the same life, it keeps what counted."""
        if self.peers[name].session != self.sites[name].session:
            self.peers[name] = Peer(self.sites[name].session)
        self.waiting.discard(name)

    # ── what always holds ────────────────────────────────────────────────────────────────────────────────────────────

    @invariant()
    def both_sides_agree_on_what_was_sent(self) -> None:
        for name, site in self.sites.items():
            peer = self.peers[name]
            if peer.session != site.session:
                continue  # it has not registered yet, and will not be asked before
            believed = site.account.settled(peer.counted).residual
            expected = site.lost[peer.counted] if peer.counted else {}
            assert believed.keys() == expected.keys()
            for tensor, lost in expected.items():
                assert believed[tensor].tobytes() == lost.tobytes()
                total = peer.sent[tensor] + lost
                np.testing.assert_allclose(total, peer.changed[tensor], atol=1e-6 * (1 + self.counted), rtol=0)


class CastDown(Federation):
    """The sites' base is what they decode."""

    down = "cast(bfloat16)"


class Sparse(Federation):
    codec = "topk(0.2)"


class Signs(Federation):
    codec = "sign"


@pytest.mark.parametrize("machine", [Federation, CastDown, Sparse, Signs])
def test_both_sides_agree_whatever_the_medium_does(machine: type[Federation]) -> None:
    run_state_machine_as_test(machine)
