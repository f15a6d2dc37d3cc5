"""Makes the frozen frames beside this file, and in ``files`` and ``parts`` what travels without one.

``python tests/vectors/generate.py`` with fedpost importable writes what is missing. Rules: a frozen file is never
written again, since every later version must read it as it is; a new case adds files. The input of a case is a pure
function, so that later encoders can be held against the same expected values.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import blake3
import ml_dtypes
import msgpack
import numpy as np

HERE = Path(__file__).parent
Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Case:
    """One frozen frame: its tensors, and how they are sent."""

    tensors: Callable[[], Arrays]
    pipeline: str = "dense | fedwt | none"
    checksum: str = "blake3"
    metadata: Mapping[str, object] | None = None
    base: str | None = None
    """The case whose tensors the update is relative to."""


@dataclass(frozen=True)
class FileCase:
    """One frozen file of a format made elsewhere, without a frame."""

    tensors: Callable[[], Arrays]
    format: str
    metadata: Mapping[str, object]


@dataclass(frozen=True)
class PartsCase:
    """One frozen frame in frozen parts, one behind the other."""

    frame: str
    max_bytes: int


def noise(tag: str, size: int) -> bytes:
    """Bytes that do not compress and are the same for ever."""
    return hashlib.shake_256(tag.encode()).digest(size)


def minimal() -> Arrays:
    return {"w": np.array([1.0, -2.5], np.float32)}


# fmt: off
FLOATS = (
    "float16", "float32", "float64", "bfloat16", "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn",
    "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn", "float6_e2m3fn",
    "float6_e3m2fn",
)
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "int2", "int4", "uint2", "uint4")
# fmt: on


def type_of(name: str) -> np.dtype[Any]:
    return np.dtype(getattr(ml_dtypes, name)) if hasattr(ml_dtypes, name) else np.dtype(name)


def numbers() -> Arrays:
    arrays = {name: np.array([1, 2, 0.5], type_of(name)) for name in FLOATS}
    arrays |= {name: np.array([0, 1, -1 if name.startswith("i") else 2], type_of(name)) for name in INTEGERS}
    arrays["bool"] = np.array([True, False, True])
    arrays["complex64"] = np.array([1 + 2j, -0.5j, 3], np.complex64)
    arrays["complex128"] = np.array([1 + 2j, -0.5j, 3], np.complex128)
    arrays["extremes"] = np.array([np.iinfo(np.int64).min, np.iinfo(np.int64).max])
    arrays["special32"] = np.frombuffer(
        struct.pack("<7I", 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7FA12345, 0xFFC00001, 0x00000001),
        np.float32,
    )
    return arrays


def big_endian() -> Arrays:
    names = ("int16", "int32", "int64", "uint16", "uint32", "uint64", "float16", "float32", "float64", "complex64")
    arrays = {name: np.array([1, 2, 3], np.dtype(name).newbyteorder(">")) for name in names}
    arrays["datetime"] = np.array(["2026-01-02"], ">M8[D]")
    arrays["text"] = np.array(["é日", "b"], ">U3")
    return arrays


def texts_and_times() -> Arrays:
    return {
        "datetime64[ns]": np.array(["1970-01-01T00:00:00.000000001", "NaT"], "M8[ns]"),
        "datetime64[25s]": np.array([-3, 0, 4], "M8[25s]"),
        "datetime64[Y]": np.array(["2026"], "M8[Y]"),
        "timedelta64[ms]": np.array([-1, 0, 1], "m8[ms]"),
        "timedelta64": np.array([5], "m8"),
        "str": np.array(["", "é", "日本語", "\U0001f600"]),
        "bytes": np.array([b"", b"ab", b"\xff\x00\xff"], "S3"),
        "void": np.frombuffer(bytes(range(10)), "V5"),
    }


def structures() -> Arrays:
    inner = np.dtype([("day", "M8[D]"), ("tag", "S2")])
    plain = np.array([(1, 0.5), (2, -1)], [("id", "<i4"), ("é", ">f8")])
    nested = np.zeros(2, [("inner", inner, (2,)), ("matrix", "<f4", (2, 3)), ("half", ml_dtypes.bfloat16)])
    nested["inner"]["day"] = np.array([["2026-01-01", "2026-01-02"], ["NaT", "1970-01-01"]], "M8[D]")
    nested["matrix"] = np.arange(12, dtype="<f4").reshape(2, 2, 3)
    nested["half"] = [1.5, -2]
    loose = np.zeros(
        3, {"names": ["b", "a"], "formats": ["<u2", "<u2"], "offsets": [4, 0], "itemsize": 8}
    )  # fields out of order, with padding
    loose["a"], loose["b"] = [1, 2, 3], [4, 5, 6]
    return {"plain": plain, "nested": nested, "loose": loose}


def shapes() -> Arrays:
    grid = np.arange(32 * 33, dtype=np.float32).reshape(32, 33)
    cube = np.arange(9 * 8 * 8, dtype=np.float64).reshape(9, 8, 8)
    return {
        "scalar": np.array(3.25),
        "empty": np.zeros(0, np.int16),
        "empty3": np.zeros((3, 0, 5)),
        "ones": np.ones((1,) * 32, np.int8),
        "fortran small": np.asfortranarray(grid[:4, :3]),
        "fortran": np.asfortranarray(grid),
        "fortran cube": np.asfortranarray(cube),
        "c": grid,
        "strided": np.repeat(grid, 2, axis=1)[:, ::2],
        "reversed": grid[::-1, ::-1],
        "permuted": cube.transpose(1, 2, 0),
        "broadcast": np.broadcast_to(np.float32(7), (32, 33)),
    }


def gathered() -> Arrays:
    types = (np.dtype(np.float32), np.dtype(np.int64), np.dtype(ml_dtypes.bfloat16))
    arrays: Arrays = {f"layer.{i}": np.arange(i % 7, dtype=np.int64).astype(types[i % 3]) for i in range(60)}
    arrays["layer.30.large"] = np.arange(1500, dtype=np.float32)
    arrays["after"] = np.array([9.0], np.float32)
    return arrays


def chunked() -> Arrays:
    """Two segments of more than a chunk whose last chunk does not compress, one that does not, and small ones."""
    ramp = np.repeat(np.arange(1024, dtype=np.uint32), 256).tobytes()  # 1 MiB that compresses
    return {
        "ramp": np.frombuffer(ramp + noise("tail", 2048), np.float32),
        "noise": np.frombuffer(noise("noise", 5000), np.uint8),
        "zeros": np.zeros((2, 300_000), np.uint16),
        "small": np.arange(5),
    }


def named() -> Arrays:
    names = ["", " ", "a/b.c:d", "日本語", "\u0000", "x" * 300, "../../etc/passwd", "os.system"]
    return {name: np.array([index], np.uint8) for index, name in enumerate(names)}


def halves() -> Arrays:
    return {
        "w": np.array([1.0, 1.00390625, 1.01171875, -0.0, 3e-45, np.inf]),  # 1.0039… ties to even down, 1.0117… up
        "b": np.array([0.1, -7], np.float32),
        "n": np.array([1, 2]),
        "big": np.array([0.5], ">f8"),
        "half": np.array([0.5], np.float16),
    }


def some() -> Arrays:
    return {
        "weight": np.arange(2000, dtype=np.float32).reshape(40, 50),
        "bias": np.array([0.25, -1.0]),
        "half": np.array([1.5, -2], ml_dtypes.bfloat16),
        "fortran": np.asfortranarray(np.arange(6, dtype=np.int32).reshape(2, 3)),
        "scalar": np.array(True),
        "empty": np.zeros((0, 4)),
        "time": np.array(["2026-01-02"], "M8[s]"),
        "text": np.array(["é"]),
    }


def halves_native() -> Arrays:
    return {name: array for name, array in halves().items() if name != "big"}


def some_common() -> Arrays:
    return {name: array for name, array in some().items() if name not in ("time", "text")}


def common() -> Arrays:
    """What every format carries: every number that ``safetensors`` has a name for, shapes, layouts and names."""
    kinds = ("float16", "float32", "float64", "bfloat16", "float8_e4m3fn", "float8_e5m2", "int8", "int64", "uint16")
    grid = np.arange(1200, dtype=np.float32).reshape(30, 40)
    return {
        **{f"kind.{kind}": np.array([1, 2, 0.5], type_of(kind)) for kind in kinds},
        "bool": np.array([True, False]),
        "complex64": np.array([1 + 2j, -0.5j], np.complex64),
        "special": np.frombuffer(struct.pack("<4I", 0x80000000, 0x7FA12345, 0xFF800000, 1), np.float32),
        "scalar": np.array(3.25),
        "empty": np.zeros(0, np.int16),
        "empty 3": np.zeros((3, 0, 5), np.float32),
        "large": grid,
        "fortran": np.asfortranarray(grid),
        "strided": grid[::3, ::-2],
        "broadcast": np.broadcast_to(np.uint8(7), (2, 3)),
        "": np.array([1], np.int32),
        '日本語/é\u0000"\\': np.array([2], np.uint64),
        "../../etc/passwd": np.array([3], np.uint32),
    }


def uncommon() -> Arrays:
    """What ``safetensors`` refuses and the others carry."""
    arrays = {name: array for name, array in numbers().items() if name not in ("float32", "special32")}
    return {**common(), **arrays, **big_endian(), **texts_and_times(), **structures()}


def few() -> Arrays:
    """Arrays mostly of zeros, which ``fedwt1`` codes, with gaps of one, two and four bytes; and some others."""
    arrays: Arrays = {
        "zeros": np.zeros(500, np.float32),
        "gaps of 1": np.zeros(600, np.float32),
        "gaps of 2": np.zeros((30, 40), np.float64),
        "gaps of 4": np.zeros(70_003, np.int8),
        "negative zero": np.zeros(100, np.float32),
        "three bytes": np.zeros(90, "V3"),
        "bfloat16": np.zeros(100, ml_dtypes.bfloat16),
        "big": np.zeros(50, ">f8"),
        "dense": np.arange(1, 5, dtype=np.float32),
        "none": np.zeros(0, np.float32),
    }
    arrays["gaps of 1"][[0, 255, 599]] = [1.5, -2, np.nan]
    arrays["gaps of 2"][[0, 20], [1, 39]] = [0.25, -1]
    arrays["gaps of 4"][[1, 70_002]] = [-1, 1]
    arrays["negative zero"][50] = -0.0
    arrays["three bytes"][7] = np.void(b"\0\1\2")
    arrays["bfloat16"][99] = 1
    arrays["big"][3] = 2.5
    return arrays


def plain() -> Arrays:
    """What the seed's ``fedwt1`` says without any word of ours: indices for names, and types that it knows."""
    return {"0": np.arange(6, dtype=np.float32).reshape(2, 3), "1": np.array(7, np.int32), "2": np.array([True])}


