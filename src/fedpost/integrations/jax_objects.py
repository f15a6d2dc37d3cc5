"""JAX arrays inside of objects: their elements, on the default device when they come back.

Rules: an element type that this process has switched off is refused, not narrowed. A weak type becomes a type. Arrays
of random keys are of another class, and refused; ``jax.random.key_data`` gives their elements.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from fedpost.errors import DecodeError, EncodeError, MissingExtraError
from fedpost.objects import Serializer

try:
    import jax
    import jax.numpy as jnp
except ImportError as error:
    raise MissingExtraError("objects with JAX arrays need JAX", hint="pip install 'fedpost[jax]'") from error

__all__ = ["SERIALIZERS"]


def _take(array: Any) -> Any:
    if not array.is_fully_addressable:
        raise EncodeError("an array that other processes hold parts of", hint="Gather it first.")
    return np.asarray(array)


def _make(state: Any) -> Any:
    if type(state) is not np.ndarray:
        raise DecodeError("the state of a JAX array is an array")
    if jax.dtypes.canonicalize_dtype(state.dtype) != state.dtype:
        raise DecodeError(
            f"JAX has no {state.dtype} here", hint='Switch it on: jax.config.update("jax_enable_x64", True).'
        )
    return jnp.array(state)


SERIALIZERS: Final = (Serializer(cls=type(jnp.zeros(0)), name="jax.Array", take=_take, make=_make, shared=True),)
