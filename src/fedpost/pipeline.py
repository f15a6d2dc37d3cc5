"""The way of tensors onto the wire: update codec | format | compression, in that order, as one value.

Rules: a pipeline is written ``"cast(bfloat16) | fedwt | zstd(3)"``; the frame carries that text, so a receiver decodes
by it alone; names in it are looked up in registries, never imported. The checksum belongs to the frame, it is no stage.
The update codec may be several stages, and the other two may be left out: ``"delta | uq(2) | rc"``, ``"delta | lx"``.
A pipeline's own text has its codec in the shortest form, the format and the compression.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

from fedpost.checksums import CHECKSUMS, DEFAULT_CHECKSUM
from fedpost.codecs import (
    CODECS,
    Auto,
    Base,
    Budgeted,
    ByPattern,
    Codec,
    Dense,
    Encoding,
    Picked,
    Residual,
    capabilities_of,
    codec_config,
    codec_of,
    is_update_stage,
    parse_codec,
)
from fedpost.compression import COMPRESSORS, Compression
from fedpost.errors import (
    ConfigError,
    DecodeError,
    EncodeError,
    FedpostError,
    MissingExtraError,
    RegistryError,
    RemoteError,
    UnsupportedError,
)
from fedpost.files import replace_file
from fedpost.frame import DEFAULT_LIMITS, Frame, Limits, Verify
from fedpost.registry import split_outside
from fedpost.tensors import FORMATS, Array, Encoded, Fedwt, Format, TensorSource, TensorSpec, compression_for
from fedpost.tensors.format import in_c_order

__all__ = [
    "MAX_TEXT",
    "METADATA",
    "Pipeline",
    "decode_tensors",
    "load_tensors",
    "picked",
    "pipeline_of",
    "save_tensors",
    "tensor_sizes",
    "tensor_specs",
]

METADATA: Final = "metadata"
MAX_TEXT: Final = 1 << 16
"""Bytes of a pipeline's text in a frame: room for as many patterns as an update codec may have."""
_PIPELINE: Final = "pipeline"
_NOTES: Final = "update"


