"""How instances of the types of a tree are built: their fields matched, upgraded and checked."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any, Final

from fedpost.errors import DecodeError, RemoteError, TransportError, UnsupportedError
from fedpost.objects.annotations import ANYTHING
from fedpost.objects.types import Serializer, TypeRegistry, qualified_name
from fedpost.objects.wire import TypeRow

__all__ = ["Plan", "check_types", "plan_for"]


_NAME_OF: Final = attrgetter("name", "version")


def check_types(rows: Sequence[TypeRow], registry: TypeRegistry) -> None:
    """Look at the types of a tree before any of them is made something of.

    Raises:
        DecodeError: One comes twice.
        UnsupportedError: There are more than are registered.
    """
    if len(rows) > 1 and len(set(map(_NAME_OF, rows))) < len(rows):
        raise DecodeError("a type comes twice", where="object tree")
    if len(rows) > registry.most_names:
        raise UnsupportedError(f"{len(rows)} types, {registry.most_names} are known here", where="object tree")


def plan_for(row: TypeRow, registry: TypeRegistry) -> Plan:
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
        self._exact = [check.exact for _, check in self._checks]

    def build(self, state: Any, manager: Any) -> Any:
        """One instance of a state."""
        serializer = self.serializer
        try:
            if not self.direct:
                state = self._upgraded(state)
            if serializer.fields is not None:
                self._check(state)
            return serializer.make(state, manager) if serializer.managed else serializer.make(state)
        except (RemoteError, TransportError):
            raise
        except Exception as error:  # whatever the class makes of a state that somebody else wrote
            raise self._refused(error) from error

    def _check(self, state: Sequence[Any]) -> None:
        for exact, value in zip(self._exact, state, strict=True):
            if type(value) not in exact:
                break
        else:
            return
        for (name, check), value in zip(self._checks, state, strict=True):
            if not check.passes(value):
                raise self._wrong(name, check.text, value)

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
