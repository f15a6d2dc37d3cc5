"""Sites that each go wrong in their own way, by name; those of another name do as they should."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Sequence

import numpy as np

import fedpost


def _raises(parameters):
    raise RuntimeError("the disk is full \x1b[2J")


def _stubborn(parameters):
    while True:
        with contextlib.suppress(BaseException):  # as careless code does
            time.sleep(60)


FAULTS = {
    "raises": _raises,
    "exits": lambda parameters: sys.exit(3),
    "dies": lambda parameters: os._exit(9),
    "stubborn": _stubborn,
    "shape": lambda parameters: ([parameters[0].T.copy(), parameters[1]], 1, {}),
    "dtype": lambda parameters: ([parameters[0].astype(np.float64), parameters[1]], 1, {}),
    "count": lambda parameters: (parameters[:1], 1, {}),
    "extra": lambda parameters: ({"weight": parameters[0], "steps": parameters[1], "own": parameters[0]}, 1, {}),
    "missing": lambda parameters: ({"weight": parameters[0]}, 1, {}),
    "nan": lambda parameters: ([np.full_like(parameters[0], np.nan), parameters[1]], 1, {}),
    "inf": lambda parameters: ([np.full_like(parameters[0], -np.inf), parameters[1]], 1, {}),
    "metric": lambda parameters: (parameters, 1, {"m": [1, 2]}),
}


class Faulty(fedpost.NumPyClient):
    """Does what its site's name says."""

    def __init__(self, site: str, folder: str) -> None:
        """Keep the name."""
        self.site, self.folder = site, folder

    def fit(self, parameters, config):
        """Fail, or give the model back."""
        if self.folder:
            with open(os.path.join(self.folder, f"{self.site}.round"), "w") as file:  # noqa: PTH118, PTH123
                file.write(str(os.getpid()))
        return FAULTS.get(self.site, lambda given: (given, 1, {}))(parameters)


def app(*, sites: Sequence[str], seed: int, folder: str = "") -> fedpost.App:
    """What fedpost needs."""
    model = {"weight": np.ones((3, 2), np.float32), "steps": np.array(0, np.int64)}
    return fedpost.App(client=lambda site: Faulty(site, folder), initialize=lambda: model)
