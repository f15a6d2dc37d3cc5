"""What a program lists: decomposers, classes and enumerations, names, folders; for the whole process, as in FOBS.

Rules: the first registration of a type stays, a further one is ignored with a warning in the log; a decomposer takes
the place of the generic one that a class got by being dumped. Folders are imported because the program names them.
"""

from __future__ import annotations

import importlib
import inspect
import json
import logging
import os
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from fedpost.compat.fobs.allowed import AllowedTypes, class_name, generic_serializer
from fedpost.compat.fobs.errors import FobsConfigError
from fedpost.errors import MissingExtraError
from fedpost.objects import Decomposer as ObjectDecomposer
from fedpost.objects import Serializer

__all__ = [
    "add_type_name_whitelist",
    "allowed_types",
    "auto_register_data_classes",
    "auto_register_enum_types",
    "dot_handlers",
    "fobs_initialize",
    "get_dot_handler",
    "num_decomposers",
    "register",
    "register_custom_folder",
    "register_data_classes",
    "register_enum_types",
    "register_folder",
    "reset",
]

_LOG: Final = logging.getLogger("fedpost.compat.fobs")
_METHODS: Final = ("supported_type", "decompose", "recompose")
_SKIPPED: Final = (ImportError, RuntimeError, ValueError)


class _Process:
    """What this process has listed."""

    def __init__(self) -> None:
        self.types = AllowedTypes()
        self.handlers: dict[int, Any] = {}


_process = _Process()


def allowed_types() -> AllowedTypes:
    """The types that this process reads and writes."""
    return _process.types


def dot_handlers() -> dict[int, Any]:
    """The decomposers that process datums, by the object type."""
    return _process.handlers


def register(decomposer: Any) -> None:
    """Register a decomposer. A further one for the same type is ignored, with a warning in the log.

    Args:
        decomposer: An instance, or a class whose constructor takes no arguments; NVFLARE's own are taken, too.

    Raises:
        FobsConfigError: It is no decomposer.
        RegistryError: Its type's name is taken by one of the standard types.
    """
    made = decomposer() if isinstance(decomposer, type) else decomposer
    if not all(callable(getattr(made, name, None)) for name in _METHODS):
        raise FobsConfigError(f"{decomposer!r} is not a decomposer", hint=f"It needs {', '.join(_METHODS)}.")
    cls = made.supported_type()
    new = _process.types.allow(
        Serializer(cls=cls, name=class_name(cls), take=made.decompose, make=made.recompose, managed=True)
    )
    if not new:
        _LOG.warning("%s has a decomposer already: %s is ignored", class_name(cls), type(made).__qualname__)
        return
    dots = getattr(made, "supported_dots", None)
    for dot in (dots() if dots is not None else None) or ():
        if type(dot) is not int or dot < 1:
            raise FobsConfigError(f"the datum object type {dot!r} is not a whole number from 1")
        if _process.handlers.setdefault(dot, made) is not made:
            _LOG.warning("datums of type %d have a decomposer already: %s is ignored", dot, type(made).__qualname__)


def register_data_classes(*data_classes: type[Any]) -> None:
    """Allow classes that are their attributes.

    Raises:
        ConfigError: One holds more than attributes.
    """
    for cls in data_classes:
        if not isinstance(cls, type):
            raise FobsConfigError(f"{cls!r} is not a class")
        _allow_generic(generic_serializer(cls))


def register_enum_types(*enum_types: type[Enum]) -> None:
    """Allow enumerations.

    Raises:
        FobsConfigError: One is no enumeration.
    """
    for cls in enum_types:
        if not _is_enum(cls):
            raise FobsConfigError(f"Can't register class {cls!r}, which is not a subclass of Enum")
        _allow_generic(generic_serializer(cls))


def _is_enum(cls: Any) -> bool:
    return isinstance(cls, type) and issubclass(cls, Enum)


def _allow_generic(serializer: Serializer) -> None:
    if not _process.types.allow(serializer, generic=True):
        _LOG.warning("%s has a decomposer already: the generic one is ignored", serializer.name)


