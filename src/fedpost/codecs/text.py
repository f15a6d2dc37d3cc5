"""Update codecs as text and as JSON, both ways.

Rules: the text of a codec is what frames carry: ``uq(2)``, ``cast(bfloat16) | delta``, ``{"*.bias": dense}``. It may be
written at greater length, ``delta | uq(2) | rc`` or ``uq(scale=2)``, and ``none`` for ``dense``; a codec's own text is
the shortest. Names are looked up in :data:`~fedpost.codecs.CODECS`, never imported.
"""

from __future__ import annotations

import dataclasses
import re
import reprlib
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import msgspec

from fedpost.codecs.chain import Chain, Rc, chain
from fedpost.codecs.codec import CODECS, Codec
from fedpost.codecs.patterns import MAX_PATTERNS, ByPattern
from fedpost.errors import ConfigError
from fedpost.registry import parse_call, split_outside

__all__ = ["codec_config", "codec_names", "codec_of", "is_update_stage", "parse_codec"]

_STAGES: Final[dict[str, Callable[..., Codec | Rc]]] = {"rc": Rc, "none": CODECS.get("dense")}
"""What is a stage's name without being a codec's."""
_KEYWORD: Final = re.compile(r"([a-z][a-z0-9_]*)\s*=\s*(.*)", re.DOTALL)


def parse_codec(spec: str) -> Codec:
    """Make the codec that a text names: ``name(argument, …)``, stages between ``|``, or patterns between braces.

    Raises:
        ConfigError: The arguments do not fit, or two stages do not.
        RegistryError: No such codec.
    """
    text = spec.strip()
    if text.startswith("{"):
        return _parse_patterns(text)
    return chain(*map(_parse_stage, split_outside(text, "|")))


def is_update_stage(text: str) -> bool:
    """Whether a stage of a pipeline is an update codec's, by its name; ``none`` is not, as it may be a compression."""
    name = text.partition("(")[0].strip()
    return name.startswith("{") or name in CODECS or name == "rc"


def codec_names(codec: Codec) -> frozenset[str]:
    """The registered names that a receiver must know to read what a codec sends."""
    match codec:
        case Chain(first, then):
            return codec_names(first) | codec_names(then)
        case ByPattern(patterns):
            return frozenset().union(*(codec_names(one) for _, one in patterns))
    return frozenset([parse_call(str(codec))[0]])


def codec_config(codec: Codec | Rc) -> dict[str, Any]:
    """A codec as JSON: ``{"codec": "uq", "scale": 2.0}``; what is as usual is left out.

    A chain has ``stages``, a list of such mappings; patterns are pairs, since their order counts.

    Raises:
        ConfigError: It is not a dataclass, so what it was made of is not known.
    """
    match codec:
        case Chain(first, then):
            return {"codec": "chain", "stages": [codec_config(first), codec_config(then)]}
        case ByPattern(patterns):
            return {"codec": "patterns", "patterns": [[pattern, codec_config(one)] for pattern, one in patterns]}
    if not dataclasses.is_dataclass(codec):
        raise ConfigError(f"the update codec {codec} is not a dataclass")
    values = {field: getattr(codec, field.name) for field in dataclasses.fields(codec) if field.init}
    return {"codec": parse_call(str(codec))[0], **{f.name: value for f, value in values.items() if value != f.default}}


def codec_of(config: object) -> Codec:
    """The codec of what :func:`codec_config` gave, of a text, or of a list of stages, each one or the other.

    Raises:
        ConfigError: It is neither, or the arguments do not fit.
        RegistryError: No such codec.
    """
    if isinstance(config, str):
        return parse_codec(config)
    if isinstance(config, list | tuple):
        return chain(*map(_stage_of, config))
    if not isinstance(config, Mapping) or not isinstance(config.get("codec"), str):
        raise ConfigError(
            f"{reprlib.repr(config)[:80]} is no update codec", hint='Write it like {"codec": "uq", "scale": 2}.'
        )
    match dict(config):
        case {"codec": "chain", "stages": list() | tuple() as stages, **rest} if not rest:
            return chain(*map(_stage_of, stages))
        case {"codec": "patterns", "patterns": list() | tuple() as patterns, **rest} if not rest:
            if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in patterns):  # noqa: PLR2004 - a pair
                raise ConfigError("patterns are pairs of a pattern and its update codec")
            if any(_has_patterns(one) for _, one in patterns):  # before they are looked at, however deep they go
                raise ConfigError("a pattern has patterns of its own")
            return ByPattern(tuple((pattern, codec_of(one)) for pattern, one in patterns))
    return chain(_stage_of(config))


