"""Laws of objects: whatever is nested in whatever, it comes back equal, of the same types, to the last bit."""

from __future__ import annotations

import argparse
import collections
import datetime as dt
import importlib.util
import itertools
import sys
import types
import zoneinfo
from fractions import Fraction
from pathlib import Path, PurePosixPath

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedpost.errors import RemoteError
from fedpost.frame import Frame
from fedpost.objects import dumps, from_frame, loads, to_frame


def samples():
    path = Path(__file__).parents[1] / "unit" / "objects" / "samples.py"
    spec = importlib.util.spec_from_file_location("objects_samples_of_properties", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


s = samples()
# The samples hold what is rare; the strategies hold what is many.
SAMPLES = s.all_values()
ZONES = ["Europe/Berlin", "America/New_York", "Asia/Kathmandu", "UTC"]
zones = (
    st.none()
    | st.builds(zoneinfo.ZoneInfo, st.sampled_from(ZONES))
    | st.timezones()
    | st.builds(dt.timezone, st.timedeltas(dt.timedelta(hours=-23), dt.timedelta(hours=23)))
)
numbers = (
    st.integers()
    | st.integers(-(2**70), 2**70)
    | st.floats(width=64)
    | st.complex_numbers()
    | st.decimals()
    | st.builds(Fraction, st.integers(), st.integers(1))
    | st.booleans()
)
texts = (
    st.text()
    | st.text(st.characters(exclude_categories=()))  # surrogates too
    | st.binary()
    | st.builds(lambda text, times: text * times, st.text(max_size=3), st.integers(0, 5000))
    | st.builds(lambda data, times: data * times, st.binary(max_size=3), st.integers(0, 5000))
    | st.uuids()
    | st.builds(PurePosixPath, st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5))
)
times = (
    st.dates()
    | st.times(timezones=zones)
    | st.datetimes(timezones=zones, allow_imaginary=True)
    | st.datetimes(timezones=zones).map(lambda value: value.replace(fold=1))
    | st.timedeltas()
    | zones
)
enums = st.sampled_from([*s.Color, *s.Level, *s.Mode, *s.Right]) | st.sampled_from([0, 1, 8, 9]).map(s.Bit)
ranges = st.builds(range, st.integers(), st.integers(), st.integers().filter(bool)) | st.slices(20)
keys = st.recursive(
    numbers.filter(lambda value: "nan" not in repr(value).lower())  # not itself, or without a hash
    | texts
    | times
    | enums
    | st.none(),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=4,
)
mutable = st.binary().map(bytearray) | st.binary().map(memoryview)


@st.composite
def arrays(draw):
    """Arrays of any bits and layout, scalars, masked arrays."""
    kind = draw(
        st.sampled_from([one.dtype for one in s.arrays() if isinstance(one, np.ndarray) and one.dtype.itemsize])
    )
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=12))
    seed = draw(st.integers(0, 2**32 - 1))
    size = int(np.prod(shape)) * kind.itemsize
    if kind.kind in "UO":
        array = np.full(shape, "é", kind)
    else:
        array = (
            np.frombuffer(np.random.default_rng(seed).bytes(size), np.uint8).view(kind).reshape(shape)
            if size
            else np.zeros(shape, kind)
        )
    way = draw(st.sampled_from(["as it is", "T", "reversed", "every other", "scalar", "masked"]))
    if way == "T":
        return array.T
    if way == "reversed":
        return array[..., ::-1] if array.ndim else array
    if way == "every other":
        return array[::2] if array.ndim else array
    if way == "scalar" and array.size:
        return array.reshape(-1)[0]
    if way == "masked" and kind.kind in "iuf" and kind.isbuiltin == 1:
        return np.ma.MaskedArray(array, mask=np.arange(array.size).reshape(shape) % 3 == 0)
    return array


rare = st.integers(0, len(SAMPLES) - 1).map(lambda index: SAMPLES[index])  # some have no hash, and no short text
leaves = numbers | texts | times | enums | ranges | arrays() | mutable | rare | st.none() | st.just(...)


