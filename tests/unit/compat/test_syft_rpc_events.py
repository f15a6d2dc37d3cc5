"""The server: who is called with what, what is answered, and what is remembered."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from fedpost.compat.syft_rpc import (
    Client,
    PrivateData,
    Response,
    SyftEvents,
    SyftRequest,
    SyftStatus,
    make_url,
    send,
)
from fedpost.errors import ConfigError, RegistryError

OWNER, SITE = "owner@x.org", "site@y.org"


class Question(BaseModel):
    text: str


@dataclass
class Answer:
    number: int


@pytest.fixture
def owner(tmp_path):
    return Client(OWNER, tmp_path)


@pytest.fixture
def site(tmp_path):
    return Client(SITE, tmp_path)


def ask(site, endpoint="x", body=None, **values):
    return send(make_url(OWNER, "app", endpoint), body=body, client=site, cache=False, **values)


def test_what_a_handler_gets_and_gives(owner, site):
    box = SyftEvents("app", owner)

    @box.on_request("/bare")
    def bare(request):
        return type(request).__name__

    @box.on_request("/model")
    def model(question: Question) -> Answer:
        return Answer(len(question.text))

    @box.on_request("/plain")
    def plain(numbers: list[int]) -> Response:
        return Response(sum(numbers), SyftStatus.CREATED, {"x": "y"})

    @box.on_request("/any")
    def anything(value: Any) -> Any:
        return value

    futures = [
        *(ask(site, "bare"), ask(site, "model", Question(text="ab")), ask(site, "model", {"text": "abc"})),
        *(ask(site, "plain", [1, 2]), ask(site, "plain", [1, "2"]), ask(site, "any", (1,)), ask(site, "none")),
    ]
    assert box.process_pending() == 7
    found = [future.resolve() for future in futures]
    assert found[0].value() == "SyftRequest"
    assert [response.value(Answer) for response in found[1:3]] == [Answer(2), Answer(3)]
    assert (found[3].value(), found[3].status_code, found[3].headers) == (3, 201, {"x": "y"})
    assert found[4].status_code == 400
    assert "list of int was expected" in found[4].text()
    assert found[5].value() == (1,)
    assert found[6].status_code == 404
    assert list(owner.datasites.rglob("*.request")) == []
    assert box.process_pending() == 0


def test_a_handler_that_fails_tells_nothing_of_what_it_saw(owner, site, caplog):
    box = SyftEvents("app", owner)

    class Secret(PrivateData):
        pass

    @box.on_request("/raise")
    def fails(request):
        raise ValueError("patient 4711")

    @box.on_request("/private")
    def private(request):
        return Response({"patient 4711": Secret()})

    @box.on_request("/header")
    def header(request):
        return Response(1, headers={"": ""})

    futures = [ask(site, name) for name in ("raise", "private", "header")]
    box.process_pending()
    found = [future.resolve() for future in futures]
    assert [response.status_code for response in found] == [500] * 3
    assert found[0].text() == "the function failed: ValueError"
    assert found[1].text() == found[2].text() == "what the function returned cannot be sent"
    assert all(b"4711" not in response.dumps() for response in found)
    assert "patient 4711" in caplog.text


def test_two_requests_at_once(owner, site):
    """Each handler waits for the other: one after the other, they would never end."""
    box = SyftEvents("app", owner, workers=2)
    both = threading.Barrier(2, timeout=60)

    @box.on_request("/x")
    def meet(request):
        both.wait()
        return 1

    box.start()
    try:
        assert [future.wait(60).value() for future in [ask(site), ask(site)]] == [1, 1]
    finally:
        box.stop()


def test_a_response_comes_before_the_request_goes(owner, site):
    box = SyftEvents("app", owner)
    box.on_request("/x")(lambda request: 1)
    future = ask(site)
    box.process_pending()
    folder = owner.datasites / OWNER / "app_data" / "app" / "rpc"
    assert sorted(path.name for path in folder.iterdir()) == ["requests", "responses"]
    assert [path.name for path in (folder / "responses").iterdir()] == [f"{future.id}.response"]


def test_what_was_answered_stays_when_its_request_comes_again_after_its_time(owner, site, later):
    box = SyftEvents("app", owner, keep=timedelta(0))
    box.on_request("/x")(lambda request: "result")
    future = ask(site, expiry="1h")
    path = owner.datasites / OWNER / "app_data" / "app" / "rpc" / "requests" / f"{future.id}.request"
    sent = path.read_bytes()
    box.process_pending()
    assert future.wait(60).value() == "result"
    reply = path.parents[1] / "responses" / f"{future.id}.response"
    held = reply.read_bytes()
    later()
    path.write_bytes(sent)
    again = SyftEvents("app", owner, keep=timedelta(0))
    again.on_request("/x")(lambda request: "executed again")
    again.process_pending()  # forgets what has expired first
    assert b"executed again" not in (reply.read_bytes() if reply.exists() else b"")
    reply.write_bytes(held)  # what a slow folder brings after that
    path.write_bytes(sent)
    again.process_pending()
    assert reply.read_bytes() == held


def test_responses_are_kept_and_then_forgotten(owner, site, later):
    kept = SyftEvents("app", owner)
    kept.on_request("/x")(lambda request: 1)
    ask(site, expiry="0s")
    ask(site, expiry="1h")
    kept.process_pending()
    later()
    SyftEvents("app", owner).process_pending()
    assert len(list(owner.datasites.rglob("*.response"))) == 2
    SyftEvents("app", owner, keep=timedelta(0)).process_pending()
    assert list(owner.datasites.rglob("*.response")) == []
    assert [path.name for path in owner.private.rglob("*") if path.is_file()] == ["lock"]


def test_an_expiry_that_is_too_long_is_refused(owner, site):
    box = SyftEvents("app", owner, longest=timedelta(hours=1))
    box.on_request("/x")(lambda request: 1)
    future = ask(site, expiry="1d")
    box.process_pending()
    assert future.resolve().status_code == 400


def test_an_app_is_served_once(owner):
    box = SyftEvents("app", owner).start()
    try:
        for again in (box, SyftEvents("app", owner)):
            with pytest.raises(ConfigError, match="being served already"):
                again.start()
        with pytest.raises(ConfigError, match="being served already"):
            SyftEvents("app", owner).process_pending()
        SyftEvents("other", owner).process_pending()
    finally:
        box.stop()
    box.stop()
    SyftEvents("app", owner).process_pending()


def test_run_forever_ends_when_it_is_stopped(owner, site):
    box = SyftEvents("app", owner)

    @box.on_request("/x")
    def end(request):
        box.stop()
        return "answered all the same"

    future = ask(site)
    box.run_forever()
    assert future.resolve().value() == "answered all the same"


def test_what_is_no_server(owner):
    for values in ({"app_name": "a/b"}, {"app_name": ".."}, {"workers": 0}):
        with pytest.raises(ConfigError):
            SyftEvents(**{"app_name": "app", "client": owner} | values)
    box = SyftEvents("app", owner)
    box.on_request("/x")(lambda request: 1)
    with pytest.raises(RegistryError, match="/x has a function already"):
        box.on_request("x")(lambda request: 1)
    with pytest.raises(ConfigError, match="takes 2 arguments"):
        box.on_request("/y")(lambda request, other: 1)

    def local(question: NotThere) -> None:  # noqa: F821 - the point
        pass

    with pytest.raises(ConfigError, match="annotation"):
        box.on_request("/y")(local)


def test_a_notebook_may_keep_the_request(owner, site):
    box = SyftEvents("app", owner)
    seen: list[SyftRequest] = []
    box.on_request("/x")(seen.append)
    ask(site, body=b"x" * 9000)
    box.process_pending()
    assert seen[0].value() == b"x" * 9000
