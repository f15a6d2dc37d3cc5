"""The whole configuration: a YAML or JSON file, or a mapping, made into :class:`Settings`.

Rules: what is wrong is told with its line. Encryption and differential privacy that are switched on and cannot be had
are refused here, before anything is sent.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from fedpost.compat.kafkafl.checking import typed
from fedpost.compat.kafkafl.settings import Settings
from fedpost.errors import ConfigError, MissingExtraError

__all__ = ["load_settings"]

_MAX_FILE: Final = 1 << 20
_DEPTH: Final = 3


def load_settings(source: str | os.PathLike[str] | Mapping[str, object]) -> Settings:
    """Read and check the template.

    Args:
        source: A YAML file (JSON is YAML, too), or what such a file holds.

    Raises:
        ConfigError: Not YAML, an unknown key, a wrong value, values that contradict each other, or encryption or
            differential privacy switched on; it says where.
        MissingExtraError: The source is a file, and the extra ``fedpost[run]`` is not installed.
    """
    if isinstance(source, Mapping):
        return _checked(source, lambda path: path or None)
    file = Path(source)
    data, lines = _read(file)

    def where(path: str) -> str:
        # An item of a list has no line of its own here; the nearest thing around it has.
        while path and path not in lines:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return f"{file}:{lines[path]}" if path else str(file)

    return _checked(data, where)


def _checked(data: object, where: Callable[[str], str | None]) -> Settings:
    settings = typed(data, Settings, where)
    settings.check(where)
    return settings


def _read(file: Path) -> tuple[object, dict[str, int]]:
    """What a file holds, and the line, from 1, of every dotted key."""
    try:
        import yaml  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MissingExtraError("reading a configuration needs PyYAML", hint="pip install 'fedpost[run]'") from error
    try:
        if file.stat().st_size > _MAX_FILE:
            raise ConfigError(f"a configuration of more than {_MAX_FILE} bytes", where=str(file))
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(file)) from error
    try:
        lines = dict(_lines(yaml.compose(text, Loader=yaml.SafeLoader), "", file))
        return yaml.safe_load(text), lines
    except RecursionError as error:
        raise ConfigError("nested too deep, or inside itself", where=str(file)) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}" if mark else str(file)
        raise ConfigError(f"not YAML: {getattr(error, 'problem', None) or error}", where=where) from error


def _lines(node: Any, path: str, file: Path) -> Iterator[tuple[str, int]]:
    # Deeper than the template is, there is nothing to point at; and an alias may lead round in a circle.
    if node is None or node.id != "mapping" or path.count(".") >= _DEPTH:
        return
    seen: set[str] = set()
    for key, value in node.value:
        line = key.start_mark.line + 1
        if key.id != "scalar" or key.value in seen:
            raise ConfigError("a key is not text, or comes twice", where=f"{file}:{line}")
        seen.add(key.value)
        inner = f"{path}.{key.value}".lstrip(".")
        yield inner, line
        yield from _lines(value, inner, file)
