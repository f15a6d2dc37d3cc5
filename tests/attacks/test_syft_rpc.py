"""Requests and responses by somebody who can write to the shared folder and means harm.

What is not defended against, as nothing is signed yet: a request in somebody else's name, a file that is deleted.
"""

from __future__ import annotations

import os
import random
import tracemalloc
import uuid

import msgspec
import pytest
from pydantic import BaseModel

from fedpost.compat.syft_rpc import (
    Client,
    SyftError,
    SyftEvents,
    SyftRequest,
    SyftResponse,
    deserialize,
    make_url,
    send,
    serialize,
)
from fedpost.compat.syft_rpc.messages import RequestHeader
from fedpost.compat.syft_rpc.serialization import frame_of
from fedpost.errors import DecodeError, LimitError, RemoteError
from fedpost.frame import Frame, Limits

OWNER, SITE = "owner@x.org", "site@y.org"
URL = make_url(OWNER, "app", "x")
SPARE = 4 << 20


class Evil(BaseModel):
    a: int = 1


class Server:
    """A server, its folders, and how often it called its function."""

    def __init__(self, folder, **options):
        self.owner, self.site = Client(OWNER, folder), Client(SITE, folder)
        self.rpc = self.owner.datasites / OWNER / "app_data" / "app" / "rpc"
        (self.rpc / "requests").mkdir(parents=True)
        self.calls = []
        self.box = SyftEvents("app", self.owner, **options)
        self.box.on_request("/x")(self.answer)

    def answer(self, request: SyftRequest):
        self.calls.append(request.id)
        return "done"

    def put(self, data, name=None):
        path = self.rpc / "requests" / (name or f"{uuid.uuid4()}.request")
        path.write_bytes(data)
        return path

    def put_request(self, **changes):
        """A request whose section is whatever the attacker likes; its digests are right."""
        ident = str(uuid.uuid4())
        body = changes.pop("body", None)
        header = msgspec.to_builtins(SyftRequest.make(sender=SITE, url=URL).header) | {"id": ident} | changes
        frame = frame_of(body).with_sections({"syft_request": header})
        self.put(bytes(frame), f"{ident}.request")
        return ident

    def names(self, folder):
        return sorted(path.name for path in (self.rpc / folder).glob("*"))

    def status(self, ident):
        return SyftResponse.load(self.rpc / "responses" / f"{ident}.response").status_code


@pytest.fixture
def server(tmp_path):
    return Server(tmp_path)


def test_the_attacker_s_tools_work(server):
    ident = server.put_request()
    server.box.process_pending()
    assert [str(call) for call in server.calls] == [ident]
    assert server.status(ident) == 200


def test_every_byte_of_a_request(server):
    good = bytearray(SyftRequest.make(sender=SITE, url=URL, body={"a": b"x" * 5000}).dumps())
    for position in [*range(600), *range(600, len(good), 97)]:
        good[position] ^= 1 << position % 8
        with pytest.raises(DecodeError):
            SyftRequest.loads(bytes(good))
        good[position] ^= 1 << position % 8
    SyftRequest.loads(bytes(good))


def test_noise_is_set_aside_with_a_note_and_does_not_stop_the_others(server):
    rng = random.Random(3)
    for size in (50, 100, 5000):
        server.put(rng.randbytes(size))
    server.put(b"\x89FPF\r\n\x1a\n" + rng.randbytes(3000))
    good = server.put_request()
    server.box.process_pending()
    assert [str(call) for call in server.calls] == [good]
    assert server.names("requests") == []
    assert len(server.names("rejected")) == 8
    assert all(path.read_text().isprintable() for path in (server.rpc / "rejected").glob("*.txt"))
    assert server.names("responses") == [f"{good}.response"]


