"""Makes the frozen updates beside this file: frames of every update codec that needs a base, of several models.

``python tests/vectors/updates/generate.py`` with fedpost importable writes what is missing. A frozen file is never
written again. The values are small multiples of powers of two, so that sums of squares are exact and every machine
makes the same steps. The models:

- plain: what a small model has, and the file is named by the codec alone
- edges: tensors without elements, of one, of no dimension, one row, one column; changes that are all alike, only one,
  or none; every float type, and types that are not coded
- blocks: more than a block, for codecs whose blocks are small or whose bytes are many
- sparse: more than a block of the others, of half a million elements, with few changes
- classes: rows or columns or both of different strength, each way to code where the changes are
- holes: a NaN and infinities
- dense: changes that are mostly not zero, and many steps large
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
NARROW = "cast(bfloat16) | uq(0.5)"
SMALL_BLOCKS = ("eden(1)", "eden(2)", "eden(3)", "int8", "int4", "sign")


def stem_of(codec: str, model: str = "plain") -> str:
    name = codec.replace(" | ", "_").replace(", nonfinite=", "_").translate(str.maketrans("(.", "__", ")"))
    return name if model == "plain" else f"{model}_{name}"


CASES = {
    stem_of(codec, model): (codec, model)
    for codec, model in (
        *((codec, "plain") for codec in CODECS),
        *((codec, "edges") for codec in CODECS),
        *((codec, "blocks") for codec in SMALL_BLOCKS),
        *((NARROW, "plain"), (NARROW, "edges"), ("cast(bfloat16) | delta", "plain")),
        ("uq(2, nonfinite=whole)", "holes"),
        *(("uq(1)", "classes"), ("uq(2)", "sparse"), ("topk(0.001)", "sparse"), ("stc(0.001)", "sparse")),
        *(
            ("uq(0.05)", "dense"),
            ("uq(0.5)", "dense"),
            ("topk(0.7)", "dense"),
            ("topk(1)", "dense"),
            ("stc(1)", "dense"),
        ),
    )
}
"""The codec and the model of each file."""


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


def noisy(shapes: dict[str, tuple[str, tuple[int, ...]]], tag: str) -> Arrays:
    """Noise in the given types and shapes."""
    return {name: noise(f"{tag} {name}", *shape).astype(dtype_of(kind)) for name, (kind, shape) in shapes.items()}


def dtype_of(kind: str) -> np.dtype[Any]:
    return np.dtype(getattr(ml_dtypes, kind, kind))


EDGES = {
    "empty.weight": ("float32", (0, 5)),
    "scalar": ("float32", ()),
    "scalar.half": ("float16", ()),
    "one.bias": ("float64", (1,)),
    "one.weight": ("float32", (1, 1)),
    "vector.bias": ("float64", (70,)),
    "vector.half": ("bfloat16", (33,)),
    "row.weight": ("float32", (1, 50)),
    "column.weight": ("float16", (50, 1)),
    "equal.weight": ("float32", (9, 9)),
    "lonely.weight": ("float64", (20, 20)),
    "still.weight": ("float32", (7, 7)),
    "brain.weight": ("bfloat16", (12, 20)),
    "cube.weight": ("float16", (3, 4, 5)),
    "big.weight": (">f4", (4, 4)),
    "count.weight": ("int32", (3, 3)),
    "flags": ("bool", (5,)),
}


def edges() -> tuple[Arrays, Arrays, Arrays]:
    old = noisy(EDGES, "edges")
    new = {name: array.copy() for name, array in old.items()}
    for name in ("scalar", "scalar.half", "one.bias", "one.weight", "vector.bias", "vector.half", "row.weight"):
        new[name] = (new[name] + noise(f"new {name}", *new[name].shape) / 4).astype(new[name].dtype)
    for name in ("column.weight", "brain.weight", "cube.weight", "big.weight"):
        new[name] = (new[name] + noise(f"new {name}", *new[name].shape) / 2).astype(new[name].dtype)
    new["equal.weight"] += np.float32(0.375)
    new["lonely.weight"][11, 3] -= 5 / 8
    new["count.weight"] += 3
    new["flags"] ^= True
    return old, new, {"row.weight": (noise("edges lost", 1, 50) / 32).astype(np.float32)}


def blocks() -> tuple[Arrays, Arrays, Arrays]:
    shapes = {"row.weight": ("float32", (1, 33_000)), "half.weight": ("float16", (3, 300))}
    old = noisy(shapes, "blocks")
    change = noisy(shapes, "new blocks")
    return old, {name: (array + change[name] / 8).astype(array.dtype) for name, array in old.items()}, {}


def sparse() -> tuple[Arrays, Arrays, Arrays]:
    """Two blocks of whole rows, and rows that are longer than a block; few rows and columns have all the changes."""
    shapes = {"wide.weight": ("float32", (300, 2500)), "long.weight": ("float32", (2, 530_000))}
    old = {name: np.zeros(shape, np.float32) for name, (_, shape) in shapes.items()}
    new = {name: array.copy() for name, array in old.items()}
    rows, columns = np.arange(0, 300, 7), np.arange(0, 2500, 49)
    strength = 2.0 ** -(np.arange(rows.size) % 4)
    sign = np.where(np.arange(rows.size) % 3 == 0, -1, 1)
    change = np.abs(noise("sparse", rows.size, columns.size)) * (strength * sign)[:, None]
    new["wide.weight"][np.ix_(rows, columns)] = change
    new["long.weight"][:, ::10_007] = noise("sparse long", 2, 53)
    new["long.weight"][0, 524_287], new["long.weight"][1, 524_288], new["long.weight"][1, -1] = 2, -2, 2
    return old, new, {}


def classes() -> tuple[Arrays, Arrays, Arrays]:
    strengths = {
        "rows.weight": 2.0 ** -(np.arange(40) % 7).reshape(40, 1),
        "columns.weight": 2.0 ** -(np.arange(90) % 7).reshape(1, 90),
        "both.weight": 2.0 ** (-(np.arange(40) % 4).reshape(40, 1) - (np.arange(90) % 4)),
    }
    old = {name: np.zeros((40, 90), np.float32) for name in strengths}
    new = {
        name: (noise(f"classes {name}", 40, 90) * strength).astype(np.float32) for name, strength in strengths.items()
    }
    new["rows.weight"][5:9] = 0
    new["columns.weight"][:, 30:40] = 0
    return old, new, {}


def dense() -> tuple[Arrays, Arrays, Arrays]:
    """Mostly not zero: more than half of a class, magnitudes beyond the plain ones, signs that agree."""
    shapes = {"layer.weight": ("float32", (40, 60)), "vector.bias": ("float32", (90,))}
    old = noisy(shapes, "dense")
    change = np.abs(noise("dense change", 40, 60)) * 2.0 ** -(np.arange(40) % 6)[:, None]
    change *= np.where(np.arange(40) % 5 < 3, 1, -1)[:, None]
    new = {"layer.weight": old["layer.weight"] + change.astype(np.float32)}
    new["vector.bias"] = old["vector.bias"] + (noise("dense bias", 90) / 4).astype(np.float32)
    return old, new, {}


def holes() -> tuple[Arrays, Arrays, Arrays]:
    """What is not finite: in a tensor, in a vector, in the base alone."""
    old = noisy(dict.fromkeys(("fine", "nan", "healed"), ("float32", (9, 8))), "holes")
    old["vector"] = noise("holes vector", 5).astype(np.float32)
    new = {name: (array + noise(f"new {name}", *array.shape) / 8).astype(np.float32) for name, array in old.items()}
    new["nan"][3, 4], new["vector"][1], old["healed"][5, 6] = np.nan, -np.inf, np.inf
    return old, new, {name: (noise(f"lost {name}", 9, 8) / 32).astype(np.float32) for name in ("fine", "nan")}


def model_of(name: str) -> tuple[Arrays, Arrays, Arrays]:
    """Base, update and residual."""
    models = {"edges": edges, "blocks": blocks, "sparse": sparse, "classes": classes, "dense": dense, "holes": holes}
    return models[name]() if name in models else (base(), update(), residual())


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

    for stem, (codec, model) in CASES.items():
        path = HERE / f"{stem}.frame"
        if path.exists():
            continue
        old, new, lost = model_of(model)
        relative = Base.of(old)
        pipeline = Pipeline.parse(f"{codec} | fedwt | none")
        frame, lost = pipeline.encode_update(new, base=relative, residual=lost)
        data = bytes(frame)
        arrays = decode_tensors(Frame.decode(data), base=relative).arrays()
        facts = {
            "codec": codec,
            **({} if model == "plain" else {"model": model}),
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
