"""A federation that can be followed and stopped: every site adds a number of its own to the model.

Each site writes ``<site>.share`` (its process's id) when its client is made, and ``<site>.round-<n>`` when it trains. A
site that is held waits in ``fit`` until ``<site>.go`` or ``go`` is there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import fedpost

HOLD_SECONDS = 240


class Adding(fedpost.NumPyClient):
    """Adds ``number`` to the model, with a little noise of its own."""

    def __init__(self, site: str, number: int, folder: Path, hold: Sequence[int], seed: int) -> None:
        """Read the site's share; only its own process does."""
        self.site, self.number, self.folder, self.hold = site, number, folder, hold
        self.random = np.random.default_rng([seed, number])
        (folder / f"{site}.share").open("a").write(f"{os.getpid()}\n")

    def fit(self, parameters, config):
        """Add, once the gate is open."""
        number = int(config["round"])
        (self.folder / f"{self.site}.round-{number}").write_text(str(os.getpid()))
        if number in self.hold:
            deadline = time.monotonic() + HOLD_SECONDS
            while not (self.folder / f"{self.site}.go").exists() and not (self.folder / "go").exists():
                if time.monotonic() > deadline:
                    raise TimeoutError("nobody opened the gate")
                time.sleep(0.01)
        weight, steps = parameters
        weight = weight + np.float32(self.number) + self.random.normal(size=weight.shape).astype(np.float32)
        return [weight, steps + 1], self.number, {"number": np.float32(self.number)}

    def evaluate(self, parameters, config):
        """The distance from zero."""
        return float(np.abs(parameters[0]).mean()), self.number, {"ok": True}


def app(
    *,
    sites: Sequence[str],
    seed: int,
    folder: str,
    hold: dict[str, list[int]] | None = None,
    size: int = 1000,
    initial: bool = True,
    accuracy: bool = True,
) -> fedpost.App:
    """What fedpost needs.

    ``hold`` gives the rounds in which a site waits for its gate.
    """
    shared = Path(folder)

    def client(site: str) -> Adding:
        return Adding(site, sites.index(site) + 1, shared, (hold or {}).get(site, []), seed)

    def evaluate(server_round, arrays, config):
        (shared / "server.pid").write_text(str(os.getpid()))
        return float(np.abs(arrays[0]).mean()), {"accuracy": min(0.1 * server_round, 1.0)}

    model = {"weight": np.zeros((size, 4), np.float32), "steps": np.array(0, np.int64)}
    return fedpost.App(
        client=client,
        initialize=(lambda: model) if initial else None,
        evaluate=evaluate if accuracy else None,
        fit_config=lambda server_round: {"round": server_round},
    )
