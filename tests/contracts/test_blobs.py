"""Every blob store keeps the contract, also without the operating system's signals."""

from __future__ import annotations

import time

import pytest

from fedpost.blobs import FileBlobStore, MemoryBlobStore, check_key
from fedpost.testing import BlobStoreContract


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


class TestMemory(BlobStoreContract):
    @pytest.fixture
    def store(self):
        return MemoryBlobStore()


class TestFile(BlobStoreContract):
    @pytest.fixture
    def store(self, tmp_path):
        return FileBlobStore(tmp_path / "shared" / "folder")


class TestOwnFile(BlobStoreContract):
    @pytest.fixture
    def store(self, tmp_path):
        return FileBlobStore(tmp_path / "own", own=True)


class TestFileWithoutSignals(BlobStoreContract):
    signals = False

    @pytest.fixture
    def store(self, tmp_path):
        return SilentFileBlobStore(tmp_path)
