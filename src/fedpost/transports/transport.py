"""The transport contract: whole frames between addresses, nothing known of what is in them.

Rules: a transport may deliver a frame twice, never a part of one; a frame stays with the transport until its delivery
is acknowledged, so a receiver that dies gets it again; what each promises beyond that is in :class:`Guarantees`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import unquote, urlsplit

from fedpost.errors import ConfigError, RegistryError, TransportError
from fedpost.frame import DEFAULT_LIMITS, Frame, Limits
from fedpost.registry import Registry

__all__ = ["TRANSPORTS", "Delivery", "Endpoint", "Guarantees", "check_address", "open_endpoint", "path_of"]

_ADDRESS: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_address(address: str) -> str:
    """Return the address if it is a plain name.

    Raises:
        TransportError: It has a separator, starts with a dot, or is not 1 to 64 characters long.
    """
    if _ADDRESS.fullmatch(address) is None:
        raise TransportError(
            f"{address[:200]!r} is not an address", hint="Use 1 to 64 letters, digits, '.', '_', '-'; no leading dot."
        )
    return address


@dataclass(frozen=True, slots=True)
class Guarantees:
    """What a transport promises.

    Attributes:
        ordered: Frames of one sender to one address arrive in the order in which they were sent.
        durable: Frames outlive the processes of both peers.
        max_frame: Largest frame in bytes, or None where only the medium sets a limit.
    """

    ordered: bool
    durable: bool
    max_frame: int | None


class Delivery(Protocol):
    """One frame that arrived. Exactly one of its methods is called once the frame was dealt with."""

    @property
    def data(self) -> memoryview:
        """The frame's bytes, unchecked. They stay valid after the acknowledgement."""

    def ack(self) -> None:
        """The frame took effect; the transport may forget it."""

    def reject(self, reason: str) -> None:
        """The frame will never be of use; it is set aside with the reason, for a person to look at."""

    def defer(self) -> bool:
        """The frame looks unfinished. Deliver it again if it grows; False when it has had its time."""


class Endpoint(Protocol):
    """One peer's end of a transport. It is used by one thread."""

    @property
    def address(self) -> str:
        """The own address."""

    @property
    def guarantees(self) -> Guarantees:
        """What the transport promises."""

    def send(self, address: str, frame: Frame) -> int:
        """Hand a frame over; return its size in bytes. When it returns, the frame will arrive if the medium lives.

        Raises:
            TransportError: The address is no address, or the medium failed.
        """

    def receive(self, timeout: float) -> Delivery | None:
        """The next frame for this address, or None after ``timeout`` seconds.

        Raises:
            RemoteError: The next frame cannot be read, or is larger than allowed; it stays where it is and is not
                delivered again.
            TransportError: The medium failed.
        """

    def close(self) -> None:
        """Let go of the medium; idempotent."""


TRANSPORTS: Final[Registry[str, Callable[[str, str, Limits], Endpoint]]] = Registry("transport")
"""URL scheme to a function of URL, own address and limits."""


def open_endpoint(url: str, address: str, *, limits: Limits = DEFAULT_LIMITS) -> Endpoint:
    """Connect to a medium by URL: ``file:///path``, ``memory://name``.

    Args:
        url: The medium.
        address: The own address on it.
        limits: The largest frame that is received.

    Raises:
        ConfigError: The URL has no scheme that is registered.
        MissingExtraError: The transport needs an extra.
        TransportError: The medium cannot be reached.
    """
    try:
        make = TRANSPORTS.get(urlsplit(url).scheme)
    except RegistryError as error:
        raise ConfigError(f"no transport for {url!r}", hint=error.hint) from error
    except ValueError as error:
        raise ConfigError(f"{url!r} is not a URL: {error}") from error
    return make(url, check_address(address), limits)


def path_of(url: str) -> Path:
    """The path of a ``file:`` URL, absolute.

    Raises:
        ConfigError: The URL names a host or a relative path.
    """
    parts = urlsplit(url)
    path = unquote(parts.path)
    if parts.netloc or not path.startswith("/") or "\0" in path:
        raise ConfigError(f"{url!r} is not an absolute file URL", hint="Write file:///folder, with three slashes.")
    return Path(path)
