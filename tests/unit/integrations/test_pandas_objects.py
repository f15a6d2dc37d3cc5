"""pandas tables, series and indexes inside of objects: every element type, every kind of index, and what is refused."""

from __future__ import annotations

import datetime as dt
import zoneinfo

import numpy as np
import pytest

import fedpost
from fedpost.errors import EncodeError

pd = pytest.importorskip("pandas", reason="pandas is not installed: pip install pandas")
pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install pyarrow")

NAMES = [
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128", "bool", ">f4"),
    *("Int8", "Int64", "UInt8", "UInt64", "Float32", "Float64", "boolean", "category", "object"),
    *("int64[pyarrow]", "double[pyarrow]", "timestamp[ns][pyarrow]"),
]
TEXTS = ["str", "string", "string[pyarrow]", "string[python]", "object", "category", "large_string[pyarrow]"]
UNITS = ["s", "ms", "us", "ns"]
ZONES = [
    "UTC",
    "Europe/Berlin",
    zoneinfo.ZoneInfo("Asia/Kolkata"),
    dt.timezone(dt.timedelta(hours=5, minutes=30)),
    dt.UTC,
]


def back(value):
    return fedpost.loads(fedpost.dumps(value))


def assert_same(found, value):
    assert type(found) is type(value)
    if isinstance(value, pd.DataFrame):
        pd.testing.assert_frame_equal(found, value, check_freq=True, check_column_type="equiv")
        assert list(found.dtypes) == list(value.dtypes)
        assert_same(found.columns, value.columns)
    elif isinstance(value, pd.Series):
        pd.testing.assert_series_equal(found, value, check_freq=True)
        assert found.dtype == value.dtype
    else:
        pd.testing.assert_index_equal(found, value, exact=True, check_freq=True)
        assert found.names == value.names
        return
    assert_same(found.index, value.index)
    assert found.attrs == value.attrs


@pytest.mark.parametrize("name", NAMES)
def test_every_element_type(name):
    series = pd.Series([0, 1, 1], name="n").astype(name)
    assert_same(back(series), series)
    assert_same(back(series[:0]), series[:0])
    frame = pd.DataFrame({"a": series, "b": series})
    assert_same(back(frame), frame)


@pytest.mark.parametrize("name", ["Int64", "Float32", "boolean", "int64[pyarrow]", "object", "category", "float64"])
def test_missing_values(name):
    series = pd.Series([1, None, 0], dtype=name)
    assert_same(back(series), series)
    assert list(back(series).isna()) == [False, True, False]


@pytest.mark.parametrize("name", TEXTS)
def test_texts(name):
    series = pd.Series(["x", None, "ü" * 9], dtype=name)
    assert_same(back(series), series)
    assert_same(back(series[1:2]), series[1:2])


def test_objects_keep_what_is_missing_in_which_way():
    values = [None, float("nan"), pd.NA, pd.NaT, 1, "x", [1], {"k": 2}, pd.Timestamp(0), np.float32(2)]
    found = list(back(pd.Series(values, dtype=object)))
    assert list(map(type, found)) == list(map(type, values))
    assert found[0] is None
    assert found[2] is pd.NA
    assert found[3] is pd.NaT
    assert found[4:] == values[4:]


@pytest.mark.parametrize("unit", UNITS)
def test_times(unit):
    moments = pd.Series(pd.to_datetime(["2020-01-01", None])).astype(f"datetime64[{unit}]")
    spans = pd.Series(pd.to_timedelta([1, None], unit="s")).astype(f"timedelta64[{unit}]")
    for series in (moments, spans, *(moments.dt.tz_localize(zone) for zone in ZONES)):
        assert_same(back(series), series)
        assert_same(back(series.to_frame("t")), series.to_frame("t"))


def test_a_zone_that_is_not_known_is_refused():
    series = pd.Series(pd.to_datetime(["2020-01-01"])).dt.tz_localize("dateutil/Europe/Berlin")
    with pytest.raises(EncodeError, match="dateutil"):
        fedpost.dumps(series)


CATEGORIES = {
    "ordered, unused": pd.Categorical(["b", "a", None], categories=["c", "b", "a"], ordered=True),
    "numbers": pd.Categorical([3, 1], categories=[1, 2, 3]),
    "moments": pd.Categorical(pd.to_datetime(["2020-01-01"])),
    "mixed": pd.Categorical([1, "x"]),
    "none": pd.Categorical([]),
    "flags": pd.Categorical([True, False]),
    "many": pd.Categorical(range(200)),
    "intervals": pd.cut([1, 5, 9], 3),
}


@pytest.mark.parametrize("what", CATEGORIES)
def test_categories(what):
    series = pd.Series(CATEGORIES[what])
    assert_same(back(series), series)
    assert_same(back(pd.CategoricalIndex(series)), pd.CategoricalIndex(series))


