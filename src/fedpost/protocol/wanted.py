"""What a server wants of each payload, as it stands in settings: one value for all of them, or a mapping of payloads.

Rules: the names of payloads are checked, with the nearest known one. An update codec is text, a list of stages, or a
mapping of patterns of tensors' names to one or the other; a mapping whose keys have a ``*``, ``?``, ``[`` or dot is of
patterns, any other one of payloads.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final

from fedpost.codecs import ByPattern, Codec, codec_of
from fedpost.errors import ConfigError
from fedpost.pipeline import Pipeline
from fedpost.protocol.negotiation import MODELS, PAYLOADS

__all__ = ["Update", "check_payload", "check_wanted", "is_by_pattern", "update_checks", "update_codec"]

Update = str | list[str] | dict[str, str | list[str] | dict[str, str | list[str]]]
"""An update codec, or one for each payload."""

_PATTERN: Final = frozenset("*?[.")


def check_wanted(wanted: Mapping[str, Pipeline]) -> None:
    """Check that the pipelines of a server go together.

    Args:
        wanted: For each payload type its pipeline.

    Raises:
        ConfigError: The payloads that bring a model have different update codecs, and one of them needs a base.
    """
    codecs = {payload: wanted[payload].update for payload in MODELS if payload in wanted}
    if len(set(codecs.values())) > 1 and any(codec.needs_base for codec in codecs.values()):
        told = ", ".join(f"{payload} has {codec}" for payload, codec in codecs.items())
        raise ConfigError(
            f"update: {' and '.join(codecs)} bring the same model, but {told}",
            hint="Give both the same update codec, or write one for all payloads.",
        )


def check_payload(key: str, payload: str | None) -> None:
    """Check the name of a payload under a setting; None is for all of them.

    Raises:
        ConfigError: There is no such payload.
    """
    if payload in (None, *PAYLOADS, "default"):
        return
    near = difflib.get_close_matches(str(payload), [*PAYLOADS, "default"], n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"Known: default, {', '.join(PAYLOADS)}."
    raise ConfigError(f"{key}: unknown payload {payload!r}", hint=hint)


def is_by_pattern(update: object) -> bool:
    """Whether it is a mapping of patterns, not of payloads."""
    return isinstance(update, dict) and any(not _PATTERN.isdisjoint(key) for key in update)


def update_codec(update: Any) -> Codec:
    """The codec of a text, a list of stages, or a mapping of patterns.

    Raises:
        ConfigError: It is impossible.
        RegistryError: No such codec.
    """
    if isinstance(update, dict):
        return ByPattern(tuple((pattern, update_codec(one)) for pattern, one in update.items()))
    return codec_of(update)


def update_checks(update: Any, path: str, payload: str | None = None) -> Iterator[tuple[str, Callable[[], object]]]:
    """What is to be checked of an update setting, with the path of where it is written; the narrowest places first.

    Args:
        update: As :data:`Update`.
        path: Of the setting.
        payload: Whose it is, if it is not the whole setting.
    """
    if isinstance(update, dict) and payload is None and not is_by_pattern(update):
        for name, one in update.items():
            yield f"{path}.{name}", partial(check_payload, "update", name)
            yield from update_checks(one, f"{path}.{name}", name)
        return
    if isinstance(update, dict):
        for pattern, one in update.items():
            if payload is None:
                yield f"{path}.{pattern}", partial(_check_pattern, pattern)
            yield f"{path}.{pattern}", partial(update_codec, {pattern: one})
    yield path, partial(update_codec, update)


def _check_pattern(pattern: str) -> None:
    if _PATTERN.isdisjoint(pattern):
        raise ConfigError(
            f"update: {pattern!r} is no pattern, as others here are",
            hint="Write the patterns under a payload, or under default.",
        )
