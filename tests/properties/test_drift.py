"""Server and sites never drift apart, whatever is lost, doubled, reordered or killed, and whoever forgets what.

The real inbox and outbox of a server and the real hosts of three sites, two of them in one process, over a medium in
the hands of Hypothesis; no threads, no clocks. A witness beside them keeps every version's bits and adds up what was
changed and what arrived, both ways.
"""

from __future__ import annotations

import logging
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from fedpost.codecs import Base
from fedpost.federation import Client, ClientProxy, EvaluateIns, EvaluateRes, FitIns, FitRes, Parameters, SiteHost
from fedpost.federation.account import Account
from fedpost.federation.aggregation import Spool, WeightedMean, reduce_blocks
from fedpost.federation.channel import Channel, Received
from fedpost.federation.inbox import Inbox
from fedpost.federation.intake import Intake
from fedpost.federation.outbox import Outbox
from fedpost.federation.pipelines import offered
from fedpost.federation.roster import Roster
from fedpost.federation.state import StateFolder
from fedpost.federation.versions import Versions
from fedpost.frame import DEFAULT_LIMITS, Frame
from fedpost.pipeline import Pipeline
from fedpost.protocol import PAYLOADS
from fedpost.telemetry import Event, Telemetry

HOSTS = {"a": ("a", "b"), "c": ("c",)}
SITES = {site: host for host, sites in HOSTS.items() for site in sites}
SHAPES = {"w": (60, 50), "b": (50,), "n": ()}
TROUBLES = ["is held up", "comes twice", "goes wrong", "while it trains", "before it sends", "after it sent"]
Tensors = dict[str, np.ndarray[Any, Any]]


class Crash(BaseException):
    """kill -9."""


def bits(tensors: Tensors) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in tensors.items()}


def zeros() -> Tensors:
    return {name: np.zeros(shape) for name, shape in SHAPES.items()}


@dataclass(eq=False)
class Mail:
    """A frame on its way; the medium keeps it until it is acknowledged."""

    address: str
    data: bytes


@dataclass
class Delivery:
    data: memoryview

    def ack(self) -> None:
        pass

    def reject(self, reason: str) -> None:
        pass

    def defer(self) -> bool:
        return False


@dataclass
class End:
    """A peer's end of the medium."""

    address: str
    medium: list[Mail]
    crash: str = ""

    def send(self, address: str, frame: Frame) -> int:
        if self.crash == "before it sends":
            raise Crash
        self.medium.append(Mail(address, bytes(frame)))
        if self.crash == "after it sent":
            raise Crash
        return frame.nbytes


@dataclass
class Sums:
    """What one account's updates changed, and what of it arrived."""

    changed: Tensors = field(default_factory=zeros)
    sent: Tensors = field(default_factory=zeros)
    counted: int = 0


