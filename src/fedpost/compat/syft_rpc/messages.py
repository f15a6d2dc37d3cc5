"""Requests and responses.

Rules: each is one frame, with a section that says who asks whom, and the body as its object; nothing is nested or
base64'd. The section is typed and checked before the body is looked at; times are whole milliseconds, so that none is
NaN; the body is read when it is asked for, as the class that the reader names. What the section says of its sender is
the sender's own account: who may write to the folder can say anything.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Generic, Self, TypeVar
from uuid import UUID, uuid4

import msgspec

from fedpost.compat.syft_rpc.errors import SyftStatusError, printable
from fedpost.compat.syft_rpc.serialization import frame_of, value_of
from fedpost.compat.syft_rpc.status import SyftMethod, SyftStatus
from fedpost.compat.syft_rpc.url import SyftBoxURL, check_email
from fedpost.errors import ConfigError, DecodeError
from fedpost.files import replace_file
from fedpost.frame import DEFAULT_LIMITS, Frame, Limits
from fedpost.objects.types import qualified_name
from fedpost.objects.wire import SECTION as OBJECT

__all__ = ["MESSAGE_LIMITS", "RequestHeader", "ResponseHeader", "SyftMessage", "SyftRequest", "SyftResponse"]

_REQUEST: Final = "syft_request"
_RESPONSE: Final = "syft_response"
_MAX_SECTION: Final = 1 << 16
_MAX_REASON: Final = 500
_DEFAULT_EXPIRY: Final = timedelta(days=1)
MESSAGE_LIMITS: Final = Limits(max_frame=1 << 30, max_raw=1 << 30)
"""The budget for a message from the folder: it is one file, which is read into memory as a whole."""

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
_Text = Annotated[str, msgspec.Meta(max_length=8192)]
_Headers = Annotated[dict[_Name, _Text], msgspec.Meta(max_length=100)]
_Time = Annotated[int, msgspec.Meta(ge=0, le=253_370_764_800_000)]  # to the year 9999, the last that datetime has


class _Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    id: UUID
    sender: str
    url: str
    headers: _Headers
    created: _Time
    expires: _Time


class RequestHeader(_Header, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The section ``syft_request``; times are milliseconds since 1970."""

    method: SyftMethod


class ResponseHeader(_Header, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The section ``syft_response``; ``sender`` is who answers, the other fields are the request's."""

    status: SyftStatus


H = TypeVar("H", bound=_Header)
T = TypeVar("T")


class SyftMessage(Generic[H]):
    """What requests and responses have in common; made by :meth:`make`, :meth:`loads` or :meth:`load`."""

    _section: str
    _kind: type[H]

    def __init__(self, header: H, frame: Frame, limits: Limits = DEFAULT_LIMITS) -> None:
        self.header = header
        self.frame = frame
        self.url = SyftBoxURL(header.url)
        check_email(header.sender)
        self._limits = limits

    @classmethod
    def _make(cls, body: Frame, values: Mapping[str, Any]) -> Self:
        try:
            header = msgspec.convert(values, cls._kind)
        except msgspec.ValidationError as error:
            raise ConfigError(f"not a message: {error}") from error
        return cls(header, body.with_sections({cls._section: header}))

    @classmethod
    def loads(cls, data: bytes | bytearray | memoryview, *, limits: Limits = DEFAULT_LIMITS) -> Self:
        """Read a message; its body is read later, when it is asked for.

        Raises:
            DecodeError: It is damaged, or no such message.
        """
        frame = Frame.decode(data, limits=limits)
        header = frame.section(cls._section, cls._kind, limit=_MAX_SECTION)
        try:
            return cls(header, frame, limits)
        except ConfigError as error:
            raise DecodeError(error.what, where=f"section {cls._section!r}") from error

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, limits: Limits = DEFAULT_LIMITS) -> Self:
        """Read a message from a file.

        Raises:
            DecodeError: As :meth:`loads`.
            OSError: The file cannot be read.
        """
        return cls.loads(Path(path).read_bytes(), limits=limits)

    def dumps(self) -> bytes:
        """The message as bytes."""
        return bytes(self.frame)

    def dump(self, path: str | os.PathLike[str]) -> None:
        """Write the message to a file, which is seen whole or not at all.

        Raises:
            OSError: It cannot be written.
        """
        replace_file(Path(path), self.frame.buffers())

    # ── who and when ─────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def id(self) -> UUID:
        """The request's id, also of its response."""
        return self.header.id

    @property
    def sender(self) -> str:
        """The sender's e-mail address, by its own account."""
        return self.header.sender

    @property
    def headers(self) -> dict[str, str]:
        """What the sender noted."""
        return dict(self.header.headers)

    @property
    def created(self) -> datetime:
        """When it was made, by the sender's clock."""
        return datetime.fromtimestamp(self.header.created / 1000, UTC)

    @property
    def expires(self) -> datetime:
        """From when on the request is not worth an answer."""
        return datetime.fromtimestamp(self.header.expires / 1000, UTC)

    @property
    def age(self) -> float:
        """Seconds since it was made."""
        return (datetime.now(UTC) - self.created).total_seconds()

    @property
    def is_expired(self) -> bool:
        """Whether it has expired, by the clock of this machine."""
        return datetime.now(UTC) > self.expires

    # ── the body ─────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def body(self) -> bytes:
        """The body as :func:`~fedpost.compat.syft_rpc.deserialize` reads it."""
        segments = [self.frame.segment(index) for index in range(len(self.frame))]
        return bytes(Frame.build({OBJECT: self.frame.section(OBJECT, msgspec.Raw)}, segments))

    def value(self, with_type: Any = None) -> Any:
        """The body as the object that was sent.

        Args:
            with_type: What it must be, as in :func:`~fedpost.compat.syft_rpc.deserialize`.

        Raises:
            DecodeError: It uses a class that is not known here, or is not what was expected.
        """
        return value_of(self.frame, with_type, limits=self._limits)

    def text(self) -> str:
        """The body as text: that of a text or of bytes themselves, of anything else its JSON; empty for None.

        Raises:
            DecodeError: It is not UTF-8, or JSON has no word for it.
        """
        value = self.value()
        try:
            if isinstance(value, bytes):
                return value.decode()
            return value if isinstance(value, str) else "" if value is None else json.dumps(value)
        except (TypeError, ValueError) as error:
            raise DecodeError(f"the body is no text: {error}", where=str(self.id)) from error

    def json(self) -> Any:
        """The body as it is; that of a text or of bytes as the JSON that they hold.

        Raises:
            DecodeError: They hold none.
        """
        value = self.value()
        if not isinstance(value, str | bytes):
            return value
        try:
            return json.loads(value)
        except (ValueError, RecursionError) as error:
            raise DecodeError(f"the body is no JSON: {error}", where=str(self.id)) from error

    def model(self, model_cls: type[T]) -> T:
        """The body as an instance of a class; a dictionary is checked by a pydantic model's own rules.

        Raises:
            DecodeError: It is another.
        """
        value = self.value(with_type=model_cls | dict)
        if isinstance(value, model_cls):
            return value
        validate = getattr(model_cls, "model_validate", None)
        if validate is None:
            raise DecodeError(f"{model_cls.__qualname__} was expected, not {qualified_name(type(value))}")
        try:
            made: T = validate(value)
        except ValueError as error:  # pydantic's own is one
            raise DecodeError(f"not a {model_cls.__qualname__}: {error}", where=str(self.id)) from error
        return made


