"""Serializers of pydantic's classes: what they hold comes back as it was, after their validators had a look at it.

Rules: types of fields are checked first, so a validator has nothing to convert that was built out of what somebody
else wrote; what a validator returns is thrown away, as another run may change what the first one made. A class that
imports what its input names is refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from fedpost.errors import ConfigError
from fedpost.objects.annotations import Constant, field_checks
from fedpost.objects.types import Serializer, qualified_name

__all__ = ["describe_model", "pydantic_check"]

_UNSET: Final = object()


def describe_model(cls: type[Any], name: str, attributes: frozenset[str] | None) -> Serializer:  # noqa: C901 - two functions and what they share
    """The serializer of a model: its fields; which of them were set, what it holds beyond them, its private attributes.

    Args:
        cls: The model.
        name: What it is called on the wire.
        attributes: What an instance's ``__dict__`` may hold beside the fields.

    Raises:
        ConfigError: It imports what its input names.
    """
    declared = tuple(cls.model_fields)
    is_root = getattr(cls, "__pydantic_root_model__", False)
    validator = _Validator(cls)
    defaults: dict[str, Callable[[], Any]] = {"__set__": Constant(None), "__extra__": Constant(None)}
    defaults["__private__"] = defaults["__extra__"]
    plain: dict[str, Callable[[], Any]] = {}
    for key, found in cls.model_fields.items():
        if not found.is_required():
            defaults[key] = Constant(_UNSET)  # the model knows how to make it
            if found.default_factory is None:
                plain[key] = Constant(found.default)

    def take(model: Any) -> Any:
        values = vars(model)
        names = [key for key in declared if key in model.__pydantic_fields_set__]
        extra = model.__pydantic_extra__
        return [*(values[key] for key in declared), names, extra, model.__pydantic_private__]

    def make(state: Sequence[Any]) -> Any:
        *values, names, extra, private = state
        fields = {key: value for key, value in zip(declared, values, strict=True) if value is not _UNSET}
        names = list(fields) if names is None else names
        private = private or {}
        if type(names) is not list or type(private) is not dict:
            raise ValueError("what a model holds beside its fields is not a list and two dictionaries")
        if extra is not None and (type(extra) is not dict or extra.keys() & fields):
            raise ValueError("what a model holds beyond its fields is not a dictionary of other names")
        if not private.keys() <= set(cls.__private_attributes__):
            raise ValueError("a private attribute that the model does not have")
        # pydantic does not look at defaults, which need not be what it would accept.
        told = {key: value for key, value in fields.items() if not (key in plain and _is_same(plain[key](), value))}
        model = validator(fields.get("root") if is_root else {**told, **(extra or {})})
        if type(model) is not cls:
            raise ValueError(f"a validator made it a {qualified_name(type(model))}")
        if (extra or {}).keys() != (model.__pydantic_extra__ or {}).keys():
            raise ValueError("more fields than the model has")
        made = vars(model)
        whole = {key: fields.get(key, made.get(key)) for key in declared}
        object.__setattr__(model, "__dict__", whole)
        if extra is not None:
            object.__setattr__(model, "__pydantic_extra__", extra)
        if private:
            object.__setattr__(model, "__pydantic_private__", {**(model.__pydantic_private__ or {}), **private})
        kept = {key for key in names if key in fields}
        object.__setattr__(model, "__pydantic_fields_set__", kept | (extra or {}).keys())
        return model

    checks = field_checks(cls, declared, plain)
    unset = frozenset({type(_UNSET)})
    return Serializer(
        cls=cls,
        name=name,
        take=take,
        make=make,
        fields=(*declared, "__set__", "__extra__", "__private__"),
        checks={
            key: dataclasses.replace(check, exact=check.exact | unset) if key in defaults else check
            for key, check in checks.items()
        },
        attributes=attributes and attributes | set(declared),
        defaults=defaults,
    )


def pydantic_check(cls: Any, build: Callable[[Sequence[Any]], Any]) -> Callable[[Sequence[Any]], Any]:
    """How an instance of a pydantic dataclass is built: as it was written, once its validators do not refuse it.

    Args:
        cls: The dataclass.
        build: Its field's values to an instance.

    Raises:
        ConfigError: It imports what its input names, or cannot be validated by its fields.
    """
    from pydantic_core import ArgsKwargs  # noqa: PLC0415 - a class of pydantic's making has loaded it

    validator = _Validator(cls)
    if any(found._field_type is dataclasses._FIELD_INITVAR for found in cls.__dataclass_fields__.values()):  # type: ignore[attr-defined] # noqa: SLF001 - fields() leaves them out
        raise ConfigError(
            f"{qualified_name(cls)} is validated by more than its fields: it has an InitVar",
            hint="Register a Decomposer for it.",
        )
    names = [(index, found.name) for index, found in enumerate(dataclasses.fields(cls)) if found.init]

    def make(values: Sequence[Any]) -> Any:
        validator(ArgsKwargs((), {name: values[index] for index, name in names}), self_instance=object.__new__(cls))
        return build(values)

    return make


class _Validator:
    """A class's own validation, of values that have the right types already.

    It does not convert, unless a function of the class's own has its say: what that expects is not known here.
    """

    def __init__(self, cls: Any) -> None:
        self._cls = cls
        self._lax: bool | None = None
        fields = getattr(cls, "__pydantic_fields__", {}).values()
        aliased = any(found.validation_alias is not None for found in fields)
        self._options: dict[str, Any] = {"by_alias": False, "by_name": True} if aliased else {}
        if getattr(cls, "__pydantic_complete__", True):  # else it refers to a class that is not there yet
            self._look()

    def __call__(self, told: Any, **options: Any) -> Any:
        lax = self._look() if self._lax is None else self._lax
        validate = partial(self._cls.__pydantic_validator__.validate_python, **self._options, **options)
        try:
            return validate(told, strict=True)
        except ValueError:
            if not lax:
                raise
        return validate(told, strict=False)

    def _look(self) -> bool:
        cls = self._cls
        if not getattr(cls, "__pydantic_complete__", True):
            _rebuild(cls)
        found = _functions_of(cls.__pydantic_core_schema__)
        self._lax = bool(found)
        if any(_imports(function) for function in found):
            raise ConfigError(
                f"{qualified_name(cls)} has a field that imports what it is told to",
                hint="Use a registered class, or a name, in place of pydantic.ImportString.",
            )
        return self._lax


def _rebuild(cls: Any) -> None:
    """Have pydantic look again at what was not known yet when the class was made."""
    if hasattr(cls, "model_rebuild"):
        cls.model_rebuild()
        return
    from pydantic.dataclasses import rebuild_dataclass  # noqa: PLC0415 - a class of its making has loaded it

    rebuild_dataclass(cls)


def _imports(function: Any) -> bool:
    module = getattr(function, "__module__", None) or ""
    return getattr(function, "__name__", "") == "import_string" and module.partition(".")[0] == "pydantic"


def _functions_of(schema: Any) -> list[Any]:
    """The validators in a core schema that are functions of Python's."""
    out, stack, seen = [], [schema], set()
    while stack:
        part = stack.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, dict):
            if str(part.get("type", "")).startswith("function-"):
                function = part.get("function")
                out.append(function.get("function") if isinstance(function, dict) else function)
            stack.extend(part.values())
        elif isinstance(part, list | tuple):
            stack.extend(part)
    return out


def _is_same(default: Any, value: Any) -> bool:
    return value is default or (type(value) is type(default) and type(value) in _PLAIN and value == default)


_PLAIN: Final = (bool, int, float, str, bytes)
