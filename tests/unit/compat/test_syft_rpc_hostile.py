"""What a peer, a user or an operating system may do to a server and to a future, and what comes of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import BaseModel, field_validator

from fedpost.compat.syft_rpc import (
    Client,
    SyftBulkFuture,
    SyftEvents,
    SyftResponse,
    SyftStatusError,
    SyftTransportError,
    make_url,
    reply_to,
    send,
)
from fedpost.compat.syft_rpc.journal import Journal
from fedpost.compat.syft_rpc.messages import MESSAGE_LIMITS
from fedpost.errors import ConfigError, DecodeError, LimitError, RegistryError
from fedpost.frame import Limits

OWNER, SITE = "owner@x.org", "site@y.org"
PATIENCE = 60


@pytest.fixture
def owner(tmp_path):
    return Client(OWNER, tmp_path)


@pytest.fixture
def site(tmp_path):
    return Client(SITE, tmp_path)


@pytest.fixture
def folder(owner):
    return owner.datasites / OWNER / "app_data" / "app" / "rpc"


def ask(site, endpoint="x", body=None, **values):
    return send(make_url(OWNER, "app", endpoint), body=body, client=site, cache=False, **values)


def wait_until_expired(future):
    threading.Event().wait(max(0.0, (future.expires - datetime.now(UTC)).total_seconds() + 0.002))


# ── starting and stopping ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_start_that_fails_says_so(owner):
    """Nobody waits for a thread that has ended, and nothing stays locked."""
    journal = owner.private / "rpc"
    journal.mkdir(parents=True)
    (journal / "app").write_text("a file where the journal's folder would be")
    box = SyftEvents("app", owner)
    for call in (box.start, box.run_forever, box.process_pending):
        with pytest.raises(SyftTransportError, match="no journal can be kept"):
            call()
    (journal / "app").unlink()
    box.start()
    box.stop()


def test_a_journal_that_cannot_be_read_is_let_go(owner, tmp_path):
    folder = owner.private / "rpc" / "app"
    folder.mkdir(parents=True)
    (folder / "begun").symlink_to(tmp_path)
    box = SyftEvents("app", owner)
    with pytest.raises(SyftTransportError):
        box.start()
    (folder / "begun").unlink()
    assert box.process_pending() == 0


def test_somebodys_own_file_in_the_journal(owner, site):
    folder = owner.private / "rpc" / "app" / "begun"
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    assert SyftEvents("app", owner).process_pending() == 0


def test_a_handler_may_stop_its_server(owner, site):
    box = SyftEvents("app", owner)

    @box.on_request("/x")
    def end(request):
        box.stop()
        return "stopped"

    box.start()
    assert ask(site).wait(PATIENCE).value() == "stopped"
    box.stop()
    box.start()
    box.stop()


def test_a_server_runs_again_after_it_was_stopped(owner, site):
    box = SyftEvents("app", owner)
    box.on_request("/x")(lambda request: box.stop())
    for _ in range(2):
        future = ask(site)
        box.run_forever()
        assert future.resolve().is_success


def test_who_comes_too_late_does_not_undo_a_stop(owner, site):
    """A refused process_pending leaves a server that is about to end as it is."""
    box = SyftEvents("app", owner)
    begun, go_on = threading.Event(), threading.Event()

    @box.on_request("/x")
    def slow(request):
        begun.set()
        go_on.wait(PATIENCE)

    box.start()
    future = ask(site)
    assert begun.wait(PATIENCE)
    stopper = threading.Thread(target=box.stop)
    stopper.start()
    while not box._stop.is_set():
        threading.Event().wait(0.001)
    with pytest.raises(ConfigError, match="being served already"):
        box.process_pending()
    go_on.set()
    stopper.join(PATIENCE)
    assert not stopper.is_alive()
    assert future.wait(PATIENCE).is_success


CTRL_C = """
import os, signal, sys
from pathlib import Path
from fedpost.compat.syft_rpc import Client, SyftEvents

box = SyftEvents("app", Client("owner@x.org", sys.argv[1]))

@box.on_request("/x")
def note(request):
    with (Path(sys.argv[1]) / "executed").open("a") as file:
        file.write("x")
    os.kill(os.getpid(), signal.SIGINT)
    box._stop.wait(60)  # the main thread says what it makes of it

