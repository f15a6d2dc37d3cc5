"""Objects to bytes and back, as syft-rpc's functions of these names, on :mod:`fedpost.objects`.

Rules: exact types come back, NaN and nested sets included; a name on the wire is a tag that is looked up, never a place
to import from; nothing is sent unsealed that was to be sealed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar, overload

from fedpost.compat.syft_rpc.registering import HINT, Reading, Sending
from fedpost.errors import ConfigError, EncodeError, UnsupportedError
from fedpost.frame import DEFAULT_LIMITS, Frame, Limits
from fedpost.objects import from_frame, to_frame
from fedpost.objects.schema import validate

__all__ = ["deserialize", "frame_of", "refuse_encryption", "serialize", "value_of"]

T = TypeVar("T")

_OUR_HINT: Final = "Register the type: fedpost."
_OUR_HINT_READING: Final = "Register its class on this side: fedpost."
_HINT_READING: Final = "Pass the class as with_type=, or register it here: syft_rpc.register(…)."


@overload
def deserialize(data: bytes | bytearray | memoryview, with_type: type[T], *, limits: Limits = ...) -> T: ...
@overload
def deserialize(data: bytes | bytearray | memoryview, with_type: Any = ..., *, limits: Limits = ...) -> Any: ...
def deserialize(data: bytes | bytearray | memoryview, with_type: Any = None, *, limits: Limits = DEFAULT_LIMITS) -> Any:
    """The object that :func:`serialize` made bytes of. Arrays are read-only views of ``data``.

    Args:
        data: The bytes.
        with_type: A class, or an annotation such as ``list[Task]``, that the object must be. The classes in it, and in
            the annotations of their fields, may be read in this call without being registered.
        limits: The budget.

    Raises:
        UnsupportedError: It uses a class that is neither registered nor in ``with_type``.
        DecodeError: It is damaged, no object, or not what was expected.
    """
    return value_of(Frame.decode(data, limits=limits), with_type, limits=limits)


def serialize(obj: Any, *, encrypt: bool = False, recipient: str | None = None, client: Any = None) -> bytes:
    """An object as bytes: a frame.

    Args:
        obj: None, numbers, texts, bytes, containers, arrays, tensors, dataclasses, pydantic models, and what has a
            registered serializer.
        encrypt: Refused: sealing is not built yet.
        recipient: Whom to encrypt for.
        client: Whose keys to encrypt with.

    Raises:
        EncodeError: Part of it cannot be written or is private; the error says where.
        ConfigError: Encryption was asked for.
    """
    refuse_encryption(encrypt=encrypt or recipient is not None or client is not None)
    return bytes(frame_of(obj))


def refuse_encryption(*, encrypt: bool) -> None:
    """Raise when encryption is wanted: what asks for it must not go out as plain bytes.

    Raises:
        ConfigError: It is.
    """
    if encrypt:
        raise ConfigError(
            "sealing is not available in this version, so nothing was sent",
            where="encrypt",
            hint="Leave encrypt, recipient and client of serialize() out only if everybody may read it.",
        )


# ── for messages, whose object stands in a frame with other sections ─────────────────────────────────────────────────


def frame_of(value: Any, sections: Mapping[str, object] | None = None) -> Frame:
    """A frame that holds an object; :func:`serialize` says what it raises."""
    try:
        return to_frame(value, registry=Sending(), sections=sections)
    except EncodeError as error:
        if error.hint is None or not error.hint.startswith(_OUR_HINT):
            raise
        raise EncodeError(error.what, where=error.where, hint=HINT) from error


def value_of(frame: Frame, with_type: Any = None, *, limits: Limits = DEFAULT_LIMITS) -> Any:
    """The object in a frame; :func:`deserialize` says what it raises."""
    try:
        value = from_frame(frame, registry=Reading(with_type), limits=limits)
    except UnsupportedError as error:
        if error.hint is None or not error.hint.startswith(_OUR_HINT_READING):
            raise
        raise UnsupportedError(error.what, where=error.where, hint=_HINT_READING) from error
    if with_type is not None:
        validate(value, with_type)
    return value
