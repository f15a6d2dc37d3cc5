"""What a conversion shall make: a frame of some format, or the bare file that other programs open.

Rules: the suffix of the result says which, unless the caller does; what a target cannot carry of the metadata is told,
never dropped in silence; what it cannot do at all (digests without a frame) is an error before anything is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from fedpost.checksums import CHECKSUMS, DEFAULT_CHECKSUM
from fedpost.compression import Compression
from fedpost.conversion.npz import MAX_COMMENT
from fedpost.errors import ConfigError
from fedpost.frame import DEFAULT_LIMITS
from fedpost.tensors import FORMATS

__all__ = ["BARE_SUFFIXES", "FRAME_SUFFIXES", "Target"]

BARE_SUFFIXES: Final = {
    ".safetensors": "safetensors",
    ".npz": "numpy",
    ".fedwt1": "fedwt1",
    ".msgpack": "msgpack",
    ".json": "json_base64",
    ".pb": "protobuf",
}
"""Suffixes of bare files, and the format in each."""
FRAME_SUFFIXES: Final = (".fedwt", ".frame")
"""Suffixes of frames."""

_KINDS: Final = {name: "npz" if name == "numpy" else name for name in BARE_SUFFIXES.values()}
_TEXT: Final = frozenset({"safetensors", "protobuf"})
_JSON: Final = frozenset({"fedwt1", "json_base64", "numpy"})
_RESERVED: Final = "fedpost"


@dataclass(frozen=True, slots=True)
class Target:
    """A kind of file to write.

    Attributes:
        format: A registered format.
        framed: A frame, or the format's bare file.
        compression: Compresses a frame's segments; ``gzip`` also the members of an ``.npz``.
        checksum: The digest algorithm of a frame.
    """

    format: str = "fedwt"
    framed: bool = True
    compression: Compression | None = None
    checksum: str = DEFAULT_CHECKSUM

    def __post_init__(self) -> None:
        FORMATS.get(self.format)
        CHECKSUMS.get(self.checksum)
        if self.framed:
            return
        if self.format not in _KINDS:
            raise ConfigError(f"the format {self.format} has no file without a frame", hint="Use --frame.")
        if self.compression and not (self.format == "numpy" and self.compression.name == "gzip"):
            does = "an .npz has gzip alone" if self.format == "numpy" else "only a frame is compressed"
            raise ConfigError(f"a bare {self.kind} file cannot have {self.compression}: {does}", hint="Use --frame.")
        if self.checksum != DEFAULT_CHECKSUM:
            raise ConfigError(f"a bare {self.kind} file has no digests", hint="Use --frame.")

    @classmethod
    def for_path(
        cls,
        path: Path,
        *,
        format: str | None = None,  # noqa: A002 - the option's own name
        framed: bool | None = None,
        compression: str = "none",
        checksum: str = DEFAULT_CHECKSUM,
    ) -> Self:
        """What a path stands for: its suffix decides what was not said.

        Args:
            path: Where the result shall be.
            format: A registered format; without it the suffix's own, and ``fedwt`` in a frame.
            framed: True for a frame, False for a bare file.
            compression: Such as ``"zstd(3)"``.
            checksum: The digest algorithm of a frame.

        Raises:
            ConfigError: Suffix and arguments contradict each other, or say nothing.
            RegistryError: A name is unknown.
        """
        suffix = path.suffix.lower()
        own = BARE_SUFFIXES.get(suffix)
        if framed is None:
            if own is None and suffix not in FRAME_SUFFIXES and format is None:
                known = ", ".join((*FRAME_SUFFIXES, *BARE_SUFFIXES))
                raise ConfigError(
                    f"the suffix {suffix!r} does not say what to write",
                    where=str(path),
                    hint=f"Use --format, or one of {known}.",
                )
            if own is not None and format not in (None, own):
                raise ConfigError(
                    f"{suffix} is a file of the format {own}, not {format}",
                    where=str(path),
                    hint="Say --frame or --bare if it shall be.",
                )
            framed = own is None
        if format is None:
            format = "fedwt" if framed or own is None else own  # noqa: A001 - the option's own name
        return cls(format, framed, Compression.parse(compression), checksum)

    @property
    def kind(self) -> str:
        """The kind of file, as :func:`fedpost.conversion.open_model` knows it."""
        return "frame" if self.framed else _KINDS[self.format]

    def fit(self, metadata: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """What of the metadata this target carries, and what happened to the rest, in words."""
        kept, told = dict(metadata), []
        if not self.framed and self.format in _TEXT | _JSON:
            kept = {}
            for key, value in metadata.items():
                if self.format in _TEXT and isinstance(value, str):
                    kept[key] = value
                elif not _is_json(value) or (self.format == "fedwt1" and key == _RESERVED):
                    told.append(f"metadata {key!r} is lost: {self.kind} cannot carry it")
                elif self.format in _TEXT:
                    kept[key] = json.dumps(value, ensure_ascii=False)
                    told.append(f"metadata {key!r} is written as text")
                else:
                    kept[key] = value
        size = (
            len(msgspec.msgpack.encode(kept)) if self.format != "numpy" or self.framed else len(json.dumps(kept)) + 64
        )
        most = MAX_COMMENT if self.format == "numpy" and not self.framed else DEFAULT_LIMITS.max_section
        if size > most and (self.framed or self.format not in {"safetensors", "fedwt1"}):
            return {}, [f"the metadata is lost: {size} bytes, and readers of {self.kind} take {most}"]
        return kept, told

    def __str__(self) -> str:
        if self.framed:
            return f"dense | {self.format} | {self.compression or 'none'}"
        return self.kind + (f" ({self.compression})" if self.compression else "")


def _is_json(value: object) -> bool:
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        text.encode()
        return bool(json.loads(text) == value)
    except (TypeError, ValueError, RecursionError):
        return False
