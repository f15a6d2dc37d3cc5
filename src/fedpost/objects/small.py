"""Frames of small objects, in one go: a header whose one section is a tree, and no segments.

Rules: these are bytes like any other frame's, only sooner; what is not exactly of this form, or has anything wrong with
it, is left to those who read and write every frame, and say what is wrong.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import blake3
import msgspec

from fedpost.checksums import CHECKSUMS, DEFAULT_CHECKSUM
from fedpost.frame import Limits
from fedpost.frame.header import Header, SegmentTable, pack_header
from fedpost.objects.wire import IN_HEADER, SECTION, TREE_DECODER, Tree

__all__ = ["small_frame", "small_tree"]


@cache
def _parts_of(checksum: str) -> tuple[bytes, bytes]:
    """What stands before the length and before the tree: it is the same in all these frames.

    Raises:
        RegistryError: No such checksum.
    """
    name = CHECKSUMS.get(checksum).name
    tree = msgspec.Raw(b"\xc0")
    whole = pack_header(Header(name, [], SegmentTable([], b""), [(SECTION, tree)]))
    return whole[:_LENGTH], whole[_BODY:-1]


_LENGTH: Final = 16
_DIGEST: Final = 24
_BODY: Final = 40
"""Where the prologue has the header's length and its digest, and where the header begins."""
_START, _BEFORE = _parts_of(DEFAULT_CHECKSUM)
_TREE: Final = _BODY + len(_BEFORE)
_LONGEST: Final = _TREE + IN_HEADER


def small_frame(tree: bytes, checksum: str) -> bytes:
    """A frame of a tree without leaves.

    Raises:
        RegistryError: No such checksum.
    """
    start, before = (_START, _BEFORE) if checksum == DEFAULT_CHECKSUM else _parts_of(checksum)
    start += (len(before) + len(tree)).to_bytes(8, "little")
    body = before + tree
    return b"".join((start, blake3.blake3(start + body).digest(_BODY - _DIGEST), body))


def small_tree(data: bytes, limits: Limits) -> Tree | None:
    """The tree of such a frame; None of any other, and of one that is damaged or over the limits."""
    size = len(data)
    if (
        not _TREE < size < _LONGEST
        or data[:_LENGTH] != _START
        or data[_BODY:_TREE] != _BEFORE
        or int.from_bytes(data[_LENGTH:_DIGEST], "little") != size - _BODY
        or size > limits.max_frame
        or size - _BODY > limits.max_header
        or size - _TREE > limits.max_section
        or size - _TREE > limits.max_items
    ):
        return None
    if blake3.blake3(data[:_DIGEST] + data[_BODY:]).digest(_BODY - _DIGEST) != data[_DIGEST:_BODY]:
        return None
    try:
        return TREE_DECODER.decode(memoryview(data)[_TREE:])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
