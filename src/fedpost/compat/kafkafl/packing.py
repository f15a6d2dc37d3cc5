"""What is sent, as a frame: models by a pipeline, in the format that is configured; other values as fedpost's objects.

Rules: what comes back is what was sent, of the same type; what could not be is refused by its path. So only lists,
tuples and dictionaries of plain arrays are models of the configured format; an ordered dictionary, or scalars among the
arrays, are objects. An array that is mapped from a file comes back as an array.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

import numpy as np

from fedpost.errors import DecodeError, EncodeError
from fedpost.frame import Frame
from fedpost.objects import TypeRegistry, to_frame
from fedpost.pipeline import Pipeline
from fedpost.tensors import Array, TensorSource

__all__ = ["MODELS", "Container", "arrays_of", "encode", "is_model", "is_of_arrays", "named"]

Container = Literal["list", "tuple", "dict", "object"]
"""What was sent: a list or tuple of arrays, a dictionary of them by name, or another value."""

MODELS: Final = frozenset({"model_weights", "weight_update", "gradients"})
"""Data types that are arrays and nothing else."""

_CONTAINERS: Final[dict[type, Container]] = {list: "list", tuple: "tuple", dict: "dict"}
_PLAIN: Final = (np.ndarray, np.memmap)


def is_model(data: object) -> bool:
    """Whether a value is a list or tuple of arrays, or a dictionary of them by names that are text."""
    if type(data) not in _CONTAINERS or not isinstance(data, dict | list | tuple):
        return False
    names: Iterable[object] = data if isinstance(data, dict) else ()
    arrays: Iterable[object] = data.values() if isinstance(data, dict) else data
    return all(type(name) is str for name in names) and all(type(array) in _PLAIN for array in arrays)


def is_of_arrays(data: object) -> bool:
    """Whether a value is any sequence of NumPy's arrays and scalars, or any mapping of them by names that are text."""
    if isinstance(data, Mapping):
        return all(isinstance(name, str) for name in data) and _are_arrays(data.values())
    return (
        isinstance(data, Sequence) and not isinstance(data, str | bytes | bytearray | memoryview) and _are_arrays(data)
    )


def _are_arrays(values: Iterable[object]) -> bool:
    return all(isinstance(value, np.ndarray | np.generic) for value in values)


def encode(
    data: object, data_type: object, pipeline: Pipeline, registry: TypeRegistry
) -> tuple[Frame, Container, Mapping[str, Array]]:
    """A value as a frame, what it is, and a model's arrays by name.

    Raises:
        EncodeError: The data type is a model's, and the value is none; or it has parts that cannot be sent.
    """
    if not isinstance(data_type, str):
        raise EncodeError(f"a data type is text, not {type(data_type).__name__}")
    wanted = data_type in MODELS
    if is_model(data) and (data or wanted):
        arrays, container = named(data)
        return pipeline.encode(arrays), container, arrays
    if wanted and not is_of_arrays(data):
        hint = "Give a list of arrays, or a dictionary of them by name."
        raise EncodeError(f"{type(data).__name__} is no {data_type}", hint=hint)
    compression = None if pipeline.compression is None else str(pipeline.compression)
    return to_frame(data, registry=registry, checksum=pipeline.checksum, compression=compression), "object", {}


def named(model: Any) -> tuple[dict[str, Array], Container]:
    """A model's arrays by name, those of a list by their places; and what it is."""
    arrays = dict(model) if isinstance(model, dict) else {str(index): array for index, array in enumerate(model)}
    return arrays, _CONTAINERS[type(model)]


def arrays_of(tensors: TensorSource, container: Container) -> dict[str, Array] | list[Array] | tuple[Array, ...]:
    """The model whose tensors these are.

    Raises:
        DecodeError: A list whose arrays are not named by their places.
    """
    arrays = tensors.arrays()
    if container == "dict":
        return arrays
    if any(name != str(index) for index, name in enumerate(arrays)):
        raise DecodeError(f"the arrays of a {container} are not named by their places")
    return tuple(arrays.values()) if container == "tuple" else list(arrays.values())