INDEXES = {
    "numbers": pd.Index([1, 2], name="n"),
    "short": pd.Index([1, 2], dtype="int8"),
    "floats": pd.Index([0.5, float("nan")]),
    "flags": pd.Index([True, False]),
    "nullable": pd.Index([1, 2], dtype="Int64"),
    "texts": pd.Index(["a", None]),
    "mixed": pd.Index(["a", 1], dtype=object, name=("a", 1)),
    "named by a number": pd.Index([4, 5], name=7),
    "range": pd.RangeIndex(5, 9, 3, name="x"),
    "empty range": pd.RangeIndex(3, 3),
    "days": pd.date_range("2020", periods=2),
    "days in a zone": pd.date_range("2020", periods=2, tz="Europe/Berlin"),
    "month ends": pd.date_range("2020", periods=2, freq="ME"),
    "moments": pd.DatetimeIndex(["2020-01-01", "2021-03-01"]),
    "spans": pd.timedelta_range("1s", periods=2, freq="3s"),
    "months": pd.period_range("2020", periods=2, freq="M"),
    "intervals": pd.interval_range(0, 2, closed="both"),
    "intervals of moments": pd.interval_range(pd.Timestamp(0), periods=2),
    "levels": pd.MultiIndex.from_product([[1], ["a", "b"]], names=["i", None]),
    "levels named alike": pd.MultiIndex.from_tuples([(1, "x"), (2, "y")], names=["i", "i"]),
    "levels named by numbers": pd.MultiIndex.from_tuples([(1, "x"), (2, "y")], names=[0, 1]),
    "mixed levels": pd.MultiIndex.from_tuples([(1, "x"), ("q", None)]),
    "levels of all kinds": pd.MultiIndex.from_arrays([pd.to_datetime(["2020", "2021"]), pd.Categorical(["a", "b"])]),
}


@pytest.mark.parametrize("what", INDEXES)
def test_indexes_alone_of_rows_and_of_columns(what):
    index = INDEXES[what]
    assert_same(back(index), index)
    assert_same(back(index[:0]), index[:0])
    rows = pd.DataFrame({"a": range(len(index))}, index=index)
    assert_same(back(rows), rows)
    assert_same(back(rows["a"]), rows["a"])
    columns = pd.DataFrame([range(len(index))], columns=index)
    assert_same(back(columns), columns)


FRAMES = {
    "nothing": pd.DataFrame(),
    "columns without rows": pd.DataFrame(columns=["a", "b"]),
    "rows without columns": pd.DataFrame(index=[1, 2, 3]),
    "a name twice": pd.DataFrame([[1, "x"]], columns=["a", "a"]),
    "names of all kinds": pd.DataFrame([[1, 2, 3]], columns=[None, 5, ("t", 1)]),
    "a name of Arrow's": pd.DataFrame({"a": [1]}, index=pd.Index([4], name="__index_level_0__")),
    "lists": pd.DataFrame({"a": [[1, 2], [3, 4]]}),
}


@pytest.mark.parametrize("what", FRAMES)
def test_frames(what):
    assert_same(back(FRAMES[what]), FRAMES[what])


def test_attributes_and_names():
    frame = pd.DataFrame({"a": [1]})
    frame.attrs = {"source": ("site", 1)}
    assert_same(back(frame), frame)
    series = pd.Series([1], name=("a", 1))
    series.attrs = {"k": 1}
    assert_same(back(series), series)


@pytest.mark.parametrize(
    "value",
    [
        pd.Timestamp("2020-01-01 01:02:03.123456789"),
        pd.Timestamp("2020-01-01", tz="Europe/Berlin").as_unit("s"),
        pd.Timestamp("2020-10-25 01:30", tz="UTC").tz_convert("Europe/Berlin"),
        pd.Timestamp("0001-01-01").as_unit("s"),
        pd.Timedelta(1, "ns"),
        pd.Timedelta(1, "s").as_unit("s"),
    ],
    ids=repr,
)
def test_moments(value):
    found = back(value)
    assert type(found) is type(value)
    assert (found, found.unit) == (value, value.unit)
    assert getattr(found, "fold", 0) == getattr(value, "fold", 0)
    assert getattr(found, "tz", None) == getattr(value, "tz", None)


def test_what_comes_back_is_one_s_own():
    frame = pd.DataFrame({"a": np.arange(5000.0), "b": pd.array([1] * 5000, "Int64")})
    first, second = back([frame, frame])
    assert first is second
    first.loc[0, "a"] = 7
    first.loc[0, "b"] = 7
    series = back(frame["a"])
    series[0] = 3
    assert series[0] == 3


class Mine(pd.DataFrame):
    """A subclass."""


REFUSED = {
    "sparse": (pd.DataFrame({"dense": [1], "thin": pd.arrays.SparseArray([0])}), r"column 'thin'.*Sparse\[int64, 0\]"),
    "a subclass": (Mine({"a": [1]}), "Mine"),
    "unknown objects": (pd.DataFrame({"a": [object()]}), "'object' object"),
    "no label twice": (pd.Series([1]).set_flags(allows_duplicate_labels=False), "labels come once"),
    "a holiday": (
        pd.date_range("2020", periods=2, freq=pd.offsets.CustomBusinessDay(holidays=["2020-01-02"])),
        "has no name that says it all",
    ),
    "no time": (pd.NaT, "NaTType"),
    "nothing": (pd.NA, "NAType"),
    "a period": (pd.Period("2020-01"), "Period"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_says_why(what):
    value, why = REFUSED[what]
    with pytest.raises(EncodeError, match=why):
        fedpost.dumps({"tables": [value]})
