"""From a YAML file to a run: typed settings, checked in full, with the line of what is wrong.

Rules: an unknown key is an error that names its line and the nearest valid key; nothing is guessed; ``app`` names
Python code of the user's own on this machine, which is the only code that a configuration can start.
"""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

import msgspec

from fedpost.checksums import CHECKSUMS
from fedpost.compression import Compression
from fedpost.errors import ConfigError, FedpostError, MissingExtraError
from fedpost.federation import App, FedAvg, Strategy
from fedpost.pipeline import Pipeline
from fedpost.protocol import PAYLOADS
from fedpost.protocol.wanted import Update, check_payload, check_wanted, is_by_pattern, update_checks, update_codec
from fedpost.tensors import FORMATS

__all__ = ["FedAvgConfig", "RunConfig", "load_app", "load_config", "new_run_id", "transport_url"]

PerPayload = str | dict[str, str]
_Positive = Annotated[float, msgspec.Meta(gt=0)]
_Count = Annotated[int, msgspec.Meta(ge=1)]
_Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
_STAGES: Final[dict[str, Callable[[str], object]]] = {
    "serialization": FORMATS.get,
    "compression": Compression.parse,
    "checksum": CHECKSUMS.get,
}
_SiteName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]


class FedAvgConfig(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="name", tag="fedavg"
):
    """Settings of federated averaging; see :class:`fedpost.federation.FedAvg`."""

    fraction_fit: _Fraction = 1.0
    fraction_evaluate: _Fraction = 0.0
    min_fit_clients: _Count = 1
    min_evaluate_clients: _Count = 1
    min_available_clients: _Count | None = None


class RunConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A run's settings, as they stand in its YAML file.

    Attributes:
        name: What the run is called.
        app: ``path.py:factory``, relative to the file.
        options: Keyword arguments for the factory.
        sites: Their names, or how many: then they are called ``site-0``, ``site-1``, …
        rounds: How many rounds.
        seed: Seeds the draws of sites, and is passed to the factory.
        transport: URL of the medium; ``file:folder`` is relative to the file.
        strategy: How results are combined: federated averaging, unless the app brings a strategy of its own.
        update: The update codec: text, a list of stages, or a mapping of patterns of tensors' names to one or the
            other; for all payloads or by payload: ``FitIns``, ``FitRes``, ``EvaluateIns``, ``default``.
        serialization: The tensor format, for all payloads or by payload.
        compression: The byte compressor with its level, likewise.
        checksum: The digest algorithm of frames.
        round_timeout: Seconds after which a round goes on without missing sites.
        register_timeout: Seconds to wait for enough sites.
        attempts: How often a round is tried before the run fails.
        processes: How many processes host the sites of ``fedpost run``: one each (``sites``), one for each core
            (``cores``), or a number.
        output: Folder for runs, relative to where the command is run.
    """

    name: _SiteName
    app: str
    options: dict[str, Any] = {}
    sites: _Count | Annotated[list[_SiteName], msgspec.Meta(min_length=1)]
    rounds: _Count
    seed: int = 0
    transport: str = "file:mailbox"
    strategy: FedAvgConfig | None = None
    update: Update = "dense"
    serialization: PerPayload = "fedwt"
    compression: PerPayload = "none"
    checksum: str = "blake3"
    round_timeout: _Positive = 60.0
    register_timeout: _Positive = 60.0
    attempts: _Count = 2
    processes: Literal["sites", "cores"] | _Count = "sites"
    output: str = "runs"

    @property
    def site_names(self) -> list[str]:
        """The sites, by name."""
        if isinstance(self.sites, int):
            width = len(str(self.sites - 1))
            return [f"site-{index:0{width}d}" for index in range(self.sites)]
        return list(self.sites)

    def pipelines(self) -> dict[str, Pipeline]:
        """For each payload how its tensors are encoded.

        Raises:
            ConfigError: A stage is unknown or does not fit.
        """
        out = {}
        for payload in PAYLOADS:
            form, compression = (_choose(self, key, payload) for key in ("serialization", "compression"))
            update = update_codec(_choose(self, "update", payload))
            out[payload] = Pipeline(update, FORMATS.get(form), Compression.parse(compression), self.checksum)
        check_wanted(out)
        return out

    def hosts(self) -> dict[str, list[str]]:
        """For each process of ``fedpost run`` its address and the sites that it hosts."""
        names = self.site_names
        if self.processes == "sites":
            return {name: [name] for name in names}
        count = min((os.cpu_count() or 1) if self.processes == "cores" else self.processes, len(names))
        return {f"host-{index}": names[index::count] for index in range(count)}

    def build_strategy(self, app: App) -> Strategy:
        """The app's own strategy, or the configured one around the app's functions.

        Raises:
            ConfigError: Both are there.
        """
        if app.strategy is not None:
            if self.strategy is not None:
                raise ConfigError("the app has a strategy of its own", where="strategy", hint="Remove one of the two.")
            return app.strategy
        settings = self.strategy or FedAvgConfig()
        least = settings.min_available_clients
        return FedAvg(
            fraction_fit=settings.fraction_fit,
            fraction_evaluate=settings.fraction_evaluate,
            min_fit_clients=settings.min_fit_clients,
            min_evaluate_clients=settings.min_evaluate_clients,
            min_available_clients=len(self.site_names) if least is None else least,
            evaluate_fn=app.evaluate,
            on_fit_config_fn=app.fit_config,
            on_evaluate_config_fn=app.evaluate_config,
            initial_parameters=None if app.initialize is None else app.initialize(),
        )


def new_run_id(name: str) -> str:
    """An id that sorts by time and is unique enough to be a folder's name."""
    return f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def transport_url(config: RunConfig, file: Path, *, run: str | None = None) -> str:
    """The transport's URL, made absolute.

    Args:
        config: The settings.
        file: The file that they came from.
        run: Give the run a part of the medium to itself, when all its peers are started together.

    Raises:
        ConfigError: A ``file:`` URL with a host.
    """
    parts = urlsplit(config.transport)
    if parts.scheme != "file":
        return config.transport
    if parts.netloc:
        raise ConfigError(f"{config.transport!r} names a host", hint="Write file:folder, or file:///folder.")
    path = (file.resolve().parent / parts.path).resolve()
    return (path / run if run else path).as_uri()


