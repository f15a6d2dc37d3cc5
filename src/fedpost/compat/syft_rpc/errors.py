"""What syft-rpc's users catch, joined with fedpost's own errors.

::

    SyftError                  everything that went wrong with a request
    ├── SyftTimeoutError       also TransportError: no response in time
    ├── SyftStatusError        also RemoteError: a response that reports an error
    └── SyftTransportError     also TransportError: the folder cannot be read or written

What serializing raises has fedpost's own names, and is what Python programmers catch there: ``EncodeError`` is a
``TypeError``; ``DecodeError`` and ``ConfigError`` are ``ValueError``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fedpost.errors import FedpostError, RemoteError, TransportError

__all__ = ["SyftError", "SyftStatusError", "SyftTimeoutError", "SyftTransportError", "printable", "syft_errors"]


class SyftError(FedpostError):
    """A request failed."""


class SyftTimeoutError(SyftError, TransportError):
    """No response came in time. It may come yet: the future can be asked again."""


class SyftStatusError(SyftError, RemoteError):
    """A response that reports an error."""


class SyftTransportError(SyftError, TransportError):
    """The folder that the peers share cannot be read or written."""


def printable(text: str) -> str:
    """What somebody else wrote, without what a terminal or a log would obey."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


@contextmanager
def syft_errors() -> Iterator[None]:
    """Raise the folder's errors as what they are and a :class:`SyftError` in one."""
    try:
        yield
    except SyftError:
        raise
    except TransportError as error:
        raise SyftTransportError(error.what, where=error.where, hint=error.hint) from error
