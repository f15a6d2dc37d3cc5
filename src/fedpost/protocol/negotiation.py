"""What a site offers and what the server settles on, so that both ends of every message know how it is encoded.

Rules: the server wants one pipeline per payload type; each stage that a site does not know falls back to the plain one,
which every site knows; a site that does not even offer that is refused, with the reason. A site may use what was agreed
and nothing else.

A site's own results have the next best update codec first: what loses some of a change falls back to ``int8``, then to
``cast(bfloat16)``; in a mapping of patterns each codec by itself. The model on its way down has no such choice, as all
sites must hold the same: its two payloads, which bring the same model, fall back to the plain codec both together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

import msgspec

from fedpost.checksums import CHECKSUMS
from fedpost.codecs import CODECS, Auto, ByPattern, Chain, Codec, Int8, Uq, capabilities_of, codec_names, parse_codec
from fedpost.codecs.lossy import Lossy
from fedpost.compression import COMPRESSORS
from fedpost.errors import ProtocolError
from fedpost.pipeline import Pipeline
from fedpost.registry import parse_call
from fedpost.tensors import FORMATS

__all__ = ["MODELS", "PAYLOADS", "Agreement", "Offer", "agree", "own_offer"]

PAYLOADS: Final = ("FitIns", "FitRes", "EvaluateIns")
"""The payloads that carry tensors; each may have its own pipeline."""

MODELS: Final = ("FitIns", "EvaluateIns")
"""Those that bring a model to a site."""

FRAME_VERSION: Final = 1

_Names = Annotated[list[Annotated[str, msgspec.Meta(max_length=64)]], msgspec.Meta(max_length=256)]


class Offer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a peer understands, by registered name.

    Attributes:
        frame: Major version of the frame.
        updates: Update codecs.
        formats: Tensor formats.
        compressions: Byte compressors; ``none`` goes without saying.
        checksums: Digest algorithms.
    """

    frame: int
    updates: _Names
    formats: _Names
    compressions: _Names
    checksums: _Names


class Agreement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was settled for one site.

    Attributes:
        pipelines: For each payload type its pipeline, as text.
        checksum: The digest algorithm.
    """

    pipelines: dict[str, str]
    checksum: str

    def pipeline(self, payload: str) -> Pipeline:
        """The pipeline of a payload type.

        Raises:
            ProtocolError: The peer settled on something that is not known here, or forgot the payload.
        """
        try:
            return Pipeline.parse(self.pipelines[payload], checksum=self.checksum)
        except (LookupError, ValueError) as error:
            raise ProtocolError(f"no usable pipeline for {payload} was agreed on: {error}") from error


def own_offer() -> Offer:
    """Everything that is registered in this process."""
    return Offer(
        frame=FRAME_VERSION,
        updates=list(CODECS),
        formats=list(FORMATS),
        compressions=list(COMPRESSORS),
        checksums=list(CHECKSUMS),
    )


def agree(wanted: Mapping[str, Pipeline], offer: Offer) -> Agreement:
    """Settle each stage on what the server wants, or on the next best where the site does not know it.

    Args:
        wanted: For each payload type the server's pipeline; all of them have the same checksum.
        offer: What the site understands.

    Raises:
        ProtocolError: The site does not even understand the plain stages.
    """
    if offer.frame != FRAME_VERSION:
        raise ProtocolError(f"the site writes frames of version {offer.frame}, the server of {FRAME_VERSION}")
    plain = Pipeline()
    known = frozenset(offer.updates)
    updates = {payload: pipeline.update for payload, pipeline in wanted.items()}
    for payload in updates.keys() - set(MODELS):
        updates[payload] = _next_best(updates[payload], known)
    models = updates.keys() & set(MODELS)
    if not all(codec_names(updates[payload]) <= known for payload in models):
        updates.update(dict.fromkeys(models, plain.update))
    pipelines: dict[str, str] = {}
    checksum = plain.checksum
    for payload, pipeline in wanted.items():
        if not codec_names(updates[payload]) <= known:
            raise _unknown("update codec", str(pipeline.update), str(plain.update))
        stages = (
            str(updates[payload]),
            _settle(pipeline.format.name, plain.format.name, offer.formats, "format"),
            _settle(str(pipeline.compression or "none"), "none", [*offer.compressions, "none"], "compression"),
        )
        pipelines[payload] = " | ".join(stages)
        checksum = _settle(pipeline.checksum, plain.checksum, offer.checksums, "checksum")
    return Agreement(pipelines=pipelines, checksum=checksum)


def _next_best(codec: Codec, known: frozenset[str]) -> Codec:
    """The codec, if a site knows it, or else the best that it knows; the plain one, if it knows nothing."""
    if codec_names(codec) <= known:
        return codec
    others: list[str] = []
    match codec:
        case ByPattern(patterns):
            return ByPattern(tuple((pattern, _next_best(one, known)) for pattern, one in patterns))
        case Chain(first, _):
            others = [str(first)]  # the values are rounded so in any case
        case Auto():
            others = [str(Uq(2, nonfinite=codec.nonfinite)), str(Int8(nonfinite=codec.nonfinite)), "cast(bfloat16)"]
        case Lossy():
            others = [str(Int8(nonfinite=codec.nonfinite)), "cast(bfloat16)"]
        case _ if codec.needs_base and not capabilities_of(codec).lossless:
            others = ["int8", "cast(bfloat16)"]
    return next((parse_codec(other) for other in others if parse_call(other)[0] in known), Pipeline().update)


def _settle(wanted: str, plain: str, offered: list[str], kind: str) -> str:
    if parse_call(wanted)[0] in offered:
        return wanted
    if plain in offered:
        return plain
    raise _unknown(kind, wanted, plain)


def _unknown(kind: str, wanted: str, plain: str) -> ProtocolError:
    known = f"{wanted} nor {plain}" if wanted != plain else f"{plain}, which is the plain one"
    return ProtocolError(f"the site does not know the {kind} {known}")