@dataclass(frozen=True, slots=True)
class Pipeline:
    """How tensors are encoded.

    Attributes:
        update: Makes the update small.
        format: Lays arrays out as segments.
        compression: Compresses segments, or None.
        checksum: Registered name of the digest algorithm.
    """

    update: Codec = field(default_factory=Dense)
    format: Format = field(default_factory=Fedwt)
    compression: Compression | None = None
    checksum: str = DEFAULT_CHECKSUM

    def __post_init__(self) -> None:
        CHECKSUMS.get(self.checksum)
        capabilities_of(self.update)

    @classmethod
    def parse(cls, spec: str, *, checksum: str = DEFAULT_CHECKSUM) -> Self:
        """Read ``"update | format | compression"``; without the last two ``fedwt`` and ``none``.

        Raises:
            ConfigError: There are more stages, two of them do not fit, or the arguments of one.
            RegistryError: A name is unknown.
        """
        first, *stages = split_outside(spec, "|")
        count = next((number for number, stage in enumerate(stages) if not is_update_stage(stage)), len(stages))
        update = parse_codec(" | ".join([first, *stages[:count]]))
        stages = stages[count:]
        if len(stages) == 1 and not _is_format(stages[0]):
            stages.insert(0, Fedwt().name)
        if len(stages) > 2:  # noqa: PLR2004 - a format and a compression
            raise ConfigError(
                f"{spec[:200]!r} has {len(stages)} stages after its update codec",
                hint="Write update | format | compression.",
            )
        format_name, compression = [*stages, *(Fedwt().name, "none")[len(stages) :]]
        return cls(update, FORMATS.get(format_name), Compression.parse(compression), checksum)

    @classmethod
    def from_config(cls, config: Mapping[str, object]) -> Self:
        """The pipeline of what :meth:`to_config` gave; what is left out is as in a pipeline without arguments.

        Raises:
            ConfigError: A key is unknown, or a value impossible.
            RegistryError: A name is unknown.
        """
        known = {"update": "dense", "format": Fedwt().name, "compression": "none", "checksum": DEFAULT_CHECKSUM}
        if unknown := config.keys() - known.keys():
            raise ConfigError(f"a pipeline has no {min(map(str, unknown))!r}", hint=f"It has {', '.join(known)}.")
        update, *names = (config.get(key, default) for key, default in known.items())
        texts = [name for name in names if isinstance(name, str)]
        if len(texts) < len(names):
            raise ConfigError("the format, the compression and the checksum of a pipeline are text")
        format_name, compression, checksum = texts
        return cls(codec_of(update), FORMATS.get(format_name), Compression.parse(compression), checksum)

    def to_config(self) -> dict[str, Any]:
        """The pipeline as JSON: the update codec as a mapping, the rest as text.

        Raises:
            ConfigError: The update codec is not a dataclass.
        """
        return {
            "update": codec_config(self.update),
            "format": self.format.name,
            "compression": str(self.compression or "none"),
            "checksum": self.checksum,
        }

    def encode(
        self,
        tensors: Mapping[str, Array],
        sections: Mapping[str, object] | None = None,
        *,
        base: Base | None = None,
    ) -> Frame:
        """Make a frame of named arrays.

        Args:
            tensors: The arrays; those that are sent as they are must not change while the frame lives.
            sections: Further header sections.
            base: What the receiver has already, for an update codec that needs it.

        Raises:
            ConfigError: The update codec needs a base and there is none.
            EncodeError: A tensor cannot be encoded.
        """
        return self.encode_update(tensors, sections, base=base)[0]

    def encode_update(
        self,
        tensors: Mapping[str, Array],
        sections: Mapping[str, object] | None = None,
        *,
        base: Base | None = None,
        residual: Residual | None = None,
    ) -> tuple[Frame, Residual]:
        """As :meth:`encode`, for a sender that keeps account of what its updates lose.

        Args:
            tensors: As there.
            sections: As there.
            base: As there.
            residual: What the last update that was acknowledged has lost.

        Returns:
            The frame, and what it loses: the next ``residual``, once the receiver has acknowledged the frame.

        Raises:
            ConfigError: The update codec needs a base and there is none.
            EncodeError: A tensor cannot be encoded.
        """
        if isinstance(self.update, Budgeted):
            encoding = self.update.encode_within(
                tensors, base, residual, lambda encoding: self._frame(encoding, sections).nbytes
            )
        else:
            encoding = self.update.encode(tensors, base, residual)
        return self._frame(encoding, sections), encoding.residual

    def _frame(self, encoding: Encoding, sections: Mapping[str, object] | None) -> Frame:
        small, notes, _ = encoding
        # A range of what is compressed is read by chunk, so its elements stand in the order in which they are read.
        encoded = self.format.encode(small if self.compression is None else _in_c_order(small))
        own = {_PIPELINE: str(self), **({_NOTES: notes} if notes else {}), **encoded.sections}
        if taken := own.keys() & (sections or {}).keys():
            raise EncodeError(f"the section {min(taken)!r} is the pipeline's own")
        return Frame.build(
            {**own, **(sections or {})},
            encoded.segments,
            checksum=self.checksum,
            compression=self._per_segment(encoded),
        )

    def _per_segment(self, encoded: Encoded) -> Compression | Sequence[Compression] | None:
        if self.compression is None or self.compression.name != "lx":
            return self.compression
        dtypes: Sequence[np.dtype[Any] | None] = encoded.dtypes or (None,) * len(encoded.segments)
        return [compression_for(self.compression, dtype) for dtype in dtypes]

    def __str__(self) -> str:
        return f"{self.update} | {self.format.name} | {self.compression or 'none'}"


def _is_format(stage: str) -> bool:
    """Whether a stage that stands alone behind the update codec is a format; one that is nothing known is an error."""
    name = stage.partition("(")[0].strip()
    if name in COMPRESSORS or name == "none":
        return False
    if name not in FORMATS and (near := difflib.get_close_matches(name, [*CODECS, *COMPRESSORS], n=1)):
        raise RegistryError(f"unknown stage {name!r}", hint=f"Did you mean {near[0]!r}?")
    return True


def _in_c_order(tensors: Mapping[str, Any]) -> dict[str, Array]:
    """The same in C order; what is no array, or one with a mask, is for the format to refuse."""
    return {
        name: in_c_order(array) if isinstance(array, np.ndarray) and not isinstance(array, np.ma.MaskedArray) else array
        for name, array in tensors.items()
    }


def pipeline_of(frame: Frame) -> Pipeline:
    """The pipeline that a frame says it was made by.

    Raises:
        UnsupportedError: It names a stage that is not registered here, or whose extra is not installed.
        DecodeError: It has none, or an impossible one.
    """
    spec = frame.section(_PIPELINE, str, limit=MAX_TEXT)
    try:
        return Pipeline.parse(spec, checksum=frame.checksum)
    except (RegistryError, ConfigError, MissingExtraError) as error:
        raise UnsupportedError(f"{spec[:200]!r}: {error.what}", where="pipeline", hint=error.hint) from error


