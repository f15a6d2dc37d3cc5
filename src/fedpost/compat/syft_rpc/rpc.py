"""Sending requests and answering them: syft-rpc's functions.

Rules: ids are random, so nobody can lay out a response beforehand; a request is encoded whole before anything is
written; a file is seen whole or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import blake3
import msgspec

from fedpost.compat.syft_rpc.datasites import Client
from fedpost.compat.syft_rpc.errors import syft_errors
from fedpost.compat.syft_rpc.futures import SyftBulkFuture, SyftFuture
from fedpost.compat.syft_rpc.messages import MESSAGE_LIMITS, SyftRequest, SyftResponse
from fedpost.compat.syft_rpc.serialization import frame_of, refuse_encryption
from fedpost.compat.syft_rpc.status import SyftMethod, SyftStatus
from fedpost.compat.syft_rpc.url import SyftBoxURL
from fedpost.errors import ConfigError
from fedpost.frame import Frame, Limits

__all__ = ["broadcast", "parse_duration", "reply_to", "send"]

DEFAULT_EXPIRY: Final = "15m"
_DURATION: Final = re.compile(r"([0-9]{1,9})([dhms])")
_UNITS: Final = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
_LONGEST: Final = timedelta(days=3650)


class _Sent(msgspec.Struct, frozen=True):
    """What is remembered of a request that is open."""

    id: UUID
    created: datetime
    lifetime: timedelta


def send(
    url: SyftBoxURL | str,
    method: SyftMethod | str = SyftMethod.GET,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    expiry: str = DEFAULT_EXPIRY,
    cache: bool | None = None,
    client: Client | None = None,
    encrypt: bool = False,
    *,
    limits: Limits = MESSAGE_LIMITS,
) -> SyftFuture:
    """Put a request into the folder of the endpoint that a URL names.

    Args:
        url: ``syft://user@domain/app_data/APP/rpc/ENDPOINT``.
        method: What it wants.
        body: Any value that :func:`~fedpost.compat.syft_rpc.serialize` takes.
        headers: Texts by name.
        expiry: For how long the answer is of use, such as ``"30s"``, ``"15m"``, ``"24h"`` or ``"3d"``. A request is not
            executed later than that.
        cache: Whether the future of the same request is given, if this client sent one that is still open; without it
            yes.
        client: Who sends; without it the one of SyftBox's configuration.
        encrypt: Refused: sealing is not built yet.
        limits: The budget for the response; without it 1 GiB.

    Raises:
        EncodeError: The body cannot be written, or is private.
        ConfigError: The URL, a header, the method or the expiry is none, or encryption was asked for.
        SyftTransportError: The folder cannot be written.
    """
    refuse_encryption(encrypt=encrypt)
    client = Client.load() if client is None else client
    address = SyftBoxURL(url)
    mailbox = client.mailbox(address)
    lifetime = parse_duration(expiry)
    content = frame_of(body)

    def request(known: _Sent | None = None) -> SyftRequest:
        return SyftRequest.make(
            sender=client.email,
            url=address,
            body=content,
            method=method,
            headers=headers,
            lifetime=lifetime if known is None else known.lifetime,
            id=None if known is None else known.id,
            created=None if known is None else known.created,
        )

    new = request()
    with syft_errors():
        if cache is False:
            mailbox.store.put(mailbox.request(new.id), new.frame.buffers())
            return SyftFuture(new, client, limits=limits)
        key = f"cache/{_content_id(new, content)}"
        store = client.private_store()
        found = store.get(key, max_bytes=1 << 10)
        if found is not None:
            try:
                open_request = request(msgspec.msgpack.decode(found, type=_Sent))
            except msgspec.MsgspecError:  # cut short by a power failure
                open_request = new
            if open_request is not new and not open_request.is_expired:
                return SyftFuture(open_request, client, limits=limits, cache=key)
        mailbox.store.put(mailbox.request(new.id), new.frame.buffers())
        store.put(key, [memoryview(msgspec.msgpack.encode(_Sent(new.id, new.created, lifetime)))])
    return SyftFuture(new, client, limits=limits, cache=key)


def broadcast(
    urls: Sequence[SyftBoxURL | str],
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    expiry: str = DEFAULT_EXPIRY,
    cache: bool | None = None,
    client: Client | None = None,
    encrypt: bool = False,
    *,
    limits: Limits = MESSAGE_LIMITS,
) -> SyftBulkFuture:
    """Send the same request to several endpoints; :func:`send` says what the arguments are, and what is raised.

    Every URL is checked before anything is sent.
    """
    refuse_encryption(encrypt=encrypt)
    client = Client.load() if client is None else client
    addresses = [SyftBoxURL(url) for url in urls]
    for address in addresses:
        client.mailbox(address)
    return SyftBulkFuture(
        [
            send(address, body=body, headers=headers, expiry=expiry, cache=cache, client=client, limits=limits)
            for address in addresses
        ]
    )


def reply_to(
    request: SyftRequest,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    status_code: SyftStatus = SyftStatus.SYFT_200_OK,
    client: Client | None = None,
    encrypt: bool = False,
) -> SyftResponse:
    """Put the response to a request into the own datasite, in place of one that is there.

    Programs that answer with :class:`~fedpost.compat.syft_rpc.SyftEvents` do not need it: a handler's value is the
    response.

    Args:
        request: What is answered.
        body: Any value that :func:`~fedpost.compat.syft_rpc.serialize` takes.
        headers: Texts by name.
        status_code: What became of the request.
        client: Who answers; without it the one of SyftBox's configuration.
        encrypt: Refused: sealing is not built yet.

    Raises:
        EncodeError: The body cannot be written, or is private.
        ConfigError: The request was not to this client, a header is none, or encryption was asked for.
        SyftTransportError: The folder cannot be written.
    """
    refuse_encryption(encrypt=encrypt)
    client = Client.load() if client is None else client
    if request.url.host != client.email:
        raise ConfigError(f"a request to {request.url.host} is not {client.email}'s to answer", where=str(request.id))
    response = SyftResponse.make(
        request.header, sender=client.email, body=body, headers=headers, status_code=status_code
    )
    mailbox = client.mailbox(request.url)
    with syft_errors():
        mailbox.store.put(mailbox.response(request.id), response.frame.buffers())
    return response


def parse_duration(duration: str) -> timedelta:
    """``"30s"``, ``"15m"``, ``"24h"`` or ``"3d"`` as a time span.

    Raises:
        ConfigError: It is none, or more than ten years.
    """
    match = _DURATION.fullmatch(duration.strip().lower())
    span = timedelta(**{_UNITS[match[2]]: int(match[1])}) if match else None
    if span is None or span > _LONGEST:
        raise ConfigError(f"{duration[:40]!r} is not a duration", hint="Write '30s', '15m', '24h' or '3d'.")
    return span


def _content_id(request: SyftRequest, content: Frame) -> str:
    """What two requests that ask the same have in common."""
    header = request.header
    parts = [header.sender, header.url, header.method, sorted(header.headers.items()), content.digest]
    return blake3.blake3(msgspec.msgpack.encode(parts)).hexdigest()
