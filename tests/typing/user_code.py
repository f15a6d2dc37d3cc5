"""What users write, as mypy must accept it in strict mode; what they must not write, as it must refuse it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_type

import numpy as np
import pytest

import fedpost
from fedpost.blobs import BlobStore, FileBlobStore, MemoryBlobStore
from fedpost.codecs import CODECS, Base, Cast, Codec, Dense, Encoding, Residual, parse_codec
from fedpost.compression import COMPRESSORS, Compression, Compressor
from fedpost.errors import DecodeError, FedpostError
from fedpost.federation import ClientProxy, EvaluateIns, EvaluateRes, Failure, FitIns, FitRes
from fedpost.frame import DEFAULT_LIMITS, Frame, Limits
from fedpost.pipeline import Pipeline, decode_tensors
from fedpost.tensors import FORMATS, Array, Fedwt, Format, Npy, TensorSource
from fedpost.testing import BlobStoreContract, CodecContract
from fedpost.transports import Delivery, Endpoint, MailboxEndpoint, open_endpoint

# ── clients and apps ─────────────────────────────────────────────────────────────────────────────────────────────────


class Arrays(fedpost.NumPyClient):
    """A client in Flower's shape."""

    def fit(
        self, parameters: list[Array], config: dict[str, Any]
    ) -> tuple[list[Array], int, dict[str, bool | int | float | str | bytes]]:
        """Train."""
        rate = float(config["learning_rate"])
        return [array - rate for array in parameters], 32, {"train_loss": 0.5}


class Named(fedpost.Client):
    """A client with named tensors."""

    def fit(self, ins: FitIns) -> FitRes:
        """Train."""
        arrays = ins.parameters.arrays()
        assert_type(arrays, dict[str, Array])
        trained = fedpost.Parameters.of({name: array * 0.9 for name, array in arrays.items()})
        return FitRes(trained, num_examples=10, metrics={"loss": 0.1, "site": "a"})

    def evaluate(self, ins: EvaluateIns) -> EvaluateRes:
        """Evaluate."""
        return EvaluateRes(loss=0.1, num_examples=len(ins.parameters.specs))


def evaluate(
    server_round: int, arrays: list[Array], config: dict[str, Any]
) -> tuple[float, dict[str, bool | int | float | str | bytes]] | None:
    """Evaluate on the server's data."""
    return None if server_round % 5 else (float(arrays[0].mean()), {"accuracy": 0.9})


def app(*, sites: Sequence[str], seed: int) -> fedpost.App:
    """The factory that a configuration names."""
    return fedpost.App(
        client=lambda site: Arrays() if site == sites[0] else Named(),
        initialize=lambda: {"weights": np.zeros((3, 4), np.float32), "bias": np.zeros(4)},
        evaluate=evaluate,
        fit_config=lambda server_round: {"round": server_round, "learning_rate": 0.1, "seed": seed},
        strategy=Careful(fraction_fit=0.5, min_fit_clients=2),
    )


class Careful(fedpost.FedAvg):
    """A strategy that keeps the model when a site failed."""

    def aggregate_fit(
        self,
        server_round: int,
        results: Sequence[tuple[ClientProxy, FitRes]],
        failures: Sequence[Failure],
    ) -> tuple[fedpost.Parameters | None, dict[str, bool | int | float | str | bytes]]:
        """Average, unless a site failed."""
        return (None, {}) if failures else super().aggregate_fit(server_round, results, failures)


# ── files, frames, transports ────────────────────────────────────────────────────────────────────────────────────────


def files(folder: Path) -> dict[str, Array]:
    """Save and load."""
    size = fedpost.save_tensors(folder / "model.fedwt", {"a": np.ones(3)}, metadata={"round": 3})
    assert_type(size, int)
    try:
        return fedpost.load_tensors(folder / "model.fedwt", limits=fedpost.Limits(max_frame=1 << 20), verify="lazy")
    except DecodeError as error:
        raise SystemExit(error.hint or error.what) from error


def wire(tensors: Mapping[str, Array]) -> TensorSource:
    """Encode, send, receive, decode."""
    frame = Pipeline.parse("cast(bfloat16) | fedwt | zstd(3)").encode(tensors)
    with_notes = frame.with_sections({"note": "hello"})
    there = open_endpoint("memory://typing", "there")
    assert_type(open_endpoint("memory://typing", "here").send("there", with_notes), int)
    delivery = there.receive(1.0)
    assert_type(delivery, Delivery | None)
    if delivery is None:
        raise FedpostError("nothing came", hint="Send it again.")
    received = Frame.decode(delivery.data, limits=DEFAULT_LIMITS)
    assert_type(received.section("note", str), str)
    assert_type(received.segment(0), memoryview)
    delivery.ack()
    return decode_tensors(received)


# ── what is ours keeps the contracts ─────────────────────────────────────────────────────────────────────────────────

formats: list[Format] = [Fedwt(), Npy(), FORMATS.get("fedwt")]
codecs: list[Codec] = [Dense(), Cast("float16"), parse_codec("cast(bfloat16)")]
stores: list[BlobStore] = [MemoryBlobStore(), FileBlobStore(Path("shared"))]
compressors: list[Compressor] = [COMPRESSORS.get("zstd")]
compression: Compression | None = Compression.parse("zstd(3)")


def endpoint(store: BlobStore, limits: Limits) -> Endpoint:
    """A mailbox is an endpoint."""
    return MailboxEndpoint(store, "here", limits, durable=True)


# ── what is the user's own ───────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Negated:
    """A codec of the user's own."""

    needs_base = False

    def encode(
        self, tensors: Mapping[str, Array], base: Base | None = None, residual: Residual | None = None
    ) -> Encoding:
        """Negate."""
        del base, residual
        return Encoding({name: np.negative(array) for name, array in tensors.items()}, {})

    def decode(self, source: TensorSource, notes: Mapping[str, object], base: Base | None = None) -> TensorSource:
        """Undo it."""
        del notes, base
        return fedpost.Parameters.of({name: np.negative(array) for name, array in source.arrays().items()})


CODECS.register("negated", Negated)


class TestNegated(CodecContract):
    """The suite takes the codec from a fixture."""

    relative_error = 0.0

    @pytest.fixture
    def codec(self) -> Codec:
        """The codec."""
        return Negated()


class TestFolder(BlobStoreContract):
    """The suite takes the store from a fixture, which may use others."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> BlobStore:
        """The store."""
        return FileBlobStore(tmp_path)


# ── what must be refused: each comment is needed, or mypy says so ────────────────────────────────────────────────────

FitRes({"weights": np.ones(3)}, 10)  # type: ignore[arg-type]
fedpost.App(evaluate=evaluate)  # type: ignore[call-arg]
fedpost.load_tensors(Path("model.fedwt"), verify="sometimes")  # type: ignore[arg-type]
fedpost.Limits(1 << 20)  # type: ignore[call-arg]
FileBlobStore("shared")  # type: ignore[arg-type]
MemoryBlobStore().get("key")  # type: ignore[call-arg]
fedpost.Sever()  # type: ignore[attr-defined]
