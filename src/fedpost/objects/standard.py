"""Serializers of the standard library's types, for every registry to start with.

Exceptions are those of the language itself, by their own names. Types of optional packages are found when one of them
is first written or read.
"""

from __future__ import annotations

import argparse
import array
import builtins
import collections
import datetime as dt
import fractions
import importlib
import pathlib
import sys
import types
import uuid
import zoneinfo
from collections.abc import Callable, Iterable
from decimal import Decimal
from functools import cache, partial
from typing import Any, Final

from fedpost.errors import DecodeError
from fedpost.objects.classes import describe_class
from fedpost.objects.hashing import dict_of
from fedpost.objects.types import Serializer, TypeRegistry

__all__ = ["STANDARD"]

STANDARD: Final = TypeRegistry()

_MAX_DIGITS: Final = 4000
_MAX_BITS: Final = 1 << 15


def _add(
    cls: type,
    take: Callable[[Any], Any],
    make: Callable[[Any], Any],
    *,
    name: str | None = None,
    shared: bool = False,
) -> None:
    STANDARD.add(Serializer(cls=cls, name=name or cls.__name__, take=take, make=make, shared=shared))


def _expect(state: Any, *kinds: type | tuple[type, ...]) -> Any:
    """The state, when it is a list of values of these types."""
    if type(state) is not list or len(state) != len(kinds) or not all(map(isinstance, state, kinds)):
        raise DecodeError(f"a state of {len(kinds)} parts was expected")
    return state


