"""What is fuzzed: for each way in from outside a corpus to start from, a mutator that knows its structure, and a check.

Rules: a check lets out nothing but :class:`~fedpost.errors.RemoteError`, which it takes for a refusal, and what it
found: a :class:`FindingError`, or whatever else came. What is accepted must hold: it decodes in the same way by other
ways in, and encodes and decodes again to the same values, to the bit.
"""
# ruff: noqa: INP001, PLR2004 - scripts, not a package; acts and sizes of samples are plain numbers

from __future__ import annotations

import importlib.util
import random
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import ml_dtypes
import msgspec
import numpy as np
import structures
from mutation import WORDS, Bytewise

from fedpost.compression import COMPRESSORS
from fedpost.errors import EncodeError, LocalError, RemoteError
from fedpost.frame import Frame, Limits, Part, PartAssembler, PartLimits
from fedpost.pipeline import METADATA, Pipeline, decode_tensors, tensor_sizes
from fedpost.protocol import decode_message
from fedpost.protocol import messages as said
from fedpost.protocol.negotiation import Offer
from fedpost.report.inspection import describe
from fedpost.tensors import FORMATS, Array
from fedpost.tensors.dtypes import dtype_from_name, dtype_name
from fedpost.tensors.sparse import check_sparse, sparse_bytes, sparse_elements

VECTORS = Path(__file__).parents[1] / "tests" / "vectors"
LIMITS = Limits(max_frame=1 << 20, max_header=1 << 18, max_raw=(1 << 21) - 1, max_chunk=1 << 20, max_tensors=1 << 12)
LARGEST_SEED = 12_000
SLOW = 4096  # bytes that the reader of LX in plain Python takes a millisecond for
NUMBERS = ("", "f1", "f2", "f4", "f8")
"""What the bytes of a chunk are, for a compressor of numbers."""
OFFER = Offer(frame=1, updates=["dense"], formats=["fedwt"], compressions=["zstd"], checksums=["blake3"])
FILES = ("fedwt1", "json_base64", "msgpack", "protobuf", "safetensors")


class FindingError(AssertionError):
    """Something that must hold does not."""


@dataclass(frozen=True)
class Target:
    """One way in.

    Attributes:
        seeds: Inputs to start from.
        check: Takes an input; whether it was accepted.
        mutator: Makes inputs of others.
    """

    seeds: Callable[[], Iterator[bytes]]
    check: Callable[[bytes], bool]
    mutator: Callable[[Bytewise], structures.Mutator]


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


def check_compressor(name: str) -> Callable[[bytes], bool]:
    """A chunk behind four bytes of the size that it must come to."""
    compressor = COMPRESSORS.get(name)

    def check(data: bytes) -> bool:
        size = int.from_bytes(data[:4], "little") % (1 << 20)
        try:
            plain = unpacked(compressor, data[4:], size)
        except RemoteError:
            return False
        if name == "lx" and size < SLOW:
            require(other("reader").read_lx(data[4:], size) == plain, "another reader")
        rng = random.Random(data)
        packed = compressor.compress(memoryview(plain), rng.choice(compressor.levels), rng.choice(NUMBERS))
        try:
            require(unpacked(compressor, packed, size) == plain, "compressed again")
        except RemoteError as error:
            raise FindingError("what was accepted is refused when it is compressed again") from error
        return True

    return check


def unpacked(compressor: Any, packed: bytes, size: int) -> bytes:
    """A chunk decompressed into memory that held something before."""
    found = []
    for fill in (b"\xa5", b"\x5a"):
        out = bytearray(fill * size)
        compressor.decompress_into(memoryview(packed), memoryview(out))
        found.append(bytes(out))
    require(found[0] == found[1], "not all of it was written")
    return found[0]


