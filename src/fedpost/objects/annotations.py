"""Type annotations as checks of values: is this what the field was declared to be?

Rules: an annotation that says nothing that can be checked accepts anything; ``float`` also accepts ``int``, and
``complex`` both, as type checkers have it; containers are checked item by item, at the speed of C when they are of one
exact type.
"""

from __future__ import annotations

import collections.abc
import contextlib
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args, get_origin

import msgspec

__all__ = ["ANYTHING", "Check", "Constant", "Tests", "check_for", "field_checks", "untested"]


@dataclass(frozen=True, slots=True)
class Check:
    """A question that a value answers.

    Attributes:
        text: What is wanted, for error messages.
        exact: Types whose instances all pass.
        test: Whether any other value passes.
    """

    text: str
    exact: frozenset[type]
    test: Callable[[Any], bool]

    def passes(self, value: Any) -> bool:
        """Whether the value is as wanted."""
        return type(value) in self.exact or self.test(value)

    def passes_all(self, values: collections.abc.Collection[Any]) -> bool:
        """Whether all values are."""
        if self.exact.issuperset(map(type, values)):
            return True
        rest = set(map(type, values)) - self.exact
        return all(self.test(value) for value in values if type(value) in rest)


Tests = list[tuple[int, Callable[[Any], bool]]]
"""Numbers of values, and what each has to pass."""


def untested(kinds: Sequence[type], checks: Sequence[Check]) -> Tests:
    """What is left to test of values of these types, each of which has a check."""
    pairs = enumerate(zip(kinds, checks, strict=True))
    return [(place, check.test) for place, (kind, check) in pairs if check is not ANYTHING and kind not in check.exact]


def _yes(_value: Any) -> bool:
    return True


def _no(_value: Any) -> bool:
    return False


ANYTHING: Final = Check("anything", frozenset(), _yes)
_NONE: Final = Check("None", frozenset({type(None)}), _no)


class Constant:
    """A function that always returns one value: what makes a default that is no function's.

    Args:
        value: The value.
    """

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self) -> Any:
        """The value."""
        return self.value


def field_checks(
    cls: type, names: tuple[str, ...], defaults: Mapping[str, Callable[[], Any]] | None = None
) -> dict[str, Check]:
    """The checks for fields of a class by its annotations; one whose annotation means nothing here takes anything.

    Args:
        cls: The class.
        names: Its fields.
        defaults: What makes their defaults: a :class:`Constant`'s type is right too, as in ``x: int = None``.
    """
    try:
        hints: Mapping[str, Any] = typing.get_type_hints(cls, include_extras=True)
    except _UNRESOLVED:
        hints = _some_hints(cls)
    out = {name: check_for(hints[name]) if name in hints else ANYTHING for name in names}
    for name, default in (defaults or {}).items():
        check = out.get(name, ANYTHING)
        if isinstance(default, Constant) and not check.passes(default.value):
            kind = type(default.value)
            out[name] = _any_of([check, Check(kind.__qualname__, frozenset({kind}), _no)])
    return out


_UNRESOLVED: Final = (NameError, TypeError, AttributeError, SyntaxError)
"""What a name raises that exists for type checkers only."""


