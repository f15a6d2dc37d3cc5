"""A receiver of parts as something to fuzz, with restarts and a disk that is damaged."""
# ruff: noqa: INP001, PLR2004 - scripts, not a package; acts and sizes of samples are plain numbers

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import structures
from models import LIMITS, frames, other, require

from fedpost.errors import LocalError, RemoteError
from fedpost.frame import Frame, Part, PartAssembler, PartLimits


def check_parts(data: bytes) -> bool:
    """A receiver that gets parts in any order, is restarted, and whose disk is damaged."""
    limits = PartLimits(frame=LIMITS, max_part=1 << 20, max_parts=1 << 12, sender_transfers=3)
    folder = Path(tempfile.mkdtemp())
    try:
        return Receiver(folder, limits).run(structures.records(data)[:64])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Receiver:
    """An assembler, and beside it a plain account of what it was given."""

    def __init__(self, folder: Path, limits: PartLimits) -> None:
        self.folder, self.limits = folder, limits
        self.assembler = PartAssembler(folder, limits)
        self.given: dict[bytes, dict[int, bytes]] = {}
        self.harmed = False

    def run(self, acts: list[list[Any]]) -> bool:
        """Let everything happen; whether a frame came of it."""
        opened = False
        for act, data in [*acts, [5, b""]]:
            try:
                opened |= self.happen(act, data)
            except RemoteError:
                continue
            except LocalError:
                require(self.harmed, "an error of the disk, and nobody has touched it")
        self.assembler.close()
        return opened

    def happen(self, act: int, data: bytes) -> bool:
        """Let one thing happen; whether it was that a frame was opened."""
        if act == 1:
            self.assembler.close()
            self.assembler = PartAssembler(self.folder, self.limits)
        elif act == 2:
            self.damage(data)
        elif act == 3:
            for transfer in self.assembler.transfers():
                transfer.missing()
        elif act == 4 and (transfers := self.assembler.transfers()):
            self.given.pop(transfers[0].plan.transfer, None)
            transfers[0].discard()
        elif act == 5:
            return self.open()
        else:
            self.add(data)
        return False

    def add(self, data: bytes) -> None:
        """Give it a part."""
        part = Part.decode(data, self.limits)
        require(bytes(part) == data, "the part has other bytes")
        plan = (part.plan.transfer, part.plan.total, part.plan.size)
        require(other("parts_reader").read_part(data) == (part.index, plan, data[88:]), "another reader")
        transfer = self.assembler.add(part, sender="site")
        self.given.setdefault(part.plan.transfer, {})[part.index] = data[88:]
        known = self.given[part.plan.transfer]
        require(self.harmed or transfer.received == len(known), "parts that were not given, or are forgotten")

    def damage(self, data: bytes) -> None:
        """Change a byte on its disk, or cut its journal."""
        files = sorted(path for path in self.folder.iterdir() if path.name != "lock")
        if not files or len(data) < 4:
            return
        self.harmed = True
        path = files[data[0] % len(files)]
        at = int.from_bytes(data[1:3], "little") % max(path.stat().st_size, 1)
        with path.open("r+b") as file:
            if path.suffix == ".journal" and data[3] & 1:
                file.truncate(at)
                return
            file.seek(at)
            file.write(data[3:4])

    def open(self) -> bool:
        """Open what is complete, which must be what was given."""
        opened = False
        for transfer in self.assembler.transfers():
            try:
                frame = transfer.open()
            except RemoteError:
                continue
            given = self.given[frame.digest]
            require(bytes(frame) == b"".join(given[index] for index in sorted(given)), "another frame than was given")
            opened = True
        return opened


def part_seeds() -> Iterator[bytes]:
    """Runs of parts, in order and with everything that can happen between them."""
    small = [bytes(Frame.build({}, [memoryview(bytes(range(200)))])), next(frames("fedwt")), next(frames("msgpack"))]
    for data in small:
        for size in (88 + 64, 88 + 100, 1 << 20):
            found = [[0, bytes(part)] for part in Frame.decode(data).parts(size)]
            yield structures.recorded(found)
            yield structures.recorded([*found[::-1], [1, b""], [3, b""], [5, b""], [2, b"\0\x50\0\1"], *found])
