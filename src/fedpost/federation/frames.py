"""Several groups of named tensors in one frame: how states are kept."""

from __future__ import annotations

from collections.abc import Mapping

from fedpost.frame import Frame, Limits
from fedpost.pipeline import Pipeline, decode_tensors
from fedpost.tensors import Array

__all__ = ["split", "together"]


def together(groups: Mapping[str, Mapping[str, Array]], sections: Mapping[str, object]) -> Frame:
    """Make a frame of groups of tensors.

    Args:
        groups: Tensors by name, by the name of their group, which has no ``/``.
        sections: Further header sections.

    Raises:
        EncodeError: A tensor cannot be encoded.
    """
    tensors = {f"{group}/{name}": array for group, members in groups.items() for name, array in members.items()}
    return Pipeline().encode(tensors, sections)


def split(frame: Frame, limits: Limits) -> dict[str, dict[str, Array]]:
    """Undo :func:`together`; a group without tensors is not there.

    Raises:
        DecodeError: The frame holds no tensors, or impossible ones.
    """
    groups: dict[str, dict[str, Array]] = {}
    for name, array in decode_tensors(frame, limits=limits).arrays().items():
        group, _, member = name.partition("/")
        groups.setdefault(group, {})[member] = array
    return groups
