"""Values that are kept beside an object's bytes, and who keeps them while an object is written or read."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from enum import Enum
from typing import Any, Final

from fedpost.compat.fobs.errors import FobsConfigError, FobsDecodeError

__all__ = ["Datum", "DatumManager", "DatumRef", "DatumType"]

_THRESHOLD: Final = 10 << 20
_MIN_THRESHOLD: Final = 1024


class DatumType(Enum):
    """What a datum's value is."""

    TEXT = 1
    BLOB = 2
    FILE = 3


class Datum:
    """A value that is kept beside.

    Args:
        datum_type: What it is.
        value: Text, bytes, or a file's path.
        dot: The datum's object type: whose decomposer processes it when it arrives; 0 for nobody's.

    Attributes:
        datum_id: What it is referred to by: a random UUID.
    """

    def __init__(self, datum_type: DatumType, value: Any, dot: int = 0) -> None:
        self.datum_id = str(uuid.uuid4())
        self.datum_type = datum_type
        self.dot = dot
        self.value = value

    @staticmethod
    def blob_datum(blob: bytes | bytearray | memoryview, dot: int = 0) -> Datum:
        """A datum of bytes."""
        return Datum(DatumType.BLOB, blob, dot)

    @staticmethod
    def text_datum(text: str, dot: int = 0) -> Datum:
        """A datum of text."""
        return Datum(DatumType.TEXT, text, dot)

    @staticmethod
    def file_datum(path: str, dot: int = 0) -> Datum:
        """A datum whose value is the path of a file; what is sent is its content."""
        return Datum(DatumType.FILE, path, dot)


class DatumRef:
    """What stands in an object for a datum.

    Args:
        datum_id: Which.
        unwrap: Whether the datum's value comes back in its place, and not the datum.
    """

    def __init__(self, datum_id: str, unwrap: bool = False) -> None:
        self.datum_id = datum_id
        self.unwrap = unwrap


class DatumManager:
    """The datums of one object, and what decomposers share while it is written or read.

    Args:
        threshold: Values of this many bytes or characters, or more, are kept beside; 10 MiB without it.
        fobs_ctx: What the caller tells decomposers.

    Attributes:
        threshold: As given.
        datums: The datums by id.
        fobs_ctx: As given.
        error: What a decomposer said went wrong.

    Raises:
        FobsConfigError: The threshold is not a whole number, or under 1024.
    """

    def __init__(self, threshold: int | None = None, fobs_ctx: dict[str, Any] | None = None) -> None:
        threshold = threshold or _THRESHOLD
        if not isinstance(threshold, int):
            raise FobsConfigError(f"threshold must be int but got {type(threshold).__name__}")
        if threshold < _MIN_THRESHOLD:
            raise FobsConfigError(f"threshold must be at least {_MIN_THRESHOLD} but got {threshold}")
        self.threshold = threshold
        self.datums: dict[str, Datum] = {}
        self.fobs_ctx: dict[str, Any] = {} if fobs_ctx is None else fobs_ctx
        self.error: str | None = None
        self._callbacks: list[tuple[Callable[..., Any], dict[str, Any]]] = []

    def add_datum(self, d: Datum) -> None:
        """Keep a datum."""
        self.datums[d.datum_id] = d

    def get_datums(self) -> dict[str, Datum]:
        """The datums by id: what has to reach the receiver's manager, together with the object's bytes."""
        return self.datums

    def get_datum(self, datum_id: str) -> Datum | None:
        """The datum of an id."""
        return self.datums.get(datum_id)

    def get_fobs_context(self) -> dict[str, Any]:
        """What the caller tells decomposers. A decomposer keeps its own state here too, as it serves many at once."""
        return self.fobs_ctx

    def register_post_cb(self, cb: Callable[..., Any], **cb_kwargs: Any) -> None:
        """Have a function called with this manager once everything is written or read; it may register further ones.

        Raises:
            FobsConfigError: It cannot be called.
        """
        if not callable(cb):
            raise FobsConfigError("cb is not callable")
        self._callbacks.append((cb, cb_kwargs))

    def set_error(self, error: str) -> None:
        """Have the serialization fail at its end; the first error stays."""
        self.error = self.error or error

    def get_error(self) -> str | None:
        """What a decomposer said went wrong."""
        return self.error

    def post_process(self) -> None:
        """Call each registered function, once: also after one has failed, as others may have to clean up."""
        while self._callbacks:
            cb, cb_kwargs = self._callbacks.pop(0)
            try:
                cb(self, **cb_kwargs)
            except Exception as error:  # noqa: BLE001 - whatever it is, it becomes the error of the serialization
                name = getattr(cb, "__qualname__", repr(cb))
                self.set_error(f"exception from post_cb {name}: {type(error).__name__}: {error}")

    def externalize(self, data: Any) -> Any:
        """A reference instead of a datum, or of text and bytes over the threshold; anything else as it is."""
        if isinstance(data, Datum):
            self.add_datum(data)
            return DatumRef(data.datum_id)
        if not isinstance(data, bytes | bytearray | memoryview | str) or len(data) < self.threshold:
            return data
        datum = Datum.text_datum(data) if isinstance(data, str) else Datum.blob_datum(data)
        self.add_datum(datum)
        return DatumRef(datum.datum_id, unwrap=True)

    def internalize(self, data: Any) -> Any:
        """What a reference stands for: the datum, or its value; anything else as it is.

        Raises:
            FobsDecodeError: There is no such datum here.
        """
        if not isinstance(data, DatumRef):
            return data
        datum = self.get_datum(data.datum_id)
        if datum is None:
            raise FobsDecodeError(
                f"can't find datum for {str(data.datum_id)[:40]}", hint="Give this manager the sender's datums."
            )
        return datum.value if data.unwrap and datum.datum_type is not DatumType.FILE else datum
