"""Which types may cross the wire, by registered name: a registry that is an instance.

Rules: a reader builds only what it has registered; a name is text that both sides agreed on, never a place to import
from. The exact type is looked up first, then the nearest base that was registered for its subclasses too. A type or a
name is registered once. Every change swaps whole tables in, so threads may read while one registers.
"""

from __future__ import annotations

import difflib
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import msgspec

from fedpost.errors import ConfigError, RegistryError
from fedpost.objects.annotations import Check
from fedpost.objects.fit import Fitness

__all__ = ["Decomposer", "Serializer", "TypeRegistry", "Unknown", "qualified_name"]

Unknown = Literal["refuse", "ignore"]
"""What a reader does with fields of a type that it does not know."""

_NAME: Final = re.compile(r"[A-Za-z_][^\x00-\x20\x7f]{0,199}")
_MAX_VERSION: Final = 1 << 31


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class Serializer:
    """How instances of one class become a state that can be written, and come back.

    Attributes:
        cls: The class.
        name: Its name on the wire.
        version: The version of its layout, from 1.
        take: An instance to its state: the values of ``fields``, in order, or one value of any registered type.
        make: A state to an instance.
        make_all: Where there is a faster way for many: a column of values for each field to the instances.
        fields: The names of what the state consists of, when it is a list of fields.
        checks: What the value of each field must be.
        attributes: What the ``__dict__`` of an instance may hold: what is not lost, or need not be kept. None where it
            has none, or where ``take`` sees to it.
        defaults: What makes the value of a field that the state lacks.
        upgrades: By version, what turns the fields of that version into those of the next.
        unknown: What to do with fields that ``fields`` does not name.
        aliases: Further names under which it is read.
        subclasses: Whether instances of subclasses are written as this class, and come back as it.
        shared: Whether an instance that is referred to twice is stored once, and comes back as one object.
        constant: Whether there is one object for a state, as for the name of a member of an enumeration: then it may
            be stored more than once, and is one object still.
        managed: Whether ``take`` and ``make`` get the manager as well.
    """

    cls: type
    name: str
    version: int = 1
    take: Callable[..., Any]
    make: Callable[..., Any]
    make_all: Callable[..., Any] | None = None
    fields: tuple[str, ...] | None = None
    checks: Mapping[str, Check] = field(default_factory=dict)
    attributes: frozenset[str] | None = None
    defaults: Mapping[str, Callable[[], Any]] = field(default_factory=dict)
    upgrades: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] = field(default_factory=dict)
    unknown: Unknown = "refuse"
    aliases: tuple[str, ...] = ()
    subclasses: bool = False
    shared: bool = False
    constant: bool = False
    managed: bool = False
    packed: bytes = field(init=False, repr=False)
    """What a tree says of the type."""
    fit: Fitness = field(init=False, repr=False)
    """Whether instances may be written."""

    def __post_init__(self) -> None:
        for name in (self.name, *self.aliases):
            if _NAME.fullmatch(str(name)) is None:
                raise ConfigError(
                    f"{name!r} is not a name for a type", hint="Begin with a letter; at most 200 characters, no spaces."
                )
        fit = Fitness(self.cls, self.fields or (), self.checks, self.attributes)
        object.__setattr__(self, "fit", fit)
        if type(self.version) is not int or not 1 <= self.version < _MAX_VERSION:
            raise ConfigError(f"version {self.version!r} of {self.name!r} is not a whole number from 1")
        if strange := [number for number in self.upgrades if number not in range(1, self.version)]:
            raise ConfigError(f"{self.name!r} has version {self.version} and an upgrade from version {strange[0]!r}")
        try:
            packed = msgspec.msgpack.encode([self.name, self.version, self.fields])
        except UnicodeEncodeError as error:
            raise ConfigError(f"{self.name!r} is not a name for a type: {error}") from error
        object.__setattr__(self, "packed", packed)


class Decomposer(ABC):
    """Breaks instances of one class into values that can be written, and builds them again."""

    @abstractmethod
    def supported_type(self) -> type[Any]:
        """The class."""

    @abstractmethod
    def decompose(self, target: Any, manager: Any = None) -> Any:
        """An instance as a value of other types.

        Args:
            target: The instance.
            manager: What ``dumps`` was given as ``manager``, or None.
        """

    @abstractmethod
    def recompose(self, data: Any, manager: Any = None) -> Any:
        """The instance that :meth:`decompose` took apart.

        Args:
            data: What that returned.
            manager: What ``loads`` was given as ``manager``, or None.
        """


Fallback = Callable[[type], Serializer | None]
Load = Callable[[], Iterable[Serializer]]