def load_config(file: Path, overrides: Mapping[str, str] | None = None) -> RunConfig:
    """Read and check a run's settings.

    Args:
        file: The YAML file.
        overrides: Dotted keys and values as YAML, from the command line.

    Raises:
        ConfigError: Wrong YAML, an unknown key, or a wrong value; it says where.
        MissingExtraError: The extra ``fedpost[run]`` is not installed.
    """
    yaml = _yaml()
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(file)) from error
    try:
        lines = dict(_lines(yaml.compose(text, Loader=yaml.SafeLoader), "$", file))
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}" if mark else str(file)
        raise ConfigError(f"not YAML: {getattr(error, 'problem', None) or error}", where=where) from error
    if not isinstance(data, dict):
        raise ConfigError("not a mapping of keys to values", where=str(file))
    for key, value in (overrides or {}).items():
        try:
            _override(data, key, yaml.safe_load(value))
        except yaml.YAMLError as error:
            raise ConfigError(f"{value!r} is not YAML", where=f"--set {key}") from error
    try:
        config = msgspec.convert(data, RunConfig)
    except msgspec.ValidationError as error:
        raise _explained(error, file, lines, overrides or {}) from None
    _check_stages(config, file, lines, overrides or {})
    try:
        config.pipelines()
    except FedpostError as error:  # stages that do not go together
        raise ConfigError(error.what, where=str(file), hint=error.hint) from error
    _check_sites(config, file, lines)
    return config


def _check_stages(config: RunConfig, file: Path, lines: Mapping[str, int], overrides: Mapping[str, str]) -> None:
    """Check every stage where it is written, whether or not a payload uses it."""
    checks = list(update_checks(config.update, "$.update"))
    for key, parse in _STAGES.items():
        value: PerPayload = getattr(config, key)
        for payload, stage in {None: value}.items() if isinstance(value, str) else value.items():
            path = f"$.{key}" if payload is None else f"$.{key}.{payload}"
            checks.append((path, partial(check_payload, key, payload)))
            checks.append((path, partial(parse, stage.strip())))
    for path, check in checks:
        try:
            check()
        except FedpostError as error:
            raise _placed(ConfigError(error.what, hint=error.hint), path, file, lines, overrides) from error


def _placed(
    error: ConfigError, path: str, file: Path, lines: Mapping[str, int], overrides: Mapping[str, str]
) -> ConfigError:
    """The error with the line, or the option of the command line, that it comes from."""
    dotted = path.removeprefix("$.")
    for key in overrides:
        if dotted == key or dotted.startswith((f"{key}.", f"{key}[")):
            return ConfigError(error.what, where=f"--set {key}", hint=error.hint)
    # msgspec writes [...] for a value of a mapping; the mapping's own line is the nearest there is.
    line = lines.get(path) or lines.get(path.partition("[...]")[0])
    return ConfigError(error.what, where=f"{file}:{line}" if line else str(file), hint=error.hint)


