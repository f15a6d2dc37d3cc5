"""Which types a process reads and writes: what its program listed, and what it wrote itself.

Rules: a type's name on the wire is looked up here and nowhere else. A name that the program allows is imported when the
program says so, never when somebody sends it; one that could not be found then is looked for among the modules that are
loaded, again without importing any. What a decomposer was given for wins over the generic ways.
"""

from __future__ import annotations

import builtins
import importlib
import logging
import sys
import threading
from dataclasses import replace
from enum import Enum
from functools import partial
from types import ModuleType
from typing import Any, Final

import msgspec
import numpy as np

from fedpost.compat.fobs.carried import CARRIED
from fedpost.compat.fobs.errors import FobsConfigError, FobsUnsupportedError
from fedpost.errors import ConfigError, DecodeError, MissingExtraError
from fedpost.objects import Serializer, TypeRegistry
from fedpost.objects.attributes import describe_attributes, has_attributes_only
from fedpost.objects.classes import describe_class
from fedpost.objects.registering import new_registry

__all__ = ["AllowedTypes", "class_name", "generic_serializer"]

LOG: Final = logging.getLogger("fedpost.compat.fobs")
_NATIVE: Final = frozenset(
    {type(None), bool, int, float, str, bytes, bytearray, memoryview, list, dict, tuple, set, frozenset, np.ndarray}
)


def class_name(cls: type) -> str:
    """What a class is called on the wire: its module and qualified name, the latter alone for what is built in."""
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def generic_serializer(cls: type) -> Serializer:
    """How a class without a decomposer is written: enumerations by name, others by what they consist of.

    Raises:
        ConfigError: It holds more than its attributes.
    """
    name = class_name(cls)
    if issubclass(cls, Enum | BaseException | tuple | msgspec.Struct) or hasattr(cls, "__pydantic_validator__"):
        described = describe_class(cls, name)
        if described is not None:
            return replace(described, checks={})  # FOBS does not compare values with annotations
    return describe_attributes(cls, name)


