"""pandas tables, columns and indexes inside of objects: each column by itself, as an array.

Rules: element types come back as they were; what is not known here is refused, naming the type; nothing that the wire
says is a name to look a type up by. Columns that pandas keeps in Arrow's memory are Arrow arrays here too.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from fedpost.errors import DecodeError, EncodeError, MissingExtraError
from fedpost.objects import Serializer

try:
    import pandas as pd
except ImportError as error:
    raise MissingExtraError("objects with pandas tables need pandas", hint="pip install pandas") from error

__all__ = ["SERIALIZERS"]

_OBJECTS: Final = np.dtype(object)
_TIMES: Final = {f"{letter}8[{unit}]" for letter in "mM" for unit in ("s", "ms", "us", "ns")}
_MASKED: Final = tuple(
    type(pd.api.types.pandas_dtype(name))
    for name in (
        "boolean",
        "Float32",
        "Float64",
        *(f"{sign}nt{8 << size}" for sign in ("I", "UI") for size in range(4)),
    )
)
_MASKED_ARRAYS: Final = {
    "b": pd.arrays.BooleanArray,
    "f": pd.arrays.FloatingArray,
    **dict.fromkeys("iu", pd.arrays.IntegerArray),
}
_FREQUENT: Final = (pd.DatetimeIndex, pd.TimedeltaIndex)
_INDEXES: Final = (pd.Index, pd.CategoricalIndex, pd.PeriodIndex, pd.IntervalIndex, *_FREQUENT)

# ── values: what a column or an index consists of ────────────────────────────────────────────────────────────────────


def _take_values(values: Any) -> Any:  # noqa: PLR0911 - one each
    """The values of a column or an index: an array, or a list that begins with what they are."""
    kind, array = values.dtype, values.array
    if isinstance(kind, np.dtype):
        return values.to_numpy() if kind != _OBJECTS else ["object", *_take_objects(list(values.to_numpy()))]
    if isinstance(kind, pd.CategoricalDtype):
        return ["category", np.asarray(array.codes), _take_index(kind.categories), bool(kind.ordered)]
    if isinstance(kind, pd.DatetimeTZDtype):
        return ["zoned", array.tz_convert("UTC").tz_localize(None).to_numpy(), kind.tz]
    if isinstance(kind, _MASKED):
        mask = array._mask  # noqa: SLF001 - isna() would not tell what is missing from what is not a number
        return ["masked", np.where(mask, np.zeros(1, array._data.dtype), array._data), mask]  # noqa: SLF001
    if isinstance(kind, pd.StringDtype):
        missing = "NA" if kind.na_value is pd.NA else "nan"
        if kind.storage == "pyarrow":
            return ["string", missing, array.__arrow_array__()]
        return ["string", missing, [None if item is kind.na_value or item != item else item for item in array]]  # noqa: PLR0124 - not a number
    if isinstance(kind, pd.ArrowDtype):
        return ["arrow", array.__arrow_array__()]
    if isinstance(kind, pd.PeriodDtype):
        return ["period", array.asi8, kind.name.removeprefix("period[").removesuffix("]")]
    if isinstance(kind, pd.IntervalDtype):
        return ["interval", _take_index(array.left), _take_index(array.right), kind.closed]
    raise EncodeError(f"values of the pandas type {kind}", hint="Convert them to a type of NumPy or pandas' own.")


def _make_values(state: Any) -> Any:
    """An array of NumPy or pandas."""
    if type(state) is np.ndarray:
        if state.ndim != 1 or (state.dtype.kind not in "biufc" and state.dtype.str[1:] not in _TIMES):
            raise DecodeError("the values of a column are no numbers or times in one row")
        return state
    if type(state) is not list or not state or type(state[0]) is not str or state[0] not in _MAKERS:
        raise DecodeError("the values of a column are of no known kind")
    return _MAKERS[state[0]](*state[1:])


def _numbers(data: Any, kinds: str) -> Any:
    if type(data) is not np.ndarray or data.dtype.kind not in kinds or data.ndim != 1:
        raise DecodeError("a part of a column's values has the wrong type")
    return data


def _take_objects(items: list[Any]) -> list[Any]:
    """Objects; where pandas says that something is missing; and where, that a time is."""
    absent = [[place for place, item in enumerate(items) if item is wanted] for wanted in (pd.NA, pd.NaT)]
    for place in (*absent[0], *absent[1]):
        items[place] = None
    return [items, *absent]


def _make_objects(items: Any, *absent: Any) -> Any:
    if type(items) is not list or [type(places) for places in absent] != [list, list]:
        raise DecodeError("a column of objects is a list of them")
    out = np.fromiter(items, dtype=object, count=len(items))
    for missing, places in zip((pd.NA, pd.NaT), absent, strict=True):
        for place in places:
            if type(place) is not int or not 0 <= place < len(items):
                raise DecodeError("a column lacks a value that it does not have")
            out[place] = missing
    return out


def _make_category(codes: Any, categories: Any, ordered: Any) -> Any:
    kind = pd.CategoricalDtype(_make_part(categories, codes), ordered=_flag(ordered))
    return pd.Categorical.from_codes(_numbers(codes, "i"), dtype=kind)


def _make_zoned(times: Any, zone: Any) -> Any:
    if not isinstance(zone, dt.tzinfo) or _numbers(times, "M").dtype.str[1:] not in _TIMES:
        raise DecodeError("times without a time zone")
    return pd.DatetimeIndex(times).tz_localize("UTC").tz_convert(zone).array


def _make_masked(data: Any, mask: Any) -> Any:
    # Their users change them in place.
    return _MASKED_ARRAYS[_numbers(data, "biuf").dtype.kind](data.copy(), _numbers(mask, "b").copy())


def _make_string(missing: Any, values: Any) -> Any:
    na = {"NA": pd.NA, "nan": float("nan")}[missing]
    if type(values) is list:
        if not set(map(type, values)) <= {str, type(None)}:
            raise DecodeError("a column of texts with something else")
        return pd.array(
            np.array([na if item is None else item for item in values], object), pd.StringDtype("python", na)
        )
    if str(_arrow(values).type) not in ("string", "large_string"):
        raise DecodeError("a column of texts with something else")
    return pd.StringDtype("pyarrow", na).__from_arrow__(values)


def _make_arrow(values: Any) -> Any:
    return pd.ArrowDtype(_arrow(values).type).__from_arrow__(values)


def _arrow(values: Any) -> Any:
    import pyarrow as pa  # noqa: PLC0415 - pandas can do without it

    if not isinstance(values, pa.Array | pa.ChunkedArray):
        raise DecodeError("a column in Arrow's memory that is not")
    return values


def _make_period(numbers: Any, frequency: Any) -> Any:
    return pd.arrays.PeriodArray(_numbers(numbers, "i").astype(np.int64), dtype=pd.PeriodDtype(_frequency(frequency)))


def _make_interval(left: Any, right: Any, closed: Any) -> Any:
    return pd.arrays.IntervalArray.from_arrays(_make_index(left), _make_index(right), closed=closed)


_MAKERS: Final[dict[str, Callable[..., Any]]] = {
    "object": _make_objects,
    "category": _make_category,
    "zoned": _make_zoned,
    "masked": _make_masked,
    "string": _make_string,
    "arrow": _make_arrow,
    "period": _make_period,
    "interval": _make_interval,
}


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise DecodeError("a flag is true or false")
    return value


def _take_frequency(frequency: Any) -> str | None:
    if frequency is None:
        return None
    name: str = frequency.freqstr
    try:
        same = pd.tseries.frequencies.to_offset(name) == frequency
    except ValueError:
        same = False
    if not same:
        raise EncodeError(f"the frequency {frequency!r} has no name that says it all", hint="Set freq to None.")
    return name


def _frequency(name: Any) -> str:
    if type(name) is not str or len(name) > _LONGEST_FREQUENCY:
        raise DecodeError("a frequency that is none")
    return name


_LONGEST_FREQUENCY: Final = 40

# ── indexes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _take_index(index: pd.Index) -> Any:
    """A list: names first, then a range, or levels and codes, or the values and what follows from what."""
    if type(index) is pd.RangeIndex:
        return [[index.name], range(index.start, index.stop, index.step)]
    if type(index) is pd.MultiIndex:
        levels, codes = list(map(_take_index, index.levels)), list(map(np.asarray, index.codes))
        return [list(index.names), levels, codes]
    if type(index) not in _INDEXES:
        raise EncodeError(f"an index of the class {type(index).__name__}", hint="Use one of pandas' own.")
    frequency = index.freq if isinstance(index, _FREQUENT) else None
    return [[index.name], type(index).__name__, _take_values(index), _take_frequency(frequency)]


def _make_index(state: Any) -> pd.Index:
    if type(state) is not list or not 2 <= len(state) <= 4 or type(state[0]) is not list or not state[0]:  # noqa: PLR2004 - the forms of _take_index
        raise DecodeError("the state of an index is its names and what it consists of")
    names, *parts = state
    if len(parts) == 1:
        if type(parts[0]) is not range or max(map(abs, (parts[0].start, parts[0].stop, parts[0].step))) >= 1 << 62:
            raise DecodeError("an index of no values is a range of 64-bit numbers")
        return pd.RangeIndex(parts[0], name=names[0])
    if len(parts) == 2:  # noqa: PLR2004 - levels and codes
        levels, codes = parts
        if type(levels) is not list or type(codes) is not list:
            raise DecodeError("the levels and codes of an index are lists")
        made = [_make_part(level, part) for level, part in zip(levels, codes, strict=True)]
        return pd.MultiIndex(made, [_numbers(part, "i") for part in codes], names=names)
    kind, values, frequency = parts
    found = _make_values(values)
    objects = type(found) is np.ndarray and found.dtype == _OBJECTS
    out = pd.Index(found, dtype=_OBJECTS if objects else None, name=names[0], copy=type(found) is np.ndarray)
    if type(out).__name__ != kind:
        raise DecodeError(f"a {type(out).__name__} that is not the class of index it claims to be")
    if frequency is not None:
        if not isinstance(out, _FREQUENT):
            raise DecodeError(f"a {kind} with a frequency")
        out.freq = _frequency(frequency)
    return out


def _make_part(state: Any, codes: Any) -> pd.Index:
    """The index that codes point into; pandas makes an array of it, so a range may not be much longer than they are."""
    out = _make_index(state)
    if type(out) is pd.RangeIndex and len(out) > max(_MOST_UNUSED, np.size(codes)):
        raise DecodeError(f"{len(out)} categories of a range")
    return out


_MOST_UNUSED: Final = 1 << 20

# ── tables ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _take_frame(frame: pd.DataFrame) -> Any:
    _refuse_flags(frame)
    columns = []
    for label, column in frame.items():
        try:
            columns.append(_take_values(column))
        except EncodeError as error:
            raise EncodeError(f"column {label!r}: {error.what}", hint=error.hint) from error
    return [_take_index(frame.columns), _take_index(frame.index), columns, dict(frame.attrs)]


def _make_frame(state: Any) -> pd.DataFrame:
    if type(state) is not list or len(state) != 4 or type(state[2]) is not list or type(state[3]) is not dict:  # noqa: PLR2004 - the parts of _take_frame
        raise DecodeError("the state of a table is its columns' names, its index, its columns and its attributes")
    names, index, columns = _make_index(state[0]), _make_index(state[1]), list(map(_make_values, state[2]))
    if len(names) != len(columns) or any(len(column) != len(index) for column in columns):
        raise DecodeError("a table whose columns are not as many as their names, or not as long as its index")
    out = pd.DataFrame({place: _column(column, index) for place, column in enumerate(columns)}, index=index, copy=True)
    out.columns = names
    out.attrs = state[3]
    return out


def _column(values: Any, index: pd.Index) -> pd.Series:
    objects = type(values) is np.ndarray and values.dtype == _OBJECTS
    return pd.Series(values, index=index, dtype=_OBJECTS if objects else None, copy=False)


def _take_series(series: pd.Series) -> Any:
    _refuse_flags(series)
    return [series.name, _take_index(series.index), _take_values(series), dict(series.attrs)]


def _make_series(state: Any) -> pd.Series:
    if type(state) is not list or len(state) != 4 or type(state[3]) is not dict:  # noqa: PLR2004 - the parts of _take_series
        raise DecodeError("the state of a series is its name, its index, its values and its attributes")
    index, values = _make_index(state[1]), _make_values(state[2])
    if len(values) != len(index):
        raise DecodeError("a series that is not as long as its index")
    out = _column(values, index).copy()
    out.name = state[0]
    out.attrs = state[3]
    return out


def _refuse_flags(value: Any) -> None:
    if not value.flags.allows_duplicate_labels:
        raise EncodeError("pandas' flag that labels come once is not written", hint="Set it to True.")


# ── moments ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _make_timestamp(state: Any) -> Any:
    if type(state) is not list or len(state) != 2 or type(state[0]) is not np.datetime64:  # noqa: PLR2004 - time and zone
        raise DecodeError("the state of a Timestamp is its time and its time zone")
    time, zone = pd.Timestamp(state[0]), state[1]
    if not isinstance(zone, dt.tzinfo | None):
        raise DecodeError("a time zone was expected")
    return time if zone is None else time.tz_localize("UTC").tz_convert(zone)


def _make_timedelta(state: Any) -> Any:
    if type(state) is not np.timedelta64:
        raise DecodeError("the state of a Timedelta is its time")
    return pd.Timedelta(state)


SERIALIZERS: Final = (
    Serializer(cls=pd.DataFrame, name="pandas.DataFrame", take=_take_frame, make=_make_frame, shared=True),
    Serializer(cls=pd.Series, name="pandas.Series", take=_take_series, make=_make_series, shared=True),
    # Of all kinds: the state says which.
    Serializer(cls=pd.Index, name="pandas.Index", take=_take_index, make=_make_index, shared=True, subclasses=True),
    Serializer(
        cls=pd.Timestamp, name="pandas.Timestamp", take=lambda value: [value.asm8, value.tz], make=_make_timestamp
    ),
    Serializer(cls=pd.Timedelta, name="pandas.Timedelta", take=lambda value: value.asm8, make=_make_timedelta),
)
