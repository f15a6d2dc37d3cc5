"""Addresses, statuses, messages, clients and sending."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from uuid import UUID

import pytest
from pydantic import BaseModel

from fedpost.compat.syft_rpc import (
    Client,
    SyftBoxURL,
    SyftBulkFuture,
    SyftError,
    SyftMethod,
    SyftRequest,
    SyftResponse,
    SyftStatus,
    SyftStatusError,
    SyftTimeoutError,
    SyftTransportError,
    broadcast,
    deserialize,
    make_url,
    reply_to,
    send,
)
from fedpost.compat.syft_rpc.rpc import parse_duration
from fedpost.errors import ConfigError, DecodeError, ProtocolError, TransportError

OWNER, SITE = "owner@x.org", "site@y.org"
URL = make_url(OWNER, "app", "/a/b")


@pytest.fixture
def owner(tmp_path):
    return Client(OWNER, tmp_path)


@pytest.fixture
def site(tmp_path):
    return Client(SITE, tmp_path)


def request(body=None, **values):
    return SyftRequest.make(**{"sender": SITE, "url": URL, "body": body} | values)


class Query(BaseModel):
    text: str


@dataclass
class Plain:
    a: int


# ── addresses ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_address_and_its_parts():
    url = SyftBoxURL("syft://a.b+c@x-y.co.uk/app_data/app/rpc/one/two?q=1&r=2=3&s")
    assert (url.protocol, url.host, url.app, url.endpoint) == ("syft://", "a.b+c@x-y.co.uk", "app", "/one/two")
    assert (url.path, url.query) == ("/app_data/app/rpc/one/two", {"q": "1", "r": "2=3"})
    assert url == str(url)
    assert make_url("a@b.c", "x", "/y") == make_url("a@b.c", "x", "y") == "syft://a@b.c/app_data/x/rpc/y"
    assert SyftBoxURL("syft://a@b.c").query == {}


@pytest.mark.parametrize(
    "url",
    [
        *("", "http://a@b.c/x", "syft://", "syft://a/x", "syft://a@b/x", "syft://../x", "syft://a@b.c/../x"),
        *("syft://a@b.c/a//b", "syft://a@b.c/.x", "syft://a@b.c/a\\b", "syft://a@b.c/a\n", "syft://a@b.c/é"),
        *("syft://.a@b.c/x", "syft://a@b.c/%2e%2e/x", "syft://a@b.c/" + "x" * 101, "syft://a@b.c/" + "x/" * 600),
        *("syft://a@b.c/x#y", "syft://a@b.c:80/x", "syft://a@b.c/x?\n"),
    ],
)
def test_what_is_no_address(url):
    assert not SyftBoxURL.is_valid(url)
    with pytest.raises(ConfigError):
        SyftBoxURL(url)


@pytest.mark.parametrize("path", ["", "/public/x", "/app_data/app/rpc", "/app_data/app/x/y", "/data/app/rpc/x"])
def test_what_is_no_endpoint(path):
    url = SyftBoxURL(f"syft://a@b.c{path}")
    with pytest.raises(ConfigError, match="not an endpoint's URL"):
        _ = url.endpoint


def test_every_status_of_http_and_syft():
    assert {status.name for status in HTTPStatus} <= {*SyftStatus.__members__, *_NEWER}
    for status in HTTPStatus:
        assert SyftStatus(status.value).is_success == (200 <= status < 300)
        assert SyftStatus(status.value).is_error == (status >= 400)
    assert SyftStatus.OK is SyftStatus.SYFT_200_OK
    assert [status.value for name, status in SyftStatus.__members__.items() if name.startswith("SYFT_")] == [
        *(200, 400, 403, 404, 419, 499, 500)
    ]


_NEWER = ("CONTENT_TOO_LARGE", "URI_TOO_LONG", "RANGE_NOT_SATISFIABLE", "UNPROCESSABLE_CONTENT")
"""Python 3.13's other names for numbers that have a name."""


# ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_message_comes_back_as_it_was(tmp_path):
    one = request({"a": (1, {2})}, method="POST", headers={"x": "é"}, lifetime=timedelta(seconds=90))
    one.dump(tmp_path / "file")
    for two in (SyftRequest.loads(one.dumps()), SyftRequest.load(tmp_path / "file")):
        assert two.header == one.header
        assert two.value() == {"a": (1, {2})}
        assert deserialize(two.body) == {"a": (1, {2})}
    assert isinstance(one.id, UUID)
    assert (one.sender, one.url, one.method, one.headers) == (SITE, URL, SyftMethod.POST, {"x": "é"})
    assert (one.expires - one.created).total_seconds() == 90
    assert 0 <= one.age < 60
    assert not one.is_expired
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_response_is_no_request():
    response = SyftResponse.make(request().header, sender=OWNER)
    for kind, data in ((SyftRequest, response.dumps()), (SyftResponse, request().dumps())):
        with pytest.raises(DecodeError, match="no section"):
            kind.loads(data)


