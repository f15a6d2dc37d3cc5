"""How instances of the types of a tree are built: their fields matched, upgraded and checked."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any, Final

import msgspec

from fedpost.errors import DecodeError, RemoteError, TransportError, UnsupportedError
from fedpost.objects.annotations import ANYTHING, Tests, untested
from fedpost.objects.types import Serializer, TypeRegistry, qualified_name
from fedpost.objects.wire import TYPES_DECODER, TypeRow

__all__ = ["Plan", "Types", "check_columns", "types_of"]


_NAME_OF: Final = attrgetter("name", "version")


class Types:
    """The types of a tree, and how instances of them are built here. Those seen before are known by their bytes.

    Args:
        packed: What the tree says of them.
        registry: Which may be built.

    Raises:
        DecodeError: They are none, or one comes twice.
        UnsupportedError: There are more than are registered.
    """

    __slots__ = ("_key", "_plans", "_registry", "_rows", "count")

    def __init__(self, packed: msgspec.Raw, registry: TypeRegistry) -> None:
        self._key = bytes(memoryview(packed))
        self._plans: list[Plan | None] | None = registry.tables.get(self._key)
        if self._plans is not None:
            self.count = len(self._plans)
            return
        self._registry = registry
        self._rows = rows = types_of(packed)
        self.count = len(rows)
        if len(rows) > 1 and len(set(map(_NAME_OF, rows))) < len(rows):
            raise DecodeError("a type comes twice", where="object tree")
        if len(rows) > registry.most_names:
            raise UnsupportedError(f"{len(rows)} types, {registry.most_names} are known here", where="object tree")

    def plan(self, number: int) -> Plan:
        """How instances of one of them are built.

        Raises:
            UnsupportedError: The type is not registered, or only in an earlier version.
        """
        known = self._plans
        plan = None if known is None else known[number]
        return _plan_for(self._rows[number], self._registry) if plan is None else plan

    def keep(self, plans: list[Plan | None]) -> None:
        """Remember the plans of a tree that was read."""
        if self._plans is None and len(self._key) <= _LONGEST_KEY:
            tables = self._registry.tables
            if len(tables) >= _MOST_KEPT:
                tables.clear()
            tables[self._key] = plans


_LONGEST_KEY: Final = 4096
_MOST_KEPT: Final = 256


def types_of(packed: msgspec.Raw) -> list[TypeRow]:
    """The types of a tree.

    Raises:
        DecodeError: They are none.
    """
    try:
        return TYPES_DECODER.decode(packed)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise DecodeError(str(error), where="object tree") from error


def _plan_for(row: TypeRow, registry: TypeRegistry) -> Plan:
    """How instances of a type that somebody wrote are built here.

    Raises:
        UnsupportedError: The type is not registered, or only in an earlier version.
    """
    try:
        serializer = registry.for_name(row.name)
    except ImportError as error:  # also MissingExtraError
        raise UnsupportedError(f"the type {row.name[:200]!r} cannot be read: {error}", where="object tree") from error
    if serializer is None:
        near = registry.nearest(row.name)
        raise UnsupportedError(
            f"unknown type {row.name[:200]!r}, version {row.version}",
            where="object tree",
            hint=f"Register its class on this side: fedpost.register(…, name={row.name[:200]!r})"
            + (f", or did the sender mean {near!r}?" if near else "."),
        )
    plans: dict[Serializer, Plan] = registry.plans
    plan = plans.get(serializer)
    if plan is None or plan.row != row:
        plan = Plan(row, serializer)
        if plan.direct:
            plans[serializer] = plan
    return plan


def _pass(tests: Tests, state: Sequence[Any]) -> bool:
    return all(test(state[place]) for place, test in tests)


_MOST_FITTING: Final = 64


class Plan:
    """How instances of one type of a tree are built."""

    def __init__(self, row: TypeRow, serializer: Serializer) -> None:
        if row.version > serializer.version or row.version < 1:
            raise UnsupportedError(
                f"version {row.version} of the type {row.name[:200]!r}, {serializer.version} is known here",
                where="object tree",
                hint="Update the class that is registered on this side.",
            )
        if (row.fields is None) != (serializer.fields is None) or len(set(row.fields or ())) != len(row.fields or ()):
            raise DecodeError(f"the type {row.name[:200]!r} has other parts than here", where="object tree")
        self.row = row
        self.serializer = serializer
        self.fields = row.fields
        # Classes that say themselves what they consist of keep it as it is, but for models, which convert.
        self.copies = serializer.fields is None or serializer.managed or "__private__" in serializer.fields
        self._upgrades = []
        for version in range(row.version, serializer.version):
            if version not in serializer.upgrades:
                raise UnsupportedError(
                    f"version {row.version} of the type {row.name[:200]!r}, and no upgrade from {version}",
                    where="object tree",
                    hint=f"Register the class with upgrades={{{version}: …}}.",
                )
            self._upgrades.append(serializer.upgrades[version])
        self.direct = not self._upgrades and (row.fields is None or tuple(row.fields) == serializer.fields)
        self._checks = [(name, serializer.checks.get(name, ANYTHING)) for name in serializer.fields or ()]
        self._fitting: dict[tuple[type, ...], Tests] = {}
        """By the types of values that were seen, the tests that these types leave."""

    def build(self, state: Any, manager: Any) -> Any:
        """One instance of a state."""
        serializer = self.serializer
        try:
            if not self.direct:
                state = self._upgraded(state)
            if serializer.fields is not None:
                tests = self._fitting.get((*map(type, state),))
                if tests is None or (tests and not _pass(tests, state)):
                    self._check(state)
            return serializer.make(state, manager) if serializer.managed else serializer.make(state)
        except (RemoteError, TransportError):
            raise
        except Exception as error:  # whatever the class makes of a state that somebody else wrote
            raise self._refused(error) from error

    def _check(self, state: Sequence[Any]) -> None:
        for (name, check), value in zip(self._checks, state, strict=True):
            if not check.passes(value):
                raise self._wrong(name, check.text, value)
        kinds = tuple(map(type, state))
        if len(self._fitting) < _MOST_FITTING:
            self._fitting[kinds] = untested(kinds, [check for _, check in self._checks])

    def build_all(self, columns: Sequence[list[Any]], manager: Any) -> list[Any]:
        """Instances by column."""
        serializer = self.serializer
        if not self.direct or serializer.managed:
            return [self.build(list(state), manager) for state in zip(*columns, strict=True)]
        for (name, check), column in zip(self._checks, columns, strict=True):
            if not check.passes_all(column):
                wrong = next(value for value in column if not check.passes(value))
                raise self._wrong(name, check.text, wrong)
        try:
            if serializer.make_all is not None:
                return list(serializer.make_all(columns))
            return list(map(serializer.make, zip(*columns, strict=True)))
        except (RemoteError, TransportError):
            raise
        except Exception as error:  # as above
            raise self._refused(error) from error

    def _upgraded(self, state: Any) -> Any:
        """The state as the registered version has it."""
        if self.fields is None:
            for upgrade in self._upgrades:
                state = upgrade(state)
            return state
        values: dict[str, Any] = dict(zip(self.fields, state, strict=True))
        for upgrade in self._upgrades:
            values = dict(upgrade(values))
        serializer = self.serializer
        wanted = serializer.fields or ()
        unknown = values.keys() - set(wanted)
        if unknown and serializer.unknown == "refuse":
            raise DecodeError(
                f"{serializer.name!r} has a field {min(unknown)!r} that is not known here",
                where="object tree",
                hint='Register the class with unknown="ignore" to leave such fields out.',
            )
        out = []
        for name in wanted:
            if name in values:
                out.append(values[name])
            elif name in serializer.defaults:
                out.append(serializer.defaults[name]())
            else:
                raise DecodeError(f"{serializer.name!r} lacks its field {name!r}", where="object tree")
        return out

    def _wrong(self, name: str, wanted: str, value: Any) -> DecodeError:
        return DecodeError(
            f"{wanted} was expected, not {qualified_name(type(value))}", where=f"{self.serializer.name}.{name}"
        )

    def _refused(self, error: Exception) -> DecodeError:
        return DecodeError(
            f"{self.serializer.name!r} cannot be built: {type(error).__name__}: {error}", where="object tree"
        )


def check_columns(count: Any, columns: Any, what: str) -> None:
    """Compare the lengths of columns with what is said of them.

    Raises:
        DecodeError: They differ, or are none.
    """
    if type(count) is not int or type(columns) is not list:
        raise DecodeError(f"{what} without a number, or columns that are no list")
    if {type(column) for column in columns} != {list} or {len(column) for column in columns} != {count}:
        raise DecodeError(f"a column of {what} does not have a value for each")
