"""Results as they come in: checked against what was agreed and asked, whole, and then spooled.

A result that is relative to a base takes long to decode. It is decoded once, to be checked, and kept so for the
reduction as long as all that is kept stays small; else it is decoded a second time, block by block, out of the spool.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fedpost.codecs import Base
from fedpost.errors import ProtocolError
from fedpost.federation.aggregation import Spool, check_result
from fedpost.federation.outbox import Outbox
from fedpost.federation.peers import Peer
from fedpost.federation.pipelines import check_pipeline, check_size, result_pipeline
from fedpost.federation.types import FitRes, Parameters
from fedpost.frame import Limits
from fedpost.pipeline import Pipeline
from fedpost.protocol import Message, WeightUpdate
from fedpost.telemetry import Telemetry
from fedpost.tensors import MemoryTensors, TensorSpec

__all__ = ["Intake"]

_DECODED: Final = 1 << 26
"""Bytes of decoded results that may be kept, however many there are and however large."""


class Intake:
    """The results of one round at a time.

    Args:
        outbox: Knows what each site was sent, which its result is relative to.
        spool: Where results wait.
        limits: The budget for each.

    Attributes:
        limits: The same; it grows with the model.
    """

    def __init__(self, outbox: Outbox, spool: Spool, limits: Limits) -> None:
        self._outbox: Final = outbox
        self._spool: Final = spool
        self.limits = limits
        self._expected: Sequence[TensorSpec] = ()
        self._initializing = False
        self._decoded = 0

    def begin(self, expected: Sequence[TensorSpec], *, initialize: bool) -> None:
        """Forget the last round's results.

        Args:
            expected: What a result must be; nothing when anything will do.
            initialize: Whether initial parameters are asked for, which are relative to nothing.
        """
        self._spool.clear()
        self._expected, self._initializing, self._decoded = expected, initialize, 0

    def take(self, peer: Peer, message: Message, telemetry: Telemetry) -> FitRes:
        """Check a result and spool it.

        Raises:
            RemoteError: It is not what was agreed or asked, or a value is not finite.
        """
        body = message.body
        if not isinstance(body, WeightUpdate):
            raise ProtocolError("not a weight update")
        check_pipeline(message.frame, self._pipeline_of(peer))
        if self._expected:
            check_size(message.frame, sum(spec.nbytes for spec in self._expected))
        base = self.base_of(peer)
        with telemetry.span("verify"):
            source = message.tensors(limits=self.limits, base=base)
            nbytes = sum(spec.nbytes for spec in source.specs)
            keep = base is not None and self._decoded + nbytes <= _DECODED
            if keep:
                source = MemoryTensors(source.arrays())
                self._decoded += nbytes
            check_result(source, self._expected or source.specs)
        with telemetry.span("spool"):
            parameters = Parameters(source) if keep else self._spool.add(peer.name, message.frame, source.specs, base)
        # A list of arrays means what the model's order says, whatever order a site has sent them in.
        return FitRes(parameters.in_order(self._expected or source.specs), body.num_examples, body.metrics)

    def base_of(self, peer: Peer) -> Base | None:
        """What a site's result is relative to, where its codec needs that."""
        return self._outbox.base(peer) if self._pipeline_of(peer).update.needs_base else None

    def _pipeline_of(self, peer: Peer) -> Pipeline:
        """How a site's result must be encoded now."""
        if peer.agreement is None:
            raise ProtocolError("nothing was agreed with it")
        return result_pipeline(peer.agreement, initialize=self._initializing)
