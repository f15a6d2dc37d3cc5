"""Gathered writes, and files that are replaced whole or not at all."""

from __future__ import annotations

import os
import stat

import pytest

from fedpost import files
from fedpost.files import replace_file, write_buffers


def names_in(folder):
    return [path.name for path in folder.iterdir()]


def views(*parts):
    return [memoryview(part) for part in parts]


@pytest.mark.parametrize(
    "parts",
    [[], [b""], [b"abc"], [b"a", b"", b"bc"], [bytes([i % 256]) for i in range(5000)], [b"x" * 3_000_000, b"y"]],
)
def test_writes_everything_in_order(parts, tmp_path):
    path = tmp_path / "file"
    with path.open("wb") as file:
        assert write_buffers(file.fileno(), iter(views(*parts))) == sum(map(len, parts))
    assert path.read_bytes() == b"".join(parts)


@pytest.mark.parametrize("most", [1, 2, 3, 7, 1000])
def test_short_writes_go_on(most, tmp_path, monkeypatch):
    def writev(fd, buffers):
        return os.write(fd, b"".join(buffers)[:most])

    monkeypatch.setattr(files.os, "writev", writev)
    parts = [b"ab", b"", b"cdefg", b"h", b"", b"ijklmnop"]
    with (tmp_path / "file").open("wb") as file:
        assert write_buffers(file.fileno(), views(*parts)) == 16
    assert (tmp_path / "file").read_bytes() == b"abcdefghijklmnop"


def test_many_buffers_go_in_batches(tmp_path, monkeypatch):
    sizes = []
    real = os.writev

    def writev(fd, buffers):
        sizes.append(len(buffers))
        return real(fd, buffers)

    monkeypatch.setattr(files.os, "writev", writev)
    with (tmp_path / "file").open("wb") as file:
        write_buffers(file.fileno(), views(*[b"x"] * 2500))
    assert sum(sizes) == 2500
    assert max(sizes) <= files._IOV_MAX


def test_a_pipe_with_little_room(tmp_path):
    """A reader that is slower than the writer: short writes of the kernel's own."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        write_buffers(writing, views(b"a" * 200_000, b"b" * 200_000))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        data = file.read()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert data == b"a" * 200_000 + b"b" * 200_000


def test_replaces(tmp_path):
    path = tmp_path / "file"
    assert replace_file(path, views(b"one")) == 3
    before = path.stat().st_ino
    with path.open("rb") as old:
        assert replace_file(path, views(b"second", b"!")) == 7
        assert old.read() == b"one"  # who has it open keeps the old content
    assert path.read_bytes() == b"second!"
    assert path.stat().st_ino != before
    assert stat.S_IMODE(path.stat().st_mode) & 0o133 == 0
    assert names_in(tmp_path) == ["file"]


def test_an_unfinished_file_lies_where_it_is_told(tmp_path):
    (tmp_path / "tmp").mkdir()
    seen = []

    def parts():
        yield memoryview(b"a")
        seen.extend(path.name for path in (tmp_path / "tmp").iterdir())

    replace_file(tmp_path / "file", parts(), temporary=tmp_path / "tmp")
    assert len(seen) == 1
    assert seen[0].startswith(".file.")
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("letter", ["x", "é", "名", "🌍", "\udcff"])
def test_a_name_as_long_as_can_be(letter, tmp_path):
    path = tmp_path / (letter * (255 // len(os.fsencode(letter))))
    for content in (b"one", b"two"):
        replace_file(path, views(content))
    assert path.read_bytes() == b"two"
    assert names_in(tmp_path) == [path.name]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_content_and_nothing_else(error, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def parts():
        yield memoryview(b"new")
        raise error

    with pytest.raises(error):
        replace_file(path, parts())
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["file"]


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        replace_file(tmp_path / "no" / "file", views(b"x"))


def test_a_target_that_is_a_folder(tmp_path):
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError, match="directory"):
        replace_file(tmp_path / "file", views(b"x"))
    assert names_in(tmp_path) == ["file"]