def weights() -> Arrays:
    """Floats as training leaves them: few exponents, and mantissas of noise; and what ``lx`` is no good for."""

    def floats(kind: str, size: int, mantissa: int) -> np.ndarray[Any, Any]:
        width = type_of(kind).itemsize
        random = np.frombuffer(noise(kind, size * width), f"<u{width}")
        sign, low = random >> (8 * width - 1), random & ((1 << mantissa) - 1)
        exponent = (1 << (8 * width - mantissa - 2)) - 5 + (random >> mantissa) % 4
        return (sign << (8 * width - 1) | exponent << mantissa | low).astype(f"<u{width}").view(type_of(kind))

    return {
        "float32": floats("float32", 2500, 23).reshape(50, 50),
        "float16": floats("float16", 2100, 10),
        "bfloat16": floats("bfloat16", 2100, 7),
        "float64": floats("float64", 600, 52),
        "complex64": floats("float32", 1200, 23).view(np.complex64),
        "float8_e4m3fn": floats("float8_e4m3fn", 4200, 3),
        "rounded": floats("float32", 1500, 23).astype(np.float16).astype(np.float32),
        "large": np.linspace(0, 1, 17, dtype=np.float32).repeat(20_000),
        "fortran": np.asfortranarray(np.arange(1200, dtype=np.float32).reshape(30, 40)),
        "noise": np.frombuffer(noise("any", 4096), np.float32),
        "integers": np.arange(2000, dtype=np.int32),
        "big": np.ones(600, ">f8"),
        "small": np.array([1, -0.0, np.nan], np.float32),
        "scalar": np.array(2.5, np.float32),
        "empty": np.zeros((0, 2), np.float64),
    }


