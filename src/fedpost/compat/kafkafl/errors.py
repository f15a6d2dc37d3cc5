"""``SerializationError``, which is all that the original's users catch, joined with fedpost's own errors.

::

    SerializationError             every failure to serialize or deserialize
    ├── PackageEncodeError         also fedpost's EncodeError: the value cannot be put on the wire
    ├── PackageExtraError          also MissingExtraError: an optional dependency is not installed
    └── PackageDecodeError         also DecodeError: the bytes are no such package
        ├── PackageTruncatedError  also TruncatedError
        ├── PackageIntegrityError  also IntegrityError: altered or damaged
        ├── PackageLimitError      also LimitError: more than the receiver's budget allows
        └── PackageUnsupportedError  also UnsupportedError
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fedpost.errors import (
    DecodeError,
    EncodeError,
    FedpostError,
    IntegrityError,
    LimitError,
    MissingExtraError,
    TruncatedError,
    UnsupportedError,
)

__all__ = [
    "PackageDecodeError",
    "PackageEncodeError",
    "PackageExtraError",
    "PackageIntegrityError",
    "PackageLimitError",
    "PackageTruncatedError",
    "PackageUnsupportedError",
    "SerializationError",
    "serialization_errors",
]


class SerializationError(FedpostError):
    """Something could not be serialized or deserialized. Nothing of it was used."""


class PackageEncodeError(SerializationError, EncodeError):
    """A value cannot be put on the wire."""


class PackageExtraError(SerializationError, MissingExtraError):
    """An optional dependency is not installed; the hint says which extra brings it."""


class PackageDecodeError(SerializationError, DecodeError):
    """The bytes are no package, or it contradicts itself."""


class PackageTruncatedError(PackageDecodeError, TruncatedError):
    """Fewer bytes than the header promises."""


class PackageIntegrityError(PackageDecodeError, IntegrityError):
    """A digest does not match: the package was altered or damaged."""


class PackageLimitError(PackageDecodeError, LimitError):
    """More than the receiver's budget allows; refused before anything was allocated."""


class PackageUnsupportedError(PackageDecodeError, UnsupportedError):
    """A version, feature or name that this receiver does not know."""


_JOINED: dict[type[FedpostError], type[SerializationError]] = {
    TruncatedError: PackageTruncatedError,
    IntegrityError: PackageIntegrityError,
    LimitError: PackageLimitError,
    UnsupportedError: PackageUnsupportedError,
    DecodeError: PackageDecodeError,
    EncodeError: PackageEncodeError,
    MissingExtraError: PackageExtraError,
    FedpostError: SerializationError,
}


@contextmanager
def serialization_errors() -> Iterator[None]:
    """Raise fedpost's errors as what they are and a :class:`SerializationError` in one."""
    try:
        yield
    except SerializationError:
        raise
    except FedpostError as error:
        kind = next(joined for ours, joined in _JOINED.items() if isinstance(error, ours))
        raise kind(error.what, where=error.where, hint=error.hint) from error
