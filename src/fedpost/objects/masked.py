"""Serializers of NumPy's own classes of arrays: masked arrays."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from fedpost.errors import DecodeError
from fedpost.objects.types import Serializer

__all__ = ["SERIALIZERS"]


def _take(value: Any) -> Any:
    mask = None if value.mask is np.ma.nomask else np.asarray(value.mask)
    # The property would make one up.
    fill = None if value._fill_value is None else np.asarray(value._fill_value, value.dtype)  # noqa: SLF001
    return [np.asarray(value.data), mask, fill, bool(value.hardmask)]


def _make(state: Any) -> Any:
    if type(state) is not list or len(state) != 4 or type(state[0]) is not np.ndarray:  # noqa: PLR2004 - the parts of _take
        raise DecodeError("the state of a masked array is its data, mask, fill value and hardness")
    data, mask, fill, hard = state
    if mask is not None and not _is_array(mask, np.ma.make_mask_descr(data.dtype), data.shape):
        raise DecodeError("the mask of a masked array does not have the shape of the data, or is not one of booleans")
    if fill is not None and not _is_array(fill, data.dtype, ()):
        raise DecodeError("the fill value of a masked array does not have the type of the data")
    if type(hard) is not bool:
        raise DecodeError("the mask of a masked array is hard or not")
    out = np.ma.MaskedArray(data, mask=np.ma.nomask if mask is None else mask, hard_mask=hard)
    if fill is not None:
        out.fill_value = fill[()]
    return out


def _is_array(value: Any, dtype: Any, shape: tuple[int, ...]) -> bool:
    return type(value) is np.ndarray and value.dtype == dtype and value.shape == shape


SERIALIZERS: Final = (Serializer(cls=np.ma.MaskedArray, name="MaskedArray", take=_take, make=_make, shared=True),)
