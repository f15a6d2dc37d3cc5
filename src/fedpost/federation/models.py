"""The models that come to the sites of a process: versions, which all of them share, and tensors that are none."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from fedpost.codecs import Base
from fedpost.errors import ProtocolError
from fedpost.federation.pipelines import check_pipeline, snapshot_pipeline
from fedpost.federation.replicas import Replicas
from fedpost.federation.state import StateFolder
from fedpost.federation.types import Parameters
from fedpost.frame import Limits
from fedpost.protocol import AggregationResult, Agreement, EvaluationCommand, Message, TrainingCommand
from fedpost.tensors import TensorSource

__all__ = ["Model", "Models", "parameters_of"]

Model = Base | TensorSource | None
"""A version, tensors that are none, or nothing: initial parameters are asked for without a model."""


class Models:
    """The versions that are here, kept up as messages come.

    Args:
        folder: Where the newest version outlives the process.
        limits: The budget for what is received.
    """

    def __init__(self, folder: StateFolder, limits: Limits) -> None:
        self._folder: Final = folder
        self._limits: Final = limits
        self._replicas: Replicas = folder.replicas()

    @property
    def digests(self) -> list[bytes]:
        """The versions that are here."""
        return self._replicas.digests

    def take(self, message: Message, agreement: Agreement | None) -> Model:
        """The model that a message is about: one that is here, one that came along, or what packets make of one.

        Raises:
            RemoteError: It cannot be had from what came; nothing has changed.
        """
        body, replicas = message.body, self._replicas
        if isinstance(body, TrainingCommand) and body.initialize:
            return None
        if not isinstance(body, TrainingCommand | EvaluationCommand | AggregationResult) or body.model is None:
            return message.tensors(limits=self._limits)
        if agreement is None:
            raise ProtocolError("the server sent a version before it settled on anything")
        if body.packets:
            packets, pipeline = message.packets(), agreement.pipeline("FitIns")
            replicas = replicas.with_packets(body.model, body.packets, packets, pipeline, self._limits)
        elif message.brings_tensors:
            whole = snapshot_pipeline(agreement)
            check_pipeline(message.frame, whole, replace(whole, compression=None))
            replicas = replicas.with_snapshot(body.model, message.tensors(limits=self._limits))
        model = replicas.get(body.model)
        if model is None:
            raise ProtocolError(f"the model {body.model.hex()} is not here")
        self._replicas = replicas
        self._folder.keep_newest(replicas)
        return model


def parameters_of(model: Model) -> Parameters:
    """A model as clients get it.

    Raises:
        ProtocolError: There is none.
    """
    if model is None:
        raise ProtocolError("no model came along")
    return Parameters(model.tensors if isinstance(model, Base) else model)
