"""Faults of the real stack behind the document "Serialization" that must not come back, one test each."""

from __future__ import annotations

import inspect
import math
import os
import threading
from dataclasses import dataclass

import numpy as np
import pytest

from fedpost.compat import syft_rpc
from fedpost.compat.syft_rpc import Client, SyftEvents, SyftRequest, SyftTimeoutError, make_url, send
from fedpost.errors import ConfigError

OWNER, SITE = "owner@x.org", "site@y.org"


@dataclass
class Tagged:
    value: int


@dataclass
class Other:
    value: int


@pytest.fixture
def owner(tmp_path):
    return Client(OWNER, tmp_path)


@pytest.fixture
def site(tmp_path):
    return Client(SITE, tmp_path)


def served(owner, calls, **options):
    box = SyftEvents("app", owner, **options)

    @box.on_request("/count")
    def count(request: SyftRequest) -> int:
        calls.append(request.id)
        return len(calls)

    return box


URL = make_url(OWNER, "app", "count")


def folder_of(owner, name):
    return owner.datasites / OWNER / "app_data" / "app" / "rpc" / name


def test_the_register_functions_exist():
    for name in ("register_serializer", "register_deserializer", "serialize", "deserialize"):
        assert inspect.isfunction(getattr(syft_rpc, name))


def test_a_type_has_a_tag_so_that_it_is_not_mistaken_for_another():
    with pytest.raises(ValueError, match="unknown type 'Tagged'"):
        syft_rpc.deserialize(syft_rpc.serialize(Tagged(1)), with_type=Other)


def test_nan_stays_nan_and_nested_sets_stay_sets():
    found = syft_rpc.deserialize(syft_rpc.serialize({"loss": math.nan, "seen": [{1, 2}, {"deep": {frozenset({3})}}]}))
    assert math.isnan(found["loss"])
    assert found["seen"] == [{1, 2}, {"deep": {frozenset({3})}}]


def test_no_base64_on_the_wire(owner, site):
    """The original's three layers make 2.37 bytes of one."""
    array = np.random.default_rng(3).bytes(1 << 20)
    send(URL, body=array, client=site)
    (path,) = folder_of(owner, "requests").iterdir()
    assert path.stat().st_size < len(array) + 1024
    assert array in path.read_bytes()


def test_encryption_is_never_silently_off(owner, site):
    request = SyftRequest.make(sender=SITE, url=URL)
    for call in (
        lambda: send(URL, body="secret", client=site, encrypt=True),
        lambda: syft_rpc.broadcast([URL], body="secret", client=site, encrypt=True),
        lambda: syft_rpc.reply_to(request, body="secret", client=owner, encrypt=True),
        lambda: syft_rpc.serialize("secret", encrypt=True),
        lambda: syft_rpc.serialize("secret", recipient=OWNER),
    ):
        with pytest.raises(ConfigError, match="sealing is not available"):
            call()
    assert not owner.datasites.exists()


def test_a_torn_read_deletes_nothing(owner, site):
    calls = []
    box = served(owner, calls)
    future = send(URL, body="x" * 9000, client=site)
    (path,) = folder_of(owner, "requests").iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:5000])  # as a tool that synchronises may leave it for a while
    box.process_pending()
    assert path.read_bytes() == whole[:5000]
    assert calls == []
    path.write_bytes(whole)
    box.process_pending()
    assert calls == [future.id]
    reply = folder_of(owner, "responses") / f"{future.id}.response"
    good = reply.read_bytes()
    for size in (0, 10, len(good) - 1):
        reply.write_bytes(good[:size])
        assert future.resolve() is None
        assert reply.read_bytes() == good[:size]
    reply.write_bytes(good)
    assert future.resolve().value() == 1


@pytest.mark.parametrize("endpoint", ["../../../private", "a/../b", "..", "/a//b", ".hidden", "a\\..\\b", "a%2e/\0"])
def test_no_endpoint_leads_out_of_the_datasite(endpoint, owner, site, tmp_path):
    with pytest.raises(ConfigError):
        make_url(OWNER, "app", endpoint)
    with pytest.raises(ConfigError):
        send(f"syft://{OWNER}/app_data/app/rpc/{endpoint}", client=site)
    with pytest.raises(ConfigError):
        SyftEvents("app", owner).on_request(endpoint)(print)
    assert list(tmp_path.iterdir()) == []


def test_a_replay_is_not_executed_and_gets_the_same_response(owner, site):
    calls = []
    future = send(URL, client=site)
    path = folder_of(owner, "requests") / f"{future.id}.request"
    sent = path.read_bytes()
    served(owner, calls).process_pending()
    reply = folder_of(owner, "responses") / f"{future.id}.response"
    first = reply.read_bytes()
    reply.unlink()  # also when somebody has deleted it from the shared folder
    for _ in range(3):
        path.write_bytes(sent)
        assert served(owner, calls).process_pending() == 1  # also by another process
        assert not path.exists()
        assert reply.read_bytes() == first
    assert calls == [future.id]


def test_a_late_response_is_still_the_result(owner, site):
    future = send(URL, expiry="1s", client=site, cache=False)
    late = syft_rpc.reply_to(future.request, body="late", client=owner)
    (path,) = folder_of(owner, "responses").iterdir()
    held = path.read_bytes()
    path.unlink()
    threading.Event().wait(max(0.0, 1.001 - future.request.age))
    assert future.is_expired
    assert future.resolve().status_code == 419
    path.write_bytes(held)
    assert future.resolve().value() == "late"
    assert future.wait(1).id == late.id
    assert path.read_bytes() == held


def test_an_expired_request_is_not_executed(owner, site):
    calls = []
    future = send(URL, expiry="0s", client=site)
    assert served(owner, calls).process_pending() == 1
    assert calls == []
    assert future.wait(60).status_code == 419


def test_a_file_is_seen_whole_or_not_at_all(owner, site):
    """Somebody who looks all the time never sees a part, though the file is large."""
    body = os.urandom(4 << 20)
    folder_of(owner, "requests").mkdir(parents=True)
    done = threading.Event()
    seen = []

    def look():
        while not done.is_set() or not seen:
            seen.extend(SyftRequest.load(path).id for path in folder_of(owner, "requests").glob("*.request"))

    thread = threading.Thread(target=look)
    thread.start()
    ids = {send(URL, body=body, client=site, cache=False).id for _ in range(5)}
    done.set()
    thread.join()
    assert seen
    assert set(seen) <= ids


def test_a_time_out_leaves_the_future_as_it_was(owner, site):
    future = send(URL, client=site)
    with pytest.raises(SyftTimeoutError):
        future.wait(0.01)
    served(owner, []).process_pending()
    assert future.wait(60).value() == 1


def test_nobody_can_lay_out_a_response_beforehand(owner, site):
    """The original's ids are digests of the request; ours are random."""
    one = send(URL, body="same", client=site, cache=False)
    two = send(URL, body="same", client=site, cache=False)
    assert one.id != two.id
