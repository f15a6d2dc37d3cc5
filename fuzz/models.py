"""Frames and files of models as something to fuzz: samples, and what must hold of those that are accepted."""
# ruff: noqa: INP001 - scripts, not a package; acts and sizes of samples are plain numbers

from __future__ import annotations

import importlib.util
import random
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from fedpost.errors import RemoteError
from fedpost.frame import Frame, Limits
from fedpost.pipeline import METADATA, Pipeline, decode_tensors, tensor_sizes
from fedpost.tensors import FORMATS, Array

VECTORS = Path(__file__).parents[1] / "tests" / "vectors"
LIMITS = Limits(max_frame=1 << 20, max_header=1 << 18, max_raw=(1 << 21) - 1, max_chunk=1 << 20, max_tensors=1 << 12)
LARGEST_SEED = 12_000
FILES = ("fedwt1", "json_base64", "msgpack", "protobuf", "safetensors")


class FindingError(AssertionError):
    """Something that must hold does not."""


def require(holds: bool, what: str) -> None:
    """Find something where what must hold does not."""
    if not holds:
        raise FindingError(what)


# ── samples ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def models() -> Iterator[dict[str, Array]]:
    """Small models with everything that tensors can be."""
    sparse = np.zeros(60, np.float32)
    sparse[[3, 40]] = [1, -2]
    yield {"w": np.array([[1, -2.5]], np.float32)}
    yield {"w": np.arange(6, dtype=np.int16).reshape(2, 3), "s": sparse, "é": np.array(True), "e": np.zeros((0, 2))}
    yield {"b": np.ones(3, ml_dtypes.bfloat16), "f": np.ones(5, ml_dtypes.float8_e4m3fn), "c": np.ones(2, np.complex64)}
    yield {}


def exotic() -> Iterator[dict[str, Array]]:
    """Models of types that not every format knows."""
    kind = [("a", "<f4"), ("b", ">i2", (2,))]
    yield {"t": np.array(["2026-01-02"], "M8[25s]"), "u": np.array(["é", ""]), "v": np.zeros(2, "V5")}
    yield {"r": np.zeros(2, kind), "g": np.ones((3, 2), ">f8", order="F"), "x": np.zeros(1, np.longdouble)}


def of_format(name: str) -> list[dict[str, Array]]:
    """The models that a format carries."""
    return [*models(), *(exotic() if name != "safetensors" else ())]


def frozen() -> Iterator[bytes]:
    """The frozen frames, but for the large ones."""
    for path in sorted(VECTORS.glob("*.frame")):
        if path.stat().st_size <= LARGEST_SEED:
            yield path.read_bytes()


def frames(name: str, compression: str = "none", checksum: str = "crc32c") -> Iterator[bytes]:
    """Frames of a format."""
    pipeline = Pipeline.parse(f"dense | {name} | {compression}", checksum=checksum)
    for tensors in of_format(name):
        yield bytes(pipeline.encode(tensors, {METADATA: {"round": 3, "raw": b"\0", "deep": [{"x": [1.5, None]}]}}))


def all_frames() -> Iterator[bytes]:
    """Frames of every kind."""
    yield from frozen()
    for name in FORMATS:
        yield from frames(name)
    for compression in ("zstd", "gzip", "lz4", "lx"):
        pipeline = Pipeline.parse(f"dense | fedwt | {compression}", checksum="xxh3")
        yield bytes(pipeline.encode({"w": np.zeros(3000, np.float32), "n": np.arange(2000.0)}))
    for compression in ("zstd", "lx"):  # of two chunks
        yield bytes(Pipeline.parse(f"dense | fedwt | {compression}").encode({"w": np.zeros(280_000, np.float32)}))


# ── what must hold ───────────────────────────────────────────────────────────────────────────────────────────────────


def same(one: Mapping[str, Array], other: Mapping[str, Array], what: str) -> None:
    """Whether two models are the same, to the bit."""
    require(list(one) == list(other), f"{what}: other names")
    for name, array in one.items():
        again = other[name]
        alike = (array.dtype, array.shape) == (again.dtype, again.shape) and bits(array) == bits(again)
        require(alike, f"{what}: another tensor {name!r}")


def bits(array: Array) -> list[bytes]:
    """The values of an array as bytes; gaps between fields are not values."""
    if array.dtype.names is None:
        return [array.tobytes()]
    return [data for field in array.dtype.names for data in bits(array[field])]


def check_frame(data: bytes) -> bool:
    """Eager and lazy decoding accept the same; what is accepted can be sent on, and is what was there."""
    try:
        frame = Frame.decode(data, limits=LIMITS)
        contents: list[bytes] | None = [bytes(frame.segment(index)) for index in range(len(frame))]
    except RemoteError:
        contents = None
    try:
        lazy = Frame.decode(data, limits=LIMITS, verify="lazy")
        late: list[bytes] | None = [bytes(lazy.segment(index)) for index in range(len(lazy))]
    except RemoteError:
        late = None
    require(contents == late, "lazy decoding differs from eager")
    if contents is None:
        return False
    require(bytes(frame) == data, "the frame has other bytes")
    require([frame.raw_size(index) for index in range(len(frame))] == list(map(len, contents)), "sizes")
    again = Frame.decode(bytes(frame.with_sections({"\0fuzz": 1})), limits=LIMITS)
    require([bytes(again.segment(index)) for index in range(len(again))] == contents, "sent on")
    for name in frame.section_names:
        try:
            frame.section(name, object)
        except RemoteError:
            continue
    return True


