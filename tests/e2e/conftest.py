"""Real processes: a workspace for one federation, and commands that are watched and cleaned up after."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
import yaml

APPS = Path(__file__).parent / "apps"
PATIENCE = 60.0
T = TypeVar("T")


def wait_for(look: Callable[[], T], what: str, timeout: float = PATIENCE) -> T:
    """What ``look`` finds, as soon as it finds something."""
    deadline = time.monotonic() + timeout
    while not (found := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:g} s in vain for {what}")
        time.sleep(0.02)
    return found


class Command:
    """One ``fedpost`` command in a process group of its own."""

    def __init__(self, arguments: list[str], folder: Path, number: int, **options: Any) -> None:
        self.arguments = arguments
        self._files = [folder / f".command-{number}.{name}" for name in ("out", "err")]
        with self._files[0].open("wb") as out, self._files[1].open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fedpost", *arguments],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
                **options,
            )
        self._family: dict[int, psutil.Process] = {}

    @property
    def out(self) -> str:
        return self._files[0].read_text()

    @property
    def err(self) -> str:
        return self._files[1].read_text()

    def wait(self, timeout: float = PATIENCE) -> int:
        """Its exit code."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.arguments} still runs\n{self.out}\n{self.err}") from None

    def ok(self, timeout: float = PATIENCE) -> Command:
        """Wait for its end, which must be a good one."""
        code = self.wait(timeout)
        assert code == 0, f"{self.arguments} ended with {code}\n{self.out}\n{self.err}"
        return self

    def children(self) -> list[psutil.Process]:
        """The processes that it started, as long as it runs itself; they are remembered."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                self._family[child.pid] = child
        return list(self._family.values())

    def interrupt(self, number: int = signal.SIGINT) -> None:
        """Signal the process group, as a terminal does."""
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """SIGKILL, to this process alone."""
        self.process.kill()
        self.process.wait()

    def clean_up(self) -> None:
        family = self.children()
        if self.process.poll() is None:
            self.kill()
        for child in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()


def running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Run:
    """What a run left in its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def records(self) -> list[dict[str, Any]]:
        """Every whole line of the ledger."""
        path = self.folder / "ledger.jsonl"
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith(b"\n")]

    def events(self, name: str, **labels: Any) -> list[dict[str, Any]]:
        found = [record for record in self.records() if record.get("name") == name]
        return [event for event in found if all(event.get(key) == value for key, value in labels.items())]

    def transfers(self, **labels: Any) -> list[dict[str, Any]]:
        found = [record for record in self.records() if record["kind"] == "transfer"]
        return [one for one in found if all(one.get(key) == value for key, value in labels.items())]

    def reasons(self, name: str, **labels: Any) -> list[str]:
        return [event["values"]["reason"] for event in self.events(name, **labels)]

    @property
    def status(self) -> str:
        (ended,) = self.events("run_ended")
        return ended["values"]["status"]

    def sites(self) -> list[int]:
        """How many results each round had."""
        return [event["values"]["sites"] for event in self.events("round_ended")]


class Workspace:
    """A folder with a configuration and an app in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.marks = folder / "marks"
        self.marks.mkdir(parents=True, exist_ok=True)
        self._commands: list[Command] = []

    def configure(self, app: str = "adding", *, options: dict[str, Any] | None = None, **settings: Any) -> Path:
        """Write ``run.yaml``; what is not given is small and quick."""
        values: dict[str, Any] = {
            "name": "test",
            "app": f"{APPS / app}.py:app",
            "options": {"folder": str(self.marks), **(options or {})},
            "sites": 2,
            "rounds": 2,
            "strategy": {"name": "fedavg"},
            "round_timeout": PATIENCE,
            "register_timeout": PATIENCE,
        }
        file = self.folder / "run.yaml"
        file.write_text(yaml.safe_dump(values | settings))
        return file

    def start(self, *arguments: str, **options: Any) -> Command:
        """Start ``fedpost`` with these arguments in this folder."""
        command = Command(list(arguments), self.folder, len(self._commands), **options)
        self._commands.append(command)
        return command

    def run(self, *arguments: str) -> Run:
        """Run the federation here to its good end."""
        self.start("run", "run.yaml", *arguments).ok()
        return self.runs()[-1]

    def runs(self) -> list[Run]:
        folder = self.folder / "runs"
        return (
            [Run(path) for path in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime)]
            if folder.exists()
            else []
        )

    def current(self, number: int = 0) -> Run:
        """The run with this number, as soon as its folder is there."""
        return wait_for(lambda: self.runs()[number:], "a run's folder")[0]

    def wait_mark(self, name: str) -> str:
        """The content of a mark that an app leaves, once it is there."""
        return wait_for(lambda: (self.marks / name).exists() and (self.marks / name).read_text(), name)

    def open_gate(self, name: str = "go") -> None:
        (self.marks / name).touch()

    def wait_event(self, run: Run, name: str, **labels: Any) -> dict[str, Any]:
        return wait_for(lambda: run.events(name, **labels), f"{name} {labels}")[0]

    def clean_up(self) -> None:
        for command in self._commands:
            command.clean_up()


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    space = Workspace(tmp_path / "work")
    yield space
    space.clean_up()


@pytest.fixture
def until() -> Callable[..., Any]:
    return wait_for


@pytest.fixture
def alive() -> Callable[[psutil.Process], bool]:
    return running


@pytest.fixture(scope="session")
def workspace_type() -> type[Workspace]:
    return Workspace


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """Make a folder once, also when several workers of pytest-xdist want it."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def get(name: str, make: Callable[[Path], None]) -> Path:
        folder, done = base / name, base / f"{name}.done"
        try:
            (base / f"{name}.lock").touch(exist_ok=False)
        except FileExistsError:
            wait_for(done.exists, name, 280)
        else:
            try:
                make(folder)
            finally:
                done.touch()
        return folder

    return get
