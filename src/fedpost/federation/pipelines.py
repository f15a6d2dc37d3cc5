"""How models travel beyond the payloads that are negotiated by name: their pipelines, and how large they may be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from fedpost.codecs import Dense
from fedpost.compression import Compression
from fedpost.errors import DecodeError, ProtocolError
from fedpost.frame import Frame, Limits
from fedpost.pipeline import MAX_TEXT, Pipeline
from fedpost.protocol import Agreement

__all__ = ["check_pipeline", "check_size", "offered", "result_pipeline", "room_for", "snapshot_pipeline"]

_SNAPSHOT: Final = "Snapshot"
_SLACK: Final = 1 << 20


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


def check_pipeline(frame: Frame, *agreed: Pipeline) -> None:
    """Check that a frame is encoded as was agreed, in one of these ways, before anything of it is decoded.

    Raises:
        DecodeError: It does not say how it is encoded.
        ProtocolError: It is encoded in another way.
    """
    found = frame.section("pipeline", str, limit=MAX_TEXT), frame.checksum
    wanted = [(str(pipeline), pipeline.checksum) for pipeline in agreed]
    if found not in wanted:
        raise ProtocolError(f"encoded as {found}, agreed was {wanted[0]}")


def room_for(limits: Limits, nbytes: int) -> Limits:
    """A budget under which what is as large as a model is no bomb, however few bytes of it have changed.

    Args:
        limits: The budget for everything else.
        nbytes: Bytes of the model.
    """
    return replace(limits, free_raw=max(limits.free_raw, _plausible(nbytes)))


def check_size(frame: Frame, nbytes: int) -> None:
    """Check, before anything is decompressed, that a frame is about as large as a model.

    Raises:
        DecodeError: It decompresses to more.
    """
    raw, allowed = sum(map(frame.raw_size, range(len(frame)))), _plausible(nbytes)
    if raw > allowed:
        raise DecodeError(f"it decompresses to {raw} bytes, {allowed} are plausible for this model")


def _plausible(nbytes: int) -> int:
    return _SLACK + 2 * nbytes
