"""What FOBS' users catch, joined with fedpost's own errors.

::

    FobsEncodeError                EncodeError, so TypeError, and RuntimeError: a value cannot be serialized
    FobsDecodeError                DecodeError, so ValueError, and RuntimeError: the bytes are no such object
    ├── FobsTruncatedError         also TruncatedError
    ├── FobsIntegrityError         also IntegrityError: altered or damaged
    ├── FobsLimitError             also LimitError: more than the receiver's budget allows
    └── FobsUnsupportedError       also UnsupportedError: a type that is not allowed here
    FobsConfigError                ConfigError, so ValueError, TypeError, RuntimeError: what is given is no such thing
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from fedpost.errors import (
    ConfigError,
    DecodeError,
    EncodeError,
    FedpostError,
    IntegrityError,
    LimitError,
    TruncatedError,
    UnsupportedError,
)

__all__ = [
    "FobsConfigError",
    "FobsDecodeError",
    "FobsEncodeError",
    "FobsIntegrityError",
    "FobsLimitError",
    "FobsTruncatedError",
    "FobsUnsupportedError",
    "fobs_errors",
]


class FobsEncodeError(EncodeError, RuntimeError):
    """A value cannot be serialized; the error says where in it."""


class FobsDecodeError(DecodeError, RuntimeError):
    """The bytes are no such object; nothing of it was used."""


class FobsTruncatedError(FobsDecodeError, TruncatedError):
    """Fewer bytes than the header promises."""


class FobsIntegrityError(FobsDecodeError, IntegrityError):
    """A digest does not match: altered or damaged."""


class FobsLimitError(FobsDecodeError, LimitError):
    """More than the receiver's budget allows; refused before anything was allocated."""


class FobsUnsupportedError(FobsDecodeError, UnsupportedError):
    """A type that is not allowed here, or a version or feature that is not known."""


class FobsConfigError(ConfigError, TypeError, RuntimeError):
    """What is registered, set or to be loaded is no such thing."""


_JOINED: Final[dict[type[FedpostError], type[FedpostError]]] = {
    TruncatedError: FobsTruncatedError,
    IntegrityError: FobsIntegrityError,
    LimitError: FobsLimitError,
    UnsupportedError: FobsUnsupportedError,
    DecodeError: FobsDecodeError,
    EncodeError: FobsEncodeError,
}
_OUR_HINT: Final = "Register the type: fedpost."
_HINT: Final = "Register a decomposer for it: fobs.register(…), on both sides."


@contextmanager
def fobs_errors() -> Iterator[None]:
    """Raise fedpost's errors as what they are and what FOBS' users catch in one."""
    try:
        yield
    except (FobsEncodeError, FobsDecodeError):
        raise
    except (EncodeError, DecodeError) as error:
        kind = next(joined for ours, joined in _JOINED.items() if isinstance(error, ours))
        hint = _HINT if error.hint and error.hint.startswith(_OUR_HINT) else error.hint
        raise kind(error.what, where=error.where, hint=hint) from error
