"""What a type looks like on the wire, for whoever must check it: JSON Schema, and the check itself.

Rules: the schema is that of the annotations by which a reader checks fields, in JSON Schema 2020-12. A registered class
stands under ``$defs`` by its registered name, with ``x-fedpost-version``. What JSON has no word for, such as arrays,
has the key ``x-fedpost-type`` and nothing else; so has a type that says nothing of itself. To Python a boolean is a
whole number, and a text a sequence; to JSON they are not.
"""

from __future__ import annotations

import collections.abc
import types
import typing
import urllib.parse
from enum import Enum, Flag
from typing import Any, Final, Literal, get_args, get_origin

from fedpost.errors import DecodeError
from fedpost.objects.annotations import Constant, check_for
from fedpost.objects.registering import REGISTRY
from fedpost.objects.types import Serializer, TypeRegistry, qualified_name

__all__ = ["schema", "validate"]

_PLAIN: Final[dict[Any, dict[str, Any]]] = {
    None: {"type": "null"},
    type(None): {"type": "null"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    list: {"type": "array"},
    dict: {"type": "object"},
    Any: {},
    object: {},
}


def schema(cls: Any, *, registry: TypeRegistry = REGISTRY) -> dict[str, Any]:
    """A JSON Schema of a type: its fields, what they are, and which of them must be there.

    Args:
        cls: A class or an annotation, such as ``list[Task]``.
        registry: Where names on the wire are looked up.
    """
    definitions: dict[str, Any] = {}
    out = _of(cls, registry, definitions)
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", **out}
    return {**head, "$defs": definitions} if definitions else head


def validate(value: Any, annotation: Any) -> None:
    """Check that a value is what an annotation says, its items included.

    Raises:
        DecodeError: It is not.
    """
    check = check_for(annotation)
    if not check.passes(value):
        raise DecodeError(f"{check.text} was expected, not {qualified_name(type(value))}")


def _of(annotation: Any, registry: TypeRegistry, definitions: dict[str, Any]) -> dict[str, Any]:  # noqa: PLR0911 - one each
    if isinstance(annotation, collections.abc.Hashable) and annotation in _PLAIN:
        return dict(_PLAIN[annotation])
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and origin is None:
        return _of_class(annotation, registry, definitions)
    if origin in (typing.Annotated, typing.Required, typing.NotRequired, typing.Final):
        return _of(arguments[0], registry, definitions)
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_of(argument, registry, definitions) for argument in arguments]}
    if origin is Literal:
        return {"enum": [argument.name if isinstance(argument, Enum) else argument for argument in arguments]}
    if isinstance(annotation, typing.NewType):
        return _of(annotation.__supertype__, registry, definitions)
    if isinstance(annotation, typing.TypeVar):
        return _of(annotation.__bound__ or Any, registry, definitions)
    if isinstance(origin, type):
        return _of_generic(origin, arguments, registry, definitions)
    return {}


def _of_generic(
    origin: type, arguments: tuple[Any, ...], registry: TypeRegistry, definitions: dict[str, Any]
) -> dict[str, Any]:
    inner = [_of(argument, registry, definitions) for argument in arguments if argument is not Ellipsis]
    if origin is tuple:
        if Ellipsis in arguments:
            return {"type": "array", "items": inner[0], "x-fedpost-type": "tuple"}
        items = {"prefixItems": inner} if inner else {}  # which may not be empty
        return {"type": "array", **items, "minItems": len(inner), "maxItems": len(inner), "x-fedpost-type": "tuple"}
    if origin is list:
        return {"type": "array", "items": inner[0]}
    if issubclass(origin, collections.abc.Mapping) and len(inner) > 1:
        return {"type": "object", "additionalProperties": inner[1]}
    if issubclass(origin, collections.abc.Collection) and len(inner) == 1:
        return {"type": "array", "items": inner[0], "x-fedpost-type": origin.__name__}
    return _of_class(origin, registry, definitions)


def _of_class(cls: type, registry: TypeRegistry, definitions: dict[str, Any]) -> dict[str, Any]:
    serializer = registry.for_class(cls)
    if serializer is None:
        return {"x-fedpost-type": cls.__name__}
    name = serializer.name
    if name not in definitions:
        definitions[name] = {}  # a class may refer to itself
        definitions[name] = {
            **_of_serializer(serializer, registry, definitions),
            "x-fedpost-version": serializer.version,
        }
    return {"$ref": _pointer(name)}


def _pointer(name: str) -> str:
    """Where a definition stands: a JSON pointer (RFC 6901) as the fragment of an address."""
    return "#/$defs/" + urllib.parse.quote(name.replace("~", "~0").replace("/", "~1"))


def _of_serializer(serializer: Serializer, registry: TypeRegistry, definitions: dict[str, Any]) -> dict[str, Any]:
    cls = serializer.cls
    if issubclass(cls, Flag):
        return {"title": serializer.name, "type": "integer"}
    if issubclass(cls, Enum):
        return {"title": serializer.name, "enum": list(cls.__members__)}
    if hasattr(cls, "model_json_schema"):
        return {
            "title": serializer.name,
            **cls.model_json_schema(ref_template=_pointer(serializer.name) + "/$defs/{model}"),
        }
    if serializer.fields is None:
        return {"title": serializer.name, "x-fedpost-type": serializer.name}
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except (NameError, TypeError, AttributeError, SyntaxError):  # names that exist for type checkers only
        hints = {}
    return {
        "title": serializer.name,
        "type": "object",
        "properties": {
            field: _of(_with_default(hints.get(field, Any), serializer.defaults.get(field)), registry, definitions)
            for field in serializer.fields
        },
        "required": [field for field in serializer.fields if field not in serializer.defaults],
        "additionalProperties": serializer.unknown == "ignore",
    }


def _with_default(annotation: Any, default: Any) -> Any:
    """What a field may be: also of its default's type, as in ``x: int = None``."""
    if not isinstance(default, Constant) or check_for(annotation).passes(default.value):
        return annotation
    return typing.Union[annotation, type(default.value)]  # noqa: UP007 - not every annotation knows the bar
