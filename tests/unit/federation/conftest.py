"""A server in a thread, and puppets: sites whose every frame the test writes itself.

How long a round may take is the test's to say, not the machine's: nothing here waits for less than a minute, and
``federation.time_goes_by()`` ends what the server waits for.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpost.blobs import MemoryBlobStore
from fedpost.codecs import Base
from fedpost.federation import FedAvg, RunResult, Server, ServerSettings, SiteHost, Strategy, exchange
from fedpost.federation.client import AnyClient
from fedpost.federation.pipelines import offered
from fedpost.frame import DEFAULT_LIMITS, Frame, Limits
from fedpost.pipeline import Pipeline, decode_tensors
from fedpost.protocol import (
    Agreement,
    Body,
    Envelope,
    EvaluationResult,
    Message,
    MessageType,
    Offer,
    Registration,
    RegistrationReply,
    RunEnd,
    TrainingCommand,
    WeightUpdate,
    address_message,
    decode_message,
    own_offer,
    type_of,
)
from fedpost.telemetry import Event, Record, Telemetry, Transfer
from fedpost.transports import Endpoint, mailbox, open_endpoint

WAIT = 60.0
MODEL = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "steps": np.array(3, np.int64)}


class Records:
    """A sink that can be waited on."""

    def __init__(self) -> None:
        self.all: list[Record] = []
        self._changed = threading.Condition()

    def record(self, record: Record) -> None:
        with self._changed:
            self.all.append(record)
            self._changed.notify_all()

    def events(self, name: str, site: str | None = None) -> list[Event]:
        found = [record for record in list(self.all) if isinstance(record, Event) and record.name == name]
        return [event for event in found if site is None or event.site == site]

    def transfers(self, direction: str) -> list[Transfer]:
        return [one for one in list(self.all) if isinstance(one, Transfer) and one.direction == direction]

    def reasons(self, name: str, site: str | None = None) -> list[str]:
        return [str(event.values["reason"]) for event in self.events(name, site)]

    def wait(self, name: str, site: str | None = None, count: int = 1) -> Event:
        """The ``count``-th event of a name, once it is there."""
        with self._changed:
            came = self._changed.wait_for(lambda: len(self.events(name, site)) >= count, WAIT)
        assert came, f"no {name} of {site}: {[r for r in self.all if isinstance(r, Event)]}"
        return self.events(name, site)[count - 1]


class Clock:
    """The server's time: the real one, and what a test has added to it."""

    def __init__(self) -> None:
        self.added = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.added


class Loose:
    """Bytes that pass for a frame where one is sent."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.nbytes = len(data)

    def buffers(self) -> list[memoryview]:
        return [memoryview(self.data)]


class Puppet:
    """A site in the hands of the test."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.name = endpoint.address
        self.run = ""
        self.endpoint = endpoint

    def send(self, body: Body, tensors: Frame | None = None, **envelope: Any) -> Frame:
        """Send a message; whatever is not given is as it should be. Return the frame."""
        values = {"type": type_of(body), "sender": self.name, "recipient": "server", "run": self.run} | envelope
        plain = Envelope.new(values["type"], sender="nobody", recipient="nobody")
        fields = {name: getattr(plain, name) for name in plain.__struct_fields__} | values
        frame = address_message(Envelope(**fields), body, tensors)
        self.endpoint.send("server", frame)
        return frame

    def send_bytes(self, data: bytes) -> None:
        self.endpoint.send("server", Loose(data))  # type: ignore[arg-type]

    def receive(self, *kinds: MessageType, timeout: float = WAIT) -> Message:
        """The next message of one of these types; others are passed over."""
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            delivery = self.endpoint.receive(left)
            if delivery is not None:
                delivery.ack()
                message = decode_message(delivery.data)
                if message.envelope.type in kinds:
                    return message
        raise AssertionError(f"{self.name} got no {kinds}")

    def register(self, offer: Offer | None = None, **values: Any) -> Message:
        body = Registration(
            **{"address": self.name, "session": f"{self.name}-1", "offer": offer or own_offer()} | values
        )
        self.send(body, run="")
        reply = self.receive(MessageType.REGISTRATION_REPLY)
        self.run = reply.envelope.run
        return reply

    def command(self) -> Message:
        return self.receive(MessageType.TRAINING_COMMAND, MessageType.EVALUATION_COMMAND)

    def train(
        self,
        command: Message,
        tensors: Mapping[str, np.ndarray] | None = None,
        *,
        pipeline: Pipeline | None = None,
        examples: int = 1,
        metrics: dict[str, Any] | None = None,
        seconds: dict[str, float] | None = None,
        **envelope: Any,
    ) -> Frame:
        """Answer a command to train."""
        arrays = command.tensors().arrays() if tensors is None else tensors
        body = WeightUpdate(num_examples=examples, metrics=metrics or {}, seconds=seconds or {})
        return self.send(body, (pipeline or Pipeline()).encode(arrays), **(self._place(command) | envelope))

    def evaluate(self, command: Message, loss: float, *, examples: int = 1, **envelope: Any) -> Frame:
        """Answer a command to evaluate."""
        body = EvaluationResult(loss=loss, num_examples=examples)
        return self.send(body, **(self._place(command) | envelope))

    @staticmethod
    def _place(command: Message) -> dict[str, Any]:
        return {"round": command.envelope.round, "attempt": command.envelope.attempt}


