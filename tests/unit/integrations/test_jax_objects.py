"""JAX arrays inside of objects."""

from __future__ import annotations

import pytest

import fedpost
from fedpost.errors import DecodeError, EncodeError

jax = pytest.importorskip("jax", reason="JAX is not installed: pip install 'fedpost[jax]'")
jnp = jax.numpy

NAMES = [
    *("bool", "int4", "uint4", "int8", "int16", "int32", "uint8", "uint16", "uint32"),
    *("bfloat16", "float16", "float32", "complex64"),
    *("float8_e4m3fn", "float8_e5m2", "float8_e4m3b11fnuz", "float8_e4m3fnuz", "float8_e5m2fnuz"),
]


def back(value):
    return fedpost.loads(fedpost.dumps(value))


@pytest.mark.parametrize("name", NAMES)
def test_every_element_type(name):
    for array in (jnp.ones((2, 3), name), jnp.ones((), name), jnp.zeros((0, 2), name)):
        found = back(array)
        assert type(found) is type(array)
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        assert (found == array).all()


def test_an_array_in_two_places_comes_back_as_one():
    array = jnp.arange(3)
    first, second = back([array, array])
    assert first is second


@pytest.fixture
def doubles():
    """An array of float64, written where JAX has them, read where it does not."""
    jax.config.update("jax_enable_x64", True)
    try:
        data = fedpost.dumps(jnp.ones(2))
        assert fedpost.loads(data).dtype == "float64"
    finally:
        jax.config.update("jax_enable_x64", False)
    return data


def test_doubles_are_refused_where_they_are_switched_off(doubles):
    with pytest.raises(DecodeError, match="JAX has no float64 here") as caught:
        fedpost.loads(doubles)
    assert "jax_enable_x64" in caught.value.hint


def test_what_has_no_elements_is_refused():
    with pytest.raises(EncodeError, match="PRNGKeyArray"):
        fedpost.dumps(jax.random.key(0))
    assert (back(jax.random.key_data(jax.random.key(7))) == jax.random.key_data(jax.random.key(7))).all()
    gone = jnp.ones(2)
    gone.delete()
    with pytest.raises(EncodeError, match="deleted"):
        fedpost.dumps(gone)
    with pytest.raises(EncodeError, match="Tracer"):
        jax.jit(lambda array: fedpost.dumps(array) and array)(jnp.ones(2))
