"""What an attacker has: a pen for frames with right digests and wrong content; and a cell in which they are read."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import blake3
import msgpack
import pytest

MAGIC = b"\x89FPF\r\n\x1a\n"


class Forge:
    """Frames as somebody writes them who knows the specification and means harm: every digest is right."""

    def head(
        self,
        body: object,
        *,
        magic: bytes = MAGIC,
        major: int = 1,
        minor: int = 0,
        flags: int = 0,
        reserved: int = 0,
        length: int | None = None,
    ) -> bytes:
        """Prologue and header."""
        packed = body if isinstance(body, bytes) else msgpack.packb(body)
        start = struct.pack("<8sBBHIQ", magic, major, minor, flags, reserved, len(packed) if length is None else length)
        return start + blake3.blake3(start + packed).digest(length=16) + packed

    def frame(self, header: object, *stored: bytes, **prologue: Any) -> bytes:
        """A frame of a header and stored segments, padded as it must be."""
        data = self.head(header, **prologue)
        for segment in stored:
            data += bytes(-len(data) % 64) + segment
        return data

    def table(self, *stored: bytes, raw: list[Any] | None = None, rest: tuple[Any, ...] = ()) -> list[Any]:
        """A segment table with right BLAKE3 digests."""
        digests = b"".join(blake3.blake3(segment).digest() for segment in stored)
        return [[len(segment) for segment in stored] if raw is None else raw, digests, *rest]

    def sections(self, sections: dict[str, Any], *stored: bytes) -> bytes:
        """A frame of plain segments."""
        return self.frame(["blake3", [], self.table(*stored), list(sections.items())], *stored)

    def coded(
        self, raw: int, chunks: list[bytes], *, coding: str = "zstd", chunk: int = 1 << 20, lengths: Any = None
    ) -> bytes:
        """A frame of one compressed segment."""
        stored = b"".join(chunks)
        lengths = [len(part) for part in chunks] if lengths is None else lengths
        table = self.table(stored, raw=[raw], rest=([coding], [1], chunk, [lengths]))
        return self.frame(["blake3", [], table, []], stored)

    def tensors(
        self,
        *columns: Any,
        data: tuple[bytes, ...] = (b"",),
        pipeline: Any = "dense | fedwt | none",
        **sections: Any,
    ) -> bytes:
        """A frame with a tensor table."""
        return self.sections({"pipeline": pipeline, "tensors": list(columns), **sections}, *data)

    def one(self, dtype: str, dims: list[int], data: bytes = b"", *, fortran: tuple[int, ...] = ()) -> bytes:
        """A frame with one tensor."""
        return self.tensors(["a"], bytes([len(dims)]), dims, [0], [dtype], [0], list(fortran), data=(data,))

    def npy(self, header: bytes | str, body: bytes = b"", *, dtype: str = "float64", version: bytes = b"\1\0") -> bytes:
        """A frame of the format ``numpy`` with one array whose header is given."""
        text = header if isinstance(header, bytes) else header.encode("latin1")
        length = struct.pack("<H" if version[0] == 1 else "<I", len(text))
        return self.npy_file(b"\x93NUMPY" + version + length + text + body, dtype=dtype)

    def npy_file(self, data: bytes, *, dtype: str = "float64") -> bytes:
        """A frame of the format ``numpy`` whose one segment is given."""
        return self.sections({"pipeline": "dense | numpy | none", "tensors_npy": [["a"], [dtype]]}, data)


@pytest.fixture(scope="session")
def forge() -> Forge:
    return Forge()


Confine = Callable[[dict[str, bytes]], dict[str, dict[str, Any]]]


@pytest.fixture(scope="session")
def confine(tmp_path_factory: pytest.TempPathFactory) -> Confine:
    """Read frames by label in processes with 64 MiB to spare; see ``confine.py``."""

    def run(frames: dict[str, bytes]) -> dict[str, dict[str, Any]]:
        folder = tmp_path_factory.mktemp("frames")
        cases = []
        for number, (label, data) in enumerate(frames.items()):
            path = folder / str(number)
            path.write_bytes(data)
            cases.append((label, str(path)))
        script = Path(__file__).with_name("confine.py")
        done = subprocess.run(
            [sys.executable, script], input=json.dumps(cases), capture_output=True, text=True, check=False, timeout=280
        )
        assert not done.returncode, done.stderr
        results: dict[str, dict[str, Any]] = json.loads(done.stdout)
        return results

    return run
