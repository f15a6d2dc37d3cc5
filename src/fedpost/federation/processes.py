"""The processes that host sites on this machine: started, watched, and stopped by whoever runs the federation here.

Rules: a host process ends when its standard input closes, so none outlives a parent that was killed; what it prints
goes to a log of its own; stopping asks first and kills after a second.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from fedpost.errors import RunError

__all__ = ["SiteProcesses"]

_GRACE: Final = 1.0
_TAIL: Final = 4000
# Many processes on few cores: threads of their own inside each would only fight.
_ONE_THREAD: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(slots=True)
class _Host:
    address: str
    sites: Sequence[str]
    process: subprocess.Popen[bytes]
    log: Path
    gone: bool = False


class SiteProcesses:
    """Host processes, as a context manager.

    Args:
        commands: For each address the arguments after ``python -m fedpost``, and the sites that it hosts.
        logs: Folder for their output, one file an address.
        environment: Variables to add.
    """

    def __init__(
        self,
        commands: Mapping[str, tuple[Sequence[str], Sequence[str]]],
        logs: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._commands = commands
        self._logs = logs
        self._environment = {**dict.fromkeys(_ONE_THREAD, "1"), **os.environ, **(environment or {})}
        self._hosts: list[_Host] = []

    def __enter__(self) -> Self:
        """Start them all."""
        self._logs.mkdir(parents=True, exist_ok=True)
        try:
            for address, (arguments, sites) in self._commands.items():
                log = self._logs / f"{address}.log"
                with log.open("wb") as output:
                    process = subprocess.Popen(  # noqa: S603 - our own interpreter and program
                        [sys.executable, "-P", "-m", "fedpost", *arguments],
                        stdin=subprocess.PIPE,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        env=self._environment,
                        start_new_session=True,  # Ctrl-C in the terminal is the parent's to handle
                    )
                self._hosts.append(_Host(address, sites, process, log))
        except BaseException:
            self.stop(0)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop(_GRACE)

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by address."""
        return {host.address: host.process.pid for host in self._hosts}

    def lost(self) -> dict[str, str]:
        """Sites whose process has ended since the last call, and how it ended.

        Raises:
            RunError: No process is left.
        """
        lost: dict[str, str] = {}
        for host in self._hosts:
            if not host.gone and (code := host.process.poll()) is not None:
                host.gone = True
                lost |= dict.fromkeys(host.sites, f"its process ended with code {code}, see {host.log}")
        if self._hosts and all(host.gone for host in self._hosts):
            last = self._hosts[-1]
            raise RunError(f"every site's process has ended; the last lines of {last.log} are:\n{_tail(last.log)}")
        return lost

    def release(self, timeout: float) -> None:
        """Give the processes time to end by themselves, then ask them to end; do not wait for that."""
        self._wait(timeout)
        for host in self._hosts:
            if host.process.stdin is not None:
                host.process.stdin.close()

    def _wait(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        for host in self._hosts:
            try:
                host.process.wait(max(deadline - time.monotonic(), 0))
            except subprocess.TimeoutExpired:
                return

    def stop(self, grace: float) -> None:
        """End them: close their input, wait ``grace`` seconds in all, then kill what is left."""
        self.release(0)
        self._wait(grace)
        for host in self._hosts:
            if host.process.poll() is None:
                host.process.kill()
                host.process.wait()
        self._hosts.clear()


def _tail(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(log.stat().st_size - _TAIL, 0))
        return file.read().decode(errors="replace")
