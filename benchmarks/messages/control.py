"""Four messages, and many records of one kind."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

__all__ = ["CLASSES", "ENUMERATIONS", "MESSAGES", "samples"]


class Phase(enum.Enum):
    """What a round is at."""

    TRAIN = "train"
    VALIDATE = "validate"
    SUBMIT = "submit"


class Status(enum.Enum):
    """How a site is."""

    READY = "ready"
    BUSY = "busy"
    DRAINING = "draining"


@dataclass
class Hyperparameters:
    """How to train."""

    optimizer: str
    learning_rate: float
    momentum: float
    weight_decay: float
    batch_size: int
    local_epochs: int
    clip_norm: float | None = None


@dataclass
class Device:
    """A processor that a site trains on."""

    name: str
    memory: int
    count: int
    capability: tuple[int, int]


@dataclass
class Sample:
    """One line of a site's log of predictions."""

    score: float
    label: int
    case: str
    weight: float


def _train() -> dict[str, Any]:
    return {
        "type": "train",
        "job": "7f3c1e52-chest-xray",
        "round": 12,
        "rounds": 50,
        "phase": Phase.TRAIN,
        "deadline": 1767225600.0,
        "hyperparameters": Hyperparameters("sgd", 0.01, 0.9, 1e-4, 32, 2, clip_norm=1.0),
        "model": {"name": "densenet121", "digest": "b1f0a6c2d94e7788", "format": "fedwt", "tensors": 364},
        "sites": ("site-berlin", "site-lyon", "site-oslo", "site-turin"),
        "frozen": {"features.conv0", "features.norm0"},
        "privacy": {"mechanism": "gaussian", "epsilon": 3.0, "delta": 1e-5, "noise": 0.8, "clip": 1.0},
        "upload": {"codec": "topk", "fraction": 0.1, "compression": "zstd(3)", "part": 1 << 22, "resume": True},
        "augmentation": {
            "flip": {"horizontal": True, "vertical": False, "probability": 0.5},
            "crop": {"size": [224, 224], "padding": 4},
            "normalize": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
        },
        "class_weights": np.linspace(0.5, 2.0, 14, dtype=np.float32),
        "schedule": np.geomspace(0.01, 0.0001, 10),
    }


def _register() -> dict[str, Any]:
    return {
        "type": "register",
        "site": "site-lyon",
        "organization": "Hospices",
        "status": Status.READY,
        "version": "1.4.2",
        "protocol": (1, 3),
        "address": {"host": "10.20.4.17", "port": 8443, "tls": True, "keepalive": 30.0},
        "codecs": {"dense", "topk", "lowrank", "cast", "delta"},
        "compressions": {"zstd", "lz4", "lx", "none"},
        "checksums": ("blake3", "sha256", "xxh3", "crc32c"),
        "limits": {"frame": 1 << 34, "header": 1 << 24, "segments": 1 << 18, "message": 1 << 22},
        "device": Device("NVIDIA A100", 42_949_672_960, 2, (8, 0)),
        "host": {
            "system": "Linux",
            "python": "3.11.7",
            "cpu": {"model": "EPYC 7543", "cores": 32, "threads": 64, "flags": ["avx2", "fma", "aes", "sha_ni"]},
            "memory": 270_582_939_648,
            "libraries": {"torch": "2.9.1", "numpy": "2.3.5", "monai": "1.5.1", "scikit-learn": "1.7.2"},
        },
        "datasets": [
            {"name": "train", "cases": 18_220, "patients": 9144, "modalities": ("CR", "DX")},
            {"name": "validation", "cases": 2276, "patients": 1150, "modalities": ("CR", "DX")},
        ],
        "label_counts": np.array([9512, 412, 1033, 87, 2210, 1508, 44, 301, 690, 1217, 155, 321, 95, 635], np.int64),
        "bandwidth": np.array([94.2, 88.7, 91.5, 90.1], np.float32),
    }


def _report() -> dict[str, Any]:
    labels = ("atelectasis", "cardiomegaly", "edema", "effusion", "mass", "nodule", "pneumonia", "pneumothorax")
    return {
        "type": "report",
        "job": "7f3c1e52-chest-xray",
        "site": "site-oslo",
        "round": 12,
        "phase": Phase.VALIDATE,
        "hyperparameters": Hyperparameters("sgd", 0.01, 0.9, 1e-4, 32, 2, clip_norm=1.0),
        "cases": 2276,
        "seconds": {"load": 4.12, "forward": 61.87, "metrics": 0.94, "total": 66.93},
        "metrics": {
            "loss": 0.1873,
            "auroc": 0.8421,
            "by_label": {
                label: {"auroc": 0.78 + index / 64, "precision": 0.5 + index / 32, "recall": 0.55 + index / 40}
                for index, label in enumerate(labels)
            },
        },
        "history": [(round_, 0.45 / round_, 0.7 + round_ / 100) for round_ in range(1, 9)],
        "skipped": {"case-00412", "case-01177"},
        "confusion": np.arange(64, dtype=np.int64).reshape(8, 8),
        "thresholds": np.linspace(0.2, 0.6, 8, dtype=np.float32),
    }


def _assign() -> dict[str, Any]:
    return {
        "type": "assign",
        "task": "task-000123",
        "job": "7f3c1e52-chest-xray",
        "site": "site-turin",
        "round": 13,
        "attempt": 1,
        "phase": Phase.TRAIN,
        "hyperparameters": Hyperparameters("adamw", 3e-4, 0.9, 0.01, 16, 1),
        "lease": {"seconds": 600, "renew": 120, "token": "5dd0c1a9"},
        "base": {"round": 12, "digest": "b1f0a6c2d94e7788", "url": "/models/12", "parts": (0, 1, 2, 3)},
        "after": {"task-000119", "task-000120"},
        "retry": {"most": 3, "backoff": (1.0, 2.0, 4.0), "on": ["timeout", "disconnect"]},
        "priority": 5,
        "cancelled": False,
        "note": None,
        "fold": np.array([0, 3, 4, 7, 9, 12], np.int32),
        "mixture": np.array([0.4, 0.35, 0.25]),
    }


MESSAGES: Final[dict[str, dict[str, Any]]] = {
    "training command": _train(),
    "registration": _register(),
    "evaluation report": _report(),
    "task assignment": _assign(),
}
"""What is said, by what it is."""

CLASSES: Final[tuple[type, ...]] = (Hyperparameters, Device, Sample)
ENUMERATIONS: Final[tuple[type[enum.Enum], ...]] = (Phase, Status)


def samples(count: int) -> list[Sample]:
    """So many records, no two alike."""
    return [Sample(index / count, index % 14, f"case-{index:06d}", 1.0 + index / 7) for index in range(count)]
