"""Handlers by endpoint: which one a request is for, and what becomes of calling it.

Rules: a body is read, and is what the handler's annotation says, before the handler is called; what a handler raises is
logged here and not sent, since it may hold anything that the handler has seen.
"""

from __future__ import annotations

import inspect
import logging
import typing
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from fedpost.compat.syft_rpc.messages import RequestHeader, SyftRequest, SyftResponse
from fedpost.compat.syft_rpc.registering import Reading
from fedpost.compat.syft_rpc.status import SyftStatus
from fedpost.compat.syft_rpc.url import SyftBoxURL, check_endpoint
from fedpost.errors import ConfigError, DecodeError, LocalError, RegistryError

__all__ = ["Call", "Endpoints", "Response"]

_log = logging.getLogger("fedpost.compat.syft_rpc")


@dataclass(frozen=True)
class Response:
    """What a handler returns when it says more than a value.

    Attributes:
        body: The value.
        status_code: What became of the request.
        headers: Texts by name.
    """

    body: Any = None
    status_code: SyftStatus = SyftStatus.SYFT_200_OK
    headers: dict[str, str] | None = None


@dataclass(frozen=True)
class _Handler:
    call: Callable[[Any], Any]
    wanted: Any
    idempotent: bool

    def argument(self, request: SyftRequest) -> Any:
        if self.wanted is SyftRequest:
            return request
        return request.model(self.wanted) if hasattr(self.wanted, "model_validate") else request.value(self.wanted)


@dataclass(frozen=True)
class Call:
    """A request whose body was read, and the function that is to be called with it."""

    request: SyftRequest
    function: Callable[[Any], Any]
    argument: Any


class Endpoints:
    """The handlers of one app.

    Args:
        owner: The e-mail address of the datasite.
        app: The app.
        longest: The longest expiry that a request may have.
    """

    def __init__(self, owner: str, app: str, longest: timedelta) -> None:
        self._owner: Final = owner
        self._app: Final = app
        self._longest: Final = longest
        self._handlers: dict[str, _Handler] = {}

    def add(self, endpoint: str, function: Callable[[Any], Any], *, idempotent: bool) -> None:
        """Have a function called for an endpoint.

        Raises:
            RegistryError: The endpoint has a function, or the annotation names two classes of one name.
            ConfigError: Not an endpoint, or a function of other arguments, or an asynchronous one.
        """
        name = check_endpoint(endpoint)
        if inspect.iscoroutinefunction(function):
            raise ConfigError(f"the function of {name} is asynchronous", hint="Write def, and use asyncio.run in it.")
        parameters = list(inspect.signature(function).parameters.values())
        if len(parameters) != 1:
            raise ConfigError(f"the function of {name} takes {len(parameters)} arguments", hint="It gets one.")
        if name in self._handlers:
            raise RegistryError(f"{name} has a function already")
        try:
            wanted = typing.get_type_hints(function).get(parameters[0].name, SyftRequest)
        except NameError as error:
            raise ConfigError(
                f"the annotation of the function of {name} cannot be read: {error}", hint="Use classes of a module."
            ) from error
        Reading(wanted)  # raises here what would fail for every request
        self._handlers[name] = _Handler(function, wanted, idempotent)

    def is_idempotent(self, request: RequestHeader) -> bool:
        """Whether the function of a request may be called again."""
        handler = self._handlers.get(SyftBoxURL(request.url).endpoint)
        return handler is not None and handler.idempotent

    def prepare(self, request: SyftRequest) -> Call | SyftResponse:
        """What is to be called for a request, or the response that refuses it."""
        left = request.expires - datetime.now(UTC)
        if not timedelta(0) <= left <= self._longest:
            status, reason = SyftStatus.SYFT_400_BAD_REQUEST, f"an expiry of more than {self._longest}"
            if left < timedelta(0):
                status, reason = SyftStatus.SYFT_419_EXPIRED, f"expired at {request.expires.isoformat()}"
            return self.respond(request.header, status, reason)
        try:
            app, endpoint = request.url.app, request.url.endpoint
        except ConfigError as error:
            return self.respond(request.header, SyftStatus.SYFT_404_NOT_FOUND, error.what)
        handler = self._handlers.get(endpoint)
        if handler is None or (request.url.host, app) != (self._owner, self._app):
            return self.respond(request.header, SyftStatus.SYFT_404_NOT_FOUND, f"nothing at {request.url}")
        try:
            return Call(request, handler.call, handler.argument(request))
        except DecodeError as error:
            return self.respond(request.header, SyftStatus.SYFT_400_BAD_REQUEST, str(error))
        except Exception as error:  # noqa: BLE001 - the user's own validators
            _log.exception("the body for %s cannot be checked", endpoint)
            reason = f"the body cannot be checked: {type(error).__name__}"
            return self.respond(request.header, SyftStatus.SYFT_400_BAD_REQUEST, reason)

    def execute(self, call: Call) -> SyftResponse:
        """Call a function; whatever it does, there is a response."""
        request = call.request
        status = SyftStatus.SYFT_500_SERVER_ERROR
        try:
            result = call.function(call.argument)
        except Exception as error:  # noqa: BLE001 - the user's own code
            _log.exception("the function of %s failed", request.url.endpoint)
            return self.respond(request.header, status, f"the function failed: {type(error).__name__}")
        found = result if isinstance(result, Response) else Response(result)
        try:
            return self.respond(request.header, found.status_code, found.body, found.headers)
        except LocalError:
            _log.exception("what the function of %s returned cannot be sent", request.url.endpoint)
            return self.respond(request.header, status, "what the function returned cannot be sent")

    def respond(
        self, request: RequestHeader, status: SyftStatus, body: Any, headers: dict[str, str] | None = None
    ) -> SyftResponse:
        """A response by the owner of the datasite.

        Raises:
            LocalError: The body, the status or a header cannot be sent.
        """
        return SyftResponse.make(request, sender=self._owner, body=body, headers=headers, status_code=status)
