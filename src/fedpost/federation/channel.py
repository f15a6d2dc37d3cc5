"""Messages over a transport, each taking effect once.

Rules: what cannot be read is refused and set aside with the reason, never raised into the run; what was seen before is
acknowledged and dropped; what has expired is dropped; a message is acknowledged by whoever made it take effect.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Final

from fedpost.errors import ProtocolError, RemoteError, TransportError, TruncatedError
from fedpost.frame import Frame, Limits
from fedpost.protocol import Message, decode_message
from fedpost.telemetry import Telemetry
from fedpost.transports import Delivery, Endpoint

__all__ = ["Channel", "Received"]

_REMEMBERED: Final = 100_000
_RETRY_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True)
class Received:
    """A message that was read, with its delivery to settle.

    Attributes:
        message: The message; its digests were checked.
        delivery: ``ack()`` it when it has taken effect, or ``reject()`` it.
    """

    message: Message
    delivery: Delivery


class Channel:
    """One process's messages.

    Args:
        endpoint: The transport's end.
        recipients: The names that messages may be for.
        telemetry: Where refusals are recorded.
        limits: The budget for what is received.

    Attributes:
        endpoint: The transport's end.
        limits: The budget, which grows with the model.
    """

    def __init__(self, endpoint: Endpoint, recipients: frozenset[str], telemetry: Telemetry, limits: Limits) -> None:
        self.endpoint: Final = endpoint
        self._recipients = recipients
        self._telemetry = telemetry
        self.limits = limits
        self._seen: dict[str, None] = {}

    def send(self, address: str, message: Frame) -> int:
        """Send a message; return its size in bytes.

        Raises:
            TransportError: The medium failed.
        """
        return self.endpoint.send(address, message)

    def settle(self, delivery: Delivery, refusal: RemoteError | None = None) -> None:
        """Acknowledge a delivery, or set it aside with the reason; a medium that cannot do that is recorded."""
        try:
            if refusal is None:
                delivery.ack()
            else:
                delivery.reject(str(refusal))
        except TransportError as error:
            self._telemetry.event("message_refused", {"reason": f"it cannot be put away: {error}"})

    def receive(self, timeout: float) -> Received | None:
        """The next message that can be read and was not seen before, or None after ``timeout`` seconds.

        Raises:
            TransportError: The medium failed.
        """
        deadline = time.monotonic() + timeout
        pause = threading.Event()
        while True:
            left = deadline - time.monotonic()
            try:
                delivery = self.endpoint.receive(max(left, 0))
                if delivery is None:
                    return None
                message = self._read(delivery)
                if message is not None:
                    return Received(message, delivery)
            except RemoteError as error:  # too large, or not ours to read: it stays where it is
                self._refused(error)
            except TransportError:  # shares fail for moments; what lasts until the deadline is told
                if left <= 0:
                    raise
                pause.wait(min(left, _RETRY_SECONDS))
            if time.monotonic() >= deadline and timeout > 0:
                return None  # however much there is to refuse, the caller has its own clock to look at

    def _read(self, delivery: Delivery) -> Message | None:
        try:
            with self._telemetry.span("verify"):
                message = decode_message(delivery.data, limits=self.limits)
        except RemoteError as error:
            if not (isinstance(error, TruncatedError) and delivery.defer()):
                self._refused(error)
                self.settle(delivery, error)
            return None
        envelope = message.envelope
        if envelope.recipient not in self._recipients:
            stray = ProtocolError(f"a message of {envelope.sender} for {envelope.recipient} is not for this peer")
            self._refused(stray)
            self.settle(delivery, stray)
            return None
        if envelope.id in self._seen:
            self.settle(delivery)
            return None
        self._seen[envelope.id] = None
        if len(self._seen) > _REMEMBERED:
            del self._seen[next(iter(self._seen))]
        if envelope.expires is not None and envelope.expires < time.time():
            self._refused(ProtocolError(f"a {envelope.type} of {envelope.sender} had expired"))
            self.settle(delivery)
            return None
        return message

    def _refused(self, error: RemoteError) -> None:
        # Without labels: what the sender says of itself is not known to be true.
        self._telemetry.event("message_refused", {"reason": str(error)})
