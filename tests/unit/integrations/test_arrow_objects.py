"""Arrow tables, batches and arrays inside of objects: every type, slices, and no memory of their own when read."""

from __future__ import annotations

import numpy as np
import pytest

import fedpost
from fedpost.errors import DecodeError, EncodeError

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install pyarrow")

# fmt: off
TYPES = [
    pa.null(), pa.bool_(), pa.int8(), pa.uint64(), pa.float16(), pa.float64(), pa.string(), pa.large_string(),
    pa.binary(), pa.large_binary(), pa.binary(5), pa.string_view(), pa.binary_view(), pa.date32(), pa.date64(),
    pa.time32("s"), pa.time64("ns"), pa.timestamp("s"), pa.timestamp("ns", "Europe/Berlin"), pa.timestamp("us", "UTC"),
    pa.duration("ms"), pa.month_day_nano_interval(), pa.decimal128(20, 3), pa.decimal256(50, 3),
    pa.list_(pa.int32()), pa.large_list(pa.int32()), pa.list_(pa.int32(), 2), pa.list_view(pa.int8()),
    pa.large_list_view(pa.int8()), pa.map_(pa.string(), pa.int32()), pa.struct([("a", pa.int8()), ("b", pa.string())]),
    pa.dictionary(pa.int8(), pa.string()), pa.dictionary(pa.int32(), pa.int64(), ordered=True),
    pa.list_(pa.dictionary(pa.int8(), pa.string())), pa.run_end_encoded(pa.int32(), pa.int8()),
    pa.list_(pa.field("item", pa.int8(), nullable=False, metadata={"k": "v"})),
]
# fmt: on
ARRAYS = {
    "numbers": pa.array([1.5, None, 2]),
    "long texts": pa.array(["x", "a text longer than twelve", None], pa.string_view()),
    "dense union": pa.UnionArray.from_dense(
        pa.array([0, 1, 0], pa.int8()), pa.array([0, 0, 1], pa.int32()), [pa.array([1, 2]), pa.array(["x"])]
    ),
    "sparse union": pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["x", "y"])]),
    "runs": pa.RunEndEncodedArray.from_arrays([2, 5], [1, None]),
    "uuid": pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16, None], pa.binary(16))),
    "tensors": pa.ExtensionArray.from_storage(
        pa.fixed_shape_tensor(pa.float32(), [2]), pa.array([[1, 2], None], pa.list_(pa.float32(), 2))
    ),
    "nested": pa.array([{"m": [("a", [1, None])]}], pa.struct([("m", pa.map_(pa.string(), pa.list_(pa.int8())))])),
    "slice of numbers": pa.array(range(1000))[3:9],
    "slice of flags": pa.array([True, False, None] * 10)[3:9],
    "slice of texts": pa.array(["ab", "c", None] * 10)[5:9],
    "slice of lists": pa.array([[1], [2, 3], None] * 5)[2:7],
    "slice of structures": pa.array([{"a": 1}, {"a": 2}])[1:],
    "slice of runs": pa.RunEndEncodedArray.from_arrays([2, 5], [1, None])[1:4],
    "slice of categories": pa.array(["a", "b", "c"]).dictionary_encode()[1:],
    "chunks": pa.chunked_array([[1, 2], [], [3]]),
    "no chunks": pa.chunked_array([], pa.int8()),
    "chunks of categories": pa.chunked_array([pa.array([letter]).dictionary_encode() for letter in "ab"]),
}
FIELD = pa.field("a", pa.int64(), nullable=False, metadata={"x": "y"})
TABLES = {
    "metadata": pa.table({"a": [1, 2], "b": ["x", None]}).replace_schema_metadata({"k": "v", b"\xff": b"\0"}),
    "no columns": pa.table({}),
    "rows of nothing": pa.table({"a": [1, 2]}).drop(["a"]),
    "a name twice": pa.Table.from_arrays([pa.array([1]), pa.array(["x"])], ["a", "a"]),
    "chunks": pa.table({"a": pa.chunked_array([[1, 2], [3]]), "b": pa.chunked_array([[1], [2, 3]])}),
    "a field": pa.Table.from_arrays([pa.array([1])], schema=pa.schema([FIELD])),
    "no rows": pa.table({"a": pa.array([], pa.int8())}),
    "slice": pa.table({"a": range(100)}).slice(3, 5),
    "batch": pa.record_batch({"a": [1]}).replace_schema_metadata({"a": "b"}),
    "batch of no rows": pa.record_batch({"a": pa.array([], pa.int8())}),
    "batch of no columns": pa.record_batch({}),
}


def back(value):
    return fedpost.loads(fedpost.dumps(value))


def assert_same(found, value):
    assert type(found) is type(value)
    assert found.equals(value)
    if hasattr(value, "schema"):
        assert found.schema.equals(value.schema, check_metadata=True)
    else:
        assert found.type.equals(value.type, check_metadata=True)


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_every_type(kind):
    for values in ([], [None, None]):
        array = pa.array(values, kind)
        assert_same(back(array), array)


@pytest.mark.parametrize("what", ARRAYS)
def test_arrays(what):
    assert_same(back(ARRAYS[what]), ARRAYS[what])


@pytest.mark.parametrize("what", TABLES)
def test_tables(what):
    assert_same(back(TABLES[what]), TABLES[what])


def test_reading_takes_no_memory_of_arrow_s_and_writing_no_more_than_the_table():
    table = pa.table({"a": np.arange(1 << 20, dtype=np.float64)})
    frame = fedpost.objects.to_frame(table)
    before = pa.total_allocated_bytes()
    found = fedpost.objects.from_frame(frame)
    assert pa.total_allocated_bytes() == before
    assert found["a"][7].as_py() == 7
    del found
    before = pa.total_allocated_bytes()
    frame = fedpost.objects.to_frame(table)
    assert pa.total_allocated_bytes() - before < table.nbytes + (1 << 16)


def test_a_table_in_two_places_comes_back_as_one():
    first, second = back([TABLES["slice"], TABLES["slice"]])
    assert first is second


class Mine(pa.ExtensionType):
    """A type of one's own."""

    def __init__(self):
        super().__init__(pa.int64(), "fedpost.mine")

    def __arrow_ext_serialize__(self):
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, _storage, _serialized):
        return cls()


def test_extension_types_are_registered_on_both_sides():
    array = pa.ExtensionArray.from_storage(Mine(), pa.array([1, 2]))
    arrays, table = fedpost.dumps([array, pa.chunked_array([array])]), fedpost.dumps(pa.table({"a": array}))
    pa.register_extension_type(Mine())
    try:
        assert [type(found.type) for found in fedpost.loads(arrays)] == [Mine, Mine]
        assert type(fedpost.loads(table).schema.field("a").type) is Mine
    finally:
        pa.unregister_extension_type("fedpost.mine")
    with pytest.raises(DecodeError, match=r"extension type b'fedpost\.mine'"):
        fedpost.loads(arrays)
    field = fedpost.loads(table).schema.field("a")
    assert (field.type, field.metadata[b"ARROW:extension:name"]) == (pa.int64(), b"fedpost.mine")


@pytest.mark.parametrize(
    "value", [pa.scalar(1), pa.schema([FIELD]), pa.int8(), pa.py_buffer(b"x")], ids=lambda value: type(value).__name__
)
def test_what_is_no_table_or_array_is_refused(value):
    with pytest.raises(EncodeError, match=type(value).__name__):
        fedpost.dumps(value)
