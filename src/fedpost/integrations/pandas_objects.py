"""pandas tables inside of objects, by way of Arrow.

Rules: what Arrow would give back as another type is refused when it is written, naming the column; nothing changes
silently. The frequency of an index of dates is not kept.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from fedpost.errors import DecodeError, EncodeError, MissingExtraError
from fedpost.objects import Serializer

try:
    import numpy as np
    import pandas as pd
    import pyarrow as pa
except ImportError as error:
    raise MissingExtraError(
        "objects with pandas tables need pandas and pyarrow", hint="pip install pandas pyarrow"
    ) from error

from fedpost.integrations.arrow_objects import read_table, write_table

__all__ = ["SERIALIZERS"]


def _take_frame(frame: pd.DataFrame) -> Any:
    """The IPC stream; the columns of Python objects by position, and the index where it is of such: as lists."""
    plain = frame.copy(deep=False)
    objects = [position for position, kind in enumerate(frame.dtypes) if kind == np.dtype(object)]
    for position in objects:
        plain.isetitem(position, 0)
    index = None
    if type(frame.index) is pd.Index and frame.index.dtype == np.dtype(object):
        index = [frame.index.name, list(frame.index)]
        plain.index = pd.RangeIndex(len(frame))
    plain.columns = list(map(str, range(plain.shape[1])))
    try:
        table = pa.Table.from_pandas(plain)
        same = table.slice(0, 1).to_pandas()
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise EncodeError(f"Arrow cannot write it: {error}") from error
    for position, (old, new) in enumerate(zip(plain.dtypes, same.dtypes, strict=True)):
        if old != new:
            raise EncodeError(f"column {frame.columns[position]!r} of type {old} would come back as {new}")
    if plain.index.dtype != same.index.dtype or (type(plain.index) is not type(same.index) and len(frame)):
        raise EncodeError(f"an index of type {plain.index.dtype} would come back as {same.index.dtype}")
    rows = [[position, list(frame.iloc[:, position])] for position in objects]
    return [write_table(table), rows, index, _take_columns(frame.columns)]


def _take_columns(columns: pd.Index) -> Any:
    """The names of columns: a range, or a list with its element type; each with the names that they themselves have."""
    if type(columns) is pd.RangeIndex:
        return [range(columns.start, columns.stop, columns.step), None, list(columns.names)]
    if type(columns) is pd.MultiIndex:
        return [list(columns), None, list(columns.names)]
    if type(columns) is not pd.Index:
        raise EncodeError(f"column names in a {type(columns).__name__}", hint="Use plain names.")
    return [list(columns), str(columns.dtype), list(columns.names)]


def _make_columns(state: Any) -> pd.Index:
    labels, kind, names = state
    if type(labels) is range:
        return pd.RangeIndex(labels, name=names[0])
    if kind is None:
        return pd.MultiIndex.from_tuples(labels, names=names)
    if kind not in _NAMES:
        raise DecodeError(f"column names of type {str(kind)[:80]!r}")
    return pd.Index(labels, dtype=kind, name=names[0])


_NAMES: Final = ("object", "str", "string", "int64", "float64", "bool")


def _make_frame(state: Any) -> pd.DataFrame:
    if type(state) is not list or len(state) != 4 or type(state[1]) is not list:  # noqa: PLR2004 - the parts of _take_frame
        raise DecodeError(
            "the state of a table is its stream, its columns of objects, its index and its columns' names"
        )
    stream, objects, index, columns = state
    try:
        frame = read_table(stream).to_pandas()
        if index is not None:
            name, labels = index
            frame.index = pd.Index(labels, dtype=object, name=name)
        for position, values in objects:
            if not 0 <= position < frame.shape[1]:
                raise DecodeError("a column of objects that the table does not have")
            frame.isetitem(position, pd.Series(values, dtype=object, index=frame.index))
        frame.columns = _make_columns(columns)
    except (pa.ArrowException, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        if isinstance(error, DecodeError):
            raise
        raise DecodeError(f"an impossible table: {error}") from error
    return frame


def _take_series(series: pd.Series) -> Any:
    return [series.name, _take_frame(series.to_frame("0"))]


def _make_series(state: Any) -> pd.Series:
    if type(state) is not list or len(state) != 2:  # noqa: PLR2004 - name and table
        raise DecodeError("the state of a series is its name and its table")
    frame = _make_frame(state[1])
    if frame.shape[1] != 1:
        raise DecodeError(f"a series of {frame.shape[1]} columns")
    return frame.iloc[:, 0].rename(state[0])


def _take_index(index: pd.Index) -> Any:
    return _take_frame(pd.DataFrame(index=index))


def _make_index(kind: type, state: Any) -> Any:
    index = _make_frame(state).index
    if type(index) is not kind:
        raise DecodeError(f"a {kind.__name__} of {type(index).__name__}")
    return index


SERIALIZERS: Final = (
    Serializer(cls=pd.DataFrame, name="pandas.DataFrame", take=_take_frame, make=_make_frame, shared=True),
    Serializer(cls=pd.Series, name="pandas.Series", take=_take_series, make=_make_series, shared=True),
    *(
        Serializer(
            cls=kind, name=f"pandas.{kind.__name__}", take=_take_index, make=partial(_make_index, kind), shared=True
        )
        for kind in (pd.Index, pd.RangeIndex, pd.MultiIndex, pd.DatetimeIndex, pd.CategoricalIndex, pd.TimedeltaIndex)
    ),
    Serializer(
        cls=pd.Timestamp,
        name="pandas.Timestamp",
        take=lambda value: [value.as_unit(value.unit).asm8, value.tz],
        make=lambda state: (
            pd.Timestamp(state[0])
            if state[1] is None
            else pd.Timestamp(state[0]).tz_localize("UTC").tz_convert(state[1])
        ),
    ),
    Serializer(cls=pd.Timedelta, name="pandas.Timedelta", take=lambda value: value.asm8, make=pd.Timedelta),
)
