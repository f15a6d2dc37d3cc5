"""Every registered transport keeps the contract, also where a folder gives no signals."""

from __future__ import annotations

import time
import uuid
from pathlib import Path

import pytest

from fedpost.blobs import FileBlobStore, check_key
from fedpost.testing import TransportContract
from fedpost.transports import TRANSPORTS, MailboxEndpoint


class SilentWatch:
    def wait(self, timeout):
        time.sleep(timeout)

    def close(self):
        pass


class SilentFileBlobStore(FileBlobStore):
    """A folder as NFS shows it: what others do there gives no signal."""

    def watch(self, folder):
        check_key(folder)
        return SilentWatch()


class TestMemory(TransportContract):
    between_processes = False

    @pytest.fixture
    def url(self):
        return f"memory://{uuid.uuid4().hex}"


class TestFile(TransportContract):
    @pytest.fixture
    def url(self, tmp_path):
        return f"file://{tmp_path}/shared%20folder"


class TestFileWithoutSignals(TransportContract):
    """New frames are found by a look once a second."""

    @pytest.fixture
    def url(self, tmp_path):
        return f"file://{tmp_path}"

    def open(self, url, address, limits):
        store = SilentFileBlobStore(Path(url.removeprefix("file://")))
        return MailboxEndpoint(store, address, limits, durable=True)


def test_every_registered_transport_is_here():
    assert set(TRANSPORTS) == {"memory", "file"}
