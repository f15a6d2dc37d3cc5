"""Fashion-MNIST, learned by a hundred sites that each hold a few kinds of clothes: a small convolutional network.

The 60,000 training images come with Debian's package ``dataset-fashion-mnist``. They are split over the sites, each
class by a Dirichlet distribution; the server never reads them. It tests the model on the package's 10,000 test images.
"""

from __future__ import annotations

import functools
import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import fedpost
from fedpost.errors import ConfigError, MissingExtraError

try:
    import torch
    from torch import nn
except ImportError as error:
    raise MissingExtraError("this example trains with PyTorch", hint="pip install 'fedpost[torch]'") from error

from fedpost.federation import FitIns, FitRes
from fedpost.integrations.torch import get_state, set_state

DATASET = "/usr/share/datasets/fashion-mnist"
CLASSES = 10
BATCH = 32
SIDE = 28
MEAN, DEVIATION = 0.2860, 0.3530  # of the training images, with pixels from 0 to 1
TEST_BATCH = 100
# IDX: two zero bytes, 8 for unsigned bytes, the number of dimensions, then each length as a big-endian integer.
IDX_BYTES = b"\x00\x00\x08"


class FashionClient(fedpost.Client):
    """Trains the network on one site's images.

    Args:
        model: The network; the sites of one process may share it, since every ``fit`` starts with ``set_state``.
        images: The process's training images; only those of ``mine`` are touched.
        labels: Their labels.
        mine: Indices of the site's own images.
        seed: Seeds the order of the images, together with the round.
    """

    def __init__(
        self, model: nn.Module, images: np.ndarray, labels: np.ndarray, mine: np.ndarray, seed: tuple[int, int]
    ) -> None:
        """Keep what the site trains with."""
        self.model, self.images, self.labels, self.mine, self.seed = model, images, labels, mine, seed

    def fit(self, ins: FitIns) -> FitRes:
        """Train from the global model by plain SGD; a last batch that is not full is left out."""
        if len(self.mine) < BATCH:  # not one full batch: 0 examples give the result no weight
            return FitRes(ins.parameters, 0)
        set_state(self.model, ins.parameters.arrays())
        self.model.train()
        optimizer = torch.optim.SGD(self.model.parameters(), lr=float(ins.config["learning_rate"]))
        random = np.random.default_rng((*self.seed, int(ins.config["round"])))
        losses = []
        for _ in range(int(ins.config["epochs"])):
            order = random.permutation(self.mine)
            for start in range(0, len(order) - BATCH + 1, BATCH):
                batch = order[start : start + BATCH]
                optimizer.zero_grad()
                scores = self.model(normalized(self.images[batch]))
                loss = nn.functional.cross_entropy(scores, torch.from_numpy(self.labels[batch]))
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
        # The arrays are the network's own memory: they are sent before another site of this process trains.
        trained = fedpost.Parameters.of(get_state(self.model))
        return FitRes(trained, len(self.mine), {"train_loss": float(np.mean(losses))})


def app(
    *,
    sites: Sequence[str],
    seed: int,
    alpha: float = 0.3,
    epochs: int = 1,
    learning_rate: float = 0.05,
    evaluate_every: int = 5,
    dataset: str = DATASET,
) -> fedpost.App:
    """What fedpost needs: a client for each site, an initial model, and a way to evaluate it."""
    torch.set_num_threads(1)  # the processes share the cores, and sums do not depend on how many there are
    folder = Path(dataset)
    if not (folder / "train-images-idx3-ubyte.gz").is_file():
        raise ConfigError(f"Fashion-MNIST is not in {folder}", hint="apt-get install dataset-fashion-mnist")

    @functools.cache
    def shared() -> tuple[nn.Module, np.ndarray, np.ndarray, list[np.ndarray]]:
        # Once in a process that hosts sites, when the first of them is asked to train.
        images, labels = read_images(folder, "train")
        return new_model(seed), images, labels, dirichlet_split(labels, len(sites), alpha, seed)

    def client(site: str) -> FashionClient:
        model, images, labels, parts = shared()
        number = sites.index(site)
        return FashionClient(model, images, labels, parts[number], (seed, number))

    @functools.cache
    def test_set() -> tuple[nn.Module, np.ndarray, np.ndarray]:
        return new_model(seed), *read_images(folder, "t10k")

    def evaluate(
        server_round: int,
        parameters: list[np.ndarray],
        config: dict[str, object],
    ) -> tuple[float, dict[str, float]] | None:
        if server_round % evaluate_every:
            return None
        model, images, labels = test_set()
        set_state(model, parameters)
        return loss_and_accuracy(model, images, labels)

    return fedpost.App(
        client=client,
        initialize=lambda: get_state(new_model(seed)),
        evaluate=evaluate,
        fit_config=lambda server_round: {"round": server_round, "epochs": epochs, "learning_rate": learning_rate},
    )


def read_images(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images as bytes, count x 28 x 28, and labels as int64, of ``train`` or ``t10k``."""
    images = read_idx(folder / f"{part}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{part}-labels-idx1-ubyte.gz")
    if images.shape != (len(labels), SIDE, SIDE):
        raise ConfigError(f"{len(labels)} labels for images of {images.shape}", where=str(folder))
    return images, labels.astype(np.int64)


def read_idx(path: Path) -> np.ndarray:
    """An IDX file of unsigned bytes, compressed with gzip."""
    data = gzip.decompress(path.read_bytes())
    if data[:3] != IDX_BYTES:
        raise ConfigError("it is no IDX file of unsigned bytes", where=str(path))
    shape = np.frombuffer(data, ">u4", count=data[3], offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + shape.nbytes).reshape(shape)


def normalized(images: np.ndarray) -> torch.Tensor:
    """Images as the network takes them: float32, count x 1 x 28 x 28, about mean 0 and deviation 1."""
    return torch.from_numpy(((images[:, None] / np.float32(255)) - np.float32(MEAN)) / np.float32(DEVIATION))


def dirichlet_split(labels: np.ndarray, sites: int, alpha: float, seed: int) -> list[np.ndarray]:
    """Indices for each site: every class is split by its own Dirichlet(alpha) draw (Hsu et al., 2019)."""
    random = np.random.default_rng(seed)
    parts: list[list[np.ndarray]] = [[] for _ in range(sites)]
    for label in range(CLASSES):
        members = random.permutation(np.flatnonzero(labels == label))
        cuts = (np.cumsum(random.dirichlet([alpha] * sites))[:-1] * len(members)).astype(int)
        for part, indices in zip(parts, np.split(members, cuts), strict=True):
            part.append(indices)
    return [np.concatenate(part) for part in parts]


def new_model(seed: int) -> nn.Module:
    """An untrained network of 215,370 parameters, the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 16, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * 7 * 7, 128),
            nn.ReLU(),
            nn.Linear(128, CLASSES),
        )


@torch.inference_mode()
def loss_and_accuracy(model: nn.Module, images: np.ndarray, labels: np.ndarray) -> tuple[float, dict[str, float]]:
    """Mean loss and accuracy over the images."""
    model.eval()
    loss, right = 0.0, 0
    for start in range(0, len(labels), TEST_BATCH):
        scores = model(normalized(images[start : start + TEST_BATCH]))
        truth = torch.from_numpy(labels[start : start + TEST_BATCH])
        loss += nn.functional.cross_entropy(scores, truth, reduction="sum").item()
        right += int((scores.argmax(dim=1) == truth).sum())
    return loss / len(labels), {"accuracy": right / len(labels)}
