"""One run: a hundred sites and their server in one process, with every update coded, counted and decoded.

Rules: the sites, the split, the model and the training are those of ``examples/fashion_mnist/app.py``, and the draws
of sites those of ``fedpost run``. What a site or the server goes on with is what was decoded from bytes. With packets
the global model is ``ref[v] = ref[v-1] + decode(packet[v])`` for the server too, which keeps what a packet lost.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
import torch
from torch import nn

import fedpost
from fashion.coders import PipelineCoder
from fashion.rows import DENSE, SNAPSHOT, Row, coder_of
from fedpost.codecs import Base, Residual
from fedpost.federation import FitIns
from fedpost.federation.aggregation import WeightedMean, reduce_blocks
from fedpost.integrations.torch import set_state
from fedpost.tensors import Array

__all__ = ["PER_ROUND", "simulate"]

_SITES: Final = 100
PER_ROUND: Final = 10
_EVALUATE_EVERY: Final = 5
_EXAMPLE: Final = Path(__file__).parents[2] / "examples" / "fashion_mnist" / "app.py"
_FIT: Final = 1  # what the server adds to the seeds of its draws of sites that train

Model = dict[str, Array]


def example() -> ModuleType:
    """The example's module."""
    spec = importlib.util.spec_from_file_location("fashion_mnist_app", _EXAMPLE)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(_EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def simulate(
    row: Row, seed: int, rounds: int, tell: Callable[[int], None], *, per_round: int = PER_ROUND
) -> dict[str, Any]:
    """Train, and keep account of every byte.

    Args:
        row: The codecs of both directions.
        seed: Of the split, of the first model, of the draws and of the order of images.
        rounds: How many.
        tell: Called with the number of each round that is done.
        per_round: How many sites train in a round.

    Returns:
        What the table is made of, as JSON carries it: bytes by round; index 0 of ``packets`` and ``snapshots`` is the
        model that the run starts with.
    """
    names = [f"site-{index:0{len(str(_SITES - 1))}d}" for index in range(_SITES)]
    module = example()
    app = module.app(sites=names, seed=seed)
    network = _quick(module.new_model(seed))
    test_set = module.read_images(Path(module.DATASET), "t10k")
    up, down, snapshot = coder_of(row.up), coder_of(row.down), PipelineCoder(SNAPSHOT)
    model = _owned(app.initialize())
    base = Base.of(model)
    kept: dict[str, Residual] = {}
    server_kept: Residual | None = None
    uplinks, taking_part, evaluations = [], [], []
    packets = [len(PipelineCoder(DENSE).encode(model, base, None)[0])]
    snapshots = [len(snapshot.encode(model, base, None)[0])]
    started = time.perf_counter()
    for number in range(1, rounds + 1):
        results, counts, sizes, sites = [], [], [], []
        for name in _drawn(names, per_round, (seed, number, 1, _FIT)):
            client = app.client(name)
            client.model = network
            fitted = client.fit(FitIns(fedpost.Parameters.of(model), app.fit_config(number)))
            if not fitted.num_examples:
                continue
            data, lost = up.encode(_owned(fitted.parameters.arrays()), base, kept.get(name))
            results.append(fedpost.Parameters.of(up.decode(data, base)))
            kept[name] = lost
            counts.append(fitted.num_examples)
            sizes.append(len(data))
            sites.append(name)
        mean = reduce_blocks(results, WeightedMean(counts)).arrays()
        data, lost = down.encode(mean, base, server_kept)
        if row.packets:
            model, server_kept = _owned(down.decode(data, base)), lost
        else:
            model = mean
        base = Base.of(model)
        uplinks.append(sizes)
        taking_part.append([names.index(name) for name in sites])
        packets.append(len(data))
        snapshots.append(len(snapshot.encode(model, base, None)[0]))
        if number % _EVALUATE_EVERY == 0 or number == rounds:
            set_state(network, model)
            loss, metrics = module.loss_and_accuracy(network, *test_set)
            evaluations.append([number, loss, metrics["accuracy"]])
        tell(number)
    return {
        "row": row.name,
        "up": row.up,
        "down": row.down,
        "seed": seed,
        "rounds": rounds,
        "raw": sum(array.nbytes for array in model.values()),
        "evaluations": evaluations,
        "uplinks": uplinks,
        "sites": taking_part,
        "packets": packets,
        "snapshots": snapshots,
        "chosen": up.facts(),
        "seconds": round(time.perf_counter() - started, 1),
        "versions": {"torch": torch.__version__, "numpy": np.__version__},
    }


def _drawn(names: list[str], count: int, seeds: tuple[int, ...]) -> list[str]:
    """The sites that a federation of these draws in a round, when all answer."""
    order = np.random.default_rng(seeds).permutation(len(names))
    return [names[index] for index in sorted(order[:count])]


def _quick(network: nn.Sequential) -> nn.Sequential:
    """The same network, to the bit of every gradient, made faster on CPUs.

    Channels come last in memory, and the rectifier, which is monotone, comes after the pooling that follows it: then it
    has a quarter of the work. The names of the parameters stay.
    """
    layers = list(network.named_children())
    for index in range(len(layers) - 1):
        if isinstance(layers[index][1], nn.ReLU) and isinstance(layers[index + 1][1], nn.MaxPool2d):
            layers[index : index + 2] = layers[index + 1], layers[index]
    return nn.Sequential(OrderedDict(layers)).to(memory_format=torch.channels_last)


def _owned(tensors: Any) -> Model:
    """Arrays of their own, in C order: a site's are the memory in which the next site trains."""
    return {name: np.array(array, order="C") for name, array in tensors.items()}