class TypeRegistry:
    """Classes and their serializers.

    Args:
        known: Whose entries it starts with; later changes there are not seen here.
        fallback: Asked for a class that is not registered and is about to be written; what it returns is registered.
    """

    def __init__(self, known: TypeRegistry | None = None, *, fallback: Fallback | None = None) -> None:
        self._lock = threading.Lock()
        self._frozen = False
        self._fallback = fallback
        # The tables of another registry are shared, as each is replaced and never changed.
        self._by_class: dict[type, Serializer] = {} if known is None else known._by_class  # noqa: SLF001 - of its kind
        self._by_name: dict[str, Serializer] = {} if known is None else known._by_name  # noqa: SLF001
        self._lazy: dict[str, Load] = {} if known is None else known._lazy  # noqa: SLF001
        # What a lookup by base found; thrown away at every change.
        self._found: dict[type, Serializer | None] = {}
        self.plans: dict[Serializer, Any] = {}
        """How readers build the types: theirs to fill. Kept here so that classes go with their registry."""
        self.tables: dict[bytes, Any] = {}
        """The same for all types of a tree, by what it says of them."""

    def add(self, serializer: Serializer) -> None:
        """Register a class.

        Raises:
            RegistryError: The class or the name is registered already, or the registry is frozen.
        """
        with self._lock:
            if self._frozen:
                raise RegistryError(f"cannot register the type {serializer.name!r}: the registry is frozen")
            self._add(serializer)

    def add_lazy(self, package: str, names: tuple[str, ...], load: Load) -> None:
        """Register the types of an optional package, which is imported when one of them is first written or read.

        Args:
            package: The top package of the classes.
            names: Their names on the wire.
            load: Gives their serializers.

        Raises:
            RegistryError: The registry is frozen.
        """
        with self._lock:
            if self._frozen:
                raise RegistryError(f"cannot register the types of {package!r}: the registry is frozen")
            self._lazy = {**self._lazy, **dict.fromkeys((package, *names), load)}

    def remove(self, cls: type) -> None:
        """Forget a class.

        Raises:
            RegistryError: It is not registered, or the registry is frozen.
        """
        with self._lock:
            if self._frozen or cls not in self._by_class:
                raise RegistryError(
                    f"{qualified_name(cls)} cannot be removed: not registered, or the registry is frozen"
                )
            gone = self._by_class[cls]
            self._by_class = {kept: entry for kept, entry in self._by_class.items() if kept is not cls}
            self._by_name = {name: entry for name, entry in self._by_name.items() if entry is not gone}
            self._found, self.plans, self.tables = {}, {}, {}

    def change(self, cls: type, **changes: Any) -> None:
        """Replace parts of a registered class's serializer.

        Raises:
            RegistryError: It is not registered, or the registry is frozen.
        """
        with self._lock:
            if self._frozen or cls not in self._by_class:
                raise RegistryError(
                    f"{qualified_name(cls)} cannot be changed: not registered, or the registry is frozen"
                )
            new = replace(self._by_class[cls], **changes)
            self._by_class = {**self._by_class, cls: new}
            self._by_name = {**self._by_name, **dict.fromkeys((new.name, *new.aliases), new)}
            self._found, self.plans, self.tables = {}, {}, {}

    def for_class(self, cls: type) -> Serializer | None:
        """The serializer that writes instances of a class: its own, or that of the nearest base that allows it."""
        found = self._by_class.get(cls)
        if found is not None:
            return found
        try:
            return self._found[cls]
        except KeyError:
            return self._search(cls)

    def for_name(self, name: str) -> Serializer | None:
        """The serializer that reads a name."""
        found = self._by_name.get(name)
        if found is None:
            if name in self._lazy:
                self._load(name)
            found = self._by_name.get(name)  # also when another thread was faster
        return found

    def freeze(self) -> None:
        """Refuse every later registration."""
        self._frozen = True

    @property
    def names(self) -> tuple[str, ...]:
        """What can be read, aliases included."""
        return tuple(self._by_name)

    @property
    def most_names(self) -> int:
        """How many names it can read at most, once optional packages are loaded."""
        return len(self._by_name) + len(self._lazy)

    def nearest(self, name: str) -> str | None:
        """A registered name like this one."""
        near = difflib.get_close_matches(name[:200], self._by_name, n=1)
        return near[0] if near else None

    def __contains__(self, cls: object) -> bool:
        return cls in self._by_class

    def __len__(self) -> int:
        return len(self._by_class)

    def _add(self, serializer: Serializer) -> None:
        if serializer.cls in self._by_class:
            raise RegistryError(f"{qualified_name(serializer.cls)} is registered already")
        names = (serializer.name, *serializer.aliases)
        for name in names:
            if name in self._by_name:
                raise RegistryError(f"a type {name!r} is registered already", hint="Give name= another name.")
        self._by_class = {**self._by_class, serializer.cls: serializer}
        self._by_name = {**self._by_name, **dict.fromkeys(names, serializer)}
        self._found = {}

    def _search(self, cls: type) -> Serializer | None:
        package = cls.__module__.partition(".")[0]
        if package in self._lazy:
            self._load(package)
        table = self._found
        if cls in self._by_class:  # also when another thread was faster
            return self._by_class[cls]
        found = next(
            (entry for base in cls.__mro__[1:] if (entry := self._by_class.get(base)) and entry.subclasses), None
        )
        if found is None and self._fallback is not None:
            found = self._fallback(cls)
            if found is not None:
                with self._lock:
                    if self._frozen:
                        return self._by_class.get(cls)
                    if cls not in self._by_class:
                        self._add(found)
                    return self._by_class[cls]
        if len(table) < _MAX_FOUND:
            table[cls] = found
        return found

    def _load(self, key: str) -> None:
        load = self._lazy.get(key)
        if load is None:  # another thread was faster
            return
        entries = load()
        with self._lock:
            for entry in entries:
                # What the registry held already is no change of it, so it is allowed when frozen.
                if entry.cls not in self._by_class:
                    self._add(entry)
            # Last: who does not find it here any more must find it there.
            self._lazy = {name: entry for name, entry in self._lazy.items() if entry is not load}


_MAX_FOUND: Final = 4096


def qualified_name(cls: type) -> str:
    """Module and qualified name of a class: for messages and as a default name, never to import by."""
    return f"{cls.__module__}.{cls.__qualname__}"
