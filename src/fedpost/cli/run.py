"""``fedpost run``, ``server`` and ``client``: a federation on this machine, or a part of one."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.text import Text

from fedpost.cli.errors import INTERRUPTED_EXIT, as_json_text, errors
from fedpost.cli.signals import interrupt, interrupt_at_end_of_input, uninterrupted
from fedpost.config import RunConfig, load_app, load_config, new_run_id, transport_url
from fedpost.errors import RunError
from fedpost.federation import SERVER, App, Parameters, RunResult, Server, ServerSettings, SiteHost, SiteProcesses
from fedpost.frame.hold import Hold
from fedpost.pipeline import save_tensors
from fedpost.report.runs import keep_figures
from fedpost.report.summary import RunSummary, Summarizer
from fedpost.telemetry import JsonLinesSink, Sink, Telemetry
from fedpost.transports import open_endpoint
from fedpost.transports.transport import path_of

__all__ = ["client_command", "run_command", "server_command"]

_END_GRACE: Final = 5.0

_config_argument = click.argument("config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
_set_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of the configuration: rounds=5."
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, and no live view.")


@click.command("run")
@_config_argument
@_set_option
@_json_option
def run_command(config: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Run a whole federation on this machine: the server here, every site in a process of its own.

    \b
    Examples:
      fedpost run examples/digits/run.yaml
      fedpost run examples/digits/run.yaml --set rounds=5 --set compression=zstd
    """  # noqa: D301 - \b keeps click from joining the lines
    with errors(as_json=as_json):
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
        folder = _run_folder(settings, run_id, config, overrides)
        try:
            with SiteProcesses(commands, folder / "logs") as processes:
                _serve(settings, app, run_id, url, folder, as_json=as_json, processes=processes)
        finally:
            _tidy(url)


@click.command("server")
@_config_argument
@_set_option
@click.option("--transport", help="URL of the medium, in place of the configuration's.")
@_json_option
def server_command(config: Path, overrides: tuple[str, ...], transport: str | None, as_json: bool) -> None:
    """Run the server of a federation; the sites join with `fedpost client`.

    \b
    Examples:
      fedpost server run.yaml
      fedpost server run.yaml --transport file:///mnt/share/federation
    """  # noqa: D301 - \b keeps click from joining the lines
    with errors(as_json=as_json):
        settings = load_config(config, _overrides(overrides))
        run_id = new_run_id(settings.name)
        url = transport or transport_url(settings, config)
        app = load_app(settings, config)
        said = (*overrides, *([f"transport={transport}"] if transport else []))
        _serve(settings, app, run_id, url, _run_folder(settings, run_id, config, said), as_json=as_json)


@click.command("client")
@_config_argument
@click.option("--site", "sites", multiple=True, required=True, help="The site's name; repeat it to host several.")
@_set_option
@click.option("--transport", help="URL of the medium, in place of the configuration's.")
@click.option("--address", help="Where the server's messages go; the first site's name without it.")
@click.option("--model", type=click.Path(dir_okay=False, path_type=Path), help="Write the final model to this file.")
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep in this folder what the site needs to go on after a restart.",
)
@click.option("--ends-with-stdin", is_flag=True, hidden=True)
def client_command(
    config: Path,
    sites: tuple[str, ...],
    overrides: tuple[str, ...],
    transport: str | None,
    address: str | None,
    model: Path | None,
    state: Path | None,
    ends_with_stdin: bool,
) -> None:
    """Take part in a federation as a site, until the run ends.

    \b
    Examples:
      fedpost client run.yaml --site hospital-3
      fedpost client run.yaml --site hospital-3 --model final.fedwt
      fedpost client run.yaml --site hospital-3 --state state
    """  # noqa: D301 - \b keeps click from joining the lines
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    signal.signal(signal.SIGTERM, interrupt)
    if ends_with_stdin:
        threading.Thread(target=interrupt_at_end_of_input, daemon=True).start()
    with errors(), ExitStack() as stack:
        if state is not None:
            state.mkdir(parents=True, exist_ok=True)
            stack.callback(Hold(state / "lock").release)
        settings = load_config(config, _overrides(overrides))
        if unknown := [site for site in sites if site not in settings.site_names]:
            raise click.UsageError(f"the configuration has no site {unknown[0]!r}")
        app = load_app(settings, config)
        url = transport or transport_url(settings, config)
        endpoint = open_endpoint(url, address or sites[0])
        stack.callback(endpoint.close)

        kept: list[str] = []

        def keep(site: str, parameters: Parameters) -> None:
            if model is not None:
                save_tensors(model, parameters.arrays())
                kept.append(site)

        host = SiteHost(
            endpoint,
            dict.fromkeys(sites, app.client),
            Telemetry(),
            on_model=None if model is None else keep,
            state=state,
        )
        end = host.run()
        if end.status == "failed":
            raise RunError(f"the run failed: {end.reason}")
        if model is not None and not kept:
            raise RunError(f"the final model did not come, so there is no {model}")


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
    with uninterrupted():  # an exception in the middle of loading it can end the interpreter
        from fedpost.report import plots  # noqa: F401, PLC0415
        from fedpost.report.live import LiveView  # noqa: PLC0415
        from fedpost.report.page import write_page  # noqa: PLC0415

    signal.signal(signal.SIGTERM, interrupt)
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
        with uninterrupted():
            keep_figures(summarizer.summary(), folder)
            write_page(summarizer.summary(), ledger.name, folder / "report.html", beside=folder)
        if view is not None:
            console.print(view.final_table(summarizer.summary()))
            console.print(Text(f"{folder}/  model.fedwt  ledger.jsonl  report.html", style="dim"))
    if as_json:
        click.echo(_result_json(result, summarizer.summary(), folder))
    if result.status == "interrupted":
        sys.exit(INTERRUPTED_EXIT)


def _facts(settings: RunConfig, run_id: str, url: str) -> dict[str, Any]:
    def text(value: Any) -> str:
        if isinstance(value, list):
            return " | ".join(value)
        return value if isinstance(value, str) else ", ".join(f"{key}: {text(stage)}" for key, stage in value.items())

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
    return as_json_text(out)


def _tidy(url: str) -> None:
    """Remove the empty folders of a mailbox that only this run used; what was refused stays for a person to look at."""
    if not url.startswith("file:"):
        return
    for folder, _, _ in os.walk(path_of(url), topdown=False):
        with suppress(OSError):  # not empty
            Path(folder).rmdir()


def _run_folder(settings: RunConfig, run_id: str, config: Path, overrides: tuple[str, ...]) -> Path:
    """The run's folder, with its configuration; what the command line said instead stands before it, as comments."""
    folder = Path(settings.output) / run_id
    folder.mkdir(parents=True)
    said = "".join(f"# --set {pair.encode('unicode_escape').decode()}\n" for pair in overrides)
    (folder / "run.yaml").write_bytes(said.encode() + config.read_bytes())
    return folder


def _overrides(pairs: tuple[str, ...]) -> dict[str, str]:
    out = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign or not key:
            raise click.UsageError(f"--set {pair!r}: write KEY=VALUE")
        out[key] = value
    return out
