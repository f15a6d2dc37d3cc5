"""One operation of a serializer: how long it takes, of how many bytes it is, and when it takes too long."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from fedpost.compat.kafkafl.errors import SerializationError, serialization_errors
from fedpost.compat.kafkafl.package import data_sizes
from fedpost.frame import Frame
from fedpost.telemetry import Telemetry

__all__ = ["Operation", "operation"]


class Operation:
    """An operation that is going on.

    Args:
        allowed: Seconds that it may take; None for as long as it likes.
    """

    def __init__(self, allowed: float | None) -> None:
        self.raw = self.stored = 0
        self._allowed = allowed
        self._start = time.perf_counter()

    def seconds(self) -> float:
        """How long it has taken."""
        return time.perf_counter() - self._start

    def ended(self, stage: str, frame: Frame) -> None:
        """A stage has ended, and the frame is what there is.

        Raises:
            SerializationError: The operation has taken too long.
        """
        self.raw, self.stored = data_sizes(frame)
        seconds = self.seconds()
        if self._allowed is not None and seconds > self._allowed:
            text = f"{seconds:.3f} s after {stage}, {self._allowed} s allowed"
            raise SerializationError(text, where="max_serialization_time")


@contextmanager
def operation(name: str, allowed: float | None, telemetry: Telemetry) -> Iterator[Operation]:
    """Time an operation and tell of it, also when it fails; its errors are serialization errors, too."""
    current = Operation(allowed)
    failed = True
    try:
        with serialization_errors():
            yield current
        failed = False
    finally:
        values = {"raw": current.raw, "stored": current.stored, "failed": failed}
        telemetry.event(name, {"seconds": current.seconds(), **values})
