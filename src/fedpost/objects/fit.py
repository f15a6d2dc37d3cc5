"""Whether an instance may be written: would a reader take it, and see all of it?

Rules: no look at one instance where one at all of them will do; what the types of an instance's values say is asked
once for these types; no dictionary is made for an instance that has done without one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from gc import get_referents
from itertools import repeat
from operator import attrgetter, is_
from typing import Any, Final

from fedpost.objects.annotations import ANYTHING, Check, Tests, untested

__all__ = ["Fitness"]

_MOST_KNOWN: Final = 64
_MOST_NAMED: Final = 5
_TOGETHER: Final = 4096


class Fitness:
    """What is asked of the instances of a class.

    Args:
        cls: The class.
        fields: The names of what is written of it.
        checks: What their values must be.
        attributes: What the ``__dict__`` of an instance may hold; None where it has none.
    """

    __slots__ = ("_attributes", "_checks", "_cls", "_defaults", "_fields", "_known")

    def __init__(
        self, cls: type, fields: tuple[str, ...], checks: Mapping[str, Check], attributes: frozenset[str] | None
    ) -> None:
        self._cls = cls
        self._fields = fields
        self._checks = [checks.get(name, ANYTHING) for name in fields]
        self._attributes = attributes
        self._defaults = None if attributes is None else _defaults_of(cls, fields)
        self._known: dict[tuple[type, ...], Tests] = {}
        """By the types of the fields' values that were seen, the tests that these types leave."""

    def fits(self, value: Any, state: Sequence[Any]) -> bool:
        """Whether an instance is known to be fit at first sight; if not, :meth:`unfit` has a closer look."""
        tests = self._known.get((*map(type, state),))
        if tests is None:
            return False
        for place, test in tests:
            if not test(state[place]):
                return False
        attributes = self._attributes
        return attributes is None or attributes.issuperset(vars(value))

    def unfit(self, value: Any, state: Sequence[Any]) -> tuple[str, str] | None:
        """What is wrong with an instance: the name of the field or nothing, and what; None if all is well.

        Args:
            value: The instance. One of a subclass is written as its base by intent.
            state: The values of its fields.
        """
        more = self.more_than_fields([value])
        if more is not None:
            return "", more[1]
        for place, item in enumerate(state):
            if not self._checks[place].passes(item):
                return self._fields[place], self.mismatch(place, item)
        kinds = tuple(map(type, state))
        if len(self._known) < _MOST_KNOWN:
            self._known[kinds] = untested(kinds, self._checks)
        return None

    def more_than_fields(self, values: Sequence[Any]) -> tuple[int, str] | None:
        """The number of the first of some instances of one class that holds more than its fields, and what."""
        held = self._attributes
        if held is None or type(values[0]) is not self._cls:
            return None
        for start in range(0, len(values), _TOGETHER):
            some = values[start : start + _TOGETHER]
            if self._hold_fields(some) or all(map(held.issuperset, map(vars, some))):
                continue
            for index, value in enumerate(some, start):
                if names := vars(value).keys() - held:
                    return (
                        index,
                        f"holds more than its fields: {', '.join(map(repr, sorted(map(str, names))[:_MOST_NAMED]))}",
                    )
        return None

    def dictionaries(self, values: Sequence[Any]) -> list[Mapping[str, Any]] | None:
        """The attributes of instances, where somebody asked for them before and they are as many as the fields.

        Then they are faster to read there. Which they are is not looked at.
        """
        if self._defaults != [] or type(values[0]) is not self._cls or len(get_referents(values[0])) != _DICTIONARY:
            return None
        found: list[Mapping[str, Any]] = list(map(vars, values))
        return found if set(map(len, found)) == {len(self._fields)} else None

    def wrong_in(self, place: int, column: Sequence[Any], kinds: set[type]) -> int | None:
        """The number of the first instance whose value of a field is not one that the field may have.

        Args:
            place: The field's number.
            column: Its values in some instances.
            kinds: Their types.
        """
        check = self._checks[place]
        if check is ANYTHING or kinds <= check.exact or check.passes_all(column):
            return None
        return next(index for index, value in enumerate(column) if not check.passes(value))

    def mismatch(self, place: int, value: Any) -> str:
        """What is wrong with a value of a field."""
        kind = type(value)
        return f"{self._checks[place].text} was expected, not {kind.__module__}.{kind.__qualname__}"

    def _hold_fields(self, values: Sequence[Any]) -> bool:
        """Whether instances certainly hold their fields and nothing else, by how many values each has.

        To ask an instance for its ``__dict__`` makes one: a hundred bytes, for as long as the instance lives.
        """
        if self._defaults is None:
            return False
        for name, default in self._defaults:  # what the class has as well may not be the instance's
            if any(map(is_, map(attrgetter(name), values), repeat(default))):
                return False
        count = len(self._fields)
        if len(get_referents(values[0])) == count + 1 > _DICTIONARY:
            return set(map(len, map(get_referents, values))) == {count + 1}
        return set(map(len, map(vars, values))) == {count}


class _Probe:
    def __init__(self) -> None:
        self.one = self.two = 0


_DICTIONARY: Final = 2 if len(get_referents(_Probe())) == 3 else 1 << 31  # noqa: PLR2004 - the two values and the class
"""What an instance with a dictionary refers to: that, and its class. The values themselves are what it refers to as
long as nobody asked for it; where the interpreter does not do so, instances are always asked."""


def _defaults_of(cls: Any, fields: Sequence[str]) -> list[tuple[str, Any]] | None:
    """Of the fields of a class those for which the class itself has a value too; None where it has more of a say."""
    if cls.__getattribute__ is not object.__getattribute__:
        return None
    found = []
    for base in cls.__mro__:
        own = vars(base)
        if "__getattr__" in own:
            return None
        for name in fields:
            if name in own:
                if hasattr(type(own[name]), "__get__"):
                    return None
                found.append((name, own[name]))
    return found