# ── of the two kinds ─────────────────────────────────────────────────────────────────────────────────────────────────


class SyftRequest(SyftMessage[RequestHeader]):
    """A request."""

    _section = _REQUEST
    _kind = RequestHeader

    @classmethod
    def make(
        cls,
        *,
        sender: str,
        url: SyftBoxURL | str,
        body: Any = None,
        method: SyftMethod | str = SyftMethod.GET,
        headers: Mapping[str, str] | None = None,
        lifetime: timedelta = _DEFAULT_EXPIRY,
        id: UUID | None = None,  # noqa: A002 - the attribute's name
        created: datetime | None = None,
    ) -> Self:
        """A request that nobody has sent yet.

        Raises:
            EncodeError: The body cannot be written.
            ConfigError: A header, the method or an address is none.
        """
        start = created or datetime.now(UTC)
        values = {
            "id": id or uuid4(),
            "sender": sender,
            "url": str(url),
            "headers": dict(headers or {}),
            "created": _milliseconds(start),
            "expires": _milliseconds(start + lifetime),
            "method": method,
        }
        return cls._make(body if isinstance(body, Frame) else frame_of(body), values)

    @property
    def method(self) -> SyftMethod:
        """What it wants."""
        return self.header.method


class SyftResponse(SyftMessage[ResponseHeader]):
    """A response."""

    _section = _RESPONSE
    _kind = ResponseHeader

    @classmethod
    def make(
        cls,
        request: RequestHeader,
        *,
        sender: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        status_code: SyftStatus | int = SyftStatus.SYFT_200_OK,
    ) -> Self:
        """A response that nobody has sent yet.

        Raises:
            EncodeError: The body cannot be written.
            ConfigError: A header or the status is none.
        """
        values = {
            "id": request.id,
            "sender": sender,
            "url": request.url,
            "headers": dict(headers or {}),
            "created": _milliseconds(datetime.now(UTC)),
            "expires": request.expires,
            "status": int(status_code),
        }
        return cls._make(frame_of(body), values)

    @property
    def status_code(self) -> SyftStatus:
        """What became of the request."""
        return self.header.status

    @property
    def is_success(self) -> bool:
        """Whether the request was answered."""
        return self.status_code.is_success

    def raise_for_status(self) -> None:
        """Raise if the request failed.

        Raises:
            SyftStatusError: It did.
        """
        if self.status_code.is_error:
            try:
                reason = printable(self.text()[:_MAX_REASON])
            except DecodeError:
                reason = "with a body that is no text"
            raise SyftStatusError(f"status {self.status_code.value}: {reason}", where=str(self.url))


def _milliseconds(time: datetime) -> int:
    return round(time.timestamp() * 1000)
