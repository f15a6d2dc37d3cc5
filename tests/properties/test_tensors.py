"""Laws of tensors on the wire: names, order, element types, shapes and every bit come back, by every pipeline."""

from __future__ import annotations

import random
import struct

import blake3
import ml_dtypes
import msgspec
import numpy as np
import pytest
from hypothesis import Phase, assume, given, reject, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedpost.errors import EncodeError, RemoteError
from fedpost.frame import Frame
from fedpost.pipeline import Pipeline, decode_tensors, tensor_sizes
from fedpost.tensors.dtypes import dtype_from_name, dtype_name

FORMATS = ("fedwt", "numpy")
SPECS = [f"dense | {form} | {packer}" for form in FORMATS for packer in ("none", "gzip(1)", "zstd(1)", "lz4")]

# fmt: off
PLAIN = [np.dtype(name) for name in (
    "bool", "i1", "<i2", ">i2", "<i4", ">i4", "<i8", ">i8", "u1", "<u2", ">u2", "<u4", ">u4", "<u8", ">u8",
    "<f2", ">f2", "<f4", ">f4", "<f8", ">f8", "<c8", ">c8", "<c16", ">c16", "longdouble", "clongdouble",
    "M8", "<M8[ns]", ">M8[s]", "<M8[25D]", "m8[Y]", ">m8[us]", "S1", "S7", "<U1", ">U5", "V1", "V16",
)]
NARROW = [np.dtype(getattr(ml_dtypes, name)) for name in (
    "bfloat16", "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2",
    "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn",
    "int2", "int4", "uint2", "uint4",
)]
# fmt: on
simple = st.sampled_from(PLAIN + NARROW)


flat = st.sampled_from([d for d in PLAIN + NARROW if d.char not in "gG"])


@st.composite
def structures(draw, inner=flat):
    """Records, packed or with padding, with fields that are arrays. Titles of fields are not carried."""
    names = draw(st.lists(st.text(min_size=1, max_size=3), max_size=4, unique=True))
    shapes = st.sampled_from([(), (1,), (2, 3), (0,)])
    return np.dtype([(name, draw(inner), draw(shapes)) for name in names], align=draw(st.booleans()))


structured = structures() | structures(structures() | simple)
dtypes = simple | structured
layouts = st.sampled_from(["C", "F", "strided", "reversed", "transposed", "broadcast", "offset", "frozen"])


@st.composite
def arrays(draw, dtypes=dtypes):
    """Arrays of any bits: also bits that are not a value of the type, as they come out of uninitialised memory."""
    dtype = draw(dtypes)
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=5))
    if draw(st.integers(0, 4)) == 0:
        shape = (draw(st.integers(1000, 3000)), *shape[:1])  # of 4 KiB and more, which are not gathered
    layout = draw(layouts)
    count = int(np.prod(shape, dtype=np.int64))
    data = random.Random(draw(st.integers(0, 2**32))).randbytes(count * dtype.itemsize)
    array = np.ndarray(shape, dtype, bytearray(data) or bytearray(8))
    return laid_out(array, layout)


def laid_out(array, layout):  # noqa: PLR0911 - a table
    match layout:
        case "F":
            return np.asfortranarray(array)
        case "strided":
            return np.repeat(array, 2, axis=0)[::2] if array.ndim else array
        case "reversed":
            return array[::-1] if array.ndim else array
        case "transposed":
            return array.T
        case "broadcast":
            return np.broadcast_to(array, (2, *array.shape))
        case "offset":
            return np.concatenate([array, array])[len(array) :] if array.ndim else array
        case "frozen":
            array.flags.writeable = False
    return array


def bits(array):
    """What must come back: every bit of every field. Bytes between fields are not values."""
    if array.dtype.names is None:
        return array.tobytes()
    return [bits(array[name]) for name in array.dtype.names]


class Named(dict):
    """Arrays by name that do not print their thousands of values when a law is broken."""

    def __repr__(self):
        return f"<{[(name, array.dtype, array.shape, array.strides) for name, array in self.items()]}>"