def halves_weights() -> Arrays:
    return {name: array for name, array in weights().items() if array.dtype == np.float32 and array.size < 10_000}


def model() -> Arrays:
    """A model that an update can be relative to; its names are not in the order in which they are sorted."""
    grid = np.arange(1500, dtype=np.float32).reshape(30, 50)
    arrays = {
        "w": grid,
        "fortran": np.asfortranarray(grid),
        "special": np.frombuffer(struct.pack("<4I", 0x7FC00001, 0x80000000, 1, 0xFF800000), np.float32),
        "half": np.array([1, -2, 0.5], ml_dtypes.bfloat16),
        "wide": np.array([1 + 2j, -0.5j], np.complex128),
        "big": np.arange(4, dtype=">f8"),
        "other order": np.arange(3, dtype="<f4"),
        "steps": np.array(41, np.int64),
        "flags": np.array([True, False]),
        "other shape": np.zeros(3),
        "other type": np.zeros(3),
        "text": np.array(["a", "b"]),
        "dropped": np.ones(2),
        "empty": np.zeros((0, 4)),
        "\U0001f600": np.array([1], np.uint16),
        "\uffee": np.array([2], np.uint16),
    }
    return dict(reversed(arrays.items()))


def model_trained() -> Arrays:
    """The same a round later: some bits of most tensors, some tensors anew, in another order."""
    old = model()
    arrays = {
        "new": np.array([3.5], np.float32),
        **{name: old[name] for name in ("flags", "empty", "\uffee", "text")},
        "w": old["w"] + np.float32(0.001),
        "fortran": old["fortran"] * np.float32(1.25),
        "special": np.frombuffer(struct.pack("<4I", 0x7FA12345, 0, 0x80000001, 0x7F800000), np.float32),
        "half": old["half"] * ml_dtypes.bfloat16(-1),
        "wide": old["wide"] * 1j,
        "big": old["big"][::-1],
        "other order": np.arange(3, dtype=">f4"),
        "steps": np.array(42, np.int64),
        "other shape": np.ones(4),
        "other type": np.ones(3, np.float32),
        "\U0001f600": np.array([65535], np.uint16),
    }
    return {**arrays, "bytes": np.array([b"ab"])}