def _has_patterns(config: object) -> bool:
    if isinstance(config, str):
        return "{" in config
    return isinstance(config, Mapping) and config.get("codec") == "patterns"


def _stage_of(config: object) -> Codec | Rc:
    if isinstance(config, str):
        return _parse_stage(config)
    if not isinstance(config, Mapping) or not isinstance(name := config.get("codec"), str):
        raise ConfigError(f"{reprlib.repr(config)[:80]} is no stage of an update codec")
    arguments = {key: value for key, value in config.items() if key != "codec"}
    if not all(isinstance(key, str) and type(value) in {int, float, str} for key, value in arguments.items()):
        raise ConfigError(f"update codec {name}: an argument is neither a number nor text")
    return _make(name, (), arguments, name)


def _parse_stage(text: str) -> Codec | Rc:
    if text.startswith("{"):
        return _parse_patterns(text)
    name, arguments = parse_call(text)
    if not all(arguments):
        raise ConfigError(f"update codec {text[:80]!r}: an argument is empty", hint="Write it like uq(2).")
    given: list[str] = []
    named: dict[str, str] = {}
    for argument in arguments:
        match = _KEYWORD.fullmatch(argument)
        if match is None:
            given.append(argument)
        elif match[1] in named:
            raise ConfigError(f"update codec {text[:80]!r}: {match[1]!r} comes twice")
        else:
            named[match[1]] = match[2]
    return _make(name, given, named, text)


def _make(name: str, given: list[str] | tuple[()], named: Mapping[str, Any], text: str) -> Codec | Rc:
    make = _STAGES[name] if name in _STAGES else CODECS.get(name)
    for argument in (*given, *named.values()):
        if isinstance(argument, str) and ("_" in argument or not argument.isascii()):  # Python takes them for digits
            raise ConfigError(f"update codec {name}: {argument[:80]!r} is not an argument", hint="Write it like uq(2).")
    try:
        return make(*given, **named)
    except TypeError as error:
        fields = dataclasses.fields(make) if dataclasses.is_dataclass(make) else ()
        takes = [field.name for field in sorted(fields, key=lambda field: bool(field.kw_only)) if field.init]
        what = f"its arguments are: {', '.join(takes)}" if takes else "it has no arguments"
        raise ConfigError(f"update codec {text[:200]!r}: {what}") from error


def _parse_patterns(text: str) -> ByPattern:
    """Patterns between braces, each quoted as in JSON."""
    if not text.endswith("}") or len(split_outside(text, "|")) > 1:
        raise ConfigError(f"{text[:80]!r} is not one mapping of patterns", hint="Write the stages into it.")
    entries = split_outside(text[1:-1], ",")
    if len(entries) > MAX_PATTERNS:
        raise ConfigError(f"an update codec of {len(entries)} patterns", hint=f"1 to {MAX_PATTERNS} are allowed.")
    patterns = []
    for entry in entries:
        pattern, *codec = split_outside(entry, ":")
        if len(codec) != 1 or not pattern.startswith('"'):
            raise ConfigError(f"{entry[:80]!r} is not a pattern and its update codec", hint='Write "*.bias": none.')
        if "{" in codec[0]:  # also within a chain; no argument has one
            raise ConfigError(f"the pattern {pattern[:80]} has patterns of its own")
        try:
            name = cast("str", msgspec.json.decode(pattern))
        except (msgspec.DecodeError, UnicodeEncodeError) as error:
            raise ConfigError(f"the pattern {pattern[:80]} is not JSON: {error}") from error
        patterns.append((name, parse_codec(codec[0])))
    return ByPattern(tuple(patterns))