def named(dtypes=dtypes):
    return st.dictionaries(st.text(max_size=8), arrays(dtypes), max_size=6).map(Named)


def exact(sent, got):
    assert list(got) == list(sent)
    for name, array in sent.items():
        assert got[name].dtype == array.dtype
        assert got[name].shape == array.shape
        assert bits(got[name]) == bits(array)
        assert not got[name].flags.writeable


@pytest.mark.parametrize("spec", [spec for spec in SPECS if "fedwt" in spec])
@given(named())
def test_fedwt_round_trip_is_exact(spec, tensors):
    frame = Pipeline.parse(spec).encode(tensors)
    source = decode_tensors(Frame.decode(bytes(frame)))
    exact(tensors, source.arrays())
    assert [(s.name, s.dtype, s.shape) for s in source.specs] == [(n, a.dtype, a.shape) for n, a in tensors.items()]
    for name, array in source.arrays().items():
        # Under a compression tensors are in C order, so that they can be read by range.
        if spec.endswith("none") and tensors[name].flags.f_contiguous and array.nbytes >= 4096:
            assert array.flags.f_contiguous


@pytest.mark.parametrize("spec", [spec for spec in SPECS if "numpy" in spec])
@given(named(st.sampled_from([d for d in PLAIN + NARROW if d.str != "<f1"])))
def test_numpy_round_trip_is_exact(spec, tensors):
    exact(tensors, decode_tensors(Frame.decode(bytes(Pipeline.parse(spec).encode(tensors)))).arrays())


@settings(phases=[Phase.generate])
@given(named())
def test_numpy_round_trip_is_exact_for_every_type(tensors):
    exact(tensors, decode_tensors(Frame.decode(bytes(Pipeline.parse("dense | numpy | none").encode(tensors)))).arrays())


@pytest.mark.parametrize("spec", SPECS)
@given(named(st.sampled_from(PLAIN)), st.data())
def test_a_range_is_a_slice_of_the_flat_tensor(spec, tensors, data):
    source = decode_tensors(Frame.decode(bytes(Pipeline.parse(spec).encode(tensors)), verify="lazy"))
    for name, array in tensors.items():
        start = data.draw(st.integers(0, array.size))
        stop = data.draw(st.integers(start, array.size))
        part = source.read(name, start, stop)
        assert part.shape == (stop - start,)
        assert part.dtype == array.dtype
        assert bits(part) == bits(array.reshape(-1)[start:stop])


floats = st.sampled_from([np.dtype(t) for t in ("<f4", "<f8", ">f4", ">f8", "<f2", "i4", "bool", ml_dtypes.bfloat16)])
widths = {
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
    "float32": np.dtype(np.float32),
}


@pytest.mark.parametrize("target", widths)
@pytest.mark.parametrize("form", FORMATS)
@given(named(floats))
def test_cast_is_rounding_and_keeps_what_is_not_wider(target, form, tensors):
    narrow = widths[target]
    wider = {
        name
        for name, array in tensors.items()
        if array.dtype.newbyteorder("=") in (np.float32, np.float64) and array.dtype.itemsize > narrow.itemsize
    }
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = {n: a.astype(narrow).astype(a.dtype) if n in wider else a for n, a in tensors.items()}
        fits = all(np.array_equal(np.isfinite(rounded[name]), np.isfinite(tensors[name])) for name in wider)
        pipeline = Pipeline.parse(f"cast({target}) | {form} | none")
        if not fits:
            with pytest.raises(EncodeError, match="too large"):
                pipeline.encode(tensors)
            return
        frame = pipeline.encode(tensors)
        source = decode_tensors(Frame.decode(bytes(frame)))
        got = source.arrays()
    assert list(got) == list(tensors)
    for name, array in tensors.items():
        assert got[name].dtype == array.dtype
        assert got[name].shape == array.shape
        if name in wider:
            np.testing.assert_array_equal(got[name], rounded[name])
            np.testing.assert_array_equal(np.signbit(got[name]), np.signbit(array))
        else:
            assert bits(got[name]) == bits(array)
    sizes = tensor_sizes(frame)
    assert {name: raw for name, (raw, _) in sizes.items()} == {name: array.nbytes for name, array in tensors.items()}