class Drift(RuleBasedStateMachine):
    """One server, three sites in two processes, and the medium between them."""

    up = down = "uq(2)"
    keeps_account = True

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.chance = np.random.default_rng(0)
        self.medium: list[Mail] = []
        self.held: list[Mail] = []
        pipelines = {p: Pipeline.parse(f"{self.up if p == 'FitRes' else self.down} | fedwt | none") for p in PAYLOADS}
        self.events: list[Any] = []
        telemetry = Telemetry(self)
        self.channel = Channel(End("server", self.medium), frozenset({"server"}), telemetry, DEFAULT_LIMITS)
        self.outbox = Outbox(self.channel, "run", pipelines["FitIns"], 1e9, telemetry)
        self.roster = Roster(self.outbox, frozenset(SITES), offered(pipelines), telemetry)
        intake = Intake(self.outbox, Spool(Path(self.folder.name) / "spool", DEFAULT_LIMITS), DEFAULT_LIMITS)
        self.inbox = Inbox(
            self.channel, self.outbox, self.roster, intake, run="run", limits=DEFAULT_LIMITS, telemetry=telemetry
        )
        # The witness.
        self.history: dict[bytes, dict[str, bytes]] = {}
        self.changes: dict[tuple[str, str, tuple[int, int]], Tensors] = {}
        self.sums: defaultdict[tuple[str, str], Sums] = defaultdict(Sums)
        self.ways: set[str] = set()
        self.fails = False
        self.open = self.training = False
        self.place = (0, 1)
        self.hosts: dict[str, SiteHost] = {}
        self.ends: dict[str, End] = {}
        self.publish({name: self.chance.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()})
        for host in HOSTS:
            self.start(host, keeps=True)
        self.everything_arrives()

    def record(self, record: Any) -> None:
        if isinstance(record, Event):
            self.events.append(record.name)

    def teardown(self) -> None:
        self.folder.cleanup()

    # ── the server ───────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def downlink(self) -> Any:
        return self.outbox._downlink

    def publish(self, tensors: Tensors) -> None:
        before = self.downlink._versions
        self.model = self.outbox.publish(Parameters.of(tensors), self.place[0])
        self.base = Base.of(self.model.arrays())
        self.history[self.base.digest] = bits(self.model.arrays())
        old = before.base.tensors.arrays() if before.base is not None else {}
        if {name: array.shape for name, array in old.items()} == {n: a.shape for n, a in tensors.items()}:
            for name, array in tensors.items():
                self.meant[name] += array.astype(float) - old[name]
                self.made[name] += self.model.arrays()[name].astype(float) - old[name]
        else:
            assert bits(self.model.arrays()) == bits(tensors), "the first version is not exact"
            self.meant, self.made = zeros(), zeros()

    def ask(self, sites: frozenset[str], *, training: bool, personal: bool = False) -> None:
        there = [site for site in sorted(sites) if site in self.roster.peers and self.roster.peers[site].available]
        self.open, self.training = bool(there), training
        instructions: list[Any] = []
        for number, site in enumerate(there):
            model = self.model
            if personal:
                model = Parameters.of({n: a + np.float32(number) for n, a in self.model.arrays().items()})
                self.history[Base.of(model.arrays()).digest] = bits(model.arrays())
            config = {"model": Base.of(model.arrays()).digest, "round": self.place[0], "attempt": self.place[1]}
            ins = FitIns(model, config) if training else EvaluateIns(model, config)
            instructions.append((ClientProxy(site), ins))
        if there:
            self.inbox.open(*self.place, 1, instructions)
            self.ways |= {self.way(site) for site in there}

    def way(self, site: str) -> str:
        load = self.outbox.sent(self.roster.peers[site])
        return "plain" if load.model is None else "snapshot" if load.whole else f"{min(len(load.packets), 2)} packets"

    @precondition(lambda self: not self.open)
    @rule(sites=st.frozensets(st.sampled_from(sorted(SITES)), min_size=1), training=st.booleans())
    def a_round_begins(self, sites: frozenset[str], training: bool) -> None:
        self.place = (self.place[0] + 1, 1)
        self.ask(sites, training=training)

    @precondition(lambda self: not self.open)
    @rule(sites=st.frozensets(st.sampled_from(sorted(SITES)), min_size=1))
    def a_round_with_a_model_for_each_site(self, sites: frozenset[str]) -> None:
        self.place = (self.place[0] + 1, 1)
        self.ask(sites, training=True, personal=True)

    @precondition(lambda self: self.open)
    @rule(again=st.booleans())
    def time_is_up(self, again: bool) -> None:
        """What is there counts; if nothing is there the round is tried again, or given up."""
        bases = {site: self.outbox.base(self.roster.peers[site]).tensors.arrays() for site in self.inbox.round.accepted}
        self.inbox.give_up("late")
        asked = self.inbox.close()
        self.open = False
        if not self.training:
            return
        for client, answer in asked.results:
            peer = self.roster.peers[client.cid]
            if peer.counted == self.place:
                got, sums = answer.parameters.arrays(), self.sums[client.cid, peer.account]
                sums.counted += 1
                for name in SHAPES:
                    sums.sent[name] += got[name].astype(float) - bases[client.cid][name]
                    sums.changed[name] += self.changes[client.cid, peer.account, self.place][name]
        if asked.enough:
            results = [answer.parameters for _, answer in asked.results]
            self.publish(reduce_blocks(results, WeightedMean([1.0] * len(results))).arrays())
        elif again and self.place[1] < 3:
            self.place = (self.place[0], self.place[1] + 1)
            self.ask(frozenset(SITES), training=True)

    @precondition(lambda self: not self.open)
    @rule(rows=st.sampled_from([50, 60]))
    def the_server_s_model_changes_by_itself(self, rows: int) -> None:
        """Also to one of another shape, as rarely as that is."""
        new = {n: a + np.float32(0.1) * self.chance.normal(size=a.shape) for n, a in self.model.arrays().items()}
        self.publish({name: array.astype(np.float32) for name, array in new.items()})

    @precondition(lambda self: not self.open)
    @rule(least=st.integers(0, 3000))
    def the_server_starts_again(self, least: int) -> None:
        """Its versions come back from their frame, perhaps with fewer packets than there were."""
        frame = Frame.decode(bytes(self.downlink._versions.trimmed(least).frame()))
        self.downlink._versions = versions = Versions.of(frame)
        self.downlink._snapshots, self.downlink._chains = {}, {}
        self.downlink._current = self.model = Parameters(versions.base.tensors)
        self.base = versions.base

    # ── a site ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self, name: str, *, keeps: bool) -> None:
        folder = Path(self.folder.name) / name
        self.ends[name] = End(name, self.medium)
        clients = dict.fromkeys(HOSTS[name], lambda site: Trains(self, site))
        self.hosts[name] = SiteHost(self.ends[name], clients, Telemetry(), state=folder if keeps else None)
        self.hosts[name]._register()

    def die(self, name: str) -> None:
        self.hosts.pop(name, None)

    @precondition(lambda self: len(self.hosts) < len(HOSTS))
    @rule(forgets=st.sampled_from(["nothing", "nothing", "its accounts", "the model", "everything"]))
    def the_dead_start_again(self, forgets: str) -> None:
        for name in sorted(HOSTS.keys() - self.hosts.keys()):
            for file in sorted((Path(self.folder.name) / name).glob("*")):
                if forgets == "everything" or (
                    (forgets != "nothing") and (file.stem == "model") == (forgets == "the model")
                ):
                    file.write_bytes(file.read_bytes()[:-1])
            self.start(name, keeps=forgets != "everything" or bool(self.place[0] % 2))

    @rule(name=st.sampled_from(sorted(HOSTS)))
    def a_process_is_killed(self, name: str) -> None:
        self.die(name)

    # ── the medium ───────────────────────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def trouble(self, mail: Mail, fate: str) -> Iterator[None]:
        end = self.ends.get(mail.address)
        if end is not None and fate in ("before it sends", "after it sent"):
            end.crash = fate
        self.fails, self.crashes = fate == "goes wrong", fate == "while it trains"
        try:
            yield
        except Crash:
            self.die(mail.address)
            self.held.append(mail)
        finally:
            self.fails = self.crashes = False
            if end is not None:
                end.crash = ""

    def deliver(self, mail: Mail, fate: str = "") -> None:
        """A receiver that dies gets it again, if not at once: only what was dealt with is gone."""
        self.medium.remove(mail)
        if fate == "is lost":
            return
        if fate in ("is held up", "comes twice"):
            self.held.append(Mail(mail.address, mail.data))
        if fate == "is held up":
            return
        delivery = Delivery(memoryview(mail.data))
        if mail.address == "server":
            message = self.channel._read(delivery)
            if message is not None:
                self.inbox.take(Received(message, delivery))
            return
        host = self.hosts.get(mail.address)
        if host is None:
            self.held.append(mail)
            return
        with self.trouble(mail, fate):
            message = host._channel._read(delivery)
            if message is not None:
                host._dispatch(Received(message, delivery))

    @precondition(lambda self: self.medium)
    @rule(
        index=st.integers(0, 1 << 16),
        fate=st.sampled_from(["arrives"] * 4 + ["is lost", *TROUBLES]),
    )
    def a_message(self, index: int, fate: str) -> None:
        """Any of them, in any order."""
        self.deliver(self.medium[index % len(self.medium)], fate)

    @rule(seed=st.integers(0, 1 << 16), count=st.integers(1, 20), troubles=st.sampled_from([0, 0.2, 0.5]))
    def much_arrives(self, seed: int, count: int, troubles: float) -> None:
        """In any order, and with whatever can befall a site meanwhile; the dead come back as they were."""
        chance = np.random.default_rng(seed)
        for _ in range(count):
            for name in sorted(HOSTS.keys() - self.hosts.keys()):
                self.start(name, keeps=True)
            if self.medium:
                mail = self.medium[chance.integers(len(self.medium))]
                self.deliver(mail, str(chance.choice(TROUBLES)) if chance.random() < troubles else "")

    @rule(seed=st.integers(0, 1 << 16))
    def what_was_held_up_goes_on(self, seed: int) -> None:
        """As old as it is, and before anything that is newer."""
        held, self.held = self.held, []
        np.random.default_rng(seed).shuffle(held)
        self.medium += held
        for mail in held:
            self.deliver(mail)

    @rule()
    def everything_arrives(self) -> None:
        """So that many rounds are whole."""
        for name in sorted(HOSTS.keys() - self.hosts.keys()):
            self.start(name, keeps=True)
        for _ in range(100):
            if not self.medium:
                return
            for mail in list(self.medium):
                self.deliver(mail)
        raise AssertionError(f"messages without end: {len(self.medium)}")

    @rule(training=st.booleans())
    def a_whole_round(self, training: bool) -> None:
        if self.open:
            self.everything_arrives()
            if self.open:
                self.time_is_up(again=False)
        for host in self.hosts.values():
            for site in host._sites.values():
                site.register_at = 0.0
            host._register()
        self.everything_arrives()
        self.place = (self.place[0] + 1, 1)
        self.ask(frozenset(SITES), training=training)
        self.everything_arrives()
        if self.open:
            self.time_is_up(again=False)

    # ── what always holds ────────────────────────────────────────────────────────────────────────────────────────────

    @invariant()
    def every_copy_of_a_version_has_its_bits(self) -> None:
        for host in self.hosts.values():
            for base in host._models._replicas.models:
                assert bits(base.tensors.arrays()) == self.history[base.digest]
        assert self.downlink._versions.base.digest == self.base.digest == Base.of(self.model.arrays()).digest

    @invariant()
    def what_arrived_and_what_is_left_is_all_that_was_meant_for_the_sites(self) -> None:
        residual = self.downlink._versions.residual
        for name in SHAPES if self.keeps_account else ():
            left = residual.get(name, np.zeros(SHAPES[name]))
            np.testing.assert_allclose(self.made[name] + left, self.meant[name], atol=1e-5 * (1 + len(self.history)))

    @invariant()
    def both_sides_agree_on_what_was_acknowledged(self) -> None:
        """Also of a site that is dead: what is on disk is what it goes on with."""
        for name, host in SITES.items():
            peer = self.roster.peers.get(name)
            alive = self.hosts.get(host)
            folder = StateFolder(Path(self.folder.name) / host, DEFAULT_LIMITS)
            states = [alive._sites[name].state] if alive is not None else [folder.state(name)]
            for state in states:
                if peer is None or peer.account != state.ident:
                    continue  # it has not registered yet
                sums = self.sums[name, state.ident]
                left: Account = state.account.settled(peer.counted)
                for tensor in SHAPES if self.keeps_account else ():
                    total = sums.sent[tensor] + left.residual.get(tensor, np.zeros(SHAPES[tensor]))
                    np.testing.assert_allclose(total, sums.changed[tensor], atol=1e-5 * (1 + sums.counted), rtol=0)