def add_type_name_whitelist(*type_names: str) -> None:
    """Allow classes by name, such as ``"package.module.Class"``. They are imported now, not because somebody sends one.

    Args:
        type_names: A class that cannot be imported yet is allowed once something else has loaded its module.

    Raises:
        FobsConfigError: One is the name of something that is no class.
        ConfigError: A class holds more than its attributes.
    """
    _process.types.allow_names(*type_names)


def auto_register_enum_types(enabled: bool = True) -> None:
    """Whether an enumeration is registered when one of its members is dumped first."""
    _process.types.let_automatic(enums=enabled)


def auto_register_data_classes(enabled: bool = True) -> None:
    """Whether a class that is its attributes is registered when an instance is dumped first."""
    _process.types.let_automatic(data=enabled)


def num_decomposers() -> int:
    """How many types were registered, the standard ones not counted."""
    return _process.types.count


def get_dot_handler(dot: int) -> Any:
    """The decomposer that processes datums of an object type, or None."""
    return _process.handlers.get(dot)


def reset() -> None:
    """Forget everything that was registered; what is switched on or off stays so."""
    enums, data = _process.types.enums, _process.types.data
    _process.types = AllowedTypes()
    _process.types.let_automatic(enums=enums, data=data)
    _process.handlers = {}


# ── folders ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def register_folder(folder: str, package: str) -> None:
    """Register every decomposer in the modules of a folder.

    Args:
        folder: Its path.
        package: The package that it is.
    """
    for path in sorted(Path(folder).glob("*.py")):
        if path.stem != "__init__":
            _register_module(f"{package}.{path.stem}")


def register_custom_folder(folder: str) -> None:
    """Register every decomposer in the modules of a folder and of those below. The folder is added to ``sys.path``."""
    root = Path(folder)
    if root.is_dir() and folder not in sys.path:
        sys.path.append(folder)
    for path in sorted(root.rglob("*.py")):
        _register_module(".".join(path.relative_to(root).with_suffix("").parts))


def _register_module(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except _SKIPPED as error:  # FOBS goes on without it; here the log says so
        _LOG.warning("no decomposers of %s: %s: %s", name, type(error).__name__, error)
        return
    for cls in _decomposers_of(module):
        if all(
            parameter.default is not parameter.empty
            or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            for parameter in inspect.signature(cls).parameters.values()
        ):
            register(cls)
        else:
            _LOG.info("%s.%s needs arguments: register an instance of it", name, cls.__qualname__)


def _decomposers_of(module: ModuleType) -> Iterator[type]:
    for cls in list(vars(module).values()):
        if isinstance(cls, type) and issubclass(cls, ObjectDecomposer) and not inspect.isabstract(cls):
            yield cls


# ── NVFLARE ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def fobs_initialize(workspace: Any = None, job_id: str | None = None) -> None:
    """Register NVFLARE's types, where it is installed, and the decomposers of a site and a job.

    Without it they are registered as well, once one of them is first dumped or loaded.

    Args:
        workspace: NVFLARE's, in whose custom folders a folder ``nvflare_decomposers`` may hold decomposers.
        job_id: A job of it, whose decomposers are registered only if it was allowed to bring code of its own.
    """
    try:
        _process.types.load_package("nvflare")
    except MissingExtraError:
        _LOG.info("NVFLARE is not installed: none of its types is registered")
    if workspace is None:
        return
    _register_custom(workspace.get_client_custom_dir())
    if job_id and _brings_code(workspace.get_job_meta_path(job_id)):
        _register_custom(workspace.get_app_custom_dir(job_id))


def _register_custom(folder: str) -> None:
    decomposers = Path(folder) / "nvflare_decomposers"
    if decomposers.exists():
        register_custom_folder(str(decomposers))


def _brings_code(path: str | os.PathLike[str]) -> bool:
    """Whether a job's meta file says that it brings code of its own; anything that is not that is no."""
    try:
        meta = json.loads(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        _LOG.warning("%s cannot be read: the job's decomposers are not registered: %s", path, error)
        return False
    return isinstance(meta, dict) and meta.get("byoc") is True
