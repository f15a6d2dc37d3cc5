"""Shared folders in which somebody else can write: links, pipes, devices and names that lead out."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from fedpost.blobs import FileBlobStore, MemoryBlobStore
from fedpost.errors import DecodeError, LimitError, RemoteError, TransportError, TruncatedError
from fedpost.frame import DEFAULT_LIMITS, Frame
from fedpost.pipeline import Pipeline, load_tensors, save_tensors
from fedpost.transports.mailbox import MailboxEndpoint

BAD_KEYS = [
    "",
    ".",
    "..",
    "/",
    "/etc/passwd",
    "../x",
    "a/../../x",
    "a/..",
    "a/./b",
    "a//b",
    "a/",
    "/a",
    ".hidden",
    "a/.hidden",
    ".tmp/x",
    "a\0b",
    "a\nb",
    "a\n",
    "a\\b",
    "..\\x",
    "C:\\x",
    "C:x",
    "~/x",
    "$HOME",
    "%2e%2e/x",
    "a b",
    "-rf",
    "é",
    "٣",
    "a\u2215b",
    "a\u202eb",
    "x" * 201,
    "/".join("abcdefghi"),
]
BAD_ADDRESSES = [key for key in BAD_KEYS if key] + ["a/b", ""]


def stores(folder):
    return [FileBlobStore(folder / "box"), MemoryBlobStore()]


def get(store, key, limit=1 << 20):
    return store.get(key, max_bytes=limit)


@pytest.mark.parametrize("key", BAD_KEYS)
def test_keys_that_lead_out(key, tmp_path):
    for store in stores(tmp_path):
        for use in (
            lambda s: s.put(key, [memoryview(b"x")]),
            lambda s: get(s, key),
            lambda s: s.delete(key),
            lambda s: s.list(key),
            lambda s: s.watch(key),
        ):
            with pytest.raises(TransportError, match="is not a key") as caught:
                use(store)
            assert caught.value.hint
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize("address", BAD_ADDRESSES)
def test_addresses_that_lead_out(address, tmp_path):
    for store in stores(tmp_path):
        with pytest.raises(TransportError):
            MailboxEndpoint(store, address, DEFAULT_LIMITS)
        endpoint = MailboxEndpoint(store, "server", DEFAULT_LIMITS)
        with pytest.raises(TransportError):
            endpoint.send(address, Frame.build({}))
        endpoint.close()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.fixture
def box(tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "box" / "mail").mkdir(parents=True)
    return tmp_path / "box"


def test_a_link_is_not_followed(box):
    (box / "mail" / "a").symlink_to(box.parent / "secret")
    store = FileBlobStore(box)
    with pytest.raises(RemoteError):
        get(store, "mail/a")
    assert store.list("mail") == []


def test_a_link_that_leads_nowhere(box):
    (box / "mail" / "a").symlink_to("nowhere")
    (box / "mail" / "loop").symlink_to("loop")
    store = FileBlobStore(box)
    for key in ("mail/a", "mail/loop"):
        with pytest.raises(RemoteError):
            get(store, key)
    assert store.list("mail") == []


def test_a_put_replaces_a_link_and_not_what_it_names(box):
    (box / "mail" / "a").symlink_to(box.parent / "secret")
    store = FileBlobStore(box)
    store.put("mail/a", [memoryview(b"mine")])
    assert (box.parent / "secret").read_bytes() == b"secret"
    assert bytes(get(store, "mail/a")) == b"mine"


def test_a_delete_removes_a_link_and_not_what_it_names(box):
    (box / "mail" / "a").symlink_to(box.parent / "secret")
    assert FileBlobStore(box).delete("mail/a")
    assert (box.parent / "secret").exists()


@pytest.mark.parametrize("act", ["get", "list", "put", "delete"])
def test_a_folder_that_is_a_link_is_not_followed(act, box):
    outside = box.parent / "outside"
    outside.mkdir()
    (outside / "a").write_bytes(b"secret")
    (box / "mail" / "server").symlink_to(outside)
    store = FileBlobStore(box)
    use = {
        "get": lambda: get(store, "mail/server/a"),
        "list": lambda: store.list("mail/server"),
        "put": lambda: store.put("mail/server/b", [memoryview(b"x")]),
        "delete": lambda: store.delete("mail/server/a"),
    }[act]
    with pytest.raises((RemoteError, TransportError)):
        use()
    assert [path.name for path in outside.iterdir()] == ["a"]


@pytest.mark.timeout(10)
def test_a_pipe_is_not_waited_for(box):
    os.mkfifo(box / "mail" / "a")
    store = FileBlobStore(box)
    with pytest.raises(RemoteError, match="not a regular file"):
        get(store, "mail/a")
    assert store.list("mail") == []


@pytest.mark.timeout(10)
def test_other_special_files(box, monkeypatch):
    (box / "mail" / "folder").mkdir()
    monkeypatch.chdir(box / "mail")  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        store = FileBlobStore(box)
        for key in ("mail/folder", "mail/socket"):
            with pytest.raises(RemoteError):
                get(store, key)
        assert store.list("mail") == []
        with pytest.raises(TransportError):
            store.delete("mail/folder")


def test_a_file_over_the_budget_is_not_read(box):
    with (box / "mail" / "a").open("wb") as file:
        file.truncate(1 << 40)  # a terabyte of nothing
    store = FileBlobStore(box)
    with pytest.raises(LimitError, match="1099511627776 bytes, 1000 allowed"):
        get(store, "mail/a", 1000)
    assert [blob.size for blob in store.list("mail")] == [1 << 40]


def test_names_that_nobody_here_gave_are_not_listed(box):
    for name in (".hidden", "a b", "é", "x\ny", "-rf", "ok"):
        (box / "mail" / name).write_bytes(b"x")
    (box / "mail" / os.fsdecode(b"\xff\xfe")).write_bytes(b"x")
    assert [blob.key for blob in FileBlobStore(box).list("mail")] == ["mail/ok"]


def test_hostile_mail_does_not_stop_the_mail(box):
    folder = box / "mail" / "server"
    folder.mkdir()
    os.mkfifo(folder / "0-pipe.frame")
    (folder / "1-link.frame").symlink_to(box.parent / "secret")
    (folder / "2-folder.frame").mkdir()
    endpoint = MailboxEndpoint(FileBlobStore(box), "server", DEFAULT_LIMITS)
    endpoint.send("server", Frame.build({"x": 1}))
    delivery = endpoint.receive(5)
    assert delivery is not None
    assert Frame.decode(delivery.data).section("x", int) == 1
    delivery.ack()
    endpoint.close()


def test_unfinished_and_foreign_files_as_models(tmp_path):
    path = tmp_path / "model"
    save_tensors(path, {"w": np.arange(10_000.0)})
    whole = path.read_bytes()
    for data, error in ((b"", TruncatedError), (whole[:-1], TruncatedError), (b"\x80\x04N.", DecodeError)):
        path.write_bytes(data)
        with pytest.raises(error):
            load_tensors(path)
    with pytest.raises(DecodeError, match="not a regular file"):
        load_tensors(tmp_path)
    with pytest.raises(FileNotFoundError):
        load_tensors(tmp_path / "nothing")


def test_a_sparse_terabyte_as_a_model(tmp_path):
    path = tmp_path / "model"
    with path.open("wb") as file:
        file.write(bytes(Pipeline().encode({"w": np.arange(3)})))
        file.truncate(1 << 40)
    with pytest.raises((LimitError, OSError)):
        load_tensors(path)


def test_a_pipe_as_a_model_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "model")
    code = "import sys, pathlib; from fedpost.pipeline import load_tensors; load_tensors(pathlib.Path(sys.argv[1]))"
    command = [sys.executable, "-c", code, tmp_path / "model"]
    done = subprocess.run(command, capture_output=True, check=False, timeout=280)
    assert done.returncode == 1
