"""A bar on a terminal for what takes long; nothing elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn
from rich.progress import Progress as Bar

__all__ = ["Show", "progress"]

_PATIENCE: Final = 1.0

Show = Callable[[str, int, int], None]
"""Told what is being done, and how many bytes of all are done."""


@contextmanager
def progress() -> Iterator[Show]:
    """One bar, on standard error, from the second second on."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn())
    bar = Bar(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task("")
    start = time.monotonic()

    def show(what: str, done: int, total: int) -> None:
        bar.update(task, description=what, completed=done, total=total)
        if not bar.live.is_started and not bar.disable and time.monotonic() - start > _PATIENCE:
            bar.start()

    try:
        yield show
    finally:
        bar.stop()
