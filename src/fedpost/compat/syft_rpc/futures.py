"""Responses that are still to come.

Rules: nothing is deleted by looking; a response that comes late is still a response; a file that is not whole yet is
looked at again; new files are seen by the folder's events, and by a look now and then where it gives none.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import blake3

from fedpost.compat.syft_rpc.datasites import Client
from fedpost.compat.syft_rpc.errors import SyftTimeoutError, syft_errors
from fedpost.compat.syft_rpc.messages import MESSAGE_LIMITS, SyftRequest, SyftResponse
from fedpost.compat.syft_rpc.status import SyftStatus
from fedpost.errors import ConfigError, ProtocolError, RemoteError, TruncatedError
from fedpost.frame import Limits

__all__ = ["SyftBulkFuture", "SyftFuture"]

_TIMEOUT: Final = 300.0
_LOOK: Final = 1.0
_SYSTEM: Final = "system@syftbox.localhost"


class SyftFuture:
    """The response to one request.

    Args:
        request: The request.
        client: Who sent it.
        limits: The budget for the response; without it 1 GiB.
        cache: Where the request is remembered, so that it is not sent twice while it is open.

    Attributes:
        request: As given.
        id: The id of request and response.
        expires: From when on an answer is no longer waited for.
    """

    def __init__(
        self, request: SyftRequest, client: Client, *, limits: Limits = MESSAGE_LIMITS, cache: str | None = None
    ) -> None:
        self.request: Final = request
        self.id: Final = request.id
        self.expires: Final = request.expires
        self._mailbox = client.mailbox(request.url)
        self._client = client
        self._limits = limits
        self._cache = cache
        self._response: SyftResponse | None = None

    @property
    def is_expired(self) -> bool:
        """Whether an answer is no longer waited for."""
        return datetime.now(UTC) > self.expires

    @property
    def is_rejected(self) -> bool:
        """Whether SyftBox's server did not take the request."""
        return self._mailbox.has(self._mailbox.refused(self.id))

    @property
    def is_answered(self) -> bool:
        """Whether a response has been seen: then it is the one that stays. Nothing is looked up."""
        return self._response is not None

    @property
    def is_done(self) -> bool:
        """Whether :meth:`resolve` has something to give."""
        return self.resolve() is not None

    def resolve(self) -> SyftResponse | None:
        """The response, or None while there is none; one with status 419 or 403 when none is to be expected any more.

        Raises:
            DecodeError: What lies there is damaged, or too large; it stays there.
            ProtocolError: It answers another request, or somebody else wrote it.
            SyftTransportError: The folder cannot be read.
        """
        if self._response is not None:
            return self._response
        with syft_errors():
            self._response = self._look()
            rejected = self._response is None and self.is_rejected
            if self._cache is not None and (self._response is not None or rejected or self.is_expired):
                self._client.private_store().delete(self._cache)
            if self._response is not None:
                return self._response
            if rejected:
                return self._without(SyftStatus.SYFT_403_FORBIDDEN, "the request was refused by SyftBox's server")
        if self.is_expired:
            return self._without(SyftStatus.SYFT_419_EXPIRED, f"no response by {self.expires.isoformat()}")
        return None

    def wait(self, timeout: float | None = _TIMEOUT, poll_interval: float = _LOOK) -> SyftResponse:
        """Wait for the response.

        Args:
            timeout: Seconds; None waits until the request expires.
            poll_interval: The longest time, in seconds, between two looks where the folder gives no sign of new files.

        Raises:
            SyftTimeoutError: There is none yet.
            ConfigError: A time is not above 0.
            RemoteError: As :meth:`resolve`.
        """
        if (timeout is not None and not timeout > 0) or not poll_interval > 0:
            raise ConfigError("timeout and poll_interval must be greater than 0")
        response = self.resolve()
        if response is not None:
            return response
        left = (self.expires - datetime.now(UTC)).total_seconds()
        deadline = time.monotonic() + max(0.0, left if timeout is None else timeout)
        with syft_errors():
            watch = self._mailbox.store.watch(self._mailbox.responses)
        try:
            while (response := self.resolve()) is None:
                left = deadline - time.monotonic()
                if left <= 0:
                    if timeout is None:
                        return self._without(SyftStatus.SYFT_419_EXPIRED, f"no response by {self.expires.isoformat()}")
                    raise SyftTimeoutError(f"no response after {timeout:g} seconds", where=str(self.request.url))
                watch.wait(min(left, poll_interval))
        finally:
            watch.close()
        return response

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SyftFuture) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def _look(self) -> SyftResponse | None:
        data = self._mailbox.store.get(self._mailbox.response(self.id), max_bytes=self._limits.max_frame)
        if data is None:
            return None
        try:
            response = SyftResponse.loads(data, limits=self._limits)
        except TruncatedError:  # still being written by whatever synchronises the folder
            return None
        if response.id != self.id or response.url != self.request.url or response.sender != self.request.url.host:
            raise ProtocolError("a response to another request, or not by the datasite's owner", where=str(self.id))
        return response

    def _without(self, status: SyftStatus, reason: str) -> SyftResponse:
        return SyftResponse.make(self.request.header, sender=_SYSTEM, body=reason, status_code=status)


