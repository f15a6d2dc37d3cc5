"""What a round costs beyond training: ten sites in ten processes, mailboxes in a folder, clients without work."""

from __future__ import annotations

import multiprocessing
import shutil
from functools import partial
from pathlib import Path
from tempfile import mkdtemp

from measure import Case, Context, Target, figures
from peers import make_arrays

from fedpost.federation import Client, FedAvg, FitIns, FitRes, Server, ServerSettings, SiteHost
from fedpost.telemetry import NO_TELEMETRY, JsonLinesSink, Telemetry
from fedpost.transports import open_endpoint

__all__ = ["run"]

SITES = 10
QUIET = "fedpost, 10 sites, nothing recorded"
LEDGER = "fedpost, 10 sites, every byte recorded in a ledger"
_BOUND = 0.05


class _AtOnce(Client):
    """Returns what it was given."""

    def fit(self, ins: FitIns) -> FitRes:
        return FitRes(ins.parameters, 1)


def _client(_name: str) -> Client:
    return _AtOnce()


def _serve(url: str, name: str) -> None:
    """Host one site until the run has ended; runs in a process of its own."""
    SiteHost(open_endpoint(url, name), {name: _client}, NO_TELEMETRY).run()


def _federation(folder: Path, count: int, rounds: int, telemetry: Telemetry) -> list[float]:
    """Seconds of each round of so many sites."""
    url = (folder / "mail").as_uri()
    spawn = multiprocessing.get_context("spawn")
    sites = [spawn.Process(target=_serve, args=(url, f"site-{number}"), daemon=True) for number in range(count)]
    for site in sites:
        site.start()

    def lost() -> dict[str, str]:
        if any(site.exitcode for site in sites):
            raise RuntimeError("a site's process failed; see above")
        return {}

    try:
        strategy = FedAvg(
            min_fit_clients=count,
            min_available_clients=count,
            initial_parameters=make_arrays(10, (50, 50)),  # 10 tensors of 10,000 bytes
        )
        settings = ServerSettings(run="bench", name="bench", rounds=rounds + 1, folder=folder)
        endpoint = open_endpoint(url, "server")
        try:
            result = Server(endpoint, strategy, settings, telemetry, lost=lost).run()
        finally:
            endpoint.close()
        for site in sites:
            site.join(10)
    finally:
        for site in sites:
            site.kill()
            site.join()
    return [report.seconds for report in result.history if report.number > 1]  # the first one warms up


def run(context: Context) -> Case:
    """Measure in the scratch folder."""
    rounds = context.pick(full=200, quick=20, tiny=1)
    sites = context.pick(full=SITES, quick=SITES, tiny=1)
    samples: dict[str, list[float]] = {QUIET: [], LEDGER: []}
    for done, name in enumerate([QUIET, LEDGER]):
        folder = Path(mkdtemp(prefix="fedpost-bench-", dir=context.scratch))
        try:
            federate = partial(_federation, folder, sites, rounds)
            if name == QUIET:
                samples[name] = federate(NO_TELEMETRY)
            else:
                with JsonLinesSink(folder / "telemetry.jsonl") as sink:
                    samples[name] = federate(Telemetry(sink))
        finally:
            shutil.rmtree(folder)
        context.tick(done + 1, 2)
    found = figures("round", samples, ours=QUIET)
    return Case(
        name="rounds",
        title="A round of 10 sites in 10 processes, 100 KB model, without training",
        note="Mailbox transport in a folder (tmpfs where there is one); fit returns what it was given; BLAKE3 digests. "
        "A round is: encode, send 10 commands, decode, answer, receive, check, spool, average, save the model. 11 "
        "processes share the cores.",
        figures=found,
        targets=[
            Target(text=f"a round, {row.name.removeprefix('fedpost, ')}", value=row.median, bound=_BOUND, unit="s")
            for row in found
        ],
    )
