"""PyTorch models to named arrays and back, with every dtype kept, ``bfloat16`` and ``float8`` included.

Rules: tensors on the CPU are referenced, not copied; what comes back is copied into the model in place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import ml_dtypes
import numpy as np

from fedpost.errors import EncodeError, MissingExtraError, RefusedResultError
from fedpost.tensors import Array

try:
    import torch
except ImportError as error:
    raise MissingExtraError("this integration needs PyTorch", hint="pip install 'fedpost[torch]'") from error

__all__ = ["get_state", "set_state"]

# Types that PyTorch cannot hand to NumPy: the same bits under an integer's name, and the name they have in ml_dtypes.
_AS_BITS: Final[dict[Any, tuple[Any, np.dtype[Any]]]] = {
    getattr(torch, name): (bits, np.dtype(getattr(ml_dtypes, name)))
    for name, bits in (
        ("bfloat16", torch.int16),
        ("float8_e4m3fn", torch.uint8),
        ("float8_e4m3fnuz", torch.uint8),
        ("float8_e5m2", torch.uint8),
        ("float8_e5m2fnuz", torch.uint8),
        ("float8_e8m0fnu", torch.uint8),
    )
    if hasattr(torch, name)
}
_BITS_OF: Final = {dtype: (bits, kind) for kind, (bits, dtype) in _AS_BITS.items()}


def get_state(model: torch.nn.Module) -> dict[str, Array]:
    """A model's ``state_dict`` as named arrays, in its order.

    Tensors on the CPU share their memory with the arrays: copy those that must outlive the next training step.

    Raises:
        EncodeError: An entry is not a tensor, is sparse or quantized, has no values yet (lazy modules, the meta
            device), or has an element type that NumPy has not.
    """
    return {name: _to_array(name, value) for name, value in model.state_dict().items()}


def set_state(model: torch.nn.Module, arrays: Mapping[str, Array] | Sequence[Array]) -> None:
    """Copy arrays into a model's parameters and buffers, in place and on their device.

    Args:
        model: The model.
        arrays: By the names of the ``state_dict``, or in its order.

    Raises:
        RefusedResultError: A name is missing or extra, or a dtype or shape differs; then nothing was changed.
        EncodeError: The model has an entry that :func:`get_state` refuses; then nothing was changed either.
    """
    state = model.state_dict()
    if not isinstance(arrays, Mapping):
        if len(arrays) != len(state):
            raise RefusedResultError(f"{len(arrays)} arrays for a model of {len(state)}")
        arrays = dict(zip(state, arrays, strict=True))
    if arrays.keys() != state.keys():
        odd = sorted(arrays.keys() ^ state.keys())
        raise RefusedResultError("it is in the model or among the arrays, not in both", where=f"tensor {odd[0]!r}")
    for name, target in state.items():
        array, dtype = arrays[name], _element_type(name, target)
        if (array.dtype, array.shape) != (dtype, tuple(target.shape)):
            raise RefusedResultError(
                f"it is {array.dtype}{list(array.shape)}, the model has {dtype}{list(target.shape)}",
                where=f"tensor {name!r}",
            )
    with torch.no_grad():
        for name, target in state.items():
            target.copy_(_to_tensor(arrays[name]))


def _element_type(name: str, value: object) -> np.dtype[Any]:
    """The NumPy type of what a ``state_dict`` holds, once it is sure that it has one."""
    where = f"state_dict entry {name!r}"
    if not isinstance(value, torch.Tensor) or value.layout is not torch.strided or value.is_quantized:
        raise EncodeError(f"{type(value).__name__} is not a dense tensor", where=where)
    if value.is_meta or torch.nn.parameter.is_lazy(value):
        raise EncodeError("it has no values yet", where=where, hint="Initialize the model first.")
    if value.dtype in _AS_BITS:
        return _AS_BITS[value.dtype][1]
    try:
        plain: np.dtype[Any] = torch.empty(0, dtype=value.dtype).numpy().dtype
    except TypeError as error:
        raise EncodeError(f"NumPy has no {value.dtype}", where=where) from error
    return plain


def _to_array(name: str, value: torch.Tensor) -> Array:
    dtype = _element_type(name, value)
    # NumPy cannot defer a conjugate or a sign as PyTorch does; without one these are no copies.
    tensor = value.detach().cpu().resolve_conj().resolve_neg()
    if tensor.dtype in _AS_BITS:
        array: Array = tensor.view(_AS_BITS[tensor.dtype][0]).numpy().view(dtype)
        return array
    plain: Array = tensor.numpy()
    return plain


def _to_tensor(array: Array) -> torch.Tensor:
    if array.dtype in _BITS_OF:
        bits, kind = _BITS_OF[array.dtype]
        return torch.tensor(array.view(np.dtype(str(bits).removeprefix("torch.")))).view(kind)
    return torch.tensor(array)
