"""What must not leave the site, and what is sent in its place: a reference.

Rules: an instance of a private class is refused wherever it stands in a value, under whatever name it is registered,
when this package serializes. More is not enforced: what is copied out of an instance, such as an array, is free.
"""

from __future__ import annotations

import os
import re
import stat
from typing import Any, Final, Self, TypeVar

import blake3
import msgspec

from fedpost.errors import ConfigError, EncodeError
from fedpost.objects.types import Serializer, qualified_name

__all__ = ["DatasetReference", "PrivateData", "is_private", "mark_private", "refusing"]

C = TypeVar("C", bound=type)

_PIECE: Final = 1 << 22
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9 ._-]{0,199}")
_HEAP_TYPE: Final = 1 << 9
"""Set for classes, and not for the types of Python and NumPy themselves, of which models and messages consist."""


class PrivateData:
    """To inherit from: instances are refused when they are to be serialized or sent."""

    __slots__ = ()


_PRIVATE: Final[set[type]] = {PrivateData}


def mark_private(cls: C) -> C:
    """Have instances of a class, and of its subclasses, refused from now on; a decorator, too.

    Args:
        cls: A class of your own, or of a library, such as ``pandas.DataFrame``.

    Raises:
        ConfigError: It is a type of Python or NumPy itself, of which every model consists.
    """
    if not cls.__flags__ & _HEAP_TYPE or cls.__module__.partition(".")[0] == "numpy":
        raise ConfigError(
            f"{cls.__qualname__} cannot be marked as private",
            hint="Hold the data in a class of your own, and mark that.",
        )
    _PRIVATE.add(cls)
    return cls


def is_private(cls: type) -> bool:
    """Whether instances of a class are refused."""
    return not _PRIVATE.isdisjoint(cls.__mro__)


def refusing(cls: type, why: str, hint: str | None = None) -> Serializer:
    """A serializer that writes nothing: who meets it in a value is told where in the value that is."""

    def take(_value: Any) -> Any:
        raise EncodeError(why, hint=hint)

    def make(_state: Any) -> Any:
        raise ConfigError(f"{qualified_name(cls)} is not read")

    return Serializer(cls=cls, name="refused", take=take, make=make)


class DatasetReference(msgspec.Struct, frozen=True, kw_only=True):
    """A data set as others may know it: what it is called and which one it is, and nothing of what is in it.

    The digest tells two data sets apart. It also lets whoever guesses the whole content confirm the guess: leave it out
    for small ones.

    Attributes:
        name: What it is called: letters, digits, spaces, ``._-``.
        size: Its size in bytes.
        digest: BLAKE3 of its content, in hexadecimal; or empty.

    Raises:
        ValueError: One of them is not such a value.
    """

    name: str
    size: int
    digest: str = ""

    def __post_init__(self) -> None:
        """Check the fields, also of one that was sent."""
        if type(self.name) is not str or _NAME.fullmatch(self.name) is None:
            raise ConfigError(f"{str(self.name)[:200]!r} is not the name of a data set")
        if type(self.size) is not int or not 0 <= self.size < 1 << 63:
            raise ConfigError(f"{str(self.size)[:40]} is not a size in bytes")
        if type(self.digest) is not str or (self.digest and _DIGEST.fullmatch(self.digest) is None):
            raise ConfigError(f"{str(self.digest)[:80]!r} is not a digest", hint="64 hexadecimal digits, or nothing.")

    @classmethod
    def of_file(cls, name: str, path: str | os.PathLike[str]) -> Self:
        """The reference to a file, which is read once, in pieces.

        Args:
            name: What it shall be called. The path stays here.
            path: The file.

        Raises:
            ConfigError: Not a name, or not a regular file.
            OSError: The file cannot be read.
        """
        hasher = blake3.blake3()
        size = 0
        with open(path, "rb") as file:  # noqa: PTH123 - of any path-like
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigError("not a regular file", where=os.fspath(path))
            while piece := file.read(_PIECE):
                hasher.update(piece)
                size += len(piece)
        return cls(name=name, size=size, digest=hasher.hexdigest())
