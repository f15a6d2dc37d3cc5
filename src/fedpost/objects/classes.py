"""Serializers for classes that say themselves what they consist of: one line registers them.

Enumerations (members by name, flags by value), dataclasses, named tuples, pydantic v2 models, attrs classes, msgspec
structs, exceptions. Instances of dataclasses, attrs classes and pydantic models are built without their constructors,
as they were written; validators of pydantic and attrs are run to see whether they refuse. Structs are built by their
constructor, ``__post_init__`` included. A dataclass's ``__post_init__`` does not run.
"""

from __future__ import annotations

import dataclasses
import operator
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum, Flag
from functools import cached_property, partial
from itertools import repeat
from typing import Any, Final

import msgspec

from fedpost.errors import ConfigError, LimitError
from fedpost.objects.annotations import Constant, field_checks
from fedpost.objects.attributes import slots_of
from fedpost.objects.types import Serializer, qualified_name
from fedpost.objects.validated import describe_model, pydantic_check

__all__ = ["describe_class"]

_CONTAINERS: Final = (list, dict, set, frozenset, str, bytes, bytearray, int, float, complex)


def describe_class(cls: type, name: str) -> Serializer | None:  # noqa: PLR0911 - one line a kind of class
    """The serializer of a class of one of the kinds above; None for any other.

    Raises:
        ConfigError: It is of such a kind, but holds more than its fields say.
    """
    if issubclass(cls, Enum):
        return _enumeration(cls, name)
    if issubclass(cls, BaseException):
        return _exception(cls, name)
    if issubclass(cls, tuple):
        return _named_tuple(cls, name) if hasattr(cls, "_fields") else None
    if issubclass(cls, msgspec.Struct):
        return _struct(cls, name)
    if hasattr(cls, "__pydantic_validator__") and not dataclasses.is_dataclass(cls):
        _refuse_containers(cls)
        return describe_model(cls, name, _held(cls, ()))
    if hasattr(cls, "__attrs_attrs__"):
        return _attrs(cls, name)
    if dataclasses.is_dataclass(cls):
        return _dataclass(cls, name)
    return None


