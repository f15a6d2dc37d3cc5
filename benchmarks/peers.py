"""Ways of turning named arrays into bytes and back: ours, and those that others ship.

Rules: every peer is called as its own documentation says, at its fastest safe setting. A peer whose library is not
installed, or does not load, is left out and named. Nothing here measures.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import pickle
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedpost.checksums import DEFAULT_CHECKSUM
from fedpost.frame import Frame
from fedpost.pipeline import Pipeline, decode_tensors

__all__ = [
    "DIGESTS",
    "MODEL",
    "OURS",
    "Arrays",
    "Peer",
    "buffers_of",
    "fedpost_peer",
    "make_arrays",
    "missing",
    "peer",
    "peers",
]

Arrays = dict[str, npt.NDArray[Any]]

OURS = "fedpost, no digests"
MODEL = (25, (1000, 1000))
"""The model of most cases, as arguments of :func:`make_arrays`: 100 MB in 25 tensors."""

DIGESTS = "fedpost, BLAKE3 digests (default)"
_COMPRESSED = "np.savez_compressed"


def _same(encoded: Any) -> Any:
    return encoded


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One way of encoding.

    Attributes:
        name: As the tables show it.
        encode: Named arrays to whatever it makes of them.
        decode: Back to arrays, from what ``arrive`` returns.
        size: Bytes on the wire of what ``encode`` returns.
        arrive: What a receiver of ``encode``'s result holds in memory.
    """

    name: str
    encode: Callable[[Arrays], Any]
    decode: Callable[[Any], Any]
    size: Callable[[Any], int]
    arrive: Callable[[Any], Any] = _same


def make_arrays(count: int, shape: tuple[int, ...]) -> Arrays:
    """Normally distributed float32, always the same."""
    rng = np.random.default_rng(0)
    return {f"layer.{index}.weight": rng.standard_normal(shape, dtype=np.float32) for index in range(count)}


def buffers_of(arrays: Arrays) -> list[memoryview]:
    """The arrays' own memory."""
    return [array.reshape(-1).view(np.uint8).data for array in arrays.values()]


def fedpost_peer(name: str, checksum: str = DEFAULT_CHECKSUM, spec: str = "dense | fedwt | none") -> Peer:
    """Ours: encoded to buffers that refer to the arrays, decoded to views of the bytes received."""
    pipeline = Pipeline.parse(spec, checksum=checksum)
    return Peer(
        name=name,
        encode=lambda arrays: list(pipeline.encode(arrays).buffers()),
        decode=lambda data: decode_tensors(Frame.decode(data)).arrays(),
        size=lambda buffers: sum(buffer.nbytes for buffer in buffers),
        arrive=b"".join,
    )


