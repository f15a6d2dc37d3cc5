"""What a frame must not tell: memory of the process that stands where no value does."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from fedpost.frame import Frame
from fedpost.pipeline import Pipeline, decode_tensors
from fedpost.tensors import FORMATS

SECRET = b"the password of another process's user "
GAPS = {
    "NumPy can name": np.dtype({"names": ["a"], "formats": ["u1"], "offsets": [0], "itemsize": 64}),
    "NumPy cannot name": np.dtype(
        {"names": ["a"], "formats": [ml_dtypes.bfloat16], "offsets": [0], "itemsize": 64},
    ),
}
LAYOUTS = {
    "strided": lambda count, kind: np.zeros((count, 4), kind)[:, ::2],
    "reversed": lambda count, kind: np.zeros(count, kind)[::-1],
    "permuted": lambda count, kind: np.zeros((count, 4, 2), kind).transpose(1, 0, 2),
    "Fortran": lambda count, kind: np.zeros((4, count), kind).T,
    "broadcast": lambda count, kind: np.broadcast_to(np.zeros(1, kind), (count,)),
}


def forget():
    """Fill what the next arrays will be made of."""
    for size in (10, 100, 1000, 5000, 50_000):
        for _ in range(4):
            np.frombuffer(SECRET * size, np.uint8).copy()


@pytest.mark.parametrize("kind", GAPS)
@pytest.mark.parametrize("name", sorted(set(FORMATS) - {"safetensors"}))  # it knows no structures
def test_gaps_of_structures_are_not_what_memory_held(name, kind):
    if name == "protobuf":
        pytest.importorskip("google.protobuf", reason="the extra fedpost[protobuf] is not installed")
    pipeline = Pipeline.parse(f"dense | {name} | none")
    for make in LAYOUTS.values():
        for count in (5, 60, 600, 3000):
            array = make(count, GAPS[kind])
            forget()
            frame = pipeline.encode({"w": array})
            assert SECRET[:24] not in bytes(frame)
            # Also where the bytes stand in another alphabet.
            (array,) = decode_tensors(Frame.decode(bytes(frame))).arrays().values()
            assert SECRET[:24] not in (array if array.flags.c_contiguous else array.T).tobytes()
