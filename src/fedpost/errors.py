"""Every exception that fedpost raises, in one tree.

::

    FedpostError
    ├── LocalError                 something on our side of the wire is wrong
    │   ├── ConfigError            (ValueError) a setting is unknown, mistyped or impossible
    │   ├── EncodeError            (TypeError) a value cannot be put on the wire
    │   ├── RegistryError          (LookupError) a name is unknown, taken, or the registry is frozen
    │   ├── MissingExtraError      (ImportError) an optional dependency is not installed
    │   └── RunError               a federated run cannot go on
    ├── RemoteError                what a peer sent is wrong; nothing of it was used
    │   ├── DecodeError            (ValueError) the bytes do not follow the specification
    │   │   ├── TruncatedError     fewer bytes than the header promises
    │   │   ├── IntegrityError     a digest does not match: altered or damaged
    │   │   ├── LimitError         more than the receiver's budget allows
    │   │   └── UnsupportedError   a version, feature or name that this receiver does not know
    │   ├── ProtocolError          a well-formed message that is not allowed here and now
    │   │   └── StaleError         one that comes too late
    │   └── RefusedResultError     a site's result that does not fit what was asked of it
    └── TransportError             the way between the peers failed
        └── UnreachableError       no such mailbox, topic or host

Rules: a message says what was wrong, ``where`` (segment, tensor, path, line) and what to do next. A decode error
never carries a partial result. Third-party exceptions are mapped where they arise, with ``from``.
"""

from __future__ import annotations

__all__ = [
    "ConfigError",
    "DecodeError",
    "EncodeError",
    "FedpostError",
    "IntegrityError",
    "LimitError",
    "LocalError",
    "MissingExtraError",
    "ProtocolError",
    "RefusedResultError",
    "RegistryError",
    "RemoteError",
    "RunError",
    "StaleError",
    "TransportError",
    "TruncatedError",
    "UnreachableError",
    "UnsupportedError",
]


class FedpostError(Exception):
    """The root of the tree.

    Args:
        what: What went wrong, as a clause without a final full stop.
        where: The place: a segment, a tensor, a file and line, a path inside an object.
        hint: What the reader can do about it.
    """

    _longest: int | None = None

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        what, where, hint = what[: self._longest], where and where[: self._longest], hint and hint[: self._longest]
        self.what = what
        self.where = where
        self.hint = hint
        text = what if where is None else f"{where}: {what}"
        super().__init__(text if hint is None else f"{text}. {hint}")

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the three parts and the notes when a process pool carries the exception."""
        return (_rebuild, (type(self), self.what, self.where, self.hint), self.__dict__)


def _rebuild(cls: type[FedpostError], what: str, where: str | None, hint: str | None) -> FedpostError:
    return cls(what, where=where, hint=hint)


class LocalError(FedpostError):
    """Something on our side of the wire is wrong."""


class ConfigError(LocalError, ValueError):
    """A setting is unknown, mistyped or impossible."""


class EncodeError(LocalError, TypeError):
    """A value cannot be put on the wire."""


class RegistryError(LocalError, LookupError):
    """A name is unknown, taken already, or the registry is frozen."""


class MissingExtraError(LocalError, ImportError):
    """An optional dependency is not installed; the hint says which extra brings it."""


class RunError(LocalError):
    """A federated run cannot go on."""


class RemoteError(FedpostError):
    """What a peer sent is wrong; nothing of it was used. What it quotes is cut: it may be any length."""

    _longest = 500


class DecodeError(RemoteError, ValueError):
    """The bytes do not follow the specification."""


class TruncatedError(DecodeError):
    """Fewer bytes than the header promises."""


class IntegrityError(DecodeError):
    """A digest does not match: the bytes were altered or damaged."""


class LimitError(DecodeError):
    """More than the receiver's budget allows; refused before anything was allocated."""


class UnsupportedError(DecodeError):
    """A version, feature or registered name that this receiver does not know."""


class ProtocolError(RemoteError):
    """A well-formed message that is not allowed here and now."""


class StaleError(ProtocolError):
    """A message of a run, a round or an attempt that is over."""


class RefusedResultError(RemoteError):
    """A site's result that does not fit what was asked of it."""


class TransportError(FedpostError):
    """The way between the peers failed."""


class UnreachableError(TransportError):
    """No such mailbox, topic or host."""
