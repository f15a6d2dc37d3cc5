"""Update codecs: what makes an update small before a format and a compressor see it.

Rules: a codec is named with its arguments, ``"cast(bfloat16)"``; what a decoder must know beyond the tensors themselves
goes into the frame as notes; decoding gives back names, shapes and dtypes exactly, values as the codec's law says. A
codec that describes an update by what it changes needs a base, the same one on both sides: the notes name it by digest,
as ``base``. What a codec can be relied on for it states as :class:`Capabilities`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol, Self, runtime_checkable

import blake3
import msgspec
import numpy as np

from fedpost.errors import ConfigError, DecodeError
from fedpost.registry import Registry
from fedpost.tensors import Array, MemoryTensors, TensorSource
from fedpost.tensors.format import name_of

__all__ = [
    "CODECS",
    "NO_RESIDUAL",
    "Base",
    "Budgeted",
    "Capabilities",
    "Codec",
    "Encoding",
    "Notes",
    "Residual",
    "capabilities_of",
    "carried",
    "check_base",
]

Notes = Mapping[str, object]
Residual = Mapping[str, Array]
"""What was lost of each tensor, float32, of its shape: added to the next update, so that nothing is lost for good."""

NO_RESIDUAL: Final[Residual] = MappingProxyType({})
"""Nothing was lost."""

_DIGEST_SIZE: Final = 16
_BLOCK: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Base:
    """The model that an update is relative to.

    Attributes:
        digest: 16 bytes that both sides know it by.
        tensors: Its tensors.
    """

    digest: bytes
    tensors: TensorSource

    @classmethod
    def of(cls, tensors: Mapping[str, Array]) -> Self:
        """A base of arrays, which are referenced and must not change.

        The digest is the first 16 bytes of BLAKE3 over a MessagePack array of ``[name, element type, shape]`` for each
        tensor, in the order of their names, and then the bytes of the tensors in C order. The order of ``tensors`` has
        no influence.

        Raises:
            EncodeError: An array's element type has no bytes, or a name is not text.
        """
        kinds = {name: name_of(name, array) for name, array in tensors.items()}
        names = sorted(kinds)
        hasher = blake3.blake3(msgspec.msgpack.encode([(name, kinds[name], tensors[name].shape) for name in names]))
        for name in names:
            array = tensors[name]
            # One that is not in C order is hashed a part at a time; of any other that is a view.
            step = array.size if array.flags.c_contiguous else _BLOCK
            flat = array.reshape(-1) if array.flags.c_contiguous else array.flat
            for start in range(0, array.size if array.itemsize else 0, step or 1):
                hasher.update(np.ascontiguousarray(flat[start : start + step]).view(np.uint8).data)
        return cls(hasher.digest()[:_DIGEST_SIZE], MemoryTensors(tensors))


class Encoding(NamedTuple):
    """What a codec makes of an update.

    Attributes:
        tensors: What to send, under the same names.
        notes: What decoding needs beyond it (MessagePack types only).
        residual: What was lost, for the next update of the same sender once this one was acknowledged; empty for a
            codec that keeps no such account.
    """

    tensors: Mapping[str, Array]
    notes: Notes
    residual: Residual = NO_RESIDUAL


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a codec can be relied on for.

    Attributes:
        linear: The sum of the encodings of two updates is the encoding of their sum, so a sum can be made of what is
            sent without decoding it; secure aggregation needs that.
        unbiased: What is decoded is on average what was encoded, over the codec's own randomness and up to the rounding
            of float32 and of a narrower tensor's own type; an average over many sites comes near the true one.
        lossless: What is decoded is what was encoded, to the bit.
        stateful: It keeps account of what its updates lose: each encoding has a residual for the sender's next.
        needs_base: Both directions need a base.

    Raises:
        ConfigError: No codec can be that: one that loses nothing has nothing to keep account of, and is not biased.
    """

    linear: bool = False
    unbiased: bool = False
    lossless: bool = False
    stateful: bool = False
    needs_base: bool = False

    def __post_init__(self) -> None:
        if self.lossless and (self.stateful or not self.unbiased):
            raise ConfigError("a codec that is lossless is unbiased, and not stateful")


class Codec(Protocol):
    """The contract of an update codec. Implementations are frozen dataclasses; ``str(codec)`` names them in full.

    One that promises something of :class:`Capabilities` has them as an attribute or property ``capabilities``.
    """

    @property
    def needs_base(self) -> bool:
        """Whether both directions need a base."""

    def encode(
        self, tensors: Mapping[str, Array], base: Base | None = None, residual: Residual | None = None
    ) -> Encoding:
        """Make the update small.

        Args:
            tensors: The update, or the model, by name.
            base: What the receiver has already, for a codec that needs it; others take no notice.
            residual: What this sender's last acknowledged update lost, for a codec that keeps account of it.

        Raises:
            ConfigError: It needs a base and there is none.
            EncodeError: A tensor has values that the codec cannot carry.
        """

    def decode(self, source: TensorSource, notes: Notes, base: Base | None = None) -> TensorSource:
        """Undo :meth:`encode`, lazily where it can be done by range.

        Raises:
            DecodeError: The notes do not fit the tensors, or not the base; the message has the digest of
                the one wanted.
        """


@runtime_checkable
class Budgeted(Protocol):
    """A codec that may choose by how large the whole message becomes."""

    def encode_within(
        self,
        tensors: Mapping[str, Array],
        base: Base | None,
        residual: Residual | None,
        measure: Callable[[Encoding], int],
    ) -> Encoding:
        """As :meth:`Codec.encode`; ``measure`` tells how many bytes a message with an encoding has."""


def capabilities_of(codec: Codec) -> Capabilities:
    """What a codec states that it can be relied on for; one that states nothing promises nothing.

    Raises:
        ConfigError: It is at odds with whether the codec needs a base.
    """
    stated = getattr(codec, "capabilities", None)
    if not isinstance(stated, Capabilities):
        return Capabilities(needs_base=codec.needs_base)
    if stated.needs_base != codec.needs_base:
        raise ConfigError(f"the update codec {codec} states needs_base both ways")
    return stated


def carried(residual: Residual | None, tensors: Mapping[str, Array], coded: Mapping[str, object]) -> dict[str, Array]:
    """The accounts of tensors that were not coded this time: what they have lost before is not sent, and not forgotten.

    Args:
        residual: The accounts before.
        tensors: The update.
        coded: By name, what has been coded of it, whose accounts are new.
    """
    before = residual or NO_RESIDUAL
    kept = {name: before[name] for name in before if name in tensors and name not in coded}
    return {name: lost for name, lost in kept.items() if lost.shape == tensors[name].shape}


def check_base(notes: Notes, base: Base | None, codec: str) -> Base:
    """The base, when it is the one that the notes name.

    Raises:
        DecodeError: It is not, or there is none.
    """
    digest: Any = notes.get("base")
    if not isinstance(digest, bytes):
        raise DecodeError("its notes name no base", where=f"update codec {codec}")
    if base is None or base.digest != digest:
        have = "there is none" if base is None else f"this is {base.digest.hex()}"
        raise DecodeError(
            f"it changes the base {digest.hex()}; {have}", where=f"update codec {codec}", hint="Ask for a full model."
        )
    return base


CODECS: Final[Registry[str, Callable[..., Codec]]] = Registry("update codec")
"""Name to the class or function that makes the codec from its arguments (as text)."""
