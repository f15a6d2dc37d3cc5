"""``fedpost convert`` and ``diff`` as processes: memory does not grow with the model, and nothing stays behind."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedpost.tensors.safetensors import to_bytes

MIB = 1 << 20
TENSORS, TENSOR_MIB = 10, 32

# Runs a command in this process and tells the peak of its own memory: what is mapped from files does not count.
_CHILD = """
import json, sys, threading
from pathlib import Path
from fedpost.cli import main

def anonymous():
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0]) << 10

peak, end = anonymous(), threading.Event()

def watch():
    global peak
    while not end.wait(0.002):
        peak = max(peak, anonymous())

watcher = threading.Thread(target=watch)
watcher.start()
try:
    code = main(sys.argv[1:], standalone_mode=False)
except SystemExit as stop:
    code = stop.code
end.set()
watcher.join()
print(json.dumps({"peak": peak, "code": code or 0}), file=sys.stderr)
"""


def measured(*arguments):
    """Exit code, and peak of anonymous memory in MiB."""
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, *map(str, arguments)], capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stderr.splitlines()[-1])
    return found["code"], found["peak"] / MIB


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A model of 320 MiB."""
    folder = tmp_path_factory.mktemp("large")
    block = np.random.default_rng(0).normal(scale=0.02, size=MIB // 4).astype(np.float32)
    weight = np.tile(block, TENSOR_MIB)
    buffers = to_bytes({f"layer.{index}": weight.reshape(1024, -1) for index in range(TENSORS)})
    with (folder / "model.safetensors").open("wb") as file:
        file.writelines(buffers)
    return folder / "model.safetensors"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("out.fedwt", ["--compression", "zstd(1)"]),
        ("out.frame", ["--format", "numpy", "--compression", "lx"]),
        ("out.fedwt1", []),
        ("out.npz", []),
        ("out.frame", ["--format", "safetensors", "--compression", "lz4"]),
    ],
    ids=["fedwt zstd", "numpy lx", "fedwt1", "npz", "safetensors lz4"],
)
def test_memory_does_not_grow_with_the_model(large, tmp_path, name, options):
    """There and back, compared."""
    path, back = tmp_path / name, tmp_path / "back.safetensors"
    for arguments in (
        ("convert", large, path, *options, "--check"),
        ("convert", path, back, "--check"),
        ("diff", path, large),
    ):
        code, peak = measured(*arguments)
        assert code == 0
        assert peak < 160, arguments  # two threads with their chunks, and what Python itself holds; the model has 320
    assert subprocess.run(["cmp", large, back], check=False).returncode == 0


def unnamed_files(pid, folder):
    """What a process has open in a folder and has no name there."""
    found = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(path.readlink())
    return [path for path in found if path.parent == folder and path.name.startswith("#")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=["INT", "TERM", "KILL"])
def test_a_conversion_that_is_stopped_leaves_nothing(large, workspace, until, number):
    (workspace.folder / "out.fedwt").write_bytes(b"precious")
    before = sorted(path.name for path in workspace.folder.iterdir())
    command = workspace.start("convert", str(large), "out.fedwt", "--compression", "zstd(19)", "--force")
    until(lambda: unnamed_files(command.process.pid, workspace.folder), "the unfinished file")
    command.interrupt(number)
    assert command.wait() == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    assert (command.out, command.err) == ("", "")
    left = [path.name for path in workspace.folder.iterdir() if not path.name.startswith(".command-")]
    assert sorted(left) == before
    assert (workspace.folder / "out.fedwt").read_bytes() == b"precious"


def test_a_full_disk_is_told_in_a_line(tmp_path):
    """The limit on the size of files stands for the disk."""
    np.savez(tmp_path / "in.npz", w=np.arange(100_000))
    code = (
        "import resource, signal, sys\n"
        "from fedpost.cli import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "main(sys.argv[1:])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "convert", tmp_path / "in.npz", tmp_path / "out.fedwt"],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: [Errno 27] File too large")
    assert done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in.npz"]
