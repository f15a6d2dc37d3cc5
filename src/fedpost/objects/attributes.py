"""Instances as their attributes: for classes that do not say what they consist of, where a program lists them.

Rules: an instance is built without its constructor, as ``pickle`` does it; its attributes are set past whatever the
class does when one is set, and only under plain names; a class that holds more than attributes is refused, so nothing
is lost without a word.
"""

from __future__ import annotations

import collections
import dataclasses
import types
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final

from fedpost.errors import ConfigError, DecodeError
from fedpost.objects.types import Serializer, qualified_name

__all__ = ["describe_attributes", "has_attributes_only", "make_attributes", "slots_of", "take_attributes"]

_DATA: Final = "data"
_SLOTS: Final = "slots"
_DICT: Final = "dict"
_LIST: Final = "list"
_PARTS: Final = {_DATA: dict, _SLOTS: dict, _DICT: dict, _LIST: list}
_HEAP_TYPE: Final = 1 << 9
# What a class may be built upon: their content is known. The layout of any other is C's.
_KNOWN: Final = (object, dict, list, collections.OrderedDict)
_FOR_TYPE_CHECKERS: Final = "__orig_class__"


def has_attributes_only(cls: type) -> bool:
    """Whether instances are their attributes, and what a dictionary or a list holds, and nothing else."""
    if not all(base.__flags__ & _HEAP_TYPE or base in _KNOWN for base in cls.__mro__):
        return False
    # What makes a missing value would be lost; it is no attribute.
    if issubclass(cls, collections.defaultdict | collections.deque):
        return False
    return any("__dict__" in vars(base) for base in cls.__mro__) or dataclasses.is_dataclass(cls) or _is_attrs(cls)


def describe_attributes(cls: type, name: str) -> Serializer:
    """The serializer of a class by its attributes.

    Raises:
        ConfigError: It holds more than attributes.
    """
    if not has_attributes_only(cls):
        raise ConfigError(f"{qualified_name(cls)} holds more than its attributes", hint="Register a Decomposer for it.")
    slots = slots_of(cls)
    return Serializer(cls=cls, name=name, take=partial(_take, slots), make=partial(_make, cls, slots))


def take_attributes(value: Any) -> dict[str, Any]:
    """An instance as its attributes by name, and its items if it is a dictionary or a list.

    Raises:
        TypeError: An attribute has a name that no instance's own has.
    """
    return _take(slots_of(type(value)), value)


def make_attributes(cls: Any, state: Any) -> Any:
    """The instance that :func:`take_attributes` took apart.

    Raises:
        DecodeError: The state is not one of the class.
    """
    return _make(cls, slots_of(cls), state)


def _take(slots: Mapping[str, Any], value: Any) -> dict[str, Any]:
    state: dict[str, Any] = {}
    own: dict[str, Any] | None = getattr(value, "__dict__", None)
    if own is not None:
        if _FOR_TYPE_CHECKERS in own:
            own = {name: item for name, item in own.items() if name != _FOR_TYPE_CHECKERS}
        if strange := _not_plain(own):
            raise TypeError(f"the attribute {strange[0]!r} is not an instance's own")
        state[_DATA] = own
    if slots:
        values = state[_SLOTS] = {}
        for name, slot in slots.items():
            with suppress(AttributeError):  # it was never set
                values[name] = slot.__get__(value)
    if isinstance(value, dict):
        state[_DICT] = dict(value)
    elif isinstance(value, list):
        state[_LIST] = list(value)
    return state


def _make(cls: Any, slots: Mapping[str, Any], state: Any) -> Any:
    _check(cls, slots, state)
    out = cls.__new__(cls)
    if attributes := state.get(_DATA):
        if not hasattr(out, "__dict__"):
            raise DecodeError(f"a {cls.__qualname__} has slots, not attributes of any name")
        vars(out).update(attributes)
    if values := state.get(_SLOTS):
        for name, item in values.items():
            slots[name].__set__(out, item)
    if _DICT in state:
        out.update(state[_DICT])
    elif _LIST in state:
        out.extend(state[_LIST])
    return out


def _check(cls: Any, slots: Mapping[str, Any], state: Any) -> None:
    if type(state) is not dict or any(type(part) is not _PARTS.get(key) for key, part in state.items()):
        raise DecodeError(f"the state of a {cls.__qualname__} is its attributes and its items")
    if (_DICT in state) != issubclass(cls, dict) or (_LIST in state) != issubclass(cls, list):
        raise DecodeError(f"a {cls.__qualname__} without items, or with items that it cannot have")
    if _DATA in state and _not_plain(state[_DATA]):
        raise DecodeError(f"an attribute that is not a {cls.__qualname__}'s own")
    if _SLOTS in state and not state[_SLOTS].keys() <= slots.keys():
        raise DecodeError(f"a {cls.__qualname__} has no such slot")


def _not_plain(names: Iterable[Any]) -> list[Any]:
    """Names such as ``__class__``, which mean something to Python, and what is no name."""
    return [name for name in names if type(name) is not str or name[:2] == "__" == name[-2:]]


def slots_of(cls: type) -> dict[str, Any]:
    """The slots of a class and its bases by name: the descriptors, as a property may have taken a name over.

    What the language keeps of its own classes is no slot.
    """
    out: dict[str, Any] = {}
    for base in cls.__mro__:
        if not base.__flags__ & _HEAP_TYPE:
            continue
        for name, member in vars(base).items():
            if isinstance(member, types.MemberDescriptorType):
                out.setdefault(name, member)
    return out


def _is_attrs(cls: type) -> bool:
    return hasattr(cls, "__attrs_attrs__")
