"""Names of element types: each one fixed for ever, and nothing else understood."""

from __future__ import annotations

import gc
import json
import tracemalloc

import ml_dtypes
import numpy as np
import pytest

from fedpost.errors import DecodeError, EncodeError, UnsupportedError
from fedpost.tensors import Npy
from fedpost.tensors.dtypes import dtype_from_name, dtype_name, is_number

NAMED = {
    "bool": np.dtype(bool),
    "int8": np.dtype("i1"),
    "uint64": np.dtype("<u8"),
    "float16": np.dtype("<f2"),
    "float32": np.dtype("<f4"),
    "float64": np.dtype("<f8"),
    "complex64": np.dtype("<c8"),
    "complex128": np.dtype("<c16"),
    ">int16": np.dtype(">i2"),
    ">float64": np.dtype(">f8"),
    ">complex64": np.dtype(">c8"),
    "bytes[8]": np.dtype("S8"),
    "bytes[0]": np.dtype("S0"),
    "str[12]": np.dtype("<U12"),
    ">str[3]": np.dtype(">U3"),
    "void[16]": np.dtype("V16"),
    "datetime64": np.dtype("M8"),
    "datetime64[ns]": np.dtype("<M8[ns]"),
    ">datetime64[D]": np.dtype(">M8[D]"),
    "datetime64[25s]": np.dtype("M8[25s]"),
    "timedelta64[Y]": np.dtype("m8[Y]"),
    'struct[8,[["a","int32",0,[]],["b","float32",4,[]]]]': np.dtype([("a", "<i4"), ("b", "<f4")]),
    'struct[24,[["é",">float64",0,[3]]]]': np.dtype([("é", ">f8", (3,))]),
    'struct[8,[["b","uint16",4,[]],["a","uint16",0,[]]]]': np.dtype(
        {"names": ["b", "a"], "formats": ["<u2", "<u2"], "offsets": [4, 0], "itemsize": 8}
    ),
    'struct[4,[["in","struct[4,[[\\"x\\",\\"bfloat16\\",0,[2]]]]",0,[]]]]': np.dtype(
        [("in", [("x", ml_dtypes.bfloat16, (2,))])]
    ),
    "struct[0,[]]": np.dtype([]),
}
ML_NAMES = [
    "bfloat16",
    "float8_e3m4",
    "float8_e4m3",
    "float8_e4m3b11fnuz",
    "float8_e4m3fn",
    "float8_e4m3fnuz",
    "float8_e5m2",
    "float8_e5m2fnuz",
    "float8_e8m0fnu",
    "float4_e2m1fn",
    "float6_e2m3fn",
    "float6_e3m2fn",
    "int2",
    "int4",
    "uint2",
    "uint4",
]


@pytest.mark.parametrize("name", NAMED)
def test_names(name):
    assert dtype_name(NAMED[name]) == name
    assert dtype_from_name(name) == NAMED[name]
    assert dtype_from_name(name).itemsize == NAMED[name].itemsize


@pytest.mark.parametrize("name", ML_NAMES)
def test_names_of_ml_dtypes(name):
    dtype = np.dtype(getattr(ml_dtypes, name))
    assert dtype_name(dtype) == name
    assert dtype_from_name(name) == dtype


def test_extended_floats_name_their_hardware():
    if np.finfo(np.longdouble).nmant == 63:
        assert dtype_name(np.dtype("longdouble")) == "float80_x87"
        assert dtype_name(np.dtype("clongdouble")) == "complex160_x87"
        assert dtype_from_name("float80_x87").itemsize == 16


def test_a_type_has_one_name():
    assert dtype_name(np.dtype(np.longlong)) == dtype_name(np.dtype(np.int64)) == "int64"
    assert dtype_name(np.dtype("=f4")) == "float32"
    assert dtype_name(np.dtype([("a", "f4")], align=True)) == dtype_name(np.dtype([("a", "f4")]))


@pytest.mark.parametrize("dtype", [np.dtype("O"), np.dtype([("a", "O")]), np.dtypes.StringDType()])
def test_what_has_no_bytes_has_no_name(dtype):
    with pytest.raises(EncodeError, match="cannot be put in a frame") as caught:
        dtype_name(dtype)
    assert caught.value.hint == "Convert it to a numeric type."


@pytest.mark.parametrize("name", ["", "f4", "object", "numpy.float32", "bytes[٣]", "datetime64[0s]", "str[536870912]"])
def test_unknown_names(name):
    with pytest.raises(UnsupportedError) as caught:
        dtype_from_name(name)
    assert caught.value.what == f"unknown element type {name!r}"


def test_a_long_unknown_name_is_cut():
    with pytest.raises(UnsupportedError) as caught:
        dtype_from_name("x" * 10_000)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ('struct[4,[["a","float64",0,[]]]]', "not inside the element"),
        # NumPy adds offset and size in 32 bits, and reads far away memory.
        ('struct[8,[["a","float64",2147483647,[]]]]', "not inside the element"),
        ('struct[8,[["a","int8",0,[]],["a","int8",1,[]]]]', "impossible: name already used"),
        ("struct[4", "impossible: "),
        ('struct[8,[["' + "a" * 70_000 + '","int8",0,[]]]]', "too long or too deep"),
    ],
)
def test_impossible_structures(name, message):
    with pytest.raises(DecodeError, match=message):
        dtype_from_name(name)


def nested(depth):
    dtype = np.dtype("i1")
    for _ in range(depth):
        dtype = np.dtype([("a", dtype)])
    return dtype


def test_structures_nest_eight_deep():
    assert dtype_from_name(dtype_name(nested(9))) == nested(9)
    deeper = "struct" + json.dumps([1, [["a", dtype_name(nested(9)), 0, []]]])
    with pytest.raises(DecodeError, match="too long or too deep"):
        dtype_from_name(deeper)


@pytest.mark.parametrize("dtype", [nested(10), np.dtype([("a" * 70_000, "i1")]), np.dtype("M8[2147483647s]")], ids=str)
def test_what_no_reader_takes_is_not_encoded(dtype):
    with pytest.raises(EncodeError):
        dtype_name(dtype)


@pytest.mark.parametrize("dtype", ["bool", "i8", ">f4", "c16", "longdouble", ml_dtypes.bfloat16, ml_dtypes.int4])
def test_numbers(dtype):
    assert is_number(np.dtype(dtype))


@pytest.mark.parametrize("dtype", ["S4", "U4", "V4", "M8[s]", "m8[s]", "O", [("a", "f4")]])
def test_what_is_no_number(dtype):
    assert not is_number(np.dtype(dtype))


def test_long_names_are_not_kept():
    """They come from the wire, and a type of thousands of fields takes half a megabyte."""
    Npy().encode({"w": np.zeros(0)})  # what NumPy imports when it is first used is not meant
    names = []
    for first in range(3):
        fields = ",".join(f'["{first}.{number}","bool",{number},[]]' for number in range(2000))
        names.append(f"struct[2000,[{fields}]]")
    tracemalloc.start()
    for name in names:
        dtype = dtype_from_name(name)
        dtype_name(dtype)
        Npy().encode({"w": np.zeros(0, dtype)})
        del dtype
    gc.collect()
    left = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert left < 100_000
