"""Models on their way to the sites: as versions where the update codec describes what changed, as they are otherwise.

Rules: a site that holds the version it is asked to work on is sent nothing; one that holds an earlier one is sent the
packets from there or a snapshot, whichever measures fewer bytes; anyone else a snapshot. What many get is encoded
once. A model that is not the newest version, as a strategy may have one for each site, is sent as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from fedpost.codecs import Base
from fedpost.errors import ProtocolError
from fedpost.federation.peers import Peer
from fedpost.federation.pipelines import room_for, snapshot_pipeline
from fedpost.federation.types import Parameters
from fedpost.federation.versions import Packet, Versions
from fedpost.frame import DEFAULT_LIMITS, Frame, Limits
from fedpost.pipeline import Pipeline, decode_tensors, picked, tensor_sizes
from fedpost.protocol import MessageType
from fedpost.telemetry import Telemetry
from fedpost.tensors import Array

__all__ = ["Downlink", "Load", "Sizes", "record_pick"]

Sizes = Mapping[str, tuple[int, int]]
"""Raw and stored bytes of each tensor of a message."""

_MEASURE: Final = 2
"""A snapshot is encoded, to be measured, for packets that add up to one of so many parts of the last one's bytes."""


@dataclass(slots=True)
class Load:
    """What a message brings of a model.

    Attributes:
        frame: The tensors or packets, or None when the site has the model already.
        sizes: Bytes of each tensor: raw those of the model that the site has then, stored those that travel.
        model: The version's digest; None for a model that is no version.
        packets: The digests of the packets' bases.
        resent: Why a site that has been sent a version before is sent all of this one; empty when it is not.
    """

    frame: Frame | None
    sizes: Sizes
    model: bytes | None = None
    packets: Sequence[bytes] = ()
    resent: str = ""
    _base: Base | None = None

    @property
    def whole(self) -> bool:
        """Whether nothing more than this could be sent."""
        return self.model is None or (self.frame is not None and not self.packets)

    @property
    def base(self) -> Base:
        """The model as the site has it: what its update is relative to."""
        if self._base is None:
            if self.frame is None:
                raise ProtocolError("nothing was sent that an update could be relative to")
            self._base = Base.of(decode_tensors(self.frame).arrays())
        return self._base


