"""``{"*.bias": dense, "layers.*": uq(1), "*": uq(2)}``: an update codec by the names of tensors.

Rules: patterns are those of :func:`fnmatch.fnmatchcase`, ``*``, ``?`` and ``[…]``; the first that matches counts, in
the order written; what none matches is sent as it is. Each pattern's tensors are an update of their own: a codec that
looks at the whole update, as ``uq`` does for its step, looks at these alone.

Law: for each tensor that of its codec. Notes: ``counts``, how many tensors each pattern has; ``notes``, those of each
codec; ``base``, the digest of the base, where one is needed, in place of the ``base`` of theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

import msgspec

from fedpost.codecs.auto import Auto, encoded_size
from fedpost.codecs.codec import (
    Base,
    Budgeted,
    Capabilities,
    Codec,
    Encoding,
    Notes,
    Residual,
    capabilities_of,
    check_base,
)
from fedpost.errors import ConfigError, DecodeError
from fedpost.tensors import Array, TensorSource, TensorSpec
from fedpost.tensors.format import name_of

__all__ = ["MAX_PATTERNS", "ByPattern"]

MAX_PATTERNS: Final = 64
_LONGEST: Final = 200


@dataclass(frozen=True, slots=True)
class ByPattern:
    """A codec for each pattern of names.

    Attributes:
        patterns: Patterns with their codecs, in order; a mapping is taken as well.
    """

    patterns: tuple[tuple[str, Codec], ...]

    def __post_init__(self) -> None:
        given: Mapping[str, Codec] | Iterable[tuple[str, Codec]] = self.patterns
        patterns = tuple(given.items()) if isinstance(given, Mapping) else tuple((name, codec) for name, codec in given)
        if not 1 <= len(patterns) <= MAX_PATTERNS:
            raise ConfigError(f"an update codec of {len(patterns)} patterns", hint=f"1 to {MAX_PATTERNS} are allowed.")
        for number, (pattern, codec) in enumerate(patterns):
            _check_pattern(pattern)
            if any(pattern == other for other, _ in patterns[:number]):
                raise ConfigError(f"the pattern {pattern!r} comes twice")
            if isinstance(codec, ByPattern):
                raise ConfigError(f"the pattern {pattern!r} has patterns of its own")
        if sum(isinstance(codec, Auto) for _, codec in patterns) > 1:
            raise ConfigError("auto comes twice, but a message has one budget")
        object.__setattr__(self, "patterns", patterns)

    @property
    def needs_base(self) -> bool:
        """Whether any of them does."""
        return any(codec.needs_base for _, codec in self.patterns)

    @property
    def capabilities(self) -> Capabilities:
        """What all of them promise; an account and a base are there as soon as one needs them."""
        each = [capabilities_of(codec) for _, codec in self.patterns]
        return Capabilities(
            linear=all(one.linear for one in each),
            unbiased=all(one.unbiased for one in each),
            lossless=all(one.lossless for one in each),
            stateful=any(one.stateful for one in each),
            needs_base=self.needs_base,
        )

    def encode(
        self, tensors: Mapping[str, Array], base: Base | None = None, residual: Residual | None = None
    ) -> Encoding:
        """Encode what each pattern matches.

        Raises:
            ConfigError: It needs a base and there is none.
            EncodeError: A tensor has values that its codec cannot carry.
        """
        return self.encode_within(tensors, base, residual, encoded_size)

    def encode_within(
        self,
        tensors: Mapping[str, Array],
        base: Base | None,
        residual: Residual | None,
        measure: Callable[[Encoding], int],
    ) -> Encoding:
        """As :meth:`encode`; a codec with a budget counts the whole message, so it comes last."""
        if base is None and self.needs_base:
            raise ConfigError(f"the update codec {str(self)[:200]} needs a base", hint="Give the receiver's model.")
        for name, array in tensors.items():
            name_of(name, array)
        groups = self._groups(tensors)
        parts: list[Encoding] = [Encoding({name: tensors[name] for name in group}, {}) for group in groups]
        within: list[int] = []
        for number, (_, codec) in enumerate(self.patterns):
            if not groups[number]:
                continue
            if isinstance(codec, Budgeted):
                within.append(number)
            else:
                parts[number] = codec.encode(parts[number].tensors, base, residual)

        for number in within:
            codec = self.patterns[number][1]

            def whole(part: Encoding, at: int = number) -> int:
                return measure(self._joined(tensors, [*parts[:at], part, *parts[at + 1 :]], base))

            if isinstance(codec, Budgeted):
                parts[number] = codec.encode_within(parts[number].tensors, base, residual, whole)
        return self._joined(tensors, parts, base)

    def _joined(self, tensors: Mapping[str, Array], parts: list[Encoding], base: Base | None) -> Encoding:
        coded = {name: array for part in parts for name, array in part.tensors.items()}
        told: dict[str, object] = {"base": base.digest} if base is not None and self.needs_base else {}
        told["counts"] = [len(part.tensors) for part in parts[:-1]]
        told["notes"] = [
            {name: note for name, note in part.notes.items() if name != "base" or not codec.needs_base}
            for part, (_, codec) in zip(parts[:-1], self.patterns, strict=True)
        ]
        lost = {name: array for part in parts for name, array in part.residual.items()}
        return Encoding({name: coded[name] for name in tensors}, told, lost)

    def decode(self, source: TensorSource, notes: Notes, base: Base | None = None) -> TensorSource:
        """Decode what each pattern matches.

        Raises:
            DecodeError: The notes do not fit the tensors, or not the base.
        """
        if self.needs_base:
            base = check_base(notes, base, str(self))
        groups = self._groups([spec.name for spec in source.specs])
        specs = {spec.name: spec for spec in source.specs}
        found: dict[str, TensorSource] = dict.fromkeys(groups[-1], source)
        for (pattern, codec), group, inner in zip(self.patterns, groups, self.notes_of(notes, groups), strict=False):
            if not group:
                continue
            told = {**inner, "base": base.digest} if base is not None and codec.needs_base else inner
            part = codec.decode(_Part(source, tuple(specs[name] for name in group)), told, base)
            if [spec.name for spec in part.specs] != group:
                raise DecodeError(f"what {pattern!r} matches comes back as others", where=f"update codec {self}")
            for spec in part.specs:
                specs[spec.name] = spec
                found[spec.name] = part
        return _Joined(found, tuple(specs[spec.name] for spec in source.specs))

    def notes_of(self, notes: Notes, groups: list[list[str]] | None = None) -> list[dict[str, Any]]:
        """The notes of each pattern's codec.

        Args:
            notes: Those of the update.
            groups: What each pattern matches, where that is known; then the counts are checked.

        Raises:
            DecodeError: They are not as many as the patterns, or the counts are others.
        """
        counts, inner = notes.get("counts"), notes.get("notes")
        if groups is not None and (
            not isinstance(counts, list | tuple)
            or any(type(count) is not int for count in counts)
            or list(counts) != [len(group) for group in groups[:-1]]
        ):
            raise DecodeError("its patterns match other numbers of tensors", where=f"update codec {self}")
        if (
            not isinstance(inner, list | tuple)
            or len(inner) != len(self.patterns)
            or not all(isinstance(one, dict) for one in inner)
        ):
            raise DecodeError("its notes do not fit the patterns", where=f"update codec {self}")
        return list(inner)

    def _groups(self, names: Iterable[str]) -> list[list[str]]:
        """What each pattern matches, and what none does."""
        groups: list[list[str]] = [[] for _ in range(len(self.patterns) + 1)]
        for name in names:
            matching = (number for number, (pattern, _) in enumerate(self.patterns) if fnmatchcase(name, pattern))
            groups[next(matching, -1)].append(name)
        return groups

    def __str__(self) -> str:
        return "{" + ", ".join(f"{_quoted(pattern)}: {codec}" for pattern, codec in self.patterns) + "}"


def _check_pattern(pattern: object) -> None:
    if not isinstance(pattern, str):
        raise ConfigError(f"the pattern {pattern!r} is not text")
    if len(pattern) > _LONGEST:
        raise ConfigError(f"the pattern {pattern[:40]!r} … of {len(pattern)} characters", hint=f"At most {_LONGEST}.")
    try:
        pattern.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"the pattern {pattern!r} is not Unicode text") from error


def _quoted(pattern: str) -> str:
    return msgspec.json.encode(pattern).decode()


@dataclass(frozen=True, slots=True)
class _Part:
    """Some tensors of a source."""

    source: TensorSource
    specs: tuple[TensorSpec, ...]

    def arrays(self) -> dict[str, Array]:
        return {spec.name: self.read(spec.name, 0, spec.size).reshape(spec.shape) for spec in self.specs}

    def read(self, name: str, start: int, stop: int) -> Array:
        return self.source.read(name, start, stop)


@dataclass(frozen=True, slots=True)
class _Joined:
    """Tensors, each of a source of its own."""

    sources: Mapping[str, TensorSource]
    specs: tuple[TensorSpec, ...]

    def arrays(self) -> dict[str, Array]:
        return {spec.name: self.read(spec.name, 0, spec.size).reshape(spec.shape) for spec in self.specs}

    def read(self, name: str, start: int, stop: int) -> Array:
        return self.sources[name].read(name, start, stop)