def containers(inner):
    some = st.lists(inner, max_size=4)
    mapping = st.dictionaries(keys, inner, max_size=4)
    named = st.dictionaries(st.text(max_size=5), inner, max_size=4)
    plain = st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), inner, max_size=3)
    return (
        some
        | some.map(tuple)
        | some.map(lambda items: collections.deque(items, 9))
        | named
        | mapping
        | mapping.map(collections.OrderedDict)
        | mapping.map(lambda items: collections.defaultdict(list, items))
        | mapping.map(dict)
        | st.sets(keys, max_size=4)
        | st.frozensets(keys, max_size=4)
        | st.dictionaries(keys, st.integers(), max_size=4).map(collections.Counter)
        | plain.map(lambda items: argparse.Namespace(**items))
        | plain.map(lambda items: types.SimpleNamespace(**items))
        | st.builds(s.Point, st.integers(), st.floats(), st.lists(st.text(), max_size=3))
        | st.builds(s.Box, inner, some.map(tuple))
        | st.builds(s.Pair, st.integers(), inner)
        | st.builds(s.Plain, inner, inner, inner)
        | st.builds(s.OldAttrs, st.integers(), inner)
        | st.builds(s.Struct, st.integers(), st.lists(st.integers(), max_size=3))
        | st.builds(s.Keywords, first_name=st.text())
        | st.builds(s.Inner, x=st.integers(), y=st.lists(st.floats(), max_size=3))
        | plain.map(lambda items: s.Extra(**{f"e_{key}": value for key, value in items.items()}))
        | some.map(lambda items: ValueError(*items))
        | st.builds(lambda code, text: s.noted(s.Broken(code, more=text)), st.integers(), st.text())
        | st.lists(st.builds(s.Pair, st.integers(), inner), min_size=1, max_size=2).map(
            lambda pairs: list(itertools.islice(itertools.cycle(pairs), 64))
        )
    )


values = st.recursive(leaves, containers, max_leaves=6)


@given(values)
def test_whatever_it_is_it_comes_back(value):
    data = dumps(value, registry=s.REGISTRY)
    assert s.difference(value, loads(data, registry=s.REGISTRY)) is None
    assert s.difference(value, loads(data, registry=s.REGISTRY, copy=True, verify="lazy")) is None
    # What was read is written as it was.
    again = dumps(loads(data, registry=s.REGISTRY), registry=s.REGISTRY)
    assert s.difference(value, loads(again, registry=s.REGISTRY)) is None


@given(st.lists(values, max_size=4), st.sampled_from(["zstd(1)", "lz4", "gzip(1)"]))
def test_compressed_and_in_a_large_tree(items, compression):
    value = [*items, [f"filler {number}" * 9 for number in range(900)]]
    frame = to_frame(value, registry=s.REGISTRY, compression=compression)
    assert frame.section("object", object) is None
    assert s.difference(value, from_frame(Frame.decode(bytes(frame)), registry=s.REGISTRY)) is None


@given(st.lists(arrays() | st.binary(min_size=4096), min_size=1, max_size=4), st.data())
def test_what_is_one_object_stays_one(shared, data):
    places = data.draw(st.lists(st.integers(0, len(shared) - 1), min_size=1, max_size=12))
    value = [(shared[place],) for place in places]
    back = loads(dumps(value, registry=s.REGISTRY), registry=s.REGISTRY)
    for one, other in itertools.combinations(range(len(places)), 2):
        if isinstance(shared[places[one]], np.ndarray | bytes) and not isinstance(
            shared[places[one]], np.ma.MaskedArray
        ):
            assert (back[one][0] is back[other][0]) == (value[one][0] is value[other][0])


@given(st.dictionaries(st.text(), st.integers() | st.text(), max_size=6), st.randoms())
def test_order_is_kept(items, rng):
    shuffled = list(items.items())
    rng.shuffle(shuffled)
    assert list(loads(dumps(dict(shuffled))).items()) == shuffled


packed = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 300)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8)
    | st.builds(lambda index: msgpack.ExtType(1, bytes([index])), st.integers(0, 8)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=20,
)
kinds = st.sampled_from([*s.REGISTRY.names, "os.system"])
trees = st.tuples(
    st.lists(st.tuples(kinds, st.integers(0, 2), st.none() | st.lists(st.text(max_size=3), max_size=3)), max_size=3),
    st.lists(
        st.tuples(st.integers(-1, 10), packed, packed) | st.tuples(st.integers(0, 9), packed) | packed, max_size=6
    ),
    packed,
)


@given(trees, st.lists(st.binary(max_size=30), max_size=2))
def test_any_tree_is_an_object_or_refused(tree, segments):
    frame = Frame.build(
        {"object": None}, [memoryview(msgpack.packb(tree, unicode_errors="surrogatepass")), *map(memoryview, segments)]
    )
    try:
        value = loads(bytes(frame), registry=s.REGISTRY)
    except RemoteError:
        return
    assert s.difference(value, loads(dumps(value, registry=s.REGISTRY), registry=s.REGISTRY)) is None


@given(values, st.data())
def test_a_flipped_bit_is_told(value, data):
    packed_value = bytearray(dumps(value, registry=s.REGISTRY))
    place = data.draw(st.integers(0, 8 * len(packed_value) - 1))
    packed_value[place // 8] ^= 1 << place % 8
    with pytest.raises(RemoteError):
        loads(packed_value, registry=s.REGISTRY)
