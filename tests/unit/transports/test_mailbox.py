"""Mailboxes, beyond the contract: what lies in the folders, and what happens to what others put there."""

from __future__ import annotations

import time
import uuid
from dataclasses import replace

import pytest

from fedpost.blobs import MemoryBlobStore
from fedpost.errors import LimitError
from fedpost.frame import DEFAULT_LIMITS, Frame
from fedpost.transports import MailboxEndpoint, mailbox, open_endpoint

FRAME = Frame.build({"number": 1}, [memoryview(bytes(100))])
WHOLE = bytes(FRAME)


@pytest.fixture
def store():
    return MemoryBlobStore()


@pytest.fixture
def hospital(store):
    return MailboxEndpoint(store, "hospital", DEFAULT_LIMITS, durable=False)


@pytest.fixture
def site(store):
    return MailboxEndpoint(store, "site", DEFAULT_LIMITS, durable=False)


def keys(store, folder="mail/hospital"):
    return [blob.key for blob in store.list(folder)]


def put(store, data, name="late.frame"):
    store.put(f"mail/hospital/{name}", [memoryview(data)])


def test_a_frame_is_a_file_until_it_is_acknowledged(tmp_path):
    hospital = open_endpoint(f"file://{tmp_path}", "hospital")
    open_endpoint(f"file://{tmp_path}", "site").send("hospital", FRAME)
    (file,) = (tmp_path / "mail" / "hospital").iterdir()
    assert file.suffix == ".frame"
    assert file.read_bytes() == WHOLE
    delivery = hospital.receive(30)
    assert file.exists()
    delivery.ack()
    assert not file.exists()
    hospital.close()


def test_order_is_kept_when_the_clock_is_set_back(store, site, hospital, monkeypatch):
    stamps = iter([5_000, 4_000, 4_000, 9_000, 10])
    monkeypatch.setattr(time, "time_ns", lambda: next(stamps))
    for number in range(5):
        site.send("hospital", Frame.build({"number": number}))
    received = [Frame.decode(hospital.receive(0).data).section("number", int) for _ in range(5)]
    assert received == list(range(5))


def test_order_is_kept_while_more_frames_arrive(store, site, hospital):
    for number in range(3):
        site.send("hospital", Frame.build({"number": number}))
    received = [Frame.decode(hospital.receive(0).data).section("number", int)]
    for number in range(3, 6):
        site.send("hospital", Frame.build({"number": number}))
    received += [Frame.decode(hospital.receive(0).data).section("number", int) for _ in range(5)]
    assert received == list(range(6))


def test_a_frame_that_is_held_is_not_delivered_again(store, site, hospital):
    site.send("hospital", FRAME)
    held = hospital.receive(0)
    assert hospital.receive(0) is None
    assert len(keys(store)) == 1
    held.ack()
    assert keys(store) == []


def test_a_frame_that_somebody_took_away_is_passed_over(store, site, hospital):
    for _ in range(3):
        site.send("hospital", FRAME)
    first = hospital.receive(0)
    for key in keys(store)[:2]:
        store.delete(key)
    first.ack()
    hospital.receive(0).ack()
    assert hospital.receive(0) is None


def test_a_rejected_frame_lies_beside_its_reason(store, site, hospital):
    site.send("hospital", FRAME)
    hospital.receive(0).reject("segment 0: its blake3 digest does not match")
    assert keys(store) == []
    frame, note = keys(store, "rejected/hospital")
    assert note == f"{frame}.txt"
    assert store.get(frame, max_bytes=10_000) == WHOLE
    assert store.get(note, max_bytes=1000) == b"segment 0: its blake3 digest does not match"


@pytest.mark.parametrize("name", ["x", "x" * 200, "report.pdf", "a.frame.txt"])
def test_what_others_put_there_can_be_rejected(store, hospital, name):
    put(store, b"not a frame", name)
    delivery = hospital.receive(0)
    assert delivery.data == b"not a frame"
    delivery.reject("not a fedpost frame")
    assert keys(store) == []
    assert len(keys(store, "rejected/hospital")) == 2


def test_a_frame_that_is_too_large_stays_where_it_is(store):
    hospital = MailboxEndpoint(store, "hospital", replace(DEFAULT_LIMITS, max_frame=100), durable=False)
    put(store, bytes(101), "1")
    put(store, bytes(100), "2")
    with pytest.raises(LimitError, match="101 bytes, 100 allowed"):
        hospital.receive(0)
    hospital.receive(0).ack()
    assert hospital.receive(0) is None
    assert keys(store) == ["mail/hospital/1"]


# ── unfinished frames, as tools that copy in place leave them ────────────────────────────────────────────────────────


def test_a_frame_that_grows_comes_again(store, hospital):
    for size in (10, 50, len(WHOLE)):
        put(store, WHOLE[:size])
        delivery = hospital.receive(0)
        assert delivery.data == WHOLE[:size]
        assert delivery.defer()
        assert hospital.receive(0) is None


def test_a_frame_that_grew_is_delivered_once(store, hospital):
    """While it is held it is not delivered again, or it would be taken for a copy and acknowledged too early."""
    put(store, WHOLE[:10])
    assert hospital.receive(0).defer()
    put(store, WHOLE)
    delivery = hospital.receive(0)
    assert delivery.data == WHOLE
    assert hospital.receive(0) is None
    delivery.ack()
    assert keys(store) == []


def test_a_frame_that_stays_unfinished_is_given_up(store, hospital, monkeypatch):
    put(store, WHOLE[:10])
    assert hospital.receive(0).defer()
    assert hospital.receive(0) is None
    monkeypatch.setattr(mailbox, "SETTLE_SECONDS", -1.0)
    last = hospital.receive(0)
    assert not last.defer()
    last.reject("it ended early")
    assert hospital.receive(0) is None
    assert len(keys(store, "rejected/hospital")) == 2


def test_what_grows_has_its_time_anew(store, hospital, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for size in range(10, 60, 10):
        put(store, WHOLE[:size])
        assert hospital.receive(0).defer()
        now += mailbox.SETTLE_SECONDS - 1
    now += 2
    assert not hospital.receive(0).defer()


def test_an_unfinished_frame_holds_nobody_up(store, site, hospital):
    put(store, WHOLE[:10], "00000000000000000000-first.frame")
    assert hospital.receive(0).defer()
    site.send("hospital", FRAME)
    assert hospital.receive(0).data == WHOLE


# ── media ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_memory_url_names_a_store():
    name = uuid.uuid4().hex
    open_endpoint(f"memory://{name}", "site").send("hospital", FRAME)
    assert open_endpoint(f"memory://{name}x", "hospital").receive(0) is None
    assert open_endpoint(f"memory://{name}", "hospital").receive(0).data == WHOLE


def test_what_each_medium_promises(tmp_path):
    memory = open_endpoint(f"memory://{uuid.uuid4().hex}", "a")
    file = open_endpoint(f"file://{tmp_path}", "a")
    assert memory.guarantees.ordered
    assert not memory.guarantees.durable
    assert file.guarantees.ordered
    assert file.guarantees.durable
    file.close()