def _values_of(fields: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    """A function that gives the values of an object's fields as a tuple."""
    if not fields:
        return lambda _obj: ()
    if len(fields) == 1:
        getter = operator.attrgetter(fields[0])
        return lambda obj: (getter(obj),)
    return operator.attrgetter(*fields)


def _held(cls: type, fields: Iterable[str]) -> frozenset[str] | None:
    """What the attributes of an instance may be; None where it has none. What is computed can be computed again."""
    if not any("__dict__" in vars(base) for base in cls.__mro__):
        return None
    remembered = {
        name for base in cls.__mro__ for name, member in vars(base).items() if isinstance(member, cached_property)
    }
    return frozenset({*fields, *remembered, *_NO_STATE})


_NO_STATE: Final = ("__orig_class__", "_attrs_cached_hash")
"""What type checkers and attrs leave in instances."""


def _enumeration(cls: type[Enum], name: str) -> Serializer:
    if issubclass(cls, Flag):  # combinations have no member of their own
        number_of, flag = partial(_number_of, cls), partial(_flag, cls)
        return Serializer(cls=cls, name=name, take=number_of, make=flag, shared=True, constant=True)
    take, make = operator.attrgetter("_name_"), partial(_member, cls)
    return Serializer(cls=cls, name=name, take=take, make=make, shared=True, constant=True)


def _number_of(cls: Any, flag: Any) -> int:
    number: int = flag._value_
    _check_flag(cls, number)
    return number


def _flag(cls: Any, number: Any) -> Any:
    if type(number) is not int:
        raise ValueError(f"{number!r} is not the number of a flag")
    _check_flag(cls, number)
    known = cls._value2member_map_
    if number not in known and len(known) >= _MOST_COMBINATIONS:
        raise LimitError(f"more than {_MOST_COMBINATIONS} combinations of {cls.__qualname__}")
    return cls(number)


def _check_flag(cls: Any, number: int) -> None:
    """A class keeps each number that it was asked for, as long as the process lives."""
    if number < 0 or number & ~cls._flag_mask_:
        raise ValueError(f"{number.bit_length()} bits, of which some are no member of {cls.__qualname__}")


_MOST_COMBINATIONS: Final = 1 << 16


def _member(cls: Any, name: Any) -> Any:
    members = cls._member_map_
    if type(name) is not str or name not in members:
        raise ValueError(f"{name!r} is not a member of {cls.__qualname__}")
    return members[name]


# What exceptions of the language itself hold beside their arguments.
_MEMBERS: Final[Mapping[type, tuple[str, ...]]] = {
    ImportError: ("name", "path"),
    AttributeError: ("name",),
    NameError: ("name",),
    OSError: ("filename", "filename2"),
}


def _exception(cls: type[BaseException], name: str) -> Serializer:
    members = {member for base in cls.__mro__ for member in _MEMBERS.get(base, ())} | slots_of(cls).keys()
    # The initialiser that sets what the interpreter keeps elsewhere; a class's own may do anything.
    language: Any = next(base for base in cls.__mro__ if base.__module__ == "builtins")

    def take(error: BaseException) -> Any:
        more = {member: getattr(error, member, None) for member in members}
        return [list(error.args), {key: value for key, value in more.items() if value is not None} | vars(error)]

    def make(state: Any) -> BaseException:
        if type(state) is not list or len(state) != 2 or type(state[0]) is not list or type(state[1]) is not dict:  # noqa: PLR2004 - arguments and attributes
            raise ValueError("the state of an exception is its arguments and its attributes")
        error = cls.__new__(cls, *state[0])
        language.__init__(error, *state[0])
        if type(error) is not cls:  # OSError makes others, as its arguments are
            raise ValueError(f"arguments of a {type(error).__qualname__}")
        error.args = tuple(state[0])
        for key, value in state[1].items():
            if key.startswith("__") and key != "__notes__":
                raise ValueError(f"{key!r} is not an attribute of an exception's own")
            if key in members:
                language.__setattr__(error, key, value)
            else:
                vars(error)[key] = value
        return error

    return Serializer(cls=cls, name=name, take=take, make=make)


def _named_tuple(cls: type[Any], name: str) -> Serializer:
    fields: tuple[str, ...] = cls._fields
    defaults = {key: Constant(value) for key, value in cls._field_defaults.items()}
    return Serializer(
        cls=cls,
        name=name,
        take=list,
        make=partial(tuple.__new__, cls),
        fields=fields,
        checks=field_checks(cls, fields, defaults),
        attributes=_held(cls, ()),
        defaults=defaults,
    )


def _struct(cls: type[Any], name: str) -> Serializer:
    fields: tuple[str, ...] = cls.__struct_fields__
    defaults: dict[str, Callable[[], Any]] = {}
    for found in msgspec.structs.fields(cls):
        if found.default is not msgspec.NODEFAULT:
            defaults[found.name] = Constant(found.default)
        elif found.default_factory is not msgspec.NODEFAULT:
            defaults[found.name] = found.default_factory
    keyword_only = len(cls.__match_args__) != len(fields)  # fields by keyword only are no positions

    def make(values: Sequence[Any]) -> Any:
        return cls(**dict(zip(fields, values, strict=True))) if keyword_only else cls(*values)

    return Serializer(
        cls=cls,
        name=name,
        take=_values_of(fields),
        make=make,
        make_all=None if keyword_only else lambda columns: list(map(cls, *columns)),
        fields=fields,
        checks=field_checks(cls, fields, defaults),
        attributes=_held(cls, ()),
        defaults=defaults,
    )


def _dataclass(cls: Any, name: str) -> Serializer:
    _refuse_containers(cls)
    declared = dataclasses.fields(cls)
    fields = tuple(found.name for found in declared)
    defaults: dict[str, Callable[[], Any]] = {}
    for found in declared:
        if found.default is not dataclasses.MISSING:
            defaults[found.name] = Constant(found.default)
        elif found.default_factory is not dataclasses.MISSING:
            defaults[found.name] = found.default_factory
    build, build_all = partial(_set_fields, cls, _setter(cls), fields), partial(_set_columns, cls, fields)
    validated = hasattr(cls, "__pydantic_validator__")
    return Serializer(
        cls=cls,
        name=name,
        take=_values_of(fields),
        make=pydantic_check(cls, build) if validated else build,
        make_all=None if validated else build_all,
        fields=fields,
        checks=field_checks(cls, fields, defaults),
        attributes=_held(cls, fields),
        defaults=defaults,
    )


def _set_fields(cls: Any, put: Callable[..., None], fields: tuple[str, ...], values: Sequence[Any]) -> Any:
    out = object.__new__(cls)
    deque(map(put, repeat(out), fields, values), maxlen=0)
    return out


def _setter(cls: Any) -> Callable[..., None]:
    """What sets attributes past a class's own say; where it has none, what is faster by a quarter."""
    return setattr if cls.__setattr__ is object.__setattr__ else object.__setattr__


def _set_columns(cls: Any, fields: tuple[str, ...], columns: Sequence[Sequence[Any]]) -> list[Any]:
    """As many instances as the columns have values, without a step of Python's for each."""
    out = list(map(object.__new__, repeat(cls, len(columns[0]))))
    put = _setter(cls)
    for name, column in zip(fields, columns, strict=True):
        deque(map(put, out, repeat(name), column), maxlen=0)
    return out


def _attrs(cls: type[Any], name: str) -> Serializer:
    import attr  # noqa: PLC0415 - a class of its own making has loaded it

    _refuse_containers(cls)
    declared = attr.fields(cls)
    fields = tuple(found.name for found in declared)
    defaults: dict[str, Callable[[], Any]] = {}
    for found in declared:
        default: Any = found.default
        if isinstance(default, attr.Factory):  # type: ignore[arg-type] # a function for type checkers
            if not default.takes_self:
                defaults[found.name] = default.factory
        elif default is not attr.NOTHING:
            defaults[found.name] = Constant(default)

    put = _setter(cls)
    remembered = "_attrs_cached_hash" in getattr(getattr(cls.__hash__, "__code__", None), "co_names", ())

    def make(values: Sequence[Any]) -> Any:
        out = _set_fields(cls, put, fields, values)
        if remembered:
            object.__setattr__(out, "_attrs_cached_hash", None)
        attr.validate(out)
        return out

    return Serializer(
        cls=cls,
        name=name,
        take=_values_of(fields),
        make=make,
        fields=fields,
        checks=field_checks(cls, fields, defaults),
        attributes=_held(cls, fields),
        defaults=defaults,
    )


def _refuse_containers(cls: type) -> None:
    if inner := [base for base in _CONTAINERS if issubclass(cls, base)]:
        raise ConfigError(
            f"{cls.__qualname__} is a {inner[0].__name__} as well, whose content its fields do not say",
            hint="Register a Decomposer for it.",
        )
    if strange := [base for base in cls.__mro__ if base is not object and not base.__flags__ & _HEAP_TYPE]:
        raise ConfigError(
            f"{qualified_name(cls)} is built upon {qualified_name(strange[0])}, whose content its fields do not say",
            hint="Register a Decomposer for it.",
        )


_HEAP_TYPE: Final = 1 << 9
