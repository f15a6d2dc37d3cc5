"""How datums, and references to them, stand in an object.

Rules: :func:`~fedpost.compat.fobs.operations.dumps` carries a datum once, however often it is referred to, large ones
as segments; whoever gives a manager of his own carries the datums himself. A file that arrives gets a name that nobody
chose, in a folder that only this user can read.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import uuid
from pathlib import Path
from typing import Any, Final

import blake3
import msgspec

from fedpost.compat.fobs.datum import Datum, DatumManager, DatumRef, DatumType
from fedpost.compat.fobs.errors import FobsUnsupportedError
from fedpost.errors import ConfigError, DecodeError, EncodeError, FedpostError, IntegrityError, LimitError
from fedpost.files import write_buffers
from fedpost.objects import Serializer

__all__ = ["CARRIED", "CarryingManager", "DatumRow", "ManagedLeaves"]

_ID: Final = 16
_DIGEST: Final = 32
_MAX_FILES: Final = 1024
_KINDS: Final = {
    DatumType.TEXT: (str,),
    DatumType.BLOB: (bytes, bytearray, memoryview),
    DatumType.FILE: (bytes, memoryview),
}


class DatumRow(msgspec.Struct, array_like=True, frozen=True):
    """A datum that nothing in the object refers to, as it stands in the header.

    Attributes:
        id: Its UUID.
        kind: The number of its type.
        dot: Whose decomposer processes it.
        value: Bytes, or text in UTF-8.
    """

    id: bytes
    kind: int
    dot: int
    value: bytes


class CarryingManager(DatumManager):
    """The manager of an object whose datums travel with it."""

    def __init__(self, threshold: int | None = None, fobs_ctx: dict[str, Any] | None = None) -> None:
        super().__init__(threshold, fobs_ctx)
        self.handlers: dict[int, Any] = {}
        self._packed: dict[str, Datum] = {}
        self._files: list[Path] = []

    def pack(self, datum: Datum) -> list[Any]:
        """What a datum is written as: the same whenever it is asked for, as an object may be looked at twice.

        Raises:
            EncodeError: The file is missing, or the value is not what the type says.
        """
        identity = _bytes_of(datum.datum_id)
        first = self._packed.setdefault(datum.datum_id, datum)
        if first is not datum:  # a copy of it
            return [first]
        return [identity, datum.datum_type.value, datum.dot, _content(datum)]

    def left_over(self) -> list[DatumRow]:
        """The datums that the object does not refer to."""
        rest = [datum for key, datum in self.datums.items() if key not in self._packed]
        return [
            DatumRow(_bytes_of(datum.datum_id), datum.datum_type.value, datum.dot, _packed(_content(datum)))
            for datum in rest
        ]

    def unpack(self, identity: Any, kind: Any, dot: Any, value: Any) -> None:
        """Take in a datum, and have it processed.

        Raises:
            DecodeError: It is no datum, or is here already, or nobody processes its type, or there are too many files.
        """
        key = _text_of(identity)
        if key in self.datums:
            raise DecodeError("a datum that comes twice")
        if type(kind) is not int or kind not in [known.value for known in DatumType] or type(dot) is not int:
            raise DecodeError("a datum of no known type")
        datum_type = DatumType(kind)
        if type(value) not in _KINDS[datum_type]:
            raise DecodeError(f"a datum of type {datum_type.name} whose value is none")
        if datum_type is DatumType.FILE:
            value = str(self._store(memoryview(value)))
        datum = Datum(datum_type, value, dot)
        datum.datum_id = key
        self.add_datum(datum)
        if dot > 0:
            if dot not in self.handlers:
                raise FobsUnsupportedError(f"no decomposer is registered for Datum Object Type {dot}")
            try:
                self.handlers[dot].process_datum(datum, self)
            except FedpostError:
                raise
            except Exception as error:  # whatever the decomposer makes of what somebody else sent
                raise DecodeError(f"a datum that cannot be processed: {type(error).__name__}: {error}") from error

    def unpack_row(self, row: DatumRow) -> None:
        """Take in a datum out of the header.

        Raises:
            DecodeError: As :meth:`unpack`.
        """
        value: Any = row.value
        if row.kind == DatumType.TEXT.value:
            try:
                value = str(row.value, "utf-8")
            except UnicodeDecodeError as error:
                raise DecodeError("a text that is not UTF-8") from error
        self.unpack(row.id, row.kind, row.dot, value)

    def discard_files(self) -> None:
        """Remove the files that were made for an object that could not be read after all."""
        for path in self._files:
            path.unlink(missing_ok=True)

    def _store(self, data: memoryview) -> Path:
        if len(self._files) >= _MAX_FILES:
            raise LimitError(f"more than {_MAX_FILES} files in one object")
        fd, name = tempfile.mkstemp(dir=_folder(), suffix=".dat")
        try:
            self._files.append(Path(name))
            write_buffers(fd, [data])
        finally:
            os.close(fd)
        return Path(name)


class ManagedLeaves:
    """Large leaves in the manager of whoever carries them: :class:`fedpost.objects.External`.

    Args:
        manager: It keeps them, by id.
    """

    def __init__(self, manager: DatumManager) -> None:
        self._manager = manager
        self._kept: dict[bytes, bytes] = {}
        self.over = manager.threshold - 1

    def put(self, data: memoryview) -> bytes:
        """Keep a leaf as a datum, the same content once; return its id and its digest."""
        digest = _digest(data)
        known = self._kept.get(digest)
        if known is not None:
            return known
        whole = data.obj
        datum = Datum.blob_datum(whole if type(whole) is bytes and len(whole) == data.nbytes else data)
        self._manager.add_datum(datum)
        self._kept[digest] = _bytes_of(datum.datum_id) + digest
        return self._kept[digest]

    def get(self, reference: bytes, size: int) -> memoryview:
        """A leaf's bytes. A file is mapped, so that what is large costs no memory until it is written to.

        Raises:
            DecodeError: It is not there, or has another size or other bytes.
        """
        if len(reference) != _ID + _DIGEST:
            raise DecodeError("a leaf outside of the frame is not named by a datum and a digest")
        key = _text_of(reference[:_ID])
        datum = self._manager.get_datum(key)
        if datum is None:
            raise DecodeError(f"can't find datum for {key}", hint="Give the manager the sender's datums.")
        value = datum.value
        if datum.datum_type is DatumType.FILE:
            data = _map(Path(value), mmap.ACCESS_COPY)
        else:
            data = memoryview(value.encode() if isinstance(value, str) else value).cast("B")
        if data.nbytes != size:
            raise DecodeError(f"a leaf of {size} bytes has {data.nbytes}", where=f"datum {key}")
        if _digest(data) != reference[_ID:]:
            raise IntegrityError("its digest does not match", where=f"datum {key}", hint="Ask for it again.")
        return data


def _content(datum: Datum) -> Any:
    value = datum.value
    if datum.datum_type is DatumType.FILE:
        try:
            return _map(Path(value), mmap.ACCESS_READ)
        except (OSError, TypeError) as error:
            raise EncodeError(f"the file of a datum cannot be read: {error}") from error
    if type(value) not in _KINDS[datum.datum_type]:
        raise EncodeError(f"a datum of type {datum.datum_type.name} whose value is a {type(value).__name__}")
    return value


def _packed(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)


def _map(path: Path, access: int) -> memoryview:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        return memoryview(mmap.mmap(file.fileno(), size, access=access) if size else b"")


def _folder() -> Path:
    """Where files that arrive are kept: other users can neither read them nor put links there."""
    named = os.environ.get("NVFLARE_DATUM_DIR")
    folder = Path(named) if named else Path(tempfile.gettempdir()) / f"fedpost-datums-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not named and (folder.is_symlink() or folder.stat().st_uid != os.getuid()):
        raise ConfigError(f"{folder} belongs to another user", hint="Set NVFLARE_DATUM_DIR to a folder of your own.")
    return folder


def _digest(data: memoryview) -> bytes:
    return blake3.blake3(data, max_threads=blake3.blake3.AUTO).digest()


def _bytes_of(datum_id: str) -> bytes:
    try:
        return uuid.UUID(datum_id).bytes
    except (ValueError, AttributeError, TypeError) as error:
        raise EncodeError(f"{datum_id!r} is not the id of a datum") from error


def _text_of(identity: Any) -> str:
    if type(identity) is not bytes or len(identity) != _ID:
        raise DecodeError("a datum without an id")
    return str(uuid.UUID(bytes=identity))


# ── in the object ────────────────────────────────────────────────────────────────────────────────────────────────────


def _take_datum(datum: Datum, manager: DatumManager) -> Any:
    manager.add_datum(datum)
    return manager.pack(datum) if isinstance(manager, CarryingManager) else [_bytes_of(datum.datum_id)]


def _take_reference(reference: DatumRef, manager: DatumManager) -> Any:
    if not isinstance(manager, CarryingManager):
        return [bool(reference.unwrap), [_bytes_of(reference.datum_id)]]
    datum = manager.get_datum(reference.datum_id)
    if datum is None:
        raise EncodeError(f"the manager has no datum {reference.datum_id}")
    return [bool(reference.unwrap), datum]


def _make_datum(state: Any, manager: DatumManager) -> Any:
    return _resolved(state, manager, unwrap=False)


def _make_reference(state: Any, manager: DatumManager) -> Any:
    if type(state) is not list or list(map(type, state)) not in ([bool, list], [bool, Datum]):
        raise DecodeError("a reference to a datum is whether to unwrap it, and which")
    return _resolved(state[1:] if type(state[1]) is Datum else state[1], manager, unwrap=state[0])


def _resolved(row: Any, manager: DatumManager, *, unwrap: bool) -> Any:
    if type(row) is not list or len(row) not in (1, 4):
        raise DecodeError("a datum is an id, or also its type, object type and value")
    if len(row) > 1:
        if not isinstance(manager, CarryingManager):
            raise DecodeError("a datum that travels with the object, where a manager was given for it")
        manager.unpack(*row)
    key = row[0].datum_id if type(row[0]) is Datum else _text_of(row[0])
    return manager.internalize(DatumRef(key, unwrap=unwrap))


CARRIED: Final = (
    Serializer(cls=Datum, name="fobs.Datum", take=_take_datum, make=_make_datum, managed=True, shared=True),
    Serializer(cls=DatumRef, name="fobs.DatumRef", take=_take_reference, make=_make_reference, managed=True),
)