@pytest.mark.parametrize("spec", SPECS)
@given(named(st.sampled_from(PLAIN)), st.data())
def test_altered_bytes_give_remote_errors_only(spec, tensors, data):
    good = bytes(Pipeline.parse(spec).encode(tensors))
    altered = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(altered) - 1))
        match data.draw(st.sampled_from(["set", "cut", "insert"])):
            case "set":
                altered[position] = data.draw(st.integers(0, 255))
            case "cut":
                del altered[position : position + data.draw(st.integers(1, 70))]
            case "insert":
                altered[position:position] = data.draw(st.binary(min_size=1, max_size=70))
        if not altered:
            break
    assume(bytes(altered) != good)
    with pytest.raises(RemoteError):
        decode_tensors(Frame.decode(bytes(altered))).arrays()


def resealed(data):
    """A frame with the header's digest made right again, as an attacker would, after its header was altered."""
    (length,) = struct.unpack_from("<Q", data, 16)
    length = min(length, len(data) - 40)
    start = data[:8] + b"\1\0" + bytes(6) + struct.pack("<Q", length)
    body = data[40 : 40 + length]
    return start + blake3.blake3(start + body).digest(length=16) + data[40:]


@pytest.mark.parametrize("spec", [spec for spec in SPECS if "fedwt" in spec] + ["cast(bfloat16) | fedwt | none"])
@given(named(st.sampled_from(PLAIN)), st.data())
def test_altered_headers_with_right_digests_give_remote_errors_or_other_tensors(spec, tensors, data):
    """The digests hold nobody up who can compute them: then every check behind them must."""
    try:
        good = bytes(Pipeline.parse(spec, checksum="none").encode(tensors))
    except EncodeError:
        reject()  # a value is too large for the cast
    (length,) = struct.unpack_from("<Q", good, 16)
    altered = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        altered[data.draw(st.integers(40, 39 + length))] = data.draw(st.integers(0, 255))
    try:
        frame = Frame.decode(resealed(bytes(altered)))
        source = decode_tensors(frame)
        for array in source.arrays().values():
            bits(array)
    except RemoteError:
        return
    assert sum(spec.nbytes for spec in source.specs) >= 0


@given(dtypes)
def test_type_names_go_both_ways(dtype):
    assert dtype_from_name(dtype_name(dtype)) == dtype


def struct_names():
    number = st.integers(-(2**33), 2**33) | st.integers(-2, 40) | st.just(2**31 - 1)
    fields = st.lists(
        st.tuples(
            st.text(max_size=2),
            st.sampled_from(
                ["int8", "float64", ">int16", "bytes[0]", "str[3]", "void[0]", "datetime64[s]", "struct[0,[]]"]
            ),
            number,
            st.lists(number, max_size=3),
        ),
        max_size=3,
    )
    return st.builds(lambda size, rows: "struct" + msgspec.json.encode((size, rows)).decode(), number, fields)


@given(
    st.text(max_size=30)
    | st.from_regex(r">?[a-z]{3,10}[0-9_a-z]{0,10}(\[[0-9]{0,12}[a-z]{0,2}\])?", fullmatch=True)
    | struct_names()
)
def test_any_text_is_a_type_or_is_refused(name):
    try:
        dtype = dtype_from_name(name)
    except RemoteError:
        return
    assert not dtype.hasobject
    if dtype.itemsize < 1 << 16:
        assert len(repr(np.zeros(2, dtype))) > 0
    for field, _ in (dtype.fields or {}).values():
        assert field.itemsize <= dtype.itemsize