def _some_hints(cls: type) -> dict[str, Any]:
    """Those annotations of a class that mean something here, each on its own."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        scope = dict(vars(sys.modules[base.__module__])) if base.__module__ in sys.modules else {}
        for name, annotation in vars(base).get("__annotations__", {}).items():
            found.pop(name, None)
            alone = type("_Alone", (), {"__annotations__": {name: annotation}})
            with contextlib.suppress(*_UNRESOLVED):
                found.update(typing.get_type_hints(alone, {**scope, base.__name__: base}, include_extras=True))
    return found


def check_for(annotation: Any) -> Check:  # noqa: PLR0911 - one line a kind of annotation
    """The check that an annotation stands for."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is None or annotation is type(None):
        return _NONE
    if isinstance(annotation, type) and origin is None:
        return _of_class(annotation)
    if origin is typing.Annotated:
        return _constrained(check_for(arguments[0]), arguments[0], annotation.__metadata__)
    if origin in (typing.ClassVar, typing.Final, typing.Required, typing.NotRequired):
        return check_for(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return _any_of([check_for(argument) for argument in arguments])
    if origin is Literal:
        allowed = [(type(value), value) for value in arguments]
        return Check(f"one of {arguments}", frozenset(), lambda value: (type(value), value) in allowed)
    if isinstance(annotation, typing.NewType):
        return check_for(annotation.__supertype__)
    if isinstance(annotation, typing.TypeVar):
        return check_for(annotation.__bound__) if annotation.__bound__ is not None else ANYTHING
    if isinstance(origin, type):
        return _of_generic(origin, arguments)
    return ANYTHING


def _of_class(cls: type) -> Check:
    if cls is object or cls is Any:  # a class since Python 3.11
        return ANYTHING
    if cls is float:
        return Check("float", frozenset({float, int}), lambda value: isinstance(value, float | int))
    if cls is complex:
        return Check(
            "complex", frozenset({complex, float, int}), lambda value: isinstance(value, complex | float | int)
        )
    if getattr(cls, "_is_protocol", False) or typing.is_typeddict(cls):
        return ANYTHING
    if hasattr(cls, "__get_pydantic_core_schema__") and not hasattr(cls, "__pydantic_validator__"):
        return ANYTHING  # to pydantic it stands for something else, as EmailStr for a text
    return Check(cls.__qualname__, frozenset({cls}), lambda value: isinstance(value, cls))


def _constrained(check: Check, annotation: Any, metadata: tuple[Any, ...]) -> Check:
    """A check that also asks for what msgspec's constraints say; those of pydantic are asked by its models."""
    metas = [meta for meta in metadata if isinstance(meta, msgspec.Meta)]
    if not metas:
        return check
    # Of a container only its length: its items were checked, and may be of types that msgspec does not know.
    whole: Any = typing.Annotated.__class_getitem__((get_origin(annotation) or annotation, *metas))  # type: ignore[attr-defined] # a star is none to mypy
    try:
        msgspec.inspect.type_info(whole)
    except TypeError:  # msgspec would refuse it too
        return check

    def test(value: Any) -> bool:
        if not check.passes(value):
            return False
        try:
            msgspec.convert(value, whole)
        except msgspec.ValidationError:
            return False
        return True

    return Check(f"{check.text} as {', '.join(map(repr, metas))}", frozenset(), test)


def _any_of(checks: list[Check]) -> Check:
    return Check(
        " or ".join(check.text for check in checks),
        frozenset().union(*(check.exact for check in checks)),
        lambda value: any(check.test(value) for check in checks),
    )


def _of_generic(origin: type, arguments: tuple[Any, ...]) -> Check:
    if origin in (collections.abc.Callable, type):
        return ANYTHING
    if origin is tuple:
        return _of_tuple(arguments)
    if issubclass(origin, collections.abc.Mapping) and len(arguments) > 1:
        keys, values = map(check_for, arguments[:2])
        text = f"{origin.__qualname__} of {keys.text} to {values.text}"

        def mapping(value: Any) -> bool:
            return isinstance(value, origin) and keys.passes_all(value.keys()) and values.passes_all(value.values())

        return Check(text, frozenset(), mapping)
    if issubclass(origin, collections.abc.Collection) and len(arguments) == 1:
        items = check_for(arguments[0])

        def collection(value: Any) -> bool:
            return isinstance(value, origin) and items.passes_all(value)

        return Check(f"{origin.__qualname__} of {items.text}", frozenset(), collection)
    # A generic class of the user's: its arguments are not kept in instances.
    return _of_class(origin)


def _of_tuple(arguments: tuple[Any, ...]) -> Check:
    if arguments[-1:] == (Ellipsis,):
        items = check_for(arguments[0])
        return Check(
            f"tuple of {items.text}", frozenset(), lambda value: isinstance(value, tuple) and items.passes_all(value)
        )
    if any(get_origin(argument) is typing.Unpack or getattr(argument, "__unpacked__", False) for argument in arguments):
        return _of_class(tuple)
    if any(isinstance(argument, typing.TypeVarTuple) for argument in arguments):
        return _of_class(tuple)
    checks = [check_for(argument) for argument in arguments if argument != ()]

    def fixed(value: Any) -> bool:
        if not isinstance(value, tuple) or len(value) != len(checks):
            return False
        for check, item in zip(checks, value, strict=True):  # all() of a generator takes twice as long
            if type(item) not in check.exact and not check.test(item):
                return False
        return True

    return Check(f"tuple of {', '.join(check.text for check in checks)}", frozenset(), fixed)
