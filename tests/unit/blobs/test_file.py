"""Blobs in a folder that others can write to as well: what they put there is not trusted."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import threading
from pathlib import Path

import pytest

from fedpost.blobs import BlobInfo, FileBlobStore
from fedpost.errors import MissingExtraError, RemoteError, TransportError


@pytest.fixture
def root(tmp_path):
    return tmp_path / "shared"


@pytest.fixture
def store(root):
    store = FileBlobStore(root)
    store.put("mail/own", [memoryview(b"own")])
    return store


@pytest.fixture
def outside(tmp_path):
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret").write_bytes(b"secret")
    return folder


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(path))


# ── what is there ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_making_a_store_touches_nothing(tmp_path):
    store = FileBlobStore(tmp_path / "new")
    assert store.list("mail") == []
    assert store.get("mail/a", max_bytes=1) is None
    assert not store.delete("mail/a")
    assert list(tmp_path.iterdir()) == []


def test_blobs_are_plain_files(root, store):
    assert (root / "mail" / "own").read_bytes() == b"own"
    (root / "mail" / "other").write_bytes(b"put here by hand")
    assert store.list("mail") == [BlobInfo("mail/other", 16), BlobInfo("mail/own", 3)]
    assert store.get("mail/other", max_bytes=16) == b"put here by hand"


def test_nothing_unfinished_stays_behind(root, store):
    def failing():
        yield memoryview(b"x")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        store.put("mail/other", failing())
    (root / "mail" / "folder").mkdir()
    with pytest.raises(TransportError):
        store.put("mail/folder", [memoryview(b"x")])
    assert list((root / ".tmp").iterdir()) == []


def test_a_folder_that_was_tidied_away_is_made_anew(root, store):
    for gone in (root / ".tmp", root / "mail", root):
        shutil.rmtree(gone)
        assert store.put("mail/own", iter([memoryview(b"own "), memoryview(b"again")])) == 9
        assert store.get("mail/own", max_bytes=9) == b"own again"


def test_thousands_of_buffers_are_written_in_order(root, store):
    parts = [bytes([n % 256]) * (n % 3) for n in range(5000)]
    store.put("mail/many", map(memoryview, parts))
    assert (root / "mail" / "many").read_bytes() == b"".join(parts)


# ── what others put there ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "name",
    [
        ".hidden",
        ".syncthing.own.tmp",
        "~syncthing~own.tmp",
        "own.sync-conflict-20250101 (1)",
        "#own#",
        "ünïcode",
        "-rf",
        "a\nb",
        "x" * 201,
        b"not\xffutf-8",
    ],
    ids=repr,
)
def test_foreign_names_are_left_alone(root, store, name):
    (root / "mail" / os.fsdecode(name)).write_bytes(b"foreign")
    assert [blob.key for blob in store.list("mail")] == ["mail/own"]


def test_folders_are_no_blobs(root, store):
    (root / "mail" / "folder").mkdir()
    assert [blob.key for blob in store.list("mail")] == ["mail/own"]
    with pytest.raises(RemoteError, match="mail/folder"):
        store.get("mail/folder", max_bytes=100)
    with pytest.raises(TransportError, match="mail/folder"):
        store.delete("mail/folder")


@pytest.mark.parametrize("target", ["secret", "nowhere"])
def test_links_are_not_followed(root, store, outside, target):
    link = root / "mail" / "link"
    link.symlink_to(outside / target)
    assert [blob.key for blob in store.list("mail")] == ["mail/own"]
    with pytest.raises(RemoteError, match="mail/link"):
        store.get("mail/link", max_bytes=100)
    store.put("mail/link", [memoryview(b"new")])
    assert not link.is_symlink()
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert (outside / "secret").read_bytes() == b"secret"


def test_deleting_a_link_leaves_its_target(root, store, outside):
    (root / "mail" / "link").symlink_to(outside / "secret")
    assert store.delete("mail/link")
    assert (outside / "secret").exists()


@pytest.mark.parametrize("key", ["linked/secret", "mail/linked/secret", "mail/linked/deeper/secret"])
def test_linked_folders_are_not_followed(root, store, outside, key):
    """Who may write to the folder must not be able to have other folders of this machine read, filled or emptied."""
    (outside / "deeper").mkdir()
    (outside / "deeper" / "secret").write_bytes(b"secret")
    link = root.joinpath(*key.split("/")[: key.split("/").index("linked") + 1])
    link.symlink_to(outside)
    folder = key.rsplit("/", 1)[0]
    for call in (
        lambda: store.get(key, max_bytes=100),
        lambda: store.list(folder),
        lambda: store.put(f"{folder}/planted", [memoryview(b"x")]),
        lambda: store.put(f"{folder}/new/planted", [memoryview(b"x")]),
        lambda: store.delete(key),
        lambda: store.watch(folder),
    ):
        with pytest.raises(TransportError):
            call()
    assert sorted(str(path.relative_to(outside)) for path in outside.rglob("*")) == [
        "deeper",
        "deeper/secret",
        "secret",
    ]


def test_a_linked_folder_for_unfinished_files_is_not_followed(root, outside):
    root.mkdir()
    (root / ".tmp").symlink_to(outside)
    with pytest.raises(TransportError):
        FileBlobStore(root).put("mail/a", [memoryview(b"x")])
    assert [path.name for path in outside.iterdir()] == ["secret"]


def test_the_store_itself_may_be_reached_by_a_link(root, store, tmp_path):
    (tmp_path / "link").symlink_to(root)
    other = FileBlobStore(tmp_path / "link")
    assert other.get("mail/own", max_bytes=3) == b"own"
    other.put("mail/new", [memoryview(b"new")])
    assert store.get("mail/new", max_bytes=3) == b"new"


@pytest.mark.parametrize("make", [os.mkfifo, make_socket], ids=["pipe", "socket"])
def test_special_files_are_not_opened(root, store, make, monkeypatch):
    monkeypatch.chdir(root / "mail")  # a socket's path must be short
    make("special")
    assert [blob.key for blob in store.list("mail")] == ["mail/own"]
    with pytest.raises(RemoteError, match="mail/special"):
        store.get("mail/special", max_bytes=100)


DESCRIPTORS = Path("/proc/self/fd")


@pytest.mark.skipif(not DESCRIPTORS.is_dir(), reason="descriptors are counted in /proc")
def test_no_descriptor_is_left_open(root, store, outside):
    (root / "mail" / "folder").mkdir()
    (root / "mail" / "link").symlink_to(outside / "secret")
    os.mkfifo(root / "mail" / "pipe")
    before = len(list(DESCRIPTORS.iterdir()))
    for _ in range(20):
        for key in ("mail/folder", "mail/link", "mail/pipe", "mail/own", "mail/own/below"):
            with pytest.raises((RemoteError, TransportError)):
                store.get(key, max_bytes=1)
    assert len(list(DESCRIPTORS.iterdir())) == before


def test_a_file_that_is_shortened_while_it_is_read_comes_short(root, store, monkeypatch):
    """Nothing is made up for what is missing: the frame's own checks notice it."""
    fstat = os.fstat

    def shortening(fd):
        status = fstat(fd)
        os.truncate(root / "mail" / "own", 1)
        return status

    monkeypatch.setattr(os, "fstat", shortening)
    data = store.get("mail/own", max_bytes=100)
    monkeypatch.undo()
    assert data == b"o"


# ── what the operating system refuses ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("method", ["put", "list", "watch", "get", "delete"])
def test_its_errors_are_ours(tmp_path, method):
    (tmp_path / "file").write_bytes(b"")
    store = FileBlobStore(tmp_path / "file")
    calls = {
        "put": lambda: store.put("mail/a", []),
        "list": lambda: store.list("mail"),
        "watch": lambda: store.watch("mail"),
        "get": lambda: store.get("mail/a", max_bytes=1),
        "delete": lambda: store.delete("mail/a"),
    }
    with pytest.raises(TransportError) as caught:
        calls[method]()
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.where in ("mail", "mail/a")


def test_watching_without_its_package_says_what_to_install(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "watchdog.events", None)
    with pytest.raises(MissingExtraError) as caught:
        store.watch("mail")
    assert caught.value.hint == "pip install 'fedpost[run]'"


def test_a_watch_ends_its_threads(store):
    before = threading.active_count()
    for _ in range(3):
        watch = store.watch("mail")
        watch.close()
    assert threading.active_count() == before
