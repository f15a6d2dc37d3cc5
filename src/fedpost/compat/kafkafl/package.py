"""A package: a frame whose section ``serialization`` says what is in it, and is checked against what is.

Rules: the frame's digests cover every byte, this section included. Nothing in it is believed: sizes, checksum, format
and compression are compared with the frame's own, and what it says of arrays with the arrays.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any, Final, Self

import msgspec
import numpy as np

from fedpost.checksums import CHECKSUMS
from fedpost.codecs import Dense
from fedpost.compat.kafkafl.metadata import CompressionType, SerializationFormat, SerializationMetadata
from fedpost.compat.kafkafl.packing import Container
from fedpost.compat.kafkafl.settings import FORMAT_NAMES
from fedpost.errors import DecodeError, EncodeError, IntegrityError
from fedpost.frame import Frame, Limits
from fedpost.objects.wire import SECTION as OBJECT
from fedpost.pipeline import METADATA, pipeline_of
from fedpost.tensors import Array, TensorSpec
from fedpost.tensors.dtypes import dtype_name

__all__ = ["SECTION", "PackageHeader", "PackageInfo", "SpecTable", "checksum_of", "data_sizes", "read_info"]

SECTION: Final = "serialization"
_PROLOGUE: Final = 40  # bytes; docs/spec/frame.md
_NIL: Final = b"\xc0"
_WHERE: Final = f"section {SECTION!r}"
_Text = Annotated[str, msgspec.Meta(max_length=1024)]
_Size = Annotated[int, msgspec.Meta(ge=0)]


class _Segments(msgspec.Struct, array_like=True, frozen=True):
    raw: msgspec.Raw
    digests: bytes


class _Head(msgspec.Struct, array_like=True, frozen=True):
    """The beginning of a frame's header."""

    checksum: str
    requires: msgspec.Raw
    segments: _Segments


_HEAD: Final = msgspec.msgpack.Decoder(_Head)


