"""Coders of updates that others ship: NNCodec, SZ3, ZipNN, and Flower's parameters as they are.

Rules: each is given the model and its base, and gives the model back; what it wrote it reads itself. Names, shapes and
the base are not counted for who does not send them. One that is not installed is left out and named.
"""

from __future__ import annotations

import importlib.util
import math
import struct
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.machinery import PathFinder
from typing import Any, Final

import numpy as np
from peers import Arrays

from fedpost.errors import MissingExtraError

__all__ = [
    "FLOWER",
    "NNCODEC",
    "SZ3",
    "ZIPNN",
    "NNCodecCoder",
    "SZ3Coder",
    "Way",
    "changes",
    "missing_peers",
    "nncodec",
    "norm",
    "peers_of",
]

FLOWER, ZIPNN, SZ3, NNCODEC = "Flower Parameters", "ZipNN, of the XOR", "SZ3 at a hundredth of the range", "NNCodec"
_MODULES: Final = {"flwr": FLOWER, "zipnn": ZIPNN, "pysz": SZ3, "nncodec": NNCODEC}
_MATRIX: Final = 2


@dataclass(frozen=True, slots=True)
class Way:
    """One way of an update.

    Attributes:
        encode: From a model and its base to whatever is sent.
        decode: From that and the base to the model.
        size: Bytes of what is sent.
    """

    encode: Callable[[Arrays, Arrays], Any]
    decode: Callable[[Any, Arrays], Arrays]
    size: Callable[[Any], int]


def peers_of(without: frozenset[str]) -> dict[str, Way]:
    """Those that are installed, but NNCodec, whose step must be found first."""
    makers = {"flwr": _flower, "zipnn": _zipnn, "pysz": _sz3}
    return {_MODULES[module]: make() for module, make in makers.items() if _is_there(module, without)}


def missing_peers(without: frozenset[str]) -> tuple[str, ...]:
    """Those that are left out, each with the reason."""
    return tuple(
        f"{name} ({'left out' if module in without else f'{module} is not installed'})"
        for module, name in _MODULES.items()
        if not _is_there(module, without)
    )


def _is_there(module: str, without: frozenset[str]) -> bool:
    return module not in without and importlib.util.find_spec(module) is not None


def changes(new: Arrays, old: Arrays) -> Arrays:
    """What changed, tensor by tensor."""
    return {name: array - old[name] for name, array in new.items()}


def norm(arrays: Mapping[str, np.ndarray[Any, Any]]) -> float:
    """The Euclidean norm of all of them."""
    return math.sqrt(sum(float(np.square(array, dtype=np.float64).sum()) for array in arrays.values()))


def _flower() -> Way:
    from flwr.common import ndarrays_to_parameters, parameters_to_ndarrays

    return Way(
        lambda new, _: ndarrays_to_parameters(list(new.values())),
        lambda sent, old: dict(zip(old, parameters_to_ndarrays(sent), strict=True)),
        lambda sent: sum(map(len, sent.tensors)),
    )


def _zipnn() -> Way:
    import zipnn

    peer = zipnn.ZipNN(input_format="byte", bytearray_dtype="float32", threads=1)

    def encode(new: Arrays, old: Arrays) -> Any:
        parts = (np.bitwise_xor(array.view(np.uint32), old[name].view(np.uint32)) for name, array in new.items())
        return peer.compress(bytearray(b"".join(part.tobytes() for part in parts)))

    def decode(sent: Any, old: Arrays) -> Arrays:
        plain, at, out = peer.decompress(sent), 0, {}
        for name, array in old.items():
            part = np.frombuffer(plain, np.uint32, array.size, at).reshape(array.shape)
            out[name] = np.bitwise_xor(part, array.view(np.uint32)).view(np.float32)
            at += array.nbytes
        return out

    return Way(encode, decode, len)


def _sz3() -> Way:
    coder = SZ3Coder()
    return Way(
        lambda new, old: coder.code(changes(new, old)), lambda sent, old: _added(old, coder.read(sent, old)), len
    )


