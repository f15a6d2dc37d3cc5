"""The command line: thin commands over the layers below."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, Final

import msgspec

from fedpost.errors import ConfigError, FedpostError, MissingExtraError, RunError

try:
    import click
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text
except ImportError as error:
    raise MissingExtraError("the command line needs click and rich", hint="pip install 'fedpost[run]'") from error

from fedpost.config import RunConfig, load_app, load_config, new_run_id, transport_url
from fedpost.federation import SERVER, App, Parameters, RunResult, Server, ServerSettings, SiteHost, SiteProcesses
from fedpost.frame import DEFAULT_LIMITS
from fedpost.pipeline import save_tensors
from fedpost.report.summary import RunSummary, Summarizer
from fedpost.report.units import human_bytes, plain
from fedpost.telemetry import JsonLinesSink, Sink, Telemetry
from fedpost.transports import open_endpoint
from fedpost.transports.transport import path_of

__all__ = ["main"]

_USAGE_EXIT: Final = 2
_INTERRUPTED_EXIT: Final = 130
_END_GRACE: Final = 5.0
_KILL_SECONDS: Final = 1.0

_config_argument = click.argument("config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
_set_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of the configuration: rounds=5."
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, and no live view.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="fedpost")
def main() -> None:
    """Federated learning over whatever the sites share.

    \b
    Examples:
      fedpost run examples/digits/run.yaml
      fedpost inspect runs/digits-…/model.fedwt
    """  # noqa: D301 - \b keeps click from joining the lines


@main.command()
@_config_argument
@_set_option
@_json_option
def run(config: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Run a whole federation on this machine: the server here, every site in a process of its own.

    \b
    Examples:
      fedpost run examples/digits/run.yaml
      fedpost run examples/digits/run.yaml --set rounds=5 --set compression=zstd
    """  # noqa: D301 - \b keeps click from joining the lines
    with _errors():
        settings = load_config(config, _overrides(overrides))
        run_id = new_run_id(settings.name)
        url = transport_url(settings, config, run=run_id)
        commands = {}
        for address, sites in settings.hosts().items():
            arguments = ["client", str(config), "--transport", url, "--address", address, "--ends-with-stdin"]
            arguments += [part for site in sites for part in ("--site", site)]
            arguments += [part for override in overrides for part in ("--set", override)]
            commands[address] = (arguments, sites)
        app = load_app(settings, config)
        folder = _run_folder(settings, run_id, config)
        try:
            with SiteProcesses(commands, folder / "logs") as processes:
                _serve(settings, app, run_id, url, folder, as_json=as_json, processes=processes)
        finally:
            _tidy(url)


@main.command()
@_config_argument
@_set_option
@click.option("--transport", help="URL of the medium, in place of the configuration's.")
@_json_option
def server(config: Path, overrides: tuple[str, ...], transport: str | None, as_json: bool) -> None:
    """Run the server of a federation; the sites join with `fedpost client`.

    \b
    Examples:
      fedpost server run.yaml
      fedpost server run.yaml --transport file:///mnt/share/federation
    """  # noqa: D301 - \b keeps click from joining the lines
    with _errors():
        settings = load_config(config, _overrides(overrides))
        run_id = new_run_id(settings.name)
        url = transport or transport_url(settings, config)
        app = load_app(settings, config)
        _serve(settings, app, run_id, url, _run_folder(settings, run_id, config), as_json=as_json)


@main.command()
@_config_argument
@click.option("--site", "sites", multiple=True, required=True, help="The site's name; repeat it to host several.")
@_set_option
@click.option("--transport", help="URL of the medium, in place of the configuration's.")
@click.option("--address", help="Where the server's messages go; the first site's name without it.")
@click.option("--model", type=click.Path(dir_okay=False, path_type=Path), help="Write the final model to this file.")
@click.option("--ends-with-stdin", is_flag=True, hidden=True)
def client(
    config: Path,
    sites: tuple[str, ...],
    overrides: tuple[str, ...],
    transport: str | None,
    address: str | None,
    model: Path | None,
    ends_with_stdin: bool,
) -> None:
    """Take part in a federation as a site, until the run ends.

    \b
    Examples:
      fedpost client run.yaml --site hospital-3
      fedpost client run.yaml --site hospital-3 --model final.fedwt
    """  # noqa: D301 - \b keeps click from joining the lines
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    signal.signal(signal.SIGTERM, _interrupt)
    if ends_with_stdin:
        threading.Thread(target=_interrupt_at_end_of_input, daemon=True).start()
    with _errors(), ExitStack() as stack:
        settings = load_config(config, _overrides(overrides))
        if unknown := [site for site in sites if site not in settings.site_names]:
            raise click.UsageError(f"the configuration has no site {unknown[0]!r}")
        app = load_app(settings, config)
        url = transport or transport_url(settings, config)
        endpoint = open_endpoint(url, address or sites[0])
        stack.callback(endpoint.close)

        def keep(_site: str, parameters: Parameters) -> None:
            if model is not None:
                save_tensors(model, parameters.arrays())

        host = SiteHost(
            endpoint, dict.fromkeys(sites, app.client), Telemetry(), on_model=None if model is None else keep
        )
        end = host.run()
        if end.status == "failed":
            raise RunError(f"the run failed: {end.reason}")