def _npy_bytes(array: npt.NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def _npz(save: Callable[..., None]) -> Callable[[Arrays], bytes]:
    def encode(arrays: Arrays) -> bytes:
        stream = io.BytesIO()
        save(stream, **arrays)
        return stream.getvalue()

    return encode


def _from_npz(data: bytes) -> Arrays:
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return dict(archive)


def _npy() -> list[Peer]:
    return [
        Peer(
            name="np.save, one call an array",
            encode=lambda arrays: {name: _npy_bytes(array) for name, array in arrays.items()},
            decode=lambda files: {name: np.load(io.BytesIO(data), allow_pickle=False) for name, data in files.items()},
            size=lambda files: sum(map(len, files.values())),
        ),
        Peer(name="np.savez", encode=_npz(np.savez), decode=_from_npz, size=len),
        Peer(name=_COMPRESSED, encode=_npz(np.savez_compressed), decode=_from_npz, size=len),
    ]


def _pickle() -> list[Peer]:
    def out_of_band(arrays: Arrays) -> tuple[bytes, list[pickle.PickleBuffer]]:
        buffers: list[pickle.PickleBuffer] = []
        return pickle.dumps(arrays, protocol=5, buffer_callback=buffers.append), buffers

    return [
        Peer(
            name="pickle 5",
            encode=lambda arrays: pickle.dumps(arrays, protocol=5),
            decode=pickle.loads,
            size=len,
        ),
        Peer(
            name="pickle 5, out-of-band buffers",
            encode=out_of_band,
            decode=lambda pair: pickle.loads(pair[0], buffers=pair[1]),
            size=lambda pair: len(pair[0]) + sum(buffer.raw().nbytes for buffer in pair[1]),
        ),
    ]


def _safetensors() -> list[Peer]:
    numpy = importlib.import_module("safetensors.numpy")
    return [Peer(name="safetensors", encode=numpy.save, decode=numpy.load, size=len)]


def _flower() -> list[Peer]:
    common = importlib.import_module("flwr.common")
    app = importlib.import_module("flwr.app")
    serde = importlib.import_module("flwr.common.serde")
    objects = importlib.import_module("flwr.supercore.inflatable.inflatable_object")
    contents = importlib.import_module("flwr.supercore.inflatable.inflatable_utils")

    def record_to_objects(arrays: Arrays) -> tuple[str, dict[str, bytes]]:
        # As flwr sends messages: a tree of objects, each pushed under the SHA-256 of its content.
        root = app.RecordDict({"arrays": app.ArrayRecord({k: app.Array(v) for k, v in arrays.items()})})
        with objects.no_object_id_recompute():
            tree = objects.get_all_nested_objects(root)
            return root.object_id, {number: node.deflate() for number, node in tree.items()}

    def record_from_objects(sent: tuple[str, dict[str, bytes]]) -> Arrays:
        record = contents.inflate_object_from_contents(*sent, keep_object_contents=True)
        return {name: array.numpy() for name, array in record["arrays"].items()}

    return [
        Peer(
            name="Flower Parameters",
            encode=lambda arrays: common.ndarrays_to_parameters(list(arrays.values())),
            decode=common.parameters_to_ndarrays,
            size=lambda parameters: serde.parameters_to_proto(parameters).ByteSize(),
        ),
        Peer(
            name="Flower ArrayRecord",
            encode=record_to_objects,
            decode=record_from_objects,
            size=lambda sent: sum(len(number) + len(content) for number, content in sent[1].items()),
        ),
    ]


def _fobs() -> list[Peer]:
    fobs = importlib.import_module("nvflare.fuel.utils.fobs")
    decomposers = importlib.import_module("nvflare.app_common.decomposers.numpy_decomposers")
    fobs.register(decomposers.NumpyArrayDecomposer)
    return [Peer(name="NVFLARE FOBS", encode=fobs.dumps, decode=fobs.loads, size=len)]


def _arrow() -> list[Peer]:
    pa = importlib.import_module("pyarrow")

    def to_stream(arrays: Arrays) -> Any:
        # One row, one list column a tensor; Arrow's own lists refer to NumPy's memory without a copy.
        columns = [
            pa.LargeListArray.from_arrays(pa.array([0, array.size], pa.int64()), pa.array(array.reshape(-1)))
            for array in arrays.values()
        ]
        fields = [
            pa.field(name, column.type, metadata={"shape": repr(array.shape)})
            for (name, array), column in zip(arrays.items(), columns, strict=True)
        ]
        schema = pa.schema(fields)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, schema) as writer:
            writer.write_batch(pa.record_batch(columns, schema=schema))
        return sink.getvalue()

    def from_stream(data: Any) -> Arrays:
        batch = pa.ipc.open_stream(data).read_next_batch()
        arrays = {}
        for field, column in zip(batch.schema, batch.columns, strict=True):
            text = field.metadata[b"shape"].decode().strip("(),")
            shape = tuple(int(part) for part in text.split(","))
            arrays[field.name] = column.flatten().to_numpy().reshape(shape)
        return arrays

    return [Peer(name="Arrow IPC stream", encode=to_stream, decode=from_stream, size=lambda data: data.size)]


def _msgpack() -> list[Peer]:
    msgpack = importlib.import_module("msgpack")
    plugin = importlib.import_module("msgpack_numpy")
    return [
        Peer(
            name="msgpack-numpy",
            encode=lambda arrays: msgpack.packb(arrays, default=plugin.encode),
            decode=lambda data: msgpack.unpackb(data, object_hook=plugin.decode),
            size=len,
        )
    ]


_MAKERS: tuple[tuple[str, str, Callable[[], list[Peer]]], ...] = (
    ("numpy", "np.", _npy),
    ("pickle", "pickle", _pickle),
    ("safetensors", "safetensors", _safetensors),
    ("flwr", "Flower", _flower),
    ("nvflare", "NVFLARE", _fobs),
    ("pyarrow", "Arrow", _arrow),
    ("msgpack_numpy", "msgpack-numpy", _msgpack),
)
"""The library, how the names of its peers begin, and what makes them."""


def peers(without: Collection[str] = (), *, compressed: bool = False) -> dict[str, Peer]:
    """Ours and every peer that is installed, but for the libraries that are left out, by name.

    Args:
        without: Libraries.
        compressed: Whether to take the one that compresses, too: it takes seconds.
    """
    found = [fedpost_peer(OURS, "none"), fedpost_peer(DIGESTS)]
    for module, _, make in _MAKERS:
        if module not in without and _reason(module) is None:
            found += make()
    return {peer.name: peer for peer in found if compressed or peer.name != _COMPRESSED}


def peer(name: str) -> Peer:
    """One of them; no other library is loaded."""
    others = [module for module, start, _ in _MAKERS if not name.startswith(start)]
    return peers(others, compressed=True)[name]


def missing(without: Collection[str] = ()) -> tuple[str, ...]:
    """The peers that are left out, each with the reason."""
    reasons = {start: "left out" if module in without else _reason(module) for module, start, _ in _MAKERS}
    return tuple(f"{start} ({reason})" for start, reason in reasons.items() if reason is not None)


def _reason(module: str) -> str | None:
    """Why a library cannot be used, or None when it can be."""
    if importlib.util.find_spec(module) is None:
        return f"{module} is not installed"
    try:
        importlib.import_module(module)
    except ImportError as error:
        return f"{module} does not load: {error}"
    return None