def chunks(name: str) -> Callable[[], Iterator[bytes]]:
    """Chunks of a compressor at several levels."""

    def seeds() -> Iterator[bytes]:
        compressor = COMPRESSORS.get(name)
        contents = [b"", b"a", bytes(70_000), np.arange(800, dtype=np.float32).tobytes(), b"abc" * 33]
        for plain in [*contents, np.linspace(0, 1, 500).tobytes() + b"odd"]:
            for level in list(compressor.levels)[:: max(1, len(compressor.levels) // 4)]:
                for number in NUMBERS if name == "lx" else ("",):
                    yield struct.pack("<I", len(plain)) + compressor.compress(memoryview(plain), level, number)

    return seeds


def chunk_mutator(name: str) -> Callable[[Bytewise], structures.Mutator]:
    """Alters a chunk, or the size that it must come to."""

    def mutator(bytewise: Bytewise) -> structures.Mutator:
        inner = structures.lx(bytewise) if name == "lx" else bytewise

        def mutate(rng: random.Random, data: bytes) -> bytes:
            if rng.random() < 0.9:
                return data[:4] + inner(rng, data[4:])
            return struct.pack("<I", rng.randrange(1 << rng.randrange(1, 21))) + data[4:]

        return mutate

    return mutator


def check_sparse_coding(data: bytes) -> bool:
    """An array of few elements behind a byte for the size of one and eight for their number."""
    if len(data) < 9:
        return False
    itemsize, size = data[0], int.from_bytes(data[1:9], "little")
    payload = memoryview(data)[9:]
    try:
        check_sparse(payload, itemsize, size)
        if itemsize * size > 1 << 21:
            return False
        whole = bytes(sparse_elements(payload, itemsize, size, 0, size))
    except RemoteError:
        return False
    require(sparse_bytes(memoryview(whole), itemsize) == payload, "there is another way to write it")
    rng = random.Random(data)
    start, stop = sorted((rng.randint(0, size), rng.randint(0, size)))
    part = bytes(sparse_elements(payload, itemsize, size, start, stop))
    require(part == whole[start * itemsize : stop * itemsize], "a range differs")
    return True


def sparse_seeds() -> Iterator[bytes]:
    """Arrays of few elements, with gaps of several widths."""
    for kind in ("u1", "<f4", "<f8", "V3"):
        for places in ([], [0], [5, 300], [1, 2, 70_000]):
            array = np.zeros(70_001 if places[-1:] == [70_000] else 400, kind)
            elements = array.view(np.uint8).reshape(len(array), -1)
            elements[places] = 7
            coded = sparse_bytes(elements.reshape(-1).data, array.dtype.itemsize)
            yield struct.pack("<BQ", array.dtype.itemsize, len(array)) + (coded or b"")


def sparse_mutator(bytewise: Bytewise) -> structures.Mutator:
    """Alters the array, or what it is said to be."""
    inner = structures.sparse(bytewise)

    def mutate(rng: random.Random, data: bytes) -> bytes:
        return (bytewise(rng, data[:9]) if rng.random() < 0.2 else data[:9]) + inner(rng, data[9:])

    return mutate


def check_parts(data: bytes) -> bool:
    """A receiver that gets parts in any order, is restarted, and whose disk is damaged."""
    limits = PartLimits(frame=LIMITS, max_part=1 << 20, max_parts=1 << 12, sender_transfers=3)
    folder = Path(tempfile.mkdtemp())
    try:
        return Receiver(folder, limits).run(structures.records(data)[:64])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Receiver:
    """An assembler, and beside it a plain account of what it was given."""

    def __init__(self, folder: Path, limits: PartLimits) -> None:
        self.folder, self.limits = folder, limits
        self.assembler = PartAssembler(folder, limits)
        self.given: dict[bytes, dict[int, bytes]] = {}
        self.harmed = False

    def run(self, acts: list[list[Any]]) -> bool:
        """Let everything happen; whether a frame came of it."""
        opened = False
        for act, data in [*acts, [5, b""]]:
            try:
                opened |= self.happen(act, data)
            except RemoteError:
                continue
            except LocalError:
                require(self.harmed, "an error of the disk, and nobody has touched it")
        self.assembler.close()
        return opened

    def happen(self, act: int, data: bytes) -> bool:
        """Let one thing happen; whether it was that a frame was opened."""
        if act == 1:
            self.assembler.close()
            self.assembler = PartAssembler(self.folder, self.limits)
        elif act == 2:
            self.damage(data)
        elif act == 3:
            for transfer in self.assembler.transfers():
                transfer.missing()
        elif act == 4 and (transfers := self.assembler.transfers()):
            self.given.pop(transfers[0].plan.transfer, None)
            transfers[0].discard()
        elif act == 5:
            return self.open()
        else:
            self.add(data)
        return False

    def add(self, data: bytes) -> None:
        """Give it a part."""
        part = Part.decode(data, self.limits)
        require(bytes(part) == data, "the part has other bytes")
        plan = (part.plan.transfer, part.plan.total, part.plan.size)
        require(other("parts_reader").read_part(data) == (part.index, plan, data[88:]), "another reader")
        transfer = self.assembler.add(part, sender="site")
        self.given.setdefault(part.plan.transfer, {})[part.index] = data[88:]
        known = self.given[part.plan.transfer]
        require(self.harmed or transfer.received == len(known), "parts that were not given, or are forgotten")

    def damage(self, data: bytes) -> None:
        """Change a byte on its disk, or cut its journal."""
        files = sorted(path for path in self.folder.iterdir() if path.name != "lock")
        if not files or len(data) < 4:
            return
        self.harmed = True
        path = files[data[0] % len(files)]
        at = int.from_bytes(data[1:3], "little") % max(path.stat().st_size, 1)
        with path.open("r+b") as file:
            if path.suffix == ".journal" and data[3] & 1:
                file.truncate(at)
                return
            file.seek(at)
            file.write(data[3:4])

    def open(self) -> bool:
        """Open what is complete, which must be what was given."""
        opened = False
        for transfer in self.assembler.transfers():
            try:
                frame = transfer.open()
            except RemoteError:
                continue
            given = self.given[frame.digest]
            require(bytes(frame) == b"".join(given[index] for index in sorted(given)), "another frame than was given")
            opened = True
        return opened


def part_seeds() -> Iterator[bytes]:
    """Runs of parts, in order and with everything that can happen between them."""
    small = [bytes(Frame.build({}, [memoryview(bytes(range(200)))])), next(frames("fedwt")), next(frames("msgpack"))]
    for data in small:
        for size in (88 + 64, 88 + 100, 1 << 20):
            found = [[0, bytes(part)] for part in Frame.decode(data).parts(size)]
            yield structures.recorded(found)
            yield structures.recorded([*found[::-1], [1, b""], [3, b""], [5, b""], [2, b"\0\x50\0\1"], *found])


def check_inspection(data: bytes) -> bool:
    """A file that a person looks at, also as JSON."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        try:
            found = describe(Path(file.name), verify=bool(len(data) % 2), limits=LIMITS)
        except RemoteError:
            return False
        msgspec.json.encode(found, enc_hook=str)
        return True


def check_message(data: bytes) -> bool:
    """What a peer says."""
    try:
        message = decode_message(memoryview(data), limits=LIMITS)
        again = decode_message(memoryview(bytes(said.address_message(message.envelope, message.body))), limits=LIMITS)
        require(repr((again.envelope, again.body)) == repr((message.envelope, message.body)), "said again")
        if "pipeline" in message.frame.section_names:
            message.tensors(limits=LIMITS).arrays()
    except RemoteError:
        return False
    return True


def message_seeds() -> Iterator[bytes]:
    """A message of every type."""
    tensors = Pipeline.parse("cast(bfloat16) | fedwt | none").encode({"w": np.ones(3, np.float32)})
    bodies: list[said.Body] = [
        said.Registration(address="site-1", session="s", offer=OFFER),
        said.RegistrationReply(session="s", reason="full"),
        said.TrainingCommand(config={"epochs": 1, "rate": 0.1, "name": "é", "key": b"\0", "on": True}),
        said.WeightUpdate(num_examples=7, metrics={"loss": 0.5}, seconds={"train": 1.5}),
        said.EvaluationCommand(),
        said.EvaluationResult(loss=0.5, num_examples=3),
        said.AggregationResult(metrics={"accuracy": 0.9}),
        said.StatusUpdate(state="ready"),
        said.HealthCheck(),
        said.ErrorReport(reason="no data"),
        said.RunEnd(status="finished"),
    ]
    for body in bodies:
        envelope = said.Envelope.new(said.type_of(body), sender="site-1", recipient="server", run="r", lifetime=60)
        yield bytes(said.address_message(envelope, body, tensors if hasattr(body, "metrics") else None))


def check_type(data: bytes) -> bool:
    """The name of an element type."""
    try:
        dtype = dtype_from_name(data.decode("utf-8", "replace"))
        np.zeros(2, dtype) if dtype.itemsize < 1 << 16 else None
        name = dtype_name(dtype)
    except (RemoteError, EncodeError):
        return False
    require(dtype_from_name(name) == dtype, "another type")
    return True


TARGETS: dict[str, Target] = {
    "frame": Target(all_frames, check_frame, structures.frames),
    **{
        f"file_{name}": Target(lambda name=name: files(name), check_file(name), structures.FILES[name])
        for name in FILES
    },
    **{
        f"framed_{name}": Target(lambda name=name: framed(name), check_framed, structures.frames)
        for name in ("fedwt", "numpy", *FILES)
    },
    **{f"chunk_{name}": Target(chunks(name), check_compressor(name), chunk_mutator(name)) for name in COMPRESSORS},
    "sparse": Target(sparse_seeds, check_sparse_coding, sparse_mutator),
    "parts": Target(part_seeds, check_parts, structures.parts),
    "inspection": Target(all_frames, check_inspection, structures.frames),
    "message": Target(message_seeds, check_message, structures.frames),
    "types": Target(lambda: (word.encode() for word in WORDS), check_type, structures.text),
}


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
