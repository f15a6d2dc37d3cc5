"""A second reader of updates of a base, from ``docs/spec/frame.md`` alone: it shares no line with fedpost."""

from __future__ import annotations

from typing import Any

import blake3
import msgpack
import numpy as np

Arrays = dict[str, np.ndarray[Any, Any]]


def undo(update: str, notes: dict[str, Any], sent: Arrays, base_sections: dict[str, Any], base: Arrays) -> Arrays:
    """The tensors that were meant, by the base's frame in the format ``fedwt``."""
    require(update == "delta", "an update that is known")
    require(notes["base"] == digest_of(base_sections["tensors"], base), "the base that is there")
    require(set(notes["whole"]) <= set(sent), "tensors for its notes")
    return {name: array if name in notes["whole"] else xor(array, base[name]) for name, array in sent.items()}


def digest_of(table: list[Any], base: Arrays) -> bytes:
    """The 16 bytes that a base is known by."""
    names, _, _, places, dtypes, segment_dtypes, *_later = table
    kinds = {name: dtypes[segment_dtypes[place]] for name, place in zip(names, places, strict=True)}
    rows = [[name, kinds[name], list(base[name].shape)] for name in sorted(base)]
    return blake3.blake3(msgpack.packb(rows) + b"".join(base[name].tobytes() for name in sorted(base))).digest(
        length=16
    )


def xor(one: np.ndarray[Any, Any], two: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    require((one.dtype, one.shape) == (two.dtype, two.shape), "tensors of one type and shape")
    data = bytes(a ^ b for a, b in zip(one.tobytes(), two.tobytes(), strict=True))
    return np.ndarray(one.shape, one.dtype, data)


def require(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"the update does not have {what}")
