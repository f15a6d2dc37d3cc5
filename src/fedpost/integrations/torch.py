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
    )
    if hasattr(torch, name)
}
_BITS_OF: Final = {dtype: (bits, kind) for kind, (bits, dtype) in _AS_BITS.items()}


def get_state(model: torch.nn.Module) -> dict[str, Array]:
    """A model's ``state_dict`` as named arrays, in its order.

    Tensors on the CPU share their memory with the arrays: copy those that must outlive the next training step.

    Raises:
        EncodeError: An entry is not a tensor, or is sparse or quantized.
    """
    return {name: _to_array(name, value) for name, value in model.state_dict().items()}


def set_state(model: torch.nn.Module, arrays: Mapping[str, Array] | Sequence[Array]) -> None:
    """Copy arrays into a model's parameters and buffers, in place and on their device.

    Args:
        model: The model.
        arrays: By the names of the ``state_dict``, or in its order.

    Raises:
        RefusedResultError: A name is missing or extra, or a dtype or shape differs; then nothing was changed.
    """
    state = model.state_dict()
    if not isinstance(arrays, Mapping):
        if len(arrays) != len(state):
            raise RefusedResultError(f"{len(arrays)} arrays for a model of {len(state)}")
        arrays = dict(zip(state, arrays, strict=True))
    if arrays.keys() != state.keys():
        odd = sorted(arrays.keys() ^ state.keys())
        raise RefusedResultError("it is in the model or among the arrays, not in both", where=f"tensor {odd[0]!r}")
    tensors = {}
    for name, target in state.items():
        tensor = _to_tensor(arrays[name])
        if (tensor.dtype, tensor.shape) != (target.dtype, target.shape):
            raise RefusedResultError(
                f"it is {tensor.dtype}{list(tensor.shape)}, the model has {target.dtype}{list(target.shape)}",
                where=f"tensor {name!r}",
            )
        tensors[name] = tensor
    with torch.no_grad():
        for name, tensor in tensors.items():
            state[name].copy_(tensor)


def _to_array(name: str, value: object) -> Array:
    if not isinstance(value, torch.Tensor) or value.layout is not torch.strided or value.is_quantized:
        raise EncodeError(f"{type(value).__name__} is not a dense tensor", where=f"state_dict entry {name!r}")
    tensor = value.detach().cpu()
    if tensor.dtype in _AS_BITS:
        bits, dtype = _AS_BITS[tensor.dtype]
        array: Array = tensor.view(bits).numpy().view(dtype)
        return array
    plain: Array = tensor.numpy()
    return plain


def _to_tensor(array: Array) -> torch.Tensor:
    if array.dtype in _BITS_OF:
        bits, kind = _BITS_OF[array.dtype]
        return torch.tensor(array.view(np.dtype(str(bits).removeprefix("torch.")))).view(kind)
    return torch.tensor(array)
