"""A site's copies of the server's versions: the two newest, which all sites of one process share.

Rules: what is taken for a version has its digest, whatever way it came; a packet is decoded once however many sites it
is for, and not at all when its result is there; what does not lead to the version named changes nothing. No I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fedpost.codecs import Base
from fedpost.errors import DecodeError, ProtocolError
from fedpost.federation.pipelines import check_pipeline, check_size, room_for
from fedpost.federation.versions import in_order, same_tensors
from fedpost.frame import Frame, Limits
from fedpost.pipeline import Pipeline, decode_tensors
from fedpost.tensors import TensorSource

__all__ = ["Replicas"]

_KEPT: Final = 2


@dataclass(frozen=True, slots=True)
class Replicas:
    """The versions that are here; a value.

    Attributes:
        models: The versions, the one that came last at the end.
    """

    models: tuple[Base, ...] = ()

    @property
    def digests(self) -> list[bytes]:
        """What is here."""
        return [base.digest for base in self.models]

    def get(self, model: bytes) -> Base | None:
        """A version, if it is here."""
        return next((base for base in self.models if base.digest == model), None)

    def with_snapshot(self, model: bytes, source: TensorSource) -> Replicas:
        """These and a version that came whole.

        Raises:
            DecodeError: It is another model than it says.
        """
        return self if self.get(model) else self._with(_checked(model, Base.of(source.arrays())))

    def with_packets(
        self, model: bytes, bases: Sequence[bytes], packets: Sequence[memoryview], pipeline: Pipeline, limits: Limits
    ) -> Replicas:
        """These and the version that packets make of one that is here; those before it are not looked at.

        Args:
            model: The version's digest.
            bases: The digest of each packet's base, in order.
            packets: The packets' frames, their digests checked as those of the segments that they came in.
            pipeline: How they must be encoded.
            limits: The budget for each.

        Raises:
            DecodeError: No base is here, a packet cannot be read, or what it makes is not the next one's base.
            ProtocolError: A packet is encoded in another way.
        """
        if self.get(model):
            return self
        here = [(index, base) for index, digest in enumerate(bases) if (base := self.get(digest)) is not None]
        if not here:
            raise DecodeError("none of the models that the packets change is here", hint="Ask for a full model.")
        first, base = here[-1]
        follow = [*bases[1:], model]
        for index in range(first, len(bases)):
            try:
                base = _checked(follow[index], _applied(base, packets[index], pipeline, limits))
            except (DecodeError, ProtocolError) as error:
                where = ", ".join(filter(None, (f"packet {index}", error.where)))
                raise type(error)(error.what, where=where, hint=error.hint) from error
        return self._with(base)

    def _with(self, base: Base) -> Replicas:
        return Replicas((*self.models, base)[-_KEPT:])


def _applied(base: Base, data: memoryview, pipeline: Pipeline, limits: Limits) -> Base:
    nbytes = sum(spec.nbytes for spec in base.tensors.specs)
    limits = room_for(limits, nbytes)
    frame = Frame.decode(data, limits=limits, verify="never")
    check_pipeline(frame, pipeline)
    check_size(frame, nbytes)
    source = decode_tensors(frame, limits=limits, base=base)
    if not same_tensors(source, base.tensors):
        raise DecodeError("its tensors are not those of the model that it changes")
    return Base.of(in_order(source.arrays(), base.tensors))


def _checked(model: bytes, base: Base) -> Base:
    if base.digest != model:
        raise DecodeError(f"it is the model {base.digest.hex()}, said was {model.hex()}", hint="Ask for a full model.")
    return base
