"""``CompressionOptimizer``: the strategy that suits each kind of data, and the way back that the original left out.

Rules: what it makes is a frame that says by which strategy; reading one runs no code. Weights and metadata come back
exactly. Gradients are quantized, in eight bits a value, without bias; their vectors, and what is no float, come back
exactly. A gradient is sent as its difference from the one before only where the receiver is known to have that, and
where the difference is the smaller. The gradients that came last may come again, and are the same then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import msgspec
import numpy as np

from fedpost.checksums import CHECKSUMS, DEFAULT_CHECKSUM
from fedpost.codecs import Base
from fedpost.compat.kafkafl.errors import serialization_errors
from fedpost.compat.kafkafl.package import SpecTable
from fedpost.compat.kafkafl.packing import Container, arrays_of, encode, is_model, named
from fedpost.compat.kafkafl.references import fit, length
from fedpost.errors import DecodeError, EncodeError
from fedpost.frame import DEFAULT_LIMITS, Frame, Limits
from fedpost.objects import REGISTRY, TypeRegistry, from_frame
from fedpost.pipeline import Pipeline, decode_tensors, pipeline_of, tensor_specs
from fedpost.tensors import Array, MemoryTensors, TensorSource, TensorSpec
from fedpost.tensors.dtypes import dtype_from_name
from fedpost.tensors.format import MAX_RANK, check_range

__all__ = ["CompressionOptimizer"]

Strategy = Literal["gradients", "sparse_weights", "dense_weights", "metadata"]

_SECTION: Final = "compressed"
_WHERE: Final = f"section {_SECTION!r}"
_NOTHING: Final = bytes(16)
"""What zeros are known by, where a gradient is relative to no other."""
_PIPELINES: Final[dict[str, str]] = {
    "gradients": "int8 | fedwt | zstd(3)",
    "sparse_weights": "dense | fedwt1 | zstd(3)",
    "dense_weights": "dense | fedwt | lx",
    "metadata": "dense | fedwt | zstd(3)",
}
_FLOATS: Final = ("float64", "float32", "float16", "bfloat16")
_MATRIX: Final = 2
_BITS: Final = range(1, 17)


class _Compressed(msgspec.Struct, frozen=True):
    """The section ``compressed``.

    Attributes:
        strategy: How it was made.
        container: What was given.
        specs: What gradients are, where they are relative to no others.
    """

    strategy: Strategy
    container: Container
    specs: SpecTable | None = None


class CompressionOptimizer:
    """Compresses by strategy, and undoes it; one optimizer on each side for each sender, one thread at a time.

    Args:
        limits: What is taken of what was received.
        registry: Which types other than the standard ones may be in metadata.

    Attributes:
        compression_strategies: From the kind of data to what compresses it: ``gradients`` (lossy), ``sparse_weights``
            and ``dense_weights`` (a list or tuple of arrays, or a dictionary of them by name), ``metadata`` (any
            object that :mod:`fedpost.objects` knows). Each returns bytes, and raises a
            :class:`SerializationError` for what cannot be sent; gradients may have no NaN or infinity.
    """

    def __init__(self, *, limits: Limits = DEFAULT_LIMITS, registry: TypeRegistry = REGISTRY) -> None:
        self.compression_strategies: Final[dict[str, Callable[[Any], bytes]]] = {
            "gradients": self._compress_gradients,
            "sparse_weights": self._compress_sparse_weights,
            "dense_weights": self._compress_dense_weights,
            "metadata": self._compress_metadata,
        }
        self._limits = limits
        self._registry = registry
        self._held: Base | None = None  # what the receiver of our gradients is known to have
        self._waiting: TensorSource | None = None  # what it was sent since
        self._received: Base | None = None
        self._last = b""  # the digest of the bytes that it came in

    def decompress(self, data: bytes | bytearray | memoryview) -> Any:
        """Undo any of the strategies; gradients that come twice, one delivery after the other, are the same twice.

        Returns:
            What was given, in the container in which it was; read-only arrays.

        Raises:
            SerializationError: It is damaged, over the limits, or relative to gradients that are not here.
        """
        with serialization_errors():
            data = bytes(data)
            frame = Frame.decode(data, limits=self._limits)
            said = frame.section(_SECTION, _Compressed, limit=self._limits.max_section)
            if said.container == "object":
                if said.strategy != "metadata":
                    raise DecodeError(f"an object that says it is {said.strategy}", where=_WHERE)
                return from_frame(frame, registry=self._registry, limits=self._limits)
            pipeline, usual = pipeline_of(frame), Pipeline.parse(_PIPELINES[said.strategy])
            if (pipeline.update, pipeline.format.name) != (usual.update, usual.format.name):
                raise DecodeError(f"{said.strategy} that were made by {pipeline}", where=_WHERE)
            if said.strategy != "gradients":
                return arrays_of(decode_tensors(frame, limits=self._limits), said.container)
            digest = CHECKSUMS.get(DEFAULT_CHECKSUM).of([memoryview(data)])
            if self._received is not None and digest == self._last:
                return arrays_of(self._received.tensors, said.container)  # a difference is not added twice
            arrays = self._gradients(frame, said).arrays()
            found = arrays_of(MemoryTensors(arrays), said.container)
            self._received, self._last = Base.of(arrays), digest
            return found

    @property
    def gradients_digest(self) -> bytes | None:
        """The 16 bytes that the gradients are known by which were received last; None where there are none."""
        return None if self._received is None else self._received.digest

    def acknowledge_gradients(self, digest: bytes | None = None) -> bool:
        """The receiver has the last gradients: the next ones may be sent as what differs.

        Args:
            digest: What the receiver's :attr:`gradients_digest` is; without it the caller's word is taken.

        Returns:
            Whether it counts now: False where none wait for it, or the receiver has something else.
        """
        if self._waiting is None:
            return False
        sent = Base.of(self._waiting.arrays())
        if digest is not None and digest != sent.digest:
            return False
        self._held, self._waiting = sent, None
        return True

    def reject_gradients(self) -> None:
        """The receiver does not have the last gradients, but still those before."""
        self._waiting = None

    # ── strategies ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _compress_gradients(self, gradients: Any) -> bytes:
        """Quantize, as a difference where that is smaller, and compress."""
        with serialization_errors():
            if not is_model(gradients):
                raise EncodeError(f"{type(gradients).__name__} is no list of arrays", where="gradients")
            arrays, container = named(gradients)
            base, specs = self._nearest(arrays), None
            if base is None:
                specs = SpecTable.of(arrays, arrays.values())
                base = Base(_NOTHING, _Zeros(MemoryTensors(arrays).specs))
            said = _Compressed("gradients", container, specs)
            frame = Pipeline.parse(_PIPELINES["gradients"]).encode(arrays, {_SECTION: said}, base=base)
            data = bytes(frame)
            # From the bytes: a view of the caller's own arrays could change.
            self._waiting = decode_tensors(Frame.decode(data, verify="never"), base=base)
            return data

    def _compress_sparse_weights(self, weights: Any) -> bytes:
        return self._compress("sparse_weights", weights)

    def _compress_dense_weights(self, weights: Any) -> bytes:
        return self._compress("dense_weights", weights)

    def _compress_metadata(self, metadata: Any) -> bytes:
        return self._compress("metadata", metadata)

    def _compress(self, strategy: Strategy, data: Any) -> bytes:
        with serialization_errors():
            if strategy != "metadata" and not is_model(data):
                raise EncodeError(f"{type(data).__name__} is no list of arrays", where=strategy)
            kind = "metadata" if strategy == "metadata" else "model_weights"
            frame, container, _ = encode(data, kind, Pipeline.parse(_PIPELINES[strategy]), self._registry)
            return bytes(frame.with_sections({_SECTION: _Compressed(strategy, container)}))

    def _nearest(self, gradients: Mapping[str, Array]) -> Base | None:
        """The last gradients that the receiver has, where it is shorter to them than to zero."""
        base = None if self._waiting is not None else self._held
        if base is None or not fit(old := base.tensors.arrays(), gradients):
            return None
        coded = [name for name, array in gradients.items() if _is_coded(array.dtype.name, array.shape)]
        near = sum(length(gradients[name], old[name]) ** 2 for name in coded)
        return base if near < sum(length(gradients[name]) ** 2 for name in coded) else None

    def _gradients(self, frame: Frame, said: _Compressed) -> TensorSource:
        if said.specs is None:
            return decode_tensors(frame, limits=self._limits, base=self._received)
        specs = tuple(_spec(*row) for row in said.specs.rows())
        sent = {spec.name: spec for spec in tensor_specs(frame, limits=self._limits)}
        if [spec.name for spec in specs] != list(sent):
            raise DecodeError("it says other arrays than there are", where=_WHERE)
        for spec in specs:  # a byte a value, at the least: so nothing large is made of little
            if spec.size > sent[spec.name].nbytes:
                raise DecodeError("it says more values than there are", where=f"tensor {spec.name!r}")
        return decode_tensors(frame, limits=self._limits, base=Base(_NOTHING, _Zeros(specs)))

    # ── the original's own quantizer ─────────────────────────────────────────────────────────────────────────────────

    def _quantize_array(self, array: Array, bits: int = 8) -> tuple[Array, float, float]:
        """Numbers of 0 to 2ᵇ−1 for what lies between an array's least and greatest values, in equal steps.

        Returns:
            The numbers (uint8, or uint16 for more than eight bits), the least value, and numbers a unit of value.

        Raises:
            SerializationError: A value is complex, NaN or infinite, or there are no such bits.
        """
        with serialization_errors():
            if bits not in _BITS:
                raise EncodeError(f"{bits} bits a value are not possible", hint="1 to 16 are.")
            if np.iscomplexobj(array):
                raise EncodeError("values are complex", hint="Give real and imaginary parts each by themselves.")
            wide = np.asarray(array, np.float64)
            if not np.isfinite(wide).all():
                raise EncodeError("values are NaN or infinite")
            least, most = (float(wide.min()), float(wide.max())) if wide.size else (0.0, 0.0)
            scale = ((1 << bits) - 1) / (most - least) if most > least else 1.0
            if not np.isfinite(scale) or not scale:
                raise EncodeError("values lie too close, or too far apart")
            dtype = np.uint8 if bits <= 8 else np.uint16  # noqa: PLR2004 - of a byte
            return np.rint((wide - least) * scale).astype(dtype), least, scale

    def _dequantize_array(self, quantized: Array, min_val: float, scale: float) -> Array:
        """The values, float64: each is off by at most half a step, ``0.5 / scale``."""
        return quantized / scale + min_val


class _Zeros:
    """Tensors of zeros that take no memory until they are read."""

    __slots__ = ("specs",)

    def __init__(self, specs: tuple[TensorSpec, ...]) -> None:
        self.specs = specs

    def arrays(self) -> dict[str, Array]:
        return {spec.name: np.zeros(spec.shape, spec.dtype) for spec in self.specs}

    def read(self, name: str, start: int, stop: int) -> Array:
        spec = next(spec for spec in self.specs if spec.name == name)
        check_range(spec.size, start, stop)
        return np.zeros(stop - start, spec.dtype)


def _spec(name: str, dtype: str, shape: tuple[int, ...]) -> TensorSpec:
    if len(shape) > MAX_RANK or any(dimension < 0 for dimension in shape):
        raise DecodeError(f"no such shape: {shape}"[:200], where=_WHERE)
    return TensorSpec(name, dtype_from_name(dtype), shape)


def _is_coded(dtype: str, shape: tuple[int, ...]) -> bool:
    return dtype in _FLOATS and len(shape) >= _MATRIX
