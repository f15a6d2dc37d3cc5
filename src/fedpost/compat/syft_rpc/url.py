"""Addresses: ``syft://user@domain/app_data/APP/rpc/ENDPOINT``.

Rules: every part is a plain name that is checked here, also when it comes from the wire, so that no part leads out of a
folder; what is not such a name is refused, never repaired.
"""

from __future__ import annotations

import re
from typing import Final, Self

from fedpost.errors import ConfigError

__all__ = ["SyftBoxURL", "check_app", "check_email", "check_endpoint", "make_url"]

_EMAIL: Final = re.compile(r"[A-Za-z0-9_+][A-Za-z0-9_.+-]{0,63}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63}){1,8}")
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_URL: Final = re.compile(r"syft://(?P<host>[^/?#]+)(?P<path>(?:/[^/?#]+)*)/?(?:\?(?P<query>[\x21-\x7e]*))?")
_MAX_URL: Final = 1024
_RPC: Final = 4
"""Parts of a path before the endpoint's: ``app_data``, the app, ``rpc``, and one of the endpoint's at least."""


def check_email(email: str) -> str:
    """Return the e-mail address if it can be the name of a datasite.

    Raises:
        ConfigError: It cannot.
    """
    if _EMAIL.fullmatch(email) is None:
        raise ConfigError(f"{email[:200]!r} is not the e-mail address of a datasite", hint="Write user@domain.org.")
    return email


def check_app(name: str) -> str:
    """Return the name of an app if it is a plain one.

    Raises:
        ConfigError: It is not.
    """
    if _NAME.fullmatch(name) is None:
        raise ConfigError(f"{name[:200]!r} is not the name of an app", hint="Use letters, digits, '.', '_' and '-'.")
    return name


def check_endpoint(endpoint: str) -> str:
    """Return an endpoint as ``/name`` or ``/name/name``.

    Raises:
        ConfigError: It has parts that are empty, start with a dot, or hold anything but letters, digits, ``._-``.
    """
    parts = endpoint.removeprefix("/").split("/")
    if not all(map(_NAME.fullmatch, parts)):
        raise ConfigError(
            f"{endpoint[:200]!r} is not an endpoint", hint="Use letters, digits, '.', '_', '-', and '/' between parts."
        )
    return "/" + "/".join(parts)


class SyftBoxURL(str):
    """A checked address; a text like any other.

    Args:
        url: The text.

    Raises:
        ConfigError: It is no such address.
    """

    __slots__ = ("host", "path")

    host: str
    """The e-mail address of the datasite."""
    path: str
    """What follows it, from the first ``/`` on, without a query."""

    def __new__(cls, url: str) -> Self:
        """Check the text; a text cannot be changed later."""
        match = _URL.fullmatch(url) if len(url) <= _MAX_URL else None
        if match is None:
            raise ConfigError(f"{url[:200]!r} is not a syft:// URL", hint="Write syft://user@domain.org/path.")
        out = super().__new__(cls, url)
        out.host = check_email(match["host"])
        out.path = match["path"] or ""
        for part in out.path.split("/")[1:]:
            if _NAME.fullmatch(part) is None:
                raise ConfigError(f"{part[:200]!r} is not a name that a URL may have", where=url[:200])
        return out

    @classmethod
    def is_valid(cls, url: str) -> bool:
        """Whether a text is such an address."""
        try:
            cls(url)
        except ConfigError:
            return False
        return True

    @property
    def protocol(self) -> str:
        """``syft://``."""
        return "syft://"

    @property
    def query(self) -> dict[str, str]:
        """What follows ``?``, as names and values that are not decoded."""
        pairs = self.partition("?")[2].split("&")
        return dict(pair.split("=", 1) for pair in pairs if "=" in pair)

    @property
    def app(self) -> str:
        """The app whose endpoint this is.

        Raises:
            ConfigError: It is no endpoint's address.
        """
        return self._endpoint()[0]

    @property
    def endpoint(self) -> str:
        """The endpoint, from ``/`` on.

        Raises:
            ConfigError: It is no endpoint's address.
        """
        return self._endpoint()[1]

    def _endpoint(self) -> tuple[str, str]:
        parts = self.path.split("/")[1:]
        if len(parts) < _RPC or parts[0] != "app_data" or parts[2] != "rpc":
            raise ConfigError(
                f"{self[:200]!r} is not an endpoint's URL",
                hint="Write syft://user@domain.org/app_data/APP/rpc/ENDPOINT, or use make_url.",
            )
        return parts[1], "/" + "/".join(parts[3:])


def make_url(datasite: str, app_name: str, endpoint: str) -> SyftBoxURL:
    """The address of an endpoint.

    Args:
        datasite: The e-mail address of its owner.
        app_name: The app.
        endpoint: The endpoint, with or without ``/`` in front.

    Raises:
        ConfigError: One of them is not such a name.
    """
    return SyftBoxURL(f"syft://{check_email(datasite)}/app_data/{check_app(app_name)}/rpc{check_endpoint(endpoint)}")
