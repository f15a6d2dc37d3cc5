"""Which pipeline what is encoded with, beyond the payloads that are negotiated by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from fedpost.codecs import Dense
from fedpost.compression import Compression
from fedpost.errors import ProtocolError
from fedpost.frame import Frame
from fedpost.pipeline import MAX_TEXT, Pipeline
from fedpost.protocol import Agreement

__all__ = ["check_pipeline", "offered", "result_pipeline", "snapshot_pipeline"]

_SNAPSHOT: Final = "Snapshot"


def offered(pipelines: Mapping[str, Pipeline]) -> dict[str, Pipeline]:
    """What the server negotiates: its pipelines, and where models travel as versions that of a whole one."""
    fit = pipelines["FitIns"]
    if not fit.update.needs_base:
        return dict(pipelines)
    return {**pipelines, _SNAPSHOT: replace(fit, update=Dense(), compression=Compression.parse("lx"))}


def snapshot_pipeline(agreement: Agreement) -> Pipeline:
    """How a version that comes whole is encoded.

    Raises:
        ProtocolError: Nothing was agreed on that.
    """
    return agreement.pipeline(_SNAPSHOT)


def result_pipeline(agreement: Agreement, *, initialize: bool) -> Pipeline:
    """How a site encodes its result: as was agreed; initial parameters, which are relative to nothing, as they are."""
    pipeline = agreement.pipeline("FitRes")
    return replace(pipeline, update=Dense()) if initialize and pipeline.update.needs_base else pipeline


def check_pipeline(frame: Frame, agreed: Pipeline) -> None:
    """Check that a frame is encoded as was agreed, before anything of it is decoded.

    Raises:
        DecodeError: It does not say how it is encoded.
        ProtocolError: It is encoded in another way.
    """
    found, wanted = (frame.section("pipeline", str, limit=MAX_TEXT), frame.checksum), (str(agreed), agreed.checksum)
    if found != wanted:
        raise ProtocolError(f"encoded as {found}, agreed was {wanted}")