def big_endian_weights() -> Arrays:
    """Floats as training leaves them, of which the highest byte stands first."""
    kinds = ("float16", "float32", "float64", "complex64")
    return {name: array.astype(array.dtype.newbyteorder(">")) for name, array in weights().items() if name in kinds}


METADATA: dict[str, object] = {
    "task": "digits",
    "round": 3,
    "accuracy": 0.97,
    "final": False,
    "nothing": None,
    "raw": b"\x00\xff",
    "sites": ["a", "é", ""],
    "nested": {"deep": [{"x": -1}, 2**63]},
}

TEXTS: dict[str, object] = {"round": "3", "": "é日", 'a"b': "\\"}
JSON: dict[str, object] = {key: value for key, value in METADATA.items() if key not in ("raw", "nested")} | {
    "\u0000": [{}]
}
KNOWN: dict[str, dict[str, object]] = {
    "fedwt1": JSON,
    "json_base64": JSON,
    "msgpack": METADATA,
    "protobuf": TEXTS,
    "safetensors": TEXTS,
}
"""What each format made elsewhere can say of its tensors."""

CASES: dict[str, Case] = {
    "minimal": Case(minimal, checksum="crc32c"),
    "no_tensors": Case(dict),
    "numbers": Case(numbers),
    "big_endian": Case(big_endian),
    "texts_and_times": Case(texts_and_times),
    "structures": Case(structures),
    "shapes": Case(shapes),
    "gathered": Case(gathered),
    "names": Case(named),
    "metadata": Case(some, metadata=METADATA),
    **{f"checksum_{name}": Case(some, checksum=name) for name in ("sha256", "xxh3", "crc32c", "none")},
    **{f"chunked_{name}": Case(chunked, f"dense | fedwt | {name}") for name in ("gzip", "zstd", "lz4")},
    "chunked_lz4_high": Case(chunked, "dense | fedwt | lz4(9)", "xxh3"),
    "gathered_zstd": Case(gathered, "dense | fedwt | zstd(9)"),
    "shapes_zstd": Case(shapes, "dense | fedwt | zstd"),
    "npy": Case(some, "dense | numpy | none"),
    "npy_gzip": Case(some, "dense | numpy | gzip(9)", metadata=METADATA),
    **{f"cast_{name}": Case(halves, f"cast({name}) | fedwt | none") for name in ("bfloat16", "float16", "float32")},
    "cast_npy_zstd": Case(halves, "cast(bfloat16) | numpy | zstd(1)", "sha256"),
    **{
        f"npy_{case.__name__}": Case(case, "dense | numpy | none")
        for case in (numbers, big_endian, texts_and_times, structures, shapes, named, dict)
    },
    **{f"in_{name}": Case(common if name == "safetensors" else uncommon, f"dense | {name} | none") for name in KNOWN},
    **{f"in_{name}_empty": Case(dict, f"dense | {name} | none", "xxh3") for name in KNOWN},
    **{f"in_{name}_zstd": Case(some_common, f"dense | {name} | zstd", "sha256", METADATA) for name in KNOWN},
    **{f"in_{name}_cast": Case(halves_native, f"cast(float16) | {name} | lz4", "crc32c") for name in KNOWN},
    "lx": Case(weights, "dense | fedwt | lx"),
    "lx_cast": Case(halves_weights, "cast(bfloat16) | fedwt | lx", "crc32c"),
    "lx_safetensors": Case(halves_weights, "dense | safetensors | lx", "sha256"),
    "lx_big_endian": Case(big_endian_weights, "dense | fedwt | lx"),
    "cast_big_endian": Case(big_endian_weights, "cast(bfloat16) | fedwt | none", "crc32c"),
    "delta_base": Case(model),
    "delta": Case(model_trained, "delta | fedwt | none", base="delta_base"),
    "delta_lx": Case(model_trained, "delta | fedwt | lx", "sha256", base="delta_base"),
    "delta_fedwt1_zstd": Case(model_trained, "delta | fedwt1 | zstd", base="delta_base"),
    "in_fedwt1_sparse": Case(few, "dense | fedwt1 | none"),
    "in_fedwt1_sparse_gzip": Case(few, "dense | fedwt1 | gzip(1)"),
}

