"""Who we are, and the folder that holds everybody's datasites: SyftBox's, or any other that something synchronises.

Rules: an endpoint's requests and responses are files under ``datasites/<owner>/app_data/<app>/rpc/``; each is written
beside and renamed into place, no link in there is followed, and no name from the wire is part of a path unchecked. What
is nobody else's business stands under ``fedpost/``, which must not be synchronised.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final, Self
from uuid import UUID

from fedpost.blobs import FileBlobStore
from fedpost.compat.syft_rpc.errors import SyftTransportError
from fedpost.compat.syft_rpc.url import SyftBoxURL, check_app, check_email
from fedpost.errors import ConfigError, LimitError, RemoteError

__all__ = ["Client", "Mailbox"]

_VARIABLE: Final = "SYFTBOX_CLIENT_CONFIG_PATH"
_CONFIG: Final = Path("~/.syftbox/config.json")


class Mailbox:
    """The files of one app of one datasite.

    Args:
        store: The datasite.
        app: The app's name.
    """

    def __init__(self, store: FileBlobStore, app: str) -> None:
        self.store: Final = store
        folder = f"app_data/{check_app(app)}/rpc"
        self.requests: Final = f"{folder}/requests"
        self.responses: Final = f"{folder}/responses"
        self.rejected: Final = f"{folder}/rejected"

    def request(self, ident: UUID) -> str:
        """The key of a request."""
        return f"{self.requests}/{ident}.request"

    def response(self, ident: UUID) -> str:
        """The key of its response."""
        return f"{self.responses}/{ident}.response"

    def refused(self, ident: UUID) -> str:
        """The key of what SyftBox leaves when its server does not take a request."""
        return f"{self.requests}/{ident}.syftrejected.request"

    def has(self, key: str) -> bool:
        """Whether a file is there; nothing of it is read."""
        try:
            return self.store.get(key, max_bytes=0) is not None
        except LimitError:
            return True
        except RemoteError:  # a link, or something else that is no file
            return False


class Client:
    """Who sends and answers.

    Args:
        email: The own e-mail address, which is the name of the own datasite.
        data_dir: The folder in which ``datasites`` is.

    Attributes:
        email: As given.
        datasites: The folder of datasites.
        private: A folder for what must not be synchronised.

    Raises:
        ConfigError: Not an e-mail address.
    """

    def __init__(self, email: str, data_dir: str | os.PathLike[str]) -> None:
        self.email: Final = check_email(email)
        root = Path(data_dir).expanduser().absolute()
        self.datasites: Final = root / "datasites"
        self.private: Final = root / "fedpost" / email

    @classmethod
    def load(cls, path: str | os.PathLike[str] | None = None) -> Self:
        """The client that SyftBox's configuration describes.

        Args:
            path: The file; without it the one that ``SYFTBOX_CLIENT_CONFIG_PATH`` names, or ``~/.syftbox/config.json``.

        Raises:
            ConfigError: It cannot be read, or lacks ``email`` or ``data_dir``.
        """
        file = Path(path or os.environ.get(_VARIABLE) or _CONFIG).expanduser()
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"SyftBox's configuration cannot be read: {error}",
                where=str(file),
                hint="Pass client=Client(email, data_dir).",
            ) from error
        email, data_dir = (found.get("email"), found.get("data_dir")) if isinstance(found, dict) else (None, None)
        if not isinstance(email, str) or not isinstance(data_dir, str):
            raise ConfigError("email or data_dir is missing", where=str(file))
        return cls(email, data_dir)

    def mailbox(self, url: SyftBoxURL) -> Mailbox:
        """The mailbox of an endpoint's app.

        Raises:
            ConfigError: It is no endpoint's address.
            SyftTransportError: The datasite is a link.
        """
        folder = self.datasites / url.host
        if folder.is_symlink():
            raise SyftTransportError("a datasite that is a link is not used", where=str(folder))
        return Mailbox(FileBlobStore(folder), url.app)

    def private_store(self, *parts: str) -> FileBlobStore:
        """A store that is nobody else's."""
        return FileBlobStore(self.private.joinpath(*parts), own=True)
