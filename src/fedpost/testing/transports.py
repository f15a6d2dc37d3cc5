"""The contract of a transport; see :mod:`fedpost.transports.transport`."""

# ruff: noqa: S101, PLR2004 - asserting is what a suite is for, and its numbers are examples
from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import ClassVar, Final

import pytest

from fedpost.compression import Compression
from fedpost.errors import LimitError, TransportError
from fedpost.frame import DEFAULT_LIMITS, Frame, Limits
from fedpost.transports import Delivery, Endpoint, open_endpoint

__all__ = ["TransportContract"]

_WAIT: Final = 60.0
_FRAMES: Final = {
    "no segment": Frame.build({"kind": "nothing"}),
    "one byte": Frame.build({}, [memoryview(b"x")]),
    "segments": Frame.build({"kind": "many"}, [memoryview(bytes([n % 256]) * n) for n in range(500)]),
    "compressed": Frame.build({}, [memoryview(b"again and again " * 90_000)], compression=Compression("zstd", 1)),
    "20 MB": Frame.build({"kind": "large"}, [memoryview(bytes(range(256)) * 80_000)]),
}
_BAD_ADDRESSES: Final = {
    "empty": "",
    "up": "..",
    "leading dot": ".a",
    "separator": "a/b",
    "absolute": "/a",
    "leading dash": "-a",
    "NUL": "a\0",
    "newline": "a\n",
    "space": "a b",
    "URL": "http://a",
    "wildcard": "*",
    "letter outside ASCII": "\u00e9",
    "lone surrogate": "\ud800",
    "too long": "a" * 65,
}

# What a process of its own runs: it knows the transport once it has imported where that is registered.
_PRELUDE: Final = """
import importlib, sys, time
from fedpost.frame import Frame
from fedpost.transports import open_endpoint
module, url, address = sys.argv[1:]
importlib.import_module(module)
endpoint = open_endpoint(url, address)
"""
_SENDER: Final = _PRELUDE + "endpoint.send('hospital', Frame.build({'number': 7}))\nendpoint.close()\n"
_VICTIM: Final = _PRELUDE + f"assert endpoint.receive({_WAIT})\nprint('holding it', flush=True)\ntime.sleep({_WAIT})\n"