class Trains(Client):
    """Moves at random, and tells the witness from where to where."""

    def __init__(self, machine: Drift, site: str) -> None:
        self.machine, self.site = machine, site

    def started(self, ins: FitIns | EvaluateIns) -> Tensors:
        old = ins.parameters.arrays()
        assert bits(old) == self.machine.history[ins.config["model"]], "it works on another model than it was asked to"
        if self.machine.crashes:
            raise Crash
        if self.machine.fails:
            raise RuntimeError("no disk")
        return old

    def fit(self, ins: FitIns) -> FitRes:
        old = self.started(ins)
        new = {
            name: (array + 0.1 * self.machine.chance.laplace(size=array.shape)).astype(np.float32)
            for name, array in old.items()
        }
        ident = self.machine.hosts[SITES[self.site]]._sites[self.site].state.ident
        place = (int(ins.config["round"]), int(ins.config["attempt"]))
        self.machine.changes[self.site, ident, place] = {name: new[name].astype(float) - old[name] for name in SHAPES}
        return FitRes(Parameters.of(new), 1)

    def evaluate(self, ins: EvaluateIns) -> EvaluateRes:
        self.started(ins)
        return EvaluateRes(0.5, 1)


class Exact(Drift):
    """Nothing is lost either way."""

    up = down = "delta"


