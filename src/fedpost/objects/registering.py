"""Registering classes: what a user writes once for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar, overload

from fedpost.errors import ConfigError, RegistryError
from fedpost.objects.classes import describe_class
from fedpost.objects.standard import STANDARD
from fedpost.objects.types import Decomposer, Serializer, TypeRegistry, Unknown, qualified_name

__all__ = ["REGISTRY", "new_registry", "register", "register_deserializer", "register_serializer"]

REGISTRY: Final = TypeRegistry(STANDARD)
"""The registry that is used where none is given."""

T = TypeVar("T")
C = TypeVar("C")


def new_registry() -> TypeRegistry:
    """A registry of its own that knows the standard types and nothing else."""
    return TypeRegistry(STANDARD)


@overload
def register(cls: C, /) -> C: ...
@overload
def register(
    cls: None = None,
    /,
    *,
    name: str | None = ...,
    version: int = ...,
    upgrades: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] | None = ...,
    unknown: Unknown = ...,
    aliases: tuple[str, ...] = ...,
    subclasses: bool = ...,
    registry: TypeRegistry = ...,
) -> Callable[[C], C]: ...
@overload
def register(
    cls: C,
    /,
    *,
    name: str | None = ...,
    version: int = ...,
    upgrades: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] | None = ...,
    unknown: Unknown = ...,
    aliases: tuple[str, ...] = ...,
    subclasses: bool = ...,
    registry: TypeRegistry = ...,
) -> C: ...
def register(
    cls: Any = None,
    /,
    *,
    name: str | None = None,
    version: int = 1,
    upgrades: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] | None = None,
    unknown: Unknown = "refuse",
    aliases: tuple[str, ...] = (),
    subclasses: bool = False,
    registry: TypeRegistry = REGISTRY,
) -> Any:
    """Let instances of a class be written and read: a function, or a decorator.

    Dataclasses, enumerations, named tuples, pydantic and attrs classes, msgspec structs and exceptions need no more
    than this; for others pass a :class:`Decomposer`, or use :func:`register_serializer`.

    Args:
        cls: The class, or a decomposer (class or instance) for one.
        name: What it is called on the wire; without it the class's qualified name.
        version: The version of its layout; raise it when fields change, and say how in ``upgrades``.
        upgrades: By version, a function from the fields of that version (by name) to those of the next.
        unknown: ``"refuse"`` or ``"ignore"`` fields that the class does not have.
        aliases: Further names under which it is read, such as an earlier name.
        subclasses: Whether instances of subclasses that are not registered are written, and come back, as this class.
        registry: Where to register.

    Raises:
        RegistryError: The class or a name is registered already.
        ConfigError: The class does not say what it consists of, or an option is impossible.
    """
    if cls is None:
        return partial(
            register,
            name=name,
            version=version,
            upgrades=upgrades,
            unknown=unknown,
            aliases=aliases,
            subclasses=subclasses,
            registry=registry,
        )
    if isinstance(cls, Decomposer) or (isinstance(cls, type) and issubclass(cls, Decomposer)):
        serializer = _of_decomposer(cls() if isinstance(cls, type) else cls, name)
    else:
        found = describe_class(cls, name or qualified_name(cls))
        if found is None:
            raise ConfigError(
                f"{qualified_name(cls)} does not say what it consists of",
                hint="Register a Decomposer for it, or use register_serializer and register_deserializer.",
            )
        serializer = found
    registry.add(
        replace(
            serializer,
            version=version,
            upgrades=dict(upgrades or {}),
            unknown=unknown,
            aliases=tuple(aliases),
            subclasses=subclasses,
        )
    )
    return cls


def _of_decomposer(decomposer: Decomposer, name: str | None) -> Serializer:
    cls = decomposer.supported_type()
    return Serializer(
        cls=cls,
        name=name or qualified_name(cls),
        take=decomposer.decompose,
        make=decomposer.recompose,
        managed=True,
    )


def register_serializer(
    cls: type[T], *, name: str | None = None, registry: TypeRegistry = REGISTRY
) -> Callable[[Callable[[T], Any]], Callable[[T], Any]]:
    """Decorate the function that turns an instance of a class into bytes, or into any value that can be written.

    Args:
        cls: The class.
        name: What it is called on the wire; without it the class's qualified name.
        registry: Where to register.

    Raises:
        RegistryError: The class has a serializer already.
    """

    def decorate(function: Callable[[T], Any]) -> Callable[[T], Any]:
        _half(cls, name, registry, take=function)
        return function

    return decorate


def register_deserializer(
    cls: type[T], *, name: str | None = None, registry: TypeRegistry = REGISTRY
) -> Callable[[Callable[[Any], T]], Callable[[Any], T]]:
    """Decorate the function that builds an instance out of what its serializer returned.

    Args:
        cls: The class.
        name: What it is called on the wire; without it the class's qualified name.
        registry: Where to register.

    Raises:
        RegistryError: The class has a deserializer already.
    """

    def decorate(function: Callable[[Any], T]) -> Callable[[Any], T]:
        _half(cls, name, registry, make=function)
        return function

    return decorate


def _half(cls: type[Any], name: str | None, registry: TypeRegistry, **part: Callable[[Any], Any]) -> None:
    """Register one of the two functions of a class; until the other is there, its use is an error."""
    (which,) = part
    if cls not in registry:
        whole: dict[str, Any] = {"take": partial(_missing, "serializer"), "make": partial(_missing, "deserializer")}
        registry.add(Serializer(cls=cls, name=name or qualified_name(cls), **{**whole, **part}))
        return
    known = registry.for_class(cls)
    present = getattr(known, which)
    if known is None or not isinstance(present, partial) or present.func is not _missing:
        raise RegistryError(f"{qualified_name(cls)} has a function for this already")
    if name is not None and name != known.name:
        raise RegistryError(f"{qualified_name(cls)} is called {known.name!r} already, not {name!r}")
    registry.change(cls, **part)


def _missing(which: str, _value: Any) -> Any:
    raise ConfigError(f"no {which} is registered for it")
