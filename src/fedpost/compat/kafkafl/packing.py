"""What is sent, as a frame: models by a pipeline, in the format that is configured; other values as fedpost's objects.

Rules: what comes back is what was sent, of the same type; what could not be is refused by its path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal

import numpy as np

from fedpost.errors import DecodeError, EncodeError
from fedpost.frame import Frame
from fedpost.objects import TypeRegistry, to_frame
from fedpost.pipeline import Pipeline
from fedpost.tensors import Array, MemoryTensors, TensorSource, TensorSpec

__all__ = ["MODELS", "Container", "arrays_of", "encode", "is_model"]

Container = Literal["list", "dict", "object"]
"""What was sent: a list of arrays, a dictionary of them by name, or another value."""

MODELS: Final = frozenset({"model_weights", "weight_update", "gradients"})
"""Data types that are arrays and nothing else."""


def is_model(data: object) -> bool:
    """Whether a value is a list of arrays, or a dictionary of them by names that are text."""
    if type(data) is dict:
        return bool(data) and all(type(k) is str and type(v) is np.ndarray for k, v in data.items())
    return type(data) is list and bool(data) and all(type(array) is np.ndarray for array in data)


def encode(
    data: object, data_type: object, pipeline: Pipeline, registry: TypeRegistry
) -> tuple[Frame, Container, tuple[TensorSpec, ...]]:
    """A value as a frame, what it is, and the specs of a model's arrays.

    Raises:
        EncodeError: The data type is a model's, and the value is none; or it has parts that cannot be sent.
    """
    if not isinstance(data_type, str):
        raise EncodeError(f"a data type is text, not {type(data_type).__name__}")
    if data_type not in MODELS and not is_model(data):
        compression = None if pipeline.compression is None else str(pipeline.compression)
        return to_frame(data, registry=registry, checksum=pipeline.checksum, compression=compression), "object", ()
    if isinstance(data, Mapping):
        arrays: dict[str, Array] = dict(data)
    elif isinstance(data, Sequence) and not isinstance(data, str | bytes | bytearray | memoryview):
        arrays = {str(index): array for index, array in enumerate(data)}
    else:
        hint = "Give a list of arrays, or a dictionary of them by name."
        raise EncodeError(f"{type(data).__name__} is no {data_type}", hint=hint)
    frame = pipeline.encode(arrays)
    return frame, "dict" if isinstance(data, Mapping) else "list", MemoryTensors(arrays).specs


def arrays_of(tensors: TensorSource, container: Container) -> dict[str, Array] | list[Array]:
    """The model whose tensors these are.

    Raises:
        DecodeError: A list whose arrays are not named by their places.
    """
    arrays = tensors.arrays()
    if container == "dict":
        return arrays
    if any(name != str(index) for index, name in enumerate(arrays)):
        raise DecodeError("the arrays of a list are not named by their places")
    return list(arrays.values())