def check_tensors(frame: Frame, data: bytes) -> None:
    """The tensors of a frame by every way to them, and again."""
    source = decode_tensors(frame, limits=LIMITS)
    arrays = source.arrays()
    found = [(name, array.dtype, array.shape) for name, array in arrays.items()]
    require([(spec.name, spec.dtype, spec.shape) for spec in source.specs] == found, "the specs are others")
    require(all(not array.flags.writeable for array in arrays.values()), "an array can be written")
    require(list(tensor_sizes(frame, limits=LIMITS)) == list(arrays), "sizes")
    rng = random.Random(data)
    for name, array in arrays.items():
        start, stop = sorted((rng.randint(0, array.size), rng.randint(0, array.size)))
        part = source.read(name, start, stop)
        require(bits(part) == bits(array.reshape(-1)[start:stop]), f"a range of {name!r}")
    name = frame.section("pipeline", str).split("|")[1].strip()
    same(arrays, decoded(Pipeline.parse(f"dense | {name} | none").encode(arrays)), "encoded again")
    read_section = other("formats_reader").read_section
    check_other_reader(lambda: other("reader").read_frame(data, read_section)[1], arrays)


def decoded(frame: Frame) -> dict[str, Array]:
    """What a receiver gets of a frame that was made here."""
    try:
        return decode_tensors(Frame.decode(bytes(frame))).arrays()
    except RemoteError as error:
        raise FindingError("what was accepted is refused when it is sent on") from error


@cache
def other(name: str) -> Any:
    """One of the readers that share no code with fedpost."""
    spec = importlib.util.spec_from_file_location(f"second_{name}", VECTORS / f"{name}.py")
    assert spec is not None  # noqa: S101 - for the type checker
    assert spec.loader is not None  # noqa: S101 - for the type checker
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check_other_reader(read: Callable[[], Mapping[str, Array]], arrays: Mapping[str, Array]) -> None:
    """The reader of the specification finds the same, where it does not stop at what it leaves out."""
    try:
        others = read()
    except Exception:  # noqa: BLE001 - it knows no budgets and refuses in its own ways
        return
    same(arrays, others, "another reader")


def check_framed(data: bytes) -> bool:
    """A frame with tensors."""
    try:
        frame = Frame.decode(data, limits=LIMITS)
        if "pipeline" not in frame.section_names:
            return False
        check_tensors(frame, data)
    except RemoteError:
        return False
    return True


def check_file(name: str) -> Callable[[bytes], bool]:
    """A file of a foreign format, without a frame."""
    module = import_module(f"fedpost.tensors.{name}")

    def check(data: bytes) -> bool:
        try:
            arrays, metadata = module.from_bytes(data, limits=LIMITS)
        except RemoteError:
            return False
        require(sum(array.nbytes for array in arrays.values()) <= LIMITS.max_raw, "over the budget")
        try:
            again, noted = module.from_bytes(b"".join(module.to_bytes(arrays, metadata)))
        except RemoteError as error:
            raise FindingError("what was accepted is refused when it is written again") from error
        same(arrays, again, "encoded again")
        # NaN is not itself, and order has no meaning.
        require(noted == metadata or repr(noted) == repr(metadata), "the metadata are others")
        sections = {"pipeline": f"dense | {name} | none", f"tensors_{name}": len(arrays)}
        framed = decoded(Frame.build(sections, [memoryview(data)] if arrays else []))
        same(arrays, framed, "in a frame")
        read, types = other("formats_reader").READERS[name], other("reader").element_type
        check_other_reader(lambda: read(data, types)[0], arrays)
        if name == "safetensors":
            check_library(data, arrays)
        return True

    return check


def check_library(data: bytes, arrays: Mapping[str, Array]) -> None:
    """The library that the format comes from finds the same tensors; it must take what is taken here."""
    from safetensors import deserialize  # noqa: PLC0415 - only this check needs it

    others = dict(deserialize(data))
    require(others.keys() == arrays.keys(), "the library has other names")
    for name, array in arrays.items():
        alike = tuple(others[name]["shape"]) == array.shape and bytes(others[name]["data"]) == array.tobytes()
        require(alike, f"the library has another tensor {name!r}")


def files(name: str) -> Iterator[bytes]:
    """Files of a format, without a frame."""
    module = import_module(f"fedpost.tensors.{name}")
    for tensors in of_format(name):
        yield b"".join(module.to_bytes(tensors, {"round": "3"}))


def framed(name: str) -> Iterator[bytes]:
    """Frames of a format, also frozen ones."""
    yield from frames(name)
    if name in ("fedwt", "numpy"):
        yield from (data for data in frozen() if f"| {name} |".encode() in data)
