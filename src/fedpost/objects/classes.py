"""Serializers for classes that say themselves what they consist of: one line registers them.

Enumerations (members by name, flags by value), dataclasses, named tuples, pydantic v2 models, attrs classes, msgspec
structs, exceptions. Building an instance runs the class's own checks: ``__post_init__`` of structs, validators of
pydantic and attrs. A dataclass's ``__post_init__`` does not run: its state is taken as it was written.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Mapping, Sequence
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


# What exceptions of the language itself hold beside their arguments.
_MEMBERS: Final[Mapping[type, tuple[str, ...]]] = {
    ImportError: ("name", "path"),
    AttributeError: ("name",),
    NameError: ("name",),
    OSError: ("filename", "filename2"),
}


def _exception(cls: type[BaseException], name: str) -> Serializer:
    members = {member for base in cls.__mro__ for member in _MEMBERS.get(base, ())} | _slots_of(cls)
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


def _slots_of(cls: type) -> set[str]:
    """The slots of a class and its bases that are not the language's own."""
    slots = (vars(base).get("__slots__", ()) for base in cls.__mro__)
    return {name for names in slots for name in ((names,) if isinstance(names, str) else names) if name[:2] != "__"}


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
    keyword_only = len(cls.__match_args__) != len(fields)  # fields by keyword only are no positions

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
        and _is_generated(cls.__init__)
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


def _is_generated(function: Any) -> bool:
    """Whether the decorator wrote it: a class that has an ``__init__`` keeps it."""
    return getattr(getattr(function, "__code__", None), "co_filename", None) == "<string>"


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

    remembered = "_attrs_cached_hash" in getattr(getattr(cls.__hash__, "__code__", None), "co_names", ())

    def make(values: Sequence[Any]) -> Any:
        out = _set_fields(cls, fields, values)
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
        checks=field_checks(cls, fields),
        defaults=defaults,
    )


def _pydantic(cls: type[Any], name: str) -> Serializer:
    """A model's state: its fields; and which of them were set, what it holds beyond them, its private attributes."""
    _refuse_containers(cls)
    declared = tuple(cls.model_fields)
    aliased = any(found.validation_alias is not None for found in cls.model_fields.values())
    is_root = getattr(cls, "__pydantic_root_model__", False)
    defaults: dict[str, Callable[[], Any]] = {"__set__": lambda: None, "__extra__": lambda: None}
    defaults["__private__"] = defaults["__extra__"]
    for key, found in cls.model_fields.items():
        if not found.is_required():
            defaults[key] = lambda: _UNSET  # the model knows how to make it

    def take(model: Any) -> Any:
        values = vars(model)
        names = [key for key in declared if key in model.__pydantic_fields_set__]
        extra = model.__pydantic_extra__
        return [*(values[key] for key in declared), names, extra, model.__pydantic_private__]

    def make(state: Sequence[Any]) -> Any:
        *values, names, extra, private = state
        fields = {key: value for key, value in zip(declared, values, strict=True) if value is not _UNSET}
        names = list(fields) if names is None else names
        extra, private = extra or {}, private or {}
        if type(names) is not list or type(extra) is not dict or type(private) is not dict or extra.keys() & fields:
            raise ValueError("what a model holds beside its fields is not a list and two dictionaries")
        if not private.keys() <= set(cls.__private_attributes__):
            raise ValueError("a private attribute that the model does not have")
        told = fields["root"] if is_root else {**fields, **extra}
        model = cls.model_validate(told, **({"by_name": True} if aliased else {}))
        if extra.keys() != (model.__pydantic_extra__ or {}).keys():
            raise ValueError("more fields than the model has")
        if private:
            object.__setattr__(model, "__pydantic_private__", {**(model.__pydantic_private__ or {}), **private})
        object.__setattr__(model, "__pydantic_fields_set__", {key for key in names if key in fields} | extra.keys())
        return model

    return Serializer(
        cls=cls,
        name=name,
        take=take,
        make=make,
        fields=(*declared, "__set__", "__extra__", "__private__"),
        defaults=defaults,
    )


_UNSET: Final = object()


def _refuse_containers(cls: type) -> None:
    if inner := [base for base in _CONTAINERS if issubclass(cls, base)]:
        raise ConfigError(
            f"{cls.__qualname__} is a {inner[0].__name__} as well, whose content its fields do not say",
            hint="Register a Decomposer for it.",
        )


def _same(value: Any) -> Any:
    return value