def _check_sites(config: RunConfig, file: Path, lines: Mapping[str, int]) -> None:
    if len(set(config.site_names)) < len(config.site_names):
        raise ConfigError("a site comes twice", where=f"{file}:{lines.get('$.sites', 1)}")
    if "server" in config.site_names:
        raise ConfigError("'server' is the server's own name", where=f"{file}:{lines.get('$.sites', 1)}")
    needed = config.strategy.min_fit_clients if config.strategy else 1
    if needed > len(config.site_names):
        where = f"{file}:{lines.get('$.strategy.min_fit_clients', 1)}"
        raise ConfigError(f"min_fit_clients is {needed}, but there are {len(config.site_names)} sites", where=where)


def load_app(config: RunConfig, file: Path) -> App:
    """Call the app's factory: ``factory(sites=[…], seed=…, **options)``.

    Raises:
        ConfigError: No such file or function, or it returns no :class:`fedpost.App`.
    """
    path_text, _, name = config.app.rpartition(":")
    path = file.resolve().parent / path_text
    if not path_text or not path.is_file():
        raise ConfigError(f"no such app {config.app!r}", where=str(file), hint="Write path.py:factory.")
    # The module is known by name, so that a pickle of the user's own finds it.
    spec = importlib.util.spec_from_file_location(f"fedpost_app_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is not Python", where=str(file))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # so that the app finds the files beside it
    spec.loader.exec_module(module)
    factory = getattr(module, name, None)
    if not callable(factory):
        raise ConfigError(f"{path.name} has no function {name!r}", where=str(file))
    arguments = {"sites": config.site_names, "seed": config.seed, **config.options}
    try:
        inspect.signature(factory).bind(**arguments)
    except TypeError as error:
        raise ConfigError(
            f"{name} in {path.name} cannot be called with these options: {error}", where=str(file)
        ) from error
    app = factory(**arguments)
    if not isinstance(app, App):
        raise ConfigError(f"{name} returned {type(app).__name__}, not fedpost.App", where=str(path))
    return app


def _yaml() -> Any:
    try:
        import yaml  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MissingExtraError("reading a configuration needs PyYAML", hint="pip install 'fedpost[run]'") from error
    return yaml


def _choose(config: RunConfig, key: str, payload: str) -> Any:
    value = getattr(config, key)
    if not isinstance(value, dict) or (key == "update" and is_by_pattern(value)):
        return value
    for name in value:
        check_payload(key, name)
    plain: str = next(field.default for field in msgspec.structs.fields(RunConfig) if field.name == key)
    return value.get(payload, value.get("default", plain))


def _lines(node: Any, path: str, file: Path) -> Iterator[tuple[str, int]]:
    """The line, from 1, of every key and item; a key that comes twice is an error."""
    if node is None:
        return
    yield path, node.start_mark.line + 1
    if node.id == "mapping":
        seen: set[str] = set()
        for key, value in node.value:
            where = f"{file}:{key.start_mark.line + 1}"
            if key.id != "scalar":
                raise ConfigError("a key is not text", where=where)
            if key.value in seen:
                raise ConfigError(f"the key {key.value!r} comes twice", where=where)
            seen.add(key.value)
            yield from _lines(value, f"{path}.{key.value}", file)
            yield f"{path}.{key.value}", key.start_mark.line + 1
    elif node.id == "sequence":
        for index, item in enumerate(node.value):
            yield from _lines(item, f"{path}[{index}]", file)


def _override(data: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for parent in parents:
        inner = data.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{parent!r} has no keys of its own", where=f"--set {dotted}")
        data = inner
    data[last] = value


_MESSAGE: Final = re.compile(r"(?P<what>.*?)(?: - at `(?P<path>\$.*)`)?", re.DOTALL)
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(?P<key>.*)`", re.DOTALL)


def _explained(
    error: msgspec.ValidationError, file: Path, lines: Mapping[str, int], overrides: Mapping[str, str]
) -> ConfigError:
    """Msgspec's message with the line, the path and the nearest valid key."""
    match = _MESSAGE.fullmatch(str(error))
    what, path = (match["what"], match["path"] or "$") if match else (str(error), "$")
    hint = None
    if unknown := _UNKNOWN.fullmatch(what):
        struct = FedAvgConfig if path == "$.strategy" else RunConfig
        known = [field.name for field in msgspec.structs.fields(struct)]
        near = difflib.get_close_matches(unknown["key"], known, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known keys: {', '.join(known)}."
        path = f"{path}.{unknown['key']}"
        what = f"unknown key {path.removeprefix('$.')!r}"
    elif path != "$":
        what = f"{path.removeprefix('$.')}: {what}"
    return _placed(ConfigError(what, hint=hint), path, file, lines, overrides)
