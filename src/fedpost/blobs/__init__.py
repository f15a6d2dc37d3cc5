"""Keys and bytes; one module a medium."""

from fedpost.blobs.file import FileBlobStore
from fedpost.blobs.memory import MemoryBlobStore
from fedpost.blobs.store import BlobInfo, BlobStore, Watch, check_key

__all__ = ["BlobInfo", "BlobStore", "FileBlobStore", "MemoryBlobStore", "Watch", "check_key"]