class AllowedTypes(TypeRegistry):
    """The types of one process, beginning with the standard ones."""

    def __init__(self) -> None:
        super().__init__(new_registry(), fallback=self._automatic)
        self.enums = True
        self.data = True
        self._change = threading.RLock()
        self._names: set[str] = set()
        # Whether what the program added came by itself, when it was first written.
        self._added: dict[type, bool] = {}
        for entry in CARRIED:
            self.add(entry)

    # ── what the program lists ───────────────────────────────────────────────────────────────────────────────────────

    def allow(self, serializer: Serializer, *, generic: bool = False) -> bool:
        """Take in a type; say whether it is new. The first that was listed stays.

        Args:
            serializer: How it is written and read.
            generic: Whether this is only the generic way, which another one is preferred to.
        """
        cls = serializer.cls
        with self._change:
            if cls in _NATIVE:
                return False
            if generic and cls not in self._added and self._known_already(cls):
                return True
            if self._added.get(cls) is False:
                return False
            if cls in self:
                self.remove(cls)
            self._forget_namesake(serializer)
            self.add(serializer)
            self._added[cls] = False
            return True

    def allow_names(self, *names: str) -> None:
        """Allow classes by name. Each is imported now, if it can be.

        Raises:
            FobsConfigError: It is there and is no class.
            ConfigError: The class holds more than its attributes.
        """
        for name in names:
            if not isinstance(name, str):
                raise FobsConfigError(f"{name!r} is not the name of a type")
            self._names.add(name)
            found = _find(name, load=True)
            if found is None:
                LOG.info("the type %s is not there yet", name)
            else:
                self._allow_found(name, found)

    def let_automatic(self, *, enums: bool | None = None, data: bool | None = None) -> None:
        """Switch whether enumerations, and other classes, are listed by themselves when they are first written."""
        with self._change:
            self.enums = self.enums if enums is None else enums
            self.data = self.data if data is None else data
            self._found = {}  # the answers that it gave before

    def load_package(self, package: str) -> None:
        """Register the types of an optional package now.

        Raises:
            MissingExtraError: It is not installed.
        """
        if package in self._lazy:
            self._load(package)

    @property
    def count(self) -> int:
        """How many types were added to the standard ones."""
        return len(self._added)

    @property
    def most_names(self) -> int:
        """How many names can be known at most, those included that are looked for when they come."""
        return super().most_names + len(self._names)

    # ── what is asked ────────────────────────────────────────────────────────────────────────────────────────────────

    def for_name(self, name: str) -> Serializer:
        """The serializer that reads a name.

        Raises:
            FobsUnsupportedError: It is not allowed here.
        """
        try:
            found = super().for_name(name)
        except MissingExtraError as error:
            raise FobsUnsupportedError(
                f"Type {name[:200]!r} needs a package that is not here", hint=error.hint
            ) from error
        if found is None and name in self._names:
            cls = _find(name, load=False)
            if cls is not None:
                self._allow_found(name, cls)
                found = super().for_name(name)
        if found is None:
            raise FobsUnsupportedError(
                f"Type {name[:200]!r} is not allowed",
                where="object tree",
                hint="Use fobs.register(), fobs.register_data_classes(), fobs.register_enum_types(), or "
                "fobs.add_type_name_whitelist() to allow this type.",
            )
        return found

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _automatic(self, cls: type) -> Serializer | None:
        """The way in which a class is written that nobody listed; None where there is none."""
        if issubclass(cls, np.memmap):  # it comes back as what it holds
            return Serializer(cls=cls, name="fobs.memmap", take=np.asarray, make=partial(_only, np.ndarray))
        if issubclass(cls, Enum):
            if not self.enums:
                return None
        elif not self.data or any("__call__" in vars(base) for base in cls.__mro__) or not _is_data(cls):
            return None
        try:
            serializer = generic_serializer(cls)
        except ConfigError:
            return None
        with self._change:
            self._forget_namesake(serializer)
            self._added[cls] = True
        return serializer

    def _known_already(self, cls: type) -> bool:
        self.load_package(cls.__module__.partition(".")[0])
        return cls in self

    def _forget_namesake(self, serializer: Serializer) -> None:
        """Make room for a class that was defined again, such as by running a notebook's cell twice."""
        other = self._by_name.get(serializer.name)
        if other is not None and other.cls is not serializer.cls and other.cls in self._added:
            LOG.warning("another class %s was defined: it takes the place of the first", serializer.name)
            self.remove(other.cls)
            del self._added[other.cls]

    def _allow_found(self, name: str, found: Any) -> None:
        if not isinstance(found, type):
            raise FobsConfigError(f"{name!r} is not a class")
        if found in _NATIVE or found in self or self._known_already(found):
            return
        self.allow(generic_serializer(found), generic=True)


def _is_data(cls: type) -> bool:
    described = (BaseException, msgspec.Struct)
    if issubclass(cls, described) or hasattr(cls, "__pydantic_validator__"):
        return True
    return has_attributes_only(cls) or (issubclass(cls, tuple) and hasattr(cls, "_fields"))


def _only(kind: type, state: Any) -> Any:
    if type(state) is not kind:
        raise DecodeError(f"{kind.__name__} was expected, not {type(state).__name__}")
    return state


def _find(name: str, *, load: bool) -> Any:
    """What a name stands for, in modules that are loaded or, where that is allowed, can be; None if nothing."""
    parts = name.split(".")
    if len(parts) == 1:
        return getattr(builtins, name, None)
    for end in range(len(parts) - 1, 0, -1):
        module = _module(".".join(parts[:end]), load=load)
        if module is None:
            continue
        found: Any = module
        for part in parts[end:]:
            found = vars(found).get(part) if hasattr(found, "__dict__") else None
            if found is None:
                return None
        return found
    return None


def _module(name: str, *, load: bool) -> ModuleType | None:
    if not load:
        return sys.modules.get(name)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # One that the module itself needs is another matter.
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            return None
        raise
