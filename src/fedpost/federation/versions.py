"""The server's versions of the global model, each but the first made by a packet that sites can follow.

Rules: the global model *is* what its packet decodes to: the server applies the packet that it sends, to the base that
it names, and keeps what was lost of the strategy's model as its own residual. The first version, and one of other
tensors than the last, is exact. Nothing here does I/O; every step makes a new value.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec
import numpy as np

from fedpost.codecs import NO_RESIDUAL, Base, Residual
from fedpost.errors import DecodeError
from fedpost.federation.frames import split, together
from fedpost.federation.pipelines import room_for
from fedpost.frame import DEFAULT_LIMITS, Frame, Limits
from fedpost.pipeline import Pipeline, decode_tensors, tensor_sizes
from fedpost.protocol import MAX_PACKETS, Digest
from fedpost.tensors import Array, MemoryTensors, TensorSource

__all__ = ["Packet", "Versions", "in_order", "same_tensors"]

_VERSIONS: Final = "versions"


@dataclass(frozen=True, slots=True)
class Packet:
    """What makes one version of the next-older one.

    Attributes:
        base: The digest of the version that it changes.
        model: The digest of the version that it makes.
        data: The bytes of its frame.
        sizes: Bytes of each tensor in it.
    """

    base: bytes
    model: bytes
    data: bytes
    sizes: Mapping[str, int]

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return len(self.data)


@dataclass(frozen=True, slots=True)
class Versions:
    """The newest version, and the packets of the last ones; a value.

    Attributes:
        pipeline: How packets are encoded.
        base: The newest version, or None when there is none.
        residual: What the packets have lost and no later one has made good.
        packets: Oldest first; each makes the base of the next, and the last one ``base``.
    """

    pipeline: Pipeline
    base: Base | None = None
    residual: Residual = field(default_factory=lambda: NO_RESIDUAL)
    packets: tuple[Packet, ...] = ()

    @property
    def newest(self) -> Base:
        """The newest version.

        Raises:
            RuntimeError: Nothing was published yet.
        """
        if self.base is None:
            raise RuntimeError("nothing was published yet")
        return self.base

    def published(self, tensors: Mapping[str, Array]) -> Versions:
        """The versions once there is a new model.

        Args:
            tensors: What the strategy made; the new version is what sites will decode of it.

        Raises:
            EncodeError: The pipeline cannot carry it.
        """
        if self.base is None or not same_tensors(MemoryTensors(tensors), self.base.tensors):
            return Versions(self.pipeline, Base.of({name: _locked(array) for name, array in tensors.items()}))
        ordered = in_order(tensors, self.base.tensors)
        frame, residual = self.pipeline.encode_update(ordered, base=self.base, residual=self.residual)
        # Decoded out of the bytes that travel, and not out of the strategy's memory, which it may write to again.
        data = bytes(frame)
        limits = room_for(DEFAULT_LIMITS, sum(array.nbytes for array in ordered.values()))
        sent = Frame.decode(data, limits=limits, verify="never")
        base = Base.of(decode_tensors(sent, limits=limits, base=self.base).arrays())
        if base.digest == self.base.digest:  # too little has changed, as yet
            return replace(self, residual=residual)
        sizes = {name: stored for name, (_, stored) in tensor_sizes(sent, limits=limits, base=self.base).items()}
        packet = Packet(self.base.digest, base.digest, data, sizes)
        return Versions(self.pipeline, base, residual, (*self.packets, packet)[-MAX_PACKETS:])

    def trimmed(self, nbytes: int) -> Versions:
        """The versions without the packets that nobody will be sent, as they take more bytes than the model itself.

        Args:
            nbytes: Bytes of the model as it is.
        """
        total, keep = 0, 0
        for packet in reversed(self.packets):
            total += packet.nbytes
            if total > nbytes:
                break
            keep += 1
        return self if keep == len(self.packets) else replace(self, packets=self.packets[len(self.packets) - keep :])

    def way(self, holds: Collection[bytes]) -> tuple[Packet, ...] | None:
        """The packets to the newest version from the nearest that a site holds; None when there is no such way."""
        if self.base is not None and self.base.digest in holds:
            return ()
        for index in reversed(range(len(self.packets))):
            if self.packets[index].base in holds:
                return self.packets[index:]
        return None

    def frame(self) -> Frame:
        """All of it as one frame."""
        packets = {str(number): np.frombuffer(packet.data, np.uint8) for number, packet in enumerate(self.packets)}
        model = {} if self.base is None else self.base.tensors.arrays()
        rows = [_Row(base=packet.base, model=packet.model, sizes=dict(packet.sizes)) for packet in self.packets]
        notes = _Notes(
            pipeline=str(self.pipeline),
            checksum=self.pipeline.checksum,
            model=None if self.base is None else self.base.digest,
            packets=rows,
        )
        return together({"model": model, "residual": self.residual, "packet": packets}, {_VERSIONS: notes})

    @classmethod
    def of(cls, frame: Frame, *, limits: Limits = DEFAULT_LIMITS) -> Versions:
        """Read :meth:`frame` back.

        Raises:
            DecodeError: It is something else, or was damaged.
        """
        notes = frame.section(_VERSIONS, _Notes, limit=limits.max_header)
        parts = split(frame, limits)
        base = None if notes.model is None else Base.of(parts.get("model", {}))
        data = parts.get("packet", {})
        if base is not None and base.digest != notes.model:
            raise DecodeError("the model is not the one that it says")
        follows = [*(row.base for row in notes.packets), notes.model]
        if len(data) != len(notes.packets) or [row.model for row in notes.packets] != follows[1:]:
            raise DecodeError("its packets do not follow one another")
        packets = tuple(
            Packet(row.base, row.model, data[str(number)].tobytes(), row.sizes)
            for number, row in enumerate(notes.packets)
        )
        pipeline = Pipeline.parse(notes.pipeline, checksum=notes.checksum)
        return cls(pipeline, base, parts.get("residual", {}), packets)


class _Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    base: Digest
    model: Digest
    sizes: dict[str, int]


class _Notes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pipeline: str
    checksum: str
    model: Digest | None
    packets: list[_Row]


def same_tensors(one: TensorSource, other: TensorSource) -> bool:
    """Whether two models have the same names, types and shapes, in any order."""
    return {spec.name: spec for spec in one.specs} == {spec.name: spec for spec in other.specs}


def in_order(tensors: Mapping[str, Array], like: TensorSource) -> dict[str, Array]:
    """The same tensors in the order of another model's, since a list of arrays means what its order says."""
    return {spec.name: tensors[spec.name] for spec in like.specs}


def _locked(array: Array) -> Array:
    """A copy that nobody changes: what a version is must stay what its digest says."""
    copy = array.copy()
    copy.flags.writeable = False
    return copy
