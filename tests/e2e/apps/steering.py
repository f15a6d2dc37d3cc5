"""A model that drifts by small random steps, the same for each site and round; a site may be held, as in ``adding``."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import fedpost

HOLD_SECONDS = 240
SHAPE = (300, 100)


class Steering(fedpost.NumPyClient):
    """Moves everything a little, at random."""

    def __init__(self, site: str, number: int, folder: Path, hold: Sequence[int]) -> None:
        """Remember who this is."""
        self.site, self.number, self.folder, self.hold = site, number, folder, hold

    def fit(self, parameters, config):
        """Move, once the gate is open."""
        number = int(config["round"])
        (self.folder / f"{self.site}.round-{number}").write_text(str(os.getpid()))
        if number in self.hold:
            deadline = time.monotonic() + HOLD_SECONDS
            while not (self.folder / f"{self.site}.go").exists() and not (self.folder / "go").exists():
                if time.monotonic() > deadline:
                    raise TimeoutError("nobody opened the gate")
                time.sleep(0.01)
        step = np.random.default_rng([self.number, number]).normal(scale=0.01, size=SHAPE)
        return [parameters[0] + step.astype(np.float32)], 1, {}


def app(*, sites: Sequence[str], seed: int, folder: str, hold: dict[str, list[int]] | None = None) -> fedpost.App:
    """What fedpost needs."""
    shared = Path(folder)
    model = {"weight": np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)}
    return fedpost.App(
        client=lambda site: Steering(site, sites.index(site), shared, (hold or {}).get(site, [])),
        initialize=lambda: model,
        fit_config=lambda server_round: {"round": server_round},
    )
