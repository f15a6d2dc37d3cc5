"""Ctrl-C and termination: both are KeyboardInterrupt, and both can wait."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from fedpost.cli.errors import INTERRUPTED_EXIT

__all__ = ["interrupt", "interrupt_at_end_of_input", "terminable", "uninterrupted"]

_KILL_SECONDS: Final = 1.0


def interrupt(_number: int, _frame: FrameType | None) -> None:
    """A signal handler that does what Ctrl-C does.

    Raises:
        KeyboardInterrupt: Always.
    """
    raise KeyboardInterrupt


@contextmanager
def terminable() -> Iterator[None]:
    """Let termination clean up as Ctrl-C does, until the end of the block."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put Ctrl-C and termination off until the end of the block.

    Raises:
        KeyboardInterrupt: At the end of the block, when one of the two came.
    """
    pending: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda number, _frame: pending.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if pending:
        raise KeyboardInterrupt


def interrupt_at_end_of_input() -> None:
    """End this process as Ctrl-C would when the parent's end of the pipe closes, however the parent ended."""
    while os.read(0, 4096):
        pass
    # Not SIGINT, which stays ignored in a process that was started in the background of a script.
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(_KILL_SECONDS)
    os._exit(INTERRUPTED_EXIT)  # the user's code has swallowed the interruption