@pytest.mark.parametrize(
    "changes",
    [
        {"headers": {str(number): "" for number in range(101)}},
        {"headers": {"a": "x" * 9000}},
        {"headers": {"x" * 201: ""}},
        {"headers": {str(number): "x" * 8000 for number in range(100)}},
        {"headers": {"a": ["b"]}},
        {"headers": [["a", "b"]]},
        {"url": f"syft://{OWNER}/app_data/app/rpc/../../../private"},
        {"url": "syft://../../etc/app_data/app/rpc/x"},
        {"url": f"syft://{OWNER}/" + "x" * 2000},
        {"url": 1},
        {"sender": "../../x@y.org"},
        {"sender": "x@y.org\n"},
        {"sender": ""},
        {"id": "../../../x"},
        {"id": ""},
        {"expires": float("nan")},
        {"expires": float("inf")},
        {"expires": -1},
        {"expires": 1 << 62},
        {"expires": 1e18},
        {"created": "now"},
        {"created": None},
        {"method": "EXEC"},
        {"surprise": 1},
    ],
    ids=lambda changes: str(changes)[:40],
)
def test_sections_that_are_none(server, changes, tmp_path):
    before = set(tmp_path.rglob("*"))
    server.put_request(**changes)
    server.box.process_pending()
    assert server.calls == []
    assert server.names("requests") == server.names("responses") == []
    assert len(server.names("rejected")) == 2
    new = {path.relative_to(tmp_path).parts[:2] for path in set(tmp_path.rglob("*")) - before}
    assert new <= {("datasites", OWNER), ("fedpost",), ("fedpost", OWNER)}, "nothing is written anywhere else"


@pytest.mark.parametrize(
    "url",
    [
        make_url("other@x.org", "app", "x"),
        make_url(OWNER, "other", "x"),
        make_url(OWNER, "app", "x/y"),
        make_url(OWNER, "app", "X"),
        f"syft://{OWNER}/public/x",
        f"syft://{OWNER}",
    ],
)
def test_requests_to_somebody_else(server, url):
    ident = server.put_request(url=str(url))
    server.box.process_pending()
    assert server.calls == []
    assert server.status(ident) == 404


def test_a_request_under_another_s_name_does_not_claim_that_id(server):
    victim = send(URL, client=server.site)
    forged = SyftRequest.make(sender=SITE, url=URL, body="forged").dumps()
    path = server.rpc / "requests" / f"{victim.id}.request"
    good = path.read_bytes()
    path.write_bytes(forged)
    server.box.process_pending()
    assert server.calls == []
    assert server.names("responses") == []
    path.write_bytes(good)
    server.box.process_pending()
    assert server.calls == [victim.id]


def test_a_replay_under_a_new_name_or_with_another_body(server):
    ident = server.put_request()
    data = (server.rpc / "requests" / f"{ident}.request").read_bytes()
    server.box.process_pending()
    server.put(data, f"{uuid.uuid4()}.request")
    server.put_request(id=ident, body="another body")  # under a fresh name
    header = SyftRequest.loads(data).header
    server.put(bytes(frame_of("another body").with_sections({"syft_request": header})), f"{ident}.request")
    server.box.process_pending()
    assert [str(call) for call in server.calls] == [ident]
    assert server.status(ident) == 200
    assert len(server.names("rejected")) == 4


def test_expired_and_far_too_long(server):
    old = server.put_request(expires=1)
    far = server.put_request(expires=253_370_764_800_000)
    server.box.process_pending()
    assert server.calls == []
    assert (server.status(old), server.status(far)) == (419, 400)


def test_a_class_that_is_not_registered_here(server):
    calls = []

    @server.box.on_request("/typed")
    def typed(value: dict) -> None:
        calls.append(value)

    url = str(make_url(OWNER, "app", "typed"))
    idents = [server.put_request(url=url, body=body) for body in (Evil(), {"deep": [Evil()]}, [1])]
    server.box.process_pending()
    assert calls == []
    assert [server.status(ident) for ident in idents] == [400] * 3


def test_truncated_at_every_length(server):
    data = SyftRequest.make(sender=SITE, url=URL, body=b"x" * 5000).dumps()
    for size in range(0, len(data), 501):
        path = server.put(data[:size])
        assert server.box.process_pending() == 1
        assert path.read_bytes() == data[:size], "what is not whole is left alone"
        path.unlink()
    assert server.calls == []


def test_what_never_becomes_whole_is_set_aside_in_the_end(server, monkeypatch):
    path = server.put(SyftRequest.make(sender=SITE, url=URL).dumps()[:100])
    server.box.process_pending()
    assert path.exists()
    monkeypatch.setattr("fedpost.compat.syft_rpc.inbox.SETTLE_SECONDS", -1.0)
    server.box.process_pending()
    assert server.names("requests") == []
    assert server.names("rejected") == [path.name, f"{path.name}.txt"]
    assert (server.rpc / "rejected" / path.name).stat().st_size == 100