FILES: dict[str, FileCase] = {
    **{name: FileCase(common if name == "safetensors" else uncommon, name, of) for name, of in KNOWN.items()},
    **{f"{name}_empty": FileCase(dict, name, {}) for name in KNOWN},
    "fedwt1_sparse": FileCase(few, "fedwt1", {}),
    "fedwt1_plain": FileCase(plain, "fedwt1", {"round": 3}),
    "protobuf_plain": FileCase(plain, "protobuf", {}),
}

PARTS: dict[str, PartsCase] = {
    "minimal": PartsCase("minimal", 1 << 20),
    "gathered": PartsCase("gathered", 1024),
    "tiny": PartsCase("minimal", 88 + 5),
}

NEWER_MINOR = "newer_minor"
"""A frame as a later minor version may write it: longer arrays, and a section that nobody here knows."""


def newer_minor() -> bytes:
    data = struct.pack("<3d", 1, 2, 3)
    digest = blake3.blake3(data).digest()
    header = [
        "blake3",
        [],
        [[24], digest, [], [], 0, [], "a later column", [1, 2]],
        [
            ["later", {"anything": [None, b"\x00"]}],
            ["pipeline", "dense | fedwt | none"],
            ["tensors", [["w"], b"\x01", [3], [0], ["float64"], [0], [], "a later column"]],
        ],
        {"a later": "field"},
    ]
    body = msgpack.packb(header)
    start = struct.pack("<8sBBHIQ", b"\x89FPF\r\n\x1a\n", 1, 7, 0, 0, len(body))
    head = start + blake3.blake3(start + body).digest(length=16) + body
    return head + bytes(-len(head) % 64) + data


def described(name: str, array: np.ndarray[Any, Any]) -> dict[str, object]:
    """What an array is, as JSON: its bytes in C order by digest, and the first values as text."""
    data = array.tobytes()
    return {
        "name": name,
        "type": type_text(array.dtype),
        "shape": list(array.shape),
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": data[:64].hex(),
        "values": [as_text(value) for value in array.reshape(-1)[:8]],
    }