@main.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--verify", is_flag=True, help="Check every digest; without it only the header is read.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def inspect(file: Path, verify: bool, as_json: bool) -> None:
    """Show what a frame holds: tensors, dtypes, shapes, sizes, metadata.

    \b
    Examples:
      fedpost inspect model.fedwt
      fedpost inspect --verify --json model.fedwt
    """  # noqa: D301 - \b keeps click from joining the lines
    from fedpost.report.inspection import describe  # noqa: PLC0415 - only this command needs it

    with _errors():
        found = describe(file, verify=verify, limits=DEFAULT_LIMITS)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found, enc_hook=str)).decode())
        return
    facts = Table.grid(padding=(0, 2))
    ratio = f"  ({found.raw / found.stored:.2f}x)" if found.stored else ""
    rows = {
        "file": found.path,
        "size": human_bytes(found.bytes),
        "digest": f"{found.digest}  ({'every segment verified' if found.verified else 'header verified'})",
        "checksum": found.checksum,
        "pipeline": found.pipeline or "no tensors",
        "tensors": f"{len(found.tensors)} in {found.segments} segments, {human_bytes(found.raw)}{ratio}",
        **{f"metadata {key}": str(value) for key, value in found.metadata.items()},
        **{
            f"{part} {key}": str(value)
            for part, values in (found.message or {}).items()
            for key, value in values.items()
        },
    }
    for key, value in rows.items():
        facts.add_row(Text(plain(key), style="bold"), Text(plain(value)))
    console = Console()
    console.print(facts)
    if found.tensors:
        table = Table("tensor", "dtype", "shape", box=None, padding=(0, 2, 0, 0), header_style="bold")
        table.add_column("raw", justify="right")
        table.add_column("stored", justify="right")
        for tensor in found.tensors:
            shape = "×".join(map(str, tensor.shape)) or "scalar"
            cells = (tensor.name, tensor.dtype, shape, human_bytes(tensor.raw), human_bytes(tensor.stored))
            table.add_row(*(Text(plain(cell)) for cell in cells))
        console.print()
        console.print(table)


@main.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def report(folder: Path) -> None:
    """Write a run's report page anew from its ledger.

    \b
    Example:
      fedpost report runs/digits-20260101-120000-ab12
    """  # noqa: D301 - \b keeps click from joining the lines
    from fedpost.report import write_report  # noqa: PLC0415 - matplotlib is slow to load

    with _errors():
        write_report(folder / "ledger.jsonl", folder / "report.html")
    click.echo(str(folder / "report.html"))


# ── behind the commands ──────────────────────────────────────────────────────────────────────────────────────────────


