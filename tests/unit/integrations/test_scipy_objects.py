"""SciPy's sparse arrays inside of objects: all classes, element types and what they hold beside their values."""

from __future__ import annotations

import numpy as np
import pytest

import fedpost
from fedpost.errors import EncodeError

sparse = pytest.importorskip("scipy.sparse", reason="SciPy is not installed: pip install scipy")

VALUES = np.array([[0, 1, 0, 0], [2, 0, 0, 3]])
CLASSES = [
    getattr(sparse, f"{kind}_{form}")
    for kind in ("csr", "csc", "bsr", "dia", "coo", "lil", "dok")
    for form in ("array", "matrix")
]
DTYPES = [*"?bhilqBHILQfdgFDG"]
I8 = np.int64


def back(value):
    return fedpost.loads(fedpost.dumps(value))


def parts(value):
    """Everything that a sparse array holds, as arrays."""
    if value.format == "lil":
        return [np.array(row) for rows in (value.rows, value.data) for row in rows]
    if value.format == "dok":
        return [np.array([*map(np.atleast_1d, value.keys())], I8), np.array([*value.values()])]
    if value.format == "coo":
        return [value.data, *value.coords]
    return [value.data, *(getattr(value, name) for name in ("indices", "indptr", "offsets") if hasattr(value, name))]


def assert_same(found, value):
    assert type(found) is type(value)
    assert (found.shape, found.dtype, found.nnz) == (value.shape, value.dtype, value.nnz)
    for one, other in zip(parts(found), parts(value), strict=True):
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)


@pytest.mark.parametrize("code", DTYPES)
@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_class_and_element_type(cls, code):
    value = cls(VALUES.astype(code))
    assert_same(back(value), value)


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 4)], ids=str)
@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_nothing_in_it(cls, shape):
    assert_same(back(cls(shape)), cls(shape))


def wide(cls):
    """Indices of 64 bits, where 32 would do."""
    value = cls(VALUES)
    value.indices, value.indptr = value.indices.astype(I8), value.indptr.astype(I8)
    return value


def pair(*columns, data=(2.0, 1.0)):
    return sparse.csr_array((np.array(data), np.array(columns), np.array([0, 2])), shape=(1, 4))


ODD = {
    "explicit zeros": pair(0, 1, data=(0.0, 1.0)),
    "unsorted": pair(3, 1),
    "twice": pair(1, 1),
    "coordinates twice": sparse.coo_array((np.array([2.0, 1.0]), ([0, 0], [1, 1])), shape=(1, 2)),
    "wide csr": wide(sparse.csr_array),
    "wide csr matrix": wide(sparse.csr_matrix),
    "wide csc matrix": wide(sparse.csc_matrix),
    "wide bsr matrix": wide(sparse.bsr_matrix),
    "one dimension": sparse.coo_array(np.array([0, 1.0])),
    "one dimension csr": sparse.csr_array(np.array([0, 1.0])),
    "one dimension dok": sparse.dok_array(np.array([0, 1.0])),
    "three dimensions": sparse.coo_array(np.ones((2, 2, 2))),
    "diagonals beyond": sparse.dia_array((np.arange(12.0).reshape(2, 6), [0, -1]), shape=(4, 4)),
    "blocks": sparse.bsr_array(np.kron(np.eye(2), np.ones((2, 3))), blocksize=(2, 3)),
}


@pytest.mark.parametrize("what", ODD)
def test_what_is_odd_is_kept(what):
    assert_same(back(ODD[what]), ODD[what])


def test_room_for_more_is_not_written():
    value = sparse.csr_array(VALUES)
    value.data, value.indices = np.append(value.data, 99), np.append(value.indices, 3)
    found = back(value)
    assert found.data.tolist() == [1, 2, 3]


def test_what_comes_back_is_one_s_own():
    value = sparse.csr_array(VALUES)
    first, second = back([value, value])
    assert first is second
    first.data[0] = 9
    first[1, 3] = 5


def test_keys_come_back_in_order_and_as_python_s_numbers():
    value = sparse.dok_array((3, 4))
    value[2, 1], value[0, 3] = 5, 6
    found = back(value)
    assert list(found.items()) == [((2, 1), 5), ((0, 3), 6)]
    assert {type(part) for key in found.keys() for part in key} == {int}  # noqa: SIM118 - no dictionary
    found[1, 1] = 7
    assert found.sum() == 18


def test_subclasses_are_refused():
    class Mine(sparse.csr_array):
        pass

    with pytest.raises(EncodeError, match="Mine"):
        fedpost.dumps(Mine(VALUES))
