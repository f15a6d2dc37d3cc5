"""The names of formats and compressions, and what is said of a package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np

from fedpost.errors import EncodeError

__all__ = ["CompressionType", "SerializationFormat", "SerializationMetadata", "split"]

_FIELDS: Final = ("model_version", "client_id", "round_number")
_DEPTH: Final = 32


class SerializationFormat(StrEnum):
    """How arrays are laid out; each is a fedpost format, registered under another name."""

    BINARY_CUSTOM = "binary_custom"
    """``fedwt``: zero-copy. The layout FEDWT001 is what :class:`~fedpost.compat.kafkafl.WeightSerializer` writes."""

    NUMPY_PICKLE = "numpy_pickle"
    """``numpy``: NumPy's own ``.npy``, never with pickle; the name is kept for configurations that have it."""

    PROTOBUF = "protobuf"
    """``protobuf``; needs ``fedpost[protobuf]``."""

    MSGPACK = "msgpack"
    """``msgpack``."""

    JSON_BASE64 = "json_base64"
    """``json_base64``: a third larger, for readers that know nothing else."""


class CompressionType(StrEnum):
    """How bytes are compressed."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"
    LZ4 = "lz4"


@dataclass(frozen=True)
class SerializationMetadata:
    """What is said of a package, in its header.

    Attributes:
        format: How arrays are laid out.
        compression: How bytes are compressed.
        checksum: The configured digest, in hexadecimal, of the digests of all segments (and of a small object that
            stands in the header): with them it covers every byte of data. The header, and so this metadata, has a
            digest of its own.
        original_size: Bytes of data before compression; 0 when there is nothing.
        compressed_size: Bytes of data after it.
        timestamp: Seconds since 1970, by the sender's clock.
        model_version: The sender's name for the model's version.
        client_id: Who sent it, by its own account: a digest finds damage, not liars.
        round_number: The round that it belongs to.
        data_type: What the data are: the text that the sender gave.
    """

    format: SerializationFormat
    compression: CompressionType
    checksum: str
    original_size: int
    compressed_size: int
    timestamp: float
    model_version: str
    client_id: str | None = None
    round_number: int | None = None
    data_type: str = "model_weights"


def split(metadata: Mapping[str, Any] | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """What of a caller's metadata becomes fields, and the rest; NumPy's scalars become Python's.

    Raises:
        EncodeError: It is no mapping.
    """
    if not isinstance(metadata, Mapping | None):
        raise EncodeError(f"metadata are a mapping, not {type(metadata).__name__}")
    given = {key: _plain(value, _DEPTH) for key, value in (metadata or {}).items()}
    fields: dict[str, Any] = {key: given.pop(key) for key in _FIELDS if key in given}
    version = fields.get("model_version")
    if version is None:
        fields["model_version"] = "1.0"
    elif type(version) in (int, float):
        fields["model_version"] = str(version)
    return fields, given


def _plain(value: object, depth: int) -> object:
    """A value with Python's numbers and texts in place of NumPy's; what is nested deeper stays as it is."""
    if isinstance(value, np.generic):
        item = value.item()
        return item if isinstance(item, bool | int | float | str | bytes) else value
    if type(value) is dict and depth:
        return {key: _plain(inner, depth - 1) for key, inner in value.items()}
    if type(value) in (list, tuple) and depth:
        return [_plain(inner, depth - 1) for inner in value]  # type: ignore[attr-defined] # it is one of the two
    return value