class Downlink:
    """The server's way down for models.

    Args:
        pipeline: How it wants to encode models for training.
        telemetry: Where times and sizes are recorded.
    """

    def __init__(self, pipeline: Pipeline, telemetry: Telemetry) -> None:
        self._telemetry: Final = telemetry
        self._versions = Versions(pipeline)
        self._current: Parameters | None = None
        self._snapshots: dict[str, Load] = {}
        self._last_snapshot: dict[str, int] = {}
        self._chains: dict[int, Load] = {}
        self._plain: tuple[Parameters | None, dict[str, Load]] = (None, {})
        self._same: Parameters | None = None
        self._other: Parameters | None = None

    def publish(self, parameters: Parameters, number: int) -> Parameters:
        """Make a model the newest version; return it as every site will have it, which is what counts from now on."""
        if not self._versions.pipeline.update.needs_base:
            return parameters
        before = self._versions.packets
        telemetry = self._telemetry.labelled(round=number)
        with telemetry.span("publish"):
            versions = self._versions.published(parameters.arrays())
        self._versions = versions.trimmed(parameters.nbytes)
        self._current = Parameters(versions.newest.tensors)
        self._snapshots, self._chains, self._same, self._other = {}, {}, None, None
        if versions.packets and versions.packets[-1:] != before[-1:]:
            packet = versions.packets[-1].nbytes
            telemetry.event("model_published", {"bytes": packet, "raw": self._current.nbytes})
            limits = room_for(DEFAULT_LIMITS, parameters.nbytes)
            record_pick(telemetry, Frame.decode(versions.packets[-1].data, limits=limits, verify="never"), limits)
        return self._current

    def load(self, peer: Peer, kind: MessageType, parameters: Parameters, number: int) -> Load:
        """What a message to a site brings.

        Args:
            peer: The site; what it holds decides.
            kind: The message's type.
            parameters: The model.
            number: The round's number.

        Raises:
            ProtocolError: Nothing was agreed with the site.
        """
        if peer.agreement is None:
            raise ProtocolError(f"nothing was agreed with {peer.name}")
        agreed = peer.agreement.pipeline("FitIns")
        if not agreed.update.needs_base:
            own = "EvaluateIns" if kind is MessageType.EVALUATION_COMMAND else "FitIns"
            return self._as_it_is(peer.agreement.pipeline(own), parameters, number)
        whole = snapshot_pipeline(peer.agreement)
        if not self._is_version(parameters):
            return self._as_it_is(whole, parameters, number)
        wanted = self._versions.pipeline
        reads = (str(agreed), agreed.checksum) == (str(wanted), wanted.checksum)
        way = self._versions.way(peer.holds)
        if way is not None and (reads or not way) and not self._dearer(way, whole, number):
            return self._chain(way)
        snapshot = self._snapshot(whole, number)
        why = _why(peer, way) if reads else f"it cannot read the packets, which are {wanted}"
        return replace(snapshot, resent=why) if peer.served else snapshot

    def is_held(self, peer: Peer) -> bool:
        """Whether a site holds the newest version."""
        return self._versions.base is not None and self._versions.base.digest in peer.holds

    def forget(self) -> None:
        """Let go of what is no version."""
        self._plain = (None, {})

    def _is_version(self, parameters: Parameters) -> bool:
        """Whether a model is the newest version, also one that a strategy has put together anew."""
        base = self._versions.base
        if parameters is self._current or parameters is self._same:
            return True
        if base is None or parameters is self._other or parameters.specs != base.tensors.specs:
            return False
        if Base.of(parameters.arrays()).digest == base.digest:
            self._same = parameters
        else:
            self._other = parameters
        return parameters is self._same

    def _dearer(self, way: Sequence[Packet], whole: Pipeline, number: int) -> bool:
        """Whether packets take more bytes than a snapshot, which is encoded to tell only if they well may."""
        nbytes = sum(packet.nbytes for packet in way)
        if _MEASURE * nbytes > self._last_snapshot.get(_key(whole), 0) and way:
            self._snapshot(whole, number)
            return nbytes > self._last_snapshot[_key(whole)]
        return False

    def _snapshot(self, pipeline: Pipeline, number: int) -> Load:
        key = _key(pipeline)
        if key not in self._snapshots:
            base = self._versions.newest
            self._snapshots[key] = load = self._encoded(pipeline, base.tensors.arrays(), number)
            load.model, load._base = base.digest, base  # noqa: SLF001 - its own maker
            self._last_snapshot[key] = 0 if load.frame is None else load.frame.nbytes
        return self._snapshots[key]

    def _chain(self, way: Sequence[Packet]) -> Load:
        if len(way) not in self._chains:
            base = self._versions.newest
            sizes = {
                spec.name: (spec.nbytes, sum(packet.sizes[spec.name] for packet in way)) for spec in base.tensors.specs
            }
            segments = [memoryview(packet.data) for packet in way]
            frame = Frame.build({}, segments, checksum=self._versions.pipeline.checksum) if way else None
            bases = [packet.base for packet in way]
            self._chains[len(way)] = Load(frame, sizes, base.digest, bases, _base=base)
        return self._chains[len(way)]

    def _as_it_is(self, pipeline: Pipeline, parameters: Parameters, number: int) -> Load:
        if self._plain[0] is not parameters:
            self._plain = (parameters, {})
        loads = self._plain[1]
        if _key(pipeline) not in loads:
            loads[_key(pipeline)] = self._encoded(pipeline, parameters.arrays(), number)
        return loads[_key(pipeline)]

    def _encoded(self, pipeline: Pipeline, arrays: Mapping[str, Array], number: int) -> Load:
        with self._telemetry.labelled(round=number).span("encode"):
            frame = pipeline.encode(arrays)
            nbytes = sum(array.nbytes for array in arrays.values())
            if nbytes > DEFAULT_LIMITS.free_raw and nbytes > DEFAULT_LIMITS.max_swell * frame.nbytes:
                # All but empty, as at the start of a training: a site that has no model yet would take it for a bomb.
                frame = replace(pipeline, compression=None).encode(arrays)
        return Load(frame, tensor_sizes(frame, limits=room_for(DEFAULT_LIMITS, nbytes)))


def record_pick(telemetry: Telemetry, frame: Frame, limits: Limits) -> None:
    """Record the step that an update codec with a budget picked, where such a one made the frame.

    Raises:
        DecodeError: The frame's notes are impossible.
    """
    choice = picked(frame, limits=limits)
    if choice is not None:
        telemetry.event("step_picked", {"step": choice.scale, "bytes": choice.nbytes, "over": choice.over})


def _why(peer: Peer, way: Sequence[Packet] | None) -> str:
    if not peer.holds:
        return "it is not known to have any version"
    return "the packets from what it has take more bytes" if way is not None else "it is too far behind, or astray"


def _key(pipeline: Pipeline) -> str:
    return f"{pipeline} {pipeline.checksum}"