def test_a_journal_that_a_power_failure_cut_short_executes_nothing_again(server):
    ident = server.put_request()
    data = (server.rpc / "requests" / f"{ident}.request").read_bytes()
    server.box.process_pending()
    for file in server.owner.private.rglob(ident):
        file.write_bytes(b"")
    server.put(data, f"{ident}.request")
    again = SyftEvents("app", server.owner)
    again.on_request("/x")(server.answer)
    again.process_pending()
    assert [str(call) for call in server.calls] == [ident]
    assert server.status(ident) == 500


def test_links_pipes_and_foreign_names_are_left_alone(server, tmp_path):
    outside = tmp_path / "outside"
    outside.write_bytes(SyftRequest.make(sender=SITE, url=URL).dumps())
    requests = server.rpc / "requests"
    (requests / f"{uuid.uuid4()}.request").symlink_to(outside)
    (requests / f"{uuid.uuid4()}.request").symlink_to("/dev/zero")
    os.mkfifo(requests / f"{uuid.uuid4()}.request")
    (requests / f"{uuid.uuid4()}.request").mkdir()
    for name in ("x.request", ".hidden.request", f"{uuid.uuid4()}.request.tmp", f"{uuid.uuid4()}".upper() + ".request"):
        (requests / name).write_bytes(outside.read_bytes())
    before = server.names("requests")
    assert server.box.process_pending() == 0
    assert server.names("requests") == before
    assert server.calls == []


@pytest.mark.parametrize("folder", ["requests", "responses", "rejected"])
def test_a_folder_that_is_a_link(server, tmp_path, folder):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    if folder == "requests":
        (server.rpc / folder).rmdir()
    (server.rpc / folder).symlink_to(elsewhere)
    if folder != "requests":
        server.put(b"noise" * 100)
    if folder == "rejected":
        server.box.process_pending()
        assert len(server.names("requests")) == 1, "what cannot be dealt with stays"
    else:
        with pytest.raises(SyftError, match=folder):
            server.box.process_pending()
    assert list(elsewhere.iterdir()) == []


def test_a_datasite_that_is_a_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "datasites").mkdir()
    (tmp_path / "datasites" / OWNER).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SyftError, match="a link is not used"):
        send(URL, client=Client(SITE, tmp_path))
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_response_that_is_a_link(server, tmp_path):
    future = send(URL, client=server.site)
    secret = tmp_path / "secret"
    secret.write_bytes(SyftResponse.make(future.request.header, sender=OWNER, body="secret").dumps())
    (server.rpc / "responses").mkdir()
    path = server.rpc / "responses" / f"{future.id}.response"
    path.symlink_to(secret)
    with pytest.raises(RemoteError):
        future.resolve()
    server.box.process_pending()
    assert future.resolve().value() == "done", "the server's answer takes the link's place"
    assert b"secret" in secret.read_bytes()


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    server = Server(tmp_path, limits=Limits(max_frame=1 << 20))
    path = server.rpc / "requests" / f"{uuid.uuid4()}.request"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    good = server.put_request()
    tracemalloc.start()
    try:
        server.box.process_pending()
        assert tracemalloc.get_traced_memory()[1] < SPARE
    finally:
        tracemalloc.stop()
    assert [str(call) for call in server.calls] == [good]
    assert server.names("requests") == [path.name]
    assert server.box.process_pending() == 0, "it is not tried again while it stays as it is"


def test_a_response_that_is_too_large_is_not_read(server):
    future = send(URL, client=server.site)
    (server.rpc / "responses").mkdir()
    path = server.rpc / "responses" / f"{future.id}.response"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(LimitError):
        future.resolve()
    assert path.exists()


def test_a_section_too_large_is_refused_by_its_size():
    header = {"x": b"x" * (1 << 17)}
    with pytest.raises(LimitError, match="section 'syft_request'"):
        SyftRequest.loads(bytes(frame_of(None).with_sections({"syft_request": header})))


def test_a_message_without_a_body(server):
    header = SyftRequest.make(sender=SITE, url=URL).header
    assert isinstance(header, RequestHeader)
    bare = SyftRequest.loads(bytes(Frame.build({"syft_request": header})))
    with pytest.raises(DecodeError, match="no section 'object'"):
        bare.value()


def test_a_tag_with_other_fields_than_the_class():
    forged = type("Evil", (BaseModel,), {"__annotations__": {"a": int, "is_admin": bool}, "__module__": __name__})
    with pytest.raises(DecodeError, match="has a field 'is_admin' that is not known here"):
        deserialize(serialize(forged(a=1, is_admin=True)), with_type=Evil)
