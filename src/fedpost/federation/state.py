"""What a site keeps across restarts: its account, and in a folder beside it the newest version of the model.

Rules: a site's account is on disk before the update that it is of is sent; every file is one frame, written all or
nothing, and checked in full when it is read; one that is damaged is warned of and counts for nothing, since to start
afresh is always right.
"""

from __future__ import annotations

import logging
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from fedpost.codecs import Base
from fedpost.errors import DecodeError, FedpostError
from fedpost.federation.account import Account, Place
from fedpost.federation.frames import split, together
from fedpost.federation.replicas import Replicas
from fedpost.files import replace_file
from fedpost.frame import Frame, Limits

__all__ = ["SiteState", "StateFolder"]

_SECTION: Final = "site"
_MODEL: Final = "model"
_log = logging.getLogger("fedpost.site")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SiteState:
    """A site's part in a run; a value.

    Attributes:
        ident: Names the account, for the server: it stays while the account does.
        run: The run that the account is of.
        trained: Round and attempt of the last command that was taken up.
        account: What the site's updates have lost.
    """

    ident: str = field(default_factory=lambda: uuid.uuid4().hex)
    run: str = ""
    trained: Place = (0, 0)
    account: Account = field(default_factory=Account)

    def frame(self, site: str) -> Frame:
        """All of it as one frame."""
        place, pending = self.account.pending or (None, {})
        notes = _Notes(
            site=site, ident=self.ident, run=self.run, trained=self.trained, last=self.account.last, pending=place
        )
        return together({"residual": self.account.residual, "pending": pending}, {_SECTION: notes})

    @classmethod
    def of(cls, frame: Frame, site: str, limits: Limits) -> SiteState:
        """Read :meth:`frame` back.

        Raises:
            DecodeError: It is something else, or another site's.
        """
        notes = frame.section(_SECTION, _Notes, limit=limits.max_section)
        if notes.site != site:
            raise DecodeError(f"it is of the site {notes.site}")
        groups = split(frame, limits)
        pending = None if notes.pending is None else (notes.pending, groups.get("pending", {}))
        account = Account(groups.get("residual", {}), notes.last, pending)
        return cls(notes.ident, notes.run, notes.trained, account)


class StateFolder:
    """The files of the sites of one process; without a folder nothing is kept.

    Args:
        folder: The folder, which must be these sites' own; it is made at once.
        limits: The budget for what is read back.

    Raises:
        OSError: The folder cannot be made or written.
    """

    def __init__(self, folder: Path | None, limits: Limits) -> None:
        self._folder = folder
        self._limits = limits
        self._model = b""
        if folder is not None:  # rather now than after the first training
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass

    def state(self, site: str) -> SiteState:
        """What a site kept, or a fresh start."""
        return self._read(f"{site}.site", lambda frame: SiteState.of(frame, site, self._limits)) or SiteState()

    def replicas(self) -> Replicas:
        """The version that the sites of this process had last, if it is here."""

        def read(frame: Frame) -> Replicas:
            base = Base.of(split(frame, self._limits).get(_MODEL, {}))
            if frame.section(_MODEL, bytes, limit=self._limits.max_section) != base.digest:
                raise DecodeError("its tensors are not those of the model that it names")
            self._model = base.digest
            return Replicas((base,))

        return self._read(f"{_MODEL}.version", read) or Replicas()

    def keep(self, site: str, state: SiteState) -> None:
        """Write a site's state.

        Raises:
            OSError: The file cannot be written.
        """
        self._write(f"{site}.site", lambda: state.frame(site))

    def keep_newest(self, replicas: Replicas) -> None:
        """Write the newest version, if it is not there yet; without it a restart costs bytes, and nothing else."""
        if not replicas.models or replicas.models[-1].digest == self._model:
            return
        newest = replicas.models[-1]
        self._model = newest.digest
        try:
            self._write(
                f"{_MODEL}.version", lambda: together({_MODEL: newest.tensors.arrays()}, {_MODEL: newest.digest})
            )
        except OSError as error:
            _log.warning("the model's version is not kept: %s", error)

    def _write(self, name: str, frame: Callable[[], Frame]) -> None:
        if self._folder is not None:
            replace_file(self._folder / name, frame().buffers())

    def _read(self, name: str, read: Callable[[Frame], T]) -> T | None:
        path = None if self._folder is None else self._folder / name
        if path is None:
            return None
        try:
            return read(Frame.open(path, limits=self._limits))
        except FileNotFoundError:
            return None
        except (FedpostError, OSError) as error:
            _log.warning("%s is of no use, this starts afresh: %s", path, error)
            return None


class _Notes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    site: str
    ident: str
    run: str
    trained: tuple[int, int]
    last: tuple[int, int] | None
    pending: tuple[int, int] | None