class SpecTable(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Names, types and shapes of arrays by column, for formats whose own table is not in the header.

    Attributes:
        names: Unique.
        ranks: Number of dimensions, a byte each.
        dims: All dimensions, one array's after another's.
        dtypes: The element types in use, by fedpost's names.
        kinds: For each array an index into ``dtypes``.
    """

    names: list[str]
    ranks: bytes
    dims: list[int]
    dtypes: list[str]
    kinds: list[int]

    @classmethod
    def of(cls, names: Iterable[str], arrays: Collection[Array | TensorSpec]) -> Self:
        """The table of some arrays, or of what is said of them."""
        dtypes: dict[np.dtype[Any], int] = {}
        kinds = [dtypes.setdefault(array.dtype, len(dtypes)) for array in arrays]
        shapes = [array.shape for array in arrays]
        ranks = bytes(map(len, shapes))
        return cls(list(names), ranks, list(chain.from_iterable(shapes)), list(map(dtype_name, dtypes)), kinds)

    def rows(self) -> Iterator[tuple[str, str, tuple[int, ...]]]:
        """Name, element type and shape of each array.

        Raises:
            DecodeError: The columns do not fit each other.
        """
        if not len(self.names) == len(self.ranks) == len(self.kinds) or sum(self.ranks) != len(self.dims):
            raise DecodeError("the columns of its table have different lengths", where=_WHERE)
        if self.kinds and not 0 <= min(self.kinds) <= max(self.kinds) < len(self.dtypes):
            raise DecodeError("an element type of its table is not in the list", where=_WHERE)
        position = 0
        for name, rank, kind in zip(self.names, self.ranks, self.kinds, strict=True):
            yield name, self.dtypes[kind], tuple(self.dims[position : position + rank])
            position += rank


class PackageHeader(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The section ``serialization``: the ten fields of :class:`SerializationMetadata`, and what reading needs besides.

    Attributes:
        container: What the arrays were.
        specs: What they are; None where the format's own table stands in the header.
    """

    format: SerializationFormat
    compression: CompressionType
    checksum: Annotated[str, msgspec.Meta(max_length=128)]
    original_size: _Size
    compressed_size: _Size
    timestamp: float
    model_version: _Text
    client_id: _Text | None = None
    round_number: int | None = None
    data_type: _Text
    container: Container
    specs: SpecTable | None = None

    @classmethod
    def of(cls, metadata: SerializationMetadata, container: Container, specs: SpecTable | None) -> Self:
        """The section for a package.

        Raises:
            EncodeError: A field of the metadata is not of its type.
        """
        try:
            return msgspec.convert({**metadata.__dict__, "container": container, "specs": specs}, cls)
        except msgspec.ValidationError as error:
            raise EncodeError(str(error).replace("`$.", "`"), where="metadata") from error

    def metadata(self) -> SerializationMetadata:
        """The ten fields."""
        return SerializationMetadata(
            **{field: getattr(self, field) for field in SerializationMetadata.__dataclass_fields__}
        )

    def check(self, frame: Frame) -> None:
        """Compare it with the frame that it stands in.

        Raises:
            IntegrityError: The checksum is not that of the data.
            DecodeError: It says what is not so.
        """
        if self.checksum != checksum_of(frame):
            raise IntegrityError(f"its {frame.checksum} checksum is not that of the data", where=_WHERE)
        raw, stored = data_sizes(frame)
        if (self.original_size, self.compressed_size) != (raw, stored):
            text = f"{self.original_size} bytes, {self.compressed_size} compressed: the frame has {raw} and {stored}"
            raise DecodeError(text, where=_WHERE)
        if any(frame.coding(index) not in ("none", self.compression) for index in range(len(frame))):
            raise DecodeError(f"its compression is {self.compression}, the frame's is not", where=_WHERE)
        if self.container == "object":
            if OBJECT not in frame.section_names or self.specs is not None:
                raise DecodeError("it says that the data are an object, and they are none", where=_WHERE)
        else:
            found = pipeline_of(frame)
            if found.format.name != FORMAT_NAMES[self.format]:
                raise DecodeError(f"its format is {self.format}, the frame's {found.format.name}", where=_WHERE)
            if found.update != Dense():
                raise DecodeError(f"the frame's update codec is {found.update}, a package has none", where=_WHERE)
        if not math.isfinite(self.timestamp):
            raise DecodeError("its time is no number", where=_WHERE)

    def check_specs(self, specs: tuple[TensorSpec, ...]) -> None:
        """Compare what it says of arrays with the arrays.

        Raises:
            DecodeError: It says something else, or nothing where it must.
        """
        if self.specs is None:
            if self.format is not SerializationFormat.BINARY_CUSTOM:
                raise DecodeError("it says nothing of the arrays", where=_WHERE)
            return
        if self.specs == SpecTable.of([spec.name for spec in specs], specs):
            return
        said = list(self.specs.rows())
        if len(said) != len(specs):
            raise DecodeError(f"it says {len(said)} arrays, there are {len(specs)}", where=_WHERE)
        for row, spec in zip(said, specs, strict=True):
            if row != (spec.name, dtype_name(spec.dtype), spec.shape):
                raise DecodeError(f"it says {row}, the array is {spec}", where=_WHERE)


@dataclass(frozen=True, slots=True)
class PackageInfo:
    """What a package says of itself, read from its header alone.

    Attributes:
        metadata: The ten fields.
        extra: What else the sender gave as metadata.
        arrays: Name, element type and shape of each array.
    """

    metadata: SerializationMetadata
    extra: Mapping[str, Any]
    arrays: tuple[tuple[str, str, tuple[int, ...]], ...]


def read_info(frame: Frame, limits: Limits) -> tuple[PackageHeader, dict[str, Any]]:
    """The section of a package, and what else its sender said.

    Raises:
        DecodeError: The frame is no package.
    """
    header = frame.section(SECTION, PackageHeader, limit=limits.max_header)
    if METADATA not in frame.section_names:
        return header, {}
    return header, frame.section(METADATA, dict[str, Any], limit=limits.max_section)


def checksum_of(frame: Frame) -> str:
    """The frame's own digest algorithm over what is data in its header and the digests of its segments; hexadecimal."""
    # The header was checked, or made here, before: of all that stands in it nothing but the digests is decoded again.
    digests = _HEAD.decode(next(frame.buffers())[_PROLOGUE:]).segments.digests
    return CHECKSUMS.get(frame.checksum).of([_in_header(frame), memoryview(digests)]).hex()


def data_sizes(frame: Frame) -> tuple[int, int]:
    """Bytes of all data, before compression and after it."""
    count, small = range(len(frame)), _in_header(frame).nbytes
    return sum(map(frame.raw_size, count)) + small, sum(map(frame.stored_size, count)) + small


def _in_header(frame: Frame) -> memoryview:
    """A small object stands in the header, where nothing is compressed; of a large one there is nil."""
    packed = bytes(frame.section(OBJECT, msgspec.Raw)) if OBJECT in frame.section_names else _NIL
    return memoryview(b"" if packed == _NIL else packed)