def decode_tensors(frame: Frame, *, limits: Limits = DEFAULT_LIMITS, base: Base | None = None) -> TensorSource:
    """Check a frame's tensors against its pipeline and make them readable.

    Args:
        frame: What was received.
        limits: The reader's budget.
        base: What the update is relative to, where its codec needs one.

    Raises:
        DecodeError: The frame holds no tensors, or impossible ones, or is relative to another base.
    """
    pipeline, sent = _stored(frame, limits)
    return _undo(pipeline, frame, sent, limits, base)


def tensor_sizes(
    frame: Frame, *, limits: Limits = DEFAULT_LIMITS, base: Base | None = None
) -> dict[str, tuple[int, int]]:
    """Raw and stored bytes of each tensor of a frame.

    Without the base that the update codec needs, the raw size is that of the tensors as they were sent.

    Raises:
        DecodeError: As :func:`decode_tensors`.
    """
    pipeline, sent = _stored(frame, limits)
    tensors = _told(pipeline, frame, sent, limits, base)
    stored = pipeline.format.stored_sizes(frame, sent)
    return {spec.name: (spec.nbytes, stored[spec.name]) for spec in tensors.specs}


def tensor_specs(frame: Frame, *, limits: Limits = DEFAULT_LIMITS, base: Base | None = None) -> tuple[TensorSpec, ...]:
    """What the tensors of a frame are; without the base that the update codec needs, as they were sent.

    Raises:
        DecodeError: As :func:`decode_tensors`.
    """
    pipeline, sent = _stored(frame, limits)
    return _told(pipeline, frame, sent, limits, base).specs


def _told(pipeline: Pipeline, frame: Frame, sent: TensorSource, limits: Limits, base: Base | None) -> TensorSource:
    """The tensors that were meant, where that can be known."""
    blind = pipeline.update.needs_base and base is None
    return sent if blind else _undo(pipeline, frame, sent, limits, base)


def _stored(frame: Frame, limits: Limits) -> tuple[Pipeline, TensorSource]:
    """The pipeline, and the tensors as its format carries them."""
    pipeline = pipeline_of(frame)
    return pipeline, pipeline.format.decode(frame, limits)


def _undo(pipeline: Pipeline, frame: Frame, sent: TensorSource, limits: Limits, base: Base | None) -> TensorSource:
    """The tensors that were meant."""
    try:
        return pipeline.update.decode(sent, _notes(frame, limits), base)
    except RemoteError:
        raise
    except FedpostError as error:
        raise DecodeError(error.what, where=error.where) from error


def _notes(frame: Frame, limits: Limits) -> dict[str, object]:
    return frame.section(_NOTES, dict[str, object], limit=limits.max_section) if _NOTES in frame.section_names else {}


def picked(frame: Frame, *, limits: Limits = DEFAULT_LIMITS) -> Picked | None:
    """What ``auto`` picked for a frame's tensors; None where another update codec made them.

    It is what the sender says, checked for nothing but that it is possible.

    Raises:
        DecodeError: The frame has no pipeline, or its notes are impossible.
    """
    codec, notes = pipeline_of(frame).update, _notes(frame, limits)
    if isinstance(codec, ByPattern):
        inside = zip(codec.patterns, codec.notes_of(notes), strict=True)
        codec, notes = next(((one, part) for (_, one), part in inside if isinstance(one, Auto) and part), (codec, {}))
    return Picked.of(notes) if isinstance(codec, Auto) else None


def save_tensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Array],
    *,
    metadata: Mapping[str, object] | None = None,
    pipeline: Pipeline | None = None,
) -> int:
    """Write named arrays to a file, all or nothing; return its size in bytes.

    Args:
        path: The file; an existing one is replaced in one step.
        tensors: The arrays.
        metadata: What ``fedpost inspect`` shows beside them: MessagePack types only.
        pipeline: How to encode; without it as they are, in the native format, with BLAKE3 digests.

    Raises:
        EncodeError: An array or the metadata cannot be encoded.
        OSError: The file cannot be written.
    """
    frame = (pipeline or Pipeline()).encode(tensors, {METADATA: dict(metadata or {})})
    return replace_file(Path(path), frame.buffers())


def load_tensors(
    path: str | os.PathLike[str], *, limits: Limits = DEFAULT_LIMITS, verify: Verify = "eager"
) -> dict[str, Array]:
    """Read named arrays from a file: read-only, and mapped rather than read where they are not compressed.

    Raises:
        DecodeError: The file is not whole, was altered, or goes over the limits.
        OSError: The file cannot be opened.
    """
    return decode_tensors(Frame.open(Path(path), limits=limits, verify=verify), limits=limits).arrays()
