"""An item over 4 GB, kept beside: in a manager's datums and in a blob store, without the memory to hold it."""

from __future__ import annotations

import gc
import os
import re
import shutil
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import fedpost.objects
from fedpost.blobs import FileBlobStore
from fedpost.compat import fobs
from fedpost.objects import BlobLeaves

MIB = 1 << 20
SIZE = (4 << 30) + MIB
ALLOWED = 500
ROOM = 10 << 30

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the memory is measured by Linux")


def anonymous():
    """Mebibytes that are this process' own, and no file's."""
    return int(re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) >> 10


@contextmanager
def little_memory():
    """The block needs less than ``ALLOWED`` mebibytes more at any time."""
    gc.collect()
    before = anonymous()
    most = [0]
    done = threading.Event()

    def watch():
        while not done.wait(0.01):
            most[0] = max(most[0], anonymous() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    assert max(most[0], anonymous() - before) < ALLOWED


@pytest.fixture
def path(tmp_path):
    """A file without content but for a few numbers, which takes no room on the disk."""
    found = tmp_path / "array"
    with found.open("wb") as file:
        file.truncate(SIZE)
        for position, number in ((0, 1.5), (SIZE // 2, 2.5), (SIZE - 8, 3.5)):
            file.seek(position)
            file.write(np.float64(number).tobytes())
    if found.stat().st_blocks * 512 > MIB:
        pytest.skip("the file system keeps no holes")
    yield found
    found.unlink()


def ends(array):
    return array[0], array[SIZE // 16], array[-1], array.nbytes


def test_in_datums(path, tmp_path):
    with little_memory():
        array = np.memmap(path, np.float64, "r")
        sender = fobs.DatumManager()
        data = fobs.serialize({"model": array, "round": 3}, sender)
        assert len(data) < 1000
        ((key, datum),) = sender.get_datums().items()
        assert len(datum.value) == SIZE

        # The carrier hands the file over; a link stands for the way.
        os.link(path, tmp_path / "received")
        received = fobs.Datum.file_datum(str(tmp_path / "received"))
        received.datum_id = key
        receiver = fobs.DatumManager()
        receiver.add_datum(received)
        found = fobs.deserialize(data, receiver)
        assert found["round"] == 3
        assert ends(found["model"]) == (1.5, 2.5, 3.5, SIZE)
        found["model"][1] = 9
        assert (found["model"][1], array[1]) == (9, 0)
        del found, array, datum


def test_in_a_blob_store(path, tmp_path):
    """The one test that writes so much: a store makes a file of its own."""
    if shutil.disk_usage(tmp_path).free < ROOM:
        pytest.skip("under 10 GB are free on the disk")
    store = FileBlobStore(tmp_path / "store", own=True)
    leaves = BlobLeaves(store, over=1 << 30)
    with little_memory():
        array = np.memmap(path, np.float64, "r").view(np.ndarray)
        data = fedpost.objects.dumps({"model": array, "round": 3}, external=leaves)
        assert len(data) < 1000
        found = fedpost.objects.loads(data, external=leaves)
        assert ends(found["model"]) == (1.5, 2.5, 3.5, SIZE)
        del found, array
    (blob,) = store.list("leaves")
    assert blob.size == SIZE
    store.delete(blob.key)
