"""Makes the frozen updates beside this file: a frame of every update codec that needs a base.

``python tests/vectors/updates/generate.py`` with fedpost importable writes what is missing. A frozen file is never
written again. The values are small multiples of powers of two, so that sums of squares are exact and every machine
makes the same steps.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

HERE = Path(__file__).parent
Arrays = dict[str, np.ndarray[Any, Any]]

CODECS = (
    *("delta", "uq(0.5)", "uq(2)", "eden(1)", "eden(4)"),
    *("topk(0.05)", "stc(0.05)", "int8", "int4", "sign"),
)


def path_of(codec: str) -> Path:
    return HERE / f"{codec.translate(str.maketrans('(.', '__', ')'))}.frame"


def noise(tag: str, *shape: int) -> np.ndarray[Any, Any]:
    """Multiples of 1/64 between -2 and 2, the same for ever."""
    count = int(np.prod(shape))
    values = np.frombuffer(hashlib.shake_256(tag.encode()).digest(count), np.int8)
    return values.reshape(shape) / 64


def base() -> Arrays:
    return {
        "layer.weight": noise("base", 32, 24).astype(np.float32),
        "conv.weight": noise("conv", 2, 3, 3, 3).astype(np.float64),
        "half.weight": noise("half", 9, 8).astype(np.float16),
        "brain.weight": noise("brain", 9, 8).astype(ml_dtypes.bfloat16),
        "layer.bias": noise("bias", 40).astype(np.float32),
        "same.weight": noise("same", 8, 8).astype(np.float32),
        "steps": np.array(7, np.int64),
    }


def update() -> Arrays:
    """Rows of different strength; a tensor that did not change, and one that the base has not."""
    out = {name: array.copy() for name, array in base().items()}
    strength = 2.0 ** -np.arange(32).reshape(32, 1)
    out["layer.weight"] += (noise("change", 32, 24) * np.maximum(strength, 2.0**-9)).astype(np.float32)
    out["conv.weight"] += noise("change conv", 2, 3, 3, 3) / 8
    out["half.weight"] += (noise("change half", 9, 8) / 4).astype(np.float16)
    out["brain.weight"] += (noise("change brain", 9, 8) / 4).astype(ml_dtypes.bfloat16)
    out["layer.bias"] += (noise("change bias", 40) / 16).astype(np.float32)
    out["steps"] += 1
    return {**out, "new.weight": noise("new", 2, 3).astype(np.float32)}


def residual() -> Arrays:
    return {"layer.weight": (noise("lost", 32, 24) / 32).astype(np.float32)}


def described(arrays: Arrays) -> dict[str, list[Any]]:
    """Element type, shape and the start of the SHA-256 of each."""
    return {
        name: [
            array.dtype.name,
            list(array.shape),
            hashlib.sha256(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()).hexdigest()[
                :16
            ],
        ]
        for name, array in arrays.items()
    }


def main() -> None:
    """Write the files that are missing."""
    from fedpost.codecs import Base
    from fedpost.frame import Frame
    from fedpost.pipeline import Pipeline, decode_tensors

    relative = Base.of(base())
    for codec in CODECS:
        path = path_of(codec)
        if path.exists():
            continue
        pipeline = Pipeline.parse(f"{codec} | fedwt | none")
        frame, lost = pipeline.encode_update(update(), base=relative, residual=residual())
        data = bytes(frame)
        arrays = decode_tensors(Frame.decode(data), base=relative).arrays()
        facts = {
            "codec": codec,
            "size": len(data),
            "base": relative.digest.hex(),
            "tensors": described(arrays),
            "lost": described(dict(lost)),
        }
        with path.with_suffix(".json").open("x") as file:
            file.write(json.dumps(facts) + "\n")
        with path.open("xb") as file:
            file.write(data)


if __name__ == "__main__":
    main()