def _serve(
    settings: RunConfig,
    app: App,
    run_id: str,
    url: str,
    folder: Path,
    *,
    as_json: bool,
    processes: SiteProcesses | None = None,
) -> None:
    # matplotlib is slow to load: now, while the sites start, and not when somebody waits for the end after Ctrl-C.
    with _uninterrupted():  # an exception in the middle of loading it can end the interpreter
        from fedpost.report import plots  # noqa: F401, PLC0415
        from fedpost.report.live import LiveView  # noqa: PLC0415
        from fedpost.report.page import write_page  # noqa: PLC0415

    signal.signal(signal.SIGTERM, _interrupt)
    summarizer = Summarizer()
    console = Console()
    ledger = folder / "ledger.jsonl"
    result: RunResult | None = None
    view = None if as_json else LiveView(console)
    try:
        with ExitStack() as stack:
            sinks: list[Sink] = [stack.enter_context(JsonLinesSink(ledger)), summarizer]
            if view is not None:
                sinks.append(stack.enter_context(view))
            telemetry = Telemetry(*sinks)
            telemetry.event("run_started", _facts(settings, run_id, url))
            endpoint = open_endpoint(url, SERVER)
            stack.callback(endpoint.close)
            lost = processes.lost if processes else dict
            result = Server(
                endpoint,
                settings.build_strategy(app),
                ServerSettings(
                    run=run_id,
                    name=settings.name,
                    sites=frozenset(settings.site_names),
                    rounds=settings.rounds,
                    folder=folder,
                    pipelines=settings.pipelines(),
                    seed=settings.seed,
                    round_timeout=settings.round_timeout,
                    register_timeout=settings.register_timeout,
                    attempts=settings.attempts,
                ),
                telemetry,
                lost=lost,
            ).run()
    finally:
        if processes is not None:
            processes.release(_END_GRACE if result is not None and result.status == "finished" else 0)
        with _uninterrupted():
            write_page(summarizer.summary(), ledger.name, folder / "report.html")
        if view is not None:
            console.print(view.final_table(summarizer.summary()))
            console.print(Text(f"{folder}/  model.fedwt  ledger.jsonl  report.html", style="dim"))
    if as_json:
        click.echo(_result_json(result, summarizer.summary(), folder))
    if result.status == "interrupted":
        sys.exit(_INTERRUPTED_EXIT)


def _facts(settings: RunConfig, run_id: str, url: str) -> dict[str, Any]:
    def text(value: str | dict[str, str]) -> str:
        return value if isinstance(value, str) else ", ".join(f"{key}: {stage}" for key, stage in value.items())

    return {
        "run": run_id,
        "name": settings.name,
        "rounds": settings.rounds,
        "sites": len(settings.site_names),
        "transport": url,
        "update": text(settings.update),
        "serialization": text(settings.serialization),
        "compression": text(settings.compression),
        "checksum": settings.checksum,
        "seed": settings.seed,
    }


def _result_json(result: RunResult, summary: RunSummary, folder: Path) -> str:
    out = {
        "status": result.status,
        "folder": str(folder),
        "seconds": summary.seconds,
        "bytes": summary.bytes,
        "rounds": result.history,
    }
    return msgspec.json.format(msgspec.json.encode(out)).decode()


def _tidy(url: str) -> None:
    """Remove the empty folders of a mailbox that only this run used; what was refused stays for a person to look at."""
    if not url.startswith("file:"):
        return
    for folder, _, _ in os.walk(path_of(url), topdown=False):
        with suppress(OSError):  # not empty
            Path(folder).rmdir()


def _run_folder(settings: RunConfig, run_id: str, config: Path) -> Path:
    folder = Path(settings.output) / run_id
    folder.mkdir(parents=True)
    (folder / "run.yaml").write_bytes(config.read_bytes())
    return folder


def _overrides(pairs: tuple[str, ...]) -> dict[str, str]:
    out = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign or not key:
            raise click.UsageError(f"--set {pair!r}: write KEY=VALUE")
        out[key] = value
    return out


@contextmanager
def _errors() -> Iterator[None]:
    """Our errors as one line on standard error; Ctrl-C as an exit code."""
    try:
        yield
    except FedpostError as error:
        _complain(error)
        sys.exit(_USAGE_EXIT if isinstance(error, ConfigError) else 1)
    except OSError as error:
        _complain(error)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED_EXIT)


def _complain(error: Exception) -> None:
    """One message on standard error; what other machines sent cannot move the cursor or change colours."""
    lines = "\n".join(plain(line, limit=2000) for line in str(error).splitlines())
    Console(stderr=True).print(Text.assemble(("error: ", "bold red"), lines), soft_wrap=True)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Put Ctrl-C and termination off until the end of the block."""
    pending: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda number, _frame: pending.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if pending:
        raise KeyboardInterrupt


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _interrupt_at_end_of_input() -> None:
    """End this process as Ctrl-C would when the parent's end of the pipe closes, however the parent ended."""
    while os.read(0, 4096):
        pass
    # Not SIGINT, which stays ignored in a process that was started in the background of a script.
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(_KILL_SECONDS)
    os._exit(_INTERRUPTED_EXIT)  # the user's code has swallowed the interruption
