"""What breaks objects apart and builds them again: FOBS' classes to inherit from and to use."""

from __future__ import annotations

import functools
import inspect
from enum import Enum, Flag
from typing import Any

from fedpost.compat.fobs.datum import Datum, DatumManager
from fedpost.compat.fobs.errors import FobsConfigError
from fedpost.errors import DecodeError
from fedpost.objects import Decomposer as ObjectDecomposer
from fedpost.objects.attributes import make_attributes, take_attributes

__all__ = [
    "DataClassDecomposer",
    "Decomposer",
    "DictDecomposer",
    "EnumTypeDecomposer",
    "Externalizer",
    "Internalizer",
]


class Decomposer(ObjectDecomposer):
    """Breaks instances of one class into values that can be written, and builds them again.

    A subclass has :meth:`supported_type`, :meth:`decompose` and :meth:`recompose`. One instance serves all threads:
    what belongs to one object is kept in the manager's context.
    """

    def supported_dots(self) -> list[int] | None:
        """The datum object types that :meth:`process_datum` is to be called for, from 1; none by default."""
        return None

    def process_datum(self, datum: Datum, manager: DatumManager) -> None:
        """Take in a datum that arrived, before the object is built.

        Args:
            datum: One of the types of :meth:`supported_dots`.
            manager: The receiver's.
        """


class DictDecomposer(Decomposer):
    """For subclasses of ``dict`` that are their items, and nothing else.

    Args:
        dict_type: The class. Its constructor is called if it needs no arguments.
    """

    def __init__(self, dict_type: type[dict[Any, Any]]) -> None:
        self.dict_type = dict_type

    def supported_type(self) -> type[Any]:
        """The class."""
        return self.dict_type

    def decompose(self, target: dict[Any, Any], manager: DatumManager | None = None) -> Any:  # noqa: ARG002 - the contract
        """The items."""
        return dict(target)

    def recompose(self, data: Any, manager: DatumManager | None = None) -> dict[Any, Any]:  # noqa: ARG002 - the contract
        """An instance of the items."""
        if type(data) is not dict:
            raise DecodeError(f"the state of a {self.dict_type.__qualname__} is a dictionary")
        out: dict[Any, Any] = _empty(self.dict_type)
        out.clear()  # a constructor may have put something in
        for key, value in data.items():
            out[key] = value  # noqa: PERF403 - as the class itself does it
        return out


class DataClassDecomposer(Decomposer):
    """For classes that are their attributes, and what they hold as a dictionary or a list.

    Args:
        data_type: The class. Its constructor is not called.
    """

    def __init__(self, data_type: type[Any]) -> None:
        self.data_type = data_type

    def supported_type(self) -> type[Any]:
        """The class."""
        return self.data_type

    def decompose(self, target: Any, manager: DatumManager | None = None) -> Any:  # noqa: ARG002 - the contract
        """Attributes and items."""
        return take_attributes(target)

    def recompose(self, data: Any, manager: DatumManager | None = None) -> Any:  # noqa: ARG002 - the contract
        """An instance of them."""
        return make_attributes(self.data_type, data)


class EnumTypeDecomposer(Decomposer):
    """For enumerations: members by name, flags by number.

    Args:
        data_type: The class.

    Raises:
        FobsConfigError: It is no enumeration.
    """

    def __init__(self, data_type: type[Enum]) -> None:
        given: Any = data_type
        if not (isinstance(given, type) and issubclass(given, Enum)):
            raise FobsConfigError(f"{given!r} is not an enum")
        self.data_type = data_type

    def supported_type(self) -> type[Any]:
        """The class."""
        return self.data_type

    def decompose(self, target: Enum, manager: DatumManager | None = None) -> Any:  # noqa: ARG002 - the contract
        """Name or number."""
        return target.value if isinstance(target, Flag) else target.name

    def recompose(self, data: Any, manager: DatumManager | None = None) -> Enum:  # noqa: ARG002 - the contract
        """The member."""
        if issubclass(self.data_type, Flag):
            if type(data) is int:
                return self.data_type(data)
        elif type(data) is str and data in self.data_type.__members__:
            return self.data_type.__members__[data]
        raise DecodeError(f"{str(data)[:80]!r} is not a member of {self.data_type.__qualname__}")


class Externalizer:
    """Replaces what a manager keeps beside, in dictionaries and lists within each other; its argument stays as it is.

    A decomposer need not use it: large values are kept beside without it as well.

    Args:
        manager: Who keeps it; without one everything stays in its place.
    """

    def __init__(self, manager: DatumManager | None) -> None:
        self.manager = manager

    def externalize(self, target: Any) -> Any:
        """The same value, with references instead of what is kept beside."""
        if self.manager is None:
            return target
        if isinstance(target, dict):
            out = _copy_of(target, self.externalize)
            for key, value in target.items():
                out[key] = self.externalize(value)
            return out
        if isinstance(target, list):
            out = _copy_of(target, self.externalize)
            for value in target:
                out.append(self.externalize(value))
            return out
        return self.manager.externalize(target)


class Internalizer:
    """Replaces references by what they stand for, in dictionaries and lists within each other, in place.

    Args:
        manager: Who keeps it.
    """

    def __init__(self, manager: DatumManager | None) -> None:
        self.manager = manager

    def internalize(self, target: Any) -> Any:
        """The same value, with what is kept beside instead of references.

        Raises:
            FobsDecodeError: There is no such datum here.
        """
        if self.manager is None:
            return target
        if isinstance(target, dict):
            for key, value in target.items():
                target[key] = self.internalize(value)
        elif isinstance(target, list):
            for index, value in enumerate(target):
                target[index] = self.internalize(value)
        else:
            return self.manager.internalize(target)
        return target


def _copy_of(source: Any, change: Any) -> Any:
    """An empty container of the same class with the same attributes, their values changed."""
    out = _empty(type(source))
    out.clear()
    if hasattr(source, "__dict__") and hasattr(out, "__dict__"):
        vars(out).update({name: change(value) for name, value in vars(source).items()})
    return out


def _empty(cls: Any) -> Any:
    return cls.__new__(cls) if _needs_arguments(cls) else cls()


@functools.lru_cache(maxsize=1024)
def _needs_arguments(cls: Any) -> bool:
    try:
        inspect.signature(cls).bind()
    except TypeError:
        return True
    except ValueError:  # one in C, that takes what it likes
        return False
    return False
