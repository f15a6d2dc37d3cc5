"""Update codecs: what makes an update small before a format and a compressor see it.

Rules: a codec is named with its arguments, ``"cast(bfloat16)"``; what a decoder must know beyond the tensors themselves
goes into the frame as notes; decoding gives back names, shapes and dtypes exactly, values as the codec's law says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from fedpost.errors import ConfigError
from fedpost.registry import Registry, parse_call
from fedpost.tensors import Array, TensorSource

__all__ = ["CODECS", "Codec", "parse_codec"]

Notes = Mapping[str, object]


class Codec(Protocol):
    """The contract of an update codec. Implementations are frozen dataclasses; ``str(codec)`` names them in full."""

    def encode(self, tensors: Mapping[str, Array]) -> tuple[Mapping[str, Array], Notes]:
        """Make the update small.

        Returns:
            The tensors to send, under the same names, and the notes that decoding needs (MessagePack types only).

        Raises:
            EncodeError: A tensor has values that the codec cannot carry.
        """

    def decode(self, source: TensorSource, notes: Notes) -> TensorSource:
        """Undo :meth:`encode`, lazily where it can be done by range.

        Raises:
            DecodeError: The notes do not fit the tensors.
        """


CODECS: Final[Registry[str, Callable[..., Codec]]] = Registry("update codec")
"""Name to the class or function that makes the codec from its arguments (as text)."""


def parse_codec(spec: str) -> Codec:
    """Make the codec that ``name(argument, …)`` names.

    Raises:
        ConfigError: The arguments do not fit.
        RegistryError: No such codec.
    """
    name, arguments = parse_call(spec)
    make = CODECS.get(name)
    try:
        return make(*arguments)
    except TypeError as error:
        raise ConfigError(f"update codec {spec!r}: {error}") from error