class SZ3Coder:
    """SZ3 with a bound of a hundredth of each tensor's range of values; vectors are sent as they are.

    Tensors are coded flat, which came out smaller than with their shapes. A stream is preceded by its length in four
    bytes; names and shapes are not sent at all.
    """

    BOUND: Final = 1e-2
    _LENGTH: Final = struct.Struct("<I")

    def __init__(self) -> None:
        try:
            import pysz
        except ImportError as error:
            raise MissingExtraError("SZ3 is not installed", hint="pip install --no-deps pysz") from error
        self._pysz = pysz

    def code(self, change: Arrays) -> bytes:
        """What changed, tensor by tensor."""
        config = self._pysz.szConfig()
        config.errorBoundMode = self._pysz.szErrorBoundMode.REL
        config.relErrorBound = self.BOUND
        parts = []
        for array in change.values():
            flat = array.reshape(-1)
            data = (flat if array.ndim < _MATRIX else self._pysz.sz.compress(flat, config)[0]).tobytes()
            parts += [self._LENGTH.pack(len(data)), data]
        return b"".join(parts)

    def read(self, data: bytes, like: Arrays) -> Arrays:
        """Undo :meth:`code`; the tensors come in the same order."""
        out, at = {}, 0
        for name, array in like.items():
            (length,) = self._LENGTH.unpack_from(data, at)
            at += self._LENGTH.size
            coded = np.frombuffer(data, np.uint8, length, at).copy()
            at += length
            if array.ndim < _MATRIX:
                flat = coded.view(np.float32)
            else:
                flat = self._pysz.sz.decompress(coded, np.float32, (array.size,))[0]
            out[name] = flat.reshape(array.shape)
        return out


def nncodec(step: int) -> Way:
    """NNCodec with a step; see :meth:`NNCodecCoder.code`."""
    coder = NNCodecCoder()
    return Way(
        lambda new, old: coder.code(changes(new, old), step), lambda sent, old: _added(old, coder.read(sent, old)), len
    )


class NNCodecCoder:
    """The coder of ISO/IEC 15938-17 by Fraunhofer HHI, without trellis quantization: on updates it is smaller so."""

    OCTAVE: Final = 16
    """Steps of its quantization parameter from a value to its double."""

    def __init__(self) -> None:
        self._coder = _coder()

    def code(self, change: Arrays, step: int) -> bytes:
        """What changed.

        Args:
            change: By name.
            step: The quantization parameter above the root mean square of the change; vectors have a step an eighth as
                large relative to theirs, as in ``uq``.
        """
        steps: dict[str, int] = {}
        for names, finer in (
            ([name for name in change if change[name].ndim >= _MATRIX], 0),
            ([name for name in change if change[name].ndim < _MATRIX], 3 * self.OCTAVE),
        ):
            count = sum(change[name].size for name in names)
            mean = norm({name: change[name] for name in names}) / math.sqrt(max(count, 1))
            level = round(self.OCTAVE * math.log2(max(mean, 2.0**-60)))
            steps |= dict.fromkeys(names, level + step - finer)
        return bytes(
            self._coder.compress(
                dict(change),
                bitstream_path=None,
                qp=next(iter(steps.values())),
                qp_density=4,
                qp_per_tensor=steps,
                use_dq=False,
                row_skipping=True,
                return_bitstream=True,
            )
        )

    def read(self, data: bytes, like: Arrays) -> Arrays:
        """Undo :meth:`code`."""
        found = self._coder.decompress(bytearray(data))
        return {name: np.asarray(found[name], np.float32).reshape(array.shape) for name, array in like.items()}


def _added(old: Arrays, change: Arrays) -> Arrays:
    return {name: array + change[name] for name, array in old.items()}


def _coder() -> Any:
    """Its coder alone: importing the package would import the libraries of all its example applications."""
    found = PathFinder.find_spec("nncodec")
    if found is None:
        raise MissingExtraError("NNCodec is not installed", hint="pip install --no-deps nncodec")
    package, applications = types.ModuleType("nncodec"), types.ModuleType("nncodec.framework")
    package.__path__ = list(found.submodule_search_locations or ())
    vars(applications).update(tensorflow_model=None, pytorch_model=None, use_case_init=None)
    sys.modules.setdefault("nncodec", package)
    sys.modules.setdefault("nncodec.framework", applications)
    from nncodec import nnc

    return nnc
