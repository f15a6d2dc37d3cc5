"""Which classes may be written and which may be read: two registries, as those are two questions.

Rules: whoever sends need not register dataclasses, pydantic models and the like; whoever receives builds only what is
registered there, or named by the caller. What this process has sent does not widen what it accepts. A tag is the name
of a class without its module, which would differ: what is ``__main__`` to one side is imported by the other.
"""

from __future__ import annotations

import functools
import typing
from collections.abc import Callable
from typing import Any, Final, TypeVar

from fedpost.compat.syft_rpc.private import DatasetReference, is_private, refusing
from fedpost.errors import ConfigError, DecodeError, EncodeError, RegistryError
from fedpost.objects import TypeRegistry, new_registry
from fedpost.objects.classes import describe_class
from fedpost.objects.types import Serializer, qualified_name

__all__ = ["HINT", "Reading", "Sending", "register", "register_deserializer", "register_serializer"]

T = TypeVar("T")

_SENT: Final = new_registry()
_READ: Final = new_registry()
HINT: Final = "Use @syft_rpc.register_serializer(…), and register_deserializer where it is read."


def register_serializer(cls: type[T], *, name: str | None = None) -> Callable[[Callable[[T], bytes]], Any]:
    """Decorate the function that turns an instance of a class into bytes.

    Args:
        cls: The class; its subclasses need their own.
        name: Its tag on the wire; without it the class's own name, or what the deserializer was registered with.

    Raises:
        RegistryError: It has a serializer, its tag belongs to another class, or it is private.
    """
    if is_private(cls):
        raise RegistryError(f"{qualified_name(cls)} is private and is not sent", hint="Send a DatasetReference.")

    def decorate(function: Callable[[T], bytes]) -> Callable[[T], bytes]:
        def take(value: T) -> bytes:
            data = function(value)
            if not isinstance(data, bytes | bytearray | memoryview):
                raise EncodeError(f"its serializer gave {qualified_name(type(data))}, not bytes")
            return bytes(data)

        _SENT.add(Serializer(cls=cls, name=_tag(cls, name, _READ), take=take, make=_never))
        return function

    return decorate


def register_deserializer(cls: type[T], *, name: str | None = None) -> Callable[[Callable[[bytes], T]], Any]:
    """Decorate the function that builds an instance of a class out of the bytes that its serializer gave.

    The bytes come from somebody else: it must take any, and raise what it likes for those that are none of its own.

    Args:
        cls: The class.
        name: Its tag on the wire; without it the class's own name, or what the serializer was registered with.

    Raises:
        RegistryError: It has a deserializer, or its tag belongs to another class.
    """

    def decorate(function: Callable[[bytes], T]) -> Callable[[bytes], T]:
        def make(state: Any) -> T:
            if type(state) is not bytes:
                raise DecodeError(f"bytes were expected, not {qualified_name(type(state))}")
            value = function(state)
            if not isinstance(value, cls):
                raise DecodeError(f"its deserializer gave {qualified_name(type(value))}")
            return value

        _READ.add(Serializer(cls=cls, name=_tag(cls, name, _SENT), take=_never, make=make))
        return function

    return decorate


def register(cls: type[T], *, name: str | None = None) -> type[T]:
    """Let a dataclass, pydantic model, enumeration, named tuple or the like be read everywhere; a decorator, too.

    Args:
        cls: The class.
        name: Its tag on the wire; without it the class's own name.

    Raises:
        ConfigError: It does not say what it consists of.
        RegistryError: It or its tag is registered already, or it is private.
    """
    if is_private(cls):
        raise RegistryError(f"{qualified_name(cls)} is private and is not sent", hint="Send a DatasetReference.")
    found = describe_class(cls, name or cls.__name__)
    if found is None:
        raise ConfigError(f"{qualified_name(cls)} does not say what it consists of", hint=HINT)
    _SENT.add(found)
    try:
        _READ.add(found)
    except RegistryError:
        _SENT.remove(cls)
        raise
    return cls


# ── one call ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Sending(TypeRegistry):
    """What one call may write: what is registered, and classes that say what they consist of."""

    def __init__(self) -> None:
        super().__init__()
        self._tags: dict[str, type] = {}

    def for_class(self, cls: type) -> Serializer | None:
        """The serializer of a class, made on the spot where there is none; one that refuses for a private class."""
        if is_private(cls):
            return refusing(cls, "private data do not leave the site", "Send a DatasetReference, or what was learnt.")
        known = _SENT.for_class(cls)
        if known is not None:
            return known
        found = _described(cls)
        if found is None:
            return None
        if self._tags.setdefault(found.name, cls) is not cls or _SENT.for_name(found.name) is not None:
            raise RegistryError(
                f"{qualified_name(cls)} is one of two classes called {found.name!r}",
                hint="Register one of them, on both sides: syft_rpc.register(…, name=…).",
            )
        return found


class Reading(TypeRegistry):
    """What one call may read: what is registered, and the classes of an annotation."""

    def __init__(self, annotation: Any) -> None:
        super().__init__()
        self._named = _named_in(annotation) if annotation is not None else {}

    def for_name(self, name: str) -> Serializer | None:
        """The serializer of a tag."""
        return self._named.get(name) or _READ.for_name(name)

    @property
    def most_names(self) -> int:
        """How many tags can be known at most."""
        return len(self._named) + _READ.most_names

    def nearest(self, name: str) -> str | None:
        """A known tag like this one."""
        return _READ.nearest(name)


def _named_in(annotation: Any) -> dict[str, Serializer]:
    """Serializers by tag of the classes in an annotation, and in the annotations of their fields."""
    out: dict[str, Serializer] = {}
    seen: list[Any] = []
    rest = [annotation]
    while rest:
        item = rest.pop()
        if any(item is known for known in seen):
            continue
        seen.append(item)
        rest += typing.get_args(item)
        if isinstance(item, type) and item not in _READ and (found := _described(item)) is not None:
            if out.setdefault(found.name, found) is not found:
                raise RegistryError(f"with_type names two classes called {found.name!r}", hint="Register one of them.")
            rest += _annotations_of(item)
    return out


def _annotations_of(cls: type) -> list[Any]:
    if hasattr(cls, "model_fields"):
        return [field.annotation for field in cls.model_fields.values()]
    try:
        return list(typing.get_type_hints(cls, include_extras=True).values())
    except (NameError, TypeError, AttributeError, SyntaxError):  # names that exist for type checkers only
        return []


@functools.lru_cache(maxsize=1024)
def _described(cls: type) -> Serializer | None:
    """The serializer of a class that says itself what it consists of."""
    try:
        return describe_class(cls, cls.__name__)
    except ConfigError as error:
        return refusing(cls, error.what, error.hint)


def _tag(cls: type, name: str | None, other: TypeRegistry) -> str:
    """The tag of a class of which the other half may be registered already."""
    known = other.for_class(cls) if cls in other else None
    if known is None:
        return name or cls.__name__
    if name not in (None, known.name):
        raise RegistryError(f"{qualified_name(cls)} is called {known.name!r} already, not {name!r}")
    return known.name


def _never(_value: Any) -> Any:
    raise ConfigError("this half of a registration is not used")


register(DatasetReference)
