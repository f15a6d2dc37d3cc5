"""Serializers for classes that say themselves what they consist of: one line registers them.

Enumerations (members by name, flags by value), dataclasses, named tuples, pydantic v2 models, attrs classes, msgspec
structs, exceptions. Building an instance runs the class's own checks: ``__post_init__`` of structs, validators of
pydantic and attrs. A dataclass's ``__post_init__`` does not run: its state is taken as it was written.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Sequence
from enum import Enum, Flag
from functools import partial
from typing import Any, Final

import msgspec

from fedpost.errors import ConfigError
from fedpost.objects.annotations import field_checks
from fedpost.objects.types import Serializer

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
        return _pydantic(cls, name)
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


def _enumeration(cls: type[Enum], name: str) -> Serializer:
    if issubclass(cls, Flag):  # combinations have no member of their own
        return Serializer(cls=cls, name=name, take=operator.attrgetter("_value_"), make=partial(_flag, cls))
    return Serializer(cls=cls, name=name, take=operator.attrgetter("_name_"), make=partial(_member, cls))


def _flag(cls: type[Any], value: Any) -> Any:
    if type(value) is not int:
        raise ValueError(f"{value!r} is not the number of a flag")
    return cls(value)


def _member(cls: type[Any], name: Any) -> Any:
    if type(name) is not str or name not in cls.__members__:
        raise ValueError(f"{name!r} is not a member of {cls.__qualname__}")
    return cls.__members__[name]


def _exception(cls: type[BaseException], name: str) -> Serializer:
    def take(error: BaseException) -> Any:
        return [list(error.args), dict(vars(error))]

    def make(state: Any) -> BaseException:
        if type(state) is not list or len(state) != 2 or type(state[0]) is not list or type(state[1]) is not dict:  # noqa: PLR2004 - arguments and attributes
            raise ValueError("the state of an exception is its arguments and its attributes")
        error = cls.__new__(cls, *state[0])
        error.args = tuple(state[0])
        for key, value in state[1].items():
            if key.startswith("__") and key != "__notes__":
                raise ValueError(f"{key!r} is not an attribute of an exception's own")
            vars(error)[key] = value
        return error

    return Serializer(cls=cls, name=name, take=take, make=make)


def _named_tuple(cls: type[Any], name: str) -> Serializer:
    fields: tuple[str, ...] = cls._fields
    defaults = {key: partial(_same, value) for key, value in cls._field_defaults.items()}
    return Serializer(
        cls=cls,
        name=name,
        take=list,
        make=cls._make,
        fields=fields,
        checks=field_checks(cls, fields),
        defaults=defaults,
    )


def _struct(cls: type[Any], name: str) -> Serializer:
    fields: tuple[str, ...] = cls.__struct_fields__
    defaults: dict[str, Callable[[], Any]] = {}
    for found in msgspec.structs.fields(cls):
        if found.default is not msgspec.NODEFAULT:
            defaults[found.name] = partial(_same, found.default)
        elif found.default_factory is not msgspec.NODEFAULT:
            defaults[found.name] = found.default_factory
    keyword_only = cls.__struct_config__.kw_only or len(cls.__match_args__) != len(fields)

    def make(values: Sequence[Any]) -> Any:
        return cls(**dict(zip(fields, values, strict=True))) if keyword_only else cls(*values)

    return Serializer(
        cls=cls,
        name=name,
        take=_values_of(fields),
        make=make,
        make_all=None if keyword_only else cls,
        fields=fields,
        checks=field_checks(cls, fields),
        defaults=defaults,
    )


def _dataclass(cls: Any, name: str) -> Serializer:
    _refuse_containers(cls)
    declared = dataclasses.fields(cls)
    fields = tuple(found.name for found in declared)
    defaults: dict[str, Callable[[], Any]] = {}
    for found in declared:
        if found.default is not dataclasses.MISSING:
            defaults[found.name] = partial(_same, found.default)
        elif found.default_factory is not dataclasses.MISSING:
            defaults[found.name] = found.default_factory
    # The constructor that the decorator wrote does nothing but set fields: it is the fastest way to set them.
    own: Any = getattr(cls, "__dataclass_params__", None)
    plain = (
        "__dataclass_params__" in vars(cls)
        and own.init
        and not hasattr(cls, "__post_init__")
        and cls.__new__ is object.__new__
        and type(cls) is type
        and all(found.init and not found.kw_only for found in declared)
        and "__setattr__" not in _names_set_by(cls)
        and len(fields) == len(getattr(cls, "__match_args__", fields))
    )
    return Serializer(
        cls=cls,
        name=name,
        take=_values_of(fields),
        make=(lambda values: cls(*values)) if plain else partial(_set_fields, cls, fields),
        make_all=cls if plain else None,
        fields=fields,
        checks=field_checks(cls, fields),
        defaults=defaults,
    )


def _names_set_by(cls: type) -> set[str]:
    """Attributes that the class or its bases define, but for those that a frozen dataclass gets."""
    frozen = cls.__dataclass_params__.frozen  # type: ignore[attr-defined] # asked of dataclasses only
    return set() if frozen else {name for base in cls.__mro__[:-1] for name in vars(base)}


def _set_fields(cls: Any, fields: tuple[str, ...], values: Sequence[Any]) -> Any:
    out = cls.__new__(cls)
    for name, value in zip(fields, values, strict=True):
        object.__setattr__(out, name, value)
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
            defaults[found.name] = partial(_same, default)

    def make(values: Sequence[Any]) -> Any:
        out = _set_fields(cls, fields, values)
        attr.validate(out)
        return out

    return Serializer(
        cls=cls,
        name=name,
        take=_values_of(fields),
        make=make,
        fields=fields,
        checks=field_checks(cls, fields),
        defaults=defaults,
    )


def _pydantic(cls: type[Any], name: str) -> Serializer:
    """A model's state: its fields, which of them were set, what it holds beyond them, and its private attributes."""
    _refuse_containers(cls)
    aliased = any(found.validation_alias is not None for found in cls.model_fields.values())

    def take(model: Any) -> Any:
        private = model.__pydantic_private__
        return [dict(vars(model)), sorted(model.__pydantic_fields_set__), model.__pydantic_extra__, private]

    def make(state: Any) -> Any:
        if type(state) is not list or [type(part) for part in state[:2]] != [dict, list] or len(state) != 4:  # noqa: PLR2004 - the four parts above
            raise ValueError("the state of a model is its fields, the names of those set, extras, private attributes")
        values, names, extra, private = state
        fields = {key: value for key, value in values.items() if key in cls.model_fields}
        model = cls.model_validate({**fields, **(extra or {})}, **({"by_name": True} if aliased else {}))
        if not set(names) <= {*cls.model_fields, *(extra or {})}:
            raise ValueError("a field that was set is no field")
        if private:
            known = set(cls.__private_attributes__)
            if not isinstance(private, dict) or not private.keys() <= known:
                raise ValueError("a private attribute that the model does not have")
            object.__setattr__(model, "__pydantic_private__", {**(model.__pydantic_private__ or {}), **private})
        object.__setattr__(model, "__pydantic_fields_set__", set(names))
        return model

    return Serializer(cls=cls, name=name, take=take, make=make)


def _refuse_containers(cls: type) -> None:
    if inner := [base for base in _CONTAINERS if issubclass(cls, base)]:
        raise ConfigError(
            f"{cls.__qualname__} is a {inner[0].__name__} as well, whose content its fields do not say",
            hint="Register a Decomposer for it.",
        )


def _same(value: Any) -> Any:
    return value