class Puppeteer:
    """A server in the hands of the test, and one real site, ``a``, which can be killed and started again."""

    def __init__(
        self,
        federation: Federation,
        client: AnyClient,
        model: Mapping[str, np.ndarray],
        pipelines: Mapping[str, Pipeline],
        state: Path | None = None,
    ) -> None:
        self.endpoint = federation.endpoint("server")
        self.federation, self.client, self.model, self.pipelines = federation, client, model, pipelines
        self.state = state
        self.start()

    def start(self, endpoint: Any = None) -> None:
        """Start the site, over its own endpoint or another in its place."""
        endpoint = endpoint or self.federation.endpoint("a")
        self.host = SiteHost(endpoint, {"a": lambda _name: self.client}, Telemetry(), state=self.state)
        self.thread = Thread(self.host.run)
        self.registration: Registration | None = None

    def send(self, body: Body, tensors: Frame | None = None, **fields: Any) -> None:
        envelope = Envelope.new(type_of(body), sender="server", recipient="a", **({"run": "run-1"} | fields))
        self.endpoint.send("a", address_message(envelope, body, tensors))

    def receive(self) -> Message:
        delivery = self.endpoint.receive(WAIT)
        assert delivery is not None
        delivery.ack()
        return decode_message(delivery.data)

    def register(self, run: str = "run-1") -> Registration:
        """Answer the site's registration; ``run`` is the run that the server says it is of."""
        if self.registration is None:
            body = self.receive().body
            assert isinstance(body, Registration)
            self.registration = body
        texts = {payload: str(pipeline) for payload, pipeline in offered(self.pipelines).items()}
        agreement = Agreement(pipelines=texts, checksum="blake3")
        self.send(RegistrationReply(session=self.registration.session, agreement=agreement), run=run)
        return self.registration

    def command(
        self, place: tuple[int, int], acknowledged: tuple[int, int] | None, run: str = "run-1", **fields: Any
    ) -> None:
        """Send the model as it is."""
        body = TrainingCommand(acknowledged=acknowledged, **fields)
        self.send(body, Pipeline().encode(self.model), round=place[0], attempt=place[1], run=run)

    def answer(self) -> tuple[tuple[int, int], np.ndarray]:
        """The place of the site's next result, and what it made of the tensor ``w``."""
        message = self.receive()
        got = decode_tensors(message.frame, base=Base.of(self.model)).arrays()["w"]
        return (message.envelope.round, message.envelope.attempt), got

    def end(self, run: str = "run-1") -> None:
        self.send(RunEnd(status="finished"), run=run)
        self.thread.result()


class Thread(threading.Thread):
    """A daemon thread that hands its result or its exception over."""

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self._result: Any = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._result = self._work()
        except BaseException as error:  # noqa: BLE001 - handed over
            self._error = error

    def result(self, timeout: float = WAIT) -> Any:
        self.join(timeout)
        assert not self.is_alive(), "the thread is still running"
        if self._error is not None:
            raise self._error
        return self._result


class Federation:
    """One run in this process: a store, a server's thread, site hosts' threads, puppets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = f"test-{uuid.uuid4().hex}"
        self.records = Records()
        self.clock = Clock()
        self.server: Thread | None = None

    def endpoint(self, address: str, limits: Limits = DEFAULT_LIMITS) -> Endpoint:
        return open_endpoint(f"memory://{self.name}", address, limits=limits)

    def time_goes_by(self) -> None:
        """The server has waited long enough for whatever it waits for; it looks at its clock every second."""
        self.clock.added += WAIT

    @property
    def store(self) -> MemoryBlobStore:
        """What the memory transport keeps its mailboxes in."""
        return mailbox._MEMORY[self.name]

    def serve(
        self,
        strategy: Strategy | None = None,
        *,
        limits: Limits = DEFAULT_LIMITS,
        endpoint: Any = None,
        **settings: Any,
    ) -> Thread:
        values = {"run": "run-1", "name": "test", "rounds": 1, "folder": self.folder, "limits": limits} | settings
        strategy = strategy or FedAvg(initial_parameters=MODEL)
        endpoint = endpoint or self.endpoint("server", limits)
        server = Server(endpoint, strategy, ServerSettings(**values), Telemetry(self.records))
        self.server = Thread(server.run)
        return self.server

    def host(self, sites: Mapping[str, Callable[[str], AnyClient]], **options: Any) -> Thread:
        host = SiteHost(self.endpoint(next(iter(sites))), sites, Telemetry(), **options)
        return Thread(host.run)

    def puppeteer(self, *arguments: Any, **options: Any) -> Puppeteer:
        return Puppeteer(self, *arguments, **options)

    def puppet(self, name: str, *, register: bool = True) -> Puppet:
        puppet = Puppet(self.endpoint(name))
        if register:
            puppet.register()
        return puppet

    def result(self) -> RunResult:
        assert self.server is not None
        return self.server.result()

    def rejected(self) -> list[str]:
        """Why frames to the server were set aside."""
        keys = [blob.key for blob in self.store.list("rejected/server") if blob.key.endswith(".txt")]
        return [bytes(self.store.get(key, max_bytes=1 << 20) or b"").decode() for key in keys]

    def waiting_frames(self) -> int:
        return len(self.store.list("mail/server"))


@pytest.fixture
def federation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Federation]:
    # Sites log what their clients raise, and some of it cannot be encoded into a test report.
    monkeypatch.setattr(logging.getLogger("fedpost.site"), "disabled", True)
    run = Federation(tmp_path)
    monkeypatch.setattr(exchange, "time", run.clock)
    yield run
    mailbox._MEMORY.pop(run.name, None)