@pytest.mark.parametrize(
    ("body", "text", "value"),
    [
        ("grüße", "grüße", ...),
        ('{"a": 1}', '{"a": 1}', {"a": 1}),
        (b"[1]", "[1]", [1]),
        ({"a": 1}, '{"a": 1}', {"a": 1}),
        (None, "", None),
        (3, "3", 3),
        ({1, 2}, ..., {1, 2}),
        (b"\xff", ..., ...),
    ],
    ids=repr,
)
def test_bodies_as_text_and_as_json(body, text, value):
    message = request(body)
    for read, wanted in ((message.text, text), (message.json, value)):
        if wanted is ...:
            with pytest.raises(DecodeError):
                read()
        else:
            assert read() == wanted


def test_nan_is_nan_in_both():
    assert math.isnan(request({"a": math.nan}).json()["a"])
    assert math.isnan(json.loads(request([math.nan]).text())[0])


def test_bodies_as_models():
    assert request(Query(text="x")).model(Query) == Query(text="x")
    assert request({"text": "x"}).model(Query) == Query(text="x")
    assert request(Plain(1)).model(Plain) == Plain(1)
    for body, kind in (({"text": 1}, Query), ("x", Query), (Plain(1), Query), ({"a": 1}, Plain)):
        with pytest.raises(DecodeError):
            request(body).model(kind)


@pytest.mark.parametrize(
    "values",
    [
        {"headers": {"a": 1}},
        {"headers": {"": "a"}},
        {"headers": {"a": "x" * 8193}},
        {"headers": {str(number): "" for number in range(101)}},
        {"method": "TRACE"},
        {"sender": "nobody"},
        {"url": "syft://x"},
        {"lifetime": timedelta(days=-40_000)},
    ],
    ids=str,
)
def test_what_is_no_message(values):
    with pytest.raises(ConfigError):
        request(**values)


def test_raise_for_status():
    SyftResponse.make(request().header, sender=OWNER).raise_for_status()
    failed = SyftResponse.make(request().header, sender=OWNER, status_code=404, body="gone")
    assert not failed.is_success
    with pytest.raises(SyftError, match="status 404: gone") as caught:
        failed.raise_for_status()
    assert isinstance(caught.value, SyftStatusError)
    with pytest.raises(SyftStatusError, match="a body that is no text"):
        SyftResponse.make(request().header, sender=OWNER, status_code=500, body={1}).raise_for_status()
    with pytest.raises(ConfigError):
        SyftResponse.make(request().header, sender=OWNER, status_code=299)


# ── clients ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_client_of_syftbox_s_configuration(tmp_path, monkeypatch):
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"email": SITE, "data_dir": str(tmp_path / "box"), "server_url": "x"}))
    client = Client.load(file)
    assert (client.email, client.datasites) == (SITE, tmp_path / "box" / "datasites")
    monkeypatch.setenv("SYFTBOX_CLIENT_CONFIG_PATH", str(file))
    future = send(URL, body=1)
    assert future.request.sender == SITE
    for text in ("{", "[]", "{}", '{"email": 1, "data_dir": "x"}', '{"email": "x", "data_dir": "x"}'):
        file.write_text(text)
        with pytest.raises(ConfigError):
            Client.load()
    with pytest.raises(ConfigError, match="Pass client="):
        Client.load(tmp_path / "none")


# ── sending ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("15m", 900), (" 24H ", 86400), ("3d", 259200)])
def test_durations(text, seconds):
    assert parse_duration(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "1", "s", "1w", "-1s", "1.5s", "9999999999s", "3651d", "٣s"])
def test_what_is_no_duration(text):
    with pytest.raises(ConfigError, match="not a duration"):
        parse_duration(text)


def test_the_same_request_is_sent_once_while_it_is_open(owner, site, tmp_path):
    def again(**values):
        return send(**{"url": URL, "body": {"a": 1}, "headers": {"x": "y"}, "client": site} | values)

    first = again()
    assert again() == first
    assert again().request.header == first.request.header
    assert hash(again()) == hash(first)
    others = [again(body={"a": 2}), again(headers={}), again(method="PUT"), again(cache=False), again(client=owner)]
    assert len({first, *others}) == 6
    assert len(list(tmp_path.rglob("*.request"))) == 6
    reply_to(first.request, "done", client=owner)
    assert again().resolve().value() == "done"
    assert again() != first, "a request that was answered is not open"


