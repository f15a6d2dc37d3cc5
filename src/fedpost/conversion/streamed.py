"""Frames of models that are larger than memory: what compression makes is kept on disk until the header is known.

Rules: the bytes are those of :meth:`fedpost.pipeline.Pipeline.encode`; what is held in memory is a batch of 16 MiB and
its compressed form, or for ``numpy`` one tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from fedpost.checksums import CHECKSUMS
from fedpost.compression import Compression
from fedpost.conversion.disk import BATCH, Progress, Scratch
from fedpost.frame import Frame
from fedpost.frame.chunks import CHUNK, compress
from fedpost.frame.header import MINOR, Header, SegmentTable, pack_header
from fedpost.pipeline import METADATA, Pipeline
from fedpost.tensors import FORMATS, Array, Encoded, compression_for

__all__ = ["encode_frame"]

_Item = tuple[int, int, int]
"""A segment, and the first and last byte of a part of it."""


def encode_frame(
    arrays: Mapping[str, Array],
    metadata: Mapping[str, object],
    *,
    format: str,  # noqa: A002 - the stage's own name
    compression: Compression | None,
    checksum: str,
    scratch: Scratch,
    progress: Progress,
) -> Frame:
    """Make a frame of arrays that are mapped.

    Args:
        arrays: The arrays; they must not change while the frame lives.
        metadata: What the frame says of them.
        format: A registered format.
        compression: How to compress, or None.
        checksum: The digest algorithm.
        scratch: Takes what is made; it must not hold the arrays themselves.
        progress: Told how much is compressed.

    Raises:
        EncodeError: A tensor or the metadata cannot be encoded.
        OSError: The disk is full or failed.
    """
    stages = Pipeline(format=FORMATS.get(format), compression=compression, checksum=checksum)
    encoded = _one_by_one(arrays, stages, scratch) if format == "numpy" else stages.format.encode(arrays)
    sections = {"pipeline": str(stages), **encoded.sections, METADATA: dict(metadata)}
    if compression is None:
        return Frame.build(sections, encoded.segments, checksum=checksum)
    dtypes = encoded.dtypes or (None,) * len(encoded.segments)
    each = [compression_for(compression, dtype) for dtype in dtypes]
    return _compressed(sections, encoded.segments, each, checksum, scratch, progress)


def _one_by_one(arrays: Mapping[str, Array], stages: Pipeline, scratch: Scratch) -> Encoded:
    """The format ``numpy``, which copies every array: onto the disk, one after the other."""
    section, places = "", []
    columns: tuple[list[str], list[str]] = ([], [])
    dtypes: list[np.dtype[Any] | None] = []
    for name, array in arrays.items():
        one = stages.format.encode({name: array})
        dtypes.extend(one.dtypes)
        ((section, table),) = one.sections.items()
        for column, found in zip(columns, msgspec.to_builtins(table), strict=True):
            column.extend(found)
        places.append((scratch.append(one.segments, aligned=True), one.segments[0].nbytes))
    if not arrays:
        return stages.format.encode({})
    view = scratch.view()
    return Encoded({section: columns}, [view[start : start + size] for start, size in places], dtypes)


def _compressed(
    sections: Mapping[str, object],
    segments: Sequence[memoryview],
    each: Sequence[Compression],
    checksum: str,
    scratch: Scratch,
    progress: Progress,
) -> Frame:
    begins: list[int | None] = [None] * len(segments)
    lengths: list[list[int]] = [[] for _ in segments]
    shrunk = [False] * len(segments)
    total, done = sum(segment.nbytes for segment in segments), 0
    for batch in _batches(segments):
        views = [segments[index][start:stop] for index, start, stop in batch]
        stored, _, flags, rows = compress(views, [each[index] for index, _, _ in batch])
        found = iter(rows)
        for number, (index, start, stop) in enumerate(batch):
            smaller = bool(flags and flags[number])
            row = next(found) if smaller else [min(CHUNK, stop - place) for place in range(start, stop, CHUNK)]
            lengths[index] += row
            shrunk[index] |= smaller
            if smaller or start or stop < segments[index].nbytes:
                at = scratch.append(stored[number])
                begins[index] = at if begins[index] is None else begins[index]
            done += stop - start
        progress("compressing", done, total)
    view = scratch.view()
    out: list[Sequence[memoryview]] = []
    for segment, begin, row, smaller in zip(segments, begins, lengths, shrunk, strict=True):
        out.append([segment if begin is None or not smaller else view[begin : begin + sum(row)]])
    names = {name: number for number, name in enumerate(dict.fromkeys(one.name for one in each), 1)}
    table = SegmentTable([segment.nbytes for segment in segments], b"".join(map(CHECKSUMS.get(checksum).of, out)))
    if any(shrunk):
        coding = [names[one.name] if smaller else 0 for one, smaller in zip(each, shrunk, strict=True)]
        chunks = [row for row, smaller in zip(lengths, shrunk, strict=True) if smaller]
        table = SegmentTable(table.raw, table.digests, list(names), coding, CHUNK, chunks)
    packed = Frame.build(sections)  # sections alone
    header = Header(checksum, [], table, [(name, packed.section(name, msgspec.Raw)) for name in packed.section_names])
    return Frame(pack_header(header), header, out, unverified=bytearray(), minor=MINOR)


def _batches(segments: Sequence[memoryview]) -> Iterator[list[_Item]]:
    """Parts of segments, cut where their chunks are, as many as are worked on at a time."""
    batch: list[_Item] = []
    held = 0
    for index, segment in enumerate(segments):
        for start in range(0, segment.nbytes, BATCH):
            stop = min(start + BATCH, segment.nbytes)
            batch.append((index, start, stop))
            held += stop - start
            if held >= BATCH:
                yield batch
                batch, held = [], 0
    if batch:
        yield batch
