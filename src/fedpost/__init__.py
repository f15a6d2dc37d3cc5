"""fedpost: the wire layer of federated learning.

What a user needs is here; everything is loaded when it is first touched, so ``import fedpost`` is cheap.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedpost.errors import FedpostError
    from fedpost.federation import (
        App,
        Client,
        FedAvg,
        NumPyClient,
        Parameters,
        Strategy,
    )
    from fedpost.frame import Limits
    from fedpost.objects import dump, dumps, load, loads, register
    from fedpost.pipeline import load_tensors, save_tensors

__all__ = [
    "App",
    "Client",
    "FedAvg",
    "FedpostError",
    "Limits",
    "NumPyClient",
    "Parameters",
    "Strategy",
    "dump",
    "dumps",
    "load",
    "load_tensors",
    "loads",
    "register",
    "save_tensors",
]

_HOMES = {
    **dict.fromkeys(__all__, "fedpost.federation"),
    "FedpostError": "fedpost.errors",
    "Limits": "fedpost.frame",
    **dict.fromkeys(("dump", "dumps", "load", "loads", "register"), "fedpost.objects"),
    "load_tensors": "fedpost.pipeline",
    "save_tensors": "fedpost.pipeline",
}


if not TYPE_CHECKING:  # or type checkers would take every name for one of ours

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'fedpost' has no attribute {name!r}")
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
