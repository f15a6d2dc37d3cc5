"""Serializers of NumPy's own classes of arrays: masked arrays."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from fedpost.errors import DecodeError
from fedpost.objects.types import Serializer

__all__ = ["SERIALIZERS"]


def _take(value: Any) -> Any:
    mask = None if value.mask is np.ma.nomask else np.asarray(value.mask)
    fill = None if value._fill_value is None else np.asarray(value._fill_value)  # noqa: SLF001 - the property would make one up
    return [np.asarray(value.data), mask, fill, bool(value.hardmask)]


def _make(state: Any) -> Any:
    if type(state) is not list or len(state) != 4 or type(state[0]) is not np.ndarray:  # noqa: PLR2004 - the parts of _take
        raise DecodeError("the state of a masked array is its data, mask, fill value and hardness")
    data, mask, fill, hard = state
    for part, shape in ((mask, data.shape), (fill, ())):
        if part is not None and (type(part) is not np.ndarray or part.shape != shape):
            raise DecodeError("the mask of a masked array does not have the shape of the data")
    out = np.ma.MaskedArray(data, mask=np.ma.nomask if mask is None else mask, hard_mask=bool(hard))
    if fill is not None:
        out.fill_value = fill[()]
    return out


SERIALIZERS: Final = (Serializer(cls=np.ma.MaskedArray, name="MaskedArray", take=_take, make=_make),)
