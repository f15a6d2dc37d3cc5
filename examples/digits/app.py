"""Handwritten digits, learned by sites that each hold a part of them: scikit-learn's digits and its neural network.

The 1,797 images of 8 x 8 pixels come with scikit-learn. A fifth of them is the server's test set; the rest is split
over the sites, each class by a Dirichlet distribution, so that the sites see very different digits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

import fedpost

CLASSES = np.arange(10)
HIDDEN = 64


class DigitsClient(fedpost.NumPyClient):
    """Trains a one-layer perceptron on one site's images."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, seed: int) -> None:
        """Keep the site's own data."""
        self.images, self.labels = images, labels
        self.model = new_model(seed)

    def fit(self, parameters, config):
        """Train for a few epochs from the global model."""
        set_parameters(self.model, parameters)
        for _ in range(int(config.get("epochs", 1))):
            self.model.partial_fit(self.images, self.labels)
        return get_parameters(self.model), len(self.labels), {"loss": float(self.model.loss_)}


def app(sites: Sequence[str], seed: int, alpha: float = 0.3, epochs: int = 3) -> fedpost.App:
    """What fedpost needs: a client for each site, an initial model, and a way to evaluate it."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    train_x, test_x, train_y, test_y = train_test_split(images, labels, test_size=0.2, random_state=0, stratify=labels)
    parts = dirichlet_split(train_y, len(sites), alpha, seed)

    def client(site: str) -> DigitsClient:
        mine = parts[sites.index(site)]
        return DigitsClient(train_x[mine], train_y[mine], seed)

    def evaluate(server_round: int, parameters, config):
        model = new_model(seed)
        set_parameters(model, parameters)
        probabilities = model.predict_proba(test_x)
        accuracy = float(np.mean(probabilities.argmax(axis=1) == test_y))
        return float(log_loss(test_y, probabilities, labels=CLASSES)), {"accuracy": accuracy}

    return fedpost.App(
        client=client,
        initialize=lambda: get_parameters(new_model(seed)),
        evaluate=evaluate,
        fit_config=lambda server_round: {"epochs": epochs},
    )


def dirichlet_split(labels: np.ndarray, sites: int, alpha: float, seed: int) -> list[np.ndarray]:
    """Indices for each site: every class is split by its own Dirichlet(alpha) draw (Hsu et al., 2019)."""
    random = np.random.default_rng(seed)
    parts: list[list[np.ndarray]] = [[] for _ in range(sites)]
    for label in CLASSES:
        members = random.permutation(np.flatnonzero(labels == label))
        cuts = (np.cumsum(random.dirichlet([alpha] * sites))[:-1] * len(members)).astype(int)
        for part, indices in zip(parts, np.split(members, cuts), strict=True):
            part.append(indices)
    return [np.concatenate(part) for part in parts]


def new_model(seed: int) -> MLPClassifier:
    """An untrained network whose arrays exist already."""
    model = MLPClassifier((HIDDEN,), solver="sgd", learning_rate_init=0.1, batch_size=16, random_state=seed)
    model.partial_fit(np.zeros((16, 64), np.float32), np.resize(CLASSES, 16), classes=CLASSES)
    return model


def get_parameters(model: MLPClassifier) -> dict[str, np.ndarray]:
    """The network's arrays by name."""
    weights = {f"layer{i}.weight": array.astype(np.float32) for i, array in enumerate(model.coefs_)}
    return weights | {f"layer{i}.bias": array.astype(np.float32) for i, array in enumerate(model.intercepts_)}


def set_parameters(model: MLPClassifier, parameters: Sequence[np.ndarray]) -> None:
    """Put arrays into the network, in the order of :func:`get_parameters`."""
    count = len(model.coefs_)
    model.coefs_ = [array.copy() for array in parameters[:count]]
    model.intercepts_ = [array.copy() for array in parameters[count:]]