def test_an_expired_request_is_not_the_same(site):
    first = send(URL, expiry="0s", client=site)
    assert send(URL, client=site) != first


def test_what_is_remembered_may_be_damaged(site):
    first = send(URL, client=site)
    (file,) = (site.private / "cache").iterdir()
    file.write_bytes(b"")
    assert send(URL, client=site) != first


def test_futures(owner, site):
    future = send(URL, client=site)
    assert not future.is_done
    assert not future.is_rejected
    for values in ({"timeout": 0}, {"timeout": -1}, {"timeout": math.nan}, {"poll_interval": 0}):
        with pytest.raises(ValueError, match="greater than 0"):
            future.wait(**values)
    with pytest.raises(SyftTimeoutError, match=r"no response after 0\.01 seconds") as caught:
        future.wait(0.01, 0.001)
    assert isinstance(caught.value, TransportError)
    reply_to(future.request, [1], {"k": "v"}, SyftStatus.CREATED, client=owner)
    response = future.wait()
    assert (response.value(), response.headers, response.status_code) == ([1], {"k": "v"}, 201)
    assert (response.id, response.sender, response.expires) == (future.id, OWNER, future.expires)
    assert future.is_done


def test_without_a_time_out_a_future_waits_until_it_expires(site):
    response = send(URL, expiry="1s", client=site).wait(timeout=None)
    assert response.status_code == 419
    assert datetime.now(UTC) >= response.expires


def test_what_syftbox_s_server_refuses(site, tmp_path):
    future = send(URL, client=site)
    (path,) = tmp_path.rglob("*.request")
    path.rename(path.with_suffix(".syftrejected.request"))
    assert future.is_rejected
    assert future.resolve().status_code == 403
    assert send(URL, client=site) != future


def test_a_reply_is_the_owner_s(site, owner):
    future = send(URL, client=site)
    with pytest.raises(ConfigError, match=r"not site@y.org's to answer"):
        reply_to(future.request, 1, client=site)
    other = send(URL, client=site, cache=False)
    reply_to(other.request, 1, client=owner)
    mailbox = owner.mailbox(URL)
    data = mailbox.store.get(mailbox.response(other.id), max_bytes=1 << 20)
    mailbox.store.put(mailbox.response(future.id), [data])
    with pytest.raises(ProtocolError, match="a response to another request"):
        future.resolve()
    mallory = SyftResponse.make(future.request.header, sender=SITE, body=1)
    mailbox.store.put(mailbox.response(future.id), mallory.frame.buffers())
    with pytest.raises(ProtocolError):
        future.wait(5)


def test_a_folder_that_cannot_be_written(site, tmp_path):
    (tmp_path / "datasites").write_text("a file")
    with pytest.raises(SyftError) as caught:
        send(URL, client=site)
    assert isinstance(caught.value, SyftTransportError)


# ── several ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_broadcast(tmp_path, site):
    owners = [Client(f"o{number}@x.org", tmp_path) for number in range(3)]
    urls = [make_url(owner.email, "app", "x") for owner in owners]
    bulk = broadcast(urls, {"q": 1}, client=site)
    assert isinstance(bulk, SyftBulkFuture)
    assert bulk.pending == bulk.futures
    assert bulk.gather_completed(0.01) == []
    for number in (2, 0):
        status = SyftStatus.CONFLICT if number else SyftStatus.OK
        reply_to(bulk.futures[number].request, number, status_code=status, client=owners[number])
    assert [response.value() for response in bulk.gather_completed(0.05)] == [0, 2]
    assert bulk.pending == [bulk.futures[1]]
    assert [response.value() for response in bulk.successes] == [0]
    assert [response.value() for response in bulk.failures] == [2]
    assert not bulk.all_failed
    assert bulk.id == SyftBulkFuture(bulk.futures).id != SyftBulkFuture(bulk.futures[:2]).id
    reply_to(bulk.futures[1].request, 1, client=owners[1])
    assert [response.value() for response in bulk.gather_completed()] == [0, 1, 2]
    with pytest.raises(ConfigError):
        bulk.gather_completed(0)


def test_a_broadcast_is_checked_before_it_is_sent(site, tmp_path):
    with pytest.raises(ConfigError):
        broadcast([URL, "syft://x"], client=site)
    with pytest.raises(ConfigError):
        broadcast([URL, f"syft://{OWNER}/public/x"], client=site)
    assert list(tmp_path.iterdir()) == []