class SyftBulkFuture:
    """The responses to several requests.

    Args:
        futures: One a request.

    Attributes:
        futures: As given.
    """

    def __init__(self, futures: list[SyftFuture]) -> None:
        self.futures: Final = list(futures)
        self._responses: dict[UUID, SyftResponse] = {}

    def resolve(self) -> None:
        """Look once for every response that is missing; one that comes late takes the place of status 419.

        Raises:
            RemoteError: As :meth:`SyftFuture.resolve`, for the first that failed, when all were looked for.
        """
        failed: RemoteError | None = None
        for future in self.futures:
            try:
                response = None if future.is_answered and future.id in self._responses else future.resolve()
            except RemoteError as error:  # one site's file; it does not keep the others from us
                failed = failed or error
                continue
            if response is not None:
                self._responses[future.id] = response
        if failed is not None:
            raise failed

    def gather_completed(self, timeout: float | None = _TIMEOUT, poll_interval: float = _LOOK) -> list[SyftResponse]:
        """Wait until every response is there, or the time is over.

        Args:
            timeout: Seconds for all of them; None waits until the requests expire.
            poll_interval: As for :meth:`SyftFuture.wait`.

        Returns:
            The responses that are there, in the order of the futures.

        Raises:
            ConfigError: A time is not above 0.
            RemoteError: As :meth:`SyftFuture.resolve`, when the others were waited for: ``responses`` has them.
        """
        if timeout is not None and not timeout > 0:
            raise ConfigError("timeout must be greater than 0")
        deadline = None if timeout is None else time.monotonic() + timeout
        for future in self.pending:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                break
            try:
                self._responses[future.id] = future.wait(left, poll_interval)
            except SyftTimeoutError:
                break
            except RemoteError:  # raised again below, after the others had their time
                continue
        self.resolve()
        return self.responses

    @property
    def responses(self) -> list[SyftResponse]:
        """What has come so far, in the order of the futures."""
        return [self._responses[future.id] for future in self.futures if future.id in self._responses]

    @property
    def id(self) -> UUID:
        """One id for the ids of all."""
        ids = ",".join(str(future.id) for future in self.futures)
        return UUID(bytes=blake3.blake3(ids.encode()).digest(16), version=4)

    @property
    def pending(self) -> list[SyftFuture]:
        """Those without a response."""
        return [future for future in self.futures if future.id not in self._responses]

    @property
    def failures(self) -> list[SyftResponse]:
        """Responses that report an error."""
        return [response for response in self.responses if not response.is_success]

    @property
    def successes(self) -> list[SyftResponse]:
        """Responses that do not."""
        return [response for response in self.responses if response.is_success]

    @property
    def all_failed(self) -> bool:
        """Whether every request was answered with an error."""
        return len(self.failures) == len(self.futures)