def type_text(dtype: np.dtype[Any]) -> str:
    """An element type as text that does not depend on the NumPy version, and is not the name that frames use."""
    if dtype.subdtype is not None:
        return f"{type_text(dtype.subdtype[0])}{list(dtype.subdtype[1])}"
    if dtype.names is not None and dtype.fields is not None:
        fields = (f"{name} at {dtype.fields[name][1]}: {type_text(dtype.fields[name][0])}" for name in dtype.names)
        return f"{{{', '.join(fields)}}} of {dtype.itemsize}"
    return dtype.str if dtype.type.__module__ == "numpy" else dtype.name


def as_text(value: Any) -> str:
    """A scalar as text that does not depend on the NumPy version."""
    if value.dtype.names is not None:
        return "(" + ", ".join(as_text(np.asarray(value[field])) for field in value.dtype.names) + ")"
    if np.ndim(value):
        return "[" + ", ".join(as_text(item) for item in value.reshape(-1)) + "]"
    value = np.asarray(value)
    kind = value.dtype.kind
    if kind in "bmMU":
        return str(value[()])
    if kind == "S" or (kind == "V" and type_name(value) == "void"):
        return bytes(value.tobytes()).hex()
    if kind == "c":
        return repr(complex(value))
    return str(int(value)) if kind in "iu" or "int" in type_name(value) else repr(float(value))


def type_name(value: np.ndarray[Any, Any]) -> str:
    return value.dtype.type.__name__.removesuffix("_")


def main() -> None:
    """Write the files that are missing."""
    from fedpost.codecs import Base
    from fedpost.frame import Frame
    from fedpost.pipeline import METADATA as SECTION
    from fedpost.pipeline import Pipeline, decode_tensors

    for name, case in CASES.items():
        path = HERE / f"{name}.frame"
        if path.exists():
            continue
        tensors = case.tensors()
        sections = {} if case.metadata is None else {SECTION: dict(case.metadata)}
        base = None if case.base is None else Base.of(CASES[case.base].tensors())
        frame = Pipeline.parse(case.pipeline, checksum=case.checksum).encode(tensors, sections, base=base)
        data = bytes(frame)
        expected = tensors
        if case.pipeline.startswith("cast"):
            expected = decode_tensors(Frame.decode(data)).arrays()
        facts = {"checksum": case.checksum, "pipeline": case.pipeline}
        if base is not None:
            facts |= {"base": str(case.base), "digest": base.digest.hex()}
        write(path, data, facts, expected)
    path = HERE / f"{NEWER_MINOR}.frame"
    if not path.exists():
        facts = {"checksum": "blake3", "pipeline": "dense | fedwt | none"}
        write(path, newer_minor(), facts, {"w": np.array([1.0, 2.0, 3.0])})
    for name, file in FILES.items():
        path = HERE / "files" / f"{name}.{file.format}"
        if not path.exists():
            module = import_module(f"fedpost.tensors.{file.format}")
            data = b"".join(module.to_bytes(file.tensors(), file.metadata))
            write(path, data, {"format": file.format}, file.tensors())
    for name, cut in PARTS.items():
        path = HERE / "parts" / f"{name}.parts"
        if not path.exists():
            parts = Frame.open(HERE / f"{cut.frame}.frame").parts(cut.max_bytes)
            write(path, b"".join(map(bytes, parts)), {"frame": cut.frame, "max_bytes": cut.max_bytes}, {})


def write(path: Path, data: bytes, facts: Mapping[str, object], expected: Arrays) -> None:
    """Freeze a file, and what it holds.

    Raises:
        FileExistsError: One of the two is there already; what is frozen is never written again.
    """
    path.parent.mkdir(exist_ok=True)
    lines = ",\n".join(json.dumps(described(name, array)) for name, array in expected.items())
    text = f'{json.dumps({"size": len(data), **facts})[:-1]}, "tensors": [\n{lines}\n]}}\n'
    with path.with_suffix(".json").open("x") as file:
        file.write(text)
    with path.open("xb") as file:
        file.write(data)


if __name__ == "__main__":
    main()
