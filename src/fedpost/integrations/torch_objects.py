"""PyTorch tensors, parameters and storages inside of objects.

Rules: a tensor is a view of a storage; the storage is written once and whole, so tensors that shared memory share it
afterwards, such as tied weights. Only a tensor that uses little of a large storage is written by itself. What comes
back is on the CPU, in memory of its own, without its gradient and attributes, and a leaf of the graph. Sparse and
quantized tensors, subclasses, and tensors without values are refused.
"""

from __future__ import annotations

import math
import re
from functools import partial
from typing import Any, Final

import numpy as np

from fedpost.errors import DecodeError, EncodeError, MissingExtraError
from fedpost.objects import Serializer

try:
    import torch
except ImportError as error:
    raise MissingExtraError("objects with tensors need PyTorch", hint="pip install 'fedpost[torch]'") from error

__all__ = ["SERIALIZERS"]

_NAMES: Final[dict[str, torch.dtype]] = {
    str(kind).removeprefix("torch."): kind for kind in vars(torch).values() if isinstance(kind, torch.dtype)
}
_DTYPES: Final = {
    name: kind
    for name, kind in _NAMES.items()
    if not name.startswith(("q", "bits")) and re.fullmatch("u?int[1-7]", name) is None
}
"""Of the elements of a tensor. Those of less than a byte exist by name only: PyTorch cannot copy them."""
_MAX_RANK: Final = 64
_MAX_REPEATED: Final = 1 << 30
"""So many bytes a tensor may seem to have beyond its storage, by strides of zero: who adds to it needs that memory."""


def _take_storage(storage: torch.UntypedStorage) -> Any:
    if storage.device.type != "cpu":
        raise EncodeError(f"a storage on the device {storage.device}", hint="Move it to the CPU.")
    if not storage.nbytes():
        return np.empty(0, np.uint8)
    return torch.empty(0, dtype=torch.uint8).set_(storage).numpy()


def _make_storage(data: Any) -> torch.UntypedStorage:
    if type(data) is not np.ndarray or data.dtype != np.uint8 or data.ndim != 1:
        raise DecodeError("the state of a storage is an array of bytes")
    out = torch.empty(data.size, dtype=torch.uint8)
    np.copyto(out.numpy(), data)
    return out.untyped_storage()


def _take_tensor(tensor: torch.Tensor) -> Any:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type == "meta":
        raise EncodeError("a tensor that is sparse, quantized or without values", hint="Make it dense first.")
    name = str(tensor.dtype).removeprefix("torch.")
    if name not in _DTYPES:
        raise EncodeError(f"a tensor of elements {name}")
    plain = tensor.detach().resolve_conj().resolve_neg()
    if plain.device.type != "cpu":
        plain = plain.cpu()
    stored, size = plain.untyped_storage().nbytes(), plain.numel() * plain.element_size()
    if _is_little(size, stored) or size > max(stored, _MAX_REPEATED) or plain._is_zerotensor():  # noqa: SLF001 - no other way to know
        # In parts, as PyTorch warns when it makes a tensor of complex numbers of 32 bits.
        parts = torch.view_as_real(plain) if plain.is_complex() else plain
        parts = parts.clone(memory_format=torch.contiguous_format)
        plain = torch.view_as_complex(parts) if plain.is_complex() else parts
    return [
        plain.untyped_storage(),
        name,
        plain.storage_offset(),
        list(plain.shape),
        list(plain.stride()),
        tensor.requires_grad,
    ]


def _is_little(size: int, stored: int) -> bool:
    """Whether a tensor is written without the rest of its storage: what others in the same object use is not known."""
    return stored > _MAX_WHOLE and size < stored // _LEAST_USED


_MAX_WHOLE: Final = 64 << 20
"""A storage of no more bytes is always written whole."""
_LEAST_USED: Final = 8
"""A larger one is, where the tensor has one in so many of its bytes."""


def _make_tensor(state: Any) -> torch.Tensor:
    if type(state) is not list or len(state) != 6:  # noqa: PLR2004 - the parts of _take_tensor
        raise DecodeError(
            "the state of a tensor is its storage, type, offset, shape, strides and whether it has gradients"
        )
    storage, name, offset, shape, strides, gradient = state
    if not isinstance(storage, torch.UntypedStorage) or type(name) is not str or name not in _DTYPES:
        raise DecodeError("a tensor without a storage or of no known type")
    for part in (shape, strides):
        if type(part) is not list or len(part) > _MAX_RANK or not all(type(item) is int and item >= 0 for item in part):
            raise DecodeError("the shape or the strides of a tensor are no sizes")
    if type(offset) is not int or offset < 0 or len(shape) != len(strides) or type(gradient) is not bool:
        raise DecodeError("the offset, the strides or the flag of a tensor are impossible")
    dtype = _DTYPES[name]
    size = math.prod(shape) * dtype.itemsize
    last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
    if (last + 1 if size else offset) * dtype.itemsize > storage.nbytes():
        raise DecodeError("a tensor that reaches beyond its storage")
    if size > max(storage.nbytes(), _MAX_REPEATED):
        raise DecodeError(f"a tensor of {size} bytes in a storage of {storage.nbytes()}")
    octets = torch.empty(0, dtype=torch.uint8).set_(storage)
    # A view, as PyTorch warns of some types when one of their tensors is made.
    whole = octets[: storage.nbytes() // dtype.itemsize * dtype.itemsize].view(dtype)
    out = whole.as_strided(shape, strides, offset)
    return out.requires_grad_() if gradient else out


def _make_parameter(state: Any) -> torch.nn.Parameter:
    tensor = _make_tensor(state)
    return torch.nn.Parameter(tensor.detach(), requires_grad=tensor.requires_grad)


def _named(table: dict[str, Any], state: Any) -> Any:
    if type(state) is not str or state not in table:
        raise DecodeError(f"{str(state)[:80]!r} is no element type of PyTorch")
    return table[state]


def _make_size(state: Any) -> torch.Size:
    if type(state) is not list or not all(type(item) is int and item >= 0 for item in state):
        raise DecodeError("the state of a torch.Size is its lengths")
    return torch.Size(state)


def _make_device(state: Any) -> torch.device:
    if type(state) is not str:
        raise DecodeError("the state of a device is its name")
    return torch.device(state)


SERIALIZERS: Final = (
    Serializer(cls=torch.UntypedStorage, name="torch.Storage", take=_take_storage, make=_make_storage, shared=True),
    Serializer(cls=torch.Tensor, name="torch.Tensor", take=_take_tensor, make=_make_tensor, shared=True),
    Serializer(cls=torch.nn.Parameter, name="torch.Parameter", take=_take_tensor, make=_make_parameter, shared=True),
    Serializer(cls=torch.Size, name="torch.Size", take=list, make=_make_size),
    Serializer(
        cls=torch.dtype,
        name="torch.dtype",
        take=lambda kind: str(kind).removeprefix("torch."),
        make=partial(_named, _NAMES),
    ),
    Serializer(cls=torch.device, name="torch.device", take=str, make=_make_device),
)