class Stateless(Drift):
    """What is sent is right on average, and nobody keeps account."""

    up = down = "eden(2)"
    keeps_account = False


class Mixed(Drift):
    up, down = "topk(0.1)", "uq(3)"


class Narrow(Drift):
    up, down = "cast(bfloat16) | uq(1)", "cast(bfloat16) | uq(2)"


def test_a_registration_of_an_earlier_start_that_was_held_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes after that of the process that is there, which has another account."""
    monkeypatch.setattr(logging.getLogger("fedpost.site"), "disabled", True)
    machine = Drift()
    try:
        machine.die("a")
        machine.start("a", keeps=True)
        held, machine.medium[:] = list(machine.medium), []
        machine.die("a")
        machine.start("a", keeps=True)
        machine.everything_arrives()
        machine.medium += held
        machine.a_whole_round(training=True)
        assert all(peer.counted == machine.place for peer in machine.roster.peers.values())
        machine.both_sides_agree_on_what_was_acknowledged()
    finally:
        machine.teardown()


@pytest.mark.parametrize("machine", [Drift, Exact, Stateless, Mixed, Narrow])
def test_nothing_drifts_whatever_happens(machine: type[Drift], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("fedpost.site"), "disabled", True)
    # A step here is a round of real encodings: a quarter of the usual number of examples.
    run_state_machine_as_test(machine, settings=settings(max_examples=max(settings().max_examples // 4, 1)))