class TransportContract:
    """Override the fixture :meth:`url`, and :meth:`open` for a transport that is not registered.

    Attributes:
        between_processes: Peers may be different processes of this machine.
        registered_in: The module whose import registers the transport, for a process of its own.
    """

    between_processes: ClassVar[bool] = True
    registered_in: ClassVar[str] = "fedpost.transports"

    @pytest.fixture
    def url(self) -> str:
        """A medium that no other test uses."""
        raise NotImplementedError

    def open(self, url: str, address: str, limits: Limits) -> Endpoint:
        """Connect to the medium."""
        return open_endpoint(url, address, limits=limits)

    @pytest.fixture
    def connect(self, url: str) -> Iterator[Callable[..., Endpoint]]:
        """Connects an address, with limits if need be; the end is closed after the test."""
        with ExitStack() as ends:

            def connect(address: str, limits: Limits = DEFAULT_LIMITS) -> Endpoint:
                endpoint = self.open(url, address, limits)
                ends.callback(endpoint.close)
                return endpoint

            yield connect

    @pytest.fixture
    def site(self, connect: Callable[..., Endpoint]) -> Endpoint:
        """The end that sends in most tests."""
        return connect("site")

    @pytest.fixture
    def hospital(self, connect: Callable[..., Endpoint]) -> Endpoint:
        """The end that receives in most tests."""
        return connect("hospital")

    # ── delivery ─────────────────────────────────────────────────────────────────────────────────────────────────────

    @pytest.mark.parametrize("frame", _FRAMES.values(), ids=_FRAMES)
    def test_a_frame_arrives_unchanged(self, site: Endpoint, hospital: Endpoint, frame: Frame) -> None:
        """A frame arrives whole, byte for byte; its size is what sending it returned."""
        assert site.send("hospital", frame) == frame.nbytes
        delivery = _next(hospital)
        assert delivery.data == bytes(frame)
        delivery.ack()

    def test_a_frame_outlives_its_acknowledgement(self, site: Endpoint, hospital: Endpoint) -> None:
        """The bytes stay valid when the transport has forgotten the frame, and more frames have come."""
        site.send("hospital", _numbered(1))
        first = _next(hospital)
        first.ack()
        site.send("hospital", _numbered(2))
        _next(hospital).ack()
        assert first.data == bytes(_numbered(1))

    def test_a_frame_goes_to_its_address_only(self, connect: Callable[..., Endpoint], site: Endpoint) -> None:
        """Nobody gets a frame for somebody else, however alike the addresses are; peers answer each other."""
        ends = {address: connect(address) for address in ("a", "A", "aa", "a.b", "a-b", "a_b", "a" * 64)}
        for number, address in enumerate(ends):
            site.send(address, _numbered(number))
        for number, end in enumerate(ends.values()):
            delivery = _next(end)
            assert _number(delivery) == number
            delivery.ack()
            end.send("site", _numbered(number))
        assert sorted(_numbers(site, len(ends))) == list(range(len(ends)))
        for end in ends.values():
            assert end.receive(0) is None

    def test_frames_come_in_order(self, site: Endpoint, hospital: Endpoint) -> None:
        """Frames of one sender come in the order in which they were sent, if that is promised; all come in any case."""
        for number in range(1000):
            site.send("hospital", _numbered(number))
        numbers = _numbers(hospital, 1000)
        assert (numbers if hospital.guarantees.ordered else sorted(numbers)) == list(range(1000))

    def test_senders_do_not_meet(self, connect: Callable[..., Endpoint], hospital: Endpoint) -> None:
        """Frames of senders that send at the same time all come, each sender's in order if that is promised."""

        def send(sender: int) -> None:
            endpoint = connect(f"site{sender}")
            for number in range(100):
                endpoint.send("hospital", _numbered(sender * 100 + number))

        with ThreadPoolExecutor(6) as pool:
            tasks = [pool.submit(send, sender) for sender in range(6)]
            numbers = _numbers(hospital, 600)
            for task in tasks:
                task.result(_WAIT)
        assert sorted(numbers) == list(range(600))
        if hospital.guarantees.ordered:
            for sender in range(6):
                mine = [number for number in numbers if number // 100 == sender]
                assert mine == sorted(mine)

    def test_the_receiver_may_come_later(self, connect: Callable[..., Endpoint], site: Endpoint) -> None:
        """A durable transport keeps frames for an address that nobody has connected yet, and of senders that left."""
        if not site.guarantees.durable:
            pytest.skip("the transport is not durable")
        site.send("later", _numbered(1))
        site.close()
        assert _numbers(connect("later"), 1) == [1]

    # ── settling ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def test_what_was_acknowledged_does_not_come_again(
        self, connect: Callable[..., Endpoint], site: Endpoint, hospital: Endpoint
    ) -> None:
        """An acknowledged frame is gone, for this end and for the next one at its address."""
        site.send("hospital", _numbered(1))
        assert _numbers(hospital, 1) == [1]
        assert hospital.receive(0.2) is None
        hospital.close()
        again = connect("hospital")
        assert again.receive(0.2) is None
        site.send("hospital", _numbered(2))
        assert _numbers(again, 1) == [2]

    def test_what_was_not_acknowledged_comes_again(
        self, connect: Callable[..., Endpoint], site: Endpoint, hospital: Endpoint
    ) -> None:
        """A receiver that ends before it has acknowledged its frames gets them again when it comes back."""
        for number in range(3):
            site.send("hospital", _numbered(number))
        deliveries = [_next(hospital) for _ in range(3)]
        deliveries[1].ack()
        hospital.close()
        assert sorted(_numbers(connect("hospital"), 2)) == [0, 2]

    def test_what_was_rejected_does_not_come_again(
        self, connect: Callable[..., Endpoint], site: Endpoint, hospital: Endpoint
    ) -> None:
        """A rejected frame is out of the way for good, whatever the reason says; others still come."""
        reasons = ("bad digest", "", "\u540d \ud800 \0 ../../x\n" * 500)
        for number in range(len(reasons) + 1):
            site.send("hospital", _numbered(number))
        for reason in reasons:
            _next(hospital).reject(reason)
        assert _numbers(hospital, 1) == [3]
        assert hospital.receive(0.2) is None
        hospital.close()
        assert connect("hospital").receive(0.2) is None

    def test_what_was_deferred_waits(
        self, connect: Callable[..., Endpoint], site: Endpoint, hospital: Endpoint
    ) -> None:
        """A deferred frame does not come again as it is, is in nobody's way, and is still there after a restart."""
        site.send("hospital", _numbered(1))
        assert _next(hospital).defer()
        assert hospital.receive(0.2) is None
        site.send("hospital", _numbered(2))
        assert _numbers(hospital, 1) == [2]
        hospital.close()
        assert _numbers(connect("hospital"), 1) == [1]

    # ── limits and addresses ─────────────────────────────────────────────────────────────────────────────────────────

    def test_what_is_too_large_is_refused_once(self, connect: Callable[..., Endpoint], site: Endpoint) -> None:
        """A frame over the receiver's limit is refused with a LimitError, once, and holds nothing up."""
        small, large = _numbered(1), Frame.build({}, [memoryview(bytes(1000))])
        hospital = connect("hospital", replace(DEFAULT_LIMITS, max_frame=small.nbytes))
        for frame in (large, small):
            site.send("hospital", frame)
        with pytest.raises(LimitError):
            hospital.receive(_WAIT)
        assert _numbers(hospital, 1) == [1]
        assert hospital.receive(0.2) is None

    def test_the_transport_keeps_its_own_limit(self, site: Endpoint, hospital: Endpoint) -> None:
        """A frame over the transport's limit is refused by the sender, one of exactly that size arrives."""
        largest = site.guarantees.max_frame
        if largest is None or largest > 1 << 26:
            pytest.skip("only the medium sets a limit")
        overhead = Frame.build({}, [memoryview(bytes(largest // 2))]).nbytes - largest // 2
        data = memoryview(bytes(largest))
        with pytest.raises(TransportError):
            site.send("hospital", Frame.build({}, [data]))
        frame = Frame.build({}, [data[: largest - overhead - 64]])
        site.send("hospital", frame)
        assert _next(hospital).data == bytes(frame)

    @pytest.mark.parametrize("address", _BAD_ADDRESSES.values(), ids=_BAD_ADDRESSES)
    def test_what_is_no_address_is_refused(
        self, connect: Callable[..., Endpoint], site: Endpoint, address: str
    ) -> None:
        """An address is a plain name; nothing else is connected or sent to."""
        with pytest.raises(TransportError):
            connect(address)
        with pytest.raises(TransportError):
            site.send(address, _numbered(1))

    def test_it_says_who_it_is(self, site: Endpoint) -> None:
        """An end knows its own address."""
        assert site.address == "site"

    # ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def test_receive_gives_up_in_time(self, hospital: Endpoint) -> None:
        """Where nothing comes, a receive ends after its time, not before; one of no length ends at once."""
        start = time.monotonic()
        assert hospital.receive(0) is None
        assert time.monotonic() - start < 5
        start = time.monotonic()
        assert hospital.receive(1.2) is None
        assert 1.1 < time.monotonic() - start < 10

    def test_a_frame_ends_the_wait(self, connect: Callable[..., Endpoint], hospital: Endpoint) -> None:
        """A frame that another thread sends is received long before the time is over."""
        sending = threading.Event()

        def send() -> None:
            site = connect("site")
            sending.wait(_WAIT)
            time.sleep(0.3)
            site.send("hospital", _numbered(7))

        thread = threading.Thread(target=send)
        thread.start()
        sending.set()
        start = time.monotonic()
        assert _numbers(hospital, 1) == [7]
        assert time.monotonic() - start < _WAIT / 4
        thread.join()

    def test_a_frame_of_another_process_ends_the_wait(self, url: str, hospital: Endpoint) -> None:
        """Peers may be processes of their own."""
        self._need_processes()
        with self._process(_SENDER, url, "site") as process:
            assert _numbers(hospital, 1) == [7]
            assert process.wait(_WAIT) == 0

    def test_a_receiver_that_is_killed_gets_its_frame_again(
        self, connect: Callable[..., Endpoint], url: str, site: Endpoint
    ) -> None:
        """A frame is the transport's until it is acknowledged: it survives the process that held it."""
        self._need_processes()
        with self._process(_VICTIM, url, "hospital") as process:
            try:
                site.send("hospital", _numbered(7))
                assert process.stdout is not None
                assert process.stdout.readline() == b"holding it\n"
            finally:
                process.kill()
        assert _numbers(connect("hospital"), 1) == [7]

    # ── closing ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def test_an_end_is_closed_more_than_once(self, connect: Callable[..., Endpoint], site: Endpoint) -> None:
        """Closing is idempotent, also of an end that never received, and ends nobody else's connection."""
        first, second = connect("hospital"), connect("clinic")
        for _ in range(3):
            first.close()
        site.send("clinic", _numbered(1))
        assert _numbers(second, 1) == [1]

    def _need_processes(self) -> None:
        if not self.between_processes:
            pytest.skip("peers of this transport are in one process")

    def _process(self, code: str, url: str, address: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", code, self.registered_in, url, address]
        return subprocess.Popen(command, stdout=subprocess.PIPE)  # noqa: S603 - our own code and a URL of the test's


def _numbered(number: int) -> Frame:
    return Frame.build({"number": number}, [memoryview(bytes([number % 256]) * 10)])


def _number(delivery: Delivery) -> int:
    return Frame.decode(delivery.data).section("number", int)


def _next(endpoint: Endpoint) -> Delivery:
    delivery = endpoint.receive(_WAIT)
    assert delivery is not None
    return delivery


def _numbers(endpoint: Endpoint, count: int) -> list[int]:
    """Receive and acknowledge that many numbered frames."""
    numbers = []
    for _ in range(count):
        delivery = _next(endpoint)
        numbers.append(_number(delivery))
        delivery.ack()
    return numbers