try:
    box.run_forever()
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_begins_nothing_more(site, tmp_path):
    futures = [ask(site) for _ in range(3)]
    done = subprocess.run(
        [sys.executable, "-c", CTRL_C, str(tmp_path)], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert done.stdout == "interrupted\n"
    assert (tmp_path / "executed").read_text() == "x"
    assert sum(future.is_done for future in futures) == 1
    assert len(list(tmp_path.rglob("*.request"))) == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of forking beside threads, which is the point
def test_a_process_that_a_handler_forked_does_not_keep_the_app(owner, site):
    box = SyftEvents("app", owner)
    children = []

    @box.on_request("/x")
    def fork(request):
        child = os.fork()
        if child == 0:
            signal.pause()
        children.append(child)

    try:
        ask(site)
        box.process_pending()
        assert SyftEvents("app", owner).process_pending() == 0
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


# ── handlers ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Fussy(BaseModel):
    text: str

    @field_validator("text")
    @classmethod
    def check(cls, value):
        raise ZeroDivisionError("patient 4711")


def test_a_validator_that_fails_is_a_bad_request(owner, site, folder):
    box = SyftEvents("app", owner)
    box.on_request("/x")(len)

    @box.on_request("/fussy")
    def fussy(body: Fussy) -> None:
        raise AssertionError(body)

    future = ask(site, "fussy", {"text": "a"})
    box.process_pending()
    response = future.resolve()
    assert (response.status_code, response.text()) == (400, "the body cannot be checked: ZeroDivisionError")
    assert list(folder.rglob("*.request")) == []


def test_what_no_request_could_be_for_is_refused_when_it_is_registered(owner):
    box = SyftEvents("app", owner)

    async def later(request):
        raise AssertionError(request)

    with pytest.raises(ConfigError, match="asynchronous"):
        box.on_request("/x")(later)
    one, two = (type("Same", (BaseModel,), {"__module__": name}) for name in ("a", "b"))

    def ambiguous(body):
        raise AssertionError(body)

    ambiguous.__annotations__ = {"body": one | two}
    with pytest.raises(RegistryError, match="two classes"):
        box.on_request("/x")(ambiguous)


def test_a_fault_of_the_server_is_logged_and_not_repeated(owner, site, folder, caplog):
    box = SyftEvents("app", owner)
    box.on_request("/x")(lambda request: 1)
    looked = []

    def fails(request):
        looked.append(request.id)
        raise ZeroDivisionError

    box._endpoints.prepare = fails
    future = ask(site)
    assert [box.process_pending() for _ in range(3)] == [1, 0, 0]
    assert looked == [future.id]
    assert "is left alone" in caplog.text
    assert len(list(folder.rglob("*.request"))) == 1


# ── what is kept ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_request_that_is_being_executed_is_not_forgotten(owner, site, later):
    """Also when it expires meanwhile, and nothing is kept longer than that."""
    box = SyftEvents("app", owner, keep=timedelta(0))

    @box.on_request("/x")
    def slow(request):
        later()
        box._clean()
        return box._journal.has(request.id)

    future = ask(site, expiry="1h")
    box.process_pending()
    assert future.resolve().value() is True
    box.process_pending()
    assert [path.name for path in owner.private.rglob("*") if path.is_file()] == ["lock"]


def test_what_was_interrupted_long_ago_is_forgotten(owner, site, folder):
    journal = Journal(owner.private / "rpc" / "app", MESSAGE_LIMITS)
    journal.open()
    future = ask(site, expiry="0s")
    journal.begin(future.request.header)
    journal.close()
    (folder / "requests" / f"{future.id}.request").unlink()
    wait_until_expired(future)
    assert SyftEvents("app", owner, keep=timedelta(0)).process_pending() == 0
    assert list(folder.rglob("*.response")) == []


def test_refusals_do_not_stay_as_long_as_the_request_asks(owner, site, folder):
    box = SyftEvents("app", owner, longest=timedelta(0), keep=timedelta(0))
    box.on_request("/x")(lambda request: 1)
    assert ask(site, expiry="3650d").request.id
    box.process_pending()
    assert len(list(folder.rglob("*.response"))) == 1
    threading.Event().wait(0.01)
    box._inbox.clean(lambda ident: False, timedelta(0), timedelta(0))
    assert list(folder.rglob("*.response")) == []


def test_times_without_end(owner, site):
    box = SyftEvents("app", owner, longest=timedelta.max, keep=timedelta.max)
    box.on_request("/x")(lambda request: 1)
    future = ask(site, expiry="3650d")
    box.process_pending()
    assert future.resolve().value() == 1


# ── futures ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_response_that_comes_late_reaches_a_bulk_future(owner, site):
    late, missing = ask(site, expiry="0s"), ask(site, expiry="0s")
    bulk = SyftBulkFuture([late, missing])
    wait_until_expired(missing)
    assert [response.status_code for response in bulk.gather_completed(PATIENCE)] == [419, 419]
    reply_to(late.request, body="late", client=owner)
    bulk.resolve()
    assert [response.status_code for response in bulk.responses] == [200, 419]
    assert (late.is_answered, missing.is_answered) == (True, False)


def test_one_damaged_response_does_not_keep_the_others_away(owner, site, folder):
    futures = [ask(site) for _ in range(3)]
    for future in futures:
        reply_to(future.request, body=1, client=owner)
    path = folder / "responses" / f"{futures[0].id}.response"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    bulk = SyftBulkFuture(futures)
    for call in (bulk.resolve, bulk.gather_completed):
        with pytest.raises(DecodeError):
            call()
        assert [response.id for response in bulk.responses] == [future.id for future in futures[1:]]


def test_a_response_over_the_budget(owner, site):
    future = ask(site, limits=Limits(max_frame=5000))
    reply_to(future.request, body=b"x" * 9000, client=owner)
    with pytest.raises(LimitError):
        future.resolve()


def test_the_note_of_a_request_that_expired_goes(site):
    future = send(make_url(OWNER, "app", "x"), expiry="0s", client=site)
    wait_until_expired(future)
    assert future.resolve().status_code == 419
    assert [path for path in site.private.rglob("*") if path.is_file()] == []


def test_a_reason_cannot_command_a_terminal(owner, site):
    request = ask(site).request
    response = SyftResponse.make(request.header, sender=OWNER, status_code=500, body="\x1b[2J\n" + "x" * 9000)
    with pytest.raises(SyftStatusError) as caught:
        response.raise_for_status()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000
