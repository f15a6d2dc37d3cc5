"""One gigabyte: encoded, written to a file, and opened again."""

from __future__ import annotations

import importlib
import importlib.util
import os
import secrets
from collections.abc import Callable
from pathlib import Path

import blake3
from measure import Case, Tick, figures, measure
from peers import buffers_of, make_arrays

from fedpost.frame import Frame
from fedpost.pipeline import Pipeline, decode_tensors

__all__ = ["run"]

WRITTEN = "fedpost Frame.write_to, no digests"
OPENED = "fedpost Frame.open and arrays(), digests not checked"


def run(scratch: Path, runs: int, tick: Tick) -> Case:
    """Measure in ``scratch``, which should have 5 GB free."""
    arrays = make_arrays(25, (10_000, 1000))
    raw = buffers_of(arrays)
    off, on = Pipeline(checksum="none"), Pipeline()
    folder = scratch / f"fedpost-bench-{secrets.token_hex(4)}"
    folder.mkdir()
    fd = os.open(folder / "written", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    peer_file = folder / "model.safetensors"
    safetensors = importlib.util.find_spec("safetensors") and importlib.import_module("safetensors.numpy")

    def empty() -> None:
        os.ftruncate(fd, 0)
        os.lseek(fd, 0, os.SEEK_SET)
        peer_file.unlink(missing_ok=True)

    def raw_writev() -> None:
        pending = list(raw)
        while pending:
            written = os.writev(fd, pending)
            while pending and written >= pending[0].nbytes:
                written -= pending.pop(0).nbytes
            if written:
                pending[0] = pending[0][written:]

    try:
        encoding = measure(
            {
                "fedpost, no digests": lambda: list(off.encode(arrays).buffers()),
                "fedpost, BLAKE3 digests (default)": lambda: list(on.encode(arrays).buffers()),
                "BLAKE3 alone": lambda: [blake3.blake3(buffer).digest() for buffer in raw],
            },
            runs=runs,
            tick=tick,
        )
        ready = off.encode(arrays)
        writers: dict[str, Callable[[], object]] = {
            WRITTEN: lambda: ready.write_to(fd),
            "fedpost encode and write_to, BLAKE3 digests": lambda: on.encode(arrays).write_to(fd),
            "os.writev of the raw buffers": raw_writev,
        }
        if safetensors:
            writers["safetensors save_file"] = lambda: safetensors.save_file(arrays, peer_file)
        writing = measure(writers, runs=runs, tick=tick, before=empty)
        empty()

        ours = folder / "model.fpf"
        ours.write_bytes(b"")
        with ours.open("wb") as file:
            on.encode(arrays).write_to(file.fileno())
        openers: dict[str, Callable[[], object]] = {
            OPENED: lambda: decode_tensors(Frame.open(ours, verify="never")).arrays(),
            "fedpost Frame.open and arrays(), digests checked": lambda: decode_tensors(Frame.open(ours)).arrays(),
        }
        if safetensors:
            safetensors.save_file(arrays, peer_file)
            openers["safetensors load_file"] = lambda: safetensors.load_file(peer_file)
        opening = measure(openers, runs=runs, tick=tick)
    finally:
        os.close(fd)
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    return Case(
        name="large",
        title="1 GB in 25 tensors: encode, write to a file, open",
        note="The files are in memory (tmpfs) where the machine has it, so that no disk is measured; each is empty "
        "before it is written. fedpost maps a file, and without digests to check touches no tensor until it is used; "
        "load_file reads everything into arrays of its own.",
        figures=[
            *figures("encode", encoding, ours="fedpost, no digests"),
            *figures("write", writing, ours=WRITTEN),
            *figures("open", opening, ours=OPENED),
        ],
        targets=[],
    )