def _one(kind: type, make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A maker from a state of one type."""

    def checked(state: Any) -> Any:
        if type(state) is not kind:
            raise DecodeError(f"a state of type {kind.__name__} was expected, not {type(state).__name__}")
        return make(state)

    return checked


# ── numbers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _decimal(text: str) -> Decimal:
    if len(text) > _MAX_DIGITS:
        raise DecodeError(f"a Decimal of {len(text)} digits, {_MAX_DIGITS} allowed")
    return Decimal(text)


def _take_decimal(value: Decimal) -> str:
    text = str(value)
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"{len(text)} digits, {_MAX_DIGITS} are possible")
    return text


def _take_fraction(value: fractions.Fraction) -> list[int]:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > _MAX_BITS:
        raise ValueError(f"more than {_MAX_BITS} bits")
    return [value.numerator, value.denominator]


def _fraction(state: Any) -> fractions.Fraction:
    numerator, denominator = _expect(state, int, int)
    if max(numerator.bit_length(), denominator.bit_length()) > _MAX_BITS or denominator < 1:
        raise DecodeError("a Fraction that is too long, or without a positive denominator")
    return fractions.Fraction(numerator, denominator)


_add(complex, lambda value: [value.real, value.imag], lambda state: complex(*_expect(state, float, float)))
_add(Decimal, _take_decimal, _one(str, _decimal))
_add(fractions.Fraction, _take_fraction, _fraction)
_add(range, lambda value: [value.start, value.stop, value.step], lambda state: range(*_expect(state, int, int, int)))
_add(slice, lambda value: [value.start, value.stop, value.step], lambda state: slice(*_expect(state, *[object] * 3)))
_add(type(Ellipsis), lambda _value: None, lambda _state: Ellipsis, name="Ellipsis")
_add(type(NotImplemented), lambda _value: None, lambda _state: NotImplemented, name="NotImplemented")


def _typed_array(state: Any) -> array.array[Any]:
    code, little, data = _expect(state, str, bool, (bytes, memoryview))
    if code not in array.typecodes:
        raise DecodeError(f"no array has the type code {code!r}")
    out = array.array(code)
    out.frombytes(data)
    if little != (sys.byteorder == "little"):
        out.byteswap()
    return out


_add(array.array, lambda value: [value.typecode, sys.byteorder == "little", value.tobytes()], _typed_array, shared=True)

# ── containers ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _pairs(mapping: Any) -> list[Any]:
    return [list(mapping), list(mapping.values())]


def _deque(state: Any) -> Any:
    items, most = _expect(state, list, (int, type(None)))
    if most is not None and len(items) > most:
        raise DecodeError(f"a deque of {len(items)} items has room for {most}")
    return collections.deque(items, most)


def _take_ordered(mapping: Any) -> Any:
    # PyTorch keeps the versions of modules as an attribute of a state_dict.
    return [*_pairs(mapping), vars(mapping)] if vars(mapping) else _pairs(mapping)


def _ordered(state: Any) -> Any:
    extra = type(state) is list and len(state) > 2  # noqa: PLR2004 - keys and values
    keys, values, *attributes = _expect(state, list, list, *([dict] if extra else []))
    out: Any = collections.OrderedDict(dict_of(keys, values))
    for own in attributes:
        if any(name.startswith("__") for name in own):
            raise DecodeError("an attribute of an OrderedDict that is not its own")
        vars(out).update(own)
    return out


def _counter(state: Any) -> Any:
    out: Any = collections.Counter()
    dict.update(out, dict_of(*_expect(state, list, list)))
    return out


# What makes a missing value may only be one of these: anything else would be a call of the sender's choice.
_FACTORIES: Final[dict[str, Callable[[], Any]]] = {
    kind.__name__: kind for kind in (int, float, complex, bool, str, bytes, list, dict, set, tuple, frozenset)
}


def _take_default(mapping: Any) -> Any:
    factory = mapping.default_factory
    name = None if factory is None else getattr(factory, "__name__", "")
    if name is not None and _FACTORIES.get(name) is not factory:
        raise TypeError(f"a defaultdict made by {factory!r}; {', '.join(_FACTORIES)} and None are possible")
    return [name, *_pairs(mapping)]


def _default(state: Any) -> Any:
    name, keys, values = _expect(state, (str, type(None)), list, list)
    if name is not None and name not in _FACTORIES:
        raise DecodeError(f"a defaultdict made by {name[:80]!r}")
    return collections.defaultdict(None if name is None else _FACTORIES[name], dict_of(keys, values))


_add(collections.OrderedDict, _take_ordered, _ordered)
_add(collections.Counter, _pairs, _counter)
_add(collections.defaultdict, _take_default, _default)
_add(
    collections.deque,
    lambda value: [list(value), value.maxlen],
    _deque,
)


def _take_namespace(value: Any) -> dict[str, Any]:
    if strange := [name for name in vars(value) if type(name) is not str or name.startswith("__")]:
        raise TypeError(f"the attribute {strange[0]!r} is not one that a namespace can have here")
    return dict(vars(value))


def _namespace(cls: type, state: Any) -> Any:
    if type(state) is not dict or any(name.startswith("__") for name in state):
        raise DecodeError("a namespace's state is a dictionary of plain names")
    out = cls()
    vars(out).update(state)
    return out


_add(argparse.Namespace, _take_namespace, partial(_namespace, argparse.Namespace))
_add(types.SimpleNamespace, _take_namespace, partial(_namespace, types.SimpleNamespace))
_add(types.MappingProxyType, dict, _one(dict, types.MappingProxyType), name="MappingProxyType")

# ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


# One number is read much faster than text; the text of earlier files is read too.

_MICROSECOND: Final = dt.timedelta(microseconds=1)
_DAY: Final = dt.timedelta(days=1) // _MICROSECOND
_FIRST: Final = dt.datetime.min  # noqa: DTZ901 - times without a zone are counted from it
_SHORT: Final = 64


def _take_time(value: dt.time) -> Any:
    seconds = (value.hour * 60 + value.minute) * 60 + value.second
    number = seconds * 1_000_000 + value.microsecond
    return number if value.tzinfo is None and not value.fold else [number, value.tzinfo, value.fold]


def _take_datetime(value: dt.datetime) -> Any:
    if value.tzinfo is None and not value.fold:
        return (value - _FIRST) // _MICROSECOND
    return [(value.replace(tzinfo=None) - _FIRST) // _MICROSECOND, value.tzinfo, value.fold]


def _date(state: Any) -> dt.date:
    if type(state) is int:
        return dt.date.fromordinal(state)
    return dt.date.fromisoformat(_short(state))


def _time_at(number: int) -> dt.time:
    if not 0 <= number < _DAY:
        raise DecodeError(f"a day does not have {number} microseconds")
    return (_FIRST + number * _MICROSECOND).time()


def _datetime_at(number: int) -> dt.datetime:
    return _FIRST + number * _MICROSECOND


def _moment(cls: Any, at: Callable[[int], Any], state: Any) -> Any:
    """A time by its number; or a list of that, or of its text, with its zone and which of two it is."""
    if type(state) is int:
        return at(state)
    time, zone, fold = _expect(state, (int, str), object, int)
    found = at(time) if type(time) is int else cls.fromisoformat(_short(time))
    return found.replace(tzinfo=_zone(zone), fold=fold)


def _zone(zone: Any) -> Any:
    if not isinstance(zone, dt.tzinfo | None):
        raise DecodeError("a time zone was expected")
    return zone


def _short(text: Any) -> str:
    if type(text) is not str or len(text) > _SHORT:
        raise DecodeError("a time is a number or a short text")
    return text


def _offset(state: Any) -> dt.timezone:
    delta, name = _expect(state, dt.timedelta, (str, type(None)))
    return dt.timezone(delta) if name is None else dt.timezone(delta, name)


def _take_offset(value: Any) -> Any:
    # The arguments that made it: a name only where one was given.
    delta = value.utcoffset(None)
    return [delta, None if value.tzname(None) == dt.timezone(delta).tzname(None) else value.tzname(None)]


def _zone_key(value: Any) -> str:
    if value.key is None:
        raise TypeError("a ZoneInfo without a key")
    return str(value.key)


@cache
def _zones() -> frozenset[str]:
    """What zones there are here; looked up when one is read first."""
    return frozenset(zoneinfo.available_timezones())


def _zone_of(key: str) -> zoneinfo.ZoneInfo:
    # A key is part of a path; where the system has no zones, also the name of a module that would be imported.
    # Each of them may be there without and with leap seconds too.
    if key.removeprefix("posix/").removeprefix("right/") not in _zones():
        raise DecodeError(f"{key[:80]!r} is not the name of a time zone here")
    return zoneinfo.ZoneInfo(key)


_add(dt.date, dt.date.toordinal, _date)
_add(dt.time, _take_time, partial(_moment, dt.time, _time_at))
_add(dt.datetime, _take_datetime, partial(_moment, dt.datetime, _datetime_at))
_add(
    dt.timedelta,
    lambda value: [value.days, value.seconds, value.microseconds],
    lambda state: dt.timedelta(*_expect(state, int, int, int)),
)
_add(dt.timezone, _take_offset, _offset)
_add(zoneinfo.ZoneInfo, _zone_key, _one(str, _zone_of))

# ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────────

_add(uuid.UUID, lambda value: value.bytes, _one(bytes, lambda data: uuid.UUID(bytes=data)))
_add(pathlib.PurePosixPath, str, _one(str, pathlib.PurePosixPath))
_add(pathlib.PureWindowsPath, str, _one(str, pathlib.PureWindowsPath))
# A path comes back as one of the machine that reads it.
STANDARD.add(Serializer(cls=type(pathlib.Path()), name="Path", take=str, make=_one(str, pathlib.Path)))

for _cls in vars(builtins).values():
    if isinstance(_cls, type) and issubclass(_cls, BaseException) and _cls not in STANDARD:
        _described = describe_class(_cls, _cls.__name__)
        if _described is not None:
            STANDARD.add(_described)


def _load(module: str) -> Iterable[Serializer]:
    entries: Iterable[Serializer] = importlib.import_module(f"fedpost.{module}").SERIALIZERS
    return entries


_SPARSE: Final = tuple(
    f"scipy.sparse.{kind}_{form}"
    for kind in ("csr", "csc", "bsr", "dia", "coo", "lil", "dok")
    for form in ("array", "matrix")
)
_NVFLARE: Final = tuple(
    f"nvflare.{module}.{name}"
    for module, names in (
        ("apis.analytix", ("AnalyticsDataType", "LogWriterName")),
        ("apis.client", ("Client",)),
        ("apis.dxo", ("DXO", "DataKind")),
        ("apis.fl_context", ("FLContext",)),
        ("apis.fl_snapshot", ("RunSnapshot",)),
        ("apis.job_def", ("JobMetaKey",)),
        ("apis.shareable", ("Shareable",)),
        ("apis.signal", ("Signal",)),
        ("apis.workspace", ("Workspace",)),
        ("app_common.abstract.fl_model", ("FLModel", "ParamsType")),
        ("app_common.abstract.learnable", ("Learnable",)),
        ("app_common.abstract.model", ("ModelLearnable",)),
        (
            "app_common.abstract.statistics_spec",
            ("Bin", "BinRange", "DataType", "Feature", "Histogram", "HistogramType", "StatisticConfig"),
        ),
        ("app_common.widgets.event_recorder", ("_CtxPropReq", "_EventReq", "_EventStats")),
        ("private.admin_defs", ("Message",)),
        ("private.fed.server.run_info", ("RunInfo",)),
        ("private.fed.server.server_state", ("HotState",)),
    )
    for name in names
)
_LAZY: Final = (
    ("numpy", ("MaskedArray",), "objects.masked"),
    (
        "torch",
        tuple(f"torch.{name}" for name in ("Storage", "Tensor", "Parameter", "Size", "dtype", "device")),
        "integrations.torch_objects",
    ),
    ("jaxlib", ("jax.Array",), "integrations.jax_objects"),
    ("scipy", _SPARSE, "integrations.scipy_objects"),
    (
        "pandas",
        tuple(f"pandas.{name}" for name in (*("DataFrame", "Series", "Timestamp", "Timedelta", "Index"),)),
        "integrations.pandas_objects",
    ),
    (
        "pyarrow",
        tuple(f"pyarrow.{name}" for name in ("Table", "RecordBatch", "ChunkedArray", "Array")),
        "integrations.arrow_objects",
    ),
    ("nvflare", _NVFLARE, "integrations.nvflare_objects"),
)
"""Top packages of classes, the names of their types, and the module with their serializers."""

for _package, _names, _module in _LAZY:
    STANDARD.add_lazy(_package, _names, partial(_load, _module))
