"""Requests and responses, and what each has of its own."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self
from uuid import UUID, uuid4

from fedpost.compat.syft_rpc.errors import SyftStatusError
from fedpost.compat.syft_rpc.message import RequestHeader, ResponseHeader, SyftMessage
from fedpost.compat.syft_rpc.serialization import frame_of
from fedpost.compat.syft_rpc.status import SyftMethod, SyftStatus
from fedpost.compat.syft_rpc.url import SyftBoxURL
from fedpost.errors import DecodeError
from fedpost.frame import Frame

__all__ = ["SyftRequest", "SyftResponse"]

_REQUEST: Final = "syft_request"
_RESPONSE: Final = "syft_response"
_DEFAULT_EXPIRY: Final = timedelta(days=1)


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
                reason = self.text()
            except DecodeError:
                reason = "with a body that is no text"
            raise SyftStatusError(f"status {self.status_code.value}: {reason}", where=str(self.url))


def _milliseconds(time: datetime) -> int:
    return round(time.timestamp() * 1000)
