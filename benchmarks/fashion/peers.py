"""The peers: NNCodec and SZ3, by their own Python packages.

Rules: a stream is what the peer wrote, and it is decoded by the peer. Neither is a dependency of ours; both are
installed without theirs, which their coders do not use.
"""

from __future__ import annotations

import math
import struct
import sys
import types
from importlib.machinery import PathFinder
from typing import Any, Final

import numpy as np

from fashion.coders import PipelineCoder, Tensors
from fedpost.codecs import Base, Residual
from fedpost.errors import MissingExtraError
from fedpost.tensors import Array

__all__ = ["SZ3", "NNCodec"]

_MATRIX: Final = 2


class NNCodec:
    """The coder of ISO/IEC 15938-17 by Fraunhofer HHI, with row skipping; its trellis makes updates larger.

    Its quantization parameter is logarithmic, here 16 to the octave. How far it is above the root mean square of the
    update is found on the first one, where the error shall be that of ``uq(2.75)``, and then kept; vectors have a step
    an eighth as large relative to theirs, as in ``uq``.
    """

    _DENSITY: Final = 4
    _OCTAVE: Final = 16
    _FINER: Final = 3 * _OCTAVE

    def __init__(self) -> None:
        self._coder = _nncodec()
        self._above: int | None = None
        self._facts: dict[str, float] = {}

    def encode(self, tensors: Tensors, base: Base, residual: Residual | None) -> tuple[bytes, Residual]:
        """Code what changed, and what was lost before."""
        changes = _changes(tensors, base, residual)
        if self._above is None:
            self._above = self._calibrate(changes, tensors, base)
        data = self._code(changes, self._above)
        received = self._changes(data, changes)
        return data, {name: change - received[name] for name, change in changes.items()}

    def decode(self, data: bytes, base: Base) -> dict[str, Array]:
        """Add what it decodes to the base."""
        old = base.tensors.arrays()
        return {name: old[name] + change for name, change in self._changes(data, old).items()}

    def facts(self) -> dict[str, float]:
        """The steps of the parameter above the root mean square, and the errors on the first update."""
        return self._facts

    def _code(self, changes: Tensors, above: int) -> bytes:
        matrices = {name: change for name, change in changes.items() if change.ndim >= _MATRIX}
        vectors = {name: change for name, change in changes.items() if change.ndim < _MATRIX}
        steps = {}
        for group, finer in ((matrices, 0), (vectors, self._FINER)):
            level = self._OCTAVE * math.log2(max(_rms(group), 2.0**-60))
            steps |= dict.fromkeys(group, round(level) + above - finer)
        coded = self._coder.compress(
            dict(changes),
            bitstream_path=None,
            qp=next(iter(steps.values())),
            qp_density=self._DENSITY,
            qp_per_tensor=steps,
            use_dq=False,
            row_skipping=True,
            return_bitstream=True,
        )
        return bytes(coded)

    def _changes(self, data: bytes, like: Tensors) -> dict[str, Array]:
        decoded = self._coder.decompress(bytearray(data))
        return {name: np.asarray(decoded[name], np.float32).reshape(like[name].shape) for name in like}

    def _calibrate(self, changes: Tensors, tensors: Tensors, base: Base) -> int:
        """The coarsest parameter with no more error than ``uq(2.75)`` on this update."""
        ours = PipelineCoder("uq(2.75) | fedwt | none")
        data, lost = ours.encode(tensors, base, None)
        most = _norm(lost) / _norm(changes)

        def error(above: int) -> float:
            received = self._changes(self._code(changes, above), changes)
            return _norm({name: changes[name] - received[name] for name in changes}) / _norm(changes)

        low, high = -4 * self._OCTAVE, 4 * self._OCTAVE  # a sixteenth of the root mean square to sixteen times
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if error(middle) <= most else (low, middle)
        self._facts = {
            "above": low,
            "error": error(low),
            "uq_error": most,
            "bytes": len(self._code(changes, low)),
            "uq_bytes": len(data),
        }
        return low


def _nncodec() -> Any:
    """NNCodec's coder alone: importing the package imports the libraries of all its example applications."""
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


class SZ3:
    """SZ3 with a bound relative to each tensor's range of values, on what changed; vectors are sent as they are.

    Tensors are coded flat, which came out smaller than with their shapes. A stream is preceded by its length in four
    bytes; names and shapes are not sent at all.
    """

    _BOUND: Final = 1e-2
    _LENGTH: Final = struct.Struct("<I")

    def __init__(self) -> None:
        try:
            import pysz
        except ImportError as error:
            raise MissingExtraError("SZ3 is not installed", hint="pip install --no-deps pysz") from error
        self._pysz = pysz

    def encode(self, tensors: Tensors, base: Base, residual: Residual | None) -> tuple[bytes, Residual]:  # noqa: ARG002 - stateless
        """Code what changed."""
        config = self._pysz.szConfig()
        config.errorBoundMode = self._pysz.szErrorBoundMode.REL
        config.relErrorBound = self._BOUND
        parts = []
        for change in _changes(tensors, base, None).values():
            flat = change.reshape(-1)
            coded = flat if change.ndim < _MATRIX else self._pysz.sz.compress(flat, config)[0]
            data = coded.tobytes()
            parts += [self._LENGTH.pack(len(data)), data]
        return b"".join(parts), {}

    def decode(self, data: bytes, base: Base) -> dict[str, Array]:
        """Add what it decodes to the base, whose tensors come in the same order."""
        out, at = {}, 0
        for name, old in base.tensors.arrays().items():
            (length,) = self._LENGTH.unpack_from(data, at)
            at += self._LENGTH.size
            coded = np.frombuffer(data, np.uint8, length, at).copy()
            at += length
            if old.ndim < _MATRIX:
                flat = coded.view(np.float32)
            else:
                flat = self._pysz.sz.decompress(coded, np.float32, (old.size,))[0]
            out[name] = old + flat.reshape(old.shape)
        return out

    def facts(self) -> dict[str, float]:
        """The bound."""
        return {"bound": self._BOUND}


def _changes(tensors: Tensors, base: Base, residual: Residual | None) -> dict[str, Array]:
    old = base.tensors.arrays()
    lost = residual or {}
    return {
        name: tensors[name] - array + lost[name] if name in lost else tensors[name] - array
        for name, array in old.items()
    }


def _norm(tensors: Tensors) -> float:
    return math.sqrt(sum(float(np.square(array, dtype=np.float64).sum()) for array in tensors.values()))


def _rms(tensors: Tensors) -> float:
    return _norm(tensors) / math.sqrt(sum(array.size for array in tensors.values()))
